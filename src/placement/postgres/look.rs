//! What `check` asks the database: is it one that instances could share groups out by? Changes nothing in it.

use super::link::{Driven, connect, told};
use super::schema;
use crate::config::Database;
use crate::placement::store::{EXPIRY, STATEMENT_MAX, StoreError};
use tokio::time::timeout;
use tokio_postgres::Client;
use tokio_postgres::error::SqlState;
use tokio_postgres::types::Type;

/// The oldest server that is taken, as it says itself.
const OLDEST: i32 = 120_000;

/// A database that could be used.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Looked {
    /// What there is, in words.
    pub found: String,
    /// What will not do for everything.
    pub warnings: Vec<String>,
}

/// What one of several hosts is now.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Role {
    /// It takes writes.
    Primary,
    /// It follows another one.
    Standby,
    /// It follows nobody, and takes no writes.
    ReadOnly,
}

/// Could it be used? What will not do at all is an error.
///
/// # Errors
/// When it could not be used.
pub async fn look(database: &Database) -> Result<Looked, String> {
    let (client, _driven) = reach(database).await?;
    timeout(STATEMENT_MAX, ask(&client)).await.unwrap_or_else(|_| Err(StoreError::Silent.to_string()))
}

/// What the first host that answers is.
///
/// # Errors
/// When none does.
pub async fn role(database: &Database) -> Result<Role, String> {
    let (client, _driven) = reach(database).await?;
    timeout(STATEMENT_MAX, role_of(&client)).await.unwrap_or_else(|_| Err(StoreError::Silent.to_string()))
}

async fn reach(database: &Database) -> Result<(Client, Driven), String> {
    let (client, connection) = connect(database).await.map_err(|error| error.to_string())?;
    let driven = Driven(tokio::spawn(async move {
        let _ = connection.await;
    }));
    Ok((client, driven))
}

fn failed(error: tokio_postgres::Error) -> String {
    told(&error).to_string()
}

async fn role_of(client: &Client) -> Result<Role, String> {
    let asked = "SELECT pg_is_in_recovery(), current_setting('transaction_read_only')::boolean";
    let row = client.query_typed_one(asked, &[]).await.map_err(failed)?;
    let (follows, read_only) = (row.try_get(0).map_err(failed)?, row.try_get(1).map_err(failed)?);
    Ok(match (follows, read_only) {
        (true, _) => Role::Standby,
        (false, true) => Role::ReadOnly,
        (false, false) => Role::Primary,
    })
}

async fn ask(client: &Client) -> Result<Looked, String> {
    let asked = "SELECT current_setting('server_version'), current_setting('server_version_num')::integer,
        current_setting('server_encoding'), coalesce(has_schema_privilege(current_schema(), 'CREATE'), false)";
    let row = client.query_typed_one(asked, &[]).await.map_err(failed)?;
    let (server, number): (&str, i32) = (row.try_get(0).map_err(failed)?, row.try_get(1).map_err(failed)?);
    let (encoding, may_create): (&str, bool) =
        (row.try_get(2).map_err(failed)?, row.try_get(3).map_err(failed)?);
    if number < OLDEST {
        return Err(format!("PostgreSQL {server} is too old: at least {} is needed", OLDEST / 10_000));
    }
    let why = match role_of(client).await? {
        Role::Primary => None,
        Role::Standby => Some("a standby"),
        Role::ReadOnly => Some("no standby, and set so"),
    };
    if let Some(why) = why {
        return Err(format!(
            "PostgreSQL {server} is read-only here ({why}): name the primary, or all hosts and target_session_attrs=read-write"
        ));
    }
    let tables = tables(client, server, may_create).await?;
    let mut warnings = Vec::new();
    // It takes any bytes as they come.
    if !matches!(encoding, "UTF8" | "SQL_ASCII") {
        warnings.push(format!(
            "its encoding is {encoding}: a group whose name or tenant has characters that this does not have cannot be claimed, nor those \
             that are claimed with it. Make it with ENCODING 'UTF8'"
        ));
    }
    Ok(Looked { found: format!("PostgreSQL {server}, {tables}"), warnings })
}

/// What there is of the tables, and whether this user may do with them what `serve` does.
async fn tables(client: &Client, server: &str, may_create: bool) -> Result<String, String> {
    let version = schema::version(client).await.map_err(|error| match error.code() {
        Some(&SqlState::INSUFFICIENT_PRIVILEGE) => {
            format!("PostgreSQL {server}: this user may not read the tables that are there")
        }
        _ => failed(error),
    })?;
    if version < schema::LATEST && !may_create {
        return Err(format!(
            "PostgreSQL {server}: the tables are not there, and this user may not create them"
        ));
    }
    if version == 0 {
        return Ok("no tables yet; the first instance will make them".to_owned());
    }
    // What `serve` does to the tables, each tried without touching a row.
    let allowed = "SELECT bool_and(has_table_privilege(name, right_of)) FROM
        unnest(ARRAY['promdedup_instances', 'promdedup_groups']) AS name,
        unnest(ARRAY['SELECT', 'INSERT', 'UPDATE', 'DELETE']) AS right_of";
    let row = client.query_typed_one(allowed, &[]).await.map_err(failed)?;
    if !row.try_get::<_, bool>(0).map_err(failed)? {
        return Err(format!("PostgreSQL {server}: this user may not change the tables that are there"));
    }
    let alive =
        "SELECT count(*) FROM promdedup_instances WHERE heartbeat > now() - make_interval(secs => $1)";
    let row =
        client.query_typed_one(alive, &[(&EXPIRY.as_secs_f64(), Type::FLOAT8)]).await.map_err(failed)?;
    let alive: i64 = row.try_get(0).map_err(failed)?;
    Ok(format!("tables of version {version}, {alive} instance(s) alive"))
}
