#![allow(clippy::print_stdout, reason = "how long a start took is part of what the test says")]

#[path = "fixture_tests.rs"]
mod fixtures;

use std::fs;
use std::path::PathBuf;

use serde_json::{Value, json};

use super::*;
use crate::audit::MemoryAudit;
use crate::changes::keysets::MemoryKeySets;
use crate::changes::request::MemoryRequests;
use crate::changes::tests::{START_MS, author, draft, engine_flag};
use crate::changes::{ChangeService, NoReaches, Parts, RandomMint};
use crate::clock::ManualClock;
use crate::log::RealFiles;

/// A data folder, and what is kept apart from it.
struct Site {
    dir: tempfile::TempDir,
    key_sets: MemoryKeySets,
    clock: Arc<ManualClock>,
}

impl Site {
    fn new() -> Self {
        let dir = tempfile::tempdir().expect("a folder");
        Self { dir, key_sets: MemoryKeySets::default(), clock: Arc::new(ManualClock::new(START_MS)) }
    }

    fn journal(&self) -> PathBuf {
        self.dir.path().join("journal")
    }

    fn state(&self) -> PathBuf {
        self.dir.path().join("state")
    }

    fn try_open(&self) -> Result<Opened, StartError> {
        let mut options = OpenOptions::default();
        options.keep.interval = Duration::from_millis(1);
        open(RealFiles::shared(), &self.journal(), &self.state(), options, &*self.clock, &self.key_sets)
    }

    fn open(&self) -> Opened {
        self.try_open().expect("opens")
    }

    fn service(&self, journal: Arc<FileJournal>, keeper: Arc<Keeper>, world: World) -> Arc<ChangeService> {
        ChangeService::start(Parts {
            journal,
            key_sets: Arc::new(self.key_sets.clone()),
            requests: Arc::new(MemoryRequests::default()),
            audit: Arc::new(MemoryAudit::new()),
            reaches: Arc::new(NoReaches),
            clock: self.clock.clone(),
            mint: Box::new(RandomMint),
            world,
            publishers: vec![keeper],
        })
    }

    /// Starts, makes each of the changes, stops; the world in the end.
    async fn change(&self, changes: Vec<Value>) -> World {
        let opened = self.open();
        let (journal, keeper) = (Arc::new(opened.journal), Arc::new(opened.keeper));
        let service = self.service(journal.clone(), keeper.clone(), opened.world);
        service.ensure_default_project().await.expect("made");
        for instructions in changes {
            self.clock.advance_ms(1_000);
            service.submit(&author(), draft(instructions)).await.expect("applies");
        }
        let world = World::clone(&service.world());
        // The follower tells the keeper after it has swapped the world.
        let mut patience = 0;
        while keeper.health().revision < world.revision && patience < 10_000 {
            tokio::time::sleep(Duration::from_millis(1)).await;
            patience += 1;
        }
        keeper.close();
        journal.close().expect("closes");
        world
    }

    fn stores(&self) -> Vec<String> {
        let names = fs::read_dir(self.state()).expect("a folder");
        names.map(|entry| entry.expect("an entry").file_name().to_string_lossy().into_owned()).collect()
    }
}

fn history() -> Vec<Value> {
    let keys = |from: u32, to: u32| (from..to).map(|key| format!("user-{key}")).collect::<Vec<_>>();
    let mut changes = vec![
        json!([engine_flag("engine"), {"kind": "turnFlagOn", "flag": "engine"}]),
        json!([{"kind": "createSegment", "segment": {"key": "beta", "included": keys(0, 3_000)}}]),
        json!([{"kind": "addSegmentKeys", "segment": "beta", "keys": keys(2_000, 4_000)}]),
        json!([{"kind": "removeSegmentKeys", "segment": "beta", "keys": keys(100, 200)}]),
        json!([{"kind": "addTargets", "flag": "engine", "variation": "ai", "keys": ["ann", "bob"]}]),
        json!([{"kind": "addRule", "flag": "engine", "rule": {"clauses": [{"op": "segment", "values": ["beta"]}],
            "serve": {"variation": "ai"}}}]),
        json!([{"kind": "setRollout", "flag": "engine", "weights": {"ai": 1_000, "baseline": 99_000}}]),
        json!([{"kind": "createEnvironment", "key": "preview", "tier": "testing"}]),
        json!([engine_flag("gone")]),
        json!([{"kind": "archiveFlag", "flag": "gone"}]),
        json!([{"kind": "deleteFlag", "flag": "gone"}]),
    ];
    changes.extend((0..40).map(|number| json!([engine_flag(&format!("flag-{number}"))])));
    changes
}

#[tokio::test]
async fn the_copy_on_disk_is_the_world_and_spares_the_folding() {
    let site = Site::new();
    let first = site.open();
    assert_eq!((first.report.loaded_revision, first.report.rebuilt_because.as_deref()), (None, None));
    drop(first);
    let world = site.change(history()).await;
    let again = site.open();
    assert_eq!(again.report.loaded_revision, Some(world.revision), "{:?}", again.report);
    assert_eq!(again.report.folded, 0);
    assert_eq!(again.world, world);
    assert_eq!(again.world.project("default").map(|project| project.flags.len()), Some(41));
}

