//! The whole of who may do what, as a table: every kind of principal and role, every action, every tier.
//!
//! The table is asked of the policies, not told: a cell is the first of a list of circumstances under which the policies
//! allow it. On top of what a cell says come freezes, the quota of AI agents, and the approvals of change requests.

use std::collections::BTreeSet;
use std::fmt::Write as _;

use super::vocabulary::Place;
use super::{
    Action, Direction, Effect, Facts, Group, Mode, PolicySet, PrincipalKind, Request, Resource, RiskLevel, Role,
    Subject,
};
use crate::environments::Tier;

/// A line of the table: a kind of principal, and for people a role.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Who {
    /// A person with this one role, or none.
    Human(Option<Role>),
    /// Anybody else; no person.
    Other(PrincipalKind),
}

impl Who {
    /// Everybody, in the table's order.
    #[must_use]
    pub fn all() -> Vec<Self> {
        let people = std::iter::once(None).chain(Role::ALL.into_iter().map(Some)).map(Self::Human);
        let others = PrincipalKind::ALL.into_iter().filter(|kind| *kind != PrincipalKind::Human).map(Self::Other);
        people.chain(others).collect()
    }

    /// The words that the table has for it.
    #[must_use]
    pub fn name(self) -> String {
        match self {
            Self::Human(None) => "human, no role".to_owned(),
            Self::Human(Some(role)) => format!("human, {}", role.as_str()),
            Self::Other(kind) => kind.as_str().to_owned(),
        }
    }

    fn subject(self) -> Subject {
        let (kind, roles) = match self {
            Self::Human(role) => (PrincipalKind::Human, role.into_iter().collect()),
            Self::Other(kind) => (kind, BTreeSet::new()),
        };
        let owner = (kind == PrincipalKind::Agent).then(|| "somebody".to_owned());
        Subject { id: "anybody".to_owned(), kind, roles, owner }
    }
}

/// A cell of the table.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Answer {
    /// Always.
    Yes,
    /// Within the token's scope.
    Scope,
    /// Only what is one's own.
    Own,
    /// Within the token's scope, where nothing shown holds a person's key.
    Masked,
    /// Only with a fresh factor.
    Factor,
    /// Only while nobody can administer the installation.
    First,
    /// Only what an approved plan asks for, and lowering.
    Plan,
    /// At once only to lower, with a fresh factor; else as a change request.
    Stop,
    /// Only as a change request.
    Request,
    /// Never.
    No,
}

impl Answer {
    /// All answers.
    pub const ALL: [Self; 10] = [
        Self::Yes,
        Self::Scope,
        Self::Own,
        Self::Masked,
        Self::Factor,
        Self::First,
        Self::Plan,
        Self::Stop,
        Self::Request,
        Self::No,
    ];

    /// The word in the table.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Yes => "yes",
            Self::Own => "own",
            Self::Scope => "scope",
            Self::Masked => "masked",
            Self::Factor => "factor",
            Self::First => "first",
            Self::Plan => "plan",
            Self::Stop => "stop",
            Self::Request => "request",
            Self::No => "no",
        }
    }

    /// What the word means.
    #[must_use]
    pub fn meaning(self) -> &'static str {
        match self {
            Self::Yes => "may",
            Self::Own => "may, with their own (an AI agent within its token's scope)",
            Self::Scope => "may within the token's scope",
            Self::Masked => "may within the token's scope, where nothing shown holds a person's key",
            Self::Factor => "may with a factor proved in the last ten minutes; never decides on their own request",
            Self::First => "may while nobody can administer the installation",
            Self::Plan => "may where an approved plan or request asks for it; edits that lower, always",
            Self::Stop => {
                "may at once only to lower, with a factor proved in the last ten minutes; else as a change request"
            }
            Self::Request => "may only as a change request",
            Self::No => "may not",
        }
    }

    /// The circumstances under which this is the answer; `None` for a plain no.
    fn circumstances(self) -> Option<Facts> {
        // What is hardest to get: somebody new may get something new, at once.
        let hard = Facts { direction: Direction::Widening, ..Facts::default() };
        Some(match self {
            Self::Yes => hard,
            Self::Own => Facts { own: true, in_scope: true, ..hard },
            Self::Scope => Facts { in_scope: true, ..hard },
            Self::Masked => Facts { in_scope: true, anonymised: true, ..hard },
            Self::Factor => Facts { factor_fresh: true, ..hard },
            Self::First => Facts { unclaimed: true, ..hard },
            Self::Plan => Facts { approved_plan: true, ..hard },
            Self::Stop => Facts { factor_fresh: true, direction: Direction::Lowering, ..hard },
            Self::Request => Facts { mode: Mode::Proposed, in_scope: true, ..hard },
            Self::No => return None,
        })
    }
}

