//! Stories of a few samples, one line each, in the order of the table.
//!
//! A story is a list of samples in the order of their arrival. `b21` is a sample of replica `b` at 21 s of the
//! series that a story without other names is about; `b21!` is a stale marker, `x.b21` belongs to the series
//! `x` of the same target, `up.b21=0` to its `up`. Behind it may stand `~wait` (a jump would have to wait),
//! `~busy` (another flight carries the series), `~retry`, and, in seconds, `~slowest30` and `~refused30` (how far another
//! replica is that catches up; since when one was refused, which is then the slowest, too), `~delivering30` (what another one
//! delivers at that moment), or `~split`. Only what follows `|` is compared; `pair` is a healthy pair from 0 s to 51 s, 15 s apart, `a`
//! the owner, with 45 s as the watermark and `b51` held.
//!
//! An outcome is `b66` (forwarded) or `silent:b66` (with a takeover), after its fills, `fill51`; `-` a duplicate;
//! `withheld`, `busy`, `wait`. A `*` behind it says that the target moved.

use std::collections::HashMap;

use super::*;

mod catching_up;
mod properties;
mod up;

const PAIR: &str = "a0 b6 a15 b21 a30 b36 a45 b51";

/// What is known at the end of a story.
struct Told {
    outcomes: Vec<String>,
    series: HashMap<String, Series>,
    target: Target,
    ups: Ups,
}

impl Told {
    fn the_series(&self) -> &Series {
        &self.series[""]
    }
}

fn told(story: &str, out_of_order_window_s: i64) -> Told {
    let story = story.replace("pair", PAIR);
    let mut told = None;
    for word in story.split_whitespace() {
        match (&mut told, word) {
            (Some(Told { outcomes, .. }), "|") => outcomes.clear(),
            _ => step(&mut told, word, out_of_order_window_s),
        }
    }
    told.expect("a story has samples")
}

fn step(told: &mut Option<Told>, word: &str, out_of_order_window_s: i64) {
    let (text, circumstance) = word.split_once('~').unwrap_or((word, ""));
    let (text, up) = text.split_once('=').map_or((text, None), |(text, up)| (text, Some(up)));
    let (name, text) = text.split_once('.').unwrap_or(("", text));
    let (forwarded, stale) = (text, text.ends_with('!'));
    let text = text.trim_end_matches('!');
    let replica = ReplicaId(text.as_bytes()[0] - b'a');
    let sample = Sample {
        replica,
        at: TimestampMs(text[1..].parse::<i64>().expect(word) * 1000),
        payload: 7,
        stale,
        up: up.map(|up| match up {
            "1" => Up::One,
            "0" => Up::Zero,
            _ => Up::Other,
        }),
    };
    let told = told.get_or_insert_with(|| Told {
        outcomes: vec![],
        series: HashMap::new(),
        target: Target::new(replica),
        ups: Ups::default(),
    });
    let series = told.series.entry(name.to_owned()).or_insert(Series::new(told.target.owner));
    let circumstances = Circumstances {
        out_of_order_window_ms: out_of_order_window_s * 1000,
        retry: circumstance == "retry",
        busy: circumstance == "busy",
        refused: seconds(circumstance, "refused"),
        inherited: seconds(circumstance, "inherited"),
        slowest: seconds(circumstance, "slowest").or(seconds(circumstance, "refused")),
        delivering: seconds(circumstance, "delivering"),
        may_be_split: circumstance == "split",
    };
    let ups = (name == "up").then_some(&mut told.ups);
    let verdict =
        decide(series, &mut told.target, ups, &sample, circumstances, |_, _| circumstance == "wait");
    for fill in verdict.fills.iter().flatten() {
        assert_eq!(verdict.action, Action::Forward, "only what is forwarded has fills");
        told.outcomes.push(format!("fill{}", fill.at.0 / 1000));
    }
    let why = verdict.takeover.map_or("", |why| match why {
        Takeover::Silent => "silent:",
        Takeover::Released => "released:",
        Takeover::Ended => "ended:",
        Takeover::Align => "align:",
    });
    let outcome = match verdict.action {
        Action::Forward => forwarded,
        Action::Duplicate => "-",
        Action::Suppress => "withheld",
        Action::Busy => "busy",
        Action::Wait => "wait",
    };
    told.outcomes.push(format!("{why}{outcome}{}", if verdict.moved { "*" } else { "" }));
}

