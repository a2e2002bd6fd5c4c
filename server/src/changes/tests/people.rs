//! A server with people, programs and AI agents, and a flag that is on in production.

use serde_json::{Value, json};

use super::*;
use crate::environments::Tier;
use crate::identity::DirectoryEdit;
use crate::identity::directory::Scope;
use crate::policy::Role;

/// The people there are, with the roles they have in all projects and tiers.
const PEOPLE: [(&str, &[Role]); 9] = [
    ("admin", &[Role::Administrator]),
    ("dev", &[Role::Developer]),
    ("dev-2", &[Role::Developer]),
    ("manager", &[Role::ReleaseManager]),
    ("approver", &[Role::Approver]),
    ("approver-2", &[Role::Approver]),
    // Writes and approves: what keeps them apart is who wrote what.
    ("both", &[Role::Developer, Role::Approver, Role::ReleaseManager]),
    ("viewer", &[Role::Viewer, Role::Auditor, Role::Experimenter]),
    ("nobody", &[]),
];

/// Everything that a token may be scoped to.
fn all_actions() -> Vec<String> {
    ["read", "export", "edit", "delete", "credential", "request"].map(str::to_owned).to_vec()
}

impl Server {
    /// A server with [`PEOPLE`], an AI agent of `both`, a service account, and the flag `engine`: on in production, where it
    /// serves everybody the baseline.
    pub(crate) async fn governed() -> Self {
        let server = Self::start().await;
        server.invite().await;
        server.direct("development", json!([engine_flag("engine"), engine_flag("idle")])).await;
        for environment in ["staging", "production"] {
            server.direct(environment, json!([{"kind": "turnFlagOn", "flag": "engine"}])).await;
        }
        server
    }

    pub(crate) async fn invite(&self) {
        let operator = Author::of(crate::identity::OPERATOR, "origin-1", PrincipalKind::Operator);
        let account = |id: &str| DirectoryEdit::CreateAccount { id: id.to_owned() };
        let claimed = |id: &str| DirectoryEdit::ClaimAccount { id: id.to_owned() };
        self.direct_directory(&operator, vec![account("admin")]).await;
        self.direct_directory(&operator, vec![granted("admin", Role::Administrator, &[])]).await;
        self.direct_directory(&Author::system(), vec![claimed("admin")]).await;
        let others = || PEOPLE.iter().skip(1);
        let admin = self.human("admin");
        self.direct_directory(&admin, others().map(|(id, _)| account(id)).collect()).await;
        self.direct_directory(&Author::system(), others().map(|(id, _)| claimed(id)).collect()).await;
        let roles = others().flat_map(|(id, roles)| roles.iter().map(|role| granted(id, *role, &[])));
        self.direct_directory(&admin, roles.collect()).await;
        let agent = DirectoryEdit::CreateAgent {
            id: String::new(),
            name: "helper".to_owned(),
            tool: "editor".to_owned(),
            model: String::new(),
            owner: "both".to_owned(),
            expires_at: self.clock.now() + 60 * 24 * 60 * 60 * 1_000,
        };
        let service = DirectoryEdit::CreateServiceAccount { id: String::new(), name: "pipeline".to_owned() };
        self.direct_directory(&admin, vec![agent, service]).await;
    }

    pub(crate) async fn direct_directory(&self, author: &Author, edits: Vec<DirectoryEdit>) {
        self.edit_directory(author, edits).await.unwrap();
    }

    pub(crate) async fn edit_directory(
        &self,
        author: &Author,
        edits: Vec<DirectoryEdit>,
    ) -> Result<ChangeOutcome, ChangeError> {
        let instructions = edits.into_iter().map(|edit| Instruction::Directory(Box::new(edit))).collect();
        self.service.submit(author, ChangeDraft { instructions, ..ChangeDraft::default() }).await
    }

    /// Makes a change as the server itself, which may edit everywhere.
    pub(crate) async fn direct(&self, environment: &str, instructions: Value) {
        self.as_author(&Author::system(), environment, instructions).await.unwrap();
    }

    pub(crate) async fn as_author(
        &self,
        author: &Author,
        environment: &str,
        instructions: Value,
    ) -> Result<ChangeOutcome, ChangeError> {
        let environment = Some(environment.to_owned());
        self.service.submit(author, ChangeDraft { environment, ..draft(instructions) }).await
    }

    /// A person who has just proved a second factor.
    pub(crate) fn human(&self, id: &str) -> Author {
        Author { factor_at: Some(self.clock.now()), ..self.stale(id) }
    }

    /// A person who has not.
    pub(crate) fn stale(&self, id: &str) -> Author {
        Author::of(id, "origin-1", PrincipalKind::Human)
    }

    /// The AI agent, with a token for everything.
    pub(crate) fn agent(&self) -> Author {
        let owner = Some("both".to_owned());
        Author { owner, ..self.with_token(PrincipalKind::Agent, all_actions(), &[]) }
    }

    /// The service account, with a token for these actions and environments.
    pub(crate) fn service_account(&self, actions: &[&str], environments: &[&str]) -> Author {
        let actions = actions.iter().map(|word| (*word).to_owned()).collect();
        self.with_token(PrincipalKind::Service, actions, environments)
    }

    fn with_token(&self, kind: PrincipalKind, actions: Vec<String>, environments: &[&str]) -> Author {
        let world = self.service.world();
        let known = world.directory.principals.values().find(|principal| principal.kind == kind).unwrap();
        let scope = Scope {
            project: Some("default".to_owned()),
            environments: environments.iter().map(|key| (*key).to_owned()).collect(),
            actions,
            flag: None,
        };
        Author { scope: Some(scope), credential: Some("token-1".to_owned()), ..Author::of(&known.id, "origin-1", kind) }
    }

    pub(crate) fn request(&self, id: &str) -> Arc<ChangeRequest> {
        self.service.request("default", id).unwrap()
    }

    pub(crate) async fn step(&self, author: &Author, edit: RequestEdit) -> Result<ChangeOutcome, ChangeError> {
        self.service.act_on_request(author, "default", edit, None).await
    }

    /// Approves what the request asks for now.
    pub(crate) async fn approve(&self, author: &Author, id: &str) -> Result<ChangeOutcome, ChangeError> {
        let hash = self.request(id).content.hash.clone();
        self.step(author, RequestEdit::ApproveRequest { id: id.to_owned(), by: String::new(), hash }).await
    }

    pub(crate) async fn apply(&self, author: &Author, id: &str) -> Result<ChangeOutcome, ChangeError> {
        self.service.apply_request(author, "default", id, None).await
    }

    /// Whether the flag is on there.
    pub(crate) fn is_on(&self, environment: &str, flag: &str) -> bool {
        self.service.world().flag("default", flag).unwrap().stored.environments[environment].on
    }
}

impl ManualClock {
    /// As the trait, without having to name it.
    pub(crate) fn now(&self) -> u64 {
        crate::clock::Clock::now_ms(self)
    }
}

pub(crate) fn granted(principal: &str, role: Role, tiers: &[Tier]) -> DirectoryEdit {
    DirectoryEdit::GrantRole {
        id: String::new(),
        principal: Some(principal.to_owned()),
        group: None,
        role,
        project: None,
        tiers: tiers.to_vec(),
    }
}

/// A rollout of `engine` that gives `ai` of 100,000 slots to AI.
pub(crate) fn rollout(ai: u32) -> Value {
    json!([{"kind": "setRollout", "flag": "engine", "weights": {"ai": ai, "baseline": 100_000 - ai}}])
}
