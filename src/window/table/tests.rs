//! Every series is found that is there, and no other, whatever order they come in.

use super::super::entry::Marks;
use super::*;
use crate::policy::{ReplicaId, Series};

fn unpacked(target: u32) -> Unpacked {
    let series = Series::new(ReplicaId(0));
    Unpacked { series, target, marks: Marks::default() }
}

fn key(i: u64) -> SeriesKey {
    SeriesKey(xxhash_rust::xxh3::xxh3_128(&i.to_le_bytes()))
}

fn locate(table: &Table, keys: &[SeriesKey]) -> Vec<u32> {
    let mut found = Vec::new();
    table.locate(&table.view(), keys, Way::default(), &mut found);
    found.iter().map(|found| found.number).collect()
}

#[test]
fn every_series_added_is_found_and_no_other() {
    let table = Table::new(100_000);
    assert!(table.bytes() < 64 << 10, "{} bytes before any series came", table.bytes());
    let keys: Vec<_> = (0..60_000).map(key).collect();
    for (i, k) in keys.iter().enumerate() {
        let added = table.add(*k, 0, 1, || unpacked(i as u32));
        assert_eq!(added, Added::New(i as u32));
        table.entry(i as u32).release();
    }
    assert_eq!(locate(&table, &keys), (0..60_000).collect::<Vec<_>>());
    assert_eq!(locate(&table, &[key(60_000), key(1 << 40)]), [NONE, NONE]);
    assert_eq!(table.add(keys[5], 0, 1, || unreachable!()), Added::Known(5));
    assert_eq!(table.live(), 60_000);
    // From 100,000 series on this is the whole of it; below, chunks of 1 MiB weigh more.
    assert!(table.bytes() < 60_000 * 100, "{} bytes", table.bytes());
    // A cache line each, and a word of the index.
    assert!(table.bytes() > 60_000 * 72, "{} bytes", table.bytes());
}

/// What is said of memory is what is allocated: an operator sizes a machine by it.
#[test]
fn memory_is_a_word_a_slot_and_chunks_of_entries_with_their_order() {
    let table = Table::new(100_000);
    let index = SEGMENTS * INDEX_MIN * 8;
    assert_eq!(table.bytes(), index);
    table.add(key(0), 0, NOBODY, || unpacked(0));
    // 64 bytes of an entry, and two distances of two bytes.
    assert_eq!(table.bytes(), index + CHUNK * (64 + 4));
}

/// The numbers of those that are found without the index: the first, and who follows.
fn followed(table: &Table, keys: &[SeriesKey], way: Way) -> Vec<u32> {
    let (mut finder, mut found) = (table.finder(way), Vec::new());
    finder.next(&keys[..1], &mut found);
    keys[1..].iter().map_while(|key| finder.follow(*key)).map(|found| found.number).collect()
}

fn filled(series: u64) -> (Table, Vec<SeriesKey>) {
    let table = Table::new(100_000);
    let keys: Vec<_> = (0..series).map(key).collect();
    for (i, key) in keys.iter().enumerate() {
        assert!(matches!(table.add(*key, 0, NOBODY, || unpacked(i as u32)), Added::New(_)));
    }
    (table, keys)
}

#[test]
fn series_that_come_as_the_last_time_are_found_without_the_index() {
    // More than one chunk of entries.
    let (table, mut keys) = filled(10_000);
    keys.reverse();
    assert!(followed(&table, &keys, Way::default()).is_empty());
    let expected: Vec<_> = (0..10_000).rev().collect();
    for _ in 0..2 {
        assert_eq!(locate(&table, &keys), expected);
        assert_eq!(followed(&table, &keys, Way::default()), expected[1..]);
    }
    let mut found = Vec::new();
    table.locate(&table.view(), &keys, Way::default(), &mut found);
    assert!(found.iter().all(|found| found.target == found.number), "with its target");
}

