//! POLICY: decides what becomes of one sample of one series, and which replica speaks for a target.
//!
//! A pure state machine: sample times in, verdict out. It owns the table of rules and the state they need.
//! It refuses to know the wall clock, atomics, I/O, whole requests, and how far into the future a sample may
//! lie: whoever calls it has bounded the timestamps, reserves by keeping copies of [`Series`], [`Target`] and
//! [`Ups`], and rolls back by restoring them.
//!
//! The rules, first match (the comments below carry the same numbers):
//!
//! | # | name | in short |
//! |---|---|---|
//! | 1 | duplicate | at or below the watermark |
//! | 2 | busy | would be forwarded while another flight carries the series |
//! | 3 | jump wait | would leave a gap that another replica may still be about to deliver |
//! | 4 | birth | nothing of the series is upstream yet |
//! | 5 | suppress | the owner's stale marker while a standby is alive |
//! | 6 | marker | the owner's stale marker otherwise |
//! | 7 | owner | the owner's sample |
//! | 8 | align | a standby that owns the target takes the series over |
//! | 9 | takeover | a standby takes a released or silent series over |
//! | 10 | stale duplicate | a standby's stale marker |
//! | 11 | hold | a standby's sample: kept in case the owner falls silent |

mod state;
mod up;

#[cfg(test)]
mod tests;

pub use state::{
    Action, Circumstances, Held, ReplicaId, Sample, Series, Takeover, Target, TimestampMs, Verdict,
};
pub use up::{Up, Ups};

/// The longest interval that is learned, in ms: 4.6 h. An entry of the window has 24 bits for it.
pub const INTERVAL_MAX_MS: i64 = (1 << 24) - 1;

/// Rules 4 to 11, of which exactly one applies above the watermark.
#[derive(Copy, Clone, Debug, PartialEq, Eq)]
enum Rule {
    Birth,
    Suppress,
    Marker,
    Owner,
    Takeover(Takeover),
    StaleDuplicate,
    Hold,
}

/// Decides about one sample and changes what is known of its series and target accordingly.
///
/// `ups` is given exactly for samples of an `up` series. `waits(at, interval)` is asked only of a jump that
/// would be forwarded, and says whether another replica of the group still sends older data.
///
/// After [`Action::Wait`] everything is as it was. After [`Action::Busy`] only the arrival itself is noted (what
/// a standby or the target's owner has shown, `up`, the fence): a caller that decides the sample anew after the
/// other flight starts from its copies, or a move of the target that was noted here is not reported again.
#[inline]
pub fn decide(
    series: &mut Series,
    target: &mut Target,
    mut ups: Option<&mut Ups>,
    sample: &Sample,
    circumstances: Circumstances,
    waits: impl FnOnce(TimestampMs, i64) -> bool,
) -> Verdict {
    let Sample { replica, at, .. } = *sample;
    debug_assert!(at.0.unsigned_abs() < 1 << 48, "{at:?} does not fit 48 bits");
    let (target_before, other_before) = (*target, series.other);

    let arrival = up::notice(series.interval, target, ups.as_deref_mut(), sample);
    let owns = replica == series.owner && target.fenced != Some(replica);
    let owner = owns && !yields(series, target, sample);
    let interval = if series.interval == 0 { own_distance(series, sample) } else { series.interval };
    note_other(series, target, sample, owns, owner);
    let moved = arrival.moved;
    let plain = |action| Verdict { action, fills: [None; 2], takeover: None, moved };

    // 1 duplicate. Below the watermark nothing of a standby is news; of the owner it may be, where upstream
    // takes it. A retry most likely repeats what upstream has.
    if let Some(watermark) = series.watermark
        && at <= watermark
    {
        let late = at < watermark && watermark - at < circumstances.out_of_order_window_ms;
        return plain(match owner && late && !circumstances.retry {
            true if circumstances.busy => Action::Busy,
            true => Action::Forward,
            false => Action::Duplicate,
        });
    }

    let rule = rule(series, target, sample, owner, interval);
    if !matches!(rule, Rule::Suppress | Rule::StaleDuplicate | Rule::Hold) {
        // 2 busy. A series in two flights could overtake itself.
        if circumstances.busy {
            return plain(Action::Busy);
        }
        // 3 jump wait. A sample that waits has shown nothing, or its backlog would count as delivered.
        let must_wait = overtakes(series, &target_before, sample, circumstances)
            || is_jump(series, sample) && waits(at, series.interval);
        if must_wait {
            *target = target_before;
            series.other = other_before;
            if let (Some(ups), Some(undo)) = (ups, arrival.undo) {
                ups.undo(undo);
            }
            return Verdict { moved: false, ..plain(Action::Wait) };
        }
    }

    match rule {
        Rule::Birth => birth(series, sample),
        Rule::Suppress => {
            series.released = true;
            return plain(Action::Suppress);
        }
        Rule::Marker => {
            (series.watermark, series.released, series.stale) = (Some(at), true, true);
            series.held = [None; 2];
        }
        Rule::Owner => {
            let fills = go_on(series, at, circumstances.may_be_split);
            return Verdict { fills, ..plain(Action::Forward) };
        }
        Rule::Takeover(why) => {
            let split = circumstances.may_be_split;
            let (fills, too) = take_over(series, target, sample, interval, why, split);
            let moved = moved || too;
            return Verdict { fills, takeover: Some(why), moved, ..plain(Action::Forward) };
        }
        Rule::StaleDuplicate => {
            if replica == series.holder {
                series.held = [None; 2];
            }
            return plain(Action::Duplicate);
        }
        Rule::Hold => {
            // An `up` of 0 would fill a gap with an outage that only this standby saw.
            if sample.up != Some(Up::Zero) {
                hold(series, sample, interval, circumstances.slowest.is_some());
            }
            return plain(Action::Duplicate);
        }
    }
    plain(Action::Forward)
}

