//! Remote write 2.0 out of the 1.0 that 2.0 in was rewritten as: what came goes on, by the rules for senders.

use super::corpus::raw;
use super::two::{names, request};
use super::two_oracle::check_round_trip;
use promdedup::proto::v2;
use proptest::prelude::*;
use prost::Message;

#[test]
fn real_bodies_go_through_unharmed() {
    for name in names() {
        let body = raw(&name);
        let after = check_round_trip(&body);
        let before = v2::Request::decode(body.as_slice()).unwrap();
        assert!(after.symbols.len() <= before.symbols.len(), "{name}");
        assert_eq!(after.symbols[0], "");
    }
}

proptest! {
    #[test]
    fn whatever_is_sent_goes_through_unharmed(mut request in request()) {
        // A symbol that is there twice is so once afterwards.
        request.timeseries.retain(|series| series.labels_refs.len() > 1);
        check_round_trip(&request.encode_to_vec());
    }
}
