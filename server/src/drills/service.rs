//! Makes drills, and has them recorded.

use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;
use tokio::sync::Semaphore;

use super::pending::{Drills, Pending};
use super::{
    Check, DrillReport, MAX_DRILL_REASONS, Moved, ProbeReport, Prober, Seen, StandingDrill, Tally, moved, shape,
};
use crate::assignments::{AssignmentLog, Line, Origin, Reservoir, lines_of_flag};
use crate::changes::{Author, ChangeError, ChangeOutcome, ChangeService, IdempotencyKey, Rehearsal};
use crate::environments::Tier;
use crate::policy::{Action, Resource};

/// Most drills that are made at once; more are told to come back.
pub const MAX_DRILLS_AT_ONCE: usize = 4;
/// Longest that a probe waits for answers, in milliseconds: well within the time that a request may take.
pub const MAX_PROBE_TIMEOUT_MS: u64 = 20_000;
/// How far back the assignment log is looked at: an hour, in milliseconds.
const WINDOW_MS: u64 = 60 * 60 * 1_000;
/// Longest reason, in characters.
const MAX_REASON_CHARS: usize = 500;

/// What a [`DrillService`] is made of.
pub struct DrillParts {
    /// The write path, and the state.
    pub changes: Arc<ChangeService>,
    /// Asks connected SDKs.
    pub prober: Arc<dyn Prober>,
    /// Who was served what.
    pub log: Arc<dyn AssignmentLog>,
    /// A sample of those served lately.
    pub reservoir: Arc<Reservoir>,
}

/// Makes drills, keeps them for a while, and has them recorded.
pub struct DrillService {
    parts: DrillParts,
    room: Semaphore,
    drills: Mutex<Drills>,
}

/// A drill as it is asked for.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct DrillRequest {
    /// Project it is about.
    pub project: String,
    /// Environment to rehearse in.
    pub environment: String,
    /// Key of the flag.
    pub flag: String,
    /// Number of the revision that the rollback goes back to; the last stable state if left out.
    pub to_revision: Option<u64>,
    /// How long connected SDKs may take to answer, in milliseconds; at most [`MAX_PROBE_TIMEOUT_MS`].
    pub probe_timeout_ms: u64,
    /// Lets it be sent again safely.
    pub sent: Option<IdempotencyKey>,
}

