//! `check`: would `serve` work with this configuration? Prints one line for each thing it tried.

pub(super) mod health;

use crate::config::{Config, Identity, OidcConfig, Passwords, Tokens};
use crate::forward::{Answer, HttpUpstream};
use crate::receive;
use crate::socket::NetworkBytes;
use crate::telemetry::LimitHits;
use prometheus::Registry;
use std::process::ExitCode;
use std::time::SystemTime;

#[expect(clippy::print_stdout, reason = "what it prints is what it is for")]
pub(super) fn run(config: Config) -> anyhow::Result<ExitCode> {
    println!("configuration: ok");
    #[expect(clippy::disallowed_methods, reason = "whether a certificate has ended depends on the time")]
    let files = files(&config, SystemTime::now());
    files.iter().for_each(|(_, line)| println!("{line}"));
    let url = config.forward.url.clone();
    let registry = Registry::new();
    let (network, limits) = (NetworkBytes::new(&registry)?, LimitHits::new(&registry)?);
    let upstream = HttpUpstream::new(config.forward, &registry, &network, &limits)?;
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let issuer_well = runtime.block_on(issuer(config.receive.auth.oidc.as_ref()));
    let answer = runtime.block_on(upstream.probe());
    runtime.shutdown_background();
    let (well, what) = verdict(answer);
    println!("upstream {url}: {what}");
    let well = well && issuer_well && files.iter().all(|(well, _)| *well);
    Ok(if well { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

/// Whether the OpenID provider, if there is to be one, says what its keys are.
#[expect(clippy::print_stdout, reason = "what it prints is what it is for")]
async fn issuer(config: Option<&OidcConfig>) -> bool {
    let Some(config) = config else { return true };
    let asked = receive::ask_issuer(config).await;
    match &asked {
        Ok(keys) => println!("OpenID provider {}: ok, {keys} key(s)", config.issuer),
        Err(error) => println!("OpenID provider {}: failed, {error}", config.issuer),
    }
    asked.is_ok()
}

/// What is in the files for TLS and credentials. That they can be read is known: the configuration was right.
fn files(config: &Config, now: SystemTime) -> Vec<(bool, String)> {
    let ours = config.receive.tls.as_ref().map(|tls| ("certificate", &tls.identity));
    let shown = config.forward.tls.identity.as_ref().map(|identity| ("upstream certificate", identity));
    let certificates = ours.into_iter().chain(shown);
    let certificates = certificates.map(|(what, identity)| certificate(what, identity, now));
    let passwords = config.receive.auth.passwords.iter().map(|path| {
        let found = Passwords::read(path).map(|Passwords(users)| format!("{} user(s)", users.len()));
        ("passwords", path, found.map_err(|error| error.to_string()))
    });
    let tokens = config.receive.auth.tokens.iter().map(|path| {
        let found = Tokens::read(path).map(|Tokens(tokens)| format!("{} token(s)", tokens.len()));
        ("tokens", path, found.map_err(|error| error.to_string()))
    });
    let credentials = config.forward.credentials.iter().map(|credentials| {
        let found = credentials.read().map(|_| "readable".to_owned());
        ("upstream credentials", &credentials.path, found.map_err(|error| error.to_string()))
    });
    let others = passwords.chain(tokens).chain(credentials).map(|(what, path, found)| match found {
        Ok(found) => (true, format!("{what} {}: ok, {found}", path.display())),
        Err(error) => (false, format!("{what} {}: failed, the file {error}", path.display())),
    });
    certificates.chain(others).collect()
}

fn certificate(what: &str, identity: &Identity, now: SystemTime) -> (bool, String) {
    let path = identity.certificate.display();
    match identity.ends() {
        Ok(end) => {
            let well = now < end;
            let (verdict, ends) = if well { ("ok", "ends") } else { ("failed", "ended") };
            (well, format!("{what} {path}: {verdict}, {ends} {}", humantime::format_rfc3339_seconds(end)))
        }
        Err(error) => (false, format!("{what} {path}: failed, the file {error}")),
    }
}

/// An empty remote write is taken by everything that is a remote-write receiver.
fn verdict(answer: Answer) -> (bool, String) {
    match answer {
        Answer::Taken => (true, "ok, took an empty remote write".to_owned()),
        Answer::Conflict { text } => (false, refused(409, &text)),
        Answer::TooBig { text } => (false, refused(413, &text)),
        Answer::Refused { status, text } | Answer::Unavailable { status, text } => {
            (false, refused(status, &text))
        }
        Answer::NoAnswer { error } => (false, format!("failed, {error}")),
    }
}

fn refused(status: u16, text: &str) -> String {
    format!("failed, answered an empty remote write with {status}: {text:?}")
}
