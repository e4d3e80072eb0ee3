//! `check`: would `serve` work with this configuration, and do the senders fit it? Prints one line for each thing it tried.
//!
//! Owns what is well, a warning, or failed. Changes nothing anywhere.

mod coordination;
pub(super) mod health;
mod line;
mod prometheus;
mod sample;
mod yaml;

use crate::config::{Config, Identity, OidcConfig, Passwords, Settings, Tokens};
use crate::forward::{Answer, HttpUpstream};
use crate::receive;
use crate::socket::NetworkBytes;
use crate::telemetry::LimitHits;
use ::prometheus::Registry;
use health::Probe;
use line::Line;
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::SystemTime;

/// What is to be checked besides the configuration.
#[derive(Debug, clap::Args)]
pub(super) struct CheckArguments {
    #[command(flatten)]
    pub(super) settings: Settings,
    /// A remote-write body as a replica sends it (snappy; 1.0 or 2.0): what would become of its series?
    #[arg(long, value_name = "FILE")]
    sample_body: Vec<PathBuf>,
    /// A replica's own address, such as http://prometheus-0:9090; once for each, or separated by commas.
    #[arg(long = "prometheus-url", value_name = "URL", value_delimiter = ',')]
    prometheus_urls: Vec<String>,
    /// Asks a proxy that runs here with the same admin address how it is, and nothing else: `ready` for traffic, or only `live`.
    #[arg(long, value_name = "STATE", num_args = 0..=1, default_missing_value = "ready", require_equals = true)]
    pub(super) health: Option<Probe>,
}

#[expect(clippy::print_stdout, reason = "what it prints is what it is for")]
pub(super) fn run(config: Config, arguments: &CheckArguments) -> anyhow::Result<ExitCode> {
    let mut failed = false;
    let mut tell = |line: Line| {
        failed |= line.failed();
        println!("{line}");
    };
    println!("configuration: ok");
    #[expect(clippy::disallowed_methods, reason = "whether a certificate has ended depends on the time")]
    files(&config, SystemTime::now()).into_iter().for_each(&mut tell);
    arguments.sample_body.iter().flat_map(|path| sample::look(path, &config)).for_each(&mut tell);
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let looked = runtime.block_on(prometheus::look(&arguments.prometheus_urls, &config));
    looked.into_iter().for_each(&mut tell);
    let instances = runtime.block_on(coordination::look(&config));
    let url = config.forward.url.clone();
    let registry = Registry::new();
    let (network, limits) = (NetworkBytes::new(&registry)?, LimitHits::new(&registry)?);
    let upstream = HttpUpstream::new(config.forward, &registry, &network, &limits)?;
    runtime.block_on(issuer(config.receive.auth.oidc.as_ref())).into_iter().for_each(&mut tell);
    instances.into_iter().for_each(&mut tell);
    tell(verdict(&format!("upstream {url}"), runtime.block_on(upstream.probe())));
    runtime.shutdown_background();
    Ok(if failed { ExitCode::FAILURE } else { ExitCode::SUCCESS })
}

/// Whether the OpenID provider, if there is to be one, says what its keys are.
async fn issuer(config: Option<&OidcConfig>) -> Option<Line> {
    let config = config?;
    let what = format!("OpenID provider {}", config.issuer);
    Some(match receive::ask_issuer(config).await {
        Ok(keys) => Line::well(what, format!("{keys} key(s)")),
        Err(error) => Line::failure(what, error),
    })
}

/// What is in the files for TLS and credentials. That they can be read is known: the configuration was right.
fn files(config: &Config, now: SystemTime) -> Vec<Line> {
    let ours = config.receive.tls.as_ref().map(|tls| ("certificate", &tls.identity));
    let shown = config.forward.tls.identity.as_ref().map(|identity| ("upstream certificate", identity));
    let certificates = ours.into_iter().chain(shown);
    let certificates = certificates.map(|(what, identity)| certificate(what, identity, now));
    let senders = config.receive.auth.passwords.iter().map(|path| ("passwords", path));
    let admin = config.admin.passwords.iter().map(|path| ("admin passwords", path));
    let passwords = senders.chain(admin).map(|(what, path)| {
        let found = Passwords::read(path).map(|Passwords(users)| format!("{} user(s)", users.len()));
        (what, path, found.map_err(|error| error.to_string()))
    });
    let tokens = config.receive.auth.tokens.iter().map(|path| {
        let found = Tokens::read(path).map(|Tokens(tokens)| format!("{} token(s)", tokens.len()));
        ("tokens", path, found.map_err(|error| error.to_string()))
    });
    let credentials = config.forward.credentials.iter().map(|credentials| {
        let found = credentials.read().map(|_| "readable".to_owned());
        ("upstream credentials", &credentials.path, found.map_err(|error| error.to_string()))
    });
    let others = passwords.chain(tokens).chain(credentials).map(|(what, path, found)| {
        let what = format!("{what} {}", path.display());
        match found {
            Ok(found) => Line::well(what, found),
            Err(error) => Line::failure(what, format!("the file {error}")),
        }
    });
    certificates.chain(others).collect()
}

fn certificate(what: &str, identity: &Identity, now: SystemTime) -> Line {
    let what = format!("{what} {}", identity.certificate.display());
    match identity.ends() {
        Ok(end) if now < end => Line::well(what, format!("ends {}", humantime::format_rfc3339_seconds(end))),
        Ok(end) => Line::failure(what, format!("ended {}", humantime::format_rfc3339_seconds(end))),
        Err(error) => Line::failure(what, format!("the file {error}")),
    }
}

/// An empty remote write is taken by everything that is a remote-write receiver.
fn verdict(what: &str, answer: Answer) -> Line {
    let refused = |status: u16, text: &str| format!("answered an empty remote write with {status}: {text:?}");
    match answer {
        Answer::Taken => Line::well(what, "took an empty remote write"),
        Answer::Conflict { text } => Line::failure(what, refused(409, &text)),
        Answer::TooBig { text } => Line::failure(what, refused(413, &text)),
        Answer::Refused { status, text } | Answer::Unavailable { status, text } => {
            Line::failure(what, refused(status, &text))
        }
        Answer::NoAnswer { error } | Answer::NotSent { error } => Line::failure(what, error),
    }
}
