//! `/api/v1/audit`, `/api/v1/privacy`, and the commands of both.

use std::path::Path;
use std::process::{Command, Output};
use std::time::{Duration, Instant};

use serde_json::{Value, json};

use crate::support::people::{admin, first_administrator, person};
use crate::support::{ServerProcess, TestClient, binary};

const KEY: &str = "ada.lovelace@example.com";

/// Runs a command as whoever `credential` is of.
fn guidon(client: &TestClient, credential: &str, arguments: &[&str]) -> Output {
    let mut command = Command::new(binary());
    command.args(arguments).env("GUIDON_SERVER", &client.url).env("GUIDON_TOKEN", credential);
    command.env("GUIDON_PROFILES", "/nowhere").output().expect("the command")
}

fn out(output: &Output) -> String {
    assert!(output.status.success(), "{:?} {}", output.status, String::from_utf8_lossy(&output.stderr));
    String::from_utf8_lossy(&output.stdout).into_owned()
}

/// Records that meet a query, once there are any: events are written a moment after what they tell of.
#[track_caller]
fn records(client: &TestClient, query: &str) -> Vec<Value> {
    let started = Instant::now();
    loop {
        let page = client.get(&format!("/api/v1/audit?{query}")).ok();
        let found = page["records"].as_array().expect("records").clone();
        if !found.is_empty() || started.elapsed() > Duration::from_secs(10) {
            return found;
        }
        std::thread::sleep(Duration::from_millis(50));
    }
}

fn ids(records: &[Value]) -> Vec<&str> {
    records.iter().filter_map(|record| record["id"].as_str()).collect()
}

#[test]
fn changes_and_refusals_are_one_trail_that_is_filtered() {
    let server = ServerProcess::start();
    let admin = admin(&server);
    let ada = person(&admin, "Ada", &["developer"]);
    let flag = json!({"key": "a", "kind": "boolean", "variations": [{"key": "on", "value": true}, {"key": "off", "value": false}]});
    ada.client.change("development", json!([{"kind": "createFlag", "flag": flag}])).ok();
    ada.client.change("development", json!([{"kind": "turnFlagOn", "flag": "a"}])).ok();
    assert_eq!(ada.client.get("/api/v1/audit").status, 403, "developers do not read it");
    assert_eq!(server.client.with_token(Some("gdn_svc_wrong")).get("/api/v1/status").status, 401);

    let on = records(&admin, "kind=turnFlagOn&person=ada&flag=a&tier=development&environment=development");
    assert_eq!(on.len(), 1, "{on:?}");
    assert_eq!((&on[0]["actor"]["name"], &on[0]["actor"]["kind"]), (&json!("Ada"), &json!("human")));
    assert_eq!(on[0]["summary"], json!(["turned a on in development"]));
    assert!(on[0]["policies"].as_array().is_some_and(|policies| !policies.is_empty()), "{on:?}");
    let by_id = records(&admin, &format!("kind=turnFlagOn&person={}", ada.id));
    assert_eq!(ids(&by_id), ids(&on));
    let refused = records(&admin, "kind=refused&person=Ada");
    assert_eq!(refused[0]["actions"], json!(["readAudit"]), "{refused:?}");
    assert_eq!(records(&admin, "kind=credentialRefused").len(), 1);
    assert!(!records(&admin, "kind=signIn").is_empty());
    let changes = records(&admin, "kind=change&order=oldestFirst&limit=1000");
    assert_eq!(changes[0]["id"], "j:1");
    assert!(changes.windows(2).all(|pair| pair[0]["at"].as_u64() <= pair[1]["at"].as_u64()));
    assert!(admin.get("/api/v1/audit?needsReview=true").ok()["records"].as_array().is_some_and(Vec::is_empty));

    // Page by page it is the same.
    let (mut paged, mut after) = (Vec::new(), String::new());
    loop {
        let page = admin.get(&format!("/api/v1/audit?kind=change&order=oldestFirst&limit=2{after}")).ok();
        paged.extend(page["records"].as_array().unwrap().clone());
        let Some(next) = page["next"].as_str() else { break };
        after = format!("&after={next}");
    }
    assert_eq!(paged, changes);

    let shown = admin.get(&format!("/api/v1/audit/records/{}", on[0]["id"].as_str().unwrap())).ok();
    assert_eq!(shown["instructions"], json!([{"kind": "turnFlagOn", "flag": "a"}]));
    assert_eq!(shown["hash"], on[0]["hash"]);
    assert_eq!(admin.get("/api/v1/audit/records/j:999").status, 404);
    let wrong = admin.get("/api/v1/audit?person=nobody&tier=moon&kind=x&from=soon&order=up&after=n.x").problem();
    assert_eq!(wrong["errors"].as_array().unwrap().len(), 6, "{wrong}");
    assert_eq!(admin.get("/api/v1/audit?colour=red").status, 400);
}

