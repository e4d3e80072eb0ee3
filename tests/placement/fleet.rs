//! A fleet of instances and its groups, in steps of a heartbeat: each instance says its load, reads those of the others as they are
//! in the database, and decides by the real balancing whether to give a group away. Groups of one that is gone are claimed by whoever
//! their next request comes to.

use promdedup::placement::balance::{self, Dice};
use promdedup::series::GroupKey;
use std::collections::HashSet;

/// Of the product: a heartbeat, the time after which an instance counts as gone, and how long a group has to be in one place.
pub(crate) const STEP_S: u64 = 2;
const EXPIRY_STEPS: u64 = 4;
const SETTLED_STEPS: u64 = 15;
/// A group is sent for at least so often, in seconds: twice each scrape interval.
const SENT_EVERY_S: u64 = 15;
/// Statements of each instance in a minute whatever happens: heartbeats and polls.
const STATEMENTS_A_MINUTE: u64 = 30 + 6;

#[derive(Debug, Default)]
struct Instance {
    alive: bool,
    draining: bool,
    /// In the database's list until that step.
    listed_until: u64,
    groups: Vec<usize>,
    /// As the database has it.
    said: f64,
}

#[derive(Debug)]
struct Group {
    load: f64,
    owner: Option<usize>,
    since: u64,
    /// Its next request comes in that step.
    sent: u64,
    moved: u32,
}

#[derive(Debug)]
pub(crate) struct Fleet {
    instances: Vec<Instance>,
    groups: Vec<Group>,
    /// Nobody has them, or one that is gone.
    orphans: Vec<usize>,
    dice: Dice,
    step: u64,
    /// When this story began.
    begun: u64,
    pub(crate) moves: u64,
    pub(crate) claims: u64,
    /// Moves of groups that had moved before.
    pub(crate) moved_twice: u64,
}

impl Fleet {
    /// Groups that nobody has yet, of loads as they are found: most are small, a few are large (a Pareto distribution, cut off).
    pub(crate) fn new(instances: usize, groups: usize, seed: u64) -> Self {
        let mut dice = Dice::new(seed);
        let mut uniform = || ((dice.roll() >> 11) as f64 / (1u64 << 53) as f64).max(1e-9);
        let loads: Vec<f64> =
            (0..groups).map(|_| (1000.0 / uniform().powf(1.0 / 1.5)).min(50_000.0)).collect();
        let group = |load| Group { load, owner: None, since: 0, sent: 0, moved: 0 };
        let mut fleet = Self {
            instances: Vec::new(),
            groups: loads.into_iter().map(group).collect(),
            orphans: (0..groups).collect(),
            dice,
            step: 0,
            begun: 0,
            moves: 0,
            claims: 0,
            moved_twice: 0,
        };
        fleet.add(instances);
        fleet.wait_for_requests();
        fleet
    }

    /// Starts so many.
    pub(crate) fn add(&mut self, instances: usize) {
        let new = || Instance { alive: true, ..Instance::default() };
        self.instances.extend(std::iter::repeat_with(new).take(instances));
    }

    /// Of those that live.
    pub(crate) fn alive(&self) -> Vec<usize> {
        (0..self.instances.len()).filter(|place| self.instances[*place].alive).collect()
    }

    /// They are gone at once. Their groups are orphans when they have expired.
    pub(crate) fn kill(&mut self, those: &[usize]) {
        for place in those {
            let gone = &mut self.instances[*place];
            gone.alive = false;
            gone.listed_until = self.step + EXPIRY_STEPS;
            let groups = std::mem::take(&mut gone.groups);
            for group in &groups {
                self.groups[*group].owner = None;
                let after = self.dice.below((SENT_EVERY_S / STEP_S) as usize) as u64;
                self.groups[*group].sent = self.step + EXPIRY_STEPS + after;
            }
            self.orphans.extend(groups);
        }
    }

    /// They are asked to end, leave all groups at once, and are gone.
    pub(crate) fn terminate(&mut self, those: &[usize]) {
        self.kill(those);
        for place in those {
            self.instances[*place].listed_until = self.step;
        }
        self.wait_for_requests();
    }

