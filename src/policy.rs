//! POLICY: decides.
