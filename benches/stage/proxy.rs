//! The binary as a child process, and what `/proc` says of it.

use promdedup::stand_in::connection::Connection;
use std::io::{BufRead, BufReader};
use std::net::SocketAddr;
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::thread;
use std::time::Duration;
use tokio::runtime;
use tokio::time::timeout;

/// Of `/proc/PID/stat`: hundredths of a second on every Linux there is.
const TICK: Duration = Duration::from_millis(10);
const READY_MAX: Duration = Duration::from_secs(10);

/// Killed when dropped.
pub(crate) struct Proxy {
    child: Child,
    /// Where remote write goes.
    pub(crate) data: SocketAddr,
    /// `http://` and its address.
    pub(crate) admin: String,
    lines: Arc<AtomicU64>,
}

/// What it has used since it began.
#[derive(Clone, Copy)]
pub(crate) struct Usage {
    /// CPU time of all threads, user and system.
    pub(crate) cpu: Duration,
    /// That of the data threads.
    pub(crate) data_ran: Duration,
    /// How long these were ready to run, and had no core.
    pub(crate) data_waited: Duration,
}

impl Usage {
    pub(crate) fn since(self, before: Self) -> Self {
        Self {
            cpu: self.cpu - before.cpu,
            data_ran: self.data_ran - before.data_ran,
            data_waited: self.data_waited - before.data_waited,
        }
    }
}

impl Proxy {
    /// With one data thread, no wait at the first contact, and these variables.
    pub(crate) fn start(upstream: &str, variables: &[(&str, &str)]) -> Self {
        let mut child = Command::new(env!("CARGO_BIN_EXE_promdedup"))
            .env_clear()
            .env("PROMDEDUP_UPSTREAM_URL", upstream)
            .env("PROMDEDUP_LISTEN", "127.0.0.1:0")
            .env("PROMDEDUP_ADMIN_LISTEN", "127.0.0.1:0")
            .env("PROMDEDUP_FIRST_CONTACT_HOLD", "0s")
            .env("PROMDEDUP_WORKERS", "1")
            .env("PROMDEDUP_LOG_FORMAT", "json")
            .envs(variables.iter().copied())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        let mut log = BufReader::new(child.stderr.take().unwrap()).lines();
        let lines = Arc::new(AtomicU64::new(0));
        let addresses = loop {
            let line = log.next().expect("it says where it listens").unwrap();
            let line: serde_json::Value = serde_json::from_str(&line).unwrap();
            if line["data"].is_string() {
                break line;
            }
        };
        let at = |name: &str| addresses[name].as_str().unwrap().to_owned();
        let (data, admin) = (at("data").parse().unwrap(), format!("http://{}", at("admin")));
        let counted = Arc::clone(&lines);
        thread::spawn(move || {
            for line in log.map_while(Result::ok) {
                counted.fetch_add(1, Relaxed);
                show(&line);
            }
        });
        until_ready(&admin);
        Self { child, data, admin, lines }
    }

    pub(crate) fn pid(&self) -> u32 {
        self.child.id()
    }

    /// How many lines it has logged since it said where it listens.
    pub(crate) fn lines(&self) -> u64 {
        self.lines.load(Relaxed)
    }

    /// The memory that it has had at most so far, and has now, in MiB.
    pub(crate) fn memory_mib(&self) -> (u64, u64) {
        let status = std::fs::read_to_string(format!("/proc/{}/status", self.pid())).unwrap();
        let of = |name: &str| {
            let kib = status.lines().find_map(|line| line.strip_prefix(name)).unwrap();
            kib.trim().trim_end_matches(" kB").parse::<u64>().unwrap() / 1024
        };
        (of("VmHWM:"), of("VmRSS:"))
    }

    pub(crate) fn usage(&self) -> Usage {
        let process = format!("/proc/{}", self.pid());
        let stat = std::fs::read_to_string(format!("{process}/stat")).unwrap();
        // Behind the name, which may have blanks: fields 14 and 15 of all.
        let fields = stat.rsplit_once(')').unwrap().1;
        let ticks: u32 = fields.split_whitespace().skip(11).take(2).map(|n| n.parse::<u32>().unwrap()).sum();
        let mut usage = Usage { cpu: TICK * ticks, data_ran: Duration::ZERO, data_waited: Duration::ZERO };
        for thread in std::fs::read_dir(format!("{process}/task")).unwrap() {
            let thread = thread.unwrap().path();
            // Others come and go.
            let read = |name: &str| std::fs::read_to_string(thread.join(name)).unwrap_or_default();
            if read("comm").starts_with("promdedup-data") {
                let times = read("schedstat");
                let mut times = times.split_whitespace().map(|ns| Duration::from_nanos(ns.parse().unwrap()));
                usage.data_ran += times.next().unwrap();
                usage.data_waited += times.next().unwrap();
            }
        }
        usage
    }
}

fn until_ready(admin: &str) {
    let runtime = runtime::Builder::new_current_thread().enable_all().build().unwrap();
    runtime.block_on(async {
        let mut admin = Connection::to(&format!("{admin}/-/ready")).unwrap();
        let ready = async { while admin.get().await.is_ok_and(|reply| reply.status != 200) {} };
        timeout(READY_MAX, ready).await.expect("it gets ready");
    });
}

/// What the proxy logs is to be seen.
#[allow(clippy::print_stderr, reason = "a bench")]
fn show(line: &str) {
    eprintln!("{line}");
}

impl Drop for Proxy {
    fn drop(&mut self) {
        drop(self.child.kill());
        drop(self.child.wait());
    }
}
