//! One test binary.

mod policy;
