//! The labels of one series, in whatever order and encoding they came.
//!
//! Owns the slow and always correct way from received labels to canonical bytes, and the judgement of labels: what
//! Prometheus means by an empty value, what no receiver would store, what is more than a
//! series may have. Refuses nothing for its encoding alone.

use super::fields::{self, Field, LENGTH};
use super::v1::{LABELS, TimeSeries};
use super::{Malformed, Span};
use crate::series::{self, ReplicaNames};

/// How much of a name an error quotes, in characters.
const QUOTED_CHARS_MAX: usize = 64;

/// How many labels a series may have, and how long they may be. Prometheus has no such bounds unless it is told to
/// (`label_limit`, `label_name_length_limit`, `label_value_length_limit`), so the default is beyond what anybody means.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct LabelBounds {
    /// Most labels with a value, the replica label included.
    pub labels_max: usize,
    /// Longest name, in bytes. That of the replica label is the operator's affair.
    pub name_bytes_max: usize,
    /// Longest value, in bytes.
    pub value_bytes_max: usize,
}

impl Default for LabelBounds {
    fn default() -> Self {
        Self { labels_max: 1024, name_bytes_max: 4 << 10, value_bytes_max: 256 << 10 }
    }
}

/// What became of the labels of a series.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Canonical {
    /// The received bytes around the replica label were canonical already: it can be cut, nothing must be rewritten.
    pub verbatim: bool,
    /// The value of the replica label; `None` if the series has none, or an empty one.
    pub replica: Option<Span>,
    /// Where the canonical bytes are split for the key.
    pub split: usize,
}

/// Labels that no series may have. Only the series is refused, not the request around it.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum InvalidLabels {
    /// There are none.
    #[error("series has no labels")]
    None,
    /// No `__name__`, or an empty one.
    #[error("series has no __name__ among its {labels} labels")]
    NoMetricName {
        /// How many labels it has.
        labels: usize,
    },
    /// A label without a name.
    #[error("label name is empty at byte {at}")]
    EmptyName {
        /// Offset of the label in the body.
        at: usize,
    },
    /// A name that is there twice, with values.
    #[error("label {name:?} is repeated at byte {at}")]
    Repeated {
        /// The name, cut short.
        name: String,
        /// Offset of its second appearance in the body.
        at: usize,
    },
    /// More labels than a series may have.
    #[error("series has {labels} labels, at most {max} are taken")]
    TooMany {
        /// How many labels with a value it has.
        labels: usize,
        /// The bound.
        max: usize,
    },
    /// A name that is longer than it may be.
    #[error("label name {name:?} has {given} bytes, at most {max} are taken")]
    NameTooLong {
        /// The name, cut short.
        name: String,
        /// Its length in bytes.
        given: usize,
        /// The bound, in bytes.
        max: usize,
    },
    /// A value that is longer than it may be.
    #[error("value of label {name:?} has {given} bytes, at most {max} are taken")]
    ValueTooLong {
        /// The name, cut short.
        name: String,
        /// The value's length in bytes.
        given: usize,
        /// The bound, in bytes.
        max: usize,
    },
    /// A name that is no UTF-8.
    #[error("label name is not UTF-8 at byte {at}")]
    NameNotUtf8 {
        /// Offset of the first wrong byte in the body.
        at: usize,
    },
    /// A value that is no UTF-8.
    #[error("value of label {name:?} is not UTF-8 at byte {at}")]
    ValueNotUtf8 {
        /// The name, cut short.
        name: String,
        /// Offset of the first wrong byte in the body.
        at: usize,
    },
    /// No labels at all, but broken bytes. The walk has found this already.
    #[error(transparent)]
    Malformed(#[from] Malformed),
}

impl InvalidLabels {
    /// Whether they are labels like others, and only too many or too long.
    #[must_use]
    pub const fn is_beyond_a_bound(&self) -> bool {
        matches!(self, Self::TooMany { .. } | Self::NameTooLong { .. } | Self::ValueTooLong { .. })
    }
}

