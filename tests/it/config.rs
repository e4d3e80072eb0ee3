//! The configuration as a whole: every mistake at once, nothing silently ignored.

use clap::{Args, Command, FromArgMatches};
use promdedup::config::{Config, ConfigError, Mode, Scheme, Settings};
use promdedup::wire::labels::LabelBounds;
use std::ffi::OsString;
use std::io::Write;
use std::os::unix::ffi::OsStringExt;
use std::time::Duration;

const URL: (&str, &str) = ("PROMDEDUP_UPSTREAM_URL", "http://thanos:19291/api/v1/receive");

fn with(pairs: &[(&str, &str)]) -> Result<Config, ConfigError> {
    Config::from_pairs([URL].into_iter().chain(pairs.iter().copied()))
}

/// Exactly one mistake, in that variable, whose line holds these words.
fn refused(pairs: &[(&str, &str)], variable: &str, words: &[&str]) {
    let error = with(pairs).expect_err("should be refused");
    assert_eq!(error.mistakes.len(), 1, "{error}");
    assert_eq!(error.mistakes[0].variable, variable, "{error}");
    let line = error.mistakes[0].to_string();
    for word in words {
        assert!(line.contains(word), "{word:?} is not in: {line}");
    }
}

fn flags(arguments: &[&str]) -> Settings {
    let matches = Settings::augment_args(Command::new("x")).try_get_matches_from(arguments).expect("flags");
    Settings::from_arg_matches(&matches).expect("settings")
}

fn pairs(pairs: &[(&str, &str)]) -> Vec<(OsString, OsString)> {
    pairs.iter().map(|(name, value)| (name.into(), value.into())).collect()
}

#[test]
fn defaults_are_those_of_the_table() {
    let config = with(&[]).expect("valid");
    assert_eq!(config.receive.listen.to_string(), "0.0.0.0:19290");
    assert_eq!(config.admin.listen.to_string(), "0.0.0.0:19299");
    assert_eq!((config.receive.mode, config.admin.mode), (Mode::Dedup, Mode::Dedup));
    assert_eq!(config.series.replica_labels, ["prometheus_replica", "__replica__"]);
    assert_eq!(config.series.group_labels, ["cluster", "prometheus"]);
    assert_eq!(config.series.target_labels, ["job", "instance"]);
    assert_eq!(config.receive.tenant_header, "thanos-tenant");
    assert_eq!(config.forward.tenant_header, "thanos-tenant");
    assert_eq!(config.forward.timeout, Duration::from_secs(10));
    assert_eq!(config.forward.connections_max, 128);
    assert_eq!(config.window.series_max, 4_000_000);
    assert_eq!(config.window.idle, Duration::from_secs(1800));
    assert_eq!(config.window.first_contact_hold, Duration::from_secs(6));
    assert_eq!(config.window.future_max, Duration::from_secs(600));
    assert_eq!(config.window.out_of_order_window, Duration::ZERO);
    assert_eq!(config.window.body_max_bytes, 32 << 20);
    assert_eq!(config.receive.body_max_bytes, 32 << 20);
    assert_eq!(config.receive.in_flight_max_bytes, 256 << 20);
    assert_eq!(config.receive.alone_above(), None);
    let labels = LabelBounds {
        labels_max: config.series.labels_max,
        name_bytes_max: config.series.label_name_max_bytes,
        value_bytes_max: config.series.label_value_max_bytes,
    };
    assert_eq!(labels, LabelBounds { labels_max: 1024, name_bytes_max: 4 << 10, value_bytes_max: 256 << 10 });
    assert_eq!(labels, LabelBounds::default());
    assert_eq!(config.receive.request_timeout, Duration::from_secs(10));
    assert_eq!(config.receive.connections_max, 8192);
    assert_eq!(config.receive.connections_per_address_max, None);
    assert_eq!(config.receive.idle_timeout, Duration::from_secs(300));
    assert_eq!(config.receive.files_reserved, 192 + 128);
    assert_eq!(config.receive.drain_lead, Duration::ZERO);
    assert_eq!(config.receive.drain_timeout, Duration::from_secs(20));
    assert_eq!(config.admin.passwords, None);
    assert!(config.receive.workers >= 1);
    assert_eq!(config.forward.pools, config.receive.workers + 1);
    assert_eq!(config.telemetry.filter, "info");
}

