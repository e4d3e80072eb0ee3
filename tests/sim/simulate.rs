//! Plays many schedules of faults around the real rooms, and prints the figures; or tells one story.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::print_stdout, reason = "a program of the tests")]

mod checker;
mod database;
mod dice;
mod fleets;
mod front;
mod history;
mod make;
mod many;
mod peers;
mod proxy;
mod queue;
mod replica;
mod run;
mod settled;
mod shorten;
mod story;
mod table;
mod tally;
mod upstream;
mod world;

use clap::Parser;
use std::collections::BTreeMap;
use std::process::ExitCode;
use table::Above;

#[derive(Parser)]
struct Options {
    /// How many schedules to play.
    #[arg(long, default_value_t = 20_000)]
    schedules: u64,
    /// The seed of the first.
    #[arg(long, default_value_t = 0)]
    from: u64,
    /// Tell the story of this seed: what was wrong with it, if anything, or else that of `--series`.
    #[arg(long)]
    seed: Option<u64>,
    /// Of several instances.
    #[arg(long)]
    several: bool,
    /// The series to tell of: its number.
    #[arg(long, requires = "seed")]
    series: Option<usize>,
}

fn main() -> ExitCode {
    let options = Options::parse();
    match options.seed {
        Some(seed) => tell(seed, options.several, options.series),
        None if options.several => play_fleets(&options),
        None => play_all(&options),
    }
}

fn tell(seed: u64, several: bool, series: Option<usize>) -> ExitCode {
    let story = if several { fleets::story(seed) } else { make::story(seed) };
    let class = if several {
        format!("{:?}", fleets::Class::of(seed))
    } else {
        format!("{:?}", make::Class::of(seed))
    };
    let verdict = checker::judge(&run::play(&story, None));
    println!("{class}\n{story}{verdict:#?}");
    match (series, verdict.broken.first()) {
        (Some(_), _) | (None, None) => {
            let played = run::play(&story, series.or(Some(verdict.hole.series)));
            played.world.history().lines.iter().for_each(|line| println!("{line}"));
        }
        (None, Some(first)) => println!("{}", shorten::told(&story, first.promise)),
    }
    if verdict.broken.is_empty() { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

fn play_all(options: &Options) -> ExitCode {
    let begun = std::time::Instant::now();
    let seeds = options.from..options.from + options.schedules;
    let mut table = many::all(seeds, |played| println!("{played} played after {:.0?}", begun.elapsed()));
    println!("\n{}", table.print());
    println!("above the bound for holes ({}):", table.above.len());
    let mut causes = BTreeMap::<&str, usize>::new();
    table.above.iter().for_each(|above| *causes.entry(above.cause).or_default() += 1);
    causes.iter().for_each(|(cause, count)| println!("  {count}: {cause}"));
    for Above { seed, hole, cause, what } in &table.above {
        println!("  {seed}: {:.2} at an age of {:.1}, {cause} ({what})", hole.width, hole.age);
    }
    println!("with another density than promised ({}):", table.uneven.len());
    table.uneven.iter().for_each(|(seed, density, why)| println!("  {seed}: {density:.3}, {why}"));
    println!("split for longer than promised ({}):", table.split.len());
    table.split.iter().for_each(|(seed, split, why)| println!("  {seed}: {split:.2}, {why}"));
    let problems = table.problems();
    println!("worse than it may be ({}):", problems.len());
    problems.iter().for_each(|problem| println!("  {problem}"));
    println!("{} schedules in {:.0?}", options.schedules, begun.elapsed());
    if problems.is_empty() { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

fn play_fleets(options: &Options) -> ExitCode {
    let begun = std::time::Instant::now();
    let seeds = options.from..options.from + options.schedules;
    let mut table = many::fleets(seeds, |played| println!("{played} played after {:.0?}", begun.elapsed()));
    println!("\n{}", table.print());
    println!("refused for good in splits:");
    table.refused().for_each(|refused| println!("  {refused}"));
    let problems = table.problems();
    println!("worse than it may be ({}):", problems.len());
    problems.iter().for_each(|problem| println!("  {problem}"));
    println!("{} schedules in {:.0?}", options.schedules, begun.elapsed());
    let Some(worst) = table.worst() else { return ExitCode::SUCCESS };
    println!("`--several --seed {worst}` tells the first of them");
    ExitCode::FAILURE
}
