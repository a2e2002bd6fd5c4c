//! What `guidon policy check` says of policy files before they are put in force.

use std::collections::BTreeMap;
use std::fmt;

use cedar_policy::{PrincipalConstraint, ResourceConstraint};

use super::load::{self, Effect, Loaded, PolicyProblem, Source};
use super::vocabulary::Vocabulary;
use super::{
    Action, Direction, Facts, Group, Mode, PolicySet, PrincipalKind, Request, Resource, RiskLevel, Role, Subject, set,
};
use crate::environments::Tier;

/// What was found in policy files.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Report {
    /// What keeps them from being put in force.
    pub problems: Vec<PolicyProblem>,
    /// What is worth a second look.
    pub warnings: Vec<PolicyProblem>,
    /// How many policies they hold.
    pub policies: usize,
}

impl Report {
    /// Whether the files can be put in force.
    #[must_use]
    pub fn passed(&self) -> bool {
        self.problems.is_empty()
    }
}

impl fmt::Display for Report {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.problems.iter().try_for_each(|problem| writeln!(formatter, "error: {problem}"))?;
        self.warnings.iter().try_for_each(|warning| writeln!(formatter, "warning: {warning}"))?;
        let counted = |number: usize, one: &str, more: &str| match number {
            1 => format!("1 {one}"),
            _ => format!("{number} {more}"),
        };
        let policies = counted(self.policies, "policy", "policies");
        let errors = counted(self.problems.len(), "error", "errors");
        write!(formatter, "{policies}, {errors}, {}", counted(self.warnings.len(), "warning", "warnings"))
    }
}

/// Checks `files` (texts by name) as [`PolicySet::with`] would, and whether they lock everybody out; and looks for policies that
/// cannot do what they seem to.
#[must_use]
pub fn check(files: &BTreeMap<String, String>) -> Report {
    let mut report = Report::default();
    let builtin = PolicySet::builtin();
    for (name, text) in files {
        let source = Source { name, text, builtin: false };
        let read = match load::read(source) {
            Ok(read) => read,
            Err(problems) => {
                report.problems.extend(problems);
                continue;
            }
        };
        report.policies += read.len();
        let mut sound = true;
        if let Some(vocabulary) = Vocabulary::get() {
            let (problems, doubts) = load::validate(vocabulary, source, &read);
            sound = problems.is_empty();
            report.problems.extend(problems);
            report.warnings.extend(doubts);
        }
        for loaded in read.iter().filter(|_| sound) {
            if loaded.unnamed {
                let message = format!("the policy has no @id and is called \"{}\"", loaded.info.name);
                let hint = "a name of its own stays the same when the file is edited";
                report.warnings.push(warning(loaded, message, hint));
            }
            if let Some(forbidding) = always_overridden(&builtin, loaded) {
                let message = format!("the permit never takes effect: \"{forbidding}\" forbids all it permits");
                report.warnings.push(warning(loaded, message, "built-in forbids cannot be overridden; leave it out"));
            }
        }
    }
    if report.passed() {
        match PolicySet::with(files) {
            Ok(set) => report.problems.extend(set.lockout(&[]).map(|lost| load::unusable(&lost))),
            Err(problems) => report.problems.extend(problems),
        }
    }
    report.warnings.sort();
    report.warnings.dedup();
    report
}

fn warning(loaded: &Loaded, message: String, hint: &str) -> PolicyProblem {
    let (file, line) = (loaded.info.file.clone(), loaded.info.line);
    PolicyProblem { file, line, column: 1, message, hint: Some(hint.to_owned()) }
}

/// A built-in forbid that overrides the permit, if built-in forbids override it in everything that was tried.
///
/// What is tried is a sample: one principal of each kind with all roles, every action and tier, and favourable facts. A
/// permit that applies to none of it is left alone.
fn always_overridden(builtin: &PolicySet, loaded: &Loaded) -> Option<String> {
    if loaded.info.effect == Effect::Forbid {
        return None;
    }
    let alone = cedar_policy::PolicySet::from_policies([loaded.policy.clone()]).ok()?;
    let vocabulary = Vocabulary::get()?;
    let mut forbidding = None;
    for kind in PrincipalKind::ALL {
        for action in Action::ALL {
            if !set::may_match(vocabulary, &loaded.policy, kind, *action) {
                continue;
            }
            for request in samples(&loaded.policy, kind, *action) {
                if builtin.ask(&alone, &request).map_or(true, |verdict| verdict.reasons.is_empty()) {
                    continue;
                }
                let explained = builtin.explain(&request);
                let forbid = explained.applied.iter().find(|info| info.effect == Effect::Forbid);
                forbidding.get_or_insert_with(|| forbid.map(|info| info.name.clone())).as_ref()?;
                forbid?;
            }
        }
    }
    forbidding?
}

/// Requests by such a principal for such an action, under favourable facts.
fn samples(policy: &cedar_policy::Policy, kind: PrincipalKind, action: Action) -> impl Iterator<Item = Request> {
    let id = match policy.principal_constraint() {
        PrincipalConstraint::Eq(uid) => uid.id().unescaped().to_owned(),
        _ => "anybody".to_owned(),
    };
    let roles = if kind == PrincipalKind::Human { Role::ALL.into_iter().collect() } else { Default::default() };
    let owner = (kind == PrincipalKind::Agent).then(|| "somebody".to_owned());
    let subject = Subject { id, kind, roles, owner };
    let (project, environment) = match policy.resource_constraint() {
        ResourceConstraint::Eq(uid) | ResourceConstraint::In(uid) | ResourceConstraint::IsIn(_, uid) => {
            let id = uid.id().unescaped();
            let (project, environment) = id.split_once('/').unwrap_or((id, ""));
            (project.to_owned(), environment.to_owned())
        }
        _ => ("p".to_owned(), String::new()),
    };
    let mut places: Vec<Resource> = Tier::ALL
        .into_iter()
        .map(|tier| {
            let environment = if environment.is_empty() { tier.as_str().to_owned() } else { environment.clone() };
            Resource { project: project.clone(), environment, tier: Some(tier) }
        })
        .collect();
    places.extend(["", &project].map(|project| Resource {
        project: project.to_owned(),
        environment: String::new(),
        tier: None,
    }));
    let modes = if matches!(action.group(), Group::Edit | Group::Delete) { 2 } else { 1 };
    places.into_iter().flat_map(move |resource| {
        let subject = subject.clone();
        let modes = [Mode::Direct, Mode::Proposed].into_iter().take(modes);
        modes.flat_map(move |mode| {
            let (subject, resource) = (subject.clone(), resource.clone());
            [(true, Direction::Lowering), (false, Direction::Lowering), (false, Direction::Widening)].map(
                |(own, direction)| Request {
                    subject: subject.clone(),
                    action,
                    resource: resource.clone(),
                    facts: favourable(mode, direction, own),
                },
            )
        })
    })
}

fn favourable(mode: Mode, direction: Direction, own: bool) -> Facts {
    Facts {
        mode,
        direction,
        factor_fresh: true,
        in_scope: true,
        frozen: false,
        changes_last_hour: 0,
        anonymised: true,
        unclaimed: true,
        own,
        risk_score: 0,
        risk_level: RiskLevel::Low,
        approvals: super::MAX_APPROVALS,
        approved_plan: true,
        by_agent: false,
        drill_fresh: true,
    }
}
