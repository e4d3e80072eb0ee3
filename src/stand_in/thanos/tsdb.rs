//! What one Thanos Receive with replication factor 1 keeps and refuses: the rules of the Prometheus TSDB head, and the record of all
//! that was stored. Pure: no I/O, no clock.
//!
//! Sources: Prometheus 3.14 `tsdb/head_append.go` (a sample is judged against what is committed, and judged again at commit, where it
//! vanishes without an error), `tsdb/exemplar.go`; Thanos `pkg/receive/writer.go` (what is counted, and in which words),
//! `pkg/store/labelpb/label.go` (validity of labels).

use crate::proto;
use crate::stand_in::request::{histogram_point, put_bytes};
use crate::stand_in::{Labels, Point};
use std::collections::HashMap;
use std::fmt::Write as _;
use xxhash_rust::xxh3::xxh3_64;

/// A sample older than the newest of the tenant by more than this is out of bounds: half a chunk range of two hours.
pub const BOUND_MS: i64 = 3_600_000;
/// Most characters in the labels of one exemplar (OpenMetrics).
const EXEMPLAR_CHARS_MAX: usize = 128;

/// What the stand-in saw that a clean stream would not contain. Attempts count, also those refused or undone by a resend.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Violations {
    /// Samples older than the newest of their series.
    pub out_of_order: u64,
    /// Samples at the newest timestamp of their series with another value.
    pub duplicate_timestamp: u64,
    /// Samples equal to the newest of their series: silently ignored by the TSDB, but sent twice.
    pub duplicate_identical: u64,
    /// Samples older than the newest of the tenant by more than [`BOUND_MS`].
    pub out_of_bounds: u64,
    /// Samples older than the out-of-order window.
    pub too_old: u64,
    /// Samples answered with success and not stored: falling or equal timestamps inside one request.
    pub vanished: u64,
    /// TimeSeries with unsorted, repeated, empty or no labels.
    pub bad_labels: u64,
    /// TimeSeries that carried one of the configured replica labels.
    pub replica_label: u64,
    /// Exemplars older than the newest of their series.
    pub exemplars_out_of_order: u64,
    /// Exemplars whose labels are too long.
    pub exemplars_too_long: u64,
    /// Requests with a `THANOS-REPLICA` header.
    pub replica_header: u64,
}

impl Violations {
    /// All that concerns samples and series; exemplars and identical resends are normal after a change of owner or a lost answer.
    #[must_use]
    pub fn of_samples(&self) -> u64 {
        self.out_of_order
            + self.duplicate_timestamp
            + self.out_of_bounds
            + self.too_old
            + self.vanished
            + self.bad_labels
            + self.replica_label
            + self.replica_header
    }
}

/// Bounds and switches of a [`Tsdb`].
#[derive(Debug, Clone)]
pub struct Rules {
    /// As [`super::Options::replica_labels`].
    pub replica_labels: Vec<String>,
    /// As [`super::Options::out_of_order_window_ms`].
    pub out_of_order_window_ms: i64,
    /// As [`super::Options::exemplars`].
    pub exemplars: bool,
    /// As [`super::Options::series_max`].
    pub series_max: usize,
    /// As [`super::Options::points_max`].
    pub points_max: usize,
}

/// The refused part of a request; the rest was stored.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Conflicts {
    labels_out_of_order: u64,
    labels_duplicate: u64,
    labels_empty: u64,
    out_of_order: u64,
    duplicate: u64,
    out_of_bounds: u64,
    too_old: u64,
    exemplars_out_of_order: u64,
    exemplars_too_long: u64,
}

impl Conflicts {
    /// The text of a 409, `None` if there is nothing to refuse.
    #[must_use]
    pub fn text(&self) -> Option<String> {
        let causes: Vec<String> = [
            (self.labels_out_of_order, "series", "out of order labels"),
            (self.labels_duplicate, "series", "duplicate labels"),
            (self.labels_empty, "series", "label set contains a label with empty name or value"),
            (self.out_of_order, "samples", "out of order sample"),
            (self.duplicate, "samples", "duplicate sample for timestamp"),
            (self.out_of_bounds, "samples", "out of bounds"),
            (self.too_old, "samples", "too old sample"),
            (self.exemplars_out_of_order, "exemplars", "out of order exemplar"),
            (self.exemplars_too_long, "exemplars", "label length for exemplar exceeds maximum"),
        ]
        .into_iter()
        .filter(|(count, ..)| *count > 0)
        .map(|(count, what, cause)| format!("add {count} {what}: {cause}"))
        .collect();
        match causes.as_slice() {
            [] => None,
            [one] => Some(one.clone()),
            many => {
                let mut text = String::new();
                let _ = write!(text, "{} errors: {}", many.len(), many.join("; "));
                Some(text)
            }
        }
    }
}

/// Why a whole request is refused.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
#[error("tenant is above the limit of {max} series")]
pub struct TooManySeries {
    /// The bound.
    pub max: usize,
}

