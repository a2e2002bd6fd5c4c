//! Heals instances that were routed away: runs what the operator allows, looks whether it helped, and says all of it in the
//! incident.

use std::path::Path;
use std::process::Stdio;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use futures_util::future::BoxFuture;
use parking_lot::Mutex;
use serde_json::json;
use tokio::io::{AsyncRead, AsyncReadExt};
use tokio::process::Command;
use tokio::sync::Semaphore;

use super::edit::ReleaseEdit;
use super::healing::{Budget, HealingAction, Outcome, Presence, Remedy, VERIFY_AFTER_SECONDS, choose, verdict};
use super::runner::{Case, Connections, Healer};
use crate::assignments::Origin;
use crate::changes::{Author, ChangeDraft, ChangeService, Instruction};
use crate::clock::Clock;
use crate::metrics::{MetricsHub, WatchKey};
use crate::notifications::call::{Caller, Message};
use crate::notifications::signature::{Secret, signatures};

/// Longest that a command may run, in seconds; then it is killed with all that it started.
pub const COMMAND_SECONDS: u64 = 30;
const COMMAND_LIMIT: Duration = Duration::from_secs(COMMAND_SECONDS);
/// What is kept of a command's output for the log, in bytes: its end.
pub const MAX_OUTPUT_BYTES: usize = 2_048;
/// Cases that are followed at once; more are in the log, and nothing is done about them.
pub const MAX_CASES: usize = 256;
/// The search path of commands.
const SEARCH_PATH: &str = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";
/// How long one waits for the rest of the output of a command that has ended: what it started may hold the pipe for ever.
const OUTPUT_GRACE: Duration = Duration::from_millis(200);

/// Where cases come from, and where what was done about them goes.
pub trait Incidents: Send + Sync + 'static {
    /// Adds a note to the case's incident.
    fn note<'a>(&'a self, case: &'a Case, text: String) -> BoxFuture<'a, ()>;

    /// Until when the case's instance is routed away by its release, in milliseconds since 1970, 0 if it no longer is; none
    /// where the release is over.
    fn routed_until(&self, case: &Case) -> Option<u64>;
}

impl Incidents for ChangeService {
    fn note<'a>(&'a self, case: &'a Case, text: String) -> BoxFuture<'a, ()> {
        Box::pin(async move {
            let (flag, incident) = (case.flag.clone(), case.incident.clone());
            let change = ChangeDraft {
                project: case.project.clone(),
                environment: Some(case.environment.clone()),
                instructions: vec![Instruction::Release(Box::new(ReleaseEdit::NoteIncident { flag, incident, text }))],
                ..ChangeDraft::default()
            };
            if let Err(error) = self.submit(&Author::system(), change).await {
                // A person may have closed it in the meantime.
                tracing::warn!(incident = case.incident, %error, "an incident could not be told what was done");
            }
        })
    }

    fn routed_until(&self, case: &Case) -> Option<u64> {
        let world = self.world();
        let release = world.projects.get(&case.project)?.release(&case.environment, &case.flag)?;
        let routed = release.routed.get(&case.instance).map_or(0, |routed| routed.until);
        release.state.is_active().then_some(routed)
    }
}

/// What a [`HealingService`] is made of.
pub struct HealingParts {
    /// What the operator allows.
    pub actions: Vec<HealingAction>,
    /// What calls are signed with.
    pub secret: Option<Secret>,
    /// Calls receivers.
    pub caller: Arc<dyn Caller>,
    /// The incidents.
    pub incidents: Arc<dyn Incidents>,
    /// What instances count.
    pub metrics: Arc<MetricsHub>,
    /// Connected SDKs.
    pub connections: Arc<dyn Connections>,
    /// The time of day.
    pub clock: Arc<dyn Clock>,
    /// How long after an action, and after a route away, one looks whether it helped: [`VERIFY_AFTER`].
    pub verify_after: Duration,
}

/// The usual [`HealingParts::verify_after`].
pub const VERIFY_AFTER: Duration = Duration::from_secs(VERIFY_AFTER_SECONDS);

/// Heals instances.
pub struct HealingService {
    inner: Arc<Inner>,
}

struct Inner {
    parts: HealingParts,
    budget: Mutex<Budget>,
    cases: Arc<Semaphore>,
}

