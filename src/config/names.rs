//! Names in the environment: which are ours, which are Kubernetes', and what was probably meant.

use super::variables::{PREFIX, VARIABLES};

/// Whether a name claims to be ours. The environment has many others, which are none of our business.
pub(super) fn claims_to_be_ours(name: &str) -> bool {
    name.starts_with(PREFIX)
}

/// Whether Kubernetes puts such a name into a pod for a Service whose name begins with ours
/// (`<SERVICE>_SERVICE_HOST`, `_SERVICE_PORT[_<NAME>]`, and Docker's `_PORT`, `_PORT_<n>_<PROTOCOL>[_ADDR|_PORT|_PROTO]`). None of
/// ours has `_SERVICE_PORT` in it, so whatever has is taken for one.
pub(super) fn is_injected_by_kubernetes(name: &str) -> bool {
    if name.ends_with("_SERVICE_HOST") || name.ends_with("_PORT") || name.contains("_SERVICE_PORT") {
        return true;
    }
    name.match_indices("_PORT_").any(|(at, part)| {
        let after = &name[at + part.len()..];
        let digits = after.bytes().take_while(u8::is_ascii_digit).count();
        digits > 0 && after[digits..].starts_with('_')
    })
}

/// The known name that is spelt most like this one, if any is spelt nearly like it or begins like it.
pub(super) fn nearest(name: &str) -> Option<&'static str> {
    if let Some(longer) = VARIABLES.iter().find(|variable| name != PREFIX && variable.name.starts_with(name))
    {
        return Some(longer.name);
    }
    let (distance, nearest) =
        VARIABLES.iter().map(|variable| (distance(name, variable.name), variable.name)).min()?;
    (distance <= (name.len() - PREFIX.len()) / 3 + 1).then_some(nearest)
}

/// Levenshtein's distance, in bytes.
fn distance(a: &str, b: &str) -> usize {
    let mut row: Vec<usize> = (0..=b.len()).collect();
    for (i, x) in a.bytes().enumerate() {
        let mut diagonal = row[0];
        row[0] = i + 1;
        for (j, y) in b.bytes().enumerate() {
            let replaced = diagonal + usize::from(x != y);
            diagonal = row[j + 1];
            row[j + 1] = replaced.min(row[j] + 1).min(diagonal + 1);
        }
    }
    row[b.len()]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn kubernetes_names_are_told_from_ours() {
        for name in [
            "PROMDEDUP_SERVICE_HOST",
            "PROMDEDUP_SERVICE_PORT",
            "PROMDEDUP_SERVICE_PORT_REMOTE_WRITE",
            "PROMDEDUP_SERVICE_PORTX",
            "PROMDEDUP_ADMIN_SERVICE_HOST",
            "PROMDEDUP_PORT",
            "PROMDEDUP_PORT_19290_TCP",
            "PROMDEDUP_PORT_19290_TCP_ADDR",
        ] {
            assert!(is_injected_by_kubernetes(name), "{name}");
        }
        for name in ["PROMDEDUP_LISTEN", "PROMDEDUP_PORTS", "PROMDEDUP_PORT_X_TCP", "PROMDEDUP_PORT_19290"] {
            assert!(!is_injected_by_kubernetes(name), "{name}");
        }
        assert!(VARIABLES.iter().all(|variable| !is_injected_by_kubernetes(variable.name)));
    }

    #[test]
    fn a_typo_finds_what_was_meant() {
        assert_eq!(nearest("PROMDEDUP_LISTNE"), Some("PROMDEDUP_LISTEN"));
        assert_eq!(nearest("PROMDEDUP_REPLICA_LABEL"), Some("PROMDEDUP_REPLICA_LABELS"));
        assert_eq!(nearest("PROMDEDUP_UPSTREAM"), Some("PROMDEDUP_UPSTREAM_URL"));
        assert_eq!(nearest("PROMDEDUP_COLOUR_OF_THE_BIKESHED"), None);
    }
}
