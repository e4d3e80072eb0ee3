//! Several instances behind an nginx that deals requests round, with their groups shared out by a PostgreSQL: what a sample costs all
//! of them together, by how many there are, and so by how many samples take a hop. Saturated; one data thread each.
//!
//! Needs Debian's `postgresql` and `nginx`. `cargo bench --features postgres --bench fleet`; see BENCHMARKING.md.
#![allow(
    missing_docs,
    dead_code,
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::print_stdout,
    clippy::print_stderr,
    reason = "a bench, with some of what tests use"
)]

#[path = "../tests/postgres/nginx.rs"]
mod nginx;
#[path = "../tests/real/process.rs"]
mod process;
#[path = "../tests/postgres/server.rs"]
mod server;

use nginx::Nginx;
use process::{PATIENCE, Process, eventually, page};
use promdedup::command::load::{Load, LoadOptions};
use server::Server;
use std::io::Write;
use std::net::TcpListener;
use std::process::Command;
use std::time::Duration;
use tempfile::{NamedTempFile, TempDir};
use tokio::runtime::{Builder, Runtime};

/// Their series are dealt out evenly.
const GROUPS: usize = 20;

struct Instance {
    process: Process,
    data: String,
    admin: String,
    _folder: TempDir,
}

fn main() {
    let test = std::env::args().any(|argument| argument == "--test");
    let lasts = if test { Duration::from_millis(500) } else { Duration::from_secs(10) };
    let runtime = Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap();
    let server = runtime.block_on(Server::start());
    println!(
        "| instances | database | hop share | samples/s | CPU ns a sample, of all | beside the first | lost |"
    );
    println!("|---|---|---|---|---|---|---|");
    let mut first = None;
    for (count, database) in [(1, false), (1, true), (2, true), (3, true)] {
        let url = match database {
            true => Some(runtime.block_on(server.database(&format!("fleet{count}")))),
            false => None,
        };
        let row = run(&runtime, count, url, lasts);
        let first = *first.get_or_insert(row.cpu_ns);
        println!(
            "| {count} | {} | {:.2} | {:.0} | {:.0} | {:.2} | {} |",
            if database { "yes" } else { "no" },
            row.hop_share,
            row.samples_per_second,
            row.cpu_ns,
            row.cpu_ns / first,
            row.lost
        );
        let expected = (count as f64 - 1.0) / count as f64;
        assert!(test || (row.hop_share - expected).abs() < 0.1, "requests are not dealt evenly");
        assert_eq!(row.lost, 0);
        assert!(row.cpu_ns > 0.0, "nothing was measured");
    }
}

struct Row {
    hop_share: f64,
    samples_per_second: f64,
    cpu_ns: f64,
    lost: i64,
}

fn run(runtime: &Runtime, count: usize, database: Option<String>, lasts: Duration) -> Row {
    let mut options = LoadOptions::to("http://127.0.0.1:1/");
    (options.groups, options.series, options.shards) = (GROUPS, GROUPS * 2_000, 1);
    (options.saturate, options.duration) = (true, lasts);
    options.sink = Some(([127, 0, 0, 1], 0).into());
    let load = Load::bind(options).unwrap();
    let upstream = format!("http://{}/api/v1/receive", load.sink().unwrap());
    let mut token = NamedTempFile::new().unwrap();
    token.write_all(b"a-secret-of-instances\n").unwrap();
    let token = token.path().display().to_string();
    let (instances, nginx) = runtime.block_on(async {
        let mut instances = Vec::new();
        for number in 0..count {
            instances.push(Instance::start(number, &upstream, database.as_deref(), &token).await);
        }
        let addresses: Vec<_> = instances.iter().map(|instance| instance.data.clone()).collect();
        (instances, Nginx::before(&addresses).await)
    });
    let outcome = load.run(Some(&nginx.url)).unwrap();
    assert_eq!(outcome.broken, Vec::<String>::new());
    let json: serde_json::Value = serde_json::from_str(&outcome.json).unwrap();
    let sum = |metric: &str| -> f64 {
        instances.iter().map(|instance| runtime.block_on(instance.sum(metric))).sum()
    };
    // All of it from the start on, the warm-up included; CPU time by their own count.
    let cpu_s = sum("promdedup_cpu_seconds_total");
    let passed_on = sum("promdedup_hops_received_total");
    Row {
        hop_share: (passed_on / (sum("promdedup_requests_total") - passed_on)).abs(),
        samples_per_second: json["samples_per_second"].as_f64().unwrap(),
        cpu_ns: cpu_s * 1e9 / sum("promdedup_samples_total"),
        lost: json["lost"].as_i64().unwrap(),
    }
}

impl Instance {
    async fn start(number: usize, upstream: &str, database: Option<&str>, token: &str) -> Self {
        let free = TcpListener::bind("127.0.0.1:0").and_then(|free| free.local_addr()).unwrap();
        let (data, folder) = (free.to_string(), tempfile::tempdir().unwrap());
        let mut command = Command::new(env!("CARGO_BIN_EXE_promdedup"));
        command.env_clear().envs([
            ("PROMDEDUP_UPSTREAM_URL", upstream),
            ("PROMDEDUP_LISTEN", &data),
            ("PROMDEDUP_ADMIN_LISTEN", "127.0.0.1:0"),
            ("PROMDEDUP_FIRST_CONTACT_HOLD", "0s"),
            ("PROMDEDUP_WORKERS", "1"),
        ]);
        if let Some(database) = database {
            command.envs([
                ("PROMDEDUP_COORDINATION_URL", database),
                ("PROMDEDUP_PEER_TOKEN_FILE", token),
                ("PROMDEDUP_ADVERTISE_URL", &format!("http://{data}")),
            ]);
        }
        let log = folder.path().join("log");
        let name = format!("instance {number}");
        let mut process = Process::start(&name, &mut command, log, "promdedup was built with this bench");
        let admin = process.address("listening", "admin=").await.to_string();
        let instance = Self { process, data, admin, _folder: folder };
        if database.is_some() {
            eventually("it is on the list", PATIENCE, async || {
                (instance.sum("promdedup_placement_instances").await > number as f64).then_some(())
            })
            .await;
        }
        instance
    }

    /// Of a metric, over its labels.
    async fn sum(&self, metric: &str) -> f64 {
        let text = page(&format!("http://{}/metrics", self.admin)).await.expect("metrics");
        let of_it = |line: &&str| {
            line.strip_prefix(metric).is_some_and(|rest| rest.starts_with(' ') || rest.starts_with('{'))
        };
        text.lines().filter(of_it).filter_map(|line| line.rsplit(' ').next()?.parse::<f64>().ok()).sum()
    }
}
