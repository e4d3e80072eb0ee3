//! Three instances behind an nginx that deals requests round, twenty HA groups of two replicas, and everything that may happen to them:
//! an instance is killed, another one asked to end, the database stands still, an instance cannot be reached by the others.

use crate::nginx::Nginx;
use crate::process::{PATIENCE, Process, eventually, page};
use crate::relay::Relay;
use crate::server::Server;
use promdedup::stand_in::checker::Checker;
use promdedup::stand_in::prometheus::{Fleet, FleetShape, Options, Replica};
use promdedup::stand_in::thanos::{DEFAULT_TENANT, Thanos};
use std::io::Write;
use std::net::TcpListener;
use std::process::Command;
use std::sync::Arc;
use std::time::{Duration, Instant};
use tempfile::{NamedTempFile, TempDir};

const GROUPS: usize = 20;
const SERIES: usize = 40;
const INTERVAL: Duration = Duration::from_secs(2);
/// As when a proxy ended: two intervals of a standby that it held, and one to the next sample.
const HOLE_MAX: f64 = 3.0;
/// How long the database stands still, and an instance is out of reach, unless `SEVERAL_AWAY_SECONDS` says: above the expiry of a
/// heartbeat.
const AWAY: Duration = Duration::from_secs(12);

#[expect(clippy::disallowed_methods, reason = "how long a test takes is no configuration")]
fn away() -> Duration {
    match std::env::var("SEVERAL_AWAY_SECONDS") {
        Ok(seconds) => Duration::from_secs(seconds.parse().expect("a number of seconds")),
        Err(_) => AWAY,
    }
}

