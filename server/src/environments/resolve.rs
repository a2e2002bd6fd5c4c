//! Resolves instructions about environments and SDK keys.

use crate::changes::resolve::Resolving;
use crate::changes::{Instruction, MintedCredential, limits, mint};

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
        Instruction::UpdateEnvironment { key, name } => {
            check_known(cx, key);
            cx.check_name("/name", name);
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

/// Whether a key of this project, revoked ones among them, or a live one of another has a credential of this hash.
fn is_taken(cx: &Resolving<'_>, hash: &str) -> bool {
    cx.before.credentials.contains_key(hash) || cx.project.sdk_keys.values().any(|known| known.hash == hash)
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