#[tokio::test]
async fn what_the_copy_lacks_is_folded() {
    let site = Site::new();
    site.change(vec![json!([engine_flag("engine")])]).await;
    let kept = site.dir.path().join("kept");
    copy_dir(&site.state(), &kept);
    let world = site.change(history().split_off(1)).await;
    fs::remove_dir_all(site.state()).expect("removed");
    copy_dir(&kept, &site.state());
    let opened = site.open();
    assert_eq!(opened.report.loaded_revision, Some(2));
    assert_eq!(opened.report.folded, world.revision - 2);
    assert_eq!(opened.world, world);
    opened.keeper.close();
    assert_eq!(opened.keeper.health().revision, world.revision, "the copy caught up");
}

fn copy_dir(from: &Path, to: &Path) {
    fs::create_dir_all(to).expect("a folder");
    for entry in fs::read_dir(from).expect("a folder") {
        let entry = entry.expect("an entry");
        let target = to.join(entry.file_name());
        if entry.file_type().expect("a type").is_dir() {
            copy_dir(&entry.path(), &target);
        } else {
            fs::copy(entry.path(), target).expect("copied");
        }
    }
}

fn files_in(dir: &Path) -> Vec<PathBuf> {
    let mut files = Vec::new();
    for entry in fs::read_dir(dir).expect("a folder") {
        let path = entry.expect("an entry").path();
        if path.is_dir() { files.extend(files_in(&path)) } else { files.push(path) }
    }
    files.sort();
    files
}

#[tokio::test]
async fn a_copy_that_is_missing_or_damaged_is_made_anew_and_gives_the_same_world() {
    let site = Site::new();
    let world = site.change(history()).await;
    let sound = site.dir.path().join("sound");
    copy_dir(&site.state(), &sound);
    let mut rebuilt = 0;
    type Damage = Box<dyn Fn(&Path)>;
    let mut damages: Vec<(String, Damage)> =
        vec![("removed".to_owned(), Box::new(|state: &Path| fs::remove_dir_all(state).expect("removed")))];
    for path in files_in(&sound) {
        let len = fs::metadata(&path).expect("there").len();
        let used = fs::read(&path).expect("reads").iter().rposition(|&byte| byte != 0).map_or(0, |at| at + 1);
        let relative = path.strip_prefix(&sound).expect("inside").to_owned();
        let damage = |what: String, change: Box<dyn Fn(Vec<u8>) -> Vec<u8>>| {
            let relative = relative.clone();
            let name = format!("{what} in {}", relative.display());
            let apply = move |state: &Path| {
                let path = state.join(&relative);
                fs::write(&path, change(fs::read(&path).expect("reads"))).expect("writes");
            };
            (name, Box::new(apply) as Damage)
        };
        for position in 0..6.min(used) {
            let at = used * (2 * position + 1) / 12;
            let flip = move |mut bytes: Vec<u8>| {
                bytes[at] ^= 0x10;
                bytes
            };
            damages.push(damage(format!("byte {at} flipped"), Box::new(flip)));
        }
        damages.push(damage(
            "half cut off".to_owned(),
            Box::new(move |bytes| bytes[..used.min(len as usize) / 2].to_vec()),
        ));
        damages.push(damage(
            "garbage".to_owned(),
            Box::new(|bytes| (0..bytes.len()).map(|at| (at * 131) as u8).collect()),
        ));
    }
    for (name, damage) in &damages {
        fs::remove_dir_all(site.state()).expect("removed");
        copy_dir(&sound, &site.state());
        damage(&site.state());
        let opened = site.open();
        assert_eq!(opened.world, world, "{name}");
        rebuilt += usize::from(opened.report.rebuilt_because.is_some());
        assert_eq!(opened.report.loaded_revision.is_none(), opened.report.rebuilt_because.is_some(), "{name}");
        drop(opened);
        let again = site.open();
        assert_eq!((again.world, again.report.folded), (world.clone(), 0), "{name}: the next start is quick again");
        assert_eq!(site.stores().len(), 1, "{name}: nothing is left over");
    }
    assert!(rebuilt * 2 > damages.len(), "{rebuilt} of {} damages were noticed", damages.len());
}

#[tokio::test]
async fn a_journal_behind_the_copy_has_lost_an_acknowledged_entry_and_stops_the_start() {
    let site = Site::new();
    site.change(vec![json!([engine_flag("engine")])]).await;
    let earlier = site.dir.path().join("earlier");
    copy_dir(&site.journal(), &earlier);
    let world = site.change(vec![json!([{"kind": "turnFlagOn", "flag": "engine"}])]).await;
    let later = site.dir.path().join("later");
    copy_dir(&site.journal(), &later);
    for restored in [Some(&earlier), None] {
        fs::remove_dir_all(site.journal()).expect("removed");
        if let Some(restored) = restored {
            copy_dir(restored, &site.journal());
        }
        let text = site.try_open().err().expect("an entry is missing").to_string();
        assert!(text.contains("up to 3 were acknowledged"), "{text}");
    }
    let _ = fs::remove_dir_all(site.journal());
    copy_dir(&later, &site.journal());
    assert_eq!(site.open().world, world, "nothing was changed by the refusals");
}