#[test]
fn an_export_is_whole_defused_and_noted() {
    let server = ServerProcess::start();
    let admin = admin(&server);
    let change = json!({"environment": "development", "comment": "=HYPERLINK(\"x\")", "instructions": [{"kind": "createFlag",
        "flag": {"key": "a", "kind": "boolean", "variations": [{"key": "on", "value": true}, {"key": "off", "value": false}]}}]});
    server.client.post("/api/v1/projects/default/changes", &change).ok();
    assert_eq!(server.client.get("/api/v1/audit/export").status, 403, "the server's own token does not export");
    let lines = admin.get("/api/v1/audit/export?kind=change");
    assert_eq!(lines.header("content-type"), Some("application/x-ndjson"));
    let lines: Vec<Value> = lines.text.lines().map(|line| serde_json::from_str(line).expect("JSON")).collect();
    assert_eq!(lines.len() as u64, admin.get("/api/v1/status").ok()["revision"].as_u64().unwrap());
    let csv = admin.get("/api/v1/audit/export?format=csv&flag=a");
    assert!(csv.header("content-type").unwrap().starts_with("text/csv"), "{:?}", csv.headers);
    assert!(csv.header("content-disposition").unwrap().contains("audit.csv"));
    assert!(csv.text.starts_with("id,time,kind,") && csv.text.contains("\"'=HYPERLINK(\"\"x\"\")\""), "{}", csv.text);
    let noted = records(&admin, "kind=exported");
    assert!(noted.len() == 1 && noted.iter().all(|record| record["actor"]["name"] == "admin"), "{noted:?}");
    assert_eq!(admin.get("/api/v1/audit/export?format=xml").status, 400);
}

#[test]
fn a_kept_checkpoint_proves_that_the_history_is_the_same() {
    let mut server = ServerProcess::start();
    let somebody = first_administrator(&server.client);
    let credential = somebody.command_line_session();
    let client = server.client.clone();
    let run = |arguments: &[&str]| guidon(&client, &credential, arguments);
    let folder = tempfile::tempdir().expect("a folder");
    let file = folder.path().join("checkpoint.json");
    let kept = file.to_str().expect("a path");
    assert!(out(&run(&["audit", "checkpoint", "-o", kept])).starts_with("Signed up to revision "));
    assert_eq!(run(&["audit", "checkpoint", "-o", kept]).status.code(), Some(2), "it is not overwritten");
    let shown: Value = serde_json::from_str(&out(&run(&["--json", "audit", "key"]))).expect("JSON");
    let key = shown["publicKey"].as_str().expect("a key").to_owned();
    assert_eq!(shown["fingerprint"].as_str().map(str::len), Some(64));
    server.client.create_flag("later");
    let online = out(&run(&["audit", "verify", "--checkpoint", kept, "--key", &key]));
    assert!(
        online.contains("the chain unbroken") && online.contains("The checkpoint's signature is valid."),
        "{online}"
    );
    let found = somebody.client.get("/api/v1/audit/verification").ok();
    assert_eq!(found["state"], "sound", "{found}");
    assert_eq!(found["journal"]["revision"], server.client.get("/api/v1/status").ok()["revision"]);
    server.stop();
    let data = server.data();
    let data = data.to_str().expect("a path");
    let offline = out(&run(&["audit", "verify", "--data", data, "--checkpoint", kept, "--key", &key]));
    assert!(offline.contains("The checkpoint's signature is valid."), "{offline}");

    // A server that was begun anew has another key; one that says it is the same is found out by the checkpoint.
    let other = ServerProcess::start();
    let somebody = first_administrator(&other.client);
    let credential = somebody.command_line_session();
    let rewritten = guidon(&other.client, &credential, &["audit", "verify", "--checkpoint", kept, "--key", &key]);
    assert_eq!(rewritten.status.code(), Some(8), "{rewritten:?}");
    let said = String::from_utf8_lossy(&rewritten.stderr).into_owned();
    assert!(said.contains("was rewritten") || said.contains("Its end is missing"), "{said}");
}