/// The time in a circumstance like `slowest30`.
fn seconds(circumstance: &str, name: &str) -> Option<TimestampMs> {
    let seconds: i64 = circumstance.strip_prefix(name)?.parse().expect("a time");
    Some(TimestampMs(seconds * 1000))
}

fn check(story: &str, outcomes: &str) {
    check_with_window(0, story, outcomes);
}

fn check_with_window(out_of_order_window_s: i64, story: &str, outcomes: &str) {
    assert_eq!(told(story, out_of_order_window_s).outcomes.join(" "), outcomes, "{story}");
}

fn check_interval(story: &str, interval_s: i64) {
    assert_eq!(told(story, 0).the_series().interval, interval_s * 1000, "{story}");
}

/// `held` as in `b36 b51`.
fn check_held(story: &str, held: &str) {
    let told = told(story, 0);
    let series = told.the_series();
    let given = series.held.iter().flatten().map(|held| shown(held.at, series.holder));
    assert_eq!(given.collect::<Vec<_>>().join(" "), held, "{story}");
}

/// `other` as in `b51`, or `-`.
fn check_other(story: &str, other: &str) {
    let given = told(story, 0).the_series().other.map_or("-".to_owned(), |(at, by)| shown(at, by));
    assert_eq!(given, other, "{story}");
}

/// `target` as owner and when it was seen, then what is fenced, as in `b66`, `b66 fenced a`, `a60 fenced a for b`.
fn check_target(story: &str, target: &str) {
    let Target { owner, seen, fenced, since, heir } = told(story, 0).target;
    let mut given = seen.map_or("-".to_owned(), |seen| shown(seen, owner));
    if let Some(fenced) = fenced {
        given += &format!(" fenced {}", name(fenced));
    }
    if let Some(heir) = heir {
        given += &format!(" for {}", name(heir));
    }
    assert_eq!(since.is_some(), heir.is_some(), "{story}");
    assert_eq!(given, target, "{story}");
}

fn shown(at: TimestampMs, by: ReplicaId) -> String {
    format!("{}{}", name(by), at.0 / 1000)
}

fn name(replica: ReplicaId) -> char {
    char::from(b'a' + replica.0)
}

#[test]
fn healthy() {
    check("a0 b6 a15 b21 a30 b36", "a0 - a15 - a30 -");
    check("b6 a15 b21 a30 b36", "b6 - b21 - b36"); // the first to deliver owns
    check("a0 b6 c11 a15 b21 c26 a30", "a0 - - a15 - - a30");
    check("x.a0 y.a0 x.b6 y.b6 x.a15 y.a15", "a0 a0 - - a15 a15");
    check("a0 b0 a15 b15", "a0 - a15 -"); // recording rules
}

#[test]
fn rule_1_duplicate() {
    check("pair | a45", "-");
    check("pair | a30", "-");
    check("pair | b45 b44", "- -");
    check("pair | a45! b45!", "- -");
    check("pair | a45~busy a30~wait", "- -");
    check_held("pair b45", "b51");
    check_other("a0 a15 b6", "b6"); // a sign of life all the same
    check_other("a0 a15 b6 b12!", "-"); // and of death
    check_with_window(60, "pair | a40", "a40");
    check_with_window(60, "pair | a40 a40 a60", "a40 a40 a60"); // the watermark does not go back
    check_with_window(60, "pair | a45", "-");
    check_with_window(60, "pair | b40", "-");
    check_with_window(60, "pair | a40~retry", "-");
    check_with_window(60, "pair | a40~busy", "busy");
    check_with_window(30, "pair | a15 a16", "- a16");
    check_with_window(0, "pair | a44", "-");
}

