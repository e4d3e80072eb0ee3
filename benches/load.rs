//! The whole: a real proxy between the senders and the sink of `promdedup load`, saturated for some seconds. Prints load's table and
//! the stages of the codec floor; see BENCHMARKING.md for the canonical load, which has a process for each.
//!
//! The three share this process: the proxy's CPU time is that of its data threads.
#![allow(missing_docs, clippy::unwrap_used, clippy::print_stdout, reason = "a bench")]

use promdedup::app::App;
use promdedup::command::load::{Load, LoadOptions, floor};
use promdedup::config::Config;
use promdedup::wire::Protocol;
use std::time::Duration;

const BODIES: [&str; 5] = ["big-a-2", "big-a-3", "big-b-1", "big-b-2", "big-b-3"];

fn main() {
    let test = std::env::args().any(|argument| argument == "--test");
    floor_of_the_corpus();
    let mut options = LoadOptions::to("http://127.0.0.1:1/");
    options.saturate = true;
    options.threads = Some("promdedup-data".to_owned());
    options.sink = Some(([127, 0, 0, 1], 0).into());
    (options.series, options.duration) =
        if test { (2_000, Duration::from_millis(500)) } else { (200_000, Duration::from_secs(10)) };
    let load = Load::bind(options).unwrap();
    let upstream = format!("http://{}/api/v1/receive", load.sink().unwrap());
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap();
    let proxy = runtime.block_on(async { App::build(config(&upstream)).unwrap() });
    let target = format!("http://{}/api/v1/receive", proxy.addresses().data);
    let (stop, stopped) = tokio::sync::oneshot::channel::<()>();
    let running = runtime.spawn(proxy.run(async move { drop(stopped.await) }));
    let outcome = load.run(Some(&target)).unwrap();
    outcome.table.iter().for_each(|line| println!("{line}"));
    drop(stop);
    runtime.block_on(running).unwrap().unwrap();
    assert_eq!(outcome.broken, Vec::<String>::new());
}

/// On the bodies that the stages are benched on: what `load` measures on its own should be about the same.
fn floor_of_the_corpus() {
    let read = |name: &&str| {
        std::fs::read(format!("{}/tests/corpus/rw1-{name}.bin", env!("CARGO_MANIFEST_DIR"))).unwrap()
    };
    let floor = floor::measure(&BODIES.iter().map(read).collect::<Vec<_>>(), Protocol::One).unwrap();
    println!(
        "codec floor of a pair on the corpus: {:.0} ns per input sample; {floor:.1?}",
        floor.of_replicas(2)
    );
}

fn config(upstream: &str) -> Config {
    Config::from_pairs([
        ("PROMDEDUP_UPSTREAM_URL", upstream),
        ("PROMDEDUP_LISTEN", "127.0.0.1:0"),
        ("PROMDEDUP_ADMIN_LISTEN", "127.0.0.1:0"),
        ("PROMDEDUP_FIRST_CONTACT_HOLD", "0s"),
    ])
    .unwrap()
}
