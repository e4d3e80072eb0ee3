//! The flags of `load`, and what is printed in the end.

use super::{Load, LoadOptions, check};
use crate::wire::Protocol;
use std::net::SocketAddr;
use std::process::ExitCode;
use std::time::Duration;

/// What the load generator can be told. It reads none of the proxy's variables, but names that are none are refused here, too.
#[derive(Debug, clap::Args)]
pub(in crate::command) struct LoadArguments {
    /// Remote-write endpoint to send to, e.g. http://127.0.0.1:19290/api/v1/receive
    #[arg(long, value_name = "URL")]
    target: String,
    /// Series of each replica, over all groups.
    #[arg(long, default_value_t = 200_000)]
    series: usize,
    /// HA groups that the series are spread over; the label `cluster` tells them apart.
    #[arg(long, default_value_t = 1)]
    groups: usize,
    /// Tenants that the groups are spread over, by the header THANOS-TENANT.
    #[arg(long, default_value_t = 1)]
    tenants: usize,
    /// Replicas of each HA group.
    #[arg(long, default_value_t = 2)]
    replicas: usize,
    /// Shards of each replica, each with one request in flight.
    #[arg(long, default_value_t = 4)]
    shards: usize,
    /// Most samples of a request, from 10 to 10,000.
    #[arg(long, default_value_t = 2_000)]
    batch: usize,
    /// Labels of each series in all, from 5 to 40; without it those of real series, 6 to 12.
    #[arg(long)]
    labels: Option<usize>,
    /// Series that end and are replaced by new ones, in percent of all a minute; of sample time, if saturated.
    #[arg(long, value_name = "PERCENT", default_value_t = 0)]
    churn: u32,
    /// The last replica of each group begins so far behind, when the others are live, and catches up as fast as it is taken.
    #[arg(long, value_name = "DURATION", value_parser = humantime::parse_duration)]
    backlog: Option<Duration>,
    /// Scrape interval; of sample time, if saturated.
    #[arg(long, default_value = "15s", value_parser = humantime::parse_duration)]
    interval: Duration,
    /// Measured time, after every series was taken once and senders have caught up with the clock. Ctrl-c ends it early.
    #[arg(long, default_value = "60s", value_parser = humantime::parse_duration)]
    duration: Duration,
    /// As fast as the target takes it, instead of by the clock. Sample times begin in the past.
    #[arg(long)]
    saturate: bool,
    /// Version of remote write.
    #[arg(long, default_value = "1.0", value_parser = protocol)]
    protocol: Protocol,
    /// Listen here for what the target sends on, and check it.
    #[arg(long, value_name = "ADDR")]
    sink: Option<SocketAddr>,
    /// The target's process on this machine, for its CPU time and memory.
    #[arg(long)]
    pid: Option<u32>,
    /// The target's metrics, for the same where --pid is not given.
    #[arg(long, value_name = "URL")]
    metrics: Option<String>,
    /// End with a JSON object on one line instead of the table.
    #[arg(long)]
    json: bool,
}

impl LoadArguments {
    /// What to do, and whether to end with an object.
    pub(in crate::command) fn options(self) -> anyhow::Result<(LoadOptions, bool)> {
        let Self { target, series, replicas, shards, interval, duration, saturate, protocol, .. } = self;
        let Self { sink, pid, metrics, json, groups, tenants, batch, labels, churn, backlog, .. } = self;
        let options = LoadOptions {
            target,
            series,
            groups,
            tenants,
            replicas,
            shards,
            batch,
            labels,
            churn,
            backlog,
            interval,
            duration,
            saturate,
            protocol,
            sink,
            pid,
            metrics,
            threads: None,
        };
        check(&options)?;
        Ok((options, json))
    }
}

fn protocol(text: &str) -> Result<Protocol, String> {
    match text {
        "1.0" => Ok(Protocol::One),
        "2.0" => Ok(Protocol::Two),
        _ => Err("expected 1.0 or 2.0".to_owned()),
    }
}

/// Runs it and prints how it went. The exit code is 1 if something is that must not be.
#[expect(clippy::print_stdout, reason = "what it prints is what it is for")]
pub(in crate::command) fn print(load: Load, json: bool) -> anyhow::Result<ExitCode> {
    let outcome = load.run(None)?;
    match json {
        true => println!("{}", outcome.json),
        false => outcome.table.iter().for_each(|line| println!("{line}")),
    }
    Ok(if outcome.broken.is_empty() { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}
