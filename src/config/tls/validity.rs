//! When a certificate ends: the one field of X.509 that operators ask for. Pure.
//!
//! Walks the DER to that field (RFC 5280, 4.1) and refuses to judge anything on the way: rustls does that.

use std::time::{Duration, SystemTime};

const SEQUENCE: u8 = 0x30;
const INTEGER: u8 = 0x02;
const VERSION: u8 = 0xa0;
const UTC_TIME: u8 = 0x17;
const GENERALIZED_TIME: u8 = 0x18;

/// The `notAfter` of a certificate in DER.
pub(super) fn not_after(certificate: &[u8]) -> Option<SystemTime> {
    let (certificate, _) = expect(SEQUENCE, certificate)?;
    let (signed, _) = expect(SEQUENCE, certificate)?;
    let after_version = match value(signed)? {
        (VERSION, _, rest) => rest,
        _ => signed,
    };
    let (_serial, rest) = expect(INTEGER, after_version)?;
    let (_signature, rest) = expect(SEQUENCE, rest)?;
    let (_issuer, rest) = expect(SEQUENCE, rest)?;
    let (validity, _) = expect(SEQUENCE, rest)?;
    let (_, _, rest) = value(validity)?;
    let (kind, text, _) = value(rest)?;
    time(kind, std::str::from_utf8(text).ok()?)
}

fn expect(kind: u8, der: &[u8]) -> Option<(&[u8], &[u8])> {
    value(der).filter(|(found, _, _)| *found == kind).map(|(_, content, rest)| (content, rest))
}

/// Tag, content and what follows of the first value.
fn value(der: &[u8]) -> Option<(u8, &[u8], &[u8])> {
    let (&kind, rest) = der.split_first()?;
    let (&first, rest) = rest.split_first()?;
    let (length, rest) = match first {
        short @ 0..=0x7f => (usize::from(short), rest),
        long => {
            let bytes = usize::from(long & 0x7f);
            if bytes > 4 || rest.len() < bytes {
                return None;
            }
            let (length, rest) = rest.split_at(bytes);
            (length.iter().fold(0, |length, byte| length << 8 | usize::from(*byte)), rest)
        }
    };
    (rest.len() >= length).then(|| (kind, &rest[..length], &rest[length..]))
}

/// `YYMMDDHHMMSSZ` until 2049, `YYYYMMDDHHMMSSZ` from then on.
fn time(kind: u8, text: &str) -> Option<SystemTime> {
    let text = match kind {
        UTC_TIME if text.get(..2)? < "50" => format!("20{text}"),
        UTC_TIME => format!("19{text}"),
        GENERALIZED_TIME => text.to_owned(),
        _ => return None,
    };
    let digits = text.strip_suffix('Z').filter(|digits| digits.len() == 14)?;
    if !digits.bytes().all(|digit| digit.is_ascii_digit()) {
        return None;
    }
    let number = |from: usize, to: usize| digits[from..to].parse::<i64>().ok();
    let days = days_since_1970(number(0, 4)?, number(4, 6)?, number(6, 8)?);
    let seconds = days * 86_400 + number(8, 10)? * 3600 + number(10, 12)? * 60 + number(12, 14)?;
    SystemTime::UNIX_EPOCH.checked_add(Duration::from_secs(u64::try_from(seconds).ok()?))
}

/// Days of the Gregorian calendar; years begin in March, so that the odd day is the last one.
fn days_since_1970(year: i64, month: i64, day: i64) -> i64 {
    let (year, month) = if month > 2 { (year, month - 3) } else { (year - 1, month + 9) };
    year * 365 + year / 4 - year / 100 + year / 400 + (month * 153 + 2) / 5 + day - 1 - 719_468
}

#[cfg(test)]
mod tests {
    use super::*;
    use rcgen::{CertificateParams, KeyPair, date_time_ymd};

    fn end_of(year: i32, month: u8, day: u8) -> String {
        let mut params = CertificateParams::new(vec!["localhost".to_owned()]).expect("a name");
        params.not_after = date_time_ymd(year, month, day);
        let key = KeyPair::generate().expect("a key");
        let certificate = params.self_signed(&key).expect("a certificate");
        humantime::format_rfc3339_seconds(not_after(certificate.der()).expect("an end")).to_string()
    }

    #[test]
    fn ends_are_read() {
        assert_eq!(end_of(2027, 1, 1), "2027-01-01T00:00:00Z");
        assert_eq!(end_of(2028, 2, 29), "2028-02-29T00:00:00Z");
        assert_eq!(end_of(2049, 12, 31), "2049-12-31T00:00:00Z");
        assert_eq!(end_of(2050, 3, 1), "2050-03-01T00:00:00Z");
    }

    #[test]
    fn what_is_no_certificate_has_no_end() {
        for broken in [&[][..], &[0x30], &[0x30, 0x85, 1, 1, 1, 1, 1], &[0x30, 0x82, 0xff, 0xff], &[0x30, 0]]
        {
            assert_eq!(not_after(broken), None, "{broken:?}");
        }
        assert_eq!(time(UTC_TIME, "2701010000Z"), None);
        assert_eq!(time(GENERALIZED_TIME, "２0270101000000Z"), None);
    }
}
