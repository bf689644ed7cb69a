//! A load generator for the token service: one thread that spins, TLS connections, prebuilt requests.
//!
//! Closed loop: every connection sends its next request as soon as it has an answer; that is saturation. Open loop:
//! requests are due at Poisson times whether or not the last ones were answered, and latency counts from the time a
//! request was due, so a server that stalls cannot hide it (coordinated omission). Spinning on `epoll_wait(0)` keeps
//! timers, and the millisecond they are exact to, out of the figures.
//!
//! A run is void where [`Outcome::busy`] is above 0.8: then this is what was measured.

use std::collections::VecDeque;
use std::io::ErrorKind;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, ensure};
use rustix::buffer::spare_capacity;
use rustix::event::{Timespec, epoll};
use rustix::fd::OwnedFd;
use rustls::ClientConfig;
use serde::{Deserialize, Serialize};

use crate::connection::{Answer, Connection};
use crate::slow::Slow;

/// How long answers are not counted at first.
const WARM_UP: Duration = Duration::from_secs(1);
/// Longer than this between two looks at the clock, and something kept this generator from its core.
pub(crate) const HELD_UP: Duration = Duration::from_micros(500);
/// What a request or an answer costs this generator at most.
const WORK: Duration = Duration::from_micros(20);
/// Events of slow connections are told from those of honest ones by this.
const SLOW: u64 = 1 << 32;

/// What to send, and where.
pub(crate) struct Load {
    pub address: SocketAddr,
    pub tls: Arc<ClientConfig>,
    pub connections: usize,
    pub lives: Lives,
    pub requests: Vec<Vec<u8>>,
    pub order: Order,
    pub pace: Pace,
    pub seconds: f64,
    /// Connections from another address that send half of something and then nothing.
    pub slow: usize,
}

/// How long a connection lives.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Lives {
    /// Through all requests.
    On,
    /// For one request: each has a handshake of its own.
    Once,
}

/// Which request is the next.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Order {
    /// One of them at random.
    Random,
    /// Each once: it may not be repeated.
    Once,
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
    /// Answers with what was asked for (200, 304) within the window.
    pub answers: u64,
    /// Answers with 503 and Retry-After.
    pub sent_away: u64,
    /// Other answers.
    pub refused: u64,
    pub seconds: f64,
    /// Latency in milliseconds, of the answers with what was asked for.
    pub p50: f64,
    pub p99: f64,
    pub p999: f64,
    /// The 99th percentile of those answers during which this generator was never held up itself, and their share.
    pub undisturbed_p99: f64,
    pub undisturbed: f64,
    /// The share of time in which it was.
    pub held_up: f64,
    /// The same of those sent away.
    pub sent_away_p99: f64,
    /// The share of time in which this generator was not merely waiting.
    pub busy: f64,
    /// CPU time of the server within the window.
    pub server_cpu: f64,
    /// Slow connections that were open at the end, and how often the server closed one.
    pub slow_open: usize,
    pub slow_closed: u64,
}

/// Runs the load; `server_cpu` is read at both ends of the window.
pub(crate) fn run(load: &Load, server_cpu: impl Fn() -> Result<Duration>) -> Result<Outcome> {
    let mut generator = Generator::connect(load)?;
    generator.until(load, Instant::now() + WARM_UP)?;
    generator.forget();
    let (started, before) = (Instant::now(), server_cpu()?);
    generator.until(load, started + Duration::from_secs_f64(load.seconds))?;
    let (seconds, cpu) = (started.elapsed().as_secs_f64(), server_cpu()?.saturating_sub(before));
    generator.latencies.sort_unstable();
    generator.sent_away.sort_unstable();
    generator.undisturbed.sort_unstable();
    let at = |share: f64| quantile(&generator.latencies, share);
    Ok(Outcome {
        answers: generator.latencies.len() as u64,
        sent_away: generator.sent_away.len() as u64,
        refused: generator.refused,
        seconds,
        p50: at(0.5),
        p99: at(0.99),
        p999: at(0.999),
        undisturbed_p99: quantile(&generator.undisturbed, 0.99),
        undisturbed: generator.undisturbed.len() as f64 / generator.latencies.len().max(1) as f64,
        held_up: generator.held_up.as_secs_f64() / seconds,
        sent_away_p99: quantile(&generator.sent_away, 0.99),
        busy: 1.0 - generator.idle.as_secs_f64() / seconds,
        server_cpu: cpu.as_secs_f64(),
        slow_open: generator.slow.as_ref().map_or(0, Slow::open),
        slow_closed: generator.slow.as_ref().map_or(0, Slow::closed),
    })
}

