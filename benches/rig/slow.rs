//! Slow connections: each sends half of a TLS handshake and then nothing, and comes again when it is closed. They are
//! of an address of their own, as a network in front of many clients would be.

use std::io::{Read as _, Write as _};
use std::net::{Ipv4Addr, SocketAddr, SocketAddrV4, TcpStream};
use std::time::{Duration, Instant};

use anyhow::Result;
use rustix::event::epoll;
use rustix::fd::OwnedFd;
use rustix::net::{AddressFamily, SocketFlags, SocketType, bind, connect, socket_with, sockopt};

/// Where they come from.
const FROM: Ipv4Addr = Ipv4Addr::new(127, 0, 0, 2);
/// How many are opened in a second at most: more would measure this generator.
const OPENED_PER_SECOND: u32 = 5000;
/// A TLS record that announces a `ClientHello` of 508 bytes, and the first of them.
const HALF_A_HELLO: [u8; 16] = [22, 3, 1, 2, 0, 1, 0, 1, 252, 3, 3, 1, 2, 3, 4, 5];

pub(crate) struct Slow {
    /// Each with whether it has sent its half.
    connections: Vec<Option<(TcpStream, bool)>>,
    absent: Vec<usize>,
    next: Option<Instant>,
    closed: u64,
}

impl Slow {
    pub(crate) fn new(count: usize) -> Self {
        Self { connections: (0..count).map(|_| None).collect(), absent: (0..count).collect(), next: None, closed: 0 }
    }

    pub(crate) fn open(&self) -> usize {
        self.connections.len() - self.absent.len()
    }

    pub(crate) fn closed(&self) -> u64 {
        self.closed
    }

    /// Opens one of those that are closed, if it is time.
    pub(crate) fn open_due(&mut self, to: SocketAddr, epoll: &OwnedFd, base: u64, now: Instant) -> Result<usize> {
        if self.next.is_some_and(|next| now < next) {
            return Ok(0);
        }
        let Some(number) = self.absent.pop() else { return Ok(0) };
        self.next = Some(self.next.unwrap_or(now) + Duration::from_secs(1) / OPENED_PER_SECOND);
        let socket =
            socket_with(AddressFamily::INET, SocketType::STREAM, SocketFlags::NONBLOCK | SocketFlags::CLOEXEC, None)?;
        sockopt::set_socket_linger(&socket, Some(Duration::ZERO))?;
        bind(&socket, &SocketAddrV4::new(FROM, 0))?;
        match connect(&socket, &to) {
            Ok(()) | Err(rustix::io::Errno::INPROGRESS) => {}
            Err(error) => return Err(error.into()),
        }
        let events = epoll::EventFlags::IN | epoll::EventFlags::OUT | epoll::EventFlags::ET;
        epoll::add(epoll, &socket, epoll::EventData::new_u64(base + number as u64), events)?;
        self.connections[number] = Some((TcpStream::from(socket), false));
        Ok(1)
    }

    /// It is connected, or the server has closed it.
    pub(crate) fn happened(&mut self, number: usize) {
        let Some((connection, has_sent)) = &mut self.connections[number] else { return };
        let mut byte = [0; 1];
        let is_open = match connection.read(&mut byte) {
            Ok(count) => count > 0,
            Err(error) => error.kind() == std::io::ErrorKind::WouldBlock,
        };
        let sends = !std::mem::replace(has_sent, true);
        if !is_open || sends && connection.write_all(&HALF_A_HELLO).is_err() {
            self.connections[number] = None;
            self.absent.push(number);
            self.closed += 1;
        }
    }
}
