//! The example for nginx (`deploy/nginx/promdedup.conf`) as it is committed, in the real nginx: all replicas of a group reach the same
//! instance, whichever instances there are, and nothing is lost when one is killed, or both are restarted, and come back.

use crate::process::{PATIENCE, Process, eventually};
use crate::proxy::{Metrics, Proxy};
use http::{HeaderMap, HeaderValue};
use promdedup::stand_in::checker::Checker;
use promdedup::stand_in::connection::Connection;
use promdedup::stand_in::prometheus::{Fleet, FleetShape, Options, Replica};
use promdedup::stand_in::thanos::{DEFAULT_TENANT, Thanos};
use std::collections::BTreeMap;
use std::net::TcpListener;
use std::process::Command;
use std::sync::Arc;
use std::time::{Duration, Instant};
use tempfile::TempDir;

const MISSING: &str =
    "`nginx` is not on PATH; on Debian: apt-get install --no-install-recommends nginx-light";
const CONFIGURATION: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/deploy/nginx/promdedup.conf");
const GROUP_HEADER: &str = "x-promdedup-group";
const INTERVAL: Duration = Duration::from_secs(2);
/// As when a proxy ended: two intervals of a standby that it held, and one to the next sample.
const HOLE_MAX: f64 = 3.0;
/// Names that are tried until each instance has its two groups.
const NAMES_MAX: usize = 64;

/// nginx with its files. Dropping it ends it.
struct Nginx {
    url: String,
    // Before the folder, so that its log can still be shown when it is dropped.
    process: Process,
    folder: TempDir,
}

impl Drop for Nginx {
    /// Killed, it would leave its workers behind: it is asked to end them first, and has done so when the file with its number is gone.
    fn drop(&mut self) {
        let path = |name: &str| self.folder.path().join(name);
        let mut stop = Command::new("nginx");
        stop.args(["-e", "stderr", "-s", "stop", "-c"]).arg(path("nginx.conf"));
        let deadline = Instant::now() + PATIENCE;
        let asked = stop.status().is_ok_and(|status| status.success());
        while asked && path("pid").exists() && Instant::now() < deadline {
            std::thread::sleep(Duration::from_millis(20));
        }
    }
}

impl Nginx {
    async fn before(instances: &[Proxy; 2]) -> Self {
        let folder = tempfile::tempdir().expect("a folder");
        let path = |name: &str| folder.path().join(name).display().to_string();
        let own = rcgen::generate_simple_self_signed(["promdedup.example.com".to_owned()]).expect("made");
        std::fs::write(path("crt"), own.cert.pem()).expect("written");
        std::fs::write(path("key"), own.signing_key.serialize_pem()).expect("written");
        let [plain, tls] = [free_port(), free_port()];
        let [first, second] = instances.each_ref().map(Proxy::address);
        let text = std::fs::read_to_string(CONFIGURATION).expect("the example");
        let text = replaced(&text, "10.0.0.11:19290", &first);
        let text = replaced(&text, "10.0.0.12:19290", &second);
        let text = replaced(&text, "listen 80;", &format!("listen {plain};"));
        let text = replaced(&text, "listen 443 ssl;", &format!("listen {tls} ssl;"));
        let text = replaced(&text, "/etc/nginx/tls/promdedup.crt", &path("crt"));
        let text = replaced(&text, "/etc/nginx/tls/promdedup.key", &path("key"));
        std::fs::write(path("promdedup.conf"), text).expect("written");
        let temporary = ["client_body", "proxy", "fastcgi", "uwsgi", "scgi"];
        let temporary = temporary.map(|what| format!("{what}_temp_path {};", path(what))).join(" ");
        // Two workers, so that what one of them knows has to be told to the other. As root, they would lose the right to the folder.
        let main = format!(
            "user root; worker_processes 2; pid {};\nevents {{ }}\nhttp {{ access_log off; {temporary} include {}; }}\n",
            path("pid"),
            path("promdedup.conf")
        );
        std::fs::write(path("nginx.conf"), main).expect("written");
        let mut command = Command::new("nginx");
        command.args(["-e", "stderr", "-g", "daemon off;", "-c"]).arg(path("nginx.conf"));
        let mut process = Process::start("nginx", &mut command, folder.path().join("log"), MISSING);
        let url = format!("http://{plain}/api/v1/receive");
        eventually("nginx answers", PATIENCE, async || {
            process.assert_alive();
            write_nothing(&url, "").await
        })
        .await;
        Self { url, process, folder }
    }
}

