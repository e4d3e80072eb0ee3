//! Processes that end with the test, however it ends, and waiting for them to be ready.

use promdedup::stand_in::connection::Connection;
use std::fs::File;
use std::io::ErrorKind;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Duration;
use tokio::time::{Instant, sleep};

/// How long a process may take to start, to answer or to end.
pub(crate) const PATIENCE: Duration = Duration::from_secs(30);
const POLL: Duration = Duration::from_millis(100);

/// Looks until there is something, but not longer than `patience`; then the test fails.
pub(crate) async fn eventually<T>(
    what: &str,
    patience: Duration,
    mut look: impl AsyncFnMut() -> Option<T>,
) -> T {
    let deadline = Instant::now() + patience;
    loop {
        if let Some(found) = look().await {
            return found;
        }
        assert!(Instant::now() < deadline, "{what}: not within {patience:?}");
        sleep(POLL).await;
    }
}

/// The body of a page, if it answers 200.
pub(crate) async fn page(url: &str) -> Option<String> {
    let mut connection = Connection::to(url).expect("a URL");
    let reply = tokio::time::timeout(PATIENCE, connection.get()).await.ok()?.ok()?;
    (reply.status == 200).then_some(reply.text)
}

/// A child process with its log in a file. Dropping it kills it.
pub(crate) struct Process {
    name: String,
    child: Child,
    log: PathBuf,
}

impl Process {
    /// Starts it. `missing` says what to do when there is no such program.
    pub(crate) fn start(name: &str, command: &mut Command, log: PathBuf, missing: &str) -> Self {
        let file = File::create(&log).expect("a log file");
        command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(file);
        let child = match command.spawn() {
            Ok(child) => child,
            Err(error) if error.kind() == ErrorKind::NotFound => panic!("{missing}"),
            Err(error) => panic!("{name} does not start: {error}"),
        };
        Self { name: name.to_owned(), child, log }
    }

    /// All it has logged.
    pub(crate) fn log(&self) -> String {
        std::fs::read_to_string(&self.log).unwrap_or_default()
    }

    /// The address that follows `key` in the first line of its log that contains `marker`.
    pub(crate) async fn address(&mut self, marker: &str, key: &str) -> SocketAddr {
        let what = format!("an address in the log of {}", self.name);
        eventually(&what, PATIENCE, async || {
            self.assert_alive();
            let log = self.log();
            let line = log.lines().find(|line| line.contains(marker) && line.contains(key))?;
            let rest = &line[line.find(key)? + key.len()..];
            rest.split([' ', '"', ',']).next()?.parse().ok()
        })
        .await
    }

    /// Fails with the end of its log if it has ended by itself.
    pub(crate) fn assert_alive(&mut self) {
        if let Ok(Some(status)) = self.child.try_wait() {
            panic!("{} ended with {status}:\n{}", self.name, tail(&self.log));
        }
    }

    /// SIGKILL.
    pub(crate) fn kill(&mut self) {
        self.child.kill().expect("killed");
        self.child.wait().expect("ended");
    }

    /// Sends a signal by its name, such as `STOP`.
    pub(crate) fn signal(&mut self, name: &str) {
        self.assert_alive();
        let pid = self.child.id().to_string();
        assert!(Command::new("kill").args(["-s", name, &pid]).status().expect("kill").success());
    }

    /// SIGTERM, and waits for the end, which has to be a good one.
    pub(crate) async fn terminate(&mut self) {
        self.signal("TERM");
        let what = format!("the end of {}", self.name);
        let status =
            eventually(&what, PATIENCE, async || self.child.try_wait().expect("a child of ours")).await;
        assert!(status.success(), "{} ended with {status}:\n{}", self.name, tail(&self.log));
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        // It may have ended already; that is as well.
        drop(self.child.kill());
        drop(self.child.wait());
        if std::thread::panicking() {
            eprintln!("--- end of the log of {}:\n{}", self.name, tail(&self.log));
        }
    }
}

fn tail(log: &Path) -> String {
    let text = std::fs::read_to_string(log).unwrap_or_default();
    let lines: Vec<&str> = text.lines().collect();
    lines[lines.len().saturating_sub(25)..].join("\n")
}
