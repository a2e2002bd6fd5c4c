//! Drills that were made and wait to be recorded: kept in memory, for a while, and not many. Pure.

use std::collections::BTreeMap;

use super::DrillReport;
use crate::changes::IdempotencyKey;

/// How long a drill waits to be recorded: half an hour, in milliseconds. The operator's own proof runs meanwhile.
pub const PENDING_LIFE_MS: u64 = 30 * 60 * 1_000;
/// Most drills that wait to be recorded; the oldest gives way.
pub const MAX_PENDING_DRILLS: usize = 200;

/// A drill that waits.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Pending {
    pub(super) project: String,
    pub(super) environment: String,
    pub(super) flag: String,
    /// Who made it: nobody else records it.
    pub(super) principal: String,
    pub(super) report: DrillReport,
    /// When it was made, in milliseconds since 1970.
    pub(super) at: u64,
    /// The request that made it, so that it may be sent again.
    pub(super) sent: Option<IdempotencyKey>,
    /// The revision that its record made, and what was recorded.
    pub(super) recorded: Option<(u64, DrillReport)>,
}

#[derive(Debug, Default)]
pub(super) struct Drills(BTreeMap<String, Pending>);

impl Drills {
    pub(super) fn insert(&mut self, pending: Pending, now: u64) {
        self.prune(now);
        while self.0.len() >= MAX_PENDING_DRILLS {
            let Some(oldest) = self.0.iter().min_by_key(|(_, it)| it.at).map(|(id, _)| id.clone()) else { break };
            self.0.remove(&oldest);
        }
        self.0.insert(pending.report.id.clone(), pending);
    }

    pub(super) fn get(&mut self, id: &str, now: u64) -> Option<Pending> {
        self.prune(now);
        self.0.get(id).cloned()
    }

    /// The drill that the same request of the same principal made.
    pub(super) fn sent_before(&mut self, principal: &str, sent: &IdempotencyKey, now: u64) -> Option<Pending> {
        self.prune(now);
        self.0.values().find(|it| it.principal == principal && it.sent.as_ref() == Some(sent)).cloned()
    }

    pub(super) fn recorded(&mut self, id: &str, revision: u64, report: DrillReport) {
        if let Some(pending) = self.0.get_mut(id) {
            pending.recorded = Some((revision, report));
        }
    }

    fn prune(&mut self, now: u64) {
        self.0.retain(|_, pending| now.saturating_sub(pending.at) < PENDING_LIFE_MS);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pending(id: &str, at: u64) -> Pending {
        Pending {
            project: "p".to_owned(),
            environment: "staging".to_owned(),
            flag: "f".to_owned(),
            principal: "me".to_owned(),
            report: DrillReport { id: id.to_owned(), ..DrillReport::default() },
            at,
            sent: Some(IdempotencyKey { key: id.to_owned(), body_hash: String::new() }),
            recorded: None,
        }
    }

    #[test]
    fn drills_wait_for_a_while_and_are_not_many() {
        let mut drills = Drills::default();
        for number in 0..MAX_PENDING_DRILLS + 1 {
            drills.insert(pending(&format!("d{number}"), number as u64), 1_000);
        }
        assert_eq!(drills.0.len(), MAX_PENDING_DRILLS);
        assert!(drills.get("d0", 1_000).is_none(), "the oldest gave way");
        let sent = IdempotencyKey { key: "d7".to_owned(), body_hash: String::new() };
        assert_eq!(drills.sent_before("me", &sent, 1_000).unwrap().report.id, "d7");
        assert!(drills.sent_before("somebody else", &sent, 1_000).is_none());
        drills.recorded("d7", 9, DrillReport::default());
        assert_eq!(drills.get("d7", 1_000).unwrap().recorded.unwrap().0, 9);
        assert!(drills.get("d7", 7 + PENDING_LIFE_MS).is_none(), "its time is over");
    }
}
