use std::collections::BTreeSet;
use std::path::Path;

use super::*;
use crate::http::strict;

const METHODS: [&str; 5] = ["get", "post", "put", "patch", "delete"];

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

/// Names of the handlers that the routers' sources route to: `mod.rs` by path, a resource's own `routes()` by name.
fn routed(folder: &Path, names: &mut BTreeSet<String>) {
    for entry in std::fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            routed(&path, names);
            continue;
        }
        let source = std::fs::read_to_string(&path).unwrap_or_default();
        let routes = ["pub fn routes()", "pub fn open_routes()"].iter().filter_map(|start| source.split_once(start));
        for (_, body) in routes.filter(|_| !path.ends_with("openapi/mod.rs") && !path.ends_with("mod.rs")) {
            let body = body.split("\n}\n").next().unwrap_or_default();
            for method in METHODS {
                for (start, call) in body.match_indices(&format!("{method}(")) {
                    let handler = body[start + call.len()..].split(')').next().unwrap_or_default();
                    if !handler.is_empty() && handler.bytes().all(|byte| byte.is_ascii_lowercase() || byte == b'_') {
                        names.insert(handler.to_owned());
                    }
                }
            }
        }
        if path.file_name().is_some_and(|name| name == "mod.rs") && !path.ends_with("openapi/mod.rs") {
            for method in METHODS {
                for (start, call) in source.match_indices(&format!("{method}(")) {
                    let rest = &source[start + call.len()..];
                    let handler = rest.split(')').next().unwrap_or_default();
                    let is_path = handler.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"_:".contains(&byte));
                    if let Some((_, name)) = handler.rsplit_once("::").filter(|_| is_path) {
                        names.insert(name.to_owned());
                    }
                }
            }
        }
    }
}

#[test]
fn every_route_is_described() {
    let mut routed_names = BTreeSet::new();
    routed(&Path::new(env!("CARGO_MANIFEST_DIR")).join("src/http"), &mut routed_names);
    let described: BTreeSet<String> = operations().into_iter().map(|(_, id, _)| id).collect();
    assert_eq!(routed_names, described);
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
    let kinds: BTreeSet<&str> =
        kinds.trim_end_matches('.').split(", ").filter(|kind| *kind != "createSdkKey").collect();
    let document = document();
    let mapping = document["components"]["schemas"]["Instruction"]["discriminator"]["mapping"].as_object().unwrap();
    assert_eq!(mapping.keys().map(String::as_str).collect::<BTreeSet<_>>(), kinds);
}

#[test]
fn every_operation_is_guarded_and_says_how_it_fails() {
    for (path, _, operation) in operations() {
        let open = ["get /healthz", "get /readyz", "get /metrics"].contains(&path.as_str());
        assert_eq!(operation["security"] == json!([{}]), open, "{path}");
        assert!(operation["responses"]["default"].is_object() && operation["tags"].is_array(), "{path}");
    }
}
