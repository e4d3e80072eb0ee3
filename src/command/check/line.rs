//! One line of what `check` has found. Words alone.

use std::fmt;

/// A thing that was tried, and what came of it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Line {
    what: String,
    verdict: Verdict,
    text: String,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Verdict {
    Well,
    /// It would run, and most likely not do what is meant.
    Warning,
    /// It would not work.
    Failed,
}

impl Line {
    pub(super) fn well(what: impl Into<String>, text: impl Into<String>) -> Self {
        Self { what: what.into(), verdict: Verdict::Well, text: text.into() }
    }

    pub(super) fn warning(what: impl Into<String>, text: impl Into<String>) -> Self {
        Self { what: what.into(), verdict: Verdict::Warning, text: text.into() }
    }

    pub(super) fn failure(what: impl Into<String>, text: impl Into<String>) -> Self {
        Self { what: what.into(), verdict: Verdict::Failed, text: text.into() }
    }

    pub(super) fn failed(&self) -> bool {
        self.verdict == Verdict::Failed
    }
}

impl fmt::Display for Line {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let verdict = match self.verdict {
            Verdict::Well => "ok",
            Verdict::Warning => "warning",
            Verdict::Failed => "failed",
        };
        write!(f, "{}: {verdict}, {}", self.what, self.text)
    }
}
