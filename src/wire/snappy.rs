//! The snappy block format around every body.
//!
//! Owns the bound on what a sender can make us allocate: the declared length is judged before a byte of memory is
//! taken. What is packed may come in pieces. Refuses the framed format, which remote write does not use.

use super::fields::varint_len;
use std::cell::RefCell;

/// Bytes that three compressed bytes can stand for at most: a copy element with a two-byte offset
/// (<https://github.com/google/snappy/blob/main/format_description.txt>, 2.2.2).
const BYTES_PER_COPY_MAX: usize = 64;
/// A compressor's scratch buffer above this size is given back.
const SCRATCH_BYTES_MAX: usize = 8 << 20;

/// Why a body could not be unpacked.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Unpack {
    /// The declared length is above the bound: answered 413.
    #[error("body declares {given} bytes decompressed, at most {max} are taken")]
    TooBig {
        /// Declared, in bytes.
        given: usize,
        /// The bound, in bytes.
        max: usize,
    },
    /// More is declared than that many compressed bytes can hold.
    #[error("body of {compressed} bytes declares {given} bytes decompressed, which snappy cannot reach")]
    Implausible {
        /// Declared, in bytes.
        given: usize,
        /// Length of the compressed body, in bytes.
        compressed: usize,
    },
    /// No snappy block.
    #[error("body of {compressed} bytes is not a snappy block: {source}")]
    Broken {
        /// Length of the compressed body, in bytes.
        compressed: usize,
        /// What the decoder says, with the place.
        source: snap::Error,
    },
}

/// How many bytes a block says that it becomes; 0 if it does not say so in the form of one.
#[must_use]
pub fn claimed(body: &[u8]) -> usize {
    match snap::raw::decompress_len(body) {
        Ok(given) => given,
        Err(snap::Error::TooBig { given, .. }) => usize::try_from(given).unwrap_or(usize::MAX),
        Err(_) => 0,
    }
}

/// Unpacks `body` into `raw`, which afterwards holds exactly the decompressed bytes (unspecified ones after an error).
///
/// Hand in the same buffer again without clearing it: only what it has to grow by is written twice.
pub fn decompress(body: &[u8], max: usize, raw: &mut Vec<u8>) -> Result<(), Unpack> {
    let broken = |source| Unpack::Broken { compressed: body.len(), source };
    let given = match snap::raw::decompress_len(body) {
        Ok(given) => given,
        // The decoder has its own word for a claim that does not fit 32 bits.
        Err(snap::Error::TooBig { given, .. }) => {
            return Err(Unpack::TooBig { given: usize::try_from(given).unwrap_or(usize::MAX), max });
        }
        Err(source) => return Err(broken(source)),
    };
    if given > max {
        return Err(Unpack::TooBig { given, max });
    }
    if given > (body.len() / 3 + 1).saturating_mul(BYTES_PER_COPY_MAX) {
        return Err(Unpack::Implausible { given, compressed: body.len() });
    }
    raw.resize(given, 0);
    snap::raw::Decoder::new().decompress(body, raw).map_err(broken)?;
    Ok(())
}

/// Packs `raw` into `out`, which afterwards holds exactly the compressed bytes.
///
/// Hash tables and scratch belong to the thread, so a call allocates nothing once `out` is large enough.
///
/// The only error is `raw` being longer than the format can declare (4 GiB): a mistake of the caller.
pub fn compress(raw: &[u8], out: &mut Vec<u8>) -> Result<(), snap::Error> {
    thread_local! {
        static PRESS: RefCell<Press> = RefCell::default();
    }
    out.clear();
    PRESS.with_borrow_mut(|press| {
        out.extend_from_slice(press.pack(raw)?);
        press.give_back();
        Ok(())
    })
}

/// Packs one body that comes in pieces. Holds the memory for it, to be used again.
///
/// A packed body is its length and then elements that name what they repeat by how far back it is
/// (<https://github.com/google/snappy/blob/main/format_description.txt>). So what packed pieces have behind their lengths, one after the other, is
/// the packed whole.
#[derive(Debug, Default)]
pub struct Packer {
    press: Press,
    /// Behind room for the length, which is known at the end.
    elements: Vec<u8>,
    raw_bytes: usize,
}