#[test]
fn every_mistake_is_reported_at_once() {
    let error = Config::from_pairs([
        ("PROMDEDUP_LISTEN", "nowhere"),
        ("PROMDEDUP_FUTURE_MAX", "2h"),
        ("PROMDEDUP_BODY_MAX", "32"),
        ("PROMDEDUP_REQUEST_TIMEOUT", "15"),
        ("PROMDEDUP_LISTNE", "0.0.0.0:1"),
        ("PROMDEDUP_COORDINATION_URL", "mysql://db/x"),
    ])
    .expect_err("refused");
    let variables: Vec<&str> = error.mistakes.iter().map(|mistake| mistake.variable.as_str()).collect();
    let expected = [
        "PROMDEDUP_UPSTREAM_URL",
        "PROMDEDUP_LISTEN",
        "PROMDEDUP_FUTURE_MAX",
        "PROMDEDUP_BODY_MAX",
        "PROMDEDUP_REQUEST_TIMEOUT",
        "PROMDEDUP_COORDINATION_URL",
        "PROMDEDUP_ADVERTISE_URL",
        "PROMDEDUP_PEER_TOKEN_FILE",
        "PROMDEDUP_LISTNE",
    ];
    assert_eq!(variables, expected);
    let text = error.to_string();
    for words in [
        "\"2h\": above 1h; expected a duration",
        "did you mean PROMDEDUP_LISTEN?",
        "\"15\": the unit is missing",
    ] {
        assert!(text.contains(words), "{words:?} is not in: {text}");
    }
}

#[test]
fn values_out_of_bounds() {
    let one = |name, value, word| refused(&[(name, value)], name, &[word, value]);
    one("PROMDEDUP_FUTURE_MAX", "61m", "above 1h");
    one("PROMDEDUP_FUTURE_MAX", "0s", "zero");
    one("PROMDEDUP_UPSTREAM_TIMEOUT", "30s", "not below 30s");
    one("PROMDEDUP_UPSTREAM_TIMEOUT", "0s", "zero");
    one("PROMDEDUP_UPSTREAM_CONNECTIONS_MAX", "0", "below 1");
    one("PROMDEDUP_WINDOW_SERIES_MAX", "many", "not a whole number");
    one("PROMDEDUP_WINDOW_IDLE", "1ms", "below 1s");
    one("PROMDEDUP_WORKERS", "0", "below 1");
    one("PROMDEDUP_BODY_MAX", "2GiB", "above 1GiB");
    one("PROMDEDUP_LABELS_MAX", "15", "below 16");
    one("PROMDEDUP_LABELS_MAX", "1000001", "above 1000000");
    one("PROMDEDUP_LABEL_NAME_MAX", "127B", "below 128B");
    one("PROMDEDUP_LABEL_VALUE_MAX", "2GiB", "above 1GiB");
    one("PROMDEDUP_LABEL_VALUE_MAX", "65536", "unit");
    one("PROMDEDUP_IN_FLIGHT_MAX", "33", "unit");
    one("PROMDEDUP_IN_FLIGHT_MAX", "0B", "zero");
    one("PROMDEDUP_TARGET_LABELS", "a,,b", "such as job,instance; ");
    one("PROMDEDUP_CONNECTIONS_MAX", "0", "below 1");
    one("PROMDEDUP_CONNECTIONS_PER_ADDRESS_MAX", "-1", "not a whole number");
    one("PROMDEDUP_IDLE_TIMEOUT", "999ms", "below 1s");
    one("PROMDEDUP_DRAIN_LEAD", "6m", "above 5m");
    one("PROMDEDUP_DRAIN_TIMEOUT", "20", "unit");
    one("PROMDEDUP_ADMIN_BASIC_FILE", "/no/such/file", "cannot be read");
    one("PROMDEDUP_REPLICA_LABELS", "", "empty");
    one("PROMDEDUP_REPLICA_LABELS", "a,__name__", "name of the metric");
    one("PROMDEDUP_GROUP_LABELS", "a,b,a", "twice");
    one("PROMDEDUP_TARGET_LABELS", "job,prometheus_replica", "replica label");
    one("PROMDEDUP_TENANT_HEADER", "X Tenant", "not a header name");
    one("PROMDEDUP_TENANT_HEADER", "THANOS-REPLICA", "reserved");
    one("PROMDEDUP_LOG", "loud", "not a level");
    one("PROMDEDUP_LOG_FORMAT", "xml", "no such format");
    one("PROMDEDUP_MODE", "observer", "no such mode");
    one("PROMDEDUP_UPSTREAM_URL", "ftp://thanos/", "not spoken here");
    one("PROMDEDUP_ADMIN_LISTEN", "127.0.0.1:19290", "the same port");
    one("PROMDEDUP_UPSTREAM_BASIC_FILE", "/no/such/file", "cannot be read");
}

