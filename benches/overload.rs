//! Overload: more senders than the proxy has room and time for. It is to go on accepting what it can, and refuse the rest with 503.
//!
//! First the peak of four senders as fast as they can, then 1, 2, 5 and 10 times as many of them, each at a quarter of that peak.
//! The proxy is the binary, with one data-plane thread and little memory for requests; senders and upstream are this process. What is
//! acknowledged is held against what upstream has, and what the proxy's threads used against what they could get. Prints a table; see
//! BENCHMARKING.md.
#![allow(missing_docs, clippy::unwrap_used, clippy::expect_used, clippy::print_stdout, reason = "a bench")]

#[path = "stage/stage.rs"]
mod stage;

use http::HeaderMap;
use stage::{Pace, Probed, Proxy, Sender, Tally, Upstream, Usage, Way, identity, p99, probe};
use std::collections::HashSet;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::thread;
use std::time::Duration;
use tokio::runtime;
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep_until};

/// Senders of the peak.
const SENDERS: usize = 4;
/// A full batch of Prometheus.
const SAMPLES: usize = 2_000;
const STEPS: [usize; 4] = [1, 2, 5, 10];
/// Room for some thirty of these requests: less than there are senders in the last step.
const VARIABLES: [(&str, &str); 2] = [("PROMDEDUP_BODY_MAX", "1MiB"), ("PROMDEDUP_IN_FLIGHT_MAX", "6MiB")];
const RSS_MAX_MIB: u64 = 128;
const ADMIN_MAX: Duration = Duration::from_millis(100);
/// What is accepted under overload, of what is at the peak. The senders take their part of the machine, too.
const ACCEPTED_LEAST: f64 = 0.7;
/// Offered by as many senders as in the last step, of the peak: nothing waits.
const CALM: f64 = 0.5;
/// What an accepted sample may cost the proxy, of what it does then: refusals are to be cheap.
const COST_MOST: f64 = 1.25;

fn main() {
    let test = std::env::args().any(|argument| argument == "--test");
    let lasts = Duration::from_millis(if test { 300 } else { 8_000 });
    let upstream = Upstream::start();
    let proxy = Proxy::start(&upstream.url, &VARIABLES);
    let mut senders: Vec<Sender> = Vec::new();
    // All series are known before anything is measured.
    let most = SENDERS * STEPS[STEPS.len() - 1];
    let first = run(&proxy, &mut senders, most, None, lasts / 4, &upstream);
    assert_eq!((first.lost, first.errors), (0, 0));
    let peak = run(&proxy, &mut senders, SENDERS, None, lasts, &upstream);
    println!("peak of {SENDERS} senders: {:.0} samples/s\n", peak.accepted);
    println!(
        "| offered, of the peak | samples/s offered | accepted | refused (503), requests/s | proxy's CPU, ns per accepted sample | data thread ran / waited for a core, % | p99 of accepted, ms | most memory, MiB | admin, slowest, ms | lost |"
    );
    println!("|---|---|---|---|---|---|---|---|---|---|");
    peak.print("peak", peak.accepted);
    let mut broken = Vec::new();
    let rate = peak.accepted / SENDERS as f64;
    // As many series as in the last step, and nothing to refuse: what is dearer then has nothing to do with overload.
    let calm = run(&proxy, &mut senders, most, Some(CALM * peak.accepted / most as f64), lasts, &upstream);
    calm.print(&format!("{CALM} x, by {most} senders"), CALM * peak.accepted);
    for times in STEPS {
        let step = run(&proxy, &mut senders, SENDERS * times, Some(rate), lasts, &upstream);
        step.print(&format!("{times} x"), peak.accepted * times as f64);
        let bounds = [
            (step.lost > 0 || step.errors > 0, "something was lost, or answered neither 204 nor 503"),
            (!test && step.accepted < ACCEPTED_LEAST * peak.accepted, "less was accepted than at the peak"),
            (
                !test && step.cpu_ns > COST_MOST * calm.cpu_ns,
                "an accepted sample cost more than one of a calm day",
            ),
            (!test && step.rss_mib > RSS_MAX_MIB, "it took more memory than it may"),
            (!test && step.admin > ADMIN_MAX, "the admin listener took too long"),
        ];
        broken.extend(bounds.iter().filter(|(bad, _)| *bad).map(|(_, what)| format!("{times} x: {what}")));
    }
    assert_eq!(broken, Vec::<String>::new());
}

