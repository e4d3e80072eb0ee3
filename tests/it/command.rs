//! The binary as an operator meets it: exit codes, what it prints, signals.

mod check;
mod coordination;

use crate::peer::{Line, Peer, soon};
use std::io::{BufRead, BufReader, Read};
use std::net::{SocketAddr, TcpListener};
use std::process::{Child, Command, Output, Stdio};
use tokio::task::spawn_blocking;

pub(crate) fn promdedup(arguments: &[&str], environment: &[(&str, &str)]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_promdedup"));
    command.args(arguments).env_clear().envs(environment.iter().copied());
    command.stdout(Stdio::piped()).stderr(Stdio::piped());
    command
}

pub(crate) fn ran(arguments: &[&str], environment: &[(&str, &str)]) -> (Option<i32>, String, String) {
    let Output { status, stdout, stderr } = promdedup(arguments, environment).output().expect("runs");
    let text = |bytes| String::from_utf8(bytes).expect("UTF-8");
    (status.code(), text(stdout), text(stderr))
}

const URL: (&str, &str) = ("PROMDEDUP_UPSTREAM_URL", "http://127.0.0.1:1/api/v1/receive");

#[test]
fn wrong_configuration_and_wrong_usage_exit_64() {
    let refused = |arguments: &[&str], environment: &[(&str, &str)], words: &[&str]| {
        let (code, stdout, stderr) = ran(arguments, environment);
        assert_eq!((code, stdout.as_str()), (Some(64), ""), "{arguments:?}: {stderr}");
        for word in words {
            assert!(stderr.contains(word), "{arguments:?}: {word:?} is not in: {stderr}");
        }
    };
    refused(&[], &[], &["PROMDEDUP_UPSTREAM_URL", "required"]);
    refused(
        &["serve", "--listen", "x"],
        &[URL],
        &["PROMDEDUP_LISTEN=\"x\"", "expected an IP address and a port"],
    );
    refused(
        &["--future-max", "2h"],
        &[("PROMDEDUP_LOGS", "x")],
        &["UPSTREAM_URL", "FUTURE_MAX", "PROMDEDUP_LOGS"],
    );
    refused(&["check"], &[("PROMDEDUP_UPSTREAM_URL", "x")], &["scheme"]);
    let nine = ("PROMDEDUP_REPLICA_LABELS", "a,b,c,d,e,f,g,h,i");
    for command in ["check", "serve", "demo"] {
        refused(&[command], &[URL, nine], &["PROMDEDUP_REPLICA_LABELS=\"a,b,c", "at most 8"]);
    }
    refused(
        &["--listen", "x", "--admin-listen", "z", "serve", "--listen", "y"],
        &[URL],
        &["PROMDEDUP_LISTEN=\"y\"", "\"z\""],
    );
    refused(&["--listen", "127.0.0.1:0", "demo"], &[], &["environment"]);
    refused(&["--no-such-flag"], &[URL], &["--no-such-flag"]);
    refused(&["dance"], &[URL], &["dance"]);
    refused(&["demo", "--duration", "3s"], &[], &["--duration 3s", "at least 9 intervals"]);
    refused(&["demo", "--replicas", "1"], &[], &["--replicas 1", "at least 2"]);
}

#[test]
fn help_names_every_variable() {
    for arguments in [&["--help"][..], &["serve", "--help"]] {
        let (code, stdout, _) = ran(arguments, &[]);
        assert_eq!(code, Some(0));
        let words: Vec<&str> = stdout.split_whitespace().collect();
        for variable in promdedup::config::VARIABLES {
            let shown = words.contains(&format!("{}]", variable.name).as_str());
            assert!(shown, "{}", variable.name);
            let flag = words.contains(&format!("--{}", variable.flag()).as_str());
            assert!(flag, "{}", variable.flag());
        }
    }
    assert_eq!(ran(&["--version"], &[]).1, format!("promdedup {}\n", env!("CARGO_PKG_VERSION")));
}

#[tokio::test]
async fn check_contacts_the_upstream() {
    let peer = Peer::start(200, "").await;
    let url = peer.url();
    let check = async || {
        let url = url.clone();
        let ran = spawn_blocking(move || ran(&["check"], &[("PROMDEDUP_UPSTREAM_URL", &url)]));
        soon(ran).await.expect("no panic")
    };
    let (code, stdout, _) = check().await;
    assert_eq!(code, Some(0), "{stdout}");
    assert_eq!(stdout.lines().count(), 2, "{stdout}");
    peer.answers(404, "no such page");
    let (code, stdout, _) = check().await;
    assert_eq!(code, Some(1));
    assert!(stdout.contains("404") && stdout.contains("no such page"), "{stdout}");
}

#[test]
fn a_taken_port_ends_with_1_and_its_address() {
    let taken = TcpListener::bind("127.0.0.1:0").expect("bound");
    let address = taken.local_addr().expect("address").to_string();
    for name in ["PROMDEDUP_LISTEN", "PROMDEDUP_ADMIN_LISTEN"] {
        let other = if name == "PROMDEDUP_LISTEN" { "PROMDEDUP_ADMIN_LISTEN" } else { "PROMDEDUP_LISTEN" };
        let (code, _, stderr) = ran(&[], &[URL, (name, &address), (other, "127.0.0.1:0")]);
        assert_eq!(code, Some(1), "{stderr}");
        assert!(stderr.contains(&address), "{stderr}");
    }
}

