//! What compiled definitions share: attribute names, lists of variations, and the positions of flags and segments.

use std::num::NonZeroU32;
use std::sync::Arc;

use foldhash::fast::FixedState;
use hashbrown::HashMap;

use super::compile::Variation;
use super::ruleset::{FlagSlot, SegmentSlot};
use super::table::Table;
use crate::model;

/// Most lists of variations that are remembered for sharing; flags past it have lists of their own.
const MAX_SHARED_LISTS: usize = 16;

/// Names of the attributes that clauses test, each stored once.
#[derive(Clone, Debug, Default)]
pub(super) struct Names {
    list: Vec<Arc<str>>,
    ids: HashMap<Arc<str>, NameId, FixedState>,
}

/// Which of a ruleset's [`Names`] is meant: its position, counted from 1.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct NameId(NonZeroU32);

impl Names {
    #[inline]
    pub(super) fn get(&self, id: NameId) -> Option<&str> {
        self.list.get(id.0.get() as usize - 1).map(|name| &**name)
    }

    fn add(&mut self, name: &str) -> NameId {
        let name: Arc<str> = name.into();
        self.list.push(Arc::clone(&name));
        let id = NameId(u32::try_from(self.list.len()).ok().and_then(NonZeroU32::new).unwrap_or(NonZeroU32::MAX));
        self.ids.insert(name, id);
        id
    }
}

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
    /// Id of an attribute name.
    pub(super) fn name(&mut self, name: &str) -> NameId {
        let known = self.names.ids.get(name).copied();
        known.unwrap_or_else(|| Arc::make_mut(self.names).add(name))
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
