//! The life of a request: real window and policy, an upstream that says what it is told to.

use crate::support::{Ask, STALE, Ts, body, pack, pipeline, sent};
use promdedup::forward::Answer;
use promdedup::pipeline::Reply;

mod backlogs;
mod bounds;
mod histograms;
mod late;
mod leaning;
mod likely;
mod observe;
mod targets;
mod two;

fn ts(name: &str, replica: &str, seconds: i64) -> Ts {
    Ts::new(name).replica(replica).at(seconds)
}

#[tokio::test]
async fn one_of_two_replicas_is_forwarded_without_its_label() {
    let (pipeline, fake) = pipeline();
    for i in 0..4 {
        for (replica, phase) in [("a", 0), ("b", 6)] {
            let reply = pipeline.ask(&[ts("m", replica, 15 * i + phase)]).await;
            assert_eq!((reply.status, reply.text.as_str()), (204, ""));
        }
    }
    assert_eq!(sent(&fake), ["m{} 0", "m{} 15", "m{} 30", "m{} 45"]);
    assert_eq!(
        pipeline.samples(),
        [("a", "forwarded", 4), ("b", "duplicate", 4)].map(|(r, o, n)| (r.into(), o.into(), n))
    );
}

#[tokio::test]
async fn a_death_leaves_no_hole() {
    let (pipeline, fake) = pipeline();
    for (replica, t) in [("a", 0), ("b", 5), ("a", 15), ("b", 20), ("b", 35), ("b", 50), ("b", 65)] {
        assert_eq!(pipeline.ask(&[ts("m", replica, t)]).await.status, 204);
    }
    // 20 and 35 were held when 50 takes over; 20 is too near to 15 to be missed.
    assert_eq!(sent(&fake), ["m{} 0", "m{} 15", "m{} 35 50", "m{} 65"]);
    assert_eq!(pipeline.metric("promdedup_takeovers_total", &[("reason", "silent")]), 1);
    assert_eq!(pipeline.metric("promdedup_samples_filled_total", &[]), 1);
    assert_eq!(pipeline.metric("promdedup_target_moves_total", &[]), 1);
}

#[tokio::test]
async fn nothing_is_committed_that_upstream_did_not_take() {
    let answers = [
        Answer::Unavailable { status: 503, text: "busy".into() },
        Answer::Unavailable { status: 429, text: "limit".into() },
        Answer::Unavailable { status: 404, text: "nowhere".into() },
        Answer::NoAnswer { error: "timed out".into() },
    ];
    let (pipeline, fake) = pipeline();
    pipeline.ask(&[ts("m", "a", 0)]).await;
    for answer in answers {
        fake.next([answer]);
        let reply = pipeline.ask(&[ts("m", "a", 15)]).await;
        assert_eq!((reply.status, reply.retry_after_s), (503, Some(1)), "{reply:?}");
    }
    assert_eq!(pipeline.ask(&[ts("m", "a", 15)]).await.status, 204);
    assert_eq!(sent(&fake), ["m{} 0", "m{} 15", "m{} 15", "m{} 15", "m{} 15", "m{} 15"]);
    assert_eq!(pipeline.outcome("failed"), 4);
    assert_eq!(pipeline.outcome("forwarded"), 2);
}

#[tokio::test]
async fn what_upstream_refuses_for_good_is_not_sent_again() {
    let (pipeline, fake) = pipeline();
    pipeline.ask(&[ts("m", "a", 0)]).await;
    for (t, answer) in [
        (15, Answer::Conflict { text: "add 1 samples: out of order sample".into() }),
        (30, Answer::Refused { status: 400, text: "no".into() }),
        (45, Answer::Refused { status: 422, text: "no".into() }),
    ] {
        fake.next([answer]);
        let reply = pipeline.ask(&[ts("m", "a", t)]).await;
        assert_eq!((reply.status, reply.retry_after_s), (400, None), "{reply:?}");
        assert_eq!(pipeline.ask(&[ts("m", "a", t)]).await.status, 204, "a duplicate now");
    }
    assert_eq!(sent(&fake).len(), 4);
    assert_eq!(pipeline.outcome("rejected"), 3);
}

