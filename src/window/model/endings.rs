//! Numbers of flights: who waits for an end is woken, and told of his flight and no other of the same number.
//!
//! Refuses to know entries.

use super::super::slot::{FlightId, Slots};
use super::*;

fn wait(slots: &Arc<Slots>, flight: FlightId) -> JoinHandle<bool> {
    let slots = Arc::clone(slots);
    spawn(move || block_on(slots.ended(flight)))
}

#[test]
fn who_waits_is_woken_with_the_outcome_of_his_flight_though_its_number_is_used_again() {
    for first_well in [true, false] {
        check(3, &[], move |_| {
            let slots = Arc::new(Slots::new(1));
            let first = slots.begin().unwrap();
            let waiter = wait(&slots, first);
            slots.end(first, first_well);
            let second = slots.begin().unwrap();
            slots.end(second, !first_well);
            assert_eq!(waiter.join().unwrap(), first_well);
        });
    }
}

#[test]
fn who_waits_for_whatever_has_a_number_is_woken_with_that_ones_outcome() {
    check(3, &["first", "second", "late"], |seen| {
        let slots = Arc::new(Slots::new(1));
        let first = slots.begin().unwrap();
        let landed = Arc::new(std::sync::atomic::AtomicBool::new(false));
        let waiter = {
            let (slots, landed) = (Arc::clone(&slots), Arc::clone(&landed));
            spawn(move || {
                let flight = slots.current(1);
                // What it found may be a flight that never begins, and never ends.
                (!landed.load(SeqCst)).then(|| (flight, block_on(slots.ended(flight))))
            })
        };
        slots.end(first, true);
        let second = slots.begin().unwrap();
        landed.store(true, SeqCst);
        slots.end(second, false);
        match waiter.join().unwrap() {
            Some((flight, well)) => {
                assert_eq!(well, flight == first);
                seen.note(if flight == first { "first" } else { "second" });
            }
            None => seen.note("late"),
        }
    });
}

#[test]
fn a_flight_does_not_inherit_the_departure_of_the_one_before() {
    check(3, &["first", "second"], |seen| {
        let slots = Arc::new(Slots::new(1));
        let first = slots.begin().unwrap();
        let reader = {
            let slots = Arc::clone(&slots);
            spawn(move || (slots.current(1), slots.has_departed(1)))
        };
        slots.depart(first);
        slots.end(first, true);
        let second = slots.begin().unwrap();
        let (flight, departed) = reader.join().unwrap();
        seen.note(if flight == first { "first" } else { "second" });
        assert!(flight == first || !departed, "the second has not departed");
        assert_eq!(slots.current(1), second);
    });
}

#[test]
fn a_number_is_one_flights_at_a_time() {
    check(3, &["both", "one at the bound"], |seen| {
        let slots = Arc::new(Slots::new(1));
        let alone = Arc::new(Alone::default());
        let fly = |slots: &Slots, alone: &Alone| {
            let flight = slots.begin()?;
            alone.enter();
            assert_eq!(slots.current(flight.slot), flight);
            alone.leave();
            slots.end(flight, true);
            Some(flight)
        };
        let other = {
            let (slots, alone) = (Arc::clone(&slots), Arc::clone(&alone));
            spawn(move || fly(&slots, &alone))
        };
        let mine = fly(&slots, &alone);
        let other = other.join().unwrap();
        assert!(mine.is_some() || other.is_some());
        assert_ne!(mine, other, "one generation twice");
        seen.note(if mine.is_some() && other.is_some() { "both" } else { "one at the bound" });
    });
}
