//! The walk against prost on any bytes: `cargo +nightly fuzz run wire`.
#![no_main]

use libfuzzer_sys::fuzz_target;
use promdedup::proto::WriteRequest;
use promdedup::series::ReplicaNames;
use promdedup::wire::{Flaw, labels, snappy, splice, v1};
use prost::Message;

fuzz_target!(|body: &[u8]| {
    let _ = snappy::decompress(body, 1 << 20, &mut Vec::new());

    let names = ReplicaNames::default();
    let (mut series, mut samples) = (Vec::new(), Vec::new());
    let walked = v1::Walker::new(body, &names).all(&mut series, &mut samples);
    let mut out = Vec::new();
    for one in &series {
        let _ = labels::canonicalize(body, one, &names, labels::LabelBounds::default(), &mut Vec::new());
        splice::whole(body, one, splice::Labels::Received, &mut out);
    }
    let Ok(expected) = WriteRequest::decode(body) else { return };
    match walked {
        Ok(()) => {
            assert_eq!(series.len(), expected.timeseries.len());
            let spliced = WriteRequest::decode(out.as_slice()).expect("a copy of what prost reads");
            assert_eq!(format!("{:?}", spliced.timeseries), format!("{:?}", expected.timeseries));
        }
        Err(malformed) => assert!(matches!(malformed.flaw, Flaw::Group { .. }), "{malformed}"),
    }
});