#[test]
fn the_commands_show_the_trail_to_people_and_scripts() {
    let server = ServerProcess::start();
    let somebody = first_administrator(&server.client);
    let credential = somebody.command_line_session();
    server.client.create_flag("summary-engine");
    let run = |arguments: &[&str]| guidon(&server.client, &credential, arguments);
    let table = out(&run(&["audit", "log", "--flag", "summary-engine"]));
    assert!(table.contains("Operator") && table.contains("created the flag summary-engine"), "{table}");
    let lines = out(&run(&["--json", "audit", "log", "--kind", "createFlag", "-n", "1"]));
    let record: Value = serde_json::from_str(lines.trim()).expect("one line");
    let shown = out(&run(&["audit", "show", record["id"].as_str().unwrap()]));
    assert!(
        shown.contains("created the flag summary-engine") && shown.contains("Operator (operator administrator)"),
        "{shown}"
    );
    assert_eq!(out(&run(&["audit", "log", "--needs-review"])).trim(), "No records.");
    let folder = tempfile::tempdir().expect("a folder");
    let file = folder.path().join("trail.csv");
    out(&run(&["audit", "export", "--format", "csv", "-o", file.to_str().unwrap()]));
    assert!(std::fs::read_to_string(&file).unwrap().contains("created the flag summary-engine"));
    assert!(out(&run(&["audit", "export"])).lines().all(|line| line.starts_with('{')));
    assert_eq!(run(&["audit", "log", "--person", "nobody"]).status.code(), Some(6));
}

#[test]
fn the_journal_leaves_out_environments_that_are_not_in_sight() {
    let server = ServerProcess::start();
    let somebody = first_administrator(&server.client);
    let admin = somebody.sign_in();
    let ada = person(&admin, "Ada", &[]);
    let role = json!({"principal": ada.id, "role": "viewer", "tiers": ["development"]});
    admin.post("/api/v1/roles", &role).ok();
    server.client.create_flag("a");
    let on = json!([{"kind": "turnFlagOn", "flag": "a"}]);
    server.client.change("development", on.clone()).ok();
    server.client.change("testing", on).ok();
    let key = json!({"name": "shop"});
    admin.post("/api/v1/projects/default/environments/production/sdk-keys", &key).ok();
    let kinds = |client: &TestClient, path: &str| -> Vec<String> {
        let page = client.get(&format!("/api/v1/projects/default/{path}")).ok();
        let entries = page["entries"].as_array().expect("entries").iter();
        let said = |entry: &Value| {
            format!(
                "{} {}",
                entry["instructions"][0]["kind"].as_str().unwrap(),
                entry["environment"].as_str().unwrap_or("-")
            )
        };
        entries.map(said).collect()
    };
    let whole = kinds(&admin, "journal");
    assert!(
        whole.contains(&"turnFlagOn testing".to_owned()) && whole.contains(&"createSdkKey production".to_owned()),
        "{whole:?}"
    );
    let seen = kinds(&ada.client, "journal");
    assert!(seen.contains(&"turnFlagOn development".to_owned()), "{seen:?}");
    assert!(seen.iter().all(|said| !said.contains("testing") && !said.contains("production")), "{seen:?}");
    assert_eq!(kinds(&ada.client, "flags/a/history").last().map(String::as_str), Some("turnFlagOn development"));
    assert_eq!(kinds(&admin, "flags/a/history").last().map(String::as_str), Some("turnFlagOn testing"));
    assert!(whole.iter().all(|said| !said.starts_with("grantRole")), "the directory is not a project's: {whole:?}");
}

