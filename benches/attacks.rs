//! Attacks: what hostile senders get, what it costs the proxy, and what others notice of it.
//!
//! Each has a proxy of its own, as a child process with one data-plane thread and small bounds, whom it attacks for some seconds from an
//! address of its own, while another tenant goes on sending at a steady rate and somebody probes the admin listener. What is
//! acknowledged, to whomever, is held against what upstream has. Prints a table, and fails where a bound is broken; SECURITY.md has
//! one. `-- WORD` runs only attacks whose name has that word.
#![allow(missing_docs, clippy::unwrap_used, clippy::expect_used, clippy::print_stdout, reason = "a bench")]

#[path = "attacks/acts.rs"]
mod acts;
#[path = "attacks/bodies.rs"]
mod bodies;
#[path = "attacks/raw.rs"]
mod raw;
#[path = "stage/stage.rs"]
mod stage;
#[path = "attacks/target.rs"]
mod target;
#[path = "attacks/tls.rs"]
mod tls;

use acts::{ATTACKS, Attack, Guard};
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use http::HeaderMap;
use http::header::AUTHORIZATION;
use promdedup::proto::WriteRequest;
use prost::Message;
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use stage::{Pace, Probed, Proxy, Sender, Tally, Upstream, Way, identity, p99, probe};
use std::collections::HashSet;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::Duration;
use target::{Answers, Target};
use tempfile::TempDir;
use tls::Tls;
use tokio::runtime::{self, Runtime};
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep};

const VARIABLES: [(&str, &str); 8] = [
    ("PROMDEDUP_BODY_MAX", "8MiB"),
    ("PROMDEDUP_IN_FLIGHT_MAX", "32MiB"),
    ("PROMDEDUP_WINDOW_SERIES_MAX", "20000"),
    ("PROMDEDUP_CONNECTIONS_MAX", "512"),
    ("PROMDEDUP_CONNECTIONS_PER_ADDRESS_MAX", "400"),
    ("PROMDEDUP_REQUEST_TIMEOUT", "1s"),
    ("PROMDEDUP_IDLE_TIMEOUT", "2s"),
    ("PROMDEDUP_LOG", "info"),
];
/// Bodies in flight and what they become take their bound each; the rest is the process, its window, and its connections.
const MEMORY_MAX_MIB: u64 = 160;
const ADMIN_MAX: Duration = Duration::from_millis(100);
/// In a test the machine has other things to do.
const ADMIN_MAX_IN_TEST: Duration = Duration::from_secs(5);
/// Before and after an attack the healthy senders are alone.
const ALONE: Duration = Duration::from_millis(300);
/// A request that is still refused so long after the attack is refused for good.
const FOR_GOOD: Duration = Duration::from_secs(10);

/// The healthy ones: senders, series of each, and how often they send.
const SENDERS: usize = 2;
const SERIES: usize = 200;
const PERIOD: Duration = Duration::from_millis(50);
const PASSWORD: &str = "sender:p4ssw0rd";
const TOKEN: &str = "t0ken-of-a-sender";
/// Of the hash: what `htpasswd -B -C 10` makes.
const BCRYPT_COST: u32 = 10;

fn main() {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let test = arguments.iter().any(|argument| argument == "--test");
    let word = arguments.iter().find(|argument| !argument.starts_with("--"));
    let lasts = Duration::from_millis(if test { 300 } else { 5_000 });
    raise_open_files();
    println!(
        "| attack | answers | memory before -> most, MiB | the others: refused, then taken | p99 / slowest, ms | lost | admin, slowest, ms |"
    );
    println!("|---|---|---|---|---|---|---|");
    let mut broken = Vec::new();
    for attack in ATTACKS.iter().filter(|attack| word.is_none_or(|word| attack.name.contains(word))) {
        let row = run(attack, lasts);
        row.print(attack.name);
        broken.extend(row.broken(test).map(|what| format!("{}: {what}", attack.name)));
    }
    assert_eq!(broken, Vec::<String>::new());
}

