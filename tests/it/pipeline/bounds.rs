//! What is answered when a bound is reached, and that nothing is lost by it.

use super::ts;
use crate::support::{Ask, Ts, body, pipeline, sent};
use promdedup::forward::Answer;
use promdedup::pipeline::Reply;
use promdedup::series::NAME_BYTES_MAX;
use promdedup::window::GROUPS_MAX;
use promdedup::wire::labels::LabelBounds;
use std::sync::{Arc, Mutex};
use std::time::Duration;

/// The sender keeps what it could not be told about in time.
#[tokio::test]
async fn who_waits_too_long_for_a_flight_of_others_is_told_to_come_again() {
    let (pipeline, fake) = Ask::with(|wishes| wishes.busy_wait_max = Duration::from_millis(1));
    pipeline.ask(&[ts("m", "a", 0)]).await;
    let gate = fake.hold(Answer::Taken);
    let first = tokio::spawn(pipeline.clone().owned(vec![ts("m", "a", 15)]));
    gate.taken().await;
    let reply = pipeline.ask(&[ts("n", "a", 30), ts("m", "a", 30)]).await;
    assert_eq!((reply.status, reply.retry_after_s), (503, Some(1)));
    assert!(reply.text.starts_with("2 of 2 samples have to be sent again: series of the request are in"));
    gate.open();
    assert_eq!(first.await.unwrap().status, 204);
    assert_eq!(pipeline.ask(&[ts("n", "a", 30), ts("m", "a", 30)]).await.status, 204);
    assert_eq!(sent(&fake), ["m{} 0", "m{} 15", "n{} 30", "m{} 30"]);
    assert_eq!(pipeline.outcome("failed"), 2);
}

/// Or the first series of each batch would be refused for what is no part of it, each time anew.
#[tokio::test]
async fn a_batch_that_is_too_big_for_its_metadata_loses_no_sample() {
    let (pipeline, fake) = pipeline();
    fake.entries_max(2);
    let batch: Vec<_> = (0..4).map(|i| ts(&format!("m{i}"), "a", 0)).collect();
    assert_eq!(pipeline.raw(&body(&batch, 5)).await.status, 204);
    assert_eq!(fake.metadata_stored(), 5);
    assert_eq!((pipeline.outcome("forwarded"), pipeline.outcome("rejected")), (4, 0));
    // Each is remembered by itself.
    let requests = fake.requests();
    assert_eq!(pipeline.raw(&body(&[], 5)).await.status, 204);
    assert_eq!(fake.requests(), requests);
}

/// Bytes of metadata that upstream knows are counted once, however often it is taken apart: else what duplicates cost would be many times
/// what arrived.
#[tokio::test]
async fn what_upstream_knows_is_counted_once_and_does_not_go_apart() {
    let (pipeline, fake) = pipeline();
    assert_eq!(pipeline.raw(&body(&[ts("m0", "a", 0)], 14)).await.status, 204);
    fake.entries_max(1);
    let requests = fake.requests();
    assert_eq!(pipeline.raw(&body(&[ts("m0", "b", 1)], 16)).await.status, 204);
    assert_eq!((fake.requests() - requests, fake.metadata_stored()), (4, 16), "two of them, twice, and each");
    assert_eq!(pipeline.outcome("duplicate"), 1);
    let sum = |name: &str, labels: &[(&str, &str)]| pipeline.metric(name, labels);
    let duplicates = sum("promdedup_duplicate_bytes_total", &[("replica", "b")]);
    let arrived = sum("promdedup_body_bytes_total", &[("stage", "compressed_in")]);
    assert!(0 < duplicates && duplicates < arrived, "{duplicates} of {arrived}");
    // A batch with nothing but known metadata is halved at once.
    let requests = fake.requests();
    assert_eq!(pipeline.raw(&body(&[ts("m1", "a", 0), ts("m2", "a", 0)], 16)).await.status, 204);
    assert_eq!(fake.requests() - requests, 3, "both, and each");
}

