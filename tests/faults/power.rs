//! The power fails under the whole store: journal and vault together, on simulated files.

use std::path::Path;
use std::sync::Arc;

use futures_util::future::join_all;
use guidon_sdk::model::Segment;
use guidon_server::audit::MemoryAudit;
use guidon_server::changes::request::VaultRequests;
use guidon_server::changes::{Author, ChangeDraft, ChangeService, NoReaches, Parts, RandomMint};
use guidon_server::clock::{Clock, ManualClock};
use guidon_server::journal::{FileJournal, Options, verify};
use guidon_server::log::sim::SimFiles;
use guidon_server::policy::PrincipalKind;
use guidon_server::state::World;
use guidon_server::vault::{FileVault, MasterKey, VaultKeySets};
use parking_lot::Mutex;
use serde_json::json;

use crate::counts::{count, report};

const WRITERS: usize = 4;
const MOST_KEYS: usize = 60;

/// The store as a start opens it: the vault, then the journal folded with the key sets the vault holds.
struct Store {
    journal: Arc<FileJournal>,
    vault: FileVault,
    world: World,
}

fn open(files: &SimFiles) -> Result<Store, String> {
    let vault = FileVault::open(files.shared(), Path::new("vault"), &MasterKey::from_bytes([3; 32]));
    let vault = vault.map_err(|error| error.to_string())?.vault;
    let key_sets = VaultKeySets::new(Arc::new(vault.clone()));
    let mut world = World::empty();
    let clock = ManualClock::new(1_767_225_600_000);
    let opened = FileJournal::open(files.shared(), Path::new("journal"), Options::default(), &clock, |raw| {
        world = world.fold(&raw.read()?, &key_sets).map_err(|error| error.to_string())?;
        Ok(())
    });
    let (journal, _) = opened.map_err(|error| error.to_string())?;
    Ok(Store { journal: Arc::new(journal), vault, world })
}

fn start(store: &Store) -> Arc<ChangeService> {
    let clock: Arc<dyn Clock> = Arc::new(ManualClock::new(1_767_225_600_000));
    ChangeService::start(Parts {
        journal: store.journal.clone(),
        key_sets: Arc::new(VaultKeySets::new(Arc::new(store.vault.clone()))),
        requests: Arc::new(VaultRequests::new(Arc::new(store.vault.clone()))),
        audit: Arc::new(MemoryAudit::new()),
        reaches: Arc::new(NoReaches),
        clock,
        mint: Box::new(RandomMint),
        world: store.world.clone(),
        publishers: Vec::new(),
    })
}

/// Adds keys to one segment per writer until the power fails; answers the keys that were acknowledged.
async fn write(changes: &Arc<ChangeService>, round: &str) -> Vec<(usize, String)> {
    let acknowledged = Mutex::new(Vec::new());
    let (author, taken) = (author(), &acknowledged);
    let writers = (0..WRITERS).map(async |writer| {
        for number in 0..MOST_KEYS {
            let key = format!("person-{round}-{number}");
            let instructions =
                json!([{"kind": "addSegmentKeys", "segment": format!("segment-{writer}"), "keys": [key]}]);
            if changes.submit(&author, draft(instructions)).await.is_err() {
                return;
            }
            taken.lock().push((writer, key));
        }
    });
    join_all(writers).await;
    acknowledged.into_inner()
}

fn author() -> Author {
    Author::of("operator", "test", PrincipalKind::Operator)
}

fn draft(instructions: serde_json::Value) -> ChangeDraft {
    ChangeDraft {
        project: "default".to_owned(),
        environment: Some("development".to_owned()),
        instructions: serde_json::from_value(instructions).expect("they are well formed"),
        ..ChangeDraft::default()
    }
}

async fn prepare(changes: &ChangeService) {
    changes.ensure_default_project().await.expect("a disk that works");
    let create = |writer| json!({"kind": "createSegment", "segment": {"key": format!("segment-{writer}")}});
    let instructions = (0..WRITERS).map(create).collect::<Vec<_>>().into();
    changes.submit(&author(), draft(instructions)).await.expect("a disk that works");
}

/// Writes, cuts the power and opens the store again, three times over; says what is wrong then, if anything is.
async fn power_cuts(seed: u64, ignore_syncs: bool) -> Result<usize, String> {
    let files = SimFiles::new();
    let mut acknowledged: Vec<(usize, String)> = Vec::new();
    for cut in 0..3 {
        let store = open(&files)?;
        let changes = start(&store);
        if cut == 0 {
            prepare(&changes).await;
        }
        if ignore_syncs {
            files.ignore_syncs();
        }
        files.stop_after(10 + (seed * 11 + cut * 17) % 90);
        acknowledged.extend(write(&changes, &cut.to_string()).await);
        drop(changes);
        files.power_cut(seed * 10 + cut);
        // The dead handles' threads must be gone before the disk is opened again.
        let _ = (store.journal.close(), store.vault.close());
        let kept = open(&files)?;
        check(&kept.world, &acknowledged)?;
        let _ = (kept.journal.close(), kept.vault.close());
        verify(&*files.shared(), Path::new("journal"), &mut |_| ()).map_err(|error| error.to_string())?;
    }
    Ok(acknowledged.len())
}

fn check(world: &World, acknowledged: &[(usize, String)]) -> Result<(), String> {
    let segments: Vec<Option<Segment>> = (0..WRITERS)
        .map(|writer| {
            world.segment("default", "development", &format!("segment-{writer}")).map(|state| state.published())
        })
        .collect();
    let lost = acknowledged
        .iter()
        .find(|(writer, key)| segments[*writer].as_ref().is_none_or(|segment| !segment.included.contains(key)));
    lost.map_or(Ok(()), |(writer, key)| Err(format!("writer {writer} was told that {key} is stored, and it is lost")))
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_power_cut_keeps_journal_and_vault_together() {
    let rounds = count(10, 100);
    let mut acknowledged = 0;
    for seed in 0..rounds as u64 {
        acknowledged += power_cuts(seed, false).await.unwrap_or_else(|wrong| panic!("seed {seed}: {wrong}"));
    }
    report(&format!("power cuts of the whole store: {rounds} rounds of 3, {acknowledged} acknowledged changes"));
    assert!(acknowledged > rounds, "next to nothing was written");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn without_syncs_a_power_cut_does_lose_changes() {
    let rounds = count(5, 20);
    let mut failed = 0;
    for seed in 0..rounds as u64 {
        failed += usize::from(power_cuts(seed, true).await.is_err());
    }
    report(&format!("power cuts without syncs: {failed} of {rounds} rounds lost something"));
    assert!(failed > 0, "the simulated power cut cuts nothing");
}
