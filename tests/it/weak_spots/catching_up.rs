//! Senders that catch up after an outage of upstream or of the proxy: who waits for whose backlog, and which conflicts
//! are no loss. The wall clock of these stories runs with the sample times.

use super::story::{Story, conflict, go_on, no_answer, too_big, ts, unavailable};
use crate::support::{NOW_MS, Ts, body, pack};
use promdedup::forward::Answer;
use promdedup::pipeline::Protocol;
use std::time::Duration;

impl Story {
    /// A pair in the middle of its life, as [`Story::of_a_pair`] has it, whose backlogs are minded.
    async fn of_a_minded_pair(names: &[&str]) -> Self {
        let story = Self::with(|wishes| wishes.first_contact_hold_ms = 500);
        let all = |replica, t| names.iter().map(|name| ts(name, replica, t)).collect::<Vec<_>>();
        assert_eq!(story.at(-1, &all("a", 0)).await, 503, "the first contact");
        for t in [0, 15, 30] {
            assert_eq!(story.at(t, &all("a", t)).await, 204);
            assert_eq!(story.at(t + 6, &all("b", t + 6)).await, 204);
        }
        story
    }

    /// Delivers at a time of the wall clock: the status of the answer.
    async fn at(&self, now: i64, series: &[Ts]) -> u16 {
        self.ask.later(now, series).await.status
    }

    /// Delivers what upstream does not take.
    async fn in_vain(&self, now: i64, series: &[Ts]) {
        self.fake.next([unavailable()]);
        assert_eq!(self.at(now, series).await, 503);
    }
}

#[tokio::test]
async fn a_takeover_waits_for_an_owner_that_was_refused_a_moment_ago() {
    let story = Story::of_a_minded_pair(&["m"]).await;
    assert_eq!(story.at(51, &[ts("m", "b", 51)]).await, 204);
    story.in_vain(62, &[ts("m", "a", 45)]).await;
    assert_eq!(story.at(66, &[ts("m", "b", 66)]).await, 503);
    assert_eq!(story.ask.metric("promdedup_waits_total", &[("reason", "jump"), ("replica", "b")]), 1);
    for t in [45, 60] {
        assert_eq!(story.at(67, &[ts("m", "a", t)]).await, 204);
    }
    assert_eq!(story.at(68, &[ts("m", "b", 66)]).await, 204);
    assert_eq!((story.stream("m{}").as_str(), story.moves()), ("0 15 30 45 60", 0));
}

/// A was refused nothing. It is late, and what is queued behind its request would be overtaken.
#[tokio::test]
async fn a_takeover_waits_for_an_owner_that_is_delivering_what_is_older() {
    let story = Story::of_a_minded_pair(&["m", "n"]).await;
    let (gate, ask) = (story.fake.hold(Answer::Taken), story.ask.clone());
    let owner = tokio::spawn(async move { ask.later(83, &[ts("n", "a", 45)]).await });
    gate.taken().await;
    assert_eq!(story.at(84, &[ts("m", "b", 76)]).await, 503, "45 s are more than two intervals older");
    gate.open();
    assert_eq!(owner.await.unwrap().status, 204);
    assert_eq!(story.at(84, &[ts("m", "a", 45).at(60).at(75)]).await, 204);
    assert_eq!(story.at(85, &[ts("m", "b", 76)]).await, 204);
    assert_eq!((story.stream("m{}").as_str(), story.moves()), ("0 15 30 45 60 75", 0));
}

/// A's request ends in a panic, or its task is ended: nothing of it is under way any more, and nobody says so but itself.
#[tokio::test]
async fn nobody_waits_for_a_request_that_was_given_up_while_it_was_served() {
    for panics in [true, false] {
        let story = Story::of_a_minded_pair(&["m", "n"]).await;
        if panics {
            story.fake.panic_once();
        }
        let (gate, ask) = ((!panics).then(|| story.fake.hold(Answer::Taken)), story.ask.clone());
        let owner = tokio::spawn(async move { ask.later(83, &[ts("n", "a", 45)]).await });
        if let Some(gate) = gate {
            gate.taken().await;
            owner.abort();
        }
        assert_eq!(owner.await.unwrap_err().is_panic(), panics);
        assert_eq!(story.at(84, &[ts("m", "b", 76)]).await, 204, "panics: {panics}");
    }
}