#[test]
fn rule_2_busy() {
    check("pair | a60~busy a60", "busy a60");
    check("a0~busy a0", "busy a0");
    check("pair | b81~busy b81", "busy fill51 silent:b81*");
    check("pair | a90~busy a90", "busy fill51 a90");
    check("pair | a60!~busy", "withheld"); // nothing of it goes upstream
    check("pair | b66~busy b66!~busy", "- -");
    check("a0 a15 | a30!~busy", "busy");
    check("pair a60! | b66~busy b66", "busy fill51 released:b66");
    check("a0 b6 b21 | b36~busy b36", "busy fill6 fill21 silent:b36*"); // its own first try is no sample before it
    check_held("pair a90~busy", "b51");
    check_interval("pair a75~busy a90~busy", 15);
}

#[test]
fn rule_3_jump_wait() {
    check("a0~wait a0", "wait a0");
    check("a0 | a15~wait a15", "wait a15"); // unknown interval: any distance may be one
    check("pair | a75~wait", "fill51 a75"); // 2 intervals
    check("pair | a76~wait", "wait");
    check("pair | b81~wait", "fill51 silent:b81*"); // covered by b51
    check("pair | b82~wait", "wait");
    check("pair b66 | c80~wait", "wait"); // what b holds does not cover c
    check("pair | a200!~wait", "wait");
    check("pair | a60!~wait", "withheld");
    check("pair b66 | b70~wait b66!~wait", "- -");
    check_other("pair a76~wait", "b51");
    check_other("pair b82~wait", "b51");
    check_held("pair b82~wait", "b51");
    check_target("pair a200~wait", "a45"); // it has shown nothing
    check_target("up.a0=1 up.b6=1 up.a15=1 up.b21=1 up.a99=0~wait", "a15");
    check("up.a0=1 up.b6=1 up.a15=1 up.b20=1 up.c21=1 | up.b82=1~wait up.a30=0", "wait -"); // b20 made an heir
    check("up.a0=1 up.b1=1 up.a15=0 | b99~wait", "wait"); // the heir moves no target either
    check_target("up.a0=1 up.b1=1 up.a15=0 b99~wait", "a15 fenced a for b");
    let ups = told("up.a0=1 up.a15=1 up.a99=0~wait up.b99=0~wait", 0).ups;
    assert_eq!(ups.newest(ReplicaId(0)), Some((TimestampMs(15_000), Up::One)));
    assert_eq!((ups.newest(ReplicaId(1)), ups.len(), ups.is_empty()), (None, 1, false));
}

#[test]
fn rule_4_birth() {
    check("a0", "a0");
    check("x.a0 | b6", "b6"); // whoever sent it
    check("x.a0 | b6 a15 a30", "b6 a15 a30"); // and the owner stays
    check_interval("x.a0 b6 a15", 0); // the distance to a standby's teaches nothing
    check_interval("x.a0 b6 a15 a30", 15);
    check_interval("a0 a15", 15);
    check_other("x.a0 b6", "b6");
    check("x.a0 | b6! a15", "b6! a15");
    check("x.a0 | b6! c8", "b6! released:c8*"); // a marker releases
    check("a0! | b6", "released:b6*");
}

#[test]
fn rule_5_suppress() {
    check("pair | a60!", "withheld");
    check("pair | a60! b66", "withheld fill51 released:b66");
    check("pair | a60! a60!", "withheld withheld"); // the watermark stays
    check("pair | a73!", "withheld"); // 51 + 22.5 = 73.5
    check("pair | a74!", "a74!");
    check("a0 b6 a15 a28! b29", "a0 - a15 withheld released:b29"); // only `other` shows that b is alive
    check("a0 b2 | a300!", "withheld"); // unknown interval: any
    check("pair b51! | a60!", "a60!"); // the standby has ended as well
    check("pair b66 c58 | a60!", "withheld"); // a held sample shows it too
    check("pair a60! | a62 b77", "a62 -"); // the owner is back
}

