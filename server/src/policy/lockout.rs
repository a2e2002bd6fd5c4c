//! Whether policies leave a way back: an operator's file that forbids too much could never be taken out again.

use std::collections::BTreeSet;

use super::{Action, Direction, Facts, MAX_APPROVALS, PolicySet, PrincipalKind, Request, Resource, Role, Subject};
use crate::environments::Tier;

/// Stands for anybody, and for any project: nothing real has such a name.
const ANY: &str = "(any)";

impl PolicySet {
    /// What nobody could do any more under these policies, though the server cannot be run or put right without it. `named` are
    /// the people who administer the installation, with their roles there; empty if that is not known.
    ///
    /// It asks about somebody and some project in general: a policy about one person or one project locks nobody out, unless
    /// all of `named` are locked out.
    #[must_use]
    pub fn lockout(&self, named: &[(String, BTreeSet<Role>)]) -> Option<String> {
        let governs = |id: &str, roles: &BTreeSet<Role>| {
            let subject = Subject { id: id.to_owned(), kind: PrincipalKind::Human, roles: roles.clone(), owner: None };
            [Action::SetPolicy, Action::RemovePolicy].into_iter().find(|action| {
                let facts = Facts { factor_fresh: true, ..Facts::default() };
                !self.allows(&subject, *action, installation(), facts)
            })
        };
        if let Some(action) = governs(ANY, &BTreeSet::from([Role::Administrator])) {
            return Some(format!("no administrator could {action} any more, with a factor proved just now"));
        }
        if !named.is_empty() && named.iter().all(|(id, roles)| governs(id, roles).is_some()) {
            return Some("none of those who administer the installation could change the policies any more".to_owned());
        }
        self.duty_missed().or_else(|| self.tier_unserved())
    }

    /// What of its duties the server could not do any more.
    fn duty_missed(&self) -> Option<String> {
        let system = of_kind(PrincipalKind::System);
        // Where it is easiest: a policy may ask for more approvals, or for a plan.
        let easy = Facts {
            factor_fresh: true,
            in_scope: true,
            anonymised: true,
            direction: Direction::Lowering,
            approvals: MAX_APPROVALS,
            approved_plan: true,
            ..Facts::default()
        };
        let missed = |action: Action| Some(format!("the server itself could not {action} any more"));
        if !self.allows(&system, Action::ClaimAccount, installation(), easy.clone()) {
            return missed(Action::ClaimAccount);
        }
        // An operator may keep the server from applying in some tiers, but not from ending what is over.
        if !Tier::ALL.into_iter().any(|tier| self.allows(&system, Action::ApplyRequest, within(tier), easy.clone())) {
            return missed(Action::ApplyRequest);
        }
        let expires = |tier| self.allows(&system, Action::ExpireRequest, within(tier), easy.clone());
        if Tier::ALL.into_iter().all(expires) { None } else { missed(Action::ExpireRequest) }
    }

    /// A tier that no application could follow any more.
    fn tier_unserved(&self) -> Option<String> {
        let application = of_kind(PrincipalKind::Application);
        let facts = Facts { in_scope: true, ..Facts::default() };
        let served = |tier: &Tier| self.allows(&application, Action::Evaluate, within(*tier), facts.clone());
        let tier = Tier::ALL.into_iter().find(|tier| !served(tier))?;
        Some(format!("no application could evaluate in {} any more", tier.as_str()))
    }

    fn allows(&self, subject: &Subject, action: Action, resource: Resource, facts: Facts) -> bool {
        self.decide(&Request { subject: subject.clone(), action, resource, facts }).allowed
    }
}

fn of_kind(kind: PrincipalKind) -> Subject {
    Subject { id: ANY.to_owned(), kind, roles: BTreeSet::new(), owner: None }
}

fn installation() -> Resource {
    Resource { project: String::new(), environment: String::new(), tier: None }
}

fn within(tier: Tier) -> Resource {
    Resource { project: ANY.to_owned(), environment: ANY.to_owned(), tier: Some(tier) }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::*;

    fn lockout(text: &str, named: &[&str]) -> Option<String> {
        let files = BTreeMap::from([("ours.cedar".to_owned(), text.to_owned())]);
        let administrator = |id: &&str| ((*id).to_owned(), BTreeSet::from([Role::Administrator]));
        PolicySet::with(&files).unwrap().lockout(&named.iter().map(administrator).collect::<Vec<_>>())
    }

    #[test]
    fn policies_that_leave_no_way_back_are_told() {
        for text in [
            "forbid (principal, action, resource);",
            "forbid (principal, action == Action::\"setPolicy\", resource);",
            "forbid (principal is Human, action in Action::\"administer\", resource);",
            "forbid (principal, action == Action::\"removePolicy\", resource) unless { principal == Human::\"ada\" };",
            "forbid (principal is System, action, resource);",
            "forbid (principal, action == Action::\"applyRequest\", resource);",
            "forbid (principal, action == Action::\"expireRequest\", resource in Tier::\"staging\");",
            "forbid (principal, action == Action::\"claimAccount\", resource);",
            "forbid (principal is Application, action, resource in Tier::\"production\");",
        ] {
            assert!(lockout(text, &["ada", "ben"]).is_some(), "{text}");
        }
    }

    #[test]
    fn policies_about_somebody_or_something_stay_allowed() {
        for text in [
            "",
            "permit (principal, action, resource);",
            "forbid (principal == Human::\"ada\", action, resource);",
            "forbid (principal, action, resource in Project::\"shop\");",
            "forbid (principal is Agent, action, resource);",
            "forbid (principal is Operator, action, resource);",
            "forbid (principal, action == Action::\"applyRequest\", resource in Tier::\"production\");",
            "forbid (principal, action == Action::\"applyRequest\", resource) when { context.approvals < 3 };",
            "forbid (principal, action in Action::\"administer\", resource) unless { context.factorFresh || principal is System };",
        ] {
            assert_eq!(lockout(text, &["ada", "ben"]), None, "{text}");
        }
        assert!(lockout("forbid (principal == Human::\"ada\", action, resource);", &["ada"]).is_some(), "the only one");
    }
}
