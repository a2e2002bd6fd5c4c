//! What differs between two states of a flag or a segment, in words and as values. Pure.
//!
//! Persons' keys are counted, never shown.

use std::collections::BTreeMap;

use guidon_sdk::model::{Flag, FlagEnvironment, Rollout, Rule, SLOTS, Serve, Variation};
use serde::Serialize;
use serde_json::{Value, json};

use super::Tier;
use super::export::{ExportOptions, clause_of, flag_of, serve_of};
use super::steps::pointer_part;
use crate::flags::diff::is_same_rule;
use crate::segments::diff::{WantedSegment, diff_keys, is_same};
use crate::state::SegmentState;

/// What becomes of something.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub enum DifferenceKind {
    /// It comes to be.
    Create,
    /// It changes.
    Update,
    /// It goes away.
    Delete,
}

/// One thing that differs.
#[derive(Clone, Debug, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Difference {
    /// Where, as `/flags/summary-engine/environments/staging/on`: by keys, also in lists.
    pub path: String,
    /// What becomes of it.
    pub kind: DifferenceKind,
    /// Flag that it is about.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub flag: Option<String>,
    /// Segment that it is about.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub segment: Option<String>,
    /// Environment that it is in.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub environment: Option<String>,
    /// Tier of that environment.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub tier: Option<Tier>,
    /// What stands.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub before: Option<Value>,
    /// What is wanted.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub after: Option<Value>,
    /// The difference for people.
    pub text: String,
}

/// Differences of one object, as they are found.
pub(crate) struct Differences<'a> {
    /// What all of them have in common; the path is the object's.
    pub(crate) about: Difference,
    pub(crate) found: &'a mut Vec<Difference>,
}

impl<'a> Differences<'a> {
    /// Of an object at `path`.
    pub(crate) fn of(path: String, found: &'a mut Vec<Difference>) -> Self {
        let about = Difference {
            path,
            kind: DifferenceKind::Update,
            flag: None,
            segment: None,
            environment: None,
            tier: None,
            before: None,
            after: None,
            text: String::new(),
        };
        Self { about, found }
    }

    pub(crate) fn add(&mut self, path: &str, before: Option<Value>, after: Option<Value>, text: impl Into<String>) {
        let kind = match (&before, &after) {
            (None, Some(_)) => DifferenceKind::Create,
            (Some(_), None) => DifferenceKind::Delete,
            _ => DifferenceKind::Update,
        };
        let path = format!("{}{path}", self.about.path);
        self.found.push(Difference { path, kind, before, after, text: text.into(), ..self.about.clone() });
    }
}

/// Fields of a flag that people set, with the words for them.
const SHARED: [(&str, &str); 9] = [
    ("name", "name"),
    ("description", "description"),
    ("tags", "tags"),
    ("owner", "owner"),
    ("temporary", "temporary"),
    ("expires", "expires"),
    ("clientSide", "seen by client-side keys"),
    ("archived", "archived"),
    ("schema", "schema"),
];

/// A flag that is new.
pub(crate) fn created(wanted: &Flag, differences: &mut Differences<'_>) {
    let on: Vec<&str> =
        wanted.environments.iter().filter(|(_, config)| config.on).map(|(key, _)| key.as_str()).collect();
    let on = if on.is_empty() { "off everywhere".to_owned() } else { format!("on in {}", on.join(", ")) };
    let variations: Vec<&str> = wanted.variations.iter().map(|variation| variation.key.as_str()).collect();
    let text = format!("new flag ({}: {}), {on}", wanted.kind.as_str(), variations.join(", "));
    let after = json!(flag_of(wanted, ExportOptions::default(), &|_| true));
    differences.add("", None, Some(after), text);
}

/// What all environments share.
pub(crate) fn shared(standing: &Flag, wanted: &Flag, differences: &mut Differences<'_>) {
    let of = |flag: &Flag| json!(flag_of(flag, ExportOptions::default(), &|_| false));
    let (before, after) = (of(standing), of(wanted));
    for (field, word) in SHARED {
        let (before, after) = (before[field].clone(), after[field].clone());
        if before != after {
            let text = if field == "schema" {
                "schema changed".to_owned()
            } else {
                format!("{word}: {} -> {}", short(&before), short(&after))
            };
            differences.add(&format!("/{field}"), Some(before), Some(after), text);
        }
    }
    for variation in &wanted.variations {
        let path = format!("/variations/{}", pointer_part(&variation.key));
        match standing.variation(&variation.key) {
            None => {
                let text = format!("new variation {} = {}", variation.key, short(&variation.value));
                differences.add(&path, None, Some(json!(variation)), text);
            }
            Some(known) => variation_fields(&path, known, variation, differences),
        }
    }
    for variation in standing.variations.iter().filter(|known| wanted.variation(&known.key).is_none()) {
        let path = format!("/variations/{}", pointer_part(&variation.key));
        differences.add(&path, Some(json!(variation)), None, format!("variation {} removed", variation.key));
    }
}

