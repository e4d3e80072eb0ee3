//! One at a time on a thread: what keeps it busy for long. Between two the runtime looks at its sockets, so that what has come is read,
//! and its time noted, when it comes and not when everything that was under way is done. Owns the order, knows no work.

use tokio::sync::{Mutex, MutexGuard};

/// Of one thread's runtime.
#[derive(Debug, Default)]
pub(super) struct Turns(Mutex<()>);

impl Turns {
    /// The next one, as long as it is kept. In the order of asking.
    pub(super) async fn next(&self) -> MutexGuard<'_, ()> {
        let turn = self.0.lock().await;
        // Goes on behind whoever is ready, and behind whom the sockets make ready.
        tokio::task::yield_now().await;
        turn
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::Arc;
    use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};

    #[tokio::test(flavor = "current_thread")]
    async fn what_has_come_is_noted_before_the_next_turn() {
        let (turns, come) = (Arc::new(Turns::default()), Arc::new(AtomicUsize::new(0)));
        let tasks = [0; 3].map(|_| {
            let (turns, come) = (Arc::clone(&turns), Arc::clone(&come));
            tokio::spawn(async move {
                let _turn = turns.next().await;
                let before = come.load(Relaxed);
                let event = Arc::clone(&come);
                drop(tokio::spawn(async move { event.fetch_add(1, Relaxed) }));
                before
            })
        });
        let mut seen = Vec::new();
        for task in tasks {
            seen.push(task.await.unwrap());
        }
        assert_eq!(seen, [0, 1, 2], "of those before it");
    }
}
