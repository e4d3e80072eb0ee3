//! Stand-ins, made of loom's types, for what loom does not know: as weakly ordered as the originals say they are.
//!
//! Refuses to be fast, and to be built without `--cfg model`. What only a model's bookkeeping needs (the values that an
//! [`ArcSwap`] has had) is behind a lock of the standard library, which orders nothing as far as loom can see.

use loom::sync::atomic::{self, Ordering, Ordering::*, fence};
use loom::sync::{Mutex, MutexGuard, RwLock, RwLockReadGuard};
use std::collections::HashMap;
use std::collections::hash_map;
use std::fmt::Debug;
use std::hash::Hash;
use std::ops::Deref;
use std::pin::Pin;
use std::sync::{Arc, PoisonError};
use std::task::{Context, Poll, Waker};

/// loom's atomics, where each access of one is dependent on the one before. loom remembers only the last access, so a
/// load of a writer before its store hides the load of a reader from it, and the order in which the reader comes later is
/// never tried. A relaxed read-modify-write beside each access orders nothing for the program, and all for that search.
macro_rules! atomic {
    ($($name:ident $value:ty $(, $arithmetic:ident)?;)*) => {$(
        #[derive(Debug, Default)]
        pub(in crate::window) struct $name {
            value: atomic::$name,
            touched: atomic::AtomicBool,
        }

        #[allow(dead_code, reason = "one set of methods for all")]
        impl $name {
            pub(in crate::window) fn new(value: $value) -> Self {
                Self { value: atomic::$name::new(value), touched: atomic::AtomicBool::new(false) }
            }

            fn touch(&self) -> &atomic::$name {
                self.touched.swap(true, Relaxed);
                &self.value
            }

            pub(in crate::window) fn load(&self, order: Ordering) -> $value {
                self.touch().load(order)
            }

            pub(in crate::window) fn store(&self, value: $value, order: Ordering) {
                self.touch().store(value, order);
            }

            pub(in crate::window) fn swap(&self, value: $value, order: Ordering) -> $value {
                self.touch().swap(value, order)
            }

            pub(in crate::window) fn compare_exchange(
                &self,
                current: $value,
                new: $value,
                success: Ordering,
                failure: Ordering,
            ) -> Result<$value, $value> {
                self.touch().compare_exchange(current, new, success, failure)
            }

            $(atomic!(@$arithmetic $value);)?
        }
    )*};
    (@arithmetic $value:ty) => {
        pub(in crate::window) fn fetch_add(&self, value: $value, order: Ordering) -> $value {
            self.touch().fetch_add(value, order)
        }

        pub(in crate::window) fn fetch_sub(&self, value: $value, order: Ordering) -> $value {
            self.touch().fetch_sub(value, order)
        }

        pub(in crate::window) fn fetch_max(&self, value: $value, order: Ordering) -> $value {
            self.touch().fetch_max(value, order)
        }

        pub(in crate::window) fn fetch_min(&self, value: $value, order: Ordering) -> $value {
            self.touch().fetch_min(value, order)
        }
    };
}

atomic! {
    AtomicBool bool;
    AtomicI64 i64, arithmetic;
    AtomicU8 u8, arithmetic;
    AtomicU32 u32, arithmetic;
    AtomicU64 u64, arithmetic;
    AtomicUsize usize, arithmetic;
}

/// `arc_swap::ArcSwap`: an atomic pointer, here the number of one of the values there have been.
#[derive(Debug)]
pub(in crate::window) struct ArcSwap<T> {
    values: std::sync::Mutex<Vec<Arc<T>>>,
    current: AtomicUsize,
}

impl<T> ArcSwap<T> {
    pub(in crate::window) fn from_pointee(value: T) -> Self {
        Self { values: std::sync::Mutex::new(vec![Arc::new(value)]), current: AtomicUsize::new(0) }
    }

    pub(in crate::window) fn load_full(&self) -> Arc<T> {
        let current = self.current.load(Acquire);
        Arc::clone(&self.values.lock().unwrap_or_else(PoisonError::into_inner)[current])
    }

    pub(in crate::window) fn load(&self) -> Arc<T> {
        self.load_full()
    }

    pub(in crate::window) fn store(&self, value: Arc<T>) {
        let mut values = self.values.lock().unwrap_or_else(PoisonError::into_inner);
        values.push(value);
        let next = values.len() - 1;
        drop(values);
        self.current.swap(next, AcqRel);
    }
}

/// `std::sync::OnceLock`, for who fills it under a lock of his own.
#[derive(Debug)]
pub(in crate::window) struct OnceLock<T> {
    value: std::sync::OnceLock<T>,
    filled: AtomicBool,
}

impl<T> OnceLock<T> {
    pub(in crate::window) fn new() -> Self {
        Self { value: std::sync::OnceLock::new(), filled: AtomicBool::new(false) }
    }

