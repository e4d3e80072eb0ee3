//! What threads of the window share by: the standard library's, `arc-swap`'s, `dashmap`'s and `event-listener`'s types.
//!
//! Plain names for them in the product. Under `--cfg model` the same names are loom's, or stand-ins made of loom's
//! ([`modelled`]), and the sizes are so small that a model checker comes to their ends: see `model.rs`.
//! Refuses to add anything to what it names. Held histograms and metadata do not share by it: each of their changes is
//! one call of a sharded map.

#[cfg(not(model))]
pub(super) use {
    arc_swap::ArcSwap,
    dashmap::DashMap,
    event_listener::{Event, EventListener},
    std::sync::atomic::{AtomicBool, AtomicI64, AtomicU8, AtomicU32, AtomicU64, AtomicUsize},
    std::sync::{Mutex, MutexGuard, OnceLock, RwLock},
};

#[cfg(model)]
mod modelled;
#[cfg(model)]
pub(super) use {
    loom::sync::{Mutex, MutexGuard, RwLock},
    modelled::{
        ArcSwap, AtomicBool, AtomicI64, AtomicU8, AtomicU32, AtomicU64, AtomicUsize, DashMap, Event,
        EventListener, OnceLock,
    },
};

/// How much there is of everything.
#[cfg(not(model))]
pub(super) mod size {
    /// Entries of a chunk. A quarter of a MiB: memory grows in steps of it.
    pub(in crate::window) const ENTRIES: usize = 1 << 12;
    /// Targets of a chunk.
    pub(in crate::window) const TARGETS: usize = 1 << 11;
    /// Parts of the index that grow by themselves. A power of two, at most 256.
    pub(in crate::window) const SEGMENTS: usize = 256;
    /// Slots of a segment that has not grown.
    pub(in crate::window) const INDEX_MIN: usize = 16;
    /// Requests that may be decided or in the air at once.
    pub(in crate::window) const FLIGHTS_MAX: u16 = 16_384;
    /// Groups that keep their numbers for good.
    pub(in crate::window) const GROUPS_KEPT: u32 = 1_000;
}

/// So little of everything that it runs out, grows and is used again within one model.
#[cfg(model)]
pub(super) mod size {
    pub(in crate::window) const ENTRIES: usize = 2;
    pub(in crate::window) const TARGETS: usize = 2;
    pub(in crate::window) const SEGMENTS: usize = 1;
    pub(in crate::window) const INDEX_MIN: usize = 2;
    pub(in crate::window) const FLIGHTS_MAX: u16 = 2;
    pub(in crate::window) const GROUPS_KEPT: u32 = 0;
}
