//! Makes the JavaScript and type declarations around the built WASM module: `guidon-wasm-bindgen MODULE OUTPUT`.
//!
//! This is wasm-bindgen's own generator, taken as a library: module and generator must be of one version, which `Cargo.lock`
//! then sees to.

use std::path::PathBuf;
use std::process::ExitCode;

use wasm_bindgen_cli_support::Bindgen;

fn main() -> ExitCode {
    let mut arguments = std::env::args_os().skip(1).map(PathBuf::from);
    let (Some(module), Some(output), None) = (arguments.next(), arguments.next(), arguments.next()) else {
        return refuse("usage: guidon-wasm-bindgen MODULE OUTPUT");
    };
    // The `web` form is an ES module that instantiates from bytes, which browsers, workers and Node all can.
    let generated = Bindgen::new()
        .input_path(module)
        .remove_name_section(true)
        .remove_producers_section(true)
        .web(true)
        .and_then(|bindgen| bindgen.typescript(true).generate(output));
    match generated {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => refuse(&format!("{error:#}")),
    }
}

#[allow(clippy::print_stderr, reason = "a command-line tool speaks to its terminal")]
fn refuse(message: &str) -> ExitCode {
    eprintln!("{message}");
    ExitCode::from(2)
}
