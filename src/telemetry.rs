//! TELEMETRY: log lines, and the metric family that every room with a bound shares. Knows no room.

mod refusals;
mod throttle;

pub use refusals::{Refusal, Refusals};

use crate::config::{LogFormat, TelemetryConfig};
use prometheus::{IntCounter, IntCounterVec, Opts, Registry};
use std::backtrace::{Backtrace, BacktraceStatus};
use std::io::IsTerminal;
use std::sync::OnceLock;
use throttle::Throttle;
use tracing_subscriber::layer::SubscriberExt;
use tracing_subscriber::util::{SubscriberInitExt, TryInitError};
use tracing_subscriber::{EnvFilter, fmt};

/// Why logging cannot begin.
#[derive(Debug, thiserror::Error)]
pub enum TelemetryError {
    /// The filter is not one.
    #[error("the log filter is not valid: {0}")]
    Filter(#[from] tracing_subscriber::filter::ParseError),
    /// Something else of this process logs already.
    #[error("logging is set up already: {0}")]
    Twice(#[from] TryInitError),
}

/// Writes log lines to stderr from now on, panics included.
///
/// # Errors
/// When the filter is invalid, or logging has been set up before.
pub fn start(config: &TelemetryConfig) -> Result<(), TelemetryError> {
    let filtered = tracing_subscriber::registry().with(EnvFilter::try_new(&config.filter)?);
    let filtered = filtered.with(Throttle::default());
    let lines = fmt::layer().with_ansi(std::io::stderr().is_terminal()).with_writer(std::io::stderr);
    match config.format {
        LogFormat::Text => filtered.with(lines).try_init()?,
        LogFormat::Json => filtered.with(lines.json().flatten_event(true)).try_init()?,
    }
    std::panic::set_hook(Box::new(|panic| {
        let thread = std::thread::current();
        let text = panic.payload_as_str().unwrap_or("(no text)");
        let place = panic.location().map(ToString::to_string).unwrap_or_default();
        let trace = Backtrace::capture();
        let trace = (trace.status() == BacktraceStatus::Captured).then(|| trace.to_string());
        tracing::error!(thread = thread.name(), place, trace, "panic: {text}");
    }));
    Ok(())
}

/// Counts log lines that are left out. Of the first registry of the process: a process has one log.
static LINES_LEFT_OUT: OnceLock<IntCounter> = OnceLock::new();

/// `promdedup_limit_hit_total`: how often each bound was hit.
#[derive(Debug, Clone)]
pub struct LimitHits(IntCounterVec);

impl LimitHits {
    /// Registers the family.
    ///
    /// # Errors
    /// When the registry has that name already.
    pub fn new(registry: &Registry) -> prometheus::Result<Self> {
        let options = Opts::new("promdedup_limit_hit_total", "How often a bound was hit.");
        let family = IntCounterVec::new(options, &["limit"])?;
        registry.register(Box::new(family.clone()))?;
        LINES_LEFT_OUT.get_or_init(|| family.with_label_values(&["log_lines"]));
        Ok(Self(family))
    }

    /// The counter of one bound, to be resolved once and kept.
    #[must_use]
    pub fn of(&self, limit: &'static str) -> IntCounter {
        self.0.with_label_values(&[limit])
    }
}
