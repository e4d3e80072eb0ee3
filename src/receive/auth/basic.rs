//! Users and passwords. bcrypt is slow on purpose, so results are remembered, and it runs on threads of its own, few at a
//! time: whoever tries passwords by the thousand waits for himself, and for others of whom nothing is known yet.
//!
//! Nobody learns from an answer, or from the time it takes, whether there is a user of that name.

use super::Denied;
use super::prints::{Print, Printer};
use crate::config::Passwords;
use crate::reload::{Look, Reloaded};
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use http::HeaderValue;
use prometheus::IntCounter;
use std::collections::HashMap;
use std::hash::{BuildHasher, RandomState};
use std::path::Path;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};
use tokio::sync::Semaphore;
use tokio::task::spawn_blocking;
use tokio::time::timeout;

/// How a client is asked for a user and a password.
pub(super) const CHALLENGE: HeaderValue =
    HeaderValue::from_static("Basic realm=\"promdedup\", charset=\"UTF-8\"");
/// How long a right password is remembered since it was last used. The file's next change forgets all.
const RIGHT_FOR: Duration = Duration::from_secs(300);
/// How long a wrong one is remembered. It cannot become right without a change of the file.
const WRONG_FOR: Duration = Duration::from_secs(60);
/// So many of each. Beyond it the oldest one goes.
const REMEMBERED_MAX: usize = 1024;
/// Requests that wait for bcrypt.
const WAITING_MAX: usize = 256;
/// Longer credentials than this are nobody's; bcrypt looks at 72 bytes of a password.
const CREDENTIALS_MAX_BYTES: usize = 1024;

#[derive(Debug)]
pub(super) struct Basic {
    printer: Printer,
    users: Arc<Reloaded<Users>>,
    checks: IntCounter,
    hit: IntCounter,
    at_a_time: Arc<Semaphore>,
    waiting: AtomicUsize,
    wait_max: Duration,
}

impl Basic {
    pub(super) fn new(
        path: &Path,
        printer: Printer,
        checks: IntCounter,
        hit: IntCounter,
        at_a_time: usize,
        wait_max: Duration,
    ) -> Result<Self, String> {
        let file = path.to_owned();
        let make = move || {
            let passwords = Passwords::read(&file).map_err(|error| format!("the file {error}"))?;
            Ok(Users::new(passwords))
        };
        let users = Arc::new(Reloaded::new("passwords of senders", vec![path.to_owned()], make)?);
        let at_a_time = Arc::new(Semaphore::new(at_a_time));
        Ok(Self { printer, users, checks, hit, at_a_time, waiting: AtomicUsize::new(0), wait_max })
    }

    pub(super) fn file(&self) -> Arc<dyn Look> {
        Arc::clone(&self.users) as Arc<dyn Look>
    }

    /// Takes what follows `Basic` in the header.
    pub(super) async fn check(&self, coded: &[u8]) -> Result<(), Denied> {
        let plain = match coded.len() <= CREDENTIALS_MAX_BYTES {
            true => STANDARD.decode(coded).ok().and_then(|plain| String::from_utf8(plain).ok()),
            false => None,
        };
        let plain = plain.filter(|plain| plain.contains(':')).ok_or(Denied::Wrong)?;
        let print = self.printer.print(plain.as_bytes());
        let users = self.users.current();
        let right = match users.known(&print, Instant::now()) {
            Some(right) => right,
            None => self.find_out(users, plain, print).await?,
        };
        if right { Ok(()) } else { Err(Denied::Wrong) }
    }

    async fn find_out(&self, users: Arc<Users>, plain: String, print: Print) -> Result<bool, Denied> {
        let busy = || {
            self.hit.inc();
            Denied::Busy
        };
        let Some(_place) = Place::take(&self.waiting) else { return Err(busy()) };
        let turn = timeout(self.wait_max, Arc::clone(&self.at_a_time).acquire_owned()).await;
        let Ok(Ok(turn)) = turn else { return Err(busy()) };
        // Others may have brought the same while this one waited: a sender has many connections.
        if let Some(right) = users.known(&print, Instant::now()) {
            return Ok(right);
        }
        self.checks.inc();
        let checked = spawn_blocking(move || {
            let right = users.verify(&plain);
            users.remember(print, right, Instant::now());
            drop(turn); // a sender that hangs up does not make room for the next one
            right
        });
        checked.await.map_err(|error| {
            tracing::error!(%error, "checking a password ended in a panic");
            Denied::Busy
        })
    }
}

/// A place among those who wait, given back when dropped.
struct Place<'a>(&'a AtomicUsize);

impl<'a> Place<'a> {
    fn take(waiting: &'a AtomicUsize) -> Option<Self> {
        let place = Self(waiting);
        (waiting.fetch_add(1, Ordering::AcqRel) < WAITING_MAX).then_some(place)
    }
}

impl Drop for Place<'_> {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::AcqRel);
    }
}