/// The attackers have many.
fn raise_open_files() {
    let Rlimit { maximum, .. } = getrlimit(Resource::Nofile);
    setrlimit(Resource::Nofile, Rlimit { current: maximum, maximum }).unwrap();
}

/// What came of an attack.
struct Row {
    answers: String,
    before_mib: u64,
    most_mib: u64,
    healthy: Tally,
    p99: Duration,
    lost: u64,
    probed: Probed,
}

impl Row {
    fn print(&self, name: &str) {
        println!(
            "| {name} | {} | {} -> {} | {} | {:.0} / {:.0} | {} | {:.1} |",
            self.answers,
            self.before_mib,
            self.most_mib,
            self.healthy.refused,
            self.p99.as_secs_f64() * 1e3,
            self.healthy.slowest.as_secs_f64() * 1e3,
            self.lost,
            self.probed.slowest.as_secs_f64() * 1e3,
        );
    }

    fn broken(&self, test: bool) -> impl Iterator<Item = String> {
        let admin_max = if test { ADMIN_MAX_IN_TEST } else { ADMIN_MAX };
        let healthy = &self.healthy;
        let bounds = [
            (self.answers.is_empty(), "nothing came of it".to_owned()),
            (self.lost > 0, format!("{} samples were lost", self.lost)),
            (self.most_mib > MEMORY_MAX_MIB, format!("it took {} MiB", self.most_mib)),
            (self.probed.slowest > admin_max, format!("the admin listener took {:?}", self.probed.slowest)),
            (self.probed.unanswered > 0, format!("{} probes had no answer", self.probed.unanswered)),
            (healthy.left > 0, format!("{} requests of others were refused for good", healthy.left)),
            (!healthy.errors.is_empty(), format!("others were answered {:?}", healthy.errors)),
            (healthy.broken > 0, format!("{} connections of others broke", healthy.broken)),
            (healthy.acknowledged.is_empty(), "others got nothing through".to_owned()),
        ];
        bounds.into_iter().filter(|(bad, _)| *bad).map(|(_, what)| what)
    }
}

fn run(attack: &Attack, lasts: Duration) -> Row {
    let requests = Arc::new((attack.requests)());
    let upstream = Upstream::start();
    let (files, tls) = (tempfile::tempdir().unwrap(), Tls::new());
    let guard = guard(attack.guard, &files, &tls);
    let variables: Vec<_> = VARIABLES
        .into_iter()
        .chain(guard.variables.iter().map(|(name, file)| (*name, file.as_str())))
        .collect();
    let proxy = Proxy::start(&upstream.url, &variables);
    let stop = Arc::new(AtomicBool::new(false));
    let (admin, stopped) = (proxy.admin.clone(), Arc::clone(&stop));
    let probing = thread::spawn(move || probe(&admin, &stopped));
    let encrypted = attack.guard == Guard::Tls;
    let way = Way { to: proxy.data, tls: encrypted.then(|| tls.client(&["http/1.1"])) };
    let end = Instant::now() + ALONE + lasts + ALONE;
    let pace = Pace { period: Some(PERIOD), end, given_up: end + FOR_GOOD };
    let sending = thread::spawn(move || healthy(&way, pace, &guard.headers));
    thread::sleep(ALONE);
    let (_, before_mib) = proxy.memory_mib();
    let target = Target {
        data: proxy.data,
        admin: proxy.admin.trim_start_matches("http://").parse().unwrap(),
        pid: proxy.pid(),
        tls: encrypted.then(|| tls.client(&["h2"])),
        requests,
        end: Instant::now() + lasts,
        answers: Arc::default(),
    };
    assault(attack, &target);
    let mut healthy = sending.join().unwrap();
    stop.store(true, Relaxed);
    let probed = probing.join().unwrap();
    if proxy.lines() > 0 {
        target.note_many("line logged", proxy.lines());
    }
    let answers = Mutex::into_inner(Arc::into_inner(target.answers).unwrap()).unwrap();
    let lost = lost(&upstream.take(), &healthy, &answers);
    let p99 = p99(&mut healthy.took);
    Row { answers: answers.told(), before_mib, most_mib: proxy.memory_mib().0, healthy, p99, lost, probed }
}

