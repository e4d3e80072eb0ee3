//! What the sender is told of a request whose parts were served by several instances: the worst of it. Pure.

use super::super::{Reply, Written};

/// An answer is not made longer than this by another part's reason.
const TEXT_MAX_BYTES: usize = 8 << 10;

/// The answers to the parts of a request.
#[derive(Debug, Default)]
pub(super) struct Answers {
    worst: Option<Reply>,
    written: Written,
    elsewhere: bool,
}

impl Answers {
    /// Notes the answer to a part.
    pub(super) fn add(&mut self, reply: Reply) {
        self.written.samples += reply.written.samples;
        self.written.histograms += reply.written.histograms;
        self.written.exemplars += reply.written.exemplars;
        self.elsewhere |= reply.elsewhere;
        match &mut self.worst {
            Some(worst) if rank(worst.status) > rank(reply.status) => {}
            Some(worst) if worst.status == reply.status => {
                worst.retry_after_s = worst.retry_after_s.max(reply.retry_after_s);
                let is_new = !reply.text.is_empty() && worst.text != reply.text;
                if is_new && worst.text.len() + reply.text.len() <= TEXT_MAX_BYTES {
                    worst.text.push_str("; ");
                    worst.text.push_str(&reply.text);
                }
            }
            worst => *worst = Some(reply),
        }
    }

    /// The answer to the whole. What has to be sent again is not written, whatever became of its parts.
    pub(super) fn reply(self) -> Reply {
        let reply = self.worst.unwrap_or_else(|| Reply::new(204, String::new()));
        let written = if reply.status == 503 { Written::default() } else { self.written };
        Reply { written, elsewhere: self.elsewhere, ..reply }
    }
}

/// What has to be sent again counts most: the sender must not take the rest for an answer to all.
fn rank(status: u16) -> u8 {
    match status {
        204 => 0,
        400 => 1,
        413 => 2,
        _ => 3,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn part(status: u16, text: &str, samples: u64) -> Reply {
        let written = Written { samples, histograms: 1, exemplars: 2 };
        Reply { written, ..Reply::new(status, text.to_owned()) }
    }

    fn check(parts: &[(u16, &str)], status: u16, text: &str) {
        for order in [parts.to_vec(), parts.iter().rev().copied().collect()] {
            let mut answers = Answers::default();
            order.iter().for_each(|(status, text)| answers.add(part(*status, text, 5)));
            let reply = answers.reply();
            assert_eq!((reply.status, reply.text.as_str()), (status, text), "{order:?}");
            assert_eq!(reply.retry_after_s, (status == 503).then_some(1));
            let parts = if status == 503 { 0 } else { order.len() as u64 };
            let written = Written { samples: 5 * parts, histograms: parts, exemplars: 2 * parts };
            assert_eq!(reply.written, written, "{order:?}");
        }
    }

    #[test]
    fn the_worst_wins_and_counts_add_up() {
        check(&[], 204, "");
        check(&[(204, ""), (204, "")], 204, "");
        check(&[(204, ""), (400, "bad")], 400, "bad");
        check(&[(413, "big"), (400, "bad"), (204, "")], 413, "big");
        check(&[(503, "later"), (413, "big"), (400, "bad")], 503, "later");
        check(&[(503, "later"), (204, "")], 503, "later");
        check(&[(400, "bad"), (400, "bad"), (204, "")], 400, "bad");
    }

    #[test]
    fn reasons_of_the_same_kind_are_told_one_after_the_other() {
        let mut answers = Answers::default();
        for text in ["first", "second", "second", &"x".repeat(TEXT_MAX_BYTES)] {
            answers.add(part(400, text, 0));
        }
        assert_eq!(answers.reply().text, "first; second; second");
    }

    #[test]
    fn reasons_add_up_to_the_bound_and_no_further() {
        let (half, more) = ("a".repeat(TEXT_MAX_BYTES / 2), "b".repeat(TEXT_MAX_BYTES / 2));
        for (second, bytes) in [(more.clone(), TEXT_MAX_BYTES + 2), (more + "b", TEXT_MAX_BYTES / 2)] {
            let mut answers = Answers::default();
            answers.add(part(400, &half, 0));
            answers.add(part(400, &second, 0));
            assert_eq!(answers.reply().text.len(), bytes);
        }
    }

    #[test]
    fn one_part_that_goes_better_elsewhere_is_enough() {
        for order in [[true, false], [false, true]] {
            let mut answers = Answers::default();
            order
                .iter()
                .for_each(|elsewhere| answers.add(Reply { elsewhere: *elsewhere, ..part(503, "", 0) }));
            assert!(answers.reply().elsewhere, "{order:?}");
        }
        let mut answers = Answers::default();
        answers.add(part(503, "", 0));
        assert!(!answers.reply().elsewhere);
    }

    #[test]
    fn the_longest_pause_counts() {
        let mut answers = Answers::default();
        answers.add(Reply { retry_after_s: Some(7), ..part(503, "a", 0) });
        answers.add(part(503, "b", 0));
        assert_eq!(answers.reply().retry_after_s, Some(7));
    }
}
