//! Flags whose AI path this instance is routed away from, as the server says.

use std::collections::HashMap;
use std::time::Duration;

use arc_swap::ArcSwap;
use tokio::time::Instant;

use crate::protocol::{Directive, MAX_DIRECTIVES};

/// A flag whose baseline answers in this instance; see [`Client::directives`](super::Client::directives).
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct RoutedAway {
    /// Key of the flag.
    pub flag: String,
    /// It ends by itself after this time.
    pub left: Duration,
}

/// The directives in force. They outlive the connection they came over, and end by themselves.
#[derive(Default)]
pub(super) struct Directives {
    until: ArcSwap<HashMap<String, Instant>>,
}

impl Directives {
    /// Puts these in place of all before, but for those beyond the limit.
    pub(super) fn replace(&self, directives: Vec<Directive>) {
        let now = Instant::now();
        let until =
            |directive: Directive| Some((directive.flag, now.checked_add(Duration::from_millis(directive.for_ms))?));
        let until: HashMap<_, _> = directives.into_iter().take(MAX_DIRECTIVES).filter_map(until).collect();
        if !until.is_empty() {
            let flags: Vec<_> = until.keys().collect();
            tracing::warn!(?flags, "routed away by the server: the baselines of these flags answer in this instance");
        }
        self.until.store(until.into());
    }

    /// Whether the flag's baseline answers. Takes no lock.
    #[inline]
    pub(super) fn hold(&self, flag: &str) -> bool {
        let until = self.until.load();
        !until.is_empty() && until.get(flag).is_some_and(|until| Instant::now() < *until)
    }

    /// Those in force, by flag.
    pub(super) fn list(&self) -> Vec<RoutedAway> {
        let (now, until) = (Instant::now(), self.until.load());
        let left = |(flag, until): (&String, &Instant)| RoutedAway {
            flag: flag.clone(),
            left: until.saturating_duration_since(now),
        };
        let mut list: Vec<_> = until.iter().map(left).filter(|routed| !routed.left.is_zero()).collect();
        list.sort_by(|one, other| one.flag.cmp(&other.flag));
        list
    }
}
