//! What a decision is made from: who asks, for what, where, and the facts that policies may look at.

use std::collections::BTreeSet;

use serde::{Deserialize, Serialize};

use super::Action;
use crate::environments::Tier;

/// What a principal is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum PrincipalKind {
    /// Whoever holds the token that the server was started with: sets the first administrator up.
    Operator,
    /// A person with an account.
    Human,
    /// A program with tokens of its own, such as a deployment pipeline.
    Service,
    /// An AI tool, owned by a person.
    Agent,
    /// An application with an SDK key.
    Application,
    /// The server itself: the scheduler, the release engine, the guard.
    System,
}

impl PrincipalKind {
    /// All kinds.
    pub const ALL: [Self; 6] =
        [Self::Operator, Self::Human, Self::Service, Self::Agent, Self::Application, Self::System];

    /// The word used in JSON.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Operator => "operator",
            Self::Human => "human",
            Self::Service => "service",
            Self::Agent => "agent",
            Self::Application => "application",
            Self::System => "system",
        }
    }
}

/// What a person may do in a project and a tier.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum Role {
    /// Reads configuration.
    Viewer,
    /// Edits below staging, proposes above.
    Developer,
    /// Edits staging, applies approved changes, stops what goes wrong in production.
    ReleaseManager,
    /// Approves and rejects change requests.
    Approver,
    /// Says who may do what.
    Administrator,
    /// Reads everything, the audit trail included.
    Auditor,
    /// Reads assignment logs and results.
    Experimenter,
}

impl Role {
    /// All roles.
    pub const ALL: [Self; 7] = [
        Self::Viewer,
        Self::Developer,
        Self::ReleaseManager,
        Self::Approver,
        Self::Administrator,
        Self::Auditor,
        Self::Experimenter,
    ];

    /// The word used in JSON and policies.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Viewer => "viewer",
            Self::Developer => "developer",
            Self::ReleaseManager => "releaseManager",
            Self::Approver => "approver",
            Self::Administrator => "administrator",
            Self::Auditor => "auditor",
            Self::Experimenter => "experimenter",
        }
    }
}

/// Who asks.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Subject {
    /// Identifier, as journal entries name it.
    pub id: String,
    /// What it is.
    pub kind: PrincipalKind,
    /// Roles it has on the resource's project and tier. Only people have any.
    pub roles: BTreeSet<Role>,
    /// The person who answers for an AI agent.
    pub owner: Option<String>,
}

/// Where it would happen.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Resource {
    /// Key of the project; empty for the installation as a whole.
    pub project: String,
    /// Key of the environment; empty for a project as a whole.
    pub environment: String,
    /// Tier of the environment; `None` where there is no environment.
    pub tier: Option<Tier>,
}

/// How an edit is to be made.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Mode {
    /// At once.
    #[default]
    Direct,
    /// As a change request.
    Proposed,
}

impl Mode {
    /// The word used in policies.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Direct => "direct",
            Self::Proposed => "proposed",
        }
    }
}

/// Where a change moves people.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum Direction {
    /// Nobody is served anything else by it.
    #[default]
    Still,
    /// Everyone it moves, in dependent flags too, gets the off variation or one that a person wrote.
    Lowering,
    /// Somebody may get something that is neither.
    Widening,
}

impl Direction {
    /// The word used in policies and JSON.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Still => "still",
            Self::Lowering => "lowering",
            Self::Widening => "widening",
        }
    }
}

/// How much a change may hurt.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum RiskLevel {
    /// Applies by itself.
    #[default]
    Low,
    /// Needs somebody else's look.
    Medium,
    /// Needs as many as the policy says.
    High,
}

impl RiskLevel {
    /// The word used in policies and JSON.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Low => "low",
            Self::Medium => "medium",
            Self::High => "high",
        }
    }
}

/// What policies may look at beside who, what and where.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Facts {
    /// How an edit is to be made.
    pub mode: Mode,
    /// Where the change moves people.
    pub direction: Direction,
    /// Whether the principal proved a second factor in the last ten minutes.
    pub factor_fresh: bool,
    /// Whether the credential was made for this project, environment, action and flag.
    pub in_scope: bool,
    /// Whether the environment is frozen now.
    pub frozen: bool,
    /// Changes the principal made in this environment in the last hour.
    pub changes_last_hour: u32,
    /// Whether what would be shown holds no person's key.
    pub anonymised: bool,
    /// Whether nobody can administer the installation yet.
    pub unclaimed: bool,
    /// For credentials: whether it is the asking principal's own. For requests: whether the principal, or the person who
    /// owns it, wrote the request; or the principal owns the AI agent that did.
    pub own: bool,
    /// Score of the change's risk, 0 to 100.
    pub risk_score: u32,
    /// What the score means.
    pub risk_level: RiskLevel,
    /// Valid approvals of the request.
    pub approvals: u32,
    /// Whether what happens was asked for by a plan or request that was approved.
    pub approved_plan: bool,
    /// For requests: whether an AI agent wrote it.
    pub by_agent: bool,
    /// For edits and requests: whether the rollback of every flag that is changed was rehearsed lately, in staging or production.
    pub drill_fresh: bool,
}

/// One question to the policies.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Request {
    /// Who asks.
    pub subject: Subject,
    /// For what.
    pub action: Action,
    /// Where.
    pub resource: Resource,
    /// What else is known.
    pub facts: Facts,
}

/// What the policies say.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Decision {
    /// Whether it may happen.
    pub allowed: bool,
    /// The policies that decided, by name: those that permit if it may, those that forbid if it may not; empty if none spoke.
    pub policies: Vec<String>,
}
