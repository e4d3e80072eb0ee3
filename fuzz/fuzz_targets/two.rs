//! Remote write 2.0 against prost on any bytes: `cargo +nightly fuzz run two tests/corpus` (of the package around this one).
#![no_main]

use libfuzzer_sys::fuzz_target;
use promdedup::proto::{WriteRequest, v2};
use promdedup::series::ReplicaNames;
use promdedup::wire::v1::Walker;
use promdedup::wire::v2::{Keep, Rewriter};
use promdedup::wire::v2_out::Composer;
use prost::Message;

fuzz_target!(|body: &[u8]| {
    let (mut one, mut two) = (Vec::new(), Vec::new());
    for keep in [Keep::Nothing, Keep::All] {
        if Rewriter::default().rewrite(body, keep, 1 << 20, &mut one).is_err() {
            continue;
        }
        let walked = Walker::new(&one, &ReplicaNames::default()).all(&mut Vec::new(), &mut Vec::new());
        let Ok(read) = v2::Request::decode(body) else { continue };
        // What prost reads and the walk takes means the same in 1.0, and in 2.0 again.
        if walked.is_ok() {
            let said = WriteRequest::decode(one.as_slice()).expect("what the walk takes");
            assert_eq!(said.timeseries.len(), read.timeseries.len());
            Composer::default().compose(&one, &mut two).expect("a body of 1.0");
            let again = v2::Request::decode(two.as_slice()).expect("a body of 2.0");
            assert_eq!(again.timeseries.len(), read.timeseries.len());
        }
    }
});