struct Instance {
    number: usize,
    data: String,
    relay: Relay,
    variables: Vec<(&'static str, String)>,
    /// Before the folder: when it is dropped in a panic it shows what it has logged there.
    process: Process,
    folder: TempDir,
    admin: String,
}

impl Instance {
    async fn start(number: usize, common: &[(&'static str, String)]) -> Self {
        let free = TcpListener::bind("127.0.0.1:0").and_then(|free| free.local_addr()).expect("a port");
        let (data, folder) = (free.to_string(), tempfile::tempdir().expect("a folder"));
        let relay = Relay::to(data.clone()).await;
        let mut variables = common.to_vec();
        variables.push(("PROMDEDUP_LISTEN", data.clone()));
        variables.push(("PROMDEDUP_ADVERTISE_URL", format!("http://{}", relay.address)));
        let (process, admin) = run(number, &variables, &folder).await;
        Self { number, data, relay, variables, process, folder, admin }
    }

    async fn restart(&mut self) {
        let (process, admin) = run(self.number, &self.variables, &self.folder).await;
        (self.process, self.admin) = (process, admin);
    }

    /// The sum of a metric over its labels; `None` if it does not answer.
    async fn sum(&self, metric: &str) -> Option<f64> {
        let text = page(&format!("http://{}/metrics", self.admin)).await?;
        let of_it = |line: &&str| {
            line.strip_prefix(metric).is_some_and(|rest| rest.starts_with(' ') || rest.starts_with('{'))
        };
        Some(text.lines().filter(of_it).filter_map(|line| line.rsplit(' ').next()?.parse::<f64>().ok()).sum())
    }
}

async fn run(number: usize, variables: &[(&'static str, String)], folder: &TempDir) -> (Process, String) {
    let mut command = Command::new(env!("CARGO_BIN_EXE_promdedup"));
    command.env_clear().envs(variables.iter().map(|(name, value)| (*name, value)));
    let name = format!("instance {number}");
    let log = folder.path().join("log");
    let mut process = Process::start(&name, &mut command, log, "promdedup was built with this test");
    let admin = process.address("listening", "admin=").await.to_string();
    (process, admin)
}

struct Stage {
    began: Instant,
    thanos: Thanos,
    server: Server,
    instances: Vec<Instance>,
    replicas: Vec<Replica>,
    _nginx: Nginx,
    _token: NamedTempFile,
}

impl Stage {
    async fn start() -> Self {
        let thanos = Thanos::start().await.expect("started");
        let server = Server::start().await;
        let url = server.database("several").await;
        let mut token = NamedTempFile::new().expect("a file");
        token.write_all(b"a-secret-of-instances\n").expect("written");
        let common = [
            ("PROMDEDUP_UPSTREAM_URL", thanos.url()),
            ("PROMDEDUP_ADMIN_LISTEN", "127.0.0.1:0".to_owned()),
            ("PROMDEDUP_WORKERS", "1".to_owned()),
            ("PROMDEDUP_DRAIN_LEAD", "1s".to_owned()),
            ("PROMDEDUP_COORDINATION_URL", url),
            ("PROMDEDUP_PEER_TOKEN_FILE", token.path().display().to_string()),
        ];
        let mut instances = Vec::new();
        for number in 0..3 {
            instances.push(Instance::start(number, &common).await);
        }
        let addresses: Vec<_> = instances.iter().map(|instance| instance.data.clone()).collect();
        let nginx = Nginx::before(&addresses).await;
        let mut replicas = Vec::new();
        for group in 0..GROUPS {
            let prometheus = format!("monitoring/k8s-{group}");
            let shape = FleetShape { cluster: "e2e".to_owned(), prometheus, ..FleetShape::of_series(SERIES) };
            let fleet = Arc::new(Fleet::new(&shape));
            for name in ["a", "b"] {
                let mut options = Options::new(name, &nginx.url, INTERVAL);
                options.shards = 2;
                replicas.push(Replica::start(&fleet, options).expect("started"));
            }
        }
        let began = Instant::now();
        Self { began, thanos, server, instances, replicas, _nginx: nginx, _token: token }
    }

    fn say(&self, what: &str) {
        println!("{:>6.1} s: {what}", self.began.elapsed().as_secs_f64());
    }

    /// Waits until each group is one of these instances', and each of them has some.
    async fn shared_by(&self, numbers: &[usize]) {
        let what = format!("{numbers:?} share all groups");
        let owned = eventually(&what, 3 * PATIENCE, async || {
            let mut owned = Vec::new();
            for number in numbers {
                owned.push(self.instances[*number].sum("promdedup_placement_groups").await?);
            }
            #[expect(clippy::cast_precision_loss, reason = "twenty")]
            let all = owned.iter().sum::<f64>() == GROUPS as f64;
            (all && owned.iter().all(|owned| *owned > 0.0)).then_some(owned)
        })
        .await;
        self.say(&format!("instances {numbers:?} have {owned:?} groups"));
    }

    /// Waits until more has come through than was ever under way.
    async fn goes_on(&self) {
        let now = self.thanos.totals().samples;
        let more = (GROUPS * SERIES * 2) as u64;
        let well = self.thanos.wait_until(2 * PATIENCE, |totals| totals.samples >= now + more).await;
        assert!(well, "nothing comes through any more");
    }

    async fn judge(&mut self) {
        self.replicas.iter_mut().for_each(Replica::stop_scraping);
        for replica in &mut self.replicas {
            assert!(replica.finish(2 * PATIENCE).await, "{} has not delivered everything", replica.name());
            let stats = replica.stats();
            assert_eq!(
                (stats.dropped_batches, stats.log_overflows),
                (0, 0),
                "{stats:?} {:?}",
                replica.last_refusal()
            );
        }
        for metric in
            ["promdedup_hops_total", "promdedup_requests_total", "promdedup_placement_statements_total"]
        {
            let mut sums = Vec::new();
            for instance in &self.instances {
                sums.push(instance.sum(metric).await.expect("metrics"));
            }
            self.say(&format!("{metric} of the instances: {sums:?}"));
        }
        let interval_ms = i64::try_from(INTERVAL.as_millis()).expect("a few");
        let findings = Checker::of(interval_ms, &self.thanos, DEFAULT_TENANT, &self.replicas).findings();
        println!("{findings:#?}");
        assert!(findings.acknowledged > 0 && findings.series > 0, "{findings:?}");
        assert_eq!(findings.problems(HOLE_MAX), Vec::<String>::new());
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn three_instances_lose_nothing_whatever_happens_to_them() {
    let mut stage = Stage::start().await;
    stage.shared_by(&[0, 1, 2]).await;
    stage.goes_on().await;

    stage.instances[0].process.kill();
    stage.say("instance 0 was killed");
    stage.shared_by(&[1, 2]).await;
    stage.goes_on().await;
    stage.instances[0].restart().await;
    stage.shared_by(&[0, 1, 2]).await;

    stage.instances[1].process.terminate().await;
    stage.say("instance 1 has ended");
    stage.shared_by(&[0, 2]).await;
    stage.goes_on().await;
    stage.instances[1].restart().await;
    stage.shared_by(&[0, 1, 2]).await;

    stage.server.stop();
    stage.say("the database stands still");
    tokio::time::sleep(away()).await;
    stage.goes_on().await;
    stage.server.go_on();
    stage.say("and goes on");
    stage.shared_by(&[0, 1, 2]).await;

    stage.instances[2].relay.cut();
    stage.say("instance 2 cannot be reached by the others");
    tokio::time::sleep(away()).await;
    stage.instances[2].relay.mend();
    stage.say("and can be");
    stage.shared_by(&[0, 1, 2]).await;
    stage.goes_on().await;
    stage.judge().await;
}