fn free_port() -> String {
    let listener = TcpListener::bind("127.0.0.1:0").expect("bound");
    listener.local_addr().expect("an address").to_string()
}

/// With something that has to be there exactly once.
fn replaced(text: &str, from: &str, to: &str) -> String {
    assert_eq!(text.matches(from).count(), 1, "{from}");
    text.replace(from, to)
}

/// An empty remote write of a group, over a connection of its own. `None`: no 2xx.
async fn write_nothing(url: &str, group: &str) -> Option<()> {
    let headers = HeaderMap::from_iter([
        (http::header::CONTENT_TYPE, HeaderValue::from_static("application/x-protobuf")),
        (http::header::CONTENT_ENCODING, HeaderValue::from_static("snappy")),
        (http::HeaderName::from_static(GROUP_HEADER), HeaderValue::from_str(group).expect("a value")),
    ]);
    let body = vec![0].into();
    let reply = Connection::to(url).expect("a URL").post(&headers, body).await.ok()?;
    (reply.status == 204).then_some(())
}

async fn requests(instance: &Proxy) -> f64 {
    instance.metrics().await.sum("promdedup_requests_total", &[])
}

/// Which instance gets what is sent for a group: always the same, by any worker.
async fn instance_of(nginx: &Nginx, instances: &[Proxy; 2], group: &str) -> usize {
    const TIMES: usize = 6;
    let before = [requests(&instances[0]).await, requests(&instances[1]).await];
    for _ in 0..TIMES {
        write_nothing(&nginx.url, group).await.expect("taken");
    }
    let after = [requests(&instances[0]).await, requests(&instances[1]).await];
    #[expect(clippy::cast_precision_loss, reason = "six")]
    let times = TIMES as f64;
    match [after[0] - before[0], after[1] - before[1]] {
        [first, second] if first == times && second == 0.0 => 0,
        [first, second] if first == 0.0 && second == times => 1,
        split => panic!("{group:?} is split: {split:?}"),
    }
}

/// Two groups for each instance, by name.
async fn groups(nginx: &Nginx, instances: &[Proxy; 2]) -> BTreeMap<String, usize> {
    let mut found = BTreeMap::new();
    for nth in 0..NAMES_MAX {
        let name = format!("monitoring/k8s-{nth}");
        let at = instance_of(nginx, instances, &name).await;
        if found.values().filter(|have| **have == at).count() < 2 {
            found.insert(name, at);
        }
        if found.len() == 4 {
            return found;
        }
    }
    panic!("one instance gets all of {NAMES_MAX} groups: {found:?}");
}

/// What an instance has received of each replica of a group.
fn received(metrics: &Metrics, group: &str) -> [f64; 2] {
    let group = format!("e2e/{group}");
    ["a", "b"].map(|replica| {
        metrics.sum("promdedup_samples_received_total", &[("group", &group), ("replica", replica)])
    })
}

/// Waits until both replicas of a group deliver more to an instance than before.
async fn deliver_to(instance: &Proxy, group: &str) {
    let before = received(&instance.metrics().await, group);
    let what = format!("both replicas of {group} deliver to one instance");
    eventually(&what, 2 * PATIENCE, async || {
        let now = received(&instance.metrics().await, group);
        (now[0] > before[0] && now[1] > before[1]).then_some(())
    })
    .await;
}

fn replica(name: &str, group: &str, url: &str, fleet: &Arc<Fleet>) -> Replica {
    let mut options = Options::new(name, url, INTERVAL);
    options.shards = 2;
    options.headers.insert(GROUP_HEADER, HeaderValue::from_str(group).expect("a value"));
    Replica::start(fleet, options).expect("started")
}

