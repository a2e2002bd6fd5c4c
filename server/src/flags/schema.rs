//! JSON Schemas of flags' values.
//!
//! A schema comes from whoever may edit a flag, and runs on the server: remote references are refused, and its regular
//! expressions run in linear time and limited memory.

use guidon_sdk::model::Flag;
use jsonschema::{PatternOptions, Validator};
use serde_json::Value;

/// Deepest nesting of a schema.
pub const MAX_SCHEMA_DEPTH: usize = 32;

/// Largest compiled regular expression of a schema, in bytes.
const MAX_REGEX_BYTES: usize = 1 << 20;

/// Most problems that are reported of one value.
const MAX_PROBLEMS_PER_VALUE: usize = 10;

/// What is wrong with the flag's schema, or with its values by that schema: pointer into the flag, code, message.
pub(crate) fn check_values(flag: &Flag) -> Vec<(String, String, String)> {
    let Some(schema) = &flag.schema else { return Vec::new() };
    if schema.to_string().len() > guidon_sdk::validate::limits::MAX_SCHEMA_BYTES {
        // Reported by the definition's own check; too large a schema is not compiled.
        return Vec::new();
    }
    let validator = match compile(schema) {
        Ok(validator) => validator,
        Err((pointer, message)) => return vec![(format!("/schema{pointer}"), "badSchema".to_owned(), message)],
    };
    let mut problems = Vec::new();
    for (index, variation) in flag.variations.iter().enumerate() {
        for error in validator.iter_errors(&variation.value).take(MAX_PROBLEMS_PER_VALUE) {
            let pointer = format!("/variations/{index}/value{}", error.instance_path());
            problems.push((pointer, "schemaViolation".to_owned(), format!("{error} (the flag's schema)")));
        }
    }
    problems
}

fn compile(schema: &Value) -> Result<Validator, (String, String)> {
    check_shape(schema, "", 0)?;
    let patterns = PatternOptions::regex().size_limit(MAX_REGEX_BYTES).dfa_size_limit(MAX_REGEX_BYTES);
    jsonschema::options()
        .with_pattern_options(patterns)
        .build(schema)
        .map_err(|error| (error.instance_path().to_string(), error.to_string()))
}

/// Refuses remote references and nesting without end.
fn check_shape(schema: &Value, pointer: &str, depth: usize) -> Result<(), (String, String)> {
    if depth > MAX_SCHEMA_DEPTH {
        return Err((pointer.to_owned(), format!("a schema nests at most {MAX_SCHEMA_DEPTH} levels deep")));
    }
    match schema {
        Value::Object(map) => {
            for (name, value) in map {
                let at = format!("{pointer}/{}", name.replace('~', "~0").replace('/', "~1"));
                let reference = matches!(name.as_str(), "$ref" | "$dynamicRef" | "$recursiveRef");
                if reference && value.as_str().is_some_and(|target| !target.starts_with('#')) {
                    return Err((at, "only references within the schema (starting with '#') are allowed".to_owned()));
                }
                check_shape(value, &at, depth + 1)?;
            }
            Ok(())
        }
        Value::Array(items) => items
            .iter()
            .enumerate()
            .try_for_each(|(index, item)| check_shape(item, &format!("{pointer}/{index}"), depth + 1)),
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn found(schema: Value, value: Value) -> Vec<(String, String)> {
        let flag = json!({"key": "f", "kind": "json", "schema": schema, "variations": [{"key": "a", "value": value}]});
        let flag: Flag = serde_json::from_value(flag).unwrap();
        check_values(&flag).into_iter().map(|(pointer, code, _)| (pointer, code)).collect()
    }

    #[test]
    fn values_are_checked_where_they_stand() {
        let schema = json!({"type": "object", "properties": {"model": {"type": "string", "pattern": "^gpt"}}});
        assert_eq!(found(schema.clone(), json!({"model": "gpt-9"})), []);
        let wrong = [("/variations/0/value/model".to_owned(), "schemaViolation".to_owned())];
        assert_eq!(found(schema.clone(), json!({"model": 9})), wrong);
        assert_eq!(found(schema, json!({"model": "other"})), wrong);
    }

    #[test]
    fn schemas_that_cannot_be_trusted_are_refused() {
        let bad = |pointer: &str| [(pointer.to_owned(), "badSchema".to_owned())];
        assert_eq!(found(json!({"$ref": "https://example.com/s.json"}), json!(1)), bad("/schema/$ref"));
        assert_eq!(found(json!({"$ref": "file:///etc/passwd"}), json!(1)), bad("/schema/$ref"));
        assert_eq!(found(json!({"items": {"type": "no-such-type"}}), json!(1)).len(), 1);
        assert_eq!(found(json!({"pattern": "((((a{100}){100}){100}){100})"}), json!("a")).len(), 1);
        assert_eq!(found(json!({"pattern": "(a)\\1"}), json!("a")).len(), 1, "backtracking is refused");
        let deep = (0..40).fold(json!({}), |inner, _| json!({"not": inner}));
        assert_eq!(found(deep, json!(1)).len(), 1);
        assert_eq!(found(json!({"$defs": {"n": {"type": "number"}}, "$ref": "#/$defs/n"}), json!(1)), []);
    }
}
