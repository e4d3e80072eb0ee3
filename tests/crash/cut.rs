//! What an acknowledgement promised at the moment of a kill, against what upstream had at that moment. Pure.

use promdedup::stand_in::prometheus::Sent;
use promdedup::stand_in::{Labels, Point};
use std::collections::{BTreeMap, BTreeSet, HashMap};

/// Both sides as they were when the proxy had died and before it came back.
pub(crate) struct Cut {
    /// Of each replica; without the replica label.
    pub(crate) sent: Vec<HashMap<Labels, Vec<Sent>>>,
    /// What upstream had.
    pub(crate) stored: BTreeMap<Labels, Vec<Point>>,
    /// How far above the newest sample upstream one may be acknowledged because it is held, in intervals of its series.
    pub(crate) held_max: i64,
    /// Of all series, where no scrape was missed.
    pub(crate) interval_ms: i64,
}

/// What was found.
#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) struct Promises {
    /// Samples that were acknowledged.
    pub(crate) acknowledged: usize,
    /// Of these, how many lean on an older sample of their series.
    pub(crate) held: usize,
    /// Samples that were on their way: sent, and not acknowledged.
    pub(crate) open: usize,
    /// Series of which samples were acknowledged although upstream had nothing to show for them.
    pub(crate) broken: Vec<String>,
}

impl Cut {
    /// Judges each acknowledgement: upstream has the sample, or one of its series at or after it, or one not much earlier.
    pub(crate) fn promises(&self) -> Promises {
        let mut promises = Promises::default();
        let all: BTreeSet<&Labels> = self.sent.iter().flat_map(HashMap::keys).collect();
        for labels in all {
            let stored = self.stored.get(labels).map_or(&[] as &[Point], Vec::as_slice);
            let newest_ms = stored.iter().map(|point| point.at_ms).max();
            let mut farthest_ms = None;
            for one in self.sent.iter().filter_map(|sent| sent.get(labels)).flatten() {
                if !one.acknowledged {
                    promises.open += 1;
                    continue;
                }
                promises.acknowledged += 1;
                promises.held += usize::from(newest_ms < Some(one.point.at_ms));
                farthest_ms = farthest_ms.max(Some(one.point.at_ms));
            }
            let bound_ms = newest_ms.map(|newest_ms| newest_ms + self.held_max * self.widest_ms(labels));
            if farthest_ms > bound_ms && farthest_ms.is_some() {
                promises
                    .broken
                    .push(format!("{labels}: upstream had {newest_ms:?}, acknowledged was {farthest_ms:?}"));
            }
        }
        promises
    }

    /// The interval of a series, or the widest distance that a busy machine has made of it: the window may have learned that.
    fn widest_ms(&self, labels: &Labels) -> i64 {
        let all = self.sent.iter().filter_map(|sent| sent.get(labels));
        let distances =
            all.flat_map(|sent| sent.windows(2).map(|pair| pair[1].point.at_ms - pair[0].point.at_ms));
        distances.max().unwrap_or(0).max(self.interval_ms)
    }
}

/// Samples that were refused for good although upstream has nothing of their series within `near_ms`, when all is settled. What upstream
/// has by an earlier life may come again from a replica that is far behind; a conflict of that kind is passed on.
pub(crate) fn refused_in_vain(
    sent: &[HashMap<Labels, Vec<Sent>>],
    stored: &BTreeMap<Labels, Vec<Point>>,
    near_ms: i64,
) -> Vec<String> {
    let is_near = |labels: &Labels, at_ms: i64| {
        let mut points = stored.get(labels).into_iter().flatten();
        points.any(|point| (point.at_ms - at_ms).abs() <= near_ms)
    };
    let refused = sent.iter().flatten().flat_map(|(labels, sent)| {
        sent.iter().filter(|one| !one.acknowledged).map(move |one| (labels, one.point.at_ms))
    });
    let lost = refused.filter(|(labels, at_ms)| !is_near(labels, *at_ms));
    lost.map(|(labels, at_ms)| format!("{labels} at {at_ms}")).collect()
}

/// The judge sees what it is there for.
#[cfg(test)]
mod tests {
    use super::{Cut, refused_in_vain};
    use promdedup::stand_in::prometheus::Sent;
    use promdedup::stand_in::{Labels, Point};
    use std::collections::{BTreeMap, HashMap};

    #[test]
    fn sees_an_empty_promise() {
        let check = |stored: &[i64], acknowledged: &[&[i64]], held: usize, broken: usize| {
            let labels = Labels::new([("__name__", "up")]);
            let sent = |at_ms, acknowledged| Sent { point: Point::float(at_ms, 1.0), acknowledged };
            let of_replica = |times: &&[i64]| {
                let all = times
                    .iter()
                    .map(|&at_ms| sent(at_ms, true))
                    .chain([sent(times[times.len() - 1] + 60, false)]);
                HashMap::from([(labels.clone(), all.collect())])
            };
            let points: Vec<Point> = stored.iter().map(|&at_ms| Point::float(at_ms, 2.0)).collect();
            let cut = Cut {
                sent: acknowledged.iter().map(of_replica).collect(),
                stored: BTreeMap::from([(labels.clone(), points)]),
                held_max: 2,
                interval_ms: 100,
            };
            let refused = |near_ms| refused_in_vain(&cut.sent, &cut.stored, near_ms).len();
            assert_eq!(
                (refused(0), refused(9_000)),
                (acknowledged.len(), if stored.is_empty() { acknowledged.len() } else { 0 })
            );
            let promises = cut.promises();
            assert_eq!(promises.open, acknowledged.len());
            assert_eq!((promises.held, promises.broken.len()), (held, broken), "{promises:?}");
        };
        check(&[500], &[&[400, 500], &[450]], 0, 0);
        check(&[400, 600], &[&[500]], 0, 0); // a duplicate
        check(&[200, 300], &[&[300], &[350, 500]], 2, 0); // held
        check(&[200, 299], &[&[500], &[300]], 2, 1);
        check(&[], &[&[500]], 1, 1);
    }
}
