//! Hostile requests: what is in them, and what is said of it.

use crate::raw::Request;
use bytes::Bytes;
use promdedup::stand_in::Labels;
use promdedup::stand_in::now_ms;
use promdedup::stand_in::request::{compress, label_block, put_sample};

const MIB: usize = 1 << 20;
/// A head that nobody minds.
const HEAD: &str = "POST /api/v1/receive HTTP/1.1\r\nhost: x\r\n";

/// Whatever it is, with its length.
pub(crate) fn post(headers: &str, body: impl Into<Bytes>, samples: u64) -> Request {
    let body = body.into();
    let head = format!("{HEAD}{headers}content-length: {}\r\n\r\n", body.len());
    Request { head, body, samples }
}

/// A head and what there is of a body.
pub(crate) fn raw(headers: &str, body: &[u8]) -> Request {
    Request { head: format!("{HEAD}{headers}\r\n"), body: Bytes::copy_from_slice(body), samples: 0 }
}

/// Nothing that would be a head.
pub(crate) fn text(text: &str) -> Request {
    Request { head: text.to_owned(), body: Bytes::new(), samples: 0 }
}

/// Series of one sample each, now, with labels as they are said by number.
pub(crate) fn series(
    headers: &str,
    numbers: std::ops::Range<u64>,
    labels: impl Fn(u64) -> Vec<(String, String)>,
) -> Request {
    let (mut body, samples) = (Vec::new(), numbers.end - numbers.start);
    let at_ms = now_ms();
    for number in numbers {
        put_sample(&mut body, &label_block(&Labels::new(labels(number))), at_ms, 1.0f64.to_bits());
    }
    post(headers, compress(&body), samples)
}

pub(crate) fn label(name: &str, value: impl ToString) -> (String, String) {
    (name.to_owned(), value.to_string())
}

/// As much of nothing, in a few bytes for each hundred.
pub(crate) fn zeros(mib: usize) -> Request {
    post("", compress(&vec![0; mib * MIB]), 0)
}

/// One valid series with labels as long as they may be, all of one letter.
pub(crate) fn one_letter(mib: usize) -> Request {
    let value = "a".repeat(256 << 10);
    let labels = |_| {
        let long = (0..mib * 4 - 1).map(|number| label(&format!("l{number:02}"), &value));
        long.chain([label("__name__", "bomb")]).collect()
    };
    series("", 0..1, labels)
}

/// A block that says it is of so many bytes, and is of a few.
pub(crate) fn lie(length: u64) -> Request {
    let mut body = Vec::new();
    prost::encoding::encode_varint(length, &mut body);
    body.extend_from_slice(b"\x04what");
    post("", body, 0)
}

/// Varints that do not end, in the message or of the block.
pub(crate) fn endless() -> Vec<Request> {
    let bodies = [
        compress(&vec![0xff; 4 * MIB]),
        compress(&[&[0x0a][..], &vec![0xff; MIB]].concat()),
        vec![0xff; MIB].into(),
    ];
    bodies.map(|body| post("", body, 0)).into()
}

/// Series of a name and a number, in one body.
pub(crate) fn tiny(series_each: u64) -> Request {
    series("", 0..series_each, |number| vec![label("__name__", "m"), label("i", number)])
}

/// Some series of thousands of labels.
pub(crate) fn many_labels() -> Request {
    series("", 0..20, |number| {
        let labels = (0..5_000).map(|label_number| label(&format!("l{label_number}"), number));
        labels.chain([label("__name__", "m")]).collect()
    })
}

pub(crate) fn long_heads() -> Vec<Request> {
    vec![raw(&format!("x-long: {}\r\n", "x".repeat(200_000)), b""), raw(&"x: y\r\n".repeat(5_000), b"")]
}

/// Where do they end?
pub(crate) fn in_doubt() -> Vec<Request> {
    let framings = [
        "content-length: 1\r\ncontent-length: 5\r\n",
        "content-length: +5\r\n",
        "content-length: 99999999999999999999999\r\n",
        "transfer-encoding: gzip\r\n",
        "transfer-encoding: chunked, gzip\r\n",
        "transfer-encoding: chunked\r\ntransfer-encoding: chunked\r\n",
        "transfer-encoding: \"chunked\"\r\n",
        "content-length : 5\r\n",
        "x-folded: a\r\n b\r\ncontent-length: 5\r\n",
    ];
    framings.map(|framing| raw(framing, b"4\r\n\x03\x08abc\r\n0\r\n\r\n")).into()
}
