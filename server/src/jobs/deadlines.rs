//! Ends SDK keys at their deadline, and says ahead which credentials are about to end.
//!
//! A key past its deadline is refused by time alone. That it is revoked closes its streams, and puts its end on record.

use std::sync::Arc;

use futures_util::future::BoxFuture;
use parking_lot::Mutex;

use super::Job;
use crate::changes::{Author, ChangeDraft, ChangeService, Instruction};
use crate::state::World;

/// How long to wait after a key could not be revoked, in milliseconds.
const RETRY_MS: u64 = 10_000;
/// How often the log says which credentials end soon, in milliseconds.
const WARN_EVERY_MS: u64 = 24 * 60 * 60 * 1_000;

/// The job.
pub struct Deadlines {
    changes: Arc<ChangeService>,
    plan: Mutex<Plan>,
}

/// What was found when the state was last looked at.
#[derive(Default)]
struct Plan {
    /// Revision that was looked at.
    revision: Option<u64>,
    /// The next deadline of an SDK key.
    next: Option<u64>,
    /// Not before: something went wrong.
    retry_at: u64,
    /// When the log last said what ends soon.
    warned_at: Option<u64>,
}

/// An SDK key whose time is over.
#[derive(Debug, PartialEq, Eq)]
struct Due {
    project: String,
    environment: String,
    id: String,
}

impl Deadlines {
    /// The job over the only writer.
    #[must_use]
    pub fn new(changes: Arc<ChangeService>) -> Self {
        Self { changes, plan: Mutex::default() }
    }

    /// What is due at `now`. The state is looked through only when it changed, or when a deadline has come.
    fn due(&self, world: &World, now: u64) -> Vec<Due> {
        let mut plan = self.plan.lock();
        let is_known = plan.revision == Some(world.revision) && plan.next.is_none_or(|next| now < next);
        if is_known || now < plan.retry_at {
            return Vec::new();
        }
        plan.revision = Some(world.revision);
        let (due, next) = look_through(world, now);
        plan.next = due.first().map(|_| now).or(next);
        due
    }

    async fn revoke(&self, due: Due, now: u64) {
        let id = due.id.clone();
        let draft = ChangeDraft {
            project: due.project,
            environment: Some(due.environment),
            comment: "Its deadline has come".to_owned(),
            instructions: vec![Instruction::RevokeSdkKey { id: due.id }],
            ..ChangeDraft::default()
        };
        match self.changes.submit(&Author::system(), draft).await {
            Ok(_) => tracing::info!(sdk_key = id, "an SDK key has reached its deadline and was revoked"),
            Err(error) => {
                self.plan.lock().retry_at = now + RETRY_MS;
                tracing::error!(sdk_key = id, %error, "an SDK key past its deadline could not be revoked; it is refused all the same");
            }
        }
    }

    /// Once a day, a line for the operator.
    fn warn(&self, world: &World, now: u64) {
        {
            let mut plan = self.plan.lock();
            if plan.warned_at.is_some_and(|at| now.saturating_sub(at) < WARN_EVERY_MS) {
                return;
            }
            plan.warned_at = Some(now);
        }
        if let Some((count, first)) = named(world.directory.expiring_tokens(now).map(|token| &*token.id)) {
            tracing::warn!(
                count,
                tokens = first,
                "tokens end within 7 days: `guidon token list` shows them, `guidon token rotate ID` renews one"
            );
        }
        if let Some((count, first)) = named(world.directory.expiring_agents(now).map(|agent| &*agent.id)) {
            tracing::warn!(
                count,
                agents = first,
                "registrations of AI agents end within 7 days: `guidon agent list` shows them, `guidon agent renew ID` moves the end"
            );
        }
    }
}

impl Job for Deadlines {
    fn name(&self) -> &'static str {
        "deadlines"
    }

    fn tick(&self, now: u64) -> BoxFuture<'_, ()> {
        Box::pin(async move {
            let world = self.changes.world();
            for due in self.due(&world, now) {
                self.revoke(due, now).await;
            }
            self.warn(&world, now);
        })
    }
}

/// How many there are, and the first of them in one text; `None` if there are none.
fn named<'a>(ids: impl Iterator<Item = &'a str>) -> Option<(usize, String)> {
    let ids: Vec<&str> = ids.collect();
    let first = ids.iter().take(10).copied().collect::<Vec<_>>().join(", ");
    (!ids.is_empty()).then_some((ids.len(), first))
}

/// The SDK keys whose deadline has come, and the next deadline of another.
fn look_through(world: &World, now: u64) -> (Vec<Due>, Option<u64>) {
    let (mut due, mut next) = (Vec::new(), None);
    for project in world.projects.values() {
        for key in project.sdk_keys.values().filter(|key| key.revoked_at.is_none()) {
            match key.expires_at {
                Some(end) if end <= now => due.push(Due {
                    project: project.key.clone(),
                    environment: key.environment.clone(),
                    id: key.id.clone(),
                }),
                Some(end) => next = Some(next.map_or(end, |next: u64| next.min(end))),
                None => {}
            }
        }
    }
    (due, next)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::changes::tests::{START_MS, Server};

    #[tokio::test]
    async fn a_rotated_key_is_revoked_at_its_deadline_and_not_before() {
        let server = Server::start().await;
        let (hash, next) = ("a".repeat(64), "b".repeat(64));
        let create = json!([{"kind": "createSdkKey", "id": "key-1", "name": "", "audience": "server", "hash": hash}]);
        server.submit(create).await.unwrap();
        let rotate = json!([{"kind": "rotateSdkKey", "id": "key-1", "successor": "", "hash": next, "deadline": START_MS + 5_000}]);
        server.submit(rotate).await.unwrap();
        let job = Deadlines::new(Arc::clone(&server.service));
        let key = |id: &str| server.service.world().projects["default"].sdk_keys[id].clone();
        let successor = key("key-1").replaced_by.clone().unwrap();
        job.tick(START_MS + 4_999).await;
        assert_eq!(key("key-1").revoked_at, None);
        assert!(key("key-1").is_live(START_MS + 4_999) && !key("key-1").is_live(START_MS + 5_000));
        server.clock.advance_ms(5_000);
        job.tick(START_MS + 5_000).await;
        assert_eq!(key("key-1").revoked_at, Some(START_MS + 5_000));
        assert_eq!(key(&successor).revoked_at, None);
        let revision = server.service.world().revision;
        job.tick(START_MS + 9_000).await;
        assert_eq!(server.service.world().revision, revision, "nothing is left to do");
    }
}
