//! The table: lookups take no lock while others add, remove and let the index grow.
//!
//! Refuses to know flights.

use super::super::entry::{Marks, NOBODY, Unpacked};
use super::super::table::{Added, NONE, Table, Way};
use super::*;
use crate::policy::Series;

fn unpacked() -> Unpacked {
    Unpacked { series: Series::new(A), target: 0, marks: Marks::default() }
}

fn add(table: &Table, key: u128) -> Added {
    table.add(SeriesKey(key), 0, NOBODY, unpacked)
}

fn locate(table: &Table, key: u128) -> u32 {
    let mut found = Vec::new();
    table.locate(&table.view(), &[SeriesKey(key)], Way::default(), &mut found);
    found[0].number
}

fn with(series_max: usize, keys: &[u128]) -> Arc<Table> {
    let table = Arc::new(Table::new(series_max));
    for (i, key) in keys.iter().enumerate() {
        assert_eq!(add(&table, *key), Added::New(i as u32));
    }
    table
}

fn on<T: 'static>(table: &Arc<Table>, step: impl FnOnce(&Table) -> T + 'static) -> JoinHandle<T> {
    let table = Arc::clone(table);
    spawn(move || step(&table))
}

#[test]
fn two_that_add_one_series_make_one_entry() {
    check(3, &["mine", "the other's"], |seen| {
        let table = with(4, &[]);
        let other = on(&table, |table| add(table, 9));
        let mine = add(&table, 9);
        let other = other.join().unwrap();
        match (mine, other) {
            (Added::New(new), Added::Known(known)) => assert_eq!(new, known, "mine"),
            (Added::Known(known), Added::New(new)) => assert_eq!(new, known, "the other's"),
            both => panic!("{both:?}"),
        }
        seen.note(if matches!(mine, Added::New(_)) { "mine" } else { "the other's" });
        assert_eq!((table.live(), table.find(SeriesKey(9))), (1, 0));
        assert!(table.entry(0).is(SeriesKey(9)));
    });
}

#[test]
fn two_that_add_two_series_at_the_bound_take_one_number() {
    check(3, &[], |_| {
        let table = with(1, &[]);
        let other = on(&table, |table| add(table, 8));
        let both = [add(&table, 9), other.join().unwrap()];
        assert_eq!(both.iter().filter(|added| **added == Added::Full).count(), 1, "{both:?}");
        assert_eq!(table.live(), 1);
    });
}

#[test]
fn what_is_known_is_found_while_the_index_grows() {
    check(3, &["new and found", "new and not yet there"], |seen| {
        let table = with(4, &[1]);
        // Two slots, then three, then four.
        let writer = on(&table, |table| {
            assert_eq!((add(table, 2), add(table, 3)), (Added::New(1), Added::New(2)));
        });
        assert_eq!(locate(&table, 1), 0);
        match locate(&table, 3) {
            NONE => seen.note("new and not yet there"),
            number => {
                seen.note("new and found");
                assert_eq!(number, 2);
                assert!(table.entry(number).is(SeriesKey(3)));
                assert_eq!(table.entry(number).guard().flight(), NOBODY, "found before it was written");
            }
        }
        assert_eq!(table.find(SeriesKey(1)), 0);
        writer.join().unwrap();
        assert_eq!([1, 2, 3].map(|key| locate(&table, key)), [0, 1, 2]);
    });
}

#[test]
fn what_is_known_is_found_while_its_neighbour_goes() {
    check(2, &[], |_| {
        // All three begin at the first slot, so the chain to 3 leads over 1 and 2.
        let table = with(4, &[1, 2, 3]);
        let writer = on(&table, |table| {
            assert!(table.entry(0).claim_for_table());
            table.remove(0);
            assert_eq!(add(table, 4), Added::New(0));
        });
        assert_eq!(locate(&table, 3), 2);
        assert_eq!(table.find(SeriesKey(2)), 1);
        writer.join().unwrap();
        assert_eq!([1, 2, 3, 4].map(|key| locate(&table, key)), [NONE, 1, 2, 0]);
    });
}

#[test]
fn a_lookup_does_not_take_a_number_used_again_for_the_series_before() {
    check(3, &["found", "gone"], |seen| {
        let table = with(4, &[1]);
        let view = table.view();
        let writer = on(&table, |table| {
            assert!(table.entry(0).claim_for_table());
            table.remove(0);
            assert_eq!(add(table, 1 << 64), Added::New(0));
        });
        let mut found = Vec::new();
        table.locate(&view, &[SeriesKey(1), SeriesKey(1 << 64)], Way::default(), &mut found);
        seen.note(if found[0].number == 0 { "found" } else { "gone" });
        writer.join().unwrap();
        table.locate(&view, &[SeriesKey(1)], Way::default(), &mut found);
        assert_eq!(found[0].number, NONE);
        assert_eq!(locate(&table, 1 << 64), 0);
    });
}

#[test]
fn a_series_that_is_found_by_the_one_before_it_is_the_one_that_was_meant() {
    check(3, &["the new one", "nobody yet"], |seen| {
        let table = with(4, &[1, 2]);
        let mut found = Vec::new();
        table.locate(&table.view(), &[SeriesKey(1), SeriesKey(2)], Way::default(), &mut found);
        let writer = on(&table, |table| {
            assert!(table.entry(1).claim_for_table());
            table.remove(1);
            let other = || Unpacked { target: 7, ..unpacked() };
            assert_eq!(table.add(SeriesKey(3), 0, NOBODY, other), Added::New(1));
        });
        // Where the one before says that its follower is, there is another one now, or soon.
        table.locate(&table.view(), &[SeriesKey(1), SeriesKey(3)], Way::default(), &mut found);
        if found[1].number == NONE {
            seen.note("nobody yet");
        } else {
            seen.note("the new one");
            assert_eq!((found[1].number, found[1].target), (1, 7), "found before it was written");
        }
        writer.join().unwrap();
    });
}
