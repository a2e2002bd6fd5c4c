//! The `guidon` command.

use std::process::ExitCode;

fn main() -> ExitCode {
    guidon_server::cli::main()
}
