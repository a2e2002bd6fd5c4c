//! Problems of rules: their clauses, and what they serve.

use std::collections::HashSet;

use super::{FlagFacts, Pointer, Report, limits, name_those_of, sum};
use crate::eval::{Fault, allocation, compile_test};
use crate::model::{Clause, Flag, Op, Rollout, SLOTS, Serve, TARGETING_KEY, is_valid_key};

/// Whom a clause belongs to: segments' rules may not refer to segments.
#[derive(Clone, Copy)]
pub(super) enum Audience<'a> {
    Segment,
    Flag { environment: &'a str, client_side: bool, facts: &'a dyn FlagFacts },
}

/// Whether a clause names targeting keys.
pub(super) fn lists_keys(clause: &Clause) -> bool {
    clause.key_set.is_some() || (clause.attribute == TARGETING_KEY && clause.op == Op::In)
}

pub(super) fn check_rule_ids<'a>(at: &Pointer, ids: impl Iterator<Item = &'a str>, report: &mut Report) {
    let mut seen = HashSet::new();
    for (index, id) in ids.enumerate() {
        let at = at.then(index).then("id");
        report.text(&at.0, id, limits::MAX_RULE_ID_BYTES);
        if id.chars().any(char::is_control) {
            report.add(&at.0, "controlCharacter", "an id is one line of text; leave control characters out".to_owned());
        }
        // An empty id is made by the server.
        if !id.is_empty() && !seen.insert(id) {
            report.add(
                &at.0,
                "duplicateId",
                format!("another rule has the id \"{id}\"; leave it out to get a new one"),
            );
        }
    }
}

pub(super) fn check_clauses(at: &Pointer, clauses: &[Clause], audience: Audience<'_>, report: &mut Report) {
    if clauses.is_empty() {
        let message = "a rule needs at least one clause; what everybody gets is the fallthrough";
        report.add(&at.0, "empty", message.to_owned());
    }
    report.most(&at.0, "clauses", clauses.len(), limits::MAX_CLAUSES);
    for (index, clause) in clauses.iter().enumerate().take(limits::MAX_CLAUSES) {
        check_clause(&at.then(index), clause, audience, report);
    }
}

fn check_clause(at: &Pointer, clause: &Clause, audience: Audience<'_>, report: &mut Report) {
    let values = at.then("values");
    if clause.op == Op::Segment {
        if !clause.attribute.is_empty() {
            report.add(&at.then("attribute").0, "unused", "\"segment\" compares no attribute; leave it out".to_owned());
        }
        check_segments(at, clause, audience, report);
    } else if clause.attribute.is_empty() {
        let message = "name the attribute to compare, or targetingKey".to_owned();
        report.add(&at.then("attribute").0, "empty", message);
    }
    report.text(&at.then("attribute").0, &clause.attribute, limits::MAX_ATTRIBUTE_BYTES);
    match (clause.op, clause.values.is_empty()) {
        (Op::Exists, false) => {
            report.add(
                &values.0,
                "unused",
                "\"exists\" takes no values; leave them out, negate for the opposite".to_owned(),
            );
        }
        (Op::Exists, true) => {}
        (_, true) if clause.key_set.is_none() => {
            report.add(
                &values.0,
                "empty",
                "the clause has nothing to compare with and would never match; add a value".to_owned(),
            );
        }
        _ => {}
    }
    report.most(&values.0, "values", clause.values.len(), limits::MAX_VALUES);
    if clause.op == Op::Matches {
        report.most(&values.0, "regular expressions", clause.values.len(), limits::MAX_REGEXES);
    }
    if let Audience::Flag { client_side: true, .. } = audience
        && lists_keys(clause)
    {
        let message = "a flag for client-side keys may not list targeting keys, which every browser could read; use another attribute";
        report.add(&values.0, "keysInBrowser", message.to_owned());
    }
    check_values(at, clause, report);
}

