//! Why a request is granted or refused, and what would change that.

use std::fmt;

use super::load::{Effect, Loaded, PolicyInfo};
use super::{Decision, Group, Mode, PolicySet, Request};

/// Something that would turn a refusal into a grant.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Remedy {
    /// Prove the second factor again.
    FreshFactor,
    /// Make it a change request.
    ChangeRequest,
    /// Get so many approvals.
    Approvals(u32),
    /// Use a credential made for this.
    Scope,
    /// Leave persons' keys out.
    Anonymise,
    /// Wait for the freeze to end.
    FreezeEnd,
}

impl fmt::Display for Remedy {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::FreshFactor => formatter.write_str("prove your second factor again"),
            Self::ChangeRequest => formatter.write_str("open a change request"),
            Self::Approvals(1) => formatter.write_str("get 1 approval"),
            Self::Approvals(number) => write!(formatter, "get {number} approvals"),
            Self::Scope => formatter.write_str("use a token that was made for this"),
            Self::Anonymise => formatter.write_str("ask for anonymised data"),
            Self::FreezeEnd => formatter.write_str("wait for the end of the freeze"),
        }
    }
}

/// Which policies spoke to a request, and what would help where it is refused.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Explanation {
    /// The decision.
    pub decision: Decision,
    /// Every policy that applied, permits of a refused request included, in the order of the files.
    pub applied: Vec<PolicyInfo>,
    /// Policies that could not be evaluated; one of them is enough to refuse.
    pub failed: Vec<PolicyInfo>,
    /// For a refused request: permits for such a principal and action whose conditions do not hold here.
    pub nearest: Vec<PolicyInfo>,
    /// For a refused request: single steps that would have it granted.
    pub remedies: Vec<Remedy>,
}

impl PolicySet {
    /// Why the request is granted or refused.
    #[must_use]
    pub fn explain(&self, request: &Request) -> Explanation {
        let decision = self.decide(request);
        let candidates: Vec<&Loaded> = self.candidate_policies(request).collect();
        let (mut applied, mut failed) = (Vec::new(), Vec::new());
        // Asked for both at once, the engine names only those that decide.
        for effect in [Effect::Permit, Effect::Forbid] {
            let some = candidates.iter().filter(|loaded| loaded.info.effect == effect);
            let set = cedar_policy::PolicySet::from_policies(some.map(|loaded| loaded.policy.clone()));
            if let Some(verdict) = set.ok().and_then(|set| self.ask(&set, request).ok()) {
                applied.extend(verdict.reasons);
                failed.extend(verdict.failed);
            }
        }
        let named = |names: &[String]| -> Vec<PolicyInfo> {
            candidates.iter().map(|loaded| &loaded.info).filter(|info| names.contains(&info.name)).cloned().collect()
        };
        let (applied, failed) = (named(&applied), named(&failed));
        let (mut nearest, mut remedies) = (Vec::new(), Vec::new());
        if !decision.allowed {
            let permits = candidates.iter().map(|loaded| &loaded.info).filter(|info| info.effect == Effect::Permit);
            nearest.extend(permits.filter(|info| !applied.contains(info) && !failed.contains(info)).cloned());
            remedies = self.remedies(request);
        }
        Explanation { decision, applied, failed, nearest, remedies }
    }

    /// The single steps that would have a refused request granted; what a door tells whoever it refuses.
    #[must_use]
    pub fn remedies(&self, request: &Request) -> Vec<Remedy> {
        let mut steps = vec![Remedy::FreshFactor, Remedy::Scope, Remedy::Anonymise, Remedy::FreezeEnd];
        if matches!(request.action.group(), Group::Edit | Group::Delete) {
            steps.push(Remedy::ChangeRequest);
        }
        steps.retain(|step| {
            let mut changed = request.clone();
            let facts = &mut changed.facts;
            match step {
                Remedy::FreshFactor => facts.factor_fresh = true,
                Remedy::Scope => facts.in_scope = true,
                Remedy::Anonymise => facts.anonymised = true,
                Remedy::FreezeEnd => facts.frozen = false,
                Remedy::ChangeRequest => facts.mode = Mode::Proposed,
                Remedy::Approvals(number) => facts.approvals = *number,
            }
            changed != *request && self.decide(&changed).allowed
        });
        if let Some(number) = self.needed_approvals(request).filter(|number| *number > request.facts.approvals) {
            steps.push(Remedy::Approvals(number));
        }
        steps
    }
}

impl fmt::Display for Explanation {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(formatter, "{}", if self.decision.allowed { "allowed" } else { "refused" })?;
        let mut block = |title: &str, policies: &[PolicyInfo]| -> fmt::Result {
            if policies.is_empty() {
                return Ok(());
            }
            writeln!(formatter, "\n{title}:")?;
            for info in policies {
                let (effect, from) = (info.effect.as_str(), if info.builtin { "built in, " } else { "" });
                writeln!(formatter, "  {effect:<6}  {}  ({from}{}:{})", info.name, info.file, info.line)?;
                if !info.description.is_empty() {
                    writeln!(formatter, "          {}", info.description)?;
                }
            }
            Ok(())
        };
        block("policies that applied", &self.applied)?;
        block("policies that could not be evaluated", &self.failed)?;
        block("permits whose conditions do not hold", &self.nearest)?;
        if !self.decision.allowed && self.applied.is_empty() && self.failed.is_empty() {
            writeln!(formatter, "\nno policy permits it")?;
        }
        if !self.remedies.is_empty() {
            writeln!(formatter, "\nwhat would help:")?;
        }
        self.remedies.iter().try_for_each(|remedy| writeln!(formatter, "  {remedy}"))
    }
}
