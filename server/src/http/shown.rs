//! How much of an environment a caller is shown: all of it, all but persons' keys, or nothing.

use axum::extract::FromRequestParts;
use guidon_sdk::model::{Clause, FlagEnvironment, Op, Rule, SegmentRule};
use http::request::Parts;
use serde_json::{Map, Value, json};

use super::Api;
use super::auth::Caller;
use super::guard::Sight;
use super::problem::Problem;
use crate::changes::Author;
use crate::environments::Tier;
use crate::policy::Action;
use crate::state::{FlagState, Project, SegmentState, shared_part};

/// How much of an environment somebody is shown.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Shown {
    /// Everything.
    Everything,
    /// Everything but persons' keys, of which it is only said how many there are.
    WithoutKeys,
}

/// Who reads a project: extracted in handlers of routes that show what stands in several environments.
pub struct Reader {
    api: Api,
    author: Author,
    sight: Sight,
}

impl FromRequestParts<Api> for Reader {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, api: &Api) -> Result<Self, Problem> {
        let caller = parts.extensions.get::<Caller>();
        let caller = caller.ok_or_else(|| Problem::internal("a route that shows a project has no caller"))?;
        // Routes about one environment have no sight: the guard has let the caller into that one.
        let sight = parts.extensions.get::<Sight>().cloned().unwrap_or_default();
        Ok(Self { api: api.clone(), author: caller.author.clone(), sight })
    }
}

impl Reader {
    /// Whether what is in this environment may be shown at all.
    pub(super) fn sees(&self, environment: &str) -> bool {
        self.sight.sees(environment)
    }

    /// Whether there is anything to see in a project, for routes about all projects.
    pub(super) fn sees_something_in(&self, project: &Project) -> bool {
        self.api.sees_any(&self.author, project, Action::ReadConfiguration)
    }

    /// How much is shown of an environment that is seen.
    pub(super) fn shown(&self, project: &str, environment: &str) -> Shown {
        if self.api.is_blind(&self.author, project, environment) { Shown::WithoutKeys } else { Shown::Everything }
    }

    /// Lets a query name an environment only if it is in sight and there.
    ///
    /// # Errors
    ///
    /// The 403 that the guard gives for what is in no sight; a 404 for what is not there.
    pub(super) fn check_named(&self, project: &Project, environment: &str) -> Result<(), Problem> {
        if !self.sees(environment) {
            // Refused, and noted, as a route about that environment alone refuses it.
            let resource = self.api.place(&project.key, environment);
            self.api.allow(&self.author, Action::ReadConfiguration, &resource, true)?;
        }
        if project.environments.contains_key(environment) {
            Ok(())
        } else {
            Err(Problem::not_found("environment", environment))
        }
    }

    /// A flag with the environments in sight, or with `only` one of them, and for those who see all of production which variations
    /// have been served there.
    pub(super) fn flag(&self, project: &Project, flag: &FlagState, only: Option<&str>) -> Value {
        let published = &flag.published;
        let wanted = published.environments.iter().filter(|(key, _)| only.is_none_or(|only| only == key.as_str()));
        let environments: Map<String, Value> = wanted
            .filter(|(key, _)| self.sees(key))
            .map(|(key, config)| (key.clone(), in_environment(config, self.shown(&project.key, key))))
            .collect();
        let mut shown = json!(shared_part(published));
        shown["environments"] = environments.into();
        let mut production = project.environments.values().filter(|it| it.tier == Tier::Production);
        if production.all(|environment| self.sees(&environment.key)) {
            let served = project.served_variations.get(&published.key);
            shown["servedInProduction"] = served.into_iter().flat_map(|served| served.keys()).collect();
        }
        shown["createdAt"] = flag.created_at.into();
        shown["updatedAt"] = flag.updated_at.into();
        shown["revision"] = flag.revision.into();
        shown
    }
}

/// How an environment serves a flag.
fn in_environment(config: &FlagEnvironment, shown: Shown) -> Value {
    if shown == Shown::Everything {
        return json!(config);
    }
    let counted: Vec<Value> = config
        .targets
        .iter()
        .map(|target| json!({"variation": target.variation, "keyCount": target.keys.len()}))
        .collect();
    let rules: Vec<Value> = config.rules.iter().map(rule).collect();
    let bare = FlagEnvironment { targets: Vec::new(), rules: Vec::new(), ..config.clone() };
    let mut config = json!(bare);
    for (name, list) in [("targets", counted), ("rules", rules)] {
        if !list.is_empty() {
            config[name] = list.into();
        }
    }
    config
}

