//! The database itself: PostgreSQL by `tokio-postgres`.
//!
//! Owns two connections, one for statements and one that listens, and the words of the statements. Each statement is sent in one
//! go and never prepared, so poolers of connections are fine (those that pool by transaction for all but news, which are polled then).

mod link;
mod look;
mod news;
mod schema;
mod tls;

pub use look::{Looked, Role, look, role};

use super::store::{
    Answer, CLAIMED_AT_ONCE_MAX, Change, Claimed, EXPIRY, Gift, Instance, News, Pulse, STATEMENT_MAX, Store,
    StoreError,
};
use super::{Asking, GroupId, Peer};
use crate::config::Database;
use crate::series::GroupKey;
use link::Link;
use news::Newsroom;
use std::sync::Arc;
use std::time::Duration;
use tokio::time::timeout;
use tokio_postgres::Row;
use tokio_postgres::types::{ToSql, Type};

/// Most rows that are read at once. Whoever has missed more finds the rest by asking.
const OWNERS_MAX: i64 = 1 << 17;
const CHANGES_MAX: i64 = 1 << 16;
/// When many groups are new there are many instances that want to know it.
const NEW_MAX: i64 = 1 << 12;

const HEARTBEAT: &str = "
WITH before AS (
    SELECT heartbeat > now() - make_interval(secs => $5) AS lives FROM promdedup_instances WHERE id = $1
), beat AS (
    INSERT INTO promdedup_instances (id, url, heartbeat, load, draining) VALUES ($1, $2, now(), $3, $4)
    ON CONFLICT (id) DO UPDATE
    SET url = excluded.url, heartbeat = excluded.heartbeat, load = excluded.load, draining = excluded.draining
)
SELECT $1 AS id, '' AS url, 0::float8 AS load, false AS draining, NOT coalesce((SELECT lives FROM before), false) AS lapsed
UNION ALL
SELECT id, url, load, draining, false FROM promdedup_instances
WHERE id <> $1 AND heartbeat > now() - make_interval(secs => $5)";

/// Who only learns writes nothing. Who takes looks once more under the row's lock, so of two that take at once one gets it; keys
/// are in order, so that two with several do not wait for each other. Nothing is taken from an owner that has it since a moment ago:
/// its first heartbeat may be too new to be seen by who has waited for its lock.
const CLAIM: &str = "
WITH asked AS MATERIALIZED (
    SELECT key, tenant, name FROM unnest($1, $2, $3) AS asked (key, tenant, name)
), had AS MATERIALIZED (
    SELECT g.key, g.owner, i.url, g.epoch, g.load
    FROM asked JOIN promdedup_groups g ON g.key = asked.key JOIN promdedup_instances i ON i.id = g.owner
    WHERE i.heartbeat > now() - make_interval(secs => $6)
), taken AS (
    INSERT INTO promdedup_groups AS g (key, tenant, name, owner, epoch, since)
    SELECT key, tenant, name, $4, 1, now() FROM asked
    WHERE NOT EXISTS (SELECT FROM had WHERE had.key = asked.key) ORDER BY key
    ON CONFLICT (key) DO UPDATE SET owner = excluded.owner, epoch = g.epoch + 1, since = now()
    WHERE g.owner IS NULL OR g.since <= now() - make_interval(secs => $6) AND NOT EXISTS (
        SELECT FROM promdedup_instances i
        WHERE i.id = g.owner AND i.heartbeat > now() - make_interval(secs => $6))
    RETURNING key, epoch, load
)
SELECT key, $4 AS owner, $5 AS url, epoch, load, true AS newly,
    CASE WHEN epoch > 1
    THEN pg_notify('promdedup', concat_ws(' ', 'group', encode(key, 'hex'), epoch, $4, $5))::text END AS told
FROM taken
UNION ALL
SELECT key, owner, url, epoch, load, false, NULL FROM had";

const GIVE: &str = "
WITH given AS (
    UPDATE promdedup_groups SET owner = $4, epoch = epoch + 1, since = now(), load = $6
    WHERE key = $1 AND owner = $2 AND epoch = $3 AND ($4 IS NULL OR EXISTS (
        SELECT FROM promdedup_instances
        WHERE id = $4 AND NOT draining AND heartbeat > now() - make_interval(secs => $7)))
    RETURNING epoch
), heavier AS (
    UPDATE promdedup_instances SET load = load + $6 WHERE id = $4 AND EXISTS (SELECT FROM given)
)
SELECT epoch, pg_notify('promdedup', concat_ws(' ', 'group', encode($1, 'hex'), epoch, $4, $5))::text FROM given";

const LEAVE: &str = "
WITH gone AS (
    DELETE FROM promdedup_instances WHERE id = $1
), freed AS (
    UPDATE promdedup_groups SET owner = NULL, epoch = epoch + 1, since = now() WHERE owner = $1 RETURNING 1
)
SELECT count(*), pg_notify('promdedup', 'left ' || $1)::text FROM freed";

