//! The instruction that journals a drill. Only the server makes it.

use serde::{Deserialize, Serialize};

use super::DrillReport;

/// What is journaled of drills.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "camelCase", rename_all_fields = "camelCase")]
pub enum DrillEdit {
    /// Records the rehearsal of a flag's rollback in the environment that the change names.
    RecordDrill {
        /// Key of the flag.
        flag: String,
        /// What was proved and measured.
        report: Box<DrillReport>,
    },
}

impl DrillEdit {
    /// The word in `kind`.
    #[must_use]
    pub fn kind(&self) -> &'static str {
        match self {
            Self::RecordDrill { .. } => "recordDrill",
        }
    }

    /// Key of the flag it is about.
    #[must_use]
    pub fn flag(&self) -> &str {
        match self {
            Self::RecordDrill { flag, .. } => flag,
        }
    }
}
