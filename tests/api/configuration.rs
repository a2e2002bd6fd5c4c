//! The configuration file, and the commands that check and show what is in force.

use std::fs;
use std::path::Path;
use std::process::{Command, Output};

use serde_json::Value;

use crate::support::{ServerOptions, ServerProcess, binary};

fn guidon(arguments: &[&str], variables: &[(&str, &str)]) -> Output {
    let mut command = Command::new(binary());
    command.args(arguments).envs(variables.iter().copied());
    command.output().expect("the command")
}

fn said(output: &Output) -> String {
    String::from_utf8_lossy(&output.stdout).into_owned() + &String::from_utf8_lossy(&output.stderr)
}

fn write(folder: &Path, name: &str, text: &str) -> String {
    let path = folder.join(name);
    fs::write(&path, text).expect("written");
    path.to_str().expect("a path in UTF-8").to_owned()
}

#[test]
fn each_value_is_shown_with_where_it_came_from_and_no_secret_is() {
    let folder = tempfile::tempdir().expect("a folder");
    let token = write(folder.path(), "token", "hunter-two-of-twenty-bytes\n");
    let text = format!("[limits]\nmax_body_bytes = 4096\n[identity]\nadmin_token_file = \"{token}\"\n");
    let file = write(folder.path(), "guidon.toml", &text);
    let arguments = ["--json", "config", "show", "--listen", "127.0.0.1:7000"];
    let variables = [("GUIDON_CONFIG", &*file), ("GUIDON_LOG", "debug"), ("GUIDON_MASTER_KEY", "hunter-three")];
    let shown = guidon(&arguments, &variables);
    assert_eq!(shown.status.code(), Some(0), "{}", said(&shown));
    assert!(!said(&shown).contains("hunter"), "{}", said(&shown));
    let document: Value = serde_json::from_slice(&shown.stdout).expect("JSON");
    let setting = |key: &str| {
        let settings = document["settings"].as_array().expect("settings");
        settings.iter().find(|setting| setting["key"] == key).expect(key).clone()
    };
    assert_eq!(setting("max_body_bytes")["source"], serde_json::json!({"kind": "file", "file": file, "line": 2}));
    assert_eq!(setting("log")["source"]["name"], "GUIDON_LOG");
    assert_eq!(setting("listen")["source"]["name"], "--listen");
    assert_eq!(setting("data")["source"]["kind"], "default");
    let secrets = document["secrets"].as_array().expect("secrets");
    assert_eq!(secrets.iter().filter(|secret| secret["isSet"] == true).count(), 2);
}

#[test]
fn a_server_runs_on_its_file_and_says_so() {
    let folder = tempfile::tempdir().expect("a folder");
    let file = write(folder.path(), "guidon.toml", "[limits]\nmax_body_bytes = 300\n");
    let arguments = vec!["--config".to_owned(), file.clone()];
    let server = ServerProcess::start_with(ServerOptions { arguments, variables: Vec::new() });
    assert!(server.log().contains(&file), "{}", server.log());
    let body = serde_json::json!({"comment": "x".repeat(400), "environment": "development", "instructions": []});
    assert_eq!(server.client.post("/api/v1/projects/default/changes", &body).status, 413);
}

#[test]
fn everything_that_would_keep_it_from_starting_is_said_before() {
    let folder = tempfile::tempdir().expect("a folder");
    let path = |name: &str| folder.path().join(name).to_str().expect("a path").to_owned();
    let wrong = write(folder.path(), "wrong.toml", "[network]\nlisten = 80\nlistem = \"x\"\n");
    let refused = guidon(&["config", "check", "--config", &wrong], &[]);
    assert_eq!(refused.status.code(), Some(2), "{}", said(&refused));
    assert!(said(&refused).contains(":2:10: listen") && said(&refused).contains("did you mean listen"));
    let refused_too = guidon(&["serve", "--config", &wrong], &[]);
    assert_eq!((refused_too.status.code(), said(&refused_too)), (Some(2), said(&refused)));

    let certificate = write(folder.path(), "c.pem", "no certificate");
    let text =
        format!("[network]\ntls_cert = \"{certificate}\"\ntls_key = \"{}\"\n[log]\nlog = \"==\"\n", path("none"));
    let file = write(folder.path(), "files.toml", &text);
    let data = write(folder.path(), "data", "a file, not a folder");
    let refused = guidon(&["config", "check", "--config", &file, "--data", &data], &[("GUIDON_MASTER_KEY", "short")]);
    let text = said(&refused);
    assert_eq!(refused.status.code(), Some(2), "{text}");
    for expected in ["c.pem", "is not a folder", "64 hexadecimal digits", "=="] {
        assert!(text.contains(expected), "{expected}: {text}");
    }

    let open = guidon(&["config", "check", "--listen", "0.0.0.0:0"], &[]);
    assert!(said(&open).contains("--behind-proxy"), "{}", said(&open));
    let sound = guidon(&["config", "check", "--listen", "127.0.0.1:0", "--data", &path("new/data")], &[]);
    assert_eq!(sound.status.code(), Some(0), "{}", said(&sound));
    assert!(!Path::new(&path("new")).exists(), "a check makes nothing");
}

/// Words of `text` that start with `GUIDON_`.
fn variables(text: &str) -> Vec<&str> {
    let words = text.split(|it: char| !it.is_ascii_alphanumeric() && it != '_');
    words.filter(|word| word.starts_with("GUIDON_")).collect()
}

#[test]
fn what_the_deploy_files_name_is_there() {
    let deploy = Path::new(env!("CARGO_MANIFEST_DIR")).join("../deploy");
    let read = |name: &str| fs::read_to_string(deploy.join(name)).expect(name);
    let known = said(&guidon(&["serve", "--help"], &[])) + &said(&guidon(&["--json", "config", "show"], &[]));
    let known = variables(&known);
    for name in ["Dockerfile", "compose.yaml", "guidon.service", "README.md"] {
        for variable in variables(&read(name)) {
            assert!(known.contains(&variable), "{name}: the program knows no {variable}");
        }
    }
    let folder = tempfile::tempdir().expect("a folder");
    let data = folder.path().join("data").to_str().expect("a path").to_owned();
    let file = deploy.join("guidon.toml").to_str().expect("a path").to_owned();
    let checked = guidon(&["config", "check", "--config", &file, "--data", &data], &[]);
    assert!(checked.status.success(), "{}", said(&checked));

    let unit = read("guidon.service");
    for line in unit.lines().filter(|line| !line.is_empty() && !line.starts_with(['#', '['])) {
        assert!(line.split_once('=').is_some_and(|(key, _)| key.chars().all(char::is_alphanumeric)), "{line}");
    }
    for line in unit.lines().filter_map(|line| line.strip_prefix("ExecStart=/usr/bin/guidon ")) {
        let arguments: Vec<&str> = line.split(' ').chain(["--help"]).collect();
        assert!(guidon(&arguments, &[]).status.success(), "the unit starts {line}");
    }
}

#[test]
fn the_health_check_says_whether_it_serves() {
    let server = ServerProcess::start();
    let well = guidon(&["health"], &[("GUIDON_SERVER", &server.client.url)]);
    assert_eq!((well.status.code(), said(&well).trim()), (Some(0), "ready"));
    let gone = guidon(&["health"], &[("GUIDON_SERVER", "http://127.0.0.1:9")]);
    assert_eq!(gone.status.code(), Some(3), "{}", said(&gone));
}
