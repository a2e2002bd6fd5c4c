//! How much AI agents changed in the last hour.

use std::sync::Arc;

use imbl::OrdMap;

/// Over how long changes are counted: an hour, in milliseconds.
pub const QUOTA_WINDOW_MS: u64 = 60 * 60 * 1_000;

/// Most times kept for one agent in one environment: beyond any quota.
const MAX_TIMES: usize = 1_000;

/// When AI agents changed what in the last hour, by agent, project and environment.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Quotas {
    times: OrdMap<String, Arc<[u64]>>,
}

fn key(agent: &str, project: &str, environment: &str) -> String {
    format!("{agent}/{project}/{environment}")
}

impl Quotas {
    /// Counts a change at `at` (milliseconds since 1970).
    pub fn note(&mut self, agent: &str, project: &str, environment: &str, at: u64) {
        let key = key(agent, project, environment);
        let recent = self.times.get(&key).map(|times| &**times).unwrap_or_default();
        let mut times: Vec<u64> = recent.iter().copied().filter(|time| is_recent(*time, at)).collect();
        if times.len() < MAX_TIMES {
            times.push(at);
        }
        self.times.insert(key, times.into());
    }

    /// Changes in the hour before `now` (milliseconds since 1970).
    #[must_use]
    pub fn count(&self, agent: &str, project: &str, environment: &str, now: u64) -> u32 {
        let times = self.times.get(&key(agent, project, environment));
        let recent = times.map_or(0, |times| times.iter().filter(|time| is_recent(**time, now)).count());
        u32::try_from(recent).unwrap_or(u32::MAX)
    }

    /// Forgets what counts no more at `now` (milliseconds since 1970).
    pub fn prune(&mut self, now: u64) {
        let over = |times: &Arc<[u64]>| times.iter().all(|time| !is_recent(*time, now));
        let ended: Vec<String> =
            self.times.iter().filter(|(_, times)| over(times)).map(|(key, _)| key.clone()).collect();
        for key in ended {
            self.times.remove(&key);
        }
    }

    /// The times by their key, for keeping.
    pub(super) fn by_key(&self) -> &OrdMap<String, Arc<[u64]>> {
        &self.times
    }

    /// Takes kept times back.
    pub(super) fn insert(&mut self, key: String, times: Vec<u64>) {
        self.times.insert(key, times.into());
    }
}

fn is_recent(time: u64, now: u64) -> bool {
    time + QUOTA_WINDOW_MS > now
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn changes_count_for_an_hour_and_where_they_were_made() {
        let mut quotas = Quotas::default();
        quotas.note("agent-1", "shop", "testing", 1_000);
        quotas.note("agent-1", "shop", "testing", 2_000);
        quotas.note("agent-1", "shop", "development", 2_000);
        assert_eq!(quotas.count("agent-1", "shop", "testing", 3_000), 2);
        assert_eq!(quotas.count("agent-2", "shop", "testing", 3_000), 0);
        assert_eq!(quotas.count("agent-1", "shop", "testing", 1_500 + QUOTA_WINDOW_MS), 1);
        quotas.prune(2_000 + QUOTA_WINDOW_MS);
        assert_eq!(quotas, Quotas::default());
    }
}
