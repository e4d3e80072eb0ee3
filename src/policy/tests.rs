//! Table tests of the policy, in a small story notation.
use super::*;
