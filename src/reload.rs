//! RELOAD: files that are read again when they change, while the process runs.
//!
//! Owns when to look (every two seconds, and on SIGHUP), and that a file which has become unusable leaves what was read
//! before in force. It compares content and not times: Kubernetes swaps symbolic links, and a copy may keep its time.
//! Knows nothing of what the files hold, and shows none of it.

use arc_swap::ArcSwap;
use prometheus::core::{Collector, Desc};
use prometheus::proto::MetricFamily;
use prometheus::{IntGaugeVec, Opts, Registry};
use std::fmt;
use std::fs::File;
use std::io::{self, Read};
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::sync::{Arc, Mutex, PoisonError, Weak};
use std::time::{Duration, Instant};
use tokio::signal::unix::{SignalKind, signal};
use tokio::task::spawn_blocking;
use tokio::time::{MissedTickBehavior, interval};
use xxhash_rust::xxh3::Xxh3Default;

/// How often files are looked at. A few small ones are read, which costs nothing.
const LOOK_EVERY: Duration = Duration::from_secs(2);
/// Whatever reads a file for good has a smaller bound of its own.
const LOOKED_AT_MAX_BYTES: u64 = 8 << 20;

type Make<T> = Box<dyn Fn() -> Result<T, String> + Send + Sync>;

/// What some files were made into, as of now.
pub struct Reloaded<T> {
    what: &'static str,
    paths: Vec<PathBuf>,
    make: Make<T>,
    current: ArcSwap<T>,
    seen: Mutex<Seen>,
    state: Arc<State>,
}

/// Whether the last look could use what it found.
#[derive(Debug)]
struct State {
    what: &'static str,
    usable: AtomicBool,
}

/// Of all that there is. A process has one set of files, which rooms that do not know each other look at.
static STATES: Mutex<Vec<Weak<State>>> = Mutex::new(Vec::new());

/// `promdedup_file_usable` for all files of the process.
struct Usable(IntGaugeVec);

/// Shows from now on which files are in force as they are.
///
/// # Errors
/// When that is registered already.
pub fn register(registry: &Registry) -> Result<(), prometheus::Error> {
    registry.register(Box::new(Usable(Usable::gauges()?)))
}

impl Usable {
    fn gauges() -> Result<IntGaugeVec, prometheus::Error> {
        let help =
            "1 while a file is in force as it is; 0 while it cannot be used, and what was read before is.";
        IntGaugeVec::new(Opts::new("promdedup_file_usable", help), &["what"])
    }
}

impl Collector for Usable {
    fn desc(&self) -> Vec<&Desc> {
        self.0.desc()
    }

    fn collect(&self) -> Vec<MetricFamily> {
        let Ok(gauges) = Self::gauges() else { return Vec::new() };
        let mut states = STATES.lock().unwrap_or_else(PoisonError::into_inner);
        states.retain(|state| state.strong_count() > 0);
        for state in states.iter().filter_map(Weak::upgrade) {
            gauges.with_label_values(&[state.what]).set(i64::from(state.usable.load(Relaxed)));
        }
        drop(states);
        gauges.collect()
    }
}

struct Seen {
    /// Of the content that is in force, or of no use.
    digest: u128,
    /// Of another one, that may be half of what somebody writes: it is read when it is there for a second look.
    changing: Option<u128>,
    at: Instant,
}

impl<T> fmt::Debug for Reloaded<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Reloaded")
            .field("what", &self.what)
            .field("paths", &self.paths)
            .finish_non_exhaustive()
    }
}

impl<T> Reloaded<T> {
    /// Makes it for the first time. `what` is for the log.
    ///
    /// # Errors
    /// When it cannot be made.
    pub fn new(
        what: &'static str,
        paths: Vec<PathBuf>,
        make: impl Fn() -> Result<T, String> + Send + Sync + 'static,
    ) -> Result<Self, String> {
        // Looked at first: what changes in between is seen as a change the next time.
        let seen = Seen { digest: digest(&paths), changing: None, at: Instant::now() };
        let current = ArcSwap::from_pointee(make()?);
        let state = Arc::new(State { what, usable: AtomicBool::new(true) });
        STATES.lock().unwrap_or_else(PoisonError::into_inner).push(Arc::downgrade(&state));
        Ok(Self { what, paths, make: Box::new(make), current, seen: Mutex::new(seen), state })
    }

    /// As of the last look.
    pub fn current(&self) -> Arc<T> {
        self.current.load_full()
    }

    /// As of now, for what is asked for seldom and has nobody who looks in between.
    pub fn fresh(&self) -> Arc<T> {
        let old = self.seen.lock().unwrap_or_else(PoisonError::into_inner).at.elapsed() >= LOOK_EVERY;
        if old {
            self.take(true, false);
        }
        self.current()
    }

    /// Reads the files again if they have changed, or, `asked`, in any case.
    fn look(&self, asked: bool) {
        self.take(asked, asked);
    }

