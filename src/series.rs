//! IDENTITY of a series.
//!
//! Owns what makes two samples samples of one series: the canonical label bytes without the replica label, and the
//! 128-bit keys made of them and of the tenant. Refuses to parse requests: it is given label bytes.
//!
//! Canonical label bytes are the labels of a remote-write 1.0 `TimeSeries` in the shortest protobuf encoding
//! (`0x0a len  0x0a len name  0x12 len value` a label), sorted bytewise by name, without empty values and without the
//! replica label. Lengths stand before everything, so no two label sets share their bytes; and what a Prometheus sends
//! is already in this form around its replica label, so a key costs two hashes over received bytes.

mod place;
mod replica;
mod short;

pub use place::{Place, PlaceLabels};
pub use replica::{BadReplicaNames, REPLICA_NAMES_MAX, ReplicaNames};
pub use short::{NAME_BYTES_MAX, short_name};

use ring::digest::{SHA256, digest};
use std::sync::OnceLock;
use xxhash_rust::xxh3::{xxh3_128, xxh3_128_with_secret};

/// Bytes of the secret that keys are hashed with; XXH3 takes no less than 136.
pub const SECRET_BYTES: usize = 192;

/// Nobody who does not know it can make up label sets that share a key or a place in a table.
struct Secret {
    bytes: [u8; SECRET_BYTES],
    /// The hash of no bytes.
    of_nothing: u128,
}

static SECRET: OnceLock<Secret> = OnceLock::new();

/// Hashes the keys of this process with a secret, random bytes, from now on. To be called before there is a key. Without it keys are
/// those of the plain hash, the same in each process, as the simulation needs them.
///
/// # Errors
/// When there is a secret already.
pub fn keep_secret(bytes: [u8; SECRET_BYTES]) -> Result<(), AlreadySecret> {
    SECRET.set(Secret::new(bytes)).map_err(|_| AlreadySecret)
}

impl Secret {
    fn new(bytes: [u8; SECRET_BYTES]) -> Self {
        Self { bytes, of_nothing: xxh3_128_with_secret(&[], &bytes) }
    }

    #[inline]
    fn hash(&self, bytes: &[u8]) -> u128 {
        xxh3_128_with_secret(bytes, &self.bytes)
    }
}

/// Keys are hashed with a secret already.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("keys are hashed with a secret already")]
pub struct AlreadySecret;

/// The hash of what a sender chose, by the secret of this process.
#[must_use]
#[inline]
pub fn keyed_hash(bytes: &[u8]) -> u128 {
    match SECRET.get() {
        Some(secret) => secret.hash(bytes),
        None => xxh3_128(bytes),
    }
}

/// A hash that is the same in each process and nobody finds a collision of, secret or not. Dear: for what is rare.
fn strong_hash(bytes: &[u8]) -> u128 {
    digest(&SHA256, bytes).as_ref().iter().take(16).fold(0, |hash, byte| hash << 8 | u128::from(*byte))
}

/// The keyed hash of no bytes, which is known.
#[inline]
fn keyed_hash_of_nothing() -> u128 {
    SECRET.get().map_or(HASH_OF_NOTHING, |secret| secret.of_nothing)
}

/// Names a series: tenant and all labels except the replica label. Means nothing to another process.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct SeriesKey(pub u128);

/// Names a target: tenant and the values of the group and the target labels. Means nothing to another process.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct TargetKey(pub u128);

/// Names an HA group: tenant and the values of the group labels. The same in each process: instances share groups out by it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct GroupKey(pub u128);

/// Stands for a tenant in every key.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct TenantHash(pub u128);

/// Odd, so that multiplying by it loses nothing; its bits are those of the golden ratio, so that they spread.
const SPREAD: u128 = 0x9e37_79b9_7f4a_7c15_f39c_c060_5ced_c835;

/// The plain hash of no bytes, by the specification of XXH3.
const HASH_OF_NOTHING: u128 = 0x99aa_06d3_0147_98d8_6001_c324_468d_497f;

impl TenantHash {
    /// Of the tenant header's value; a request without one belongs to the default tenant `""`.
    #[must_use]
    pub fn of(name: &str) -> Self {
        Self::of_bytes(name.as_bytes())
    }

    /// As [`Self::of`], of the header's bytes.
    #[must_use]
    pub fn of_bytes(name: &[u8]) -> Self {
        Self(strong_hash(name))
    }
}

