//! Where requests wait that have to know whose their group is: one question a group, however many wait for its answer.
//!
//! Questions that come while the database is being asked are asked together, when that has answered. All is in order, so that a
//! simulation can tell the same story twice.

use crate::placement::GroupId;
use crate::series::GroupKey;
use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use tokio::sync::{Notify, Semaphore};

/// Most groups asked for at one time. Beyond, a group is served where it comes, and asked for later.
const ASKED_MAX: usize = 1 << 16;

#[derive(Debug, Default)]
pub(super) struct Desk {
    questions: Mutex<BTreeMap<GroupKey, Question>>,
    filled: Notify,
}

#[derive(Debug)]
struct Question {
    group: GroupId,
    /// Closed when it is answered.
    answered: Arc<Semaphore>,
    /// Somebody is about to answer it.
    taken: bool,
}

impl Desk {
    /// Asks, and says how to wait for the answer: until it is closed. Whoever has waited for longest goes on first.
    pub(super) fn ask(&self, group: &GroupId) -> Option<Arc<Semaphore>> {
        let mut questions = self.questions();
        if questions.len() >= ASKED_MAX && !questions.contains_key(&group.key) {
            return None;
        }
        let question = questions.entry(group.key).or_insert_with(|| Question {
            group: group.clone(),
            answered: Arc::new(Semaphore::new(0)),
            taken: false,
        });
        let answered = Arc::clone(&question.answered);
        drop(questions);
        self.filled.notify_one();
        Some(answered)
    }

    /// Waits until there is something to be asked, if there was nothing lately.
    pub(super) async fn filled(&self) {
        self.filled.notified().await;
    }

    /// At most so many that nobody has taken yet.
    pub(super) fn take(&self, most: usize) -> Vec<GroupId> {
        let mut questions = self.questions();
        let open = questions.values_mut().filter(|question| !question.taken).take(most);
        open.map(|question| {
            question.taken = true;
            question.group.clone()
        })
        .collect()
    }

    /// Wakes whoever waits for them.
    pub(super) fn answered(&self, groups: &[GroupId]) {
        let mut questions = self.questions();
        groups.iter().for_each(|group| {
            questions.remove(&group.key).iter().for_each(|question| question.answered.close());
        });
    }

    fn questions(&self) -> MutexGuard<'_, BTreeMap<GroupKey, Question>> {
        self.questions.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
