//! A stream that gives up on its peer: one that never begins, or never reads what waits for it.
//!
//! hyper has deadlines for reading the header of HTTP/1.1 and for answers to its own pings, and none for these. The
//! error ends the connection; what was held for it is free.

use std::io;
use std::pin::Pin;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::time::{Sleep, sleep};

/// A stream with deadlines.
pub(super) struct Impatient<S> {
    inner: S,
    /// How long nothing at all may be taken of what is to be written.
    stall: Duration,
    /// Runs while the peer takes nothing.
    stalled: Option<Pin<Box<Sleep>>>,
    /// Runs until the peer has begun.
    opening: Option<Opening>,
}

struct Opening {
    bytes_left: usize,
    until: Pin<Box<Sleep>>,
}

impl<S> Impatient<S> {
    /// A stream whose peer may take nothing of what is written to it for as long as `stall`. Whoever takes a little now
    /// and then is bounded by the age of the connection.
    pub(super) fn new(inner: S, stall: Duration) -> Self {
        Self { inner, stall, stalled: None, opening: None }
    }

    /// The same, whose peer must have sent its first `bytes` within this time.
    pub(super) fn begins_with(self, bytes: usize, within: Duration) -> Self {
        Self { opening: Some(Opening { bytes_left: bytes, until: Box::pin(sleep(within)) }), ..self }
    }

    /// Lets a write wait for as long as the deadline says.
    fn until_stalled<T>(&mut self, cx: &mut Context<'_>, result: Poll<io::Result<T>>) -> Poll<io::Result<T>> {
        if result.is_ready() {
            self.stalled = None;
            return result;
        }
        let stall = self.stall;
        let deadline = self.stalled.get_or_insert_with(|| Box::pin(sleep(stall)));
        deadline.as_mut().poll(cx).map(|()| Err(io::ErrorKind::TimedOut.into()))
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for Impatient<S> {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buffer: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let this = &mut *self;
        let before = buffer.filled().len();
        let result = Pin::new(&mut this.inner).poll_read(cx, buffer);
        let Some(opening) = &mut this.opening else { return result };
        opening.bytes_left = opening.bytes_left.saturating_sub(buffer.filled().len() - before);
        if opening.bytes_left == 0 {
            this.opening = None;
        } else if result.is_pending() {
            ready!(opening.until.as_mut().poll(cx));
            return Poll::Ready(Err(io::ErrorKind::TimedOut.into()));
        }
        result
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for Impatient<S> {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        let result = Pin::new(&mut self.inner).poll_write(cx, bytes);
        self.until_stalled(cx, result)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        slices: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let result = Pin::new(&mut self.inner).poll_write_vectored(cx, slices);
        self.until_stalled(cx, result)
    }

    fn is_write_vectored(&self) -> bool {
        self.inner.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let result = Pin::new(&mut self.inner).poll_flush(cx);
        self.until_stalled(cx, result)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let result = Pin::new(&mut self.inner).poll_shutdown(cx);
        self.until_stalled(cx, result)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _, duplex};
    use tokio::time::Instant;

    const STALL: Duration = Duration::from_secs(20);
    const A_LITTLE_SOONER: Duration = Duration::from_secs(19);

    #[tokio::test(start_paused = true)]
    async fn a_peer_that_reads_nothing_is_given_up_and_one_that_reads_a_little_is_not() {
        let (ours, mut theirs) = duplex(16);
        let mut ours = Impatient::new(ours, STALL);
        let start = Instant::now();
        let (written, ()) = tokio::join!(ours.write_all(&[0; 100]), async {
            for _ in 0..3 {
                sleep(A_LITTLE_SOONER).await;
                theirs.read_exact(&mut [0; 8]).await.unwrap();
            }
        });
        assert_eq!(written.unwrap_err().kind(), io::ErrorKind::TimedOut);
        assert_eq!(start.elapsed(), 3 * A_LITTLE_SOONER + STALL, "from the last byte that was taken");
    }

    #[tokio::test(start_paused = true)]
    async fn a_peer_that_does_not_begin_is_given_up_however_slowly_it_sends() {
        let (ours, mut theirs) = duplex(64);
        let mut ours = Impatient::new(ours, STALL).begins_with(24, STALL);
        let start = Instant::now();
        let mut buffer = [0; 24];
        let (read, ()) = tokio::join!(ours.read_exact(&mut buffer), async {
            for _ in 0..3 {
                theirs.write_all(b"x").await.unwrap();
                sleep(STALL / 4).await;
            }
        });
        assert_eq!(read.unwrap_err().kind(), io::ErrorKind::TimedOut);
        assert_eq!(start.elapsed(), STALL);
    }

    #[tokio::test(start_paused = true)]
    async fn a_peer_that_has_begun_may_be_silent() {
        let (ours, mut theirs) = duplex(64);
        let mut ours = Impatient::new(ours, STALL).begins_with(24, STALL);
        let mut buffer = [0; 25];
        let (read, ()) = tokio::join!(ours.read_exact(&mut buffer), async {
            theirs.write_all(&[0; 24]).await.unwrap();
            sleep(10 * STALL).await;
            theirs.write_all(b"x").await.unwrap();
        });
        assert_eq!(read.unwrap(), 25);
    }
}