#[tokio::test]
async fn a_conflict_is_benign_where_it_must_be() {
    let conflict = || Answer::Conflict { text: "add 1 samples: out of order sample".into() };
    let exemplars = || Answer::Conflict { text: "add 3 exemplars: out of order exemplar".into() };
    let (pipeline, fake) = pipeline();
    let benign = |reason| pipeline.metric("promdedup_benign_conflicts_total", &[("reason", reason)]);

    fake.next([conflict()]);
    assert_eq!(pipeline.ask(&[ts("m", "a", 0)]).await.status, 204);
    assert_eq!(benign("first_contact"), 1);

    fake.next([exemplars()]);
    assert_eq!(pipeline.ask(&[ts("m", "a", 15)]).await.status, 204);
    assert_eq!(benign("exemplars"), 1);

    fake.next([conflict()]);
    assert_eq!(pipeline.retry(&[ts("m", "a", 30)], 1).await.status, 204);
    assert_eq!(benign("retry"), 1);

    fake.next([Answer::NoAnswer { error: "reset".into() }, conflict()]);
    assert_eq!(pipeline.ask(&[ts("m", "a", 45)]).await.status, 503);
    assert_eq!(pipeline.ask(&[ts("m", "a", 45)]).await.status, 204, "an old sender sends no Retry-Attempt");
    assert_eq!(benign("retry"), 2);

    fake.next([conflict()]);
    assert_eq!(pipeline.ask(&[ts("m", "b", 100)]).await.status, 204);
    assert_eq!(benign("takeover"), 1);

    fake.next([conflict()]);
    assert_eq!(pipeline.ask(&[ts("m", "b", 115)]).await.status, 400);
    assert_eq!(pipeline.outcome("rejected"), 1);

    fake.next([Answer::NotSent { error: "connection refused".into() }, conflict()]);
    assert_eq!(pipeline.ask(&[ts("m", "b", 130)]).await.status, 503);
    assert_eq!(pipeline.ask(&[ts("m", "b", 130)]).await.status, 400, "upstream cannot have it");
    assert_eq!(pipeline.outcome("rejected"), 2);

    for t in [3570, 3585] {
        assert_eq!(pipeline.ask(&[ts("n", "b", t)]).await.status, 204);
    }
    fake.next([conflict()]);
    assert_eq!(pipeline.ask(&[ts("n", "b", 3600)]).await.status, 400, "new, but there is no other instance");
}

#[tokio::test]
async fn a_batch_that_is_too_big_is_sent_in_pieces() {
    let (pipeline, fake) = pipeline();
    fake.series_max(2);
    let batch: Vec<_> = (0..7).map(|i| ts(&format!("m{i}"), "a", 0)).collect();
    let reply = pipeline.ask(&batch).await;
    assert_eq!(reply.status, 204, "{reply:?}");
    let mut stored = fake.stored();
    stored.sort();
    assert_eq!(stored, (0..7).map(|i| format!("m{i}{{}} 0")).collect::<Vec<_>>());
    assert_eq!(pipeline.outcome("forwarded"), 7);

    fake.series_max(0);
    let reply = pipeline.ask(&[ts("m0", "a", 15), ts("m1", "a", 15)]).await;
    assert_eq!(reply.status, 413, "{reply:?}");
    assert_eq!(pipeline.outcome("rejected"), 2);
}

#[tokio::test]
async fn a_request_of_duplicates_makes_no_upstream_request() {
    let (pipeline, fake) = pipeline();
    pipeline.ask(&[ts("m", "a", 0)]).await;
    pipeline.ask(&[ts("m", "a", 15)]).await;
    assert_eq!(pipeline.ask(&[ts("m", "b", 6)]).await.status, 204);
    assert_eq!(pipeline.ask(&[ts("m", "a", 15)]).await.status, 204);
    assert_eq!(fake.requests(), 2);
}

#[tokio::test]
async fn a_duplicate_waits_for_the_flight_it_leans_on() {
    for (answer, status, outcome) in [
        (Answer::Taken, 204, "duplicate"),
        (Answer::Unavailable { status: 503, text: String::new() }, 503, "failed"),
    ] {
        let (pipeline, fake) = pipeline();
        pipeline.ask(&[ts("m", "a", 0)]).await;
        pipeline.ask(&[ts("m", "a", 15)]).await;
        let gate = fake.hold(answer);
        let owner = tokio::spawn(pipeline.clone().owned(vec![ts("m", "a", 30)]));
        gate.taken().await;
        let standby = tokio::spawn(pipeline.clone().owned(vec![ts("m", "b", 21)]));
        tokio::task::yield_now().await;
        assert!(!standby.is_finished(), "answered on the strength of a reservation");
        gate.open();
        assert_eq!(owner.await.unwrap().status, status);
        assert_eq!(standby.await.unwrap().status, status);
        assert!(pipeline.samples().iter().any(|(r, o, n)| (r.as_str(), o.as_str(), *n) == ("b", outcome, 1)));
    }
}

