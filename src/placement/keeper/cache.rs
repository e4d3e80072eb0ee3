//! What this instance knows of who has which group: a sharded map, and the ways from one state of a group to the next.
//!
//! Owns that a group which was served here and no longer is, is not served again before its last request has ended. Refuses to wait
//! and to ask: whoever calls knows what to do about a group that was lost.

use super::load::Load;
use crate::placement::shown::{Holding, OwnedGroup};
use crate::placement::store::{Change, Claimed, Instance};
use crate::placement::{GroupId, Peer, Stay, Stays, Whose};
use crate::series::GroupKey;
use dashmap::DashMap;
use dashmap::mapref::entry::Entry as Slot;
use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;
use tokio::time::Instant;

/// Most groups known. Beyond, others' are forgotten and asked for again.
const KNOWN_MAX: usize = 1 << 20;
/// A group is given away only if it has been here for so long: its load is known, and nothing goes to and fro.
pub(super) const SETTLED: Duration = Duration::from_secs(30);
/// A group of this instance that nobody has sent for is left to whoever asks for it next.
pub(super) const IDLE: Duration = Duration::from_secs(3600);

#[derive(Debug)]
pub(super) struct Cache {
    me: Arc<str>,
    entries: DashMap<GroupKey, Entry>,
}

#[derive(Debug)]
struct Entry {
    /// `None`: nobody has sent for it here yet.
    group: Option<GroupId>,
    epoch: i64,
    state: State,
}

#[derive(Debug)]
enum State {
    Mine(Mine),
    /// Being given away: nobody begins a stay any more.
    Leaving(Mine),
    /// `departing`: requests from before are still served here.
    Theirs {
        peer: Peer,
        departing: bool,
    },
    /// As `departing`, and whose it is then has to be asked.
    Departing,
}

#[derive(Debug)]
struct Mine {
    stays: Arc<Stays>,
    /// The database has said so. Else it could not be asked, or this instance was not heard of for long.
    sure: bool,
    /// Since when it has been here.
    here: Instant,
    /// Since when it may settle: later than that, if it was not given away after all.
    since: Instant,
    /// When somebody last sent for it.
    sent: Instant,
    load: Load,
}

/// A group that was served here until now.
#[derive(Debug)]
pub(super) struct Lost {
    pub(super) key: GroupKey,
    pub(super) stays: Arc<Stays>,
}

/// A group on its way out.
#[derive(Debug)]
pub(super) struct Outgoing {
    pub(super) stays: Arc<Stays>,
    pub(super) epoch: i64,
    pub(super) load: f64,
}

/// This instance's groups at a moment.
#[derive(Debug, Default)]
pub(super) struct Tally {
    pub(super) groups: usize,
    /// Those of them that the database has not said so of.
    pub(super) unsure: usize,
    /// Samples a second of all.
    pub(super) load: f64,
    /// Those that may be given away, with samples a second.
    pub(super) settled: Vec<(GroupKey, f64)>,
    /// One that nobody has sent for in a long time.
    pub(super) idle: Option<GroupKey>,
}

impl Mine {
    /// Whether the database has said that the group is this instance's.
    fn is_sure(&mut self, sure: bool) {
        self.sure = sure;
        self.stays.confirm(sure);
    }

    fn new(now: Instant, sure: bool, load: f64) -> Self {
        let stays = Arc::<Stays>::default();
        stays.confirm(sure);
        Self { stays, sure, here: now, since: now, sent: now, load: Load::of(load) }
    }
}

impl Entry {
    fn whose(&self) -> Whose {
        match &self.state {
            State::Mine(mine) => Whose::Mine(mine.stays.begin()),
            State::Theirs { peer, .. } => Whose::Theirs(peer.clone()),
            State::Leaving(_) | State::Departing => Whose::Moving,
        }
    }

    fn belongs_to(&self, id: &str) -> bool {
        matches!(&self.state, State::Theirs { peer, .. } if *peer.id == *id)
    }

