//! Plans, carried out by the write path: they lead to what the document says, and then there is nothing left to do.

use std::collections::BTreeMap;
use std::sync::Arc;

use proptest::prelude::*;
use serde_json::{Map, Value, json};

use super::super::prepare::prepare;
use super::super::resolve::Past;
use super::*;
use crate::environments::document::{Document, SegmentDocument};
use crate::environments::plan::{Plan, PlanOptions, plan};
use crate::environments::{ExportOptions, export};
use crate::state::Project;

const WITH_KEYS: ExportOptions = ExportOptions { keys: true, allocations: false };

/// Numbers that look random and are the same for the same seed.
struct Dice(u64);

impl Dice {
    fn roll(&mut self, sides: u64) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.0;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        (mixed ^ (mixed >> 31)) % sides
    }

    fn maybe(&mut self) -> bool {
        self.roll(2) == 0
    }

    fn one<'a>(&mut self, of: &[&'a str]) -> &'a str {
        of[usize::try_from(self.roll(of.len() as u64)).unwrap()]
    }

    /// Some of these, in some order.
    fn some<'a>(&mut self, of: &[&'a str]) -> Vec<&'a str> {
        let mut left = of.to_vec();
        let mut taken = Vec::new();
        for _ in 0..self.roll(of.len() as u64 + 1) {
            taken.push(left.remove(usize::try_from(self.roll(left.len() as u64)).unwrap()));
        }
        taken
    }
}

fn serve(dice: &mut Dice, variations: &[&str]) -> Value {
    if dice.maybe() {
        return json!({"variation": dice.one(variations)});
    }
    let ai = u32::try_from(dice.roll(11)).unwrap() * 10_000;
    let weights = match variations {
        [only] => json!({*only: 100_000}),
        [first, second, ..] => json!({*first: ai, *second: 100_000 - ai}),
        [] => json!({}),
    };
    let mut rollout = json!({"weights": weights, "salt": dice.one(&["salt-1", "salt-2"])});
    if dice.roll(3) == 0 {
        rollout["bucketBy"] = "company".into();
    }
    json!({"rollout": rollout})
}

fn clauses(dice: &mut Dice, segments: &[&str]) -> Value {
    let mut made = Vec::new();
    for _ in 0..=dice.roll(2) {
        made.push(match dice.roll(3) {
            0 => json!({"attribute": "country", "op": "in", "values": [dice.one(&["US", "CA"])]}),
            1 if !segments.is_empty() => json!({"op": "segment", "values": [dice.one(segments)]}),
            _ => {
                let mut keys = dice.some(&["person-1", "person-2", "person-3"]);
                keys.push("person-4");
                json!({"attribute": "targetingKey", "op": "in", "values": keys, "negate": dice.maybe()})
            }
        });
    }
    made.into()
}

fn segment(dice: &mut Dice) -> Value {
    let rules: Vec<Value> = dice
        .some(&["r1", "r2", "r3"])
        .into_iter()
        .map(|id| json!({"id": id, "description": dice.one(&["", "why"]), "clauses": clauses(dice, &[])}))
        .collect();
    json!({"name": dice.one(&["", "Beta"]), "description": dice.one(&["", "who"]), "rules": rules,
        "included": dice.some(&["a", "b", "c"]), "excluded": dice.some(&["d", "e"])})
}

