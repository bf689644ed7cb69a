//! A bounded pool for work that takes a core for seconds: RSA key generation.
//!
//! Tokio's own blocking pool has hundreds of threads: a hundred RSA certificates at once would take every core from
//! everyone else. Here at most a few run; who finds no slot can wait or come back later.

use std::sync::Arc;

use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use super::Error;

/// The pool. Clones share its slots.
#[derive(Clone, Debug)]
pub struct Pool(Arc<Semaphore>);

/// The right to run one piece of work.
#[derive(Debug)]
pub struct Slot(OwnedSemaphorePermit);

impl Pool {
    /// A pool that runs this many at once, at least one. Leave a core to everything else.
    #[must_use]
    pub fn new(at_once: usize) -> Self {
        Self(Arc::new(Semaphore::new(at_once.clamp(1, Semaphore::MAX_PERMITS))))
    }

    /// A slot if one is free: a caller that has others to serve comes back later instead of waiting.
    #[must_use]
    pub fn try_enter(&self) -> Option<Slot> {
        self.0.clone().try_acquire_owned().ok().map(Slot)
    }

    /// Waits for a slot, first come, first served.
    pub async fn enter(&self) -> Result<Slot, Error> {
        self.0.clone().acquire_owned().await.map(Slot).map_err(|_| Error::Interrupted)
    }
}

impl Slot {
    /// Runs the work on a blocking thread. The slot stays taken until the work ends, even when nobody waits for it any
    /// more, because the thread cannot be stopped.
    pub async fn run<T: Send + 'static>(
        self,
        work: impl FnOnce() -> Result<T, Error> + Send + 'static,
    ) -> Result<T, Error> {
        let Self(permit) = self;
        let running = tokio::task::spawn_blocking(move || {
            let result = work();
            drop(permit);
            result
        });
        running.await.map_err(|_| Error::Interrupted)?
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::mpsc;

    #[tokio::test]
    async fn a_full_pool_has_no_slot_until_the_work_ends_even_if_nobody_waits_for_it() {
        let pool = Pool::new(1);
        let (finish, wait) = mpsc::channel::<()>();
        let work = pool.try_enter().unwrap().run(move || wait.recv().map_err(|_| Error::Interrupted));
        #[expect(clippy::disallowed_methods, reason = "the test is about work that nobody waits for")]
        let abandoned = tokio::spawn(work);
        tokio::task::yield_now().await;
        abandoned.abort();
        assert!(abandoned.await.is_err());
        assert!(pool.try_enter().is_none());
        finish.send(()).unwrap();
        assert_eq!(pool.enter().await.unwrap().run(|| Ok(7)).await, Ok(7));
    }

    #[tokio::test]
    async fn work_that_panics_is_an_error_and_frees_its_slot() {
        let pool = Pool::new(1);
        let slot = pool.try_enter().unwrap();
        assert_eq!(slot.run(|| -> Result<(), Error> { panic!("on purpose") }).await, Err(Error::Interrupted));
        assert!(pool.try_enter().is_some());
    }
}
