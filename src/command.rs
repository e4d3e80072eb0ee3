//! COMMAND: the command line, one file a subcommand. The only room that prints.

mod check;
pub mod demo;
pub mod load;
mod serve;

use crate::app::{Addresses, App};
use crate::config::{Config, EXIT_MISCONFIGURED, Mode, Settings};
use crate::telemetry;
use anyhow::anyhow;
use clap::{Parser, Subcommand};
use demo::{DemoOptions, ProxyAddresses, RunningProxy, Screen};
use load::{Load, LoadArguments};
use std::ffi::OsString;
use std::process::ExitCode;
use std::time::Duration;

/// Remote-write deduplication proxy: several Prometheus replicas in, one gap-free stream out.
///
/// Every flag is an environment variable too; a flag wins.
#[derive(Debug, Parser)]
#[command(name = "promdedup", version)]
pub struct CommandLine {
    #[command(subcommand)]
    command: Option<Command>,
    #[command(flatten)]
    settings: Settings,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Runs the proxy (what happens without a command, too).
    Serve(Settings),
    /// Plays the whole story on loopback: two embedded replicas, the proxy, an embedded Thanos Receive that checks.
    Demo(DemoArguments),
    /// Sends as replicas do to any remote-write endpoint, checks what comes out behind it, and says what it cost.
    Load(LoadArguments),
    /// Checks the configuration, contacts the upstream and the OpenID provider, and looks at the senders; one line each.
    Check(check::CheckArguments),
}

/// What the demo can be told. Proxy settings come from the environment as usual, but for the upstream.
#[derive(Debug, clap::Args)]
struct DemoArguments {
    /// How long the replicas run.
    #[arg(long, default_value = "30s", value_parser = humantime::parse_duration)]
    duration: Duration,
    /// About how many series each replica scrapes.
    #[arg(long, default_value_t = 5_000)]
    series: usize,
    /// How many replicas of the HA group there are.
    #[arg(long, default_value_t = 2)]
    replicas: usize,
    /// Scrape and rule interval.
    #[arg(long, default_value = "1s", value_parser = humantime::parse_duration)]
    interval: Duration,
    /// Only proxy and stand-in stay up, for a real Prometheus.
    #[arg(long)]
    no_senders: bool,
    /// The proxy only observes: everything arrives as it was sent, and what deduplication would save is shown.
    #[arg(long)]
    observe: bool,
}

/// Runs one command to its end.
///
/// # Errors
/// When the command fails after its configuration was found to be right.
pub fn run(
    arguments: impl IntoIterator<Item = OsString>,
    environment: impl IntoIterator<Item = (OsString, OsString)>,
) -> anyhow::Result<ExitCode> {
    let line = match CommandLine::try_parse_from(arguments) {
        Ok(line) => line,
        Err(error) => {
            let code = if error.use_stderr() { EXIT_MISCONFIGURED } else { 0 };
            error.print()?;
            return Ok(ExitCode::from(code));
        }
    };
    // Flags may stand before or after the command's name.
    let before = line.settings;
    match line.command.unwrap_or(Command::Serve(Settings::default())) {
        Command::Serve(settings) => match Config::parse(&settings.or(before), environment) {
            Ok(config) => serve::run(config),
            Err(error) => Ok(misconfigured(&error)),
        },
        Command::Demo(_) if before != Settings::default() => Ok(misconfigured(
            anyhow!("demo takes the proxy's settings from the environment, not as flags").as_ref(),
        )),
        Command::Demo(arguments) => play(arguments, environment),
        Command::Load(_) if before != Settings::default() => Ok(misconfigured(
            anyhow!("load takes no settings of the proxy, which is configured by itself").as_ref(),
        )),
        Command::Load(arguments) => match (Config::check_names(environment), arguments.options()) {
            (Ok(()), Ok((options, json))) => load::print(Load::bind(options)?, json),
            (Err(unknown), _) => Ok(misconfigured(&unknown)),
            (_, Err(mistake)) => Ok(misconfigured(mistake.as_ref())),
        },
        Command::Check(arguments) => checked(&arguments, before, environment),
    }
}

fn checked(
    arguments: &check::CheckArguments,
    before: Settings,
    environment: impl IntoIterator<Item = (OsString, OsString)>,
) -> anyhow::Result<ExitCode> {
    let settings = arguments.settings.clone().or(before);
    if let Some(probe) = arguments.health {
        return Ok(match Config::admin_listen(&settings, environment) {
            Ok(admin) => check::health::run(admin, probe),
            Err(error) => misconfigured(&error),
        });
    }
    match Config::parse(&settings, environment) {
        Ok(config) => check::run(config, arguments),
        Err(error) => Ok(misconfigured(&error)),
    }
}

fn play(
    arguments: DemoArguments,
    environment: impl IntoIterator<Item = (OsString, OsString)>,
) -> anyhow::Result<ExitCode> {
    let DemoArguments { duration, series, replicas, interval, no_senders, observe } = arguments;
    let mut options =
        DemoOptions { duration, series, replicas, interval, no_senders, observe, ..DemoOptions::default() };
    if let Err(mistake) = demo::check(&options) {
        return Ok(misconfigured(mistake.as_ref()));
    }
    let environment = demo::environment(environment.into_iter().collect(), no_senders, observe);
    // Everything but the upstream is known before it runs, so that a mistake shows at once.
    let url = "http://127.0.0.1:1/api/v1/receive".to_owned();
    match Config::parse(&Settings::default(), demo::with_upstream(&environment, url)) {
        Ok(config) => {
            // Also if the environment says so.
            options.observe = config.receive.mode == Mode::Observe;
            telemetry::start(&config.telemetry)?;
        }
        Err(error) => return Ok(misconfigured(&error)),
    }
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build()?;
    let played = runtime.block_on(demo::run(options, Screen::stdout(), |url| async move {
        let config = Config::parse(&Settings::default(), demo::with_upstream(&environment, url))?;
        let app = App::build(config)?;
        let Addresses { data, admin } = app.addresses();
        let (stop, stopped) = tokio::sync::oneshot::channel::<()>();
        let running = tokio::spawn(app.run(async move {
            // An error means that the demo is gone, which ends the proxy as well.
            let _ = stopped.await;
        }));
        let stop = Box::pin(async move {
            let _ = stop.send(());
            running.await?
        });
        Ok(RunningProxy { addresses: ProxyAddresses { data, admin }, stop })
    }));
    runtime.shutdown_background();
    played.map(|()| ExitCode::SUCCESS)
}

#[expect(clippy::print_stderr, reason = "there is no log before there is a configuration")]
fn misconfigured(error: &dyn std::error::Error) -> ExitCode {
    eprintln!("promdedup: {error}");
    ExitCode::from(EXIT_MISCONFIGURED)
}

/// 1234567 as 1,234,567.
fn grouped(count: u64) -> String {
    let digits = count.to_string();
    let mut text = String::with_capacity(digits.len() + digits.len() / 3);
    for (nth, digit) in digits.chars().enumerate() {
        if nth > 0 && (digits.len() - nth).is_multiple_of(3) {
            text.push(',');
        }
        text.push(digit);
    }
    text
}

#[cfg(test)]
mod tests {
    use super::grouped;

    #[test]
    fn groups_digits() {
        let check = |count, expect| assert_eq!(grouped(count), expect);
        check(0, "0");
        check(999, "999");
        check(1_000, "1,000");
        check(1_234_567, "1,234,567");
    }
}
