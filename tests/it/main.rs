//! One test binary; a module by subject.

mod stand_in;