/// Four groups of two replicas, two for each instance by name.
struct Stage {
    thanos: Thanos,
    instances: [Proxy; 2],
    nginx: Nginx,
    groups: BTreeMap<String, usize>,
    replicas: Vec<Replica>,
}

impl Stage {
    async fn start(variables: &[(&str, &str)]) -> Self {
        let thanos = Thanos::start().await.expect("started");
        let url = thanos.url();
        let instances = [Proxy::start(&url, variables).await, Proxy::start(&url, variables).await];
        let nginx = Nginx::before(&instances).await;
        // Senders that say nothing of their group meet, too.
        instance_of(&nginx, &instances, "").await;
        let groups = groups(&nginx, &instances).await;
        println!("groups by instance: {groups:?}");
        let mut replicas = Vec::new();
        for group in groups.keys() {
            let shape = FleetShape {
                cluster: "e2e".to_owned(),
                prometheus: group.clone(),
                ..FleetShape::of_series(60)
            };
            let fleet = Arc::new(Fleet::new(&shape));
            replicas.extend(["a", "b"].map(|name| replica(name, group, &nginx.url, &fleet)));
        }
        let stage = Self { thanos, instances, nginx, groups, replicas };
        stage.all_deliver_as_named().await;
        for (group, at) in &stage.groups {
            stage.is_strange_to(group, 1 - at).await;
        }
        stage
    }

    async fn all_deliver_as_named(&self) {
        for (group, at) in &self.groups {
            deliver_to(&self.instances[*at], group).await;
        }
    }

    async fn all_deliver_to(&self, instance: usize) {
        for group in self.groups.keys() {
            deliver_to(&self.instances[instance], group).await;
        }
    }

    /// An instance has received nothing of a group in its present life.
    async fn is_strange_to(&self, group: &str, instance: usize) {
        let stranger = received(&self.instances[instance].metrics().await, group);
        assert_eq!(stranger, [0.0, 0.0], "{group} reached instance {instance}");
    }

    /// Everything is delivered, upstream has it, and no sender was refused anything for good.
    async fn judge(&mut self, hole_max: f64) {
        self.replicas.iter_mut().for_each(Replica::stop_scraping);
        for replica in &mut self.replicas {
            assert!(replica.finish(2 * PATIENCE).await, "{} has not delivered everything", replica.name());
            let stats = replica.stats();
            assert_eq!(
                (stats.dropped_batches, stats.log_overflows),
                (0, 0),
                "{stats:?} {:?}\nnginx: {}",
                replica.last_refusal(),
                self.nginx.process.log()
            );
        }
        let interval_ms = i64::try_from(INTERVAL.as_millis()).expect("a few");
        let findings = Checker::of(interval_ms, &self.thanos, DEFAULT_TENANT, &self.replicas).findings();
        println!("{findings:#?}");
        assert!(findings.acknowledged > 0 && findings.series > 0, "{findings:?}");
        assert_eq!(findings.problems(hole_max), Vec::<String>::new());
        for instance in &mut self.instances {
            instance.terminate().await;
        }
    }
}

/// One instance is killed and comes back.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nginx_keeps_the_replicas_of_a_group_together() {
    let mut stage = Stage::start(&[]).await;
    stage.instances[0].kill();
    println!("an instance was killed");
    stage.all_deliver_to(1).await;
    stage.instances[0].restart().await;
    println!("it is back");
    stage.all_deliver_as_named().await;
    for (group, _) in stage.groups.iter().filter(|(_, at)| **at == 1) {
        stage.is_strange_to(group, 0).await;
    }
    stage.judge(HOLE_MAX).await;
}

/// A rolling restart: one instance after the other ends as it is asked to, and starts again.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn instances_behind_nginx_are_restarted_one_after_the_other() {
    let mut stage = Stage::start(&[("PROMDEDUP_DRAIN_LEAD", "1s")]).await;
    for instance in [0, 1] {
        stage.instances[instance].terminate().await;
        println!("instance {instance} has ended");
        stage.all_deliver_to(1 - instance).await;
        stage.instances[instance].restart().await;
        println!("instance {instance} is back");
        stage.all_deliver_as_named().await;
    }
    stage.judge(HOLE_MAX).await;
}
