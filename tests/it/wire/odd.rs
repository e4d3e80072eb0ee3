//! An encoder of requests that no sender would write so, and every decoder must read: fields in any order, numbers
//! longer than they need be, fields that nobody knows, fields written twice.

use promdedup::proto::{Exemplar, Histogram, Label, Sample, TimeSeries, WriteRequest};
use prost::Message;

/// Decides by its own small generator what is odd where.
pub(crate) struct Odd(u64);

impl Odd {
    pub(crate) fn new(seed: u64) -> Self {
        Self(seed | 1)
    }

    pub(crate) fn request(&mut self, request: &WriteRequest) -> Vec<u8> {
        let mut fields: Vec<Vec<u8>> = Vec::new();
        for series in &request.timeseries {
            let message = self.series(series);
            fields.push(self.nested(1, &message));
        }
        for metadata in &request.metadata {
            fields.push(self.nested(3, &metadata.encode_to_vec()));
        }
        self.mix(fields, 9)
    }

    fn series(&mut self, series: &TimeSeries) -> Vec<u8> {
        let mut fields = Vec::new();
        for label in &series.labels {
            let message = self.label(label);
            fields.push(self.nested(1, &message));
        }
        let mut others = Vec::new();
        for sample in &series.samples {
            let message = self.sample(sample);
            others.push(self.nested(2, &message));
        }
        for exemplar in &series.exemplars {
            let message = Exemplar::encode_to_vec(exemplar);
            others.push(self.nested(3, &message));
        }
        for histogram in &series.histograms {
            let message = self.histogram(histogram);
            others.push(self.nested(4, &message));
        }
        // Labels first, as usual, or anywhere.
        if self.one_in(2) {
            let mut out = fields.concat();
            out.extend(self.mix(others, 9));
            return out;
        }
        fields.extend(others);
        self.mix(fields, 9)
    }

    fn label(&mut self, label: &Label) -> Vec<u8> {
        let mut fields = vec![self.nested(1, label.name.as_bytes()), self.nested(2, label.value.as_bytes())];
        if self.one_in(3) {
            let decoy = self.nested(1 + self.0 as u32 % 2, b"decoy");
            return [decoy, self.mix(fields, 7)].concat();
        }
        if self.one_in(2) {
            return fields.concat();
        }
        fields.reverse();
        self.mix(fields, 7)
    }

    fn sample(&mut self, sample: &Sample) -> Vec<u8> {
        let value = self.fixed(1, sample.value);
        let timestamp = self.number(2, sample.timestamp);
        let mut out = Vec::new();
        if self.one_in(3) {
            out.extend(self.number(2, -1));
            out.extend(self.fixed(1, 7.0));
        }
        out.extend(self.mix(vec![value, timestamp], 5));
        out
    }

    fn histogram(&mut self, histogram: &Histogram) -> Vec<u8> {
        let (sum, timestamp) = (self.fixed(3, histogram.sum), self.number(15, histogram.timestamp));
        let rest = Histogram { sum: 0.0, timestamp: 0, ..histogram.clone() };
        let mut out = Vec::new();
        if self.one_in(3) {
            out.extend(self.number(15, 5));
            out.extend(self.fixed(3, 5.0));
        }
        let fields = vec![sum, timestamp, rest.encode_to_vec()];
        out.extend(self.mix(fields, 17));
        out
    }

    /// Shuffles, and strews in fields with numbers from `unknown` up.
    fn mix(&mut self, mut fields: Vec<Vec<u8>>, unknown: u32) -> Vec<u8> {
        while self.one_in(3) {
            let field = match self.0 >> 8 & 3 {
                0 => self.number(unknown, -3),
                1 => self.fixed(unknown + 1, 1.5),
                2 => [self.key(unknown + 2, 5), vec![1, 2, 3, 4]].concat(),
                _ => self.nested(unknown + 300, b"\x0a\x03abc"),
            };
            fields.push(field);
        }
        for i in (1..fields.len()).rev() {
            let other = self.below(i as u64 + 1) as usize;
            fields.swap(i, other);
        }
        fields.concat()
    }

    fn nested(&mut self, field: u32, message: &[u8]) -> Vec<u8> {
        let mut out = self.key(field, 2);
        out.extend(self.varint(message.len() as u64));
        out.extend(message);
        out
    }

    fn number(&mut self, field: u32, value: i64) -> Vec<u8> {
        let mut out = self.key(field, 0);
        out.extend(self.varint(value as u64));
        out
    }

    fn fixed(&mut self, field: u32, value: f64) -> Vec<u8> {
        let mut out = self.key(field, 1);
        out.extend(value.to_bits().to_le_bytes());
        out
    }

    fn key(&mut self, field: u32, wire_type: u32) -> Vec<u8> {
        self.varint(u64::from(field << 3 | wire_type))
    }

    fn varint(&mut self, mut value: u64) -> Vec<u8> {
        let mut out = Vec::new();
        while value >= 0x80 {
            out.push(value as u8 | 0x80);
            value >>= 7;
        }
        out.push(value as u8);
        while out.len() < 10 && self.one_in(12) {
            *out.last_mut().unwrap() |= 0x80;
            out.push(0);
        }
        out
    }

    fn one_in(&mut self, n: u64) -> bool {
        self.below(n) == 0
    }

    /// xorshift64*
    fn below(&mut self, n: u64) -> u64 {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        (self.0.wrapping_mul(0x2545_f491_4f6c_dd1d) >> 33) % n
    }
}
