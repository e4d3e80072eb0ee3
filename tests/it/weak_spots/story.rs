//! Shorthand for stories of replicas before a pipeline: who delivers what, what is in the air, what upstream has stored.
//!
//! Owns no judgement. The replicas scrape every 15 s: A at full quarters, B 6 s later, unless a story says otherwise.

use crate::support::{Ask, Fake, Gate, Ts, Wishes};
use promdedup::forward::Answer;
use promdedup::pipeline::Reply;
use tokio::task::JoinHandle;

/// A pipeline and its upstream.
#[derive(Clone)]
pub(super) struct Story {
    pub(super) ask: Ask,
    pub(super) fake: Fake,
}

/// A request whose flight is in the air until the story lets it land.
pub(super) struct Flying {
    gate: Gate,
    reply: JoinHandle<Reply>,
}

pub(super) fn ts(name: &str, replica: &str, seconds: i64) -> Ts {
    Ts::new(name).replica(replica).at(seconds)
}

pub(super) fn stale(name: &str, replica: &str, seconds: i64) -> Ts {
    Ts::new(name).replica(replica).stale_at(seconds)
}

pub(super) fn up(replica: &str, value: u8, seconds: i64) -> Ts {
    Ts::new("up").replica(replica).value_at(f64::from(value), seconds)
}

pub(super) fn unavailable() -> Answer {
    Answer::Unavailable { status: 503, text: "busy".into() }
}

pub(super) fn no_answer() -> Answer {
    Answer::NoAnswer { error: "timed out".into() }
}

pub(super) fn conflict() -> Answer {
    Answer::Conflict { text: "add 1 samples: out of order sample".into() }
}

pub(super) fn too_big() -> Answer {
    Answer::TooBig { text: "too many series".into() }
}

impl Story {
    pub(super) fn new() -> Self {
        Self::with(|_| {})
    }

    pub(super) fn with(wish: impl FnOnce(&mut Wishes)) -> Self {
        let (ask, fake) = Ask::with(wish);
        Self { ask, fake }
    }

    /// A pair in the middle of its life: `names` at 0, 15, 30 of A, who owns them, and 6, 21, 36 of B, who stands by.
    pub(super) async fn of_a_pair(names: &[&str]) -> Self {
        let story = Self::new();
        story.lives_to_30(names).await;
        story
    }

    pub(super) async fn lives_to_30(&self, names: &[&str]) {
        for t in [0, 15, 30] {
            for (replica, phase) in [("a", 0), ("b", 6)] {
                self.takes(&names.iter().map(|name| ts(name, replica, t + phase)).collect::<Vec<_>>()).await;
            }
        }
    }

    /// Delivers, and is answered 204.
    pub(super) async fn takes(&self, series: &[Ts]) {
        let reply = self.ask.ask(series).await;
        assert_eq!((reply.status, reply.text.as_str()), (204, ""));
    }

    /// Delivers: the status of the answer.
    pub(super) async fn says(&self, series: &[Ts]) -> u16 {
        let reply = self.ask.ask(series).await;
        assert_eq!(reply.retry_after_s, (reply.status == 503).then_some(1), "{reply:?}");
        reply.status
    }

    /// Delivers, and has the flight of it in the air, to be answered so.
    pub(super) async fn flies(&self, answer: Answer, series: Vec<Ts>) -> Flying {
        self.tries_to_fly(answer, series).await.expect("a flight")
    }

    /// The same, for what may be answered 204 without a flight.
    pub(super) async fn tries_to_fly(&self, answer: Answer, series: Vec<Ts>) -> Option<Flying> {
        let gate = self.fake.hold(answer);
        let mut reply = tokio::spawn(self.ask.clone().owned(series));
        tokio::select! {
            () = gate.taken() => Some(Flying { gate, reply }),
            reply = &mut reply => {
                assert_eq!(reply.unwrap().status, 204);
                self.fake.hold_no_more();
                None
            }
        }
    }

    /// Delivers, and lets it come as far as it can.
    pub(super) async fn comes(&self, series: Vec<Ts>) -> JoinHandle<Reply> {
        let reply = tokio::spawn(self.ask.clone().owned(series));
        go_on().await;
        reply
    }

    /// What upstream has stored of a series: its times in their order of arrival, as in `sent`.
    pub(super) fn stream(&self, series: &str) -> String {
        let lines = self.fake.stored();
        let own = lines.iter().filter_map(|line| line.strip_prefix(series)?.strip_prefix(' '));
        own.collect::<Vec<_>>().join(" ")
    }

    pub(super) fn moves(&self) -> u64 {
        self.ask.metric("promdedup_target_moves_total", &[])
    }

    pub(super) fn takeovers(&self, reason: &str) -> u64 {
        self.ask.metric("promdedup_takeovers_total", &[("reason", reason)])
    }

    pub(super) fn benign(&self, reason: &str) -> u64 {
        self.ask.metric("promdedup_benign_conflicts_total", &[("reason", reason)])
    }

    pub(super) fn series(&self) -> usize {
        self.ask.pipeline.window().series()
    }
}

impl Flying {
    /// Lets upstream answer: the status that the sender gets.
    pub(super) async fn lands(self) -> u16 {
        self.gate.open();
        self.reply.await.unwrap().status
    }

    /// The sender's task is ended before upstream has answered.
    pub(super) async fn vanishes(self) {
        self.reply.abort();
        assert!(self.reply.await.unwrap_err().is_cancelled());
    }
}

/// Lets all other tasks go on until they wait for something.
pub(super) async fn go_on() {
    for _ in 0..20 {
        tokio::task::yield_now().await;
    }
}
