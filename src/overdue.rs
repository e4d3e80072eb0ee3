//! OVERDUE: the watch over a connection's time: how long it does nothing, and how long the head of a request takes to come.
//!
//! Owns the bounds that HTTP itself has none of. What a request takes once its head is here is bounded by its route.
//! Looks at no byte, only at when there are some.

use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::task::{Context, Poll};
use std::time::Duration;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::time::{Instant, sleep_until};

/// How long a connection may be in which state.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Patience {
    /// From the first byte of a head to its last one, and from the beginning of a connection to its first request.
    pub(crate) head: Duration,
    /// Without a request.
    pub(crate) idle: Duration,
}

/// What took too long.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Overdue {
    /// The head of a request.
    Head,
    /// The next request.
    Idle,
}

/// What a connection is doing. Shared by its bytes, its requests, and whoever waits for what is overdue.
#[derive(Debug, Clone)]
pub(crate) struct Watch(Arc<State>);

#[derive(Debug)]
struct State {
    opened: Instant,
    /// Requests whose head is here and that are not answered yet.
    requests: AtomicUsize,
    /// Milliseconds after `opened` since when it is as it is, and in the lowest bit whether a head is coming.
    since: AtomicU64,
}

const COMING: u64 = 1;

impl Watch {
    /// Of a connection that has just been opened: its first request is to come.
    pub(crate) fn new() -> Self {
        let since = AtomicU64::new(COMING);
        Self(Arc::new(State { opened: Instant::now(), requests: AtomicUsize::new(0), since }))
    }

    /// A request's head is here. How many there are with it.
    pub(crate) fn begin(&self) -> (Serving, usize) {
        let before = self.0.requests.fetch_add(1, Ordering::AcqRel);
        (Serving(self.clone()), before + 1)
    }

    /// Whether it is between two requests.
    pub(crate) fn is_idle(&self) -> bool {
        matches!(self.since(), Some((_, false)))
    }

    /// Whether it has a request that is not answered yet.
    pub(crate) fn serves(&self) -> bool {
        self.since().is_none()
    }

    /// Waits for something to take too long. Costs a wake-up now and then, and nothing by request.
    pub(crate) async fn overdue(&self, patience: Patience) -> Overdue {
        loop {
            let now = Instant::now();
            let (what, due) = match self.since() {
                None => (Overdue::Idle, now + patience.idle), // it will be looked at again before
                Some((since, true)) => (Overdue::Head, since + patience.head),
                Some((since, false)) => (Overdue::Idle, since + patience.idle),
            };
            if due <= now {
                return what;
            }
            // A head may begin to come at any moment, and must not be noticed later than it may take.
            sleep_until(due.min(now + patience.head)).await;
        }
    }

    /// Since when it has been without a request, and whether the head of one is coming; `None`: it serves one.
    fn since(&self) -> Option<(Instant, bool)> {
        if self.0.requests.load(Ordering::Acquire) > 0 {
            return None;
        }
        let since = self.0.since.load(Ordering::Acquire);
        Some((self.0.opened + Duration::from_millis(since >> 1), since & COMING == COMING))
    }

    fn arrived(&self) {
        if self.0.requests.load(Ordering::Relaxed) == 0 && self.0.since.load(Ordering::Relaxed) & COMING == 0
        {
            self.note(COMING);
        }
    }

    fn note(&self, coming: u64) {
        let after = u64::try_from(self.0.opened.elapsed().as_millis()).unwrap_or(u64::MAX >> 1);
        self.0.since.store(after << 1 | coming, Ordering::Release);
    }
}

/// A request that is being served. Its connection is idle again when the last one is dropped.
#[derive(Debug)]
pub(crate) struct Serving(Watch);

impl Drop for Serving {
    fn drop(&mut self) {
        self.0.note(0);
        self.0.0.requests.fetch_sub(1, Ordering::AcqRel);
    }
}

/// A stream that tells the watch when something arrives.
#[derive(Debug)]
pub(crate) struct Watched<I> {
    stream: I,
    watch: Watch,
}

impl<I> Watched<I> {
    pub(crate) fn new(stream: I, watch: Watch) -> Self {
        Self { stream, watch }
    }
}

impl<I: AsyncRead + Unpin> AsyncRead for Watched<I> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<std::io::Result<()>> {
        let before = buffer.filled().len();
        let read = Pin::new(&mut self.stream).poll_read(context, buffer);
        if read.is_ready() && buffer.filled().len() > before {
            self.watch.arrived();
        }
        read
    }
}

impl<I: AsyncWrite + Unpin> AsyncWrite for Watched<I> {
    fn poll_write(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<std::io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write(context, bytes)
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<std::io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(context)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<std::io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(context)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[std::io::IoSlice<'_>],
    ) -> Poll<std::io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write_vectored(context, bytes)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use tokio::time::advance;

    const PATIENCE: Patience = Patience { head: Duration::from_secs(10), idle: Duration::from_secs(60) };

    /// What is overdue, and after how many seconds.
    async fn overdue(watch: &Watch) -> (Overdue, u64) {
        let began = Instant::now();
        let what = watch.overdue(PATIENCE).await;
        (what, began.elapsed().as_secs())
    }

    #[tokio::test(start_paused = true)]
    async fn each_state_has_its_own_bound() {
        let watch = Watch::new();
        assert_eq!(overdue(&watch).await, (Overdue::Head, 10), "the first request has to come");
        drop(watch.begin());
        assert_eq!(overdue(&watch).await, (Overdue::Idle, 60));
        watch.arrived();
        advance(Duration::from_secs(4)).await;
        watch.arrived(); // a trickle changes nothing
        assert_eq!(overdue(&watch).await, (Overdue::Head, 6));
        drop(watch.begin());
        assert_eq!(overdue(&watch).await, (Overdue::Idle, 60));
    }

    #[tokio::test(start_paused = true)]
    async fn nothing_is_overdue_while_a_request_is_served() {
        let watch = Watch::new();
        let (first, one) = watch.begin();
        let (second, two) = watch.begin();
        assert_eq!((one, two), (1, 2));
        let waiting = watch.clone();
        let waiting = tokio::spawn(async move { waiting.overdue(PATIENCE).await });
        advance(Duration::from_secs(1_000)).await;
        watch.arrived(); // a body, not a head
        drop(first);
        tokio::task::yield_now().await;
        assert!(!waiting.is_finished());
        drop(second);
        let ended = Instant::now();
        assert_eq!(waiting.await.expect("no panic"), Overdue::Idle);
        assert_eq!(ended.elapsed().as_secs(), 60);
    }

    #[tokio::test(start_paused = true)]
    async fn a_head_that_begins_while_idling_is_noticed_in_time() {
        let watch = Watch::new();
        drop(watch.begin());
        let waiting = watch.clone();
        let waiting = tokio::spawn(async move { waiting.overdue(PATIENCE).await });
        tokio::task::yield_now().await;
        advance(Duration::from_secs(3)).await;
        watch.arrived();
        let began = Instant::now();
        assert_eq!(waiting.await.expect("no panic"), Overdue::Head);
        assert_eq!(began.elapsed().as_secs(), 10);
    }
}
