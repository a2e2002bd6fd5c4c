//! Change requests on the write path: opened, edited, decided on and applied, each step a change of its own.

use rand::RngExt;

use super::authorize::{self, counted};
use super::gate::Proposed;
use super::mint::hex;
use super::prepare::prepare;
use super::request::{
    Body, ChangeRequest, DEFAULT_LIFE_MS, MAX_LIFE_MS, MAX_OPEN, MAX_OPEN_PER_AGENT, MAX_OPEN_PER_AUTHOR,
    MAX_TEXT_BYTES, RequestState, Schedule,
};
use super::service::Head;
use super::{
    Author, ChangeDraft, ChangeError, ChangeOutcome, ChangeService, IdempotencyKey, Instruction, Problem, Proposal,
    RequestEdit,
};
use crate::policy::PrincipalKind;
use crate::state::World;

/// A change of what a request asks for.
#[derive(Clone, Debug, Default)]
pub struct RequestRevision {
    /// New instructions; those that stand, read against the present state, if left out.
    pub instructions: Option<Vec<Instruction>>,
    /// New comment; the standing one if left out.
    pub comment: Option<String>,
    /// New schedule; the standing one if left out, none if `Some(None)`.
    pub schedule: Option<Option<Schedule>>,
    /// Lets it be sent again safely.
    pub idempotency: Option<IdempotencyKey>,
}

impl ChangeService {
    /// Opens the change request that `change` has to be and, where it needs nobody's approval, applies it.
    pub(super) async fn open(
        &self,
        author: &Author,
        change: ChangeDraft,
        proposed: Proposed,
    ) -> Result<ChangeOutcome, ChangeError> {
        let proposal = change.proposal.clone().unwrap_or_default();
        let expires_at = self.check_proposal(author, &change, &proposal)?;
        let Proposed { judgement, base_revision, summary } = proposed;
        let by_itself = judgement.applies_by_itself() && !proposal.draft && proposal.schedule.is_none();
        let hash =
            self.keep(&change.project, change.environment.as_deref(), base_revision, change.instructions).await?;
        let id = format!("cr-{}", hex(&rand::rng().random::<[u8; 8]>()));
        let edit = RequestEdit::OpenRequest {
            id: id.clone(),
            author: author.party(),
            environment: change.environment,
            comment: change.comment.clone(),
            commit: change.commit,
            draft: proposal.draft,
            content: judgement.content(hash.clone(), base_revision, summary),
            schedule: proposal.schedule,
            expires_at,
        };
        let opening = ChangeDraft {
            project: change.project.clone(),
            comment: change.comment,
            instructions: vec![Instruction::Request(Box::new(edit))],
            idempotency: change.idempotency,
            ..ChangeDraft::default()
        };
        let opened = self.carry_out(author, opening).await;
        self.forget_unless_used(&hash, &opened).await;
        let opened = opened?;
        if !by_itself || opened.replayed {
            return Ok(opened);
        }
        let system = Author { origin_id: author.origin_id.clone(), ..Author::system() };
        match self.apply_request(&system, &change.project, &id, None).await {
            Ok(applied) => Ok(applied),
            Err(error) => {
                // It stays approved, and the scheduler or a person applies it when it can be.
                tracing::info!(request = id, %error, "a change request that needs nobody was not applied at once");
                Ok(opened)
            }
        }
    }

    /// What a repeated answer is worth now: where it opened a change request that was carried out since, what that did.
    pub(super) async fn carried_out_since(
        &self,
        project: &str,
        outcome: ChangeOutcome,
    ) -> Result<ChangeOutcome, ChangeError> {
        let opened = outcome.opened().map(|request| request.id);
        let world = self.world();
        let request = opened.and_then(|id| world.projects.get(project)?.requests.get(&id));
        let Some(revision) = request.and_then(|request| request.ended.as_ref()?.revision) else { return Ok(outcome) };
        let applied = self.outcome_at(revision).await?;
        Ok(applied.map_or(outcome, |applied| ChangeOutcome { replayed: true, ..applied }))
    }

