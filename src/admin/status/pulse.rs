//! What counters do over the last seconds: who still sends, how much, and when owners last changed.
//!
//! Looked at about once a second. Refuses to read a clock, and to say why somebody is silent.

use super::groups::Group;
use std::collections::{BTreeMap, HashMap, VecDeque};
use std::time::Duration;
use tokio::time::Instant;

/// Rates are those of so long.
const RATE_OVER: Duration = Duration::from_secs(10);
/// Pauses between what a replica sends that are remembered. It sends in bursts: the second longest of them is usual, and
/// one outage does not make the next one usual.
const PAUSES: usize = 64;
/// Nobody who pauses for less is silent.
const SILENT_MIN: Duration = Duration::from_secs(3);
/// Of a replica that is not known well enough.
const SILENT_AT_FIRST: Duration = Duration::from_secs(60);
const KNOWN_AFTER: usize = 8;

/// All replicas' pulses, and all groups' changes of owner.
#[derive(Debug, Default)]
pub(super) struct Pulses {
    replicas: HashMap<(String, String), Pulse>,
    changes: HashMap<String, Change>,
}

/// Of one replica.
#[derive(Debug)]
struct Pulse {
    /// When its counter last rose.
    heard: Instant,
    pauses: VecDeque<Duration>,
    /// When, samples received, duplicates of them: the oldest first.
    counts: VecDeque<(Instant, f64, f64)>,
}

/// When a group's owners last changed, if they have since this was looked at for the first time.
#[derive(Debug, Default)]
struct Change {
    seen: BTreeMap<String, f64>,
    last: Option<(Instant, String)>,
}

/// What is known of a replica.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub(crate) struct Life {
    /// How long nothing has come, if that is longer than it usually pauses.
    pub(crate) silent_for: Option<Duration>,
    pub(crate) received_per_s: f64,
    pub(crate) duplicates_per_s: f64,
}

impl Pulses {
    /// Looks at all counters.
    pub(super) fn look(&mut self, groups: &BTreeMap<String, Group>, now: Instant) {
        for (group_name, group) in groups {
            for (name, replica) in &group.replicas {
                let pulse = self.replicas.entry((group_name.clone(), name.clone()));
                pulse.or_insert_with(|| Pulse::new(now)).look(now, replica.received, replica.duplicate);
            }
            let known = self.changes.contains_key(group_name);
            let change = self.changes.entry(group_name.clone()).or_default();
            for (reason, count) in &group.takeovers {
                let before = change.seen.insert(reason.clone(), *count).unwrap_or(0.0);
                if known && *count > before {
                    change.last = Some((now, reason.clone()));
                }
            }
        }
    }

    pub(super) fn of(&self, group: &str, replica: &str, now: Instant) -> Life {
        let pulse = self.replicas.get(&(group.to_owned(), replica.to_owned()));
        pulse.map_or_else(Life::default, |pulse| pulse.life(now))
    }

    /// How long ago owners of a group last changed, and why.
    pub(super) fn last_takeover(&self, group: &str, now: Instant) -> Option<(Duration, &str)> {
        let (at, reason) = self.changes.get(group)?.last.as_ref()?;
        Some((now.saturating_duration_since(*at), reason))
    }
}

impl Pulse {
    fn new(now: Instant) -> Self {
        Self { heard: now, pauses: VecDeque::new(), counts: VecDeque::new() }
    }

    fn look(&mut self, now: Instant, received: f64, duplicate: f64) {
        if self.counts.back().is_some_and(|(_, before, _)| received > *before) {
            if self.pauses.len() >= PAUSES {
                self.pauses.pop_front();
            }
            self.pauses.push_back(now.saturating_duration_since(self.heard));
            self.heard = now;
        }
        self.counts.push_back((now, received, duplicate));
        while self.counts.get(1).is_some_and(|(at, ..)| now.saturating_duration_since(*at) >= RATE_OVER) {
            self.counts.pop_front();
        }
    }