/// Upstream wants B's request in pieces, or has just taken one of these, and has refused something older of A meanwhile.
#[tokio::test]
async fn a_piece_waits_for_an_owner_that_was_refused_since_its_request_began() {
    for (before, stored) in [(vec![too_big()], ["", ""]), (vec![too_big(), Answer::Taken], [" 36 76", ""])] {
        let story = Story::of_a_minded_pair(&["m", "n"]).await;
        let gates: Vec<_> = before.into_iter().map(|answer| story.fake.hold(answer)).collect();
        let ask = story.ask.clone();
        let standby = tokio::spawn(async move { ask.later(77, &[ts("m", "b", 76), ts("n", "b", 76)]).await });
        for (number, gate) in gates.iter().enumerate() {
            gate.taken().await;
            if number + 1 == gates.len() {
                story.in_vain(77, &[ts("o", "a", 45)]).await;
            }
            gate.open();
        }
        assert_eq!(standby.await.unwrap().status, 503);
        for (series, more) in ["m{}", "n{}"].into_iter().zip(stored) {
            assert_eq!(story.stream(series), format!("0 15 30{more}"));
        }
    }
}

/// What upstream wants in pieces is not there all at once: the one before is sent, and what comes in the next would be overtaken.
#[tokio::test]
async fn a_takeover_waits_for_an_owner_whose_request_goes_in_pieces() {
    let story = Story::of_a_minded_pair(&["m", "n"]).await;
    story.fake.hold(Answer::TooBig { text: "too big".into() }).open();
    let (gate, ask) = (story.fake.hold(Answer::Taken), story.ask.clone());
    let body = [ts("m", "a", 45), ts("n", "a", 45).at(60).at(75)];
    let owner = tokio::spawn(async move { ask.later(83, &body).await });
    gate.taken().await;
    assert_eq!(story.at(84, &[ts("n", "b", 80)]).await, 503, "the piece is of 45 s");
    gate.open();
    assert_eq!(owner.await.unwrap().status, 204);
    assert_eq!(story.at(85, &[ts("n", "b", 80)]).await, 204);
    assert_eq!((story.stream("n{}").as_str(), story.moves()), ("0 15 30 45 60 75", 0));
}

/// They bring their replica nowhere, and hide nothing that is older.
#[tokio::test]
async fn nobody_waits_for_who_delivers_exemplars_alone() {
    let story = Story::of_a_minded_pair(&["m", "n"]).await;
    let (gate, ask) = (story.fake.hold(Answer::Taken), story.ask.clone());
    let exemplar = ts("n", "a", 0).no_sample().exemplar();
    let owner = tokio::spawn(async move { ask.later(66, &[exemplar]).await });
    gate.taken().await;
    assert_eq!(story.at(67, &[ts("m", "b", 67)]).await, 204);
    gate.open();
    assert_eq!(owner.await.unwrap().status, 204);
}

/// As it always is in a healthy group whose deliveries take up to an interval, however long upstream takes.
#[tokio::test(start_paused = true)]
async fn nobody_waits_for_who_delivers_what_is_less_than_two_intervals_older() {
    let story = Story::of_a_minded_pair(&["m", "n"]).await;
    let (gate, ask) = (story.fake.hold(Answer::Taken), story.ask.clone());
    let standby = tokio::spawn(async move { ask.later(60, &[ts("n", "b", 67)]).await });
    gate.taken().await;
    tokio::time::advance(Duration::from_secs(9)).await;
    assert_eq!(story.at(70, &[ts("m", "a", 96)]).await, 204);
    gate.open();
    assert_eq!(standby.await.unwrap().status, 204);
}

