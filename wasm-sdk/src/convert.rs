//! Between the evaluator's types and JSON, which is how they cross into JavaScript.

use guidon_sdk::Context;
use guidon_sdk::eval::{ErrorCode, Evaluation, Reason};
use guidon_sdk::protocol::Revision;
use serde::Serialize;
use serde_json::Value;

/// What `evaluate` answers. Without a variation there is no `value`: the caller's default stands in its place.
#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Answer<'a> {
    #[serde(skip_serializing_if = "Option::is_none")]
    value: Option<&'a Value>,
    #[serde(skip_serializing_if = "Option::is_none")]
    variation: Option<&'a str>,
    reason: Reason,
    #[serde(skip_serializing_if = "Option::is_none")]
    rule: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    slot: Option<u32>,
    #[serde(skip_serializing_if = "Option::is_none")]
    error_code: Option<ErrorCode>,
    #[serde(skip_serializing_if = "Option::is_none")]
    error_message: Option<&'a str>,
    revision: &'a Revision,
}

/// Reads a context from its flat JSON object.
///
/// # Errors
/// What is wrong with the text, for people.
pub(crate) fn context(json: &str) -> Result<Context<'static>, String> {
    serde_json::from_str(json).map_err(|error| format!("the context is not one JSON object of attributes: {error}"))
}

/// An evaluation as JSON.
///
/// # Errors
/// The value cannot be written as JSON, which no value that came from JSON is.
pub(crate) fn answer(
    evaluation: &Evaluation<'_>,
    message: Option<&str>,
    revision: &Revision,
) -> serde_json::Result<String> {
    serde_json::to_string(&Answer {
        value: evaluation.value(),
        variation: evaluation.variation_key(),
        reason: evaluation.reason(),
        rule: evaluation.rule(),
        slot: evaluation.slot(),
        error_code: evaluation.error(),
        error_message: message,
        revision,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_failed_evaluation_has_no_value_and_says_why() {
        let context = context(r#"{"targetingKey":"user-42"}"#).expect("a context");
        let revision = "01JD7M2Q:42".parse().expect("a revision");
        let json = answer(&Evaluation::failed(ErrorCode::FlagNotFound, &context), Some("no such flag"), &revision);
        assert_eq!(
            json.expect("JSON"),
            r#"{"reason":"ERROR","errorCode":"FLAG_NOT_FOUND","errorMessage":"no such flag","revision":"01JD7M2Q:42"}"#
        );
    }

    #[test]
    fn a_context_that_is_no_object_is_refused_by_place() {
        for json in ["", "[]", "17", r#"{"targetingKey":17}"#, r#"{"country":"US""#] {
            let message = context(json).expect_err(json);
            assert!(message.contains("line 1 column"), "{json}: {message}");
        }
    }
}