/// Writes the canonical label bytes of `series` to `out` (cleared first), or says why it can have none.
///
/// Takes labels in any place, order and encoding, within the bounds. An empty value means an absent label, also of the replica label: then
/// the next configured name counts. Unknown fields inside a label do not survive.
pub fn canonicalize(
    body: &[u8],
    series: &TimeSeries,
    names: &ReplicaNames,
    bounds: LabelBounds,
    out: &mut Vec<u8>,
) -> Result<Canonical, InvalidLabels> {
    out.clear();
    if let Some(verdict) = accept(body, series, names, bounds, out) {
        return Ok(verdict);
    }
    let mut labels = Vec::with_capacity(32);
    let received = collect(body, series.payload, names, bounds, &mut labels)?;
    // Stable, so that of two equal names the second one received is called the repetition.
    labels.sort_by(|one, other| one.name.of(body).cmp(other.name.of(body)));
    for pair in labels.windows(2) {
        if let [one, other] = pair
            && one.name.of(body) == other.name.of(body)
        {
            let at = other.field.start as usize;
            return Err(InvalidLabels::Repeated { name: quote(other.name.of(body)), at });
        }
    }
    if !labels.iter().any(|label| label.name.of(body) == b"__name__") {
        return Err(InvalidLabels::NoMetricName { labels: received });
    }

    let ranked = labels.iter().filter_map(|label| Some((names.rank(label.name.of(body))?, label.value)));
    let replica = ranked.min_by_key(|(rank, _)| *rank).map(|(_, value)| value);
    let first = names.first().as_bytes();
    let mut split = None;
    for label in labels.iter().filter(|label| Some(label.value) != replica) {
        let name = label.name.of(body);
        if split.is_none() && name >= first {
            split = Some(out.len());
        }
        series::encode_label(out, name, label.value.of(body));
    }
    let (before, after) = (series.before.of(body), series.after.of(body));
    let verbatim = series.plain
        && out.len() == before.len() + after.len()
        && out.starts_with(before)
        && out.ends_with(after);
    Ok(Canonical { verbatim, replica, split: split.unwrap_or(out.len()) })
}

/// The verdict on labels that came as a Prometheus sends them, at a tenth of the cost. `None` says nothing of them.
fn accept(
    body: &[u8],
    series: &TimeSeries,
    names: &ReplicaNames,
    bounds: LabelBounds,
    out: &mut Vec<u8>,
) -> Option<Canonical> {
    if !series.plain {
        return None;
    }
    let (before, after) = (series.before.of(body), series.after.of(body));
    // The keys and lengths of labels below 128 bytes are ASCII, so text is broken in a part exactly if it is broken in
    // one of its labels. A longer label fails here and goes the slow way.
    std::str::from_utf8(before).ok()?;
    std::str::from_utf8(after).ok()?;
    std::str::from_utf8(series.replica.of(body)).ok()?;
    let first = names.first().as_bytes();
    let (mut last, mut named, mut at, mut split) = (&[][..], false, 0, None);
    let mut count = usize::from(!series.replica.is_empty());
    let mut longest = (0, series.replica.len());
    for (name, value) in series::labels(before).chain(series::labels(after)) {
        if name <= last || value.is_empty() {
            return None;
        }
        if split.is_none() && name >= first {
            split = Some(at);
        }
        named |= name == b"__name__";
        last = name;
        count += 1;
        longest = (longest.0.max(name.len()), longest.1.max(value.len()));
        at += 2 + series::encoded_len(name, value);
    }
    if !named || at != before.len() + after.len() {
        return None;
    }
    let within = count <= bounds.labels_max
        && longest.0 <= bounds.name_bytes_max
        && longest.1 <= bounds.value_bytes_max;
    if !within {
        return None;
    }
    out.extend_from_slice(before);
    out.extend_from_slice(after);
    let replica = (!series.replica.is_empty()).then_some(series.replica);
    Some(Canonical { verbatim: true, replica, split: split.unwrap_or(at) })
}

/// One label as received.
#[derive(Debug, Clone, Copy)]
pub(super) struct Label {
    /// The whole field of the series, key included.
    pub(super) field: Span,
    pub(super) name: Span,
    pub(super) value: Span,
    /// It has a name and a value and is encoded as [`series::encode_label`] would.
    pub(super) shortest: bool,
}