/// A whole document that can be.
fn document(dice: &mut Dice) -> Document {
    let environments = ["development", "staging", "production"];
    let mut segments: Map<String, Value> = Map::new();
    let mut segment_keys: BTreeMap<&str, Vec<&str>> = BTreeMap::new();
    for environment in environments {
        let keys = dice.some(&["s1", "s2", "s3"]);
        let here: Map<String, Value> = keys.iter().map(|key| ((*key).to_owned(), segment(dice))).collect();
        segments.insert(environment.to_owned(), here.into());
        segment_keys.insert(environment, keys);
    }
    let mut flags: Map<String, Value> = Map::new();
    // What a later flag may require: flags and their variations.
    let mut known: Vec<(&str, Vec<&str>)> = Vec::new();
    let chosen: Vec<&str> = ["f1", "f2", "f3", "f4"].into_iter().filter(|_| dice.roll(4) > 0).collect();
    for (index, key) in chosen.into_iter().enumerate() {
        let mut variations = dice.some(&["ai", "other"]);
        variations.insert(usize::try_from(dice.roll(variations.len() as u64 + 1)).unwrap(), "baseline");
        let mut serving: Map<String, Value> = Map::new();
        for environment in environments {
            let segments = &segment_keys[environment];
            let rules: Vec<Value> = dice
                .some(&["r1", "r2", "r3", "r4", "r5"])
                .into_iter()
                .map(|id| {
                    json!({"id": id, "description": dice.one(&["", "why"]), "clauses": clauses(dice, segments),
                        "serve": serve(dice, &variations)})
                })
                .collect();
            let requires: Vec<Value> = known
                .iter()
                .filter(|_| dice.roll(3) == 0)
                .map(|(flag, variations)| json!({"flag": flag, "variation": variations.iter().find(|key| **key == "baseline")}))
                .collect();
            let mut keys = dice.some(&["t1", "t2", "t3", "t4"]);
            let second = keys.split_off(keys.len() / 2);
            serving.insert(
                environment.to_owned(),
                json!({"on": dice.maybe(), "offVariation": "baseline", "prerequisites": requires, "rules": rules,
                    "targets": [{"variation": variations[0], "keys": keys}, {"variation": "baseline", "keys": second}],
                    "fallthrough": serve(dice, &variations)}),
            );
        }
        let variation = |key: &&str| {
            let by = if *key == "ai" { "ai" } else { "human" };
            // What has been served in production keeps its value; `spare` is never served.
            let value = if *key == "spare" { format!("spare-{}", dice.roll(2)) } else { (*key).to_owned() };
            json!({"key": key, "value": value, "name": "", "description": dice.one(&["", "what"]),
                "provenance": {"by": by}})
        };
        let spare = ["spare"];
        let listed: Vec<Value> =
            variations.iter().chain(spare.iter().filter(|_| index % 2 == 0)).map(variation).collect();
        let schema = if dice.maybe() { json!({"type": "string"}) } else { Value::Null };
        flags.insert(
            key.to_owned(),
            json!({"kind": "string", "name": dice.one(&["", "Name"]), "description": dice.one(&["", "What"]),
                "tags": dice.some(&["x", "y"]), "owner": null, "temporary": dice.maybe(), "expires": "2027-01-31",
                "schema": schema, "variations": listed, "environments": serving}),
        );
        known.push((key, variations));
    }
    if let Some((last, _)) = known.last()
        && dice.maybe()
    {
        flags[*last]["archived"] = true.into();
    }
    serde_json::from_value(json!({"flags": flags, "segments": segments})).unwrap()
}

/// What the write path makes of the plan.
fn carry_out(world: &World, plan: &Plan) -> World {
    assert_eq!(plan.problems, []);
    if plan.is_empty() {
        return world.clone();
    }
    let change =
        ChangeDraft { project: "default".to_owned(), instructions: plan.instructions(), ..ChangeDraft::default() };
    match prepare(world, &Author::system(), &change, START_MS, &mut RandomMint, &Past::default()) {
        Ok(prepared) => prepared.world,
        Err(problems) => panic!("{problems:#?}\n{:#?}", plan.steps),
    }
}

fn empty() -> World {
    let change = ChangeDraft {
        project: "default".to_owned(),
        instructions: vec![Instruction::CreateProject { name: String::new() }],
        ..ChangeDraft::default()
    };
    prepare(&World::empty(), &Author::system(), &change, START_MS, &mut RandomMint, &Past::default())
        .map_err(|problems| format!("{problems:?}"))
        .unwrap()
        .world
}

fn project(world: &World) -> Arc<Project> {
    Arc::clone(&world.projects["default"])
}

fn planned(world: &World, document: &Document, prune: bool) -> Plan {
    plan(&project(world), document, &PlanOptions { prune, seen: &|_| true })
}

/// The document, with everything sorted whose order does not count.
fn canonical(mut document: Document) -> Document {
    for flag in document.flags.iter_mut().flat_map(|flags| flags.values_mut()) {
        flag.variations.iter_mut().for_each(|list| list.sort_by(|left, right| left.key.cmp(&right.key)));
        for serving in flag.environments.values_mut() {
            serving.prerequisites.iter_mut().for_each(|list| list.sort_by(|left, right| left.flag.cmp(&right.flag)));
            if let Some(targets) = &mut serving.targets {
                targets.sort_by(|left, right| left.variation.cmp(&right.variation));
                targets.iter_mut().for_each(|target| target.keys.sort());
            }
            let rules = serving.rules.iter_mut().flatten();
            rules.flat_map(|rule| &mut rule.clauses).for_each(sort_keys);
        }
    }
    for segment in document.segments.iter_mut().flat_map(|all| all.values_mut()).flat_map(|here| here.values_mut()) {
        segment.rules.iter_mut().for_each(|rules| rules.sort_by(|left, right| left.id.cmp(&right.id)));
        segment.rules.iter_mut().flatten().flat_map(|rule| &mut rule.clauses).for_each(sort_keys);
    }
    document
}

