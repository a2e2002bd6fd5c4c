//! What single instances are to do otherwise than their peers: sent on their own connections, outside the shared patches.

use std::sync::atomic::{AtomicU64, Ordering};

use guidon_sdk::protocol::{Directive, MAX_DIRECTIVES};
use parking_lot::Mutex;
use tokio::time::{Duration, Instant};

use super::hub::Hub;
use crate::environments::Audience;
use crate::state::World;

/// Knows which directives are in force.
pub trait DirectiveSource: Send + Sync + 'static {
    /// The directives of an instance in this world at `now_ms`, each with the time it has left. Asked once when the instance
    /// connects with a server's key; returns at once. What changes later is said by [`Hub::direct`].
    fn directives(
        &self,
        world: &World,
        project: &str,
        environment: &str,
        instance: &str,
        now_ms: u64,
    ) -> Vec<Directive>;
}

/// The directives of one connection.
#[derive(Debug, Default)]
pub(crate) struct Standing {
    /// Grows with each change; 0 while there was none. Connections look here without a lock.
    version: AtomicU64,
    /// Keys of flags, and when each directive ends.
    held: Mutex<Vec<(String, Instant)>>,
}

impl Standing {
    /// Replaces all directives; false if there were none and are none.
    pub(crate) fn replace(&self, directives: &[Directive]) -> bool {
        let mut held = self.held.lock();
        if directives.is_empty() && held.is_empty() {
            return false;
        }
        *held = until(directives);
        self.version.fetch_add(1, Ordering::AcqRel);
        true
    }

    /// Sets what stands when the connection begins, unless a change has come before.
    pub(crate) fn begin(&self, directives: &[Directive]) {
        let mut held = self.held.lock();
        if self.version.load(Ordering::Acquire) == 0 && !directives.is_empty() {
            *held = until(directives);
            self.version.store(1, Ordering::Release);
        }
    }

    pub(crate) fn version(&self) -> u64 {
        self.version.load(Ordering::Acquire)
    }

    /// The directives with the time that is left; those that have ended are left out.
    pub(crate) fn list(&self) -> Vec<Directive> {
        let now = Instant::now();
        let held = self.held.lock();
        let left = |end: Instant| u64::try_from(end.saturating_duration_since(now).as_millis()).unwrap_or(u64::MAX);
        held.iter()
            .map(|(flag, end)| Directive { flag: flag.clone(), for_ms: left(*end) })
            .filter(|directive| directive.for_ms > 0)
            .collect()
    }
}

/// The longest a directive can last: a week. It is asked for anew by whoever wants more.
const MAX_DIRECTIVE: Duration = Duration::from_secs(7 * 24 * 3_600);

fn until(directives: &[Directive]) -> Vec<(String, Instant)> {
    let now = Instant::now();
    let end = |for_ms| now + Duration::from_millis(for_ms).min(MAX_DIRECTIVE);
    directives.iter().take(MAX_DIRECTIVES).map(|directive| (directive.flag.clone(), end(directive.for_ms))).collect()
}

impl Hub {
    /// Gives an instance these directives (at most [`MAX_DIRECTIVES`]) in place of those it had, and says to how many of its
    /// connections. They are sent at once; one that is not connected is told when it comes, by [`DirectiveSource`].
    pub fn direct(&self, project: &str, environment: &str, instance: &str, directives: &[Directive]) -> usize {
        let mut told = 0;
        for channel in self.channels_of(project, environment) {
            if channel.key.audience != Audience::Server {
                continue;
            }
            let of_instance = channel.peers().into_iter().filter(|peer| peer.hello.instance == instance);
            let changed = of_instance.filter(|peer| peer.directives.replace(directives)).count();
            if changed > 0 {
                channel.wake();
            }
            told += changed;
        }
        told
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn directive(flag: &str, for_ms: u64) -> Directive {
        Directive { flag: flag.to_owned(), for_ms }
    }

    #[tokio::test(start_paused = true)]
    async fn directives_end_by_themselves_and_changes_win_over_the_beginning() {
        let standing = Standing::default();
        assert!(!standing.replace(&[]));
        standing.begin(&[]);
        assert_eq!(standing.version(), 0);
        assert!(standing.replace(&[directive("a", 1_000), directive("b", u64::MAX)]));
        standing.begin(&[directive("old", 9_000)]);
        tokio::time::advance(Duration::from_millis(400)).await;
        assert_eq!((standing.version(), standing.list()[0].clone()), (1, directive("a", 600)));
        tokio::time::advance(Duration::from_millis(600)).await;
        assert_eq!(standing.list().len(), 1);
        assert!(standing.replace(&[]) && standing.list().is_empty());
    }
}
