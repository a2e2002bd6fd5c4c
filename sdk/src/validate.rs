//! Every problem of a definition, all at once, each with its place and its remedy.
//!
//! The evaluator survives definitions that do not pass; the server's write path refuses them. A value's JSON Schema is the
//! server's to check, since the schema engine lives there.

mod cycles;
pub mod limits;
mod rules;

use std::collections::{BTreeMap, HashSet};

use serde::{Deserialize, Serialize};

use crate::eval::is_date;
use crate::model::{Flag, FlagEnvironment, Segment, Variation, is_valid_key};
use rules::{Audience, check_rule_ids};

/// One thing that is wrong with a definition.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Problem {
    /// Where in the definition (JSON Pointer, RFC 6901).
    pub pointer: String,
    /// A stable word for what is wrong.
    pub code: String,
    /// What is wrong and what to do about it, for people.
    pub message: String,
}

/// What a flag's definition is checked against: the rest of its project.
pub trait FlagFacts {
    /// Whether the project has this environment.
    fn has_environment(&self, environment: &str) -> bool;
    /// Another flag of the project, if it is there and not archived.
    fn flag(&self, key: &str) -> Option<&Flag>;
    /// A segment of an environment.
    fn segment(&self, environment: &str, key: &str) -> Option<SegmentFacts>;
}

/// What a flag has to know of a segment.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct SegmentFacts {
    /// Whether it lists keys, included or excluded, or has clauses that do: browsers would be able to read them.
    pub lists_keys: bool,
}

impl SegmentFacts {
    /// What a flag has to know of `segment`.
    #[must_use]
    pub fn of(segment: &Segment) -> Self {
        let clauses = || segment.rules.iter().flat_map(|rule| &rule.clauses);
        Self {
            lists_keys: !segment.included.is_empty()
                || !segment.excluded.is_empty()
                || clauses().any(rules::lists_keys),
        }
    }
}

/// Every problem of a flag's definition; none means that it may be stored.
#[must_use]
pub fn validate_flag(flag: &Flag, facts: &dyn FlagFacts) -> Vec<Problem> {
    let mut report = Report::default();
    report.key("/key", "flag", &flag.key);
    metadata(flag, &mut report);
    variations(flag, &mut report);
    report.most("/environments", "environments", flag.environments.len(), limits::MAX_ENVIRONMENTS);
    for (environment, config) in &flag.environments {
        let at = Pointer::root().then("environments").then(environment);
        if !facts.has_environment(environment) {
            let message = format!("the project has no environment \"{environment}\"; create it first or leave it out");
            report.add(&at.0, "unknownEnvironment", message);
        }
        let check = EnvironmentCheck { flag, environment, config, facts };
        check.run(&at, &mut report);
    }
    report.problems
}

/// Every problem of a segment's definition; none means that it may be stored.
#[must_use]
pub fn validate_segment(segment: &Segment) -> Vec<Problem> {
    let mut report = Report::default();
    let root = Pointer::root();
    report.key("/key", "segment", &segment.key);
    report.text("/name", &segment.name, limits::MAX_NAME_BYTES);
    report.text("/description", &segment.description, limits::MAX_DESCRIPTION_BYTES);
    for (list, keys) in [("included", &segment.included), ("excluded", &segment.excluded)] {
        report.most(&root.then(list).0, "keys", keys.len(), limits::MAX_SEGMENT_KEYS);
        context_keys(&root.then(list), keys, &mut HashSet::new(), &mut report);
    }
    let at = root.then("rules");
    report.most(&at.0, "rules", segment.rules.len(), limits::MAX_RULES);
    check_rule_ids(&at, segment.rules.iter().map(|rule| rule.id.as_str()), &mut report);
    for (index, rule) in segment.rules.iter().enumerate() {
        let at = at.then(index);
        report.text(&at.then("description").0, &rule.description, limits::MAX_DESCRIPTION_BYTES);
        rules::check_clauses(&at.then("clauses"), &rule.clauses, Audience::Segment, &mut report);
    }
    report.problems
}

fn metadata(flag: &Flag, report: &mut Report) {
    report.text("/name", &flag.name, limits::MAX_NAME_BYTES);
    report.text("/description", &flag.description, limits::MAX_DESCRIPTION_BYTES);
    if let Some(owner) = &flag.owner {
        report.text("/owner", owner, limits::MAX_NAME_BYTES);
    }
    report.most("/tags", "tags", flag.tags.len(), limits::MAX_TAGS);
    let mut seen = HashSet::new();
    for (index, tag) in flag.tags.iter().enumerate() {
        let at = format!("/tags/{index}");
        report.key(&at, "tag", tag);
        if !seen.insert(tag) {
            report.add(&at, "duplicate", format!("the tag \"{tag}\" is there twice; keep one"));
        }
    }
    if let Some(expires) = flag.expires.as_deref().filter(|expires| !is_date(expires)) {
        report.add(
            "/expires",
            "badDate",
            format!("\"{expires}\" is not a day of the calendar; write it as 2027-01-31"),
        );
    }
    if let Some(schema) = &flag.schema {
        let bytes = schema.to_string().len();
        report.most("/schema", "bytes of JSON Schema", bytes, limits::MAX_SCHEMA_BYTES);
    }
}