/// Which of rules 4 to 11 applies to a sample above the watermark. `interval` is the series', or what stands
/// for it while that is unknown.
#[inline]
fn rule(series: &Series, target: &Target, sample: &Sample, owner: bool, interval: i64) -> Rule {
    // 4 birth
    let Some(watermark) = series.watermark else {
        return Rule::Birth;
    };
    let stale = sample.stale;
    if owner {
        return match stale {
            true if another_is_alive(series, sample) => Rule::Suppress, // 5 suppress
            true => Rule::Marker,                                       // 6 marker
            false => Rule::Owner,                                       // 7 owner
        };
    }
    // 8 align
    if !stale && sample.replica == target.owner && target.fenced != Some(sample.replica) {
        return Rule::Takeover(Takeover::Align);
    }
    // 9 takeover
    let silent = sample.at - watermark > two_at_most(interval);
    match (series.released || silent, stale) {
        (true, false) if series.released => Rule::Takeover(Takeover::Released),
        (true, false) => Rule::Takeover(Takeover::Silent),
        (true, true) if !series.stale && !another_is_alive(series, sample) => Rule::Takeover(Takeover::Ended),
        (_, true) => Rule::StaleDuplicate, // 10 stale duplicate
        (false, false) => Rule::Hold,      // 11 hold
    }
}

/// Two intervals, of which none is longer than the longest: what is farther away is gone, even if nobody knows the interval. A standby's
/// samples would be held and never sent where the owner's only one has the time of a clock that was not set.
#[inline]
const fn two_at_most(interval: i64) -> i64 {
    2 * if interval == 0 { INTERVAL_MAX_MS } else { interval }
}

/// Whether `distance` is at most one and a half intervals.
#[inline]
const fn is_near(distance: i64, interval: i64) -> bool {
    2 * distance <= 3 * interval
}

/// Whether the series' owner leaves the series to the target's owner, which has it as well and will align it.
#[inline]
fn yields(series: &Series, target: &Target, sample: &Sample) -> bool {
    sample.replica != target.owner
        && series.other.is_some_and(|(shown, by)| {
            by == target.owner
                && (series.interval == 0 || is_near((shown - sample.at).abs(), series.interval))
        })
}

/// The distance to the replica's own sample before this one, as far as it is remembered; 0 when it is not.
/// It stands for an interval that the owner has not had the time to teach.
#[cold]
fn own_distance(series: &Series, sample: &Sample) -> i64 {
    let held = series.held.into_iter().flatten().filter(|_| series.holder == sample.replica);
    let other = series.other.filter(|&(_, by)| by == sample.replica);
    let own = held.map(|held| held.at).chain(other.map(|(shown, _)| shown));
    let distance = own.filter(|&shown| shown < sample.at).max().map_or(0, |before| sample.at - before);
    distance.min(INTERVAL_MAX_MS)
}

/// Remembers the newest time a standby has shown: the sign of life that rules 5 and 9 look for.
#[inline]
fn note_other(series: &mut Series, target: &Target, sample: &Sample, owns: bool, owner: bool) {
    if owner {
        return;
    }
    let Sample { replica, at, stale, .. } = *sample;
    if stale {
        // Its own stale marker is the end of that life, unless it is a late one.
        if series.other.is_some_and(|(shown, by)| by == replica && at >= shown) {
            series.other = None;
        }
        return;
    }
    let late = series.watermark.is_some_and(|watermark| at <= watermark);
    let newer = |(shown, by)| {
        let since = at - shown;
        by == replica && since > 0
            || by != replica && overwrites(since, by, replica, target.owner, late, series.interval)
    };
    if !owns && series.other.is_none_or(newer) {
        series.other = Some((at, replica));
    }
}

