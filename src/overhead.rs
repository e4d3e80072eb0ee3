//! OBSERVE: what deduplication costs and saves: bytes, CPU seconds, memory.
//!
//! Owns the CPU time of the data plane by stage, the window as metrics, and the figures derived of them. What is counted
//! where it passes (samples and bodies by `pipeline`, bytes on the wire by `socket`) is only read here.
//! Refuses to change anything but its own counters.

mod cpu;
mod figures;
mod names;
mod window;

pub use cpu::{CpuTime, Meter, Shares, Stage, ThreadTime};
pub use figures::{Figures, Overhead};
pub(crate) use figures::{label, value};
pub(crate) use names::{GROUPS_MAX, REPLICAS_MAX};
pub use names::{OTHER, is_named};
pub use window::register;