fn sort_keys(clause: &mut crate::environments::document::ClauseDocument) {
    if clause.attribute == "targetingKey" {
        clause.values.iter_mut().for_each(|values| values.sort_by_key(ToString::to_string));
    }
}

fn exported(world: &World, options: ExportOptions) -> Document {
    canonical(export(&project(world), options, &|_| true))
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(200))]
    #[test]
    fn a_plan_leads_to_what_the_document_says_and_then_there_is_nothing_left(first in any::<u64>(), second in any::<u64>()) {
        let nothing = empty();
        let a = carry_out(&nothing, &planned(&nothing, &document(&mut Dice(first)), false));
        let b = carry_out(&nothing, &planned(&nothing, &document(&mut Dice(second)), false));
        let wanted = export(&project(&b), WITH_KEYS, &|_| true);
        let plan = planned(&a, &wanted, true);
        let became = carry_out(&a, &plan);

        let mut shown = exported(&became, WITH_KEYS);
        let wanted_flags = wanted.flags.clone().unwrap();
        if let Some(flags) = &mut shown.flags {
            flags.retain(|key, flag| {
                // What is in no document is archived.
                let managed = wanted_flags.contains_key(key);
                assert!(managed || flag.archived == Some(true), "{key}");
                managed
            });
        }
        for (environment, here) in shown.segments.iter_mut().flatten() {
            let wanted = &wanted.segments.as_ref().unwrap()[environment];
            let used = |key: &String| plan.unmanaged.iter().any(|left| left.segment.as_ref() == Some(key) && left.because.is_some());
            here.retain(|key, _: &mut SegmentDocument| {
                assert!(wanted.contains_key(key) || used(key), "{key} was left over");
                wanted.contains_key(key)
            });
        }
        prop_assert_eq!(&shown, &canonical(wanted.clone()));

        let again = planned(&became, &wanted, false);
        prop_assert_eq!(&again.steps, &[], "{:#?}", again.differences);
        prop_assert_eq!(again.differences, []);
        prop_assert_eq!(plan.is_empty(), plan.differences.is_empty(), "{:#?}", plan.steps);
    }

    #[test]
    fn what_was_exported_plans_as_empty(seed in any::<u64>()) {
        let nothing = empty();
        let world = carry_out(&nothing, &planned(&nothing, &document(&mut Dice(seed)), false));
        for keys in [false, true] {
            for allocations in [false, true] {
                let document = export(&project(&world), ExportOptions { keys, allocations }, &|_| true);
                let read: Document = serde_json::from_value(json!(document)).unwrap();
                prop_assert_eq!(&read, &document);
                let plan = planned(&world, &read, true);
                prop_assert_eq!(plan, Plan::default());
                let text = json!(document).to_string();
                prop_assert!(keys || !["person-", "t1", "t2", "\"a\""].iter().any(|key| text.contains(key)), "{}", text);
            }
        }
    }

    #[test]
    fn rules_without_ids_are_found_again(seed in any::<u64>()) {
        let nothing = empty();
        let world = carry_out(&nothing, &planned(&nothing, &document(&mut Dice(seed)), false));
        let mut document = export(&project(&world), WITH_KEYS, &|_| true);
        for serving in document.flags.iter_mut().flat_map(|flags| flags.values_mut()).flat_map(|flag| flag.environments.values_mut()) {
            serving.rules.iter_mut().flatten().for_each(|rule| rule.id = None);
        }
        for segment in document.segments.iter_mut().flat_map(|all| all.values_mut()).flat_map(|here| here.values_mut()) {
            segment.rules.iter_mut().flatten().for_each(|rule| rule.id = None);
        }
        let plan = planned(&world, &document, false);
        prop_assert_eq!(plan.differences, []);
        prop_assert_eq!(plan.steps, []);
    }
}
