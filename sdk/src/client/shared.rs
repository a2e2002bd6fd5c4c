//! What evaluations read and the client's task writes.

use std::sync::Arc;
use std::sync::atomic::AtomicBool;

use arc_swap::ArcSwapOption;
use tokio::sync::watch;

use super::breaker::{BreakerSettings, Breakers};
use super::changed::{self, Touched};
use super::clock;
use super::directives::Directives;
use super::exposures::Recorder;
use super::hook::{Call, Hook, Outcome};
use super::listeners::{Change, Listeners};
use super::shadows::{ShadowBudget, Shadows};
use super::windows::Windows;
use crate::eval::{ErrorCode, Evaluation, FlagRef, evaluate, evaluate_at};
use crate::model::Context;
use crate::protocol::{Cause, Exposure, Revision};
use crate::snapshot::Snapshot;

/// How a client stands to its server.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum State {
    /// There is no state to evaluate yet: evaluations answer the callers' defaults.
    Initializing,
    /// Connected (or polling), and current.
    Ready,
    /// Evaluating on the last good state: not connected, or behind. Also once the SDK key was refused while there is a state
    /// to serve; the client then does not come back by itself.
    Stale,
    /// Closed, or refused with nothing to serve. Evaluations go on answering from the last good state, if there was one.
    Closed,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Status {
    pub(super) state: State,
    /// The server refused the SDK key.
    pub(super) refused: bool,
}

pub(crate) struct Shared {
    pub(super) snapshot: ArcSwapOption<Snapshot>,
    pub(super) status: watch::Sender<Status>,
    pub(super) recorder: Recorder,
    pub(super) recording: bool,
    /// `None`: nobody asks what is measured.
    pub(super) windows: Option<Windows>,
    /// The log says that a tracked value was not usable.
    pub(super) complained: AtomicBool,
    pub(super) directives: Directives,
    pub(super) breakers: Breakers,
    pub(super) shadows: Shadows,
    pub(super) hooks: Box<[Arc<dyn Hook>]>,
    pub(super) listeners: Listeners,
}

/// A flag by key, or by where it was found.
#[derive(Clone, Copy)]
pub(super) enum Flag<'a> {
    Key(&'a str),
    Found(&'a FlagRef),
}

impl<'a> Flag<'a> {
    pub(super) fn key(self) -> &'a str {
        match self {
            Self::Key(key) => key,
            Self::Found(found) => found.key(),
        }
    }
}

impl Shared {
    pub(super) fn new(
        recorder: Recorder,
        recording: bool,
        windows: Option<Windows>,
        breaker: Option<BreakerSettings>,
        shadow: ShadowBudget,
        hooks: Vec<Arc<dyn Hook>>,
    ) -> Self {
        Self {
            snapshot: ArcSwapOption::empty(),
            status: watch::Sender::new(Status { state: State::Initializing, refused: false }),
            recorder,
            recording,
            windows,
            complained: AtomicBool::new(false),
            directives: Directives::default(),
            breakers: Breakers::new(breaker),
            shadows: Shadows::new(shadow),
            hooks: hooks.into(),
            listeners: Listeners::new(),
        }
    }

    pub(super) fn has_snapshot(&self) -> bool {
        self.snapshot.load().is_some()
    }

    /// Serves a snapshot and tells the listeners. `touched`: keys of flags and segments that a patch names; `None` if anything
    /// may differ.
    pub(super) fn serve(&self, snapshot: Arc<Snapshot>, touched: Option<Touched>) {
        let before = self.snapshot.swap(Some(Arc::clone(&snapshot)));
        if self.listeners.is_empty() {
            return;
        }
        let flags = match (touched, &before) {
            (Some(touched), _) => changed::dependents(&snapshot, touched),
            (None, Some(before)) => changed::between(before, &snapshot),
            (None, None) => changed::all(&snapshot),
        };
        if !flags.is_empty() {
            let change = Change { revision: snapshot.revision().clone(), flags: flags.into(), missed: 0 };
            self.listeners.notify(change);
        }
    }

    pub(super) fn report(&self, status: Status) {
        let changed = self.status.send_if_modified(|present| {
            let differs = *present != status;
            *present = status;
            differs
        });
        if changed {
            tracing::info!(state = ?status.state, refused = status.refused, "the client's state changed");
        }
    }

    /// Evaluates, lets the hooks see it, and hands what came out to `read`. Takes no lock.
    #[inline]
    pub(super) fn evaluate<R>(
        &self,
        flag: Flag<'_>,
        context: &Context<'_>,
        read: impl FnOnce(&Evaluation<'_>, Option<&Revision>) -> R,
    ) -> R {
        let call = Call { flag: flag.key(), context };
        for hook in &self.hooks {
            hook.before(&call);
        }
        let snapshot = self.snapshot.load();
        let evaluation = match (snapshot.as_deref(), flag) {
            (Some(snapshot), Flag::Key(key)) => evaluate(snapshot.ruleset(), key, context),
            (Some(snapshot), Flag::Found(found)) => evaluate_at(snapshot.ruleset(), found, context),
            (None, _) => Evaluation::failed(ErrorCode::ProviderNotReady, context),
        };
        let revision = snapshot.as_deref().map(Snapshot::revision);
        if !self.hooks.is_empty() {
            self.after(&call, &evaluation, revision);
        }
        read(&evaluation, revision)
    }

    #[cold]
    fn after(&self, call: &Call<'_>, evaluation: &Evaluation<'_>, revision: Option<&Revision>) {
        let outcome = Outcome {
            value: evaluation.value(),
            variation: evaluation.variation_key(),
            reason: evaluation.reason(),
            rule: evaluation.rule(),
            error: evaluation.error(),
            revision,
        };
        for hook in &self.hooks {
            hook.after(call, &outcome);
        }
    }

    /// Records that the evaluation's variation was served. One without a unit cannot be assigned to anybody and is not
    /// recorded.
    #[inline]
    pub(super) fn record(&self, flag: &str, evaluation: &Evaluation<'_>, revision: Option<&Revision>) {
        if !self.recording {
            return;
        }
        if let (Some(variation), Some(unit)) = (evaluation.variation_key(), evaluation.unit()) {
            self.recorder.served(flag, unit, variation, || exposure(flag, evaluation, revision));
        }
    }
}

/// The record of a normal evaluation, with empty texts for what it does not have.
pub(super) fn exposure(flag: &str, evaluation: &Evaluation<'_>, revision: Option<&Revision>) -> Exposure {
    let variation = evaluation.variation_key().unwrap_or_default();
    Exposure {
        flag: flag.to_owned(),
        unit: evaluation.unit().map(|unit| unit.to_text().into_owned()).unwrap_or_default(),
        assigned: variation.to_owned(),
        delivered: variation.to_owned(),
        cause: Cause::Normal,
        reason: evaluation.reason().as_str().to_owned(),
        rule: evaluation.rule().map(str::to_owned),
        slot: evaluation.slot(),
        revision: revision.map_or(0, |revision| revision.number),
        at: clock::unix_ms(),
    }
}
