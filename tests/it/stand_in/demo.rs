//! The demo's verdict around toys: one that does the job, and some that do not.

use super::toy::{self, Flaw};
use crate::peer::config;
use promdedup::app::{Addresses, App};
use promdedup::command::demo::{DemoOptions, ProxyAddresses, RunningProxy, Screen, run};
use std::io::Write;
use std::sync::{Arc, Mutex};
use std::time::Duration;

/// The verdict, and what was printed.
async fn play(flaw: Flaw) -> (Result<(), String>, String) {
    let interval = Duration::from_millis(300);
    let duration = Duration::from_secs(6);
    let options = DemoOptions { duration, series: 200, interval, ..DemoOptions::default() };
    let start = async |url: String| toy::start(flaw, interval.as_millis() as i64, &url).await;
    let printed = Printed::default();
    let verdict = run(options, Screen::to(printed.clone()), start).await;
    (verdict.map_err(|error| format!("{error:#}")), printed.text())
}

#[derive(Debug, Clone, Default)]
struct Printed(Arc<Mutex<Vec<u8>>>);

impl Printed {
    fn text(&self) -> String {
        String::from_utf8(self.0.lock().unwrap().clone()).unwrap()
    }
}

impl Write for Printed {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        self.0.lock().unwrap().write(bytes)
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_proxy_that_does_the_job_passes() {
    let (verdict, printed) = play(Flaw::None).await;
    assert_eq!(verdict, Ok(()), "{printed}");
    for line in ["-- prometheus-k8s-0 was killed", "-- prometheus-k8s-0 came back", "samples in", "% saved"] {
        assert!(printed.contains(line), "{line} is missing:\n{printed}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_flaw_breaks_its_guarantee() {
    let flaws = [
        (Flaw::Relays, "replica labels downstream"),
        (Flaw::Interleaves, "samples refused to a sender"),
        (Flaw::NeverTakesOver, "acknowledged samples lost"),
        (Flaw::Loses, "forwarded + filled = stored"),
        (Flaw::Invents, "stored samples that nobody sent"),
    ];
    let runs = flaws.map(|(flaw, _)| tokio::spawn(play(flaw)));
    for ((flaw, guarantee), run) in flaws.into_iter().zip(runs) {
        let (verdict, printed) = run.await.unwrap();
        assert!(verdict.is_err_and(|text| text.contains("broke")), "{flaw:?}:\n{printed}");
        let line = printed.lines().find(|line| line.starts_with(guarantee)).unwrap();
        assert!(line.ends_with("BROKEN"), "{flaw:?}:\n{printed}");
    }
}

/// The verdict in observe mode, and what was printed.
async fn observe<Started>(start: impl FnOnce(String) -> Started) -> (Result<(), String>, String)
where
    Started: Future<Output = anyhow::Result<RunningProxy>>,
{
    let (duration, interval) = (Duration::from_secs(6), Duration::from_millis(300));
    let options = DemoOptions { duration, series: 200, interval, observe: true, ..DemoOptions::default() };
    let printed = Printed::default();
    let verdict = run(options, Screen::to(printed.clone()), start).await;
    (verdict.map_err(|error| format!("{error:#}")), printed.text())
}

async fn real(url: String) -> anyhow::Result<RunningProxy> {
    let app =
        App::build(config(&url, &[("PROMDEDUP_MODE", "observe"), ("PROMDEDUP_FIRST_CONTACT_HOLD", "0s")]))?;
    let Addresses { data, admin } = app.addresses();
    let (stop, stopped) = tokio::sync::oneshot::channel::<()>();
    let running = tokio::spawn(app.run(async { drop(stopped.await) }));
    let stop = Box::pin(async move {
        drop(stop);
        running.await?
    });
    Ok(RunningProxy { addresses: ProxyAddresses { data, admin }, stop })
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_proxy_that_observes_passes_everything_on_and_says_what_it_would_save() {
    let (verdict, printed) = observe(real).await;
    assert_eq!(verdict, Ok(()), "{printed}");
    for line in ["-- prometheus-k8s-0 was killed", "  would be dropped as duplicates", "% saved"] {
        assert!(printed.contains(line), "{line} is missing:\n{printed}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_flaw_of_an_observer_breaks_its_guarantee() {
    let flaws = [
        (Flaw::None, "bodies that arrived byte for byte (all)"),
        (Flaw::None, "bodies that arrived and nobody sent"),
        (Flaw::None, "replica labels upstream (all)"),
        (Flaw::Interleaves, "samples refused to a sender"),
        (Flaw::Relays, "would-be duplicates, share of samples"),
        (Flaw::Relays, "would-be savings, share of bytes"),
    ];
    let start = |flaw| async move |url: String| toy::start(flaw, 300, &url).await;
    let runs =
        [Flaw::None, Flaw::Interleaves, Flaw::Relays].map(|flaw| (flaw, tokio::spawn(observe(start(flaw)))));
    for (flaw, run) in runs {
        let (verdict, printed) = run.await.unwrap();
        assert!(verdict.is_err_and(|text| text.contains("broke")), "{flaw:?}:\n{printed}");
        for (_, guarantee) in flaws.iter().filter(|(of, _)| *of == flaw) {
            let line = printed.lines().find(|line| line.starts_with(guarantee)).unwrap();
            assert!(line.ends_with("BROKEN"), "{flaw:?}:\n{printed}");
        }
    }
}

#[tokio::test]
async fn options_that_make_no_demo_are_refused() {
    let check = async |options: DemoOptions, expect: &str| {
        let start = async |_url: String| -> anyhow::Result<_> { panic!("must not be started") };
        let error = run(options, Screen::to(Printed::default()), start).await.unwrap_err().to_string();
        assert!(error.contains(expect), "{error}");
    };
    let good = DemoOptions::default;
    check(DemoOptions { replicas: 1, ..good() }, "--replicas 1").await;
    check(DemoOptions { duration: Duration::from_secs(5), ..good() }, "--duration 5s").await;
    check(DemoOptions { interval: Duration::from_millis(5), ..good() }, "--interval 5ms").await;
    check(DemoOptions { series: 100_000_000, ..good() }, "would have to be recorded").await;
}
