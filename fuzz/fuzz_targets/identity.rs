//! A series is the same by whichever protocol it comes, and no other one is: keys against sets of labels as prost reads them.
#![no_main]

use libfuzzer_sys::{fuzz_mutator, fuzz_target};
use promdedup::proto::{WriteRequest, v2};
use promdedup::series::{ReplicaNames, SeriesKey, TenantHash};
use promdedup::wire::labels::{InvalidLabels, LabelBounds, canonicalize};
use promdedup::wire::v1::Walker;
use promdedup::wire::v2::{Keep, Rewriter};
use promdedup::wire::v2_out::Composer;
use prost::Message;
use std::collections::HashMap;

fuzz_mutator!(|data: &mut [u8], size: usize, max_size: usize, seed: u32| {
    fuzz::mutate_packed(data, size, max_size, seed)
});

/// Canonical bytes, key, and replica.
type Identity = (Vec<u8>, SeriesKey, String);

fuzz_target!(|body: &[u8]| {
    let Some(raw) = fuzz::unpacked(body) else { return };
    // A body of either protocol; what the other one would say is made of what prost reads.
    let (one, two) = match (WriteRequest::decode(raw.as_slice()), v2::Request::decode(raw.as_slice())) {
        (Ok(request), _) if !request.timeseries.is_empty() => {
            (raw, fuzz::story::in_two(&request).encode_to_vec())
        }
        (_, Ok(request)) if !request.timeseries.is_empty() => {
            let mut one = Vec::new();
            if Rewriter::default().rewrite(&raw, Keep::Nothing, 1 << 20, &mut one).is_err() {
                return;
            }
            (one, raw)
        }
        _ => return,
    };
    let Ok(read) = WriteRequest::decode(one.as_slice()) else { return };
    let Some(first) = identities(&one) else { return };
    let mut rewritten = Vec::new();
    Rewriter::default().rewrite(&two, Keep::All, 1 << 20, &mut rewritten).expect("a body of 2.0");
    assert_eq!(identities(&rewritten).as_ref(), Some(&first));
    judge(&read, &first);

    // Out again in 2.0, and in: nothing comes that was not there.
    Composer::default().compose(&one, &mut rewritten).expect("a body of 1.0");
    let mut again = Vec::new();
    Rewriter::default().rewrite(&rewritten, Keep::Nothing, 1 << 20, &mut again).expect("a body of 2.0");
    for identity in identities(&again).expect("a body of 1.0") {
        assert!(first.contains(&identity), "{identity:?}");
    }
});

/// Of each series who it is, or which rule it breaks.
fn identities(body: &[u8]) -> Option<Vec<Result<Identity, &'static str>>> {
    let names = ReplicaNames::default();
    let tenant = TenantHash::of("t");
    let mut all = Vec::new();
    Walker::new(body, &names).all(&mut all, &mut Vec::new()).ok()?;
    let each = all.iter().map(|series| {
        let mut canonical = Vec::new();
        let verdict = canonicalize(body, series, &names, LabelBounds::default(), &mut canonical)
            .map_err(|invalid| rule(&invalid))?;
        let key = SeriesKey::of_canonical(&canonical, verdict.split, tenant);
        // The quick way makes the same key of labels in order, and of others none that is known.
        let mut scratch = Vec::new();
        if let Some((before, after)) = series.parts(body, &names, &mut scratch) {
            let same = [before, after].concat() == canonical && before.len() == verdict.split;
            assert_eq!(SeriesKey::of_parts(before, after, tenant) == key, same);
        }
        let replica = verdict.replica.map(|span| String::from_utf8_lossy(span.of(body)).into_owned());
        Ok((canonical, key, replica.unwrap_or_default()))
    });
    Some(each.collect())
}

/// Equal keys are equal sets of labels, replica label left out.
fn judge(read: &WriteRequest, found: &[Result<Identity, &'static str>]) {
    assert_eq!(read.timeseries.len(), found.len());
    let (mut by_set, mut by_key) = (HashMap::new(), HashMap::new());
    for (series, found) in read.timeseries.iter().zip(found) {
        match (found, fuzz::identity(&series.labels)) {
            (Ok((_, key, replica)), Some((set, cut))) => {
                assert_eq!(&cut.unwrap_or_default(), replica);
                assert_eq!(by_set.entry(set.clone()).or_insert(*key), key, "one set has one key");
                assert_eq!(by_key.entry(*key).or_insert_with(|| set.clone()), &set, "one key has one set");
            }
            (Err("too many" | "name too long" | "value too long"), _) | (Err(_), None) => {}
            (found, identity) => panic!("{found:?}, but {identity:?}"),
        }
    }
}

fn rule(invalid: &InvalidLabels) -> &'static str {
    match invalid {
        InvalidLabels::None => "none",
        InvalidLabels::NoMetricName { .. } => "no name",
        InvalidLabels::EmptyName { .. } => "empty name",
        InvalidLabels::Repeated { .. } => "repeated",
        InvalidLabels::TooMany { .. } => "too many",
        InvalidLabels::NameTooLong { .. } => "name too long",
        InvalidLabels::ValueTooLong { .. } => "value too long",
        InvalidLabels::NameNotUtf8 { .. } => "name not UTF-8",
        InvalidLabels::ValueNotUtf8 { .. } => "value not UTF-8",
        InvalidLabels::Malformed(_) => "malformed",
    }
}