fn runtime() -> Runtime {
    runtime::Builder::new_current_thread().enable_all().build().unwrap()
}

/// Those whom it is not about.
fn healthy(way: &Way, pace: Pace, headers: &HeaderMap) -> Tally {
    runtime().block_on(async {
        let mut sending = JoinSet::new();
        for number in 0..SENDERS {
            sending.spawn(Sender::new(number, SERIES, headers.clone()).send(way.clone(), pace));
        }
        let mut all = Tally::default();
        while let Some(sent) = sending.join_next().await {
            all.add(sent.unwrap().1);
        }
        all
    })
}

/// All attackers at a time, until the end.
fn assault(attack: &Attack, target: &Target) {
    runtime().block_on(async {
        let mut attacking = JoinSet::new();
        for number in 0..attack.attackers {
            attacking.spawn((attack.attacker)(target.clone(), number as u64));
        }
        while let Some(ended) = attacking.join_next().await {
            ended.unwrap();
        }
        sleep(ALONE).await;
    });
}

/// What of the acknowledged samples upstream has not got: of the healthy ones by request, of the attackers in number.
fn lost(stored: &[Bytes], healthy: &Tally, attackers: &Answers) -> u64 {
    let (mut of_healthy, mut of_attackers) = (HashSet::new(), 0);
    for body in stored {
        match identity(body) {
            Some(sent) => drop(of_healthy.insert(sent)),
            None => of_attackers += samples(body),
        }
    }
    let requests = healthy.acknowledged.iter().filter(|sent| !of_healthy.contains(sent)).count();
    (requests * SERIES) as u64 + attackers.acknowledged.saturating_sub(of_attackers)
}

fn samples(body: &[u8]) -> u64 {
    let raw = snap::raw::Decoder::new().decompress_vec(body).unwrap();
    let request = WriteRequest::decode(raw.as_slice()).unwrap();
    request.timeseries.iter().map(|series| series.samples.len() as u64).sum()
}

/// What the port is guarded by, and how to get in.
struct Guarded {
    variables: Vec<(&'static str, String)>,
    headers: HeaderMap,
}

fn guard(guard: Guard, files: &TempDir, tls: &Tls) -> Guarded {
    let put = |name: &str, content: &str| {
        let path = files.path().join(name);
        std::fs::write(&path, content).unwrap();
        path.to_str().unwrap().to_owned()
    };
    let mut headers = HeaderMap::new();
    headers.insert("thanos-tenant", "healthy".parse().unwrap());
    let mut show = |credentials: String| headers.insert(AUTHORIZATION, credentials.parse().unwrap());
    let variables = match guard {
        Guard::Nothing => vec![],
        Guard::Tls => vec![
            ("PROMDEDUP_TLS_CERT_FILE", put("tls.crt", &tls.certificate)),
            ("PROMDEDUP_TLS_KEY_FILE", put("tls.key", &tls.key)),
        ],
        Guard::Passwords => {
            let (user, password) = PASSWORD.split_once(':').unwrap();
            let hash = bcrypt::hash(password, BCRYPT_COST).unwrap();
            show(format!("Basic {}", STANDARD.encode(PASSWORD)));
            vec![("PROMDEDUP_AUTH_BASIC_FILE", put("htpasswd", &format!("{user}:{hash}\n")))]
        }
        Guard::Tokens => {
            show(format!("Bearer {TOKEN}"));
            vec![("PROMDEDUP_AUTH_BEARER_FILE", put("tokens", &format!("{TOKEN}\n")))]
        }
    };
    Guarded { variables, headers }
}
