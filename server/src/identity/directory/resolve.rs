//! Checks edits of the directory and fills in what the server decides.

use std::collections::BTreeSet;

use super::{
    Directory, DirectoryEdit, MAX_BINDINGS, MAX_EXCHANGED_LIFE_S, MAX_ISSUERS, MAX_POLICY_BYTES, MAX_POLICY_FILES,
    MAX_PRINCIPALS, MAX_TOKEN_LIFE_MS, MAX_TOKENS, Scope, apply,
};
use crate::changes::{Mint, Problem, limits, mint};
use crate::policy::{PolicySet, PrincipalKind, Role};
use crate::state::World;

/// Longest that an AI agent may be let in without being looked at again: 90 days, in milliseconds.
const MAX_AGENT_LIFE_MS: u64 = 90 * 24 * 60 * 60 * 1_000;

/// What one edit is resolved with.
pub(crate) struct Filling<'a> {
    /// All there was before the change.
    pub(crate) world: &'a World,
    /// The directory as the edits before left it.
    pub(crate) directory: &'a Directory,
    /// When the change is made, in milliseconds since 1970.
    pub(crate) now: u64,
    pub(crate) mint: &'a mut dyn Mint,
    /// Where the edit stands in the request.
    pub(crate) at: &'a str,
    pub(crate) problems: &'a mut Vec<Problem>,
}

impl Filling<'_> {
    fn refuse(&mut self, pointer: &str, code: &'static str, message: impl Into<String>) {
        if self.problems.len() < limits::MAX_PROBLEMS {
            self.problems.push(Problem::new(format!("{}{pointer}", self.at), code, message));
        }
    }

    /// A new identifier that says of what it is.
    fn id(&mut self, prefix: &str) -> String {
        format!("{prefix}-{}", mint::hex(&self.mint.random()[..8]))
    }

    fn most(&mut self, pointer: &str, what: &str, found: usize, most: usize) {
        if found >= most {
            self.refuse(pointer, "tooMany", format!("there are {found} {what}, as many as there may be"));
        }
    }

    fn name(&mut self, pointer: &str, name: &str) {
        if name.trim().is_empty() {
            self.refuse(pointer, "empty", "give it a name, so that people know it again");
        } else if name.len() > limits::MAX_NAME_BYTES {
            let message = format!("a name has at most {} bytes, this one {}", limits::MAX_NAME_BYTES, name.len());
            self.refuse(pointer, "tooLong", message);
        }
    }

    /// Refuses a principal that does not exist, or is of none of these kinds.
    fn principal(&mut self, pointer: &str, id: &str, kinds: &[PrincipalKind]) {
        match self.directory.principals.get(id) {
            None => self.refuse(pointer, "unknownPrincipal", format!("there is no principal \"{id}\"")),
            Some(known) if known.erased_at.is_some() => {
                self.refuse(pointer, "erased", format!("\"{id}\" was erased and does not come back"));
            }
            Some(known) if !kinds.contains(&known.kind) => {
                let wanted: Vec<&str> = kinds.iter().map(|kind| kind.as_str()).collect();
                let message = format!("\"{id}\" is {}; this takes {}", known.kind.as_str(), wanted.join(" or "));
                self.refuse(pointer, "wrongKind", message);
            }
            Some(_) => {}
        }
    }

    fn project(&mut self, pointer: &str, project: Option<&str>) {
        if let Some(key) = project.filter(|key| !self.world.projects.contains_key(*key)) {
            self.refuse(pointer, "unknownProject", format!("there is no project \"{key}\""));
        }
    }

    fn scope(&mut self, pointer: &str, scope: &Scope) {
        if let Err(problem) = scope.check() {
            self.refuse(pointer, "badScope", problem.to_string());
        }
        self.project(&format!("{pointer}/project"), scope.project.as_deref());
        let Some(project) = scope.project.as_ref().and_then(|key| self.world.projects.get(key)) else { return };
        for (index, key) in scope.environments.iter().enumerate() {
            if !project.environments.contains_key(key) {
                let message = format!("the project has no environment \"{key}\"");
                self.refuse(&format!("{pointer}/environments/{index}"), "unknownEnvironment", message);
            }
        }
    }

    /// Refuses an end that is past or too far away.
    fn end(&mut self, pointer: &str, end: u64, longest: u64) {
        if end <= self.now {
            self.refuse(pointer, "past", "that time is over; name one to come, in milliseconds since 1970");
        } else if end - self.now > longest {
            let days = longest / (24 * 60 * 60 * 1_000);
            self.refuse(pointer, "tooFar", format!("at most {days} days from now are allowed"));
        }
    }

    fn hash(&mut self, hash: &str) {
        let sdk_key = self.world.credentials.contains_key(hash);
        if blake3::Hash::from_hex(hash).is_err() || sdk_key || self.directory.token_hashes.contains_key(hash) {
            self.refuse("/hash", "invalidHash", "a hash is 64 hexadecimal digits that no other credential has");
        }
    }
}

