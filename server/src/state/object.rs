//! The objects of a project, in the form they are stored and hashed in.

use guidon_sdk::model::Flag;
use serde::Serialize;

use super::Project;
use crate::identity::Directory;
use crate::journal::ObjectId;

/// The project itself, without what it holds.
#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct StoredProject<'a> {
    key: &'a str,
    name: &'a str,
    created_at: u64,
}

/// The part of a flag that all environments share.
#[must_use]
pub fn shared_part(flag: &Flag) -> Flag {
    Flag {
        key: flag.key.clone(),
        kind: flag.kind,
        name: flag.name.clone(),
        description: flag.description.clone(),
        tags: flag.tags.clone(),
        owner: flag.owner.clone(),
        temporary: flag.temporary,
        expires: flag.expires.clone(),
        client_side: flag.client_side,
        archived: flag.archived,
        variations: flag.variations.clone(),
        schema: flag.schema.clone(),
        environments: Default::default(),
    }
}

/// BLAKE3, in hexadecimal, of an object's stored JSON; `None` where there is no such object.
///
/// The shared part of a flag is its definition with no environments.
#[must_use]
pub fn hash_object(project: &Project, object: &ObjectId) -> Option<String> {
    match object {
        ObjectId::Project => {
            Some(hash(&StoredProject { key: &project.key, name: &project.name, created_at: project.created_at }))
        }
        ObjectId::Environment(key) => project.environments.get(key).map(hash),
        ObjectId::Flag(key) => project.flags.get(key).map(|flag| hash(&shared_part(&flag.stored))),
        ObjectId::FlagEnvironment(environment, key) => {
            project.flags.get(key).and_then(|flag| flag.stored.environments.get(environment)).map(hash)
        }
        ObjectId::Segment(environment, key) => {
            project.segments.get(&(environment.clone(), key.clone())).map(|segment| hash(&*segment.stored))
        }
        ObjectId::SdkKey(id) => project.sdk_keys.get(id).map(hash),
        ObjectId::Request(id) => project.requests.get(id).map(hash),
        ObjectId::Review(revision) => project.reviews.get(revision).map(hash),
        ObjectId::Webhook(id) => project.webhooks.get(id).map(hash),
        ObjectId::Drill(environment, flag) => {
            project.drills.get(&(environment.clone(), flag.clone())).map(|drill| hash(&**drill))
        }
        ObjectId::Release(environment, flag) => {
            project.releases.get(&(environment.clone(), flag.clone())).map(|release| hash(&**release))
        }
        ObjectId::Incident(id) => project.incidents.get(id).map(|incident| hash(&**incident)),
        ObjectId::Principal(_)
        | ObjectId::RoleBinding(_)
        | ObjectId::Token(_)
        | ObjectId::Issuer(_)
        | ObjectId::Policy(_) => None,
    }
}

/// As [`hash_object`], of the directory's objects.
#[must_use]
pub fn hash_in_directory(directory: &Directory, object: &ObjectId) -> Option<String> {
    match object {
        ObjectId::Principal(id) => directory.principals.get(id).map(hash),
        ObjectId::RoleBinding(id) => directory.bindings.get(id).map(hash),
        ObjectId::Token(id) => directory.tokens.get(id).map(hash),
        ObjectId::Issuer(id) => directory.issuers.get(id).map(hash),
        ObjectId::Policy(name) => directory.policies.get(name).map(hash),
        _ => None,
    }
}

fn hash<T: Serialize + ?Sized>(value: &T) -> String {
    let mut hasher = blake3::Hasher::new();
    // Writing to a hasher cannot fail, and the stored types have string keys only.
    let written = serde_json::to_writer(&mut hasher, value);
    debug_assert!(written.is_ok(), "stored objects are JSON");
    hasher.finalize().to_hex().to_string()
}