#[tokio::test]
async fn a_series_is_in_one_flight_at_a_time() {
    let (pipeline, fake) = pipeline();
    pipeline.ask(&[ts("m", "a", 0)]).await;
    let gate = fake.hold(Answer::Taken);
    let first = tokio::spawn(pipeline.clone().owned(vec![ts("m", "a", 15)]));
    gate.taken().await;
    let second = tokio::spawn(pipeline.clone().owned(vec![ts("n", "a", 30), ts("m", "a", 30)]));
    for _ in 0..10 {
        tokio::task::yield_now().await;
    }
    assert_eq!(fake.requests(), 2, "the second flight waits");
    gate.open();
    assert_eq!(first.await.unwrap().status, 204);
    assert_eq!(second.await.unwrap().status, 204);
    assert_eq!(sent(&fake), ["m{} 0", "m{} 15", "n{} 30", "m{} 30"]);
}

#[tokio::test]
async fn the_valid_rest_of_a_request_is_delivered() {
    let (pipeline, fake) = pipeline();
    let bad = [
        ts("ok", "a", 0),
        ts("", "a", 0),
        ts("twice", "a", 0).label("x", "1").label("x", "2"),
        ts("future", "a", 4_000_000_000),
        ts("also", "a", 0),
    ];
    let Reply { status, text, .. } = pipeline.ask(&bad).await;
    assert_eq!(status, 400);
    assert!(text.starts_with("3 of 5 samples refused"), "{text}");
    assert_eq!(sent(&fake), ["ok{} 0", "also{} 0"]);
    assert_eq!((pipeline.outcome("refused"), pipeline.outcome("forwarded")), (3, 2));
}

#[tokio::test]
async fn labels_are_sorted_and_empty_ones_dropped() {
    let (pipeline, fake) = pipeline();
    let odd =
        [("z", "1"), ("prometheus_replica", "a"), ("prometheus", "mon/k8s"), ("__name__", "m"), ("gone", "")];
    let odd = Ts::raw(&odd).label("job", "j").label("cluster", "e2e").at(0);
    assert_eq!(pipeline.ask(&[odd]).await.status, 204);
    let plain = ts("m", "b", 6).label("z", "1");
    assert_eq!(pipeline.ask(&[plain]).await.status, 204);
    assert_eq!(sent(&fake), ["m{z=1} 0"]);
    assert_eq!(fake.label_names(), ["__name__", "cluster", "job", "prometheus", "z"]);
}

#[tokio::test]
async fn a_series_without_replica_passes_untouched() {
    let (pipeline, fake) = pipeline();
    for t in [0, 0, 5] {
        assert_eq!(pipeline.ask(&[Ts::new("m").at(t)]).await.status, 204);
    }
    assert_eq!(sent(&fake), ["m{} 0", "m{} 0", "m{} 5"]);
    assert_eq!(pipeline.samples(), [(String::new(), "forwarded".into(), 3)]);
    assert_eq!(pipeline.pipeline.window().full(), 0, "it is kept out of nothing");
}

/// The same labels without the replica's are another sender's, who is not deduplicated.
#[tokio::test]
async fn a_series_without_replica_is_not_the_replicas_series() {
    let (pipeline, fake) = pipeline();
    for t in [0, 15] {
        pipeline.ask(&[ts("m", "a", t)]).await;
    }
    assert_eq!(pipeline.ask(&[Ts::new("m").at(5)]).await.status, 204);
    assert_eq!(sent(&fake), ["m{} 0", "m{} 15", "m{} 5"]);
}

