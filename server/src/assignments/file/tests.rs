use guidon_sdk::protocol::{Cause, Exposure};

use super::*;
use crate::clock::ManualClock;
use crate::log::RealFiles;
use crate::log::sim::SimFiles;
use crate::vault::MemoryVault;

struct Bench {
    dir: tempfile::TempDir,
    vault: Arc<MemoryVault>,
    clock: Arc<ManualClock>,
    retention: Retention,
}

impl Bench {
    fn new(retention: Retention) -> Self {
        let clock = Arc::new(ManualClock::new(10 * DAY_MS));
        Self { dir: tempfile::tempdir().unwrap(), vault: Arc::new(MemoryVault::new()), clock, retention }
    }

    fn open(&self) -> FileAssignmentLog {
        let (vault, clock) = (self.vault.clone(), self.clock.clone());
        let open = || {
            let (vault, clock, limits) = (vault.clone(), clock.clone(), BatchLimits::default());
            FileAssignmentLog::open(RealFiles::shared(), self.dir.path(), vault, clock, limits, self.retention)
        };
        // What was dropped may still be removing old segments in the background, and hold the folder for a moment longer.
        for _ in 0..1_000 {
            match open() {
                Err(OpenError::Log(log::OpenError::Locked { .. })) => {
                    std::thread::sleep(std::time::Duration::from_millis(5));
                }
                opened => return opened.unwrap().0,
            }
        }
        panic!("the folder was not released");
    }
}

fn origin() -> Origin {
    Origin { project: "p".into(), environment: "e".into() }
}

fn batch(instance: &str, number: u64, flags: &[&str]) -> ExposureBatch {
    let item = |flag: &&str| Exposure {
        flag: (*flag).to_owned(),
        unit: format!("raw-unit-{number}"),
        assigned: "ai".to_owned(),
        delivered: "baseline".to_owned(),
        cause: Cause::Timeout,
        reason: "SPLIT".to_owned(),
        rule: Some("r1".to_owned()),
        slot: Some(number as u32),
        revision: 4,
        at: 99,
    };
    let items = flags.iter().map(item).collect();
    ExposureBatch { instance: instance.to_owned(), epoch: 3, batch: number, dropped: 0, items }
}

fn query() -> Query {
    Query { origin: origin(), flag: None, from: None, to: None, after: None, limit: 10 }
}

async fn store(log: &FileAssignmentLog, batch: ExposureBatch) -> Result<u64, AppendError> {
    log.append(&origin(), batch).unwrap().await
}

#[tokio::test]
async fn batches_are_stored_once_also_across_restarts() {
    let bench = Bench::new(Retention::default());
    let log = bench.open();
    assert_eq!(store(&log, batch("a", 1, &["f", "g"])).await, Ok(1));
    let (first, second) = (store(&log, batch("a", 2, &["f"])), store(&log, batch("a", 2, &["f"])));
    assert_eq!(tokio::join!(first, second), (Ok(2), Ok(2)));
    assert_eq!(store(&log, batch("b", 7, &["f"])).await, Ok(7));
    assert_eq!(log.last_batch(&origin(), "a", 3), 2);
    drop(log);

    let log = bench.open();
    assert_eq!(["a", "b", "c"].map(|instance| log.last_batch(&origin(), instance, 3)), [2, 7, 0]);
    assert_eq!(log.last_batch(&origin(), "a", 4), 0);
    assert_eq!(store(&log, batch("a", 1, &["other"])).await, Ok(2));
    assert_eq!(store(&log, batch("a", 3, &["f"])).await, Ok(3));
    let lines = log.read(&query()).unwrap().lines;
    assert_eq!(lines.iter().map(|line| line.assignment.slot.unwrap()).collect::<Vec<_>>(), [1, 1, 2, 7, 3]);
    // The key outlives the process: a unit keeps its pseudonym.
    let pseudonym = lines[0].assignment.unit;
    assert!(lines[1].assignment.unit == pseudonym && lines[4].assignment.unit != pseudonym);
}

