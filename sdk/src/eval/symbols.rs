//! What compiled definitions share: attribute names, lists of variations, and the positions of flags and segments.

use std::sync::Arc;

use foldhash::fast::FixedState;
use hashbrown::HashSet;

use super::compile::Variation;
use super::ruleset::{FlagSlot, SegmentSlot};
use super::table::Table;
use crate::model::{self, AttributeName};

/// Most lists of variations that are remembered for sharing; flags past it have lists of their own.
const MAX_SHARED_LISTS: usize = 16;

/// Names that occur in many definitions, stored once.
pub(super) type Names = HashSet<Arc<str>, FixedState>;

/// Resolves names and keys while definitions are compiled.
pub(crate) struct Symbols<'a> {
    pub(super) names: &'a mut Arc<Names>,
    /// The first lists of variations that occurred: most flags are `on` and `off`.
    pub(super) lists: &'a mut Vec<Arc<[Variation]>>,
    pub(super) flags: &'a mut Table<FlagSlot>,
    /// `None` while segments are compiled: their rules may not refer to segments.
    pub(super) segments: Option<&'a mut Table<SegmentSlot>>,
}

impl Symbols<'_> {
    /// The one copy of an attribute name.
    pub(super) fn name(&mut self, name: &str) -> AttributeName {
        if let Some(known) = self.names.get(name) {
            return AttributeName::new(Arc::clone(known));
        }
        let name: Arc<str> = name.into();
        Arc::make_mut(self.names).insert(Arc::clone(&name));
        AttributeName::new(name)
    }

    /// Position of a flag, reserved if the flag is not known (yet).
    pub(super) fn flag(&mut self, key: &str) -> u32 {
        self.flags.reserve(key, || FlagSlot::missing(key))
    }

    /// Position of a segment, reserved if the segment is not known (yet); `None` where segments may not be referred to.
    pub(super) fn segment(&mut self, key: &str) -> Option<u32> {
        Some(self.segments.as_mut()?.reserve(key, || SegmentSlot::missing(key)))
    }

    /// The compiled form of a list of variations: the one copy of it, as far as lists are remembered.
    pub(super) fn variations(&mut self, variations: Vec<model::Variation>) -> Arc<[Variation]> {
        let same = |known: &&Arc<[Variation]>| {
            known.len() == variations.len() && known.iter().zip(&variations).all(|(known, new)| known.is(new))
        };
        if let Some(known) = self.lists.iter().find(same) {
            return Arc::clone(known);
        }
        let list: Arc<[Variation]> = variations.into_iter().map(Variation::from).collect();
        if self.lists.len() < MAX_SHARED_LISTS {
            self.lists.push(Arc::clone(&list));
        }
        list
    }
}
