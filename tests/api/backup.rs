//! Backups of a server that serves, and what is restored from them.

use std::fs;
use std::process::{Command, Output};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use serde_json::{Value, json};

use crate::support::people::{first_administrator, person};
use crate::support::{ServerProcess, TestClient, binary};

fn guidon(client: &TestClient, arguments: &[&str], variables: &[(&str, &str)]) -> Output {
    let mut command = Command::new(binary());
    command.args(arguments).env("GUIDON_SERVER", &client.url).env("GUIDON_TOKEN", client.credential().unwrap_or(""));
    command.env("GUIDON_PROFILES", "/nowhere").envs(variables.iter().copied()).output().expect("the command")
}

fn said(output: &Output) -> String {
    String::from_utf8_lossy(&output.stdout).into_owned() + &String::from_utf8_lossy(&output.stderr)
}

#[test]
fn a_server_is_backed_up_while_it_is_written_and_restored_elsewhere() {
    let mut server = ServerProcess::start();
    let admin = first_administrator(&server.client);
    let auditor = person(&admin.client, "Audrey", &["auditor"]);
    for other in [&server.client, &auditor.client] {
        assert_eq!(other.get("/api/v1/backup").status, 403, "only administrators take backups");
    }
    server.client.create_flag("first");
    let folder = tempfile::tempdir().expect("a folder");
    let file = folder.path().join("b").to_str().expect("a path").to_owned();

    let stop = Arc::new(AtomicBool::new(false));
    let writing = std::thread::spawn({
        let (client, stop) = (server.client.clone(), Arc::clone(&stop));
        move || {
            let mut count = 0;
            while !stop.load(Ordering::Relaxed) {
                client.create_flag(&format!("flag-{count}"));
                count += 1;
            }
        }
    });
    let taken =
        guidon(&admin.client.with_token(Some(&admin.command_line_session())), &["--json", "backup", &file], &[]);
    stop.store(true, Ordering::Relaxed);
    writing.join().expect("wrote");
    assert_eq!(taken.status.code(), Some(0), "{}", said(&taken));
    let document: Value = serde_json::from_slice(&taken.stdout).expect("JSON");
    let revision = document["manifest"]["revision"].as_u64().expect("a revision");

    let key = fs::read_to_string(server.data().join("master.key")).expect("the key");
    let verified = guidon(&admin.client, &["backup", "verify", &file], &[("GUIDON_MASTER_KEY", &key)]);
    assert!(verified.status.success() && said(&verified).contains("Sealed with"), "{}", said(&verified));
    let target = folder.path().join("new").to_str().expect("a path").to_owned();
    let without = guidon(&admin.client, &["restore", &file, "--data", &target], &[]);
    assert_eq!(without.status.code(), Some(2), "{}", said(&without));
    assert!(said(&without).contains("GUIDON_MASTER_KEY"), "{}", said(&without));

    let mut bytes = fs::read(&file).expect("the backup");
    let middle = bytes.len() / 2;
    bytes[middle] ^= 4;
    let changed = folder.path().join("changed").to_str().expect("a path").to_owned();
    fs::write(&changed, &bytes).expect("written");
    let refused = guidon(&admin.client, &["restore", &changed, "--data", &target], &[("GUIDON_MASTER_KEY", &key)]);
    assert_eq!(refused.status.code(), Some(8), "{}", said(&refused));
    assert!(said(&refused).contains("at byte"), "{}", said(&refused));
    assert!(!fs::exists(&target).expect("known"), "nothing is left of a refused restore");

    // As on another machine: the folder is lost, the key was kept apart.
    server.stop();
    let data = server.data();
    fs::remove_dir_all(&data).expect("removed");
    let place = data.to_str().expect("a path");
    let restored =
        guidon(&admin.client, &["--json", "restore", &file, "--data", place], &[("GUIDON_MASTER_KEY", &key)]);
    assert!(restored.status.success(), "{}", said(&restored));
    let document: Value = serde_json::from_slice(&restored.stdout).expect("JSON");
    assert_eq!(document["revision"], revision);
    assert_ne!(document["history"], document["restoredFrom"]);
    let checked = guidon(&admin.client, &["audit", "verify", "--data", place], &[]);
    assert!(checked.status.success(), "{}", said(&checked));
    fs::write(data.join("master.key"), &key).expect("written");
    server.restart();
    assert_eq!(server.client.get("/api/v1/projects/default/flags/first").status, 200);
    assert_eq!(admin.client.get("/api/v1/session").status, 401, "sessions do not come along");
    let admin = admin.sign_in();
    let trail = admin.get("/api/v1/audit?kind=restored").ok();
    assert_eq!(trail["records"].as_array().expect("records").len(), 1, "{trail}");
    assert_eq!(server.client.change("development", json!([{"kind": "turnFlagOn", "flag": "first"}])).status, 200);

    // And of the stopped server, with its key.
    server.stop();
    let offline = folder.path().join("offline").to_str().expect("a path").to_owned();
    let arguments = ["backup", &offline, "--data", place, "--assignments", "--with-master-key"];
    let taken = guidon(&admin, &arguments, &[]);
    assert!(taken.status.success() && said(&taken).contains("is in it"), "{}", said(&taken));
    let restored = guidon(&admin, &["restore", &offline, "--data", &target], &[]);
    assert!(restored.status.success(), "{}", said(&restored));
}
