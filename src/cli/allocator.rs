//! What the C library's allocator keeps of memory that is free.
//!
//! glibc gives each thread a heap of its own, and the more it has been asked for at once, the more it keeps: after a long
//! queue has been taken, twice what is in use. It takes orders only from its environment, when a process begins. So the
//! process begins once more, as itself, with orders; whoever has given some already is not overruled.

use std::{env, ffi::OsStr, os::unix::process::CommandExt as _, process::Command};

/// One heap for all threads, which takes turns of microseconds, and 128 KiB at its end that may be free.
const ORDERS: [(&str, &str); 2] = [("MALLOC_ARENA_MAX", "1"), ("MALLOC_TRIM_THRESHOLD_", "131072")];
/// The same in another form.
const TUNABLES: &str = "GLIBC_TUNABLES";

/// Begins the process once more if the allocator has no orders. Comes back when it has some, or cannot be given any.
pub(super) fn give_orders() {
    if cfg!(not(target_env = "gnu")) || has_orders(|name| env::var_os(name).is_some()) {
        return;
    }
    let Ok(program) = env::current_exe() else { return };
    let mut args = env::args_os();
    let name = args.next().unwrap_or_else(|| OsStr::new("dormouse").to_owned());
    // Only an error comes back, and nothing is lost by it but memory.
    let _ = Command::new(program).arg0(name).args(args).envs(ORDERS).exec();
}

fn has_orders(is_set: impl Fn(&str) -> bool) -> bool {
    is_set(TUNABLES) || ORDERS.iter().any(|(name, _)| is_set(name))
}

#[cfg(test)]
mod tests {
    use super::has_orders;

    #[test]
    fn whoever_has_given_orders_is_not_overruled() {
        assert!(!has_orders(|_| false));
        for given in ["MALLOC_ARENA_MAX", "MALLOC_TRIM_THRESHOLD_", "GLIBC_TUNABLES"] {
            assert!(has_orders(|name| name == given), "{given}");
        }
    }
}