impl HealingService {
    /// A service that knows of no case yet.
    #[must_use]
    pub fn new(parts: HealingParts) -> Self {
        let cases = Arc::new(Semaphore::new(MAX_CASES));
        Self { inner: Arc::new(Inner { parts, budget: Mutex::default(), cases }) }
    }
}

impl Healer for HealingService {
    fn take(&self, case: Case) {
        let inner = Arc::clone(&self.inner);
        let Ok(permit) = Arc::clone(&inner.cases).try_acquire_owned() else {
            tracing::warn!(incident = case.incident, "{MAX_CASES} cases are being healed: this one is not followed");
            return;
        };
        tokio::spawn(async move {
            inner.follow(&case).await;
            drop(permit);
        });
    }
}

impl Inner {
    /// One case, from the action to whether it helped.
    async fn follow(&self, case: &Case) {
        let parts = &self.parts;
        let acted = match &case.action {
            Some(asked) => self.act(case, asked).await,
            None => false,
        };
        self.sleep_until(case.until).await;
        match parts.incidents.routed_until(case) {
            None => {
                let text = "the release is over: the instance is not routed away any more".to_owned();
                return parts.incidents.note(case, text).await;
            }
            Some(until) if until > case.until => {}
            Some(_) => {
                let text = format!("the time is over: {} gets its share of {} again", case.instance, case.flag);
                parts.incidents.note(case, text).await;
                tokio::time::sleep(parts.verify_after).await;
            }
        }
        let again = parts.incidents.routed_until(case).is_some_and(|until| until > case.until);
        let seen = parts.metrics.instances(&watch_key(case), parts.clock.now_ms());
        parts.incidents.note(case, verdict(&case.instance, acted, again, &seen)).await;
    }

    /// Does what the plan asks for, if it may. Whether it was done.
    async fn act(&self, case: &Case, asked: &str) -> bool {
        let parts = &self.parts;
        let acted_at = parts.clock.now_ms();
        let subject = format!("{}/{}", case.environment, case.instance);
        let chosen = choose(&parts.actions, asked)
            .and_then(|action| self.budget.lock().take(&case.project, &subject, acted_at).map(|()| action));
        let action = match chosen {
            Ok(action) => action,
            Err(refused) => {
                tracing::warn!(incident = case.incident, %refused, "an instance is not healed");
                parts.incidents.note(case, refused.to_string()).await;
                return false;
            }
        };
        let epoch_then = self.epoch(case);
        let outcome = match &action.remedy {
            Remedy::Command { program, arguments } => run(program, arguments, case, COMMAND_LIMIT).await,
            Remedy::Webhook(_) => self.call(action, case).await,
        };
        tracing::info!(incident = case.incident, action = action.name, ?outcome, "a healing action ended");
        parts.incidents.note(case, outcome.note(action)).await;
        let verify_after = u64::try_from(parts.verify_after.as_millis()).unwrap_or(u64::MAX);
        if outcome.is_done() && parts.clock.now_ms().saturating_add(verify_after) < case.until {
            tokio::time::sleep(parts.verify_after).await;
            let connected_since = parts.connections.connected_since(&case.project, &case.environment, &case.instance);
            let presence = Presence { epoch_then, epoch_now: self.epoch(case), connected_since, acted_at };
            parts.incidents.note(case, presence.note(&case.instance)).await;
        }
        outcome.is_done()
    }

    fn epoch(&self, case: &Case) -> Option<u64> {
        let seen = self.parts.metrics.instances(&watch_key(case), self.parts.clock.now_ms());
        seen.into_iter().find(|tally| tally.instance == case.instance).map(|tally| tally.epoch)
    }

