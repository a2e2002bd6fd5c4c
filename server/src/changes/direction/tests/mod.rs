//! Examples by name, and the property that carries the rest.

mod examples;
mod properties;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use guidon_sdk::eval::{KeySet, allocation};
use guidon_sdk::model::*;
use serde_json::json;

use super::*;
use crate::environments::{Environment, Tier};
use crate::segments::StoredSegment;
use crate::state::{FlagState, NoKeySets, SegmentState};

const HERE: &str = "production";

fn project(flags: &[Flag], segments: &[(Segment, KeySet)]) -> Project {
    let mut project = Project { key: "p".to_owned(), ..Project::default() };
    project.environments.insert(HERE.to_owned(), Arc::new(Environment::of_tier(Tier::Production)));
    for flag in flags {
        project.flags.insert(flag.key.clone(), Arc::new(FlagState::load(flag.clone(), &NoKeySets, 0)));
    }
    for (segment, included) in segments {
        let stored = StoredSegment {
            key: segment.key.clone(),
            name: segment.name.clone(),
            description: String::new(),
            included: Vec::new(),
            excluded: Vec::new(),
            rules: segment.rules.clone(),
        };
        let mut state = SegmentState::load(stored, &NoKeySets, 0);
        state.included = included.clone();
        project.segments.insert((HERE.to_owned(), segment.key.clone()), Arc::new(state));
    }
    project
}

fn variation(key: &str, by: Option<ProvenanceKind>) -> Variation {
    let provenance = by.map(|by| Provenance { by, model: None, prompt_hash: None, commit: None, image: None });
    Variation { key: key.to_owned(), value: json!(key), name: String::new(), description: String::new(), provenance }
}

/// On, serving "human" to everybody; off it serves "off". Also has "ai", "ai2" and "plain", which says nothing of who wrote it.
fn flag(key: &str) -> Flag {
    let config = FlagEnvironment {
        on: true,
        off_variation: "off".to_owned(),
        prerequisites: Vec::new(),
        targets: Vec::new(),
        rules: Vec::new(),
        fallthrough: Serve::Variation("human".to_owned()),
    };
    Flag {
        key: key.to_owned(),
        kind: FlagKind::String,
        name: String::new(),
        description: String::new(),
        tags: Vec::new(),
        owner: None,
        temporary: false,
        expires: None,
        client_side: false,
        archived: false,
        variations: vec![
            variation("off", None),
            variation("human", Some(ProvenanceKind::Human)),
            variation("ai", Some(ProvenanceKind::Ai)),
            variation("ai2", Some(ProvenanceKind::Ai)),
            variation("plain", None),
        ],
        schema: None,
        environments: BTreeMap::from([(HERE.to_owned(), config)]),
    }
}

fn config(flag: &mut Flag) -> &mut FlagEnvironment {
    flag.environments.get_mut(HERE).unwrap()
}

fn with(flag: &Flag, edit: impl FnOnce(&mut FlagEnvironment)) -> Flag {
    let mut edited = flag.clone();
    edit(config(&mut edited));
    edited
}

fn only(variation: &str) -> Serve {
    Serve::Variation(variation.to_owned())
}

/// A rollout that stands for itself.
fn rollout(salt: &str, weights: &[(&str, u32)]) -> Serve {
    let weights: BTreeMap<String, u32> = weights.iter().map(|(key, weight)| ((*key).to_owned(), *weight)).collect();
    let allocation = allocation::reallocate(&[], &weights);
    Serve::Rollout(Rollout { weights, bucket_by: TARGETING_KEY.to_owned(), salt: salt.to_owned(), allocation })
}

/// `standing` with other weights, moving as little as can be.
fn reweighed(standing: &Serve, weights: &[(&str, u32)]) -> Serve {
    let Serve::Rollout(standing) = standing else { panic!("no rollout stands") };
    let weights: BTreeMap<String, u32> = weights.iter().map(|(key, weight)| ((*key).to_owned(), *weight)).collect();
    let allocation = allocation::reallocate(&standing.allocation, &weights);
    Serve::Rollout(Rollout { weights, allocation, ..standing.clone() })
}

fn clause(attribute: &str, op: Op, values: &[&str]) -> Clause {
    let values = values.iter().map(|value| json!(value)).collect();
    Clause { attribute: attribute.to_owned(), op, values, negate: false, key_set: None }
}

fn rule(id: &str, clause: Clause, serve: Serve) -> Rule {
    Rule { id: id.to_owned(), description: String::new(), clauses: vec![clause], serve }
}

fn target(variation: &str, keys: &[&str]) -> Target {
    Target { variation: variation.to_owned(), keys: keys.iter().map(|key| (*key).to_owned()).collect(), key_set: None }
}

fn needs(flag: &str, variation: &str) -> Prerequisite {
    Prerequisite { flag: flag.to_owned(), variation: variation.to_owned() }
}

fn segment(key: &str, included: &[&str], rules: &[Clause]) -> (Segment, KeySet) {
    let rules = rules.iter().enumerate().map(|(index, clause)| SegmentRule {
        id: format!("r{index}"),
        description: String::new(),
        clauses: vec![clause.clone()],
    });
    let segment = Segment {
        key: key.to_owned(),
        name: String::new(),
        description: String::new(),
        included: Vec::new(),
        excluded: Vec::new(),
        rules: rules.collect(),
    };
    let mut keys = KeySet::new();
    keys.extend(included.iter().copied());
    (segment, keys)
}

fn keys(keys: &[&str]) -> BTreeSet<String> {
    keys.iter().map(|key| (*key).to_owned()).collect()
}

/// Where people move when these flags become those, all that differ being touched.
fn moves(before: &[Flag], after: &[Flag]) -> Movement {
    let old = |key: &str| before.iter().find(|flag| flag.key == key);
    let new = |key: &str| after.iter().find(|flag| flag.key == key);
    let all = before.iter().chain(after).map(|flag| flag.key.as_str());
    let touched: Vec<&str> = all.filter(|key| old(key) != new(key)).collect();
    direction(&project(before, &[]), &project(after, &[]), HERE, &keys(&touched), &BTreeSet::new(), &Reach::unknown())
}

/// Where people move when the one flag there is becomes another.
fn becomes(before: &Flag, after: &Flag) -> Movement {
    moves(std::slice::from_ref(before), std::slice::from_ref(after))
}