#[tokio::test]
async fn no_raw_unit_reaches_the_disk() {
    let bench = Bench::new(Retention::default());
    let log = bench.open();
    store(&log, batch("a", 1, &["some-flag"])).await.unwrap();
    drop(log);
    let mut seen_flag = false;
    for file in std::fs::read_dir(bench.dir.path()).unwrap() {
        let bytes = std::fs::read(file.unwrap().path()).unwrap();
        let text = String::from_utf8_lossy(&bytes);
        assert!(!text.contains("raw-unit"));
        seen_flag |= text.contains("some-flag");
    }
    assert!(seen_flag);
}

#[tokio::test]
async fn what_is_asked_for_is_answered_in_pages() {
    let bench = Bench::new(Retention { segment_bytes: 2_000, ..Retention::default() });
    let log = bench.open();
    for number in 1..=20 {
        bench.clock.advance_ms(1_000);
        store(&log, batch("a", number, &["f", "g", "f"])).await.unwrap();
    }
    let all = |filter: Query| {
        let mut filter = Query { limit: 7, ..filter };
        let mut lines = Vec::new();
        loop {
            let page = log.read(&filter).unwrap();
            assert!(page.lines.len() <= 7);
            lines.extend(page.lines);
            match page.next {
                Some(next) => filter.after = Some(next),
                None => return lines,
            }
        }
    };
    let everything = all(query());
    assert_eq!(everything.len(), 60);
    assert!(everything.windows(2).all(|pair| pair[0].cursor < pair[1].cursor));
    assert_eq!(all(Query { flag: Some("g".to_owned()), ..query() }).len(), 20);
    let start = 10 * DAY_MS;
    let between = all(Query { from: Some(start + 5_000), to: Some(start + 8_000), ..query() });
    assert_eq!(between.iter().map(|line| line.received - start).max(), Some(7_000));
    assert_eq!(between.len(), 9);
    for (index, line) in everything.iter().enumerate() {
        let rest = all(Query { after: Some(line.cursor), ..query() });
        assert_eq!(rest, everything[index + 1..]);
    }
    let elsewhere = Origin { project: "p".into(), environment: "other".into() };
    assert!(all(Query { origin: elsewhere, ..query() }).is_empty());
}

#[tokio::test]
async fn old_segments_go_and_batch_numbers_stay() {
    let bench = Bench::new(Retention { max_age_days: 2, ..Retention::default() });
    let log = bench.open();
    store(&log, batch("a", 1, &["f"])).await.unwrap();
    for number in 1..=6 {
        bench.clock.advance_ms(DAY_MS + 1);
        store(&log, batch("b", number, &["f"])).await.unwrap();
    }
    while log.health().first_seq < 8 {
        tokio::time::sleep(std::time::Duration::from_millis(1)).await;
    }
    let kept = log.read(&query()).unwrap().lines;
    assert_eq!(kept.iter().map(|line| line.assignment.slot.unwrap()).collect::<Vec<_>>(), [4, 5, 6]);
    // A cursor into what is gone goes on with what is there.
    let after = Some(Cursor { seq: 1, index: 0 });
    assert_eq!(log.read(&Query { after, ..query() }).unwrap().lines, kept);
    drop(log);
    let log = bench.open();
    assert_eq!(log.last_batch(&origin(), "a", 3), 1);
    assert_eq!(store(&log, batch("a", 1, &["f"])).await, Ok(1));
    assert_eq!(log.read(&query()).unwrap().lines.len(), 3);
}

#[tokio::test]
async fn the_log_is_bounded_in_bytes() {
    let bench = Bench::new(Retention { segment_bytes: 2_000, max_bytes: 10_000, ..Retention::default() });
    let log = bench.open();
    for number in 1..=200 {
        store(&log, batch("a", number, &["f"])).await.unwrap();
    }
    // Files are removed in the background.
    while log.health().bytes > 14_000 {
        tokio::time::sleep(std::time::Duration::from_millis(1)).await;
    }
}