fn variation_fields(path: &str, standing: &Variation, wanted: &Variation, differences: &mut Differences<'_>) {
    let (before, after) = (json!(standing), json!(wanted));
    for field in ["value", "name", "description", "provenance"] {
        let (before, after) = (before.get(field).cloned(), after.get(field).cloned());
        // A provenance that is not said stays.
        if before != after && (field != "provenance" || after.is_some()) {
            let shown = |value: &Option<Value>| value.as_ref().map_or_else(|| "none".to_owned(), short);
            let text = format!("variation {}: {field}: {} -> {}", wanted.key, shown(&before), shown(&after));
            differences.add(&format!("{path}/{field}"), before, after, text);
        }
    }
}

/// How one environment serves a flag.
pub(crate) fn serving(standing: &FlagEnvironment, wanted: &FlagEnvironment, differences: &mut Differences<'_>) {
    if standing.on != wanted.on {
        let word = |on: bool| if on { "on" } else { "off" };
        let text = format!("{} -> {}", word(standing.on), word(wanted.on));
        differences.add("/on", Some(standing.on.into()), Some(wanted.on.into()), text);
    }
    if standing.off_variation != wanted.off_variation {
        let (before, after) = (&standing.off_variation, &wanted.off_variation);
        let text = format!("off variation: {before} -> {after}");
        differences.add("/offVariation", Some(json!(before)), Some(json!(after)), text);
    }
    prerequisites(standing, wanted, differences);
    if standing.targets != wanted.targets {
        let count = |config: &FlagEnvironment| -> BTreeMap<String, usize> {
            config.targets.iter().map(|target| (target.variation.clone(), target.keys.len())).collect()
        };
        if let Some(text) = targets_text(standing, wanted) {
            differences.add("/targets", Some(json!(count(standing))), Some(json!(count(wanted))), text);
        }
    }
    rules(&standing.rules, &wanted.rules, differences);
    if standing.fallthrough != wanted.fallthrough {
        served("/fallthrough", "default", &standing.fallthrough, &wanted.fallthrough, differences);
    }
}

fn prerequisites(standing: &FlagEnvironment, wanted: &FlagEnvironment, differences: &mut Differences<'_>) {
    for known in &standing.prerequisites {
        if !wanted.prerequisites.iter().any(|other| other.flag == known.flag) {
            let path = format!("/prerequisites/{}", pointer_part(&known.flag));
            differences.add(&path, Some(json!(known)), None, format!("no longer requires {}", known.flag));
        }
    }
    for prerequisite in &wanted.prerequisites {
        let known = standing.prerequisites.iter().find(|known| known.flag == prerequisite.flag);
        if known != Some(prerequisite) {
            let path = format!("/prerequisites/{}", pointer_part(&prerequisite.flag));
            let text = format!("requires {} of {}", prerequisite.variation, prerequisite.flag);
            differences.add(&path, known.map(|known| json!(known)), Some(json!(prerequisite)), text);
        }
    }
}

/// How many keys come and go; `None` if none do.
fn targets_text(standing: &FlagEnvironment, wanted: &FlagEnvironment) -> Option<String> {
    let by_key = |config: &'_ FlagEnvironment| -> BTreeMap<String, String> {
        let keys = |target: &guidon_sdk::model::Target| -> Vec<(String, String)> {
            target.keys.iter().map(|key| (key.clone(), target.variation.clone())).collect()
        };
        config.targets.iter().flat_map(keys).collect()
    };
    let (had, has) = (by_key(standing), by_key(wanted));
    let gone = had.keys().filter(|key| !has.contains_key(*key)).count();
    let moved = has.iter().filter(|(key, variation)| had.get(*key).is_some_and(|known| known != *variation)).count();
    let new = has.keys().filter(|key| !had.contains_key(*key)).count();
    let parts: Vec<String> = [(new, "added"), (moved, "moved"), (gone, "removed")]
        .into_iter()
        .filter(|(count, _)| *count > 0)
        .map(|(count, what)| format!("{count} {what}"))
        .collect();
    (!parts.is_empty()).then(|| format!("targets: {}", parts.join(", ")))
}

