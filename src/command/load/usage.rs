//! What a process uses: CPU time and memory, from `/proc` or from its own metrics. Reads; judges nothing.

use super::LoadOptions;
use crate::command::demo::proxy::{cpu_s, sum, thread_cpu_s};
use crate::stand_in::connection::Connection;
use anyhow::{Context as _, ensure};
use std::path::{Path, PathBuf};
use std::time::Duration;

/// How long metrics may take.
const PATIENCE: Duration = Duration::from_secs(5);
/// A promdedup's histograms of its own time and of its upstream's.
const REQUESTS: &str = "promdedup_request_duration_seconds";
const UPSTREAM: &str = "promdedup_upstream_duration_seconds";

/// Where to look.
#[derive(Debug)]
pub(super) struct Watched {
    pid: Option<u32>,
    metrics: Option<Connection>,
    threads: Option<String>,
}

/// At one moment; `None`: not to be had.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub(super) struct Usage {
    /// CPU seconds, user and system, since the process began.
    pub(super) cpu_s: Option<f64>,
    pub(super) resident_bytes: Option<f64>,
    /// A promdedup's own count.
    pub(super) window_bytes: Option<f64>,
    pub(super) window_series: Option<f64>,
    /// Likewise: requests it has answered, their time in all, and that of them in which it waited for its upstream.
    pub(super) requests: Option<f64>,
    pub(super) requests_s: Option<f64>,
    pub(super) upstream_s: Option<f64>,
}

impl Watched {
    pub(super) fn new(options: &LoadOptions) -> anyhow::Result<Self> {
        let metrics = options.metrics.as_deref().map(Connection::to).transpose()?;
        Ok(Self { pid: options.pid, metrics, threads: options.threads.clone() })
    }

    /// Now. What `/proc` says goes before metrics, whose CPU time may be in whole seconds.
    pub(super) async fn look(&mut self) -> anyhow::Result<Usage> {
        let mut usage = match &mut self.metrics {
            Some(metrics) => {
                let reply = tokio::time::timeout(PATIENCE, metrics.get())
                    .await
                    .with_context(|| format!("--metrics took more than {PATIENCE:?}"))?
                    .context("--metrics")?;
                ensure!(reply.status == 200, "--metrics answered {}", reply.status);
                of_metrics(&reply.text)
            }
            None => Usage::default(),
        };
        if let Some(pid) = self.pid {
            let own =
                of_process(&pid.to_string()).with_context(|| format!("--pid {pid}: no such process here"))?;
            usage = Usage { cpu_s: own.cpu_s, resident_bytes: own.resident_bytes, ..usage };
        }
        if let Some(threads) = &self.threads {
            usage.cpu_s = thread_cpu_s(threads);
        }
        Ok(usage)
    }
}

/// `self`, or a number.
pub(super) fn of_process(pid: &str) -> Option<Usage> {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    let status = std::fs::read_to_string(format!("/proc/{pid}/status")).unwrap_or_default();
    let resident = status.lines().find_map(|line| line.strip_prefix("VmRSS:"));
    let kib = resident.and_then(|rest| rest.trim().strip_suffix(" kB")?.parse::<f64>().ok());
    Some(Usage { cpu_s: cpu_s(&stat), resident_bytes: kib.map(|kib| kib * 1024.0), ..Usage::default() })
}

/// Where the system keeps what it knows about this thread.
pub(super) fn this_thread() -> Option<PathBuf> {
    Some(Path::new("/proc").join(std::fs::read_link("/proc/thread-self").ok()?))
}

/// CPU seconds of a thread of this process.
pub(super) fn of_thread(thread: &Path) -> Option<f64> {
    let exact = std::fs::read_to_string(thread.join("schedstat")).ok();
    let exact = exact.and_then(|text| text.split(' ').next()?.parse::<f64>().ok()).filter(|ns| *ns > 0.0);
    exact.map(|ns| ns / 1e9).or_else(|| cpu_s(&std::fs::read_to_string(thread.join("stat")).ok()?))
}

fn of_metrics(text: &str) -> Usage {
    let there = |name: &str| text.lines().any(|line| line.starts_with(name));
    let of = |name: &str| there(name).then(|| sum(text, name, &[]));
    Usage {
        cpu_s: of("process_cpu_seconds_total"),
        resident_bytes: of("process_resident_memory_bytes"),
        window_bytes: of("promdedup_window_bytes"),
        window_series: of("promdedup_window_series"),
        requests: of(&format!("{REQUESTS}_count")),
        requests_s: of(&format!("{REQUESTS}_sum")),
        upstream_s: of(&format!("{UPSTREAM}_sum")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn metrics_are_read_or_absent() {
        let usage = of_metrics("process_cpu_seconds_total 3.25\npromdedup_window_series 7\n");
        assert_eq!((usage.cpu_s, usage.window_series), (Some(3.25), Some(7.0)));
        assert_eq!((usage.resident_bytes, usage.window_bytes), (None, None));
    }

    #[cfg(target_os = "linux")]
    #[test]
    fn this_process_uses_something() {
        let usage = of_process("self").unwrap();
        assert!(usage.resident_bytes.unwrap() > 1e6 && usage.cpu_s.is_some());
        assert_eq!(of_process("0"), None);
        let thread = this_thread().unwrap();
        let before = of_thread(&thread).unwrap();
        let mut sum = 0u64;
        while of_thread(&thread).unwrap() < before + 0.02 {
            sum = std::hint::black_box((0..100_000).fold(sum, u64::wrapping_add));
        }
    }
}