#[test]
fn a_key_is_erased_from_the_past_and_the_store_opens_and_verifies() {
    let mut server = ServerProcess::start();
    let somebody = first_administrator(&server.client);
    let credential = somebody.command_line_session();
    let client = server.client.clone();
    let run = |arguments: &[&str]| guidon(&client, &credential, arguments);
    let beta = json!({"kind": "createSegment", "segment": {"key": "beta", "included": [KEY, "ben"]}});
    client.change("development", json!([beta])).ok();
    assert_eq!(run(&["privacy", "erase-key", KEY]).status.code(), Some(2), "not without --yes");
    let stands = run(&["privacy", "erase-key", KEY, "--yes"]);
    assert_eq!(stands.status.code(), Some(7), "{stands:?}");
    let said = String::from_utf8_lossy(&stands.stderr).into_owned();
    assert!(said.contains("guidon segment remove-keys beta KEY --list included -e development"), "{said}");
    assert!(!said.contains(KEY), "{said}");
    let body = json!({"project": "default", "key": KEY});
    assert_eq!(client.post("/api/v1/privacy/erase-key", &body).status, 403, "the server's own token does not erase");
    client.change("development", json!([{"kind": "removeSegmentKeys", "segment": "beta", "keys": [KEY]}])).ok();
    let before = client.get("/api/v1/status").ok();
    let erased = out(&run(&["privacy", "erase-key", KEY, "--yes"]));
    assert!(erased.contains("from 2 stored key lists") && erased.contains("keyed pseudonyms"), "{erased}");
    let admin = somebody.client.clone();
    let noted = records(&admin, "kind=erased");
    assert!(noted.len() == 1 && !noted[0].to_string().contains(KEY), "{noted:?}");
    let again = run(&["--json", "privacy", "erase-key", KEY, "--yes"]);
    assert_eq!(serde_json::from_str::<Value>(&out(&again)).unwrap()["keySets"], 0);

    // Folded anew from the journal, it is the same without the key.
    server.stop();
    std::fs::remove_dir_all(server.data().join("state")).expect("the state's copy");
    let verified = run(&["audit", "verify", "--data", server.data().to_str().unwrap()]);
    assert!(out(&verified).contains("the chain unbroken"), "{verified:?}");
    server.restart();
    assert_eq!(client.get("/api/v1/status").ok()["chainHash"], before["chainHash"]);
    let segment = client.get("/api/v1/projects/default/environments/development/segments/beta").ok();
    assert_eq!(segment["included"], json!(["ben"]), "{segment}");
    assert!(!holds(&server.data(), KEY.as_bytes()), "the key is nowhere in the data folder");
}

#[test]
fn erased_staff_leave_an_id_behind_and_a_chain_that_verifies() {
    let mut server = ServerProcess::start();
    let somebody = first_administrator(&server.client);
    let admin = somebody.sign_in();
    let ada = person(&admin, "Ada", &["developer"]);
    ada.client.change("development", json!([{"kind": "createSegment", "segment": {"key": "beta"}}])).ok();
    let credential = somebody.command_line_session();
    let run = |arguments: &[&str]| guidon(&server.client, &credential, arguments);
    assert_eq!(run(&["privacy", "erase-staff", "Grace", "--yes"]).status.code(), Some(2));
    let said = out(&run(&["privacy", "erase-staff", "ada", "--yes"]));
    assert!(said.contains(&ada.id) && said.contains("stays"), "{said}");
    let did = records(&admin, &format!("person={}&kind=createSegment", ada.id));
    assert_eq!(did[0]["actor"]["name"], "erased", "{did:?}");
    assert_eq!(ada.client.get("/api/v1/session").status, 401);
    server.stop();
    let data = server.data();
    let verified = guidon(&server.client, "", &["audit", "verify", "--data", data.to_str().unwrap()]);
    assert!(out(&verified).contains("the chain unbroken"), "{verified:?}");
}

/// Whether some file of the folder holds these bytes.
pub(super) fn holds(folder: &Path, wanted: &[u8]) -> bool {
    std::fs::read_dir(folder).expect("a folder").flatten().any(|entry| {
        let path = entry.path();
        if path.is_dir() {
            return holds(&path, wanted);
        }
        let bytes = std::fs::read(&path).unwrap_or_default();
        bytes.windows(wanted.len()).any(|window| window == wanted)
    })
}
