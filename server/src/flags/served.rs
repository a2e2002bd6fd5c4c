//! Which variations have been served in production: those are never edited in place, so that what the assignment log says that
//! somebody got stays what they got.
//!
//! Derived from the entries alone, entry by entry: a variation counts from the first entry after which it could be served in an
//! environment of the tier production, whether or not anybody asked for it.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use guidon_sdk::model::{FlagEnvironment, Serve, Variation};
use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::environments::{Audience, Tier};
use crate::journal::ObjectId;
use crate::state::{FlagState, Project};

/// The variations that a flag has served in production, by key, with what each was: removed ones among them.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct ServedVariations {
    by_key: BTreeMap<String, String>,
}

impl ServedVariations {
    /// The [`fingerprint`] of the variation that was served under this key.
    #[must_use]
    pub fn get(&self, key: &str) -> Option<&str> {
        self.by_key.get(key).map(String::as_str)
    }

    /// Keys of the variations, in order.
    pub fn keys(&self) -> impl Iterator<Item = &str> {
        self.by_key.keys().map(String::as_str)
    }
}

/// BLAKE3, in hexadecimal, of what is fixed of a variation once it was served: its value and its provenance. The order of an
/// object's fields does not count, and numbers are doubles.
#[must_use]
pub fn fingerprint(variation: &Variation) -> String {
    let mut hasher = blake3::Hasher::new();
    digest(&variation.value, &mut hasher);
    digest(&serde_json::to_value(&variation.provenance).unwrap_or_default(), &mut hasher);
    hasher.finalize().to_hex().to_string()
}

fn digest(value: &Value, hasher: &mut blake3::Hasher) {
    let sized = |tag: u8, len: usize, hasher: &mut blake3::Hasher| {
        hasher.update(&[tag]).update(&(len as u64).to_le_bytes());
    };
    match value {
        Value::Null => drop(hasher.update(b"n")),
        Value::Bool(value) => drop(hasher.update(if *value { b"t" } else { b"f" })),
        Value::Number(number) => {
            // Adding zero makes one of the two zeros.
            let double = number.as_f64().unwrap_or(f64::NAN) + 0.0;
            hasher.update(b"d").update(&double.to_bits().to_le_bytes());
        }
        Value::String(text) => {
            sized(b's', text.len(), hasher);
            hasher.update(text.as_bytes());
        }
        Value::Array(items) => {
            sized(b'a', items.len(), hasher);
            items.iter().for_each(|item| digest(item, hasher));
        }
        Value::Object(fields) => {
            sized(b'o', fields.len(), hasher);
            for (name, value) in fields.iter().collect::<BTreeMap<_, _>>() {
                sized(b's', name.len(), hasher);
                hasher.update(name.as_bytes());
                digest(value, hasher);
            }
        }
    }
}

/// Notes what the flags may serve in production after a change that named these objects; `before` is the project before it.
pub(crate) fn note_served(before: Option<&Project>, project: &mut Project, named: &BTreeSet<ObjectId>) {
    let production = Production::of(project);
    if production.environments.is_empty() {
        return;
    }
    let was_there = |key: &String| {
        let known = before.and_then(|before| before.environments.get(key));
        known.is_some_and(|known| known.tier == Tier::Production)
    };
    // What every flag serves while it is off: a first key, or an environment that comes to production.
    let everything = named.iter().any(|object| match object {
        ObjectId::SdkKey(id) => {
            let is_new = before.is_none_or(|before| !before.sdk_keys.contains_key(id));
            let of = project.sdk_keys.get(id).map(|key| &key.environment);
            is_new && of.is_some_and(|environment| production.environments.contains_key(environment))
        }
        ObjectId::Environment(key) => production.environments.contains_key(key) && !was_there(key),
        _ => false,
    });
    let flags: BTreeSet<String> = if everything {
        project.flags.keys().cloned().collect()
    } else {
        let of = |object: &ObjectId| match object {
            ObjectId::Flag(key) => Some(key.clone()),
            ObjectId::FlagEnvironment(environment, key) if production.environments.contains_key(environment) => {
                Some(key.clone())
            }
            _ => None,
        };
        named.iter().filter_map(of).collect()
    };
    for key in flags {
        let Some(flag) = project.flags.get(&key) else { continue };
        let served = production.serves(flag);
        let variations = served.iter().filter_map(|key| flag.stored.variation(key));
        let now: BTreeMap<String, String> = variations.map(|it| (it.key.clone(), fingerprint(it))).collect();
        let known = project.served_variations.get(&key).map(|known| &**known).cloned().unwrap_or_default();
        let mut next = known.clone();
        next.by_key.extend(now);
        if next != known {
            project.served_variations.insert(key, Arc::new(next));
        }
    }
}