#[test]
fn who_looks_from_one_entry_to_the_next_sees_each_wherever_it_is() {
    let (table, _) = filled(2 * CHUNK as u64 + 5);
    // In a chunk, at its ends, and where a number in one is that of another chunk.
    let numbers = [0, 1, 2, CHUNK as u32 - 1].map(|at| [at, CHUNK as u32 + at]).concat();
    let numbers: Vec<_> = numbers.into_iter().chain([2 * CHUNK as u32, 2 * CHUNK as u32 + 4]).collect();
    for first in &numbers {
        for then in &numbers {
            let mut near = table.near();
            let seen = [first, then, first].map(|number| std::ptr::from_ref(near.entry(*number)));
            assert_eq!(seen, [first, then, first].map(|number| std::ptr::from_ref(table.entry(*number))));
        }
    }
}

#[test]
fn two_senders_have_an_order_each() {
    let (table, keys) = filled(100);
    let others: Vec<_> = keys.iter().skip(1).step_by(2).chain(keys.iter().step_by(2)).copied().collect();
    let [one, other] = ["prometheus-0", "prometheus-1"].map(|name| Way::of(name.as_bytes()));
    for _ in 0..2 {
        let mut found = Vec::new();
        table.locate(&table.view(), &keys, one, &mut found);
        table.locate(&table.view(), &others, other, &mut found);
    }
    assert_eq!(followed(&table, &keys, one).len(), 99);
    assert_eq!(followed(&table, &others, other).len(), 99);
}

#[test]
fn who_comes_in_another_order_is_found_all_the_same() {
    let (table, keys) = filled(3_000);
    let mut random = 1u64;
    for round in 0..20 {
        let mut order: Vec<u32> = (0..3_000).collect();
        order.sort_by_cached_key(|_| {
            random = random.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
            // Now and then as before, at least in part.
            if round % 3 == 0 { 0 } else { random >> 40 }
        });
        let keys: Vec<_> = order.iter().map(|number| keys[*number as usize]).collect();
        assert_eq!(locate(&table, &keys), order);
    }
}

#[test]
fn nobody_is_taken_for_who_was_there_before() {
    let (table, keys) = filled(10);
    locate(&table, &keys);
    for number in [4, 5] {
        assert!(table.entry(number).claim_for_table());
        table.remove(number);
    }
    // What has no replica has the key 0, and no entry: also not one that is nobody's.
    let none = SeriesKey(0);
    let came = [keys[3], none, none, keys[6]];
    assert_eq!(locate(&table, &came), [3, NONE, NONE, 6]);
    locate(&table, &keys[..4]);
    assert_eq!(table.add(key(77), 0, NOBODY, || unpacked(9)), Added::New(5));
    assert_eq!(locate(&table, &keys), [0, 1, 2, 3, NONE, NONE, 6, 7, 8, 9]);
    assert_eq!(locate(&table, &[keys[3], key(77), keys[6]]), [3, 5, 6]);
}

#[test]
fn keys_that_differ_in_one_bit_are_told_apart() {
    let table = Table::new(1_000);
    let keys: Vec<_> = (0..128).map(|bit| SeriesKey(key(1).0 ^ 1 << bit)).collect();
    for (i, k) in keys.iter().enumerate() {
        assert_eq!(table.add(*k, 0, NOBODY, || unpacked(0)), Added::New(i as u32), "bit {i}");
    }
    assert_eq!(locate(&table, &keys), (0..128).collect::<Vec<_>>());
    assert!(keys.iter().zip(0..).all(|(k, number)| table.find(*k) == number));
    assert_eq!((locate(&table, &[key(1)]), table.find(key(1))), (vec![NONE], NONE));
}

