//! One test binary.

#![allow(clippy::expect_used, clippy::unwrap_used, clippy::panic, reason = "in a test, that is how it fails")]

mod admin;
mod command;
mod config;
mod forward;
mod peer;
mod receive;
mod tidy;
