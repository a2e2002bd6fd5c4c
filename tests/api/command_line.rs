//! The command line against a server.

use std::process::{Command, Output};

use serde_json::json;

use crate::support::people::{admin, person};
use crate::support::{ServerProcess, TestClient, binary};

fn guidon(server: &str, arguments: &[&str]) -> Output {
    guidon_as("gdn-test-administrator-token", server, arguments)
}

fn guidon_as(token: &str, server: &str, arguments: &[&str]) -> Output {
    let mut command = Command::new(binary());
    command.args(arguments).env("GUIDON_SERVER", server).env("GUIDON_TOKEN", token);
    command.output().expect("the command")
}

#[test]
fn https_without_a_certificate_to_trust_is_no_crash() {
    let server = ServerProcess::start();
    let answer = guidon(&server.client.url.replace("http:", "https:"), &["flag", "list"]);
    let said = String::from_utf8_lossy(&answer.stderr);
    // 3: this server speaks no TLS. 2: this system has no root certificates.
    assert!(matches!(answer.status.code(), Some(2 | 3)), "{:?} {said}", answer.status);
    assert!(said.starts_with("guidon: "), "{said}");
}

#[test]
fn a_comment_cannot_steer_the_terminal() {
    let server = ServerProcess::start();
    server.client.create_flag("a");
    let change = json!({"environment": "development", "comment": "\u{1b}[2Jgone\n", "instructions": [{"kind": "turnFlagOn", "flag": "a"}]});
    server.client.post("/api/v1/projects/default/changes", &change).ok();
    let log = String::from_utf8(guidon(&server.client.url, &["journal", "log"]).stdout).unwrap();
    assert!(log.contains("\\u{1b}[2Jgone\\n") && !log.contains('\u{1b}'), "{log}");
    let scripts = String::from_utf8(guidon(&server.client.url, &["--json", "journal", "log"]).stdout).unwrap();
    assert!(scripts.contains("\\u001b[2Jgone\\n"), "{scripts}");
}

#[test]
fn a_data_folder_that_is_none_is_not_called_damaged() {
    let file = tempfile::NamedTempFile::new().expect("a temporary file");
    let path = file.path().to_str().expect("a path in UTF-8");
    let answer = guidon("", &["serve", "--listen", "127.0.0.1:0", "--data", path]);
    let said = String::from_utf8_lossy(&answer.stderr);
    assert_eq!(answer.status.code(), Some(1), "{said}");
    assert!(said.contains("--data or GUIDON_DATA names another") && !said.contains("backup"), "{said}");
}

#[test]
fn a_variation_that_was_served_in_production_is_replaced_and_never_edited() {
    let server = ServerProcess::start();
    let admin = admin(&server);
    let manager = person(&admin, "Rea", &["releaseManager", "developer"]).client;
    server.client.create_flag("engine");
    admin.change("production", json!([{"kind": "turnFlagOn", "flag": "engine"}]));
    let flag = "/api/v1/projects/default/flags/engine";
    let served = |client: &TestClient| client.get(flag).ok()["servedInProduction"].clone();
    assert_eq!(served(&admin), json!(["off"]));
    let edit = json!([{"kind": "updateVariation", "flag": "engine", "variation": "off", "value": true}]);
    let refused = manager.change("development", edit).problem();
    assert_eq!((&refused["code"], &refused["errors"][0]["code"]), (&json!("invalidChange"), &json!("variationServed")));
    assert_eq!(refused["errors"][0]["pointer"], "/instructions/0/value");

    let rollout = json!({"kind": "setRollout", "flag": "engine", "weights": {"on": 30_000, "off": 70_000}});
    server.client.change("development", json!([{"kind": "turnFlagOn", "flag": "engine"}, rollout])).ok();
    let replace = |arguments: &[&str]| {
        let all = [&["flag", "replace-variation", "engine"], arguments].concat();
        let answer = guidon_as(manager.credential().unwrap_or_default(), &server.client.url, &all);
        (
            answer.status.code(),
            format!("{}{}", String::from_utf8_lossy(&answer.stdout), String::from_utf8_lossy(&answer.stderr)),
        )
    };
    let (code, said) = replace(&["on", "on-2", "--value", "true", "--provenance", "human"]);
    assert_eq!(code, Some(0), "{said}");
    assert!(said.contains("added the variation on-2 to engine") && said.contains("30 % on-2"), "{said}");
    let shown = server.client.get(flag).ok();
    let weights = &shown["environments"]["development"]["fallthrough"]["rollout"]["weights"];
    assert_eq!(*weights, json!({"off": 70_000, "on-2": 30_000}));
    let (code, said) = replace(&["on", "on-2"]);
    assert_eq!((code, said.trim()), (Some(0), "Nothing to change: nothing in development refers to on."));
    let (code, said) = replace(&["on", "on-3"]);
    assert!(code == Some(2) && said.contains("--value"), "{said}");
}
