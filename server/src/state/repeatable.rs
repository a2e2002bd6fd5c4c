//! Changes that may be sent again.

use imbl::OrdMap;

/// How long a change may be sent again, in milliseconds: 24 hours.
pub const REPEATABLE_MS: u64 = 24 * 60 * 60 * 1000;

/// Most changes that are remembered; beyond that the oldest are forgotten early.
const MAX_REPEATABLE: usize = 200_000;

/// What a change that may be sent again did.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Repeatable {
    /// BLAKE3 of the request's body, in hexadecimal.
    pub body: String,
    /// Number of its entry.
    pub revision: u64,
    /// When, in milliseconds since 1970.
    pub at: u64,
}

/// The changes of the last 24 hours that may be sent again, by idempotency key (hashed).
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Repeatables {
    by_key: OrdMap<String, Repeatable>,
    /// Keys by revision, so that the oldest are found without a search.
    by_age: OrdMap<u64, String>,
}

impl Repeatables {
    /// What was done under `key`, if that is less than 24 hours before `now_ms`.
    #[must_use]
    pub fn get(&self, key: &str, now_ms: u64) -> Option<&Repeatable> {
        self.by_key.get(key).filter(|done| now_ms.saturating_sub(done.at) < REPEATABLE_MS)
    }

    /// All that are remembered, by key.
    pub fn iter(&self) -> impl Iterator<Item = (&String, &Repeatable)> {
        self.by_key.iter()
    }

    /// All that are remembered, by key, for comparing two states.
    pub(super) fn by_key(&self) -> &OrdMap<String, Repeatable> {
        &self.by_key
    }

    /// Remembers what was done under `key`.
    pub fn insert(&mut self, key: String, done: Repeatable) {
        let revision = done.revision;
        if let Some(earlier) = self.by_key.insert(key.clone(), done) {
            self.by_age.remove(&earlier.revision);
        }
        self.by_age.insert(revision, key);
    }

    /// Forgets what is 24 hours older than `now_ms`, and the oldest beyond the limit.
    pub fn prune(&mut self, now_ms: u64) {
        while let Some((revision, key)) = self.by_age.get_min().cloned() {
            let fresh = self.get(&key, now_ms).is_some();
            if fresh && self.by_age.len() <= MAX_REPEATABLE {
                return;
            }
            self.by_age.remove(&revision);
            self.by_key.remove(&key);
        }
    }
}

impl FromIterator<(String, Repeatable)> for Repeatables {
    fn from_iter<I: IntoIterator<Item = (String, Repeatable)>>(entries: I) -> Self {
        let mut all = Self::default();
        for (key, done) in entries {
            all.insert(key, done);
        }
        all
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn done(revision: u64, at: u64) -> Repeatable {
        Repeatable { body: "b".to_owned(), revision, at }
    }

    #[test]
    fn forgets_after_a_day_and_not_before() {
        let mut all: Repeatables = [("a".to_owned(), done(1, 0)), ("b".to_owned(), done(2, 10))].into_iter().collect();
        all.prune(REPEATABLE_MS - 1);
        assert_eq!(all.iter().count(), 2);
        assert!(all.get("a", REPEATABLE_MS).is_none() && all.get("b", REPEATABLE_MS).is_some());
        all.prune(REPEATABLE_MS);
        assert_eq!(all.iter().map(|(key, _)| key.as_str()).collect::<Vec<_>>(), ["b"]);
    }

    #[test]
    fn a_key_that_is_used_again_is_as_old_as_its_last_use() {
        let mut all = Repeatables::default();
        all.insert("a".to_owned(), done(1, 0));
        all.insert("a".to_owned(), done(7, REPEATABLE_MS));
        all.prune(REPEATABLE_MS + 5);
        assert_eq!(all.get("a", REPEATABLE_MS + 5).map(|done| done.revision), Some(7));
    }
}