#[test]
fn rule_6_marker() {
    check("a0 a15 | a30!", "a30!");
    check("a0 a15 a30! | b45", "released:b45");
    check("a0 a15 a30! | b46", "released:b46*"); // the marker did not count as seen
    check("a0 a15 a30! | a45", "a45");
    check("a0 a15 a30! a45 | b60", "-"); // no longer released
    check("a0 a15 | a30! a30!", "a30! -");
    check_held("pair a74!", "");
    check_interval("a0 a15 a30! a60 a90 a120", 30); // no distance is learned from a marker
    check_interval("a0 a15 a30! a60 a90", 15);
}

#[test]
fn rule_7_owner() {
    check("pair | a60 a75", "a60 a75");
    check("pair | a67", "a67"); // 22 s: no gap
    check("pair | a68", "fill51 a68"); // 23 s: a gap
    check("pair b66 | a90", "fill51 fill66 a90");
    check_held("pair b66 a60", "b66");
    check_held("pair b66 a66", "");
    check_held("pair a51", "");
    check_held("pair b66 a67", "");
    check("a0 b7 b22 | a50", "fill7 fill22 a50"); // unknown interval: the distance of the two held
    check("a0 b5 | a50", "a50"); // one tells none
    check("a0 b5 b45 | a50", "a50"); // 50 s is no gap of 40 s
    check_interval("a0 b7 b22 a50", 50); // it is no lesson
    // An owner that does not own the target is a standby while the target's owner is near.
    after_split("a50 | b66", "-"); // a came back late, below the watermark
    after_split("a50 b66 | a74", "fill66 align:a74");
    after_split("a50 | b77 b78", "- b78"); // the interval is 18 s by then: 27 s are near, 28 s are not
    after_split("a50 | b66!", "-");
    after_split("c50 | b66", "b66"); // c owns nothing
    after_split("c49 a50 c51 | b66", "-"); // nor does c hide a
    after_split("a48 b50 | b75", "-"); // nor b itself
    after_split("a20 c51 | b66", "b66"); // unless a was long ago
    check("x.a0 x.a15 a0! b6 a5 b21 | b36", "-"); // unknown interval: however long ago, b does not hide a
}

/// `a` owns the target and shows `x`, but lost this series to `b`, with 51 s as the watermark, the interval 18 s.
const SPLIT: &str = "x.a0 a0 b6 x.a15 a15 b21 x.a30 x.a45 b36 b51 x.a60";

fn after_split(story: &str, outcomes: &str) {
    check(&format!("{SPLIT} {story}"), outcomes);
}

#[test]
fn rule_8_align() {
    check(SPLIT, "a0 a0 - a15 a15 - a30 a45 - fill21 fill36 silent:b51 a60");
    after_split("| a62", "align:a62");
    after_split("| a62!", "-"); // not with a stale marker
    after_split("| c62", "-"); // nor any other standby
    after_split("b66! | a70", "align:a70"); // before it counts as released
    after_split("a62 | b66 a77", "- a77");
    after_split("c59 | a72", "fill59 align:a72");
    // Recording rules: equal times for all, and another standby delivers first.
    after_split("b66 c66 a66 | b81 c81 a81", "- - align:a81");
    after_split("b66 c70 a66 | b81 c85 a81", "- - fill70 align:a81"); // or scrapes a little later
    check_target(&format!("{SPLIT} a62"), "a62"); // the target stays
    check_interval(&format!("{SPLIT} a62 a77"), 15);
}

