//! WINDOW: remembers what was forwarded, who owns what, and what is in the air.
//!
//! Owns the table of series (one cache line each), the owners of targets and groups, and the flights that reserve,
//! commit and roll back. Memory is bounded by the number of series and grows with use. For a sample of a known float
//! series no thread takes a lock or waits for another one: the series is found by atomic loads and claimed by one
//! compare-and-swap, and whoever comes second is told which flight to wait for ([`Decision`]). Locks are taken once a
//! request (its flight's number, the names of replicas), once a scrape of a target (its `up`), where series, targets
//! and groups are born, move or die, and for histograms that are held.
//! Refuses to read clocks, to talk to upstream, and to decide: that is the policy's.

mod backlog;
mod census;
mod doubt;
mod entry;
mod flight;
mod front;
mod group;
mod groups;
mod histogram;
mod leaving;
mod metadata;
mod progress;
mod slot;
mod sync;
mod table;
mod target;
mod tenant;

#[cfg(test)]
#[cfg(model)]
mod model;
#[cfg(test)]
mod tests;

pub use census::{Census, Count};
pub use doubt::Doubted;
pub use entry::TIMESTAMP_LIMIT_MS;
pub use flight::{Admitted, Decision, Flight, Known, Log, Run, Steady};
pub use group::{Arrivals, Group, REPLICAS_MAX, Replica};
pub use groups::{GROUPS_KEPT, GROUPS_MAX, Groups};
pub use histogram::HISTOGRAM_BYTES_MAX;
pub use metadata::Metadata;
pub use progress::{Begun, Others, Seen};
pub use slot::FlightId;
pub use table::{Finder, Found};

use crate::policy::ReplicaId;
use crate::series::{GroupKey, SeriesKey, TargetKey, TenantHash};
use std::sync::Arc;
use std::sync::atomic::Ordering::*;
use sync::{AtomicBool, AtomicU8, AtomicU64};

/// Requests that may be decided or in the air at once.
pub const FLIGHTS_MAX: u16 = sync::size::FLIGHTS_MAX;

/// How many ticks an entry may stay untouched before it is forgotten. A tick is that part of `WINDOW_IDLE`.
pub const IDLE_TICKS: u8 = 32;

/// No entry, in the numbers that [`Window::locate`] gives.
pub const UNKNOWN: u32 = table::NONE;

/// What is remembered of all tenants, groups, targets and series.
#[derive(Debug)]
pub struct Window {
    table: table::Table,
    targets: target::Targets,
    tenants: tenant::Tenants,
    groups: Groups,
    metadata: Metadata,
    histograms: histogram::Histograms,
    slots: slot::Slots,
    tick: AtomicU8,
    /// Upstream has taken something since the last tick.
    landed: AtomicBool,
    evictions: AtomicU64,
    full: AtomicU64,
}

impl Window {
    /// An empty window of at most `series_max` series.
    #[must_use]
    pub fn new(series_max: usize) -> Self {
        Self {
            table: table::Table::new(series_max),
            targets: target::Targets::new(series_max),
            tenants: tenant::Tenants::new(series_max),
            groups: Groups::default(),
            metadata: Metadata::default(),
            histograms: histogram::Histograms::default(),
            slots: slot::Slots::new(FLIGHTS_MAX),
            tick: AtomicU8::new(0),
            landed: AtomicBool::new(false),
            evictions: AtomicU64::new(0),
            full: AtomicU64::new(0),
        }
    }

