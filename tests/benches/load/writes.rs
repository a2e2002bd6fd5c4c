//! Durable changes and exposures per second, beside plain `write` and `fdatasync` of as many bytes by one thread.

use std::fs::File;
use std::io::Write as _;
use std::net::SocketAddr;
use std::path::Path;
use std::time::Instant;

use guidon_sdk::client::MAX_BATCHES_IN_FLIGHT;
use guidon_sdk::protocol::{Cause, ClientMessage, Exposure, ExposureBatch};
use serde_json::{Value, json};
use tokio::net::TcpStream;
use tokio::task::JoinSet;

use crate::connections::{greet, read_frame, text_frame};
use crate::median;
use crate::role::{Remote, Role};
use crate::support::flag;

/// Load and floor take turns this often.
const ROUNDS: usize = 3;
/// Changes of a turn, all writers' together.
const CHANGES: usize = 960;
/// Exposures in a batch: as many as the SDK sends.
const BATCH_ITEMS: usize = 500;
/// Batches of a turn, all connections' together.
const BATCHES: usize = 160;
/// Writes of a floor.
const FLOOR_WRITES: usize = 300;

/// What was stored in how long.
struct Turn {
    stored: usize,
    /// Appends that were acknowledged by themselves: changes, or batches.
    appends: usize,
    bytes: f64,
    commits: Option<f64>,
    seconds: f64,
}

pub async fn measure() {
    let folder = tempfile::tempdir().unwrap();
    let role = Role::start(&["server", folder.path().to_str().unwrap()]);
    let remote = Remote::new(role.address);
    println!(
        "\ndurable writes: {ROUNDS} rounds; {CHANGES} changes over HTTP, {BATCHES} batches of {BATCH_ITEMS} exposures over \
         websockets; the floor writes as many bytes per append and syncs, one after the other\n\
         {:>9} {:>10} {:>6} | {:>12} {:>12} {:>8} | {:>12} {:>15}",
        "", "writers", "round", "stored / s", "floor / s", "ratio", "bytes/append", "appends/commit"
    );
    let starting = remote.clone();
    let credential = tokio::task::spawn_blocking(move || {
        let flags: Vec<Value> =
            (0..16).map(|index| json!({"kind": "createFlag", "flag": flag(&format!("flag-{index}"), false)})).collect();
        starting.change(json!(flags));
        starting.sdk_key()
    })
    .await
    .unwrap();
    for writers in [1, 16] {
        let mut ratios = Vec::new();
        for round in 0..ROUNDS {
            let turn = changes(&remote, role.address, writers).await;
            ratios.push(row("changes", writers, round, &turn, folder.path()));
        }
        println!("{:>9} {writers:>10} median ratio {:.2}", "changes", median(ratios));
    }
    for writers in [1, 16] {
        let mut ratios = Vec::new();
        for round in 0..ROUNDS {
            let turn = exposures(&remote, role.address, &credential, writers, round).await;
            ratios.push(row("exposures", writers, round, &turn, folder.path()));
        }
        println!("{:>9} {writers:>10} median ratio {:.2}", "exposures", median(ratios));
    }
}

/// Measures the floor for a turn, prints both and answers their ratio.
fn row(name: &str, writers: usize, round: usize, turn: &Turn, folder: &Path) -> f64 {
    let bytes = (turn.bytes / turn.appends as f64).round() as usize;
    let appends = floor(folder, bytes);
    let (rate, floor) = (turn.stored as f64 / turn.seconds, appends * turn.stored as f64 / turn.appends as f64);
    let ratio = rate / floor;
    let commits = turn.commits.map_or("-".to_owned(), |commits| format!("{:.1}", turn.appends as f64 / commits));
    let round = round + 1;
    println!(
        "{name:>9} {writers:>10} {round:>6} | {rate:>12.0} {floor:>12.0} {ratio:>8.2} | {bytes:>12} {commits:>15}"
    );
    ratio
}

/// Writes of `bytes` bytes per second by one thread that syncs each, in a file beside the store.
fn floor(folder: &Path, bytes: usize) -> f64 {
    let path = folder.join("floor");
    let mut file = File::create(&path).unwrap();
    let record = vec![b'x'; bytes];
    let start = Instant::now();
    for _ in 0..FLOOR_WRITES {
        file.write_all(&record).unwrap();
        file.sync_data().unwrap();
    }
    let rate = FLOOR_WRITES as f64 / start.elapsed().as_secs_f64();
    std::fs::remove_file(path).unwrap();
    rate
}