fn variations(flag: &Flag, report: &mut Report) {
    if flag.variations.is_empty() {
        report.add("/variations", "empty", "a flag needs at least one variation".to_owned());
    }
    report.most("/variations", "variations", flag.variations.len(), limits::MAX_VARIATIONS);
    let mut seen = HashSet::new();
    for (index, variation) in flag.variations.iter().enumerate() {
        let at = Pointer::root().then("variations").then(index);
        report.key(&at.then("key").0, "variation", &variation.key);
        if !seen.insert(variation.key.as_str()) {
            let message = format!("another variation has the key \"{}\"; choose a different one", variation.key);
            report.add(&at.then("key").0, "duplicateKey", message);
        }
        variation_content(flag, variation, &at, report);
    }
}

fn variation_content(flag: &Flag, variation: &Variation, at: &Pointer, report: &mut Report) {
    if !flag.kind.admits(&variation.value) {
        let message =
            format!("the flag's kind is {0}, the value is not; give a {0} or change the kind", flag.kind.as_str());
        report.add(&at.then("value").0, "wrongKind", message);
    }
    // Only a value that may be large is worth writing out to be measured.
    if !variation.value.is_boolean() && !variation.value.is_number() {
        report.most(&at.then("value").0, "bytes of JSON", variation.value.to_string().len(), limits::MAX_VALUE_BYTES);
    }
    report.text(&at.then("name").0, &variation.name, limits::MAX_NAME_BYTES);
    report.text(&at.then("description").0, &variation.description, limits::MAX_DESCRIPTION_BYTES);
    if let Some(provenance) = &variation.provenance {
        let at = at.then("provenance");
        let parts = [
            ("model", &provenance.model),
            ("promptHash", &provenance.prompt_hash),
            ("commit", &provenance.commit),
            ("image", &provenance.image),
        ];
        for (name, part) in parts {
            if let Some(part) = part {
                report.text(&at.then(name).0, part, limits::MAX_PROVENANCE_BYTES);
                if part.is_empty() {
                    report.add(&at.then(name).0, "empty", "say it or leave it out; it may not be empty".to_owned());
                }
            }
        }
    }
}

/// One environment of a flag, with what it is checked against.
struct EnvironmentCheck<'a> {
    flag: &'a Flag,
    environment: &'a str,
    config: &'a FlagEnvironment,
    facts: &'a dyn FlagFacts,
}

impl EnvironmentCheck<'_> {
    fn run(&self, at: &Pointer, report: &mut Report) {
        self.variation(&at.then("offVariation"), &self.config.off_variation, report);
        self.prerequisites(&at.then("prerequisites"), report);
        self.targets(&at.then("targets"), report);
        let audience =
            Audience::Flag { environment: self.environment, client_side: self.flag.client_side, facts: self.facts };
        let rules = at.then("rules");
        report.most(&rules.0, "rules", self.config.rules.len(), limits::MAX_RULES);
        check_rule_ids(&rules, self.config.rules.iter().map(|rule| rule.id.as_str()), report);
        for (index, rule) in self.config.rules.iter().enumerate() {
            let at = rules.then(index);
            report.text(&at.then("description").0, &rule.description, limits::MAX_DESCRIPTION_BYTES);
            rules::check_clauses(&at.then("clauses"), &rule.clauses, audience, report);
            rules::check_serve(&at.then("serve"), &rule.serve, self.flag, report);
        }
        rules::check_serve(&at.then("fallthrough"), &self.config.fallthrough, self.flag, report);
    }

    fn variation(&self, at: &Pointer, key: &str, report: &mut Report) {
        rules::check_variation(at, key, self.flag, report);
    }

    fn prerequisites(&self, at: &Pointer, report: &mut Report) {
        let wanted = &self.config.prerequisites;
        report.most(&at.0, "prerequisites", wanted.len(), limits::MAX_PREREQUISITES);
        let mut seen = HashSet::new();
        for (index, prerequisite) in wanted.iter().enumerate() {
            let at = at.then(index);
            if !seen.insert(prerequisite.flag.as_str()) {
                let message = format!("\"{}\" is a prerequisite already; keep one", prerequisite.flag);
                report.add(&at.then("flag").0, "duplicate", message);
            }
            if prerequisite.flag == self.flag.key {
                let message = "a flag cannot be its own prerequisite; name another flag".to_owned();
                report.add(&at.then("flag").0, "prerequisiteCycle", message);
                continue;
            }
            let Some(other) = self.facts.flag(&prerequisite.flag) else {
                let message = format!("the project has no flag \"{}\"; create it first", prerequisite.flag);
                report.add(&at.then("flag").0, "unknownFlag", message);
                continue;
            };
            if other.variation(&prerequisite.variation).is_none() {
                let message = format!(
                    "the flag \"{}\" has no variation \"{}\"; {}",
                    other.key,
                    prerequisite.variation,
                    name_those_of(other)
                );
                report.add(&at.then("variation").0, "unknownVariation", message);
            }
            if self.flag.client_side && !other.client_side {
                let message = format!(
                    "\"{}\" is not for client-side keys, so a flag that is cannot depend on it; set its clientSide",
                    other.key
                );
                report.add(&at.then("flag").0, "prerequisiteNotClientSide", message);
            }
        }
        for chain in cycles::find(self.flag, self.environment, wanted, self.facts) {
            report.add(&at.then(chain.prerequisite).then("flag").0, chain.code, chain.message);
        }
    }

    fn targets(&self, at: &Pointer, report: &mut Report) {
        let mut seen = HashSet::new();
        let total: usize = self.config.targets.iter().map(|target| target.keys.len()).sum();
        report.most(&at.0, "targeted keys", total, limits::MAX_TARGET_KEYS);
        if self.flag.client_side && !self.config.targets.is_empty() {
            let message = "a flag for client-side keys may not target individual keys, which every browser could read; use an attribute instead";
            report.add(&at.0, "keysInBrowser", message.to_owned());
        }
        for (index, target) in self.config.targets.iter().enumerate() {
            let at = at.then(index);
            self.variation(&at.then("variation"), &target.variation, report);
            context_keys(&at.then("keys"), &target.keys, &mut seen, report);
        }
    }
}

