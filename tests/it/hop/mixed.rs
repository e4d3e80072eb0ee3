//! A request that falls apart: each part is served where its groups are, and one answer is given.

use super::instances::{Board, Instance, ONE, TWO, Wishes, decoded, names, of, sample};
use crate::support::{body, pack, two};
use promdedup::proto::v2;
use promdedup::series::{GroupKey, TenantHash};
use prost::Message;
use std::sync::Arc;

async fn three() -> (Arc<Board>, [Instance; 3]) {
    let board: Arc<Board> = Arc::default();
    for (cluster, name) in [("c1", "one"), ("c2", "two"), ("c3", "three")] {
        board.gives(cluster, name);
    }
    let all = [
        Instance::start(&board, "one").await,
        Instance::start(&board, "two").await,
        Instance::start(&board, "three").await,
    ];
    (board, all)
}

/// A series of each instance, now and then one of the other.
fn of_all(second: i64) -> Vec<crate::support::Ts> {
    ["c1", "c2", "c3", "c2", "c1"]
        .iter()
        .enumerate()
        .map(|(i, cluster)| sample(cluster, &format!("{cluster}_{i}"), "a", second))
        .collect()
}

#[tokio::test]
async fn each_part_is_served_by_its_owner() {
    let (_, [one, two, three]) = three().await;
    for second in [0, 15] {
        let heard = one.post(ONE, &pack(&body(&of_all(second), 2))).await;
        assert_eq!((heard.status, heard.text.as_str()), (204, ""));
    }
    assert_eq!(one.got(), names(&[("c1_0", 1), ("c1_0", 1), ("c1_4", 1), ("c1_4", 1)]));
    assert_eq!(two.got(), names(&[("c2_1", 1), ("c2_1", 1), ("c2_3", 1), ("c2_3", 1)]));
    assert_eq!(three.got(), names(&[("c3_2", 1), ("c3_2", 1)]));
    assert_eq!([one.accounts().await, two.accounts().await, three.accounts().await], [4, 4, 2]);
    assert_eq!([one.groups(), two.groups(), three.groups()], [["c1"], ["c2"], ["c3"]]);
    let metadata = |of: &Instance| {
        of.upstream.requests().iter().map(|(_, body)| decoded(body).metadata.len()).collect::<Vec<_>>()
    };
    assert_eq!([metadata(&one), metadata(&two)], [[2, 0], [0, 0]], "with our own part");
    let in_bytes = one.count("promdedup_body_bytes_total", &["stage=\"compressed_in\""]).await;
    let whole = 2 * pack(&body(&of_all(15), 2)).len() as u64;
    assert!(in_bytes > 0 && in_bytes < whole, "only the own part is counted: {in_bytes} of {whole}");
    // Nothing is ours: metadata goes with the first part.
    let heard =
        three.post(ONE, &pack(&body(&[sample("c2", "m2", "a", 0), sample("c1", "m1", "a", 0)], 3))).await;
    assert_eq!(heard.status, 204);
    assert_eq!(metadata(&two).last(), Some(&3));
    assert_eq!(three.accounts().await, 2);
}

/// What is known to the window is found by its entry, and not by its labels.
#[tokio::test]
async fn known_and_unknown_series_take_the_same_way() {
    let (_, [one, two, _three]) = three().await;
    for second in [0, 15, 30] {
        let mut series = of_all(second);
        series.push(sample("c1", &format!("c1_new_{second}"), "a", second));
        series.push(sample("c2", &format!("c2_new_{second}"), "a", second));
        let heard = one.ask(&series).await;
        assert_eq!((heard.status, heard.text.as_str()), (204, ""));
    }
    assert_eq!((one.got().len(), two.got().len()), (9, 9));
    assert_eq!(one.groups(), ["c1"]);
}

