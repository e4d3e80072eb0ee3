//! CONFIG: what the operator asked for, parsed into types, one sub-struct a room.
//!
//! The only reader of the environment. Collects every mistake before it refuses. Starts nothing, binds nothing.

mod coordination;
mod credentials;
mod flags;
mod grants;
mod names;
mod reader;
mod tls;
mod values;
mod variables;

pub use coordination::{
    CoordinationConfig, Database, PEER_TOKEN_MIN_BYTES, PeerSecrets, PeerToken, PeerTokenError,
};
pub use credentials::{Credentials, CredentialsError, Scheme};
pub use flags::Settings;
pub use grants::{AuthConfig, GrantsError, LineProblem, OidcConfig, Passwords, Tokens};
pub(crate) use reader::compressed_max_bytes;
pub use tls::{ClientTls, Identity, Part, ServerTls, TlsFault, TlsProblem};
pub use variables::{VARIABLES, Variable};

pub use crate::wire::Protocol;
use http::{HeaderName, HeaderValue, Uri};
use std::ffi::OsString;
use std::fmt;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

/// What is done with what the senders bring.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Mode {
    /// It becomes one stream.
    #[default]
    Dedup,
    /// It goes on as it came, and what would be saved is measured.
    Observe,
}

impl Mode {
    /// As the variable has it.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Dedup => "dedup",
            Self::Observe => "observe",
        }
    }
}

/// Exit code of a configuration that is refused (`EX_USAGE` of sysexits.h).
pub const EXIT_MISCONFIGURED: u8 = 64;

/// Everything the operator can choose. Has no default as a whole: there is no upstream to guess.
#[derive(Debug, Clone)]
pub struct Config {
    /// RECEIVE: the listener of the senders.
    pub receive: ReceiveConfig,
    /// IDENTITY: which labels name what.
    pub series: SeriesConfig,
    /// WINDOW and the rules that depend on times.
    pub window: WindowConfig,
    /// FORWARD: the upstream.
    pub forward: ForwardConfig,
    /// ADMIN: metrics and probes.
    pub admin: AdminConfig,
    /// TELEMETRY: logs.
    pub telemetry: TelemetryConfig,
    /// PLACEMENT: how several instances share the groups out; `None`: this one serves all that comes.
    pub coordination: Option<CoordinationConfig>,
}

/// What RECEIVE needs.
#[derive(Debug, Clone)]
pub struct ReceiveConfig {
    /// Address of the remote-write listener.
    pub listen: SocketAddr,
    /// Whether requests are deduplicated or go on as they came.
    pub mode: Mode,
    /// TLS of that listener; `None`: none.
    pub tls: Option<ServerTls>,
    /// Who may write.
    pub auth: AuthConfig,
    /// Header that names the tenant.
    pub tenant_header: HeaderName,
    /// Largest request after decompression, bytes.
    pub body_max_bytes: usize,
    /// Memory of all requests being served, bytes.
    pub in_flight_max_bytes: usize,
    /// How long the head of a request, its body, or a handshake may take.
    pub request_timeout: Duration,
    /// Most connections at one time.
    pub connections_max: usize,
    /// Most connections of one address at one time; `None`: no bound.
    pub connections_per_address_max: Option<usize>,
    /// How long a connection may be without a request.
    pub idle_timeout: Duration,
    /// File descriptors that connections must leave to the other rooms.
    pub files_reserved: usize,
    /// How long everything is still served once the process was asked to end.
    pub drain_lead: Duration,
    /// How long requests in flight may take after that.
    pub drain_timeout: Duration,
    /// Data-plane threads.
    pub workers: usize,
}

impl ReceiveConfig {
    /// What the largest request takes, as it came, decompressed, and rewritten, if that is more than all together may take; bytes.
    #[must_use]
    pub fn alone_above(&self) -> Option<usize> {
        let largest = 2 * self.body_max_bytes + compressed_max_bytes(self.body_max_bytes);
        (largest > self.in_flight_max_bytes).then_some(largest)
    }
}

/// What IDENTITY needs, and which labels a series may have. Names are valid, none is `__name__`, none repeats; replica labels are no
/// more than [`crate::series::REPLICA_NAMES_MAX`].
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SeriesConfig {
    /// Replica labels in order of precedence.
    pub replica_labels: Vec<String>,
    /// Labels that name an HA group.
    pub group_labels: Vec<String>,
    /// Labels that, with tenant and group, name a target.
    pub target_labels: Vec<String>,
    /// Most labels of a series.
    pub labels_max: usize,
    /// Longest name of a label, bytes.
    pub label_name_max_bytes: usize,
    /// Longest value of a label, bytes.
    pub label_value_max_bytes: usize,
}