/// One series with all that was stored of it, in the order of arrival.
#[derive(Debug)]
pub struct Record {
    /// What it is called.
    pub labels: Labels,
    /// Its samples.
    pub points: Vec<Point>,
    /// How many exemplars it has.
    pub exemplars: u64,
    newest: Option<Point>,
    newest_exemplar: Option<(i64, f64, u64)>,
}

#[derive(Debug, Default)]
pub(super) struct Head {
    newest_ms: Option<i64>,
    by_labels: HashMap<Box<[u8]>, usize>,
    pub(super) series: Vec<Record>,
}

/// The heads of all tenants.
#[derive(Debug)]
pub struct Tsdb {
    pub(super) rules: Rules,
    pub(super) tenants: HashMap<String, Head>,
    /// What a clean stream would not contain.
    pub violations: Violations,
    /// Samples stored since the start, recorded or not.
    pub(super) samples: u64,
    pub(super) exemplars: u64,
    /// Samples stored but not recorded: the record is full.
    pub(super) unrecorded: u64,
    recorded: usize,
    series_count: usize,
    key: Vec<u8>,
}

enum Judgement {
    InOrder,
    Identical,
    LateInWindow,
    OutOfOrder,
    Duplicate,
    OutOfBounds,
    TooOld,
}

impl Tsdb {
    /// An empty one.
    #[must_use]
    pub fn new(rules: Rules) -> Self {
        Self {
            rules,
            tenants: HashMap::new(),
            violations: Violations::default(),
            samples: 0,
            exemplars: 0,
            unrecorded: 0,
            recorded: 0,
            series_count: 0,
            key: Vec::new(),
        }
    }

    /// The series of a tenant, the oldest first.
    #[must_use]
    pub fn records(&self, tenant: &str) -> &[Record] {
        self.tenants.get(tenant).map_or(&[], |head| &head.series)
    }

    pub(super) fn series_count(&self) -> usize {
        self.series_count
    }

    /// Stores the valid part of a request and says what was refused.
    ///
    /// # Errors
    /// When the tenant would have too many series.
    pub fn append(
        &mut self,
        tenant: &str,
        request: &proto::WriteRequest,
    ) -> Result<Conflicts, TooManySeries> {
        let mut conflicts = Conflicts::default();
        let mut accepted: Vec<(usize, Point)> = Vec::new();
        let mut head = self.tenants.remove(tenant).unwrap_or_default();
        let outcome = self.judge_all(&mut head, request, &mut conflicts, &mut accepted);
        for (nth, point) in accepted {
            self.commit(&mut head, nth, point);
        }
        self.tenants.insert(tenant.to_owned(), head);
        self.violations.out_of_order += conflicts.out_of_order;
        self.violations.duplicate_timestamp += conflicts.duplicate;
        self.violations.out_of_bounds += conflicts.out_of_bounds;
        self.violations.too_old += conflicts.too_old;
        self.violations.bad_labels +=
            conflicts.labels_out_of_order + conflicts.labels_duplicate + conflicts.labels_empty;
        self.violations.exemplars_out_of_order += conflicts.exemplars_out_of_order;
        self.violations.exemplars_too_long += conflicts.exemplars_too_long;
        outcome.map(|()| conflicts)
    }

    /// First pass: every sample against what is committed, not against the other samples of this request.
    fn judge_all(
        &mut self,
        head: &mut Head,
        request: &proto::WriteRequest,
        conflicts: &mut Conflicts,
        accepted: &mut Vec<(usize, Point)>,
    ) -> Result<(), TooManySeries> {
        let newest_before = head.newest_ms;
        for series in &request.timeseries {
            if series.labels.iter().any(|label| self.rules.replica_labels.contains(&label.name)) {
                self.violations.replica_label += 1;
            }
            if !labels_are_valid(&series.labels, conflicts) {
                continue;
            }
            let floats = series.samples.iter().map(|sample| Point::float(sample.timestamp, sample.value));
            let points: Vec<Point> = floats.chain(series.histograms.iter().map(histogram_point)).collect();
            let Some(nth) = self.find(head, series, !points.is_empty())? else { continue };
            // As in Thanos, the reference that exemplars need is lost when the last sample was refused.
            let mut known = true;
            for point in points {
                let newest_of_tenant = *head.newest_ms.get_or_insert(point.at_ms);
                let newest_of_tenant = newest_before.unwrap_or(newest_of_tenant);
                let judgement = judge(
                    point,
                    head.series[nth].newest,
                    newest_of_tenant,
                    self.rules.out_of_order_window_ms,
                );
                known = true;
                match judgement {
                    Judgement::InOrder | Judgement::LateInWindow => accepted.push((nth, point)),
                    Judgement::Identical => self.violations.duplicate_identical += 1,
                    refused => {
                        known = false;
                        match refused {
                            Judgement::Duplicate => conflicts.duplicate += 1,
                            Judgement::OutOfBounds => conflicts.out_of_bounds += 1,
                            Judgement::TooOld => conflicts.too_old += 1,
                            _ => conflicts.out_of_order += 1,
                        }
                    }
                }
            }
            if known && self.rules.exemplars {
                self.append_exemplars(&mut head.series[nth], &series.exemplars, conflicts);
            }
        }
        Ok(())
    }

