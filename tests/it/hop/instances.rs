//! Whole proxies in one process that share groups out by a board: a placement without a database.

use crate::peer::{Heard, Line, Peer as Upstream, config};
use crate::support::{Ts, pack};
use http::HeaderName;
use promdedup::app::{Addresses, App};
use promdedup::config::{ClientTls, PeerSecrets};
use promdedup::peers::{HttpPeers, PeersConfig, Secret};
use promdedup::placement::{Asking, GroupId, Peer, Placement, Stays, Whose};
use promdedup::proto::WriteRequest;
use promdedup::series::{GroupKey, TenantHash};
use promdedup::window::Window;
use prost::Message;
use std::collections::{HashMap, HashSet};
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};
use std::sync::{Arc, Mutex};
use std::time::Duration;
use tokio::sync::oneshot;

pub(super) const PATH: &str = "/api/v1/receive";
pub(super) const ONE: &str = "content-type: application/x-protobuf\r\ncontent-encoding: snappy\r\n";
pub(super) const TWO: &str = "content-type: application/x-protobuf;proto=io.prometheus.write.v2.Request\r\ncontent-encoding: snappy\r\n";
pub(super) const SECRET: &str = "s3cret-between-instances";
pub(super) const TIMEOUT: Duration = Duration::from_secs(5);

/// What all instances can see.
#[derive(Debug, Default)]
pub(super) struct Board {
    owners: Mutex<HashMap<GroupKey, Arc<str>>>,
    moving: Mutex<HashSet<GroupKey>>,
    peers: Mutex<HashMap<Arc<str>, Peer>>,
    asked: AtomicUsize,
}

/// One instance's placement: what it believes, and what it did.
#[derive(Debug)]
pub(super) struct Seat {
    name: Arc<str>,
    board: Arc<Board>,
    /// What it takes for true without asking.
    believes: Mutex<HashMap<GroupKey, Arc<str>>>,
    /// What it is told whenever it asks.
    insists: Mutex<HashMap<GroupKey, Arc<str>>>,
    stays: Mutex<HashMap<GroupKey, Arc<Stays>>>,
    pub(super) misdirected: Mutex<Vec<GroupKey>>,
    pub(super) hopped: Mutex<Vec<bool>>,
}

pub(super) fn key(cluster: &str) -> GroupKey {
    key_of(cluster, "")
}

pub(super) fn key_of(cluster: &str, tenant: &str) -> GroupKey {
    let values = [cluster.as_bytes(), b""].into_iter();
    GroupKey::of(values, TenantHash::of(tenant), &mut Vec::new())
}

impl Board {
    pub(super) fn gives(&self, cluster: &str, name: &str) {
        self.gives_key(key(cluster), name);
    }

    pub(super) fn gives_key(&self, key: GroupKey, name: &str) {
        self.owners.lock().unwrap().insert(key, name.into());
    }

    pub(super) fn moves(&self, cluster: &str, moving: bool) {
        let mut all = self.moving.lock().unwrap();
        if moving {
            all.insert(key(cluster))
        } else {
            all.remove(&key(cluster))
        };
    }

    pub(super) fn owner(&self, cluster: &str) -> Option<Arc<str>> {
        self.owners.lock().unwrap().get(&key(cluster)).cloned()
    }

    pub(super) fn is_at(&self, name: &str, url: &str) {
        self.peers.lock().unwrap().insert(name.into(), Peer { id: name.into(), url: url.into() });
    }

    pub(super) fn asked(&self) -> usize {
        self.asked.load(Relaxed)
    }
}

impl Seat {
    fn whose(&self, group: GroupKey, owner: &Arc<str>) -> Whose {
        if *owner == self.name {
            return Whose::Mine(self.stays_of(group).begin());
        }
        Whose::Theirs(self.board.peers.lock().unwrap()[owner].clone())
    }