/// The tenant of the request before, whose hash need not be made again.
#[derive(Debug)]
pub struct LastTenant {
    name: Vec<u8>,
    hash: TenantHash,
}

impl Default for LastTenant {
    fn default() -> Self {
        Self { name: Vec::new(), hash: TenantHash::of_bytes(&[]) }
    }
}

impl LastTenant {
    /// As [`TenantHash::of_bytes`].
    pub fn hash(&mut self, name: &[u8]) -> TenantHash {
        if self.name != name {
            self.name.clear();
            self.name.extend_from_slice(name);
            self.hash = TenantHash::of_bytes(name);
        }
        self.hash
    }
}

impl SeriesKey {
    /// Of canonical label bytes in two parts, split where the first configured replica name sorts: all labels with a
    /// smaller name are `before`. The split makes the parts slices of the received bytes for the usual sender, and is
    /// the same for every sender of the series, whatever name its replica label has.
    #[must_use]
    #[inline]
    pub fn of_parts(before: &[u8], after: &[u8], tenant: TenantHash) -> Self {
        // Few labels sort behind the replica label: mostly there is nothing to hash.
        let after = if after.is_empty() { keyed_hash_of_nothing() } else { keyed_hash(after) };
        // Not commutative: what stands before must not pass for what stands after.
        Self(keyed_hash(before).wrapping_mul(SPREAD).wrapping_add(after) ^ tenant.0)
    }

    /// Of whole canonical label bytes and the offset of their split.
    #[must_use]
    pub fn of_canonical(canonical: &[u8], split: usize, tenant: TenantHash) -> Self {
        let (before, after) = canonical.split_at(split);
        Self::of_parts(before, after, tenant)
    }
}

/// Appends one label in the canonical encoding. The caller sorts, and leaves out empty values and the replica label.
pub fn encode_label(out: &mut Vec<u8>, name: &[u8], value: &[u8]) {
    out.push(0x0a);
    put_len(out, encoded_len(name, value));
    out.push(0x0a);
    put_len(out, name.len());
    out.extend_from_slice(name);
    out.push(0x12);
    put_len(out, value.len());
    out.extend_from_slice(value);
}

/// The length of the `Label` message that [`encode_label`] writes, without its key and length.
#[must_use]
pub fn encoded_len(name: &[u8], value: &[u8]) -> usize {
    2 + len_len(name.len()) + name.len() + len_len(value.len()) + value.len()
}

/// The offset in `canonical` at which labels with a name of `first` or above begin.
#[must_use]
pub fn split_of(canonical: &[u8], first: &[u8]) -> usize {
    let mut labels = labels(canonical);
    loop {
        let at = canonical.len() - labels.rest.len();
        match labels.next() {
            Some((name, _)) if name < first => {}
            Some(_) => return at,
            None => return canonical.len(),
        }
    }
}

/// The labels of canonical bytes, as (name, value), in order.
#[must_use]
pub fn labels(canonical: &[u8]) -> Labels<'_> {
    Labels { rest: canonical }
}

/// Iterator of [`labels`]. Ends early at bytes that are not in the canonical encoding.
#[derive(Debug, Clone)]
pub struct Labels<'a> {
    rest: &'a [u8],
}

impl<'a> Iterator for Labels<'a> {
    type Item = (&'a [u8], &'a [u8]);

    fn next(&mut self) -> Option<Self::Item> {
        let (label, rest) = take(self.rest, 0x0a)?;
        let (name, value) = take(label, 0x0a)?;
        let (value, _) = take(value, 0x12)?;
        self.rest = rest;
        Some((name, value))
    }
}

/// The content of the length-delimited field with `key` at the start of `bytes`, and what follows it.
fn take(bytes: &[u8], key: u8) -> Option<(&[u8], &[u8])> {
    let (&given, mut bytes) = bytes.split_first()?;
    let mut length = 0;
    for shift in [0, 7, 14, 21, 28] {
        let (&byte, rest) = bytes.split_first()?;
        bytes = rest;
        length |= usize::from(byte & 0x7f) << shift;
        if byte < 0x80 {
            return if given == key { bytes.split_at_checked(length) } else { None };
        }
    }
    None
}

#[allow(clippy::cast_possible_truncation)]
fn put_len(out: &mut Vec<u8>, mut length: usize) {
    while length >= 0x80 {
        out.push(length as u8 | 0x80);
        length >>= 7;
    }
    out.push(length as u8);
}

