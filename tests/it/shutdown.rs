//! How the binary goes down: load is sent elsewhere first, what is in flight is finished, and nobody waits longer than they want to.

use crate::command::{minimal, promdedup, terminate};
use crate::peer::{Line, Peer, soon};
use crate::serving::Serving;
use std::process::Command;
use std::time::Duration;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};

/// The exit code, as soon as there is one.
async fn code(serving: &mut Serving) -> Option<i32> {
    soon(async {
        loop {
            if let Some(status) = serving.child.try_wait().expect("a child of ours") {
                return status.code();
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    })
    .await
}

/// An upstream that takes its time: a request that has arrived there, and is not answered before it is told to be.
struct Slow(TcpListener);

impl Slow {
    async fn start() -> (Self, String) {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("bound");
        let url = format!("http://{}/", listener.local_addr().expect("an address"));
        (Self(listener), url)
    }

    async fn arrives(&self) -> TcpStream {
        let (mut stream, _) = soon(self.0.accept()).await.expect("a connection");
        let mut some = [0; 16];
        soon(stream.read_exact(&mut some)).await.expect("a request");
        stream
    }
}

async fn flies(serving: &Serving) -> Line {
    let body = snap::raw::Encoder::new().compress_vec(&minimal()).expect("compressed");
    let mut line = Line::open(serving.address).await;
    line.post("/api/v1/receive", "", &body).await;
    line
}

#[tokio::test]
async fn in_the_lead_everything_is_served_and_nobody_is_sent_here_any_more() {
    let peer = Peer::start(200, "").await;
    let more = [("PROMDEDUP_UPSTREAM_URL", peer.url()), ("PROMDEDUP_DRAIN_LEAD", "5s".to_owned())];
    let more = more.each_ref().map(|(name, value)| (*name, value.as_str()));
    let mut serving = Serving::start(&more).await;
    let mut old = flies(&serving).await;
    let heard = old.hear().await;
    assert_eq!(heard.status, 204);
    assert!(!heard.has("connection: close"), "{heard:?}");
    terminate(&serving.child);
    serving.logs("INFO", "asked to end").await;
    // It says that it was asked before the admin listener, on another thread, can know.
    let heard = soon(async {
        loop {
            let heard = Line::open(serving.admin).await.get("/-/ready", "").await;
            if heard.status != 200 {
                return heard;
            }
        }
    })
    .await;
    assert_eq!((heard.status, heard.text.as_str()), (503, "not ready: draining\n"));
    assert_eq!(Line::open(serving.admin).await.get("/-/healthy", "").await.status, 200, "it is to live on");
    // On connections that were there and on new ones; both are told to come by another way the next time.
    old.post("/api/v1/receive", "", &[0]).await;
    for mut line in [old, flies(&serving).await] {
        let heard = line.hear().await;
        assert_eq!(heard.status, 204);
        assert!(heard.has("connection: close"), "{heard:?}");
        assert!(line.closes().await);
    }
    assert_eq!(code(&mut serving).await, Some(0));
    assert_eq!(peer.requests().len(), 2);
}

#[tokio::test]
async fn what_is_in_flight_is_finished_and_acknowledged() {
    let (upstream, url) = Slow::start().await;
    let mut serving = Serving::start(&[("PROMDEDUP_UPSTREAM_URL", &url)]).await;
    let mut line = flies(&serving).await;
    let mut under_way = upstream.arrives().await;
    terminate(&serving.child);
    serving.logs("INFO", "asked to end").await;
    under_way.write_all(b"HTTP/1.1 204 No Content\r\n\r\n").await.expect("written");
    assert_eq!(line.hear().await.status, 204);
    assert_eq!(code(&mut serving).await, Some(0));
}

#[tokio::test]
async fn a_second_signal_ends_at_once() {
    let (upstream, url) = Slow::start().await;
    let more = [
        ("PROMDEDUP_UPSTREAM_URL", url.as_str()),
        ("PROMDEDUP_UPSTREAM_TIMEOUT", "29s"),
        ("PROMDEDUP_DRAIN_LEAD", "1m"),
        ("PROMDEDUP_DRAIN_TIMEOUT", "1m"),
    ];
    let mut serving = Serving::start(&more).await;
    let mut line = flies(&serving).await;
    let _under_way = upstream.arrives().await;
    terminate(&serving.child);
    serving.logs("INFO", "asked to end").await;
    terminate(&serving.child);
    serving.logs("WARN", "asked to end once more").await;
    assert_eq!(code(&mut serving).await, Some(1));
    assert!(line.closes().await, "its sender knows that it has to come again");
}

/// What it says of a signal is not what makes it wait for one.
#[tokio::test]
async fn with_a_silent_log_it_runs_until_it_is_asked_to_end() {
    let free = TcpListener::bind("127.0.0.1:0").await.expect("a port");
    let admin = free.local_addr().expect("its address");
    drop(free);
    let peer = Peer::start(200, "").await;
    let (url, listen) = (peer.url(), admin.to_string());
    let more = [
        ("PROMDEDUP_UPSTREAM_URL", url.as_str()),
        ("PROMDEDUP_LISTEN", "127.0.0.1:0"),
        ("PROMDEDUP_ADMIN_LISTEN", &listen),
        ("PROMDEDUP_LOG", "off"),
    ];
    let mut child = promdedup(&["serve"], &more).spawn().expect("starts");
    let mut line = soon(async {
        loop {
            match TcpStream::connect(admin).await {
                Ok(stream) => return Line::over(stream),
                Err(_) => assert_eq!(child.try_wait().expect("a child of ours"), None, "it ended by itself"),
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    })
    .await;
    let ready = line.get("/-/ready", "").await;
    assert!(ready.status == 200 || !ready.text.contains("draining"), "{ready:?}");
    terminate(&child);
    let status =
        soon(tokio::task::spawn_blocking(move || child.wait())).await.expect("no panic").expect("ended");
    assert_eq!(status.code(), Some(0));
}

/// Which asks for files to be read again: here there are none.
#[tokio::test]
async fn sighup_does_not_end_it() {
    let peer = Peer::start(200, "").await;
    let url = peer.url();
    let mut serving = Serving::start(&[("PROMDEDUP_UPSTREAM_URL", url.as_str())]).await;
    let killed = Command::new("kill").args(["-HUP", &serving.child.id().to_string()]).status();
    assert!(killed.expect("kill").success());
    let mut line = flies(&serving).await;
    assert_eq!(line.hear().await.status, 204);
    terminate(&serving.child);
    assert_eq!(code(&mut serving).await, Some(0), "by SIGTERM, and by nothing before");
}