#[tokio::test]
async fn metadata_that_is_too_big_goes_in_halves_and_what_is_too_big_by_itself_is_told() {
    let (pipeline, fake) = pipeline();
    fake.entries_max(1);
    assert_eq!(pipeline.raw(&body(&[], 3)).await.status, 204);
    assert_eq!(fake.metadata_stored(), 3);
    fake.entries_max(0);
    assert_eq!(pipeline.raw(&body(&[], 4)).await.status, 413);
}

/// Metadata goes apart, and fields that nobody knows with the first piece, once.
#[tokio::test]
async fn what_belongs_to_no_series_of_a_batch_that_is_split_goes_once() {
    let (pipeline, fake) = pipeline();
    fake.series_max(2);
    let batch: Vec<_> = (0..4).map(|i| ts(&format!("m{i}"), "a", 0)).collect();
    let unknown = [0x78, 1];
    assert_eq!(pipeline.raw(&[body(&batch, 3), unknown.to_vec()].concat()).await.status, 204);
    assert_eq!(fake.metadata_stored(), 3);
    let holders: Vec<_> = fake.bodies().iter().map(|body| body.ends_with(&unknown)).collect();
    assert_eq!(holders, [true, true, true, false, false], "what was too big twice, and the first half");
}

#[tokio::test]
async fn times_that_cannot_be_are_refused_and_those_at_the_limits_are_not() {
    let (pipeline, fake) = pipeline();
    // The clock stands at 3,600 s, and ten minutes ahead are taken.
    let Reply { status, text, .. } = pipeline.ask(&[ts("m", "a", 4_201)]).await;
    let said = "1 of 1 samples refused, the rest delivered: sample time 4201000 ms is 601000 ms in the future, \
                at most 600000 ms are taken";
    assert_eq!((status, text.as_str()), (400, said));
    let Reply { status, text, .. } = pipeline.ask(&[ts("m", "a", -(1 << 46))]).await;
    assert!(status == 400 && text.ends_with("ms is too far in the past to be meant"), "{text}");
    assert_eq!(pipeline.ask(&[ts("old", "a", -(1 << 46) / 1000), ts("m", "a", 4_200)]).await.status, 204);
    assert_eq!(sent(&fake), ["old{} -70368744177", "m{} 4200"]);
}

/// The good samples of a series go on without those that cannot be.
#[tokio::test]
async fn of_a_series_without_replica_only_what_can_be_is_forwarded() {
    let (pipeline, fake) = pipeline();
    let reply = pipeline.ask(&[Ts::new("single").at(15).at(1 << 30), ts("m", "a", 15)]).await;
    assert_eq!(reply.status, 400);
    assert_eq!(sent(&fake), ["single{} 15", "m{} 15"]);
    assert_eq!((pipeline.outcome("refused"), pipeline.outcome("forwarded")), (1, 2));
}

/// Beyond the bound of replicas nothing is deduplicated, and nothing is lost.
#[tokio::test]
async fn a_replica_too_many_passes_with_its_label() {
    let (pipeline, fake) = pipeline();
    let everybody: Vec<_> = (0..255).map(|i| ts("m", &format!("r{i}"), 15)).collect();
    assert_eq!(pipeline.ask(&everybody).await.status, 204);
    assert_eq!(pipeline.ask(&[ts("m", "more", 15)]).await.status, 204);
    assert_eq!(sent(&fake), ["m{} 15", "m{prometheus_replica=more} 15"]);
    assert_eq!(pipeline.pipeline.window().full(), 1);
}

/// Each of its `TimeSeries` is a series of its own then, so that none of them loses its label.
#[tokio::test]
async fn falling_times_that_find_no_room_leave_with_their_label() {
    let (pipeline, fake) = Ask::with(|wishes| wishes.series_max = 1);
    pipeline.ask(&[ts("m", "a", 0)]).await;
    pipeline.ask(&[ts("n", "a", 30), ts("m", "a", 15), ts("n", "a", 15)]).await;
    let full = "n{prometheus_replica=a}";
    let mut rest = sent(&fake).split_off(1);
    rest.sort();
    assert_eq!(rest, ["m{} 15".to_owned(), format!("{full} 15"), format!("{full} 30")]);
}

