//! One test binary; a module by subject.
#![allow(clippy::expect_used, clippy::unwrap_used, clippy::panic, reason = "in a test, that is how it fails")]

mod admin;
mod adversity;
mod auth;
mod command;
mod config;
mod conformity;
mod deploy;
mod forward;
mod health;
mod hop;
mod hostile;
mod limits;
mod load;
mod neighbours;
mod observe;
mod overhead;
mod peer;
mod pipeline;
mod policy;
mod receive;
mod serving;
mod shutdown;
mod stand_in;
mod support;
mod tidy;
mod tls;
mod weak_spots;
mod wire;
