//! Drift: what differs between the environments of a project, tier by tier. Pure.
//!
//! Salts, allocations and persons' keys are different on purpose and are not compared.

use std::collections::{BTreeMap, BTreeSet};

use guidon_sdk::model::{Clause, FlagEnvironment, Rule, Serve};
use serde::Serialize;
use serde_json::{Value, json};

use super::difference::{serve_text, weights_text};
use super::export::{ExportOptions, clause_of, serve_of};
use super::steps::pointer_part;
use super::{Environment, Tier};
use crate::flags::diff::lists_targeting_keys;
use crate::state::{Project, SegmentState};

/// Most pairs of environments that are compared at once.
pub const MAX_PAIRS: usize = 100;
/// Most differences of a pair that are listed; all are counted.
pub const MAX_LISTED: usize = 500;

/// What kind of difference it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
#[serde(rename_all = "camelCase")]
pub enum DriftKind {
    /// On or off, weights, or the variation served: different by design during a release.
    Serving,
    /// Which rules there are, what they match, and their order.
    Rules,
    /// Off variation, prerequisites, and what a rollout is bucketed by.
    Definition,
    /// Segments that are missing or match otherwise.
    Segments,
}

impl DriftKind {
    /// All kinds.
    pub const ALL: [Self; 4] = [Self::Serving, Self::Rules, Self::Definition, Self::Segments];

    /// The word used in JSON and in metrics.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Serving => "serving",
            Self::Rules => "rules",
            Self::Definition => "definition",
            Self::Segments => "segments",
        }
    }
}

/// One thing that differs between two environments.
#[derive(Clone, Debug, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Drifted {
    /// What kind of difference it is.
    pub kind: DriftKind,
    /// Where, within an environment: `/flags/summary-engine/on`.
    pub path: String,
    /// The flag.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub flag: Option<String>,
    /// The segment.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub segment: Option<String>,
    /// What stands in the one; missing where it has nothing.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub from: Option<Value>,
    /// What stands in the other.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub to: Option<Value>,
    /// The difference for people.
    pub text: String,
}

/// Two environments, compared.
#[derive(Clone, Debug, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct DriftPair {
    /// The one, farther from real users.
    pub from: String,
    /// Its tier.
    pub from_tier: Tier,
    /// The other.
    pub to: String,
    /// Its tier.
    pub to_tier: Tier,
    /// How many differences there are of each kind.
    pub counts: BTreeMap<DriftKind, usize>,
    /// The first [`MAX_LISTED`] of them.
    pub differences: Vec<Drifted>,
    /// How many more there are.
    pub left_out: usize,
}

/// The environments that are compared, each with those of the next tier that has any.
#[derive(Debug, Default)]
pub struct Pairs<'a> {
    /// At most [`MAX_PAIRS`].
    pub compared: Vec<(&'a Environment, &'a Environment)>,
    /// How many more there are.
    pub left_out: usize,
}

/// The environments to compare, of those that `seen` lets through.
#[must_use]
pub fn pairs<'a>(project: &'a Project, seen: &dyn Fn(&str) -> bool) -> Pairs<'a> {
    let mut tiers: BTreeMap<Tier, Vec<&Environment>> = BTreeMap::new();
    for environment in project.environments.values().filter(|environment| seen(&environment.key)) {
        tiers.entry(environment.tier).or_default().push(environment);
    }
    let tiers: Vec<Vec<&Environment>> = tiers.into_values().collect();
    let steps = tiers.iter().zip(tiers.iter().skip(1));
    let all: usize = steps.clone().map(|(lower, upper)| lower.len() * upper.len()).sum();
    let pairs = steps.flat_map(|(lower, upper)| lower.iter().flat_map(|from| upper.iter().map(|to| (*from, *to))));
    let compared: Vec<_> = pairs.take(MAX_PAIRS).collect();
    Pairs { left_out: all - compared.len(), compared }
}

