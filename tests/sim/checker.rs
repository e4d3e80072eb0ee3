//! Holds what is stored against what was sent and acknowledged.

use crate::history::{NEVER, Sent};
use crate::run::Played;
use crate::settled;
use crate::story::{Kind, PAUSE_MAX_MS, SeriesPlan, Story, TargetPlan};
use std::collections::{BTreeMap, HashMap};

/// Figures of one story, and the promises that were broken.
#[derive(Clone, Debug, Default)]
pub(crate) struct Verdict {
    pub(crate) hole: Hole,
    /// Samples stored, by what one replica alone would have had.
    pub(crate) density: f64,
    /// The longest time that the series of a target came from different replicas, in intervals, the target, and when
    /// it began.
    pub(crate) split: (f64, usize, i64),
    /// Stale markers stored while another replica lived.
    pub(crate) false_ends: usize,
    /// Of series that everybody has all the time.
    pub(crate) changes_of_owner: u64,
    pub(crate) takeovers: u64,
    pub(crate) moves: u64,
    pub(crate) waits: u64,
    pub(crate) stored: usize,
    /// What must not be, and the series that it is about.
    pub(crate) broken: Vec<Broken>,
    pub(crate) fleet: FleetFigures,
}

/// The widest hole of a story.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Hole {
    /// In intervals.
    pub(crate) width: f64,
    pub(crate) series: usize,
    /// Where it begins.
    pub(crate) at_ms: i64,
    /// How old its series was there, in intervals.
    pub(crate) age: f64,
}

/// Figures of several instances.
#[derive(Clone, Debug, Default)]
pub(crate) struct FleetFigures {
    /// How long until all agreed when the last fault was over.
    pub(crate) settled_ms: i64,
    /// How long two instances served one group, over all groups.
    pub(crate) split_ms: i64,
    /// How often a group came to an instance.
    pub(crate) moves: usize,
    /// Batches that were refused for good in a split, or soon after.
    pub(crate) dropped_in_split: usize,
    /// The first of them.
    pub(crate) first_dropped: String,
    /// Samples that upstream refused, because it had another one of that time or a newer one.
    pub(crate) conflicts: u64,
    /// Samples that upstream got twice.
    pub(crate) repeated: u64,
}

#[derive(Clone, Debug)]
pub(crate) struct Broken {
    pub(crate) promise: &'static str,
    pub(crate) what: String,
    pub(crate) series: Option<usize>,
}

/// One stored sample.
#[derive(Clone, Copy, Debug)]
struct Stored {
    at_ms: i64,
    stale: bool,
    /// Who sent it; a set of bits.
    by: u32,
}

impl Verdict {
    pub(crate) fn broke(&mut self, promise: &'static str, series: Option<usize>, what: String) {
        self.broken.push(Broken { promise, what, series });
    }
}

/// Judges.
pub(crate) fn judge(played: &Played) -> Verdict {
    let story = &played.world.story;
    let mut verdict = Verdict::default();
    whole(played, &mut verdict);
    settled::judge(played, &mut verdict);
    let history = played.world.history();
    let mut by_series = vec![];
    let (mut stored_count, mut expected) = (0.0, 0.0);
    for (number, series) in history.series.iter().enumerate() {
        let stored = identify(played, number, &series.sent, &mut verdict);
        verdict.stored += stored.len();
        // A series that comes and goes may move its target while nobody knows its interval.
        let target = &story.targets[series.target];
        let comes_and_goes = |plan: &SeriesPlan| match target.kind {
            Kind::Scraped => matches!(plan, SeriesPlan::Rare(_)),
            Kind::Rules => *plan != SeriesPlan::Steady,
        };
        // All rules of a group are one target: they have neither job nor instance.
        let same = story.targets.iter().filter(|other| {
            std::ptr::eq(*other, target) || target.kind == Kind::Rules && other.kind == Kind::Rules
        });
        let rare = same.flat_map(|target| &target.series).any(comes_and_goes);
        if series.plan == SeriesPlan::Steady && target.life.1 > story.span_ms && !rare {
            let changes = changes_of_owner(&stored, story.interval_ms(series.target, 0));
            verdict.changes_of_owner += changes;
            if changes > 0 && story.is_healthy() {
                verdict.broke("healthy groups keep their owners", Some(number), format!("series {number}"));
            }
        }
        let interval_ms = |around_ms| story.interval_ms(series.target, around_ms);
        let acked = acknowledged(&series.sent);
        let reach_ms = |around_ms| story.two_intervals_ms(series.target, series.plan, around_ms);
        lost(number, &acked, &stored, reach_ms, played, &mut verdict);
        if !matches!(series.plan, SeriesPlan::Rare(_)) {
            let widest = widest_hole(&stored, &acked, story, series.target);
            if widest.width > verdict.hole.width {
                verdict.hole = Hole { series: number, ..widest };
            }
            if interval_ms(0) <= 15_000 {
                let (have, want) = density(&stored, &acked, interval_ms);
                stored_count += have;
                expected += want;
            }
        }
        ends(number, &stored, &series.sent, story, target, &mut verdict);
        by_series.push(stored);
    }
    verdict.density = if expected > 0.0 { stored_count / expected } else { 1.0 };
    for target in 0..story.targets.len() {
        let of_target = history
            .series
            .iter()
            .enumerate()
            .filter(|(_, series)| series.target == target && series.plan == SeriesPlan::Steady);
        let numbers: Vec<usize> = of_target.map(|(number, _)| number).collect();
        let interval_ms = story.interval_ms(target, 0);
        let backlog = backlog(numbers.iter().flat_map(|number| &history.series[*number].sent), story);
        let excused = |at_ms| story.is_troubled(at_ms) || is_near(&backlog, at_ms, interval_ms);
        let (longest_ms, since_ms) = longest_split_ms(&numbers, &by_series, interval_ms, excused);
        let split = longest_ms as f64 / interval_ms as f64;
        if split > verdict.split.0 {
            verdict.split = (split, target, since_ms);
        }
    }
    verdict
}

