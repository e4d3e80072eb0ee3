//! What an answer of the upstream means. Pure: a status and a text in, an [`Answer`] out.

use super::Answer;

/// Judges a status of the upstream. Only 400, 409, 413 and 422 say something about the *data*; every other
/// failure is the operator's or the moment's, so the data must be sent again.
#[must_use]
pub fn judge(status: u16, text: String) -> Answer {
    match status {
        200..=299 => Answer::Taken,
        409 => Answer::Conflict { text },
        400 | 422 => Answer::Refused { status, text },
        413 => Answer::TooBig { text },
        _ => Answer::Unavailable { status, text },
    }
}

/// Why a 2xx to so many samples of remote write 2.0 is none.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum Untaken {
    /// No count at all: whoever takes 1.0 finds nothing in a body of 2.0, and says that all is well.
    #[error(
        "it answered 2xx without a count in X-Prometheus-Remote-Write-Samples-Written: it does not take remote write 2.0 and has \
         discarded everything; set PROMDEDUP_UPSTREAM_PROTOCOL=1.0"
    )]
    Unsaid,
    /// It says itself that it has nothing.
    #[error("it answered 2xx and says that it has written none of {samples} samples; its log may say why")]
    NoneWritten {
        /// How many it was sent.
        samples: u64,
    },
}

/// Judges what a 2xx says is written: samples, histograms, exemplars; `None`: no number is there. By the specification of remote write
/// 2.0 a count that is missing beside others is 0. Fewer than were sent are taken for all: what is missing is not told, and sent again it
/// would be missing again.
///
/// # Errors
/// When nothing was written, though `samples` were sent.
pub fn judge_written(written: [Option<u64>; 3], samples: u64) -> Result<(), Untaken> {
    let [floats, histograms, _] = written;
    if written.iter().all(Option::is_none) {
        return Err(Untaken::Unsaid);
    }
    let none = [floats, histograms].into_iter().flatten().all(|count| count == 0);
    if samples > 0 && none { Err(Untaken::NoneWritten { samples }) } else { Ok(()) }
}

/// Whether an answer shows that the upstream works: it took data, or looked at data and judged it.
#[must_use]
pub fn shows_life(answer: &Answer) -> bool {
    match answer {
        Answer::Taken | Answer::Conflict { .. } | Answer::TooBig { .. } => true,
        Answer::Refused { status, .. } => *status == 400,
        Answer::Unavailable { .. } | Answer::NoAnswer { .. } | Answer::NotSent { .. } => false,
    }
}

/// Whether the text of a 409 blames exemplars and nothing else. Thanos Receive lists each cause as
/// `add <count> <what>: <cause>` (`pkg/receive/writer.go`), where `<what>` is `samples`, `series` or `exemplars`.
/// Anything not understood, or cut off, counts as a blame of something else.
#[must_use]
pub fn names_only_exemplars(text: &str) -> bool {
    let lower = text.to_ascii_lowercase();
    let mut blamed = causes(&lower).peekable();
    blamed.peek().is_some()
        && blamed.all(|(what, cause)| what == "exemplars" && cause.contains("exemplar"))
        && !["sample", "series", "histogram"].iter().any(|word| lower.contains(word))
        && !lower.ends_with(CUT_OFF)
}

/// Whether the text of a 409 blames nothing but the order of samples (and exemplars): upstream has, of each series that it refused a
/// sample of, one at that time or a newer one. Anything not understood, or cut off, counts as a blame of something else.
#[must_use]
pub fn names_only_the_order(text: &str) -> bool {
    const ORDER: [(&str, &str); 4] = [
        ("samples", "out of order sample"),
        ("samples", "duplicate sample for timestamp"),
        ("exemplars", "out of order exemplar"),
        ("exemplars", "duplicate exemplar"),
    ];
    let lower = text.to_ascii_lowercase();
    let mut blamed = causes(&lower).peekable();
    blamed.peek().is_some()
        && blamed.all(|(what, cause)| ORDER.iter().any(|(of, named)| *of == what && cause.starts_with(named)))
        && !["bounds", "too old", "label"].iter().any(|word| lower.contains(word))
        && !lower.ends_with(CUT_OFF)
}

