//! One TLS connection of the load generator, which never blocks.

use std::io::{Read as _, Write as _};
use std::net::{SocketAddr, TcpStream};
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, ensure};
use rustls::pki_types::ServerName;
use rustls::{ClientConfig, ClientConnection};

use crate::generator::later;
use crate::requests::field;

/// A connection with at most one request at a time.
pub(crate) struct Connection {
    tcp: TcpStream,
    tls: ClientConnection,
    due: Instant,
    answer: Vec<u8>,
}

/// An answer that is complete.
pub(crate) struct Answer {
    pub status: u16,
    pub due: Instant,
    /// Since the request was due, in nanoseconds.
    pub latency: u64,
}

impl Connection {
    pub(crate) fn open(address: SocketAddr, tls: &Arc<ClientConfig>) -> Result<Self> {
        let tcp = TcpStream::connect(address)?;
        tcp.set_nodelay(true)?;
        tcp.set_nonblocking(true)?;
        let tls = ClientConnection::new(tls.clone(), ServerName::IpAddress(address.ip().into()))?;
        Ok(Self { tcp, tls, due: Instant::now(), answer: Vec::with_capacity(2048) })
    }

    pub(crate) fn socket(&self) -> &TcpStream {
        &self.tcp
    }

    /// Waits for the end of the handshake.
    pub(crate) fn finish_handshake(&mut self) -> Result<()> {
        self.tcp.set_nonblocking(false)?;
        while self.tls.is_handshaking() {
            self.tls.complete_io(&mut self.tcp).context("the TLS handshake")?;
        }
        self.tcp.set_nonblocking(true)?;
        Ok(())
    }

    /// Sends a request; before the end of the handshake it goes with that.
    pub(crate) fn send(&mut self, request: &[u8], due: Instant) -> Result<()> {
        self.due = due;
        self.tls.writer().write_all(request)?;
        self.write()
    }

    fn write(&mut self) -> Result<()> {
        while self.tls.wants_write() {
            self.tls.write_tls(&mut self.tcp).context("a request does not fit into the socket")?;
        }
        Ok(())
    }

    /// The answer, once it is complete.
    pub(crate) fn receive(&mut self) -> Result<Option<Answer>> {
        let Some(count) = later(self.tls.read_tls(&mut self.tcp))? else { return Ok(None) };
        ensure!(count > 0, "the server closed a connection");
        let state = self.tls.process_new_packets()?;
        let (begin, plain) = (self.answer.len(), state.plaintext_bytes_to_read());
        self.answer.resize(begin + plain, 0);
        self.tls.reader().read_exact(&mut self.answer[begin..])?;
        self.write()?;
        let Some(status) = complete(&self.answer)? else { return Ok(None) };
        self.answer.clear();
        Ok(Some(Answer { status, due: self.due, latency: u64::try_from(self.due.elapsed().as_nanos())? }))
    }

    /// Closes it without leaving its port in use for a minute.
    pub(crate) fn reset(self) -> Result<()> {
        Ok(rustix::net::sockopt::set_socket_linger(&self.tcp, Some(Duration::ZERO))?)
    }
}

/// The status of an answer, if it is complete. Of 503 also that it says when to come again.
fn complete(answer: &[u8]) -> Result<Option<u16>> {
    let Some(end) = answer.windows(4).position(|bytes| bytes == b"\r\n\r\n") else { return Ok(None) };
    let head = std::str::from_utf8(&answer[..end])?;
    let status: u16 = head.split(' ').nth(1).context("a status line")?.parse()?;
    ensure!(status != 503 || field(head, "retry-after").is_some(), "503 without Retry-After");
    let body: usize =
        if status == 304 { 0 } else { field(head, "content-length").context("a Content-Length")?.parse()? };
    ensure!(answer.len() <= end + 4 + body, "more than one answer to one request");
    Ok((answer.len() == end + 4 + body).then_some(status))
}
