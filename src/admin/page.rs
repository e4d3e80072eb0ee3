//! The status as a page: for whoever looks at it at night, on a phone, or without script.
//!
//! Everything it says is in the [`View`]. What comes from senders (names of groups and replicas, texts) is escaped by
//! `maud`. Refuses to load anything from elsewhere.

mod graph;
mod placement;

use super::status::{GroupView, ReplicaView, View};
use graph::graph;
use maud::{DOCTYPE, Markup, html};
use std::collections::BTreeMap;
use std::time::Duration;

pub(super) const STYLE: &str = include_str!("page/page.css");
pub(super) const SCRIPT: &str = include_str!("page/page.js");
/// Who is so far behind the newest replica is worth a look: more than a sender's pauses explain.
const BEHIND_S: f64 = 60.0;

pub(super) fn html(view: &View) -> Markup {
    html! {
        (DOCTYPE)
        html lang="en" {
            head {
                meta charset="utf-8";
                meta name="viewport" content="width=device-width, initial-scale=1";
                meta name="robots" content="noindex";
                title { "promdedup" }
                link rel="stylesheet" href="/page.css";
                link rel="icon" href="data:,";
                script src="/page.js" defer {}
                noscript { meta http-equiv="refresh" content="5"; }
            }
            body {
                p #lost .note .bad hidden { "promdedup does not answer; what you see is how it was." }
                main {
                    (head(view))
                    (warnings(view))
                    (totals(view))
                    (graphs(view))
                    @for group in &view.groups { (group_table(group)) }
                    @if view.groups.is_empty() { p .dim { "No sender has come yet." } }
                    @if let Some(placement) = &view.placement { (placement::section(placement)) }
                    (upstream(view))
                    (refusals(view))
                }
                footer .dim {
                    a href="/metrics" { "metrics" }
                    a href="/api/v1/status" { "status as JSON" }
                    a href="/-/ready" { "ready?" }
                    a href="/-/healthy" { "healthy?" }
                }
            }
        }
    }
}

fn head(view: &View) -> Markup {
    html! {
        header {
            h1 { "promdedup" }
            @match &view.unready {
                None => span .state .good { "ready" },
                Some(_) => span .state .bad { "not ready" },
            }
            span .dim { (env!("CARGO_PKG_VERSION")) " · " (view.mode.name()) " · up " (lasting(view.uptime)) }
        }
    }
}

fn warnings(view: &View) -> Markup {
    let silent = view.groups.iter().flat_map(|group| {
        let silent =
            group.replicas.iter().filter_map(|replica| Some((&replica.name, replica.life.silent_for?)));
        silent.map(|(replica, pause)| (&group.name, replica, pause))
    });
    html! {
        @if let Some(why) = &view.unready { p .note .bad { "Not ready: " (why) } }
        @if let Some(placement) = &view.placement { (placement::warning(placement)) }
        @for warning in &view.warnings { p .note { b { (named(&warning.group)) } ": " (warning.advice) } }
        @for (group, replica, pause) in silent {
            p .note {
                "Nothing has come from " b { (named(replica)) } " of " b { (named(group)) } " for " (lasting(pause))
                ". Is it running, and does its remote_write reach this address?"
            }
        }
    }
}

fn totals(view: &View) -> Markup {
    let figures = &view.figures;
    let saved = if figures.compressed_in > 0.0 { figures.saved_bytes() / figures.compressed_in } else { 0.0 };
    let day = &view.overhead;
    html! {
        div .cards {
            (card("samples in", &count(figures.received), "since the start"))
            (card("sent on", &count(figures.forwarded), &format!("{} filled into gaps", count(figures.filled))))
            (card("duplicates", &count(figures.duplicate), &format!("{} to be sent again", count(figures.failed))))
            (card("bytes in", &bytes(figures.compressed_in), "compressed"))
            (card("bytes out", &bytes(figures.compressed_out), &format!("{:.1} % saved", 100.0 * saved)))
            (card("saved upstream", &bytes(day.saved_bytes_per_day), "a day, by the last hour"))
            (card("duplicates cost", &lasting(Duration::from_secs_f64(day.duplicate_cpu_seconds_per_day.max(0.0))), "of CPU a day"))
            (card("series", &count(figures.window_series), &bytes(figures.window_bytes)))
        }
    }
}

fn card(title: &str, figure: &str, more: &str) -> Markup {
    html! { div .card { span .unit { (title) } b { (figure) } span .unit { (more) } } }
}

fn graphs(view: &View) -> Markup {
    let history = &view.history;
    html! {
        div .graphs {
            (graph("samples a second", &count, history, [("in", |f| f.received), ("sent on", |f| f.forwarded)]))
            (graph("bytes a second, compressed", &bytes, history, [("in", |f| f.compressed_in), ("out", |f| f.compressed_out)]))
            (graph("CPU, % of a core", &|share| format!("{:.2}", 100.0 * share), history,
                [("all", |f| f.cpu_s), ("for duplicates", |f| f.duplicate_cpu_s)]))
        }
    }
}

