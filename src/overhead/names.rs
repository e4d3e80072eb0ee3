//! Bounds on label values: which groups and replicas have names of their own in metrics.

/// Groups that have.
pub(crate) const GROUPS_MAX: u32 = 1_000;
// A metric that names a group is never taken back, so their numbers must never be another's. (A model has no metrics.)
#[cfg(not(model))]
const _: () = assert!(GROUPS_MAX <= crate::window::GROUPS_KEPT);
/// Replicas of a group that have.
pub(crate) const REPLICAS_MAX: u8 = 8;
/// The label value of all groups and replicas that have no label value of their own.
pub const OTHER: &str = "_other";

/// Whether a group and a replica, by their numbers, have label values of their own.
#[must_use]
pub fn is_named(group: u32, replica: u8) -> bool {
    group < GROUPS_MAX && replica < REPLICAS_MAX
}
