//! Prometheus remote-write deduplication proxy: several HA replicas in, one gap-free stream out.
//!
//! ```text
//!  replica a ──┐                                                        ┌─ 204 / 400 / 503 back to the sender
//!  replica b ──┴─> receive ─> pipeline ─┬─> wire     (decode, splice)   │
//!                                       ├─> series   (who is it?)       │
//!                                       ├─> window ──> policy (forward, hold or drop?)
//!                                       └─> forward ──> Thanos Receive ─┘
//! ```

pub mod admin;
pub mod app;
pub mod command;
pub mod config;
mod fetch;
pub mod forward;
pub mod health;
mod overdue;
pub mod overhead;
pub mod peers;
pub mod pipeline;
pub mod placement;
pub mod policy;
pub mod receive;
pub mod reload;
pub mod series;
pub mod shutdown;
pub mod socket;
pub mod stand_in;
pub mod telemetry;
pub mod window;
pub mod wire;

/// Types of `proto/`, made by prost: the oracle of the tests and the tongue of the stand-ins, never the way of the data.
#[allow(missing_docs, clippy::use_self, clippy::doc_markdown)]
pub mod proto {
    include!(concat!(env!("OUT_DIR"), "/prometheus.rs"));

    /// Remote write 2.0.
    pub mod v2 {
        include!(concat!(env!("OUT_DIR"), "/io.prometheus.write.v2.rs"));
    }
}