/// Identity is a matter of each series: what a federating sender collects is of several groups and replicas.
#[tokio::test]
async fn a_request_may_mix_groups_and_replicas() {
    let (pipeline, fake) = pipeline();
    let other = |replica, t| {
        Ts::raw(&[("__name__", "m"), ("cluster", "other"), ("job", "j"), ("prometheus", "mon/k8s")])
            .replica(replica)
            .at(t)
    };
    // `a` is the first replica of one group and the second of the other.
    for request in [
        [ts("m", "a", 0), other("b", 0), other("a", 1), ts("m", "b", 1)],
        [ts("m", "a", 15), other("a", 16), other("b", 15), ts("m", "b", 16)],
        [ts("m", "b", 31), ts("m", "a", 30), other("b", 30), other("a", 31)],
    ] {
        assert_eq!(pipeline.ask(&request).await.status, 204);
    }
    let times = [0, 0, 15, 15, 30, 30].map(|t| format!("m{{}} {t}"));
    assert_eq!(sent(&fake), times);
    assert_eq!(pipeline.metric("promdedup_takeovers_total", &[]), 0);
}

/// The share of the network that sending twice costs; what brings anything of use is not in it.
#[tokio::test]
async fn bytes_of_duplicates_are_those_of_series_that_bring_nothing_else() {
    let (pipeline, fake) = pipeline();
    pipeline.raw(&body(&[ts("m", "a", 0), ts("n", "a", 0)], 3)).await;
    let bytes = || pipeline.metric("promdedup_duplicate_bytes_total", &[]);
    let exemplar = |replica, t| ts("m", replica, t).no_sample().exemplar();
    pipeline.ask(&[ts("m", "a", 0).at(15), exemplar("a", 15)]).await;
    assert_eq!(bytes(), 0);
    // Nothing of it is of use: all of it counts, exemplars and metadata included.
    let packed = pack(&body(&[ts("m", "b", 6), exemplar("b", 6), ts("n", "b", 6)], 3));
    let (length, requests) = (packed.len() as u64, fake.requests());
    assert_eq!(pipeline.packed(packed).await.status, 204);
    assert_eq!((bytes(), fake.requests()), (length, requests));
    // Of several series those count that are of none. Of the other target `b` is the owner.
    let other = |t| {
        let labels = [("__name__", "m"), ("cluster", "e2e"), ("job", "other"), ("prometheus", "mon/k8s")];
        Ts::raw(&labels).replica("b").at(t)
    };
    for (duplicates, others) in [
        (vec![ts("m", "b", 21), exemplar("b", 21)], vec![other(21)]),
        (vec![exemplar("b", 36)], vec![other(36)]),
        (vec![ts("n", "a", 0)], vec![ts("m", "a", 30), exemplar("a", 30)]),
    ] {
        let before = bytes();
        let whole = body(&[duplicates.clone(), others].concat(), 0);
        let packed = pack(&whole);
        let expected = body(&duplicates, 0).len() * packed.len() / whole.len();
        assert_eq!(pipeline.packed(packed).await.status, 204);
        assert_eq!(bytes() - before, expected as u64);
    }
}

#[tokio::test]
async fn a_full_window_lets_newcomers_pass_with_their_label() {
    let (pipeline, fake) = Ask::with(|settings| settings.series_max = 1);
    pipeline.ask(&[ts("m", "a", 0)]).await;
    pipeline.ask(&[ts("n", "a", 0), ts("m", "a", 15)]).await;
    assert_eq!(sent(&fake), ["m{} 0", "n{prometheus_replica=a} 0", "m{} 15"]);
    assert_eq!(pipeline.pipeline.window().full(), 1);
    assert_eq!(pipeline.metric("promdedup_limit_hit_total", &[("limit", "series")]), 1);
}

/// Or upstream would be told of a series that it does not have.
#[tokio::test]
async fn exemplars_leave_with_the_labels_of_their_series_whether_it_finds_room_or_not() {
    let (pipeline, fake) = Ask::with(|settings| settings.series_max = 1);
    let alone = |name, replica| ts(name, replica, 0).no_sample().exemplar();
    // The last place is taken in the request that has the exemplar, too.
    pipeline.ask(&[ts("m", "a", 0), alone("m", "a")]).await;
    assert_eq!(sent(&fake), ["m{} 0", "m{} e"]);
    for replica in ["a", "b"] {
        let before = sent(&fake).len();
        pipeline.ask(&[ts("n", replica, 15), alone("n", replica), alone("m", replica)]).await;
        let full = format!("n{{prometheus_replica={replica}}}");
        let mut expected = vec![format!("{full} 15"), format!("{full} e")];
        expected.extend((replica == "a").then(|| "m{} e".to_owned()));
        assert_eq!(sent(&fake)[before..], expected);
    }
}

