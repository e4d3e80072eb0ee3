//! Debian's `nginx` as a load balancer that knows nothing of groups: it deals requests round.

use crate::process::{PATIENCE, Process, eventually, page};
use std::fmt::Write as _;
use std::net::TcpListener;
use std::process::Command;
use tempfile::TempDir;

const MISSING: &str =
    "`nginx` is not on PATH; on Debian: apt-get install --no-install-recommends nginx-light";

/// Dropping it kills it.
pub(crate) struct Nginx {
    pub(crate) url: String,
    _process: Process,
    _folder: TempDir,
}

impl Nginx {
    /// Starts it and waits until it answers.
    pub(crate) async fn before(instances: &[String]) -> Self {
        let folder = tempfile::tempdir().expect("a folder");
        let free = TcpListener::bind("127.0.0.1:0").and_then(|free| free.local_addr()).expect("a port");
        let path = |name: &str| folder.path().join(name).display().to_string();
        std::fs::write(path("nginx.conf"), configuration(&free.to_string(), instances, &path("")))
            .expect("written");
        let mut command = Command::new("nginx");
        command.args(["-e", "stderr", "-c", &path("nginx.conf")]);
        let mut process = Process::start("nginx", &mut command, folder.path().join("log"), MISSING);
        eventually("nginx answers", PATIENCE, async || {
            process.assert_alive();
            page(&format!("http://{free}/ready")).await
        })
        .await;
        Self { url: format!("http://{free}/api/v1/receive"), _process: process, _folder: folder }
    }
}

/// One process, so that killing it leaves nothing. An instance that cannot be connected to is passed over.
fn configuration(listen: &str, instances: &[String], folder: &str) -> String {
    let mut servers = String::new();
    for instance in instances {
        let _ = write!(servers, "server {instance} max_fails=0; ");
    }
    let kinds = ["client_body", "proxy", "fastcgi", "uwsgi", "scgi"];
    let folders: String = kinds.map(|kind| format!("{kind}_temp_path {folder}{kind};\n")).concat();
    format!(
        "daemon off; master_process off; pid {folder}pid; error_log stderr warn;
        events {{ worker_connections 1024; }}
        http {{
            access_log off;
            {folders}
            upstream instances {{ {servers} keepalive 32; }}
            server {{
                listen {listen};
                location = /ready {{ return 200 'ready'; }}
                location /api/v1/ {{
                    proxy_pass http://instances;
                    proxy_http_version 1.1;
                    proxy_set_header Connection '';
                    proxy_connect_timeout 1s;
                    proxy_next_upstream error timeout;
                }}
            }}
        }}"
    )
}