/// Judged once, at the birth of a series, in whatever form its labels came.
#[tokio::test]
async fn labels_beyond_their_bounds_are_refused_and_the_rest_is_delivered() {
    let bounds = LabelBounds { labels_max: 6, name_bytes_max: 18, value_bytes_max: 10 };
    let (pipeline, fake) = Ask::with(|wishes| wishes.label_bounds = bounds);
    // Five labels are everybody's: the name, the replica and three of the group and the target.
    let at_its_bounds = || ts("m", "a", 15).label(&"z".repeat(18), &"v".repeat(10));
    let many = ts("m", "a", 15).label("x", "1").label("y", "2");
    let name = ts("m", "a", 15).label(&"z".repeat(19), "v");
    let value = ts("m", "a", 15).label("x", &"v".repeat(11));
    let replica = ts("m", "a-replica-11", 15);
    for (i, (bad, said)) in [
        (many, "series has 7 labels, at most 6 are taken"),
        (name, "label name \"zzzzzzzzzzzzzzzzzzz\" has 19 bytes, at most 18 are taken"),
        (value, "value of label \"x\" has 11 bytes, at most 10 are taken"),
        (replica, "value of label \"prometheus_replica\" has 12 bytes, at most 10 are taken"),
    ]
    .into_iter()
    .enumerate()
    {
        let good = ts(&format!("m{i}"), "a", 15);
        let Reply { status, text, .. } = pipeline.ask(&[at_its_bounds(), bad, good]).await;
        let said = format!("1 of 3 samples refused, the rest delivered: series 2: {said}");
        assert_eq!((status, text), (400, said));
        assert!(sent(&fake).contains(&format!("m{i}{{}} 15")));
    }
    assert_eq!((pipeline.outcome("refused"), pipeline.outcome("forwarded")), (4, 5));
}

/// The defaults are beyond what anybody means.
#[tokio::test]
async fn many_and_long_labels_are_no_offence_by_default() {
    let (pipeline, fake) = pipeline();
    let mut series = ts("m", "a", 15).label(&"n".repeat(4096), "1").label("a", &"v".repeat(256 << 10));
    for i in 0..1024 - 7 {
        series = series.label(&format!("l{i}"), "v");
    }
    assert_eq!(pipeline.ask(&[series]).await.status, 204);
    assert_eq!(fake.requests(), 1);
}

/// Small series take many times the memory of their bodies, for as long as upstream takes.
#[tokio::test]
async fn what_many_small_series_take_is_bounded_and_told_to_come_again() {
    let (pipeline, fake) = Ask::with(|wishes| wishes.memory_max = Some(1 << 20));
    let many =
        |name: &str| (0..5_000).map(|i| Ts::raw(&[("__name__", &format!("{name}{i}"))]).at(0)).collect();
    let gate = fake.hold(Answer::Taken);
    let first = tokio::spawn(pipeline.clone().owned(many("a")));
    gate.taken().await;
    let second: Vec<Ts> = many("b");
    let reply = pipeline.ask(&second).await;
    assert_eq!((reply.status, reply.retry_after_s), (503, Some(1)));
    assert!(reply.text.contains("no memory for"), "{}", reply.text);
    assert_eq!(fake.requests(), 1, "nothing of it was sent");
    gate.open();
    assert_eq!(first.await.unwrap().status, 204);
    assert_eq!(pipeline.ask(&second).await.status, 204);
    assert_eq!((pipeline.outcome("failed"), pipeline.outcome("forwarded")), (5_000, 10_000));
    assert_eq!(pipeline.metric("promdedup_limit_hit_total", &[("limit", "decoded")]), 1);
}