    /// Checks that there is room for a request, and what was asked of its time, and answers when it ends by itself.
    fn check_proposal(&self, author: &Author, change: &ChangeDraft, proposal: &Proposal) -> Result<u64, ChangeError> {
        let now = self.clock.now_ms();
        let expires_at = proposal.expires_at.unwrap_or(now + DEFAULT_LIFE_MS);
        let mut problems = Vec::new();
        if expires_at <= now || expires_at > now + MAX_LIFE_MS {
            let days = MAX_LIFE_MS / (24 * 60 * 60 * 1_000);
            let message = format!("a change request ends after now and within {days} days");
            problems.push(Problem::new("/request/expiresAt", "outOfRange", message));
        }
        if let Some(schedule) = &proposal.schedule {
            problems.extend(check_schedule(schedule, now, "/request/schedule"));
        }
        let world = self.world();
        let open = world.projects.get(&change.project).into_iter().flat_map(|project| project.requests.values());
        let open: Vec<_> = open.filter(|request| request.state.is_open()).collect();
        let own = open.iter().filter(|request| request.author.id == author.actor_id).count();
        let most = if author.kind == PrincipalKind::Agent { MAX_OPEN_PER_AGENT } else { MAX_OPEN_PER_AUTHOR };
        if own >= most {
            let message = format!("you have {most} open change requests in the project: apply or withdraw some");
            problems.push(Problem::new("", "tooMany", message));
        } else if open.len() >= MAX_OPEN {
            let message = format!("the project has {MAX_OPEN} open change requests: apply, reject or withdraw some");
            problems.push(Problem::new("", "tooMany", message));
        }
        if problems.is_empty() { Ok(expires_at) } else { Err(problems.into()) }
    }

    /// Stores what a request asks for and answers its hash.
    async fn keep(
        &self,
        project: &str,
        environment: Option<&str>,
        base_revision: u64,
        instructions: Vec<Instruction>,
    ) -> Result<String, ChangeError> {
        let body = Body {
            project: project.to_owned(),
            environment: environment.map(str::to_owned),
            base_revision,
            nonce: hex(&rand::rng().random::<[u8; 16]>()),
            instructions,
        };
        let (bytes, hash) = body.seal()?;
        self.requests.put(&hash, bytes).await?;
        Ok(hash)
    }

    /// Deletes what was stored for a step that was not made.
    async fn forget_unless_used(&self, hash: &str, step: &Result<ChangeOutcome, ChangeError>) {
        match step {
            Ok(outcome) if !outcome.replayed => {}
            // The step may turn out to be in the journal.
            Err(ChangeError::Unavailable { .. }) => {}
            Ok(_) | Err(_) => self.forget(hash).await,
        }
    }

    /// Deletes what a request asks for, where nothing speaks of it any more.
    async fn forget(&self, hash: &str) {
        if let Err(error) = self.requests.remove(hash).await {
            tracing::warn!(hash, %error, "what a change request asked for is left in the vault");
        }
    }

    /// The request of this id, as it stands now.
    ///
    /// # Errors
    ///
    /// [`ChangeError::NotFound`].
    pub fn request(&self, project: &str, id: &str) -> Result<std::sync::Arc<ChangeRequest>, ChangeError> {
        find(&self.world(), project, id)
    }

    /// What a request asks for, whole.
    ///
    /// # Errors
    ///
    /// [`ChangeError::Unavailable`] if it was erased.
    pub async fn request_body(&self, request: &ChangeRequest) -> Result<Body, ChangeError> {
        Ok(self.requests.get(&request.content.hash).await?)
    }

    /// Approvals of a request that count now.
    #[must_use]
    pub fn counted_approvals(&self, request: &ChangeRequest) -> usize {
        let world = self.world();
        let project = world.projects.iter().find(|(_, project)| project.requests.contains_key(&request.id));
        let (Some((project, _)), Ok(policies)) = (project, self.policies_of(&world)) else { return 0 };
        let environments: Vec<&String> = request.content.environments.iter().collect();
        counted(&world, request, &environments, project, &policies, self.clock.now_ms()).len()
    }

    /// Whether what a request asks for could still be made of the present state: it says nothing of who may.
    ///
    /// # Errors
    ///
    /// [`ChangeError::Conflict`] names the entries that changed since what it would change; the others are as of
    /// [`ChangeService::submit`].
    pub async fn check_request(&self, request: &ChangeRequest) -> Result<(), ChangeError> {
        let body = self.request_body(request).await?;
        let change = ChangeDraft {
            project: body.project,
            environment: body.environment,
            instructions: body.instructions,
            ..ChangeDraft::default()
        };
        let past = self.past(&change).await?;
        let mut head = self.head().await?;
        let at = self.clock.now_ms().max(head.world.at);
        let Head { world, mint, .. } = &mut *head;
        let prepared = prepare(world, &Author::system(), &change, at, &mut **mint, &past)?;
        self.check_conflicts(&head, request.content.base_revision, &change, &prepared).await
    }

