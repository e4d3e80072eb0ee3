//! POLICY: replays decisions that the executable form of the policy made, and compares every field. The one that is meant
//! to differ in places is counted.

#![allow(clippy::unwrap_used, reason = "a vector that does not parse fails the test")]

use std::{collections::HashMap, fmt::Write};

use promdedup::policy::{
    Action, Circumstances, ReplicaId, Sample, Series, Takeover, Target, TimestampMs, Up, Ups, decide,
};

#[test]
fn decides_as_the_vectors_say() {
    let (decided, preferred) = replay(include_str!("../policy_vectors/random.txt"));
    assert_eq!(decided, 4000);
    // Of groups of three and more. Not the decision differs, only whose sign of life is kept.
    assert_eq!(preferred, 1);
}

/// A target and its series as the proxy would remember them.
#[derive(Default)]
struct Story {
    window_ms: i64,
    target: Option<Target>,
    ups: Ups,
    series: HashMap<u8, Series>,
    series_expected: HashMap<u8, String>,
    target_expected: String,
    decided: u64,
    /// How often the duplicate of the target's owner went before the trace of a third replica, where the vectors keep that.
    preferred: usize,
}

/// Replays all stories of a file and returns the number of decisions compared, and of those that differ as they may.
fn replay(vectors: &str) -> (usize, usize) {
    let mut story = Story::default();
    let (mut replayed, mut preferred) = (0, 0);
    for (number, line) in vectors.lines().enumerate() {
        if let Some(window) = line.strip_prefix("story ") {
            preferred += story.preferred;
            story = Story { window_ms: window.parse().unwrap(), ..Story::default() };
            continue;
        }
        story.step(line, number + 1);
        replayed += 1;
    }
    (replayed, preferred + story.preferred)
}

impl Story {
    fn step(&mut self, line: &str, number: usize) {
        let [input, verdict, series, target]: [&str; 4] =
            line.split(" | ").collect::<Vec<_>>().try_into().unwrap();
        let fields: Vec<&str> = input.split(' ').collect();
        let [id, replica] = [fields[0], fields[1]].map(|field| field.parse().unwrap());
        self.decided += 1;
        let sample = Sample {
            replica: ReplicaId(replica),
            at: TimestampMs(fields[2].parse().unwrap()),
            payload: self.decided,
            stale: fields[3].contains('s'),
            up: fields[3].split_once('u').map(|(_, value)| up_of(value)),
        };
        let circumstances = Circumstances {
            out_of_order_window_ms: self.window_ms,
            retry: fields[4].contains('r'),
            busy: fields[4].contains('b'),
            ..Circumstances::default()
        };
        let state_of_target = self.target.get_or_insert(Target::new(sample.replica));
        let state = self.series.entry(id).or_insert(Series::new(state_of_target.owner));
        let mut asked = None;
        let given = decide(
            state,
            state_of_target,
            sample.up.is_some().then_some(&mut self.ups),
            &sample,
            circumstances,
            |at, interval| {
                assert_eq!(at, sample.at);
                asked = Some(interval);
                fields[4].contains('w')
            },
        );
        let given_verdict = format!(
            "{} {} {} {} {}",
            match given.action {
                Action::Forward => "F",
                Action::Duplicate => "D",
                Action::Suppress => "S",
                Action::Busy => "B",
                Action::Wait => "W",
            },
            list(given.fills.iter().flatten().map(|fill| fill.payload.to_string())),
            match given.takeover {
                Some(Takeover::Silent) => "silent",
                Some(Takeover::Released) => "released",
                Some(Takeover::Ended) => "ended",
                Some(Takeover::Align) => "align",
                None => "-",
            },
            u8::from(given.moved),
            or_dash(asked),
        );
        assert_eq!(given_verdict, verdict, "verdict of line {number}: {line}");
        let expected = self.series_expected.entry(id).or_default();
        keep_unless_same(expected, series);
        self.preferred += usize::from(prefers(state, state_of_target, &sample, other_of(expected)));
        assert_eq!(text_of_series(state), *expected, "series after line {number}: {line}");
        keep_unless_same(&mut self.target_expected, target);
        assert_eq!(
            text_of_target(state_of_target, &self.ups),
            self.target_expected,
            "target after line {number}: {line}"
        );
    }
}

fn keep_unless_same(expected: &mut String, field: &str) {
    if field != "=" {
        field.clone_into(expected);
    }
}

fn text_of_series(series: &Series) -> String {
    let flags = [series.released, series.stale, series.born, series.slow, series.quick];
    let flags = flags.iter().fold(0, |bits, &flag| bits << 1 | u8::from(flag));
    let other = series.other.map(|(at, by)| format!("{}@{}", at.0, by.0));
    assert!(series.held[0].is_some() || series.held[1].is_none(), "the oldest is first");
    let mut held = list(series.held.iter().flatten().map(|held| format!("{}:{}", held.at.0, held.payload)));
    if series.held[0].is_some() {
        write!(held, "@{}", series.holder.0).unwrap();
    }
    let watermark = or_dash(series.watermark.map(|watermark| watermark.0));
    format!("{} {watermark} {} {flags} {} {held}", series.owner.0, series.interval, or_dash(other))
}

/// Whether a duplicate of the target's owner went before the trace of a third replica, which the vectors keep. If so the state
/// goes on as they have it, so that all that follows can be compared.
fn prefers(
    state: &mut Series,
    target: &Target,
    sample: &Sample,
    kept: Option<(TimestampMs, ReplicaId)>,
) -> bool {
    let late = state.watermark.is_some_and(|watermark| sample.at <= watermark);
    let of_target = target.owner == sample.replica && state.owner != sample.replica;
    let third = kept.is_some_and(|(shown, by)| by != sample.replica && shown >= sample.at);
    let prefers = late && of_target && third && !sample.stale;
    if prefers && state.other == Some((sample.at, sample.replica)) {
        state.other = kept;
        return true;
    }
    false
}

/// What [`text_of_series`] has written as `other`.
fn other_of(text: &str) -> Option<(TimestampMs, ReplicaId)> {
    let (at, by) = text.split(' ').nth(4)?.split_once('@')?;
    Some((TimestampMs(at.parse().unwrap()), ReplicaId(by.parse().unwrap())))
}

fn text_of_target(target: &Target, ups: &Ups) -> String {
    let newest = (0..=254).filter_map(|id| ups.newest(ReplicaId(id)).map(|newest| (id, newest)));
    let ups = list(newest.map(|(id, (at, up))| format!("{id}:{}:{}", at.0, value_of(up))));
    format!(
        "{} {} {} {} {} {ups}",
        target.owner.0,
        or_dash(target.seen.map(|seen| seen.0)),
        or_dash(target.fenced.map(|fenced| fenced.0)),
        or_dash(target.since.map(|since| since.0)),
        or_dash(target.heir.map(|heir| heir.0)),
    )
}

fn up_of(value: &str) -> Up {
    match value {
        "1" => Up::One,
        "0" => Up::Zero,
        _ => Up::Other,
    }
}

fn value_of(up: Up) -> u8 {
    match up {
        Up::One => 1,
        Up::Zero => 0,
        Up::Other => 2,
    }
}

fn or_dash(field: Option<impl ToString>) -> String {
    field.map_or_else(|| "-".to_owned(), |field| field.to_string())
}

fn list(items: impl Iterator<Item = String>) -> String {
    let items: Vec<_> = items.collect();
    if items.is_empty() { "-".to_owned() } else { items.join(",") }
}
