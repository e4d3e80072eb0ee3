//! The files of TLS: what is refused at the start, and what happens when they change.

use super::authority::{Authority, Client, Files, Pair};
use super::{Proxy, borrowed, connect, served, writes};
use crate::command::{ran, terminate};
use crate::peer::{Line, soon};
use crate::serving::Serving;
use promdedup::config::Config;
use std::process::Command;
use tokio::task::spawn_blocking;

const URL: (&str, &str) = ("PROMDEDUP_UPSTREAM_URL", "https://thanos:19291/api/v1/receive");
const PLAIN: (&str, &str) = ("PROMDEDUP_UPSTREAM_URL", "http://thanos:19291/api/v1/receive");

/// One mistake, in that variable, with these words, and none of the key.
fn refused(pairs: &[(&str, &str)], variable: &str, words: &[&str], secret: &str) {
    let error = Config::from_pairs(pairs.iter().copied()).expect_err(variable);
    let lines: Vec<_> = error.mistakes.iter().map(ToString::to_string).collect();
    assert_eq!(error.mistakes.len(), 1, "{lines:?}");
    assert_eq!(error.mistakes[0].variable, variable, "{lines:?}");
    let given = pairs.iter().find(|(name, _)| *name == variable).expect("given").1;
    for word in words.iter().chain([&given]) {
        assert!(lines[0].contains(word), "{word:?} is not in: {}", lines[0]);
    }
    assert!(secret.lines().skip(1).all(|line| !lines[0].contains(line)), "{}", lines[0]);
}

#[test]
fn files_that_are_of_no_use_are_refused_at_the_start() {
    let (authority, files) = (Authority::new(), Files::new());
    let (pair, other) = (authority.signs("localhost"), authority.signs("localhost"));
    let certificate = files.put("tls.crt", &pair.certificate);
    let key = files.put("tls.key", &pair.key);
    let others_key = files.put("other.key", &other.key);
    let nothing = files.put("nothing", "");
    let torn = files.put("torn", &pair.key[..pair.key.len() / 2]);
    let broken = files.put("broken", "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n");
    let authorities = files.put("ca.crt", &authority.pem);
    for side in ["PROMDEDUP_UPSTREAM_TLS", "PROMDEDUP_TLS"] {
        let (cert_name, key_name) = (&format!("{side}_CERT_FILE")[..], &format!("{side}_KEY_FILE")[..]);
        let ca_name = match side {
            "PROMDEDUP_TLS" => "PROMDEDUP_TLS_CLIENT_CA_FILE",
            _ => "PROMDEDUP_UPSTREAM_TLS_CA_FILE",
        };
        let pair_of = |certificate, key| [URL, (cert_name, certificate), (key_name, key)];
        let refused = |pairs: &[(&str, &str)], name: &str, words: &[&str]| {
            refused(pairs, name, words, &pair.key);
        };
        Config::from_pairs(pair_of(&certificate, &key)).expect("a pair");
        Config::from_pairs([&pair_of(&certificate, &key)[..], &[(ca_name, &authorities)]].concat())
            .expect("with authorities");
        refused(&[URL, (cert_name, &certificate)], cert_name, &[key_name, "set both or neither"]);
        refused(&[URL, (key_name, &key)], key_name, &[cert_name, "set both or neither"]);
        refused(&pair_of(&certificate, &others_key), key_name, &["does not belong to", "tls.crt"]);
        refused(&pair_of("/no/such/file", &key), cert_name, &["cannot be read"]);
        refused(&pair_of(&certificate, "/no/such/file"), key_name, &["cannot be read"]);
        refused(&pair_of(&nothing, &key), cert_name, &["no certificate"]);
        refused(&pair_of(&key, &key), cert_name, &["no certificate"]);
        refused(&pair_of(&broken, &key), cert_name, &["is broken"]);
        refused(&pair_of(&certificate, &certificate), key_name, &["no private key"]);
        refused(&pair_of(&certificate, &torn), key_name, &["the file"]);
        for bad in [&nothing, &broken, "/no/such/file"] {
            let pairs = [&pair_of(&certificate, &key)[..], &[(ca_name, bad)]].concat();
            refused(&pairs, ca_name, &["the file"]);
        }
    }
    let alone = [URL, ("PROMDEDUP_TLS_CLIENT_CA_FILE", &authorities)];
    refused(&alone, "PROMDEDUP_TLS_CLIENT_CA_FILE", &["PROMDEDUP_TLS_CERT_FILE", "or leave it out"], "");
    // A setting that protects nothing must not look as if it did.
    let plain = [PLAIN, ("PROMDEDUP_UPSTREAM_TLS_CA_FILE", &authorities)];
    refused(&plain, "PROMDEDUP_UPSTREAM_TLS_CA_FILE", &["PROMDEDUP_UPSTREAM_URL is not https://"], "");
}

/// Or who starts it corrects one file after the other.
#[test]
fn every_file_that_is_of_no_use_is_named() {
    let names =
        ["UPSTREAM_TLS_CA", "UPSTREAM_TLS_CERT", "UPSTREAM_TLS_KEY", "TLS_CERT", "TLS_KEY", "TLS_CLIENT_CA"]
            .map(|name| format!("PROMDEDUP_{name}_FILE"));
    let pairs = names.iter().map(|name| (&name[..], "/no/such/file")).chain([URL]);
    let error = Config::from_pairs(pairs).expect_err("no file");
    let mut named: Vec<_> = error.mistakes.iter().map(|mistake| mistake.variable.clone()).collect();
    let mut expected = names.to_vec();
    named.sort_unstable();
    expected.sort_unstable();
    assert_eq!(named, expected, "{error}");
}