/// A delivers in time. In front of its request are a series with timestamps of its own (an exporter's), and one of another group.
#[tokio::test]
async fn nobody_waits_for_who_delivers_something_old_beside_what_is_not() {
    let story = Story::of_a_minded_pair(&["m", "n"]).await;
    let other = |t| {
        let labels = [("__name__", "x"), ("cluster", "other"), ("job", "j"), ("prometheus_replica", "a")];
        Ts::raw(&labels).at(t)
    };
    assert_eq!(story.at(31, &[other(0)]).await, 503, "the first contact");
    assert_eq!(story.at(34, &[other(0)]).await, 204);
    assert_eq!(story.at(36, &[ts("x", "a", -75)]).await, 204);
    let (gate, ask) = (story.fake.hold(Answer::Taken), story.ask.clone());
    let body = [other(10), ts("x", "a", -60), ts("n", "a", 45).at(60)];
    let owner = tokio::spawn(async move { ask.later(74, &body).await });
    gate.taken().await;
    assert_eq!(story.at(75, &[ts("m", "b", 66)]).await, 204, "A has come to 60 s");
    gate.open();
    assert_eq!(owner.await.unwrap().status, 204);
}

#[tokio::test]
async fn an_owner_that_never_comes_again_is_waited_for_six_seconds() {
    let story = Story::of_a_minded_pair(&["m"]).await;
    assert_eq!(story.at(51, &[ts("m", "b", 51)]).await, 204);
    story.in_vain(64, &[ts("m", "a", 45)]).await;
    for now in [66, 68, 70] {
        assert_eq!(story.at(now, &[ts("m", "b", 66)]).await, 503, "{now}");
    }
    assert_eq!(story.at(71, &[ts("m", "b", 66)]).await, 204);
    assert_eq!((story.stream("m{}").as_str(), story.moves()), ("0 15 30 36 51 66", 1));
}

/// What is refused for a series of one target is a backlog of the group: more of it is to come.
#[tokio::test]
async fn births_of_a_standby_wait_for_an_older_request_that_was_refused() {
    let story = Story::of_a_minded_pair(&["m"]).await;
    story.in_vain(45, &[ts("m", "a", 45)]).await;
    assert_eq!(story.at(46, &[ts("n", "b", 44)]).await, 204, "it is older");
    assert_eq!(story.at(46, &[ts("o", "b", 46)]).await, 503);
    assert_eq!(story.at(46, &[ts("p", "a", 46)]).await, 204, "the target is its own");
    assert_eq!(story.at(47, &[ts("m", "a", 45)]).await, 204);
    assert_eq!(story.at(47, &[ts("o", "b", 46)]).await, 204);
    assert_eq!((story.stream("o{}"), story.stream("p{}")), ("46".into(), "46".into()));
}

/// It has a backlog of series that upstream knows and this process does not. Where there are no other instances, who is held back
/// at the first contact has none.
#[tokio::test]
async fn births_wait_for_who_has_tried_in_vain_before_the_process_began() {
    for (retry_attempt, status) in [(1, 503), (0, 204)] {
        let story = Story::with(|wishes| wishes.first_contact_hold_ms = 500);
        let first = pack(&body(&[ts("m", "a", 45)], 0));
        let held_back = story.ask.incoming(Protocol::One, first, retry_attempt, None, NOW_MS - 1_000);
        assert_eq!(held_back.await.status, 503, "the first contact");
        assert_eq!(story.at(0, &[ts("n", "b", 46)]).await, status, "Retry-Attempt: {retry_attempt}");
    }
}