/// Targeting keys: neither empty, too long nor listed twice.
fn context_keys<'a>(at: &Pointer, keys: &'a [String], seen: &mut HashSet<&'a str>, report: &mut Report) {
    for (index, key) in keys.iter().enumerate() {
        if key.is_empty() {
            report.add(&at.then(index).0, "empty", "a targeting key is not empty; remove it".to_owned());
        } else if key.len() > limits::MAX_CONTEXT_KEY_BYTES {
            report.text(&at.then(index).0, key, limits::MAX_CONTEXT_KEY_BYTES);
        } else if !seen.insert(key) {
            report.add(&at.then(index).0, "duplicate", format!("\"{key}\" is listed already; keep one"));
        }
    }
}

fn name_those_of(flag: &Flag) -> String {
    let keys: Vec<&str> =
        flag.variations.iter().take(limits::MAX_NAMED).map(|variation| variation.key.as_str()).collect();
    format!("it has {}", keys.join(", "))
}

/// A JSON Pointer under construction.
#[derive(Clone)]
struct Pointer(String);

impl Pointer {
    fn root() -> Self {
        Self(String::new())
    }

    fn then(&self, part: impl std::fmt::Display) -> Self {
        let part = part.to_string().replace('~', "~0").replace('/', "~1");
        Self(format!("{}/{part}", self.0))
    }
}

#[derive(Default)]
struct Report {
    problems: Vec<Problem>,
}

impl Report {
    /// Adds a problem, up to [`limits::MAX_PROBLEMS`]: nobody reads more, and an attacker must not make the server write them.
    fn add(&mut self, pointer: &str, code: &str, message: String) {
        if self.problems.len() < limits::MAX_PROBLEMS {
            self.problems.push(Problem { pointer: pointer.to_owned(), code: code.to_owned(), message });
        }
    }

    fn key(&mut self, pointer: &str, what: &str, key: &str) {
        if !is_valid_key(key) {
            let shown: String = key.chars().take(40).collect();
            let message = format!(
                "\"{shown}\" is not a key for a {what}: use 1 to 128 of a-z, 0-9, dot, underscore and hyphen, starting with a letter or digit"
            );
            self.add(pointer, "badKey", message);
        }
    }

    fn text(&mut self, pointer: &str, text: &str, most: usize) {
        if text.len() > most {
            self.add(
                pointer,
                "tooLong",
                format!("{} bytes of text, at most {most} are allowed; shorten it", text.len()),
            );
        }
    }

    fn most(&mut self, pointer: &str, what: &str, count: usize, most: usize) {
        if count > most {
            self.add(pointer, "tooMany", format!("{count} {what}, at most {most} are allowed; remove some"));
        }
    }
}

/// Facts of a flag that stands alone: any environment is there, no other flag and no segment is. For tests and tools.
impl FlagFacts for () {
    fn has_environment(&self, _environment: &str) -> bool {
        true
    }

    fn flag(&self, _key: &str) -> Option<&Flag> {
        None
    }

    fn segment(&self, _environment: &str, _key: &str) -> Option<SegmentFacts> {
        None
    }
}

/// Weights as people read them: what they sum to.
fn sum(weights: &BTreeMap<String, u32>) -> u64 {
    weights.values().copied().map(u64::from).sum()
}

#[cfg(test)]
mod tests;