const OWNERS: &str = "
SELECT g.key, g.owner, i.url, g.epoch FROM promdedup_groups g JOIN promdedup_instances i ON i.id = g.owner
WHERE i.heartbeat > now() - make_interval(secs => $1) LIMIT $2";

const CHANGES: &str = "
WITH living AS MATERIALIZED (
    SELECT id, url FROM promdedup_instances WHERE heartbeat > now() - make_interval(secs => $2)
)
(SELECT g.key, g.owner, i.url, g.epoch FROM promdedup_groups g LEFT JOIN living i ON i.id = g.owner
WHERE g.epoch > 1 AND g.since > now() - make_interval(secs => $1) ORDER BY g.since DESC LIMIT $3)
UNION ALL
(SELECT g.key, g.owner, i.url, g.epoch FROM promdedup_groups g JOIN living i ON i.id = g.owner
WHERE g.epoch = 1 AND g.since > now() - make_interval(secs => $1) ORDER BY g.since DESC LIMIT $4)";

const SHARED: &str =
    "SELECT pg_notify('promdedup', 'shared ' || encode(key, 'hex'))::text FROM unnest($1) AS asked (key)";

const TIDY: &str = "
WITH gone AS (
    DELETE FROM promdedup_instances WHERE heartbeat < now() - interval '1 hour'
)
DELETE FROM promdedup_groups WHERE since < now() - interval '1 day'
AND NOT EXISTS (SELECT FROM promdedup_instances i WHERE i.id = owner AND i.heartbeat >= now() - interval '1 hour')";

/// The database as one instance has it.
#[derive(Debug)]
pub struct Postgres {
    me: Peer,
    link: Link,
    news: Newsroom,
}

