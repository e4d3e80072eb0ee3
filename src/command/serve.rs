//! `serve`: runs the proxy until it is asked to end.

use crate::app::App;
use crate::config::Config;
use crate::{shutdown, telemetry};
use std::process::ExitCode;

pub(super) fn run(config: Config) -> anyhow::Result<ExitCode> {
    telemetry::start(&config.telemetry)?;
    // Accepts connections and waits; requests are served by threads of their own.
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let ended = runtime.block_on(async {
        let requested = shutdown::requested()?;
        App::build(config)?.run(requested).await
    });
    runtime.shutdown_background();
    ended.map(|()| ExitCode::SUCCESS)
}
