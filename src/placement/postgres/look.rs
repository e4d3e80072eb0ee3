//! What `check` asks the database: is it one that instances could share groups out by? Changes nothing in it.

use super::link::{Driven, connect, told};
use super::schema;
use crate::config::Database;
use crate::placement::store::{EXPIRY, STATEMENT_MAX, StoreError};
use tokio::time::timeout;
use tokio_postgres::Client;
use tokio_postgres::error::SqlState;
use tokio_postgres::types::Type;

/// What there is, in words.
///
/// # Errors
/// When it could not be used.
pub async fn look(database: &Database) -> Result<String, String> {
    let (client, connection) = connect(database).await.map_err(|error| error.to_string())?;
    let _driven = Driven(tokio::spawn(async move {
        let _ = connection.await;
    }));
    timeout(STATEMENT_MAX, ask(&client)).await.unwrap_or_else(|_| Err(StoreError::Silent.to_string()))
}

async fn ask(client: &Client) -> Result<String, String> {
    let failed = |error: tokio_postgres::Error| told(&error).to_string();
    let asked = "SELECT current_setting('server_version'), current_setting('transaction_read_only')::boolean,
        coalesce(has_schema_privilege(current_schema(), 'CREATE'), false)";
    let row = client.query_typed_one(asked, &[]).await.map_err(failed)?;
    let server: &str = row.try_get(0).map_err(failed)?;
    if row.try_get(1).map_err(failed)? {
        return Err(format!(
            "PostgreSQL {server} is read-only here: name the primary, or all hosts and target_session_attrs=read-write"
        ));
    }
    let version = schema::version(client).await.map_err(|error| match error.code() {
        Some(&SqlState::INSUFFICIENT_PRIVILEGE) => {
            format!("PostgreSQL {server}: this user may not read the tables that are there")
        }
        _ => failed(error),
    })?;
    if version < schema::LATEST && !row.try_get(2).map_err(failed)? {
        return Err(format!(
            "PostgreSQL {server}: the tables are not there, and this user may not create them"
        ));
    }
    if version == 0 {
        return Ok(format!("PostgreSQL {server}, no tables yet; the first instance will make them"));
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
    Ok(format!("PostgreSQL {server}, tables of version {version}, {alive} instance(s) alive"))
}
