//! What is tried: anything by anybody, much of it forged.

use proptest::prelude::*;
use serde_json::{Value, json};

use super::super::people::granted;
use super::*;
use crate::changes::request::{Content, Risk};
use crate::environments::Tier;
use crate::identity::DirectoryEdit;
use crate::identity::directory::Scope;
use crate::policy::{RiskLevel, Role};

/// One try: numbers that [`Worker`] reads as who does what.
#[derive(Clone, Copy, Debug)]
pub(super) struct Try {
    who: u8,
    what: u8,
    a: u8,
    b: u8,
    factor: u8,
    place: u8,
}

impl Arbitrary for Try {
    type Parameters = ();
    type Strategy = BoxedStrategy<Self>;

    fn arbitrary_with((): ()) -> Self::Strategy {
        any::<[u8; 6]>().prop_map(|[who, what, a, b, factor, place]| Self { who, what, a, b, factor, place }).boxed()
    }
}

const ENVIRONMENTS: [&str; 4] = ["development", "testing", "staging", "production"];
const HUMANS: [&str; 9] = ["dev", "manager", "approver", "both", "approver-2", "dev-2", "admin", "viewer", "nobody"];

/// Carries tries out.
pub(super) struct Worker<'a> {
    server: &'a Server,
    /// Requests in the order in which they were opened.
    requests: Vec<String>,
}

fn pick<T: Clone>(of: &[T], by: u8) -> T {
    of[usize::from(by) % of.len()].clone()
}

/// Gives some of the instructions an environment of their own.
fn elsewhere(instructions: &mut [Instruction], by: u8) {
    for (index, instruction) in instructions.iter_mut().enumerate() {
        let by = by.rotate_left(if index == 0 { 0 } else { 3 });
        if by.is_multiple_of(3) {
            *instruction = Instruction::within(pick(&ENVIRONMENTS, by / 3), instruction.clone());
        }
    }
}

impl<'a> Worker<'a> {
    pub(super) fn new(server: &'a Server) -> Self {
        Self { server, requests: Vec::new() }
    }

    /// Who tries, and what came of it; `None` if it was only time that went by.
    pub(super) async fn attempt(&mut self, it: &Try) -> Option<(Author, Result<ChangeOutcome, ChangeError>)> {
        let author = self.author(it);
        let outcome = match it.what % 24 {
            0..=5 => self.change(&author, it, None).await,
            6..=8 => {
                let proposal = Proposal { draft: it.factor.is_multiple_of(5), ..Proposal::default() };
                self.change(&author, it, Some(proposal)).await
            }
            9..=11 => {
                let factor = if it.factor.is_multiple_of(4) { it.factor } else { 0 };
                let approver = self.human(pick(&["approver", "approver-2", "both"], it.who), factor);
                let outcome = self.step(&approver, &Try { b: it.b | 8, ..*it }).await;
                return Some((approver, outcome));
            }
            12 => self.step(&author, it).await,
            13..=14 => {
                let applier = if it.who.is_multiple_of(2) { self.human("manager", it.factor & 4) } else { author };
                let id = self.request(it.a);
                let outcome = self.server.service.apply_request(&applier, "default", &id, None).await;
                return Some((applier, outcome));
            }
            15 => {
                let id = self.request(it.a);
                let system = Author::system();
                let outcome = self.server.service.apply_request(&system, "default", &id, None).await;
                return Some((system, outcome));
            }
            16 => self.edit(&author, it).await,
            17..=19 => self.forge(&author, it).await,
            20..=21 => {
                let author = if it.b.is_multiple_of(4) { self.human("admin", it.factor) } else { author };
                let outcome = self.directory(&author, it).await;
                return Some((author, outcome));
            }
            22 => {
                let author = if it.b.is_multiple_of(2) { self.human("manager", it.factor) } else { author };
                let outcome = self.freeze(&author, it).await;
                return Some((author, outcome));
            }
            _ => {
                let minutes = pick(&[1, 9, 11, 61, 20_000, 22_000], it.a);
                self.server.clock.advance_ms(minutes * 60 * 1_000);
                return None;
            }
        };
        if let Ok(outcome) = &outcome
            && let Some(id) = outcome.request.clone().filter(|id| !self.requests.contains(id))
        {
            self.requests.push(id);
        }
        Some((author, outcome))
    }