/// What differs between two environments of a project.
#[must_use]
pub fn compare(project: &Project, from: &Environment, to: &Environment) -> DriftPair {
    let mut pair = DriftPair {
        from: from.key.clone(),
        from_tier: from.tier,
        to: to.key.clone(),
        to_tier: to.tier,
        counts: DriftKind::ALL.into_iter().map(|kind| (kind, 0)).collect(),
        differences: Vec::new(),
        left_out: 0,
    };
    for flag in project.flags.values().map(|state| &state.published).filter(|flag| !flag.archived) {
        let configs = flag.environments.get(&from.key).zip(flag.environments.get(&to.key));
        let Some((left, right)) = configs.filter(|(left, right)| left != right) else { continue };
        let mut found = Found { flag: Some(&flag.key), segment: None, pair: &mut pair };
        found.serving(left, right, (&from.key, &to.key));
    }
    let keys: BTreeSet<&String> =
        project.segments.keys().filter(|(of, _)| *of == from.key || *of == to.key).map(|(_, key)| key).collect();
    for key in keys {
        let (left, right) = (project.segment(&from.key, key), project.segment(&to.key, key));
        let mut found = Found { flag: None, segment: Some(key), pair: &mut pair };
        found.segment(left.map(|state| &**state), right.map(|state| &**state), (&from.key, &to.key));
    }
    pair
}

struct Found<'a> {
    flag: Option<&'a str>,
    segment: Option<&'a str>,
    pair: &'a mut DriftPair,
}

