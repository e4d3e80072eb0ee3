//! The proxy's lives, one after the other, on one port.

use std::fs::File;
use std::process::{Child, Command, Stdio};
use tempfile::NamedTempFile;
use tokio::net::TcpSocket;

/// The binary under test, over its restarts. Dropping it kills it.
pub(crate) struct Lives {
    /// Bound and never listening, so that nobody else is given the port while the proxy is dead.
    port: TcpSocket,
    upstream: String,
    more: Vec<(&'static str, &'static str)>,
    log: NamedTempFile,
    child: Option<Child>,
}

impl Lives {
    /// Nothing runs yet. `more`: further environment.
    pub(crate) fn new(upstream: &str, more: &[(&'static str, &'static str)]) -> Self {
        let port = TcpSocket::new_v4().expect("a socket");
        port.set_reuseaddr(true).expect("an option");
        port.bind("127.0.0.1:0".parse().expect("an address")).expect("bound");
        let log = NamedTempFile::new().expect("a log file");
        Self { port, upstream: upstream.to_owned(), more: more.to_vec(), log, child: None }
    }

    /// What a sender is configured with.
    pub(crate) fn url(&self) -> String {
        format!("http://{}/api/v1/receive", self.port.local_addr().expect("an address"))
    }

    /// Starts the next life. It listens some milliseconds later.
    pub(crate) fn begin(&mut self) {
        let append = || Stdio::from(File::options().append(true).open(self.log.path()).expect("the log"));
        let listen = self.port.local_addr().expect("an address").to_string();
        let mut command = Command::new(env!("CARGO_BIN_EXE_promdedup"));
        command
            .env_clear()
            .env("PROMDEDUP_UPSTREAM_URL", &self.upstream)
            .env("PROMDEDUP_LISTEN", listen)
            .env("PROMDEDUP_ADMIN_LISTEN", "127.0.0.1:0")
            .envs(self.more.iter().copied())
            .stdin(Stdio::null())
            .stdout(append())
            .stderr(append());
        self.child = Some(command.spawn().expect("started"));
    }

    /// SIGKILL, in the middle of whatever it does.
    pub(crate) fn kill(&mut self) {
        let mut child = self.child.take().expect("it runs");
        assert_eq!(child.try_wait().expect("a child of ours"), None, "it ended by itself: {}", self.log());
        child.kill().expect("killed");
        child.wait().expect("ended");
    }

    /// All it has logged, in all lives.
    pub(crate) fn log(&self) -> String {
        std::fs::read_to_string(self.log.path()).unwrap_or_default()
    }
}

impl Drop for Lives {
    fn drop(&mut self) {
        if let Some(mut child) = self.child.take() {
            // It may have ended already; that is as well.
            drop(child.kill());
            drop(child.wait());
        }
        if std::thread::panicking() {
            eprintln!("--- log of the proxy:\n{}", self.log());
        }
    }
}