    fn author(&self, it: &Try) -> Author {
        match it.who % 20 {
            15 => Author::of(crate::identity::OPERATOR, "origin-1", PrincipalKind::Operator),
            16 => self.scoped(self.server.agent(), it.factor),
            17 => self.scoped(self.server.service_account(&["read", "edit", "delete", "request"], &[]), it.factor),
            18 => Author::of("key-1", "origin-1", PrincipalKind::Application),
            19 if it.factor.is_multiple_of(2) => Author::system(),
            19 => self.scoped(self.server.agent(), 0),
            human => self.human(pick(&HUMANS, human), it.factor),
        }
    }

    /// A person whose factor is fresh, as good as old, old, or was never proved.
    fn human(&self, id: &str, factor: u8) -> Author {
        let now = self.server.clock.now();
        let ten = 10 * 60 * 1_000;
        let factor_at = [Some(now), Some(now - ten + 1), Some(now - ten), None, Some(now), Some(now + 1)];
        Author { factor_at: pick(&factor_at, factor), ..self.server.stale(id) }
    }

    fn scoped(&self, author: Author, by: u8) -> Author {
        let all = || author.scope.clone().unwrap_or_default();
        let words = |words: &[&str]| words.iter().map(|word| (*word).to_owned()).collect::<Vec<_>>();
        let scope = match by % 6 {
            0 => Scope { environments: words(&["development", "production"]), ..all() },
            1 => Scope { actions: words(&["turnFlagOn", "applyRequest"]), ..all() },
            2 => Scope { flag: Some("idle".to_owned()), ..all() },
            3 => Scope { project: Some("elsewhere".to_owned()), ..all() },
            _ => all(),
        };
        Author { scope: Some(scope), ..author }
    }

    /// A request that there is, mostly a late one, or one that there is not.
    fn request(&self, by: u8) -> String {
        let world = self.server.service.world();
        let open = |id: &&String| world.projects["default"].requests.get(*id).is_some_and(|it| it.state.is_open());
        if let Some(id) = self.requests.iter().rev().find(open).filter(|_| !by.is_multiple_of(4)) {
            return id.clone();
        }
        let from_last = usize::from(by % 8).min(usize::from(by % 3));
        let index = self.requests.len().checked_sub(from_last + 1);
        index.map_or_else(|| "cr-0".to_owned(), |index| self.requests[index].clone())
    }