/// A packed body.
#[derive(Debug)]
pub struct Whole {
    /// What the body is the end of.
    pub memory: Vec<u8>,
    /// Where it begins.
    pub start: usize,
    /// How long it is unpacked, in bytes.
    pub raw_bytes: usize,
}

/// A compressor, and room for what comes out of it.
#[derive(Debug)]
struct Press {
    encoder: snap::raw::Encoder,
    scratch: Vec<u8>,
}

impl Packer {
    /// What a piece should not be longer than, in bytes: a compressor looks no farther back than that.
    pub const PIECE_BYTES: usize = 1 << 16;
    /// The longest length that a body declares takes so many bytes.
    const LENGTH_BYTES_MAX: usize = varint_len(u32::MAX as u64);

    /// Takes memory for a body, if it has none.
    pub fn take(&mut self, memory: impl FnOnce() -> Vec<u8>) {
        if self.elements.capacity() == 0 {
            self.elements = memory();
            self.elements.clear();
        }
    }

    /// Packs what comes next.
    ///
    /// # Errors
    /// As [`compress`].
    pub fn add(&mut self, piece: &[u8]) -> Result<(), snap::Error> {
        let packed = self.press.pack(piece)?;
        if self.elements.is_empty() {
            self.elements.resize(Self::LENGTH_BYTES_MAX, 0);
        }
        self.elements.extend_from_slice(&packed[varint_len(piece.len() as u64)..]);
        self.raw_bytes += piece.len();
        Ok(())
    }

    /// How much has been added, in bytes.
    #[must_use]
    pub fn raw_bytes(&self) -> usize {
        self.raw_bytes
    }

    /// All that was added as one body, with the memory that it lies in. It is empty again.
    ///
    /// # Errors
    /// As [`compress`].
    pub fn finish(&mut self) -> Result<Whole, snap::Error> {
        let (raw_bytes, max) = (self.raw_bytes as u64, u64::from(u32::MAX));
        if raw_bytes > max {
            return Err(snap::Error::TooBig { given: raw_bytes, max });
        }
        let mut memory = std::mem::take(&mut self.elements);
        let start = Self::LENGTH_BYTES_MAX - varint_len(raw_bytes);
        if memory.is_empty() {
            memory.resize(Self::LENGTH_BYTES_MAX, 0);
        }
        let mut left = raw_bytes;
        for byte in &mut memory[start..Self::LENGTH_BYTES_MAX] {
            (*byte, left) = (left as u8 | 0x80, left >> 7);
        }
        memory[Self::LENGTH_BYTES_MAX - 1] &= 0x7f;
        self.clear();
        Ok(Whole { memory, start, raw_bytes: raw_bytes as usize })
    }

    /// Forgets what was added.
    pub fn clear(&mut self) {
        self.raw_bytes = 0;
        self.elements.clear();
        if self.elements.capacity() > SCRATCH_BYTES_MAX {
            self.elements = Vec::new();
        }
        self.press.give_back();
    }
}

impl Default for Press {
    fn default() -> Self {
        Self { encoder: snap::raw::Encoder::new(), scratch: Vec::new() }
    }
}

impl Press {
    fn pack(&mut self, raw: &[u8]) -> Result<&[u8], snap::Error> {
        // The encoder wants room for the worst case, a multiple of what comes out. That room is kept initialised here
        // and the little that is written is copied: cheaper than to fill what it is copied to with zeros every time.
        let room = snap::raw::max_compress_len(raw.len());
        if self.scratch.len() < room {
            self.scratch.resize(room, 0);
        }
        let written = self.encoder.compress(raw, &mut self.scratch)?;
        Ok(&self.scratch[..written])
    }

