//! Remote write 1.0, snappy included, against prost on any bytes: walk, labels, keys and splices.
#![no_main]

// The oracle of `tests/it/wire`, as it is.
#[allow(dead_code)]
#[path = "../../tests/it/wire/oracle.rs"]
mod oracle;

use libfuzzer_sys::{fuzz_mutator, fuzz_target};

fuzz_mutator!(|data: &mut [u8], size: usize, max_size: usize, seed: u32| {
    fuzz::mutate_packed(data, size, max_size, seed)
});

fuzz_target!(|body: &[u8]| {
    let Some(raw) = fuzz::unpacked(body) else { return };
    assert_eq!(fuzz::unpacked(&fuzz::packed(&raw)).as_ref(), Some(&raw));
    oracle::check(&raw);
});
