//! One test binary.

/// Remote write 1.0 against prost, and the series' identity over it.
mod wire;
