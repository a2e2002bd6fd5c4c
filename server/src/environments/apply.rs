//! What each resolved instruction does to the environments of a project and to their SDK keys.

use std::sync::Arc;

use guidon_sdk::model::Flag;

use super::{Environment, SdkKey};
use crate::changes::Instruction;
use crate::changes::apply::{ApplyError, exists, unknown};
use crate::state::{FlagState, Project};

/// Applies an instruction that is about neither a flag nor a segment, made at `at` (milliseconds since 1970).
pub(crate) fn apply(
    project: &mut Project,
    environment: Option<&str>,
    instruction: &Instruction,
    at: u64,
    revision: u64,
) -> Result<(), ApplyError> {
    match instruction {
        Instruction::CreateEnvironment { key, name, tier } => {
            if project.environments.contains_key(key) {
                return Err(exists("environment", key));
            }
            let name = if name.is_empty() { key.clone() } else { name.clone() };
            let created = Environment { key: key.clone(), name, tier: *tier };
            project.environments.insert(key.clone(), Arc::new(created));
            edit_all_flags(project, at, revision, |flag| {
                if let Some(config) = flag.default_environment() {
                    flag.environments.insert(key.clone(), config);
                }
            });
        }
        Instruction::UpdateEnvironment { key, name } => {
            let known = project.environments.get(key).ok_or_else(|| unknown("environment", key))?;
            let renamed = Environment { name: name.clone(), ..Environment::clone(known) };
            project.environments.insert(key.clone(), Arc::new(renamed));
        }
        Instruction::DeleteEnvironment { key } => {
            project.environments.remove(key).ok_or_else(|| unknown("environment", key))?;
            project.segments = project.segments.clone().into_iter().filter(|((of, _), _)| of != key).collect();
            project.sdk_keys =
                project.sdk_keys.clone().into_iter().filter(|(_, sdk_key)| sdk_key.environment != *key).collect();
            edit_all_flags(project, at, revision, |flag| {
                flag.environments.remove(key);
            });
        }
        Instruction::CreateSdkKey { id, name, audience, hash } => {
            if project.sdk_keys.contains_key(id) {
                return Err(exists("SDK key", id));
            }
            let environment = environment.ok_or(ApplyError::NoEnvironment)?.to_owned();
            let (id, name, hash, audience) = (id.clone(), name.clone(), hash.clone(), *audience);
            let made = SdkKey { id: id.clone(), name, environment, audience, hash, created_at: at, revoked_at: None };
            project.sdk_keys.insert(id, Arc::new(made));
        }
        Instruction::RevokeSdkKey { id } => {
            let known = project.sdk_keys.get(id).ok_or_else(|| unknown("SDK key", id))?;
            let revoked = SdkKey { revoked_at: known.revoked_at.or(Some(at)), ..SdkKey::clone(known) };
            project.sdk_keys.insert(id.clone(), Arc::new(revoked));
        }
        _ => {}
    }
    Ok(())
}

/// Edits the stored and the published form of every flag alike: environments that come or go hold no keys.
fn edit_all_flags(project: &mut Project, at: u64, revision: u64, edit: impl Fn(&mut Flag)) {
    let edited = project.flags.iter().map(|(key, flag)| {
        let changed = |flag: &Arc<Flag>| {
            let mut flag = Flag::clone(flag);
            edit(&mut flag);
            Arc::new(flag)
        };
        let stored = changed(&flag.stored);
        let same = Arc::ptr_eq(&flag.stored, &flag.published);
        let published = if same { Arc::clone(&stored) } else { changed(&flag.published) };
        let state = FlagState { stored, published, created_at: flag.created_at, updated_at: at, revision };
        (key.clone(), Arc::new(state))
    });
    project.flags = edited.collect();
}
