//! Flights by number: who is in the air, how it ended, and waiting for the end.
//!
//! A flight has a slot (the number that claimed entries carry) and a generation (so that a number used again is not
//! mistaken for the one before). Refuses to know what a flight carries.

use super::sync::{AtomicBool, AtomicU64, Event, EventListener, Mutex};
use std::collections::VecDeque;
use std::sync::PoisonError;
use std::sync::atomic::Ordering::*;

/// One flight, for ever.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct FlightId {
    pub(super) slot: u16,
    generation: u32,
}

/// All slots. Their number bounds the requests that are decided or in the air at once.
#[derive(Debug)]
pub(super) struct Slots {
    slots: Box<[Slot]>,
    /// First in, first out, so that a number rests as long as possible before it is used again.
    free: Mutex<VecDeque<u16>>,
}

#[derive(Debug, Default)]
struct Slot {
    /// High half: the generation in the air. Low half: how the 32 before it ended, the latest in bit 0 (1 = well).
    state: AtomicU64,
    /// What it has reserved is on its way, or about to be; until then it may give all up again.
    departed: AtomicBool,
    ended: Event,
}

impl Slots {
    pub(super) fn new(flights_max: u16) -> Self {
        Self {
            slots: (0..=flights_max).map(|_| Slot::default()).collect(),
            free: Mutex::new((1..=flights_max).collect()),
        }
    }

    /// A flight, or `None` when as many as may are in the air.
    pub(super) fn begin(&self) -> Option<FlightId> {
        let slot = self.free.lock().unwrap_or_else(PoisonError::into_inner).pop_front()?;
        Some(FlightId { slot, generation: self.generation(slot) })
    }

    /// The flight is going to be sent.
    pub(super) fn depart(&self, flight: FlightId) {
        self.slots[usize::from(flight.slot)].departed.store(true, Release);
    }

    /// Whether the flight that has a slot now is being sent.
    pub(super) fn has_departed(&self, slot: u16) -> bool {
        self.slots[usize::from(slot)].departed.load(Acquire)
    }

    /// Ends a flight. Its entries must have been released before, or whoever waited would find them claimed still.
    pub(super) fn end(&self, flight: FlightId, well: bool) {
        let slot = &self.slots[usize::from(flight.slot)];
        let state = slot.state.load(Relaxed);
        let generation = u64::from(flight.generation.wrapping_add(1)) << 32;
        let history = u64::from((state as u32) << 1 | u32::from(well));
        slot.departed.store(false, Relaxed);
        slot.state.store(generation | history, Release);
        slot.ended.notify(usize::MAX);
        self.free.lock().unwrap_or_else(PoisonError::into_inner).push_back(flight.slot);
    }

    /// The flight that has a slot now.
    pub(super) fn current(&self, slot: u16) -> FlightId {
        FlightId { slot, generation: self.generation(slot) }
    }

    /// Waits for the end of a flight: whether it ended well. One whose end lies too far back counts as failed, which
    /// costs a retry and loses nothing.
    pub(super) async fn ended(&self, flight: FlightId) -> bool {
        loop {
            if let Some(well) = self.outcome(flight) {
                return well;
            }
            let listener: EventListener = self.slots[usize::from(flight.slot)].ended.listen();
            if let Some(well) = self.outcome(flight) {
                return well;
            }
            listener.await;
        }
    }

    /// How a flight ended; `None`: it is in the air. One whose end lies too far back counts as failed.
    pub(super) fn outcome(&self, flight: FlightId) -> Option<bool> {
        let state = self.slots[usize::from(flight.slot)].state.load(Acquire);
        let ago = ((state >> 32) as u32).wrapping_sub(flight.generation);
        (ago != 0).then(|| ago <= 32 && state >> (ago - 1) & 1 == 1)
    }

    fn generation(&self, slot: u16) -> u32 {
        (self.slots[usize::from(slot)].state.load(Acquire) >> 32) as u32
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_end_of_a_flight_is_remembered_for_32_generations() {
        let slots = Slots::new(1);
        let first = slots.begin().unwrap();
        assert_eq!(slots.outcome(first), None);
        assert_eq!(slots.begin(), None);
        slots.end(first, true);
        for i in 0..40 {
            assert_eq!(slots.outcome(first), Some(i < 32), "{i} flights later");
            let next = slots.begin().unwrap();
            assert_eq!(slots.outcome(next), None);
            slots.end(next, false);
            assert_eq!(slots.outcome(next), Some(false));
        }
    }

    #[tokio::test]
    async fn waiters_wake_with_the_outcome() {
        let slots = std::sync::Arc::new(Slots::new(4));
        for well in [true, false] {
            let flight = slots.begin().unwrap();
            let waiters: Vec<_> = (0..3)
                .map(|_| {
                    let slots = slots.clone();
                    tokio::spawn(async move { slots.ended(flight).await })
                })
                .collect();
            tokio::task::yield_now().await;
            slots.end(flight, well);
            for waiter in waiters {
                assert_eq!(waiter.await.unwrap(), well);
            }
        }
    }
}