#[test]
fn rule_9_silent() {
    check("pair | b66 b81", "- fill51 fill66 silent:b81*");
    check("pair b66 | b75 b76", "- fill51 fill66 silent:b76*"); // above two intervals
    check("a0 a15 a30 | b60 b61", "- fill60 silent:b61*"); // the only one, however near
    check("a0 b6 b21 | b36", "fill6 fill21 silent:b36*"); // unknown interval: b's own distance, 15 s
    // None is longer than 16,777 s.
    check("a0 | b33554", "-");
    check("a0 | b33555 b33570", "silent:b33555* b33570");
    check("a0 b0 | b40000", "silent:b40000*");
    check("x.a33550 a0 | b33570", "silent:b33570"); // the target's owner lives
    assert_eq!(told("a0 a20000 a50000", 0).the_series().interval, INTERVAL_MAX_MS);
    assert_eq!(told("a0 a16000 b90000", 0).the_series().interval, INTERVAL_MAX_MS);
    check("a0 b6 | b20", "-"); // 20 s are not above 2 * 14 s
    check("a0 b6 | b36", "-"); // 36 s are not above 2 * 30 s
    check("a0 | b36", "-"); // and nobody knows
    check("a0 a15 x.a60 b40 | b46", "fill40 silent:b46"); // the target's owner lives: it does not move
    check("a0 a15 x.a15 | b50 x.b50", "silent:b50* align:b50");
    check_interval("pair b81", 18); // 36 s / 2
    check_interval("a0 a15 b200", 30); // at most doubled
    check_interval("a0 b6 b21 b36", 18);
    check_interval("a0 a15 a30 a60 b92 b118", 16); // one long distance of a and one of b are not two running
    check_other("pair b81", "-"); // no standby any more
    check_other("pair b81 c82", "c82");
    check_held("pair c52 b81", "");
    check_target("pair b81", "b81");
    check_target("pair x.a60 b81", "a60"); // 60 s is not below 81 - 30
}

#[test]
fn rule_9_released() {
    check("pair a60! | b66", "fill51 released:b66");
    check("pair a60! | b66 a75", "fill51 released:b66 align:a75"); // it owns the target: the series comes back
    check("pair a60! | c58", "fill51 released:c58");
    check("pair a60! | b76", "fill51 released:b76*"); // nothing of a since 45 s, which is below 76 - 30
    check("pair a60! | b75", "fill51 released:b75");
    check_interval("pair a60! b76", 15); // no silence, no lesson
    check("up.a0=1 up.b1=1 up.a15=1 up.a30! | up.b76=0", "released:b76"); // an `up` of 0 moves no target
    check("a0! | b36", "released:b36*");
}

#[test]
fn rule_9_ended() {
    check("a0 a15 | b46!", "ended:b46!");
    check("a0 a15 | b45!", "-"); // not silent yet
    check("a0 a15 b40 | b46!", "fill40 ended:b46!");
    check("a0 a15 a30! | b66!", "-"); // once is enough
    check("pair a60! | b61!", "fill51 ended:b61!"); // withheld so far, and the last one is gone
    check("pair b66 a60! | b61!", "fill51 ended:b61!"); // its own later sample is no third life
    check("pair c52 a60! | b61!", "-"); // a third lives
    check("pair c52 a60! b61! | c62!", "ended:c62!");
    check("a0 a15 b40 c41 | c46!", "-"); // held by b
    check("a0 a15 a30 b31 c35 | c68!", "fill31 ended:c68!"); // but long ago
    check("a0 a15 b46! | c47", "released:c47*"); // it is released, and the target did not move before
    check_target("a0 a15 b46!", "a15");
}

#[test]
fn rule_10_stale_duplicate() {
    check("pair | b52!", "-");
    check_held("pair b52!", "");
    check_held("pair c52!", "b51");
    check_other("pair b52!", "-");
    check_other("pair c52!", "b51");
    check_other("pair b50!", "b51"); // older than what it has shown
    check_other("pair b51!", "-");
    check("pair b52! | a74!", "a74!"); // so the owner's marker passes
}