/// `writers` threads, each with a connection of its own, make changes to a flag of their own, one after the other.
async fn changes(remote: &Remote, address: SocketAddr, writers: usize) -> Turn {
    let remote = remote.clone();
    tokio::task::spawn_blocking(move || {
        let read = |name: &str| remote.metric(name);
        let before = (read("guidon_journal_bytes"), read("guidon_journal_commits"));
        let start = Instant::now();
        std::thread::scope(|scope| {
            for writer in 0..writers {
                scope.spawn(move || {
                    let remote = Remote::new(address);
                    for index in 0..CHANGES / writers {
                        let kind = if index.is_multiple_of(2) { "turnFlagOff" } else { "turnFlagOn" };
                        remote.change(json!([{"kind": kind, "flag": format!("flag-{writer}")}]));
                    }
                });
            }
        });
        let seconds = start.elapsed().as_secs_f64();
        let bytes = read("guidon_journal_bytes") - before.0;
        let commits = Some(read("guidon_journal_commits") - before.1);
        Turn { stored: CHANGES, appends: CHANGES, bytes, commits, seconds }
    })
    .await
    .unwrap()
}

/// `writers` SDK instances send full batches, as many ahead of the acknowledgements as the SDK does.
async fn exposures(remote: &Remote, address: SocketAddr, credential: &str, writers: usize, round: usize) -> Turn {
    let read = async || {
        let remote = remote.clone();
        tokio::task::spawn_blocking(move || remote.metric("guidon_assignments_bytes")).await.unwrap()
    };
    let mut streams = Vec::new();
    for writer in 0..writers {
        let mut stream = TcpStream::connect(address).await.unwrap();
        let instance = format!("writer-{writers}-{round}-{writer}");
        greet(&mut stream, credential, &instance).await;
        // The snapshot.
        read_frame(&mut stream).await;
        let frames: Vec<Vec<u8>> = (1..=BATCHES / writers).map(|number| batch(&instance, number)).collect();
        streams.push((stream, frames));
    }
    let before = read().await;
    let start = Instant::now();
    let mut sending = JoinSet::new();
    for (stream, frames) in streams {
        sending.spawn(send(stream, frames));
    }
    while let Some(sent) = sending.join_next().await {
        sent.unwrap();
    }
    let seconds = start.elapsed().as_secs_f64();
    let bytes = read().await - before;
    Turn { stored: BATCHES * BATCH_ITEMS, appends: BATCHES, bytes, commits: None, seconds }
}

async fn send(mut stream: TcpStream, frames: Vec<Vec<u8>>) {
    use tokio::io::AsyncWriteExt;
    let (mut sent, mut stored) = (0, 0);
    while stored < frames.len() {
        while sent < frames.len() && sent < stored + MAX_BATCHES_IN_FLIGHT {
            stream.write_all(&frames[sent]).await.unwrap();
            sent += 1;
        }
        let message: Value = serde_json::from_slice(&read_frame(&mut stream).await).unwrap();
        assert_ne!(message["kind"], "exposuresRefused", "{message}");
        if message["kind"] == "exposuresStored" {
            stored = usize::try_from(message["batch"].as_u64().unwrap()).unwrap();
        }
    }
}

/// A full batch as a frame.
fn batch(instance: &str, number: usize) -> Vec<u8> {
    let item = |index: usize| Exposure {
        flag: format!("flag-{}", index % 16),
        unit: format!("user-{}", number * BATCH_ITEMS + index),
        assigned: "ai".to_owned(),
        delivered: "ai".to_owned(),
        cause: Cause::Normal,
        reason: "SPLIT".to_owned(),
        rule: Some("fallthrough".to_owned()),
        slot: Some(u32::try_from(index).unwrap()),
        revision: 2,
        at: 1_800_000_000_000,
    };
    let items = (0..BATCH_ITEMS).map(item).collect();
    let instance = instance.to_owned();
    let batch = ExposureBatch { instance, epoch: 1, batch: number as u64, dropped: 0, items };
    text_frame(&serde_json::to_string(&ClientMessage::Exposures(batch)).unwrap())
}
