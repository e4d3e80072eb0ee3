//! The program itself with a database: `check`, `serve`, and how it ends.

use crate::rules::group;
use crate::server::{PASSWORD, Server};
use std::io::{BufRead, BufReader, Read, Write};
use std::net::SocketAddr;
use std::process::{Child, Command, Output, Stdio};
use std::time::Duration;
use tempfile::NamedTempFile;
use tokio::task::spawn_blocking;
use tokio::time::sleep;

fn token() -> NamedTempFile {
    let mut file = NamedTempFile::new().expect("a file");
    file.write_all(b"a-secret-of-instances\n").expect("written");
    file
}

fn promdedup(command: &str, url: &str, token: &NamedTempFile) -> Command {
    let mut program = Command::new(env!("CARGO_BIN_EXE_promdedup"));
    program.arg(command).env_clear().stdout(Stdio::piped()).stderr(Stdio::piped());
    program.envs([
        ("PROMDEDUP_UPSTREAM_URL", "http://127.0.0.1:1/api/v1/receive"),
        ("PROMDEDUP_LISTEN", "127.0.0.1:0"),
        ("PROMDEDUP_ADMIN_LISTEN", "127.0.0.1:0"),
        ("PROMDEDUP_COORDINATION_URL", url),
        ("PROMDEDUP_ADVERTISE_URL", "http://127.0.0.1:19290"),
        ("PROMDEDUP_PEER_TOKEN_FILE", token.path().to_str().expect("a path")),
        ("PROMDEDUP_LOG", "trace"),
        ("PROMDEDUP_LOG_FORMAT", "json"),
    ]);
    program
}

async fn page(admin: SocketAddr, path: &str) -> String {
    let asked = format!("GET {path} HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n");
    let answer = spawn_blocking(move || {
        let mut socket = std::net::TcpStream::connect(admin).expect("connected");
        socket.write_all(asked.as_bytes()).expect("sent");
        let mut answer = String::new();
        socket.read_to_string(&mut answer).expect("answered");
        answer
    });
    answer.await.expect("no panic")
}

/// A running `serve`, its admin address, and what it logs to the end.
async fn serve(url: &str, token: &NamedTempFile) -> (Child, SocketAddr, std::thread::JoinHandle<String>) {
    let mut child = promdedup("serve", url, token).spawn().expect("starts");
    let mut log = BufReader::new(child.stderr.take().expect("stderr"));
    let listening = spawn_blocking(move || {
        let mut said = String::new();
        loop {
            let mut line = String::new();
            assert!(log.read_line(&mut line).expect("a line") > 0, "it ended: {said}");
            said += &line;
            let line: serde_json::Value = serde_json::from_str(&line).expect("JSON");
            if line["message"] == "listening" {
                let admin = line["admin"].as_str().expect("an address").parse().expect("an address");
                return (admin, said, log);
            }
        }
    });
    let (admin, said, mut log) = listening.await.expect("no panic");
    let log = std::thread::spawn(move || {
        let mut rest = String::new();
        log.read_to_string(&mut rest).expect("read");
        said + &rest
    });
    (child, admin, log)
}

async fn until(admin: SocketAddr, line: &str) -> String {
    for _ in 0..600 {
        let metrics = page(admin, "/metrics").await;
        if metrics.lines().any(|each| each == line) {
            return metrics;
        }
        sleep(Duration::from_millis(50)).await;
    }
    panic!("{line} is not in /metrics");
}

async fn ended(mut child: Child) -> Option<i32> {
    let status = spawn_blocking(move || child.wait()).await.expect("no panic");
    status.expect("ended").code()
}

fn terminate(child: &Child) {
    let killed = Command::new("kill").args(["-TERM", &child.id().to_string()]).status().expect("kill");
    assert!(killed.success());
}

#[tokio::test]
async fn serve_joins_and_leaves_and_shows_no_password() {
    let mut server = Server::start().await;
    let url = server.database("served").await;
    let token = token();
    let (one, admin, log) = serve(&url, &token).await;
    until(admin, "promdedup_placement_database_up 1").await;
    let (other, other_admin, other_log) = serve(&url, &token).await;
    until(admin, "promdedup_placement_instances 2").await;
    let mut said = String::new();
    for path in ["/metrics", "/", "/-/ready", "/api/v1/status"] {
        said += &page(admin, path).await;
    }
    assert!(said.contains("\"other_instances_left_out\": 0"), "it tells of placement: {said}");
    assert!(
        said.contains("\"heartbeat_age_seconds\": 0.") || said.contains("\"heartbeat_age_seconds\": 1."),
        "{said}"
    );
    assert_eq!(said.matches("data-instance=").count(), 1, "the other one is on the page: {said}");
    terminate(&one);
    assert_eq!(ended(one).await, Some(0));
    until(other_admin, "promdedup_placement_instances 1").await;
    server.kill();
    until(other_admin, "promdedup_placement_database_up 0").await;
    for path in ["/metrics", "/", "/api/v1/status"] {
        said += &page(other_admin, path).await;
    }
    assert!(said.contains("has not answered for"), "the page says that the database is away: {said}");
    // The database is away: the end is a good one all the same.
    terminate(&other);
    assert_eq!(ended(other).await, Some(0));
    said += &log.join().expect("no panic");
    let of_other = other_log.join().expect("no panic");
    assert!(of_other.contains("take the groups over when this one is not heard of"), "{of_other}");
    said += &of_other;
    for secret in [PASSWORD, "a-secret-of-instances"] {
        let line = said.lines().find(|line| line.contains(secret));
        assert_eq!(line, None, "{secret} is shown");
    }
    assert!(said.contains("groups are shared with other instances"), "the log is there");
    assert_eq!(group(1).name, "cluster-1");
}

#[tokio::test]
async fn check_has_a_line_for_the_database() {
    let server = Server::start().await;
    let url = server.database("checked").await;
    let token = token();
    let check = async |url: &str| {
        let mut command = promdedup("check", url, &token);
        let output = spawn_blocking(move || command.output()).await.expect("no panic").expect("ran");
        let Output { stdout, stderr, .. } = output;
        let text = String::from_utf8(stdout).expect("text") + &String::from_utf8(stderr).expect("text");
        assert!(!text.contains(PASSWORD), "{text}");
        text.lines().find(|line| line.starts_with("coordination database")).expect("a line").to_owned()
    };
    let line = check(&url).await;
    let begin = format!("coordination database 127.0.0.1:{}/checked: ok, PostgreSQL ", server.port);
    assert!(line.starts_with(&begin) && line.contains("no tables yet"), "{line}");
    let line = check(&format!("postgres://promdedup:{PASSWORD}@127.0.0.1:1/checked")).await;
    assert!(line.starts_with("coordination database 127.0.0.1:1/checked: failed, "), "{line}");
    assert!(line.contains("cannot be reached"), "{line}");
}
