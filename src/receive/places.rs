//! The places for connections: how many there may be, of all senders and of one address.
//!
//! Owns the bounds, what file descriptors allow included. Queues nobody: a connection without a place is closed.

use crate::config::ReceiveConfig;
use crate::telemetry::LimitHits;
use prometheus::IntCounter;
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use std::collections::HashMap;
use std::net::{IpAddr, Ipv6Addr};
use std::sync::{Arc, Mutex, PoisonError};

/// Fewer than this are not served, whatever file descriptors allow: then `accept` will fail now and then.
const CONNECTIONS_LEAST: usize = 16;

#[derive(Debug, Clone)]
pub(super) struct Places(Arc<Shared>);

#[derive(Debug)]
struct Shared {
    max: usize,
    per_address_max: Option<usize>,
    taken: Mutex<Taken>,
    hit: IntCounter,
    per_address_hit: IntCounter,
}

#[derive(Debug, Default)]
struct Taken {
    all: usize,
    /// Kept only if there is a bound.
    by_address: HashMap<IpAddr, usize>,
}

impl Places {
    pub(super) fn new(config: &ReceiveConfig, limits: &LimitHits) -> Self {
        let files = files_allowed();
        let allowed = files.saturating_sub(config.files_reserved).max(CONNECTIONS_LEAST);
        if allowed < config.connections_max {
            tracing::warn!(
                connections_max = allowed,
                wanted = config.connections_max,
                files,
                "file descriptors allow fewer connections than configured"
            );
        }
        Self(Arc::new(Shared {
            max: config.connections_max.min(allowed),
            per_address_max: config.connections_per_address_max,
            taken: Mutex::default(),
            hit: limits.of("connections"),
            per_address_hit: limits.of("connections_per_address"),
        }))
    }

    /// A place for a connection from there, if there is one.
    pub(super) fn take(&self, address: IpAddr) -> Option<Place> {
        let mut taken = self.0.taken.lock().unwrap_or_else(PoisonError::into_inner);
        if taken.all >= self.0.max {
            self.0.hit.inc();
            return None;
        }
        let address = self.0.per_address_max.map(|_| network(address));
        if let (Some(max), Some(address)) = (self.0.per_address_max, address) {
            let of_it = taken.by_address.entry(address).or_default();
            if *of_it >= max {
                self.0.per_address_hit.inc();
                return None;
            }
            *of_it += 1;
        }
        taken.all += 1;
        Some(Place { places: self.clone(), address })
    }

    /// A connection that had a place finds no thread that takes it.
    pub(super) fn refuse(&self) {
        self.0.hit.inc();
    }
}

/// The place of one connection, given back when dropped.
#[derive(Debug)]
pub(super) struct Place {
    places: Places,
    address: Option<IpAddr>,
}

impl Drop for Place {
    fn drop(&mut self) {
        let mut taken = self.places.0.taken.lock().unwrap_or_else(PoisonError::into_inner);
        taken.all -= 1;
        if let Some(address) = self.address
            && let Some(of_it) = taken.by_address.get_mut(&address)
        {
            *of_it -= 1;
            if *of_it == 0 {
                taken.by_address.remove(&address);
            }
        }
    }
}

/// Whom an address stands for. Whoever has one address of IPv6 has the 2^64 around it.
fn network(address: IpAddr) -> IpAddr {
    match address.to_canonical() {
        IpAddr::V6(address) => Ipv6Addr::from_bits(address.to_bits() >> 64 << 64).into(),
        v4 @ IpAddr::V4(_) => v4,
    }
}

/// How many files this process may have open, after raising that to what it may raise it to.
fn files_allowed() -> usize {
    let Rlimit { current, maximum } = getrlimit(Resource::Nofile);
    let raised =
        current != maximum && setrlimit(Resource::Nofile, Rlimit { current: maximum, maximum }).is_ok();
    let allowed = if raised { maximum } else { current };
    allowed.map_or(usize::MAX, |allowed| usize::try_from(allowed).unwrap_or(usize::MAX))
}

#[cfg(test)]
mod tests {
    use super::*;
    use prometheus::Registry;

    fn places(max: usize, per_address_max: Option<usize>) -> Places {
        let limits = LimitHits::new(&Registry::new()).expect("metrics");
        Places(Arc::new(Shared {
            max,
            per_address_max,
            taken: Mutex::default(),
            hit: limits.of("connections"),
            per_address_hit: limits.of("connections_per_address"),
        }))
    }

    fn at(address: &str) -> IpAddr {
        address.parse().expect("an address")
    }

    #[test]
    fn places_are_bounded_and_given_back() {
        let places = places(2, None);
        let first = places.take(at("10.0.0.1")).expect("a place");
        let _second = places.take(at("10.0.0.1")).expect("a place");
        assert!(places.take(at("10.0.0.2")).is_none());
        drop(first);
        assert!(places.take(at("10.0.0.2")).is_some());
        assert_eq!((places.0.hit.get(), places.0.per_address_hit.get()), (1, 0));
        assert!(places.0.taken.lock().expect("a lock").by_address.is_empty(), "nobody asked for these");
    }

    #[test]
    fn an_address_has_places_of_its_own() {
        let places = places(100, Some(2));
        let taken: Vec<_> = ["10.0.0.1", "::ffff:10.0.0.1", "2001:db8::1", "2001:db8::ffff:2"]
            .map(|address| places.take(at(address)).expect("a place"))
            .into();
        for address in ["10.0.0.1", "2001:db8::3"] {
            assert!(places.take(at(address)).is_none(), "{address}");
        }
        assert!(places.take(at("10.0.0.2")).is_some());
        assert!(places.take(at("2001:db8:0:1::1")).is_some(), "the next /64");
        assert_eq!((places.0.hit.get(), places.0.per_address_hit.get()), (0, 2));
        drop(taken);
        let left = places.0.taken.lock().expect("a lock");
        assert_eq!((left.all, left.by_address.len()), (0, 0));
    }
}