    pub(super) fn stays_of(&self, group: GroupKey) -> Arc<Stays> {
        Arc::clone(self.stays.lock().unwrap().entry(group).or_default())
    }

    /// Without asking.
    pub(super) fn believes(&self, cluster: &str, owner: &str) {
        self.believes.lock().unwrap().insert(key(cluster), owner.into());
    }

    /// Whatever the board says.
    pub(super) fn insists(&self, cluster: &str, owner: &str) {
        self.insists.lock().unwrap().insert(key(cluster), owner.into());
    }

    pub(super) fn forgets(&self) {
        self.believes.lock().unwrap().clear();
        self.insists.lock().unwrap().clear();
    }
}

impl Placement for Seat {
    fn known(&self, group: GroupKey) -> Option<Whose> {
        let owner = self.believes.lock().unwrap().get(&group).cloned()?;
        Some(self.whose(group, &owner))
    }

    fn ask<'a>(&'a self, group: &'a GroupId) -> Asking<'a, Whose> {
        Box::pin(async move {
            self.board.asked.fetch_add(1, Relaxed);
            // Somebody who asks a database is not answered at once.
            tokio::task::yield_now().await;
            if let Some(owner) = self.insists.lock().unwrap().get(&group.key) {
                return self.whose(group.key, owner);
            }
            if self.board.moving.lock().unwrap().contains(&group.key) {
                return Whose::Moving;
            }
            let mut owners = self.board.owners.lock().unwrap();
            let owner = owners.entry(group.key).or_insert_with(|| Arc::clone(&self.name));
            self.believes.lock().unwrap().insert(group.key, Arc::clone(owner));
            self.whose(group.key, owner)
        })
    }

    fn misdirected(&self, group: GroupKey, _: &Peer) {
        self.misdirected.lock().unwrap().push(group);
        self.believes.lock().unwrap().remove(&group);
    }

    fn hopped(&self, _: &Peer, reached: bool) {
        self.hopped.lock().unwrap().push(reached);
    }
}

/// One of them, with an upstream of its own. Ends when dropped.
pub(super) struct Instance {
    pub(super) at: Addresses,
    pub(super) upstream: Upstream,
    pub(super) seat: Arc<Seat>,
    pub(super) window: Arc<Window>,
    stop: Option<oneshot::Sender<()>>,
}

pub(super) struct Wishes<'a> {
    pub(super) more: &'a [(&'a str, &'a str)],
    pub(super) secret: Option<&'static str>,
    pub(super) scheme: &'static str,
    pub(super) tls: Option<ClientTls>,
    pub(super) server_name: Option<&'static str>,
}

impl Default for Wishes<'_> {
    fn default() -> Self {
        Self { more: &[], secret: Some(SECRET), scheme: "http", tls: None, server_name: None }
    }
}

impl Instance {
    pub(super) async fn start(board: &Arc<Board>, name: &str) -> Self {
        Self::with(board, name, Wishes::default()).await
    }

    pub(super) async fn with(board: &Arc<Board>, name: &str, wishes: Wishes<'_>) -> Self {
        let upstream = Upstream::start(200, "").await;
        let more = [&[("PROMDEDUP_FIRST_CONTACT_HOLD", "0s")], wishes.more].concat();
        let seat = Arc::new(Seat {
            name: name.into(),
            board: Arc::clone(board),
            believes: Mutex::default(),
            insists: Mutex::default(),
            stays: Mutex::default(),
            misdirected: Mutex::default(),
            hopped: Mutex::default(),
        });
        let settings = PeersConfig {
            timeout: TIMEOUT,
            tls: wishes.tls,
            server_name: wishes.server_name.map(|name| name.try_into().expect("a name")),
            tenant_header: HeaderName::from_static("thanos-tenant"),
            connections_max: 8,
            pools: 2,
        };
        let secret = wishes.secret.map(|text| Arc::new(PeerSecrets::of(text).expect("a secret")));
        let secret = Secret::new(move || secret.clone());
        let (placement, mut window) = (Arc::clone(&seat), None);
        let app = App::build_with(config(&upstream.url(), &more), |pipeline, registry, network| {
            window = Some(Arc::clone(pipeline.window()));
            let peers = HttpPeers::new(settings, secret, registry, network)?;
            Ok(pipeline.with_placement(placement, Arc::new(peers)))
        });
        let app = app.expect("built");
        let at = app.addresses();
        let url = format!("{}://localhost:{}", wishes.scheme, at.data.port());
        board.is_at(name, &url);
        let (stop, stopped) = oneshot::channel::<()>();
        tokio::spawn(app.run(async { drop(stopped.await) }));
        Self { at, upstream, seat, window: window.expect("a window"), stop: Some(stop) }
    }

