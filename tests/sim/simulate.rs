//! Plays many schedules, or one.

mod checker;
mod dice;
mod history;
mod make;
mod proxy;
mod queue;
mod replica;
mod run;
mod story;
mod upstream;
mod world;

fn main() {
    let args: Vec<u64> = std::env::args().skip(1).map(|a| a.parse().unwrap()).collect();
    let begun = std::time::Instant::now();
    for seed in args[0]..args[0] + args[1] {
        let story = make::story(seed);
        let told = args.get(2).map(|s| *s as usize);
        let t = std::time::Instant::now();
        let played = run::play(&story, told);
        let verdict = checker::judge(&played);
        let brief: Vec<String> =
            verdict.broken.iter().take(3).map(|b| format!("{}: {}", b.promise, b.what)).collect();
        println!(
            "{seed} {:?} n={} d={} hole {:.2}@{}/{:.3} density {:.3} split {:.2}@{}/{:.3} fe {} take {} moves {} waits {} stored {} [{:.0?}] {}",
            make::Class::of(seed),
            story.replicas.len(),
            story.link.delay_max_ms() as f64 / story.shortest_interval_ms() as f64,
            verdict.hole.0,
            verdict.hole.1,
            verdict.hole.2 as f64 / 1e3,
            verdict.density,
            verdict.split.0,
            verdict.split.1,
            verdict.split.2 as f64 / 1e3,
            verdict.false_ends,
            verdict.takeovers,
            verdict.moves,
            verdict.waits,
            verdict.stored,
            t.elapsed(),
            brief.join(" | ")
        );
        println!(
            "   F {seed} {:.2} {:.2} {} {}",
            verdict.hole.0,
            verdict.split.0,
            verdict.broken.first().map_or("-".into(), |b| b.promise.replace(' ', "_")),
            story
                .faults
                .iter()
                .map(|f| format!("{:?}", f.what)
                    .split(['{', '}'])
                    .next()
                    .unwrap()
                    .trim()
                    .replace("Upstream(", "U")
                    .to_owned())
                .collect::<Vec<_>>()
                .join("+")
        );
        if told.is_some() {
            println!("{story}");
            for line in &played.world.history().lines {
                println!("{line}");
            }
        }
    }
    println!("{:?}", begun.elapsed());
}
