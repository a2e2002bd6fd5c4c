use std::path::{Path, PathBuf};
use std::sync::Arc;

use super::*;
use crate::clock::{Clock, ManualClock};
use crate::log::sim::SimFiles;
use crate::log::{OpenError as LogError, Recovered};

const DIR: &str = "/data/security";
const START_MS: u64 = 1_790_000_000_000;
const DAY_MS: u64 = 24 * 60 * 60 * 1_000;

struct Disk {
    files: SimFiles,
    clock: Arc<ManualClock>,
    options: AuditOptions,
}

impl Disk {
    fn new(options: AuditOptions) -> Self {
        Self { files: SimFiles::new(), clock: Arc::new(ManualClock::new(START_MS)), options }
    }

    fn open(&self) -> Result<(FileAuditLog, Recovered), OpenError> {
        let clock: Arc<dyn Clock> = self.clock.clone();
        FileAuditLog::open(self.files.shared(), Path::new(DIR), clock, self.options)
    }

    fn opened(&self) -> FileAuditLog {
        self.open().expect("opens").0
    }

    fn verified(&self) -> VerifiedEvents {
        verify(&self.files, Path::new(DIR), &mut |_| {}, &mut |_| {}).expect("sound")
    }

    fn event(&self, number: u64) -> Event {
        Event::new(self.clock.now_ms(), EventKind::Refused, format!("o-{number}"))
    }

    /// Records events that are told apart, each written by itself.
    async fn record(&self, log: &FileAuditLog, numbers: std::ops::Range<u64>) {
        for number in numbers {
            log.record(self.event(number));
            log.flush().await;
        }
    }

    fn segments(&self) -> Vec<PathBuf> {
        let is_segment = |path: &PathBuf| path.extension().is_some_and(|ending| ending == "log");
        self.files.paths().into_iter().filter(is_segment).collect()
    }

    fn set_full(&self, is_full: bool) {
        let length = |path: &PathBuf| self.files.content(path).map_or(0, |file| file.len() as u64);
        self.files.set_capacity(is_full.then(|| self.files.paths().iter().map(length).sum()));
    }
}

async fn all(log: &dyn Events) -> Vec<StoredEvent> {
    let mut found: Vec<StoredEvent> = Vec::new();
    loop {
        let page = log.read(found.last().map_or(0, |last| last.seq), 7).await.expect("reads");
        if page.is_empty() {
            return found;
        }
        found.extend(page);
    }
}

fn short_segments() -> AuditOptions {
    let retention = AuditRetention { segment_bytes: 1_000, ..AuditRetention::default() };
    AuditOptions { retention, ..AuditOptions::default() }
}

#[tokio::test]
async fn what_is_recorded_is_there_after_a_restart_and_the_chain_goes_on() {
    let disk = Disk::new(AuditOptions::default());
    let log = disk.opened();
    assert_eq!((log.head(), all(&log).await.len()), (EventsHead::EMPTY, 0));
    disk.record(&log, 0..5).await;
    let before = all(&log).await;
    log.close().expect("closes");
    let log = disk.opened();
    assert_eq!(all(&log).await, before);
    disk.record(&log, 5..8).await;
    let events = all(&log).await;
    assert_eq!(events.iter().map(|stored| stored.seq).collect::<Vec<_>>(), (1..=8).collect::<Vec<_>>());
    assert_eq!(events[7].event.origin_id, "o-7");
    assert_eq!(disk.verified().head, log.head());
    assert_eq!(events.last().map(StoredEvent::head), Some(log.head()));
}

#[tokio::test]
async fn events_alike_are_written_once_and_then_counted() {
    let disk = Disk::new(AuditOptions::default());
    let log = disk.opened();
    for _ in 0..1_000 {
        log.record(disk.event(1));
    }
    log.flush().await;
    let events = all(&log).await;
    assert_eq!(events.iter().map(|stored| stored.event.count).collect::<Vec<_>>(), [1, 999]);
}

