//! Senders of remote write 2.0: the same series, the same rules, and an exact account of what is written.

use super::ts;
use crate::support::{Ask, Ts, body, pack, pipeline, refer, sent, two};
use promdedup::forward::Answer;
use promdedup::pipeline::{Protocol, Reply, Written};
use promdedup::proto::v2;
use prost::Message;

fn written(reply: &Reply) -> (u16, [u64; 3]) {
    let Written { samples, histograms, exemplars } = reply.written;
    (reply.status, [samples, histograms, exemplars])
}

fn h(replica: &str, seconds: i64) -> Ts {
    Ts::new("h").replica(replica).histogram_at(seconds)
}

/// Prometheis are upgraded one by one.
#[tokio::test]
async fn replicas_of_both_protocols_are_one_group() {
    let (pipeline, fake) = pipeline();
    for t in [0, 15, 30] {
        assert_eq!(written(&pipeline.ask(&[ts("m", "a", t), h("a", t)]).await), (204, [0; 3]));
        // Its samples are duplicates, and none the less written.
        let both = two(&[ts("m", "b", t + 5), h("b", t + 5)]);
        assert_eq!(written(&pipeline.two(&both).await), (204, [1, 1, 0]));
    }
    // The one of 1.0 dies.
    for t in [50, 65] {
        pipeline.two(&two(&[ts("m", "b", t)])).await;
    }
    let of_the_first = ["m{} 0", "h{} 0h", "m{} 15", "h{} 15h", "m{} 30", "h{} 30h"];
    assert_eq!(sent(&fake), [&of_the_first[..], &["m{} 50 65"]].concat());
    assert_eq!(pipeline.metric("promdedup_target_moves_total", &[]), 1);
}

#[tokio::test]
async fn what_is_invalid_is_not_written_and_the_rest_is() {
    let (pipeline, fake) = pipeline();
    let bad = [
        ts("ok", "a", 0).exemplar(),
        ts("", "a", 0).exemplar(),
        ts("future", "a", 4_000_000_000),
        h("a", 0),
        Ts::new("ok").replica("a").no_sample().exemplar(),
    ];
    let reply = pipeline.two(&two(&bad)).await;
    assert_eq!(written(&reply), (400, [1, 1, 2]));
    assert!(reply.text.starts_with("2 of 4 samples refused, the rest delivered"), "{}", reply.text);
    assert_eq!(sent(&fake), ["ok{} 0 e", "h{} 0h", "ok{} e"]);
}

#[tokio::test]
async fn what_has_to_come_again_is_not_written() {
    let (pipeline, fake) = pipeline();
    fake.next([Answer::Unavailable { status: 503, text: String::new() }]);
    let request = two(&[ts("m", "a", 0).exemplar()]);
    assert_eq!(written(&pipeline.two(&request).await), (503, [0; 3]));
    fake.next([Answer::Refused { status: 400, text: String::new() }]);
    assert_eq!(written(&pipeline.two(&request).await), (400, [0; 3]));
}

#[tokio::test]
async fn exemplars_that_upstream_refuses_are_not_written() {
    let (pipeline, fake) = pipeline();
    let alone = || Ts::new("m").no_sample().exemplar();
    fake.next([Answer::Refused { status: 400, text: String::new() }]);
    let refused = pipeline.two(&two(&[alone().replica("a"), alone()])).await;
    assert_eq!(written(&refused), (400, [0; 3]));
    assert_eq!(sent(&fake), ["m{} e", "m{} e"]);
    // What the owner's standby brings is a duplicate, whatever becomes of the rest.
    pipeline.two(&two(&[ts("m", "a", 0)])).await;
    fake.next([Answer::Refused { status: 400, text: String::new() }]);
    let refused = pipeline.two(&two(&[alone(), alone().replica("b")])).await;
    assert_eq!(written(&refused), (400, [0, 0, 1]));
}

#[tokio::test]
async fn a_reference_that_leads_nowhere_costs_the_whole_request() {
    let (pipeline, fake) = pipeline();
    let mut request = two(&[ts("m", "a", 0), ts("n", "a", 0)]);
    request.timeseries[1].labels_refs[1] = 99;
    let reply = pipeline.two(&request).await;
    assert_eq!(written(&reply), (400, [0; 3]));
    assert!(reply.text.contains("in series 2: reference 99 leads beyond the"), "{}", reply.text);
    assert!(sent(&fake).is_empty());
}

/// Labels of 2.0 senders other than Prometheus come in any order.
#[tokio::test]
async fn labels_are_sorted() {
    let (pipeline, fake) = pipeline();
    let mut request = two(&[ts("m", "b", 0).label("z", "1")]);
    let pairs: Vec<_> = request.timeseries[0].labels_refs.chunks(2).rev().flatten().copied().collect();
    request.timeseries[0].labels_refs = pairs;
    assert_eq!(pipeline.two(&request).await.status, 204);
    assert_eq!(pipeline.ask(&[ts("m", "a", 5).label("z", "1")]).await.status, 204);
    assert_eq!(sent(&fake), ["m{z=1} 0"]);
    assert_eq!(fake.label_names(), ["__name__", "cluster", "job", "prometheus", "z"]);
}