/// Reads a `Label` (name = 1, value = 2) from a length-delimited field.
pub(super) fn read(body: &[u8], field: &Field) -> Result<Label, Malformed> {
    let message = &body[..field.end()];
    let start = field.content.start as usize;
    let nothing = Span::at(start, start);
    let mut label = Label { field: field.whole(), name: nothing, value: nothing, shortest: false };
    let mut in_order = true;
    let mut at = start;
    while at < message.len() {
        let inner = fields::read(message, at)?;
        match (inner.number, inner.wire_type) {
            (1, LENGTH) => label.name = inner.content,
            (2, LENGTH) => {
                in_order &= inner.end() == message.len();
                label.value = inner.content;
            }
            (1 | 2, _) => return Err(inner.wrong_wire_type()),
            _ => in_order = false,
        }
        at = inner.end();
    }
    // The value is last, and nothing is longer than it must be: so the name is before it, once, and all the rest.
    let shortest = series::encoded_len(label.name.of(body), label.value.of(body));
    label.shortest = in_order
        && !label.name.is_empty()
        && !label.value.is_empty()
        && label.field.len() == 1 + fields::varint_len(shortest as u64) + shortest;
    Ok(label)
}

/// Judges all labels and gathers those with a value. Returns how many there are with those without one.
///
/// No more are gathered than a series may have: a body can hold millions, of five bytes each.
fn collect(
    body: &[u8],
    payload: Span,
    names: &ReplicaNames,
    bounds: LabelBounds,
    labels: &mut Vec<Label>,
) -> Result<usize, InvalidLabels> {
    let message = &body[..payload.end as usize];
    let (mut received, mut filled) = (0, 0);
    let mut at = payload.start as usize;
    while at < message.len() {
        let field = fields::read(message, at)?;
        if field.number == LABELS {
            if field.wire_type != LENGTH {
                return Err(field.wrong_wire_type().into());
            }
            let label = read(body, &field)?;
            judge(&label, body, names, bounds)?;
            received += 1;
            if !label.value.is_empty() {
                filled += 1;
                if filled <= bounds.labels_max {
                    labels.push(label);
                }
            }
        }
        at = field.end();
    }
    match (received, filled) {
        (0, _) => Err(InvalidLabels::None),
        (_, labels) if labels > bounds.labels_max => {
            Err(InvalidLabels::TooMany { labels, max: bounds.labels_max })
        }
        _ => Ok(received),
    }
}

fn judge(label: &Label, body: &[u8], names: &ReplicaNames, bounds: LabelBounds) -> Result<(), InvalidLabels> {
    let name = label.name.of(body);
    if name.is_empty() {
        return Err(InvalidLabels::EmptyName { at: label.field.start as usize });
    }
    if let Err(error) = std::str::from_utf8(name) {
        return Err(InvalidLabels::NameNotUtf8 { at: label.name.start as usize + error.valid_up_to() });
    }
    if let Err(error) = std::str::from_utf8(label.value.of(body)) {
        let at = label.value.start as usize + error.valid_up_to();
        return Err(InvalidLabels::ValueNotUtf8 { name: quote(name), at });
    }
    let (given, max) = (name.len(), bounds.name_bytes_max);
    if given > max && names.rank(name).is_none() {
        return Err(InvalidLabels::NameTooLong { name: quote(name), given, max });
    }
    let (given, max) = (label.value.len(), bounds.value_bytes_max);
    if given > max {
        return Err(InvalidLabels::ValueTooLong { name: quote(name), given, max });
    }
    Ok(())
}

fn quote(name: &[u8]) -> String {
    String::from_utf8_lossy(name).chars().take(QUOTED_CHARS_MAX).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(labels: &[(&str, &str)], times: usize, expect: Result<usize, InvalidLabels>) {
        let mut body = Vec::new();
        for (name, value) in labels.iter().copied().cycle().take(labels.len() * times) {
            series::encode_label(&mut body, name.as_bytes(), value.as_bytes());
        }
        let bounds = LabelBounds::default();
        let mut gathered = Vec::new();
        let payload = Span::at(0, body.len());
        assert_eq!(collect(&body, payload, &ReplicaNames::default(), bounds, &mut gathered), expect);
        assert!(gathered.capacity() <= 2 * bounds.labels_max, "{} of {times}", gathered.capacity());
    }

    /// 32 MiB of them took 450 MB.
    #[test]
    fn labels_beyond_the_bound_take_no_memory() {
        check(&[("__name__", "m"), ("a", "")], 1024, Ok(2048));
        check(&[("a", "")], 1 << 20, Ok(1 << 20));
        let labels = 1 << 20;
        check(&[("a", "b")], labels, Err(InvalidLabels::TooMany { labels, max: 1024 }));
    }
}