/// As many labels as somebody can think of are no reason why others are not deduplicated.
#[tokio::test]
async fn a_tenant_that_makes_groups_up_leaves_others_theirs() {
    let (pipeline, fake) = Ask::with(|wishes| (wishes.series_max, wishes.body_bytes_max) = (10, 16 << 20));
    let of = |cluster: usize| Ts::raw(&[("__name__", "m"), ("cluster", &cluster.to_string())]).at(0);
    let made_up: Vec<_> = (0..GROUPS_MAX).map(|cluster| of(cluster).replica("a")).collect();
    for some in made_up.chunks(1 << 14) {
        assert_eq!(pipeline.tenant("flood", some).await.status, 204);
    }
    let hit = || pipeline.metric("promdedup_limit_hit_total", &[("limit", "groups")]);
    assert_eq!(hit(), GROUPS_MAX as u64 / 2, "what is beyond half of them passes with its replica label");
    for (replica, at) in [("a", 15), ("b", 15)] {
        let pair = [Ts::raw(&[("__name__", "of_others"), ("cluster", "real")]).replica(replica).at(at)];
        assert_eq!(pipeline.tenant("other", &pair).await.status, 204);
    }
    let of_others: Vec<_> = sent(&fake).into_iter().filter(|line| line.starts_with("of_others")).collect();
    assert_eq!((of_others.len(), hit()), (1, GROUPS_MAX as u64 / 2), "{of_others:?}");
}

/// A thread serves one after the other: without turns, a small one would be served when all large ones had been looked at.
#[tokio::test]
async fn a_small_request_waits_for_a_piece_of_a_large_one_and_not_for_all_large_ones() {
    let (pipeline, fake) = Ask::with(|wishes| wishes.body_bytes_max = 16 << 20);
    let ended: Arc<Mutex<Vec<&str>>> = Arc::default();
    let asks = |name: &'static str, series: Vec<Ts>| {
        let (ended, pipeline) = (Arc::clone(&ended), pipeline.clone());
        tokio::spawn(async move {
            assert_eq!(pipeline.owned(series).await.status, 204);
            ended.lock().unwrap().push(name);
        })
    };
    let large = |of: &str| {
        let many = (0..20_000).map(|i| Ts::raw(&[("__name__", "m"), (of, &format!("{i:060}"))]).at(0));
        many.collect::<Vec<_>>()
    };
    let mut asked = vec![asks("first large", large("one")), asks("second large", large("other"))];
    asked.push(asks("small", vec![ts("small", "a", 0)]));
    for asked in asked {
        asked.await.unwrap();
    }
    assert_eq!(*ended.lock().unwrap(), ["small", "first large", "second large"]);
    assert_eq!((fake.requests(), sent(&fake).len()), (3, 40_001));
}

/// Whichever of its steps it is at: when its series are told to the window, and when what goes upstream is written.
#[tokio::test]
async fn others_go_on_between_any_two_pieces_of_a_large_request() {
    let (pipeline, _) = Ask::with(|wishes| wishes.body_bytes_max = 16 << 20);
    let series = (0..20_000).map(|i| Ts::raw(&[("__name__", "m"), ("i", &format!("{i:060}"))]).at(0));
    let large = tokio::spawn(pipeline.owned(series.collect()));
    let mut turns = 0;
    while !large.is_finished() {
        turns += 1;
        tokio::task::yield_now().await;
    }
    assert_eq!(large.await.unwrap().status, 204);
    assert!(turns >= 20, "{turns} for 10 pieces");
}

/// Who waits for the upstream does not have the turn.
#[tokio::test]
async fn a_large_request_that_waits_for_upstream_holds_up_no_other_large_one() {
    let (pipeline, fake) = Ask::with(|wishes| wishes.body_bytes_max = 16 << 20);
    let large = |at: i64| {
        let many = (0..20_000).map(|i| Ts::raw(&[("__name__", "m"), ("i", &format!("{i:060}"))]).at(at));
        many.collect::<Vec<_>>()
    };
    let gate = fake.hold(Answer::Taken);
    let first = tokio::spawn(pipeline.clone().owned(large(0)));
    gate.taken().await;
    assert_eq!(pipeline.ask(&large(15)).await.status, 204);
    gate.open();
    assert_eq!(first.await.unwrap().status, 204);
    assert_eq!(sent(&fake).len(), 40_000);
}

