//! The binary under test, configured by its environment alone, and the metrics of whoever has some.

use crate::process::{PATIENCE, Process, page};
use std::net::SocketAddr;
use std::process::Command;
use tempfile::TempDir;

/// A running `promdedup serve`. Dropping it kills it.
pub(crate) struct Proxy {
    process: Process,
    data: SocketAddr,
    admin: SocketAddr,
    _folder: TempDir,
}

impl Proxy {
    /// Starts it and waits until it listens.
    pub(crate) async fn start(upstream: &str, more: &[(&str, &str)]) -> Self {
        let folder = tempfile::tempdir().expect("a folder");
        let mut command = Command::new(env!("CARGO_BIN_EXE_promdedup"));
        command
            .env_clear()
            .env("PROMDEDUP_UPSTREAM_URL", upstream)
            .env("PROMDEDUP_LISTEN", "127.0.0.1:0")
            .env("PROMDEDUP_ADMIN_LISTEN", "127.0.0.1:0")
            .env("PROMDEDUP_LOG_FORMAT", "json")
            .envs(more.iter().copied());
        let log = folder.path().join("log");
        let mut process = Process::start("promdedup", &mut command, log, "the binary was not built");
        let data = process.address("listening", r#""data":""#).await;
        let admin = process.address("listening", r#""admin":""#).await;
        Self { process, data, admin, _folder: folder }
    }

    /// What a Prometheus is configured with.
    pub(crate) fn url(&self) -> String {
        format!("http://{}/api/v1/receive", self.data)
    }

    pub(crate) async fn metrics(&self) -> Metrics {
        Metrics::of(&format!("http://{}/metrics", self.admin)).await
    }

    /// Its log lines of level WARN and ERROR.
    pub(crate) fn complaints(&self) -> Vec<String> {
        let bad = |line: &&str| line.contains(r#""level":"WARN""#) || line.contains(r#""level":"ERROR""#);
        self.process.log().lines().filter(bad).map(str::to_owned).collect()
    }

    pub(crate) async fn terminate(&mut self) {
        self.process.terminate().await;
    }
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