    async fn call(&self, action: &HealingAction, case: &Case) -> Outcome {
        let (Remedy::Webhook(target), Some(secret)) = (&action.remedy, &self.parts.secret) else {
            return Outcome::Failed("there is no secret to sign the call with".to_owned());
        };
        let timestamp = self.parts.clock.now_ms() / 1_000;
        let body = json!({
            "type": "healing.requested",
            "timestamp": timestamp,
            "data": {
                "action": action.name, "project": case.project, "environment": case.environment, "flag": case.flag,
                "incident": case.incident, "instance": case.instance, "until": case.until, "reason": case.ill.reason,
            },
        });
        let id = format!("heal-{}", case.incident);
        let body = Bytes::from(body.to_string());
        let signatures = signatures(std::slice::from_ref(secret), &id, timestamp, &body);
        let message = Message { id, timestamp, signatures, media_type: "application/json", body };
        match self.parts.caller.call(target, &message).await {
            Ok(answer) => Outcome::Answered(answer.status),
            Err(error) => Outcome::Failed(error.to_string()),
        }
    }

    async fn sleep_until(&self, until: u64) {
        loop {
            let left = until.saturating_sub(self.parts.clock.now_ms());
            if left == 0 {
                return;
            }
            tokio::time::sleep(Duration::from_millis(left)).await;
        }
    }
}

fn watch_key(case: &Case) -> WatchKey {
    let origin = Origin { project: case.project.as_str().into(), environment: case.environment.as_str().into() };
    WatchKey { origin, flag: case.flag.clone() }
}

/// Runs a command about a case: no shell, none of the server's own variables, no input, a time limit, and the end of its output
/// in the server's log.
async fn run(program: &Path, arguments: &[String], case: &Case, limit: Duration) -> Outcome {
    let mut command = Command::new(program);
    command
        .args(arguments)
        .env_clear()
        .env("PATH", SEARCH_PATH)
        .env("GUIDON_PROJECT", &case.project)
        .env("GUIDON_ENVIRONMENT", &case.environment)
        .env("GUIDON_FLAG", &case.flag)
        .env("GUIDON_INCIDENT", &case.incident)
        .env("GUIDON_INSTANCE", &case.instance)
        .current_dir("/")
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .process_group(0)
        .kill_on_drop(true);
    let mut child = match command.spawn() {
        Ok(child) => child,
        Err(error) => return Outcome::Failed(error.to_string()),
    };
    let said = Arc::new(Mutex::new(Vec::new()));
    let group = child.id();
    let mut readers = tokio::task::JoinSet::new();
    if let Some(pipe) = child.stdout.take() {
        readers.spawn(listen(pipe, Arc::clone(&said)));
    }
    if let Some(pipe) = child.stderr.take() {
        readers.spawn(listen(pipe, Arc::clone(&said)));
    }
    let ended = tokio::time::timeout(limit, child.wait()).await;
    if ended.is_err() {
        kill_group(group);
        // It is reaped by the runtime if it cannot be killed now.
        let _ = tokio::time::timeout(Duration::from_secs(1), child.kill()).await;
    }
    let _ = tokio::time::timeout(OUTPUT_GRACE, async { while readers.join_next().await.is_some() {} }).await;
    let output = String::from_utf8_lossy(&said.lock()).trim().to_owned();
    tracing::info!(incident = case.incident, program = %program.display(), output, "a healing command said");
    match ended {
        Err(_) => Outcome::Late { seconds: limit.as_secs() },
        Ok(Err(error)) => Outcome::Failed(error.to_string()),
        Ok(Ok(status)) => status.code().map_or(Outcome::Signalled, Outcome::Exited),
    }
}

/// Kills a command and what it started; the command leads a group of its own.
fn kill_group(leader: Option<u32>) {
    let leader = leader.and_then(|id| i32::try_from(id).ok()).and_then(rustix::process::Pid::from_raw);
    if let Some(leader) = leader
        && let Err(error) = rustix::process::kill_process_group(leader, rustix::process::Signal::KILL)
    {
        tracing::debug!(%error, "a command had ended by itself");
    }
}

/// Reads to the end, and keeps the last of it.
async fn listen(mut pipe: impl AsyncRead + Unpin, said: Arc<Mutex<Vec<u8>>>) {
    let mut buffer = [0; 1_024];
    while let Ok(read) = pipe.read(&mut buffer).await {
        let Some(new) = buffer.get(..read).filter(|new| !new.is_empty()) else { return };
        let mut said = said.lock();
        said.extend_from_slice(new);
        let too_many = said.len().saturating_sub(MAX_OUTPUT_BYTES);
        said.drain(..too_many);
    }
}

#[cfg(test)]
#[path = "healer_tests.rs"]
mod tests;