/// A running `serve`, and the addresses it logs: data and admin.
pub(crate) fn serve(more: &[(&str, &str)]) -> (Child, SocketAddr, SocketAddr) {
    let mut environment = vec![
        ("PROMDEDUP_LISTEN", "127.0.0.1:0"),
        ("PROMDEDUP_ADMIN_LISTEN", "127.0.0.1:0"),
        ("PROMDEDUP_LOG_FORMAT", "json"),
    ];
    environment.extend_from_slice(more);
    let mut child = promdedup(&["serve"], &environment).spawn().expect("starts");
    let mut log = BufReader::new(child.stderr.take().expect("stderr"));
    let mut line = String::new();
    log.read_line(&mut line).expect("a line");
    let line: serde_json::Value = serde_json::from_str(&line).expect("JSON");
    let address = |name: &str| line[name].as_str().expect("an address").parse().expect("an address");
    let (data, admin) = (address("data"), address("admin"));
    // Read on, so that the process never waits for its log to be read.
    std::thread::spawn(move || log.read_to_string(&mut String::new()));
    (child, data, admin)
}

pub(crate) fn terminate(child: &Child) {
    let killed = Command::new("kill").args(["-TERM", &child.id().to_string()]).status().expect("kill");
    assert!(killed.success());
}

#[tokio::test]
async fn sigterm_ends_with_0() {
    let peer = Peer::start(200, "").await;
    let url = peer.url();
    let (mut child, address, _) = serve(&[("PROMDEDUP_UPSTREAM_URL", &url)]);
    let mut line = Line::open(address).await;
    line.post("/api/v1/receive", "", &[0]).await;
    assert_eq!(line.hear().await.status, 204);
    terminate(&child);
    let ended = soon(spawn_blocking(move || child.wait())).await;
    assert_eq!(ended.expect("no panic").expect("ended").code(), Some(0));
}

#[tokio::test]
async fn check_asks_a_running_proxy_for_its_health() {
    let peer = Peer::start(200, "").await;
    let (mut child, address, admin) =
        serve(&[("PROMDEDUP_UPSTREAM_URL", &peer.url()), ("PROMDEDUP_UPSTREAM_TIMEOUT", "100ms")]);
    let admin = admin.to_string();
    // A variable that is wrong by now concerns nobody who runs already.
    let check = async |flag: &'static str| {
        let admin = admin.clone();
        let environment =
            [("PROMDEDUP_ADMIN_LISTEN", admin.as_str()), ("PROMDEDUP_TLS_KEY_FILE", "/nowhere")];
        let environment = environment.map(|(name, value)| (name.to_owned(), value.to_owned()));
        let ran =
            move || ran(&["check", flag], &environment.each_ref().map(|(name, value)| (&**name, &**value)));
        let (code, stdout, stderr) = soon(spawn_blocking(ran)).await.expect("no panic");
        assert_eq!(stderr, "");
        (code, stdout)
    };
    assert_eq!(check("--health").await, (Some(0), "ready\n".to_owned()));
    peer.answers(503, "");
    let mut line = Line::open(address).await;
    let body = snap::raw::Encoder::new().compress_vec(&minimal()).expect("compressed");
    while check("--health=ready").await.0 == Some(0) {
        line.post("/api/v1/receive", "", &body).await;
        line.hear().await;
    }
    let (code, text) = check("--health").await;
    assert_eq!(code, Some(1));
    assert!(text.starts_with("not ready: no attempt at the upstream has succeeded"), "{text}");
    assert_eq!(check("--health=live").await, (Some(0), "healthy\n".to_owned()));
    child.kill().expect("killed");
    child.wait().expect("ended");
    let (code, text) = check("--health=live").await;
    assert_eq!(code, Some(1));
    assert!(text.starts_with(&format!("{admin} does not answer: ")), "{text}");
    let (code, _, stderr) = ran(&["check", "--health"], &[("PROMDEDUP_ADMIN_LISTEN", "x")]);
    assert_eq!(code, Some(64));
    assert!(stderr.contains("PROMDEDUP_ADMIN_LISTEN=\"x\"") && !stderr.contains("UPSTREAM_URL"), "{stderr}");
}

#[tokio::test]
async fn a_drain_that_takes_too_long_ends_with_1() {
    // An upstream that accepts and never answers.
    let silent = TcpListener::bind("127.0.0.1:0").expect("bound");
    let url = format!("http://{}/", silent.local_addr().expect("address"));
    let (mut child, address, _) =
        serve(&[("PROMDEDUP_UPSTREAM_URL", &url), ("PROMDEDUP_DRAIN_TIMEOUT", "50ms")]);
    let mut line = Line::open(address).await;
    // An empty series, so that there is something to send on.
    let body = snap::raw::Encoder::new().compress_vec(&minimal()).expect("compressed");
    line.post("/api/v1/receive", "", &body).await;
    let upstream =
        soon(spawn_blocking(move || silent.accept())).await.expect("no panic").expect("a connection");
    terminate(&child);
    let ended = soon(spawn_blocking(move || child.wait())).await;
    assert_eq!(ended.expect("no panic").expect("ended").code(), Some(1));
    drop(upstream);
}

/// A remote write of one series, `up{} 0 0`.
pub(crate) fn minimal() -> Vec<u8> {
    let label = [&[0x0a, 8][..], b"__name__", &[0x12, 2], b"up"].concat();
    let labels = [&[0x0a, label.len() as u8][..], &label].concat();
    let series = [labels, vec![0x12, 0]].concat();
    [&[0x0a, series.len() as u8][..], &series].concat()
}