/// Whether what a standby shows, `since` ms after what another one has shown, is kept instead of that. `late`: it is at or
/// below the watermark.
///
/// The trace of the target's owner stays, and that of its duplicates comes before a third replica's, which may always be a
/// little newer: or the third could keep the two from uniting.
#[inline]
pub(crate) fn overwrites(
    since: i64,
    by: ReplicaId,
    replica: ReplicaId,
    target_owner: ReplicaId,
    late: bool,
    interval: i64,
) -> bool {
    if by == target_owner {
        since > 0 && !is_near(since, interval)
    } else if replica == target_owner && late {
        is_near(-since, interval)
    } else {
        since > 0
    }
}

/// Whether a replica other than the sample's has shown the series within one and a half intervals.
fn another_is_alive(series: &Series, sample: &Sample) -> bool {
    let recent = |shown| series.interval == 0 || is_near(sample.at - shown, series.interval);
    let other = series.other.is_some_and(|(shown, by)| by != sample.replica && recent(shown));
    other || series.holder != sample.replica && series.held.into_iter().flatten().any(|held| recent(held.at))
}

/// Whether the sample leaves a gap of more than two intervals that its own replica's held samples do not cover.
/// While the interval is unknown any distance may be such a gap.
#[inline]
fn is_jump(series: &Series, sample: &Sample) -> bool {
    let Some(watermark) = series.watermark else {
        return true;
    };
    let far = |from| sample.at - from > 2 * series.interval;
    // A retry finds its own sample held, which covers nothing; and samples held far above the watermark do not either.
    let covered = || {
        let mut held = series.held.into_iter().flatten().filter(|held| held.at < sample.at);
        let first = held.next();
        let last = held.next().or(first);
        series.holder == sample.replica
            && first.is_some_and(|held| held.at - watermark <= 2 * series.interval)
            && last.is_some_and(|held| !far(held.at))
    };
    far(watermark) && !covered()
}

/// Whether the sample would leave more than two intervals to a replica that is about to deliver them, covered or not:
/// upstream would take neither its backlog any more, nor the series of one scrape from one replica. `target`: as it was
/// before the sample was noticed, since a sample that waits has moved nothing.
#[inline]
fn overtakes(series: &Series, target: &Target, sample: &Sample, circumstances: Circumstances) -> bool {
    let reach = 2 * series.interval;
    let far = |from: TimestampMs| sample.at - from > reach;
    let older = |time: Option<TimestampMs>| time.is_some_and(|time| time < sample.at);
    match series.watermark {
        Some(_) if reach == 0 => older(circumstances.inherited),
        Some(watermark) => {
            far(watermark) && (older(circumstances.slowest) || circumstances.delivering.is_some_and(far))
        }
        None => {
            older(circumstances.inherited) || sample.replica != target.owner && older(circumstances.refused)
        }
    }
}

/// Rule 4. The owner stays even if a standby was first, so that the series of a target stay together.
#[cold]
fn birth(series: &mut Series, sample: &Sample) {
    series.watermark = Some(sample.at);
    (series.stale, series.released) = (sample.stale, sample.stale);
    series.born = sample.replica != series.owner;
    drop_held(series, sample.at);
}

/// Rule 7: the owner goes on, over a gap if it missed a scrape that a standby did not. Returns the fills.
#[inline]
fn go_on(series: &mut Series, at: TimestampMs, may_be_split: bool) -> [Option<Held>; 2] {
    let Some(watermark) = series.watermark else {
        return [None; 2]; // rule 4 came first
    };
    let distance = at - watermark;
    let interval = match series.held {
        [Some(first), Some(second)] if series.interval == 0 => second.at - first.at,
        _ => series.interval,
    };
    let gap = interval != 0 && !is_near(distance, interval);
    let fills = if gap { fill(series, watermark, at, interval) } else { [None; 2] };
    // No interval is learned across an end, nor from a sample of another replica.
    if !series.born && !series.stale {
        learn(series, distance, may_be_split);
    }
    series.watermark = Some(at);
    (series.released, series.stale, series.born) = (false, false, false);
    drop_held(series, at);
    fills
}

