//! Native histograms: the same rules, and the same guarantee, as floats.

use super::{STALE, ts};
use crate::support::{Ts, body, pipeline, sent};
use promdedup::forward::Answer;
use promdedup::pipeline::Reply;
use promdedup::proto::{self, histogram::Count};

fn histogram(replica: &str, seconds: i64) -> Ts {
    Ts::new("h").replica(replica).histogram_at(seconds)
}

#[tokio::test]
async fn a_death_leaves_no_hole_in_histograms() {
    let (pipeline, fake) = pipeline();
    for (replica, t) in [("a", 0), ("b", 5), ("a", 15), ("b", 20), ("b", 35), ("b", 50), ("b", 65)] {
        assert_eq!(pipeline.ask(&[histogram(replica, t)]).await.status, 204);
    }
    assert_eq!(sent(&fake), ["h{} 0h", "h{} 15h", "h{} 35h 50h", "h{} 65h"]);
    assert_eq!(pipeline.metric("promdedup_samples_filled_total", &[]), 1);
}

#[tokio::test]
async fn the_first_histogram_of_what_were_floats_is_held_as_one() {
    let (pipeline, fake) = pipeline();
    for t in [0, 15, 30] {
        pipeline.ask(&[ts("h", "a", t)]).await;
    }
    for t in [50, 65] {
        assert_eq!(pipeline.ask(&[histogram("b", t)]).await.status, 204);
    }
    assert_eq!(sent(&fake)[3..], ["h{} 50h 65h"]);
}

/// Prometheus ends a series of histograms by a stale marker that is a float.
#[tokio::test]
async fn the_stale_marker_of_a_histogram_is_a_float_and_loses_nothing_that_is_held() {
    let (pipeline, fake) = pipeline();
    for (replica, t) in [("a", 0), ("b", 5), ("a", 15), ("b", 20)] {
        pipeline.ask(&[histogram(replica, t)]).await;
    }
    let marker = |replica, t| Ts::new("h").replica(replica).bits_at(STALE, t);
    assert_eq!(pipeline.ask(&[marker("a", 30)]).await.status, 204);
    pipeline.ask(&[histogram("b", 35)]).await;
    pipeline.ask(&[marker("b", 50)]).await;
    assert_eq!(sent(&fake), ["h{} 0h", "h{} 15h", "h{} 20h 35h", "h{} 50!"]);
}

/// A TSDB commits the floats of a request before its histograms: behind the marker they would be dropped without a word.
#[tokio::test]
async fn a_stale_marker_that_follows_a_histogram_in_one_request_is_none_that_overtakes_it() {
    let (pipeline, fake) = pipeline();
    for (replica, t) in [("a", 0), ("b", 5), ("a", 15), ("b", 20), ("b", 35)] {
        pipeline.ask(&[histogram(replica, t)]).await;
    }
    let marker = |replica, t| Ts::new("h").replica(replica).bits_at(STALE, t);
    assert_eq!(pipeline.ask(&[marker("b", 50)]).await.status, 204);
    assert_eq!(sent(&fake).pop().unwrap(), "h{} 35h 50h!", "what was held");
    pipeline.ask(&[histogram("b", 65), marker("b", 80)]).await;
    assert_eq!(sent(&fake)[3..], ["h{} 65h", "h{} 80h!"], "what is received");
    pipeline.ask(&[marker("b", 110), ts("m", "a", 110), histogram("b", 95)]).await;
    assert_eq!(sent(&fake)[5..], ["h{} 95h 110h!", "m{} 110"], "in the wrong order");
    // Of another series, and on its own, it stays as it came.
    pipeline.ask(&[histogram("b", 125), Ts::new("m").replica("a").bits_at(STALE, 125)]).await;
    pipeline.ask(&[marker("b", 140)]).await;
    assert_eq!(sent(&fake)[7..], ["h{} 125h", "m{} 125!", "h{} 140!"]);
}

/// Only a replica's stale marker leaves as a histogram, or values would be lost, and what is not HA would not leave as it came.
#[tokio::test]
async fn other_floats_behind_a_histogram_leave_as_floats() {
    let (pipeline, fake) = pipeline();
    assert_eq!(pipeline.ask(&[histogram("a", 0), ts("h", "a", 15)]).await.status, 204);
    let single = [Ts::new("s").histogram_at(0), Ts::new("s").bits_at(STALE, 15)];
    assert_eq!(pipeline.ask(&single).await.status, 204);
    assert_eq!(sent(&fake), ["h{} 0h", "h{} 15", "s{} 0h", "s{} 15!"]);
}

