//! What makes stored exposures anonymous. Pure.

mod pseudonym;

pub use pseudonym::{Pseudonym, PseudonymKey};
