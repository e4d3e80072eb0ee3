//! The list of variables: names, defaults, forms and meanings. Flags, help, README and parsing all hang on it.

/// One variable, which is a flag too.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Variable {
    /// Name in the environment.
    pub name: &'static str,
    /// Value when it is not given; empty: none.
    pub default: &'static str,
    /// The form of a value, for error messages.
    pub form: &'static str,
    /// What it does, for help and README.
    pub meaning: &'static str,
}

impl Variable {
    /// Its flag, without the dashes: `PROMDEDUP_UPSTREAM_URL` is `upstream-url`.
    #[must_use]
    pub fn flag(&self) -> String {
        self.name.trim_start_matches(PREFIX).to_ascii_lowercase().replace('_', "-")
    }

    /// The variable of that name.
    #[must_use]
    pub fn named(name: &str) -> Option<&'static Self> {
        VARIABLES.iter().find(|variable| variable.name == name)
    }
}

pub(super) const PREFIX: &str = "PROMDEDUP_";

pub(super) const UPSTREAM_URL: &str = "PROMDEDUP_UPSTREAM_URL";
pub(super) const LISTEN: &str = "PROMDEDUP_LISTEN";
pub(super) const ADMIN_LISTEN: &str = "PROMDEDUP_ADMIN_LISTEN";
pub(super) const ADMIN_BASIC_FILE: &str = "PROMDEDUP_ADMIN_BASIC_FILE";
pub(super) const MODE: &str = "PROMDEDUP_MODE";
pub(super) const REPLICA_LABELS: &str = "PROMDEDUP_REPLICA_LABELS";
pub(super) const GROUP_LABELS: &str = "PROMDEDUP_GROUP_LABELS";
pub(super) const TARGET_LABELS: &str = "PROMDEDUP_TARGET_LABELS";
pub(super) const TENANT_HEADER: &str = "PROMDEDUP_TENANT_HEADER";
pub(super) const UPSTREAM_PROTOCOL: &str = "PROMDEDUP_UPSTREAM_PROTOCOL";
pub(super) const UPSTREAM_TIMEOUT: &str = "PROMDEDUP_UPSTREAM_TIMEOUT";
pub(super) const UPSTREAM_CONNECTIONS_MAX: &str = "PROMDEDUP_UPSTREAM_CONNECTIONS_MAX";
pub(super) const UPSTREAM_HEADERS: &str = "PROMDEDUP_UPSTREAM_HEADERS";
pub(super) const UPSTREAM_TLS_CA_FILE: &str = "PROMDEDUP_UPSTREAM_TLS_CA_FILE";
pub(super) const UPSTREAM_TLS_CERT_FILE: &str = "PROMDEDUP_UPSTREAM_TLS_CERT_FILE";
pub(super) const UPSTREAM_TLS_KEY_FILE: &str = "PROMDEDUP_UPSTREAM_TLS_KEY_FILE";
pub(super) const UPSTREAM_BASIC_FILE: &str = "PROMDEDUP_UPSTREAM_BASIC_FILE";
pub(super) const UPSTREAM_BEARER_FILE: &str = "PROMDEDUP_UPSTREAM_BEARER_FILE";
pub(super) const TLS_CERT_FILE: &str = "PROMDEDUP_TLS_CERT_FILE";
pub(super) const TLS_KEY_FILE: &str = "PROMDEDUP_TLS_KEY_FILE";
pub(super) const TLS_CLIENT_CA_FILE: &str = "PROMDEDUP_TLS_CLIENT_CA_FILE";
pub(super) const AUTH_BASIC_FILE: &str = "PROMDEDUP_AUTH_BASIC_FILE";
pub(super) const AUTH_BEARER_FILE: &str = "PROMDEDUP_AUTH_BEARER_FILE";
pub(super) const AUTH_OIDC_ISSUER: &str = "PROMDEDUP_AUTH_OIDC_ISSUER";
pub(super) const AUTH_OIDC_AUDIENCE: &str = "PROMDEDUP_AUTH_OIDC_AUDIENCE";
pub(super) const AUTH_OIDC_TENANT_CLAIM: &str = "PROMDEDUP_AUTH_OIDC_TENANT_CLAIM";
pub(super) const AUTH_OIDC_CA_FILE: &str = "PROMDEDUP_AUTH_OIDC_CA_FILE";
pub(super) const WINDOW_SERIES_MAX: &str = "PROMDEDUP_WINDOW_SERIES_MAX";
pub(super) const WINDOW_IDLE: &str = "PROMDEDUP_WINDOW_IDLE";
pub(super) const FIRST_CONTACT_HOLD: &str = "PROMDEDUP_FIRST_CONTACT_HOLD";
pub(super) const FUTURE_MAX: &str = "PROMDEDUP_FUTURE_MAX";
pub(super) const OUT_OF_ORDER_WINDOW: &str = "PROMDEDUP_OUT_OF_ORDER_WINDOW";
pub(super) const BODY_MAX: &str = "PROMDEDUP_BODY_MAX";
pub(super) const LABELS_MAX: &str = "PROMDEDUP_LABELS_MAX";
pub(super) const LABEL_NAME_MAX: &str = "PROMDEDUP_LABEL_NAME_MAX";
pub(super) const LABEL_VALUE_MAX: &str = "PROMDEDUP_LABEL_VALUE_MAX";
pub(super) const IN_FLIGHT_MAX: &str = "PROMDEDUP_IN_FLIGHT_MAX";
pub(super) const REQUEST_TIMEOUT: &str = "PROMDEDUP_REQUEST_TIMEOUT";
pub(super) const CONNECTIONS_MAX: &str = "PROMDEDUP_CONNECTIONS_MAX";
pub(super) const CONNECTIONS_PER_ADDRESS_MAX: &str = "PROMDEDUP_CONNECTIONS_PER_ADDRESS_MAX";
pub(super) const IDLE_TIMEOUT: &str = "PROMDEDUP_IDLE_TIMEOUT";
pub(super) const DRAIN_LEAD: &str = "PROMDEDUP_DRAIN_LEAD";
pub(super) const DRAIN_TIMEOUT: &str = "PROMDEDUP_DRAIN_TIMEOUT";
pub(super) const COORDINATION_URL: &str = "PROMDEDUP_COORDINATION_URL";
pub(super) const COORDINATION_CA_FILE: &str = "PROMDEDUP_COORDINATION_CA_FILE";
pub(super) const ADVERTISE_URL: &str = "PROMDEDUP_ADVERTISE_URL";
pub(super) const PEER_TOKEN_FILE: &str = "PROMDEDUP_PEER_TOKEN_FILE";
pub(super) const PEER_CA_FILE: &str = "PROMDEDUP_PEER_CA_FILE";
pub(super) const PEER_TLS_SERVER_NAME: &str = "PROMDEDUP_PEER_TLS_SERVER_NAME";
pub(super) const WORKERS: &str = "PROMDEDUP_WORKERS";
pub(super) const LOG: &str = "PROMDEDUP_LOG";
pub(super) const LOG_FORMAT: &str = "PROMDEDUP_LOG_FORMAT";

