//! A toy in the proxy's place: enough of a deduplication to satisfy the demo, or deliberately none. One lock over everything, the
//! upstream request included, so that nothing can race.

use axum::Router;
use axum::body::Bytes;
use axum::extract::State;
use axum::http::{HeaderMap, StatusCode};
use axum::routing::{get, post};
use promdedup::command::demo::{ProxyAddresses, RunningProxy};
use promdedup::proto::{Label, Sample, TimeSeries, WriteRequest};
use promdedup::stand_in::STALE_MARKER_BITS;
use promdedup::stand_in::connection::Connection;
use promdedup::stand_in::request::compress;
use prost::Message;
use std::collections::HashMap;
use std::sync::Arc;
use tokio::net::TcpListener;
use tokio::sync::Mutex;

/// What the toy does wrong.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Flaw {
    /// Nothing.
    None,
    /// It forwards everything as it came.
    Relays,
    /// It strips the replica label and forwards everything.
    Interleaves,
    /// It never leaves a dead owner.
    NeverTakesOver,
    /// It acknowledges without forwarding now and then.
    Loses,
    /// It changes a value.
    Invents,
}

#[derive(Default)]
struct Entry {
    owner: String,
    newest: i64,
    held: Option<Sample>,
}

struct Toy {
    flaw: Flaw,
    interval_ms: i64,
    upstream: Connection,
    entries: HashMap<Vec<u8>, Entry>,
    received: u64,
    forwarded: u64,
    filled: u64,
    bytes_in: u64,
    bytes_out: u64,
}

/// Starts one on free ports.
pub(super) async fn start(flaw: Flaw, interval_ms: i64, upstream: &str) -> anyhow::Result<RunningProxy> {
    let toy = Toy {
        flaw,
        interval_ms,
        upstream: Connection::to(upstream)?,
        entries: HashMap::new(),
        received: 0,
        forwarded: 0,
        filled: 0,
        bytes_in: 0,
        bytes_out: 0,
    };
    let router = Router::new()
        .route("/api/v1/receive", post(receive))
        .route("/metrics", get(metrics))
        .with_state(Arc::new(Mutex::new(toy)));
    let listener = TcpListener::bind("127.0.0.1:0").await?;
    let address = listener.local_addr()?;
    let server = tokio::spawn(async move { axum::serve(listener, router).await });
    let stop = Box::pin(async move {
        server.abort();
        Ok(())
    });
    Ok(RunningProxy { addresses: ProxyAddresses { data: address, admin: address }, stop })
}

async fn receive(State(toy): State<Arc<Mutex<Toy>>>, body: Bytes) -> (StatusCode, String) {
    // Spawned: a sender that hangs up does not cancel it.
    let served = tokio::spawn(async move { toy.lock().await.serve(body).await });
    served.await.unwrap_or_else(|error| (StatusCode::INTERNAL_SERVER_ERROR, error.to_string()))
}

async fn metrics(State(toy): State<Arc<Mutex<Toy>>>) -> String {
    let toy = toy.lock().await;
    format!(
        "promdedup_samples_received_total{{group=\"g\"}} {}\n\
         promdedup_samples_total{{group=\"g\",outcome=\"forwarded\"}} {}\n\
         promdedup_samples_total{{group=\"g\",outcome=\"duplicate\"}} {}\n\
         promdedup_samples_filled_total{{group=\"g\"}} {}\n\
         promdedup_network_bytes_total{{side=\"sender\",direction=\"received\"}} {}\n\
         promdedup_network_bytes_total{{side=\"upstream\",direction=\"sent\"}} {}\n",
        toy.received,
        toy.forwarded,
        toy.received - toy.forwarded,
        toy.filled,
        toy.bytes_in,
        toy.bytes_out
    )
}

impl Toy {
    async fn serve(&mut self, body: Bytes) -> (StatusCode, String) {
        self.bytes_in += body.len() as u64;
        let raw = snap::raw::Decoder::new().decompress_vec(&body).unwrap();
        let mut request = WriteRequest::decode(raw.as_slice()).unwrap();
        self.received += request.timeseries.iter().map(|one| one.samples.len() as u64).sum::<u64>();
        request.timeseries.retain_mut(|series| self.keep(series));
        if request.timeseries.is_empty() || self.flaw == Flaw::Loses && self.received.is_multiple_of(7) {
            return (StatusCode::NO_CONTENT, String::new());
        }
        let body = compress(&request.encode_to_vec());
        self.bytes_out += body.len() as u64;
        match self.upstream.post(&HeaderMap::new(), body).await {
            Ok(reply) if reply.status == 200 || reply.text.contains("exemplar") => {
                (StatusCode::NO_CONTENT, String::new())
            }
            Ok(reply) => (StatusCode::BAD_REQUEST, reply.text),
            Err(error) => (StatusCode::SERVICE_UNAVAILABLE, error.to_string()),
        }
    }

    fn keep(&mut self, series: &mut TimeSeries) -> bool {
        let is_replica = |label: &Label| label.name == "prometheus_replica";
        let replica = series.labels.iter().find(|label| is_replica(label)).unwrap().value.clone();
        if self.flaw == Flaw::Relays {
            self.forwarded += series.samples.len() as u64;
            return true;
        }
        series.labels.retain(|label| !is_replica(label));
        if self.flaw == Flaw::Interleaves {
            self.forwarded += series.samples.len() as u64;
            return true;
        }
        let key = WriteRequest {
            timeseries: vec![TimeSeries { labels: series.labels.clone(), ..TimeSeries::default() }],
            metadata: Vec::new(),
        };
        let entry = self.entries.entry(key.encode_to_vec()).or_default();
        let Some(sample) = series.samples.first().copied() else { return entry.owner == replica };
        if entry.owner.is_empty() {
            // The one that the demo kills, whoever comes first: or there may be nothing to take over.
            entry.owner = match self.flaw {
                Flaw::NeverTakesOver => "prometheus-k8s-0".to_owned(),
                _ => replica.clone(),
            };
        }
        if sample.timestamp <= entry.newest {
            return false;
        } else if entry.owner != replica {
            let is_stale = sample.value.to_bits() == STALE_MARKER_BITS;
            let gap = sample.timestamp - entry.newest;
            if self.flaw == Flaw::NeverTakesOver || is_stale || gap * 4 < self.interval_ms * 5 {
                entry.held = (!is_stale).then_some(sample);
                return false;
            }
            if let Some(held) = entry.held.take()
                && gap * 2 > self.interval_ms * 3
                && held.timestamp > entry.newest
            {
                series.samples.insert(0, held);
                self.filled += 1;
            }
            entry.owner = replica;
        }
        if self.flaw == Flaw::Invents {
            series.samples[0].value += 1.0;
        }
        self.forwarded += 1;
        entry.newest = sample.timestamp;
        true
    }
}
