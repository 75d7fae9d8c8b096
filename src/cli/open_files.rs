//! The process' limit of open files: every connection is one, and the usual limit is 1,024.

use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use tracing::warn;

/// Files the broker itself has open: journal, listeners, runtime.
const OWN: u64 = 128;

/// Raises the limit as far as `connections_max` needs and the system allows; says so in the log when that is not enough.
pub(super) fn allow(connections_max: usize) {
    let wanted = u64::try_from(connections_max).unwrap_or(u64::MAX).saturating_add(OWN);
    let Rlimit { current, maximum } = getrlimit(Resource::Nofile);
    // `None` is no limit.
    let Some(now) = current.filter(|now| *now < wanted) else { return };
    let granted = maximum.map_or(wanted, |max| max.min(wanted)).max(now);
    let raised = setrlimit(Resource::Nofile, Rlimit { current: Some(granted), maximum });
    let in_force = if raised.is_ok() { granted } else { now };
    if in_force < wanted {
        warn!(
            open_files = in_force,
            connections_max, "the limit of open files allows fewer connections than limits.connections_max"
        );
    }
}