/// Samples of another kind let go what is held, but not before upstream has them.
#[tokio::test]
async fn held_histograms_come_back_when_floats_do_not_land() {
    let (pipeline, fake) = pipeline();
    for (replica, t) in [("a", 0), ("b", 5), ("a", 15), ("b", 20), ("b", 35)] {
        pipeline.ask(&[histogram(replica, t)]).await;
    }
    fake.next([Answer::Unavailable { status: 503, text: String::new() }]);
    assert_eq!(pipeline.ask(&[Ts::new("h").replica("a").at(30)]).await.status, 503);
    pipeline.ask(&[histogram("b", 50)]).await;
    assert_eq!(sent(&fake).pop().unwrap(), "h{} 35h 50h");
}

/// Thanos would answer 200 and drop it.
#[tokio::test]
async fn a_broken_histogram_is_refused_and_the_rest_is_delivered() {
    let (pipeline, fake) = pipeline();
    let count = |count| Some(Count::CountInt(count));
    let broken = proto::Histogram { count: count(7), timestamp: 15_000, ..Default::default() };
    let batch = [
        ts("m", "a", 15),
        histogram("a", 15),
        Ts::new("broken").replica("a").histogram(broken.clone()),
        Ts::new("both").replica("a").histogram_at(15).histogram(broken.clone()).histogram_at(30),
        Ts::new("single").histogram(broken),
        ts("n", "a", 15),
    ];
    let Reply { status, text, .. } = pipeline.ask(&batch).await;
    let said = "3 of 8 samples refused, the rest delivered: series 3: buckets of the histogram hold 0 observations, \
                its count says 7";
    assert_eq!((status, text.as_str()), (400, said));
    assert_eq!(sent(&fake), ["m{} 15", "h{} 15h", "both{} 15h 30h", "n{} 15"]);
    assert_eq!((pipeline.outcome("refused"), pipeline.outcome("forwarded")), (3, 5));
    assert_eq!(pipeline.metric("promdedup_samples_received_total", &[]), 8);
    // Nothing was noted of what was refused: the series goes on where it was.
    assert_eq!(pipeline.ask(&[Ts::new("broken").replica("b").histogram_at(15)]).await.status, 204);
    assert_eq!(sent(&fake)[4..], ["broken{} 15h"]);
}

/// A standby's is refused, too, although it would not go anywhere now: it might be held, and fill a gap.
#[tokio::test]
async fn a_broken_histogram_of_a_standby_is_not_held() {
    let (pipeline, fake) = pipeline();
    for (replica, t) in [("a", 0), ("b", 5), ("a", 15), ("b", 20)] {
        pipeline.ask(&[histogram(replica, t)]).await;
    }
    let broken = proto::Histogram { schema: 99, timestamp: 35_000, ..Default::default() };
    let reply = pipeline.ask(&[Ts::new("h").replica("b").histogram(broken)]).await;
    assert_eq!(reply.status, 400, "{reply:?}");
    pipeline.ask(&[histogram("b", 50)]).await;
    assert_eq!(sent(&fake), ["h{} 0h", "h{} 15h", "h{} 20h 50h"]);
}

/// Its sum says that it is one; whatever else it holds is nobody's affair.
#[tokio::test]
async fn a_stale_marker_that_is_a_histogram_passes() {
    let (pipeline, fake) = pipeline();
    pipeline.ask(&[ts("m", "a", 0)]).await;
    let marker = |schema| proto::Histogram {
        count: Some(Count::CountInt(15)),
        sum: f64::from_bits(STALE),
        schema,
        timestamp: 15_000,
        ..Default::default()
    };
    let batch = [0, 99].map(|schema| Ts::new("single").histogram(marker(schema)));
    assert_eq!(pipeline.ask(&batch).await.status, 204);
    assert_eq!(pipeline.ask(&[Ts::new("m").replica("a").histogram(marker(0))]).await.status, 204);
    assert_eq!(sent(&fake), ["m{} 0", "single{} 15h!", "single{} 15h!", "m{} 15h!"]);
    assert_eq!(pipeline.outcome("forwarded"), 4);
}

/// What is no protobuf is no histogram either, but then nothing of the request is read.
#[tokio::test]
async fn a_malformed_histogram_spoils_the_request() {
    let (pipeline, fake) = pipeline();
    let mut body = body(&[ts("m", "a", 0), histogram("a", 15)], 0);
    // The last two bytes are the time; the key before them becomes that of a group.
    let at = body.len() - 3;
    body[at] = 0x7b;
    let Reply { status, text, .. } = pipeline.raw(&body).await;
    assert!(
        status == 400 && text.starts_with("malformed protobuf") && text.contains("in series 2"),
        "{text}"
    );
    assert_eq!(fake.requests(), 0);
}