#[tokio::test]
async fn a_window_ends_by_itself() {
    let disk = Disk::new(AuditOptions::default());
    let log = disk.opened();
    for _ in 0..3 {
        log.record(disk.event(1));
    }
    let total = async || all(&log).await.iter().map(|stored| stored.event.count).sum::<u32>();
    // Nobody flushes: only the clock moves on.
    for _ in 0..5_000 {
        if total().await == 3 {
            break;
        }
        tokio::time::sleep(std::time::Duration::from_millis(2)).await;
        disk.clock.advance_ms(1_000);
    }
    assert_eq!(total().await, 3);
}

#[tokio::test]
async fn times_never_go_down() {
    let disk = Disk::new(AuditOptions::default());
    let log = disk.opened();
    disk.record(&log, 0..1).await;
    disk.clock.set_ms(START_MS - 5_000);
    disk.record(&log, 1..2).await;
    log.close().expect("closes");
    let log = disk.opened();
    disk.record(&log, 2..3).await;
    assert_eq!(all(&log).await.iter().map(|stored| stored.event.at).collect::<Vec<_>>(), [START_MS; 3]);
}

#[tokio::test]
async fn a_full_queue_counts_what_it_does_not_take() {
    let disk = Disk::new(AuditOptions { max_queued_events: 10, ..AuditOptions::default() });
    let log = disk.opened();
    let recorded = 20_000;
    for number in 0..recorded {
        log.record(disk.event(number % 100));
    }
    log.flush().await;
    let events = all(&log).await;
    assert_eq!(events.iter().map(|stored| u64::from(stored.event.count)).sum::<u64>(), recorded);
    let lost = events.iter().filter(|stored| stored.event.kind == EventKind::EventsLost);
    assert_eq!(lost.map(|stored| u64::from(stored.event.count)).sum::<u64>(), log.health().lost);
}

#[tokio::test]
async fn a_full_disk_loses_events_by_count_only() {
    let disk = Disk::new(AuditOptions::default());
    let log = disk.opened();
    disk.record(&log, 0..3).await;
    disk.set_full(true);
    disk.record(&log, 3..10).await;
    assert!(log.health().lost == 7 && !log.health().is_writable(), "{:?}", log.health());
    assert_eq!(log.head().seq, 3);
    disk.set_full(false);
    disk.record(&log, 10..11).await;
    let events = all(&log).await;
    let told: Vec<_> = events[3..].iter().map(|stored| (stored.event.kind, stored.event.count)).collect();
    assert_eq!(told, [(EventKind::EventsLost, 7), (EventKind::Refused, 1)]);
    assert!(log.health().is_writable());
    log.close().expect("closes");
    assert_eq!(disk.verified().head.seq, 5, "the chain goes on from what is stored");
}

#[tokio::test]
async fn a_disk_that_has_room_again_takes_the_count_without_a_further_event() {
    let disk = Disk::new(AuditOptions::default());
    let log = disk.opened();
    disk.set_full(true);
    disk.record(&log, 0..2).await;
    disk.set_full(false);
    for _ in 0..5_000 {
        if log.head().seq == 1 {
            break;
        }
        tokio::time::sleep(std::time::Duration::from_millis(2)).await;
    }
    assert_eq!(all(&log).await[0].event.count, 2);
}

#[tokio::test]
async fn a_failed_sync_stops_the_log_and_never_those_who_record() {
    let disk = Disk::new(AuditOptions::default());
    let log = disk.opened();
    disk.record(&log, 0..2).await;
    disk.files.fail_syncs(1);
    disk.record(&log, 2..6).await;
    assert_eq!((log.health().lost, log.health().is_writable()), (4, false));
    assert_eq!(all(&log).await.len(), 2);
    assert!(log.close().is_err(), "it says so once more");
    disk.files.power_cut(1);
    let log = disk.opened();
    assert!(log.head().seq >= 2);
    disk.record(&log, 6..7).await;
    assert_eq!(all(&log).await.last().map(|stored| stored.event.origin_id.clone()), Some("o-6".to_owned()));
}

