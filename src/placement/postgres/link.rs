//! The connection for statements: made in the background, kept, and made again when it is lost.

use super::{schema, tls};
use crate::config::Database;
use crate::placement::balance::Dice;
use crate::placement::store::{STATEMENT_MAX, StoreError};
use std::error::Error;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::{Notify, watch};
use tokio::task::JoinHandle;
use tokio::time::{sleep, timeout};
use tokio_postgres::error::SqlState;
use tokio_postgres::{Client, Connection, Socket};
use xxhash_rust::xxh3::xxh3_64;

/// How long to wait before the next attempt: at first, and at most.
const PAUSE_LEAST: Duration = Duration::from_millis(100);
const PAUSE_MOST: Duration = Duration::from_secs(5);
/// The server ends a statement by itself before nobody waits for it any more: one that waits for a lock costs its own answer, and
/// neither the connection nor those that are queued behind it.
const SERVER_MAX: Duration = Duration::from_millis(1500);
const _: () = assert!(SERVER_MAX.as_millis() < STATEMENT_MAX.as_millis());
/// One host may take so long to answer, unless the address says otherwise.
const HOST_MAX: Duration = Duration::from_secs(2);
/// A peer that has vanished is noticed after so long, not after the two hours of the system.
const KEEPALIVE_IDLE: Duration = Duration::from_secs(10);
const KEEPALIVE_EVERY: Duration = Duration::from_secs(5);
/// What `tokio-postgres` has when nothing was said.
const KEEPALIVE_IDLE_UNSAID: Duration = Duration::from_secs(2 * 3600);

#[derive(Debug, Clone)]
enum State {
    Connecting,
    Up(Arc<Client>),
    Down(StoreError),
}

/// The way to a client that works.
#[derive(Debug)]
pub(super) struct Link {
    state: watch::Receiver<State>,
    discarded: Arc<Notify>,
    task: JoinHandle<()>,
}

impl Drop for Link {
    fn drop(&mut self) {
        self.task.abort();
    }
}

impl Link {
    pub(super) fn start(database: &Database, id: &str) -> Self {
        let (told, state) = watch::channel(State::Connecting);
        let discarded = Arc::new(Notify::new());
        let (database, pause) = (database.clone(), Pause::new(id));
        let task = tokio::spawn(keep(database, pause, told, Arc::clone(&discarded)));
        Self { state, discarded, task }
    }

    /// Waits while there is an attempt to connect, the first since the last success. After that it is said at once that it failed.
    pub(super) async fn client(&self) -> Result<Arc<Client>, StoreError> {
        let mut state = self.state.clone();
        let settled = state.wait_for(|state| !matches!(state, State::Connecting)).await;
        match settled.as_deref() {
            Ok(State::Up(client)) => Ok(Arc::clone(client)),
            Ok(State::Down(error)) => Err(error.clone()),
            Ok(State::Connecting) | Err(_) => Err(StoreError::Silent),
        }
    }

    /// Has another connection made in the place of that one.
    pub(super) fn discard(&self, client: &Arc<Client>) {
        if matches!(&*self.state.borrow(), State::Up(current) if Arc::ptr_eq(current, client)) {
            self.discarded.notify_one();
        }
    }
}

async fn keep(database: Database, mut pause: Pause, state: watch::Sender<State>, discarded: Arc<Notify>) {
    loop {
        match statements(&database).await {
            Ok((client, mut driven)) => {
                pause.reset();
                tracing::debug!(%database, "connected to the coordination database");
                state.send_replace(State::Up(Arc::new(client)));
                tokio::select! {
                    _ = &mut driven.0 => {}
                    () = discarded.notified() => {}
                }
                state.send_replace(State::Connecting);
            }
            Err(error) => {
                state.send_replace(State::Down(error));
            }
        }
        pause.wait().await;
    }
}

