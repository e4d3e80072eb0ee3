//! Two rates over the last hour, as a small picture.

use super::lasting;
use crate::overhead::Figures;
use maud::{Markup, html};
use std::time::Duration;

const WIDTH: f64 = 360.0;
const HEIGHT: f64 = 60.0;
/// A shorter time is not stretched over the whole width.
const SPAN_MIN_S: f64 = 60.0;

/// A counter of the figures, and its name.
type Line = (&'static str, fn(&Figures) -> f64);

/// A picture of two counters' rates. `history`: how long ago, and the figures then, the oldest first. Time runs to the
/// right; the highest rate is at the top, 0 at the bottom.
pub(super) fn graph(
    title: &str,
    unit: &dyn Fn(f64) -> String,
    history: &[(Duration, Figures)],
    lines: [Line; 2],
) -> Markup {
    let rates = lines.map(|(_, of)| rates(history, of));
    let span = history.first().map_or(Duration::ZERO, |(ago, _)| *ago);
    let highest = rates.iter().flatten().map(|(_, rate)| *rate).fold(0.0, f64::max);
    let now = |line: usize| rates[line].last().map_or(0.0, |(_, rate)| *rate);
    html! {
        figure {
            figcaption {
                (title) ": "
                span .one { (lines[0].0) " " (unit(now(0))) } ", " span .two { (lines[1].0) " " (unit(now(1))) }
                span .dim { " (at most " (unit(highest)) " in the last " (lasting(span)) ")" }
            }
            svg viewBox=(format!("0 0 {WIDTH} {HEIGHT}")) preserveAspectRatio="none" role="img" aria-label=(title) {
                polyline points=(points(&rates[0], highest, span)) {}
                polyline .two points=(points(&rates[1], highest, span)) {}
            }
        }
    }
}

/// Seconds ago, and the rate until then.
fn rates(history: &[(Duration, Figures)], of: fn(&Figures) -> f64) -> Vec<(f64, f64)> {
    let pairs = history.windows(2).map(|pair| {
        let [(before, old), (ago, new)] = [pair[0], pair[1]];
        let seconds = before.saturating_sub(ago).as_secs_f64();
        (ago.as_secs_f64(), seconds, of(&new) - of(&old))
    });
    // What is only a moment says nothing of a rate.
    pairs
        .filter(|(_, seconds, _)| *seconds >= 1.0)
        .map(|(ago, seconds, more)| (ago, more / seconds))
        .collect()
}

fn points(rates: &[(f64, f64)], highest: f64, span: Duration) -> String {
    let span_s = span.as_secs_f64().max(SPAN_MIN_S);
    let place = |(ago, rate): &(f64, f64)| {
        let x = WIDTH * (1.0 - (ago / span_s).min(1.0));
        let y = if highest > 0.0 { HEIGHT - 1.0 - (HEIGHT - 2.0) * rate / highest } else { HEIGHT - 1.0 };
        format!("{x:.1},{y:.1}")
    };
    rates.iter().map(place).collect::<Vec<_>>().join(" ")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rates_are_drawn_over_the_hour() {
        let at = |ago, received| (Duration::from_secs(ago), Figures { received, ..Figures::default() });
        let history = [at(3_600, 0.0), at(1_800, 1_800.0), at(0, 5_400.0)];
        let rates = rates(&history, |f| f.received);
        assert_eq!(rates, [(1_800.0, 1.0), (0.0, 2.0)]);
        let span = Duration::from_secs(3_600);
        assert_eq!(points(&rates, 2.0, span), "180.0,30.0 360.0,1.0");
        assert_eq!(points(&[(0.0, 0.0)], 0.0, span), "360.0,59.0", "nothing is at the bottom");
        assert_eq!(
            points(&[(30.0, 1.0)], 1.0, Duration::from_secs(30)),
            "180.0,1.0",
            "a minute is the least"
        );
    }
}