/// 1.0 knows metadata of families only, and not with the series.
#[tokio::test]
async fn metadata_becomes_that_of_1_once() {
    let (pipeline, fake) = pipeline();
    let mut request = two(&[ts("lat_bucket", "a", 0), ts("lat_sum", "a", 0), ts("n", "a", 0)]);
    let help_ref = refer(&mut request.symbols, "Latency.");
    for series in &mut request.timeseries[..2] {
        let histogram = v2::metadata::MetricType::Histogram as i32;
        series.metadata = Some(v2::Metadata { r#type: histogram, help_ref, unit_ref: 0 });
    }
    request.timeseries[2].metadata = Some(v2::Metadata::default());
    assert_eq!(pipeline.two(&request).await.status, 204);
    let told = fake.metadata();
    assert_eq!(told.len(), 1, "once for all series of the family: {told:?}");
    assert_eq!((told[0].metric_family_name.as_str(), told[0].help.as_str()), ("lat", "Latency."));
    // Again, and from the other replica: nothing of it is news.
    let mut later = request.clone();
    later.timeseries.iter_mut().for_each(|series| series.samples[0].timestamp += 15_000);
    assert_eq!(pipeline.two(&later).await.status, 204);
    assert_eq!(fake.metadata().len(), 1);
}

/// What an upstream of 2.0 got: name and times of each series.
fn received(bodies: &[Vec<u8>]) -> Vec<(String, Vec<(i64, i64)>)> {
    let requests = bodies.iter().map(|body| v2::Request::decode(body.as_slice()).unwrap());
    let series = requests.flat_map(|request| {
        assert_eq!(request.symbols[0], "");
        let symbols = request.symbols;
        let of = move |series: v2::TimeSeries| {
            let texts: Vec<&str> =
                series.labels_refs.iter().map(|reference| symbols[*reference as usize].as_str()).collect();
            let name = texts.chunks(2).find(|pair| pair[0] == "__name__").unwrap()[1].to_owned();
            assert!(!texts.contains(&"prometheus_replica"));
            (name, series.samples.iter().map(|sample| (sample.timestamp, sample.start_timestamp)).collect())
        };
        request.timeseries.into_iter().map(of).collect::<Vec<_>>()
    });
    series.collect()
}

#[tokio::test]
async fn an_upstream_of_2_gets_2_from_senders_of_both() {
    let (pipeline, fake) = Ask::with(|wishes| wishes.upstream_protocol = Protocol::Two);
    let first = two(&[ts("m", "a", 0), ts("n", "a", 0)]);
    assert_eq!(written(&pipeline.two(&first).await), (204, [2, 0, 0]));
    assert_eq!(pipeline.ask(&[ts("m", "a", 15)]).await.status, 204);
    assert_eq!(pipeline.ask(&[ts("m", "b", 5)]).await.status, 204);
    let own = |name: &str, times: &[(i64, i64)]| (name.to_owned(), times.to_vec());
    assert_eq!(
        received(&fake.bodies()),
        [own("m", &[(0, 7)]), own("n", &[(0, 7)]), own("m", &[(15_000, 0)])]
    );
}

/// Where the labels of a body of 2.0 end is known, and of the next body in the same memory it is not.
#[tokio::test]
async fn what_is_known_of_one_request_is_not_believed_of_the_next() {
    let (pipeline, fake) = Ask::with(|wishes| wishes.upstream_protocol = Protocol::Two);
    let names = ["m", "n", "o", "p", "q", "r", "s"];
    // Of this age: six bytes of milliseconds.
    let t = 1_000_000_000;
    let serve = async |protocol, body: Vec<u8>| {
        pipeline.incoming(protocol, pack(&body), 0, None, t * 1_000 + 60_000).await.status
    };
    let mut first = two(&names.map(|name| ts(name, "a", t)));
    for sample in first.timeseries.iter_mut().flat_map(|series| &mut series.samples) {
        sample.start_timestamp = 0;
    }
    assert_eq!(serve(Protocol::Two, first.encode_to_vec()).await, 204);
    // All is where it was, up to a second sample.
    let mut second = names.map(|name| ts(name, "a", t + 15));
    second[1] = ts("n", "a", t + 15).value_at(1.5, t + 30);
    assert_eq!(serve(Protocol::One, body(&second, 0)).await, 204);
    let times = |series: &(String, Vec<(i64, i64)>)| series.1.iter().map(|(at, _)| *at).collect::<Vec<_>>();
    let received: Vec<_> = received(&fake.bodies()).iter().map(times).collect();
    assert_eq!(received[..7], [const { [1_000_000_000_000] }; 7]);
    assert_eq!(received[8], [(t + 15) * 1_000, (t + 30) * 1_000]);
    assert_eq!(received.concat().len(), 15);
}

/// 2.0 has no place for metadata without a series.
#[tokio::test]
async fn metadata_of_1_goes_nowhere_where_2_is_spoken() {
    let (pipeline, fake) = Ask::with(|wishes| wishes.upstream_protocol = Protocol::Two);
    assert_eq!(pipeline.raw(&body(&[], 3)).await.status, 204);
    assert!(fake.bodies().is_empty());
    assert_eq!(pipeline.raw(&body(&[ts("m", "a", 0)], 3)).await.status, 204);
    assert_eq!(received(&fake.bodies()).len(), 1);
}

/// A field that 1.0 does not know may hold anything.
#[tokio::test]
async fn what_only_looks_like_kept_metadata_does_not_keep_a_request_from_an_upstream_of_2() {
    let (pipeline, fake) = Ask::with(|wishes| wishes.upstream_protocol = Protocol::Two);
    let mut request = body(&[ts("m", "a", 0)], 0);
    // The length of the series has one byte.
    request[1] += 4;
    request.extend([0x2a, 2, 0xff, 0xff]);
    assert_eq!(pipeline.raw(&request).await.status, 204);
    assert_eq!(received(&fake.bodies()), [("m".to_owned(), vec![(0, 0)])]);
}