fn rules(standing: &[Rule], wanted: &[Rule], differences: &mut Differences<'_>) {
    let find = |rules: &'_ [Rule], id: &str| rules.iter().position(|rule| !id.is_empty() && rule.id == id);
    for rule in standing.iter().filter(|rule| find(wanted, &rule.id).is_none()) {
        let text = format!("{} removed", name_of(rule));
        differences.add(&format!("/rules/{}", pointer_part(&rule.id)), Some(rule_json(rule)), None, text);
    }
    for (index, rule) in wanted.iter().enumerate() {
        let Some(known) = find(standing, &rule.id).and_then(|place| standing.get(place)) else {
            let id = if rule.id.is_empty() { (index + 1).to_string() } else { rule.id.clone() };
            let text = format!("new {}: {}", name_of(rule), serve_text(&rule.serve));
            differences.add(&format!("/rules/{}", pointer_part(&id)), None, Some(rule_json(rule)), text);
            continue;
        };
        if is_same_rule(known, rule) {
            continue;
        }
        let path = format!("/rules/{}", pointer_part(&rule.id));
        if known.serve != rule.serve {
            served(&format!("{path}/serve"), &name_of(rule), &known.serve, &rule.serve, differences);
        }
        let without_serve = |of: &Rule| {
            let mut shown = rule_json(of);
            if let Some(fields) = shown.as_object_mut() {
                fields.remove("serve");
            }
            shown
        };
        let same_serve = Rule { serve: known.serve.clone(), ..rule.clone() };
        if !is_same_rule(known, &same_serve) {
            let what = if known.description == rule.description { "clauses" } else { "description or clauses" };
            let text = format!("{}: {what} changed", name_of(rule));
            differences.add(&path, Some(without_serve(known)), Some(without_serve(rule)), text);
        }
    }
    let order = |from: &'_ [Rule], other: &[Rule]| -> Vec<String> {
        from.iter().filter(|rule| find(other, &rule.id).is_some()).map(|rule| rule.id.clone()).collect()
    };
    let (before, after) = (order(standing, wanted), order(wanted, standing));
    if before != after {
        differences.add("/rules", Some(json!(before)), Some(json!(after)), "rules in another order");
    }
}

fn rule_json(rule: &Rule) -> Value {
    let clauses: Vec<Value> =
        rule.clauses.iter().map(|clause| json!(clause_of(clause, ExportOptions::default()))).collect();
    json!({"id": rule.id, "description": rule.description, "clauses": clauses,
        "serve": serve_of(&rule.serve, ExportOptions::default())})
}

fn name_of(rule: &Rule) -> String {
    match (rule.id.as_str(), rule.description.as_str()) {
        ("", "") => "rule".to_owned(),
        (id, "") => format!("rule {id}"),
        ("", description) => format!("rule {description:?}"),
        (id, description) => format!("rule {id} ({description})"),
    }
}

/// What a rule or the fallthrough serves.
fn served(path: &str, what: &str, standing: &Serve, wanted: &Serve, differences: &mut Differences<'_>) {
    let options = ExportOptions::default();
    if let (Serve::Rollout(before), Serve::Rollout(after)) = (standing, wanted)
        && before.salt == after.salt
        && before.bucket_by == after.bucket_by
        && before.weights != after.weights
    {
        let text = format!("{what}: {}", weights_text(&before.weights, &after.weights));
        let (before, after) = (json!(before.weights), json!(after.weights));
        return differences.add(&format!("{path}/rollout/weights"), Some(before), Some(after), text);
    }
    let mut text = format!("{what}: {} -> {}", serve_text(standing), serve_text(wanted));
    if let (Serve::Rollout(before), Serve::Rollout(after)) = (standing, wanted) {
        text.push_str(dealt(before, after));
    }
    differences.add(path, Some(json!(serve_of(standing, options))), Some(json!(serve_of(wanted, options))), text);
}

fn dealt(before: &Rollout, after: &Rollout) -> &'static str {
    if before.bucket_by != after.bucket_by {
        ", bucketed by another attribute: everybody is dealt anew"
    } else if before.salt != after.salt {
        ", with another salt: everybody is dealt anew"
    } else {
        ", with another allocation"
    }
}

