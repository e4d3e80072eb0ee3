//! The reader: takes flags and environment apart, and collects mistakes until the end.

mod coordination;
mod security;

use super::variables as var;
use super::variables::{VARIABLES, Variable};
use super::{
    AdminConfig, Config, ConfigError, ForwardConfig, Mistake, ReceiveConfig, Scheme, SeriesConfig, Settings,
    TelemetryConfig, WindowConfig, names, values,
};
use http::HeaderName;
use std::collections::BTreeMap;
use std::ffi::{OsStr, OsString};
use std::net::SocketAddr;
use std::time::Duration;

const FUTURE_MAX: Duration = Duration::from_secs(3600);
const UPSTREAM_TIMEOUT_END: Duration = Duration::from_secs(30);
const WINDOW_IDLE_MIN: Duration = Duration::from_secs(1);
const FIRST_CONTACT_HOLD_MAX: Duration = Duration::from_secs(300);
const IDLE_TIMEOUT_MIN: Duration = Duration::from_secs(1);
const DRAIN_LEAD_MAX: Duration = Duration::from_secs(300);
const CONNECTIONS_MOST: usize = 1_000_000;
/// For the admin listener, files that are read again, and whatever the system's libraries open.
const FILES_RESERVED: usize = 192;
const BODY_MIN_BYTES: usize = 1 << 10;
const BODY_MAX_BYTES: usize = 1 << 30;
/// Below these, what every Prometheus exposes of itself would be refused.
const LABELS_LEAST: usize = 16;
const LABEL_LEAST_BYTES: usize = 128;

const NOT_UTF8: &str = "not UTF-8";

/// What was given, and what is wrong with it so far.
pub(super) struct Reader {
    given: BTreeMap<&'static str, String>,
    mistakes: Vec<Mistake>,
}

impl Reader {
    pub(super) fn new(flags: &Settings, environment: impl IntoIterator<Item = (OsString, OsString)>) -> Self {
        let mut reader = Self { given: BTreeMap::new(), mistakes: Vec::new() };
        for (name, value) in environment {
            let spelt = name.to_string_lossy();
            if !names::claims_to_be_ours(&spelt) {
                continue;
            }
            match Variable::named(&spelt) {
                Some(variable) if flags.get(variable.name).is_none() => reader.take(variable, &value),
                Some(_) => {}
                None if name.to_str().is_some_and(names::is_injected_by_kubernetes) => {}
                None => reader.unknown(&spelt, &value),
            }
        }
        for variable in VARIABLES {
            if let Some(value) = flags.get(variable.name) {
                reader.take(variable, value);
            }
        }
        reader
    }

    pub(super) fn config(mut self) -> Result<Config, ConfigError> {
        let forward = self.forward();
        let receive = self.receive();
        let series = self.series();
        let window = self.window();
        let admin = self.admin();
        let telemetry = self.telemetry();
        let coordination = self.coordination();
        self.compare(receive.as_ref(), admin.as_ref(), forward.as_ref());
        if !self.mistakes.is_empty() {
            return Err(self.into_error());
        }
        match (receive, series, window, forward, admin, telemetry) {
            (
                Some(mut receive),
                Some(series),
                Some(window),
                Some(mut forward),
                Some(admin),
                Some(telemetry),
            ) => {
                forward.pools = receive.workers + 1;
                receive.files_reserved += forward.connections_max;
                Ok(Config { receive, series, window, forward, admin, telemetry, coordination })
            }
            _ => Err(self.into_error()),
        }
    }

    /// Of all that was given only where the admin page listens, for who asks it something: mistakes elsewhere are not theirs.
    pub(super) fn admin_listen(mut self) -> Result<SocketAddr, ConfigError> {
        self.mistakes.retain(|mistake| mistake.variable == var::ADMIN_LISTEN);
        match self.read(var::ADMIN_LISTEN, values::address) {
            Some(address) if self.mistakes.is_empty() => Ok(address),
            _ => Err(self.into_error()),
        }
    }

    /// Of all that was given only the names.
    pub(super) fn check_names(mut self) -> Result<(), ConfigError> {
        self.mistakes.retain(|mistake| Variable::named(&mistake.variable).is_none());
        if self.mistakes.is_empty() { Ok(()) } else { Err(self.into_error()) }
    }

    fn into_error(mut self) -> ConfigError {
        let place = |mistake: &Mistake| VARIABLES.iter().position(|known| known.name == mistake.variable);
        self.mistakes.sort_by_key(|mistake| place(mistake).unwrap_or(usize::MAX));
        ConfigError { mistakes: self.mistakes }
    }

