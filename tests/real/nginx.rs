//! Debian's `nginx` in front of two instances: a group always goes to the same one, as long as that one is there.

use crate::process::{PATIENCE, Process, eventually, page};
use std::net::SocketAddr;
use std::process::Command;
use tempfile::TempDir;
use tokio::net::TcpSocket;

const MISSING: &str = "`nginx` is not on PATH; on Debian: apt-get install --no-install-recommends nginx";
/// The header by which a sender says of which group it is.
pub(crate) const GROUP_HEADER: &str = "X-Prometheus-Group";

/// Dropping it kills it.
pub(crate) struct Nginx {
    /// Bound and never listening, so that nobody else is given the port.
    port: TcpSocket,
    // Before the folder, so that its log can still be shown when it is dropped.
    process: Process,
    _folder: TempDir,
}

impl Nginx {
    /// Starts it and waits until it answers.
    pub(crate) async fn before(instances: [String; 2]) -> Self {
        let folder = tempfile::tempdir().expect("a folder");
        let port = TcpSocket::new_v4().expect("a socket");
        port.set_reuseaddr(true).expect("an option");
        port.bind("127.0.0.1:0".parse().expect("an address")).expect("bound");
        let listen = port.local_addr().expect("an address");
        let path = |name: &str| folder.path().join(name).display().to_string();
        std::fs::write(path("nginx.conf"), configuration(listen, instances, &path("tmp"))).expect("written");
        let mut command = Command::new("nginx");
        command.args(["-p", &path(""), "-c", &path("nginx.conf"), "-e", "stderr"]);
        let mut process = Process::start("nginx", &mut command, folder.path().join("log"), MISSING);
        eventually("nginx answers", PATIENCE, async || {
            process.assert_alive();
            page(&format!("http://{listen}/ready")).await
        })
        .await;
        Self { port, process, _folder: folder }
    }

    /// What a Prometheus is configured with.
    pub(crate) fn url(&self) -> String {
        format!("http://{}/api/v1/receive", self.port.local_addr().expect("an address"))
    }

    pub(crate) fn log(&self) -> String {
        self.process.log()
    }
}

/// A 503 is the instance's own word and goes back to the sender: another instance is not to take what this one holds back. Only an
/// instance that is not there is passed over.
fn configuration(listen: SocketAddr, [first, second]: [String; 2], folder: &str) -> String {
    let kinds = ["client_body", "proxy", "fastcgi", "uwsgi", "scgi"];
    let folders: String = kinds.map(|kind| format!("{kind}_temp_path {folder}-{kind};\n")).concat();
    let variable = GROUP_HEADER.to_ascii_lowercase().replace('-', "_");
    format!(
        r"
daemon off;
master_process off;
pid {folder}-pid;
error_log stderr warn;
events {{ worker_connections 512; }}
http {{
    access_log off;
    {folders}
    client_max_body_size 64m;
    upstream instances {{
        hash $http_{variable} consistent;
        server {first} max_fails=1 fail_timeout=2s;
        server {second} max_fails=1 fail_timeout=2s;
        keepalive 32;
    }}
    server {{
        listen {listen};
        location = /ready {{ return 200 'ready'; }}
        location /api/v1/ {{
            proxy_pass http://instances;
            proxy_http_version 1.1;
            proxy_set_header Connection '';
            proxy_connect_timeout 1s;
            proxy_next_upstream error timeout non_idempotent;
            proxy_next_upstream_tries 2;
        }}
    }}
}}
"
    )
}
