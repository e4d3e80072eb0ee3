//! Lays out what the fuzz targets begin with: pieces of the real bodies of `tests/corpus`, small enough to be quick.
//!
//! `cargo +nightly fuzz run …` finds them in `fuzz/corpus`. Nothing of them is kept in the repository.

use promdedup::proto::{WriteRequest, v2};
use prost::Message;
use std::path::Path;

/// Series of a piece.
const SERIES: usize = 6;
/// Pieces of a body.
const PIECES: usize = 3;

fn main() -> std::io::Result<()> {
    let here = Path::new(env!("CARGO_MANIFEST_DIR"));
    let mut names: Vec<_> = std::fs::read_dir(here.join("../tests/corpus"))?
        .filter_map(|file| {
            Some(file.ok()?.path()).filter(|path| path.extension().is_some_and(|of| of == "bin"))
        })
        .collect();
    names.sort();
    for target in ["one", "two", "identity", "decide", "http"] {
        std::fs::create_dir_all(here.join("corpus").join(target))?;
    }
    for path in names {
        let body = std::fs::read(&path)?;
        let raw = snap::raw::Decoder::new().decompress_vec(&body).map_err(std::io::Error::other)?;
        let stem = path.file_stem().map(|stem| stem.to_string_lossy().into_owned()).unwrap_or_default();
        let (two, pieces) = match stem.starts_with("rw1-") {
            true => (false, of_one(&raw)?),
            false => (true, of_two(&raw)?),
        };
        for (nth, piece) in pieces.iter().enumerate() {
            let name = format!("{stem}-{nth}");
            let lay = |target: &str, bytes: &[u8]| {
                std::fs::write(here.join("corpus").join(target).join(&name), bytes)
            };
            lay(if two { "two" } else { "one" }, &fuzz::packed(piece))?;
            lay("identity", &fuzz::packed(piece))?;
            lay("decide", &fuzz::story::of_body(piece, two))?;
            lay("http", &request(&fuzz::packed(piece), two))?;
        }
    }
    Ok(())
}

/// As a sender writes it.
fn request(body: &[u8], two: bool) -> Vec<u8> {
    let kind = if two { ";proto=io.prometheus.write.v2.Request" } else { "" };
    let head = format!(
        "POST /api/v1/receive HTTP/1.1\r\nhost: x\r\ncontent-encoding: snappy\r\n\
         content-type: application/x-protobuf{kind}\r\ncontent-length: {}\r\n\r\n",
        body.len()
    );
    [head.as_bytes(), body].concat()
}

fn of_one(raw: &[u8]) -> std::io::Result<Vec<Vec<u8>>> {
    let whole = WriteRequest::decode(raw).map_err(std::io::Error::other)?;
    let mut pieces = Vec::new();
    for chunk in spread(&whole.timeseries) {
        pieces.push(WriteRequest { timeseries: chunk, metadata: vec![] }.encode_to_vec());
    }
    let metadata: Vec<_> = whole.metadata.into_iter().take(3).collect();
    if !metadata.is_empty() {
        pieces.push(WriteRequest { timeseries: vec![], metadata }.encode_to_vec());
    }
    Ok(pieces)
}

fn of_two(raw: &[u8]) -> std::io::Result<Vec<Vec<u8>>> {
    let whole = v2::Request::decode(raw).map_err(std::io::Error::other)?;
    let mut pieces = Vec::new();
    for chunk in spread(&whole.timeseries) {
        let mut piece = v2::Request { symbols: vec![String::new()], timeseries: chunk };
        let mut refer = |reference: &mut u32| {
            let text = &whole.symbols[*reference as usize];
            let known = piece.symbols.iter().position(|symbol| symbol == text);
            *reference = known.unwrap_or_else(|| {
                piece.symbols.push(text.clone());
                piece.symbols.len() - 1
            }) as u32;
        };
        for series in &mut piece.timeseries {
            series.labels_refs.iter_mut().for_each(&mut refer);
            series.exemplars.iter_mut().flat_map(|exemplar| &mut exemplar.labels_refs).for_each(&mut refer);
            if let Some(metadata) = &mut series.metadata {
                refer(&mut metadata.help_ref);
                refer(&mut metadata.unit_ref);
            }
        }
        pieces.push(piece.encode_to_vec());
    }
    Ok(pieces)
}

/// Some series from all over a body: its floats, histograms and exemplars lie apart.
fn spread<T: Clone>(series: &[T]) -> Vec<Vec<T>> {
    let step = (series.len() / (SERIES * PIECES)).max(1);
    let chosen: Vec<_> = series.iter().step_by(step).take(SERIES * PIECES).cloned().collect();
    chosen.chunks(SERIES).map(<[T]>::to_vec).collect()
}
