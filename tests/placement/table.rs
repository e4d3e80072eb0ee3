//! Prints how a fleet of instances shares groups out, for BENCHMARKING.md: `cargo run --release --example placement`.

#![allow(clippy::print_stdout, clippy::unwrap_used, reason = "a program of the tests")]

mod fleet;
mod stories;

use clap::Parser;

#[derive(Parser)]
struct Options {
    /// Instances at the beginning.
    #[arg(long, default_value_t = 1000)]
    instances: usize,
    /// HA groups.
    #[arg(long, default_value_t = 100_000)]
    groups: usize,
    #[arg(long, default_value_t = 1)]
    seed: u64,
}

fn main() {
    let Options { instances, groups, seed } = Options::parse();
    let begun = std::time::Instant::now();
    println!("{instances} instances, {groups} groups, seed {seed}\n");
    println!(
        "| what | claims | max/mean when all are claimed | at rest | moves | of these again | at rest after | statements/s until then | statements/s at rest |"
    );
    println!("|---|---|---|---|---|---|---|---|---|");
    for told in stories::all(instances, groups, seed) {
        println!(
            "| {} | {} | {:.2} | {:.2} | {} | {} | {} s | {:.0} | {:.0} |",
            told.what,
            told.claims,
            told.before,
            told.balance,
            told.moves,
            told.moved_twice,
            told.settled_s,
            told.statements_a_second,
            told.statements_at_rest,
        );
    }
    println!("\nin {:.1?}", begun.elapsed());
}