    pub(in crate::window) fn get(&self) -> Option<&T> {
        if self.filled.load(Acquire) { self.value.get() } else { None }
    }

    pub(in crate::window) fn get_or_init(&self, make: impl FnOnce() -> T) -> &T {
        if self.value.get().is_none() {
            let _ = self.value.set(make());
            self.filled.store(true, Release);
        }
        self.value.get_or_init(|| unreachable!("it is filled"))
    }
}

/// `dashmap::DashMap`: one shard of it, so that all keys meet.
#[derive(Debug)]
pub(in crate::window) struct DashMap<K, V>(RwLock<HashMap<K, V>>);

impl<K, V> Default for DashMap<K, V> {
    fn default() -> Self {
        Self(RwLock::new(HashMap::new()))
    }
}

/// A value of the map, and its shard locked for reading.
pub(in crate::window) struct Ref<'a, K, V>(RwLockReadGuard<'a, HashMap<K, V>>, K);

/// A value of the map or its place, and its shard locked for writing.
pub(in crate::window) struct Entry<'a, K, V>(loom::sync::RwLockWriteGuard<'a, HashMap<K, V>>, K);

impl<K: Eq + Hash + Copy, V> DashMap<K, V> {
    pub(in crate::window) fn new() -> Self {
        Self::default()
    }

    pub(in crate::window) fn get(&self, key: &K) -> Option<Ref<'_, K, V>> {
        let shard = self.0.read().unwrap_or_else(PoisonError::into_inner);
        shard.contains_key(key).then(|| Ref(shard, *key))
    }

    pub(in crate::window) fn entry(&self, key: K) -> Entry<'_, K, V> {
        Entry(self.0.write().unwrap_or_else(PoisonError::into_inner), key)
    }

    pub(in crate::window) fn remove_if(&self, key: &K, is_so: impl FnOnce(&K, &V) -> bool) -> Option<(K, V)> {
        let mut shard = self.0.write().unwrap_or_else(PoisonError::into_inner);
        match shard.entry(*key) {
            hash_map::Entry::Occupied(found) if is_so(key, found.get()) => Some(found.remove_entry()),
            _ => None,
        }
    }

    pub(in crate::window) fn len(&self) -> usize {
        self.0.read().unwrap_or_else(PoisonError::into_inner).len()
    }
}

impl<'a, K: Eq + Hash + Copy, V> Entry<'a, K, V> {
    pub(in crate::window) fn or_insert_with(mut self, make: impl FnOnce() -> V) -> Self {
        self.0.entry(self.1).or_insert_with(make);
        self
    }
}

impl<K: Eq + Hash, V> Deref for Ref<'_, K, V> {
    type Target = V;

    fn deref(&self) -> &V {
        &self.0[&self.1]
    }
}

impl<K: Eq + Hash, V> Deref for Entry<'_, K, V> {
    type Target = V;

    fn deref(&self) -> &V {
        &self.0[&self.1]
    }
}

/// `event_listener::Event`. Its promise is that of two fences: whoever listens and then sees nothing is woken by who
/// changes that and then notifies. A notification that sees no listener touches nothing else.
#[derive(Debug, Default)]
pub(in crate::window) struct Event {
    listening: AtomicUsize,
    listeners: Mutex<Vec<Arc<Mutex<Told>>>>,
}

#[derive(Debug, Default)]
struct Told {
    told: bool,
    waker: Option<Waker>,
}

/// `event_listener::EventListener`.
#[derive(Debug)]
pub(in crate::window) struct EventListener(Arc<Mutex<Told>>);

impl Event {
    pub(in crate::window) fn listen(&self) -> EventListener {
        let told = Arc::<Mutex<Told>>::default();
        let mut listeners = lock(&self.listeners);
        listeners.push(Arc::clone(&told));
        self.listening.store(listeners.len(), Relaxed);
        drop(listeners);
        fence(SeqCst);
        EventListener(told)
    }

    pub(in crate::window) fn notify(&self, _all: usize) {
        fence(SeqCst);
        if self.listening.load(Relaxed) == 0 {
            return;
        }
        let mut listeners = lock(&self.listeners);
        self.listening.store(0, Relaxed);
        let listeners = std::mem::take(&mut *listeners);
        for listener in listeners {
            let mut told = lock(&listener);
            told.told = true;
            let waker = told.waker.take();
            drop(told);
            if let Some(waker) = waker {
                waker.wake();
            }
        }
    }
}

impl Future for EventListener {
    type Output = ();

    fn poll(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<()> {
        let mut told = lock(&self.0);
        if told.told {
            return Poll::Ready(());
        }
        told.waker = Some(context.waker().clone());
        Poll::Pending
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
