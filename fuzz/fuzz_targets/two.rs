//! Remote write 2.0, snappy included, against prost on any bytes: rewritten as 1.0, and composed again.
#![no_main]

// The oracles of `tests/it/wire`, as they are.
#[allow(dead_code)]
#[path = "../../tests/it/wire/oracle.rs"]
mod oracle;
#[path = "../../tests/it/wire/two_oracle.rs"]
mod two_oracle;

use libfuzzer_sys::{fuzz_mutator, fuzz_target};
use promdedup::proto::v2;
use promdedup::series::ReplicaNames;
use promdedup::wire::Flaw;
use prost::Message;

fuzz_mutator!(|data: &mut [u8], size: usize, max_size: usize, seed: u32| {
    fuzz::mutate_packed(data, size, max_size, seed)
});

fuzz_target!(|body: &[u8]| {
    let Some(raw) = fuzz::unpacked(body) else { return };
    let given = two_oracle::rewritten(&raw).and_then(|one| {
        let walked = oracle::walk(&one, &ReplicaNames::default());
        oracle::check(&one);
        walked
    });
    match (v2::Request::decode(raw.as_slice()), given) {
        (Ok(_), Ok(_)) => {
            two_oracle::check(&raw);
            two_oracle::check_round_trip(&raw);
        }
        // What prost does not ask for: no groups, nothing of 1.0, and references that lead somewhere.
        (Ok(read), Err(malformed)) => {
            let known = match malformed.flaw {
                Flaw::Group { .. } | Flaw::Reserved { .. } | Flaw::FirstSymbol => true,
                Flaw::Reference { .. } | Flaw::OddReferences { .. } => true,
                _ => false,
            };
            assert!(known, "{malformed}, but prost reads {read:?}");
        }
        // Texts are judged with the labels that they are in.
        (Err(error), Ok(_)) => assert!(error.to_string().contains("UTF-8"), "prost refuses it: {error}"),
        (Err(_), Err(_)) => {}
    }
});