/// What can be said without looking at series.
fn whole(played: &Played, verdict: &mut Verdict) {
    let story = &played.world.story;
    let history = played.world.history();
    for broken in history.broken.iter().filter(|_| !story.has_wrong_clocks()) {
        let series = broken.split([' ', ':']).nth(1).and_then(|number| number.parse().ok());
        verdict.broke("acknowledged only what upstream has", series, broken.clone());
    }
    let mut dropped = history.dropped.iter().filter(|dropped| !settled::is_of_a_split(played, dropped));
    if let Some(first) = dropped.next()
        && !story.loses_data()
    {
        let what = format!("{} batches, the first at {}: {}", 1 + dropped.count(), first.at_ms, first.what);
        verdict.broke("nothing is refused", Some(first.series), what);
    }
    if played.undelivered > 0 {
        verdict.broke("queues drain", None, format!("{} samples are undelivered", played.undelivered));
    }
    if played.unanswered > 0 {
        verdict.broke("requests end", None, format!("{} requests are open", played.unanswered));
    }
    if played.series_seen > story.proxy.series_max {
        verdict.broke("the table keeps its bound", None, format!("{} series", played.series_seen));
    }
    let full = story.proxy.series_max < history.series.len();
    if played.thanos.with_replica() > 0 && !full {
        verdict.broke("no replica label", None, format!("{} series", played.thanos.with_replica()));
    }
    let seen = played.thanos.tsdb().violations;
    if seen.vanished + seen.bad_labels > 0 {
        verdict.broke("requests are in order", None, format!("{seen:?}"));
    }
    // What the window has no room for is sent as it came, and so again when its sender tries again.
    let again = story.loses_answers() || full;
    if seen.out_of_order + seen.duplicate_timestamp + seen.out_of_bounds > 0 && !again {
        verdict.broke("timestamps rise", None, format!("{seen:?}"));
    }
    for (name, count) in &played.counted {
        if name.starts_with("promdedup_takeovers_total") {
            verdict.takeovers += count;
        } else if name.starts_with("promdedup_target_moves_total") {
            verdict.moves += count;
        } else if name.starts_with("promdedup_waits_total") && name.contains("jump") {
            verdict.waits += count;
        }
    }
}

/// Who sent what is stored.
fn identify(played: &Played, number: usize, sent: &[Vec<Sent>], verdict: &mut Verdict) -> Vec<Stored> {
    let mut by: HashMap<(i64, u64), u32> = HashMap::new();
    for (replica, sent) in sent.iter().enumerate() {
        sent.iter().for_each(|sent| *by.entry((sent.at_ms, sent.bits)).or_default() |= 1 << replica);
    }
    let mut stored = vec![];
    for (at_ms, bits) in played.thanos.stored(number) {
        let by = by.get(&(at_ms, bits)).copied().unwrap_or_default();
        if by == 0 {
            verdict.broke("nothing is invented", Some(number), format!("series {number} at {at_ms}"));
        }
        let stale = bits == promdedup::stand_in::STALE_MARKER_BITS;
        stored.push(Stored { at_ms, stale, by });
    }
    stored
}

