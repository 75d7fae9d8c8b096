//! The errors that the log would show, gathered: recovery says there what is damaged, and where.

use std::{
    io,
    sync::{Arc, Mutex},
};

use tracing::level_filters::LevelFilter;

use crate::sync::lock;

/// Runs `f` and returns what it returned, and a line for each error that was logged meanwhile by this thread.
pub(super) fn gather<T>(f: impl FnOnce() -> T) -> (T, Vec<String>) {
    let lines = Lines::default();
    let writer = lines.clone();
    let log = tracing_subscriber::fmt()
        .with_max_level(LevelFilter::ERROR)
        .with_writer(move || writer.clone())
        .without_time()
        .with_level(false)
        .with_target(false)
        .with_ansi(false)
        .finish();
    let result = tracing::subscriber::with_default(log, f);
    let text = String::from_utf8_lossy(&lock(&lines.0)).into_owned();
    (result, text.lines().map(|line| line.trim().to_owned()).collect())
}

#[derive(Clone, Default)]
struct Lines(Arc<Mutex<Vec<u8>>>);

impl io::Write for Lines {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        lock(&self.0).extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::gather;

    #[test]
    fn errors_are_gathered_and_nothing_else() {
        let (two, lines) = gather(|| {
            tracing::warn!("a warning");
            tracing::error!(generation = 2, "a damaged frame is left out");
            2
        });
        assert_eq!((two, lines), (2, vec!["a damaged frame is left out generation=2".to_owned()]));
    }
}
