//! The directory: principals, the roles they have, their tokens, whom the server trusts, and the operator's policy files.
//!
//! It is part of the journaled state, so that every change to it is attributable. Pure. What may have to be forgotten (a
//! person's name and address) and what is secret (passwords, factors) is not here but in the vault.

mod apply;
mod edit;
mod resolve;
mod scope;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use imbl::{OrdMap, OrdSet};
use serde::{Deserialize, Serialize};

pub(crate) use apply::apply;
pub use edit::DirectoryEdit;
pub(crate) use resolve::{Filling, resolve};
pub use scope::{Scope, ScopeProblem};

use crate::environments::Tier;
use crate::policy::{PrincipalKind, Role};

/// Who there is and what they may do, apart from the policies that every server has.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Directory {
    /// People, service accounts and AI agents, by id.
    pub principals: OrdMap<String, Arc<Principal>>,
    /// Roles given, by id.
    pub bindings: OrdMap<String, Arc<RoleBinding>>,
    /// Tokens, by id, those that ended among them.
    pub tokens: OrdMap<String, Arc<Token>>,
    /// BLAKE3 of a token that was not revoked (hexadecimal) to its id.
    pub token_hashes: OrdMap<String, String>,
    /// Issuers whose identity tokens buy tokens, by id.
    pub issuers: OrdMap<String, Arc<TrustedIssuer>>,
    /// The operator's policy files, by name.
    pub policies: OrdMap<String, Arc<PolicyFile>>,
    /// Ids of the bindings of each principal and each group: what a decision looks at, however many there are.
    holders: OrdMap<Holder, OrdSet<String>>,
    /// Whether somebody can administer the whole installation.
    claimed: bool,
}

/// Who has a binding.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Holder {
    Principal(String),
    Group(String),
}

/// A person, a service account or an AI agent.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Principal {
    /// Identifier; journal entries name it as their actor.
    pub id: String,
    /// What it is.
    pub kind: PrincipalKind,
    /// Name of a service account or an AI agent. Empty for people, whose names are in the vault.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub name: String,
    /// The person who answers for an AI agent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub owner: Option<String>,
    /// The tool that an AI agent is.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub tool: String,
    /// The model that an AI agent uses.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub model: String,
    /// When an AI agent's time is over, in milliseconds since 1970.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub expires_at: Option<u64>,
    /// When it was created, in milliseconds since 1970.
    pub created_at: u64,
    /// When a person claimed the account: password and factor are set since then, or a provider vouches for them.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub claimed_at: Option<u64>,
    /// When it was shut out, if it is.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub disabled_at: Option<u64>,
    /// When who it is was erased, if it was. It never comes back.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub erased_at: Option<u64>,
}

/// A role, given to one principal or to everyone in a group.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct RoleBinding {
    /// Identifier, for revoking.
    pub id: String,
    /// The person who has it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub principal: Option<String>,
    /// The group, as a provider names it, whose people have it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub group: Option<String>,
    /// The role.
    pub role: Role,
    /// The project it holds in; in all of them if left out.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub project: Option<String>,
    /// The tiers it holds in; in all of them if empty.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub tiers: Vec<Tier>,
    /// When it was given, in milliseconds since 1970.
    pub created_at: u64,
}

/// A token of a service account or an AI agent, as it is stored: never the credential itself.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Token {
    /// Identifier, for listing, rotating and revoking.
    pub id: String,
    /// Whose it is.
    pub principal: String,
    /// Name for people.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub name: String,
    /// What it is good for.
    pub scope: Scope,
    /// BLAKE3 of the credential, in hexadecimal.
    pub hash: String,
    /// When it was made, in milliseconds since 1970.
    pub created_at: u64,
    /// When it ends, in milliseconds since 1970.
    pub expires_at: u64,
    /// When it was revoked, if it was.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub revoked_at: Option<u64>,
    /// The token that takes its place, once it was rotated.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub replaced_by: Option<String>,
}

/// An issuer whose signed identity tokens buy short-lived tokens of a service account.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct TrustedIssuer {
    /// Identifier, for removing.
    pub id: String,
    /// The issuer's URL: `iss` of its identity tokens.
    pub issuer: String,
    /// What `aud` of the identity tokens has to hold.
    pub audience: String,
    /// Claims that the identity token must have, each with this value; `*` at the end stands for anything.
    pub claims: BTreeMap<String, String>,
    /// The service account whose tokens are bought.
    pub principal: String,
    /// What those tokens are good for.
    pub scope: Scope,
    /// How long they live, in seconds.
    pub lifetime_s: u64,
    /// When trust was given, in milliseconds since 1970.
    pub created_at: u64,
}

