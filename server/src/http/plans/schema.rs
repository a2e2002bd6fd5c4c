//! The JSON Schema of a document, for editors.

use axum::http::HeaderValue;
use axum::http::header::CONTENT_TYPE;
use axum::response::{IntoResponse, Response};

/// The schema. A test holds it against the types, so that neither is forgotten.
pub(in crate::http) const SCHEMA: &str = include_str!("configuration.schema.json");

/// Answers the JSON Schema (2020-12) of a configuration document.
#[utoipa::path(get, path = "/api/v1/schema/configuration.json", tag = "as code", security(()),
    responses((status = 200, description = "The schema", content_type = "application/schema+json")))]
pub async fn show_document_schema() -> Response {
    let kind = HeaderValue::from_static("application/schema+json");
    ([(CONTENT_TYPE, kind)], SCHEMA).into_response()
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;
    use crate::environments::document::Document;

    /// A document that says everything.
    fn whole() -> Value {
        let clause = json!({"attribute": "country", "op": "in", "values": ["CA"], "negate": true});
        let rollout = json!({"rollout": {"weights": {"ai": 5_000, "baseline": 95_000}, "bucketBy": "company", "salt": "s",
            "allocation": [["ai", 0, 5_000], ["baseline", 5_000, 100_000]]}});
        json!({
            "environments": {"production-eu": {"name": "EU", "tier": "production"}},
            "flags": {"f": {
                "kind": "json", "name": "F", "description": "f", "tags": ["t"], "owner": "team", "temporary": true,
                "expires": "2027-06-30", "clientSide": true, "archived": false, "schema": {"type": "object"},
                "variations": [{"key": "ai", "value": {}, "name": "A", "description": "a", "provenance": {
                    "by": "ai", "model": "m", "promptHash": "p", "commit": "c", "image": "i"}}],
                "environments": {"staging": {
                    "on": true, "offVariation": "ai", "prerequisites": [{"flag": "g", "variation": "on"}],
                    "targets": [{"variation": "ai", "keys": ["k"]}],
                    "rules": [{"id": "r", "description": "r", "clauses": [clause], "serve": {"variation": "ai"}}],
                    "fallthrough": rollout,
                }},
            }},
            "segments": {"staging": {"s": {"name": "S", "description": "s", "included": ["k"], "excluded": ["l"],
                "rules": [{"id": "r", "description": "r", "clauses": [clause]}]}}},
        })
    }

    fn allows(document: &Value) -> bool {
        let schema: Value = serde_json::from_str(SCHEMA).unwrap();
        assert!(jsonschema::draft202012::meta::is_valid(&schema));
        jsonschema::draft202012::new(&schema).unwrap().is_valid(document)
    }

    /// All properties of the schema's objects, and all fields of the document's.
    fn names(value: &Value, of_schema: bool, found: &mut std::collections::BTreeSet<String>) {
        if let Some(fields) = value.as_object() {
            for (name, value) in fields {
                if of_schema && name == "properties" {
                    found.extend(value.as_object().unwrap().keys().cloned());
                } else if !of_schema {
                    found.insert(name.clone());
                }
                names(value, of_schema, found);
            }
        }
        value.as_array().into_iter().flatten().for_each(|value| names(value, of_schema, found));
    }

    #[test]
    fn the_schema_allows_what_the_types_read_and_nothing_else() {
        let whole = whole();
        assert!(allows(&whole) && allows(&json!({})));
        let read: Document = serde_json::from_value(whole.clone()).unwrap();
        assert_eq!(json!(read), whole, "the types read everything");
        let (mut described, mut said) = Default::default();
        names(&serde_json::from_str(SCHEMA).unwrap(), true, &mut described);
        names(&whole, false, &mut said);
        assert!(described.is_subset(&said), "{:?}", described.difference(&said));
        for (pointer, wrong) in [
            ("/flags/f/kind", json!("bool")),
            ("/flags/f/variations", json!({})),
            ("/flags/f/variations/0/key", json!("Not A Key")),
            ("/flags/f/environments/staging/on", json!("yes")),
            ("/flags/f/environments/staging/fallthrough", json!({"variation": "a", "rollout": {"weights": {}}})),
            ("/flags/f/environments/staging/fallthrough/rollout/weights/ai", json!(-1)),
            ("/flags/f/environments/staging/rules/0/clauses/0/op", json!("equals")),
            ("/flags/f/environments/staging/rules/0/clauses", json!([])),
            ("/environments/production-eu/tier", json!("prod")),
            ("/segments/staging/s", json!({"include": []})),
            ("/flags", json!([])),
        ] {
            let mut document = whole.clone();
            *document.pointer_mut(pointer).unwrap() = wrong;
            assert!(!allows(&document), "{pointer}");
        }
    }
}
