//! Resolves instructions about environments and SDK keys.

use std::sync::Arc;

use super::{MAX_FREEZES, SdkKey};
use crate::changes::resolve::Resolving;
use crate::changes::{Instruction, MintedCredential, limits, mint};
use crate::state::Project;

/// Longest that a rotated SDK key may live beside its successor: 90 days, in milliseconds.
const MAX_OVERLAP_MS: u64 = 90 * 24 * 60 * 60 * 1_000;

/// The instruction as it is to be journaled; `None` if it asks for what is already so, or was refused.
pub(crate) fn resolve(cx: &mut Resolving<'_>, mut instruction: Instruction) -> Option<Instruction> {
    let project = cx.project;
    match &mut instruction {
        Instruction::CreateEnvironment { key, name, .. } => {
            cx.check_key("/key", key);
            cx.check_name("/name", name);
            if project.environments.contains_key(key) {
                cx.refuse("/key", "environmentExists", format!("there is an environment \"{key}\" already"));
            } else if project.environments.len() >= limits::MAX_ENVIRONMENTS {
                let most = limits::MAX_ENVIRONMENTS;
                cx.refuse("/key", "tooMany", format!("a project has at most {most} environments; delete some"));
            }
        }
        Instruction::UpdateEnvironment { key, name, tier } => {
            check_known(cx, key);
            if let Some(name) = name {
                cx.check_name("/name", name);
            }
            if let (Some(tier), Some(known)) = (tier, project.environments.get(key))
                && *tier != known.tier
                && has_served(project, key)
            {
                let message = format!(
                    "\"{key}\" has served as {}: its tier is fixed; create another environment in that tier",
                    known.tier.as_str()
                );
                cx.refuse("/tier", "tierFixed", message);
            }
        }
        Instruction::DeclareFreeze { id, from, until, reason } => {
            if reason.trim().is_empty() || reason.len() > limits::MAX_COMMENT_BYTES {
                let most = limits::MAX_COMMENT_BYTES;
                cx.refuse("/reason", "badReason", format!("say why, in at most {most} bytes: people will ask"));
            }
            let begins = from.unwrap_or(cx.now);
            if until.is_some_and(|end| end <= begins.max(cx.now)) {
                cx.refuse("/until", "past", "a freeze ends after it begins, and after now");
            }
            *from = Some(begins);
            let standing = cx.environment.and_then(|key| project.environments.get(key));
            if standing.is_some_and(|environment| environment.freezes.len() >= MAX_FREEZES) {
                cx.refuse("", "tooMany", format!("an environment has at most {MAX_FREEZES} freezes; lift some"));
            }
            *id = mint::id("freeze", &mut *cx.mint);
        }
        Instruction::LiftFreeze { id } => {
            let standing = cx.environment.and_then(|key| project.environments.get(key));
            if standing.is_none_or(|environment| environment.freezes.iter().all(|freeze| freeze.id != *id)) {
                cx.refuse("/id", "unknownFreeze", format!("there is no freeze \"{id}\" here"));
            }
        }
        Instruction::RotateSdkKey { id, successor, hash, deadline } => {
            // A deadline that has come means at once.
            *deadline = (*deadline).max(cx.now);
            rotate(cx, id, hash, *deadline);
            *successor = mint::id("key", &mut *cx.mint);
        }
        Instruction::DeleteEnvironment { key } => {
            check_known(cx, key);
            check_unused(cx, key);
        }
        Instruction::CreateSdkKey { id, name, audience, hash } => {
            cx.check_name("/name", name);
            if project.sdk_keys.len() >= limits::MAX_SDK_KEYS {
                cx.refuse("", "tooMany", format!("a project has at most {} SDK keys", limits::MAX_SDK_KEYS));
            }
            if id.is_empty() {
                *id = mint::id("key", &mut *cx.mint);
            } else {
                cx.check_key("/id", id);
            }
            if project.sdk_keys.contains_key(id) {
                cx.refuse("/id", "sdkKeyExists", format!("there is an SDK key \"{id}\" already; leave the id out"));
            }
            // A door that can make the same credential again, for a request that is sent again, brings its hash along.
            if hash.is_empty() {
                let credential = mint::credential(*audience, &mut *cx.mint);
                *hash = credential.hash().to_hex();
                cx.credentials.push(MintedCredential { id: id.clone(), secret: credential.reveal().to_owned() });
            } else if blake3::Hash::from_hex(&*hash).is_err() {
                cx.refuse("/hash", "invalidHash", "a hash is 64 hexadecimal digits; leave it out");
            } else if is_taken(cx, hash) {
                // Revoking one of two keys with one credential would revoke both, or neither.
                cx.refuse("/hash", "credentialExists", "another SDK key has this credential; leave the hash out");
            }
        }
        Instruction::RevokeSdkKey { id } if !project.sdk_keys.contains_key(id) => {
            cx.refuse("/id", "unknownSdkKey", format!("there is no SDK key \"{id}\""));
        }
        _ => {}
    }
    Some(instruction)
}