    fn shown(&self, now: Instant) -> Option<OwnedGroup> {
        let (mine, holding) = match &self.state {
            State::Mine(mine) if mine.sure => (mine, Holding::Confirmed),
            State::Mine(mine) => (mine, Holding::Unconfirmed),
            State::Leaving(mine) => (mine, Holding::Leaving),
            State::Theirs { .. } | State::Departing => return None,
        };
        let group = self.group.as_ref()?;
        Some(OwnedGroup {
            name: group.name.clone(),
            tenant: group.tenant.clone(),
            epoch: self.epoch,
            held: now.saturating_duration_since(mine.here),
            samples_per_second: mine.load.per_second(),
            holding,
        })
    }

    /// Whether the entry may go, so that it is asked for again. If not, it goes with the last request.
    fn forget(&mut self) -> bool {
        match self.state {
            State::Theirs { departing: true, .. } | State::Departing => {
                self.state = State::Departing;
                false
            }
            State::Theirs { departing: false, .. } => true,
            State::Mine(_) | State::Leaving(_) => false,
        }
    }
}

impl Cache {
    pub(super) fn new(me: Arc<str>) -> Self {
        Self { me, entries: DashMap::new() }
    }

    pub(super) fn known(&self, group: GroupKey) -> Option<Whose> {
        self.entries.get(&group).map(|entry| entry.whose())
    }

    /// Serves a group here although nobody could be asked, unless it is known by now.
    pub(super) fn serve(&self, group: &GroupId, now: Instant) -> Whose {
        if !self.has_room() {
            return Whose::Mine(Stay::alone());
        }
        let entry = self.entries.entry(group.key).or_insert_with(|| Entry {
            group: Some(group.clone()),
            epoch: 0,
            state: State::Mine(Mine::new(now, false, 0.0)),
        });
        entry.whose()
    }

    /// What the database has answered to a claim. `lives`: its owner, surely.
    pub(super) fn settle(
        &self,
        group: &GroupId,
        claimed: Claimed,
        lives: bool,
        now: Instant,
    ) -> Option<Lost> {
        let mine = claimed.owner.id == self.me;
        if !self.has_room() && !self.entries.contains_key(&group.key) {
            return None;
        }
        let state = |owner, load| match mine {
            true => State::Mine(Mine::new(now, true, load)),
            false => State::Theirs { peer: owner, departing: false },
        };
        let mut entry = match self.entries.entry(group.key) {
            Slot::Vacant(slot) => {
                let state = state(claimed.owner, claimed.load);
                slot.insert(Entry { group: Some(group.clone()), epoch: claimed.epoch, state });
                return None;
            }
            Slot::Occupied(slot) => slot.into_ref(),
        };
        entry.group.get_or_insert_with(|| group.clone());
        // An answer may be older than the news. But what nobody has confirmed is the database's to say, also one that has lost epochs.
        let unsure = matches!(&entry.state, State::Mine(mine) if !mine.sure);
        if claimed.epoch < entry.epoch && !unsure {
            return None;
        }
        let epoch = claimed.epoch;
        match &mut entry.state {
            State::Mine(known) if mine => known.is_sure(true),
            // It may have been taken from one that is gone: asked for again, until that is known.
            State::Mine(_) if !lives => return None,
            State::Mine(_) => return Some(Self::lose(group.key, &mut entry, claimed.owner, epoch)),
            State::Theirs { departing: true, .. } if mine => entry.state = State::Departing,
            State::Theirs { peer, departing: true } => *peer = claimed.owner,
            State::Theirs { .. } => entry.state = state(claimed.owner, claimed.load),
            State::Leaving(_) | State::Departing => return None,
        }
        entry.epoch = epoch;
        None
    }

