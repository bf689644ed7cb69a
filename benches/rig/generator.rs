//! A load generator for the token endpoint: one thread that spins, TLS connections that stay, prebuilt requests.
//!
//! Closed loop: every connection sends its next request as soon as it has an answer; that is saturation. Open loop:
//! requests are due at Poisson times whether or not the last ones were answered, and latency counts from the time a
//! request was due, so a server that stalls cannot hide it (coordinated omission). Spinning on `epoll_wait(0)` keeps
//! timers, and the millisecond they are exact to, out of the figures.
//!
//! A run is void where [`Outcome::busy`] is above 0.8: then this is what was measured.

use std::collections::VecDeque;
use std::io::{ErrorKind, Read as _, Write as _};
use std::net::{SocketAddr, TcpStream};
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail, ensure};
use rustix::buffer::spare_capacity;
use rustix::event::{Timespec, epoll};
use rustix::fd::OwnedFd;
use rustls::pki_types::ServerName;
use rustls::{ClientConfig, ClientConnection};
use serde::{Deserialize, Serialize};

/// How long answers are not counted at first.
const WARM_UP: Duration = Duration::from_secs(1);

/// What to send, and where.
pub(crate) struct Load {
    pub address: SocketAddr,
    pub tls: Arc<ClientConfig>,
    pub connections: usize,
    /// Whole HTTP/1.1 requests; each time one of them at random.
    pub requests: Vec<Vec<u8>>,
    pub pace: Pace,
    pub seconds: f64,
}

/// When requests are sent.
#[derive(Clone, Copy)]
pub(crate) enum Pace {
    /// When the last one was answered.
    Closed,
    /// At random times, this many a second.
    Open(f64),
}

/// What came of it.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct Outcome {
    /// Answers with 200 within the window.
    pub answers: u64,
    /// Other answers.
    pub refused: u64,
    pub seconds: f64,
    /// Latency in milliseconds, of all answers within the window.
    pub p50: f64,
    pub p99: f64,
    pub p999: f64,
    /// The share of time in which this generator was not merely waiting.
    pub busy: f64,
    /// CPU time of the server within the window.
    pub server_cpu: f64,
}

/// Runs the load; `server_cpu` is read at both ends of the window.
pub(crate) fn run(load: &Load, server_cpu: impl Fn() -> Result<Duration>) -> Result<Outcome> {
    let mut generator = Generator::connect(load)?;
    generator.until(load, Instant::now() + WARM_UP)?;
    generator.forget();
    let (started, before) = (Instant::now(), server_cpu()?);
    generator.until(load, started + Duration::from_secs_f64(load.seconds))?;
    let (seconds, cpu) = (started.elapsed().as_secs_f64(), server_cpu()? - before);
    generator.latencies.sort_unstable();
    let at = |share: f64| quantile(&generator.latencies, share);
    Ok(Outcome {
        answers: generator.latencies.len() as u64 - generator.refused,
        refused: generator.refused,
        seconds,
        p50: at(0.5),
        p99: at(0.99),
        p999: at(0.999),
        busy: 1.0 - generator.idle.as_secs_f64() / seconds,
        server_cpu: cpu.as_secs_f64(),
    })
}

struct Generator {
    epoll: OwnedFd,
    connections: Vec<Connection>,
    free: Vec<usize>,
    /// Requests that are due and have no connection yet, by the time they were due.
    due: VecDeque<Instant>,
    next_due: Instant,
    random: u64,
    /// In nanoseconds.
    latencies: Vec<u64>,
    refused: u64,
    idle: Duration,
}

struct Connection {
    tcp: TcpStream,
    tls: ClientConnection,
    due: Instant,
    answer: Vec<u8>,
}

impl Generator {
    fn connect(load: &Load) -> Result<Self> {
        let epoll = epoll::create(epoll::CreateFlags::CLOEXEC)?;
        let mut connections = Vec::new();
        for number in 0..load.connections {
            let connection = Connection::open(load)?;
            epoll::add(&epoll, &connection.tcp, epoll::EventData::new_u64(number as u64), epoll::EventFlags::IN)?;
            connections.push(connection);
        }
        Ok(Self {
            epoll,
            free: (0..connections.len()).collect(),
            connections,
            due: VecDeque::new(),
            next_due: Instant::now(),
            random: 0x9e37_79b9_7f4a_7c15,
            latencies: Vec::with_capacity(1 << 20),
            refused: 0,
            idle: Duration::ZERO,
        })
    }

    fn forget(&mut self) {
        self.latencies.clear();
        self.refused = 0;
        self.idle = Duration::ZERO;
    }

