//! The log on a simulated disk: power cuts, kills, failing syncs, a full disk, changed bytes.

use std::collections::BTreeMap;

use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};

use super::sim::SimFiles;
use super::*;

const DIR: &str = "/data/log";

/// How many seeds a test goes through: `GUIDON_FAULT_ROUNDS` asks for more than the few of every run.
fn seeds(few: u64) -> std::ops::Range<u64> {
    let asked = std::env::var("GUIDON_FAULT_ROUNDS").ok().and_then(|text| text.parse().ok());
    0..asked.unwrap_or(few)
}

fn options() -> Options {
    // The watermark is left to the hint and to closing: the worst case for what a power cut leaves as evidence.
    let watermark_idle_ms = 3_600_000;
    Options { segment_bytes: Options::MIN_SEGMENT_BYTES, id: Some([1; 16]), watermark_idle_ms, ..Options::default() }
}

type Held = BTreeMap<u64, Vec<u8>>;

fn open(disk: &SimFiles) -> Result<(Log, Recovered, Held), OpenError> {
    let mut held = Held::new();
    let visit = |record: RecordRef<'_>| assert!(held.insert(record.seq, record.payload.to_vec()).is_none());
    let (log, recovered) = Log::open(disk.shared(), Path::new(DIR), Kind::Journal, options(), visit)?;
    Ok((log, recovered, held))
}

fn payload(random: &mut StdRng) -> Vec<u8> {
    // Bytes that are never zero, so that a lost sector cannot pass for a written one.
    (0..random.random_range(1..1_500)).map(|_| random.random_range(1..=255)).collect()
}

/// Appends until the disk stops; returns what was acknowledged.
fn append_until_stopped(log: &Log, random: &mut StdRng) -> Held {
    let mut acknowledged = Held::new();
    for _ in 0..60 {
        let together: Vec<Vec<u8>> = (0..random.random_range(1..4)).map(|_| payload(random)).collect();
        let tickets: Vec<_> = together.iter().map_while(|bytes| log.append(bytes.clone()).ok()).collect();
        let mut failed = tickets.len() < together.len();
        for (bytes, ticket) in together.into_iter().zip(tickets) {
            match ticket.wait() {
                Ok(seq) => {
                    assert!(acknowledged.insert(seq, bytes).is_none());
                }
                Err(_) => failed = true,
            }
        }
        if failed {
            break;
        }
    }
    acknowledged
}

#[derive(Debug, Default)]
struct Outcome {
    lost: usize,
    refused: usize,
    torn: usize,
}

/// Cuts the power at a random operation, three times over on the same disk, and counts what is missing afterwards.
fn power_cut_round(seed: u64, syncs: bool, outcome: &mut Outcome) {
    let mut random = StdRng::seed_from_u64(seed);
    let disk = SimFiles::new();
    let mut acknowledged = Held::new();
    for _ in 0..3 {
        disk.stop_after(random.random_range(1..120));
        if !syncs {
            disk.ignore_syncs();
        }
        if let Ok((log, _, held)) = open(&disk) {
            acknowledged.retain(|seq, _| held.contains_key(seq));
            acknowledged.extend(append_until_stopped(&log, &mut random));
        }
        disk.power_cut(random.random());
        let (log, recovered, held) = match open(&disk) {
            Ok(opened) => opened,
            Err(error) => {
                assert!(!syncs, "seed {seed}: {error}");
                outcome.refused += 1;
                return;
            }
        };
        outcome.torn += usize::from(recovered.torn.is_some());
        outcome.lost += acknowledged.iter().filter(|(seq, bytes)| held.get(seq) != Some(bytes)).count();
        assert!(held.keys().copied().eq(recovered.first_seq..recovered.next_seq), "seed {seed}");
        acknowledged = held;
        log.close().unwrap();
    }
}

#[test]
fn a_power_cut_loses_nothing_acknowledged_and_needs_no_operator() {
    let mut outcome = Outcome::default();
    for seed in seeds(150) {
        power_cut_round(seed, true, &mut outcome);
    }
    assert_eq!((outcome.lost, outcome.refused), (0, 0));
    assert!(outcome.torn > 20, "the cuts tore too few writes to show anything: {outcome:?}");
}

#[test]
fn without_syncs_the_same_power_cuts_lose_acknowledged_records() {
    let mut outcome = Outcome::default();
    for seed in 0..150 {
        power_cut_round(seed, false, &mut outcome);
    }
    assert!(outcome.lost + outcome.refused > 50, "{outcome:?}");
}