impl Found<'_> {
    fn add(&mut self, kind: DriftKind, path: &str, from: Option<Value>, to: Option<Value>, text: String) {
        *self.pair.counts.entry(kind).or_default() += 1;
        if self.pair.differences.len() >= MAX_LISTED {
            self.pair.left_out += 1;
            return;
        }
        let (section, key) = match (self.flag, self.segment) {
            (Some(flag), _) => ("flags", flag),
            (None, segment) => ("segments", segment.unwrap_or_default()),
        };
        self.pair.differences.push(Drifted {
            kind,
            path: format!("/{section}/{}{path}", pointer_part(key)),
            flag: self.flag.map(str::to_owned),
            segment: self.segment.map(str::to_owned),
            from,
            to,
            text,
        });
    }

    fn serving(&mut self, left: &FlagEnvironment, right: &FlagEnvironment, (from, to): (&str, &str)) {
        if left.on != right.on {
            let word = |on: bool| if on { "on" } else { "off" };
            let text = format!("{} in {from}, {} in {to}", word(left.on), word(right.on));
            self.add(DriftKind::Serving, "/on", Some(left.on.into()), Some(right.on.into()), text);
        }
        if left.off_variation != right.off_variation {
            let (one, other) = (&left.off_variation, &right.off_variation);
            let text = format!("off variation {one} in {from}, {other} in {to}");
            self.add(DriftKind::Definition, "/offVariation", Some(json!(one)), Some(json!(other)), text);
        }
        let requires = |config: &FlagEnvironment| -> BTreeSet<(String, String)> {
            config.prerequisites.iter().map(|known| (known.flag.clone(), known.variation.clone())).collect()
        };
        if requires(left) != requires(right) {
            let text = format!("prerequisites differ between {from} and {to}");
            let (one, other) = (json!(left.prerequisites), json!(right.prerequisites));
            self.add(DriftKind::Definition, "/prerequisites", Some(one), Some(other), text);
        }
        self.rules(&left.rules, &right.rules, (from, to));
        self.serve("/fallthrough", "default", &left.fallthrough, &right.fallthrough, (from, to));
    }

    fn rules(&mut self, left: &[Rule], right: &[Rule], (from, to): (&str, &str)) {
        // By id first, since a promotion keeps it, else by what they match.
        let mut free: Vec<&Rule> = right.iter().collect();
        let mut matched: Vec<(&Rule, Option<&Rule>)> = left
            .iter()
            .map(|rule| {
                let place = free.iter().position(|other| other.id == rule.id);
                (rule, place.map(|place| free.remove(place)))
            })
            .collect();
        for (rule, other) in matched.iter_mut().filter(|(_, other)| other.is_none()) {
            let place = free.iter().position(|known| is_alike(&rule.clauses, &known.clauses));
            *other = place.map(|place| free.remove(place));
        }
        for (rule, other) in &matched {
            let path = format!("/rules/{}", pointer_part(&rule.id));
            let Some(other) = other else {
                let text = format!("rule {} is missing in {to}", rule.id);
                self.add(DriftKind::Rules, &path, Some(rule_json(rule)), None, text);
                continue;
            };
            if !is_alike(&rule.clauses, &other.clauses) {
                let text = format!("rule {} matches otherwise in {to} than in {from}", rule.id);
                self.add(DriftKind::Rules, &path, Some(rule_json(rule)), Some(rule_json(other)), text);
            }
            self.serve(&format!("{path}/serve"), &format!("rule {}", rule.id), &rule.serve, &other.serve, (from, to));
        }
        for rule in &free {
            let text = format!("rule {} is missing in {from}", rule.id);
            let path = format!("/rules/{}", pointer_part(&rule.id));
            self.add(DriftKind::Rules, &path, None, Some(rule_json(rule)), text);
        }
        let places: Vec<usize> = matched
            .iter()
            .filter_map(|(_, other)| right.iter().position(|rule| other.is_some_and(|other| std::ptr::eq(other, rule))))
            .collect();
        if !places.is_sorted() {
            let ids = |rules: &[Rule]| json!(rules.iter().map(|rule| &*rule.id).collect::<Vec<_>>());
            let text = format!("rules in another order in {to} than in {from}");
            self.add(DriftKind::Rules, "/rules", Some(ids(left)), Some(ids(right)), text);
        }
    }

    fn serve(&mut self, path: &str, what: &str, left: &Serve, right: &Serve, (from, to): (&str, &str)) {
        if let (Serve::Rollout(one), Serve::Rollout(other)) = (left, right) {
            if one.bucket_by != other.bucket_by {
                let text = format!("{what}: bucketed by {} in {from}, {} in {to}", one.bucket_by, other.bucket_by);
                let path = format!("{path}/rollout/bucketBy");
                let (one, other) = (Some(json!(one.bucket_by)), Some(json!(other.bucket_by)));
                self.add(DriftKind::Definition, &path, one, other, text);
            }
            if one.weights != other.weights {
                let text = format!("{what}, {from} -> {to}: {}", weights_text(&one.weights, &other.weights));
                let path = format!("{path}/rollout/weights");
                let (one, other) = (Some(json!(one.weights)), Some(json!(other.weights)));
                self.add(DriftKind::Serving, &path, one, other, text);
            }
            return;
        }
        if left != right {
            let text = format!("{what}: {} in {from}, {} in {to}", serve_text(left), serve_text(right));
            let of = |serve: &Serve| Some(json!(serve_of(serve, ExportOptions::default())));
            self.add(DriftKind::Serving, path, of(left), of(right), text);
        }
    }

    fn segment(&mut self, left: Option<&SegmentState>, right: Option<&SegmentState>, (from, to): (&str, &str)) {
        let (left, right) = match (left, right) {
            (Some(left), Some(right)) => (left, right),
            (Some(left), None) => {
                return self.add(
                    DriftKind::Segments,
                    "",
                    Some(segment_json(left)),
                    None,
                    format!("segment is missing in {to}"),
                );
            }
            (None, Some(right)) => {
                let text = format!("segment is missing in {from}");
                return self.add(DriftKind::Segments, "", None, Some(segment_json(right)), text);
            }
            (None, None) => return,
        };
        let mut free: Vec<_> = right.rules.iter().collect();
        for rule in left.rules.iter() {
            let place = free.iter().position(|other| is_alike(&rule.clauses, &other.clauses));
            if let Some(place) = place {
                free.remove(place);
            } else {
                free.clear();
                let text = format!("segment matches otherwise in {to} than in {from}");
                let (one, other) = (Some(segment_json(left)), Some(segment_json(right)));
                return self.add(DriftKind::Segments, "/rules", one, other, text);
            }
        }
        if !free.is_empty() {
            let text = format!("segment matches otherwise in {to} than in {from}");
            self.add(DriftKind::Segments, "/rules", Some(segment_json(left)), Some(segment_json(right)), text);
        }
    }
}

/// Whether clauses match alike; which persons' keys they list is different on purpose.
fn is_alike(left: &[Clause], right: &[Clause]) -> bool {
    let alike = |(left, right): (&Clause, &Clause)| {
        let keys = lists_targeting_keys(left) && lists_targeting_keys(right);
        if keys { left.negate == right.negate } else { left == right }
    };
    left.len() == right.len() && left.iter().zip(right).all(alike)
}

fn clauses_json(clauses: &[Clause]) -> Vec<Value> {
    clauses.iter().map(|clause| json!(clause_of(clause, ExportOptions::default()))).collect()
}

fn rule_json(rule: &Rule) -> Value {
    json!({"id": rule.id, "clauses": clauses_json(&rule.clauses),
        "serve": serve_of(&rule.serve, ExportOptions::default())})
}

fn segment_json(segment: &SegmentState) -> Value {
    let rules: Vec<Value> =
        segment.rules.iter().map(|rule| json!({"id": rule.id, "clauses": clauses_json(&rule.clauses)})).collect();
    json!({"name": segment.stored.name, "rules": rules})
}