/// A file of policies in force beside the built-in ones.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct PolicyFile {
    /// Its name.
    pub name: String,
    /// Cedar policies.
    pub text: String,
    /// When it was set, in milliseconds since 1970.
    pub updated_at: u64,
}

/// Most principals of an installation, erased ones among them.
pub const MAX_PRINCIPALS: usize = 50_000;
/// Most role bindings.
pub const MAX_BINDINGS: usize = 50_000;
/// Most tokens, ended ones among them; ended ones of the past make room.
pub const MAX_TOKENS: usize = 50_000;
/// Most trusted issuers.
pub const MAX_ISSUERS: usize = 100;
/// Most policy files.
pub const MAX_POLICY_FILES: usize = 100;
/// Longest policy file, in bytes.
pub const MAX_POLICY_BYTES: usize = 64 << 10;
/// Longest life of a token: 366 days, in milliseconds.
pub const MAX_TOKEN_LIFE_MS: u64 = 366 * 24 * 60 * 60 * 1_000;
/// How long before its end a token is warned of: 7 days, in milliseconds.
pub const EXPIRY_WARNING_MS: u64 = 7 * 24 * 60 * 60 * 1_000;
/// Longest life of a bought token: an hour, in seconds.
pub const MAX_EXCHANGED_LIFE_S: u64 = 3_600;

impl Principal {
    /// Whether it may come in at `now` (milliseconds since 1970).
    #[must_use]
    pub fn is_active(&self, now: u64) -> bool {
        self.disabled_at.is_none()
            && self.erased_at.is_none()
            && self.expires_at.is_none_or(|end| now < end)
            && (self.kind != PrincipalKind::Human || self.claimed_at.is_some())
    }
}

impl Token {
    /// Whether it opens anything at `now` (milliseconds since 1970).
    #[must_use]
    pub fn is_live(&self, now: u64) -> bool {
        self.revoked_at.is_none() && now < self.expires_at
    }

    /// Whether it is good at `now`, and not for as long as [`EXPIRY_WARNING_MS`].
    #[must_use]
    pub fn expires_soon(&self, now: u64) -> bool {
        self.is_live(now) && self.expires_at - now < EXPIRY_WARNING_MS
    }

    /// Whether somebody has to see to it: it ends soon, was made to last longer, and nothing has taken its place.
    #[must_use]
    pub fn needs_renewal(&self, now: u64) -> bool {
        let was_to_last = self.expires_at.saturating_sub(self.created_at) >= EXPIRY_WARNING_MS;
        self.expires_soon(now) && was_to_last && self.replaced_by.is_none()
    }
}

impl RoleBinding {
    /// Whether it holds in a project (empty: the installation) and a tier (`None`: the project as a whole).
    #[must_use]
    pub fn holds(&self, project: &str, tier: Option<Tier>) -> bool {
        let here = self.project.as_deref().is_none_or(|of| of == project);
        here && (self.tiers.is_empty() || tier.is_some_and(|tier| self.tiers.contains(&tier)))
    }
}

impl Holder {
    fn of(binding: &RoleBinding) -> Self {
        match (&binding.principal, &binding.group) {
            (Some(principal), _) => Self::Principal(principal.clone()),
            (None, group) => Self::Group(group.clone().unwrap_or_default()),
        }
    }

    fn group(&self) -> Option<&str> {
        match self {
            Self::Group(group) => Some(group),
            Self::Principal(_) => None,
        }
    }
}

impl Directory {
    /// The roles that a principal, who is in these groups, has in a project (empty: the installation) and a tier (`None`: the
    /// project as a whole).
    #[must_use]
    pub fn roles(&self, principal: &str, groups: &[String], project: &str, tier: Option<Tier>) -> BTreeSet<Role> {
        let given = self.bindings_of(principal, groups).filter(|binding| binding.holds(project, tier));
        given.map(|binding| binding.role).collect()
    }

    /// The roles that a principal may have in a project and a tier: those of every group among them, since nobody but the
    /// provider knows who is in which.
    #[must_use]
    pub fn possible_roles(&self, principal: &str, project: &str, tier: Option<Tier>) -> BTreeSet<Role> {
        let groups: Vec<String> = self.holders.keys().filter_map(Holder::group).map(str::to_owned).collect();
        self.roles(principal, &groups, project, tier)
    }