#[test]
fn records_appended_together_are_there_together_or_not_at_all() {
    let mut whole = 0;
    for seed in seeds(60) {
        let mut random = StdRng::seed_from_u64(seed);
        let disk = SimFiles::new();
        disk.stop_after(random.random_range(8..60));
        let Ok((log, _, _)) = open(&disk) else { continue };
        for group in 1..30_u8 {
            let records = (0..4).map(|_| Bytes::from(vec![group; random.random_range(1..600)])).collect();
            if log.append_many(records).and_then(Appended::wait).is_err() {
                break;
            }
        }
        disk.power_cut(seed);
        drop(log);
        let (_, _, held) = open(&disk).unwrap();
        assert_eq!(held.len() % 4, 0, "seed {seed}");
        assert!(held.iter().all(|(seq, bytes)| u64::from(bytes[0]) == seq.div_ceil(4)), "seed {seed}");
        whole += held.len() / 4;
    }
    assert!(whole > 60, "{whole} groups in all");
}

#[test]
fn a_killed_process_loses_nothing_acknowledged() {
    for seed in seeds(50) {
        let mut random = StdRng::seed_from_u64(seed);
        let disk = SimFiles::new();
        disk.stop_after(random.random_range(20..80));
        let Ok((log, _, _)) = open(&disk) else { continue };
        let acknowledged = append_until_stopped(&log, &mut random);
        disk.kill();
        drop(log);
        let (_, _, held) = open(&disk).unwrap();
        assert!(acknowledged.iter().all(|(seq, bytes)| held.get(seq) == Some(bytes)), "seed {seed}");
    }
}

#[test]
fn every_changed_byte_is_found_and_named() {
    let disk = SimFiles::new();
    let (log, _, _) = open(&disk).unwrap();
    let mut random = StdRng::seed_from_u64(7);
    for _ in 0..12 {
        log.append(payload(&mut random)).unwrap().wait().unwrap();
    }
    // Killed, not closed: only the hint shows that the last record was acknowledged.
    disk.kill();
    drop(log);
    for path in disk.paths().into_iter().filter(|path| path.extension().is_some()) {
        let len = disk.content(&path).unwrap().len();
        for step in 0..100 {
            let offset = if step == 99 { len - 1 } else { len * step / 100 };
            let xor = [0x20, 0x01, 0x80, 0xff][step % 4];
            disk.flip(&path, offset, xor);
            let Err(error) = open(&disk) else { panic!("{}: byte {offset} went unnoticed", path.display()) };
            assert!(matches!(error, OpenError::Damaged(_)), "{error}");
            assert!(error.to_string().contains(&*path.display().to_string()), "{error}");
            disk.flip(&path, offset, xor);
        }
    }
    assert_eq!(open(&disk).unwrap().1.next_seq, 13);
}

#[test]
fn a_byte_that_changes_while_the_log_is_open_is_never_served() {
    let disk = SimFiles::new();
    let (log, _, _) = open(&disk).unwrap();
    let mut random = StdRng::seed_from_u64(3);
    let records: Vec<Bytes> = (0..5).map(|_| payload(&mut random).into()).collect();
    log.append_many(records.clone()).unwrap().wait().unwrap();
    let path = Path::new(DIR).join("00000000000000000001.log");
    for offset in 64..disk.content(&path).unwrap().len() {
        disk.flip(&path, offset, 0x10);
        for (seq, record) in (1..).zip(&records) {
            match log.read(seq, 0) {
                Ok(read) => assert_eq!(read[0].payload, record, "byte {offset}"),
                Err(error) => assert!(matches!(error, ReadError::Damaged(_)), "byte {offset}: {error}"),
            }
        }
        disk.flip(&path, offset, 0x10);
    }
}

#[test]
fn a_changed_byte_in_the_watermark_is_reported_and_mended_from_its_other_copy() {
    let disk = SimFiles::new();
    let (log, _, _) = open(&disk).unwrap();
    log.append("one").unwrap().wait().unwrap();
    drop(log);
    let path = Path::new(DIR).join("watermark");
    for offset in [0, 10, 45, 300, 511, 512, 1_023, 1_024, 1_535] {
        disk.flip(&path, offset, 1);
        let (log, recovered, held) = open(&disk).unwrap();
        assert_eq!((held.len(), recovered.notes.len()), (1, 1), "byte {offset}");
        assert!(recovered.notes[0].contains("watermark"), "{:?}", recovered.notes);
        drop(log);
        assert_eq!(open(&disk).unwrap().1.notes, Vec::<String>::new(), "byte {offset}");
    }
}

