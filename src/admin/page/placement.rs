//! The page's part for several instances: this one, the database, the others, and the groups that are this one's.

use super::{count, lasting, listed, named};
use crate::admin::status::PlacementView;
use crate::placement::{Holding, OtherInstance, OwnedGroup};
use maud::{Markup, html};

/// Rows of a table; the JSON has more.
const ROWS_MAX: usize = 50;

/// What somebody should do something about.
pub(super) fn warning(view: &PlacementView) -> Markup {
    let health = &view.shown.database;
    html! {
        @if health.up == Some(false) {
            p .note {
                "The coordination database " b { (view.database) } " has not answered for " (lasting(health.lasting))
                ": who has which group stays as it is, and new groups are served where they come."
                @if let Some(error) = &health.error { " The last it said: " (error) }
            }
        }
    }
}

pub(super) fn section(view: &PlacementView) -> Markup {
    let (shown, counted) = (&view.shown, &view.counted);
    let groups = shown.groups.len() + shown.groups_left_out;
    html! {
        h2 { "Several instances" }
        p {
            "This one is " b { (shown.me.url) } " (" (shown.me.id) "), has " (groups) " groups that bring "
            (count(shown.samples_per_second)) " samples a second"
            @if shown.draining { ", and takes no more: it is about to end" }
            ". Database " (view.database) ": " (database(view)) " "
            (count(counted.statements)) " statements, " (count(counted.statement_errors)) " of them came to nothing."
        }
        p .dim {
            "Groups claimed: " (count(counted.claims)) "; given away: " (count(counted.given)) "; lost: " (count(counted.lost))
            ". Hops sent: " (listed(&counted.hops_sent)) "; received: " (count(counted.hops_received)) "."
        }
        (instances(&shown.others, shown.others_left_out))
        (owned(&shown.groups, shown.groups_left_out))
    }
}

fn database(view: &PlacementView) -> Markup {
    let health = &view.shown.database;
    html! {
        @match health.up {
            None => "not asked yet.",
            Some(true) => span .good { "answers" },
            Some(false) => span .bad { "away for " (lasting(health.lasting)) },
        }
        @match health.heartbeat {
            Some(age) => { ", the last heartbeat " (lasting(age)) " ago." }
            None => @if health.up.is_some() { ", no heartbeat yet." },
        }
    }
}

fn instances(others: &[OtherInstance], left_out: usize) -> Markup {
    let rows = others.len().min(ROWS_MAX);
    html! {
        div .wide { table {
            thead { tr { th { "other instance" } th { "samples/s" } th { "groups known here" } th { "hops failed in a row" } } }
            tbody { @for other in &others[..rows] { tr data-instance=(other.peer.id) {
                td { (other.peer.url) " " span .dim { (other.peer.id) } @if other.draining { " " span .state { "about to end" } } }
                td { (count(other.samples_per_second)) }
                td { (other.groups_known) }
                td .bad[other.hops_failed > 0] { (other.hops_failed) }
            } } }
        } }
        (more(others.len() - rows + left_out, "instances"))
    }
}

fn owned(groups: &[OwnedGroup], left_out: usize) -> Markup {
    let rows = groups.len().min(ROWS_MAX);
    html! {
        div .wide { table {
            thead { tr { th { "group of this instance" } th { "tenant" } th { "for" } th { "epoch" } th { "samples/s" } th { "held" } } }
            tbody { @for group in &groups[..rows] { tr data-group=(group.name) {
                td { (named(&group.name)) }
                td { (group.tenant) }
                td { (lasting(group.held)) }
                td { (group.epoch) }
                td { (count(group.samples_per_second)) }
                td .warning[group.holding != Holding::Confirmed] { (group.holding.name()) }
            } } }
        } }
        (more(groups.len() - rows + left_out, "groups, which bring less"))
    }
}

fn more(left_out: usize, what: &str) -> Markup {
    html! { @if left_out > 0 { p .dim { "And " (left_out) " more " (what) "." } } }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::admin::status::Counted;
    use crate::placement::{DatabaseHealth, Peer, Shown};
    use std::time::Duration;

    fn view(up: Option<bool>, others: usize, groups: usize) -> PlacementView {
        let peer = |number: usize| Peer {
            id: format!("id-{number}").into(),
            url: format!("http://10.0.0.{number}:19290").into(),
        };
        let other = |number| OtherInstance {
            peer: peer(number),
            samples_per_second: 1_500.0,
            draining: number == 1,
            groups_known: 7,
            hops_failed: 2,
        };
        let group = |number| OwnedGroup {
            name: format!("<b>{number}"),
            tenant: "acme".to_owned(),
            epoch: 41,
            held: Duration::from_secs(65),
            samples_per_second: 3.0,
            holding: if number == 0 { Holding::Unconfirmed } else { Holding::Confirmed },
        };
        let database = DatabaseHealth {
            up,
            lasting: Duration::from_secs(130),
            heartbeat: up.map(|_| Duration::from_secs(5)),
            error: up.is_some_and(|up| !up).then(|| "it is <gone>".to_owned()),
        };
        PlacementView {
            shown: Shown {
                me: peer(0),
                samples_per_second: 0.0,
                draining: false,
                database,
                others: (1..=others).map(other).collect(),
                others_left_out: 3,
                groups: (0..groups).map(group).collect(),
                groups_left_out: 4,
            },
            database: "db:5432/x".to_owned(),
            counted: Counted { given: 11.0, hops_received: 12.0, ..Counted::default() },
        }
    }

    #[test]
    fn it_says_who_there_is_and_what_is_here() {
        let html = section(&view(Some(true), 1, 2)).into_string();
        for words in [
            "http://10.0.0.0:19290",
            "has 6 groups",
            "answers</span>, the last heartbeat 5 s ago.",
            "http://10.0.0.1:19290",
            "about to end",
            "&lt;b&gt;1",
            "1 min 5 s",
            "<td>41</td>",
            "unconfirmed",
            "given away: 11",
            "received: 12",
            "And 3 more instances.",
            "And 4 more groups",
        ] {
            assert!(html.contains(words), "{words} is not in {html}");
        }
        assert!(!html.contains("<b>1"), "names of groups are escaped: {html}");
        assert_eq!(warning(&view(Some(true), 0, 0)).into_string(), "");
        assert_eq!(warning(&view(None, 0, 0)).into_string(), "");
    }

    #[test]
    fn more_than_fits_is_left_out_and_counted() {
        let html = section(&view(Some(true), ROWS_MAX + 5, ROWS_MAX + 6)).into_string();
        assert_eq!(html.matches("data-instance").count(), ROWS_MAX);
        assert_eq!(html.matches("data-group").count(), ROWS_MAX);
        assert!(html.contains("And 8 more instances") && html.contains("And 10 more groups"), "{html}");
    }

    #[test]
    fn a_database_that_is_away_is_told_first_and_since_when() {
        let view = view(Some(false), 0, 0);
        let note = warning(&view).into_string();
        assert!(
            note.contains("has not answered for 2 min 10 s") && note.contains("it is &lt;gone&gt;"),
            "{note}"
        );
        let html = section(&view).into_string();
        assert!(
            html.contains("away for 2 min 10 s") && html.contains("the last heartbeat 5 s ago"),
            "{html}"
        );
    }
}
