//! The command line against a server.

use std::process::{Command, Output};

use serde_json::json;

use crate::support::{ServerProcess, binary};

fn guidon(server: &str, arguments: &[&str]) -> Output {
    let mut command = Command::new(binary());
    command.args(arguments).env("GUIDON_SERVER", server).env("GUIDON_TOKEN", "gdn-test-administrator-token");
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
