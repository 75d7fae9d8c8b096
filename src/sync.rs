//! Locks.

use std::sync::{Mutex, MutexGuard, PoisonError};

/// Locks, going on after another thread's panic: what a lock guards here is whole between any two statements, so a panic
/// elsewhere does not spoil it.
pub fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
