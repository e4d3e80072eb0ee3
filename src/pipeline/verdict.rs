//! What the sender is told: the worst of what became of the parts of its request.
//!
//! Pure. Refuses to soften anything: a sample that upstream has not taken is never answered 2xx.

use super::request::{Fate, Kind, Request};
use super::{Reply, Written};
use crate::forward::{Answer, answer};
use crate::window::Flight;

/// What happened to the parts of a request, and to what it leaned on.
#[derive(Debug, Default)]
pub(super) struct Outcome {
    unavailable: Option<String>,
    too_big: Option<String>,
    rejected: Option<String>,
    judged: bool,
}

/// Why upstream's 409 is no loss, if it is none: the label `reason` of `promdedup_benign_conflicts_total`.
pub(super) fn benign(answer: &Answer, flight: &Flight, retry: bool) -> Option<&'static str> {
    let Answer::Conflict { text } = answer else { return None };
    if retry || flight.repeats() {
        return Some("retry");
    }
    if flight.takes_over() {
        return Some("takeover");
    }
    if flight.creates() {
        return Some("first_contact");
    }
    answer::names_only_exemplars(text).then_some("exemplars")
}

impl Outcome {
    /// Notes upstream's answer to a part.
    pub(super) fn note(&mut self, answer: &Answer, benign: bool) {
        self.judged |=
            !matches!(answer, Answer::Unavailable { .. } | Answer::NoAnswer { .. } | Answer::NotSent { .. });
        match answer {
            Answer::Taken => {}
            Answer::Conflict { .. } if benign => {}
            Answer::Conflict { text } => self.reject(format!("upstream answered 409: {text}")),
            Answer::Refused { status, text } => self.reject(format!("upstream answered {status}: {text}")),
            Answer::TooBig { text } => {
                self.too_big.get_or_insert_with(|| {
                    format!("upstream answered 413 to a single series (or metadata of one), which cannot be split: {text}")
                });
            }
            Answer::Unavailable { status, text } => {
                self.unavailable(format!("upstream answered {status}: {text}"));
            }
            Answer::NoAnswer { error } => self.unavailable(format!("upstream did not answer: {error}")),
            Answer::NotSent { error } => self.unavailable(format!("upstream was not reached: {error}")),
        }
    }

    /// The request can be tried again later.
    pub(super) fn unavailable(&mut self, why: String) {
        self.unavailable.get_or_insert(why);
    }

    /// Flights of others carry its series for too long.
    pub(super) fn busy(&mut self) {
        self.unavailable(
            "series of the request are in requests that upstream has not answered yet".to_owned(),
        );
    }

    /// A flight that duplicates leaned on has failed.
    pub(super) fn leaned(&mut self) {
        self.unavailable("upstream did not take the samples that these are duplicates of".to_owned());
    }

    /// Whether upstream took something, or judged it.
    pub(super) fn upstream_works(&self) -> bool {
        self.judged
    }

    fn reject(&mut self, why: String) {
        self.rejected.get_or_insert(why);
    }

    /// The answer.
    pub(super) fn reply(self, request: &Request) -> Reply {
        let all = request.fates.len();
        let [failed, rejected, refused] = request.count([Fate::Failed, Fate::Rejected, Fate::Refused]);
        if let Some(why) = self.unavailable.or_else(|| why_again(request, failed)) {
            return Reply::new(503, format!("{failed} of {all} samples have to be sent again: {why}"));
        }
        if let Some(why) = self.too_big {
            return Reply::new(413, format!("{rejected} of {all} samples rejected: {why}"));
        }
        let invalid = request.refusal.as_ref();
        match (self.rejected, invalid) {
            (None, None) => Reply::new(204, String::new()),
            (Some(why), None) => Reply::new(400, format!("{rejected} of {all} samples rejected: {why}")),
            (None, Some(first)) => {
                Reply::new(400, format!("{refused} of {all} samples refused, the rest delivered: {first}"))
            }
            (Some(why), Some(first)) => Reply::new(
                400,
                format!("{refused} of {all} samples refused: {first}; {rejected} rejected: {why}"),
            ),
        }
    }
}

/// What is delivered of a request that need not come again. Exemplars go with their series: those of one that is refused, or
/// rejected with all its samples, are not; nor those that came without one and were rejected.
pub(super) fn written(request: &Request) -> Written {
    let mut written = Written::default();
    for item in &request.items {
        let first = item.series.first_sample as usize;
        let fates = &request.fates[first..first + item.series.samples as usize];
        let mut delivered = fates.is_empty() && item.kind != Kind::Invalid && !item.rejected;
        for (sample, fate) in item.series.samples_of(&request.samples).iter().zip(fates) {
            if matches!(fate, Fate::Forwarded | Fate::Duplicate) {
                delivered = true;
                match sample.histogram {
                    true => written.histograms += 1,
                    false => written.samples += 1,
                }
            }
        }
        written.exemplars += if delivered { u64::from(item.series.exemplars) } else { 0 };
    }
    written
}

/// Why a request has to be sent again that upstream and other flights have nothing to do with.
fn why_again(request: &Request, failed: u64) -> Option<String> {
    if request.held_back {
        return Some(
            "their group is new here, and the backlogs of its replicas are to be known first".to_owned(),
        );
    }
    let waits = request.tallies.iter().any(|tally| tally.waits);
    let why = match waits {
        true => "they are newer than what another replica still has to deliver",
        false => "there is no room to hold them",
    };
    (failed > 0).then(|| why.to_owned())
}
