//! One test binary.

mod admin;
mod config;
mod forward;
mod peer;
mod receive;
mod tidy;
