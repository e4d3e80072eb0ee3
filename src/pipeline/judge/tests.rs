//! What leans, waits and goes, where a flight ends between two samples of a request.

use super::super::Protocol;
use super::super::request::Item;
use super::*;
use crate::policy::ReplicaId;
use crate::series::{GroupKey, Place, PlaceLabels, ReplicaNames, TargetKey};
use crate::window::{Found, Log};
use crate::wire::labels::LabelBounds;
use crate::wire::{Span, v1};
use std::time::Duration;

const KEY: SeriesKey = SeriesKey(7);

fn settings() -> Settings {
    Settings {
        replica_names: ReplicaNames::new(["replica"]).expect("a name"),
        place_labels: PlaceLabels::default(),
        upstream_protocol: Protocol::One,
        label_bounds: LabelBounds::default(),
        body_bytes_max: 0,
        future_max_ms: 0,
        out_of_order_window_ms: 0,
        first_contact_hold_ms: 0,
        busy_wait_max: Duration::ZERO,
    }
}

/// Samples of one series, at those seconds.
fn request(number: u32, seconds: &[i64]) -> Request {
    let sample = |second| v1::Sample { field: Span::default(), at: second * 1000, bits: 0, histogram: false };
    let mut request = Request::default();
    request.samples.extend(seconds.iter().map(|second| sample(*second)));
    request.fates.resize(seconds.len(), Fate::Pending);
    let tally = request.tallies.number(None, None);
    request.items.push(Item { tally, kind: Kind::Replicated, ..Item::default() });
    request.keys.push(KEY);
    request.found.push(Found { number, target: 0 });
    request
}

/// Upstream would have the newer one, and refuse the other one when its sender brings it again.
#[test]
fn what_leans_on_the_birth_of_its_series_is_not_overtaken_where_no_room_is_left() {
    let window = Arc::new(Window::new(1));
    let group = window.meet_group(GroupKey(1), "g", TenantHash(0), 0).expect("room").number();
    let (group_name, tenant) = ("g".into(), TenantHash(0));
    let place = Place { group: GroupKey(1), group_name, target: TargetKey(1), tenant, is_up: false };
    let (settings, begun) = (settings(), tokio::time::Instant::now());
    let bench = Bench {
        settings: &settings,
        window: &window,
        tenant,
        retry: false,
        several: false,
        now_ms: 0,
        begun,
        observed: None,
    };
    let [mut carries, mut flight, mut other] =
        [(); 3].map(|()| Flight::begin(&window, Log::default()).expect("room"));
    let Admitted::Entry(number) = carries.admit(KEY, &place, ReplicaId(0), group) else { panic!("full") };
    let unit = |s| Unit { item: 0, first: s, count: 1 };
    let mut bears = request(number, &[15]);
    bench.sample(&mut bears, unit(0), 0, &mut carries, &mut Judged::default());
    assert_eq!(bears.fates, [Fate::Aboard]);
    carries.depart();
    let [mut late, mut request] = [&[30][..], &[15, 30]].map(|seconds| request(number, seconds));
    let mut judged = Judged::default();
    bench.sample(&mut request, unit(0), 0, &mut flight, &mut judged);
    assert_eq!((request.fates[0], judged.leans.len()), (Fate::Duplicate, 1));
    // It ends between the decision about this sample and that about the next one, and somebody is there first.
    carries.roll_back(true);
    let admitted = other.admit(SeriesKey(8), &place, ReplicaId(0), group);
    assert_eq!(admitted, Admitted::Entry(number), "it has the place");
    other.commit();
    bench.sample(&mut request, unit(1), 1, &mut flight, &mut judged);
    assert_eq!(request.fates[1], Fate::Failed, "it comes again, with the one before");
    assert!(judged.waits.contains(&KEY));
    bench.sample(&mut late, unit(0), 0, &mut flight, &mut Judged::default());
    assert_eq!(late.fates, [Fate::Aboard], "it leans on nobody, and goes as it came");
}