/// Three power cuts while events are recorded; what is wrong afterwards, if anything is.
async fn power_cuts(seed: u64, ignores_syncs: bool) -> Result<(), String> {
    let disk = Disk::new(short_segments());
    let mut flushed = 0;
    let reached = |head: EventsHead, flushed: u64| {
        if head.seq < flushed { Err(format!("seed {seed}: {} of {flushed} are there", head.seq)) } else { Ok(()) }
    };
    for cut in 0..3 {
        let (log, _) = disk.open().map_err(|error| error.to_string())?;
        reached(log.head(), flushed)?;
        if ignores_syncs {
            disk.files.ignore_syncs();
        }
        disk.files.stop_after(10 + (seed * 7 + cut * 13) % 50);
        for number in 0..30 {
            log.record(disk.event(number));
            log.flush().await;
            flushed = log.head().seq;
        }
        disk.files.power_cut(seed * 10 + cut);
        // The dead handle's threads must be gone before the disk is opened again.
        let _ = log.close();
    }
    let (log, _) = disk.open().map_err(|error| error.to_string())?;
    reached(log.head(), flushed)?;
    log.close().map_err(|error| error.to_string())?;
    assert_eq!(disk.verified().head, log.head());
    Ok(())
}

#[tokio::test]
async fn power_cuts_lose_nothing_that_was_flushed() {
    for seed in 0..20 {
        power_cuts(seed, false).await.expect("nothing is lost");
    }
}

#[tokio::test]
async fn without_syncs_power_cuts_do_lose_events() {
    // The control: were this to pass, the simulation would show nothing.
    let mut failed = 0;
    for seed in 0..8 {
        failed += u32::from(power_cuts(seed, true).await.is_err());
    }
    assert!(failed >= 6, "only {failed} of 8 unsynced rounds lost something");
}

#[tokio::test]
async fn a_torn_tail_is_cut_off_and_reported() {
    let disk = Disk::new(AuditOptions::default());
    let log = disk.opened();
    disk.record(&log, 0..3).await;
    log.close().expect("closes");
    let segment = disk.segments().pop().expect("one");
    let file = crate::log::Files::open(&disk.files, &segment).expect("opens");
    let len = file.len().expect("a length");
    file.write_all_at(len, b"GFRM\x40\x00\x00").expect("writes");
    let (log, recovered) = disk.open().expect("opens");
    assert!(recovered.torn.is_some_and(|torn| torn.offset == len), "reported");
    assert_eq!(log.head().seq, 3);
    disk.record(&log, 3..4).await;
    assert_eq!(all(&log).await.len(), 4);
}

#[tokio::test]
async fn a_flipped_byte_stops_the_start_and_is_named() {
    let disk = Disk::new(short_segments());
    let log = disk.opened();
    disk.record(&log, 0..40).await;
    log.close().expect("closes");
    let segments = disk.segments();
    assert!(segments.len() >= 3, "{segments:?}");
    for path in &segments {
        let len = disk.files.content(path).expect("there").len();
        for offset in (0..len).step_by(61) {
            disk.files.flip(path, offset, 4);
            let error = disk.open().err().unwrap_or_else(|| panic!("{path:?} at {offset}: it opened")).to_string();
            assert!(error.contains(&path.display().to_string()), "{error}");
            let verified = verify(&disk.files, Path::new(DIR), &mut |_| {}, &mut |_| {});
            assert!(verified.is_err(), "{path:?} at {offset}");
            disk.files.flip(path, offset, 4);
        }
    }
    assert_eq!(disk.verified().head.seq, 40);
}

/// Writes the records of a log that somebody made by hand.
async fn forge(disk: &Disk, records: impl IntoIterator<Item = Vec<u8>>) {
    let kind = crate::log::Kind::Security;
    let (log, _) =
        crate::log::Log::open(disk.files.shared(), Path::new(DIR), kind, Default::default(), |_| {}).expect("opens");
    for record in records {
        log.append(record).expect("taken").await.expect("stored");
    }
    log.close().expect("closes");
}

