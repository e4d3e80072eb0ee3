//! Stories about `up`: how a fence begins, ends, and moves a target.

use super::*;

#[test]
fn up_fences() {
    const UP: &str = "a0 up.a0=1 b6 up.b6=1 a15 up.a15=1 b21 up.b21=1";
    let check = |story: &str, outcomes: &str| check(&format!("{UP} {story}"), outcomes);
    let check_target = |story: &str, target: &str| check_target(&format!("{UP} {story}"), target);
    check_target("", "a15");
    // It begins with the owner's 0 while a standby's newest is 1 and at most 1.5 intervals old.
    check_target("up.a30=0", "a30 fenced a for b");
    check("| up.a30=0 a30! a31", "- - -");
    check("a30! | up.a30=0", "-"); // in either order
    check_target("up.b36=0 up.a42=0", "a42");
    check_target("up.b36=2 up.a42=0", "a42");
    check_target("up.a43=0", "a43 fenced a for b"); // 22 s
    check_target("up.a44=0", "a44");
    check_target("up.c22=1 up.a30=0", "a30 fenced a for c"); // the newest
    check_target("up.a30=2", "a30");
    check_target("up.a14=0", "a15"); // older than its newest
    check_target("up.a15=0", "b21 fenced a"); // the later word of the same time
    check_target("up.b22=0", "a15"); // a standby's 0
    check_target("up.a30!", "a15"); // a marker has no value
    // The target moves with the standby's next sample after it.
    check("up.a30=0 | b36", "fill21 align:b36*");
    check_target("up.a30=0 b36", "b36 fenced a");
    check("up.a30=0 | up.b36=1", "fill21 align:b36*");
    check("up.a30=0 | b30 b36! up.b36=1", "- - fill21 align:b36*");
    check("up.a30=0 | c36 b37", "- fill21 align:b37*"); // its heir's, no other's
    check_target("up.a30=0 b30", "a30 fenced a for b");
    check_target("up.a30=0 b36!", "a30 fenced a for b");
    // At once, if it has shown a later one.
    check("up.b36=1 | up.a30=0", "-*");
    check_target("up.b36=1 up.a30=0", "b36 fenced a");
    // The fenced replica is a standby for the rest.
    check("up.a30=0 | a30", "-");
    check("up.a30=0 b36 | a45 x.a45", "- a45");
    // Over when its own `up` is 1 again,
    check_target("up.a30=0 up.a45=1", "a45");
    check("up.a30=0 up.b36=1 up.a45=1 | a45 b51", "fill21 a45 align:b51");
    check_target("up.a30=0 up.b36=1 up.a45=1", "b36");
    check_target("up.a30=0 up.b36=1 up.a45=2", "b36 fenced a");
    // when that standby's next is 0,
    check_target("up.a30=0 up.b36=0", "a30");
    check("up.a30=0 up.b36=0 | up.a45=0", "fill21 a45");
    check_target("up.a30=0 up.b36=1 up.b51=0", "b51 fenced a"); // before the move only
    check_target("up.a30=0 up.c36=0", "a30 fenced a for b");
    check_target("up.a30=0 up.b30=0", "a30 fenced a for b"); // of the same time is not the next
    // when its newest is too old before the move,
    check_target("up.a30=0 up.a43=0", "a43 fenced a for b");
    check_target("up.a30=0 up.a44=0", "a44");
    // or when the target's owner changes again.
    check_target("up.a30=0 up.b36=1 b36 x.a45 b51 x.c90 c90", "c90");
    check_target("up.a30=0 up.b36=1 b36 a200", "a200"); // to the fenced one itself: nobody else is left
    check_target("up.a30=0 a200", "a200 fenced a for b"); // unless b may still come
    check_target("up.a30=0 up.b36=1 b36 up.a200=0", "b36");
}

#[test]
fn up_of_many_replicas() {
    let story = |first: char, count: u8| {
        let replicas = (0..count).map(|i| char::from(first as u8 + i));
        replicas.enumerate().map(|(at, q)| format!("up.{q}{}=1", at + 10)).collect::<Vec<_>>().join(" ")
    };
    assert!(told("a0 a15", 0).ups.is_empty(), "only an `up` is remembered");
    let many = told(&format!("up.z9=1 {}", story('a', 16)), 0);
    assert_eq!(many.ups.len(), 16);
    assert_eq!(many.ups.newest(ReplicaId(b'z' - b'a')), None, "the oldest makes room");
    assert_eq!(many.ups.newest(ReplicaId(15)), Some((TimestampMs(25_000), Up::One)));
    // A waiting sample puts back whom it had replaced.
    let full = format!("up.z9=1 up.z20=1 {}", story('a', 15));
    let waited = format!("{full} up.q60=1~wait");
    assert_eq!(told(&waited, 0).ups, told(&full, 0).ups);
    check(&format!("{full} | up.q60=1~wait"), "wait");
    check_target(&format!("{waited} up.z25=0"), "z25 fenced z for o");
}