const fn len_len(length: usize) -> usize {
    let mut bytes = 1;
    let mut left = length >> 7;
    while left > 0 {
        bytes += 1;
        left >>= 7;
    }
    bytes
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::collections::BTreeMap;

    fn canonical(set: &BTreeMap<String, String>) -> Vec<u8> {
        let mut out = Vec::new();
        for (name, value) in set {
            encode_label(&mut out, name.as_bytes(), value.as_bytes());
        }
        out
    }

    /// Few letters, so that sets which are nearly alike are common, and now and then a length of two bytes.
    fn label_set() -> impl Strategy<Value = BTreeMap<String, String>> {
        let value = prop_oneof![9 => "[ab\n\x12]{1,3}", 1 => "a{120,140}"];
        proptest::collection::btree_map("[ab\n\x12]{1,3}", value, 0..5)
    }

    proptest! {
        #[test]
        fn different_sets_never_share_bytes(one in label_set(), other in label_set()) {
            prop_assert_eq!(canonical(&one) == canonical(&other), one == other);
        }

        #[test]
        fn labels_read_back(set in label_set()) {
            let bytes = canonical(&set);
            let back: BTreeMap<_, _> = labels(&bytes)
                .map(|(name, value)| (text(name), text(value)))
                .collect();
            prop_assert_eq!(back, set);
        }

        #[test]
        fn split_is_where_the_name_sorts(set in label_set(), first in "[ab]{1,2}") {
            let bytes = canonical(&set);
            let split = split_of(&bytes, first.as_bytes());
            prop_assert!(labels(&bytes[..split]).all(|(name, _)| name < first.as_bytes()));
            prop_assert!(labels(&bytes[split..]).all(|(name, _)| name >= first.as_bytes()));
        }

        #[test]
        fn labels_survive_any_bytes(bytes in proptest::collection::vec(any::<u8>(), 0..40)) {
            let _ = labels(&bytes).count();
            prop_assert!(split_of(&bytes, b"m") <= bytes.len());
        }
    }

    fn text(bytes: &[u8]) -> String {
        String::from_utf8(bytes.to_vec()).unwrap()
    }

    #[test]
    fn parts_are_not_interchangeable() {
        let tenant = TenantHash::of("");
        let (a, b) = (b"\x0a\x01a".as_slice(), b"\x0a\x01b".as_slice());
        let keys = [
            SeriesKey::of_parts(a, b, tenant),
            SeriesKey::of_parts(b, a, tenant),
            SeriesKey::of_parts(&[a, b].concat(), b"", tenant),
            SeriesKey::of_parts(b"", &[a, b].concat(), tenant),
            SeriesKey::of_parts(a, b, TenantHash::of("other")),
        ];
        for (i, one) in keys.iter().enumerate() {
            assert!(keys[i + 1..].iter().all(|other| one != other), "{i}");
        }
        assert_eq!(keys[0], SeriesKey::of_canonical(&[a, b].concat(), 3, tenant));
    }

    #[test]
    fn a_secret_changes_every_hash() {
        let secrets = [7, 11].map(|step| Secret::new(std::array::from_fn(|i| (i as u8).wrapping_mul(step))));
        for bytes in [0, 1, 8, 16, 100, 200, 1_000].map(|length| vec![b'a'; length]) {
            let hashes = [secrets[0].hash(&bytes), secrets[1].hash(&bytes), xxh3_128(&bytes)];
            assert!(
                hashes[0] != hashes[1] && hashes[1] != hashes[2] && hashes[0] != hashes[2],
                "{hashes:x?}"
            );
        }
        assert_eq!(secrets[0].of_nothing, secrets[0].hash(&[]));
    }

    /// Instances of other processes have to find the same, so these are the specification's: SHA-256 of nothing begins like that.
    #[test]
    fn tenants_are_hashed_alike_everywhere() {
        assert_eq!(TenantHash::of("").0, 0xe3b0_c442_98fc_1c14_9afb_f4c8_996f_b924);
        let mut last = LastTenant::default();
        for name in ["", "a", "a", "b", "", "", "a"] {
            assert_eq!(last.hash(name.as_bytes()), TenantHash::of(name));
        }
    }

    #[test]
    fn nothing_has_the_hash_it_should_have() {
        assert_eq!(xxh3_128(b""), HASH_OF_NOTHING);
    }

    #[test]
    fn lengths() {
        for length in [0, 1, 127, 128, 16_383, 16_384, 1 << 21] {
            let mut out = Vec::new();
            put_len(&mut out, length);
            assert_eq!(out.len(), len_len(length), "{length}");
        }
    }
}