    /// What was told without being asked.
    pub(super) fn hear(&self, change: Change) -> Option<Lost> {
        let has_room = self.entries.len() < KNOWN_MAX;
        let mut entry = match self.entries.entry(change.key) {
            Slot::Occupied(slot) => slot.into_ref(),
            Slot::Vacant(slot) => {
                // What is this instance's own is asked for, so that it is known with its load.
                if let Some(peer) = change.owner.filter(|owner| owner.id != self.me && has_room) {
                    let state = State::Theirs { peer, departing: false };
                    slot.insert(Entry { group: None, epoch: change.epoch, state });
                }
                return None;
            }
        };
        if change.epoch <= entry.epoch {
            return None;
        }
        let epoch = change.epoch;
        match (&mut entry.state, change.owner) {
            (State::Mine(known), Some(owner)) if owner.id == self.me => known.is_sure(true),
            (State::Mine(_), Some(owner)) => {
                return Some(Self::lose(change.key, &mut entry, owner, epoch));
            }
            (State::Mine(known), None) => known.is_sure(false),
            (State::Theirs { peer, .. }, Some(owner)) if owner.id != self.me => *peer = owner,
            (State::Theirs { .. }, _) => {
                // As above.
                let goes = entry.forget();
                drop(entry);
                if goes {
                    self.entries.remove_if(&change.key, |_, entry| {
                        matches!(entry.state, State::Theirs { departing: false, .. })
                    });
                }
                return None;
            }
            (State::Leaving(_) | State::Departing, _) => return None,
        }
        entry.epoch = epoch;
        None
    }

    fn lose(key: GroupKey, entry: &mut Entry, owner: Peer, epoch: i64) -> Lost {
        let before = std::mem::replace(&mut entry.state, State::Theirs { peer: owner, departing: true });
        entry.epoch = epoch;
        let stays = match before {
            State::Mine(mine) => mine.stays,
            _ => Arc::default(),
        };
        Lost { key, stays }
    }

    /// The last request of a group that was lost has ended.
    pub(super) fn departed(&self, key: GroupKey) {
        if let Some(mut entry) = self.entries.get_mut(&key)
            && let State::Theirs { departing, .. } = &mut entry.state
        {
            *departing = false;
            return;
        }
        self.entries.remove_if(&key, |_, entry| matches!(entry.state, State::Departing));
    }

    /// A peer has said that a group is not its own.
    pub(super) fn misdirected(&self, key: GroupKey, peer: &str) {
        self.entries.remove_if_mut(&key, |_, entry| entry.belongs_to(peer) && entry.forget());
    }

    /// Only these instances are left, beside this one.
    pub(super) fn keep_those_of(&self, alive: &HashMap<Arc<str>, Instance>) {
        self.entries.retain(|_, entry| {
            let gone = matches!(&entry.state, State::Theirs { peer, .. } if !alive.contains_key(&peer.id));
            !(gone && entry.forget())
        });
    }

    /// An instance has left all its groups.
    pub(super) fn left(&self, id: &str) {
        self.entries.retain(|_, entry| !(entry.belongs_to(id) && entry.forget()));
    }

    /// Serves all groups of a peer here: it cannot be reached, and nobody can be asked.
    pub(super) fn take_from(&self, id: &str, now: Instant) -> usize {
        let mut taken = 0;
        self.entries.retain(|_, entry| {
            if !entry.belongs_to(id) || !matches!(entry.state, State::Theirs { departing: false, .. }) {
                return true;
            }
            entry.state = State::Mine(Mine::new(now, false, 0.0));
            taken += 1;
            // The database could not be told of one without a name: whoever asks for it brings one.
            entry.group.is_some()
        });
        taken
    }

    /// Others may have taken what is served here.
    pub(super) fn doubt(&self) {
        for mut entry in self.entries.iter_mut() {
            if let State::Mine(mine) = &mut entry.state {
                mine.is_sure(false);
            }
        }
    }

    /// Groups that are served here without the database knowing, at most so many.
    pub(super) fn unsure(&self, most: usize) -> Vec<GroupId> {
        let unsure =
            self.entries.iter().filter(|entry| matches!(&entry.state, State::Mine(mine) if !mine.sure));
        unsure.filter_map(|entry| entry.group.clone()).take(most).collect()
    }

    /// Measures the load of each group since the last time. `away`: nobody can be asked whether they still are this instance's.
    pub(super) fn tally(&self, since_last: Duration, away: bool, now: Instant) -> Tally {
        let mut tally = Tally::default();
        for mut entry in self.entries.iter_mut() {
            let key = *entry.key();
            let State::Mine(mine) = &mut entry.state else { continue };
            let samples = mine.stays.take_samples();
            if samples > 0 || mine.stays.now() > 0 {
                mine.sent = now;
            }
            mine.stays.confirm(mine.sure && !away);
            mine.load.measured(samples, since_last);
            tally.groups += 1;
            tally.unsure += usize::from(!mine.sure);
            tally.load += mine.load.per_second();
            if mine.sure && now - mine.since >= SETTLED {
                tally.settled.push((key, mine.load.per_second()));
            }
            if mine.sure && now - mine.sent >= IDLE {
                tally.idle = Some(key);
            }
        }
        tally
    }