#[test]
fn more_replica_labels_than_are_looked_for_are_a_mistake_beside_the_others() {
    let error = with(&[("PROMDEDUP_REPLICA_LABELS", "a,b,c,d,e,f,g,h,i"), ("PROMDEDUP_LOG_FORMAT", "xml")])
        .expect_err("refused");
    assert_eq!(error.mistakes.len(), 2, "{error}");
    let line = error.mistakes[0].to_string();
    for words in [
        "PROMDEDUP_REPLICA_LABELS=\"a,b,c,d,e,f,g,h,i\"",
        "9 replica label names given, at most 8",
        "expected at most 8 label names",
    ] {
        assert!(line.contains(words), "{words:?} is not in: {line}");
    }
}

#[test]
fn values_at_their_bounds() {
    for (name, value) in [
        ("PROMDEDUP_REPLICA_LABELS", "a,b,c,d,e,f,g,h"),
        ("PROMDEDUP_FUTURE_MAX", "1h"),
        ("PROMDEDUP_UPSTREAM_TIMEOUT", "29999ms"),
        ("PROMDEDUP_FIRST_CONTACT_HOLD", "0s"),
        ("PROMDEDUP_OUT_OF_ORDER_WINDOW", "0s"),
        ("PROMDEDUP_CONNECTIONS_MAX", "1"),
        ("PROMDEDUP_CONNECTIONS_PER_ADDRESS_MAX", "1000000"),
        ("PROMDEDUP_IDLE_TIMEOUT", "1s"),
        ("PROMDEDUP_DRAIN_LEAD", "5m"),
        ("PROMDEDUP_DRAIN_TIMEOUT", "0s"),
        ("PROMDEDUP_ADMIN_BASIC_FILE", ""),
        ("PROMDEDUP_LABELS_MAX", "16"),
        ("PROMDEDUP_LABELS_MAX", "1000000"),
        ("PROMDEDUP_LABEL_NAME_MAX", "128B"),
        ("PROMDEDUP_LABEL_VALUE_MAX", "1GiB"),
        ("PROMDEDUP_IN_FLIGHT_MAX", "70MiB"),
        ("PROMDEDUP_UPSTREAM_HEADERS", ""),
        ("PROMDEDUP_UPSTREAM_BASIC_FILE", ""),
    ] {
        with(&[(name, value)]).unwrap_or_else(|error| panic!("{name}={value}: {error}"));
    }
}

