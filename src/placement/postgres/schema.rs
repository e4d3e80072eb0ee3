//! The tables, made and changed by the program itself: each step once, however many instances start at the same time.

use tokio_postgres::{Client, Error};

/// Each takes the tables one version further. A step is never changed once it was released, and only adds, so that instances of two
/// versions can run beside each other.
const STEPS: &[&str] = &["
CREATE TABLE promdedup_instances (
    id text PRIMARY KEY,
    url text NOT NULL,
    heartbeat timestamptz NOT NULL,
    load double precision NOT NULL DEFAULT 0,
    draining boolean NOT NULL DEFAULT false
);
CREATE TABLE promdedup_groups (
    key bytea PRIMARY KEY,
    tenant text NOT NULL,
    name text NOT NULL,
    owner text,
    epoch bigint NOT NULL,
    since timestamptz NOT NULL,
    load double precision NOT NULL DEFAULT 0
);
CREATE INDEX promdedup_groups_owner ON promdedup_groups (owner);
CREATE INDEX promdedup_groups_since ON promdedup_groups (since);
"];

/// Names the lock: `promdedu` in bytes.
const LOCK: i64 = 0x7072_6f6d_6465_6475;

/// The version that this program makes.
pub(super) const LATEST: i32 = STEPS.len() as i32;

/// The version of the tables that are there; 0: none.
pub(super) async fn version(client: &Client) -> Result<i32, Error> {
    let there = client.query_typed_one("SELECT to_regclass('promdedup_schema') IS NOT NULL", &[]).await?;
    match there.try_get(0)? {
        true => noted(client).await,
        false => Ok(0),
    }
}

async fn noted(client: &Client) -> Result<i32, Error> {
    let row = client.query_typed_one("SELECT coalesce(max(version), 0) FROM promdedup_schema", &[]).await?;
    row.try_get(0)
}

/// Takes the tables to the latest version. After an error the connection is of no use.
pub(super) async fn ensure(client: &Client) -> Result<(), Error> {
    if version(client).await? >= LATEST {
        return Ok(());
    }
    // One program at a time; the next one finds the work done. That there was no table a moment ago is what PostgreSQL remembers
    // until it has to lock one, so the table is made before it is looked for.
    client
        .batch_execute(&format!(
            "BEGIN; SELECT pg_advisory_xact_lock({LOCK});
             CREATE TABLE IF NOT EXISTS promdedup_schema (version integer PRIMARY KEY, since timestamptz NOT NULL)"
        ))
        .await?;
    let before = noted(client).await?;
    for (step, version) in STEPS.iter().zip(1..).skip(before.unsigned_abs() as usize) {
        client.batch_execute(step).await?;
        client.batch_execute(&format!("INSERT INTO promdedup_schema VALUES ({version}, now())")).await?;
    }
    client.batch_execute("COMMIT").await?;
    if before < LATEST {
        tracing::info!(before, version = LATEST, "tables of the coordination database made");
    }
    Ok(())
}