struct Generator {
    epoll: OwnedFd,
    /// `None` where the next request opens it.
    connections: Vec<Option<Connection>>,
    free: Vec<usize>,
    slow: Option<Slow>,
    /// Requests that are due and have no connection yet, by the time they were due.
    due: VecDeque<Instant>,
    next_due: Instant,
    next: usize,
    random: u64,
    /// In nanoseconds.
    latencies: Vec<u64>,
    undisturbed: Vec<u64>,
    sent_away: Vec<u64>,
    refused: u64,
    idle: Duration,
    held_up: Duration,
    /// The end of the last time it was held up.
    ran_since: Instant,
}

impl Generator {
    fn connect(load: &Load) -> Result<Self> {
        let mut generator = Self {
            epoll: epoll::create(epoll::CreateFlags::CLOEXEC)?,
            connections: (0..load.connections).map(|_| None).collect(),
            free: (0..load.connections).collect(),
            slow: (load.slow > 0).then(|| Slow::new(load.slow)),
            due: VecDeque::new(),
            next_due: Instant::now(),
            next: 0,
            random: 0x9e37_79b9_7f4a_7c15,
            latencies: Vec::with_capacity(1 << 20),
            undisturbed: Vec::with_capacity(1 << 20),
            held_up: Duration::ZERO,
            ran_since: Instant::now(),
            sent_away: Vec::new(),
            refused: 0,
            idle: Duration::ZERO,
        };
        if load.lives == Lives::On {
            for number in 0..load.connections {
                generator.open(load, number)?.finish_handshake()?;
            }
        }
        // What was due while they were opened is not.
        generator.next_due = Instant::now();
        Ok(generator)
    }

    fn open(&mut self, load: &Load, number: usize) -> Result<&mut Connection> {
        let connection = Connection::open(load.address, &load.tls)?;
        let data = epoll::EventData::new_u64(number as u64);
        epoll::add(&self.epoll, connection.socket(), data, epoll::EventFlags::IN)?;
        Ok(self.connections[number].insert(connection))
    }

    fn forget(&mut self) {
        self.latencies.clear();
        self.undisturbed.clear();
        self.held_up = Duration::ZERO;
        self.sent_away.clear();
        self.refused = 0;
        self.idle = Duration::ZERO;
    }

    fn until(&mut self, load: &Load, end: Instant) -> Result<()> {
        let mut events = Vec::with_capacity(1024);
        let mut last = Instant::now();
        while last < end {
            let mut done = self.send_due(load, last)?;
            if let Some(slow) = &mut self.slow {
                done += slow.open_due(load.address, &self.epoll, SLOW, last)?;
            }
            epoll::wait(&self.epoll, spare_capacity(&mut events), Some(&Timespec { tv_sec: 0, tv_nsec: 0 }))?;
            done += events.len();
            for event in events.drain(..) {
                let number = event.data.u64();
                match (&mut self.slow, number.checked_sub(SLOW)) {
                    (Some(slow), Some(number)) => slow.happened(usize::try_from(number)?),
                    _ => self.receive(load, usize::try_from(number)?)?,
                }
            }
            let now = Instant::now();
            if done == 0 {
                self.idle += now - last;
            }
            if now - last > HELD_UP + WORK * u32::try_from(done)? {
                self.held_up += now - last;
                self.ran_since = now;
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
            let request = &load.requests[self.choose(load)?];
            if self.connections[number].is_none() {
                self.open(load, number)?;
            }
            self.connections[number].as_mut().context("a connection")?.send(request, due)?;
            sent += 1;
        }
        Ok(sent)
    }

    fn choose(&mut self, load: &Load) -> Result<usize> {
        match load.order {
            Order::Random => Ok(self.next_random() as usize % load.requests.len()),
            Order::Once => {
                self.next += 1;
                ensure!(self.next <= load.requests.len(), "too few requests were prepared: the server is faster");
                Ok(self.next - 1)
            }
        }
    }

    fn receive(&mut self, load: &Load, number: usize) -> Result<()> {
        let Some(connection) = &mut self.connections[number] else { return Ok(()) };
        let Some(Answer { status, due, latency }) = connection.receive()? else { return Ok(()) };
        match status {
            200 | 304 => {
                self.latencies.push(latency);
                if due > self.ran_since {
                    self.undisturbed.push(latency);
                }
            }
            503 => self.sent_away.push(latency),
            _ => self.refused += 1,
        }
        if load.lives == Lives::Once {
            self.connections[number].take().context("a connection")?.reset()?;
        }
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

/// Whether a read or a write has to be tried later.
pub(crate) fn later<T>(result: std::io::Result<T>) -> Result<Option<T>> {
    match result {
        Ok(value) => Ok(Some(value)),
        Err(error) if error.kind() == ErrorKind::WouldBlock => Ok(None),
        Err(error) => Err(error.into()),
    }
}

/// In milliseconds.
fn quantile(sorted: &[u64], share: f64) -> f64 {
    let rank = (sorted.len() as f64 * share) as usize;
    sorted.get(rank.min(sorted.len().saturating_sub(1))).map_or(0.0, |nanos| *nanos as f64 / 1e6)
}
