use std::collections::BTreeSet;
use std::path::Path;

use super::*;
use crate::http::strict;

const METHODS: [&str; 5] = ["get", "post", "put", "patch", "delete"];

/// What can be asked without a credential.
const OPEN: [&str; 11] = [
    "get /healthz",
    "get /readyz",
    "get /metrics",
    "post /api/v1/session",
    "post /api/v1/session/claim",
    "post /api/v1/session/claim/finish",
    "post /api/v1/token-exchange",
    "get /api/v1/schema/configuration.json",
    "get /api/v1/session/providers",
    "post /api/v1/session/oidc",
    "post /api/v1/session/oidc/finish",
];

fn operations() -> Vec<(String, String, Value)> {
    let document = document();
    let mut all = Vec::new();
    for (path, operations) in document["paths"].as_object().unwrap() {
        for method in METHODS {
            if let Some(operation) = operations.get(method) {
                all.push((
                    format!("{method} {path}"),
                    operation["operationId"].as_str().unwrap().to_owned(),
                    operation.clone(),
                ));
            }
        }
    }
    all
}

/// The sources of the HTTP doors, one after the other.
fn sources(folder: &Path, text: &mut String) {
    for entry in std::fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            sources(&path, text);
        } else if !path.ends_with("openapi/mod.rs") {
            text.push_str(&std::fs::read_to_string(&path).unwrap_or_default());
        }
    }
}

fn defines(source: &str, name: &str) -> bool {
    ["(", "<"].iter().any(|next| source.contains(&format!(" async fn {name}{next}")))
}

/// Names of the handlers that the sources route to: what stands in `get(…)` and is a handler somewhere.
fn routed() -> BTreeSet<String> {
    let mut source = String::new();
    sources(&Path::new(env!("CARGO_MANIFEST_DIR")).join("src/http"), &mut source);
    let mut names = BTreeSet::new();
    for method in METHODS {
        for (start, call) in source.match_indices(&format!("{method}(")) {
            let handler = source[start + call.len()..].split(')').next().unwrap_or_default();
            let name = handler.rsplit("::").next().unwrap_or_default();
            let is_name = !name.is_empty() && name.bytes().all(|byte| byte.is_ascii_lowercase() || byte == b'_');
            if is_name && defines(&source, name) {
                names.insert(name.to_owned());
            }
        }
    }
    names
}

#[test]
fn every_route_is_described() {
    let described: BTreeSet<String> = operations().into_iter().map(|(_, id, _)| id).collect();
    assert_eq!(routed(), described);
    assert!(described.len() > 20);
}

#[test]
fn the_paths_are_the_published_ones() {
    let paths: Vec<String> = operations().into_iter().map(|(path, ..)| path).collect();
    let published = include_str!("paths.txt").lines().collect::<Vec<_>>();
    assert_eq!(paths, published, "a change of the published paths: update paths.txt, and the CHANGELOG if one is gone");
}

#[test]
fn every_reference_leads_somewhere() {
    fn visit(value: &Value, see: &mut dyn FnMut(&str)) {
        match value {
            Value::Object(fields) => fields.iter().for_each(|(name, value)| match value {
                Value::String(target) if name == "$ref" => see(target),
                other => visit(other, see),
            }),
            Value::Array(elements) => elements.iter().for_each(|element| visit(element, see)),
            _ => {}
        }
    }
    let document = document();
    assert_eq!(document["openapi"], "3.1.0");
    let mut count = 0;
    visit(&document, &mut |target| {
        count += 1;
        assert!(document.pointer(target.trim_start_matches('#')).is_some(), "{target} leads nowhere");
    });
    assert!(count > 100);
}

#[test]
fn every_instruction_that_callers_may_send_is_described() {
    let unknown = strict::read_instruction(&json!({"kind": ""}), "").unwrap_err().remove(0).detail;
    let (_, kinds) = unknown.rsplit_once("The kinds are ").unwrap();
    let kinds: BTreeSet<&str> = kinds
        .trim_end_matches('.')
        .split(", ")
        .filter(|kind| !["createSdkKey", "rotateSdkKey"].contains(kind))
        .collect();
    let document = document();
    let mapping = document["components"]["schemas"]["Instruction"]["discriminator"]["mapping"].as_object().unwrap();
    assert_eq!(mapping.keys().map(String::as_str).collect::<BTreeSet<_>>(), kinds);
}

#[test]
fn every_operation_is_guarded_and_says_how_it_fails() {
    for (path, _, operation) in operations() {
        let open = OPEN.contains(&path.as_str());
        assert_eq!(operation["security"] == json!([{}]), open, "{path}");
        assert!(operation["responses"]["default"].is_object() && operation["tags"].is_array(), "{path}");
    }
}