    fn wait_for_requests(&mut self) {
        for group in &self.orphans {
            self.groups[*group].sent = self.step + self.dice.below((SENT_EVERY_S / STEP_S) as usize) as u64;
        }
    }

    /// One heartbeat of everybody.
    pub(crate) fn step(&mut self) {
        self.step += 1;
        self.claim();
        // In an order by lot, since instances are not in step with each other.
        let mut order = self.alive();
        for place in (1..order.len()).rev() {
            order.swap(place, self.dice.below(place + 1));
        }
        for me in order {
            self.beat(me);
        }
    }

    /// A request comes to any instance, by a load balancer that knows nothing of groups.
    fn claim(&mut self) {
        let alive = self.alive();
        let (due, left) = std::mem::take(&mut self.orphans)
            .into_iter()
            .partition(|group| self.groups[*group].sent <= self.step);
        self.orphans = left;
        let due: Vec<usize> = due;
        for group in due {
            let to = alive[self.dice.below(alive.len())];
            self.groups[group].owner = Some(to);
            self.groups[group].since = self.step;
            self.groups[group].moved = 0; // it had to change hands
            self.instances[to].groups.push(group);
            self.claims += 1;
        }
    }

    fn load(&self, place: usize) -> f64 {
        self.instances[place].groups.iter().map(|group| self.groups[*group].load).sum()
    }

    fn beat(&mut self, me: usize) {
        let load = self.load(me);
        self.instances[me].said = load;
        let listed = |place: &usize| {
            let instance = &self.instances[*place];
            *place != me && !instance.draining && (instance.alive || instance.listed_until > self.step)
        };
        let others: Vec<usize> = (0..self.instances.len()).filter(listed).collect();
        let loads: Vec<f64> = others.iter().map(|place| self.instances[*place].said).collect();
        let settled = |group: &&usize| self.groups[**group].since + SETTLED_STEPS <= self.step;
        let mine = self.instances[me].groups.iter().filter(settled);
        let mine: Vec<_> = mine.map(|group| (GroupKey(*group as u128), self.groups[*group].load)).collect();
        let Some(chosen) = balance::choose(load, &mine, &loads, &mut self.dice) else { return };
        let (group, to) = (chosen.group.0 as usize, others[chosen.to]);
        if !self.instances[to].alive {
            return; // it is gone, and not listed for much longer
        }
        self.instances[me].groups.retain(|each| *each != group);
        self.instances[to].groups.push(group);
        self.instances[to].said += self.groups[group].load;
        let moved = &mut self.groups[group];
        moved.owner = Some(to);
        moved.since = self.step;
        self.moved_twice += u64::from(moved.moved > 0);
        moved.moved += 1;
        self.moves += 1;
    }

    /// The heaviest load, by the mean.
    pub(crate) fn balance(&self) -> f64 {
        let alive = self.alive();
        let loads: Vec<f64> = alive.iter().map(|place| self.load(*place)).collect();
        let mean = loads.iter().sum::<f64>() / loads.len() as f64;
        loads.iter().copied().fold(0.0, f64::max) / mean
    }

    /// So many steps since the story began.
    pub(crate) fn steps(&self) -> u64 {
        self.step - self.begun
    }

    /// Statements to the database a second when nothing happens.
    pub(crate) fn statements_at_rest(&self) -> f64 {
        (self.alive().len() as u64 * STATEMENTS_A_MINUTE) as f64 / 60.0
    }

    pub(crate) fn is_whole(&self) -> bool {
        self.orphans.is_empty()
    }

    /// Every group has one owner, which lives.
    pub(crate) fn check(&self) {
        let mut met = HashSet::new();
        for (place, instance) in self.instances.iter().enumerate() {
            for group in &instance.groups {
                assert!(
                    instance.alive && met.insert(*group),
                    "group {group} is twice, or with one that is gone"
                );
                assert_eq!(self.groups[*group].owner, Some(place));
            }
        }
        assert_eq!(met.len() + self.orphans.len(), self.groups.len());
    }

    /// A story begins: what has moved before does not count.
    pub(crate) fn begin(&mut self) {
        self.begun = self.step;
        self.groups.iter_mut().for_each(|group| group.moved = 0);
        (self.moves, self.claims, self.moved_twice) = (0, 0, 0);
    }
}