/// Whatever of it was in conflict.
#[tokio::test]
async fn a_benign_conflict_counts_for_its_group() {
    let (pipeline, fake) = pipeline();
    pipeline.ask(&[ts("m", "a", 0)]).await;
    let other = || Ts::raw(&[("__name__", "x"), ("cluster", "other")]);
    for (nth, series) in [other().at(15), other().exemplar()].into_iter().enumerate() {
        fake.next([Answer::Conflict { text: "add 1 samples: out of order sample".into() }]);
        assert_eq!(pipeline.retry(&[series], 1).await.status, 204);
        let labels = [("reason", "retry"), ("group", "other")];
        assert_eq!(pipeline.metric("promdedup_benign_conflicts_total", &labels), 1 + nth as u64);
    }
}

#[tokio::test]
async fn times_that_fall_inside_a_request_leave_in_order() {
    let (pipeline, fake) = pipeline();
    pipeline.ask(&[ts("m", "a", 0), ts("m", "a", 30), ts("n", "a", 7), ts("m", "a", 15)]).await;
    assert_eq!(sent(&fake), ["m{} 0 15 30", "n{} 7"]);
    pipeline.ask(&[Ts::new("m").replica("a").at(60).at(45), ts("n", "a", 22)]).await;
    assert_eq!(sent(&fake)[2..], ["n{} 22", "m{} 45 60"]);
    // Exemplars go with their samples, also those of a second item of the series.
    pipeline.ask(&[ts("m", "a", 90).exemplar(), ts("m", "a", 75).exemplar(), ts("n", "a", 37)]).await;
    assert_eq!(sent(&fake)[4..], ["n{} 37", "m{} 75 90 e", "m{} e"]);
    // A standby's are decided in order, too: 110 is held by the time that 125 takes over.
    pipeline.ask(&[ts("m", "b", 125), ts("m", "b", 110), ts("m", "b", 95)]).await;
    pipeline.ask(&[ts("m", "b", 155), ts("m", "b", 140)]).await;
    assert_eq!(sent(&fake)[7..], ["m{} 110 125", "m{} 140 155"]);
    pipeline.ask(&[ts("m", "b", 185).exemplar(), ts("m", "b", 170)]).await;
    assert_eq!(sent(&fake)[9..], ["m{} 170 185", "m{} e"]);
}

#[tokio::test]
async fn a_stale_marker_stays_home_while_the_standby_lives() {
    let (pipeline, fake) = pipeline();
    for (replica, t) in [("a", 0), ("b", 5), ("a", 15), ("b", 20)] {
        pipeline.ask(&[ts("m", replica, t)]).await;
    }
    let marker = Ts::new("m").replica("a").bits_at(STALE, 30);
    assert_eq!(pipeline.ask(&[marker]).await.status, 204);
    pipeline.ask(&[ts("m", "b", 35)]).await;
    pipeline.ask(&[Ts::new("m").replica("b").bits_at(STALE, 50)]).await;
    assert_eq!(sent(&fake), ["m{} 0", "m{} 15", "m{} 20 35", "m{} 50!"]);
}

#[tokio::test]
async fn exemplars_follow_their_owner() {
    let (pipeline, fake) = pipeline();
    pipeline.ask(&[ts("m", "a", 0), ts("m", "a", 0).no_sample().exemplar()]).await;
    pipeline.ask(&[ts("m", "b", 6), ts("m", "b", 6).no_sample().exemplar()]).await;
    pipeline.ask(&[ts("new", "b", 6).no_sample().exemplar()]).await;
    pipeline.ask(&[ts("new", "a", 6).no_sample().exemplar()]).await;
    assert_eq!(sent(&fake), ["m{} 0", "m{} e", "new{} e"]);
    assert_eq!(fake.requests(), 2);
}

#[tokio::test]
async fn metadata_goes_once_and_only_when_taken() {
    let (pipeline, fake) = pipeline();
    fake.next([Answer::Unavailable { status: 503, text: String::new() }]);
    assert_eq!(pipeline.raw(&body(&[], 3)).await.status, 503);
    assert_eq!(pipeline.raw(&body(&[], 3)).await.status, 204);
    assert_eq!(pipeline.raw(&body(&[], 3)).await.status, 204);
    assert_eq!(pipeline.raw(&body(&[], 4)).await.status, 204);
    assert_eq!(fake.requests(), 3);
}