#[test]
fn rule_11_hold() {
    check_held("pair", "b51");
    check_held("pair b62", "b51"); // 11 s
    check_held("pair b63", "b51 b63"); // 0.75 intervals are 11.25 s
    check_held("pair b62 b66", "b51 b66");
    check_held("a0 a20 b26 b41", "b26 b41"); // 15 s are exactly 0.75 intervals
    check_held("a0 a20 b26 b40", "b26");
    check_held("pair b63 b75", "b63 b75"); // the two newest
    check_held("pair b66 b60", "b51 b66");
    check_held("a0 b6 b6", "b6");
    check_held("a0 b6 b12", "b6 b12"); // unknown interval: whatever comes
    check_held("pair c53", "b51"); // of one standby
    check_held("pair c73", "b51");
    check_held("pair c74", "c74"); // 22.5 s after the last held one
    check_held("a0 b6 c60", "b6"); // unknown interval, nor its own
    check_held("a0 b6 c10 c20", "b6"); // 14 s are not above 1.5 * 10 s
    check_held("a0 b4 c10 c20", "c20"); // 16 s are
    check("up.a0=1 up.a15=1 up.b25=0 | up.a45=1", "a45"); // an outage of one standby fills nothing
    check("up.a0=1 up.a15=1 up.b25=1 | up.a45=1", "fill25 a45");
    check("up.a0=1 up.a15=1 up.b25=2 | up.a45=1", "fill25 a45");
}

#[test]
fn fill() {
    check("a0 a15 b21 b36 | a51", "fill21 fill36 a51"); // 6 s = 0.4 intervals on either side
    check("a0 a15 b20 b35 | a50", "fill35 a50"); // 5 s after the watermark
    check("a0 a15 b22 b37 | a42", "fill22 a42"); // 5 s before the sample
    check("a0 a15 b19 | a39", "fill19 a39"); // none keeps its distance: the nearest to the middle
    check("a0 a15 b18 b35 | a40", "fill35 a40");
    check("a0 a15 b20 b36 | a39", "fill20 a39");
    check("a0 a15 b21 | a37", "a37"); // no gap
    check("a0 a15 b39 | a39", "a39"); // nothing inside
    check("a0 a15 b21 b36 | a30 a45", "a30 a45"); // too late for one, no gap for the other
    check("pair b66 | a60 a75 a90", "a60 a75 a90"); // nothing twice
    // Two that are too near each other (none are held so, but the interval may have grown since).
    let held = [20_000, 25_000].map(|at| Some(Held { at: TimestampMs(at), payload: 7 }));
    let series = Series { held, ..Series::new(ReplicaId(0)) };
    let fills = super::fill(&series, TimestampMs(0), TimestampMs(45_000), 15_000);
    assert_eq!(fills, [held[0], None]);
}

#[test]
fn learn() {
    check_interval("a0", 0);
    check_interval("a0 a15", 15);
    check_interval("a0 a10 a15", 5); // half an interval
    check_interval("a0 a11 a16", 11); // less: an extra sample
    check_interval("a0 a11 a16 a21", 5); // twice
    check_interval("a0 a10 a25", 15); // one and a half
    check_interval("a0 a10 a26", 10); // more: a missed scrape
    check_interval("a0 a10 a26 a42", 16);
    check_interval("a0 a10 a26 a30 a46", 10); // not twice running
    check_interval("a0 a10 a26 a36 a52", 10);
    check_interval("a0 a10 a14 a30 a34", 10);
    check_interval("a0 a10 a26 a42 a92 a102", 10); // and anew after it
    check_interval("a0 a10 a14 a18 a19 a20", 1);
    check_interval("a0 a10 a14 a18 a19", 4);
}

/// What is missing may have gone to another instance: then what is held here reaches no further than before.
#[test]
fn no_interval_becomes_longer_where_another_instance_may_see_the_rest() {
    check_interval("a0 a15 a45~split a75~split a105~split", 15);
    check_interval("pair b90 b120", 30); // a silent owner, as a rule
    check_interval("pair b90~split b120~split", 15);
    check("pair a75~split a105~split | b111~split b141~split", "- fill111 silent:b141*"); // 36 s above it, at most
    check("pair a75 a105 | b111 b141 b165", "- - -");
    check_interval("a0 a30~split a45~split", 15); // a shorter one is learned as ever
    check_interval("a0 a15 a37~split", 22);
    check_interval("a0 a15~split a45 a75", 30); // and so is a longer one afterwards
}
