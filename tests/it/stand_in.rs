//! The stand-ins themselves: the receiver's rules, the senders' habits, and a checker and a demo that can fail.

#![expect(clippy::unwrap_used, reason = "a test that panics has failed")]

mod checker;
mod demo;
mod senders;
mod thanos;
mod toy;