const DURATION: &str = "a duration with its unit, such as 250ms, 15s or 2m";
const SIZE: &str = "a size with its unit, such as 512KiB or 32MiB";
const LABEL_SIZE: &str = "a size from 128B to 1GiB, such as 64KiB";
const LABELS: &str = "label names separated by commas, such as cluster,prometheus";
const TARGET: &str = "label names separated by commas, such as job,instance";
const REPLICA_NAMES: &str =
    "at most 8 label names separated by commas, such as prometheus_replica,__replica__";
const ADDRESS: &str = "an IP address and a port, such as 0.0.0.0:19290 or [::]:19290";
const CERTIFICATE: &str = "a readable PEM file with a certificate, followed by those that sign it";
const KEY: &str = "a readable PEM file with the private key of the certificate, not encrypted";
const HTPASSWD: &str = "a readable file of htpasswd lines with bcrypt hashes (htpasswd -B)";
const AUTHORITIES: &str = "a readable PEM file with certificates of authorities";

/// Every variable there is, in the order of the help text.
pub const VARIABLES: &[Variable] = &[
    known(
        UPSTREAM_URL,
        "",
        "an address such as http://thanos-receive:19291/api/v1/receive, or https://",
        "Where the one stream goes: the remote-write endpoint of Thanos Receive. Required",
    ),
    known(LISTEN, "0.0.0.0:19290", ADDRESS, "Address that Prometheus replicas write to"),
    known(
        ADMIN_LISTEN,
        "0.0.0.0:19299",
        ADDRESS,
        "Address of /metrics and of the probes, served by a thread of its own",
    ),
    known(
        ADMIN_BASIC_FILE,
        "",
        HTPASSWD,
        "Users and passwords for the admin address, /-/healthy and /-/ready left out; read again when it changes",
    ),
    known(
        MODE,
        "dedup",
        "dedup or observe",
        "`observe` passes everything on as it came, and only measures what `dedup` would save",
    ),
    known(
        REPLICA_LABELS,
        "prometheus_replica,__replica__",
        REPLICA_NAMES,
        "Labels that tell replicas apart; the first one a series has counts, and is removed",
    ),
    known(GROUP_LABELS, "cluster,prometheus", LABELS, "Labels whose values name an HA group"),
    known(TARGET_LABELS, "job,instance", TARGET, "Labels that, with tenant and group, name a scrape target"),
    known(
        TENANT_HEADER,
        "THANOS-TENANT",
        "the name of an HTTP header",
        "Header that names the tenant: passed on, and part of what a series is. Without it there is one tenant",
    ),
    known(
        UPSTREAM_PROTOCOL,
        "1.0",
        "1.0 or 2.0",
        "Version of remote write that the upstream takes; `2.0` only if it is known to: one that does not answers 200 and discards everything",
    ),
    known(
        UPSTREAM_TIMEOUT,
        "10s",
        "a duration above zero and below 30s, such as 10s",
        "Bound of one attempt at the upstream; Prometheus itself gives up after 30s",
    ),
    known(
        UPSTREAM_CONNECTIONS_MAX,
        "128",
        "a number from 1 to 65536",
        "Most attempts at the upstream at one time",
    ),
    known(
        UPSTREAM_HEADERS,
        "",
        "pairs such as X-Zone: a,X-Rack: 7",
        "Headers added to every attempt, as `Name: value`, separated by commas",
    ),
    known(
        UPSTREAM_TLS_CA_FILE,
        "",
        AUTHORITIES,
        "Who signs the upstream's certificate, for https://; without it the public authorities that Mozilla trusts. Read again when it changes",
    ),
    known(
        UPSTREAM_TLS_CERT_FILE,
        "",
        CERTIFICATE,
        "Certificate that is shown to an https:// upstream; read again when it changes",
    ),
    known(UPSTREAM_TLS_KEY_FILE, "", KEY, "Its private key"),
    known(
        UPSTREAM_BASIC_FILE,
        "",
        "a readable file that holds user:password",
        "File with `user:password` for the upstream; read again when it changes",
    ),
    known(
        UPSTREAM_BEARER_FILE,
        "",
        "a readable file that holds a token",
        "File with a bearer token for the upstream; read again when it changes",
    ),
    known(
        TLS_CERT_FILE,
        "",
        CERTIFICATE,
        "Certificate chain of the remote-write listener, which then speaks TLS only; read again when it changes and on SIGHUP",
    ),
    known(TLS_KEY_FILE, "", KEY, "Its private key; read again likewise"),
    known(
        TLS_CLIENT_CA_FILE,
        "",
        AUTHORITIES,
        "Senders have to show a certificate that one of these authorities has signed; read again likewise",
    ),
    known(
        AUTH_BASIC_FILE,
        "",
        HTPASSWD,
        "Users and passwords of senders, as lines of htpasswd (bcrypt only); read again when it changes",
    ),
    known(
        AUTH_BEARER_FILE,
        "",
        "a readable file of one token a line, or a token and a tenant",
        "Bearer tokens of senders, one a line; `token tenant` is good for that tenant only. Read again when it changes",
    ),
    known(
        AUTH_OIDC_ISSUER,
        "",
        "an address such as https://sso.example.com/realms/monitoring, as the tokens spell it",
        "OpenID provider such as Keycloak whose JSON web tokens are taken as bearer tokens (RS256, ES256, EdDSA)",
    ),
    known(AUTH_OIDC_AUDIENCE, "", "the name of an audience", "Whom its tokens must be for (`aud`)"),
    known(
        AUTH_OIDC_TENANT_CLAIM,
        "",
        "the name of a claim that holds a text",
        "Claim that names the only tenant a token is good for; without it a token is good for any",
    ),
    known(
        AUTH_OIDC_CA_FILE,
        "",
        AUTHORITIES,
        "Who signs the certificate of an https:// provider; without it the public authorities that Mozilla trusts. Read again when it changes",
    ),
    known(
        WINDOW_SERIES_MAX,
        "4000000",
        "a number from 1 to 1000000000",
        "Most series remembered; memory follows use, not this bound",
    ),
    known(
        WINDOW_IDLE,
        "30m",
        "a duration of at least 1s, such as 30m",
        "A series unseen that long may be forgotten",
    ),
    known(
        FIRST_CONTACT_HOLD,
        "6s",
        "a duration of at most 5m, such as 6s",
        "How long a group seen for the first time is answered 503, so that a backlog of another replica shows itself; `0s` switches waiting off",
    ),
    known(
        FUTURE_MAX,
        "10m",
        "a duration above zero and of at most 1h, such as 10m",
        "Samples further ahead of the clock are refused",
    ),
    known(OUT_OF_ORDER_WINDOW, "0s", DURATION, "The out-of-order window that the upstream is set to"),
    known(BODY_MAX, "32MiB", "a size from 1KiB to 1GiB, such as 32MiB", "Largest request, decompressed"),
    known(
        LABELS_MAX,
        "1024",
        "a number from 16 to 1000000",
        "Most labels of a series, the replica label included; one with more is refused, the rest delivered (400)",
    ),
    known(
        LABEL_NAME_MAX,
        "4KiB",
        LABEL_SIZE,
        "Longest name of a label; a series with a longer one is refused like one with too many",
    ),
    known(
        LABEL_VALUE_MAX,
        "256KiB",
        LABEL_SIZE,
        "Longest value of a label; a series with a longer one is refused like one with too many",
    ),
    known(
        IN_FLIGHT_MAX,
        "256MiB",
        SIZE,
        "Memory of all requests being served; above it senders are told to come back (503), but for one that is alone",
    ),
    known(
        REQUEST_TIMEOUT,
        "10s",
        "a duration above zero, such as 10s",
        "The head of a request, its body, or a TLS handshake that takes longer is cut off (a body: 408)",
    ),
    known(
        CONNECTIONS_MAX,
        "8192",
        "a number from 1 to 1000000",
        "Most connections of senders at one time; further ones are closed at once. File descriptors may allow fewer",
    ),
    known(
        CONNECTIONS_PER_ADDRESS_MAX,
        "0",
        "a number from 0 to 1000000, 0 for as many as there are",
        "Of these from one address (IPv6: one /64 network). Behind an ingress all senders have its address: leave it at 0 there",
    ),
    known(
        IDLE_TIMEOUT,
        "5m",
        "a duration of at least 1s, such as 5m",
        "A connection without a request for that long is closed; keep it above that of a proxy in front",
    ),
    known(
        DRAIN_LEAD,
        "0s",
        "a duration of at most 5m, such as 5s",
        "How long everything is still served after SIGTERM while /-/ready says no, so that a load balancer looks elsewhere first",
    ),
    known(DRAIN_TIMEOUT, "20s", DURATION, "How long requests in flight may take after SIGTERM and the lead"),
    known(
        COORDINATION_URL,
        "",
        "an address such as postgres://user:password@db.example.com/promdedup?sslmode=verify-full",
        "PostgreSQL by which several instances share the HA groups out; without it this one serves all that comes",
    ),
    known(
        COORDINATION_CA_FILE,
        "",
        AUTHORITIES,
        "Who signs the certificate of that PostgreSQL; without it the public authorities that Mozilla trusts. Read again at each connection",
    ),
    known(
        ADVERTISE_URL,
        "",
        "an address such as http://10.0.0.7:19290: scheme, host and port",
        "How the other instances reach this one's remote-write listener",
    ),
    known(
        PEER_TOKEN_FILE,
        "",
        "a readable file of one token a line, of at least 16 characters each",
        "Secret between instances: the first line is sent, each is taken. Read again when it changes",
    ),
    known(
        PEER_CA_FILE,
        "",
        AUTHORITIES,
        "Who signs the certificates of the other instances, where these serve TLS; without it the public authorities that Mozilla trusts",
    ),
    known(
        PEER_TLS_SERVER_NAME,
        "",
        "a name of DNS, such as promdedup.thanos.svc, or an IP address",
        "What the certificates of the other instances have to name; without it the host of each one's advertised address",
    ),
    known(WORKERS, "cores granted by the cgroup", "a number from 1 to 1024", "Data-plane threads"),
    known(
        LOG,
        "info",
        "a level (off, error, warn, info, debug, trace) or target=level pairs separated by commas",
        "Which log lines are written",
    ),
    known(LOG_FORMAT, "text", "text or json", "How a log line looks"),
];

const fn known(
    name: &'static str,
    default: &'static str,
    form: &'static str,
    meaning: &'static str,
) -> Variable {
    Variable { name, default, form, meaning }
}