/// Stands at the end of a text of which only the beginning was kept.
pub const CUT_OFF: char = '…';

/// The `add <count> <what>: <cause>` parts of a text.
fn causes(text: &str) -> impl Iterator<Item = (&str, &str)> {
    text.split("add ").skip(1).filter_map(|part| {
        let (count, rest) = part.split_once(' ')?;
        count.parse::<u64>().ok()?;
        let (what, cause) = rest.split_once(':')?;
        Some((what.trim(), cause.trim()))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn expected(status: u16) -> Answer {
        let text = "why".to_owned();
        match status {
            200..=299 => Answer::Taken,
            400 => Answer::Refused { status: 400, text },
            409 => Answer::Conflict { text },
            413 => Answer::TooBig { text },
            422 => Answer::Refused { status: 422, text },
            other => Answer::Unavailable { status: other, text },
        }
    }

    #[test]
    fn every_status_is_judged() {
        for status in 100..=999 {
            let answer = judge(status, "why".to_owned());
            assert_eq!(answer, expected(status), "{status}");
            let alive = matches!(status, 200..=299 | 400 | 409 | 413);
            assert_eq!(shows_life(&answer), alive, "{status}");
        }
        assert!(!shows_life(&Answer::NoAnswer { error: String::new() }));
    }

    #[test]
    fn the_moments_and_the_operators_faults_are_never_final() {
        for status in [301, 302, 307, 308, 401, 403, 404, 405, 408, 425, 429, 500, 502, 503, 504] {
            assert!(matches!(judge(status, String::new()), Answer::Unavailable { .. }), "{status}");
        }
    }

    #[test]
    fn only_exemplars_are_benign() {
        let benign = |text| assert!(names_only_exemplars(text), "{text}");
        let not = |text| assert!(!names_only_exemplars(text), "{text}");
        benign("add 3 exemplars: out of order exemplar");
        benign("store locally for endpoint 127.0.0.1:10901: add 1 exemplars: out of order exemplar");
        benign("2 errors: add 3 exemplars: out of order exemplar; add 1 exemplars: duplicate exemplar");
        benign("add 1 exemplars: label length for exemplar exceeds maximum of 128 UTF-8 characters");
        not("add 1 samples: out of order sample");
        not("add 3 exemplars: out of order exemplar; add 1 samples: out of order sample");
        not("add 1 samples: out of order sample; add 3 exemplars: out of order exemplar");
        not(
            "add 3 exemplars: out of order exemplar; add 1 series: label set contains a label with empty name",
        );
        not("add 3 exemplars: out of order exemplar; 7 samples were too old");
        not("add 3 exemplars: out of order exemplar…");
        not("add 3 exemplars: out of bounds");
        not("conflict");
        not("exemplar");
        not("add many exemplars: out of order exemplar");
        not("");
    }

    #[test]
    fn only_the_order_is_blamed() {
        let order = |text| assert!(names_only_the_order(text), "{text}");
        let not = |text| assert!(!names_only_the_order(text), "{text}");
        order("add 1 samples: out of order sample\n");
        order("store locally for endpoint 127.0.0.1:12907: add 1 samples: out of order sample");
        order("2 errors: add 3 samples: out of order sample; add 2 samples: duplicate sample for timestamp");
        order("2 errors: add 3 samples: out of order sample; add 1 exemplars: out of order exemplar");
        order("2 errors: add 3 samples: out of order sample; add 1 exemplars: duplicate exemplar");
        order(
            "forwarding request to endpoint a:10901: rpc error: code = AlreadyExists desc = store locally for \
             endpoint a:10901: add 9 samples: out of order sample",
        );
        not("2 errors: add 3 samples: out of order sample; add 1 samples: out of bounds");
        not("add 1 samples: out of order sample (out of bounds)");
        not("add 1 samples: too old sample");
        not("add 1 series: out of order labels");
        not("2 errors: add 3 samples: out of order sample; add 1 series: duplicate labels");
        not("add 3 samples: out of order sample…");
        not("add 3 exemplars: out of order sample");
        not("conflict");
        not("out of order sample");
        not("");
    }
}