    /// Finds the entries of a request's series, one after the other. `sender`: as in [`Self::locate`].
    #[must_use]
    pub fn finder(&self, sender: &[u8]) -> Finder<'_> {
        self.table.finder(table::Way::of(sender))
    }

    /// Finds the entries of many series at once. `sender`: whose they are, by
    /// any bytes that are the same each time; it is quicker if they come in the same order, too.
    pub fn locate(&self, keys: &[SeriesKey], sender: &[u8], found: &mut Vec<Found>) {
        self.table.locate(&self.table.view(), keys, table::Way::of(sender), found);
    }

    /// Finds the entry of one series, or [`UNKNOWN`].
    #[must_use]
    pub fn find(&self, key: SeriesKey) -> u32 {
        self.table.find(key)
    }

    /// The group of a known series.
    #[inline]
    #[must_use]
    pub fn group_of(&self, number: u32) -> u32 {
        self.group_of_target(self.target_of(number))
    }

    /// The interval of a known series in ms, as it is by now, reservations included; 0: not known.
    #[must_use]
    pub fn interval_of(&self, number: u32) -> i64 {
        self.table.entry(number).interval()
    }

    /// The number of the target of a known series.
    #[inline]
    #[must_use]
    pub fn target_of(&self, number: u32) -> u32 {
        self.table.entry(number).target()
    }

    /// The group of a target.
    #[must_use]
    pub fn group_of_target(&self, target: u32) -> u32 {
        self.targets.slot(target).group()
    }

    /// The group of a series with that key, held: `None` if the entry is not that series' any more.
    #[must_use]
    pub fn hold_group_of(&self, number: u32, key: SeriesKey) -> Option<Arc<Group>> {
        let group = self.groups.group(self.group_of(number))?;
        // From now on its number is no other's. Until now it may have been another's, or the entry.
        (self.table.entry(number).is(key) && self.group_of(number) == group.number()).then_some(group)
    }

    /// The group, new or not, or `None` if its tenant has as many as it may. `now_ms`: the wall clock.
    #[must_use]
    pub fn meet_group(
        &self,
        key: GroupKey,
        name: &str,
        tenant: TenantHash,
        now_ms: i64,
    ) -> Option<Arc<Group>> {
        self.groups.meet(key, name, tenant, &self.tenants, now_ms)
    }

    /// The replica's number in its group, or `None` at their bound.
    #[must_use]
    pub fn replica_number(&self, group: u32, name: &str) -> Option<ReplicaId> {
        self.groups.group(group)?.replica_number(name)
    }

    /// All groups.
    #[must_use]
    pub fn groups(&self) -> &Groups {
        &self.groups
    }

    /// The metadata that upstream has had lately.
    #[must_use]
    pub fn metadata(&self) -> &Metadata {
        &self.metadata
    }

    /// The message of a held histogram, by the payload of a [`Held`](crate::policy::Held).
    #[must_use]
    pub fn histogram(&self, token: u64) -> Option<Arc<[u8]>> {
        self.histograms.get(token)
    }

    /// Counts a series that a bound other than that of series kept out.
    pub fn note_full(&self) {
        self.full.fetch_add(1, Relaxed);
    }

    /// Whether what belongs to a series without being a sample of it (an exemplar) goes with this replica's stream.
    #[must_use]
    pub fn follows(&self, number: u32, replica: ReplicaId) -> bool {
        let entry = self.table.entry(number);
        self.targets.slot(entry.target()).follows(entry, replica)
    }

    /// As [`Self::follows`], for a series that is not known, by its target. An unknown target follows whoever comes.
    #[must_use]
    pub fn follows_target(&self, target: TargetKey, replica: ReplicaId) -> bool {
        self.targets.owner(target).is_none_or(|(owner, fenced)| owner == replica && fenced != Some(replica))
    }

    /// Whether a flight is known to have ended well.
    #[must_use]
    pub fn has_ended_well(&self, flight: FlightId) -> bool {
        self.slots.outcome(flight) == Some(true)
    }

    /// Waits for the end of a flight: whether it ended well.
    pub async fn ended(&self, flight: FlightId) -> bool {
        self.slots.ended(flight).await
    }

    /// Advances the clock that idle entries are measured by: `1/IDLE_TICKS` of the idle time has passed.
    pub fn advance_tick(&self) {
        self.tick.fetch_add(1, Relaxed);
    }

    /// Upstream has taken something, of a series that is remembered or of one that found no room.
    pub fn note_landed(&self) {
        // Read first: most of the time it is set, and the line is shared.
        if !self.landed.load(Relaxed) {
            self.landed.store(true, Relaxed);
        }
    }

    /// As [`Self::advance_tick`], unless nothing has landed since: while upstream is away, senders bring the same
    /// requests again and again, and all series that wait behind them are idle without being gone.
    pub fn advance_tick_if_landed(&self) {
        if self.landed.swap(false, Relaxed) {
            self.advance_tick();
        }
    }

    /// Forgets the entries untouched for [`IDLE_TICKS`] ticks among `count` from number `from` on. Returns the number
    /// to go on from; 0 when the table has been walked to its end.
    pub fn sweep(&self, from: u32, count: u32) -> u32 {
        let used = self.table.used();
        let end = used.min(from.saturating_add(count));
        let now = self.tick.load(Relaxed);
        for number in from..end {
            let entry = self.table.entry(number);
            let idle = || now.wrapping_sub(entry.tick()) >= IDLE_TICKS;
            if idle() && entry.claim_for_table() {
                if idle() {
                    self.own(entry, entry.owner(), -1);
                    self.forget(number);
                    self.evictions.fetch_add(1, Relaxed);
                } else {
                    entry.release();
                }
            }
        }
        if end == used { 0 } else { end }
    }

    /// Gives back the numbers of groups of which nothing is left and that nobody has met for an hour, among `count` from
    /// number `from` on. Returns the number to go on from; 0 when all have been looked at. `now_ms`: the wall clock.
    pub fn give_groups_back(&self, from: u32, count: u32, now_ms: i64) -> u32 {
        self.groups.give_back(from, count, &self.tenants, now_ms)
    }

    /// Series remembered.
    #[must_use]
    pub fn series(&self) -> usize {
        self.table.live()
    }

    /// Whether another one would have to wait until one of them is forgotten.
    #[must_use]
    pub fn is_full(&self) -> bool {
        self.series() >= self.series_max()
    }

    /// Most series that are remembered.
    #[must_use]
    pub fn series_max(&self) -> usize {
        self.table.series_max()
    }

    /// Targets remembered.
    #[must_use]
    pub fn target_count(&self) -> usize {
        self.targets.len()
    }

    /// Bytes allocated for series, targets and held histograms.
    #[must_use]
    pub fn bytes(&self) -> usize {
        self.table.bytes() + self.targets.bytes() + self.histograms.bytes()
    }

    /// Entries forgotten for being idle, or for those of another tenant in a full window.
    #[must_use]
    pub fn evictions(&self) -> u64 {
        self.evictions.load(Relaxed)
    }

    /// Series that found no room.
    #[must_use]
    pub fn full(&self) -> u64 {
        self.full.load(Relaxed)
    }
}
