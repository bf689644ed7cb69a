//! Load shedding: who waits for a thread, and who is sent away.
//!
//! What a request costs is computing, and a thread that computes reads nothing: where requests pile up is in the
//! sockets, and nothing counts them there. So a request that has arrived gives way once before it is worked on: the
//! runtime first looks at every other socket, and what has arrived there meanwhile is counted too.
//!
//! Who waits for something else, a body that is on its way or the API server, is not counted: a slow client takes no
//! place from others here. It waits for its turn again when its body has come.

use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::time::Duration;

use tokio::time::Instant;

use super::refusal::Refusal;

/// Once a burst was too large, nobody but [`Depths::standing`] may wait for this long. Then it is tried again, which costs
/// an overload that stays one burst in this time. That somebody is sent away does not prolong it: a few clients who ask
/// again at once would keep it up for ever, long after the overload.
const SHED_FOR: Duration = Duration::from_secs(10);

/// How many requests may wait at the same time.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Depths {
    /// As long as there is more to do than can be done. Small: what is accepted is answered soon, however many are sent
    /// away.
    pub standing: usize,
    /// At any other time: many who ask at once are answered a moment later.
    pub burst: usize,
}

impl Depths {
    /// The same for so many threads together.
    #[must_use]
    pub fn for_threads(self, threads: usize) -> Self {
        Self { standing: self.standing.saturating_mul(threads), burst: self.burst.saturating_mul(threads) }
    }
}

/// The requests that have arrived and are not worked on yet.
#[derive(Debug)]
pub(super) struct Queue {
    depths: Depths,
    since: Instant,
    waiting: AtomicUsize,
    /// Until when only few may wait: nanoseconds after `since`.
    sheds_until: AtomicU64,
}

/// A place in the queue, until it is dropped.
struct Place<'a>(&'a AtomicUsize);

impl Queue {
    pub(super) fn new(depths: Depths) -> Self {
        Self { depths, since: Instant::now(), waiting: AtomicUsize::new(0), sheds_until: AtomicU64::new(0) }
    }

    /// Waits until it is this request's turn.
    pub(super) async fn turn(&self) -> Result<(), Refusal> {
        let place = self.enter().ok_or(Refusal::Overloaded)?;
        tokio::task::yield_now().await;
        drop(place);
        Ok(())
    }

    fn enter(&self) -> Option<Place<'_>> {
        let place = Place(&self.waiting);
        let before = self.waiting.fetch_add(1, Ordering::Relaxed);
        if before < self.depths.standing {
            return Some(place);
        }
        // Only here is the time looked at: it costs as much as all the rest.
        let now = u64::try_from(self.since.elapsed().as_nanos()).unwrap_or(u64::MAX);
        if now < self.sheds_until.load(Ordering::Relaxed) {
            return None;
        }
        if before < self.depths.burst {
            return Some(place);
        }
        let until = now.saturating_add(u64::try_from(SHED_FOR.as_nanos()).unwrap_or(u64::MAX));
        self.sheds_until.store(until, Ordering::Relaxed);
        None
    }
}

impl Drop for Place<'_> {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use futures::poll;
    use std::pin::{Pin, pin};
    use std::task::Poll;

    type Turn<'a> = Pin<Box<dyn Future<Output = Result<(), Refusal>> + 'a>>;

    /// As many requests as there are, each looked at once.
    async fn arrive(queue: &Queue, count: usize) -> (Vec<Turn<'_>>, usize) {
        let (mut waiting, mut refused) = (Vec::new(), 0);
        for _ in 0..count {
            let mut turn: Turn<'_> = Box::pin(queue.turn());
            match poll!(turn.as_mut()) {
                Poll::Pending => waiting.push(turn),
                Poll::Ready(answer) => {
                    assert_eq!(answer, Err(Refusal::Overloaded));
                    refused += 1;
                }
            }
        }
        (waiting, refused)
    }

    async fn take_their_turns(waiting: Vec<Turn<'_>>) {
        for turn in waiting {
            assert_eq!(turn.await, Ok(()));
        }
    }

    #[tokio::test(start_paused = true)]
    async fn a_burst_is_answered_whole_and_what_is_beyond_it_is_sent_away() {
        let queue = Queue::new(Depths { standing: 2, burst: 5 });
        let (waiting, refused) = arrive(&queue, 5).await;
        assert_eq!((waiting.len(), refused), (5, 0));
        take_their_turns(waiting).await;
        let (waiting, refused) = arrive(&queue, 7).await;
        assert_eq!((waiting.len(), refused), (5, 2));
        take_their_turns(waiting).await;
        assert_eq!(queue.waiting.load(Ordering::Relaxed), 0);
    }

    #[tokio::test(start_paused = true)]
    async fn once_a_burst_was_too_large_few_wait_for_a_while_and_who_is_sent_away_does_not_prolong_it() {
        let queue = Queue::new(Depths { standing: 2, burst: 5 });
        take_their_turns(arrive(&queue, 6).await.0).await;
        for _ in 0..3 {
            tokio::time::advance(SHED_FOR.mul_f64(0.33)).await;
            let (waiting, refused) = arrive(&queue, 5).await;
            assert_eq!((waiting.len(), refused), (2, 3));
            take_their_turns(waiting).await;
        }
        tokio::time::advance(SHED_FOR.mul_f64(0.01)).await;
        let (waiting, refused) = arrive(&queue, 5).await;
        assert_eq!((waiting.len(), refused), (5, 0), "a burst is answered again");
        take_their_turns(waiting).await;
        let (waiting, refused) = arrive(&queue, 7).await;
        assert_eq!((waiting.len(), refused), (5, 2), "and one that is too large begins it anew");
        take_their_turns(waiting).await;
        assert_eq!(arrive(&queue, 3).await.1, 1);
    }

    #[tokio::test]
    async fn whoever_gives_up_leaves_the_queue() {
        let queue = Queue::new(Depths { standing: 1, burst: 1 });
        let (waiting, _) = arrive(&queue, 1).await;
        drop(waiting);
        let mut next = pin!(queue.turn());
        assert!(poll!(next.as_mut()).is_pending());
        assert_eq!(next.await, Ok(()));
    }
}
