//! What decides of one flag, as the SDK's evaluator takes it.

use std::collections::{BTreeMap, BTreeSet};

use guidon_sdk::model::{EnvironmentFlag, Op, Segment};
use guidon_sdk::protocol::Revision;
use guidon_sdk::snapshot::Snapshot;
use serde_json::Value;

use crate::environments::Audience;
use crate::state::Project;

/// The flag, what it requires, and the segments those refer to: nothing else decides. A snapshot, because only that keeps the
/// definitions, whose words an explanation repeats.
///
/// # Errors
///
/// If a definition is no JSON.
pub fn snapshot_of(project: &Project, environment: &str, flag: &str) -> Result<Snapshot, serde_json::Error> {
    let mut flags: BTreeMap<String, EnvironmentFlag> = BTreeMap::new();
    let mut wanted = vec![flag.to_owned()];
    while let Some(key) = wanted.pop() {
        if flags.contains_key(&key) {
            continue;
        }
        let found = project.flags.get(&key).and_then(|state| state.in_environment(environment, Audience::Server));
        if let Some(found) = found {
            wanted.extend(found.config.prerequisites.iter().map(|prerequisite| prerequisite.flag.clone()));
            flags.insert(key, found);
        }
    }
    let clauses = flags.values().flat_map(|flag| &flag.config.rules).flat_map(|rule| &rule.clauses);
    let keys: BTreeSet<&str> = clauses
        .filter(|clause| clause.op == Op::Segment)
        .flat_map(|clause| clause.values.iter().filter_map(Value::as_str))
        .collect();
    let segments: Vec<Segment> =
        keys.into_iter().filter_map(|key| Some(project.segment(environment, key)?.published())).collect();
    let flags: Vec<EnvironmentFlag> = flags.into_values().collect();
    let revision = Revision { history: String::new(), number: 0 };
    Snapshot::from_definitions(revision, "", environment, &flags, &segments)
}
