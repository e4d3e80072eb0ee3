//! One test binary; a module by subject.
#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test that fails may say so by a panic")]

mod pipeline;
mod policy;
mod stand_in;
mod support;
