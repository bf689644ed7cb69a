//! Waiting for a condition on a real control plane: a bounded poll, and a state dump when it does not come.

use std::{
    fmt::Display,
    time::{Duration, Instant},
};

/// Long enough for two busy cores; a test that needs it all is slow, not broken.
pub const PATIENCE: Duration = Duration::from_secs(30);

const PAUSE: Duration = Duration::from_millis(25);

/// Asks `condition` until it answers `Ok`, for at most [`PATIENCE`]; its last `Err` says what it saw instead.
///
/// ```ignore
/// let secret = eventually("the Secret is there", async || secrets.get("web").await).await;
/// ```
///
/// # Panics
/// When the deadline passes.
pub async fn eventually<T, E: Display>(what: &str, condition: impl AsyncFnMut() -> Result<T, E>) -> T {
    eventually_within(PATIENCE, what, condition).await
}

/// The same with a deadline of the test's own. A question that does not come back counts as time, too.
///
/// # Panics
/// When the deadline passes.
pub async fn eventually_within<T, E: Display>(
    within: Duration,
    what: &str,
    mut condition: impl AsyncFnMut() -> Result<T, E>,
) -> T {
    let started = Instant::now();
    let mut last = "nothing yet: the first question was not answered".to_owned();
    loop {
        let left = within.saturating_sub(started.elapsed());
        match tokio::time::timeout(left, condition()).await {
            Ok(Ok(value)) => return value,
            Ok(Err(seen)) => last = format!("{seen:#}"),
            Err(_) => {}
        }
        assert!(started.elapsed() < within, "not within {within:?}: {what}\nlast seen: {last}");
        tokio::time::sleep(PAUSE).await;
    }
}

/// `Ok` when it holds; else `seen` says what was there instead. For the body of [`eventually`].
pub fn holds(condition: bool, seen: impl FnOnce() -> String) -> Result<(), String> {
    if condition { Ok(()) } else { Err(seen()) }
}