fn group_table(group: &GroupView) -> Markup {
    html! {
        h2 { (named(&group.name)) }
        div .wide {
            table {
                thead { tr {
                    th { "replica" } th { "owns" } th { "newest sample" } th { "behind" } th { "in/s" } th { "duplicates/s" }
                    th { "waits" } th { "to be sent again" } th { "refused" } th { "rejected" }
                } }
                tbody { @for replica in &group.replicas { (replica_row(replica)) } }
            }
        }
        p .dim {
            "Takeovers: " (listed(&group.takeovers)) "; targets moved: " (count(group.moves))
            @if let Some((ago, why)) = &group.last_takeover { "; the last one " (lasting(*ago)) " ago (" (why) ")" }
            "; filled into gaps: " (count(group.filled)) "."
        }
    }
}

fn replica_row(replica: &ReplicaView) -> Markup {
    let counted = &replica.counted;
    let behind = replica.behind_s.is_some_and(|behind_s| behind_s > BEHIND_S);
    let age = |seconds: Option<f64>| seconds.map_or("–".to_owned(), |s| format!("{s:.1} s"));
    html! {
        tr data-replica=(replica.name) {
            td {
                (named(&replica.name))
                @if let Some(pause) = replica.life.silent_for { " " span .state .bad { "silent for " (lasting(pause)) } }
            }
            td { (count(counted.owned)) " " span .dim { (format!("{:.0} %", 100.0 * replica.owned_share)) } }
            td { (age(replica.age_s)) }
            td .warning[behind] { (age(replica.behind_s)) }
            td { (count(replica.life.received_per_s)) }
            td { (count(replica.life.duplicates_per_s)) }
            td { (count(counted.waits)) }
            td { (count(counted.failed)) }
            td .bad[counted.refused > 0.0] { (count(counted.refused)) }
            td .bad[counted.rejected > 0.0] { (count(counted.rejected)) }
        }
    }
}

fn upstream(view: &View) -> Markup {
    html! {
        h2 { "Upstream and limits" }
        p {
            "Answers by code: " (listed(&view.upstream)) "."
            @if let Some(mean_s) = view.upstream_mean_s { " Mean time: " (format!("{:.1} ms", 1e3 * mean_s)) "." }
            " Limits hit: " (listed(&view.limits)) "."
        }
    }
}

fn refusals(view: &View) -> Markup {
    html! {
        @if !view.refusals.is_empty() {
            h2 { "Refused lately" }
            div .wide { table {
                thead { tr { th { "ago" } th { "status" } th { "replica" } th { "what its sender was told" } } }
                tbody { @for (ago, refusal) in &view.refusals { tr {
                    td { (lasting(*ago)) }
                    td { (refusal.status) }
                    td { (refusal.group) " " (refusal.replica) }
                    td .text { (refusal.text) }
                } } }
            } }
        }
    }
}

/// A group or a replica by its name.
fn named(name: &str) -> &str {
    if name.is_empty() { "(without a label)" } else { name }
}

fn listed(counts: &BTreeMap<String, f64>) -> String {
    let all: Vec<_> = counts.iter().map(|(name, number)| format!("{name} {}", count(*number))).collect();
    if all.is_empty() { "none".to_owned() } else { all.join(", ") }
}

/// A number in three digits or so.
fn count(number: f64) -> String {
    scaled(number, 1e3, &["", " k", " M", " G", " T"])
}

fn bytes(number: f64) -> String {
    scaled(number, 1024.0, &[" B", " KiB", " MiB", " GiB", " TiB"])
}

fn scaled(number: f64, step: f64, units: &[&str]) -> String {
    let (mut number, mut unit) = (number, 0);
    while number.abs() >= step && unit + 1 < units.len() {
        (number, unit) = (number / step, unit + 1);
    }
    let whole = number.fract() == 0.0 || number.abs() >= 100.0;
    if whole { format!("{number:.0}{}", units[unit]) } else { format!("{number:.1}{}", units[unit]) }
}

fn lasting(time: Duration) -> String {
    let seconds = time.as_secs();
    match seconds {
        0..60 => format!("{seconds} s"),
        60..3_600 => format!("{} min {} s", seconds / 60, seconds % 60),
        3_600..86_400 => format!("{} h {} min", seconds / 3_600, seconds % 3_600 / 60),
        _ => format!("{} d {} h", seconds / 86_400, seconds % 86_400 / 3_600),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_short() {
        assert_eq!(
            [0.0, 7.0, 999.0, 1_500.0, 123_456.0, 2.5e9].map(count),
            ["0", "7", "999", "1.5 k", "123 k", "2.5 G"]
        );
        assert_eq!([0.0, 1536.0, 5.0 * 1024.0 * 1024.0].map(bytes), ["0 B", "1.5 KiB", "5 MiB"]);
        let times = [5, 65, 7_265, 90_000].map(Duration::from_secs);
        assert_eq!(times.map(lasting), ["5 s", "1 min 5 s", "2 h 1 min", "1 d 1 h"]);
    }
}