/// An operator looks there for what a sender has lost: whose it was, and nothing of what was taken.
#[tokio::test]
async fn what_need_not_come_again_is_told_of() {
    for (observes, told) in [(false, vec![(400, "", ""), (400, "e2e/mon/k8s", "a")]), (true, vec![])] {
        let (pipeline, _) = Ask::with(|wishes| wishes.observes = observes);
        pipeline.ask(&[ts("m", "a", 0)]).await;
        pipeline.ask(&[ts("m", "a", 4_201)]).await;
        pipeline.packed(b"no body".to_vec()).await;
        pipeline.ask(&[ts("m", "b", 6)]).await;
        let told: Vec<_> = told.into_iter().map(|(code, g, r)| (code, g.to_owned(), r.to_owned())).collect();
        assert_eq!(pipeline.refused(), told, "observing: {observes}");
    }
}

/// Or whatever brings a target that nobody knows yet would end in a panic, where as many series as fit have a target each.
#[tokio::test]
async fn a_full_window_passes_series_of_new_targets() {
    let (pipeline, fake) = Ask::with(|wishes| (wishes.series_max, wishes.body_bytes_max) = (2_048, 16 << 20));
    let of = |instance: &str| {
        let labels =
            [("__name__", "m"), ("cluster", "e2e"), ("instance", instance), ("prometheus_replica", "a")];
        Ts::raw(&labels).at(15)
    };
    let all: Vec<_> = (0..2_048).map(|i| of(&format!("h{i:05}"))).collect();
    assert_eq!(pipeline.ask(&all).await.status, 204);
    assert_eq!(pipeline.pipeline.window().series(), 2_048);
    for tenant in ["", "another"] {
        assert_eq!(pipeline.tenant(tenant, &[of("new")]).await.status, 204);
    }
    assert_eq!(sent(&fake).len(), 2_050);
}

/// A clock that was not set when the owner delivered its only sample. What its standby shows would be held for ever, one sample in the
/// place of the other and at a time that nobody sent.
#[tokio::test]
async fn a_standby_takes_over_from_whoever_is_years_behind() {
    for days in [1, 60, 98, 120, 20_000] {
        let (pipeline, fake) = pipeline();
        let then = -86_400 * days;
        assert_eq!(pipeline.ask(&[ts("m", "a", then)]).await.status, 204);
        for t in [0, 15, 30] {
            assert_eq!(pipeline.ask(&[ts("m", "b", t)]).await.status, 204);
        }
        let expected = [format!("m{{}} {then}"), "m{} 0".into(), "m{} 15".into(), "m{} 30".into()];
        assert_eq!(sent(&fake), expected, "{days} days");
    }
}

/// Or a few MiB on the wire, of which nothing has to be deliverable, would be remembered as gigabytes for an hour.
#[tokio::test]
async fn long_names_of_groups_and_replicas_are_kept_short() {
    let (pipeline, fake) = Ask::with(|wishes| wishes.body_bytes_max = 16 << 20);
    let named = |cluster: &str, replica: &str| {
        Ts::raw(&[("__name__", "m"), ("cluster", cluster), ("prometheus_replica", replica)]).at(15)
    };
    let long = |end: &str| "x".repeat(200 << 10) + end;
    // The second replica of the first group brings what the first has brought.
    for (cluster, replica) in [("c1", "r1"), ("c1", "r2"), ("c2", "r1")] {
        assert_eq!(pipeline.ask(&[named(&long(cluster), &long(replica))]).await.status, 204);
    }
    assert_eq!(fake.requests(), 2);
    let groups = pipeline.pipeline.window().groups().all();
    assert_eq!(groups.iter().map(|group| group.replicas().len()).collect::<Vec<_>>(), [2, 1]);
    for group in groups {
        let replicas = group.replicas();
        let names = replicas.iter().map(|replica| replica.name()).chain([group.name()]);
        names.for_each(|name| assert!(name.len() <= NAME_BYTES_MAX && name.starts_with("xxx"), "{name}"));
    }
}