/// Nobody knows n's interval, so whether a sample of it leaves a gap is told by those before it: if one has to wait, and
/// those after it were decided all the same, some would be held, and the rest pass for duplicates the next time.
#[tokio::test]
async fn what_comes_after_a_sample_that_waits_waits_with_it() {
    let story = Story::of_a_minded_pair(&["m"]).await;
    assert_eq!(story.at(31, &[ts("n", "a", 31)]).await, 204);
    story.in_vain(62, &[ts("m", "a", 45)]).await;
    let times: Vec<i64> = (100..=325).step_by(15).collect();
    let backlog: Vec<Ts> = times.iter().map(|t| ts("n", "b", *t)).collect();
    assert_eq!(story.at(62, &backlog).await, 503);
    assert_eq!(story.at(63, &[ts("m", "a", 45)]).await, 204);
    assert_eq!(story.at(110, &backlog).await, 204);
    let all = times.iter().map(i64::to_string).collect::<Vec<_>>().join(" ");
    assert_eq!(story.stream("n{}"), format!("31 {all}"));
}

/// Upstream has stored what A sent and did not say so. The window knows nothing of it, nor of its series and target.
#[tokio::test]
async fn another_replicas_conflict_with_a_lost_answer_is_benign() {
    let story = Story::of_a_minded_pair(&["m"]).await;
    let at = |replica, t| ts("n", replica, t).label("instance", "new");
    story.fake.next([no_answer()]);
    assert_eq!(story.at(60, &[at("a", 45).at(60)]).await, 503);
    // The first creates the series, and would be excused without that.
    story.fake.next([conflict(), conflict(), conflict()]);
    assert_eq!(story.at(70, &[at("b", 46)]).await, 204);
    assert_eq!((story.benign("first_contact"), story.benign("retry")), (1, 0));
    assert_eq!(story.at(71, &[at("b", 60)]).await, 204);
    assert_eq!((story.benign("retry"), story.ask.outcome("rejected")), (1, 0));
    assert_eq!(story.at(72, &[at("b", 61)]).await, 400, "newer than all of it");
    assert_eq!(story.ask.outcome("rejected"), 1);
}

/// What B had held is older than what upstream took of A without saying so: upstream takes the one and not the other.
#[tokio::test]
async fn a_fill_that_conflicts_with_a_lost_answer_is_benign() {
    for (lost, status) in [(true, 204), (false, 400)] {
        let story = Story::of_a_minded_pair(&["m"]).await;
        if lost {
            story.fake.next([no_answer()]);
            assert_eq!(story.at(45, &[ts("z", "a", 45)]).await, 503);
        }
        assert_eq!(story.at(51, &[ts("m", "b", 51)]).await, 204);
        story.fake.next([conflict()]);
        assert_eq!(story.at(75, &[ts("m", "a", 75)]).await, status);
        assert_eq!(crate::support::sent(&story.fake).last().unwrap(), "m{} 36 51 75");
        assert_eq!(story.benign("retry"), u64::from(lost));
    }
}

/// The process before this one may have sent what the senders bring first.
#[tokio::test]
async fn after_a_restart_what_senders_bring_first_may_conflict() {
    let story = Story::with(|wishes| wishes.first_contact_hold_ms = 6_000);
    for t in [0, 15] {
        assert_eq!(story.at(0, &[ts("m", "a", t)]).await, 503);
    }
    story.fake.next([conflict(), conflict(), conflict()]);
    for (now, t, status) in [(6, 0, 204), (20, 15, 204), (21, 30, 400)] {
        assert_eq!(story.at(now, &[ts("m", "a", t)]).await, status, "{t}");
    }
    let benign = ["first_contact", "retry"].map(|reason| story.benign(reason));
    assert_eq!((benign, story.ask.outcome("rejected")), ([2, 0], 1));
}

