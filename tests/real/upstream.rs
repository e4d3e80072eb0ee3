//! Where the single stream goes: the embedded stand-in for Thanos Receive, or a real Prometheus that receives.

use crate::prometheus::Prometheus;
use crate::verdict::Series;
use promdedup::stand_in::Labels;
use promdedup::stand_in::thanos::{DEFAULT_TENANT, Thanos};

pub(crate) enum Upstream {
    Thanos(Thanos),
    Prometheus(Prometheus),
}

impl Upstream {
    pub(crate) async fn thanos() -> Self {
        Self::Thanos(Thanos::start().await.expect("started"))
    }

    pub(crate) async fn prometheus() -> Self {
        const RECEIVES: &[&str] =
            &["--web.enable-remote-write-receiver", "--enable-feature=exemplar-storage"];
        let configuration = "global: {scrape_interval: 1m}\n";
        Self::Prometheus(Prometheus::start("the receiver", configuration, RECEIVES).await)
    }

    pub(crate) fn name(&self) -> &'static str {
        match self {
            Self::Thanos(_) => "the stand-in for Thanos Receive",
            Self::Prometheus(_) => "a real Prometheus",
        }
    }

    pub(crate) fn url(&self) -> String {
        match self {
            Self::Thanos(thanos) => thanos.url(),
            Self::Prometheus(prometheus) => prometheus.url("/api/v1/write"),
        }
    }

    /// All that arrived; a Prometheus does not show stale markers.
    pub(crate) async fn stored(&self) -> Series {
        match self {
            Self::Thanos(thanos) => thanos.stored(DEFAULT_TENANT),
            Self::Prometheus(prometheus) => prometheus.samples().await,
        }
    }

    /// When the newest sample of a series is from, by wall clock of its scrape.
    pub(crate) async fn newest_ms(&self, series: &Labels) -> Option<i64> {
        let stored = match self {
            Self::Thanos(thanos) => {
                let pairs: Vec<(&str, &str)> = series.iter().collect();
                thanos.samples_of(&pairs)
            }
            Self::Prometheus(prometheus) => {
                let mut found = prometheus.matrix(&format!("{series}[1m]")).await;
                found.remove(series).unwrap_or_default()
            }
        };
        stored.last().map(|point| point.at_ms)
    }

    /// Samples stored in all, stale markers included.
    pub(crate) async fn samples(&self) -> f64 {
        match self {
            #[expect(clippy::cast_precision_loss, reason = "far fewer")]
            Self::Thanos(thanos) => thanos.totals().samples as f64,
            Self::Prometheus(prometheus) => {
                prometheus.metrics().await.sum("prometheus_tsdb_head_samples_appended_total", &[])
            }
        }
    }

    /// Exemplars stored.
    pub(crate) async fn exemplars(&self) -> f64 {
        match self {
            #[expect(clippy::cast_precision_loss, reason = "far fewer")]
            Self::Thanos(thanos) => thanos.totals().exemplars as f64,
            Self::Prometheus(prometheus) => {
                prometheus.metrics().await.sum("prometheus_tsdb_exemplar_exemplars_appended_total", &[])
            }
        }
    }

    /// What a clean stream would not have contained, in words; exemplars may repeat after a change of owner.
    pub(crate) async fn complaints(&self) -> Vec<String> {
        match self {
            Self::Thanos(thanos) => {
                let seen = thanos.violations();
                let clean = seen.of_samples() + seen.duplicate_identical == 0;
                if clean { Vec::new() } else { vec![format!("{seen:?}")] }
            }
            Self::Prometheus(prometheus) => {
                let metrics = prometheus.metrics().await;
                let names =
                    ["out_of_order_samples_total", "out_of_bound_samples_total", "too_old_samples_total"];
                let counts = names.map(|name| (name, metrics.sum(&format!("prometheus_tsdb_{name}"), &[])));
                counts.iter().filter(|(_, count)| *count > 0.0).map(|one| format!("{one:?}")).collect()
            }
        }
    }
}
