//! Which batches are stored: the last number of every (environment, instance, epoch), bounded. Pure.

use std::collections::{BTreeMap, HashMap};

use serde::{Deserialize, Serialize};

use super::Origin;

/// Who numbers batches: one life of an SDK instance in one environment.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub(crate) struct Numbering {
    pub(crate) origin: Origin,
    pub(crate) instance: String,
    pub(crate) epoch: u64,
}

/// Where a numbering stands.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Mark {
    /// Last batch that is durable.
    pub(crate) last: u64,
    /// When it came, in milliseconds since 1970.
    pub(crate) at: u64,
}

/// The marks of the numberings heard of last. An instance that is forgotten and then sends a batch again that is stored
/// already has it stored twice; that takes more instances than the bound, or a silence longer than the retention.
#[derive(Debug)]
pub(crate) struct Watermarks {
    marks: HashMap<Numbering, Mark>,
    /// By time, then arbitrary: whom to forget first.
    by_time: BTreeMap<(u64, Numbering), ()>,
    limit: usize,
}

impl Watermarks {
    /// Remembers at most `limit` numberings.
    pub(crate) fn new(limit: usize) -> Self {
        Self { marks: HashMap::new(), by_time: BTreeMap::new(), limit: limit.max(1) }
    }

    /// Last batch that is durable; 0 if none is known.
    pub(crate) fn last(&self, numbering: &Numbering) -> u64 {
        self.marks.get(numbering).map_or(0, |mark| mark.last)
    }

    /// Notes that batches up to `last` are durable, forgetting the numbering that was silent longest if there are too many.
    pub(crate) fn raise(&mut self, numbering: Numbering, last: u64, at: u64) {
        let known = self.marks.get(&numbering);
        let mark = Mark { last: known.map_or(last, |known| known.last.max(last)), at };
        if let Some(known) = known {
            self.by_time.remove(&(known.at, numbering.clone()));
        }
        self.by_time.insert((at, numbering.clone()), ());
        self.marks.insert(numbering, mark);
        while self.marks.len() > self.limit {
            let Some(((_, oldest), ())) = self.by_time.pop_first() else { break };
            self.marks.remove(&oldest);
        }
    }

    /// Forgets numberings that were silent since before `cutoff`.
    pub(crate) fn forget_before(&mut self, cutoff: u64) {
        while let Some(entry) = self.by_time.first_entry()
            && entry.key().0 < cutoff
        {
            let ((_, numbering), ()) = entry.remove_entry();
            self.marks.remove(&numbering);
        }
    }

    /// All marks, the oldest first.
    pub(crate) fn iter(&self) -> impl Iterator<Item = (&Numbering, &Mark)> {
        self.by_time.keys().filter_map(|(_, numbering)| self.marks.get_key_value(numbering))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn numbering(instance: u32) -> Numbering {
        let origin = Origin { project: "p".into(), environment: "e".into() };
        Numbering { origin, instance: instance.to_string(), epoch: 1 }
    }

    #[test]
    fn marks_only_rise_and_the_longest_silent_is_forgotten() {
        let mut marks = Watermarks::new(2);
        marks.raise(numbering(1), 7, 10);
        marks.raise(numbering(2), 1, 11);
        marks.raise(numbering(1), 3, 12);
        assert_eq!(marks.last(&numbering(1)), 7);
        marks.raise(numbering(3), 1, 13);
        assert_eq!([1, 2, 3].map(|instance| marks.last(&numbering(instance))), [7, 0, 1]);
        marks.forget_before(13);
        assert_eq!([1, 2, 3].map(|instance| marks.last(&numbering(instance))), [0, 0, 1]);
        assert_eq!(marks.iter().count(), 1);
    }
}
