//! What a connection is doing: which of its requests are not answered yet, or answered and not taken.
//!
//! hyper has no deadline for an HTTP/2 stream whose peer opens no window for its answer. Time is cut into periods here, and
//! a request counts in the one that it began in: who looks once a period sees what is older than one. Until then, what lies
//! about is bounded: the less room there is for open requests, the fewer may one address have.

use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::task::{Context, Poll};

use bytes::Bytes;
use hyper::body::{Frame, SizeHint};

use super::peer::Credit;
use super::service::Body;
use crate::seats::{InUse, Place, share};

/// How many requests may be open, over all connections. One takes about 3 KiB.
const MOST_OPEN: usize = 1 << 14;
/// How many of them an address may have in any case.
const ALWAYS_OPEN_OF_AN_ADDRESS: usize = 8;

/// A connection.
#[derive(Debug)]
pub(super) struct Connection {
    place: Arc<Place>,
    /// What may be tried on it.
    pub(super) credit: Arc<Credit>,
    /// How many periods have ended.
    periods: AtomicUsize,
    /// How many requests of the even and of the odd periods are open.
    open: [AtomicUsize; 2],
}

/// A request that is open until this is dropped.
#[derive(Debug)]
pub(super) struct Answering {
    connection: Arc<Connection>,
    parity: usize,
    _in_use: InUse,
}

/// The body of an answer: its request is open until all of it was taken.
pub(super) struct Answered {
    body: Body,
    _answering: Answering,
}

impl Connection {
    pub(super) fn new(place: Arc<Place>) -> Self {
        Self { place, credit: Arc::default(), periods: AtomicUsize::new(0), open: Default::default() }
    }

    /// A request begins. `None` if its address has too many open.
    pub(super) fn begin(self: &Arc<Self>) -> Option<Answering> {
        let in_use = self.place.begin();
        let (own, all) = in_use.of_address_and_all();
        if own > ALWAYS_OPEN_OF_AN_ADDRESS && own > share(MOST_OPEN.saturating_sub(all), MOST_OPEN) {
            return None;
        }
        let parity = self.periods.load(Ordering::Relaxed) % 2;
        self.open[parity].fetch_add(1, Ordering::Relaxed);
        Some(Answering { connection: self.clone(), parity, _in_use: in_use })
    }

    /// Ends a period. Whether a request is open that began before it.
    pub(super) fn is_stuck(&self) -> bool {
        let ended = self.periods.fetch_add(1, Ordering::Relaxed);
        self.open[(ended + 1) % 2].load(Ordering::Relaxed) > 0
    }
}

impl Drop for Answering {
    fn drop(&mut self) {
        self.connection.open[self.parity].fetch_sub(1, Ordering::Relaxed);
    }
}

impl Answered {
    pub(super) fn new(body: Body, answering: Answering) -> Self {
        Self { body, _answering: answering }
    }
}

impl hyper::body::Body for Answered {
    type Data = Bytes;
    type Error = std::convert::Infallible;

    fn poll_frame(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, Self::Error>>> {
        Pin::new(&mut self.body).poll_frame(cx)
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::seats::Seats;

    fn connection() -> Arc<Connection> {
        Arc::new(Connection::new(Arc::default()))
    }

    #[test]
    fn a_request_that_is_open_for_a_whole_period_is_stuck_and_one_that_has_just_begun_is_not() {
        let connection = connection();
        assert!(!connection.is_stuck(), "nothing is open");
        let old = connection.begin();
        assert!(!connection.is_stuck(), "it began in the period that ends");
        let young = connection.begin();
        assert!(connection.is_stuck());
        drop(old);
        assert!(connection.is_stuck(), "the younger one is a period old by now");
        drop(young);
        assert!(!connection.is_stuck());
    }

    #[test]
    fn an_answer_is_open_until_its_body_is_gone() {
        let connection = connection();
        let body = Answered::new(Body::from("text"), connection.begin().unwrap());
        assert!(!connection.is_stuck() && connection.is_stuck());
        drop(body);
        assert!(!connection.is_stuck());
    }

    #[test]
    fn whoever_takes_no_answers_has_room_for_some_and_leaves_enough_for_others() {
        let seats = Arc::new(Seats::new(1000, 1000));
        let seat_of = |n: u8| seats.take([192, 0, 2, n].into()).unwrap();
        let mut open = Vec::new();
        for greedy in 0..50 {
            // Whether it is one connection or many makes no difference.
            let two = [seat_of(greedy), seat_of(greedy)];
            let connections = two.each_ref().map(|seat| Arc::new(Connection::new(seat.place())));
            let before = open.len();
            while let Some(answering) = connections[open.len() % 2].begin() {
                open.push(answering);
            }
            assert!(greedy > 0 || open.len() < MOST_OPEN / 2, "{}", open.len());
            assert!(open.len() - before >= ALWAYS_OPEN_OF_AN_ADDRESS);
        }
        assert!(open.len() < MOST_OPEN);
        let honest = Arc::new(Connection::new(seat_of(200).place()));
        let answering: Vec<_> = (0..10).map_while(|_| honest.begin()).collect();
        assert_eq!(answering.len(), 10);
    }
}
