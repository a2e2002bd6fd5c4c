//! A full volume under the real server.
//!
//! The volume is a small tmpfs, which takes root to mount. Without it the test says so and does nothing; the same rules are
//! tried on simulated files by the log's, the journal's and the change service's own tests, everywhere.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

use guidon_sdk::client::{Client, State};
use serde_json::{Value, json};

use super::{CHANGES, change, unthrottled};
use crate::counts::report;
use crate::support::ServerProcess;

/// Size of the volume: room for the journal, the vault, the state and the assignment log of a small store.
const VOLUME_MIB: u64 = 48;
/// Given to the filler's last write: what is left is less.
const CRUMB_BYTES: usize = 4 << 10;
/// How long the server may take until it writes again once there is room.
const RESUME_LIMIT: Duration = Duration::from_secs(60);

/// A small volume over a folder, unmounted when dropped.
struct Volume(PathBuf);

impl Volume {
    /// `None` where this user may not mount.
    fn mount(folder: PathBuf) -> Option<Self> {
        let size = format!("size={VOLUME_MIB}m");
        let mounted = Command::new("mount").args(["-t", "tmpfs", "-o", &size, "tmpfs"]).arg(&folder).output();
        mounted.is_ok_and(|output| output.status.success()).then(|| Self(folder))
    }
}

impl Drop for Volume {
    fn drop(&mut self) {
        // Lazily: where the test failed, the server may still be running on it.
        let unmounted = Command::new("umount").arg("--lazy").arg(&self.0).status();
        if !unmounted.is_ok_and(|status| status.success()) && !std::thread::panicking() {
            panic!("{} is still mounted", self.0.display());
        }
    }
}

/// Takes all that is left of a volume.
struct Filler(PathBuf);

impl Filler {
    fn fill(volume: &Path) -> Self {
        use std::io::Write;
        let path = volume.join("filler");
        let mut file = fs::File::create(&path).expect("room for a name");
        for bytes in [1 << 20, CRUMB_BYTES, 1] {
            let block = vec![0; bytes];
            while file.write_all(&block).is_ok() {}
        }
        Self(path)
    }

    fn free(self) {
        fs::remove_file(self.0).expect("the filler");
    }
}

fn rename(number: u64) -> Value {
    change("", json!([{"kind": "updateFlag", "flag": "f", "name": format!("name {number}")}]))
}

#[test]
fn a_full_volume_stops_writes_and_nothing_else() {
    let mut server = ServerProcess::start_with(unthrottled());
    assert!(server.stop().success());
    let Some(volume) = Volume::mount(server.data()) else {
        return report("full volume: not run, mounting a small tmpfs takes root");
    };
    server.restart();
    let client = server.client.clone();
    client.create_flag("f");
    let credential = client.create_sdk_key("development");
    let runtime =
        tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().expect("a runtime");
    let connect = || runtime.block_on(Client::builder(&client.url, &credential).connect()).expect("a client");
    let sdk = connect();
    let before = client.post(CHANGES, &rename(0)).ok()["revision"].as_u64().expect("a revision");

    let filler = Filler::fill(&volume.0);
    let (mut acknowledged, mut number) = (before, 0);
    let refused = loop {
        number += 1;
        assert!(number < 100_000, "the volume never got full");
        let answer = client.post(CHANGES, &rename(number));
        match answer.status {
            200 => acknowledged = answer.json()["revision"].as_u64().expect("a revision"),
            _ => break answer,
        }
    };
    assert_eq!(refused.status, 507, "{}", refused.text);
    assert_eq!(refused.problem()["code"], "diskFull");
    let shown = client.get("/api/v1/projects/default/flags/f").ok();
    assert_eq!(shown["name"], format!("name {}", number - 1), "reads go on, and show what was acknowledged");
    assert_eq!(sdk.state(), State::Ready);
    let newcomer = connect();
    assert_eq!((newcomer.state(), newcomer.revision()), (State::Ready, sdk.revision()), "pushes go on");
    assert_eq!(client.post(CHANGES, &rename(number)).status, 507, "and it goes on being refused");

    filler.free();
    let freed = Instant::now();
    let last = loop {
        let answer = client.change("development", json!([{"kind": "turnFlagOn", "flag": "f"}]));
        match answer.status {
            200 => break answer.json()["revision"].as_u64().expect("a revision"),
            status => assert!(status == 507 && freed.elapsed() < RESUME_LIMIT, "{status} {}", answer.text),
        }
        std::thread::sleep(Duration::from_millis(50));
    };
    assert_eq!(last, acknowledged + 1, "what was refused left no trace");
    for sdk in [&sdk, &newcomer] {
        let current = async {
            while sdk.revision().is_none_or(|revision| revision.number < last) {
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
        };
        runtime
            .block_on(async { tokio::time::timeout(Duration::from_secs(30), current).await })
            .expect("the SDK follows");
    }
    server.kill();
    server.restart();
    let shown = server.client.get("/api/v1/projects/default/flags/f").ok();
    assert_eq!(
        (&shown["name"], &shown["environments"]["development"]["on"]),
        (&json!(format!("name {}", number - 1)), &json!(true))
    );
    report(&format!(
        "full volume (tmpfs of {VOLUME_MIB} MiB): {acknowledged} revisions, refused with 507, writing again {:?} after space was freed",
        freed.elapsed()
    ));
    server.kill();
}