/// The times of the acknowledged samples of all replicas, markers left out.
fn acknowledged(sent: &[Vec<Sent>]) -> Vec<i64> {
    let acked = sent.iter().flatten().filter(|sent| sent.acked_ms != NEVER && !sent.is_stale_marker());
    let mut times: Vec<i64> = acked.map(|sent| sent.at_ms).collect();
    times.sort_unstable();
    times
}

fn lost(
    number: usize,
    acked: &[i64],
    stored: &[Stored],
    reach_ms: impl Fn(i64) -> i64,
    played: &Played,
    verdict: &mut Verdict,
) {
    if played.thanos.with_replica() > 0 || played.world.story.has_wrong_clocks() {
        return; // they are stored under other names too; that each has arrived was seen at its acknowledgement
    }
    let times: Vec<i64> = stored.iter().filter(|stored| !stored.stale).map(|stored| stored.at_ms).collect();
    // Nobody knows how long a series may do without before its second sample.
    let young = times.first().map_or(i64::MIN, |first| first + reach_ms(*first) / 2);
    let until = times.iter().find(|time| **time > young).copied().unwrap_or(i64::MAX);
    let mut lost = acked.iter().filter(|at_ms| **at_ms >= until).filter(|at_ms| {
        let reach_ms = reach_ms(**at_ms);
        let next = times.partition_point(|time| *time < **at_ms - reach_ms);
        times.get(next).is_none_or(|time| *time > **at_ms + reach_ms)
    });
    if let Some(first) = lost.next() {
        let what =
            format!("series {number}: {} acknowledged samples, the first at {first}", 1 + lost.count());
        verdict.broke("nothing acknowledged is lost", Some(number), what);
    }
}

/// The widest distance of neighbours from the second interval of the series on, in intervals. A series begins anew
/// after its end, and when the window has forgotten it. Time in which nobody had a sample for more than an interval
/// does not count.
fn widest_hole(stored: &[Stored], acked: &[i64], story: &Story, target: usize) -> Hole {
    let mut widest = Hole::default();
    let mut begun_ms = i64::MIN;
    let mut ended = true;
    for pair in stored.windows(2) {
        let (before, this) = (pair[0], pair[1]);
        let interval_ms = story.interval_ms(target, before.at_ms);
        ended |= before.stale;
        if std::mem::take(&mut ended) && !before.stale {
            begun_ms = before.at_ms;
        }
        let forgotten = story.proxy_restarts().any(|at_ms| {
            (at_ms - interval_ms..=at_ms + 3 * interval_ms).contains(&before.at_ms)
                || (before.at_ms..this.at_ms).contains(&at_ms)
        });
        if before.stale || this.stale {
            ended |= before.stale;
            continue; // an end is no hole, and who lives on is judged elsewhere
        }
        if forgotten || before.at_ms < begun_ms + interval_ms {
            continue;
        }
        let silence_ms = (silence_ms(acked, before.at_ms, this.at_ms) - interval_ms).max(0);
        let width = (this.at_ms - before.at_ms - silence_ms) as f64 / interval_ms as f64;
        if width > widest.width {
            let age = (before.at_ms - begun_ms) as f64 / interval_ms as f64;
            widest = Hole { width, at_ms: before.at_ms, age, ..widest };
        }
    }
    widest
}

/// The longest time between two moments in which nobody had a sample.
fn silence_ms(acked: &[i64], after_ms: i64, until_ms: i64) -> i64 {
    let from = acked.partition_point(|time| *time <= after_ms);
    let to = acked.partition_point(|time| *time < until_ms).max(from);
    let mut last_ms = after_ms;
    let mut longest_ms = 0;
    for time in acked[from..to].iter().chain([&until_ms]) {
        longest_ms = longest_ms.max(time - last_ms);
        last_ms = *time;
    }
    longest_ms
}

/// Samples stored, and those that one replica without a fault would have had in the same time.
fn density(stored: &[Stored], acked: &[i64], interval_ms: impl Fn(i64) -> i64) -> (f64, f64) {
    let live: Vec<i64> = stored.iter().filter(|stored| !stored.stale).map(|stored| stored.at_ms).collect();
    let mut expected = f64::from(u8::from(!live.is_empty()));
    for pair in live.windows(2) {
        let interval_ms = interval_ms(pair[0]);
        let silence_ms = (silence_ms(acked, pair[0], pair[1]) - interval_ms).max(0);
        expected += (pair[1] - pair[0] - silence_ms) as f64 / interval_ms as f64;
    }
    (live.len() as f64, expected)
}

