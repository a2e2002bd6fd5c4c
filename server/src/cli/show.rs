//! Answers of the server in words for people.

use serde_json::Value;

use super::CliError;
use super::output::Output;

/// A scalar without quotes; nothing for null.
#[must_use]
pub fn text(value: &Value) -> String {
    match value {
        Value::Null => String::new(),
        Value::String(text) => text.clone(),
        other => other.to_string(),
    }
}

/// A time in milliseconds since 1970 (or already in words) to the second, in UTC.
#[must_use]
pub fn short_time(value: &Value) -> String {
    let millisecond = value.as_i64().and_then(|at| jiff::Timestamp::from_millisecond(at).ok());
    millisecond.map_or_else(|| text(value), |at| at.strftime("%Y-%m-%d %H:%M:%SZ").to_string())
}

/// Clauses in words: `country in "US", "CA" and not plan exists`.
#[must_use]
pub fn clauses(clauses: &Value) -> String {
    let words = clauses.as_array().into_iter().flatten().map(|clause| {
        let values = clause["values"].as_array().into_iter().flatten();
        let values = values.take(5).map(Value::to_string).collect::<Vec<_>>().join(", ");
        let not = if clause["negate"] == true { "not " } else { "" };
        let words = [text(&clause["attribute"]), text(&clause["op"]), values];
        format!("{not}{}", words.iter().filter(|word| !word.is_empty()).cloned().collect::<Vec<_>>().join(" "))
    });
    words.collect::<Vec<_>>().join(" and ")
}

/// Instructions in a few words: `turnFlagOn checkout, setRollout checkout`.
#[must_use]
pub fn instructions(instructions: &Value) -> String {
    let all: Vec<&Value> = instructions.as_array().into_iter().flatten().collect();
    let mut words: Vec<String> = all
        .iter()
        .take(3)
        .map(|instruction| {
            let object = ["flag", "segment", "key", "id"].iter().find_map(|field| match &instruction[*field] {
                Value::String(key) => Some(key.clone()),
                Value::Object(definition) => definition.get("key").and_then(Value::as_str).map(str::to_owned),
                _ => None,
            });
            let place = instruction["environment"].as_str().map(|own| format!(" in {own}")).unwrap_or_default();
            format!("{} {}{place}", text(&instruction["kind"]), object.unwrap_or_default()).trim_end().to_owned()
        })
        .collect();
    if all.len() > words.len() {
        words.push(format!("and {} more", all.len() - words.len()));
    }
    words.join(", ")
}

/// An explanation, step by step.
pub fn explanation(flag: &str, explanation: &Value, output: &Output) -> Result<(), CliError> {
    let variation = text(&explanation["variation"]);
    let outcome = if variation.is_empty() { "the caller's default".to_owned() } else { variation };
    output.line(format!("{flag} -> {outcome}   value {}", explanation["value"]))?;
    output.line(format!("  reason {}", text(&explanation["reason"])))?;
    for (field, label) in [("errorCode", "error"), ("rule", "rule"), ("slot", "slot"), ("revision", "revision")] {
        if !explanation[field].is_null() {
            output.line(format!("  {label} {}", text(&explanation[field])))?;
        }
    }
    output.line("")?;
    steps(&explanation["trace"], 1, output)
}

/// Prints a tree of named facts, one a line, nested ones indented.
fn steps(value: &Value, depth: usize, output: &Output) -> Result<(), CliError> {
    let indent = "  ".repeat(depth);
    match value {
        Value::Object(fields) => {
            for (name, value) in fields {
                match value {
                    Value::Null => {}
                    Value::Array(items) if items.is_empty() => {}
                    Value::Object(_) | Value::Array(_) => {
                        output.line(format!("{indent}{name}:"))?;
                        steps(value, depth + 1, output)?;
                    }
                    scalar => output.line(format!("{indent}{name}: {}", text(scalar)))?,
                }
            }
            Ok(())
        }
        Value::Array(items) => items.iter().try_for_each(|item| match item {
            Value::Object(_) => {
                output.line(format!("{indent}-"))?;
                steps(item, depth + 1, output)
            }
            scalar => output.line(format!("{indent}- {}", text(scalar))),
        }),
        scalar => output.line(format!("{indent}{}", text(scalar))),
    }
}