#[test]
fn several_instances_need_an_address_and_a_secret() {
    let mut file = tempfile::NamedTempFile::new().expect("file");
    file.write_all(b"a-secret-of-instances\n").expect("written");
    let token = ("PROMDEDUP_PEER_TOKEN_FILE", file.path().to_str().expect("path"));
    let url = ("PROMDEDUP_COORDINATION_URL", "postgres://u:s3cret@db,db2/x?target_session_attrs=read-write");
    let own = ("PROMDEDUP_ADVERTISE_URL", "http://10.0.0.7:19290");
    let config = with(&[url, own, token]).expect("valid").coordination.expect("given");
    assert_eq!(config.advertise_url, "http://10.0.0.7:19290");
    assert_eq!(config.database.to_string(), "db:5432,db2:5432/x");
    assert!(config.peer_token.current().takes(b"a-secret-of-instances"));
    assert!(!format!("{config:?}").contains("s3cret") && !format!("{config:?}").contains("a-secret"));
    assert!(with(&[]).expect("valid").coordination.is_none());
    refused(&[url, token], own.0, &["required, since PROMDEDUP_COORDINATION_URL is given"]);
    refused(&[url, own], token.0, &["required, since PROMDEDUP_COORDINATION_URL is given"]);
    for alone in [
        own,
        token,
        ("PROMDEDUP_COORDINATION_CA_FILE", "/no/such/file"),
        ("PROMDEDUP_PEER_CA_FILE", "/no/such/file"),
        ("PROMDEDUP_PEER_TLS_SERVER_NAME", "promdedup.thanos.svc"),
    ] {
        refused(&[alone], alone.0, &["PROMDEDUP_COORDINATION_URL is not given"]);
    }
    let wrong = ("PROMDEDUP_PEER_TLS_SERVER_NAME", "https://promdedup");
    refused(&[url, own, token, wrong], wrong.0, &["neither a name of DNS nor an IP address"]);
    refused(&[url, (own.0, "http://0.0.0.0:19290"), token], own.0, &["nobody can connect to"]);
    refused(&[("PROMDEDUP_COORDINATION_URL", "mysql://u:s3cret@db/x"), own, token], url.0, &["postgres://"]);
    refused(
        &[url, own, token, ("PROMDEDUP_COORDINATION_CA_FILE", "/no/such/file")],
        "PROMDEDUP_COORDINATION_CA_FILE",
        &["cannot be read"],
    );
    refused(&[url, own, token, ("PROMDEDUP_MODE", "observe")], url.0, &["observe, which decides nothing"]);
    file.as_file().set_len(15).expect("cut");
    refused(&[url, own, token], token.0, &["15 characters in line 1"]);
}

#[test]
fn unknown_names() {
    refused(
        &[("PROMDEDUP_REPLICA_LABEL", "a")],
        "PROMDEDUP_REPLICA_LABEL",
        &["did you mean PROMDEDUP_REPLICA_LABELS?"],
    );
    refused(&[("PROMDEDUP_BANANA", "a")], "PROMDEDUP_BANANA", &["no such variable", "--help"]);
    with(&[
        ("PROMDEDUP_SERVICE_HOST", "10.0.0.1"),
        ("PROMDEDUP_SERVICE_PORT_WRITE", "19290"),
        ("PROMDEDUP_SERVICE_PORTX", "19290"),
        ("PROMDEDUP_PORT", "tcp://10.0.0.1:19290"),
        ("PROMDEDUP_PORT_19290_TCP_ADDR", "10.0.0.1"),
        ("PATH", "/bin"),
        ("PROMETHEUS_X", "y"),
    ])
    .expect("none of them is ours");
}

#[test]
fn a_flag_wins_over_a_wrong_variable() {
    let flags = flags(&["x", "--future-max", "5m"]);
    let environment = pairs(&[URL, ("PROMDEDUP_FUTURE_MAX", "wrong")]);
    let config = Config::parse(&flags, environment).expect("valid");
    assert_eq!(config.window.future_max, Duration::from_secs(300));
}

