//! The `dormouse` binary.

use std::process::ExitCode;

fn main() -> ExitCode {
    dormouse::cli::main()
}