    fn give_back(&mut self) {
        if self.scratch.len() > SCRATCH_BYTES_MAX {
            self.scratch = Vec::new();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(body: &[u8], max: usize) -> Result<Vec<u8>, Unpack> {
        let mut raw = Vec::new();
        decompress(body, max, &mut raw)?;
        Ok(raw)
    }

    #[test]
    fn round_trip_in_reused_buffers() {
        let (mut raw, mut packed) = (Vec::new(), Vec::new());
        for size in [0_usize, 1, 100, 100_000, 10, 70_000] {
            let text: Vec<u8> = (0..size).map(|i| (i / 7 % 251) as u8).collect();
            compress(&text, &mut packed).unwrap();
            decompress(&packed, size, &mut raw).unwrap();
            assert_eq!(raw, text);
        }
    }

    #[test]
    fn pieces_are_packed_as_one() {
        let mut packer = Packer::default();
        for sizes in
            [&[][..], &[0], &[1], &[127, 128], &[16_383, 16_384, 3], &[Packer::PIECE_BYTES; 3], &[70_000, 5]]
        {
            let mut text = Vec::new();
            for (nth, size) in sizes.iter().enumerate() {
                let piece: Vec<u8> = (0..*size).map(|i| (i / 7 % 251 + nth) as u8).collect();
                packer.add(&piece).unwrap();
                text.extend(piece);
            }
            assert_eq!(packer.raw_bytes(), text.len());
            let Whole { memory, start, raw_bytes } = packer.finish().unwrap();
            assert_eq!((raw_bytes, packer.raw_bytes()), (text.len(), 0));
            assert_eq!(check(&memory[start..], text.len()).unwrap(), text, "{sizes:?}");
            packer.take(|| memory);
        }
        packer.add(b"forgotten").unwrap();
        packer.clear();
        let Whole { memory, start, raw_bytes } = packer.finish().unwrap();
        assert_eq!((&memory[start..], raw_bytes), (&[0][..], 0));
    }

    #[test]
    fn claims_are_judged_before_memory_is_taken() {
        let mut raw = Vec::new();
        // 4 GiB - 1, the largest claim the format knows.
        let claim = [0xff, 0xff, 0xff, 0xff, 0x0f, 0];
        let given = u32::MAX as usize;
        assert_eq!(decompress(&claim, 32 << 20, &mut raw), Err(Unpack::TooBig { given, max: 32 << 20 }));
        assert_eq!(
            decompress(&claim, usize::MAX, &mut raw),
            Err(Unpack::Implausible { given, compressed: 6 })
        );
        // Five bytes that say more than the format allows, and six, which it does not know.
        let beyond = [0xff, 0xff, 0xff, 0xff, 0x1f, 0];
        let given = (1 << 33) - 1;
        assert_eq!(decompress(&beyond, 32 << 20, &mut raw), Err(Unpack::TooBig { given, max: 32 << 20 }));
        let endless = [0x80, 0x80, 0x80, 0x80, 0x80, 0x01];
        assert!(matches!(decompress(&endless, 32 << 20, &mut raw), Err(Unpack::Broken { .. })));
        assert_eq!(raw.capacity(), 0);
    }

    #[test]
    fn the_bound_is_inclusive() {
        let mut packed = Vec::new();
        compress(&[7; 1000], &mut packed).unwrap();
        assert_eq!(check(&packed, 1000).unwrap().len(), 1000);
        assert_eq!(check(&packed, 999), Err(Unpack::TooBig { given: 1000, max: 999 }));
    }

    #[test]
    fn the_densest_block_is_plausible() {
        let zeros = vec![0; 32 << 20];
        let mut packed = Vec::new();
        compress(&zeros, &mut packed).unwrap();
        assert_eq!(check(&packed, 32 << 20).unwrap(), zeros);
    }

    #[test]
    fn broken_blocks() {
        assert!(matches!(check(&[], 10), Err(Unpack::Broken { compressed: 0, .. })));
        assert!(matches!(check(&[5, 0xff], 10), Err(Unpack::Broken { compressed: 2, .. })));
        assert!(matches!(check(b"not snappy at all", 1 << 20), Err(Unpack::Broken { compressed: 17, .. })));
    }
}
