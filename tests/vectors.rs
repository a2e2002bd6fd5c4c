//! The shared vectors, `tests/vectors/*.json`, on the native evaluator. `wasm-sdk/tests/vectors.test.mjs` runs the same on WASM.
//!
//! A file has either `slots` (what a unit's slot is) or a `snapshot` and `cases`: flag, context and default, and what is
//! expected of the evaluation: `value` and `reason`, and `variation`, `rule`, `slot`, `errorCode` where there is one.
//! `brokenFlags` are the flags of the snapshot that cannot be compiled, none if left out.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

use guidon_sdk::Context;
use guidon_sdk::eval::{Evaluation, bucket, evaluate};
use guidon_sdk::model::FlagKind;
use guidon_sdk::snapshot::Snapshot;
use serde::Deserialize;
use serde_json::value::RawValue;
use serde_json::{Value, json};

#[derive(Deserialize)]
struct VectorFile {
    #[serde(default)]
    slots: Vec<SlotVector>,
    snapshot: Option<Box<RawValue>>,
    #[serde(default, rename = "brokenFlags")]
    broken_flags: BTreeSet<String>,
    #[serde(default)]
    cases: Vec<Case>,
}

#[derive(Deserialize)]
struct SlotVector {
    salt: String,
    unit: String,
    hash: String,
    slot: u32,
}

#[derive(Deserialize)]
struct Case {
    flag: String,
    context: Value,
    default: Option<Value>,
    expect: Value,
}

fn vector_files() -> Vec<(PathBuf, VectorFile)> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("vectors");
    let mut files = Vec::new();
    for entry in std::fs::read_dir(&folder).expect("the folder of vectors") {
        let path = entry.expect("a folder entry").path();
        let text = std::fs::read_to_string(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
        let file = serde_json::from_str(&text).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
        files.push((path, file));
    }
    files
}

/// The kind of values a caller asks for by its default.
fn kind_of(default: &Value) -> FlagKind {
    match default {
        Value::Bool(_) => FlagKind::Boolean,
        Value::Number(_) => FlagKind::Number,
        Value::String(_) => FlagKind::String,
        _ => FlagKind::Json,
    }
}

/// An evaluation in the words of the vectors.
fn answer(evaluation: &Evaluation<'_>, default: Option<&Value>) -> Value {
    let mut answer = json!({"value": evaluation.value().or(default), "reason": evaluation.reason()});
    let optional = [
        ("variation", evaluation.variation_key().map(Value::from)),
        ("rule", evaluation.rule().map(Value::from)),
        ("slot", evaluation.slot().map(Value::from)),
        ("errorCode", evaluation.error().map(|error| Value::from(error.as_str()))),
    ];
    for (name, value) in optional {
        if let Some(value) = value {
            answer[name] = value;
        }
    }
    answer
}

#[test]
fn every_evaluation_answers_as_its_vector_says() {
    let mut cases_run = 0;
    let mut report = String::new();
    for (path, file) in vector_files() {
        let Some(source) = file.snapshot else { continue };
        let snapshot =
            Snapshot::parse(source.get().as_bytes()).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
        let broken: BTreeSet<String> = snapshot.problems().iter().filter_map(|problem| problem.flag.clone()).collect();
        assert_eq!(broken, file.broken_flags, "{}", path.display());
        for case in file.cases {
            let context: Context<'_> = serde_json::from_value(case.context.clone())
                .unwrap_or_else(|error| panic!("{}: {error}", path.display()));
            let mut evaluation = evaluate(snapshot.ruleset(), &case.flag, &context);
            if let Some(default) = &case.default {
                evaluation = evaluation.of_kind(kind_of(default));
            }
            let answer = answer(&evaluation, case.default.as_ref());
            if answer != case.expect {
                report +=
                    &format!("{}: {} for {}: {answer}, not {}\n", path.display(), case.flag, case.context, case.expect);
            }
            cases_run += 1;
        }
    }
    assert!(report.is_empty(), "{report}");
    assert!(cases_run > 300, "only {cases_run} cases were found");
}

#[test]
fn every_unit_falls_into_the_slot_its_vector_says() {
    let mut slots = 0;
    for vector in vector_files().into_iter().flat_map(|(_, file)| file.slots) {
        let found = bucket::bucket(&vector.salt, &vector.unit);
        assert_eq!(format!("{:016x}", found.hash), vector.hash, "salt {:?}, unit {:?}", vector.salt, vector.unit);
        assert_eq!(found.slot, vector.slot, "salt {:?}, unit {:?}", vector.salt, vector.unit);
        slots += 1;
    }
    assert!(slots >= 50, "only {slots} slots were found");
}