/// What WINDOW and PIPELINE need.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct WindowConfig {
    /// Bound of the table, series.
    pub series_max: usize,
    /// An entry unseen that long may be forgotten.
    pub idle: Duration,
    /// How long a fresh window holds a group it meets for the first time; zero switches waiting off.
    pub first_contact_hold: Duration,
    /// How far ahead of the clock a sample may be.
    pub future_max: Duration,
    /// Out-of-order window of the upstream.
    pub out_of_order_window: Duration,
    /// Largest request after decompression, bytes (as in [`ReceiveConfig`]).
    pub body_max_bytes: usize,
}

/// What FORWARD needs.
#[derive(Debug, Clone)]
pub struct ForwardConfig {
    /// Absolute `http://` or `https://` address.
    pub url: Uri,
    /// What the upstream takes.
    pub protocol: Protocol,
    /// Bound of one attempt, waiting for a connection included.
    pub timeout: Duration,
    /// Most attempts at one time.
    pub connections_max: usize,
    /// Header that carries the tenant (as in [`ReceiveConfig`]).
    pub tenant_header: HeaderName,
    /// Headers added to every attempt.
    pub headers: Vec<(HeaderName, HeaderValue)>,
    /// How TLS is spoken, if the address is `https://`.
    pub tls: ClientTls,
    /// Where the `Authorization` of the upstream comes from.
    pub credentials: Option<Credentials>,
    /// How many pools of connections, one a thread that sends: the data-plane threads and the admin thread.
    pub pools: usize,
}

/// What ADMIN needs.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AdminConfig {
    /// Address of metrics and probes.
    pub listen: SocketAddr,
    /// Who may see them, but for the probes, which anybody may; `None`: anybody.
    pub passwords: Option<PathBuf>,
    /// What the process does, to be shown (as in [`ReceiveConfig`]).
    pub mode: Mode,
    /// The upstream counts as gone after twice this without a success.
    pub upstream_timeout: Duration,
}

/// What TELEMETRY needs.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TelemetryConfig {
    /// A filter that `tracing_subscriber` takes.
    pub filter: String,
    /// How a line looks.
    pub format: LogFormat,
}

/// How a log line looks.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum LogFormat {
    /// For people.
    Text,
    /// One JSON object a line.
    Json,
}

impl Config {
    /// Reads flags (they win) and environment.
    ///
    /// # Errors
    /// All mistakes at once, in the order of [`VARIABLES`], unknown names last.
    pub fn parse(
        flags: &Settings,
        environment: impl IntoIterator<Item = (OsString, OsString)>,
    ) -> Result<Self, ConfigError> {
        reader::Reader::new(flags, environment).config()
    }

    /// Only where the admin page listens. The rest may be wrong by now: a process that runs keeps what it has read.
    ///
    /// # Errors
    /// When that is no address.
    pub fn admin_listen(
        flags: &Settings,
        environment: impl IntoIterator<Item = (OsString, OsString)>,
    ) -> Result<SocketAddr, ConfigError> {
        reader::Reader::new(flags, environment).admin_listen()
    }

    /// Only whether all names are known, for a command that heeds no setting of the proxy: a typo is one all the same.
    ///
    /// # Errors
    /// All names that are not.
    pub fn check_names(
        environment: impl IntoIterator<Item = (OsString, OsString)>,
    ) -> Result<(), ConfigError> {
        reader::Reader::new(&Settings::default(), environment).check_names()
    }

    /// Reads `(variable, value)` pairs as if they were the whole environment.
    ///
    /// # Errors
    /// As [`Config::parse`].
    pub fn from_pairs<'a>(pairs: impl IntoIterator<Item = (&'a str, &'a str)>) -> Result<Self, ConfigError> {
        Self::parse(&Settings::default(), pairs.into_iter().map(|(name, value)| (name.into(), value.into())))
    }
}

/// The environment of this process: to be handed to [`Config::parse`] by `main` and by nobody else.
#[expect(clippy::disallowed_methods, reason = "this is the one place that reads the environment")]
pub fn process_environment() -> impl Iterator<Item = (OsString, OsString)> {
    std::env::vars_os()
}

/// Why a configuration is refused.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{} configuration mistake(s):{}", .mistakes.len(), List(.mistakes))]
pub struct ConfigError {
    /// Never empty.
    pub mistakes: Vec<Mistake>,
}

/// One thing to correct.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Mistake {
    /// The variable.
    pub variable: String,
    /// What it was given, secrets blotted out; `None`: it was not given.
    pub given: Option<String>,
    /// What is wrong with that.
    pub problem: String,
    /// What would be right.
    pub expected: String,
    /// What to do.
    pub way_out: String,
}

impl fmt::Display for Mistake {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.variable)?;
        if let Some(given) = &self.given {
            write!(f, "={given:?}")?;
        }
        write!(f, ": {}; expected {}; {}", self.problem, self.expected, self.way_out)
    }
}

struct List<'a>(&'a [Mistake]);

impl fmt::Display for List<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|mistake| write!(f, "\n  {mistake}"))
    }
}
