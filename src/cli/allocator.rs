//! What the allocator keeps of memory that is free.
//!
//! mimalloc gives free pages back to the system after a second; a long queue that is taken over and sent on in that
//! time leaves half as much again as is in use. And what is large and wanted full of zeros, as sled's page table of 6 MiB for
//! each generation, it makes so by writing them, unless it comes fresh from the system: then only what is used takes memory.
//! A page that other threads have emptied is free only when its own thread has looked at it, which happens once in ten thousand
//! times that it finds no free block at hand: thousands of connections may end meanwhile.
//!
//! mimalloc takes orders only from its environment, when a process begins. So the process begins once more, as itself, with
//! orders; whoever has given one already is not overruled.

use std::{env, ffi::OsStr, os::unix::process::CommandExt as _, process::Command};

/// After how many milliseconds free pages go back; from how many KiB on memory comes from the system, and goes back to it
/// at once; and after how many looks for a free block a thread looks through its pages for those that others have emptied.
const ORDERS: [(&str, &str); 3] = [
    ("MIMALLOC_PURGE_DELAY", "10"),
    ("MIMALLOC_ARENA_MAX_OBJECT_SIZE", "1024"),
    ("MIMALLOC_GENERIC_COLLECT", "500"),
];

/// Begins the process once more if the allocator lacks orders. Comes back when it has them, or cannot be given any.
pub(super) fn give_orders() {
    let lacking: Vec<_> = ORDERS.into_iter().filter(|(name, _)| env::var_os(name).is_none()).collect();
    if lacking.is_empty() {
        return;
    }
    let Ok(program) = env::current_exe() else { return };
    let mut args = env::args_os();
    let called = args.next().unwrap_or_else(|| OsStr::new("dormouse").to_owned());
    // Only an error comes back, and nothing is lost by it but memory.
    let _ = Command::new(program).arg0(called).args(args).envs(lacking).exec();
}
