//! Many schedules, on all cores.

use crate::checker::{Verdict, judge};
use crate::fleets;
use crate::make::{self, Class};
use crate::run::play;
use crate::story::Story;
use crate::table::Table;
use crate::tally::Fleets;
use std::ops::Range;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

/// Plays and judges the story of a seed.
pub(crate) fn one(seed: u64) -> (Story, Verdict) {
    let story = make::story(seed);
    let verdict = judge(&play(&story, None));
    (story, verdict)
}

/// Plays the stories of all seeds. `each` hears of every tenth of them.
pub(crate) fn all(seeds: Range<u64>, each: impl Fn(u64) + Sync) -> Table {
    let mut table = Table::default();
    let one = |seed, table: &mut Table| {
        let (story, verdict) = one(seed);
        table.add(Class::of(seed), &story, &verdict);
    };
    played(seeds, each, one).into_iter().for_each(|part| table.merge(part));
    table.above.sort_by(|a, b| b.hole.width.total_cmp(&a.hole.width));
    table.uneven.sort_by(|a, b| b.1.total_cmp(&a.1));
    table.split.sort_by(|a, b| b.1.total_cmp(&a.1));
    table.broken.sort();
    table
}

/// The same with those of several instances.
pub(crate) fn fleets(seeds: Range<u64>, each: impl Fn(u64) + Sync) -> Fleets {
    let mut table = Fleets::default();
    let one = |seed, table: &mut Fleets| {
        let story = fleets::story(seed);
        table.add(&story, &judge(&play(&story, None)));
    };
    played(seeds, each, one).into_iter().for_each(|part| table.merge(part));
    table
}

/// What each core has made of its part of the seeds.
fn played<T: Default + Send>(
    seeds: Range<u64>,
    each: impl Fn(u64) + Sync,
    one: impl Fn(u64, &mut T) + Sync,
) -> Vec<T> {
    let next = AtomicU64::new(seeds.start);
    let tenth = (seeds.end - seeds.start) / 10;
    let threads = std::thread::available_parallelism().map_or(1, usize::from);
    let worker = || {
        let mut made = T::default();
        loop {
            let seed = next.fetch_add(1, Relaxed);
            if seed >= seeds.end {
                return made;
            }
            if tenth > 0 && (seed - seeds.start).is_multiple_of(tenth) {
                each(seed - seeds.start);
            }
            one(seed, &mut made);
        }
    };
    std::thread::scope(|scope| {
        let workers: Vec<_> = (0..threads).map(|_| scope.spawn(worker)).collect();
        workers.into_iter().map(|worker| worker.join().expect("a schedule panicked")).collect()
    })
}
