//! One test binary.

mod pipeline;
mod policy;
mod support;