    fn until(&mut self, load: &Load, end: Instant) -> Result<()> {
        let mut events = Vec::with_capacity(self.connections.len());
        let mut last = Instant::now();
        while last < end {
            let sent = self.send_due(load, last)?;
            epoll::wait(&self.epoll, spare_capacity(&mut events), Some(&Timespec { tv_sec: 0, tv_nsec: 0 }))?;
            let received = events.len();
            for event in events.drain(..) {
                self.receive(usize::try_from(event.data.u64())?)?;
            }
            let now = Instant::now();
            if sent + received == 0 {
                self.idle += now - last;
            }
            last = now;
        }
        Ok(())
    }

    /// Sends what is due on free connections, and says how many were sent.
    fn send_due(&mut self, load: &Load, now: Instant) -> Result<usize> {
        if let Pace::Open(rate) = load.pace {
            while self.next_due <= now {
                self.due.push_back(self.next_due);
                let gap = -(1.0 - self.uniform()).ln() / rate;
                self.next_due += Duration::from_secs_f64(gap);
            }
        }
        let mut sent = 0;
        while let Some(number) = self.free.pop() {
            let due = match load.pace {
                Pace::Closed => now,
                Pace::Open(_) => {
                    let Some(due) = self.due.pop_front() else {
                        self.free.push(number);
                        break;
                    };
                    due
                }
            };
            let request = &load.requests[self.next_random() as usize % load.requests.len()];
            self.connections[number].send(request, due)?;
            sent += 1;
        }
        Ok(sent)
    }

    fn receive(&mut self, number: usize) -> Result<()> {
        let connection = &mut self.connections[number];
        let Some(status) = connection.receive()? else { return Ok(()) };
        self.latencies.push(u64::try_from(connection.due.elapsed().as_nanos())?);
        self.refused += u64::from(status != 200);
        self.free.push(number);
        Ok(())
    }

    /// xorshift64*: good enough to spread clients and arrivals, and the same in every run.
    fn next_random(&mut self) -> u64 {
        self.random ^= self.random >> 12;
        self.random ^= self.random << 25;
        self.random ^= self.random >> 27;
        self.random.wrapping_mul(0x2545_f491_4f6c_dd1d) >> 16
    }

    /// From 0, below 1.
    fn uniform(&mut self) -> f64 {
        self.next_random() as f64 / (1_u64 << 48) as f64
    }
}

impl Connection {
    fn open(load: &Load) -> Result<Self> {
        let mut tcp = TcpStream::connect(load.address)?;
        tcp.set_nodelay(true)?;
        let mut tls = ClientConnection::new(load.tls.clone(), ServerName::IpAddress(load.address.ip().into()))?;
        while tls.is_handshaking() {
            tls.complete_io(&mut tcp).context("the TLS handshake")?;
        }
        tcp.set_nonblocking(true)?;
        Ok(Self { tcp, tls, due: Instant::now(), answer: Vec::with_capacity(2048) })
    }

    fn send(&mut self, request: &[u8], due: Instant) -> Result<()> {
        self.due = due;
        self.tls.writer().write_all(request)?;
        while self.tls.wants_write() {
            self.tls.write_tls(&mut self.tcp).context("a request does not fit into the socket")?;
        }
        Ok(())
    }

    /// The status of an answer that is complete now.
    fn receive(&mut self) -> Result<Option<u16>> {
        match self.tls.read_tls(&mut self.tcp) {
            Ok(0) => bail!("the server closed a connection"),
            Ok(_) => {}
            Err(error) if error.kind() == ErrorKind::WouldBlock => return Ok(None),
            Err(error) => return Err(error.into()),
        }
        let state = self.tls.process_new_packets()?;
        let (begin, plain) = (self.answer.len(), state.plaintext_bytes_to_read());
        self.answer.resize(begin + plain, 0);
        self.tls.reader().read_exact(&mut self.answer[begin..])?;
        let status = complete(&self.answer)?;
        if status.is_some() {
            self.answer.clear();
        }
        Ok(status)
    }
}

/// The status of an answer with a `Content-Length`, if it is complete.
fn complete(answer: &[u8]) -> Result<Option<u16>> {
    let Some(head) = answer.windows(4).position(|bytes| bytes == b"\r\n\r\n") else { return Ok(None) };
    let text = std::str::from_utf8(&answer[..head])?;
    let mut lines = text.split("\r\n");
    let status = lines.next().and_then(|line| line.split(' ').nth(1)).context("a status line")?.parse()?;
    let field = lines.find_map(|line| {
        let (name, value) = line.split_once(':')?;
        name.eq_ignore_ascii_case("content-length").then_some(value)
    });
    let body: usize = field.context("a Content-Length")?.trim().parse()?;
    ensure!(answer.len() <= head + 4 + body, "more than one answer to one request");
    Ok((answer.len() == head + 4 + body).then_some(status))
}

/// In milliseconds.
fn quantile(sorted: &[u64], share: f64) -> f64 {
    let rank = (sorted.len() as f64 * share) as usize;
    sorted.get(rank.min(sorted.len().saturating_sub(1))).map_or(f64::NAN, |nanos| *nanos as f64 / 1e6)
}
