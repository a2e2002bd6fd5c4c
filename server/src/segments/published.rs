//! Segments with their targeting keys at hand.

use std::sync::Arc;

use guidon_sdk::eval::KeySet;
use guidon_sdk::model::{KeySetRef, SegmentRule};

use super::{KeyPart, StoredSegment};
use crate::flags::{KnownKeys, publish_clauses, visit_clauses};
use crate::state::{KeySetSource, SegmentState};

impl SegmentState {
    /// The state of a segment as it is stored, its keys from `keys`. When it last changed is left to the caller.
    #[must_use]
    pub fn load(stored: StoredSegment, keys: &dyn KeySetSource, created_at: u64) -> Self {
        Self::after(None, stored, keys, created_at)
    }

    /// The state after `old` became `stored`: key lists that only grew by parts read only those.
    pub(crate) fn after(old: Option<&Self>, stored: StoredSegment, keys: &dyn KeySetSource, created_at: u64) -> Self {
        let included = replay(old.map(|old| (&*old.stored.included, &old.included)), &stored.included, keys);
        let excluded = replay(old.map(|old| (&*old.stored.excluded, &old.excluded)), &stored.excluded, keys);
        let rules = match old {
            Some(old) if old.stored.rules == stored.rules => Arc::clone(&old.rules),
            Some(old) => {
                // Rules that stay hold keys that the entry at hand knows nothing of.
                let pairs = old.stored.rules.iter().zip(old.rules.iter());
                let pairs = pairs.map(|(stored, published)| (&*stored.clauses, &*published.clauses));
                Arc::new(publish_rules(&stored.rules, &KnownKeys::of_clauses(pairs, keys)))
            }
            None => Arc::new(publish_rules(&stored.rules, keys)),
        };
        let stored = Arc::new(stored);
        Self { stored, included, excluded, rules, created_at, updated_at: created_at, revision: 0 }
    }
}

/// What all parts, in order, leave; from `old` on, if that is how they start.
fn replay(old: Option<(&[KeyPart], &KeySet)>, parts: &[KeyPart], source: &dyn KeySetSource) -> KeySet {
    let (mut keys, rest) = match old.and_then(|(known, keys)| Some((keys, parts.strip_prefix(known)?))) {
        Some((keys, rest)) => (keys.clone(), rest),
        None => (KeySet::new(), parts),
    };
    for part in rest {
        match part {
            KeyPart::Add(set) => keys.extend(source.keys(set).unwrap_or_default().iter().map(String::as_str)),
            KeyPart::Remove(set) => {
                for key in source.keys(set).unwrap_or_default().iter() {
                    keys.remove(key);
                }
            }
        }
    }
    keys
}

fn publish_rules(rules: &[SegmentRule], keys: &dyn KeySetSource) -> Vec<SegmentRule> {
    let mut rules = rules.to_vec();
    for rule in &mut rules {
        publish_clauses(&mut rule.clauses, keys);
    }
    rules
}

/// Shows every key set of a segment to `see`.
pub fn visit_segment(segment: &StoredSegment, see: &mut dyn FnMut(&KeySetRef)) {
    for part in segment.included.iter().chain(&segment.excluded) {
        let (KeyPart::Add(set) | KeyPart::Remove(set)) = part;
        see(set);
    }
    for rule in &segment.rules {
        visit_clauses(&rule.clauses, see);
    }
}
