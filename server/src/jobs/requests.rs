//! Applies change requests whose time has come, and ends those whose time is over.
//!
//! A request is applied by itself if it is approved and either scheduled for now, or of low risk and in need of nobody: such a
//! one is applied as it is opened, and only what a crash left, a freeze held or a draft became is found here. All others wait
//! for a person, or for a service account.

use std::collections::BTreeMap;
use std::sync::Arc;

use futures_util::future::BoxFuture;
use parking_lot::Mutex;

use super::Job;
use crate::changes::request::{ChangeRequest, RequestState};
use crate::changes::{Author, ChangeService, RequestEdit};
use crate::policy::RiskLevel;
use crate::state::World;

/// Most requests that one tick works on; the others wait for the next.
const MAX_PER_TICK: usize = 50;
/// How long to wait after a request could not be applied for the first time, in milliseconds; then twice as long each time.
const FIRST_RETRY_MS: u64 = 10_000;
/// Longest such wait: ten minutes, in milliseconds.
const LONGEST_RETRY_MS: u64 = 10 * 60 * 1_000;

/// The job.
pub struct Requests {
    changes: Arc<ChangeService>,
    plan: Mutex<Plan>,
}

#[derive(Default)]
struct Plan {
    /// Revision that was looked at.
    revision: Option<u64>,
    /// When something is due, if the state stays as it is.
    next: Option<u64>,
    /// Requests that could not be dealt with.
    held: BTreeMap<Due, Held>,
}

/// What is to be done with a request.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Due {
    project: String,
    id: String,
    /// What it asks for: an edited request is tried anew at once.
    hash: String,
    step: Step,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Step {
    Apply,
    Expire,
}

/// When to try again.
#[derive(Clone, Copy, Debug)]
struct Held {
    at: u64,
    wait_ms: u64,
}

impl Requests {
    /// The job over the only writer.
    #[must_use]
    pub fn new(changes: Arc<ChangeService>) -> Self {
        Self { changes, plan: Mutex::default() }
    }

    /// What to do at `now`. The state is looked through only when it changed, or when something has come due.
    fn due(&self, world: &World, now: u64) -> Vec<Due> {
        let mut plan = self.plan.lock();
        if plan.revision == Some(world.revision) && plan.next.is_none_or(|next| now < next) {
            return Vec::new();
        }
        let (due, mut next) = look_through(world, now);
        plan.held.retain(|held, _| due.contains(held));
        let mut ready = Vec::new();
        for due in due {
            match plan.held.get(&due).filter(|held| now < held.at) {
                Some(held) => next = Some(next.map_or(held.at, |next: u64| next.min(held.at))),
                None => ready.push(due),
            }
        }
        if ready.len() > MAX_PER_TICK {
            ready.truncate(MAX_PER_TICK);
            next = Some(now);
        }
        (plan.revision, plan.next) = (Some(world.revision), next);
        ready
    }

    async fn carry_out(&self, due: Due, now: u64) {
        let system = Author::system();
        let done = match due.step {
            Step::Apply => self.changes.apply_request(&system, &due.project, &due.id, None).await,
            Step::Expire => {
                let edit = RequestEdit::ExpireRequest { id: due.id.clone() };
                self.changes.act_on_request(&system, &due.project, edit, None).await
            }
        };
        let mut plan = self.plan.lock();
        match done {
            Ok(outcome) => {
                plan.held.remove(&due);
                tracing::info!(request = due.id, revision = outcome.revision, step = ?due.step, "a change request came due");
            }
            Err(error) => {
                let wait_ms = match plan.held.get(&due) {
                    Some(held) => (held.wait_ms * 2).min(LONGEST_RETRY_MS),
                    None => {
                        // Said once: what is in the way stays there until somebody rebases the request or lifts the freeze.
                        tracing::warn!(request = due.id, %error, "a change request is due and cannot be applied; it is tried again");
                        FIRST_RETRY_MS
                    }
                };
                let at = now.saturating_add(wait_ms);
                plan.held.insert(due, Held { at, wait_ms });
                plan.next = Some(plan.next.map_or(at, |next| next.min(at)));
            }
        }
    }
}

impl Job for Requests {
    fn name(&self) -> &'static str {
        "requests"
    }

    fn tick(&self, now: u64) -> BoxFuture<'_, ()> {
        Box::pin(async move {
            let world = self.changes.world();
            for due in self.due(&world, now) {
                self.carry_out(due, now).await;
            }
        })
    }
}

/// What is due at `now`, what has waited longest first, and when something else will be.
fn look_through(world: &World, now: u64) -> (Vec<Due>, Option<u64>) {
    let (mut due, mut next) = (Vec::new(), None);
    for (project, request) in world.projects.values().flat_map(|project| {
        let open = project.requests.values().filter(|request| request.state.is_open());
        open.map(|request| (&project.key, request))
    }) {
        let step = if now > request.ends_at() {
            Some((request.ends_at(), Step::Expire))
        } else {
            applies_from(request).filter(|from| *from <= now).map(|from| (from, Step::Apply))
        };
        let ends = request.ends_at().saturating_add(1);
        let mut wake = (now < ends).then_some(ends);
        match step {
            Some((since, step)) => {
                let (project, id, hash) = (project.clone(), request.id.clone(), request.content.hash.clone());
                due.push((since, Due { project, id, hash, step }));
            }
            None => wake = applies_from(request).map_or(wake, |from| Some(from.min(ends))),
        }
        next = next.into_iter().chain(wake).min();
    }
    due.sort();
    (due.into_iter().map(|(_, due)| due).collect(), next)
}

/// From when on an approved request is applied by itself.
fn applies_from(request: &ChangeRequest) -> Option<u64> {
    if request.state != RequestState::Approved {
        return None;
    }
    let needs_nobody = request.content.needed == 0 && request.content.risk.level == RiskLevel::Low;
    request.schedule.map(|schedule| schedule.not_before).or_else(|| needs_nobody.then_some(request.created_at))
}

#[cfg(test)]
#[path = "requests_tests.rs"]
mod tests;
