//! A PostgreSQL of the test's own: made in a temporary folder, on a free port of loopback, gone with the test.

use std::fs;
use std::net::TcpListener;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Duration;
use tempfile::TempDir;
use tokio::time::{Instant, sleep};
use tokio_postgres::NoTls;

const PATIENCE: Duration = Duration::from_secs(60);
const MISSING: &str = "no PostgreSQL: apt-get install postgresql";
pub(crate) const PASSWORD: &str = "s3cret-0f-the-t3st";

pub(crate) struct Server {
    folder: TempDir,
    child: Option<Child>,
    pub(crate) port: u16,
}

/// Where Debian has the programs, the newest version first; or wherever the path leads.
fn program(name: &str) -> PathBuf {
    let versions = fs::read_dir("/usr/lib/postgresql").into_iter().flatten().flatten();
    let mut found: Vec<(u32, PathBuf)> = versions
        .filter_map(|version| {
            let number = version.file_name().to_str()?.parse().ok()?;
            Some((number, version.path().join("bin").join(name))).filter(|(_, path)| path.exists())
        })
        .collect();
    found.sort();
    found.pop().map_or_else(|| PathBuf::from(name), |(_, path)| path)
}

/// PostgreSQL refuses to run as root.
fn command(name: &str) -> Command {
    let program = program(name);
    if !rustix::process::geteuid().is_root() {
        return Command::new(program);
    }
    let mut command = Command::new("setpriv");
    command.args(["--reuid=postgres", "--regid=postgres", "--clear-groups", "--"]).arg(program);
    command
}

fn ran(command: &mut Command) {
    let output = command.current_dir("/").output().unwrap_or_else(|error| panic!("{MISSING} ({error})"));
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{MISSING}, or else: {command:?} says {said}");
}

impl Server {
    /// Makes and starts one. Each client has to give the password.
    pub(crate) async fn start() -> Self {
        let folder = tempfile::tempdir().expect("a folder");
        fs::set_permissions(folder.path(), fs::Permissions::from_mode(0o755)).expect("readable");
        let home = folder.path().join("home");
        fs::create_dir(&home).expect("a folder");
        let password = folder.path().join("password");
        fs::write(&password, PASSWORD).expect("written");
        if rustix::process::geteuid().is_root() {
            ran(Command::new("chown").args(["-R", "postgres"]).arg(folder.path()));
        }
        let mut init = command("initdb");
        init.args([
            "--username=promdedup",
            "--auth=scram-sha-256",
            "--no-sync",
            "--encoding=UTF8",
            "--no-locale",
        ]);
        init.arg("--pwfile").arg(&password).arg("-D").arg(home.join("data"));
        ran(&mut init);
        let port =
            TcpListener::bind("127.0.0.1:0").and_then(|free| free.local_addr()).expect("a port").port();
        let mut server = Self { folder, child: None, port };
        server.go().await;
        server
    }

    fn home(&self) -> PathBuf {
        self.folder.path().join("home")
    }

    /// Starts it (again), and waits until it answers.
    pub(crate) async fn go(&mut self) {
        self.spawn();
        let deadline = Instant::now() + PATIENCE;
        while tokio_postgres::connect(&self.url("postgres"), NoTls).await.is_err() {
            let log = fs::read_to_string(self.folder.path().join("log")).unwrap_or_default();
            assert!(Instant::now() < deadline, "PostgreSQL does not answer: {log}");
            sleep(Duration::from_millis(50)).await;
            // As long as a child of one that was killed is still there, no new one starts.
            if self.child.as_mut().is_some_and(|child| child.try_wait().is_ok_and(|ended| ended.is_some())) {
                self.spawn();
            }
        }
    }

    fn spawn(&mut self) {
        let log = fs::File::create(self.folder.path().join("log")).expect("a log");
        let mut serve = command("postgres");
        serve.arg("-D").arg(self.home().join("data")).args(["-p", &self.port.to_string(), "-h", "127.0.0.1"]);
        serve.args(["-F", "-k"]).arg(self.home());
        if self.home().join("tls.key").exists() {
            serve.args(["-c", "ssl=on", "-c", "ssl_cert_file=../tls.crt", "-c", "ssl_key_file=../tls.key"]);
        }
        let child = serve.stdin(Stdio::null()).stdout(Stdio::null()).stderr(log).current_dir("/").spawn();
        self.child = Some(child.unwrap_or_else(|error| panic!("{MISSING} ({error})")));
    }

    pub(crate) fn url(&self, database: &str) -> String {
        format!("postgres://promdedup:{PASSWORD}@127.0.0.1:{}/{database}", self.port)
    }

    /// A database of that name, empty.
    pub(crate) async fn database(&self, name: &str) -> String {
        self.ask("postgres", &format!("CREATE DATABASE {name}")).await;
        self.url(name)
    }

    /// Statements of whoever runs the database.
    pub(crate) async fn ask(&self, database: &str, statements: &str) {
        let (client, connection) =
            tokio_postgres::connect(&self.url(database), NoTls).await.expect("connected");
        let driven = tokio::spawn(connection);
        client.batch_execute(statements).await.expect("done");
        driven.abort();
    }

    /// Shows a certificate from the next start on.
    pub(crate) fn show(&self, certificate: &str, key: &str) {
        for (name, text) in [("tls.crt", certificate), ("tls.key", key)] {
            let path = self.home().join(name);
            fs::write(&path, text).expect("written");
            fs::set_permissions(&path, fs::Permissions::from_mode(0o600)).expect("private");
            if rustix::process::geteuid().is_root() {
                ran(Command::new("chown").arg("postgres").arg(&path));
            }
        }
    }

    /// SIGKILL of the whole of it.
    pub(crate) fn kill(&mut self) {
        let Some(mut child) = self.child.take() else { return };
        // Its children notice by themselves. What was shared is cleared by the next start.
        child.kill().expect("killed");
        child.wait().expect("ended");
    }

    /// All its connections answer nothing any more, until `go_on`.
    pub(crate) fn stop(&self) {
        self.signal("STOP");
    }

    pub(crate) fn go_on(&self) {
        self.signal("CONT");
    }

    /// To the process and its children, which serve the connections.
    fn signal(&self, name: &str) {
        let Some(child) = &self.child else { return };
        let parent = child.id().to_string();
        let children =
            fs::read_to_string(format!("/proc/{parent}/task/{parent}/children")).expect("children");
        let all = children.split_whitespace().chain([parent.as_str()]);
        ran(Command::new("kill").args(["-s", name]).args(all));
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        let Some(mut child) = self.child.take() else { return };
        let data: &Path = &self.home().join("data");
        // It may be stopped by a signal, or gone: neither matters any more.
        let mut stop = command("pg_ctl");
        drop(stop.args(["stop", "-m", "immediate", "-D"]).arg(data).current_dir("/").output());
        drop(child.kill());
        drop(child.wait());
    }
}
