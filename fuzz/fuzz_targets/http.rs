//! Any bytes on the socket of the whole proxy: what is answered 204 is upstream, nothing is answered 500, and whoever comes next is
//! served.
#![no_main]

use libfuzzer_sys::fuzz_target;
use promdedup::app::App;
use promdedup::config::Config;
use promdedup::stand_in::request::Body;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::sync::OnceLock;
use std::sync::atomic::{AtomicUsize, Ordering::SeqCst};
use std::time::Duration;

static DELIVERED: AtomicUsize = AtomicUsize::new(0);

/// Takes whatever comes.
fn upstream() -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
    let address = listener.local_addr().expect("its address");
    std::thread::spawn(move || {
        for stream in listener.incoming().map_while(Result::ok) {
            std::thread::spawn(move || take(stream));
        }
    });
    address
}

fn take(stream: TcpStream) -> Option<()> {
    let mut answers = stream.try_clone().ok()?;
    let mut requests = BufReader::new(stream);
    loop {
        let (mut line, mut length) = (String::new(), 0);
        loop {
            line.clear();
            if requests.read_line(&mut line).ok()? == 0 {
                return None;
            }
            if let Some(given) = line.to_lowercase().strip_prefix("content-length:") {
                length = given.trim().parse().ok()?;
            }
            if line.trim().is_empty() {
                break;
            }
        }
        requests.read_exact(&mut vec![0; length]).ok()?;
        DELIVERED.fetch_add(1, SeqCst);
        answers.write_all(b"HTTP/1.1 204 No Content\r\n\r\n").ok()?;
    }
}

/// The proxy, on threads of its own.
fn proxy() -> SocketAddr {
    static PROXY: OnceLock<SocketAddr> = OnceLock::new();
    *PROXY.get_or_init(|| {
        let url = format!("http://{}/api/v1/receive", upstream());
        let pairs = [
            ("PROMDEDUP_UPSTREAM_URL", url.as_str()),
            ("PROMDEDUP_LISTEN", "127.0.0.1:0"),
            ("PROMDEDUP_ADMIN_LISTEN", "127.0.0.1:0"),
            // Every request goes upstream, also one that was there before.
            ("PROMDEDUP_MODE", "observe"),
            ("PROMDEDUP_FIRST_CONTACT_HOLD", "0s"),
            ("PROMDEDUP_REQUEST_TIMEOUT", "500ms"),
            ("PROMDEDUP_WORKERS", "1"),
        ];
        let config = Config::from_pairs(pairs).expect("a configuration");
        let (say, said) = std::sync::mpsc::sync_channel(1);
        std::thread::spawn(move || {
            let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build();
            runtime.expect("a runtime").block_on(async {
                let app = App::build(config).expect("ports");
                say.send(app.addresses().data).expect("somebody listens");
                app.run(std::future::pending::<()>()).await.expect("it runs");
            });
        });
        said.recv().expect("it starts")
    })
}

/// Whatever is answered to some bytes. `hangs_up`: nothing more comes after them, whatever they are.
fn answers(bytes: &[u8], hangs_up: bool) -> Vec<u8> {
    let mut stream = TcpStream::connect(proxy()).expect("it listens");
    stream.set_read_timeout(Some(Duration::from_secs(10))).expect("a timeout");
    // It may have closed already.
    drop(stream.write_all(bytes));
    if hangs_up {
        drop(stream.shutdown(Shutdown::Write));
    }
    let mut answers = Vec::new();
    drop(stream.read_to_end(&mut answers));
    answers
}

fn count(bytes: &[u8], what: &[u8]) -> usize {
    bytes.windows(what.len()).filter(|window| *window == what).count()
}

fuzz_target!(|bytes: &[u8]| {
    let before = DELIVERED.load(SeqCst);
    let answered = answers(bytes, true);
    let delivered = DELIVERED.load(SeqCst) - before;
    let acknowledged = count(&answered, b"HTTP/1.1 204");
    assert!(acknowledged <= delivered, "{acknowledged} answers of 204, {delivered} requests upstream");
    assert_eq!(count(&answered, b"HTTP/1.1 500"), 0, "{}", String::from_utf8_lossy(&answered));
    let labels = [("__name__", "m"), ("cluster", "c"), ("prometheus_replica", "a")];
    let body = Body::new().series(&labels, &[(promdedup::stand_in::now_ms(), 1.0)]).compressed().to_vec();
    let head = format!(
        "POST /api/v1/receive HTTP/1.1\r\nhost: x\r\nconnection: close\r\ncontent-length: {}\r\n\r\n",
        body.len()
    );
    let next = answers(&[head.as_bytes(), &body].concat(), false);
    assert!(next.starts_with(b"HTTP/1.1 204"), "whoever comes next: {}", String::from_utf8_lossy(&next));
});
