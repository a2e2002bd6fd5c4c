//! What a plan takes away: flags that the document archives, and what is in no document, if it is to be pruned. Pure.

use std::collections::{BTreeMap, BTreeSet, HashMap, VecDeque};

use guidon_sdk::model::Flag;

use super::difference::Differences;
use super::document::Document;
use super::plan::{Planning, Unmanaged};
use super::steps::{Edits, Phase, pointer_part};
use crate::changes::{Instruction, Problem};
use crate::flags::segments_of;

/// Plans what goes, in an order in which it can, and says what is in no document.
pub(super) fn retire(planning: &mut Planning<'_>, document: &Document, prune: bool) {
    let unmanaged = unmanaged_flags(planning, document);
    let prune_flags = prune && document.flags.is_some();
    let mut going: BTreeSet<String> = unmanaged.iter().filter(|_| prune_flags).cloned().collect();
    let archived = |flag: &Flag| {
        let before = planning.project.flags.get(&flag.key).map(|state| state.published.archived);
        flag.archived && before == Some(false)
    };
    let asked: BTreeSet<String> =
        planning.expected.flags.values().filter(|flag| archived(flag)).map(|flag| flag.key.clone()).collect();
    going.extend(asked.iter().cloned());
    let (order, stuck) = if going.is_empty() { Default::default() } else { order_of(planning, &going) };
    for key in asked.iter().filter_map(|key| stuck.get_key_value(key)) {
        let at = format!("/flags/{}/archived", pointer_part(key.0));
        planning.plan.problems.push(Problem::new(at, "required", required(key.1)));
    }
    archive_in_order(planning, &order, &asked);
    let retired: BTreeSet<String> = order.into_iter().collect();
    for key in unmanaged {
        let pruned = retired.contains(&key);
        planning.plan.unmanaged.push(Unmanaged {
            path: format!("/flags/{}", pointer_part(&key)),
            segment: None,
            environment: None,
            prune: pruned,
            because: stuck.get(&key).map(|dependent| required(dependent)),
            flag: Some(key),
        });
    }
    retire_segments(planning, document, prune, &retired);
}

fn required(by: &str) -> String {
    format!("\"{by}\" requires this flag; remove that prerequisite first")
}

/// Flags in no document, archived ones excepted.
fn unmanaged_flags(planning: &Planning<'_>, document: &Document) -> Vec<String> {
    let named = |key: &String| document.flags.as_ref().is_some_and(|flags| flags.contains_key(key));
    let flags = planning.project.flags.iter().filter(|(key, state)| !state.published.archived && !named(key));
    flags.map(|(key, _)| key.clone()).collect()
}

/// Those of the flags that can go, each after those that require it; and of the others, what requires them.
fn order_of(planning: &Planning<'_>, going: &BTreeSet<String>) -> (Vec<String>, BTreeMap<String, String>) {
    let mut required_by: BTreeMap<&str, BTreeSet<&str>> = BTreeMap::new();
    for flag in planning.expected.all_flags() {
        // One that was archived before requires nothing any more.
        if flag.archived && !going.contains(&flag.key) {
            continue;
        }
        for prerequisite in flag.environments.values().flat_map(|config| &config.prerequisites) {
            if let Some(key) = going.get(&prerequisite.flag) {
                required_by.entry(key).or_default().insert(&flag.key);
            }
        }
    }
    // How many still require each, and what each requires: a flag is free once nothing that stays requires it.
    let mut left: BTreeMap<&str, usize> = going.iter().map(|key| (key.as_str(), 0)).collect();
    let mut requires: BTreeMap<&str, Vec<&str>> = BTreeMap::new();
    for (key, by) in &required_by {
        left.insert(key, by.len());
        by.iter().for_each(|dependent| requires.entry(dependent).or_default().push(key));
    }
    let mut free: VecDeque<&str> = left.iter().filter(|(_, count)| **count == 0).map(|(key, _)| *key).collect();
    let (mut order, mut gone): (Vec<String>, BTreeSet<&str>) = Default::default();
    while let Some(key) = free.pop_front() {
        gone.insert(key);
        order.push(key.to_owned());
        for required in requires.get(key).into_iter().flatten() {
            let Some(count) = left.get_mut(required) else { continue };
            *count = count.saturating_sub(1);
            if *count == 0 {
                free.push_back(required);
            }
        }
    }
    let mut stuck = BTreeMap::new();
    for key in going.iter().filter(|key| !gone.contains(key.as_str())) {
        let by = required_by.get(key.as_str()).and_then(|keys| keys.iter().find(|key| !gone.contains(*key)));
        stuck.insert(key.clone(), by.map(|key| (*key).to_owned()).unwrap_or_default());
    }
    (order, stuck)
}

