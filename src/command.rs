//! COMMAND: what users type.

pub mod demo;
