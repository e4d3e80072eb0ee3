//! The attacks: what each does, how many do it at a time, and what the proxy is set to for it.

use crate::bodies::{self, label};
use crate::raw::{Request, ask, hold};
use crate::target::Target;
use crate::tls::{many_streams, rapid_resets};
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use rustix::process::{Pid, Signal, kill_process};
use std::pin::Pin;
use std::time::Duration;
use tokio::time::sleep;

/// What guards the senders' port.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Guard {
    Nothing,
    Tls,
    Passwords,
    Tokens,
}

type Attacker = Pin<Box<dyn Future<Output = ()> + Send>>;

pub(crate) struct Attack {
    pub(crate) name: &'static str,
    pub(crate) guard: Guard,
    /// How many at a time.
    pub(crate) attackers: usize,
    /// What they send over and over, if it is always the same.
    pub(crate) requests: fn() -> Vec<Request>,
    /// What the one of a number does.
    pub(crate) attacker: fn(Target, u64) -> Attacker,
}

/// Enough to keep one data thread busy.
const BUSY: usize = 16;
/// Numbers of one attacker are not another's.
const APART: u64 = 1 << 40;

const fn open(name: &'static str, attackers: usize, attacker: fn(Target, u64) -> Attacker) -> Attack {
    Attack { name, guard: Guard::Nothing, attackers, requests: Vec::new, attacker }
}

/// These requests without end.
const fn again(name: &'static str, requests: fn() -> Vec<Request>) -> Attack {
    let attacker = |target: Target, number: u64| -> Attacker {
        let mut next = number as usize;
        Box::pin(ask(target.clone(), move || {
            next += 1;
            target.requests[next % target.requests.len()].clone()
        }))
    };
    Attack { name, guard: Guard::Nothing, attackers: BUSY, requests, attacker }
}

pub(crate) const ATTACKS: [Attack; 22] = [
    again("bombs above the bound: 64 MiB in 3", || vec![bodies::zeros(64)]),
    again("bombs within the bound: 7 MiB of zeros", || vec![bodies::zeros(7)]),
    again("valid bombs: a series of 7 MiB", || vec![bodies::one_letter(7)]),
    again("blocks that claim 4 GiB", || vec![bodies::lie(u64::from(u32::MAX))]),
    again("blocks that claim 7 MiB and are none", || vec![bodies::lie(7 << 20)]),
    again("varints without an end", bodies::endless),
    again("100,000 tiny series a request", || vec![bodies::tiny(100_000)]),
    open("new series without end, a full window", BUSY, |target, attacker| {
        flood(target, attacker, 1_000, |i| {
            vec![label("__name__", "m"), label("cluster", "flood"), label("i", i), label("__replica__", "a")]
        })
    }),
    open("a group for each series", BUSY, |target, attacker| {
        flood(target, attacker, 1_000, |i| {
            vec![label("__name__", "m"), label("cluster", i), label("__replica__", "a")]
        })
    }),
    open("a replica for each series", BUSY, |target, attacker| {
        flood(target, attacker, 1_000, |i| {
            vec![label("__name__", "m"), label("cluster", "flood"), label("i", i), label("__replica__", i)]
        })
    }),
    open("a tenant for each request", BUSY, |target, attacker| {
        let mut numbers = attacker * APART..;
        Box::pin(ask(target, move || {
            let number = numbers.next().unwrap();
            let header = format!("thanos-tenant: flood-{number}\r\n");
            bodies::series(&header, number..number + 1, |i| {
                vec![label("__name__", "m"), label("i", i), label("__replica__", "a")]
            })
        }))
    }),
    again("5,000 labels a series", || vec![bodies::many_labels()]),
    open("2,000 connections without a word", 2_000, |target, _| {
        let to = target.data;
        Box::pin(hold(target, to, bodies::text(""), None))
    }),
    open("300 heads that trickle", 300, |target, _| {
        let to = target.data;
        let head = bodies::text("POST /api/v1/receive HTTP/1.1\r\nhost: x\r\nx-slow: ");
        Box::pin(hold(target, to, head, Some(b'x')))
    }),
    open("300 bodies that trickle", 300, |target, number| {
        let to = target.data;
        let framing = match number % 2 {
            0 => "content-length: 1000000\r\n",
            _ => "transfer-encoding: chunked\r\n",
        };
        let chunk: &[u8] = if number % 2 == 0 { b"" } else { b"fffff\r\n" };
        Box::pin(hold(target, to, bodies::raw(framing, chunk), Some(b'x')))
    }),
    again("heads of 200 KB, or of 5,000 lines", bodies::long_heads),
    again("two lengths, odd codings", bodies::in_doubt),
    Attack {
        guard: Guard::Tls,
        ..open("HTTP/2: 400 requests at a time on each of 8", 8, |target, _| Box::pin(many_streams(target)))
    },
    Attack {
        guard: Guard::Tls,
        ..open("HTTP/2: requests taken back at once", 8, |target, _| Box::pin(rapid_resets(target)))
    },
    Attack {
        guard: Guard::Passwords,
        ..open("wrong passwords", 400, |target, attacker| {
            let mut numbers = attacker * APART..;
            Box::pin(ask(target, move || {
                let guess = STANDARD.encode(format!("sender:{}", numbers.next().unwrap()));
                bodies::post(&format!("authorization: Basic {guess}\r\n"), b"\0".to_vec(), 0)
            }))
        })
    },
    Attack {
        guard: Guard::Tokens,
        ..open("a log line without end (SIGHUP)", 1, |target, _| hang_up(target))
    },
    // Half of them without a word.
    open("300 connections to the admin port", 300, |target, number| {
        let to = target.admin;
        let first = if number % 2 == 0 { "GET /-/healthy HTTP/1.1\r\nhost: x\r\n\r\n" } else { "" };
        Box::pin(hold(target, to, bodies::text(first), None))
    }),
];

/// Series that nobody has heard of, so many a request.
fn flood(target: Target, attacker: u64, each: u64, labels: fn(u64) -> Vec<(String, String)>) -> Attacker {
    let mut first = attacker * APART;
    Box::pin(ask(target, move || {
        let numbers = first..first + each;
        first += each;
        bodies::series("thanos-tenant: flood\r\n", numbers, labels)
    }))
}

/// Each has files read again, which is told in the log.
fn hang_up(target: Target) -> Attacker {
    Box::pin(async move {
        let pid = Pid::from_raw(target.pid as i32).unwrap();
        while target.on() {
            kill_process(pid, Signal::HUP).unwrap();
            target.note("signal");
            sleep(Duration::from_millis(1)).await;
        }
    })
}