    /// This instance's groups, those that bring the most first, and how many there are beyond `most`; and how many groups are known
    /// to be each other instance's.
    pub(super) fn shown(
        &self,
        most: usize,
        now: Instant,
    ) -> (Vec<OwnedGroup>, usize, HashMap<Arc<str>, usize>) {
        let (mut loads, mut others) = (Vec::new(), HashMap::new());
        for entry in self.entries.iter() {
            match &entry.state {
                State::Mine(mine) | State::Leaving(mine) => {
                    loads.push((mine.load.per_second(), *entry.key()))
                }
                State::Theirs { peer, .. } => *others.entry(Arc::clone(&peer.id)).or_default() += 1,
                State::Departing => {}
            }
        }
        loads.sort_unstable_by(|a, b| b.0.total_cmp(&a.0).then(a.1.0.cmp(&b.1.0)));
        let left_out = loads.len().saturating_sub(most);
        // One that has gone since is not missed.
        let groups =
            loads.iter().take(most).filter_map(|(_, key)| self.entries.get(key)?.shown(now)).collect();
        (groups, left_out, others)
    }

    /// Begins to give a group away.
    pub(super) fn begin_to_leave(&self, key: GroupKey) -> Option<Outgoing> {
        let mut entry = self.entries.get_mut(&key)?;
        let epoch = entry.epoch;
        let outgoing = match &entry.state {
            State::Mine(mine) if mine.sure => {
                Outgoing { stays: Arc::clone(&mine.stays), epoch, load: mine.load.per_second() }
            }
            _ => return None,
        };
        Self::switch(&mut entry.state);
        Some(outgoing)
    }

    /// Begins to give all away, sure or not.
    pub(super) fn all_begin_to_leave(&self) -> Vec<Arc<Stays>> {
        let mut stays = Vec::new();
        for mut entry in self.entries.iter_mut() {
            match &entry.state {
                State::Mine(mine) => {
                    stays.push(Arc::clone(&mine.stays));
                    Self::switch(&mut entry.state);
                }
                State::Leaving(mine) => stays.push(Arc::clone(&mine.stays)),
                State::Theirs { .. } | State::Departing => {}
            }
        }
        stays
    }

    /// From mine to leaving, or back.
    fn switch(state: &mut State) {
        *state = match std::mem::replace(state, State::Departing) {
            State::Mine(mine) => State::Leaving(mine),
            State::Leaving(mine) => State::Mine(mine),
            other => other,
        };
    }

    /// It is not given away after all.
    pub(super) fn stays(&self, key: GroupKey, now: Instant) {
        if let Some(mut entry) = self.entries.get_mut(&key)
            && let State::Leaving(mine) = &mut entry.state
        {
            // As if it had come just now, or it would be the next one to be given away again.
            mine.since = now;
            Self::switch(&mut entry.state);
        }
    }

    /// It was given away: to somebody, or nobody knows whether and to whom.
    pub(super) fn gave(&self, key: GroupKey, to: Option<(Peer, i64)>) {
        let Some((peer, epoch)) = to else {
            self.entries.remove_if(&key, |_, entry| matches!(entry.state, State::Leaving(_)));
            return;
        };
        if let Some(mut entry) = self.entries.get_mut(&key)
            && matches!(entry.state, State::Leaving(_))
        {
            entry.state = State::Theirs { peer, departing: false };
            entry.epoch = epoch;
        }
    }

    /// Whether one more may be known. Makes room, if what is known can be asked for again.
    fn has_room(&self) -> bool {
        if self.entries.len() < KNOWN_MAX {
            return true;
        }
        self.entries.retain(|_, entry| !matches!(entry.state, State::Theirs { departing: false, .. }));
        self.entries.len() < KNOWN_MAX
    }
}
