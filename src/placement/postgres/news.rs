//! The connection that listens: what others have changed, as soon as they have.

use super::link::{Pause, connect};
use crate::config::Database;
use crate::placement::Peer;
use crate::placement::store::{Change, News, StoreError};
use crate::series::GroupKey;
use std::future::poll_fn;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use tokio::sync::{Mutex, mpsc};
use tokio::task::JoinHandle;
use tokio_postgres::AsyncMessage;

/// News that nobody has read yet. Beyond, some are missed, which is told.
const UNREAD_MAX: usize = 4096;

#[derive(Debug)]
pub(super) struct Newsroom {
    told: Mutex<mpsc::Receiver<News>>,
    missed: Arc<AtomicBool>,
    task: JoinHandle<()>,
}

impl Drop for Newsroom {
    fn drop(&mut self) {
        self.task.abort();
    }
}

impl Newsroom {
    pub(super) fn start(database: &Database, id: &str) -> Self {
        let (tell, told) = mpsc::channel(UNREAD_MAX);
        let missed = Arc::new(AtomicBool::new(false));
        let task = tokio::spawn(keep(database.clone(), Pause::new(id), tell, Arc::clone(&missed)));
        Self { told: Mutex::new(told), missed, task }
    }

    /// Waits for the next.
    pub(super) async fn next(&self) -> News {
        let mut told = self.told.lock().await;
        if self.missed.swap(false, Ordering::AcqRel) {
            return News::Missed;
        }
        match told.recv().await {
            Some(news) => news,
            // The task goes on for as long as this is kept, unless the runtime ends.
            None => std::future::pending().await,
        }
    }
}

async fn keep(database: Database, mut pause: Pause, tell: mpsc::Sender<News>, missed: Arc<AtomicBool>) {
    loop {
        if let Err(error) = listen(&database, &mut pause, &tell, &missed).await {
            tracing::debug!(%error, "not listening to the coordination database");
        }
        pause.wait().await;
    }
}

/// Until the connection ends.
async fn listen(
    database: &Database,
    pause: &mut Pause,
    tell: &mpsc::Sender<News>,
    missed: &AtomicBool,
) -> Result<(), StoreError> {
    let (client, mut connection) = connect(database).await?;
    let put = |news: News| {
        if tell.try_send(news).is_err() {
            missed.store(true, Ordering::Release);
        }
    };
    // The statement is answered while messages are read, and nothing else moves them.
    let mut asked = std::pin::pin!(async {
        let listening = client.batch_execute("LISTEN promdedup").await;
        // Kept, or the connection ends.
        (listening, &client)
    });
    let mut listening = false;
    loop {
        tokio::select! {
            (answer, _) = &mut asked, if !listening => {
                answer.map_err(|error| super::link::told(&error))?;
                listening = true;
                pause.reset();
                put(News::Missed);
            }
            message = poll_fn(|context| connection.poll_message(context)) => match message {
                Some(Ok(AsyncMessage::Notification(told))) => {
                    if let Some(news) = read(told.payload()) {
                        put(news);
                    }
                }
                Some(Ok(_)) => {}
                Some(Err(error)) => return Err(super::link::told(&error)),
                None => return Ok(()),
            },
        }
    }
}

/// `group KEY EPOCH [OWNER URL]`, `shared KEY` or `left OWNER`. What a newer version says besides is nothing to this one.
fn read(payload: &str) -> Option<News> {
    let mut words = payload.split(' ');
    let key = |hex| u128::from_str_radix(hex, 16).ok().map(GroupKey);
    match words.next()? {
        "group" => {
            let key = key(words.next()?)?;
            let epoch = words.next()?.parse().ok()?;
            let owner = words.next().zip(words.next());
            let owner = owner.map(|(id, url)| Peer { id: id.into(), url: url.into() });
            Some(News::Changed(Change { key, owner, epoch }))
        }
        "shared" => key(words.next()?).map(News::Shared),
        "left" => Some(News::Left(words.next()?.into())),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn payloads() {
        let key = GroupKey(0xab);
        let owner = Some(Peer { id: "i".into(), url: "http://a:1".into() });
        let hex = format!("{:032x}", key.0);
        assert_eq!(
            read(&format!("group {hex} 7 i http://a:1")),
            Some(News::Changed(Change { key, owner, epoch: 7 }))
        );
        assert_eq!(
            read(&format!("group {hex} 7")),
            Some(News::Changed(Change { key, owner: None, epoch: 7 }))
        );
        assert_eq!(read(&format!("shared {hex}")), Some(News::Shared(key)));
        assert_eq!(read("left i"), Some(News::Left("i".into())));
        for other in ["", "group", "group x 7", "group ab x", "left", "later", "shared", "shared x"] {
            assert_eq!(read(other), None, "{other}");
        }
    }
}