/// The edit as it is to be journaled; what is wrong with it is added to the problems.
pub(crate) fn resolve(cx: &mut Filling<'_>, mut edit: DirectoryEdit) -> DirectoryEdit {
    match &mut edit {
        DirectoryEdit::CreateAccount { id } => {
            // The door records the person in the vault first, under the id it makes.
            if !guidon_sdk::model::is_valid_key(id) || cx.directory.principals.contains_key(&*id) {
                cx.refuse("/id", "badKey", "the id of an account is made by the server");
            }
            cx.most("", "principals", cx.directory.principals.len(), MAX_PRINCIPALS);
        }
        DirectoryEdit::CreateServiceAccount { id, name } => {
            cx.name("/name", name);
            *id = cx.id("service");
            cx.most("", "principals", cx.directory.principals.len(), MAX_PRINCIPALS);
        }
        DirectoryEdit::CreateAgent { id, name, tool, owner, expires_at, .. } => {
            cx.name("/name", name);
            cx.name("/tool", tool);
            cx.principal("/owner", owner, &[PrincipalKind::Human]);
            cx.end("/expiresAt", *expires_at, MAX_AGENT_LIFE_MS);
            *id = cx.id("agent");
            cx.most("", "principals", cx.directory.principals.len(), MAX_PRINCIPALS);
        }
        DirectoryEdit::UpdatePrincipal { id, name, expires_at, .. } => {
            cx.principal("/id", id, &[PrincipalKind::Service, PrincipalKind::Agent]);
            if let Some(name) = name {
                cx.name("/name", name);
            }
            if let Some(end) = expires_at {
                cx.principal("/id", id, &[PrincipalKind::Agent]);
                cx.end("/expiresAt", *end, MAX_AGENT_LIFE_MS);
            }
        }
        DirectoryEdit::ClaimAccount { id }
        | DirectoryEdit::ResetAccount { id }
        | DirectoryEdit::ErasePrincipal { id } => cx.principal("/id", id, &[PrincipalKind::Human]),
        DirectoryEdit::DisablePrincipal { id } | DirectoryEdit::EnablePrincipal { id } => {
            cx.principal("/id", id, &[PrincipalKind::Human, PrincipalKind::Service, PrincipalKind::Agent]);
        }
        DirectoryEdit::GrantRole { .. } | DirectoryEdit::RevokeRole { .. } => role(cx, &mut edit),
        DirectoryEdit::CreateToken { .. } | DirectoryEdit::RotateToken { .. } | DirectoryEdit::RevokeToken { .. } => {
            token(cx, &mut edit);
        }
        DirectoryEdit::TrustIssuer { .. } => issuer(cx, &mut edit),
        DirectoryEdit::DistrustIssuer { id } if !cx.directory.issuers.contains_key(&*id) => {
            cx.refuse("/id", "unknownIssuer", format!("there is no trusted issuer \"{id}\""));
        }
        DirectoryEdit::SetPolicy { name, text } => policy(cx, name, text),
        DirectoryEdit::RemovePolicy { name } if !cx.directory.policies.contains_key(&*name) => {
            cx.refuse("/name", "unknownPolicy", format!("there is no policy file \"{name}\""));
        }
        DirectoryEdit::DistrustIssuer { .. } | DirectoryEdit::RemovePolicy { .. } => {}
    }
    keep_an_administrator(cx, &edit);
    edit
}

