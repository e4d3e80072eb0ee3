//! What the fuzz targets share: bodies in and out of snappy, and mutations that leave a body one.
//!
//! A byte that is changed inside a snappy block mostly breaks the block, and one inside a protobuf message the lengths around it.
//! So most mutations are made of the message, field by field, and packed again.

pub mod story;

use libfuzzer_sys::fuzzer_mutate;
use promdedup::proto::Label;
use std::collections::BTreeMap;

/// Labels by name, without the replica label.
pub type Set = BTreeMap<String, String>;

/// Who a series is, and the value of its replica label; `None` if it can be none.
#[must_use]
pub fn identity(labels: &[Label]) -> Option<(Set, Option<String>)> {
    let mut set = Set::new();
    for Label { name, value } in labels {
        if name.is_empty() || !value.is_empty() && set.insert(name.clone(), value.clone()).is_some() {
            return None;
        }
    }
    if !set.contains_key("__name__") {
        return None;
    }
    let replica = ["prometheus_replica", "__replica__"].iter().find_map(|name| set.remove(*name));
    Some((set, replica))
}

/// Longer bodies are left to the tests: a target is to be quick.
pub const RAW_BYTES_MAX: usize = 64 << 10;

/// The body in a snappy block, if it is one.
#[must_use]
pub fn unpacked(packed: &[u8]) -> Option<Vec<u8>> {
    let mut raw = Vec::new();
    promdedup::wire::snappy::decompress(packed, RAW_BYTES_MAX, &mut raw).ok()?;
    Some(raw)
}

/// A snappy block of `raw`.
///
/// # Panics
/// If it is longer than the format can say.
#[must_use]
pub fn packed(raw: &[u8]) -> Vec<u8> {
    snap::raw::Encoder::new().compress_vec(raw).expect("a body that is short enough")
}

/// Mutates a packed body: seldom the block itself, mostly what is in it. Returns its new length.
pub fn mutate_packed(data: &mut [u8], size: usize, max_size: usize, seed: u32) -> usize {
    let mut dice = Dice(u64::from(seed) | 1 << 40);
    if dice.below(16) == 0 {
        return fuzzer_mutate(data, size, max_size);
    }
    let Some(raw) = unpacked(&data[..size]) else { return fuzzer_mutate(data, size, max_size) };
    let mutated = packed(&mutate_message(&raw, 0, &mut dice));
    if mutated.len() > max_size {
        return fuzzer_mutate(data, size, max_size);
    }
    data[..mutated.len()].copy_from_slice(&mutated);
    mutated.len()
}

/// Mutates one field of a message, or of one inside of it, and keeps the lengths around it right.
fn mutate_message(message: &[u8], depth: u32, dice: &mut Dice) -> Vec<u8> {
    let mut fields = match fields(message) {
        Some(fields) if !fields.is_empty() && dice.below(8 + depth) != 0 => fields,
        _ => return mutate_bytes(message),
    };
    let one = dice.below(fields.len() as u32) as usize;
    let other = dice.below(fields.len() as u32) as usize;
    match dice.below(12) {
        0 => drop(fields.remove(one)),
        1 => fields.insert(other, fields[one].clone()),
        2 => fields.swap(one, other),
        3 => fields[one].key = fields[other].key,
        4 => fields[one].key ^= 1 << dice.below(6),
        _ if fields[one].key & 7 == 2 && depth < 4 => {
            fields[one].content = mutate_message(&fields[one].content, depth + 1, dice);
        }
        _ => fields[one].content = mutate_bytes(&fields[one].content),
    }
    let mut out = Vec::new();
    for Field { key, content } in &fields {
        varint_to(&mut out, *key);
        if key & 7 == 2 {
            varint_to(&mut out, content.len() as u64);
        }
        out.extend_from_slice(content);
    }
    out
}

fn mutate_bytes(bytes: &[u8]) -> Vec<u8> {
    let max = bytes.len() + 64;
    let mut buffer = bytes.to_vec();
    buffer.resize(max, 0);
    let length = fuzzer_mutate(&mut buffer, bytes.len(), max);
    buffer.truncate(length);
    buffer
}

/// A field as it came: its key, and its content without a length.
#[derive(Clone)]
struct Field {
    key: u64,
    content: Vec<u8>,
}

/// The fields of a message, if it is one.
fn fields(mut message: &[u8]) -> Option<Vec<Field>> {
    let mut fields = Vec::new();
    while !message.is_empty() {
        let key = varint_of(&mut message)?;
        let length = match key & 7 {
            0 => message.iter().position(|byte| *byte < 0x80)? + 1,
            1 => 8,
            2 => usize::try_from(varint_of(&mut message)?).ok()?,
            5 => 4,
            _ => return None,
        };
        let (content, rest) = message.split_at_checked(length)?;
        fields.push(Field { key, content: content.to_vec() });
        message = rest;
    }
    Some(fields)
}

fn varint_of(bytes: &mut &[u8]) -> Option<u64> {
    let mut value = 0;
    for shift in (0..64).step_by(7) {
        let (&byte, rest) = bytes.split_first()?;
        *bytes = rest;
        value |= u64::from(byte & 0x7f) << shift;
        if byte < 0x80 {
            return Some(value);
        }
    }
    None
}

fn varint_to(out: &mut Vec<u8>, mut value: u64) {
    while value >= 0x80 {
        out.push(value as u8 | 0x80);
        value >>= 7;
    }
    out.push(value as u8);
}

/// Random numbers that come again with their seed.
struct Dice(u64);

impl Dice {
    fn below(&mut self, bound: u32) -> u32 {
        self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        ((self.0 >> 33) % u64::from(bound)) as u32
    }
}
