//! What each resolved edit does to the directory.

use std::sync::Arc;

use super::{Directory, DirectoryEdit, MAX_TOKENS, PolicyFile, Principal, RoleBinding, Token, TrustedIssuer};
use crate::changes::apply::{ApplyError, exists, unknown};
use crate::policy::PrincipalKind;

/// Applies an edit made at `at` (milliseconds since 1970).
pub(crate) fn apply(directory: &mut Directory, edit: &DirectoryEdit, at: u64) -> Result<(), ApplyError> {
    match edit {
        DirectoryEdit::GrantRole { id, principal, group, role, project, tiers } => {
            if directory.bindings.contains_key(id) {
                return Err(exists("role binding", id));
            }
            let (principal, group, project, tiers) = (principal.clone(), group.clone(), project.clone(), tiers.clone());
            let made = RoleBinding { id: id.clone(), principal, group, role: *role, project, tiers, created_at: at };
            directory.bind(made);
            directory.note_claimed();
        }
        DirectoryEdit::RevokeRole { id } => {
            directory.unbind(id).ok_or_else(|| unknown("role binding", id))?;
            directory.note_claimed();
        }
        DirectoryEdit::TrustIssuer { id, issuer, audience, claims, principal, scope, lifetime_s } => {
            if directory.issuers.contains_key(id) {
                return Err(exists("trusted issuer", id));
            }
            let made = TrustedIssuer {
                id: id.clone(),
                issuer: issuer.clone(),
                audience: audience.clone(),
                claims: claims.clone(),
                principal: principal.clone(),
                scope: scope.clone(),
                lifetime_s: *lifetime_s,
                created_at: at,
            };
            directory.issuers.insert(id.clone(), Arc::new(made));
        }
        DirectoryEdit::DistrustIssuer { id } => {
            directory.issuers.remove(id).ok_or_else(|| unknown("trusted issuer", id))?;
        }
        DirectoryEdit::SetPolicy { name, text } => {
            let file = PolicyFile { name: name.clone(), text: text.clone(), updated_at: at };
            directory.policies.insert(name.clone(), Arc::new(file));
        }
        DirectoryEdit::RemovePolicy { name } => {
            directory.policies.remove(name).ok_or_else(|| unknown("policy file", name))?;
        }
        DirectoryEdit::CreateToken { .. } | DirectoryEdit::RotateToken { .. } | DirectoryEdit::RevokeToken { .. } => {
            tokens(directory, edit, at)?;
        }
        _ => principals(directory, edit, at)?,
    }
    Ok(())
}

fn principals(directory: &mut Directory, edit: &DirectoryEdit, at: u64) -> Result<(), ApplyError> {
    let blank = |id: &str, kind| Principal {
        id: id.to_owned(),
        kind,
        name: String::new(),
        owner: None,
        tool: String::new(),
        model: String::new(),
        expires_at: None,
        created_at: at,
        claimed_at: None,
        disabled_at: None,
        erased_at: None,
    };
    let made = match edit {
        DirectoryEdit::CreateAccount { id } => blank(id, PrincipalKind::Human),
        DirectoryEdit::CreateServiceAccount { id, name } => {
            Principal { name: name.clone(), ..blank(id, PrincipalKind::Service) }
        }
        DirectoryEdit::CreateAgent { id, name, tool, model, owner, expires_at } => Principal {
            name: name.clone(),
            tool: tool.clone(),
            model: model.clone(),
            owner: Some(owner.clone()),
            expires_at: Some(*expires_at),
            ..blank(id, PrincipalKind::Agent)
        },
        _ => return edit_principal(directory, edit, at),
    };
    if directory.principals.contains_key(&made.id) {
        return Err(exists("principal", &made.id));
    }
    directory.principals.insert(made.id.clone(), Arc::new(made));
    Ok(())
}