#[test]
fn a_wrong_pair_exits_64() {
    let (authority, files) = (Authority::new(), Files::new());
    let mut wrong = served(&files, &authority.signs("localhost"));
    wrong[1].1 = files.put("other.key", authority.signs("localhost").key);
    let (code, _, stderr) = ran(&["serve"], &[&[PLAIN], &borrowed(&wrong)[..]].concat());
    assert_eq!(code, Some(64), "{stderr}");
    assert!(stderr.contains("PROMDEDUP_TLS_KEY_FILE=") && stderr.contains("does not belong"), "{stderr}");
}

/// The process as it runs: Kubernetes replaces the files, cert-manager renews them, and somebody gets it wrong.
#[tokio::test]
async fn certificates_are_renewed_while_it_runs() {
    let (old, new, files) = (Authority::new(), Authority::new(), Files::new());
    let more = served(&files, &old.signs("localhost"));
    let mut serving = Serving::start(&[&[PLAIN], &borrowed(&more)[..]].concat()).await;
    let mut held = Line::over(connect(&Client::of(&old), serving.address).await);
    assert_eq!(writes(&mut held).await, 204);
    let admin = serving.admin;
    let usable = async |usable: u8| {
        let line =
            format!("promdedup_file_usable{{what=\"TLS certificate and key of the listener\"}} {usable}");
        let metrics = Line::open(admin).await.get("/metrics", "").await.text;
        assert!(metrics.lines().any(|each| each == line), "{line} is not in:\n{metrics}");
    };
    usable(1).await;

    files.put("tls.crt", "-----BEGIN CERTIFICATE-----\nnot base 64\n-----END CERTIFICATE-----\n");
    serving.logs("ERROR", "what was read before stays in force").await;
    usable(0).await;
    assert_eq!(writes(&mut Line::over(connect(&Client::of(&old), serving.address).await)).await, 204);

    // Two files are never replaced at one time: with the certificate alone nothing has changed yet.
    let pair = new.signs("localhost");
    files.put("tls.crt", &pair.certificate);
    serving.logs("ERROR", "what was read before stays in force").await;
    files.put("tls.key", &pair.key);
    serving.logs("INFO", "read again").await;
    usable(1).await;
    assert_eq!(writes(&mut Line::over(connect(&Client::of(&new), serving.address).await)).await, 204);
    assert!(soon(Client::of(&old).connect(serving.address)).await.is_err(), "the old one is gone");
    assert_eq!(writes(&mut held).await, 204, "the connection goes on");

    // Nothing has changed, so only the signal can be why.
    let id = serving.child.id().to_string();
    assert!(Command::new("kill").args(["-HUP", &id]).status().expect("kill").success());
    serving.logs("INFO", "read again").await;
    assert_eq!(writes(&mut held).await, 204);
    terminate(&serving.child);
    soon(serving.ended()).await;
    assert_eq!(serving.child.wait().expect("ended").code(), Some(0));
}

#[tokio::test]
async fn metrics_say_when_certificates_end() {
    let (authority, files) = (Authority::new(), Files::new());
    let plain = Proxy::start("http://127.0.0.1:1/", &[]);
    assert!(!plain.metrics().await.contains("promdedup_tls_certificate_expiry_timestamp_seconds{"));
    let mut more = served(&files, &authority.signs_until("localhost", 2951)).to_vec();
    let ours = authority.signs_until("client", 2961);
    more.extend([
        ("PROMDEDUP_UPSTREAM_TLS_CERT_FILE", files.put("client.crt", &ours.certificate)),
        ("PROMDEDUP_UPSTREAM_TLS_KEY_FILE", files.put("client.key", &ours.key)),
    ]);
    let proxy = Proxy::start("https://localhost:1/", &borrowed(&more));
    let ends = |side, seconds: i64| {
        format!("promdedup_tls_certificate_expiry_timestamp_seconds{{side=\"{side}\"}} {seconds}")
    };
    proxy.comes_to_show(&ends("sender", 30_957_379_200)).await;
    proxy.comes_to_show(&ends("upstream", 31_272_998_400)).await;
    served(&files, &authority.signs_until("localhost", 2961));
    proxy.comes_to_show(&ends("sender", 31_272_998_400)).await;
}

#[tokio::test]
async fn check_says_when_certificates_end() {
    let (authority, files) = (Authority::new(), Files::new());
    let peer = crate::peer::Peer::start(200, "").await;
    let check = async |pair: Pair| {
        let (url, more) = (peer.url(), served(&files, &pair));
        let all: Vec<_> = more.into_iter().chain([("PROMDEDUP_UPSTREAM_URL", url)]).collect();
        soon(spawn_blocking(move || ran(&["check"], &borrowed(&all)))).await.expect("no panic")
    };
    let (code, stdout, stderr) = check(authority.signs_until("localhost", 2951)).await;
    assert_eq!(code, Some(0), "{stdout}{stderr}");
    assert!(stdout.contains("tls.crt: ok, ends 2951-01-01T00:00:00Z"), "{stdout}");
    let (code, stdout, _) = check(authority.signs_until("localhost", 2001)).await;
    assert_eq!(code, Some(1), "{stdout}");
    assert!(stdout.contains("tls.crt: failed, ended 2001-01-01T00:00:00Z"), "{stdout}");
}