/// What upstream may have unknown of a group is newer than what it refuses: a conflict about anything else is no less one for it.
#[tokio::test]
async fn a_doubt_explains_a_conflict_over_order_alone() {
    for (text, status) in [
        ("add 1 samples: out of order sample", 204),
        ("add 1 samples: out of bounds", 400),
        ("add 1 samples: too old sample", 400),
        ("add 1 samples: out of order sample; add 1 series: label set contains a label with empty name", 400),
        ("something else", 400),
    ] {
        let story = Story::of_a_minded_pair(&["m"]).await;
        story.fake.next([no_answer()]);
        assert_eq!(story.at(45, &[ts("z", "a", 45)]).await, 503);
        story.fake.next([Answer::Conflict { text: text.into() }]);
        assert_eq!(story.at(46, &[ts("m", "a", 45)]).await, status, "{text}");
        assert_eq!(story.benign("retry"), u64::from(status == 204), "{text}");
    }
}

#[tokio::test]
async fn a_conflict_that_nothing_explains_is_one() {
    let story = Story::of_a_minded_pair(&["m"]).await;
    // An answer leaves no doubt, whatever it says.
    story.in_vain(45, &[ts("m", "a", 45)]).await;
    story.fake.next([conflict()]);
    assert_eq!(story.at(46, &[ts("m", "a", 45)]).await, 400);
    // Nor does a doubt of another group.
    story.fake.next([no_answer()]);
    let other = [Ts::raw(&[("__name__", "x"), ("cluster", "other"), ("prometheus_replica", "a")]).at(60)];
    assert_eq!(story.at(59, &other).await, 503);
    assert_eq!((story.at(60, &other).await, story.fake.requests()), (503, 6));
    story.fake.next([conflict()]);
    assert_eq!(story.at(60, &[ts("m", "a", 60)]).await, 400);
}

/// B's 36 leans on A's 45, its 66 waits for it. A's fails: without the 36 what B sends would leave a gap.
#[tokio::test]
async fn what_leant_on_a_failed_flight_goes_out_with_what_was_busy() {
    let story = Story::new();
    for (replica, t) in [("a", 0), ("b", 6), ("a", 15), ("b", 21), ("a", 30)] {
        story.takes(&[ts("m", replica, t)]).await;
    }
    let owner = story.flies(unavailable(), vec![ts("m", "a", 45)]).await;
    let backlog: Vec<_> = [36, 51, 66, 81].map(|t| ts("m", "b", t)).into();
    let standby = story.comes(backlog).await;
    assert!(!standby.is_finished());
    assert_eq!(owner.lands().await, 503);
    assert_eq!(standby.await.unwrap().status, 204);
    assert_eq!(story.stream("m{}"), "0 15 30 36 51 66 81");
}

/// A flight without an answer ends ten seconds after its request came: the sender is about to come again from then on.
#[tokio::test(start_paused = true)]
async fn who_was_refused_after_a_long_wait_was_refused_a_moment_ago() {
    let story = Story::of_a_minded_pair(&["m"]).await;
    assert_eq!(story.at(51, &[ts("m", "b", 51)]).await, 204);
    let gate = story.fake.hold(no_answer());
    let ask = story.ask.clone();
    let owner = tokio::spawn(async move { ask.later(52, &[ts("m", "a", 45)]).await });
    gate.taken().await;
    tokio::time::advance(Duration::from_secs(13)).await;
    gate.open();
    assert_eq!(owner.await.unwrap().status, 503);
    assert_eq!(story.at(66, &[ts("m", "b", 66)]).await, 503);
    assert_eq!(story.at(67, &[ts("m", "a", 45).at(60)]).await, 204);
    assert_eq!((story.stream("m{}").as_str(), story.moves()), ("0 15 30 45 60", 0));
}

/// Exemplars alone, or samples that are refused for good, say nothing of how far their replica is.
#[tokio::test]
async fn a_request_that_shows_nothing_does_not_keep_its_replica_alive() {
    let story = Story::of_a_minded_pair(&["m"]).await;
    assert_eq!(story.at(51, &[ts("m", "b", 51)]).await, 204);
    story.in_vain(64, &[ts("m", "a", 45)]).await;
    assert_eq!(story.at(64, &[ts("m", "a", 0).no_sample().exemplar()]).await, 204);
    assert_eq!(story.at(64, &[ts("m", "a", 1 << 40)]).await, 400);
    assert_eq!(story.at(70, &[ts("m", "b", 66)]).await, 503);
    assert_eq!(story.at(71, &[ts("m", "b", 66)]).await, 204);
}