type Parameters<'a> = &'a [(&'a (dyn ToSql + Sync), Type)];

impl Postgres {
    /// Connects in the background, again and again, for as long as it is kept. Must be called within a tokio runtime.
    #[must_use]
    pub fn start(database: &Database, me: Peer) -> Self {
        Self { link: Link::start(database, &me.id), news: Newsroom::start(database, &me.id), me }
    }

    async fn rows(&self, statement: &str, parameters: Parameters<'_>) -> Result<Vec<Row>, StoreError> {
        let (mut used, mut sound) = (None, false);
        let asked = async {
            let client = used.insert(self.link.client().await?);
            let mut answer = client.query_typed(statement, parameters).await;
            if answer.as_ref().is_err_and(link::is_of_the_moment) {
                answer = client.query_typed(statement, parameters).await;
            }
            sound = answer.as_ref().is_err_and(link::leaves_the_connection);
            answer.map_err(|error| link::told(&error))
        };
        let answer = timeout(STATEMENT_MAX, asked).await.unwrap_or(Err(StoreError::Silent));
        if answer.is_err()
            && !sound
            && let Some(client) = used
        {
            // Whatever is wrong with it (it hangs, or leads to one that was a primary once): the next may be better.
            self.link.discard(&client);
        }
        answer
    }
}

impl Store for Postgres {
    fn heartbeat(&self, load: f64, draining: bool) -> Answer<'_, Pulse> {
        Box::pin(async move {
            let rows = self
                .rows(
                    HEARTBEAT,
                    &[
                        (&&*self.me.id, Type::TEXT),
                        (&&*self.me.url, Type::TEXT),
                        (&load, Type::FLOAT8),
                        (&draining, Type::BOOL),
                        (&EXPIRY.as_secs_f64(), Type::FLOAT8),
                    ],
                )
                .await?;
            let mut pulse = Pulse { others: Vec::new(), lapsed: true };
            for row in rows {
                let peer = peer(&row, 0, 1)?;
                match peer.id == self.me.id {
                    true => pulse.lapsed = get(&row, 4)?,
                    false => {
                        pulse.others.push(Instance { peer, load: get(&row, 2)?, draining: get(&row, 3)? });
                    }
                }
            }
            Ok(pulse)
        })
    }

    fn claim<'a>(&'a self, groups: &'a [GroupId], expiry: Duration) -> Answer<'a, Vec<Claimed>> {
        Box::pin(async move {
            let groups = &groups[..groups.len().min(CLAIMED_AT_ONCE_MAX)];
            let keys: Vec<[u8; 16]> = groups.iter().map(|group| group.key.0.to_be_bytes()).collect();
            let keys: Vec<&[u8]> = keys.iter().map(<[u8; 16]>::as_slice).collect();
            let tenants: Vec<String> = groups.iter().map(|group| storable(&group.tenant)).collect();
            let names: Vec<String> = groups.iter().map(|group| storable(&group.name)).collect();
            let rows = self
                .rows(
                    CLAIM,
                    &[
                        (&keys, Type::BYTEA_ARRAY),
                        (&tenants, Type::TEXT_ARRAY),
                        (&names, Type::TEXT_ARRAY),
                        (&&*self.me.id, Type::TEXT),
                        (&&*self.me.url, Type::TEXT),
                        (&expiry.as_secs_f64(), Type::FLOAT8),
                    ],
                )
                .await?;
            let claimed = rows.into_iter().map(|row| {
                Ok(Claimed {
                    key: key(&row)?,
                    owner: peer(&row, 1, 2)?,
                    epoch: get(&row, 3)?,
                    load: get(&row, 4)?,
                    newly: get(&row, 5)?,
                })
            });
            claimed.collect()
        })
    }

    fn give<'a>(&'a self, gift: &'a Gift) -> Answer<'a, Option<i64>> {
        Box::pin(async move {
            let to = gift.to.as_ref();
            let rows = self
                .rows(
                    GIVE,
                    &[
                        (&gift.key.0.to_be_bytes().as_slice(), Type::BYTEA),
                        (&&*self.me.id, Type::TEXT),
                        (&gift.epoch, Type::INT8),
                        (&to.map(|to| &*to.id), Type::TEXT),
                        (&to.map(|to| &*to.url), Type::TEXT),
                        (&gift.load, Type::FLOAT8),
                        (&EXPIRY.as_secs_f64(), Type::FLOAT8),
                    ],
                )
                .await?;
            rows.first().map(|row| get(row, 0)).transpose()
        })
    }

    fn leave(&self) -> Answer<'_, u64> {
        Box::pin(async move {
            let rows = self.rows(LEAVE, &[(&&*self.me.id, Type::TEXT)]).await?;
            let left: i64 = rows.first().map_or(Ok(0), |row| get(row, 0))?;
            Ok(left.unsigned_abs())
        })
    }

    fn owners(&self) -> Answer<'_, Vec<Change>> {
        Box::pin(async move {
            let expiry = EXPIRY.as_secs_f64();
            let parameters: Parameters<'_> = &[(&expiry, Type::FLOAT8), (&OWNERS_MAX, Type::INT8)];
            self.rows(OWNERS, parameters).await?.iter().map(change).collect()
        })
    }

    fn changes(&self, within: Duration) -> Answer<'_, Vec<Change>> {
        Box::pin(async move {
            let (within, expiry) = (within.as_secs_f64(), EXPIRY.as_secs_f64());
            let parameters: Parameters<'_> = &[
                (&within, Type::FLOAT8),
                (&expiry, Type::FLOAT8),
                (&CHANGES_MAX, Type::INT8),
                (&NEW_MAX, Type::INT8),
            ];
            self.rows(CHANGES, parameters).await?.iter().map(change).collect()
        })
    }

    fn shared<'a>(&'a self, groups: &'a [GroupKey]) -> Answer<'a, ()> {
        Box::pin(async move {
            let groups = &groups[..groups.len().min(CLAIMED_AT_ONCE_MAX)];
            let keys: Vec<[u8; 16]> = groups.iter().map(|group| group.0.to_be_bytes()).collect();
            let keys: Vec<&[u8]> = keys.iter().map(<[u8; 16]>::as_slice).collect();
            self.rows(SHARED, &[(&keys, Type::BYTEA_ARRAY)]).await.map(drop)
        })
    }

    fn tidy(&self) -> Answer<'_, ()> {
        Box::pin(async move { self.rows(TIDY, &[]).await.map(drop) })
    }

    fn news(&self) -> Asking<'_, News> {
        Box::pin(self.news.next())
    }
}

/// PostgreSQL takes every text but this one.
fn storable(text: &str) -> String {
    text.replace('\0', "")
}

fn get<'a, T: tokio_postgres::types::FromSql<'a>>(row: &'a Row, column: usize) -> Result<T, StoreError> {
    row.try_get(column).map_err(|error| StoreError::Refused(error.to_string()))
}

fn peer(row: &Row, id: usize, url: usize) -> Result<Peer, StoreError> {
    Ok(Peer { id: Arc::from(get::<&str>(row, id)?), url: Arc::from(get::<&str>(row, url)?) })
}

fn change(row: &Row) -> Result<Change, StoreError> {
    let url: Option<&str> = get(row, 2)?;
    let owner = url.map(|_| peer(row, 1, 2)).transpose()?;
    Ok(Change { key: key(row)?, owner, epoch: get(row, 3)? })
}

fn key(row: &Row) -> Result<GroupKey, StoreError> {
    let bytes: &[u8] = get(row, 0)?;
    let bytes = bytes.try_into().map_err(|_| StoreError::Refused("a key that is none".to_owned()))?;
    Ok(GroupKey(u128::from_be_bytes(bytes)))
}
