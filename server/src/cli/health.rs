//! `guidon health`: whether a server is ready, for health checks of containers, which have no other program to ask with.

use super::output::Output;
use super::{Api, CliError};

/// Asks the server whether it is ready; it needs no credential.
pub fn run(api: &Api, output: &Output) -> Result<(), CliError> {
    let answer = api.get("/readyz", &[])?;
    output.either(&answer, |output| output.line("ready"))
}