#[tokio::test]
async fn what_is_over_a_limit_is_refused_and_names_no_unit() {
    let bench = Bench::new(Retention::default());
    let log = bench.open();
    let mut long_unit = batch("a", 1, &["f"]);
    long_unit.items[0].unit = "secret".repeat(1_000);
    let mut slot = batch("a", 1, &["f"]);
    slot.items[0].slot = Some(100_000);
    let cases = [
        (batch("a", 0, &["f"]), "batch:"),
        (batch("", 1, &["f"]), "instance:"),
        (batch("a", 1, &["f"; 1_001]), "items: 1001"),
        (long_unit, "items/0/unit: 6000 bytes"),
        (batch("a", 1, &["f", ""]), "items/1/flag: is empty"),
        (slot, "items/0/slot:"),
    ];
    for (batch, problem) in cases {
        let refused = log.append(&origin(), batch).err().unwrap().to_string();
        assert!(refused.starts_with(problem) && !refused.contains("secret"), "{refused}");
    }
    assert!(log.read(&query()).unwrap().lines.is_empty());
}

#[tokio::test]
async fn a_full_disk_keeps_batches_unacknowledged_until_there_is_space() {
    let (files, clock) = (SimFiles::new(), Arc::new(ManualClock::new(10 * DAY_MS)));
    let vault = Arc::new(MemoryVault::new());
    let open = || {
        let (vault, clock, limits) = (vault.clone(), clock.clone(), BatchLimits::default());
        let dir = Path::new("/log/assignments");
        FileAssignmentLog::open(files.shared(), dir, vault, clock, limits, Retention::default()).unwrap().0
    };
    let log = open();
    assert_eq!(store(&log, batch("a", 1, &["f"])).await, Ok(1));
    files.set_capacity(Some(0));
    for number in [2, 2, 3] {
        assert_eq!(store(&log, batch("a", number, &["f"])).await, Err(AppendError::DiskFull));
        assert_eq!(log.last_batch(&origin(), "a", 3), 1, "nothing is acknowledged");
    }
    assert_eq!(store(&log, batch("b", 1, &["f"])).await, Err(AppendError::DiskFull));
    assert_eq!(store(&log, batch("a", 1, &["f"])).await, Ok(1), "what is stored stays acknowledged");
    assert_eq!(log.read(&query()).unwrap().lines.len(), 1, "reading goes on");

    files.set_capacity(None);
    for number in [2, 3, 2, 3] {
        assert_eq!(store(&log, batch("a", number, &["f"])).await, Ok(number.max(log.last_batch(&origin(), "a", 3))));
    }
    assert_eq!(store(&log, batch("b", 1, &["f"])).await, Ok(1));
    let stored =
        || log.read(&query()).unwrap().lines.iter().map(|line| line.assignment.slot.unwrap()).collect::<Vec<_>>();
    assert_eq!(stored(), [1, 2, 3, 1]);
    let scraped = || {
        let mut registry = prometheus_client::registry::Registry::default();
        log.metrics().register(&mut registry);
        let mut text = String::new();
        prometheus_client::encoding::text::encode(&mut text, &registry).unwrap();
        text
    };
    for line in [
        r#"exposures_total{result="stored"} 4"#,
        r#"exposure_batches_total{result="failed"} 4"#,
        r#"exposure_batches_total{result="duplicate"} 3"#,
    ] {
        assert!(scraped().contains(line), "{line} is not in {}", scraped());
    }
    drop(log);

    files.power_cut(7);
    let log = open();
    assert_eq!(["a", "b"].map(|instance| log.last_batch(&origin(), instance, 3)), [3, 1]);
    assert_eq!(store(&log, batch("a", 3, &["f"])).await, Ok(3));
    assert_eq!(log.read(&query()).unwrap().lines.len(), 4);
}
