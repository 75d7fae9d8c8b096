//! What the allocator keeps of memory that is free.
//!
//! mimalloc gives free pages back to the system after a second; a long queue that is taken over and sent on in that
//! time leaves half as much again as is in use. It takes orders only from its environment, when a process begins. So
//! the process begins once more, as itself, with orders; whoever has given some already is not overruled.

use std::{env, ffi::OsStr, os::unix::process::CommandExt as _, process::Command};

/// After how many milliseconds free pages go back.
const ORDER: (&str, &str) = ("MIMALLOC_PURGE_DELAY", "10");

/// Begins the process once more if the allocator has no orders. Comes back when it has some, or cannot be given any.
pub(super) fn give_orders() {
    let (name, value) = ORDER;
    if env::var_os(name).is_some() {
        return;
    }
    let Ok(program) = env::current_exe() else { return };
    let mut args = env::args_os();
    let called = args.next().unwrap_or_else(|| OsStr::new("dormouse").to_owned());
    // Only an error comes back, and nothing is lost by it but memory.
    let _ = Command::new(program).arg0(called).args(args).env(name, value).exec();
}