    /// The series of these labels; a new one is made only for a sample.
    fn find(
        &mut self,
        head: &mut Head,
        series: &proto::TimeSeries,
        create: bool,
    ) -> Result<Option<usize>, TooManySeries> {
        self.key.clear();
        for label in &series.labels {
            put_bytes(&mut self.key, 0x0a, label.name.as_bytes());
            put_bytes(&mut self.key, 0x12, label.value.as_bytes());
        }
        if let Some(&nth) = head.by_labels.get(self.key.as_slice()) {
            return Ok(Some(nth));
        }
        if !create {
            return Ok(None);
        }
        if self.series_count >= self.rules.series_max {
            return Err(TooManySeries { max: self.rules.series_max });
        }
        self.series_count += 1;
        let nth = head.series.len();
        head.by_labels.insert(self.key.as_slice().into(), nth);
        head.series.push(Record {
            labels: Labels::from(series.labels.as_slice()),
            points: Vec::new(),
            exemplars: 0,
            newest: None,
            newest_exemplar: None,
        });
        Ok(Some(nth))
    }

    /// Second pass: what the first let through is judged again against the samples before it, and vanishes if it does not fit.
    fn commit(&mut self, head: &mut Head, nth: usize, point: Point) {
        let record = &mut head.series[nth];
        match record.newest {
            Some(newest) if point == newest => {
                self.violations.duplicate_identical += 1;
                return;
            }
            Some(newest) if point.at_ms <= newest.at_ms => {
                let in_window = self.rules.out_of_order_window_ms > 0;
                let taken = record.points.iter().rev().any(|have| have.at_ms == point.at_ms);
                if !in_window || taken {
                    self.violations.vanished += 1;
                    return;
                }
            }
            _ => record.newest = Some(point),
        }
        head.newest_ms = head.newest_ms.max(Some(point.at_ms));
        self.samples += 1;
        if self.recorded < self.rules.points_max {
            self.recorded += 1;
            record.points.push(point);
        } else {
            self.unrecorded += 1;
        }
    }

    fn append_exemplars(
        &mut self,
        record: &mut Record,
        exemplars: &[proto::Exemplar],
        conflicts: &mut Conflicts,
    ) {
        for exemplar in exemplars {
            let chars = exemplar
                .labels
                .iter()
                .map(|label| label.name.chars().count() + label.value.chars().count())
                .sum::<usize>();
            if chars > EXEMPLAR_CHARS_MAX {
                conflicts.exemplars_too_long += 1;
                continue;
            }
            let labels = Labels::from(exemplar.labels.as_slice()).to_string();
            let this = (exemplar.timestamp, exemplar.value, xxh3_64(labels.as_bytes()));
            match record.newest_exemplar {
                // A repetition of the newest one is ignored without an error.
                Some(newest) if newest == this => {}
                Some(newest) if this < newest => conflicts.exemplars_out_of_order += 1,
                _ => {
                    record.newest_exemplar = Some(this);
                    record.exemplars += 1;
                    self.exemplars += 1;
                }
            }
        }
    }
}

fn judge(point: Point, newest: Option<Point>, newest_of_tenant_ms: i64, window_ms: i64) -> Judgement {
    let in_bounds = point.at_ms >= newest_of_tenant_ms.saturating_sub(BOUND_MS);
    if in_bounds {
        match newest {
            Some(newest) if point.at_ms == newest.at_ms && point == newest => return Judgement::Identical,
            Some(newest) if point.at_ms == newest.at_ms => return Judgement::Duplicate,
            Some(newest) if point.at_ms < newest.at_ms => {}
            _ => return Judgement::InOrder,
        }
    }
    match window_ms {
        1.. if point.at_ms >= newest_of_tenant_ms.saturating_sub(window_ms) => Judgement::LateInWindow,
        1.. => Judgement::TooOld,
        _ if !in_bounds => Judgement::OutOfBounds,
        _ => Judgement::OutOfOrder,
    }
}

/// At least one label, no empty name or value, names strictly rising bytewise. `__name__` is not asked for.
fn labels_are_valid(labels: &[proto::Label], conflicts: &mut Conflicts) -> bool {
    let mut last: Option<&str> = None;
    for label in labels {
        if label.name.is_empty() || label.value.is_empty() {
            conflicts.labels_empty += 1;
            return false;
        }
        match last.map(|last| last.cmp(label.name.as_str())) {
            Some(std::cmp::Ordering::Greater) => {
                conflicts.labels_out_of_order += 1;
                return false;
            }
            Some(std::cmp::Ordering::Equal) => {
                conflicts.labels_duplicate += 1;
                return false;
            }
            _ => last = Some(&label.name),
        }
    }
    if last.is_none() {
        conflicts.labels_empty += 1;
    }
    last.is_some()
}