/// Stale markers stored although another replica had shown that the series lives, to the process that forwarded the
/// marker and within the interval that it could know, and lives on.
fn ends(
    number: usize,
    stored: &[Stored],
    sent: &[Vec<Sent>],
    story: &Story,
    target: &TargetPlan,
    verdict: &mut Verdict,
) {
    for marker in stored.iter().filter(|stored| stored.stale) {
        let near_ms = target.interval_ms(marker.at_ms) * 3 / 2;
        let believed_ms = target.believed_interval_ms(marker.at_ms) * 3 / 2;
        let markers =
            || sent.iter().flatten().filter(|sent| sent.at_ms == marker.at_ms && sent.is_stale_marker());
        let decided_ms = markers().map(|sent| sent.arrived_ms).min().unwrap_or(NEVER);
        let acked_ms = markers().map(|sent| sent.acked_ms).min().unwrap_or(NEVER);
        let begun_ms = story.proxy_lives().filter(|begun_ms| *begun_ms <= acked_ms).max().unwrap_or(0);
        for (replica, sent) in sent.iter().enumerate().filter(|(replica, _)| marker.by >> replica & 1 == 0) {
            let live = sent.iter().filter(|sent| !sent.is_stale_marker());
            let mut near =
                live.clone().filter(|sent| (marker.at_ms - believed_ms..=marker.at_ms).contains(&sent.at_ms));
            let shown = near.any(|sent| (begun_ms..decided_ms).contains(&sent.acked_ms));
            let ended = sent.iter().any(|sent| {
                sent.is_stale_marker()
                    && (marker.at_ms - near_ms..=marker.at_ms + near_ms).contains(&sent.at_ms)
            });
            let lives_on = live.clone().any(|sent| {
                (marker.at_ms + 1..=marker.at_ms + near_ms).contains(&sent.at_ms) && sent.acked_ms != NEVER
            });
            if shown && lives_on && !ended {
                verdict.false_ends += 1;
                let what = format!("series {number} ends at {}, replica {replica} lives", marker.at_ms);
                verdict.broke("no end while another lives", Some(number), what);
            }
        }
    }
}

/// The times of samples that a replica delivered as a backlog: later than a link and a sender's longest pause explain. For
/// its target the fault is not over before.
fn backlog<'a>(sent: impl Iterator<Item = &'a Vec<Sent>>, story: &Story) -> Vec<i64> {
    let usual_ms = PAUSE_MAX_MS + 2 * story.link.delay_max_ms();
    let late = |sent: &&Sent| sent.acked_ms != NEVER && sent.acked_ms - sent.at_ms > usual_ms;
    let mut times: Vec<i64> = sent.flatten().filter(late).map(|sent| sent.at_ms).collect();
    times.sort_unstable();
    times
}

/// Whether one of the times, which rise, is that near.
fn is_near(times: &[i64], at_ms: i64, distance_ms: i64) -> bool {
    let next = times.partition_point(|time| *time < at_ms - distance_ms);
    times.get(next).is_some_and(|time| *time <= at_ms + distance_ms)
}

/// The longest time that the newest samples of a target's series came from different replicas while nothing was wrong,
/// and when that began.
fn longest_split_ms(
    numbers: &[usize],
    by_series: &[Vec<Stored>],
    interval_ms: i64,
    excused: impl Fn(i64) -> bool,
) -> (i64, i64) {
    let mut events: BTreeMap<i64, Vec<(usize, u32)>> = BTreeMap::new();
    for (nth, number) in numbers.iter().enumerate() {
        for stored in by_series[*number].iter().filter(|stored| !stored.stale) {
            events.entry(stored.at_ms).or_default().push((nth, stored.by));
        }
    }
    let mut newest: Vec<Option<(i64, u32)>> = vec![None; numbers.len()];
    let (mut since, mut longest) = (None, (0, 0));
    for (at_ms, changes) in events {
        changes.iter().for_each(|(nth, by)| newest[*nth] = Some((at_ms, *by)));
        let live = newest.iter().flatten().filter(|(seen_ms, _)| at_ms - seen_ms <= interval_ms * 8 / 5);
        if live.fold(u32::MAX, |common, (_, by)| common & by) != 0 || excused(at_ms) {
            since = None;
        } else {
            let since_ms = *since.get_or_insert(at_ms);
            longest = longest.max((at_ms - since_ms, since_ms));
        }
    }
    longest
}

/// How often the replica of a series changed from its second interval on.
fn changes_of_owner(stored: &[Stored], interval_ms: i64) -> u64 {
    let Some(first) = stored.first() else { return 0 };
    let settled = stored.iter().filter(|stored| stored.at_ms > first.at_ms + interval_ms);
    let mut last = u32::MAX;
    let mut changes = 0;
    for stored in settled {
        changes += u64::from(last & stored.by == 0);
        last = stored.by;
    }
    changes
}
