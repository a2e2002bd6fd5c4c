//! The steps of a plan: which instruction is for what, and in which order they hold together.

use crate::changes::Instruction;

/// When a step is taken. Each makes room for those after it: what is referred to is there before, and what is taken away is no
/// longer referred to.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Phase {
    /// Environments are created and renamed.
    Environments,
    /// Segments are created and edited.
    Segments,
    /// Flags are created.
    Create,
    /// What all environments share comes to be, variations among it.
    Shape,
    /// How environments serve flags.
    Serve,
    /// Variations that nothing refers to any more are removed.
    Trim,
    /// Flags are archived.
    Retire,
    /// Segments that nothing refers to any more are deleted.
    Drop,
}

/// One edit that a difference asks for.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Edit {
    /// When it is made.
    pub(crate) phase: Phase,
    /// The environment it applies to, if it applies to one.
    pub(crate) environment: Option<String>,
    /// The edit.
    pub(crate) instruction: Instruction,
    /// Where in the document stands what asks for it, as `/flags/f/environments/staging/on`.
    pub(crate) path: String,
}

/// Edits of one object, as they are found.
pub(crate) struct Edits<'a> {
    /// Where the object stands in the document.
    pub(crate) root: &'a str,
    /// The environment it belongs to, if it belongs to one.
    pub(crate) environment: Option<&'a str>,
    /// What was found.
    pub(crate) found: &'a mut Vec<Edit>,
}

impl Edits<'_> {
    pub(crate) fn push(&mut self, phase: Phase, path: &str, instruction: Instruction) {
        let path = format!("{}{path}", self.root);
        self.found.push(Edit { phase, environment: self.environment.map(str::to_owned), instruction, path });
    }
}

/// A key as a part of a JSON pointer.
pub(crate) fn pointer_part(key: &str) -> String {
    key.replace('~', "~0").replace('/', "~1")
}

/// Positions in `order` (places of things in another list) that form a longest run that is in order there already: all
/// others have to move.
pub(crate) fn longest_in_order(order: &[usize]) -> Vec<bool> {
    // Patience sorting: `ends[length - 1]` is the position of the smallest end of a run of that length.
    let mut ends: Vec<usize> = Vec::new();
    let mut before: Vec<Option<usize>> = vec![None; order.len()];
    for (position, place) in order.iter().enumerate() {
        let length = ends.partition_point(|end| order.get(*end).is_some_and(|other| other < place));
        if let Some(link) = before.get_mut(position) {
            *link = length.checked_sub(1).and_then(|shorter| ends.get(shorter)).copied();
        }
        match ends.get_mut(length) {
            Some(end) => *end = position,
            None => ends.push(position),
        }
    }
    let mut kept = vec![false; order.len()];
    let mut next = ends.last().copied();
    while let Some(position) = next {
        if let Some(keep) = kept.get_mut(position) {
            *keep = true;
        }
        next = before.get(position).copied().flatten();
    }
    kept
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn as_few_as_possible_have_to_move() {
        let kept = |order: &[usize]| longest_in_order(order).into_iter().filter(|kept| *kept).count();
        assert_eq!(longest_in_order(&[]), Vec::<bool>::new());
        assert_eq!(kept(&[0, 1, 2, 3]), 4);
        assert_eq!(longest_in_order(&[3, 0, 1, 2]), [false, true, true, true]);
        assert_eq!(longest_in_order(&[1, 2, 3, 0]), [true, true, true, false]);
        assert_eq!(kept(&[3, 2, 1, 0]), 1);
        assert_eq!(kept(&[2, 0, 3, 1, 4]), 3);
    }
}