/// Whether the environment may have served anybody: an SDK key was ever made there, or a flag was on there.
fn has_served(project: &Project, environment: &str) -> bool {
    project.sdk_keys.values().any(|key| key.environment == environment)
        || project.flags.values().any(|flag| flag.served.contains(environment))
}

fn rotate(cx: &mut Resolving<'_>, id: &str, hash: &str, deadline: u64) {
    let here = |key: &&Arc<SdkKey>| Some(&*key.environment) == cx.environment;
    let Some(old) = cx.project.sdk_keys.get(id).filter(here).cloned() else {
        return cx.refuse("/id", "unknownSdkKey", format!("there is no SDK key \"{id}\" here"));
    };
    if old.revoked_at.is_some() {
        cx.refuse("/id", "ended", format!("the SDK key \"{id}\" was revoked; create a new one"));
    } else if let Some(next) = &old.replaced_by {
        cx.refuse("/id", "rotated", format!("the SDK key \"{id}\" was rotated already: \"{next}\" replaces it"));
    }
    if deadline - cx.now > MAX_OVERLAP_MS {
        let days = MAX_OVERLAP_MS / (24 * 60 * 60 * 1_000);
        cx.refuse("/deadline", "outOfRange", format!("the old key lives on for at most {days} days"));
    }
    if blake3::Hash::from_hex(hash).is_err() || is_taken(cx, hash) {
        cx.refuse("/hash", "invalidHash", "a hash is 64 hexadecimal digits that no other SDK key has");
    }
}

/// Whether a key of this project, revoked ones among them, or a live one of another has a credential of this hash.
fn is_taken(cx: &Resolving<'_>, hash: &str) -> bool {
    cx.before.credentials.contains_key(hash)
        || cx.before.directory.token_hashes.contains_key(hash)
        || cx.project.sdk_keys.values().any(|known| known.hash == hash)
}

fn check_known(cx: &mut Resolving<'_>, key: &str) {
    if !cx.project.environments.contains_key(key) {
        cx.refuse("/key", "unknownEnvironment", format!("there is no environment \"{key}\""));
    }
}

/// Refuses to delete an environment that somebody may depend on.
fn check_unused(cx: &mut Resolving<'_>, key: &str) {
    let project = cx.project;
    let live = project.sdk_keys.values().find(|sdk_key| sdk_key.environment == *key && sdk_key.revoked_at.is_none());
    if let Some(live) = live {
        cx.refuse("/key", "environmentInUse", format!("the SDK key \"{}\" is live here; revoke it first", live.id));
    }
    let on = project
        .flags
        .values()
        .find(|flag| !flag.stored.archived && flag.stored.environments.get(key).is_some_and(|config| config.on));
    if let Some(on) = on {
        cx.refuse("/key", "environmentInUse", format!("the flag \"{}\" is on here; turn it off first", on.stored.key));
    }
}
