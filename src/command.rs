//! COMMAND: the command line, one file a subcommand. The only room that prints.

mod check;
mod serve;

use crate::config::{Config, EXIT_MISCONFIGURED, Settings};
use clap::{Parser, Subcommand};
use std::ffi::OsString;
use std::process::ExitCode;

/// Remote-write deduplication proxy: several Prometheus replicas in, one gap-free stream out.
///
/// Every flag is an environment variable too; a flag wins.
#[derive(Debug, Parser)]
#[command(name = "promdedup", version, args_conflicts_with_subcommands = true)]
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
    /// Checks the configuration and contacts the upstream, one line each.
    Check(Settings),
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
    match line.command.unwrap_or(Command::Serve(line.settings)) {
        Command::Serve(settings) => match Config::parse(&settings, environment) {
            Ok(config) => serve::run(config),
            Err(error) => Ok(misconfigured(&error)),
        },
        Command::Check(settings) => match Config::parse(&settings, environment) {
            Ok(config) => check::run(config),
            Err(error) => Ok(misconfigured(&error)),
        },
    }
}

#[expect(clippy::print_stderr, reason = "there is no log before there is a configuration")]
fn misconfigured(error: &dyn std::error::Error) -> ExitCode {
    eprintln!("promdedup: {error}");
    ExitCode::from(EXIT_MISCONFIGURED)
}
