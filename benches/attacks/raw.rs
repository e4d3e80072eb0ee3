//! Attackers with a socket: those who ask as fast as they are answered, and those who hold on to what they have.

use crate::target::Target;
use bytes::Bytes;
use std::io;
use std::net::SocketAddr;
use std::time::Duration;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::tcp::{OwnedReadHalf, OwnedWriteHalf};
use tokio::net::{TcpSocket, TcpStream};
use tokio::time::{Instant, sleep, sleep_until, timeout};

/// They have an address of their own, so that it can be told from that of others.
const FROM: &str = "127.0.0.2:0";
/// Longer than any answer takes.
const ANSWER_MAX: Duration = Duration::from_secs(5);
/// Between two bytes of one who trickles.
const DRIP: Duration = Duration::from_millis(50);
/// One who was shut out at once comes again then.
const AGAIN: Duration = Duration::from_millis(500);
/// What is over sooner, which is before any timeout, is shut out.
const AT_ONCE: Duration = Duration::from_millis(900);

/// A request as it goes over the wire, and how many samples are in it.
#[derive(Clone)]
pub(crate) struct Request {
    pub(crate) head: String,
    pub(crate) body: Bytes,
    pub(crate) samples: u64,
}

struct Line {
    reads: OwnedReadHalf,
    writes: OwnedWriteHalf,
}

/// An answer's head: what follows it has been read, too.
struct Heard {
    status: u16,
    closes: bool,
}

impl Line {
    async fn open(to: SocketAddr) -> io::Result<Self> {
        let socket = TcpSocket::new_v4()?;
        // Or a port that waits for its last connection to be forgotten could not be used again.
        socket.set_reuseaddr(true)?;
        socket.bind(FROM.parse().unwrap())?;
        let stream: TcpStream = socket.connect(to).await?;
        stream.set_nodelay(true)?;
        let (reads, writes) = stream.into_split();
        Ok(Self { reads, writes })
    }
}

async fn say(writes: &mut OwnedWriteHalf, request: &Request) -> io::Result<()> {
    writes.write_all(request.head.as_bytes()).await?;
    writes.write_all(&request.body).await
}

/// The next answer, if there is one.
async fn hear(reads: &mut OwnedReadHalf) -> Option<Heard> {
    let mut text = Vec::new();
    let end = loop {
        if reads.read_buf(&mut text).await.ok()? == 0 {
            return None;
        }
        if let Some(end) = text.windows(4).position(|four| four == b"\r\n\r\n") {
            break end + 4;
        }
    };
    let head = String::from_utf8_lossy(&text[..end]).to_ascii_lowercase();
    let of = |name: &str| head.lines().find_map(|line| line.strip_prefix(name)).map(str::trim);
    let length: usize = of("content-length:").map_or(0, |length| length.parse().unwrap());
    while text.len() < end + length {
        if reads.read_buf(&mut text).await.ok()? == 0 {
            break;
        }
    }
    let status = head.split(' ').nth(1)?.parse().ok()?;
    Some(Heard { status, closes: of("connection:") == Some("close") })
}

/// Asks without a pause, on one connection for as long as it is left open.
pub(crate) async fn ask(target: Target, mut next: impl FnMut() -> Request) {
    let mut kept = None;
    // Once, however slow the machine is.
    let mut first = true;
    while std::mem::take(&mut first) || target.on() {
        let mut line = match kept.take() {
            Some(line) => line,
            None => match Line::open(target.data).await {
                Ok(line) => line,
                Err(error) => {
                    target.note(error.kind());
                    sleep(AGAIN).await;
                    continue;
                }
            },
        };
        let request = next();
        // Who is answered before he has said all leaves it at that.
        let heard = timeout(ANSWER_MAX, async {
            let Line { reads, writes } = &mut line;
            let mut hears = std::pin::pin!(hear(reads));
            tokio::select! {
                heard = &mut hears => (heard, false),
                said = say(writes, &request) => (hears.await, said.is_ok()),
            }
        });
        match heard.await {
            Ok((Some(heard), all)) => {
                target.answered(heard.status, request.samples);
                kept = (all && !heard.closes).then_some(line);
            }
            Ok((None, _)) => target.note("closed"),
            Err(_) => target.note("no answer"),
        }
    }
}

/// Opens a connection, says something, and then a byte now and then, or nothing, until it is cut off; and again.
pub(crate) async fn hold(target: Target, to: SocketAddr, first: Request, drip: Option<u8>) {
    while target.on() {
        let began = Instant::now();
        let Line { mut reads, mut writes } = match Line::open(to).await {
            Ok(line) => line,
            Err(error) => {
                target.note(error.kind());
                sleep(AGAIN).await;
                continue;
            }
        };
        drop(say(&mut writes, &first).await);
        let trickles = async {
            while let Some(byte) = drip {
                sleep(DRIP).await;
                if writes.write_all(&[byte]).await.is_err() {
                    break;
                }
            }
            std::future::pending::<()>().await;
        };
        // An answer is not the end of it, if the connection stays open.
        let ended = async {
            let mut last = None;
            while let Some(heard) = hear(&mut reads).await {
                last = Some(heard.status);
            }
            last
        };
        tokio::select! {
            ended = ended => match ended {
                Some(status) => target.note(format!("{status}, closed")),
                None if began.elapsed() < AT_ONCE => {
                    target.note("closed at once");
                    sleep(AGAIN).await;
                }
                None => target.note("closed in time"),
            },
            () = trickles => {}
            () = sleep_until(target.end) => target.note("open at the end"),
        }
    }
}