/// The users of one state of the file, and what has been found out of them.
struct Users {
    hashes: HashMap<String, String>,
    /// The same hashes by number, for users that do not exist.
    decoys: Vec<String>,
    decoy: RandomState,
    memory: Mutex<Memory>,
}

/// When a result was last used (right), or found out (wrong).
#[derive(Default)]
struct Memory {
    right: HashMap<Print, Instant>,
    wrong: HashMap<Print, Instant>,
}

impl Users {
    fn new(Passwords(users): Passwords) -> Self {
        let decoys = users.iter().map(|(_, hash)| hash.clone()).collect();
        let hashes = users.into_iter().collect();
        Self { hashes, decoys, decoy: RandomState::new(), memory: Mutex::default() }
    }

    /// What is remembered of credentials.
    fn known(&self, print: &Print, now: Instant) -> Option<bool> {
        let mut memory = self.memory.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(used) = memory.right.get_mut(print)
            && now.saturating_duration_since(*used) < RIGHT_FOR
        {
            *used = now;
            return Some(true);
        }
        let wrong = memory.wrong.get(print)?;
        (now.saturating_duration_since(*wrong) < WRONG_FOR).then_some(false)
    }

    /// Wrong ones push out wrong ones only: guesses by the thousand do not make right ones be forgotten.
    fn remember(&self, print: Print, right: bool, now: Instant) {
        let mut memory = self.memory.lock().unwrap_or_else(PoisonError::into_inner);
        let Memory { right: rights, wrong: wrongs } = &mut *memory;
        let results = if right { rights } else { wrongs };
        if results.len() >= REMEMBERED_MAX
            && !results.contains_key(&print)
            && let Some(oldest) = results.iter().min_by_key(|(_, at)| **at).map(|(print, _)| *print)
        {
            results.remove(&oldest);
        }
        results.insert(print, now);
    }

    /// Takes as long for a user that does not exist as for one that does: always the same decoy for the same name, so
    /// that its cost says nothing either.
    fn verify(&self, plain: &str) -> bool {
        let (user, password) = plain.split_once(':').unwrap_or((plain, ""));
        match self.hashes.get(user) {
            Some(hash) => bcrypt::verify(password, hash).unwrap_or(false),
            None => {
                let number = self.decoy.hash_one(user) as usize % self.decoys.len().max(1);
                if let Some(hash) = self.decoys.get(number) {
                    let _ = bcrypt::verify(password, hash);
                }
                false
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn users(of: &[(&str, &str)]) -> Users {
        let hashed = |(user, password): &(&str, &str)| {
            ((*user).to_owned(), bcrypt::hash(password, 4).expect("a hash"))
        };
        Users::new(Passwords(of.iter().map(hashed).collect()))
    }

    fn print(number: usize) -> Print {
        let mut print = [0; 32];
        print[..8].copy_from_slice(&number.to_le_bytes());
        print
    }

    #[test]
    fn passwords_are_checked() {
        let users = users(&[("a", "open:sesame"), ("b", "")]);
        for (plain, right) in
            [("a:open:sesame", true), ("a:open", false), ("b:", true), ("b:x", false), ("c:", false)]
        {
            assert_eq!(users.verify(plain), right, "{plain}");
        }
    }

    #[test]
    fn results_are_remembered_for_a_while() {
        let (users, start) = (users(&[]), Instant::now());
        let (right, wrong) = (print(1), print(2));
        users.remember(right, true, start);
        users.remember(wrong, false, start);
        let after = |seconds| start + Duration::from_secs(seconds);
        assert_eq!(
            (users.known(&right, after(59)), users.known(&wrong, after(59))),
            (Some(true), Some(false))
        );
        assert_eq!(users.known(&wrong, after(60)), None);
        assert_eq!(users.known(&right, after(358)), Some(true), "used, it stays");
        assert_eq!(users.known(&right, after(658)), None);
        assert_eq!(users.known(&print(3), start), None);
    }

    #[test]
    fn memory_is_bounded_and_guesses_push_out_guesses() {
        let (users, start) = (users(&[]), Instant::now());
        users.remember(print(0), true, start);
        for number in 1..=REMEMBERED_MAX + 10 {
            users.remember(print(number), false, start + Duration::from_millis(number as u64));
        }
        let memory = users.memory.lock().expect("a lock");
        assert_eq!((memory.right.len(), memory.wrong.len()), (1, REMEMBERED_MAX));
        assert!(!memory.wrong.contains_key(&print(10)) && memory.wrong.contains_key(&print(11)));
    }

    #[test]
    fn places_are_bounded_and_given_back() {
        let waiting = AtomicUsize::new(0);
        let places: Vec<_> = (0..WAITING_MAX).map(|_| Place::take(&waiting).expect("a place")).collect();
        assert!(Place::take(&waiting).is_none());
        drop(places);
        assert_eq!(waiting.load(Ordering::Acquire), 0);
    }
}