#[tokio::test]
async fn a_copy_of_another_history_is_not_used() {
    let (site, other) = (Site::new(), Site::new());
    other.change(history()).await;
    let world = site.change(vec![json!([engine_flag("engine")])]).await;
    fs::remove_dir_all(site.state()).expect("removed");
    copy_dir(&other.state(), &site.state());
    let opened = site.open();
    assert!(opened.report.rebuilt_because.as_ref().is_some_and(|reason| reason.contains("history")));
    assert_eq!(opened.world, world);
}

#[tokio::test]
async fn a_copy_whose_hash_is_not_on_the_chain_is_not_used() {
    let site = Site::new();
    let world = site.change(vec![json!([engine_flag("engine")])]).await;
    let folder = StoreFolder::new(&site.state(), Duration::from_secs(60));
    let (mut store, stored) = folder.open().expect("opens").expect("there");
    let forged = super::super::sled::Mark { hash: "7".repeat(64), ..stored.mark };
    store.write(&forged, Vec::new()).expect("writes");
    drop(store);
    let opened = site.open();
    assert!(opened.report.rebuilt_because.as_ref().is_some_and(|reason| reason.contains("does not fit the journal")));
    assert_eq!(opened.world, world);
}

#[tokio::test]
async fn a_copy_that_cannot_be_written_stops_neither_start_nor_changes() {
    let site = Site::new();
    fs::write(site.state(), "a file where a folder belongs").expect("writes");
    let opened = site.open();
    let mut patience = 0;
    opened.keeper.offer(Arc::new(opened.world.clone()));
    while opened.keeper.health().failure.is_none() && patience < 10_000 {
        tokio::time::sleep(Duration::from_millis(1)).await;
        patience += 1;
    }
    assert!(opened.keeper.health().failure.is_some_and(|failure| failure.contains("state")));
    append_one(&opened.journal).await;
}

async fn append_one(journal: &FileJournal) {
    crate::journal::conformance::append(journal, 0, 1).await;
}

/// A history of `entries` changes of `flags` flags, written to the journal of `site`; the world it makes.
async fn large_history(site: &Site, flags: u64, entries: u64) -> World {
    let memory = crate::journal::MemoryJournal::new("built in memory");
    let service = ChangeService::start(Parts {
        journal: Arc::new(memory.clone()),
        key_sets: Arc::new(site.key_sets.clone()),
        requests: Arc::new(MemoryRequests::default()),
        audit: Arc::new(MemoryAudit::new()),
        reaches: Arc::new(NoReaches),
        clock: site.clock.clone(),
        mint: Box::new(RandomMint),
        world: World::empty(),
        publishers: Vec::new(),
    });
    service.ensure_default_project().await.expect("made");
    for number in 0..entries - 1 {
        let flag = format!("flag-{}", number % flags);
        let round = number / flags;
        let instruction = match (round, round % 3) {
            (0, _) => engine_flag(&flag),
            (1, _) => json!({"kind": "addRule", "flag": flag, "rule": {"clauses": [
                {"attribute": "country", "op": "in", "values": ["US", "CA", "MX"]},
                {"attribute": "appVersion", "op": "semverGreaterThanOrEqual", "values": ["2.3.0"]}],
                "serve": {"variation": "ai"}}}),
            (_, 2) => json!({"kind": "turnFlagOn", "flag": flag}),
            (_, 0) => json!({"kind": "setRollout", "flag": flag, "weights":
                {"ai": round * 1_000, "baseline": 100_000 - round * 1_000}}),
            _ => json!({"kind": "turnFlagOff", "flag": flag}),
        };
        service.submit(&author(), draft(json!([instruction]))).await.expect("applies");
    }
    let opened = site.open();
    let mut last = None;
    let mut after = 0;
    assert_eq!(memory.head().revision, entries, "every change made an entry");
    while after < entries {
        for stored in memory.read(after, 1_000).await.expect("reads") {
            let copy = crate::journal::Entry::clone(&stored.entry);
            last = Some(opened.journal.append(after, copy).await.expect("taken").durable);
            after += 1;
        }
    }
    last.expect("there are entries").await.expect("stored");
    World::clone(&service.world())
}

#[tokio::test]
async fn a_large_history_is_rebuilt() {
    let full = std::env::var_os("GUIDON_FULL").is_some_and(|value| value == "1");
    let (flags, entries) = if full { (2_000, 100_000) } else { (100, 2_000) };
    let site = Site::new();
    let world = large_history(&site, flags, entries).await;
    let rebuilt = site.open();
    assert_eq!((rebuilt.report.folded, &rebuilt.world), (entries, &world));
    let first = rebuilt.report.clone();
    drop(rebuilt);
    let loaded = site.open();
    assert_eq!((loaded.report.folded, &loaded.world), (0, &world));
    println!("{flags} flags, {entries} entries: rebuilt in {:?}, loaded in {:?}", first.took, loaded.report.took);
}
