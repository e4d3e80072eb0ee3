//! Comparing bytes that are compared for every series and are few: without a call into the C library.

/// Whether two byte strings are the same.
#[inline(always)]
#[must_use]
pub fn equal(a: &[u8], b: &[u8]) -> bool {
    if a.len() != b.len() {
        return false;
    }
    let word = |bytes: &[u8; 8]| u64::from_ne_bytes(*bytes);
    let pair = |bytes: &[u8; 16]| u128::from_ne_bytes(*bytes);
    // The last ones first: they differ the most often, and what they leave is whole.
    if let (Some(last_of_a), Some(last_of_b)) = (a.last_chunk(), b.last_chunk()) {
        let (a, b) = (a.as_chunks().0, b.as_chunks().0);
        return pair(last_of_a) == pair(last_of_b) && a.iter().zip(b).all(|(a, b)| pair(a) == pair(b));
    }
    match (a.first_chunk().zip(a.last_chunk()), b.first_chunk().zip(b.last_chunk())) {
        (Some((first_of_a, last_of_a)), Some((first_of_b, last_of_b))) => {
            word(last_of_a) == word(last_of_b) && word(first_of_a) == word(first_of_b)
        }
        _ => a.iter().zip(b).all(|(a, b)| a == b),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn a_byte_makes_a_difference_wherever_it_is() {
        for length in 0..40 {
            let a: Vec<u8> = (0..length).collect();
            assert!(equal(&a, &a.clone()));
            assert!(!equal(&a, &[a.as_slice(), &[0]].concat()));
            for at in 0..a.len() {
                let mut b = a.clone();
                b[at] ^= 0x80;
                assert!(!equal(&a, &b), "{length} bytes, of which number {at} is another");
            }
        }
    }

    proptest! {
        #[test]
        fn it_is_the_equality_of_slices(a in proptest::collection::vec(0u8..2, 0..20), b in proptest::collection::vec(0u8..2, 0..20)) {
            prop_assert_eq!(equal(&a, &b), a == b);
        }
    }
}
