//! The symbols of a body of 2.0: first those that all bodies of a shard have, then the instances of this one's targets.

use super::super::fleet::SeriesShape;
use super::super::stencil::{Draft, Stencil, StencilError, put_varint};
use super::{CHUNKS_MAX, GROUP, GROUP_BYTES, INSTANCE, INSTANCE_BYTES, REFERENCE};
use super::{blank_of, put_message, put_sample, varint_bytes, with_replica};
use std::collections::HashMap;

/// Stands for the name of the group, which no label value is.
const GROUP_MARK: &str = "\u{0}group";

/// The table of 2.0, but for the instances.
#[derive(Debug)]
pub(super) struct Symbols {
    pub(super) table: Stencil,
    pub(super) instance: Stencil,
    /// Reference of the first instance.
    pub(super) first: u64,
}

/// The symbols of 2.0: the empty one, those of all series, then the instances.
#[derive(Debug)]
pub(super) struct Table {
    symbols: Vec<String>,
    numbers: HashMap<String, u64>,
}

impl Default for Table {
    fn default() -> Self {
        Self { symbols: vec![String::new()], numbers: HashMap::new() }
    }
}

impl Table {
    pub(super) fn learn(&mut self, shape: &SeriesShape, replica: &str) {
        for (name, value) in with_replica(shape, Some(replica)) {
            self.learn_one(name);
            match blank_of(name, value) {
                Some((INSTANCE, _)) => {}
                Some(_) => self.learn_one(GROUP_MARK),
                None => self.learn_one(value),
            }
        }
    }

    fn learn_one(&mut self, symbol: &str) {
        if !self.numbers.contains_key(symbol) {
            self.numbers.insert(symbol.to_owned(), self.symbols.len() as u64);
            self.symbols.push(symbol.to_owned());
        }
    }

    /// The references of all instances have to be of one length. Of small targets there may be too few symbols before them.
    pub(super) fn pad(&mut self) {
        if self.symbols.len() + CHUNKS_MAX > 128 {
            while self.symbols.len() < 128 {
                self.learn_one(&format!("unused-{}", self.symbols.len()));
            }
        }
    }

    pub(super) fn put_series(&self, draft: &mut Draft, shape: &SeriesShape, field: u32, replica: &str) {
        let reference = |symbol: &str| varint_bytes(self.numbers.get(symbol).copied().unwrap_or(0));
        let mut references = Draft::default();
        for (name, value) in with_replica(shape, Some(replica)) {
            references.put(&reference(name));
            match blank_of(name, value) {
                Some((INSTANCE, _)) => {
                    references.blank(REFERENCE, varint_bytes(self.symbols.len() as u64).len() as u8);
                }
                Some(_) => references.put(&reference(GROUP_MARK)),
                None => references.put(&reference(value)),
            }
        }
        let mut inner = Draft::default();
        put_message(&mut inner, 0x0a, &references);
        put_sample(&mut inner, shape, field, 0x12);
        // The type, as Prometheus sends it: counters by their names, the rest is a gauge here.
        let name = shape.labels.first().map_or("", |(_, value)| value.as_str());
        let counter = ["_total", "_bucket", "_count", "_sum"].iter().any(|end| name.ends_with(end));
        inner.put(&[0x2a, 2, 0x08, if counter { 1 } else { 2 }]);
        put_message(draft, 0x2a, &inner);
    }

    pub(super) fn cut(&self) -> Result<Symbols, StencilError> {
        let mut table = Draft::default();
        for symbol in &self.symbols {
            table.put(&[0x22]);
            if symbol == GROUP_MARK {
                table.put(&[GROUP_BYTES]);
                table.blank(GROUP, GROUP_BYTES);
                continue;
            }
            put_varint(&mut table.raw, symbol.len() as u64);
            table.put(symbol.as_bytes());
        }
        let mut one = Draft::default();
        one.put(&[0x22, INSTANCE_BYTES]);
        one.blank(INSTANCE, INSTANCE_BYTES);
        let first = self.symbols.len() as u64;
        Ok(Symbols { table: Stencil::cut(&table)?, instance: Stencil::cut(&one)?, first })
    }
}