fn rule(rule: &Rule) -> Value {
    let clauses: Vec<Value> = rule.clauses.iter().map(clause).collect();
    let mut shown = json!(Rule { clauses: Vec::new(), ..rule.clone() });
    shown["clauses"] = clauses.into();
    shown
}

fn segment_rule(rule: &SegmentRule) -> Value {
    let clauses: Vec<Value> = rule.clauses.iter().map(clause).collect();
    let mut shown = json!(SegmentRule { clauses: Vec::new(), ..rule.clone() });
    shown["clauses"] = clauses.into();
    shown
}

/// A clause; one that compares an attribute says only with how many values. An e-mail address is a person's key as well, and
/// nothing says yet which attributes are not.
fn clause(clause: &Clause) -> Value {
    if matches!(clause.op, Op::Exists | Op::Segment) {
        return json!(clause);
    }
    let mut shown = json!(Clause { values: Vec::new(), key_set: None, ..clause.clone() });
    shown["valueCount"] = clause.values.len().into();
    shown
}

/// Takes the values of clauses out of whatever holds clauses, as a journal entry does, and says how many there were.
pub(super) fn hide_values(shown: &mut Value) {
    match shown {
        Value::Array(items) => items.iter_mut().for_each(hide_values),
        Value::Object(fields) => {
            let compares = fields.contains_key("attribute") && fields.contains_key("op");
            if compares && let Some(Value::Array(values)) = fields.remove("values") {
                fields.insert("valueCount".to_owned(), values.len().into());
            }
            // What an operator's own proof printed may name anybody.
            if fields.contains_key("outputHash") && fields.contains_key("exitCode") {
                fields.retain(|name, _| name != "output" && name != "command");
            }
            fields.values_mut().for_each(hide_values);
        }
        _ => {}
    }
}

/// A segment, without the lists of its keys.
pub(super) fn segment(segment: &SegmentState, shown: Shown) -> Value {
    let rules = match shown {
        Shown::Everything => json!(segment.rules),
        Shown::WithoutKeys => segment.rules.iter().map(segment_rule).collect(),
    };
    json!({
        "key": segment.stored.key,
        "name": segment.stored.name,
        "description": segment.stored.description,
        "rules": rules,
        "includedCount": segment.included.len(),
        "excludedCount": segment.excluded.len(),
        "createdAt": segment.created_at,
        "updatedAt": segment.updated_at,
        "revision": segment.revision,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_shown_without_keys_holds_none_and_says_how_many() {
        let config: FlagEnvironment = serde_json::from_value(json!({
            "on": true, "offVariation": "off", "fallthrough": {"variation": "off"},
            "targets": [{"variation": "on", "keys": ["person-1", "person-2"]}],
            "rules": [{"id": "r", "serve": {"variation": "on"}, "clauses": [
                {"attribute": "targetingKey", "op": "in", "values": ["person-3"]},
                {"attribute": "targetingKey", "op": "startsWith", "values": ["person-"]},
                {"attribute": "targetingKey", "op": "exists"},
                {"attribute": "country", "op": "in", "values": ["CA"]},
                {"op": "segment", "values": ["beta"]}]}],
        }))
        .unwrap();
        let blind = in_environment(&config, Shown::WithoutKeys);
        assert!(!blind.to_string().contains("person"), "{blind}");
        assert_eq!(blind["targets"], json!([{"variation": "on", "keyCount": 2}]));
        assert_eq!(
            blind["rules"][0]["clauses"],
            json!([
                {"attribute": "targetingKey", "op": "in", "valueCount": 1},
                {"attribute": "targetingKey", "op": "startsWith", "valueCount": 1},
                {"attribute": "targetingKey", "op": "exists"},
                {"attribute": "country", "op": "in", "valueCount": 1},
                {"op": "segment", "values": ["beta"]}])
        );
        let mut entry = json!([{"kind": "addRule", "rule": {"clauses": [
            {"attribute": "email", "op": "in", "values": ["ceo@example.com"]}, {"op": "segment", "values": ["beta"]}]}}]);
        hide_values(&mut entry);
        assert_eq!(
            entry[0]["rule"]["clauses"],
            json!([{"attribute": "email", "op": "in", "valueCount": 1}, {"op": "segment", "values": ["beta"]}])
        );
        assert_eq!((&blind["on"], &blind["fallthrough"]), (&json!(true), &json!({"variation": "off"})));
        assert_eq!(in_environment(&config, Shown::Everything), json!(config));
    }
}
