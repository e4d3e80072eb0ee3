//! The mistakes of a setup by which deduplication does nothing: what the pipeline is sent then, and what health says.

use crate::support::{Ask, Ts, pipeline};
use promdedup::health::{Health, LOOK_EVERY, Reason};
use std::sync::Arc;

const GROUP: &str = "e2e/mon/k8s";

/// A minute of scrapes every 15 s: who sends, when in the interval, and what becomes of each series before it is sent.
type Replica<'a> = (i64, &'a dyn Fn(Ts) -> Ts);

struct Watched {
    ask: Ask,
    health: Arc<Health>,
    minutes: i64,
}

impl Watched {
    fn new() -> Self {
        let (ask, _) = pipeline();
        let health = ask.health();
        Self { ask, health, minutes: 0 }
    }

    /// Plays so many minutes with a look after each.
    async fn minutes(&mut self, minutes: i64, replicas: &[Replica<'_>]) {
        for _ in 0..minutes {
            for scrape in 0..4 {
                for (phase, make) in replicas {
                    let at = self.minutes * 60 + scrape * 15 + phase;
                    let series = |n| make(Ts::new(&format!("m{n}"))).at(3600 + at);
                    let batch: Vec<_> = (0..20).map(series).collect();
                    assert_eq!(self.ask.later(at + 1, &batch).await.status, 204);
                }
            }
            self.minutes += 1;
            self.ask.pipeline.window().advance_tick();
            self.health.look(3_600_000 + self.minutes * LOOK_EVERY.as_millis() as i64);
        }
    }

    /// The problems of the group.
    fn has(&self) -> Vec<&'static str> {
        self.of(GROUP)
    }

    fn of(&self, group: &str) -> Vec<&'static str> {
        let names = Reason::ALL.map(Reason::name);
        let there = |reason: &&str| {
            let labels = [("group", group), ("reason", reason)];
            self.ask.gauge("promdedup_group_health", &labels).expect("a gauge of each") == 1.0
        };
        names.into_iter().filter(there).collect()
    }

    fn lone(&self) -> f64 {
        self.ask.gauge("promdedup_group_lone_series_ratio", &[("group", GROUP)]).expect("a gauge")
    }
}

fn a(ts: Ts) -> Ts {
    ts.replica("a")
}

fn b(ts: Ts) -> Ts {
    ts.replica("b")
}

#[tokio::test]
async fn a_healthy_pair_has_nothing_to_say() {
    let mut watched = Watched::new();
    watched.minutes(12, &[(0, &a), (6, &b)]).await;
    assert_eq!((watched.has(), watched.lone()), (vec![], 0.0));
}

#[tokio::test]
async fn external_labels_that_differ_are_noticed() {
    let mut watched = Watched::new();
    watched.minutes(4, &[(0, &|ts| a(ts.label("host", "one"))), (6, &|ts| b(ts.label("host", "two")))]).await;
    assert_eq!((watched.has(), watched.lone()), (vec![], 1.0), "it has to last");
    watched.minutes(2, &[(0, &|ts| a(ts.label("host", "one"))), (6, &|ts| b(ts.label("host", "two")))]).await;
    assert_eq!(watched.has(), ["labels_differ"]);
    // Corrected: what there was is gone, and nothing is left of it.
    watched.minutes(12, &[(0, &a), (6, &b)]).await;
    assert_eq!(watched.has(), [""; 0]);
}

/// The label that differs is one of the group's: there are two groups now, each with one replica.
#[tokio::test]
async fn group_labels_that_differ_are_noticed() {
    let mut watched = Watched::new();
    let other = |_| b(Ts::raw(&[("__name__", "m"), ("cluster", "other"), ("job", "j")]));
    watched.minutes(6, &[(0, &a), (6, &other)]).await;
    assert_eq!((watched.has(), watched.of("other")), (vec!["one_replica"], vec!["one_replica"]));
}

#[tokio::test]
async fn a_replica_that_dies_is_noticed_and_is_no_difference_of_labels() {
    let mut watched = Watched::new();
    watched.minutes(6, &[(0, &a), (6, &b)]).await;
    for _ in 0..4 {
        watched.minutes(1, &[(6, &b)]).await;
        assert_eq!(watched.has(), [""; 0]);
    }
    watched.minutes(1, &[(6, &b)]).await;
    assert_eq!(watched.has(), ["one_replica"]);
    for _ in 0..6 {
        watched.minutes(1, &[(0, &a), (6, &b)]).await;
        assert_eq!(watched.has(), [""; 0]);
    }
}

#[tokio::test]
async fn a_replica_label_that_is_missing_is_noticed() {
    let mut watched = Watched::new();
    watched.minutes(1, &[(0, &a), (6, &|ts| ts.label("replica", "b"))]).await;
    assert_eq!(watched.has(), ["no_replica_label"]);
    watched.minutes(6, &[(0, &a), (6, &b)]).await;
    assert_eq!(watched.has(), [""; 0]);
}

#[tokio::test]
async fn a_clock_that_is_wrong_is_noticed() {
    let mut watched = Watched::new();
    // Its samples are from nine seconds ago when they arrive.
    for _ in 0..6 {
        for scrape in 0..4 {
            let at = watched.minutes * 60 + scrape * 15;
            for (replica, time, now) in [("a", at, at + 1), ("b", at - 3, at + 6)] {
                let series = [Ts::new("m").replica(replica).at(3600 + time)];
                assert_eq!(watched.ask.later(now, &series).await.status, 204);
            }
        }
        watched.minutes += 1;
        watched.health.look(3_600_000 + watched.minutes * 60_000);
    }
    assert_eq!(watched.has(), ["clock"]);
    watched.minutes(1, &[(0, &a), (6, &b)]).await;
    assert_eq!(watched.has(), [""; 0]);
}