/// `5 % ai, 95 % baseline`.
pub(crate) fn serve_text(serve: &Serve) -> String {
    match serve {
        Serve::Variation(variation) => variation.clone(),
        Serve::Rollout(rollout) => {
            let shares: Vec<String> =
                rollout.weights.iter().map(|(variation, weight)| format!("{variation} {}", share(*weight))).collect();
            shares.join(", ")
        }
    }
}

/// `ai 1 % -> 5 %, baseline 99 % -> 95 %`.
pub(crate) fn weights_text(before: &BTreeMap<String, u32>, after: &BTreeMap<String, u32>) -> String {
    let mut variations: Vec<&String> = before.keys().chain(after.keys()).collect();
    variations.sort_unstable();
    variations.dedup();
    let of = |weights: &BTreeMap<String, u32>, variation: &String| weights.get(variation).copied().unwrap_or_default();
    let moved: Vec<String> = variations
        .into_iter()
        .filter(|variation| of(before, variation) != of(after, variation))
        .map(|variation| format!("{variation} {} -> {}", share(of(before, variation)), share(of(after, variation))))
        .collect();
    if moved.is_empty() { "the same shares, written otherwise".to_owned() } else { moved.join(", ") }
}

fn share(weight: u32) -> String {
    format!("{} %", f64::from(weight) * 100.0 / f64::from(SLOTS))
}

/// A value in few words.
pub(crate) fn short(value: &Value) -> String {
    const MOST: usize = 60;
    if value.is_null() {
        return "none".to_owned();
    }
    let text = value.to_string();
    if text.chars().count() <= MOST {
        return text;
    }
    text.chars().take(MOST).chain(std::iter::once('…')).collect()
}

/// A segment.
pub(crate) fn segment(standing: Option<&SegmentState>, wanted: &WantedSegment, differences: &mut Differences<'_>) {
    let count = |keys: &Option<Vec<String>>| keys.as_ref().map_or(0, Vec::len);
    let rule_json = |rule: &guidon_sdk::model::SegmentRule| {
        let clauses: Vec<Value> =
            rule.clauses.iter().map(|clause| json!(clause_of(clause, ExportOptions::default()))).collect();
        json!({"id": rule.id, "description": rule.description, "clauses": clauses})
    };
    let Some(standing) = standing else {
        let rules: Vec<Value> = wanted.rules.iter().map(rule_json).collect();
        let (included, excluded) = (count(&wanted.included), count(&wanted.excluded));
        let after = json!({"name": wanted.name, "description": wanted.description, "rules": rules,
            "includedCount": included, "excludedCount": excluded});
        let text = format!("new segment: {} rules, {included} keys included, {excluded} excluded", rules.len());
        return differences.add("", None, Some(after), text);
    };
    for (field, before, after) in [
        ("name", &standing.stored.name, &wanted.name),
        ("description", &standing.stored.description, &wanted.description),
    ] {
        if before != after {
            let text = format!("{field}: {} -> {}", short(&json!(before)), short(&json!(after)));
            differences.add(&format!("/{field}"), Some(json!(before)), Some(json!(after)), text);
        }
    }
    for (field, keys, known) in
        [("included", &wanted.included, &standing.included), ("excluded", &wanted.excluded, &standing.excluded)]
    {
        let Some(keys) = keys else { continue };
        let (gone, new) = diff_keys(known, keys);
        if !gone.is_empty() || !new.is_empty() {
            let text = format!("{field}: {} keys added, {} removed", new.len(), gone.len());
            let after = known.len() + new.len() - gone.len();
            differences.add(&format!("/{field}"), Some(known.len().into()), Some(after.into()), text);
        }
    }
    let path = |id: &str| format!("/rules/{}", pointer_part(id));
    for rule in standing.rules.iter().filter(|rule| wanted.rules.iter().all(|other| other.id != rule.id)) {
        differences.add(&path(&rule.id), Some(rule_json(rule)), None, format!("rule {} removed", rule.id));
    }
    for (index, rule) in wanted.rules.iter().enumerate() {
        match standing.rules.iter().find(|known| known.id == rule.id) {
            None => {
                let id = if rule.id.is_empty() { (index + 1).to_string() } else { rule.id.clone() };
                differences.add(&path(&id), None, Some(rule_json(rule)), format!("new rule {id}"));
            }
            Some(known) if is_same(known, rule) => {}
            Some(known) => {
                let text = format!("rule {} changed", rule.id);
                differences.add(&path(&rule.id), Some(rule_json(known)), Some(rule_json(rule)), text);
            }
        }
    }
}