/// Refuses to take the last administrator away: nobody could give the role again but the holder of the server's own token.
fn keep_an_administrator(cx: &mut Filling<'_>, edit: &DirectoryEdit) {
    let takes_away = matches!(
        edit,
        DirectoryEdit::RevokeRole { .. }
            | DirectoryEdit::DisablePrincipal { .. }
            | DirectoryEdit::ResetAccount { .. }
            | DirectoryEdit::ErasePrincipal { .. }
    );
    if !takes_away || !cx.directory.is_claimed() {
        return;
    }
    let mut after = cx.directory.clone();
    if apply(&mut after, edit, cx.now).is_ok() && !after.is_claimed() {
        let message = "nobody could administer the installation after this; first give another person, who has claimed \
                       the account, the role administrator everywhere";
        cx.refuse("/id", "lastAdministrator", message);
    }
}

fn role(cx: &mut Filling<'_>, edit: &mut DirectoryEdit) {
    match edit {
        DirectoryEdit::GrantRole { id, principal, group, project, tiers, .. } => {
            match (&principal, &group) {
                (Some(principal), None) => cx.principal("/principal", principal, &[PrincipalKind::Human]),
                (None, Some(group)) => cx.name("/group", group),
                _ => cx.refuse("", "oneOf", "a role is given either to a `principal` or to a `group`"),
            }
            cx.project("/project", project.as_deref());
            tiers.sort_unstable();
            tiers.dedup();
            *id = cx.id("role");
            cx.most("", "role bindings", cx.directory.bindings.len(), MAX_BINDINGS);
        }
        DirectoryEdit::RevokeRole { id } if !cx.directory.bindings.contains_key(&*id) => {
            cx.refuse("/id", "unknownRoleBinding", format!("there is no role binding \"{id}\""));
        }
        _ => {}
    }
}

fn token(cx: &mut Filling<'_>, edit: &mut DirectoryEdit) {
    match edit {
        DirectoryEdit::CreateToken { id, principal, name, scope, expires_at, hash } => {
            cx.principal("/principal", principal, &[PrincipalKind::Service, PrincipalKind::Agent]);
            if name.len() > limits::MAX_NAME_BYTES {
                cx.name("/name", name);
            }
            cx.scope("/scope", scope);
            cx.end("/expiresAt", *expires_at, MAX_TOKEN_LIFE_MS);
            cx.hash(hash);
            *id = cx.id("token");
            // Those that ended make room when this one is kept.
            let live = cx.directory.tokens.values().filter(|token| token.is_live(cx.now)).count();
            cx.most("", "live tokens", live, MAX_TOKENS);
        }
        DirectoryEdit::RotateToken { id, successor, hash, expires_at, deadline } => {
            let Some(old) = cx.directory.tokens.get(&*id).cloned() else {
                return cx.refuse("/id", "unknownToken", format!("there is no token \"{id}\""));
            };
            if !old.is_live(cx.now) {
                cx.refuse("/id", "ended", format!("the token \"{id}\" has ended; create a new one"));
            } else if let Some(next) = &old.replaced_by {
                cx.refuse("/id", "rotated", format!("the token \"{id}\" was rotated already: \"{next}\" replaces it"));
            }
            // A deadline that has come means at once.
            *deadline = (*deadline).max(cx.now);
            cx.end("/expiresAt", *expires_at, MAX_TOKEN_LIFE_MS);
            cx.hash(hash);
            *successor = cx.id("token");
        }
        DirectoryEdit::RevokeToken { id } if !cx.directory.tokens.contains_key(&*id) => {
            cx.refuse("/id", "unknownToken", format!("there is no token \"{id}\""));
        }
        _ => {}
    }
}