/// Puts the edits that archive into the order; those that prune are made here.
fn archive_in_order(planning: &mut Planning<'_>, order: &[String], asked: &BTreeSet<String>) {
    let is_archiving = |instruction: &Instruction| matches!(instruction, Instruction::ArchiveFlag { .. });
    let (mut archiving, others) =
        std::mem::take(&mut planning.edits).into_iter().partition::<Vec<_>, _>(|edit| is_archiving(&edit.instruction));
    planning.edits = others;
    for key in order.iter().filter(|key| !asked.contains(*key)) {
        let mut edits = Edits { root: "", environment: None, found: &mut archiving };
        edits.push(Phase::Retire, "", Instruction::ArchiveFlag { flag: key.clone() });
        let path = format!("/flags/{}", pointer_part(key));
        let mut differences = Differences::of(path, &mut planning.plan.differences);
        differences.about.flag = Some(key.clone());
        differences.add("", Some(serde_json::json!({"archived": false})), None, "in no document: archived");
    }
    let places: HashMap<&str, usize> = order.iter().enumerate().map(|(place, key)| (key.as_str(), place)).collect();
    archiving.sort_by_key(|edit| edit.instruction.flag().and_then(|key| places.get(key)));
    planning.edits.extend(archiving);
}

fn retire_segments(planning: &mut Planning<'_>, document: &Document, prune: bool, retired: &BTreeSet<String>) {
    let mut used: BTreeMap<(String, String), String> = BTreeMap::new();
    for flag in planning.expected.all_flags() {
        for (environment, config) in &flag.environments {
            for segment in segments_of(config) {
                used.entry((environment.clone(), segment.to_owned())).or_insert_with(|| flag.key.clone());
            }
        }
    }
    for (environment, key) in planning.project.segments.keys() {
        let here = document.segments.as_ref().and_then(|segments| segments.get(environment));
        if !(planning.seen)(environment) || here.is_some_and(|segments| segments.contains_key(key)) {
            continue;
        }
        let because = used.get(&(environment.clone(), key.clone())).map(|flag| {
            let archived = if retired.contains(flag) { ", though it is archived" } else { "" };
            format!("the flag \"{flag}\" refers to it{archived}")
        });
        let wanted = prune && here.is_some();
        let pruned = wanted && because.is_none();
        let path = format!("/segments/{}/{}", pointer_part(environment), pointer_part(key));
        if pruned {
            let mut edits = Edits { root: "", environment: Some(environment), found: &mut planning.edits };
            edits.push(Phase::Drop, "", Instruction::DeleteSegment { segment: key.clone() });
            let mut differences = Differences::of(path.clone(), &mut planning.plan.differences);
            differences.about.segment = Some(key.clone());
            differences.about.environment = Some(environment.clone());
            differences.about.tier = planning.tiers.get(environment).copied();
            differences.add("", Some(serde_json::json!({"key": key})), None, "in no document: deleted");
        }
        planning.plan.unmanaged.push(Unmanaged {
            path,
            flag: None,
            segment: Some(key.clone()),
            environment: Some(environment.clone()),
            prune: pruned,
            because: because.filter(|_| wanted),
        });
    }
}
