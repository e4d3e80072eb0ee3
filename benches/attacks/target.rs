//! What attackers attack, and what they note of its answers.

use crate::raw::Request;
use rustls::ClientConfig;
use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex};
use tokio::time::Instant;

#[derive(Clone)]
pub(crate) struct Target {
    pub(crate) data: SocketAddr,
    pub(crate) admin: SocketAddr,
    pub(crate) pid: u32,
    pub(crate) tls: Option<Arc<ClientConfig>>,
    /// What is sent over and over.
    pub(crate) requests: Arc<Vec<Request>>,
    /// The attack is over.
    pub(crate) end: Instant,
    pub(crate) answers: Arc<Mutex<Answers>>,
}

/// What all attackers of an attack were answered.
#[derive(Default)]
pub(crate) struct Answers {
    counts: BTreeMap<String, u64>,
    /// Samples in requests that were answered 204.
    pub(crate) acknowledged: u64,
}

impl Target {
    pub(crate) fn on(&self) -> bool {
        Instant::now() < self.end
    }

    /// Counts a status, or what else became of a try.
    pub(crate) fn note(&self, what: impl ToString) {
        self.note_many(what, 1);
    }

    pub(crate) fn note_many(&self, what: impl ToString, times: u64) {
        *self.answers.lock().unwrap().counts.entry(what.to_string()).or_default() += times;
    }

    /// Counts a status, and what it promises.
    pub(crate) fn answered(&self, status: u16, samples: u64) {
        self.note(status);
        if status == 204 {
            self.answers.lock().unwrap().acknowledged += samples;
        }
    }
}

impl Answers {
    /// `1200 x 413, 3 x closed`.
    pub(crate) fn told(&self) -> String {
        let told: Vec<_> = self.counts.iter().map(|(what, times)| format!("{times} x {what}")).collect();
        told.join(", ")
    }
}
