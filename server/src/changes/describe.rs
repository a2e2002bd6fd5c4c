//! Sentences for people.

use super::Instruction;

/// What an instruction does, as a sentence without a full stop, as in `turned summary-engine on in production`.
#[must_use]
pub fn describe(instruction: &Instruction, environment: Option<&str>) -> String {
    let place = environment.map(|environment| format!(" in {environment}")).unwrap_or_default();
    match instruction {
        Instruction::TurnFlagOn { flag } => format!("turned {flag} on{place}"),
        Instruction::TurnFlagOff { flag } => format!("turned {flag} off{place}"),
        other => other.kind().to_owned(),
    }
}