/// Upstream is sent each once, in the order in which they came.
#[tokio::test]
async fn metadata_that_is_in_a_request_twice_goes_once() {
    let (pipeline, fake) = pipeline();
    let both = [body(&[], 3), body(&[], 5), body(&[], 3)].concat();
    fake.next([Answer::Unavailable { status: 503, text: String::new() }]);
    assert_eq!(pipeline.raw(&both).await.status, 503);
    assert_eq!(fake.metadata().len(), 5);
    assert_eq!(pipeline.raw(&both).await.status, 204);
    assert_eq!(fake.metadata().len(), 10);
    assert_eq!(pipeline.raw(&both).await.status, 204);
    assert_eq!(fake.metadata().len(), 10);
}

#[tokio::test]
async fn a_malformed_body_is_refused_with_its_place() {
    let (pipeline, fake) = pipeline();
    let good = body(&[ts("m", "a", 0)], 0);
    let mut cut = good.clone();
    cut.truncate(good.len() - 3);
    let reply = pipeline.raw(&cut).await;
    assert_eq!(reply.status, 400);
    assert!(reply.text.contains("at byte 1: length"), "{}", reply.text);
    let mut broken = body(&[ts("m", "a", 0), ts("n", "a", 0)], 0);
    let at = broken.len() - 2;
    broken[at] = 0x0b;
    let reply = pipeline.raw(&broken).await;
    assert!(reply.status == 400 && reply.text.contains("in series 2"), "{}", reply.text);
    assert_eq!(pipeline.packed(b"not snappy at all".to_vec()).await.status, 400);
    // A claim of 4 GiB, and one above the bound that is no lie.
    assert_eq!(pipeline.packed(vec![0xff, 0xff, 0xff, 0xff, 0x0f]).await.status, 413);
    assert_eq!(pipeline.raw(&vec![0; 2 << 20]).await.status, 413);
    // Two bytes a series: a record of ours is many times as large.
    let reply = pipeline.raw(&[0x0a, 0].repeat(300_000)).await;
    assert_eq!((reply.status, reply.text.as_str()), (413, "request has more than 262144 series"));
    assert_eq!(fake.requests(), 0);
    assert_eq!(pipeline.samples(), []);
}

#[tokio::test]
async fn a_panic_upstream_leaves_no_reservation() {
    let (pipeline, fake) = pipeline();
    pipeline.ask(&[ts("m", "a", 0)]).await;
    fake.panic_once();
    let lost = tokio::spawn(pipeline.clone().owned(vec![ts("m", "a", 15)])).await;
    assert!(lost.unwrap_err().is_panic());
    assert_eq!(pipeline.ask(&[ts("m", "a", 15)]).await.status, 204);
    assert_eq!(sent(&fake), ["m{} 0", "m{} 15"]);
}

#[tokio::test]
async fn tenants_share_nothing() {
    let (pipeline, fake) = pipeline();
    pipeline.ask(&[ts("m", "a", 0)]).await;
    let reply = pipeline.tenant("other", &[ts("m", "b", 0)]).await;
    assert_eq!(reply.status, 204);
    assert_eq!(sent(&fake), ["m{} 0", "m{} 0"]);
    assert_eq!(fake.tenants(), [None, Some("other".to_owned())]);
}

#[tokio::test]
async fn the_sum_over_outcomes_is_what_was_received() {
    let (pipeline, fake) = pipeline();
    for t in 0..40 {
        if t % 7 == 3 {
            fake.next([Answer::Unavailable { status: 500, text: String::new() }]);
        }
        if t % 11 == 5 {
            fake.next([Answer::Conflict { text: "add 1 samples: out of order sample".into() }]);
        }
        let replica = if t % 2 == 0 { "a" } else { "b" };
        let batch: Vec<_> = (0..5).map(|i| ts(&format!("m{i}"), replica, t * 7)).collect();
        pipeline.ask(&batch).await;
        pipeline.ask(&[ts("", replica, t), ts("far", replica, 1 << 40)]).await;
    }
    let outcomes: u64 = pipeline.samples().iter().map(|(_, _, n)| n).sum();
    assert_eq!(outcomes, pipeline.metric("promdedup_samples_received_total", &[]));
    assert_eq!(outcomes, 40 * 7);
}
