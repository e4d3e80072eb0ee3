//! `serve`: runs the proxy until it is asked to end. Asked once more, it ends at once.

use crate::app::App;
use crate::config::Config;
use crate::series;
use crate::shutdown::Signals;
use crate::telemetry;
use anyhow::Context;
use ring::rand::{SecureRandom, SystemRandom};
use std::process::ExitCode;
use tokio::sync::oneshot;

pub(super) fn run(config: Config) -> anyhow::Result<ExitCode> {
    telemetry::start(&config.telemetry)?;
    let mut secret = [0; series::SECRET_BYTES];
    SystemRandom::new().fill(&mut secret).ok().context("the system has no random numbers")?;
    series::keep_secret(secret)?;
    // Accepts connections and waits; requests are served by threads of their own.
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let ended = runtime.block_on(async {
        let mut signals = Signals::listen()?;
        let (ask, asked) = oneshot::channel();
        let twice = async {
            // Not within the line's arguments: of a level that is not logged nobody would wait for it.
            let signal = signals.next().await;
            tracing::info!(signal, "asked to end");
            let _ = ask.send(());
            signals.next().await
        };
        tokio::select! {
            ended = App::build(config)?.run(async { drop(asked.await) }) => ended.map(|()| ExitCode::SUCCESS),
            signal = twice => {
                tracing::warn!(signal, "asked to end once more: what is in flight is left");
                Ok(ExitCode::FAILURE)
            }
        }
    });
    runtime.shutdown_background();
    ended
}
