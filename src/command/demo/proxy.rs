//! What the demo can see of the proxy: its `/metrics` over HTTP, and the CPU time of its threads.

use crate::stand_in::connection::Connection;
use anyhow::{Context as _, ensure};
use std::net::SocketAddr;
use std::time::Duration;

/// Linux counts CPU time for `/proc` in hundredths of a second on every architecture (`USER_HZ`).
const TICKS_PER_SECOND: f64 = 100.0;

/// A way to look.
pub(super) struct ProxyView {
    metrics: Connection,
    threads: String,
}

/// The proxy at one moment; all counted since its start.
#[derive(Debug, Clone, Default, PartialEq)]
pub(super) struct Glance {
    pub(super) received: f64,
    pub(super) forwarded: f64,
    pub(super) duplicates: f64,
    pub(super) refused: f64,
    pub(super) rejected: f64,
    pub(super) failed: f64,
    pub(super) filled: f64,
    pub(super) takeovers: f64,
    pub(super) target_moves: f64,
    pub(super) waits: f64,
    pub(super) benign_conflicts: f64,
    pub(super) bytes_in: f64,
    pub(super) bytes_out: f64,
    /// Compressed bytes of bodies that arrived, and of those that deduplication makes of them.
    pub(super) bodies_in: f64,
    pub(super) bodies_out: f64,
    /// CPU seconds of its data threads; `None` if there is no thread of that name.
    pub(super) cpu_s: Option<f64>,
    /// CPU seconds of the whole process, senders and stand-in included.
    pub(super) process_cpu_s: Option<f64>,
}

impl ProxyView {
    pub(super) fn new(admin: SocketAddr, threads: &str) -> anyhow::Result<Self> {
        let metrics = Connection::to(&format!("http://{admin}/metrics"))?;
        Ok(Self { metrics, threads: threads.to_owned() })
    }

    pub(super) async fn look(&mut self) -> anyhow::Result<Glance> {
        let reply = tokio::time::timeout(Duration::from_secs(5), self.metrics.get())
            .await
            .context("the proxy's metrics took more than 5 s")?
            .context("the proxy's metrics")?;
        ensure!(reply.status == 200, "the proxy's metrics answered {}", reply.status);
        let all = |name: &str| sum(&reply.text, name, &[]);
        let outcome = |outcome| sum(&reply.text, "promdedup_samples_total", &[("outcome", outcome)]);
        let bodies = |stage| sum(&reply.text, "promdedup_body_bytes_total", &[("stage", stage)]);
        let network = |side, direction| {
            sum(&reply.text, "promdedup_network_bytes_total", &[("side", side), ("direction", direction)])
        };
        Ok(Glance {
            received: all("promdedup_samples_received_total"),
            forwarded: outcome("forwarded"),
            duplicates: outcome("duplicate"),
            refused: outcome("refused"),
            rejected: outcome("rejected"),
            failed: outcome("failed"),
            filled: all("promdedup_samples_filled_total"),
            takeovers: all("promdedup_takeovers_total"),
            target_moves: all("promdedup_target_moves_total"),
            waits: all("promdedup_waits_total"),
            benign_conflicts: all("promdedup_benign_conflicts_total"),
            bytes_in: network("sender", "received"),
            bytes_out: network("upstream", "sent"),
            bodies_in: bodies("compressed_in"),
            bodies_out: bodies("compressed_out"),
            cpu_s: thread_cpu_s(&self.threads),
            process_cpu_s: std::fs::read_to_string("/proc/self/stat").ok().and_then(|stat| cpu_s(&stat)),
        })
    }
}

/// The sum of all samples of a metric whose labels contain these.
pub(in crate::command) fn sum(text: &str, name: &str, labels: &[(&str, &str)]) -> f64 {
    let values = text.lines().filter_map(|line| {
        let rest = line.strip_prefix(name)?;
        let (have, value) = match rest.strip_prefix('{') {
            Some(rest) => rest.rsplit_once("} ")?,
            None => ("", rest.strip_prefix(' ')?),
        };
        let matches = labels.iter().all(|(name, value)| have.contains(&format!("{name}=\"{value}\"")));
        let value = value.split_whitespace().next()?;
        if matches { value.parse::<f64>().ok() } else { None }
    });
    values.sum()
}

/// Sums over the threads whose name begins so (the kernel keeps 15 bytes of a name).
pub(in crate::command) fn thread_cpu_s(prefix: &str) -> Option<f64> {
    let threads = std::fs::read_dir("/proc/self/task").ok()?;
    let times: Vec<f64> = threads
        .filter_map(|thread| {
            let stat = std::fs::read_to_string(thread.ok()?.path().join("stat")).ok()?;
            let name = stat.split_once('(')?.1.rsplit_once(')')?.0;
            if name.starts_with(&prefix[..prefix.len().min(15)]) { cpu_s(&stat) } else { None }
        })
        .collect();
    if times.is_empty() { None } else { Some(times.iter().sum()) }
}

/// User and system time of a `stat` file: fields 14 and 15, counted after the name, which may contain anything.
pub(in crate::command) fn cpu_s(stat: &str) -> Option<f64> {
    let fields: Vec<&str> = stat.rsplit_once(") ")?.1.split(' ').collect();
    let ticks: f64 = fields.get(11)?.parse::<f64>().ok()? + fields.get(12)?.parse::<f64>().ok()?;
    Some(ticks / TICKS_PER_SECOND)
}

#[cfg(test)]
mod tests {
    use super::{cpu_s, sum, thread_cpu_s};

    const TEXT: &str = "# HELP a_total x\n# TYPE a_total counter\n\
        a_total{group=\"x}y\",outcome=\"forwarded\"} 3\na_total{group=\"z\",outcome=\"duplicate\"} 4.5\nb 7\nbc 100\n";

    #[test]
    fn sums_what_matches() {
        let check = |name, labels: &[(&str, &str)], expect: f64| assert_eq!(sum(TEXT, name, labels), expect);
        check("a_total", &[], 7.5);
        check("a_total", &[("outcome", "forwarded")], 3.0);
        check("b", &[], 7.0);
        check("absent", &[], 0.0);
    }

    #[test]
    fn reads_times_behind_any_name() {
        let stat = "7 (a) b) S 1 2 3 4 5 6 7 8 9 10 150 50 0 0";
        assert_eq!(cpu_s(stat), Some(2.0));
        assert_eq!(thread_cpu_s("no-such-thread"), None);
    }
}
