//! When an instance gives a group away, which one, and to whom. Pure: loads in, a move or none out.
//!
//! Each instance decides for itself, every two seconds, by what all have said of their loads. So that they come to rest without
//! talking to each other: a move always makes the heavier of the two lighter by a margin, and the dice keep them from going for the
//! same light one at the same time.

use crate::series::GroupKey;

/// Above this times the mean an instance gives away.
pub const HEAVY: f64 = 1.25;
/// Below this times the mean an instance is given to by all that are above the mean: it has just come.
pub const POOR: f64 = 0.5;
/// The heavier of the two has to become lighter by this part of what it was, or nothing is moved.
const GAIN: f64 = 0.05;
/// Below so many samples a second in the mean there is nothing worth a move.
const IDLE: f64 = 1.0;

/// Dice that fall the same way for the same seed.
#[derive(Debug, Clone, Copy)]
pub struct Dice(u64);

impl Dice {
    /// Of a seed.
    #[must_use]
    pub fn new(seed: u64) -> Self {
        Self(seed)
    }

    /// The next number (splitmix64).
    pub fn roll(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.0;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    }

    /// A number below `end`, which is above 0.
    pub fn below(&mut self, end: usize) -> usize {
        ((u128::from(self.roll()) * end as u128) >> 64) as usize
    }

    /// True with that probability.
    pub fn happens(&mut self, probability: f64) -> bool {
        (self.roll() >> 11) as f64 / (1u64 << 53) as f64 >= 1.0 - probability
    }
}

/// A group to give, and to which of the others.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Move {
    /// The group.
    pub group: GroupKey,
    /// The place of its new owner in `others`.
    pub to: usize,
}

/// What to give away now, if anything. `mine`: the groups that may be given (those that have just come may not), with samples a
/// second; `load`: that of all groups here; `others`: the loads of the instances that are alive and stay.
#[must_use]
pub fn choose(load: f64, mine: &[(GroupKey, f64)], others: &[f64], dice: &mut Dice) -> Option<Move> {
    let mean = (load + others.iter().sum::<f64>()) / (others.len() + 1) as f64;
    if mean < IDLE || load <= mean {
        return None;
    }
    let heavy = load > HEAVY * mean;
    // Who is light enough to be given to, and how many there are to give.
    let bound = if heavy { mean } else { POOR * mean };
    let floor = if heavy { HEAVY * mean } else { mean };
    let light = others.iter().filter(|other| **other < bound).count();
    let givers = 1 + others.iter().filter(|other| **other > floor).count();
    // All givers together make about one move a light instance, or they would all be at it at once.
    if light == 0 || !dice.happens(light as f64 / givers as f64) {
        return None;
    }
    let to = lighter_of_two(others, bound, light, dice);
    let group = fitting(load, mine, others[to])?;
    Some(Move { group, to })
}

/// The lighter of two of the `light` ones below `bound`, drawn by lot.
fn lighter_of_two(others: &[f64], bound: f64, light: usize, dice: &mut Dice) -> usize {
    let drawn = [dice.below(light), dice.below(light)];
    let light = others.iter().enumerate().filter(|(_, load)| **load < bound).enumerate();
    let drawn = light.filter(|(number, _)| drawn.contains(number)).map(|(_, place_and_load)| place_and_load);
    drawn.min_by(|(_, a), (_, b)| a.total_cmp(b)).map_or(0, |(place, _)| place)
}