fn issuer(cx: &mut Filling<'_>, edit: &mut DirectoryEdit) {
    let DirectoryEdit::TrustIssuer { id, issuer, audience, claims, principal, scope, lifetime_s } = edit else {
        return;
    };
    if !issuer.starts_with("https://") && !is_loopback(issuer) {
        cx.refuse("/issuer", "badUrl", "an issuer is an https:// URL, as its identity tokens have it in `iss`");
    }
    cx.name("/audience", audience);
    if claims.is_empty() {
        let message = "name at least one claim, as {\"repository\":\"acme/shop\"}: the issuer signs for others too";
        cx.refuse("/claims", "empty", message);
    }
    if claims.values().any(|value| value == "*" || value.is_empty()) {
        cx.refuse("/claims", "tooWide", "a claim that may be anything says nothing; name what it has to be");
    }
    cx.principal("/principal", principal, &[PrincipalKind::Service]);
    cx.scope("/scope", scope);
    if !(1..=MAX_EXCHANGED_LIFE_S).contains(lifetime_s) {
        cx.refuse("/lifetimeS", "outOfRange", format!("a bought token lives 1 to {MAX_EXCHANGED_LIFE_S} seconds"));
    }
    *id = cx.id("issuer");
    cx.most("", "trusted issuers", cx.directory.issuers.len(), MAX_ISSUERS);
}

/// Whether a URL is plain HTTP to this machine: for trying things out.
fn is_loopback(url: &str) -> bool {
    let host = url.strip_prefix("http://").map(|rest| rest.split(['/', ':']).next().unwrap_or_default());
    matches!(host, Some("127.0.0.1" | "localhost"))
}

fn policy(cx: &mut Filling<'_>, name: &str, text: &str) {
    if !guidon_sdk::model::is_valid_key(name) {
        cx.refuse("/name", "badKey", "a policy file's name has 1 to 128 of a-z, 0-9, '.', '_' and '-'");
    }
    if text.len() > MAX_POLICY_BYTES {
        cx.refuse("/text", "tooLong", format!("a policy file has at most {MAX_POLICY_BYTES} bytes"));
        return;
    }
    if PolicySet::builtin_files().iter().any(|(builtin, _)| *builtin == name) {
        cx.refuse("/name", "nameTaken", format!("\"{name}\" comes with the server; give the file another name"));
    }
    let known = cx.directory.policies.contains_key(name);
    if !known {
        cx.most("", "policy files", cx.directory.policies.len(), MAX_POLICY_FILES);
    }
    let mut texts = cx.directory.policy_texts();
    texts.insert(name.to_owned(), text.to_owned());
    match PolicySet::with(&texts) {
        Ok(set) => {
            if let Some(lost) = set.lockout(&administrators(cx.directory)) {
                let message = format!(
                    "with this file {lost}, and nothing would bring that back; forbid less, say with `unless` or for a \
                     narrower action"
                );
                cx.refuse("/text", "lockout", message);
            }
        }
        Err(problems) => {
            for problem in problems {
                cx.refuse("/text", "badPolicy", problem.to_string());
            }
        }
    }
}

/// The people who administer the installation, with their roles there; none where a provider's group does, whose people are
/// not known here.
fn administrators(directory: &Directory) -> Vec<(String, BTreeSet<Role>)> {
    let everywhere = directory.bindings.values().filter(|binding| binding.role == Role::Administrator);
    let everywhere: Vec<_> = everywhere.filter(|binding| binding.holds("", None)).collect();
    if everywhere.iter().any(|binding| binding.group.is_some()) {
        return Vec::new();
    }
    let people = everywhere.iter().filter_map(|binding| directory.principals.get(binding.principal.as_ref()?));
    let here =
        people.filter(|known| known.claimed_at.is_some() && known.disabled_at.is_none() && known.erased_at.is_none());
    here.map(|known| (known.id.clone(), directory.roles(&known.id, &[], "", None))).collect()
}

#[cfg(test)]
#[path = "resolve_tests.rs"]
mod tests;
