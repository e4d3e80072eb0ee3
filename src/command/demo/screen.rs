//! Where the demo prints: a live line that rewrites itself on a terminal, one line each elsewhere.

use std::io::{IsTerminal, Write};

/// The demo's output.
pub struct Screen {
    out: Box<dyn Write + Send>,
    is_terminal: bool,
    live: bool,
}

impl Screen {
    /// Standard output, whatever that is.
    #[must_use]
    pub fn stdout() -> Self {
        let is_terminal = std::io::stdout().is_terminal();
        Self { out: Box::new(std::io::stdout()), is_terminal, live: false }
    }

    /// Anything that is no terminal.
    #[must_use]
    pub fn to(out: impl Write + Send + 'static) -> Self {
        Self { out: Box::new(out), is_terminal: false, live: false }
    }

    /// A line that stays.
    pub(super) fn line(&mut self, text: &str) {
        self.end_live();
        self.put(&format!("{text}\n"));
    }

    /// A line that the next one overwrites, on a terminal.
    pub(super) fn live(&mut self, text: &str) {
        if self.is_terminal {
            self.put(&format!("\r{text}\x1b[K"));
            self.live = true;
        } else {
            self.put(&format!("{text}\n"));
        }
    }

    /// Leaves the live line as it is.
    pub(super) fn end_live(&mut self) {
        if std::mem::take(&mut self.live) {
            self.put("\n");
        }
    }

    /// A reader that went away (`| head`) is no reason to stop: the exit code still tells.
    fn put(&mut self, text: &str) {
        drop(self.out.write_all(text.as_bytes()).and_then(|()| self.out.flush()));
    }
}