/// Rules 8 and 9: the sample's replica becomes the owner. Returns the fills, and whether the target moved.
#[cold]
fn take_over(
    series: &mut Series,
    target: &mut Target,
    sample: &Sample,
    interval: i64,
    why: Takeover,
    may_be_split: bool,
) -> ([Option<Held>; 2], bool) {
    let Sample { replica, at, stale, .. } = *sample;
    let Some(watermark) = series.watermark else {
        return ([None; 2], false); // rule 4 came first
    };
    series.interval = interval;
    let fills = fill(series, watermark, at, interval);
    // The target follows only when its owner is gone from all of it: a series that ends or wanders is no death.
    let mut moved = false;
    let reach = if why == Takeover::Silent { two_at_most(interval) } else { 2 * interval };
    let gone = target.seen.is_none_or(|seen| at - seen > reach);
    if matches!(why, Takeover::Silent | Takeover::Released) && gone {
        if replica != target.owner && sample.up != Some(Up::Zero) {
            moved = up::move_target(target, replica, at);
        } else if target.fenced == Some(replica) {
            up::end_fence(target); // nobody else is left to stand in for it
        }
    }
    if why == Takeover::Silent && !may_be_split {
        // Owners that alternate on a series that became slower would never see its interval twice running.
        let longer = (at - watermark).div_euclid(2).min(2 * interval).min(INTERVAL_MAX_MS);
        series.interval = interval.max(longer);
    }
    series.watermark = Some(at);
    series.owner = replica;
    (series.released, series.stale) = (stale, stale);
    (series.slow, series.quick, series.born) = (false, false, false);
    if series.other.is_some_and(|(_, by)| by == replica) {
        series.other = None; // it is no standby any more
    }
    drop_held(series, at);
    (fills, moved)
}

/// The held samples for the gap between `watermark` and `at`: those that keep 0.4 intervals from their
/// neighbours, or else the one nearest the middle, since any is better than a hole.
#[cold]
fn fill(series: &Series, watermark: TimestampMs, at: TimestampMs, interval: i64) -> [Option<Held>; 2] {
    let apart = |from: TimestampMs, to: TimestampMs| 5 * (to - from) >= 2 * interval;
    let inside = || series.held.into_iter().flatten().filter(|held| watermark < held.at && held.at < at);
    let mut fills = [None; 2];
    let mut last = watermark;
    for held in inside().filter(|held| apart(held.at, at)) {
        if apart(last, held.at) {
            fills[usize::from(fills[0].is_some())] = Some(held);
            last = held.at;
        }
    }
    if fills[0].is_none() {
        fills[0] = inside().min_by_key(|held| (2 * held.at.0 - watermark.0 - at.0).abs());
    }
    fills
}

/// Learns the interval from the owner's `distance`. One missed scrape, or one extra sample, is not a new
/// interval: a distance that is far off counts when it comes twice running. A long one never does where the samples between may
/// have gone to another instance: what is held would reach too far above what upstream has.
#[inline]
fn learn(series: &mut Series, distance: i64, may_be_split: bool) {
    let known = series.interval != 0;
    let short = known && 2 * distance < series.interval;
    let long = known && !is_near(distance, series.interval);
    if !(short || long) || (short && series.quick) || (long && series.slow && !may_be_split) {
        series.interval = distance.min(INTERVAL_MAX_MS);
    }
    series.quick = short && !series.quick;
    series.slow = long && !series.slow;
}

/// Rule 11: keeps the two newest samples of one standby.
#[inline]
fn hold(series: &mut Series, sample: &Sample, interval: i64, catching_up: bool) {
    let new = Held { at: sample.at, payload: sample.payload };
    let Some(last) = series.held[1].or(series.held[0]) else {
        (series.held, series.holder) = ([Some(new), None], sample.replica);
        return;
    };
    let distance = new.at - last.at;
    let apart = distance > 0 && 4 * distance >= 3 * series.interval;
    if series.holder == sample.replica {
        if apart {
            series.held = [Some(last), Some(new)];
        }
        return;
    }
    // Another standby steps in only when the holder is gone: samples of two would not be a scrape apart. But what an
    // owner brings that yields to one that is catching up, nobody else can be relied on to keep.
    let gone = interval != 0 && !is_near(distance, interval);
    let yields = catching_up && sample.replica == series.owner;
    if gone || yields && apart {
        (series.held, series.holder) = ([Some(new), None], sample.replica);
    }
}

/// Drops what is held at or below a new watermark.
#[inline]
fn drop_held(series: &mut Series, watermark: TimestampMs) {
    if let [Some(first), second] = series.held
        && first.at <= watermark
    {
        series.held = [second.filter(|held| held.at > watermark), None];
    }
}
