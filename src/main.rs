//! The life of the process: read what was asked for, do it, say with the exit code how it went.

use promdedup::{command, config};
use std::process::ExitCode;

fn main() -> ExitCode {
    match command::run(std::env::args_os(), config::process_environment()) {
        Ok(code) => code,
        Err(error) => {
            complain(&error);
            ExitCode::FAILURE
        }
    }
}

#[expect(clippy::print_stderr, reason = "the log may not have begun, or may be filtered")]
fn complain(error: &anyhow::Error) {
    eprintln!("promdedup: {error:#}");
}
