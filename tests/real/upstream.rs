//! Where the single stream goes: the embedded stand-in for Thanos Receive, or a real Prometheus that receives.

use crate::prometheus::Prometheus;
use crate::verdict::Series;
use promdedup::stand_in::Labels;
use promdedup::stand_in::thanos::{DEFAULT_TENANT, Fault, Options, Thanos};

pub(crate) enum Upstream {
    Thanos(Thanos),
    Prometheus(Prometheus),
}

impl Upstream {
    pub(crate) async fn thanos() -> Self {
        // Not 127.0.0.1, where the system could give its port to somebody else while it is down.
        let options = Options { listen: "127.0.0.2:0".parse().expect("an address"), ..Options::default() };
        Self::Thanos(Thanos::start_with(options).await.expect("started"))
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
            Self::Thanos(thanos) => {
                let mut stored = thanos.stored(DEFAULT_TENANT);
                // What a replica's API does not tell either.
                let histograms = stored.values_mut().flatten().filter(|point| point.histogram);
                histograms.for_each(|point| point.bits = 0);
                stored
            }
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

    /// Nobody listens any more.
    pub(crate) async fn go_down(&self) {
        self.stand_in().go_down().await;
    }

    /// It listens again, but cannot store.
    pub(crate) async fn come_back_unwell(&self) {
        self.stand_in().inject(Fault::status(503));
        self.stand_in().come_back().await.expect("the same port");
    }

    /// It stores again.
    pub(crate) fn recover(&self) {
        self.stand_in().heal();
    }

    fn stand_in(&self) -> &Thanos {
        match self {
            Self::Thanos(thanos) => thanos,
            Self::Prometheus(_) => panic!("only the stand-in can be told to fail"),
        }
    }

    /// What a clean stream would not have contained, in words; exemplars may repeat after a change of owner.
    ///
    /// `repeats`: a proxy was killed, so what was stored but not answered came again, also from the other replica. That is refused, and
    /// the stored stream is as it should be.
    pub(crate) async fn complaints(&self, repeats: bool) -> Vec<String> {
        match self {
            Self::Thanos(thanos) => {
                let seen = thanos.violations();
                let repeated = seen.duplicate_identical + seen.duplicate_timestamp + seen.out_of_order;
                let bad = seen.of_samples() + seen.duplicate_identical - if repeats { repeated } else { 0 };
                if bad == 0 { Vec::new() } else { vec![format!("{seen:?}")] }
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
