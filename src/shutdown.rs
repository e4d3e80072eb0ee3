//! SHUTDOWN: the signals that ask the process to end. Ends nothing itself.

use std::io;
use tokio::signal::unix::{Signal, SignalKind, signal};

/// The signals, listened to from now on.
#[derive(Debug)]
pub struct Signals {
    terminate: Signal,
    interrupt: Signal,
}

impl Signals {
    /// Listens from now on, so that none ends the process by itself any more.
    ///
    /// # Errors
    /// When the handlers cannot be installed.
    ///
    /// # Panics
    /// Outside of a tokio runtime with I/O.
    pub fn listen() -> io::Result<Self> {
        let (terminate, interrupt) = (signal(SignalKind::terminate())?, signal(SignalKind::interrupt())?);
        // Asks for files to be read again (`reload.rs`): where there are none, or not yet, it must not end the process either.
        // The runtime keeps a handler that it has once installed.
        drop(signal(SignalKind::hangup())?);
        Ok(Self { terminate, interrupt })
    }

    /// Waits for the next one, which is named.
    pub async fn next(&mut self) -> &'static str {
        tokio::select! {
            _ = self.terminate.recv() => "SIGTERM",
            _ = self.interrupt.recv() => "SIGINT",
        }
    }
}
