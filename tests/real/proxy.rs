//! The binary under test, configured by its environment alone, and the metrics of whoever has some.

use crate::process::{PATIENCE, Process, page};
use std::net::SocketAddr;
use std::process::Command;
use tempfile::TempDir;
use tokio::net::TcpSocket;

/// `promdedup serve` over its restarts, on one port. Dropping it kills it.
pub(crate) struct Proxy {
    /// Bound and never listening, so that nobody else is given the port while the proxy is gone.
    port: TcpSocket,
    environment: Vec<(String, String)>,
    admin: SocketAddr,
    /// Logs of the lives that are over.
    past: String,
    // Before the folder, so that its log can still be shown when it is dropped.
    process: Process,
    folder: TempDir,
}

impl Proxy {
    /// Starts it and waits until it listens.
    pub(crate) async fn start(upstream: &str, more: &[(&str, &str)]) -> Self {
        let folder = tempfile::tempdir().expect("a folder");
        let port = TcpSocket::new_v4().expect("a socket");
        port.set_reuseaddr(true).expect("an option");
        port.bind("127.0.0.1:0".parse().expect("an address")).expect("bound");
        let listen = port.local_addr().expect("an address").to_string();
        let own = [
            ("PROMDEDUP_UPSTREAM_URL", upstream),
            ("PROMDEDUP_LISTEN", &listen),
            ("PROMDEDUP_ADMIN_LISTEN", "127.0.0.1:0"),
            ("PROMDEDUP_LOG_FORMAT", "json"),
        ];
        let all = own.iter().chain(more);
        let environment: Vec<_> =
            all.map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect();
        let (process, admin) = launch(&environment, &folder).await;
        Self { port, environment, admin, past: String::new(), process, folder }
    }

    /// Starts it again on its port, with an empty window.
    pub(crate) async fn restart(&mut self) {
        self.past.push_str(&self.process.log());
        (self.process, self.admin) = launch(&self.environment, &self.folder).await;
    }

    /// Where it listens for senders.
    pub(crate) fn address(&self) -> String {
        self.port.local_addr().expect("an address").to_string()
    }

    /// What a Prometheus is configured with.
    pub(crate) fn url(&self) -> String {
        format!("http://{}/api/v1/receive", self.address())
    }

    pub(crate) async fn metrics(&self) -> Metrics {
        Metrics::of(&format!("http://{}/metrics", self.admin)).await
    }

    /// Its log lines of level WARN and ERROR, in all its lives.
    pub(crate) fn complaints(&self) -> Vec<String> {
        let bad = |line: &&str| line.contains(r#""level":"WARN""#) || line.contains(r#""level":"ERROR""#);
        let log = self.past.clone() + &self.process.log();
        log.lines().filter(bad).map(str::to_owned).collect()
    }

    /// SIGTERM: what is in flight is finished.
    pub(crate) async fn terminate(&mut self) {
        self.process.terminate().await;
    }

    /// SIGKILL.
    pub(crate) fn kill(&mut self) {
        self.process.kill();
    }
}

async fn launch(environment: &[(String, String)], folder: &TempDir) -> (Process, SocketAddr) {
    let mut command = Command::new(env!("CARGO_BIN_EXE_promdedup"));
    command.env_clear().envs(environment.iter().map(|(name, value)| (name, value)));
    let log = folder.path().join("log");
    let mut process = Process::start("promdedup", &mut command, log, "the binary was not built");
    let admin = process.address("listening", r#""admin":""#).await;
    (process, admin)
}

/// A page of metrics as it was at one moment.
pub(crate) struct Metrics(String);

impl Metrics {
    pub(crate) async fn of(url: &str) -> Self {
        let what = format!("{url} answers");
        Self(crate::process::eventually(&what, PATIENCE, async || page(url).await).await)
    }

    /// The sum of all samples of a metric that have these labels; 0 if there are none.
    pub(crate) fn sum(&self, name: &str, labels: &[(&str, &str)]) -> f64 {
        let values = self.0.lines().filter_map(|line| {
            let rest = line.strip_prefix(name)?;
            let (have, value) = match rest.strip_prefix('{') {
                Some(rest) => rest.rsplit_once("} ")?,
                None => ("", rest.strip_prefix(' ')?),
            };
            let has = |(label, value): &(&str, &str)| have.contains(&format!("{label}=\"{value}\""));
            labels.iter().all(has).then(|| value.trim().parse::<f64>().ok())?
        });
        // The sum of no floats at all is -0.
        values.fold(0.0, |sum, value| sum + value)
    }
}