    fn receive(&mut self) -> Option<ReceiveConfig> {
        let listen = self.read(var::LISTEN, values::address);
        let mode = self.read(var::MODE, values::mode);
        let (tls, auth) = (self.server_tls(), self.auth());
        let tenant_header = self.tenant_header();
        let body_max_bytes = self.body_max_bytes();
        let in_flight_max_bytes = self.read(var::IN_FLIGHT_MAX, in_flight_max);
        let request_timeout = self.read(var::REQUEST_TIMEOUT, above_zero);
        let connections_max =
            self.read(var::CONNECTIONS_MAX, |text| values::number(text, 1, CONNECTIONS_MOST));
        let per_address =
            self.read(var::CONNECTIONS_PER_ADDRESS_MAX, |text| values::number(text, 0, CONNECTIONS_MOST));
        let idle_timeout =
            self.read(var::IDLE_TIMEOUT, |text| at_least(values::duration(text)?, IDLE_TIMEOUT_MIN));
        let drain_lead = self.read(var::DRAIN_LEAD, |text| at_most(values::duration(text)?, DRAIN_LEAD_MAX));
        let drain_timeout = self.read(var::DRAIN_TIMEOUT, values::duration);
        let workers = match self.given.get(var::WORKERS) {
            Some(_) => self.read(var::WORKERS, |text| values::number(text, 1, 1024)),
            None => Some(cores_granted()),
        };
        Some(ReceiveConfig {
            listen: listen?,
            mode: mode?,
            tls,
            auth,
            tenant_header: tenant_header?,
            body_max_bytes: body_max_bytes?,
            in_flight_max_bytes: in_flight_max_bytes?,
            request_timeout: request_timeout?,
            connections_max: connections_max?,
            connections_per_address_max: per_address.map(|most| (most > 0).then_some(most))?,
            idle_timeout: idle_timeout?,
            files_reserved: FILES_RESERVED,
            drain_lead: drain_lead?,
            drain_timeout: drain_timeout?,
            workers: workers?,
        })
    }

    fn series(&mut self) -> Option<SeriesConfig> {
        let replica_labels = self.read(var::REPLICA_LABELS, values::replica_labels);
        let group_labels = self.read(var::GROUP_LABELS, values::labels);
        let target_labels = self.read(var::TARGET_LABELS, values::labels);
        let both = [(var::GROUP_LABELS, &group_labels), (var::TARGET_LABELS, &target_labels)];
        for (name, labels) in both {
            let replica = replica_labels.iter().flatten();
            let repeated =
                replica.into_iter().find(|label| labels.iter().flatten().any(|each| each == *label));
            if let Some(label) = repeated {
                let problem = format!("{label} is a replica label too, and replica labels are removed");
                self.mistake(name, problem, Some(format!("take it out here or of {}", var::REPLICA_LABELS)));
            }
        }
        let labels_max = self.read(var::LABELS_MAX, |text| values::number(text, LABELS_LEAST, 1_000_000));
        let label_name_max_bytes = self.read(var::LABEL_NAME_MAX, label_max);
        let label_value_max_bytes = self.read(var::LABEL_VALUE_MAX, label_max);
        Some(SeriesConfig {
            replica_labels: replica_labels?,
            group_labels: group_labels?,
            target_labels: target_labels?,
            labels_max: labels_max?,
            label_name_max_bytes: label_name_max_bytes?,
            label_value_max_bytes: label_value_max_bytes?,
        })
    }

    fn window(&mut self) -> Option<WindowConfig> {
        let series_max = self.read(var::WINDOW_SERIES_MAX, |text| values::number(text, 1, 1_000_000_000));
        let idle = self.read(var::WINDOW_IDLE, |text| at_least(values::duration(text)?, WINDOW_IDLE_MIN));
        let first_contact_hold = self
            .read(var::FIRST_CONTACT_HOLD, |text| at_most(values::duration(text)?, FIRST_CONTACT_HOLD_MAX));
        let future_max = self.read(var::FUTURE_MAX, |text| at_most(above_zero(text)?, FUTURE_MAX));
        let out_of_order_window = self.read(var::OUT_OF_ORDER_WINDOW, values::duration);
        let body_max_bytes = self.once(var::BODY_MAX, body_max);
        Some(WindowConfig {
            series_max: series_max?,
            idle: idle?,
            first_contact_hold: first_contact_hold?,
            future_max: future_max?,
            out_of_order_window: out_of_order_window?,
            body_max_bytes: body_max_bytes?,
        })
    }