    /// Makes one step of a request: submits, approves, rejects, withdraws or expires it, or says something of it. Whoever the
    /// edit says it is by, it is by `author`.
    ///
    /// # Errors
    ///
    /// As [`ChangeService::submit`].
    pub async fn act_on_request(
        &self,
        author: &Author,
        project: &str,
        edit: RequestEdit,
        idempotency: Option<IdempotencyKey>,
    ) -> Result<ChangeOutcome, ChangeError> {
        if let RequestEdit::OpenRequest { .. } | RequestEdit::EditRequest { .. } | RequestEdit::ApplyRequest { .. } =
            edit
        {
            // What these say of the risk, and of what is applied, only this module works out.
            return Err(vec![forged("", edit.kind())].into());
        }
        self.step(author, project, edit.said_by(&author.actor_id), idempotency, false).await
    }

    async fn step(
        &self,
        author: &Author,
        project: &str,
        edit: RequestEdit,
        idempotency: Option<IdempotencyKey>,
        dry_run: bool,
    ) -> Result<ChangeOutcome, ChangeError> {
        let text = match &edit {
            RequestEdit::CommentRequest { text, .. } => Some((text, "/text", true)),
            RequestEdit::RejectRequest { reason, .. } | RequestEdit::WithdrawRequest { reason, .. } => {
                Some((reason, "/reason", false))
            }
            RequestEdit::ReviewEntry { finding, .. } => Some((finding, "/finding", true)),
            _ => None,
        };
        if let Some((text, pointer, needed)) = text
            && (text.len() > MAX_TEXT_BYTES || (needed && text.trim().is_empty()))
        {
            let message = format!("say something, in at most {MAX_TEXT_BYTES} bytes");
            return Err(vec![Problem::new(pointer, "badText", message)].into());
        }
        if let Some(id) = edit.request() {
            find(&self.world(), project, id)?;
        }
        let change = ChangeDraft {
            project: project.to_owned(),
            instructions: vec![Instruction::Request(Box::new(edit))],
            idempotency,
            dry_run,
            ..ChangeDraft::default()
        };
        self.carry_out(author, change).await
    }

    /// Changes what a request asks for, or reads it against the present state: every approval is void.
    ///
    /// # Errors
    ///
    /// As [`ChangeService::submit`].
    pub async fn edit_request(
        &self,
        author: &Author,
        project: &str,
        id: &str,
        revision: RequestRevision,
    ) -> Result<ChangeOutcome, ChangeError> {
        let request = find(&self.world(), project, id)?;
        let schedule = revision.schedule.unwrap_or(request.schedule);
        let comment = revision.comment.unwrap_or_else(|| request.comment.clone());
        let edit = |content| {
            let comment = comment.clone();
            RequestEdit::EditRequest { id: id.to_owned(), comment, content, schedule }
        };
        // Asked first, with what it asks for already: nothing is read or stored for those who may not edit it.
        let tried =
            self.step(author, project, edit(request.content.clone()), revision.idempotency.clone(), true).await?;
        if tried.replayed {
            return Ok(tried);
        }
        let now = self.clock.now_ms();
        let problems: Vec<Problem> =
            schedule.iter().filter_map(|schedule| check_schedule(schedule, now, "/schedule")).collect();
        if !problems.is_empty() {
            return Err(problems.into());
        }
        let instructions = match revision.instructions {
            Some(instructions) => instructions,
            None => self.request_body(&request).await?.instructions,
        };
        let change = ChangeDraft {
            project: project.to_owned(),
            environment: request.environment.clone(),
            comment: comment.clone(),
            commit: request.commit.clone(),
            instructions: instructions.clone(),
            proposal: Some(Proposal::default()),
            ..ChangeDraft::default()
        };
        let Proposed { mut judgement, base_revision, summary } = self.judge(author, &change).await?;
        if request.author.kind == PrincipalKind::Agent {
            // Whoever edits it, an AI agent wrote it: a person has to agree.
            judgement.needed = judgement.needed.max(1);
        }
        let hash = self.keep(project, request.environment.as_deref(), base_revision, instructions).await?;
        let content = judgement.content(hash.clone(), base_revision, summary);
        let edited = self.step(author, project, edit(content), revision.idempotency, false).await;
        self.forget_unless_used(&hash, &edited).await;
        if edited.as_ref().is_ok_and(|outcome| !outcome.replayed) {
            self.forget(&request.content.hash).await;
        }
        edited
    }