#[tokio::test]
async fn counts_of_2_0_add_up() {
    let (_, [one, second, third]) = three().await;
    let mut series = of_all(0);
    series[1] = of("c2", "h").replica("a").histogram_at(0).exemplar();
    let mut request = two(&series);
    let help = crate::support::refer(&mut request.symbols, "what it is");
    for ts in &mut request.timeseries {
        ts.metadata = Some(v2::Metadata { r#type: 1, help_ref: help, unit_ref: 0 });
    }
    let packed = pack(&request.encode_to_vec());
    let heard = one.post(TWO, &packed).await;
    assert_eq!(heard.status, 204, "{heard:?}");
    let written = |heard: &crate::peer::Heard, counts: [u64; 3]| {
        for (what, count) in ["samples", "histograms", "exemplars"].iter().zip(counts) {
            assert!(heard.has(&format!("x-prometheus-remote-write-{what}-written: {count}")), "{heard:?}");
        }
    };
    written(&heard, [4, 1, 1]);
    assert_eq!(second.got(), names(&[("c2_3", 1), ("h", 1)]));
    // All are duplicates now, but for the one whose upstream is away.
    third.upstream.answers(503, "away");
    let mut later = of_all(0);
    later[2] = sample("c3", "c3_2", "a", 15);
    let heard = one.post(TWO, &pack(&two(&later).encode_to_vec())).await;
    assert_eq!((heard.status, heard.has("retry-after: 1")), (503, true), "{heard:?}");
    written(&heard, [0, 0, 0]);
    for instance in [&one, &second, &third] {
        instance.accounts().await;
    }
}

/// Where labels end is known of the whole body: read by that, a part of it would lose samples of known series.
#[tokio::test]
async fn a_part_of_2_0_has_all_samples_of_its_series() {
    let board: Arc<Board> = Arc::default();
    board.gives("c1", "one");
    board.gives("c2", "two");
    let more = &[("PROMDEDUP_UPSTREAM_PROTOCOL", "2.0")];
    let instance = async |name| Instance::with(&board, name, Wishes { more, ..Wishes::default() }).await;
    let [one, other] = [instance("one").await, instance("two").await];
    [&one, &other].iter().for_each(|instance| instance.upstream.says_what_it_has_written());
    let now = promdedup::stand_in::now_ms() / 1000;
    let own = |second| [sample("c1", "m1", "a", second), sample("c1", "m2", "a", second)];
    let [first, second] = own(now - 30);
    let mixed = [sample("c2", "m0", "a", now - 30), first, second.at(now - 15).at(now)];
    for series in [&own(now - 60)[..], &own(now - 45), &mixed] {
        let mut request = two(series);
        // As an older Prometheus sends them.
        let samples = request.timeseries.iter_mut().flat_map(|ts| &mut ts.samples);
        samples.for_each(|sample| sample.start_timestamp = 0);
        let heard = one.post(TWO, &pack(&request.encode_to_vec())).await;
        assert_eq!(heard.status, 204, "{heard:?}");
    }
    assert_eq!([one.accounts().await, other.accounts().await], [8, 1]);
}

/// The worst answer of a part is that of the whole, and the other parts are delivered.
#[tokio::test]
async fn the_worst_answer_wins() {
    let (_, [one, two, three]) = three().await;
    // While nobody knows whose the group is, its invalid series is refused here, and later where the others are.
    for (second, refused) in [(0, "1 of 3"), (7, "1 of 2")] {
        let mut series = of_all(second);
        series[1] = sample("c2", "", "a", second).label("no", "name");
        let heard = one.ask(&series).await;
        assert_eq!(heard.status, 400, "{heard:?}");
        assert!(heard.text.contains(&format!("{refused} samples refused, the rest delivered")), "{heard:?}");
    }
    assert_eq!((one.got().len(), two.got().len(), three.got().len()), (4, 2, 2));
    three.upstream.answers(413, "too big");
    let mut series = of_all(15);
    series[1] = sample("c2", "", "a", 15).label("no", "name");
    let heard = one.ask(&series).await;
    assert_eq!((heard.status, heard.text.contains("too big")), (413, true), "{heard:?}");
    one.upstream.answers(500, "away");
    let mut series = of_all(30);
    series[1] = sample("c2", "", "a", 30).label("no", "name");
    let heard = one.ask(&series).await;
    assert_eq!((heard.status, heard.text.contains("away")), (503, true), "{heard:?}");
    for instance in [&one, &two, &three] {
        instance.accounts().await;
    }
}

/// Labels that no series may have are refused where they arrive, and nobody is asked for their group.
#[tokio::test]
async fn invalid_labels_are_refused_here() {
    let (board, [one, two, _]) = three().await;
    assert_eq!(one.ask(&[sample("c2", "m", "a", 0)]).await.status, 204);
    let asked = board.asked();
    let twice = sample("c2", "m", "a", 15).label("cluster", "c1");
    let nameless = sample("c9", "", "a", 15);
    let heard = one.ask(&[sample("c2", "m", "a", 15), twice, nameless]).await;
    assert_eq!(heard.status, 400, "{heard:?}");
    assert!(heard.text.contains("2 of 2 samples refused"), "{heard:?}");
    assert_eq!((two.got().len(), board.owner("c9"), board.asked()), (2, None, asked));
    assert_eq!((one.accounts().await, two.accounts().await), (2, 2));
    assert_eq!(one.groups(), Vec::<String>::new());
}

#[tokio::test]
async fn what_moves_comes_again_and_the_rest_is_served() {
    let (board, [one, two, three]) = three().await;
    board.moves("c2", true);
    let heard = one.ask(&of_all(0)).await;
    assert_eq!(heard.status, 503);
    assert!(heard.text.contains("moving"), "{heard:?}");
    assert_eq!((one.got().len(), two.got().len(), three.got().len()), (2, 0, 1));
    board.moves("c2", false);
    assert_eq!(one.ask(&of_all(0)).await.status, 204);
    assert_eq!((one.got().len(), two.got().len(), three.got().len()), (2, 2, 1));
    assert_eq!(one.count("promdedup_samples_total", &["outcome=\"duplicate\""]).await, 2);
}

/// Or whoever is asked to send again for what moves would keep the rest, too, for as long as that takes.
#[tokio::test]
async fn what_moves_does_not_keep_back_what_is_anothers() {
    let (board, [one, two, _]) = three().await;
    board.moves("c3", true);
    let heard = one.ask(&[sample("c2", "m", "a", 0), sample("c3", "n", "a", 0)]).await;
    assert_eq!(heard.status, 503);
    assert_eq!(two.got(), names(&[("m", 1)]));
}

/// Groups that have no value in common are as different as those that have one.
#[tokio::test]
async fn groups_that_differ_in_all_their_labels_are_told_apart() {
    let (board, [one, two, three]) = three().await;
    let groups = [("x1", "p1", "two"), ("x2", "p2", "three")];
    for (cluster, prometheus, owner) in groups {
        let values = [cluster.as_bytes(), prometheus.as_bytes()].into_iter();
        board.gives_key(GroupKey::of(values, TenantHash::of(""), &mut Vec::new()), owner);
    }
    for second in [0, 15] {
        let series = groups.map(|(cluster, prometheus, _)| {
            of(cluster, cluster).label("prometheus", prometheus).replica("a").at(second)
        });
        let heard = one.ask(&series).await;
        assert_eq!((heard.status, heard.text.as_str()), (204, ""));
    }
    let twice = |name| names(&[(name, 1), (name, 1)]);
    assert_eq!((two.got(), three.got()), (twice("x1"), twice("x2")));
    assert_eq!(one.count("promdedup_hops_total", &["result=\"misdirected\""]).await, 0);
}

/// One that is away does not keep the others' parts from being delivered.
#[tokio::test]
async fn an_instance_that_is_gone_holds_nobody_up() {
    let (board, [one, mut two, three]) = three().await;
    two.dies(&board);
    let heard = one.ask(&of_all(0)).await;
    assert_eq!((heard.status, heard.has("retry-after: 1")), (503, true), "{heard:?}");
    assert_eq!((one.got().len(), three.got().len()), (2, 1));
    board.gives("c2", "three");
    one.seat.forgets();
    assert_eq!(one.ask(&of_all(0)).await.status, 204);
    assert_eq!((one.got().len(), three.got().len()), (2, 3));
    assert_eq!(one.accounts().await + three.accounts().await, 4 + 4);
}

/// Or an instance that others ask would show what dedup costs as more than it is: what is passed on leaves it, too.
#[tokio::test]
async fn cpu_time_is_split_by_what_is_passed_on_as_well() {
    let (_, [one, _two, _three]) = three().await;
    let of = |cluster: &str, second| {
        (0..50).map(|i| sample(cluster, &format!("{cluster}_{i}"), "a", second)).collect::<Vec<_>>()
    };
    assert_eq!(one.ask(&of("c1", 0)).await.status, 204);
    let other = async || {
        let metrics = one.metrics().await;
        ["forwarded", "duplicate"].map(|share| {
            let name = format!("promdedup_cpu_seconds_total{{share=\"{share}\",stage=\"other\"}} ");
            let value = metrics.lines().find_map(|line| line.strip_prefix(&name)).expect("the share");
            value.parse::<f64>().unwrap()
        })
    };
    // Bytes that move for what is no duplicate, to those that move for duplicates.
    let whole = vec![of("c1", 0), of("c2", 0)];
    let parted = vec![[of("c1", 0), of("c2", 15)].concat()];
    for (requests, expected) in [(whole, 1.7..2.3), (parted, 0.3..0.8)] {
        let before = other().await;
        for request in requests {
            assert_eq!(one.ask(&request).await.status, 204);
        }
        let after = other().await;
        let [forwarded, duplicate] = [0, 1].map(|share| after[share] - before[share]);
        assert!(expected.contains(&(forwarded / duplicate)), "{forwarded} s to {duplicate} s");
    }
}
