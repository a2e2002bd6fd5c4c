//! Takes note of the first sight of each build.

use std::collections::HashSet;
use std::sync::Arc;

use guidon_sdk::protocol::Hello;
use parking_lot::Mutex;

use super::sightings::{Build, Seen, Sightings};
use crate::audit::{AuditLog, Deployment, Event, EventKind, Events, EventsError};
use crate::changes::Author;
use crate::clock::Clock;
use crate::push::Sights;

/// Events that are read at once while builds seen earlier are taken in.
const PAGE_EVENTS: usize = 500;
/// Instances that may wait until that is done; of those beyond it, the next connection is looked at.
const MAX_WAITING: usize = 10_000;

/// Which builds were seen where; survives restarts, as the security log holds the first sight of each.
pub struct Deployments {
    state: Mutex<State>,
    audit: Arc<dyn AuditLog>,
    clock: Arc<dyn Clock>,
}

struct State {
    sightings: Sightings,
    /// What was seen before the log was read; `None` once it is.
    waiting: Option<Vec<Sight>>,
}

struct Sight {
    project: String,
    environment: String,
    key_id: String,
    deployment: Deployment,
}

impl Sight {
    fn build(&self) -> Build {
        build(&self.deployment)
    }
}

fn build(deployment: &Deployment) -> Build {
    let Deployment { application, commit, image, .. } = deployment.clone();
    Build { application, commit, image }
}

impl Deployments {
    /// Knows of no build yet: [`Self::remember`] is to follow.
    #[must_use]
    pub fn new(audit: Arc<dyn AuditLog>, clock: Arc<dyn Clock>) -> Self {
        let state = State { sightings: Sightings::default(), waiting: Some(Vec::new()) };
        Self { state: Mutex::new(state), audit, clock }
    }

    /// Takes in the builds that the security log has on record, then looks at those that were seen meanwhile.
    ///
    /// # Errors
    ///
    /// The log cannot be read. What was seen is looked at all the same: a build may be noted twice.
    pub async fn remember(&self, events: &dyn Events) -> Result<(), EventsError> {
        let read = self.read(events).await;
        let waiting = self.state.lock().waiting.take().unwrap_or_default();
        waiting.into_iter().for_each(|sight| self.look_at(sight));
        read
    }

    async fn read(&self, events: &dyn Events) -> Result<(), EventsError> {
        let mut after = 0;
        loop {
            let page = events.read(after, PAGE_EVENTS).await?;
            let Some(last) = page.last() else { return Ok(()) };
            after = last.seq;
            for stored in &page {
                let event = &stored.event;
                if let (Some(project), Some(environment), Some(deployment)) =
                    (&event.project, &event.environment, &event.deployment)
                {
                    self.state.lock().sightings.remember(project, environment, build(deployment));
                }
            }
        }
    }

    /// The builds that were seen in one of these environments of a project.
    #[must_use]
    pub fn seen_in<'a>(&self, project: &str, environments: impl IntoIterator<Item = &'a str>) -> HashSet<Build> {
        let state = self.state.lock();
        environments.into_iter().flat_map(|environment| state.sightings.of(project, environment).cloned()).collect()
    }

    fn look_at(&self, sight: Sight) {
        let now = self.clock.now_ms();
        let seen = {
            let mut state = self.state.lock();
            state.sightings.see(&sight.project, &sight.environment, &sight.build(), now)
        };
        match seen {
            Seen::Before => {}
            Seen::TooMany => tracing::warn!(
                project = sight.project,
                environment = sight.environment,
                key = sight.key_id,
                "too many new builds connect with one environment's keys; they are not taken note of"
            ),
            Seen::First => self.audit.record(Event {
                credential: Some(sight.key_id),
                project: Some(sight.project),
                environment: Some(sight.environment),
                deployment: Some(sight.deployment),
                ..Event::new(now, EventKind::Deployment, Author::system().origin_id)
            }),
        }
    }
}

impl Sights for Deployments {
    fn saw(&self, project: &str, environment: &str, key_id: &str, hello: &Hello) {
        if hello.commit.is_empty() && hello.image.is_empty() {
            return;
        }
        let sight = Sight {
            project: project.to_owned(),
            environment: environment.to_owned(),
            key_id: key_id.to_owned(),
            deployment: Deployment {
                application: hello.application.clone(),
                version: hello.version.clone(),
                commit: hello.commit.clone(),
                image: hello.image.clone(),
                sdk: hello.sdk.clone(),
            },
        };
        {
            let mut state = self.state.lock();
            if let Some(waiting) = &mut state.waiting {
                if waiting.len() < MAX_WAITING {
                    waiting.push(sight);
                }
                return;
            }
        }
        self.look_at(sight);
    }
}