/// A connection with its tables.
async fn statements(database: &Database) -> Result<(Client, Driven), StoreError> {
    let (client, connection) = connect(database).await?;
    let driven = Driven(tokio::spawn(async move {
        // How it ended is told to whoever asks by it.
        let _ = connection.await;
    }));
    let prepared = async {
        client.batch_execute(&format!("SET statement_timeout = {}", SERVER_MAX.as_millis())).await?;
        schema::ensure(&client).await
    };
    match timeout(3 * STATEMENT_MAX, prepared).await {
        Ok(Ok(())) => Ok((client, driven)),
        Ok(Err(error)) => Err(told(&error)),
        Err(_) => Err(StoreError::Silent),
    }
}

/// A task that moves a connection's bytes, until it is dropped.
#[derive(Debug)]
pub(super) struct Driven(pub(super) JoinHandle<()>);

impl Drop for Driven {
    fn drop(&mut self) {
        self.0.abort();
    }
}

pub(super) type Line = Connection<Socket, tls::Stream>;

/// Connects to the first host that answers and is what the address asks for.
pub(super) async fn connect(database: &Database) -> Result<(Client, Line), StoreError> {
    let mut connection = database.connection.clone();
    if connection.get_application_name().is_none() {
        connection.application_name("promdedup");
    }
    if connection.get_connect_timeout().is_none() {
        connection.connect_timeout(HOST_MAX);
    }
    if connection.get_keepalives_idle() == KEEPALIVE_IDLE_UNSAID {
        connection.keepalives_idle(KEEPALIVE_IDLE).keepalives_interval(KEEPALIVE_EVERY).keepalives_retries(3);
    }
    if connection.get_tcp_user_timeout().is_none() {
        connection.tcp_user_timeout(KEEPALIVE_IDLE);
    }
    let hosts = u32::try_from(connection.get_hosts().len()).unwrap_or(1);
    let tls = tls::Tls::of(database).map_err(StoreError::Unreachable)?;
    let each = *connection.get_connect_timeout().unwrap_or(&HOST_MAX);
    // A host that is connected to may still say nothing.
    match timeout(each * (hosts + 1) + HOST_MAX, connection.connect(tls)).await {
        Ok(Ok(connected)) => Ok(connected),
        Ok(Err(error)) => Err(match told(&error) {
            StoreError::Refused(text) | StoreError::Unreachable(text) => StoreError::Unreachable(text),
            StoreError::Silent => StoreError::Silent,
        }),
        Err(_) => Err(StoreError::Silent),
    }
}

/// Whether the database did not do it because of others that were at it at the same moment. It has changed nothing, so it may be asked
/// again at once.
pub(super) fn is_of_the_moment(error: &tokio_postgres::Error) -> bool {
    const MOMENTS: [&SqlState; 3] = [
        &SqlState::T_R_SERIALIZATION_FAILURE,
        &SqlState::T_R_DEADLOCK_DETECTED,
        &SqlState::LOCK_NOT_AVAILABLE,
    ];
    error.code().is_some_and(|code| MOMENTS.contains(&code))
}

/// Whether the connection is as good as before: the statement alone took too long, or met others.
pub(super) fn leaves_the_connection(error: &tokio_postgres::Error) -> bool {
    is_of_the_moment(error) || error.code() == Some(&SqlState::QUERY_CANCELED)
}

/// An error in words, causes included. Neither has credentials in it.
pub(super) fn told(error: &tokio_postgres::Error) -> StoreError {
    if let Some(refused) = error.as_db_error() {
        return StoreError::Refused(format!("{} (SQLSTATE {})", refused.message(), refused.code().code()));
    }
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        text = format!("{text}: {error}");
        cause = error.source();
    }
    StoreError::Unreachable(text)
}

/// Waits that grow, by lot, so that not all instances come back at once.
#[derive(Debug)]
pub(super) struct Pause {
    next: Duration,
    dice: Dice,
}

impl Pause {
    pub(super) fn new(id: &str) -> Self {
        Self { next: PAUSE_LEAST, dice: Dice::new(xxh3_64(id.as_bytes())) }
    }

    pub(super) fn reset(&mut self) {
        self.next = PAUSE_LEAST;
    }

    pub(super) async fn wait(&mut self) {
        let half = self.next / 2;
        let part = self.dice.below(1000) as u32;
        self.next = (self.next * 2).min(PAUSE_MOST);
        sleep(half + half * part / 1000).await;
    }
}