/// The environments of the tier production, and who may be served something there while a flag is off.
struct Production {
    environments: BTreeMap<String, BTreeSet<Audience>>,
}

impl Production {
    fn of(project: &Project) -> Self {
        let environments = project.environments.values().filter(|environment| environment.tier == Tier::Production);
        let mut environments: BTreeMap<String, BTreeSet<Audience>> =
            environments.map(|environment| (environment.key.clone(), BTreeSet::new())).collect();
        for key in project.sdk_keys.values().filter(|key| key.revoked_at.is_none()) {
            if let Some(audiences) = environments.get_mut(&key.environment) {
                audiences.insert(key.audience);
            }
        }
        Self { environments }
    }

    /// Keys of the variations that the flag may serve.
    fn serves<'f>(&self, flag: &'f FlagState) -> BTreeSet<&'f str> {
        let mut served = BTreeSet::new();
        if flag.stored.archived {
            return served;
        }
        for (environment, audiences) in &self.environments {
            let Some(config) = flag.stored.environments.get(environment) else { continue };
            if config.on {
                served.extend(while_on(config));
            }
            let is_seen = audiences.contains(&Audience::Server)
                || (flag.stored.client_side && audiences.contains(&Audience::Client));
            // Also while it is on: to those who do not meet its prerequisites.
            if config.on || flag.served.contains(environment) || is_seen {
                served.insert(config.off_variation.as_str());
            }
        }
        served
    }
}

/// What a flag that is on may serve to somebody. Which rule anybody meets is not looked at.
fn while_on(config: &FlagEnvironment) -> impl Iterator<Item = &str> {
    let targets = config.targets.iter().map(|target| target.variation.as_str());
    let serves = config.rules.iter().map(|rule| &rule.serve).chain([&config.fallthrough]);
    targets.chain(serves.flat_map(|serve| match serve {
        Serve::Variation(key) => vec![key.as_str()],
        Serve::Rollout(rollout) => {
            let weighed = rollout.weights.iter().filter(|(_, weight)| **weight > 0);
            weighed.map(|(key, _)| key.as_str()).collect()
        }
    }))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn of(variation: Value) -> String {
        fingerprint(&serde_json::from_value(variation).unwrap())
    }

    #[test]
    fn a_fingerprint_is_of_value_and_provenance_and_of_nothing_else() {
        let base = of(json!({"key": "a", "value": {"x": 1, "y": [true, null, "z"]}, "provenance": {"by": "ai"}}));
        for same in [
            json!({"key": "b", "value": {"y": [true, null, "z"], "x": 1.0}, "provenance": {"by": "ai"}}),
            json!({"key": "a", "value": {"x": 1, "y": [true, null, "z"]}, "provenance": {"by": "ai"},
                   "name": "A", "description": "of all"}),
        ] {
            assert_eq!(of(same.clone()), base, "{same}");
        }
        let other = [
            json!({"key": "a", "value": {"x": 1, "y": [true, null, "z"]}}),
            json!({"key": "a", "value": {"x": 1, "y": [true, null, "z"]}, "provenance": {"by": "human"}}),
            json!({"key": "a", "value": {"x": 1, "y": [true, null, "z"]}, "provenance": {"by": "ai", "model": "m"}}),
            json!({"key": "a", "value": {"x": 1, "y": [null, true, "z"]}, "provenance": {"by": "ai"}}),
            json!({"key": "a", "value": {"x": 2, "y": [true, null, "z"]}, "provenance": {"by": "ai"}}),
        ];
        for other in other {
            assert_ne!(of(other.clone()), base, "{other}");
        }
        assert_eq!(of(json!({"key": "a", "value": 0})), of(json!({"key": "a", "value": -0.0})));
        let split = |one: &str, two: &str| of(json!({"key": "a", "value": [one, two]}));
        assert_ne!(split("ab", "c"), split("a", "bc"));
    }
}