fn edit_principal(directory: &mut Directory, edit: &DirectoryEdit, at: u64) -> Result<(), ApplyError> {
    let (DirectoryEdit::ClaimAccount { id }
    | DirectoryEdit::ResetAccount { id }
    | DirectoryEdit::UpdatePrincipal { id, .. }
    | DirectoryEdit::DisablePrincipal { id }
    | DirectoryEdit::EnablePrincipal { id }
    | DirectoryEdit::ErasePrincipal { id }) = edit
    else {
        return Ok(());
    };
    let known = directory.principals.get(id).ok_or_else(|| unknown("principal", id))?;
    let mut edited = Principal::clone(known);
    match edit {
        DirectoryEdit::ClaimAccount { .. } => edited.claimed_at = edited.claimed_at.or(Some(at)),
        DirectoryEdit::ResetAccount { .. } => edited.claimed_at = None,
        DirectoryEdit::UpdatePrincipal { name, model, expires_at, .. } => {
            edited.name = name.clone().unwrap_or(edited.name);
            edited.model = model.clone().unwrap_or(edited.model);
            edited.expires_at = expires_at.or(edited.expires_at);
        }
        DirectoryEdit::DisablePrincipal { .. } => edited.disabled_at = edited.disabled_at.or(Some(at)),
        DirectoryEdit::EnablePrincipal { .. } => edited.disabled_at = None,
        DirectoryEdit::ErasePrincipal { .. } => {
            edited.erased_at = edited.erased_at.or(Some(at));
            edited.claimed_at = None;
        }
        _ => {}
    }
    directory.principals.insert(id.clone(), Arc::new(edited));
    directory.note_claimed();
    Ok(())
}

fn tokens(directory: &mut Directory, edit: &DirectoryEdit, at: u64) -> Result<(), ApplyError> {
    match edit {
        DirectoryEdit::CreateToken { id, principal, name, scope, expires_at, hash } => {
            let made = Token {
                id: id.clone(),
                principal: principal.clone(),
                name: name.clone(),
                scope: scope.clone(),
                hash: hash.clone(),
                created_at: at,
                expires_at: *expires_at,
                revoked_at: None,
                replaced_by: None,
            };
            insert_token(directory, made, at)
        }
        DirectoryEdit::RotateToken { id, successor, hash, expires_at, deadline } => {
            let old = directory.tokens.get(id).cloned().ok_or_else(|| unknown("token", id))?;
            let made = Token {
                id: successor.clone(),
                hash: hash.clone(),
                created_at: at,
                expires_at: *expires_at,
                revoked_at: None,
                replaced_by: None,
                ..Token::clone(&old)
            };
            insert_token(directory, made, at)?;
            let replaced = Token {
                expires_at: old.expires_at.min(*deadline),
                replaced_by: Some(successor.clone()),
                ..Token::clone(&old)
            };
            directory.tokens.insert(id.clone(), Arc::new(replaced));
            Ok(())
        }
        DirectoryEdit::RevokeToken { id } => {
            let old = directory.tokens.get(id).cloned().ok_or_else(|| unknown("token", id))?;
            directory.token_hashes.remove(&old.hash);
            let revoked = Token { revoked_at: old.revoked_at.or(Some(at)), ..Token::clone(&old) };
            directory.tokens.insert(id.clone(), Arc::new(revoked));
            Ok(())
        }
        _ => Ok(()),
    }
}

fn insert_token(directory: &mut Directory, made: Token, at: u64) -> Result<(), ApplyError> {
    if directory.tokens.contains_key(&made.id) {
        return Err(exists("token", &made.id));
    }
    // Bought tokens come by the thousand: those that ended make room, oldest first. The journal keeps them all.
    while directory.tokens.len() >= MAX_TOKENS {
        let ended = directory.tokens.values().filter(|token| !token.is_live(at)).min_by_key(|token| token.created_at);
        let Some(ended) = ended.cloned() else { break };
        directory.token_hashes.remove(&ended.hash);
        directory.tokens.remove(&ended.id);
    }
    directory.token_hashes.insert(made.hash.clone(), made.id.clone());
    directory.tokens.insert(made.id.clone(), Arc::new(made));
    Ok(())
}