/// One mistake in each, whatever else its variable would have to be, and what it was given is shown as far as it is text.
#[test]
fn bytes_that_are_no_text_are_shown_and_not_the_default() {
    for name in [
        "PROMDEDUP_UPSTREAM_URL",
        "PROMDEDUP_LISTEN",
        "PROMDEDUP_MODE",
        "PROMDEDUP_REPLICA_LABELS",
        "PROMDEDUP_WORKERS",
        "PROMDEDUP_TLS_CLIENT_CA_FILE",
        "PROMDEDUP_COORDINATION_CA_FILE",
    ] {
        let mut environment = pairs(&[URL]);
        environment.retain(|(given, _)| given != name);
        environment.push((name.into(), OsString::from_vec(b"de\xffdup".to_vec())));
        let error = Config::parse(&Settings::default(), environment).expect_err("refused");
        assert_eq!(error.mistakes.len(), 1, "{error}");
        assert_eq!((error.mistakes[0].variable.as_str(), &*error.mistakes[0].problem), (name, "not UTF-8"));
        assert_eq!(error.mistakes[0].given.as_deref(), Some("de\u{fffd}dup"), "{error}");
    }
    let mut environment = pairs(&[URL]);
    environment
        .push(("PROMDEDUP_UPSTREAM_HEADERS".into(), OsString::from_vec(b"X-Key: s3cret\xff".to_vec())));
    let error = Config::parse(&Settings::default(), environment).expect_err("refused");
    assert!(!error.to_string().contains("s3cret"), "{error}");
}

#[test]
fn an_unknown_name_that_is_no_text_is_unknown_as_well() {
    let mut environment = pairs(&[URL]);
    environment.push((OsString::from_vec(b"PROMDEDUP_LIST\xffEN".to_vec()), "x".into()));
    environment.push((OsString::from_vec(b"PROMDEDUP_\xff_PORT".to_vec()), "x".into()));
    environment.push((OsString::from_vec(b"PATH\xff".to_vec()), "x".into()));
    let error = Config::parse(&Settings::default(), environment).expect_err("refused");
    let all: Vec<_> = error.mistakes.iter().map(|each| (each.variable.as_str(), &*each.problem)).collect();
    let none = "no such variable";
    assert_eq!(all, [("PROMDEDUP_LIST\u{fffd}EN", none), ("PROMDEDUP_\u{fffd}_PORT", none)], "{error}");
}

/// It is told at the start, and no mistake: a larger request is served when it is alone.
#[test]
fn requests_larger_than_all_may_be_are_known() {
    // Thrice the body, a sixth of it, and a few bytes.
    let least = 3 * 1024 + 1024 / 6 + 32;
    for (in_flight, alone) in [(format!("{least}B"), None), (format!("{}B", least - 1), Some(least))] {
        let pairs = [("PROMDEDUP_BODY_MAX", "1KiB"), ("PROMDEDUP_IN_FLIGHT_MAX", &in_flight)];
        assert_eq!(with(&pairs).expect("valid").receive.alone_above(), alone);
    }
}

#[test]
fn secrets_stay_secret() {
    let error = with(&[
        ("PROMDEDUP_UPSTREAM_HEADERS", "X-Key: s3cret,broken"),
        ("PROMDEDUP_COORDINATION_URL", "postgres://u:s3cret@db/x?password=s3cret"),
        ("PROMDEDUP_PEER_TOKEN", "s3cret"),
    ])
    .expect_err("refused");
    assert_eq!(error.mistakes.len(), 4, "address and secret of instances are missing");
    assert!(!error.to_string().contains("s3cret"), "{error}");
}

#[test]
fn credentials_come_from_one_file() {
    let mut file = tempfile::NamedTempFile::new().expect("file");
    file.write_all(b"user:password\n").expect("written");
    let path = file.path().to_str().expect("path");
    let config = with(&[("PROMDEDUP_UPSTREAM_BASIC_FILE", path)]).expect("valid");
    assert_eq!(config.forward.credentials.expect("credentials").scheme, Scheme::Basic);
    let both = [("PROMDEDUP_UPSTREAM_BASIC_FILE", path), ("PROMDEDUP_UPSTREAM_BEARER_FILE", path)];
    refused(&both, "PROMDEDUP_UPSTREAM_BEARER_FILE", &["is given too"]);
}