    fn forward(&mut self) -> Option<ForwardConfig> {
        let url = self.read(var::UPSTREAM_URL, values::upstream_url);
        let protocol = self.read(var::UPSTREAM_PROTOCOL, values::protocol);
        let timeout = self.upstream_timeout();
        let connections_max =
            self.read(var::UPSTREAM_CONNECTIONS_MAX, |text| values::number(text, 1, 65_536));
        let tenant_header = self.once(var::TENANT_HEADER, values::tenant_header);
        let headers = match self.given.contains_key(var::UPSTREAM_HEADERS) {
            true => self.read(var::UPSTREAM_HEADERS, values::headers),
            false => Some(Vec::new()),
        };
        let tls = self.client_tls(url.as_ref());
        let basic = self.credentials(var::UPSTREAM_BASIC_FILE, Scheme::Basic);
        let bearer = self.credentials(var::UPSTREAM_BEARER_FILE, Scheme::Bearer);
        if basic.is_some() && bearer.is_some() {
            let problem = format!("{} is given too", var::UPSTREAM_BASIC_FILE);
            self.mistake(var::UPSTREAM_BEARER_FILE, problem, Some("leave one of them out".to_owned()));
        }
        Some(ForwardConfig {
            url: url?,
            protocol: protocol?,
            timeout: timeout?,
            connections_max: connections_max?,
            tenant_header: tenant_header?,
            headers: headers?,
            tls,
            credentials: basic.or(bearer),
            pools: 1,
        })
    }

    fn admin(&mut self) -> Option<AdminConfig> {
        let listen = self.read(var::ADMIN_LISTEN, values::address);
        let upstream_timeout = self.once(var::UPSTREAM_TIMEOUT, upstream_timeout);
        let mode = self.once(var::MODE, values::mode);
        let passwords = self.passwords(var::ADMIN_BASIC_FILE);
        Some(AdminConfig { listen: listen?, passwords, mode: mode?, upstream_timeout: upstream_timeout? })
    }

    fn telemetry(&mut self) -> Option<TelemetryConfig> {
        let filter = self.read(var::LOG, values::log_filter);
        let format = self.read(var::LOG_FORMAT, values::log_format);
        Some(TelemetryConfig { filter: filter?, format: format? })
    }

    /// Checks that need more than one room's part.
    fn compare(
        &mut self,
        receive: Option<&ReceiveConfig>,
        admin: Option<&AdminConfig>,
        forward: Option<&ForwardConfig>,
    ) {
        if let (Some(receive), Some(admin)) = (receive, admin)
            && collide(receive.listen, admin.listen)
        {
            let problem = format!("the same port as {}, {}", var::LISTEN, receive.listen);
            self.mistake(var::ADMIN_LISTEN, problem, Some("choose another port".to_owned()));
        }
        if let Some(forward) = forward
            && forward.headers.iter().any(|(name, _)| *name == forward.tenant_header)
        {
            let problem = format!("{} is the tenant header", forward.tenant_header);
            self.mistake(var::UPSTREAM_HEADERS, problem, Some("take it out".to_owned()));
        }
    }

    fn tenant_header(&mut self) -> Option<HeaderName> {
        self.read(var::TENANT_HEADER, values::tenant_header)
    }

    fn body_max_bytes(&mut self) -> Option<usize> {
        self.read(var::BODY_MAX, body_max)
    }

    fn upstream_timeout(&mut self) -> Option<Duration> {
        self.read(var::UPSTREAM_TIMEOUT, upstream_timeout)
    }

    /// Parses what was given, or the default.
    fn read<T>(
        &mut self,
        name: &'static str,
        parse: impl FnOnce(&str) -> Result<T, values::Wrong>,
    ) -> Option<T> {
        let default = Variable::named(name).map_or("", |variable| variable.default);
        let given = self.given.get(name).map(String::as_str);
        if given.is_none() && default.is_empty() {
            self.mistake(name, "it is required".to_owned(), Some("set it, or its flag".to_owned()));
            return None;
        }
        match parse(given.unwrap_or(default)) {
            Ok(value) => Some(value),
            Err(problem) => {
                self.mistake(name, problem, None);
                None
            }
        }
    }

    /// As `read`, for a second room that needs the same value: the mistake was noted by the first.
    fn once<T>(&self, name: &'static str, parse: impl FnOnce(&str) -> Result<T, values::Wrong>) -> Option<T> {
        let default = Variable::named(name).map_or("", |variable| variable.default);
        parse(self.given.get(name).map_or(default, String::as_str)).ok()
    }

