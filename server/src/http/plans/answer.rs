//! Plans as callers read them.

use serde_json::{Map, Value, json};

use super::super::Api;
use super::super::problem::{Fault, Problem};
use super::super::shown::hide_values;
use crate::changes::{Author, ChangeDraft, ChangeError, describe};
use crate::environments::plan::{Plan, Step};
use crate::state::Project;

/// A plan, and what it was made against.
pub(super) struct Facts<'a> {
    pub(super) project: &'a Project,
    pub(super) revision: u64,
    pub(super) plan: &'a Plan,
    /// Where in the body the plan's document stands.
    pub(super) pointer: &'static str,
}

/// The plan with what the policies would say to it.
pub(super) async fn show(api: &Api, author: &Author, facts: Facts<'_>, since: Option<Value>) -> Result<Value, Problem> {
    let Facts { project, revision, plan, pointer } = facts;
    let answer = answer_of(api, author, &project.key, plan, pointer).await?;
    let hides = |environment: Option<&str>| {
        // What all environments share may hold what stands in any of them.
        let mut about = project.environments.keys().filter(|key| environment.is_none_or(|only| only == key.as_str()));
        about.any(|key| api.is_blind(author, &project.key, key))
    };
    let steps: Vec<Value> =
        plan.steps.iter().map(|step| shown_step(step, pointer, hides(step.environment.as_deref()))).collect();
    let differences: Vec<Value> = plan
        .differences
        .iter()
        .map(|difference| {
            let mut shown = json!(difference);
            if hides(difference.environment.as_deref()) {
                hide_values(&mut shown);
            }
            shown
        })
        .collect();
    let [create, update, delete] = plan.counts();
    let mut shown = json!({
        "project": project.key,
        "baseRevision": revision,
        "steps": steps,
        "differences": differences,
        "counts": {"create": create, "update": update, "delete": delete},
        "unmanaged": plan.unmanaged,
        "answer": answer,
    });
    if let Some(since) = since {
        shown["since"] = since;
    }
    Ok(shown)
}

fn shown_step(step: &Step, pointer: &str, hides: bool) -> Value {
    let mut instruction = json!(step.instruction.edit());
    count_keys(&mut instruction);
    if hides {
        hide_values(&mut instruction);
    }
    let pointer = if step.pointer.is_empty() { String::new() } else { format!("{pointer}{}", step.pointer) };
    let mut shown =
        json!({"instruction": instruction, "pointer": pointer, "summary": describe(&step.instruction, None)});
    if let Some(environment) = &step.environment {
        shown["environment"] = json!(environment);
    }
    shown
}

/// Puts counts in place of persons' keys: steps are for reading, and what they are read in is kept.
fn count_keys(shown: &mut Value) {
    match shown {
        Value::Array(items) => items.iter_mut().for_each(count_keys),
        Value::Object(fields) => {
            for (name, count) in [("keys", "keyCount"), ("included", "includedCount"), ("excluded", "excludedCount")] {
                if let Some(Value::Array(keys)) = fields.get(name) {
                    let len = keys.len();
                    fields.remove(name);
                    fields.insert(count.to_owned(), len.into());
                }
            }
            if is_key_list(fields)
                && let Some(Value::Array(values)) = fields.remove("values")
            {
                fields.insert("valueCount".to_owned(), values.len().into());
            }
            fields.values_mut().for_each(count_keys);
        }
        _ => {}
    }
}

fn is_key_list(fields: &Map<String, Value>) -> bool {
    let is = |name: &str, word: &str| fields.get(name).and_then(Value::as_str) == Some(word);
    is("attribute", "targetingKey") && is("op", "in")
}

/// What would become of the plan, were it carried out now.
async fn answer_of(api: &Api, author: &Author, project: &str, plan: &Plan, pointer: &str) -> Result<Value, Problem> {
    if plan.is_empty() {
        return Ok(json!({"outcome": "nothing"}));
    }
    let draft =
        ChangeDraft { project: project.to_owned(), instructions: plan.instructions(), ..ChangeDraft::default() };
    let refused = |outcome: &str, error: &ChangeError| match error {
        ChangeError::Refused(refused) | ChangeError::FactorNeeded(refused) => json!({
            "outcome": outcome, "action": refused.action.as_str(), "environment": refused.environment,
            "policies": refused.policies, "detail": error.to_string(),
        }),
        _ => json!({"outcome": outcome, "detail": error.to_string()}),
    };
    match api.changes.consider(author, &draft).await {
        Ok(considered) if !considered.changes => Ok(json!({"outcome": "nothing"})),
        Ok(considered) => Ok(match considered.needs {
            Some(needs) => json!({"outcome": "request", "needs": needs}),
            None => json!({"outcome": "applies"}),
        }),
        Err(error @ ChangeError::Refused(_)) => Ok(refused("refused", &error)),
        Err(error @ ChangeError::FactorNeeded(_)) => Ok(refused("factorNeeded", &error)),
        Err(error) => Err(in_document(Problem::from(error), plan, pointer)),
    }
}

/// The problem with its places in the instructions turned into places in the document that asked for them.
pub(super) fn in_document(problem: Problem, plan: &Plan, pointer: &str) -> Problem {
    problem.map_errors(|fault| {
        let rest = fault.pointer.strip_prefix("/instructions/");
        let index = rest.map(|rest| rest.split('/').next().unwrap_or_default());
        let Some(step) = index.and_then(|index| plan.steps.get(index.parse::<usize>().ok()?)) else { return fault };
        let place = if step.pointer.is_empty() { String::new() } else { format!("{pointer}{}", step.pointer) };
        let summary = describe(&step.instruction, None);
        Fault { pointer: place, detail: format!("{} (planned: {summary})", fault.detail), ..fault }
    })
}
