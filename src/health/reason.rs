//! What can be wrong with a group, and what to do about it. Words alone.

/// A problem of a group.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Reason {
    /// Only one replica delivers.
    OneReplica,
    /// Replicas do not have the same series.
    LabelsDiffer,
    /// Series come without any replica label.
    NoReplicaLabel,
    /// The replicas' clocks differ, or one delivers late.
    Clock,
}

impl Reason {
    /// All of them, in the order of [`Self::number`].
    pub const ALL: [Self; 4] = [Self::OneReplica, Self::LabelsDiffer, Self::NoReplicaLabel, Self::Clock];

    /// Its place in [`Self::ALL`].
    #[must_use]
    pub fn number(self) -> usize {
        self as usize
    }

    /// The label `reason` of `promdedup_group_health`.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::OneReplica => "one_replica",
            Self::LabelsDiffer => "labels_differ",
            Self::NoReplicaLabel => "no_replica_label",
            Self::Clock => "clock",
        }
    }

    /// What to do about it.
    #[must_use]
    pub fn advice(self) -> &'static str {
        match self {
            Self::OneReplica => {
                "see whether the other replica runs and may write here: its log, its remote_write, the network's \
                 policies; if it does, its cluster or prometheus label (PROMDEDUP_GROUP_LABELS) differs, and it is \
                 shown as a group of its own"
            }
            Self::LabelsDiffer => {
                "make external_labels (but for the replica label), scrape and rule configuration, and \
                 write_relabel_configs of the replicas the same: a series has one identity only if all its other \
                 labels are equal"
            }
            Self::NoReplicaLabel => {
                "set external_labels.prometheus_replica to another value on each replica, or name the label that \
                 they have in PROMDEDUP_REPLICA_LABELS; nothing is to be done for a sender that is not one of several"
            }
            Self::Clock => {
                "synchronise the clocks of the replicas (NTP, chrony), and of this machine; if they are right, the \
                 replica delivers late: see its prometheus_remote_storage_highest_timestamp_in_seconds"
            }
        }
    }
}

/// What to do about the problem with that name.
#[must_use]
pub fn advice(name: &str) -> Option<&'static str> {
    Reason::ALL.into_iter().find(|reason| reason.name() == name).map(Reason::advice)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_has_a_number_and_advice() {
        for (number, reason) in Reason::ALL.into_iter().enumerate() {
            assert_eq!(reason.number(), number);
            assert_eq!(advice(reason.name()), Some(reason.advice()));
        }
        assert_eq!(advice("nothing"), None);
    }
}