#[tokio::test]
async fn a_rewritten_event_is_named_though_its_checksum_is_right() {
    let disk = Disk::new(AuditOptions::default());
    let mut head = EventsHead::EMPTY;
    let records = (1..=4).map(|number| {
        let stored = StoredEvent::link(head, disk.event(number), false).expect("links");
        head = stored.head();
        let text = String::from_utf8(stored.bytes.to_vec()).expect("JSON").replace("o-3", "o-9");
        [&stored.hash.0, text.as_bytes()].concat()
    });
    let records: Vec<_> = records.collect();
    forge(&disk, records).await;
    let Err(OpenError::BadEvent(bad)) = disk.open() else { panic!("it opened") };
    assert!(bad.seq == 3 && bad.offset > 0 && bad.what.contains("chain"), "{bad}");
    assert!(bad.to_string().contains("restore the folder from a backup"), "{bad}");
    let found = verify(&disk.files, Path::new(DIR), &mut |_| {}, &mut |_| {});
    assert!(matches!(found, Err(VerifyEventsError::Open(OpenError::BadEvent(found))) if found == bad));
}

#[tokio::test]
async fn old_segments_go_and_what_is_left_still_verifies() {
    let disk = Disk::new(short_segments());
    let log = disk.opened();
    for day in 0..500 {
        disk.clock.set_ms(START_MS + day * DAY_MS);
        disk.record(&log, day * 2..day * 2 + 2).await;
    }
    let (first, head) = (log.first_seq(), log.head());
    assert!(first > 150 && first < 250, "400 days of two events are kept: {first}");
    let events = all(&log).await;
    assert_eq!((events[0].seq, events.last().map(StoredEvent::head)), (first, Some(head)));
    assert!(events[0].previous.is_some(), "the first one kept states what it follows");
    let middle = log.read(600, 3).await.expect("reads");
    assert_eq!(middle.iter().map(|stored| stored.seq).collect::<Vec<_>>(), [601, 602, 603]);
    log.close().expect("closes");
    let verified = disk.verified();
    assert_eq!((verified.first_seq, verified.head, verified.events), (first, head, head.seq - first + 1));
    let log = disk.opened();
    disk.record(&log, 0..1).await;
    assert_eq!(log.head().seq, head.seq + 1);
}

#[tokio::test]
async fn the_size_is_bounded_too() {
    let retention = AuditRetention { segment_bytes: 1_000, max_bytes: 5_000, ..AuditRetention::default() };
    let disk = Disk::new(AuditOptions { retention, ..AuditOptions::default() });
    let log = disk.opened();
    disk.record(&log, 0..200).await;
    let health = log.health();
    assert!(health.log.bytes < 7_000 && health.log.first_seq > 100, "{health:?}");
    log.close().expect("closes");
    assert_eq!(disk.verified().head.seq, 200);
}

#[tokio::test]
async fn verifying_tells_its_progress_and_where_there_is_nothing() {
    let none = verify(&SimFiles::new(), Path::new(DIR), &mut |_| {}, &mut |_| {});
    assert!(matches!(none, Err(VerifyEventsError::NoLog(_))), "{none:?}");
    let disk = Disk::new(short_segments());
    let log = disk.opened();
    disk.record(&log, 0..30).await;
    let (mut told, mut seen) = (Vec::new(), Vec::new());
    let verified =
        verify(&disk.files, Path::new(DIR), &mut |progress| told.push(progress), &mut |head| seen.push(head.seq));
    assert_eq!(verified.expect("a running server is no obstacle").head, log.head());
    assert_eq!(seen, (1..=30).collect::<Vec<_>>());
    assert_eq!(told.last().map(|progress| progress.events), Some(30));
}

#[tokio::test]
async fn a_closed_log_counts_and_does_not_hang() {
    let disk = Disk::new(AuditOptions::default());
    let log = disk.opened();
    log.close().expect("closes");
    log.record(disk.event(1));
    log.flush().await;
    assert_eq!(log.health().lost, 1);
    assert!(disk.open().is_ok(), "the folder is free");
    let held = disk.opened();
    assert!(matches!(disk.open(), Err(OpenError::Log(LogError::Locked { .. }))));
    drop(held);
}
