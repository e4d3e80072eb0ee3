//! Where the demo prints: a live line that rewrites itself on a terminal, one line each elsewhere.

use std::io::{IsTerminal, Write};

pub(super) struct Screen {
    is_terminal: bool,
    live: bool,
}

impl Screen {
    pub(super) fn new() -> Self {
        Self { is_terminal: std::io::stdout().is_terminal(), live: false }
    }

    /// A line that stays.
    pub(super) fn line(&mut self, text: &str) {
        self.end_live();
        put(&format!("{text}\n"));
    }

    /// A line that the next one overwrites, on a terminal.
    pub(super) fn live(&mut self, text: &str) {
        if self.is_terminal {
            put(&format!("\r{text}\x1b[K"));
            self.live = true;
        } else {
            put(&format!("{text}\n"));
        }
    }

    /// Leaves the live line as it is.
    pub(super) fn end_live(&mut self) {
        if std::mem::take(&mut self.live) {
            put("\n");
        }
    }
}

/// A reader that went away (`| head`) is no reason to stop: the exit code still tells.
fn put(text: &str) {
    let mut out = std::io::stdout().lock();
    drop(out.write_all(text.as_bytes()).and_then(|()| out.flush()));
}
