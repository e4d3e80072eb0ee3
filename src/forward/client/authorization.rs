//! The `Authorization` towards the upstream, read again when its file changes. Never the sender's own.

use crate::config::Credentials;
use http::HeaderValue;
use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant, SystemTime};

/// The file is looked at so often at most: one `stat` a second costs nothing.
const LOOK_EVERY: Duration = Duration::from_secs(1);

#[derive(Debug)]
pub(super) struct Authorization {
    credentials: Credentials,
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    looked: Option<Instant>,
    seen: Option<Stamp>,
    value: Option<HeaderValue>,
}

/// What changes when a file is written or replaced (Kubernetes swaps a symbolic link).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Stamp {
    modified: SystemTime,
    bytes: u64,
    inode: u64,
}

impl Authorization {
    pub(super) fn new(credentials: Credentials) -> Self {
        Self { credentials, state: Mutex::default() }
    }

    /// The value as of now. A file that has become unusable leaves the last good value in force.
    pub(super) fn current(&self) -> Option<HeaderValue> {
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        if state.looked.is_none_or(|looked| looked.elapsed() >= LOOK_EVERY) {
            state.looked = Some(Instant::now());
            self.refresh(&mut state);
        }
        state.value.clone()
    }

    fn refresh(&self, state: &mut State) {
        let path = &self.credentials.path;
        let stamp = stamp(path);
        if stamp.is_some() && stamp == state.seen {
            return;
        }
        match self.credentials.read() {
            Ok(value) => {
                if state.seen.is_some() {
                    tracing::info!(path = %path.display(), "upstream credentials read again");
                }
                state.value = Some(value);
                state.seen = stamp;
            }
            Err(error) => {
                tracing::warn!(path = %path.display(), "upstream credentials stay as they were: the file {error}");
            }
        }
    }
}

fn stamp(path: &Path) -> Option<Stamp> {
    let metadata = fs::metadata(path).ok()?;
    Some(Stamp { modified: metadata.modified().ok()?, bytes: metadata.len(), inode: metadata.ino() })
}