fn check_values(at: &Pointer, clause: &Clause, report: &mut Report) {
    let values = at.then("values");
    let mut too_long = false;
    for (index, value) in clause.values.iter().enumerate() {
        if let Some(text) = value.as_str().filter(|text| text.len() > limits::MAX_CLAUSE_VALUE_BYTES) {
            report.text(&values.then(index).0, text, limits::MAX_CLAUSE_VALUE_BYTES);
            too_long = true;
        }
    }
    // Patterns over a limit are not worth compiling only to be refused.
    let too_many = clause.op == Op::Matches && clause.values.len() > limits::MAX_REGEXES;
    if clause.op == Op::Segment || too_long || too_many {
        return;
    }
    if let Err(faults) = compile_test(clause) {
        for Fault { pointer, code, message } in faults {
            report.add(&format!("{}{pointer}", at.0), code, message);
        }
    }
}

fn check_segments(at: &Pointer, clause: &Clause, audience: Audience<'_>, report: &mut Report) {
    let Audience::Flag { environment, client_side, facts } = audience else {
        let message = "a segment's rules may not refer to segments; repeat the other segment's clauses here".to_owned();
        report.add(&at.then("op").0, "nestedSegment", message);
        return;
    };
    for (index, value) in clause.values.iter().enumerate() {
        let at = at.then("values").then(index);
        let Some(key) = value.as_str() else {
            report.add(&at.0, "wrongType", "\"segment\" takes keys of segments, which are strings".to_owned());
            continue;
        };
        match facts.segment(environment, key) {
            None => {
                let remedy = if is_valid_key(key) { "create it first" } else { "no segment can have such a key" };
                report.add(&at.0, "unknownSegment", format!("{environment} has no segment \"{key}\"; {remedy}"));
            }
            Some(segment) if client_side && segment.lists_keys => {
                let message = format!(
                    "the segment \"{key}\" lists keys, which every browser could read; a flag for client-side keys may not use it"
                );
                report.add(&at.0, "keysInBrowser", message);
            }
            Some(_) => {}
        }
    }
}

pub(super) fn check_variation(at: &Pointer, key: &str, flag: &Flag, report: &mut Report) {
    if flag.variation(key).is_none() {
        let shown: String = key.chars().take(40).collect();
        let message = format!("the flag has no variation \"{shown}\"; {}", name_those_of(flag));
        report.add(&at.0, "unknownVariation", message);
    }
}

pub(super) fn check_serve(at: &Pointer, serve: &Serve, flag: &Flag, report: &mut Report) {
    match serve {
        Serve::Variation(key) => check_variation(&at.then("variation"), key, flag, report),
        Serve::Rollout(rollout) => check_rollout(&at.then("rollout"), rollout, flag, report),
    }
}

fn check_rollout(at: &Pointer, rollout: &Rollout, flag: &Flag, report: &mut Report) {
    let weights = at.then("weights");
    for key in rollout.weights.keys() {
        check_variation(&weights.then(key), key, flag, report);
    }
    let total = sum(&rollout.weights);
    if total != u64::from(SLOTS) {
        let message = format!("the weights sum to {total}, they must sum to {SLOTS} (1000 is 1 %)");
        report.add(&weights.0, "weightsSum", message);
    }
    if rollout.bucket_by.is_empty() {
        report.add(
            &at.then("bucketBy").0,
            "empty",
            "name the attribute to bucket by, or leave it out for targetingKey".to_owned(),
        );
    }
    report.text(&at.then("bucketBy").0, &rollout.bucket_by, limits::MAX_ATTRIBUTE_BYTES);
    report.text(&at.then("salt").0, &rollout.salt, limits::MAX_SALT_BYTES);
    report.most(&at.then("allocation").0, "ranges", rollout.allocation.len(), limits::MAX_ALLOCATION_RANGES);
    // Without an allocation the server computes it; against wrong weights there is nothing to hold it against.
    if !rollout.allocation.is_empty()
        && total == u64::from(SLOTS)
        && let Err(error) = allocation::check(&rollout.allocation, &rollout.weights)
    {
        report.add(&at.then("allocation").0, "badAllocation", error.to_string());
    }
}