/// Why a drill was not made or not recorded. A drill that was made and failed is no error.
#[derive(Debug, thiserror::Error)]
pub enum DrillError {
    /// The write path refused.
    #[error(transparent)]
    Change(#[from] ChangeError),
    /// As many drills as may be are being made.
    #[error("{MAX_DRILLS_AT_ONCE} drills are being made; come back in a moment")]
    Busy,
    /// There is no drill of this id that the caller made, or its time is over.
    #[error("there is no drill \"{0}\" of yours that waits to be recorded; drills wait for half an hour")]
    Unknown(String),
    /// What is said of the check cannot be recorded: place and sentence of each fault.
    #[error("the check cannot be recorded")]
    Check(Vec<(&'static str, String)>),
    /// Something ended before it was done.
    #[error("the drill was interrupted")]
    Interrupted,
}

impl DrillService {
    /// A service that has made no drills yet.
    #[must_use]
    pub fn new(parts: DrillParts) -> Self {
        Self { parts, room: Semaphore::new(MAX_DRILLS_AT_ONCE), drills: Mutex::default() }
    }

    /// Rehearses the rollback of a flag and measures what there is to measure. The drill waits to be recorded.
    ///
    /// # Errors
    ///
    /// [`DrillError`]; if there is nothing to go back to, among others. What fails in a drill is in its report.
    pub async fn make(&self, author: &Author, request: DrillRequest) -> Result<DrillReport, DrillError> {
        self.authorize(author, &request)?;
        let changes = &self.parts.changes;
        if let Some(sent) = &request.sent
            && let Some(made) = self.drills.lock().sent_before(&author.principal, sent, changes.now_ms())
        {
            return Ok(made.report);
        }
        let _room = self.room.try_acquire().map_err(|_| DrillError::Busy)?;
        let DrillRequest { project, environment, flag, to_revision, probe_timeout_ms, sent } = request;
        let target = changes.rollback_target(&project, &environment, &flag, to_revision).await?;
        let rehearsal = changes.rehearse(author, &project, &environment, &flag, target.to_revision).await?;
        let moved = self.count(&rehearsal, &project, &environment, &flag, target.to_revision).await?;
        let limit = Duration::from_millis(probe_timeout_ms.min(MAX_PROBE_TIMEOUT_MS));
        let probe = self.parts.prober.probe(&project, &environment, limit).await;
        let mut reasons = rehearsal.reasons;
        reasons.extend(silence(&probe, limit));
        let report = DrillReport {
            id: format!("drill-{:016x}", rand::random::<u64>()),
            by: author.actor_id.clone(),
            base_revision: rehearsal.base_revision,
            to_revision: target.to_revision,
            passed: reasons.is_empty(),
            reasons: bounded(reasons),
            proof: rehearsal.proof,
            moved,
            probe,
            check: None,
            shape: shape(&rehearsal.before, &environment, &flag).unwrap_or_default(),
        };
        let at = changes.now_ms();
        let principal = author.principal.clone();
        let pending =
            Pending { project, environment, flag, principal, report: report.clone(), at, sent, recorded: None };
        self.drills.lock().insert(pending, at);
        Ok(report)
    }

    /// Journals a drill that the author made, with the operator's own proof. Sent again, it answers what it answered.
    ///
    /// # Errors
    ///
    /// [`DrillError`]; [`ChangeError::Conflict`] if the flag was changed since the drill began.
    pub async fn record(
        &self,
        author: &Author,
        request: &DrillRequest,
        id: &str,
        check: Option<Check>,
    ) -> Result<(StandingDrill, Option<ChangeOutcome>), DrillError> {
        self.authorize(author, request)?;
        let now = self.parts.changes.now_ms();
        let mine = |pending: &Pending| {
            (&pending.project, &pending.environment, &pending.flag)
                == (&request.project, &request.environment, &request.flag)
                && pending.principal == author.principal
        };
        let pending = self.drills.lock().get(id, now).filter(mine).ok_or_else(|| DrillError::Unknown(id.to_owned()))?;
        if let Some((revision, report)) = pending.recorded {
            return Ok((standing(request, revision, now, report), None));
        }
        let faults = check.as_ref().map(Check::faults).unwrap_or_default();
        if !faults.is_empty() {
            return Err(DrillError::Check(faults));
        }
        let mut report = pending.report;
        let failure = check.as_ref().and_then(Check::failure);
        report.passed &= failure.is_none();
        report.reasons.extend(failure);
        report.check = check;
        let DrillRequest { project, environment, flag, .. } = request;
        let outcome = self.parts.changes.record_drill(author, project, environment, flag, report.clone()).await?;
        self.drills.lock().recorded(id, outcome.revision, report.clone());
        let at = outcome.entry.as_ref().map_or(now, |entry| entry.at);
        Ok((standing(request, outcome.revision, at, report), Some(outcome)))
    }

    /// Takes a person out of the samples.
    pub fn forget(&self, project: &str, unit: &str) {
        self.parts.reservoir.forget(project, unit);
    }

    fn authorize(&self, author: &Author, request: &DrillRequest) -> Result<(), DrillError> {
        let world = self.parts.changes.world();
        let known = world.environment(&request.project, &request.environment);
        // One that does not exist counts as production, so that asking tells nothing.
        let tier = known.map_or(Tier::Production, |environment| environment.tier);
        let (project, environment) = (request.project.clone(), request.environment.clone());
        let resource = Resource { project, environment, tier: Some(tier) };
        let authorized =
            self.parts.changes.authorize(author, Action::RecordDrill, &resource, Some(&request.flag), &|facts| facts);
        authorized.map(|_| ()).map_err(|error| DrillError::Change(*error))
    }

    /// Counts who would get something else, off the threads that answer requests.
    async fn count(
        &self,
        rehearsal: &Rehearsal,
        project: &str,
        environment: &str,
        flag: &str,
        to_revision: u64,
    ) -> Result<Moved, DrillError> {
        let origin = Origin { project: project.into(), environment: environment.into() };
        let (before, after) = (Arc::clone(&rehearsal.before), Arc::clone(&rehearsal.after));
        let (log, sample) = (Arc::clone(&self.parts.log), self.parts.reservoir.sample(&origin));
        let from = self.parts.changes.now_ms().saturating_sub(WINDOW_MS);
        let (environment, flag) = (environment.to_owned(), flag.to_owned());
        let counting = tokio::task::spawn_blocking(move || {
            let seen = Seen { sample, lines: read(&*log, origin, &flag, from) };
            moved(&before, &after, &environment, &flag, to_revision, &seen)
        });
        let (sampled, stored): (Tally, Option<Tally>) = counting.await.map_err(|_| DrillError::Interrupted)?;
        let share = if rehearsal.share.is_nan() { 1.0 } else { rehearsal.share.clamp(0.0, 1.0) };
        let at_most = (share * f64::from(guidon_sdk::model::SLOTS)).ceil() as u32;
        Ok(Moved { at_most, sampled, stored })
    }
}

fn standing(request: &DrillRequest, revision: u64, at: u64, report: DrillReport) -> StandingDrill {
    let (environment, flag) = (request.environment.clone(), request.flag.clone());
    StandingDrill { environment, flag, at, revision, report }
}

/// Why a probe speaks against a rollback: connected SDKs that should have heard of it did not.
fn silence(probe: &ProbeReport, limit: Duration) -> Option<String> {
    let silent = probe.unanswered();
    (silent > 0).then(|| {
        format!(
            "{silent} of {} connected SDKs did not answer the probe within {} ms",
            probe.connected,
            limit.as_millis()
        )
    })
}

fn bounded(mut reasons: Vec<String>) -> Vec<String> {
    reasons.truncate(MAX_DRILL_REASONS);
    reasons.into_iter().map(|reason| reason.chars().take(MAX_REASON_CHARS).collect()).collect()
}

/// What the log has of the flag since `from`; nothing where it cannot be read.
fn read(log: &dyn AssignmentLog, origin: Origin, flag: &str, from: u64) -> Vec<Line> {
    lines_of_flag(log, origin, flag, from).unwrap_or_else(|error| {
        tracing::warn!(%error, "a drill could not read the assignment log");
        Vec::new()
    })
}
