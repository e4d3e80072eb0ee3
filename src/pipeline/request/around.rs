//! How far the other replicas of a request's groups are, and whether a group is new here: asked once, before anything is decided.
//!
//! Refuses to decide whether a sample waits for them.

use super::{Fate, Kind, Request};
use crate::pipeline::judge::Bench;
use crate::policy::TimestampMs;
use crate::window::{Begun, TIMESTAMP_LIMIT_MS};

impl Request {
    /// Learns how far the other replicas of each group are, and holds back what belongs to a group that is new.
    pub(super) fn look_around(&mut self, times_ms: (i64, i64), bench: &Bench<'_>) {
        let Bench { settings, window, retry, .. } = *bench;
        // A large request may have waited for its turn.
        let now_ms = bench.later_ms();
        // The bytes of a retry are the same, so these are. Shards of one sender do not share a series.
        let first = self.samples.first().map_or(0, |sample| sample.at);
        let key = self.keys.first().map_or(0, |key| key.0 as u64);
        self.identity = key ^ (first as u64) << 20 ^ self.body.len() as u64;
        // Of a time that is refused nobody has to know how far away it is.
        let time = |ms: i64| TimestampMs(ms.clamp(-TIMESTAMP_LIMIT_MS, TIMESTAMP_LIMIT_MS));
        let (oldest, newest) = match self.samples[..] {
            // It brings nobody anywhere.
            [] => (time(now_ms), time(now_ms)),
            _ => (time(times_ms.0), time(times_ms.1)),
        };
        let mut any_new = false;
        self.tallies.begin(self.identity);
        for tally in self.tallies.iter_mut() {
            let Some(group) = window.groups().group(tally.group) else { continue };
            group.meet(now_ms);
            tally.first_contact = group.age_ms(now_ms) < settings.first_contact_hold_ms;
            if let Some(replica) = tally.replica {
                // What is held back now comes as a retry, maybe when another replica is through: upstream may know what is new here.
                let retry = retry || bench.several && tally.first_contact;
                let begun = Begun { request: self.identity, oldest, newest, retry, several: bench.several };
                tally.others = group.begin_request(replica, begun, now_ms);
            }
            any_new |= tally.first_contact;
        }
        if !any_new {
            return;
        }
        for item in self.items.iter_mut().filter(|item| item.kind == Kind::Replicated) {
            let tally = self.tallies.of(item.tally);
            if tally.first_contact {
                let first = item.series.first_sample as usize;
                let mut holds = item.series.samples == 0;
                let fates = &mut self.fates[first..first + item.series.samples as usize];
                holds |= fates.contains(&Fate::Pending);
                // What is refused anyway need not come again.
                tally.held_back |= holds;
                if bench.observed.is_some() {
                    continue; // counted; it has gone to upstream already, as if it had waited
                }
                item.kind = Kind::Waiting;
                fates.iter_mut().filter(|fate| **fate == Fate::Pending).for_each(|fate| *fate = Fate::Failed);
                self.held_back |= holds;
            }
        }
    }
}
