//! One flipped byte in each file of a data folder.

use std::collections::BTreeMap;
use std::fs;
use std::io::{BufRead, BufReader, Read};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use guidon_sdk::client::Client;
use guidon_sdk::model::Context;
use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};
use serde_json::{Value, json};

use super::{CHANGES, change, unthrottled, whole_state};
use crate::counts::{count, report};
use crate::support::{ServerProcess, TOKEN, TestClient, binary};

/// Exit code of a server whose store is damaged.
const DAMAGED: i32 = 8;

/// How a start went.
enum Start {
    Refused(Option<i32>, String),
    Serving(Vec<Value>),
}

struct Ended(Child);

impl Drop for Ended {
    fn drop(&mut self) {
        // One that has ended already is no matter.
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

fn start(data: &Path) -> Start {
    let child = Command::new(binary())
        .args(["serve", "--listen", "127.0.0.1:0", "--data"])
        .arg(data)
        .env("GUIDON_ADMIN_TOKEN", TOKEN)
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn();
    let mut child = Ended(child.expect("a server process"));
    let mut stderr = child.0.stderr.take().expect("a pipe");
    let said = std::thread::spawn(move || {
        let mut said = Vec::new();
        let _ = stderr.read_to_end(&mut said);
        String::from_utf8_lossy(&said).into_owned()
    });
    let mut stdout = BufReader::new(child.0.stdout.take().expect("a pipe"));
    let mut first = String::new();
    let _ = stdout.read_line(&mut first);
    let Some(url) = first.trim().strip_prefix("listening ") else {
        let code = child.0.wait().expect("an ended server").code();
        return Start::Refused(code, said.join().expect("its words"));
    };
    let client = TestClient::new(url, Some(TOKEN));
    while !client.try_send("GET", "/readyz", &[], b"").is_ok_and(|answer| answer.status == 200) {
        assert!(child.0.try_wait().expect("a process").is_none(), "the server ended while it started");
        std::thread::sleep(Duration::from_millis(20));
    }
    Start::Serving(whole_state(&client))
}

/// Fills every part of a store, and answers its state. The server is stopped.
fn fill(server: &mut ServerProcess) -> Vec<Value> {
    let client = &server.client;
    for flag in 0..20 {
        client.create_flag(&format!("flag-{flag}"));
    }
    let keys: Vec<String> = (0..2_000).map(|key| format!("person-{key}")).collect();
    let segment = json!({"key": "beta", "name": "Beta", "included": keys});
    client.post(CHANGES, &change("", json!([{"kind": "createSegment", "segment": segment}]))).ok();
    for number in 0..200 {
        let flag = format!("flag-{}", number % 20);
        let kind = if number / 20 % 2 == 0 { "turnFlagOn" } else { "turnFlagOff" };
        client.post(CHANGES, &change("", json!([{"kind": kind, "flag": flag}]))).ok();
    }
    let credential = client.create_sdk_key("development");
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
    runtime.block_on(async {
        let sdk = Client::builder(&client.url, credential).connect().await.expect("a client");
        for unit in 0..500 {
            let _ = sdk.bool("flag-1", &Context::new(format!("user-{unit}").as_str()), false);
        }
        sdk.close(Duration::from_secs(30)).await.expect("the exposures are stored");
    });
    let state = whole_state(client);
    assert!(server.stop().success());
    state
}

fn files(folder: &Path) -> Vec<PathBuf> {
    let mut found = Vec::new();
    for entry in fs::read_dir(folder).expect("a folder") {
        let path = entry.expect("an entry").path();
        if path.is_dir() {
            found.extend(files(&path));
        } else if fs::metadata(&path).expect("a file").len() > 0 {
            found.push(path);
        }
    }
    found.sort();
    found
}

fn copy(from: &Path, to: &Path) {
    fs::create_dir_all(to).expect("a folder");
    for entry in fs::read_dir(from).expect("a folder") {
        let path = entry.expect("an entry").path();
        let target = to.join(path.file_name().expect("a name"));
        if path.is_dir() {
            copy(&path, &target);
        } else {
            fs::copy(&path, &target).expect("a copy");
        }
    }
}

/// What may be mended without a word to the operator: copies and notes of what stands elsewhere.
fn may_heal(file: &Path) -> bool {
    let name = file.file_name().and_then(|name| name.to_str()).unwrap_or_default();
    file.starts_with("state") || name.contains("watermark") || name.contains("lock")
}

#[test]
fn a_flipped_byte_is_named_or_healed() {
    let positions = count(20, 100);
    let mut server = ServerProcess::start_with(unthrottled());
    let state = fill(&mut server);
    let data = server.data();
    let all = files(&data);
    let mut random = StdRng::seed_from_u64(1);
    let mut tally: BTreeMap<PathBuf, (usize, usize)> = BTreeMap::new();
    for position in 0..positions.max(all.len()) {
        let file = all[position % all.len()].strip_prefix(&data).expect("a file of the store").to_owned();
        let folder = tempfile::tempdir().expect("a temporary folder");
        let damaged = folder.path().join("data");
        copy(&data, &damaged);
        let mut bytes = fs::read(damaged.join(&file)).expect("a file");
        let offset = random.random_range(0..bytes.len());
        bytes[offset] ^= 1 << random.random_range(0..8);
        fs::write(damaged.join(&file), bytes).expect("a file");
        let counts = tally.entry(file.clone()).or_default();
        let place = format!("{}, byte {offset}", file.display());
        match start(&damaged) {
            Start::Refused(code, said) => {
                assert_eq!(code, Some(DAMAGED), "{place}: {said}");
                assert!(names(&said, &damaged, &file), "{place} is not named: {said}");
                counts.0 += 1;
            }
            Start::Serving(found) => {
                assert!(may_heal(&file), "{place}: the server started on it");
                assert_eq!(found, state, "{place}: healed into another state");
                counts.1 += 1;
            }
        }
    }
    let lines: Vec<String> = tally
        .iter()
        .map(|(file, (named, healed))| format!("  {}: {named} named, {healed} healed", file.display()))
        .collect();
    report(&format!("a flipped byte: {} positions\n{}", positions.max(all.len()), lines.join("\n")));
}

/// Whether the message leads to the damage. A wrong master key shows only in the vault it does not open.
fn names(said: &str, data: &Path, file: &Path) -> bool {
    let place = if file == Path::new("master.key") { Path::new("master") } else { file };
    said.contains(data.join(place).to_str().expect("a path in UTF-8")) || (place != file && said.contains("master key"))
}