    fn instruction(&self, by: u8, more: u8) -> Value {
        let flag = if more.is_multiple_of(3) { "idle" } else { "engine" };
        let ai = u32::from(more) * 390;
        match by % 20 {
            0 | 1 => json!({"kind": "turnFlagOn", "flag": flag}),
            2 => json!({"kind": "turnFlagOff", "flag": flag}),
            3..=6 => {
                let ai = pick(&[0, 200, 1_000, 5_000, ai, 100_000], more);
                json!({"kind": "setRollout", "flag": flag, "weights": {"ai": ai, "baseline": 100_000 - ai}})
            }
            7 => {
                json!({"kind": "setFallthrough", "flag": flag, "serve": {"variation": if more.is_multiple_of(2) { "ai" } else { "baseline" }}})
            }
            8 => {
                json!({"kind": "setOffVariation", "flag": flag, "variation": if more.is_multiple_of(2) { "ai" } else { "baseline" }})
            }
            9 => json!({"kind": "updateFlag", "flag": flag, "name": format!("Name {more}")}),
            10 => json!({"kind": "updateVariation", "flag": flag, "variation": "ai", "value": format!("value {more}")}),
            11 => json!({"kind": "updateVariation", "flag": flag, "variation": "ai", "provenance": {"by": "human"}}),
            12 => json!({"kind": "archiveFlag", "flag": flag}),
            13 => json!({"kind": "deleteFlag", "flag": flag}),
            14 if more.is_multiple_of(4) => engine_flag(flag),
            14 => engine_flag(&format!("new-{}", more % 3)),
            15 => json!({"kind": "createSegment", "segment": {"key": "beta", "included": ["p-1"]}}),
            16 => json!({"kind": "addSegmentKeys", "segment": "beta", "keys": [format!("p-{more}")]}),
            17 => json!({"kind": "deleteSegment", "segment": "beta"}),
            18 => {
                json!({"kind": "createEnvironment", "key": format!("more-{}", more % 2), "tier": ENVIRONMENTS[usize::from(more % 4)]})
            }
            _ => json!({"kind": "setClientSide", "flag": flag, "clientSide": more.is_multiple_of(2)}),
        }
    }

    fn draft(&self, it: &Try) -> ChangeDraft {
        let mut instructions = vec![self.instruction(it.a, it.b)];
        if it.b.is_multiple_of(5) {
            instructions.push(self.instruction(it.b, it.a));
        }
        // Mostly where it matters.
        let environments = [ENVIRONMENTS.as_slice(), &["production", "production", "staging", "testing"]].concat();
        let environment = Some(pick(&environments, it.factor.rotate_left(3) ^ it.b).to_owned());
        let mut change = ChangeDraft { environment, ..draft(Value::Array(instructions)) };
        elsewhere(&mut change.instructions, it.place);
        change
    }

    async fn change(
        &self,
        author: &Author,
        it: &Try,
        proposal: Option<Proposal>,
    ) -> Result<ChangeOutcome, ChangeError> {
        self.server.service.submit(author, ChangeDraft { proposal, ..self.draft(it) }).await
    }

    async fn step(&self, author: &Author, it: &Try) -> Result<ChangeOutcome, ChangeError> {
        let id = self.request(it.a);
        let world = self.server.service.world();
        let hash = world.projects["default"].requests.get(&id).map_or_else(String::new, |it| it.content.hash.clone());
        let by = pick(&HUMANS, it.b).to_owned();
        let edit = match it.b % 16 {
            0 => RequestEdit::RejectRequest { id, by, reason: String::new() },
            1 => RequestEdit::WithdrawRequest { id, by, reason: String::new() },
            2 => RequestEdit::CommentRequest { id, by, text: "why?".to_owned() },
            3 => RequestEdit::ExpireRequest { id },
            4 => RequestEdit::SubmitRequest { id },
            5 => RequestEdit::ApproveRequest { id, by, hash: "0".repeat(64) },
            6 => RequestEdit::ApplyRequest { id, by, hash },
            7 => {
                let revision = world.projects["default"].reviews.keys().next_back().copied().unwrap_or(3);
                RequestEdit::ReviewEntry { revision, by, finding: "fine".to_owned() }
            }
            _ => RequestEdit::ApproveRequest { id, by, hash },
        };
        self.server.step(author, edit).await
    }

    async fn edit(&self, author: &Author, it: &Try) -> Result<ChangeOutcome, ChangeError> {
        let mut instructions: Option<Vec<Instruction>> =
            it.b.is_multiple_of(2).then(|| serde_json::from_value(json!([self.instruction(it.b, it.a)])).unwrap());
        elsewhere(instructions.as_deref_mut().unwrap_or_default(), it.place);
        let revision = RequestRevision { instructions, ..RequestRevision::default() };
        self.server.service.edit_request(author, "default", &self.request(it.a), revision).await
    }