    fn take(&mut self, variable: &'static Variable, value: &OsStr) {
        match value.to_str() {
            // An empty value of a variable that has no default is how manifests say "not set".
            Some("") if variable.default.is_empty() => {}
            Some(text) => {
                self.given.insert(variable.name, text.to_owned());
            }
            None => {
                self.given.insert(variable.name, value.to_string_lossy().into_owned());
                self.mistake(variable.name, NOT_UTF8.to_owned(), None);
            }
        }
    }

    fn unknown(&mut self, name: &str, value: &OsStr) {
        let way_out = match names::nearest(name) {
            Some(nearest) => format!("did you mean {nearest}?"),
            None => "take it out; promdedup --help lists all".to_owned(),
        };
        self.mistakes.push(Mistake {
            variable: name.to_owned(),
            given: Some(values::shown(name, &value.to_string_lossy())),
            problem: "no such variable".to_owned(),
            expected: "a name from promdedup --help".to_owned(),
            way_out,
        });
    }

    fn mistake(&mut self, name: &'static str, problem: String, way_out: Option<String>) {
        // What else may be wrong with what is no text cannot be known.
        if self.mistakes.iter().any(|mistake| mistake.variable == name && mistake.problem == NOT_UTF8) {
            return;
        }
        let variable = Variable::named(name);
        let default = variable.map_or("", |variable| variable.default);
        let way_out = way_out.unwrap_or_else(|| match default {
            "" => "correct it or leave it out".to_owned(),
            default => format!("correct it or leave it out for {default}"),
        });
        self.mistakes.push(Mistake {
            variable: name.to_owned(),
            given: self.given.get(name).map(|given| values::shown(name, given)),
            problem,
            expected: variable.map_or("", |variable| variable.form).to_owned(),
            way_out,
        });
    }
}

/// The largest snappy block that decompresses to so many bytes (as in snappy's own `MaxCompressedLength`).
pub(crate) fn compressed_max_bytes(raw_bytes: usize) -> usize {
    32 + raw_bytes + raw_bytes / 6
}

/// Two listeners on one port collide unless both are bound to different addresses; port 0 is any free one.
fn collide(a: SocketAddr, b: SocketAddr) -> bool {
    let overlap = a.ip() == b.ip() || a.ip().is_unspecified() || b.ip().is_unspecified();
    a.port() != 0 && a.port() == b.port() && overlap
}

/// Counts the quota of the cgroup and the affinity of the process, not the machine.
fn cores_granted() -> usize {
    std::thread::available_parallelism().map_or(1, usize::from)
}

fn body_max(text: &str) -> Result<usize, values::Wrong> {
    match values::size_bytes(text)? {
        size if size < BODY_MIN_BYTES => Err("below 1KiB".to_owned()),
        size if size > BODY_MAX_BYTES => Err("above 1GiB".to_owned()),
        size => Ok(size),
    }
}

fn in_flight_max(text: &str) -> Result<usize, values::Wrong> {
    match values::size_bytes(text)? {
        0 => Err("zero".to_owned()),
        size => Ok(size),
    }
}

fn label_max(text: &str) -> Result<usize, values::Wrong> {
    match values::size_bytes(text)? {
        size if size < LABEL_LEAST_BYTES => Err(format!("below {LABEL_LEAST_BYTES}B")),
        size if size > BODY_MAX_BYTES => Err("above 1GiB".to_owned()),
        size => Ok(size),
    }
}

fn upstream_timeout(text: &str) -> Result<Duration, values::Wrong> {
    match above_zero(text)? {
        timeout if timeout >= UPSTREAM_TIMEOUT_END => {
            Err("not below 30s, after which Prometheus gives up".to_owned())
        }
        timeout => Ok(timeout),
    }
}

fn above_zero(text: &str) -> Result<Duration, values::Wrong> {
    match values::duration(text)? {
        Duration::ZERO => Err("zero".to_owned()),
        duration => Ok(duration),
    }
}

fn at_most(duration: Duration, most: Duration) -> Result<Duration, values::Wrong> {
    if duration > most {
        return Err(format!("above {}", humantime::format_duration(most)));
    }
    Ok(duration)
}

fn at_least(duration: Duration, least: Duration) -> Result<Duration, values::Wrong> {
    if duration < least {
        return Err(format!("below {}", humantime::format_duration(least)));
    }
    Ok(duration)
}