    /// Makes what an approved request asks for, as one entry.
    ///
    /// # Errors
    ///
    /// As [`ChangeService::submit`]. [`ChangeError::Conflict`] names the entries that changed, since it was read, what it
    /// would change: it has to be rebased.
    pub async fn apply_request(
        &self,
        author: &Author,
        project: &str,
        id: &str,
        idempotency: Option<IdempotencyKey>,
    ) -> Result<ChangeOutcome, ChangeError> {
        let world = self.world();
        let request = find(&world, project, id)?;
        let now = self.clock.now_ms();
        let step = RequestEdit::ApplyRequest {
            id: id.to_owned(),
            by: author.actor_id.clone(),
            hash: request.content.hash.clone(),
        };
        // Asked first, so that a refusal does not tell where the request stands.
        let asked = [Instruction::Request(Box::new(step.clone()))];
        let policies = self.policies_of(&world)?;
        if let Err(refused) = authorize::may_be_looked_at(&world, author, project, None, &asked, &policies, now) {
            let about = ChangeDraft { project: project.to_owned(), ..ChangeDraft::default() };
            let error = ChangeError::Refused(refused);
            self.note_refusal(author, &about, &error);
            return Err(error);
        }
        let repeated = self.is_repeat(author, idempotency.as_ref());
        if request.state != RequestState::Approved && !repeated {
            let message =
                format!("the change request stands at \"{}\"; only an approved one is applied", request.state.as_str());
            return Err(vec![Problem::new("", "requestState", message)].into());
        }
        if let Some(schedule) = request.schedule.filter(|schedule| !schedule.is_open(now) && !repeated) {
            let message = format!(
                "the change request is for a window that begins at {} and it is {now} now (milliseconds since 1970)",
                schedule.not_before
            );
            return Err(vec![Problem::new("", "outsideWindow", message)].into());
        }
        let mut instructions = self.request_body(&request).await?.instructions;
        // Last, so that a problem's pointer names the place in what the request asks for.
        instructions.push(Instruction::Request(Box::new(step)));
        let change = ChangeDraft {
            project: project.to_owned(),
            environment: request.environment.clone(),
            comment: request.comment.clone(),
            commit: request.commit.clone(),
            expected_revision: Some(request.content.base_revision),
            instructions,
            idempotency,
            request: Some(id.to_owned()),
            ..ChangeDraft::default()
        };
        self.carry_out(author, change).await
    }
}

/// Refuses a change that would pass itself off as a step of a change request.
pub(super) fn refuse_forged(change: &ChangeDraft) -> Result<(), ChangeError> {
    let steps = change.instructions.iter().enumerate().filter_map(|(index, instruction)| match instruction.edit() {
        Instruction::Request(edit) => Some(forged(&format!("/instructions/{index}/kind"), edit.kind())),
        Instruction::Drill(edit) => Some(made_by_server(&format!("/instructions/{index}/kind"), edit.kind())),
        _ => None,
    });
    let mut problems: Vec<Problem> = steps.take(super::limits::MAX_PROBLEMS).collect();
    if change.request.is_some() {
        problems.push(forged("/request", "applyRequest"));
    }
    if problems.is_empty() { Ok(()) } else { Err(ChangeError::Invalid { problems }) }
}

fn forged(pointer: &str, kind: &str) -> Problem {
    let message = format!(
        "`{kind}` is no instruction of a change: a change request has steps of its own (…/requests/{{id}}/{{step}})"
    );
    Problem::new(pointer, "notHere", message)
}

fn made_by_server(pointer: &str, kind: &str) -> Problem {
    let message =
        format!("`{kind}` is no instruction of a change: the server makes it, by POST …/flags/{{flag}}/drills");
    Problem::new(pointer, "notHere", message)
}

fn find(world: &World, project: &str, id: &str) -> Result<std::sync::Arc<ChangeRequest>, ChangeError> {
    let found = world.projects.get(project).and_then(|project| project.requests.get(id));
    found.cloned().ok_or_else(|| {
        let message = format!("there is no change request \"{id}\"");
        vec![Problem::new("", "unknownRequest", message)].into()
    })
}

fn check_schedule(schedule: &Schedule, now: u64, pointer: &str) -> Option<Problem> {
    let window = schedule.not_after.is_none_or(|end| end > schedule.not_before && end > now);
    let near = schedule.not_before <= now + MAX_LIFE_MS;
    (!window || !near).then(|| {
        let days = MAX_LIFE_MS / (24 * 60 * 60 * 1_000);
        let message = format!("a window begins within {days} days, and ends after it begins and after now");
        Problem::new(pointer, "outOfRange", message)
    })
}
