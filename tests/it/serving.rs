//! The binary as it runs, with its log read line by line.

use crate::command::promdedup;
use crate::peer::soon;
use std::io::{BufRead, BufReader};
use std::net::SocketAddr;
use std::process::{Child, Command, Stdio};
use tokio::sync::mpsc;

/// A running `serve` whose log is read. It is killed when dropped.
pub(crate) struct Serving {
    pub(crate) child: Child,
    pub(crate) address: SocketAddr,
    pub(crate) admin: SocketAddr,
    lines: mpsc::Receiver<serde_json::Value>,
    /// The log up to now.
    pub(crate) log: Vec<serde_json::Value>,
}

impl Serving {
    pub(crate) async fn start(more: &[(&str, &str)]) -> Self {
        Self::start_as(|environment| promdedup(&["serve"], environment), more).await
    }

    /// With a command of the caller's making.
    pub(crate) async fn start_as(
        command: impl FnOnce(&[(&str, &str)]) -> Command,
        more: &[(&str, &str)],
    ) -> Self {
        let mut environment = vec![
            ("PROMDEDUP_LISTEN", "127.0.0.1:0"),
            ("PROMDEDUP_ADMIN_LISTEN", "127.0.0.1:0"),
            ("PROMDEDUP_LOG_FORMAT", "json"),
        ];
        environment.extend_from_slice(more);
        let mut command = command(&environment);
        command.stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut child = command.spawn().expect("starts");
        let log = BufReader::new(child.stderr.take().expect("stderr"));
        let (say, mut lines) = mpsc::channel(100_000);
        std::thread::spawn(move || {
            for line in log.lines().map_while(Result::ok) {
                drop(say.blocking_send(serde_json::from_str(&line).expect("JSON")));
            }
        });
        let mut seen = Vec::new();
        let listening = loop {
            let line: serde_json::Value = soon(lines.recv()).await.expect("a line");
            seen.push(line.clone());
            if line["message"] == "listening" {
                break line;
            }
        };
        let address = |name: &str| listening[name].as_str().expect("an address").parse().expect("an address");
        let (address, admin) = (address("data"), address("admin"));
        Self { child, address, admin, lines, log: seen }
    }

    /// Waits for a line of that level, in whose message these words are.
    pub(crate) async fn logs(&mut self, level: &str, words: &str) {
        soon(async {
            loop {
                let line = self.lines.recv().await.expect("it ended");
                let found = line["level"] == level && line["message"].as_str().expect("text").contains(words);
                self.log.push(line);
                if found {
                    return;
                }
            }
        })
        .await;
    }

    /// The rest of the log, once it has ended.
    pub(crate) async fn ended(&mut self) {
        while let Some(line) = self.lines.recv().await {
            self.log.push(line);
        }
    }
}

impl Drop for Serving {
    fn drop(&mut self) {
        drop(self.child.kill());
        drop(self.child.wait());
    }
}
