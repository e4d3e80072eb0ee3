//! Makes a story that ends badly shorter, as long as it ends as badly.

use crate::checker::judge;
use crate::run::play;
use crate::story::Story;

/// Leaves out whatever can be left out while `is_bad` stays true. Times and phases stay as they are.
pub(crate) fn shorten(story: &Story, is_bad: impl Fn(&Story) -> bool) -> Story {
    let mut shortest = story.clone();
    let mut tries = 0;
    let mut attempt = |shorter: Story, shortest: &mut Story| {
        tries += 1;
        if tries <= 200 && is_bad(&shorter) {
            *shortest = shorter;
            return true;
        }
        false
    };
    let mut nth = 0;
    while nth < shortest.faults.len() {
        let mut shorter = shortest.clone();
        shorter.faults.remove(nth);
        nth += usize::from(!attempt(shorter, &mut shortest));
    }
    // Targets are told apart by their place, so they stay there, with nothing to scrape.
    for nth in 0..shortest.targets.len() {
        let mut shorter = shortest.clone();
        shorter.targets[nth].life = (i64::MAX, i64::MAX);
        attempt(shorter, &mut shortest);
    }
    for replica in 0..shortest.replicas.len() {
        let mut shorter = shortest.clone();
        shorter.replicas[replica].shards = 1;
        attempt(shorter, &mut shortest);
    }
    let last = shortest.faults.iter().map(|fault| fault.at_ms + fault.for_ms).max().unwrap_or(0);
    for span_ms in [last + 60_000, last + 300_000] {
        let shorter = Story { span_ms, ..shortest.clone() };
        if span_ms < shortest.span_ms && attempt(shorter, &mut shortest) {
            break;
        }
    }
    shortest
}

/// All of a story that ended badly: how, its shortest form, and what happened to the series that it is about.
pub(crate) fn told(story: &Story, promise: &str) -> String {
    let broken = |story: &Story| judge(&play(story, None)).broken.into_iter().find(|b| b.promise == promise);
    let shortest = shorten(story, |story| broken(story).is_some());
    let Some(worst) = broken(&shortest) else { return "it does not end badly".into() };
    let played = play(&shortest, worst.series);
    let lines = played.world.history().lines.join("\n");
    let series = worst.series.map(|series| played.world.history().series[series].labels.to_string());
    let first = shortest.faults.first().map_or(0, |fault| fault.at_ms);
    let lines: Vec<&str> = lines.lines().filter(|line| time_of(line) >= first - 60_000).collect();
    format!(
        "seed {}: {}: {}\n{shortest}{}\n{}\n",
        story.seed,
        worst.promise,
        worst.what,
        series.unwrap_or_default(),
        lines.join("\n")
    )
}

fn time_of(line: &str) -> i64 {
    let seconds = line.split_whitespace().next().and_then(|time| time.parse::<f64>().ok());
    seconds.map_or(0, |seconds| (seconds * 1e3) as i64)
}