/// The group by whose move the heavier of the two becomes lightest, if it becomes lighter by enough.
fn fitting(load: f64, mine: &[(GroupKey, f64)], to: f64) -> Option<GroupKey> {
    let heavier_after = |group: f64| (load - group).max(to + group);
    let moved = mine.iter().filter(|(_, group)| *group > 0.0);
    // Of equally good ones the lightest: whatever moves has to begin anew.
    let (key, group) = moved
        .min_by(|(_, a), (_, b)| heavier_after(*a).total_cmp(&heavier_after(*b)).then(a.total_cmp(b)))?;
    // A light group's move gains little beside much else, so the margin is of what is moved.
    let well_below = to + group <= load - GAIN * load;
    (well_below && heavier_after(*group) < load).then_some(*key)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn groups(loads: &[f64]) -> Vec<(GroupKey, f64)> {
        loads.iter().enumerate().map(|(number, load)| (GroupKey(number as u128), *load)).collect()
    }

    /// What is chosen by one of many dice, if any of them chooses.
    fn check(mine: &[f64], others: &[f64]) -> Option<(u128, usize)> {
        let load = mine.iter().sum();
        let mut found = (0..64).filter_map(|seed| choose(load, &groups(mine), others, &mut Dice::new(seed)));
        found.next().map(|found| (found.group.0, found.to))
    }

    #[test]
    fn one_that_is_not_heavy_gives_nothing() {
        assert_eq!(check(&[30.0, 30.0], &[60.0, 60.0]), None, "all are equal");
        assert_eq!(check(&[60.0, 60.0], &[100.0, 80.0]), None, "1.2 times the mean");
        assert_eq!(check(&[60.0, 60.0], &[]), None, "nobody else is there");
        assert_eq!(check(&[0.5, 0.5], &[0.0]), None, "nothing worth a move");
    }

    #[test]
    fn the_group_that_fits_best_goes_to_a_light_one() {
        assert_eq!(check(&[10.0, 45.0, 45.0], &[0.0]), Some((1, 0)));
        assert_eq!(check(&[10.0, 20.0, 90.0], &[80.0, 0.0]), Some((2, 1)), "not to one above the mean");
    }

    #[test]
    fn a_huge_group_is_never_moved_for_nothing() {
        assert_eq!(check(&[100.0], &[0.0, 0.0]), None);
        assert_eq!(check(&[100.0, 0.0], &[10.0]), None, "a group without load is no help");
        let beside = check(&[100.0, 6.0], &[0.0, 0.0]).map(|(group, _)| group);
        assert_eq!(beside, Some(1), "what is beside it goes");
    }

    #[test]
    fn one_that_has_just_come_is_given_to_by_all_above_the_mean() {
        let mine: Vec<f64> = vec![10.0; 11];
        let others = [[100.0; 9].as_slice(), &[0.0]].concat();
        assert_eq!(check(&mine, &others).map(|(_, to)| to), Some(9));
    }

    proptest! {
        #[test]
        fn a_move_makes_the_heavier_of_two_lighter(
            mine in prop::collection::vec(0.0..1000.0f64, 1..20),
            others in prop::collection::vec(0.0..5000.0f64, 0..20),
            seed: u64,
        ) {
            let load: f64 = mine.iter().sum();
            let groups = groups(&mine);
            if let Some(chosen) = choose(load, &groups, &others, &mut Dice::new(seed)) {
                let moved = mine[chosen.group.0 as usize];
                let mean = (load + others.iter().sum::<f64>()) / (others.len() + 1) as f64;
                prop_assert!(others[chosen.to] < mean && load > mean);
                prop_assert!(others[chosen.to] + moved < load);
                prop_assert!((load - moved).max(others[chosen.to] + moved) < load);
            }
        }

        #[test]
        fn it_comes_to_rest(
            start in prop::collection::vec(prop::collection::vec(1.0..1000.0f64, 0..12), 2..8),
            seed: u64,
        ) {
            let mut instances: Vec<Vec<(GroupKey, f64)>> = Vec::new();
            let mut key = 0;
            for loads in &start {
                instances.push(loads.iter().map(|load| { key += 1; (GroupKey(key), *load) }).collect());
            }
            let mut dice = Dice::new(seed);
            let of = |groups: &[(GroupKey, f64)]| groups.iter().map(|(_, load)| load).sum::<f64>();
            let mut moved_at = 0;
            let ticks = 2000;
            for tick in 0..ticks {
                let me = tick % instances.len();
                let others: Vec<usize> = (0..instances.len()).filter(|other| *other != me).collect();
                let loads: Vec<f64> = others.iter().map(|other| of(&instances[*other])).collect();
                if let Some(chosen) = choose(of(&instances[me]), &instances[me], &loads, &mut dice) {
                    let place = instances[me].iter().position(|(key, _)| *key == chosen.group).unwrap();
                    let group = instances[me].remove(place);
                    instances[others[chosen.to]].push(group);
                    moved_at = tick;
                }
            }
            prop_assert!(moved_at < ticks / 2, "still moving at {moved_at}");
        }
    }
}
