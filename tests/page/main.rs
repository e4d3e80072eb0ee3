//! The status page in a real browser, while the demo sends, loses a replica, and gets it back.
//!
//! `cargo test --features page --test page`; needs Debian's `chromium` and `chromium-driver`, and fails without them. Pictures
//! are left in `target/page`.
#![allow(
    clippy::expect_used,
    clippy::print_stdout,
    clippy::panic,
    reason = "a test says what it sees, and fails"
)]

mod browser;

use browser::Browser;
use promdedup::stand_in::request::Body;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::TcpStream;
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::sync::mpsc::{self, Receiver};
use std::time::{Duration, Instant};

/// A killed replica is seen within this time. The page is drawn anew every two seconds.
const SEEN_WITHIN: Duration = Duration::from_secs(5);
const HOSTILE: &str = "<script>document.title='owned'</script><img src=x onerror=\"document.title='owned'\">";

struct Demo {
    process: Child,
    lines: Receiver<(Instant, String)>,
}

impl Demo {
    fn start() -> Self {
        let mut process = Command::new(env!("CARGO_BIN_EXE_promdedup"))
            .args(["demo", "--duration", "48s", "--series", "2000"])
            .stdout(Stdio::piped())
            .spawn()
            .expect("the demo starts");
        let out = BufReader::new(process.stdout.take().expect("its output"));
        let (say, lines) = mpsc::sync_channel(10_000);
        std::thread::spawn(move || {
            for line in out.lines().map_while(Result::ok) {
                drop(say.send((Instant::now(), line)));
            }
        });
        Self { process, lines }
    }

    /// The next line with these words, and when it came.
    fn says(&self, words: &str) -> (Instant, String) {
        loop {
            let (at, line) = self.lines.recv_timeout(Duration::from_secs(60)).expect("it still speaks");
            if line.contains(words) {
                return (at, line);
            }
        }
    }
}

impl Drop for Demo {
    fn drop(&mut self) {
        drop(self.process.kill());
        drop(self.process.wait());
    }
}

fn pictures() -> PathBuf {
    let folder = PathBuf::from(env!("CARGO_TARGET_TMPDIR")).join("../page");
    std::fs::create_dir_all(&folder).expect("a folder");
    folder
}

/// The first address behind some words.
fn address<'a>(line: &'a str, behind: &str) -> &'a str {
    let rest = line.split_once(behind).expect("these words").1;
    rest.split([' ', '/']).find(|word| !word.is_empty()).expect("an address")
}

/// Sends samples of a replica whose labels are no friend's.
fn send_hostile_labels(to: &str) {
    let labels = [("__name__", "m"), ("cluster", HOSTILE), ("prometheus_replica", HOSTILE)];
    let now = promdedup::stand_in::now_ms();
    // The second one is refused, and the page says why.
    for at in [now, now + 3_600_000] {
        let body = Body::new().series(&labels, &[(at, 1.0)]).compressed().to_vec();
        let mut stream = TcpStream::connect(to).expect("the proxy");
        let head = format!(
            "POST /api/v1/receive HTTP/1.1\r\nhost: x\r\nconnection: close\r\ncontent-type: application/x-protobuf\r\n\
             content-encoding: snappy\r\ncontent-length: {}\r\n\r\n",
            body.len()
        );
        stream.write_all(&[head.as_bytes(), &body].concat()).expect("sent");
        let mut answer = String::new();
        stream.read_to_string(&mut answer).expect("an answer");
        println!("hostile labels: {}", answer.lines().next().unwrap_or_default());
    }
}

#[test]
fn the_page_shows_a_pair_a_death_and_hostile_labels() {
    let demo = Demo::start();
    let line = demo.says("promdedup at").1;
    let data = address(&line, "promdedup at ").to_owned();
    let line = demo.says("status page").1;
    let page = format!("http://{}/", address(&line, "http://"));
    let browser = Browser::open();
    browser.resize(1200, 1000);
    browser.go(&page);
    let row = |replica: &str| format!("document.querySelector('tr[data-replica=\"{replica}\"]')");
    for replica in ["prometheus-k8s-0", "prometheus-k8s-1"] {
        browser.until(&format!("{} !== null", row(replica)), Duration::from_secs(15));
    }
    browser.eval("(window.before = document.querySelector('main'), true)");
    browser.until("document.querySelector('main') !== window.before", Duration::from_secs(10));

    // Whoever comes to tell of a death has to tell it of the right one.
    let (killed, line) = demo.says("was killed");
    let dead =
        line.split_whitespace().find(|word| word.starts_with("prometheus-")).expect("its name").to_owned();
    browser.until(
        &format!("{}?.innerText.includes('silent for') ?? false", row(&dead)),
        Duration::from_secs(15),
    );
    let seen = killed.elapsed();
    println!("{dead} was seen to be dead after {seen:.1?}");
    assert!(seen <= SEEN_WITHIN, "{seen:?}");
    let living = if dead.ends_with('0') { "prometheus-k8s-1" } else { "prometheus-k8s-0" };
    assert_eq!(browser.eval(&format!("{}.innerText.includes('silent for')", row(living))), false);
    assert_eq!(browser.eval("document.querySelectorAll('.note').length >= 1"), true, "it is said what to do");
    browser.picture(&pictures().join("death.png"));

    send_hostile_labels(&data);
    browser.until(
        "document.querySelector('main').innerText.includes('<script>document.title')",
        Duration::from_secs(10),
    );
    browser
        .until("document.querySelector('main').innerText.includes('in the future')", Duration::from_secs(10));
    assert_eq!(browser.eval("document.title"), "promdedup");
    assert_eq!(browser.eval("document.querySelectorAll('main script, main img').length"), 0);

    browser.dark(true);
    browser.resize(420, 900);
    assert_eq!(
        browser.eval("document.documentElement.scrollWidth <= document.documentElement.clientWidth"),
        true,
        "a phone shows it without scrolling sideways"
    );
    browser.picture(&pictures().join("phone-dark.png"));
    browser.dark(false);
    browser.resize(1200, 1000);

    demo.says("came back");
    browser.until(&format!("!{}.innerText.includes('silent for')", row(&dead)), Duration::from_secs(10));
    browser.picture(&pictures().join("pair.png"));
    assert_eq!(browser.complaints(), Vec::<serde_json::Value>::new());

    browser.scripts(false);
    browser.go(&page);
    browser.picture(&pictures().join("without-script.png"));
    browser.scripts(true);
}