/// What has no replica label is nobody's backlog, also when it shares the group labels of a pair.
#[tokio::test]
async fn nobody_waits_for_what_has_no_replica() {
    let story = Story::of_a_minded_pair(&["m"]).await;
    let single = Ts::new("rule").at(45);
    story.in_vain(45, std::slice::from_ref(&single)).await;
    assert_eq!(story.at(46, std::slice::from_ref(&single)).await, 204);
    assert_eq!(story.at(60, &[ts("n", "b", 60)]).await, 204, "a birth");
    assert_eq!(story.at(68, &[ts("m", "b", 67)]).await, 204, "a takeover");
}

/// While upstream is away all stand still. That must not wear out anybody's backlog, or an outage of more than five
/// minutes would end with it lost.
#[tokio::test]
async fn a_backlog_counts_for_as_long_as_upstream_is_away() {
    let story = Story::of_a_minded_pair(&["m"]).await;
    for now in (45..=395).step_by(5) {
        story.in_vain(now, &[ts("m", "a", 45)]).await;
    }
    assert_eq!(story.at(396, &[ts("m", "b", 396)]).await, 503);
    assert_eq!(story.at(397, &[ts("m", "a", 45).at(60)]).await, 204);
    assert_eq!(story.stream("m{}"), "0 15 30 45 60");
}

/// But what upstream never takes, while it takes all else, would keep the others waiting for ever.
#[tokio::test]
async fn a_backlog_that_upstream_never_takes_counts_for_five_minutes() {
    let story = Story::of_a_minded_pair(&["m", "n"]).await;
    for now in (45..=395).step_by(5) {
        story.in_vain(now, &[ts("m", "a", 45)]).await;
        assert_eq!(story.at(now, &[ts("n", "a", now)]).await, 204);
        if now < 345 {
            assert_eq!(story.at(now, &[ts("m", "b", 396)]).await, 503, "{now}");
        }
    }
    assert_eq!(story.at(396, &[ts("m", "b", 396)]).await, 204);
}

/// A's flight has failed, and its request waits for another one of its own. Who had waited for that flight has to know
/// by then that A comes again, or the backlog would be overtaken in between.
#[tokio::test]
async fn who_waited_for_a_flight_that_failed_lets_its_samples_come_again() {
    let story = Story::of_a_minded_pair(&["m", "n"]).await;
    let comes = |now, series: Vec<Ts>| {
        let story = story.clone();
        tokio::spawn(async move { story.at(now, &series).await })
    };
    let gates = [story.fake.hold(Answer::Taken), story.fake.hold(unavailable())];
    let other = comes(60, vec![ts("n", "a", 45)]);
    gates[0].taken().await;
    let owner = comes(60, vec![ts("m", "a", 45), ts("n", "a", 45)]);
    gates[1].taken().await;
    let standby = comes(66, vec![ts("m", "b", 66)]);
    go_on().await;
    gates[1].open();
    assert_eq!(standby.await.unwrap(), 503);
    assert!(!owner.is_finished(), "it leans on the other flight");
    gates[0].open();
    assert_eq!((other.await.unwrap(), owner.await.unwrap()), (204, 503));
    assert_eq!(story.at(67, &[ts("m", "a", 45).at(60)]).await, 204);
    assert_eq!(story.stream("m{}"), "0 15 30 45 60");
}

/// With the first contact's hold off, conflicts are judged as the policy has it, and by no front.
#[tokio::test]
async fn where_backlogs_are_not_minded_a_first_conflict_is_one() {
    let story = Story::of_a_pair(&["m", "n"]).await;
    story.takes(&[ts("m", "a", 45)]).await;
    story.fake.next([conflict()]);
    assert_eq!(story.says(&[ts("n", "a", 45)]).await, 400);
}