#[test]
fn a_last_record_is_cut_off_only_without_a_sign_of_its_acknowledgement() {
    let cut = |closed: bool, acknowledged: Option<u64>| {
        let disk = SimFiles::new();
        let (log, _, _) = open(&disk).unwrap();
        log.append("first").unwrap().wait().unwrap();
        drop(log);
        let before = disk.content(&Path::new(DIR).join("watermark")).unwrap();
        let (log, _, _) = open(&disk).unwrap();
        log.append(vec![7; 700]).unwrap().wait().unwrap();
        drop(log);
        if !closed {
            // As if the power had gone before the mark for the second record reached the disk.
            let file = disk.open(&Path::new(DIR).join("watermark")).unwrap();
            file.write_all_at(0, &before).unwrap();
        }
        let segment = disk.open(&Path::new(DIR).join("00000000000000000001.log")).unwrap();
        segment.set_len(segment.len().unwrap() - 3).unwrap();
        let options = Options { acknowledged, ..options() };
        Log::open(disk.shared(), Path::new(DIR), Kind::Journal, options, |_| {}).map(|(_, recovered)| recovered)
    };
    let recovered = cut(false, None).unwrap();
    assert_eq!((recovered.next_seq, recovered.torn.map(|torn| torn.bytes)), (2, Some(28 + 8 + 697)));
    assert_eq!(cut(false, Some(1)).unwrap().next_seq, 2);
    for error in [cut(true, None).unwrap_err(), cut(false, Some(2)).unwrap_err()] {
        assert!(error.to_string().contains("records up to 2 were acknowledged"), "{error}");
    }
}

#[test]
fn a_failed_sync_makes_the_log_read_only_until_it_is_opened_again() {
    let disk = SimFiles::new();
    let (log, _, _) = open(&disk).unwrap();
    log.append("kept").unwrap().wait().unwrap();
    disk.fail_syncs(1);
    let failed = log.append("unknown").unwrap().wait().unwrap_err();
    assert!(matches!(failed, AppendError::ReadOnly { .. }), "{failed}");
    assert!(matches!(log.append("refused").unwrap_err(), AppendError::ReadOnly { .. }));
    assert_eq!(log.resume(), None);
    assert_eq!(log.read(1, 100).unwrap().len(), 1);
    assert!(log.close().is_err());
    // The failed sync left the record in memory only. Opening accepts it, so it must be durable from then on.
    let (log, _, held) = open(&disk).unwrap();
    log.append("after").unwrap().wait().unwrap();
    drop(log);
    disk.power_cut(1);
    let (_, _, after) = open(&disk).unwrap();
    assert!(held.iter().all(|(seq, bytes)| after.get(seq) == Some(bytes)));
    assert_eq!(after.len(), held.len() + 1);
}

#[test]
fn a_full_disk_loses_nothing_and_writing_goes_on_when_there_is_space() {
    for seed in seeds(40) {
        let mut random = StdRng::seed_from_u64(seed);
        let disk = SimFiles::new();
        let (log, _, _) = open(&disk).unwrap();
        disk.set_capacity(Some(random.random_range(3_000..12_000)));
        let mut acknowledged = append_until_stopped(&log, &mut random);
        assert_eq!(log.append("refused").unwrap_err(), AppendError::DiskFull);
        assert_eq!(log.iter(1).count(), acknowledged.len());
        assert_eq!(log.resume(), Some(acknowledged.len() as u64 + 1));
        let still = log.append(vec![1; 9_000]).unwrap();
        assert_eq!(still.wait(), Err(AppendError::DiskFull));
        disk.set_capacity(None);
        log.resume().unwrap();
        for _ in 0..5 {
            let bytes = payload(&mut random);
            acknowledged.insert(log.append(bytes.clone()).unwrap().wait().unwrap(), bytes);
        }
        disk.power_cut(seed);
        drop(log);
        assert_eq!(open(&disk).unwrap().2, acknowledged, "seed {seed}");
    }
}

#[test]
fn removing_segments_survives_a_power_cut_at_any_point() {
    for stop in 0..14 {
        let disk = SimFiles::new();
        let (log, _, _) = open(&disk).unwrap();
        for index in 0..30_u8 {
            log.append(vec![index + 1; 900]).unwrap().wait().unwrap();
        }
        disk.stop_after(stop);
        let removed = log.remove_segments_before(20);
        disk.power_cut(stop);
        drop(log);
        let (_, recovered, held) = open(&disk).unwrap();
        assert!(held.keys().copied().eq(recovered.first_seq..31), "stopped after {stop}");
        assert!(recovered.first_seq <= 20 && (removed.is_err() || recovered.first_seq > 1), "stopped after {stop}");
    }
}
