//! SHUTDOWN: the signals that ask the process to end. Ends nothing itself.

use std::io;
use tokio::signal::unix::{SignalKind, signal};

/// Listens for SIGTERM and SIGINT from now on; the future it returns ends with the first of them.
///
/// # Errors
/// When the handlers cannot be installed.
///
/// # Panics
/// Outside of a tokio runtime with I/O.
pub fn requested() -> io::Result<impl Future<Output = ()> + Send> {
    let mut terminate = signal(SignalKind::terminate())?;
    let mut interrupt = signal(SignalKind::interrupt())?;
    Ok(async move {
        let name = tokio::select! {
            _ = terminate.recv() => "SIGTERM",
            _ = interrupt.recv() => "SIGINT",
        };
        tracing::info!(signal = name, "asked to end");
    })
}
