//! The only write path: instructions, validated against the present state and appended to the journal.

pub(crate) mod apply;
mod change;
mod describe;
#[cfg_attr(not(test), allow(dead_code, reason = "asked by the write path once changes are authorised"))]
pub mod direction;
mod history;
pub mod instruction;
pub mod keysets;
pub mod limits;
pub(crate) mod mint;
mod prepare;
pub mod reach;
pub(crate) mod resolve;
mod revert;
pub mod risk;
mod service;
mod subject;
mod validate;

pub use apply::ApplyError;
pub use change::{Author, ChangeDraft, ChangeError, ChangeOutcome, IdempotencyKey, MintedCredential, Problem};
pub use describe::describe;
pub use instruction::Instruction;
pub use mint::{Mint, RandomMint};
pub use revert::RevertDraft;
pub use service::{ChangeService, DEFAULT_PROJECT, Parts};

#[cfg(test)]
pub(crate) mod tests;