    /// From now on nobody listens where it did.
    pub(super) fn dies(&mut self, board: &Board) {
        self.stop.take();
        board.is_at(&self.seat.name, "http://127.0.0.1:1");
    }

    pub(super) async fn post(&self, headers: &str, body: &[u8]) -> Heard {
        let mut line = Line::open(self.at.data).await;
        line.post(PATH, headers, body).await;
        line.hear().await
    }

    /// In remote write 1.0.
    pub(super) async fn ask(&self, series: &[Ts]) -> Heard {
        self.post(ONE, &pack(&crate::support::body(series, 0))).await
    }

    pub(super) async fn metrics(&self) -> String {
        Line::open(self.at.admin).await.get("/metrics", "").await.text
    }

    /// The sum of a counter over the children whose labels hold all these.
    pub(super) async fn count(&self, name: &str, labels: &[&str]) -> u64 {
        let metrics = self.metrics().await;
        let lines = metrics.lines().filter(|line| {
            line.strip_prefix(name).is_some_and(|rest| rest.starts_with(['{', ' ']))
                && labels.iter().all(|label| line.contains(label))
        });
        lines.map(|line| line.rsplit(' ').next().unwrap().parse::<f64>().unwrap() as u64).sum()
    }

    /// Names of the series that its upstream got, with how many samples.
    pub(super) fn got(&self) -> Vec<(String, usize)> {
        let requests = self.upstream.requests();
        let decoded = requests.iter().flat_map(|(_, body)| decoded(body).timeseries);
        let mut got: Vec<_> = decoded
            .map(|ts| {
                let name = ts.labels.iter().find(|label| label.name == "__name__").unwrap();
                (name.value.clone(), ts.samples.len() + ts.histograms.len())
            })
            .collect();
        got.sort();
        got
    }

    /// Each received sample has one outcome. Returns how many were received.
    pub(super) async fn accounts(&self) -> u64 {
        let received = self.count("promdedup_samples_received_total", &[]).await;
        assert_eq!(self.count("promdedup_samples_total", &[]).await, received);
        received
    }

    /// The groups that its window knows.
    pub(super) fn groups(&self) -> Vec<String> {
        self.window.groups().all().iter().map(|group| group.name().to_owned()).collect()
    }
}

pub(super) fn decoded(body: &[u8]) -> WriteRequest {
    let raw = snap::raw::Decoder::new().decompress_vec(body).unwrap();
    WriteRequest::decode(raw.as_slice()).unwrap()
}

/// A series of a cluster.
pub(super) fn of(cluster: &str, name: &str) -> Ts {
    Ts::raw(&[("__name__", name), ("cluster", cluster), ("job", "j")])
}

/// The same, of a replica, with a sample at that second.
pub(super) fn sample(cluster: &str, name: &str, replica: &str, second: i64) -> Ts {
    of(cluster, name).replica(replica).at(second)
}

pub(super) fn names(all: &[(&str, usize)]) -> Vec<(String, usize)> {
    all.iter().map(|(name, samples)| ((*name).to_owned(), *samples)).collect()
}
