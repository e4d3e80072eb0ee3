//! Admission: how much memory all requests together may take. Queues nobody: who does not fit is told to come back. Whoever is alone
//! is served, however much it is: nobody else would make room for it.

use super::metrics::Metrics;
use crate::telemetry::LimitHits;
use prometheus::{IntCounter, IntGauge};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use tokio::sync::Notify;

#[derive(Debug, Clone)]
pub(super) struct Admission {
    shared: Arc<Shared>,
}

#[derive(Debug)]
struct Shared {
    max_bytes: usize,
    bytes: AtomicUsize,
    requests: AtomicU64,
    none_left: Notify,
    bytes_gauge: IntGauge,
    requests_gauge: IntGauge,
    hit: IntCounter,
}

/// There is no room for so many bytes more.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("no memory for {wanted} bytes more: {taken} of {max} bytes are taken by requests being served")]
pub(super) struct Full {
    wanted: usize,
    taken: usize,
    max: usize,
}

impl Admission {
    pub(super) fn new(max_bytes: usize, metrics: &Metrics, limits: &LimitHits) -> Self {
        let shared = Shared {
            max_bytes,
            bytes: AtomicUsize::new(0),
            requests: AtomicU64::new(0),
            none_left: Notify::new(),
            bytes_gauge: metrics.in_flight_bytes.clone(),
            requests_gauge: metrics.in_flight_requests.clone(),
            hit: limits.of("in_flight"),
        };
        Self { shared: Arc::new(shared) }
    }

    /// Admits a request of so many bytes, to begin with.
    pub(super) fn admit(&self, bytes: usize) -> Result<Admitted, Full> {
        self.shared.requests.fetch_add(1, Ordering::AcqRel);
        self.shared.requests_gauge.inc();
        // Made before the bytes are asked for, so that a refusal takes the request back.
        let mut admitted = Admitted { shared: Arc::clone(&self.shared), bytes: 0 };
        admitted.grow(bytes)?;
        Ok(admitted)
    }

    pub(super) fn requests(&self) -> u64 {
        self.shared.requests.load(Ordering::Acquire)
    }

    /// Ends when no request is left.
    pub(super) async fn idle(&self) {
        loop {
            let mut none_left = std::pin::pin!(self.shared.none_left.notified());
            none_left.as_mut().enable();
            if self.requests() == 0 {
                return;
            }
            none_left.await;
        }
    }
}

/// The place of one request, given back when dropped.
#[derive(Debug)]
pub(super) struct Admitted {
    shared: Arc<Shared>,
    bytes: usize,
}

impl Admitted {
    pub(super) fn bytes(&self) -> usize {
        self.bytes
    }

    /// Gives back what is reserved beyond so many bytes.
    pub(super) fn shrink_to(&mut self, bytes: usize) {
        let given_back = self.bytes.saturating_sub(bytes);
        self.bytes -= given_back;
        self.shared.bytes.fetch_sub(given_back, Ordering::AcqRel);
        self.shared.bytes_gauge.sub(given_back as i64);
    }

    /// Reserves so many bytes more.
    pub(super) fn grow(&mut self, wanted: usize) -> Result<(), Full> {
        let (max, own) = (self.shared.max_bytes, self.bytes);
        let fits = |taken: usize| taken.checked_add(wanted).filter(|all| *all <= max || taken == own);
        match self.shared.bytes.fetch_update(Ordering::AcqRel, Ordering::Acquire, fits) {
            Ok(_) => {
                self.bytes += wanted;
                self.shared.bytes_gauge.add(wanted as i64);
                Ok(())
            }
            Err(taken) => {
                self.shared.hit.inc();
                Err(Full { wanted, taken, max })
            }
        }
    }
}

impl Drop for Admitted {
    fn drop(&mut self) {
        self.shared.bytes.fetch_sub(self.bytes, Ordering::AcqRel);
        self.shared.bytes_gauge.sub(self.bytes as i64);
        self.shared.requests_gauge.dec();
        if self.shared.requests.fetch_sub(1, Ordering::AcqRel) == 1 {
            self.shared.none_left.notify_waiters();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use prometheus::Registry;

    fn of(max_bytes: usize) -> Admission {
        let registry = Registry::new();
        let metrics = Metrics::new(&registry).expect("metrics");
        Admission::new(max_bytes, &metrics, &LimitHits::new(&registry).expect("limits"))
    }

    #[test]
    fn what_does_not_fit_is_refused_and_leaves_nothing_behind() {
        let admission = of(100);
        let mut first = admission.admit(60).expect("fits");
        assert_eq!(admission.admit(41).expect_err("does not fit"), Full { wanted: 41, taken: 60, max: 100 });
        assert_eq!(admission.requests(), 1);
        assert_eq!(admission.shared.hit.get(), 1);
        let second = admission.admit(1).expect("fits");
        first.grow(39).expect("fits");
        assert!(first.grow(1).is_err());
        assert!(first.grow(usize::MAX).is_err(), "no overflow");
        drop(second);
        assert_eq!(admission.shared.bytes_gauge.get(), 99);
        first.shrink_to(10);
        first.shrink_to(11);
        assert_eq!((admission.shared.bytes_gauge.get(), first.bytes()), (10, 10));
        assert!(admission.admit(90).is_ok());
        drop(first);
        assert_eq!((admission.shared.bytes_gauge.get(), admission.requests()), (0, 0));
        admission.admit(100).expect("all of it is free again");
    }

    /// Or what is larger than the bound would be told to come back for ever.
    #[test]
    fn who_is_alone_is_admitted() {
        let admission = of(100);
        let mut alone = admission.admit(101).expect("nobody else");
        alone.grow(1_000).expect("nobody else");
        assert!(admission.admit(1).is_err());
        drop(alone);
        let (mut first, second) = (admission.admit(60).expect("fits"), admission.admit(1).expect("fits"));
        assert!(first.grow(40).is_err());
        drop(second);
        first.grow(40).expect("nobody else any more");
        first.grow(usize::MAX).expect_err("no overflow");
    }

    #[tokio::test]
    async fn idle_waits_for_the_last_request() {
        let admission = of(10);
        let (first, second) = (admission.admit(1), admission.admit(1));
        let idle = tokio::spawn({
            let admission = admission.clone();
            async move { admission.idle().await }
        });
        tokio::task::yield_now().await;
        drop(first);
        tokio::task::yield_now().await;
        assert!(!idle.is_finished());
        drop(second);
        idle.await.expect("ends");
    }
}
