//! The only write path: instructions, validated against the present state and appended to the journal.

pub(crate) mod apply;
pub mod authorize;
mod change;
mod consider;
mod describe;
pub mod direction;
mod erase;
mod gate;
mod history;
pub mod instruction;
pub mod keysets;
pub mod limits;
pub(crate) mod mint;
mod places;
mod prepare;
pub mod reach;
mod reaches;
pub mod request;
mod requests;
pub(crate) mod resolve;
mod revert;
pub mod risk;
mod rollback;
mod service;
mod subject;
mod validate;

pub use apply::ApplyError;
pub use authorize::Refused;
pub use change::{
    Author, ChangeDraft, ChangeError, ChangeOutcome, IdempotencyKey, MintedCredential, Needs, Problem, Proposal,
};
pub use consider::Considered;
pub use describe::describe;
pub use erase::{EraseError, ErasedKey, Standing};
pub use gate::Question;
pub use instruction::Instruction;
pub use mint::{Mint, RandomMint};
pub use reaches::{LoggedReaches, NoReaches, Reaches};
pub use request::{ChangeRequest, RequestEdit};
pub use requests::RequestRevision;
pub use revert::RevertDraft;
pub(crate) use rollback::Rehearsal;
#[cfg(test)]
pub(crate) use rollback::{MAX_CANDIDATES, MAX_LOOK_BACK_ENTRIES};
pub use rollback::{RollbackDraft, RollbackOutcome};
pub use service::{ChangeService, DEFAULT_PROJECT, Parts};

#[cfg(test)]
pub(crate) mod tests;
