//! `check`: would `serve` work with this configuration? Prints one line for each thing it tried.

use crate::config::Config;
use crate::forward::{Answer, HttpUpstream};
use crate::socket::NetworkBytes;
use crate::telemetry::LimitHits;
use prometheus::Registry;
use std::process::ExitCode;

#[expect(clippy::print_stdout, reason = "what it prints is what it is for")]
pub(super) fn run(config: Config) -> anyhow::Result<ExitCode> {
    println!("configuration: ok");
    let url = config.forward.url.clone();
    let registry = Registry::new();
    let (network, limits) = (NetworkBytes::new(&registry)?, LimitHits::new(&registry)?);
    let upstream = HttpUpstream::new(config.forward, &registry, &network, &limits)?;
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let answer = runtime.block_on(upstream.probe());
    runtime.shutdown_background();
    let (well, what) = verdict(answer);
    println!("upstream {url}: {what}");
    Ok(if well { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

/// An empty remote write is taken by everything that is a remote-write receiver.
fn verdict(answer: Answer) -> (bool, String) {
    match answer {
        Answer::Taken => (true, "ok, took an empty remote write".to_owned()),
        Answer::Conflict { text } => (false, refused(409, &text)),
        Answer::TooBig { text } => (false, refused(413, &text)),
        Answer::Refused { status, text } | Answer::Unavailable { status, text } => {
            (false, refused(status, &text))
        }
        Answer::NoAnswer { error } => (false, format!("failed, {error}")),
    }
}

fn refused(status: u16, text: &str) -> String {
    format!("failed, answered an empty remote write with {status}: {text:?}")
}
