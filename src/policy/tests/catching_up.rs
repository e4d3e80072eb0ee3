//! What is decided otherwise while a replica catches up: who waits for it, and whose samples are held.

use super::*;

#[test]
fn nobody_overtakes_who_is_slower() {
    // Two intervals above the watermark, 45 s, are left to it; what is held covers nothing.
    check("pair b66 | b81~slowest60", "wait");
    check("pair b66 | b76~slowest60", "wait");
    check("pair b66 | b75~slowest60", "-");
    check("pair | a76~slowest60", "wait"); // nor does the owner
    check("pair | a75~slowest60", "fill51 a75");
    check("pair b66 | b81~slowest81", "fill51 fill66 silent:b81*"); // it is as far
    check("pair b66 | b81~slowest82", "fill51 fill66 silent:b81*");
    check("pair b66 | b81~refused60", "wait");
    check("pair b66 | b81!~slowest60", "wait"); // nor does an end
    check("pair b66 | b70!~slowest60", "-"); // nothing goes upstream
    check("pair b66 | b81~slowest60 b81", "wait fill51 fill66 silent:b81*"); // and goes on afterwards
    check("pair a60! | b66~slowest60", "fill51 released:b66"); // near: it leaves no gap
    check("a0 | a900~slowest10", "a900"); // unknown interval: nobody knows what a gap is
    check("a0 b6 b21 | b36~slowest10", "fill6 fill21 silent:b36*");
    check("pair | b45~slowest30 b60~slowest50", "- -"); // what would not be forwarded does not wait
}

#[test]
fn nobody_overtakes_who_delivers_what_is_more_than_two_intervals_older() {
    check("pair b66 | b81~delivering50", "wait");
    check("pair b66 | b81~delivering51", "fill51 fill66 silent:b81*");
    check("pair | a76~delivering45", "wait"); // nor does the owner
    check("pair | a76~delivering46", "fill51 a76");
    check("pair | a75~delivering0", "fill51 a75"); // near: it leaves no gap
    check("a0 | a900~delivering10", "a900"); // unknown interval
    check("x.a0 | b6~delivering0", "b6"); // a birth
    check_held("pair b66 b81~delivering50", "b51 b66");
}

#[test]
fn who_waits_has_shown_nothing() {
    check_held("pair b66 b81~slowest60", "b51 b66");
    check_other("pair b66 b81~slowest60", "b66");
    check_target("pair a200~slowest60", "a45");
    check_target("up.a0=1 up.b6=1 up.a15=1 up.b21=1 up.a99=0~slowest30", "a15");
}

#[test]
fn births_wait_for_what_was_refused_a_moment_ago() {
    check("x.a0 | b6~refused3", "wait");
    check("x.a0 | b6~refused6", "b6");
    check("x.a0 | b6~slowest3", "b6"); // somebody who is slow, but was not refused: it is no birth of his
    check("x.a0 | a6~refused3", "a6"); // the target's owner
    check("a6~refused3", "a6"); // the target is new as well
    check("a6~inherited3", "wait"); // and upstream may know it, of whoever was refused before the window began
    check("a6~inherited6", "a6");
    check("x.a0 | a6~inherited3", "wait");
    check("a0 | a6~inherited3", "wait"); // nobody knows how far apart they may be
    check("pair | a60~inherited3", "a60");
    check("x.a0 | b6!~refused3", "wait");
    check("x.a0 | b6~refused3 a5 b6", "wait a5 -");
}

/// A retry finds its own sample held, which covers nothing.
#[test]
fn no_sample_covers_its_own_jump() {
    check("pair b60 b82~wait | b82~wait", "wait");
    check("a0 a15 a30 b46 | b61~wait", "silent:b61*".replace("silent", "fill46 silent").as_str());
    check("a0 a15 a30 b61~wait | b61~wait", "wait");
    // Held far above the watermark: between them is a gap that somebody may be about to fill.
    let far = [100_000, 115_000].map(|at| Some(Held { at: TimestampMs(at), payload: 7 }));
    let near = [50_000, 65_000].map(|at| Some(Held { at: TimestampMs(at), payload: 7 }));
    let of = |held, watermark: i64| Series {
        held,
        holder: ReplicaId(1),
        watermark: Some(TimestampMs(watermark * 1000)),
        interval: 15_000,
        ..Series::new(ReplicaId(0))
    };
    let jumps = |series: &Series, replica, at: i64| {
        let at = TimestampMs(at * 1000);
        is_jump(series, &Sample { replica: ReplicaId(replica), at, payload: 7, stale: false, up: None })
    };
    assert!(jumps(&of(far, 45), 1, 120));
    assert!(!jumps(&of(near, 45), 1, 95));
    assert!(jumps(&of(near, 45), 1, 96), "more than two intervals above the last held one");
    assert!(jumps(&of(near, 45), 0, 95), "not its own");
    assert!(!jumps(&of(near, 20), 1, 80) && jumps(&of(near, 19), 1, 80));
    let own = [60_000, 105_000].map(|at| Some(Held { at: TimestampMs(at), payload: 7 }));
    assert!(jumps(&of(own, 45), 1, 105), "its own sample");
    assert!(!jumps(&of([near[0], far[1]], 45), 1, 80), "what is held above the sample says nothing of it");
}

/// B owns x, whose target is A's. A is behind, and b yields to it: nobody else keeps what b brings.
#[test]
fn an_owner_that_yields_to_one_that_catches_up_is_held() {
    let held = |story: &str, held: &str| check_held(&format!("{SPLIT} {story}"), held);
    held("a50 c62", "c62");
    held("a50 c62 b76", "c62"); // of one standby
    held("a50 c62 b76~slowest60", "b76");
    held("a50 c62 b75~slowest60", "c62"); // 13 s are less than 0.75 of 18 s
    held("a50 c62 d76~slowest60", "c62"); // no other standby may
}