/// What a principal gets for an action.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Row {
    /// For what.
    pub action: Action,
    /// Who.
    pub who: Who,
    /// In each tier, in order.
    pub tiers: [Answer; 4],
    /// Where there is no environment: for the project or the installation as a whole. `None` if that cannot be.
    pub beyond: Option<Answer>,
}

impl Row {
    /// The answer in `tier`.
    #[must_use]
    pub fn at(&self, tier: Tier) -> Answer {
        self.tiers[tier as usize]
    }
}

/// The table under `set`: every action, everybody.
#[must_use]
pub fn rows(set: &PolicySet) -> Vec<Row> {
    let everybody = Who::all();
    let mut rows = Vec::with_capacity(Action::ALL.len() * everybody.len());
    for action in Action::ALL {
        for who in &everybody {
            let environment = |tier: Tier| resource("p", tier.as_str(), Some(tier));
            rows.push(Row {
                action: *action,
                who: *who,
                tiers: Tier::ALL.map(|tier| answer(set, *who, *action, &environment(tier))),
                beyond: beyond(*action).map(|resource| answer(set, *who, *action, &resource)),
            });
        }
    }
    rows
}

/// The table as people read it: the words, a block for each group, and the approvals that a change request needs.
#[must_use]
pub fn render(set: &PolicySet, rows: &[Row]) -> String {
    let mut text = String::from("Who may do what. Freezes, the quota of AI agents and approvals come on top.\n\n");
    for answer in Answer::ALL {
        let _ = writeln!(text, "  {:<8} {}", answer.as_str(), answer.meaning());
    }
    text.push_str("  -        where there is no environment: the project or the installation as a whole\n");
    for group in Group::ALL {
        let _ = writeln!(text, "\n== {} ==\n", group.as_str());
        line(&mut text, "action", "principal", &["development", "testing", "staging", "production", "-"]);
        for row in rows.iter().filter(|row| row.action.group() == group) {
            let [development, testing, staging, production] = row.tiers.map(Answer::as_str);
            let beyond = row.beyond.map_or("", Answer::as_str);
            let cells = [development, testing, staging, production, beyond];
            line(&mut text, row.action.as_str(), &row.who.name(), &cells);
        }
    }
    text.push_str("\n== approvals that applyRequest needs ==\n\n");
    line(&mut text, "risk", "", &["development", "testing", "staging", "production", "-"]);
    for risk_level in [RiskLevel::Low, RiskLevel::Medium, RiskLevel::High] {
        let places = Tier::ALL.map(|tier| resource("p", tier.as_str(), Some(tier))).into_iter();
        let cells: Vec<String> = places
            .chain([resource("p", "", None)])
            .map(|resource| {
                let facts = Facts { factor_fresh: true, risk_level, ..Facts::default() };
                let subject = Who::Human(Some(Role::ReleaseManager)).subject();
                let needed = set.needed_approvals(&Request { subject, action: Action::ApplyRequest, resource, facts });
                needed.map_or_else(|| "no".to_owned(), |number| number.to_string())
            })
            .collect();
        let cells: Vec<&str> = cells.iter().map(String::as_str).collect();
        line(&mut text, risk_level.as_str(), "", &cells);
    }
    text
}

fn line(text: &mut String, action: &str, principal: &str, cells: &[&str]) {
    let mut line = format!("{action:<22}{principal:<24}");
    for cell in cells {
        let _ = write!(line, "{cell:<13}");
    }
    text.push_str(line.trim_end());
    text.push('\n');
}

fn resource(project: &str, environment: &str, tier: Option<Tier>) -> Resource {
    Resource { project: project.to_owned(), environment: environment.to_owned(), tier }
}

/// Where `action` is asked for beyond an environment.
fn beyond(action: Action) -> Option<Resource> {
    [resource("", "", None), resource("p", "", None)]
        .into_iter()
        .find(|resource| Place::of(resource).is_some_and(|place| place.knows(action)))
}

/// The first answer whose circumstances the policies allow.
fn answer(set: &PolicySet, who: Who, action: Action, resource: &Resource) -> Answer {
    let mut request = Request { subject: who.subject(), action, resource: resource.clone(), facts: Facts::default() };
    if !set.candidate_policies(&request).any(|loaded| loaded.info.effect == Effect::Permit) {
        return Answer::No;
    }
    let holds = |answer: &Answer| {
        answer.circumstances().is_some_and(|facts| {
            request.facts = facts;
            set.decide(&request).allowed
        })
    };
    Answer::ALL.into_iter().find(holds).unwrap_or(Answer::No)
}
