//! Starting, stopping, health and metrics.

use std::process::Command;

use serde_json::json;

use crate::support::{ServerProcess, binary};

#[test]
fn health_readiness_and_metrics_need_no_credential() {
    let server = ServerProcess::start();
    let stranger = server.client.with_token(None);
    assert_eq!(stranger.get("/healthz").ok(), json!({"status": "alive"}));
    assert_eq!(stranger.get("/readyz").ok(), json!({"status": "ready", "reasons": []}));
    let metrics = stranger.get("/metrics").text;
    for line in [
        "guidon_revision 1",
        "guidon_journal_writable 1",
        "guidon_http_requests_total{method=\"GET\",route=\"/healthz\",status=\"200\"} 1",
    ] {
        assert!(metrics.contains(line), "{line} is not in {metrics}");
    }
}

#[test]
fn acknowledged_changes_survive_a_crash_and_a_stop() {
    let mut server = ServerProcess::start();
    let first = server.client.create_flag("a");
    server.kill();
    server.restart();
    assert_eq!(server.client.get("/api/v1/status").ok()["revision"], first);
    let second = server.client.create_flag("b");
    assert!(server.stop().success());
    server.restart();
    assert_eq!(server.client.get("/api/v1/status").ok()["revision"], second);
}

#[test]
fn a_start_that_cannot_succeed_says_why_and_what_to_do() {
    let server = ServerProcess::start();
    let start = |arguments: &[&str]| {
        let output = Command::new(binary()).arg("serve").args(arguments).output().expect("a process");
        (output.status.code(), String::from_utf8_lossy(&output.stderr).into_owned())
    };
    let folder = tempfile::tempdir().unwrap();
    let fresh = folder.path().join("fresh").display().to_string();
    let (code, said) = start(&["--listen", "0.0.0.0:0", "--data", &fresh]);
    assert!(code == Some(2) && said.contains("--behind-proxy"), "{code:?} {said}");
    let address = server.client.url.trim_start_matches("http://").to_owned();
    let (code, said) = start(&["--listen", &address, "--data", &fresh]);
    assert!(code == Some(1) && said.contains("is in use"), "{code:?} {said}");
    let data = server.data().display().to_string();
    let (code, said) = start(&["--listen", "127.0.0.1:0", "--data", &data]);
    assert!(code == Some(1) && said.contains(&server.id().to_string()), "{code:?} {said}");
    assert!(!std::path::Path::new(&fresh).exists(), "a refused start left a folder behind");
}
