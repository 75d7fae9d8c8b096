//! What an answer waits for, and who is woken when it comes.

use std::{
    collections::{BTreeMap, HashMap},
    sync::Arc,
    task::Waker,
};

use super::stored::Stored;

/// Numbers a commit. Commits become durable in the order of their numbers.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct CommitNo(pub u64);

/// What an answer waits for before it may leave the broker.
#[derive(Clone, Debug)]
pub enum Gate {
    /// Nothing.
    Open,
    /// This commit is durable.
    Commit(CommitNo),
    /// This message is durable for everybody who must get it, or everybody has confirmed it.
    Message(Arc<Stored>),
}

/// Tasks waiting for commits. A task is held once per commit, however often it polls, so this is bounded by the tasks
/// times the two commits that are under way.
#[derive(Debug, Default)]
pub(super) struct Waiters {
    by_commit: BTreeMap<CommitNo, Wakers>,
}

/// A set of wakers, by the task they wake.
#[derive(Debug, Default)]
pub(super) struct Wakers {
    by_task: HashMap<(usize, usize), Waker>,
}

impl Waiters {
    pub(super) fn add(&mut self, commit: CommitNo, waker: Waker) {
        self.by_commit.entry(commit).or_default().add(waker);
    }

    /// Takes out who waits for `durable` or an earlier commit.
    pub(super) fn take_until(&mut self, durable: CommitNo) -> Vec<Waker> {
        let later = self.by_commit.split_off(&CommitNo(durable.0 + 1));
        let due = std::mem::replace(&mut self.by_commit, later);
        due.into_values().flat_map(|mut wakers| wakers.take()).collect()
    }

    /// Takes out everybody.
    pub(super) fn take_all(&mut self) -> Vec<Waker> {
        std::mem::take(&mut self.by_commit).into_values().flat_map(|mut wakers| wakers.take()).collect()
    }
}

impl Wakers {
    pub(super) fn add(&mut self, waker: Waker) {
        // The held clone keeps the task's address from being given to another task.
        let key = (waker.data().addr(), std::ptr::from_ref(waker.vtable()).addr());
        self.by_task.insert(key, waker);
    }

    pub(super) fn take(&mut self) -> Vec<Waker> {
        std::mem::take(&mut self.by_task).into_values().collect()
    }
}

/// Wakes tasks, to be called without any lock held.
pub(super) fn wake_all(wakers: Vec<Waker>) {
    wakers.into_iter().for_each(Waker::wake);
}