    /// What passes itself off as a step of a request.
    async fn forge(&self, author: &Author, it: &Try) -> Result<ChangeOutcome, ChangeError> {
        let id = self.request(it.a);
        let world = self.server.service.world();
        let request = world.projects["default"].requests.get(&id).cloned();
        let hash = request.as_ref().map_or_else(|| "0".repeat(64), |request| request.content.hash.clone());
        let by = if it.b.is_multiple_of(2) { author.actor_id.clone() } else { "approver".to_owned() };
        let content = Content {
            hash: hash.clone(),
            base_revision: world.revision,
            environments: if it.b.is_multiple_of(3) { Vec::new() } else { vec!["development".to_owned()] },
            flags: Vec::new(),
            summary: Vec::new(),
            risk: Risk { score: 0, level: RiskLevel::Low, reasons: Vec::new() },
            needed: 0,
        };
        let step = match it.factor % 5 {
            0 => RequestEdit::ApproveRequest { id: id.clone(), by, hash },
            1 | 2 => RequestEdit::ApplyRequest { id: id.clone(), by, hash },
            3 => RequestEdit::EditRequest { id: id.clone(), comment: String::new(), content, schedule: None },
            _ => RequestEdit::OpenRequest {
                id: "cr-forged".to_owned(),
                author: author.party(),
                environment: Some("production".to_owned()),
                comment: String::new(),
                commit: None,
                draft: false,
                content,
                schedule: None,
                expires_at: self.server.clock.now() + 1_000_000,
            },
        };
        let mut change = self.draft(it);
        if it.b.is_multiple_of(4) {
            change.instructions.clear();
        }
        let step = Instruction::Request(Box::new(step));
        match it.b % 8 {
            0..=2 => change.instructions.insert(0, step),
            3..=6 => change.instructions.push(step),
            _ => {}
        }
        change.request = it.a.is_multiple_of(2).then_some(id);
        self.server.service.submit(author, change).await
    }

    async fn directory(&self, author: &Author, it: &Try) -> Result<ChangeOutcome, ChangeError> {
        let whom = pick(&HUMANS[1..], it.a).to_owned();
        let world = self.server.service.world();
        let edit = match it.b % 7 {
            0 | 1 => granted(&whom, pick(&Role::ALL, it.a / 9), &[pick(&Tier::ALL, it.factor)]),
            2 if whom != "admin" => DirectoryEdit::DisablePrincipal { id: whom },
            3 => DirectoryEdit::EnablePrincipal { id: whom },
            4 => {
                let ids: Vec<&String> = world.directory.bindings.keys().collect();
                DirectoryEdit::RevokeRole { id: pick(&ids, it.a).clone() }
            }
            5 => DirectoryEdit::SetPolicy {
                name: "own".to_owned(),
                text: "@id(\"all\") permit (principal, action, resource);".to_owned(),
            },
            _ => DirectoryEdit::CreateAccount { id: format!("new-{}", it.a) },
        };
        if matches!(edit, DirectoryEdit::SetPolicy { .. }) && author.actor_id == "admin" {
            // What an administrator permits beyond the table is no way around it.
            return self.server.edit_directory(author, Vec::new()).await;
        }
        self.server.edit_directory(author, vec![edit]).await
    }

    async fn freeze(&self, author: &Author, it: &Try) -> Result<ChangeOutcome, ChangeError> {
        let environment = pick(&ENVIRONMENTS, it.a);
        let world = self.server.service.world();
        let standing = world.projects["default"].environments[environment].freezes.first().cloned();
        let instruction = match standing {
            Some(freeze) if it.b.is_multiple_of(3) => json!({"kind": "liftFreeze", "id": freeze.id}),
            _ => {
                let until = self.server.clock.now() + 30 * 60 * 1_000;
                json!({"kind": "declareFreeze", "reason": "because", "until": until})
            }
        };
        self.server.as_author(author, environment, json!([instruction])).await
    }
}