    /// `at_once`: a change is not looked at twice. `anyway`: what has not changed is read again.
    fn take(&self, at_once: bool, anyway: bool) {
        let digest = digest(&self.paths);
        let mut seen = self.seen.lock().unwrap_or_else(PoisonError::into_inner);
        seen.at = Instant::now();
        let changes = seen.digest != digest;
        if changes && !at_once && seen.changing.replace(digest) != Some(digest) {
            return;
        }
        seen.changing = None;
        if !changes && !anyway {
            return;
        }
        seen.digest = digest;
        let made = (self.make)();
        self.state.usable.store(made.is_ok(), Relaxed);
        match made {
            Ok(made) => {
                self.current.store(Arc::new(made));
                tracing::info!(what = self.what, "read again");
            }
            Err(problem) => {
                tracing::error!(
                    what = self.what,
                    problem,
                    "cannot be used: what was read before stays in force"
                );
            }
        }
    }
}

/// Whatever can be looked at.
pub trait Look: Send + Sync {
    /// Reads files again if they have changed, or, `asked`, in any case.
    fn look(&self, asked: bool);
}

impl<T: Send + Sync> Look for Reloaded<T> {
    fn look(&self, asked: bool) {
        Self::look(self, asked);
    }
}

/// Looks at all of them for as long as it is polled. With none of them SIGHUP keeps its usual meaning.
///
/// # Errors
/// When the handler of the signal cannot be installed.
///
/// # Panics
/// Outside of a tokio runtime with I/O.
pub fn keep_looking(all: Vec<Arc<dyn Look>>) -> io::Result<impl Future<Output = ()> + Send> {
    let mut asked_to = match all.is_empty() {
        true => None,
        false => Some(signal(SignalKind::hangup())?),
    };
    Ok(async move {
        let Some(asked_to) = &mut asked_to else { return std::future::pending().await };
        let mut ticks = interval(LOOK_EVERY);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            let asked = tokio::select! {
                _ = ticks.tick() => false,
                _ = asked_to.recv() => true,
            };
            let all = all.clone();
            // A file system may hang.
            let looked = spawn_blocking(move || all.iter().for_each(|each| each.look(asked))).await;
            if let Err(error) = looked {
                tracing::error!(%error, "looking at files ended in a panic");
            }
        }
    })
}

/// Of what the files hold, each told from the next, and of which cannot be read.
fn digest(paths: &[PathBuf]) -> u128 {
    let mut digest = Xxh3Default::new();
    for path in paths {
        let mut content = Vec::new();
        let read = File::open(path).and_then(|file| file.take(LOOKED_AT_MAX_BYTES).read_to_end(&mut content));
        digest.update(&[u8::from(read.is_ok())]);
        digest.update(&content.len().to_le_bytes());
        digest.update(&content);
    }
    digest.digest128()
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs;
    use std::os::unix::fs::symlink;
    use std::path::Path;

    fn number(path: &Path) -> Reloaded<u32> {
        let file = path.to_owned();
        let make = move || {
            let text = fs::read_to_string(&file).map_err(|error| error.to_string())?;
            text.parse::<u32>().map_err(|error| error.to_string())
        };
        Reloaded::new("a number", vec![path.to_owned()], make).expect("a number")
    }

    #[test]
    fn a_change_is_seen_and_a_broken_file_is_not_taken() {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("number");
        fs::write(&path, "1").expect("written");
        let number = number(&path);
        let before = number.current();
        number.look(false);
        assert!(Arc::ptr_eq(&before, &number.current()), "nothing changed, so nothing was read again");
        let twice = || (0..2).for_each(|_| number.look(false));
        fs::write(&path, "2").expect("written");
        twice();
        assert_eq!(*number.current(), 2);
        fs::write(&path, "two").expect("written");
        twice();
        assert_eq!(*number.current(), 2);
        fs::remove_file(&path).expect("removed");
        twice();
        assert_eq!(*number.current(), 2);
        fs::write(&path, "3").expect("written");
        twice();
        assert_eq!(*number.current(), 3);
        let before = number.current();
        number.look(true);
        assert!(!Arc::ptr_eq(&before, &number.current()), "asked for, it is read in any case");
    }

    /// Half a list of tokens would turn away whose token is in the other half.
    #[test]
    fn what_is_being_written_is_not_taken() {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("number");
        fs::write(&path, "1").expect("written");
        let number = number(&path);
        for (content, current) in
            [("2", 1), ("23", 1), ("23", 23), ("4", 23), ("23", 23), ("4", 23), ("4", 4)]
        {
            fs::write(&path, content).expect("written");
            number.look(false);
            assert_eq!(*number.current(), current, "{content}");
        }
        fs::write(&path, "5").expect("written");
        number.look(true);
        assert_eq!(*number.current(), 5, "asked for, it is read at once");
    }

    #[test]
    fn a_link_that_points_elsewhere_is_a_change() {
        let folder = tempfile::tempdir().expect("a folder");
        for (name, content) in [("old", "1"), ("new", "2")] {
            fs::create_dir(folder.path().join(name)).expect("a folder");
            fs::write(folder.path().join(name).join("number"), content).expect("written");
        }
        let data = folder.path().join("..data");
        symlink("old", &data).expect("linked");
        let number = number(&data.join("number"));
        let next = folder.path().join("..next");
        symlink("new", &next).expect("linked");
        fs::rename(next, &data).expect("swapped");
        (0..2).for_each(|_| number.look(false));
        assert_eq!(*number.current(), 2);
    }
}