/// What came of a step.
struct Step {
    /// Samples acknowledged a second.
    accepted: f64,
    /// Requests refused a second.
    refused: f64,
    errors: u64,
    /// Of the whole proxy, by accepted sample.
    cpu_ns: f64,
    /// Of the step's time.
    ran: f64,
    waited: f64,
    p99: Duration,
    rss_mib: u64,
    admin: Duration,
    lost: usize,
}

impl Step {
    fn print(&self, name: &str, offered: f64) {
        println!(
            "| {name} | {offered:.0} | {:.0} | {:.0} | {:.0} | {:.0} / {:.0} | {:.0} | {} | {:.1} | {} |",
            self.accepted,
            self.refused,
            self.cpu_ns,
            self.ran * 1e2,
            self.waited * 1e2,
            self.p99.as_secs_f64() * 1e3,
            self.rss_mib,
            self.admin.as_secs_f64() * 1e3,
            self.lost
        );
    }
}

/// So many senders at a time for a while, each at that rate, or as fast as it can.
fn run(
    proxy: &Proxy,
    senders: &mut Vec<Sender>,
    wanted: usize,
    rate: Option<f64>,
    lasts: Duration,
    upstream: &Upstream,
) -> Step {
    while senders.len() < wanted {
        senders.push(Sender::new(senders.len(), SAMPLES, HeaderMap::new()));
    }
    let rest = senders.split_off(wanted);
    drop(upstream.take());
    let (admin, stop) = (proxy.admin.clone(), Arc::new(AtomicBool::new(false)));
    let stopped = Arc::clone(&stop);
    let probing = thread::spawn(move || probe(&admin, &stopped));
    let runtime = runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let period = rate.map(|rate| Duration::from_secs_f64(SAMPLES as f64 / rate));
    let before = proxy.usage();
    let (tally, used) = runtime.block_on(async {
        let end = Instant::now() + lasts;
        let way = Way { to: proxy.data, tls: None };
        let mut sending = JoinSet::new();
        for sender in senders.drain(..) {
            sending.spawn(sender.send(way.clone(), Pace { period, end, given_up: end }));
        }
        sleep_until(end).await;
        let used = proxy.usage().since(before);
        let mut all = Tally::default();
        while let Some(sent) = sending.join_next().await {
            let (sender, tally) = sent.unwrap();
            senders.push(sender);
            all.add(tally);
        }
        (all, used)
    });
    stop.store(true, Relaxed);
    senders.extend(rest);
    senders.sort_by_key(|sender| sender.number);
    step(tally, used, lasts, proxy.memory_mib().0, probing.join().unwrap(), upstream)
}

fn step(
    mut tally: Tally,
    used: Usage,
    lasts: Duration,
    rss_mib: u64,
    probed: Probed,
    upstream: &Upstream,
) -> Step {
    let stored: HashSet<_> = upstream.take().iter().filter_map(|body| identity(body)).collect();
    let accepted = (tally.acknowledged.len() * SAMPLES) as f64;
    Step {
        accepted: accepted / lasts.as_secs_f64(),
        refused: tally.refused as f64 / lasts.as_secs_f64(),
        errors: tally.errors.len() as u64 + tally.broken + probed.unanswered,
        cpu_ns: used.cpu.as_nanos() as f64 / accepted,
        ran: used.data_ran.as_secs_f64() / lasts.as_secs_f64(),
        waited: used.data_waited.as_secs_f64() / lasts.as_secs_f64(),
        p99: p99(&mut tally.took),
        rss_mib,
        admin: probed.slowest,
        lost: tally.acknowledged.iter().filter(|sent| !stored.contains(sent)).count(),
    }
}
