//! Native histograms: the same rules, and the same guarantee, as floats.

use super::STALE;
use crate::support::{Ts, pipeline, sent};

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
