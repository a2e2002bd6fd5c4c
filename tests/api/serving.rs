//! Starting, stopping, health and metrics.

use std::io::{BufRead, BufReader};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use serde_json::json;

use crate::support::{ServerProcess, TestClient, binary};

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
fn a_damaged_assignment_log_stops_the_start_as_a_damaged_journal_does() {
    let mut server = ServerProcess::start();
    server.client.create_flag("a");
    let key = server.client.create_sdk_key("development");
    let item = json!({"flag": "a", "unit": "user-1", "assigned": "on", "delivered": "on", "reason": "STATIC", "revision": 2, "at": 1});
    let batch = json!({"instance": "one", "epoch": 1, "batch": 1, "items": vec![item; 20]});
    server.client.with_token(Some(&key)).post("/sdk/v1/exposures", &batch).ok();
    assert!(server.stop().success());
    for folder in ["assignments", "journal"] {
        let file = largest_file(&server.data().join(folder));
        let sound = std::fs::read(&file).unwrap();
        let mut damaged = sound.clone();
        damaged[sound.len() / 2] ^= 1;
        std::fs::write(&file, &damaged).unwrap();
        let data = server.data();
        let start = Command::new(binary()).args(["serve", "--listen", "127.0.0.1:0", "--data"]).arg(&data).output();
        let start = start.expect("a process");
        let said = String::from_utf8_lossy(&start.stderr).into_owned();
        assert_eq!(start.status.code(), Some(8), "{said}");
        assert!(said.contains(&file.display().to_string()), "{said}");
        assert_eq!(std::fs::read(&file).unwrap(), damaged, "a refused start changed the file");
        let repair = format!("guidon repair {}", server.data().join(folder).display());
        for advice in ["restore this folder from a backup", &repair, "Nothing was changed. The store is in"] {
            assert!(said.contains(advice), "{advice} is not in {said}");
        }
        std::fs::write(&file, sound).unwrap();
    }
    server.restart();
    assert_eq!(server.client.get("/api/v1/status").ok()["revision"], 3);
}

fn largest_file(folder: &std::path::Path) -> std::path::PathBuf {
    let files = std::fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path());
    files.max_by_key(|path| path.metadata().unwrap().len()).unwrap()
}

#[test]
fn an_export_has_a_record_for_everybody_its_entries_name() {
    let mut server = ServerProcess::start();
    server.client.create_flag("a");
    assert!(server.stop().success());
    let folder = tempfile::tempdir().unwrap();
    let (file, data) = (folder.path().join("history"), server.data());
    let export =
        Command::new(binary()).args(["--json", "journal", "export"]).arg(file).arg("--data").arg(data).output();
    let export = export.expect("a process");
    let answer: serde_json::Value = serde_json::from_slice(&export.stdout).expect("a document");
    assert_eq!((&answer["revision"], &answer["erased"]), (&json!(2), &json!(0)), "{answer}");
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
    let weak = Command::new(binary())
        .args(["serve", "--listen", "127.0.0.1:0", "--data", &fresh])
        .env("GUIDON_ADMIN_TOKEN", "short")
        .output()
        .expect("a process");
    let said = String::from_utf8_lossy(&weak.stderr);
    assert!(weak.status.code() == Some(2) && said.contains("GUIDON_ADMIN_TOKEN"), "{said}");
    assert!(!std::path::Path::new(&fresh).exists(), "a refused start left a folder behind");
}

#[test]
fn a_server_whose_log_nobody_reads_any_more_serves_and_stops() {
    let folder = tempfile::tempdir().expect("a folder");
    let mut child = Command::new(binary())
        .args(["serve", "--listen", "127.0.0.1:0", "--log", "debug", "--data"])
        .arg(folder.path().join("data"))
        .env("GUIDON_ADMIN_TOKEN", "gdn-test-administrator-token")
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .expect("a server process");
    // As `guidon serve 2>&1 | head` leaves it: what it says goes to a pipe that is closed.
    drop(child.stderr.take());
    let mut out = BufReader::new(child.stdout.take().expect("a pipe"));
    let mut first = String::new();
    out.read_line(&mut first).expect("its address");
    let url = first.trim().strip_prefix("listening ").expect("its address").to_owned();
    let client = TestClient::new(&url, Some("gdn-test-administrator-token"));
    let started = Instant::now();
    while client.try_send("GET", "/readyz", &[], b"").ok().is_none_or(|answer| answer.status != 200) {
        assert!(started.elapsed() < Duration::from_secs(60), "it is not ready");
        std::thread::sleep(Duration::from_millis(20));
    }
    client.create_flag("a");
    let sent = Command::new("kill").args(["-TERM", &child.id().to_string()]).status().expect("kill");
    assert!(sent.success());
    let asked = Instant::now();
    let status = loop {
        if let Some(status) = child.try_wait().expect("its status") {
            break Some(status);
        }
        if asked.elapsed() > Duration::from_secs(60) {
            child.kill().expect("killed");
            child.wait().expect("ended");
            break None;
        }
        std::thread::sleep(Duration::from_millis(20));
    };
    assert!(status.is_some_and(|status| status.success()), "{status:?}");
}