/// Or looking for one series would mean looking at many, and growing would mean copying all of them.
#[test]
fn what_places_a_series_is_spread() {
    let index: Index = (0..24).map(|_| AtomicU64::new(EMPTY)).collect();
    let places = |place: &dyn Fn(SeriesKey) -> usize| {
        (0..10_000).map(|i| place(key(i))).collect::<std::collections::HashSet<_>>().len()
    };
    assert_eq!(places(&segment_of), SEGMENTS);
    assert_eq!(places(&|key| probe(&index, key).next().unwrap()), 24);
    assert_eq!(places(&|key| tag(key) as usize), 10_000);
}

#[test]
fn the_bound_holds_and_room_returns() {
    let table = Table::new(100);
    for i in 0..100 {
        assert!(matches!(table.add(key(i), 0, NOBODY, || unpacked(0)), Added::New(_)));
    }
    assert_eq!(table.add(key(100), 0, NOBODY, || unpacked(0)), Added::Full);
    let number = locate(&table, &[key(7)])[0];
    assert!(table.entry(number).claim_for_table());
    table.remove(number);
    let others: Vec<_> = (0..100).filter(|i| *i != 7).collect();
    let keys: Vec<_> = others.iter().map(|i| key(*i)).collect();
    assert_eq!(locate(&table, &keys), others.iter().map(|i| *i as u32).collect::<Vec<_>>());
    assert_eq!(locate(&table, &[key(7)]), [NONE]);
    assert_eq!(table.find(key(7)), NONE);
    assert_eq!(table.add(key(100), 0, NOBODY, || unpacked(0)), Added::New(number));
    assert_eq!(table.live(), 100);
}

#[test]
fn churn_does_not_grow_the_index_for_ever() {
    let table = Table::new(1_000);
    for i in 0..200_000 {
        let Added::New(number) = table.add(key(i), 0, NOBODY, || unpacked(0)) else { panic!("series {i}") };
        if i >= 500 {
            let old = locate(&table, &[key(i - 500)])[0];
            assert!(table.entry(old).claim_for_table());
            table.remove(old);
        }
        assert!(number < 1_000);
    }
    assert!(table.bytes() < 1_200_000, "{} bytes", table.bytes());
}

/// A slot whose series is gone has a tag as a key may have it, and no entry to look at.
#[test]
fn a_key_that_looks_like_a_slot_of_who_is_gone_is_unknown_then_known() {
    let table = Table::new(1_000);
    let gone = SeriesKey(u128::from(u32::MAX) << 64);
    for _ in 0..2 {
        assert_eq!((table.find(gone), locate(&table, &[gone])), (NONE, vec![NONE]));
        assert_eq!(table.add(gone, 0, NOBODY, || unpacked(0)), Added::New(0));
        assert_eq!((table.find(gone), locate(&table, &[gone])), (0, vec![0]));
        assert!(table.entry(0).claim_for_table());
        table.remove(0);
    }
}

#[test]
fn an_old_view_notices_what_is_gone() {
    let table = Table::new(1_000);
    table.add(key(1), 0, NOBODY, || unpacked(0));
    let old = table.view();
    let number = locate(&table, &[key(1)])[0];
    assert!(table.entry(number).claim_for_table());
    table.remove(number);
    table.add(key(2), 0, NOBODY, || unpacked(0));
    let mut found = Vec::new();
    table.locate(&old, &[key(1)], Way::default(), &mut found);
    assert_eq!(found[0].number, NONE);
}

#[test]
fn threads_that_add_the_same_series_agree() {
    let table = Table::new(50_000);
    let found: Vec<Vec<u32>> = std::thread::scope(|scope| {
        let workers: Vec<_> = (0..4)
            .map(|_| {
                scope.spawn(|| {
                    (0..20_000)
                        .map(|i| match table.add(key(i), 0, NOBODY, || unpacked(0)) {
                            Added::New(n) | Added::Known(n) => n,
                            Added::Full => NONE,
                        })
                        .collect()
                })
            })
            .collect();
        workers.into_iter().map(|w| w.join().unwrap()).collect()
    });
    assert!(found.windows(2).all(|w| w[0] == w[1]));
    assert_eq!(table.live(), 20_000);
}