    fn life(&self, now: Instant) -> Life {
        let pause = now.saturating_duration_since(self.heard);
        let silent_for = (pause > self.patience()).then_some(pause);
        let rates = self.counts.front().zip(self.counts.back()).map(|(first, last)| {
            let seconds = last.0.saturating_duration_since(first.0).as_secs_f64().max(1e-3);
            ((last.1 - first.1) / seconds, (last.2 - first.2) / seconds)
        });
        let (received_per_s, duplicates_per_s) = rates.unwrap_or_default();
        Life { silent_for, received_per_s, duplicates_per_s }
    }

    fn patience(&self) -> Duration {
        if self.pauses.len() < KNOWN_AFTER {
            return SILENT_AT_FIRST;
        }
        let mut longest = [Duration::ZERO; 2];
        for pause in &self.pauses {
            if *pause > longest[0] {
                longest = [*pause, longest[0]];
            } else if *pause > longest[1] {
                longest[1] = *pause;
            }
        }
        SILENT_MIN.max(longest[1] * 3 / 2)
    }
}

#[cfg(test)]
mod tests {
    use super::super::groups::Replica;
    use super::*;

    /// What comes of a replica that has sent at these seconds, ten samples each time, looked at once a second until then.
    fn life(sent: impl Fn(u64) -> bool, until_s: u64) -> Life {
        let (begun, mut pulses, mut received) = (Instant::now(), Pulses::default(), 0.0);
        let at = |second| begun + Duration::from_secs(second);
        for second in 0..=until_s {
            received += if sent(second) { 10.0 } else { 0.0 };
            let replica = Replica { received, duplicate: received / 2.0, ..Replica::default() };
            let group = Group { replicas: BTreeMap::from([("a".into(), replica)]), ..Group::default() };
            pulses.look(&BTreeMap::from([("g".into(), group)]), at(second));
        }
        pulses.of("g", "a", at(until_s))
    }

    #[test]
    fn who_dies_is_silent_within_seconds() {
        let dies = |second| second < 60;
        assert_eq!(life(dies, 62).silent_for, None);
        assert_eq!(life(dies, 63).silent_for, Some(Duration::from_secs(4)));
    }

    #[test]
    fn who_sends_in_bursts_is_not_silent_between_them() {
        let bursts = |second: u64| second % 15 < 6;
        for until_s in 120..150 {
            assert_eq!(life(bursts, until_s).silent_for, None, "{until_s}");
        }
        assert_eq!(
            life(|second| second < 120 && bursts(second), 135).silent_for,
            Some(Duration::from_secs(25))
        );
    }

    #[test]
    fn one_outage_does_not_make_the_next_one_usual() {
        let twice = |second: u64| !(100..200).contains(&second) && second < 250;
        assert_eq!(life(twice, 199).silent_for, Some(Duration::from_secs(100)));
        assert_eq!(life(twice, 201).silent_for, None);
        assert_eq!(life(twice, 254).silent_for, Some(Duration::from_secs(5)));
    }

    #[test]
    fn nobody_is_called_silent_before_it_is_known() {
        assert_eq!(life(|second| second < 3, 40).silent_for, None);
        assert!(life(|second| second < 3, 90).silent_for.is_some());
    }

    #[test]
    fn rates_are_those_of_the_last_seconds() {
        let life = life(|second| second >= 20, 60);
        assert_eq!((life.received_per_s, life.duplicates_per_s), (10.0, 5.0));
    }

    #[test]
    fn the_last_change_of_owners_is_known_with_its_reason() {
        let (now, mut pulses) = (Instant::now(), Pulses::default());
        let mut look = |silent: f64, align: f64, second| {
            let takeovers = BTreeMap::from([("silent".to_owned(), silent), ("align".to_owned(), align)]);
            let groups = BTreeMap::from([("g".to_owned(), Group { takeovers, ..Group::default() })]);
            pulses.look(&groups, now + Duration::from_secs(second));
            pulses
                .last_takeover("g", now + Duration::from_secs(10))
                .map(|(ago, why)| (ago.as_secs(), why.to_owned()))
        };
        assert_eq!(look(3.0, 0.0, 0), None, "when these were nobody knows");
        assert_eq!(look(3.0, 0.0, 1), None);
        assert_eq!(look(4.0, 0.0, 2), Some((8, "silent".to_owned())));
        assert_eq!(look(4.0, 7.0, 5), Some((5, "align".to_owned())));
    }
}