    /// All roles that a principal has anywhere.
    #[must_use]
    pub fn roles_anywhere(&self, principal: &str, groups: &[String]) -> BTreeSet<Role> {
        self.bindings_of(principal, groups).map(|binding| binding.role).collect()
    }

    /// The roles given to a principal, who is in these groups, as they were given.
    pub fn bindings_of<'a>(
        &'a self,
        principal: &'a str,
        groups: &'a [String],
    ) -> impl Iterator<Item = &'a Arc<RoleBinding>> {
        let holders = std::iter::once(Holder::Principal(principal.to_owned()))
            .chain(groups.iter().map(|group| Holder::Group(group.clone())));
        holders.filter_map(|holder| self.holders.get(&holder)).flatten().filter_map(|id| self.bindings.get(id))
    }

    /// Adds a binding.
    pub(crate) fn bind(&mut self, binding: RoleBinding) {
        let held = self.holders.entry(Holder::of(&binding)).or_default();
        held.insert(binding.id.clone());
        self.bindings.insert(binding.id.clone(), Arc::new(binding));
    }

    /// Removes a binding and answers it.
    pub(crate) fn unbind(&mut self, id: &str) -> Option<Arc<RoleBinding>> {
        let binding = self.bindings.remove(id)?;
        let holder = Holder::of(&binding);
        if let Some(mut held) = self.holders.remove(&holder) {
            held.remove(id);
            if !held.is_empty() {
                self.holders.insert(holder, held);
            }
        }
        Some(binding)
    }

    /// Finds out anew whether somebody can administer the installation: after whatever may have changed that.
    pub(crate) fn note_claimed(&mut self) {
        self.claimed = self.find_claimed();
    }

    /// Whether somebody can administer the whole installation: a person who claimed the account, or a provider's group once
    /// anybody has signed in, as a group's name may be mistyped.
    #[must_use]
    pub fn is_claimed(&self) -> bool {
        self.claimed
    }

    fn find_claimed(&self) -> bool {
        let anybody = self.principals.values().any(|principal| principal.claimed_at.is_some());
        self.bindings.values().any(|binding| {
            let everywhere = binding.project.is_none() && binding.tiers.is_empty();
            let somebody = (binding.group.is_some() && anybody)
                || binding.principal.as_ref().and_then(|id| self.principals.get(id)).is_some_and(|principal| {
                    principal.claimed_at.is_some() && principal.disabled_at.is_none() && principal.erased_at.is_none()
                });
            binding.role == Role::Administrator && everywhere && somebody
        })
    }

    /// The token with this hash and its principal, if both are good at `now` (milliseconds since 1970).
    #[must_use]
    pub fn live_token(&self, hash: &str, now: u64) -> Option<(&Arc<Token>, &Arc<Principal>)> {
        let token = self.tokens.get(self.token_hashes.get(hash)?).filter(|token| token.is_live(now))?;
        let principal = self.principals.get(&token.principal).filter(|principal| principal.is_active(now))?;
        Some((token, principal))
    }

    /// The tokens that somebody has to see to at `now` (milliseconds since 1970), before they end.
    pub fn expiring_tokens(&self, now: u64) -> impl Iterator<Item = &Arc<Token>> {
        self.tokens.values().filter(move |token| {
            let principal = || self.principals.get(&token.principal);
            token.needs_renewal(now) && principal().is_some_and(|principal| principal.is_active(now))
        })
    }

    /// The AI agents whose registration ends within [`EXPIRY_WARNING_MS`] of `now` (milliseconds since 1970), and was made to
    /// last longer.
    pub fn expiring_agents(&self, now: u64) -> impl Iterator<Item = &Arc<Principal>> {
        self.principals.values().filter(move |principal| {
            principal.is_active(now)
                && principal.expires_at.is_some_and(|end| {
                    let was_to_last = end.saturating_sub(principal.created_at) >= EXPIRY_WARNING_MS;
                    end.saturating_sub(now) < EXPIRY_WARNING_MS && was_to_last
                })
        })
    }

    /// The operator's policy files as texts by name.
    #[must_use]
    pub fn policy_texts(&self) -> BTreeMap<String, String> {
        self.policies.values().map(|file| (file.name.clone(), file.text.clone())).collect()
    }
}

#[cfg(test)]
mod tests;
