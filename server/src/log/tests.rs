//! The log on real files.

use std::sync::Arc;

use super::*;

fn options() -> Options {
    Options { segment_bytes: Options::MIN_SEGMENT_BYTES, id: Some([1; 16]), ..Options::default() }
}

/// Opens a log of kind journal and returns what it holds.
fn open(dir: &Path) -> (Log, Recovered, Vec<(u64, Vec<u8>)>) {
    let mut seen = Vec::new();
    let visit = |record: RecordRef<'_>| seen.push((record.seq, record.payload.to_vec()));
    let (log, recovered) = Log::open(RealFiles::shared(), dir, Kind::Journal, options(), visit).unwrap();
    (log, recovered, seen)
}

fn payload(seq: u64) -> Vec<u8> {
    format!("record {seq} ").repeat(seq as usize % 40 + 1).into_bytes()
}

#[test]
fn records_read_back_in_order_across_segments_and_opens() {
    let dir = tempfile::tempdir().unwrap();
    let (log, recovered, _) = open(dir.path());
    assert_eq!((recovered.first_seq, recovered.next_seq, recovered.torn), (1, 1, None));
    let tickets: Vec<_> = (1..=300).map(|seq| log.append(payload(seq)).unwrap()).collect();
    for (seq, ticket) in (1..).zip(tickets) {
        assert_eq!(ticket.wait(), Ok(seq));
    }
    let expected: Vec<_> = (1..=300).map(|seq| (seq, payload(seq))).collect();
    let read: Vec<_> = log.iter(1).map(|record| record.map(|r| (r.seq, r.payload.to_vec())).unwrap()).collect();
    assert_eq!(read, expected);
    assert_eq!(log.read(300, 1).unwrap().len(), 1);
    assert_eq!(log.read(301, 1_000).unwrap(), []);
    assert!(log.health().commits <= 300);
    log.close().unwrap();
    assert_eq!(log.append(payload(1)).unwrap_err(), AppendError::Closed);

    let (log, recovered, seen) = open(dir.path());
    assert_eq!((recovered.next_seq, recovered.torn, recovered.notes), (301, None, vec![]));
    assert_eq!(seen, expected);
    for seq in [1, 17, 150, 299] {
        let read = log.read(seq, 0).unwrap();
        assert_eq!((read.len(), read[0].seq, read[0].payload.to_vec()), (1, seq, payload(seq)));
    }
}

#[tokio::test]
async fn concurrent_appends_share_commits_and_all_are_stored() {
    let dir = tempfile::tempdir().unwrap();
    let (log, _, _) = open(dir.path());
    let log = Arc::new(log);
    let tasks: Vec<_> = (0..32)
        .map(|task| {
            let log = Arc::clone(&log);
            tokio::spawn(async move {
                let mut seqs = Vec::new();
                for _ in 0..8 {
                    seqs.push(log.append(vec![task; 20]).unwrap().await.unwrap());
                }
                seqs
            })
        })
        .collect();
    let mut seqs = Vec::new();
    for task in tasks {
        seqs.extend(task.await.unwrap());
    }
    seqs.sort_unstable();
    assert_eq!(seqs, (1..=256).collect::<Vec<u64>>());
    assert_eq!(*log.watch_last_seq().borrow(), 256);
    assert!(log.health().commits < 256, "{} commits", log.health().commits);
}

#[test]
fn a_second_open_of_the_folder_is_refused_by_name() {
    let dir = tempfile::tempdir().unwrap();
    let (log, _, _) = open(dir.path());
    let error = Log::open(RealFiles::shared(), dir.path(), Kind::Journal, options(), |_| {}).unwrap_err().to_string();
    assert!(error.contains(&std::process::id().to_string()), "{error}");
    assert!(error.contains(&dir.path().display().to_string()), "{error}");
    drop(log);
    open(dir.path());
}

#[test]
fn a_folder_of_another_kind_is_refused() {
    let dir = tempfile::tempdir().unwrap();
    drop(open(dir.path()));
    let error = Log::open(RealFiles::shared(), dir.path(), Kind::Vault, options(), |_| {}).unwrap_err().to_string();
    assert!(error.contains("journal") && error.contains("vault"), "{error}");
}

#[test]
fn too_large_and_empty_appends_change_nothing() {
    let dir = tempfile::tempdir().unwrap();
    let (log, _, _) = open(dir.path());
    assert_eq!(log.append_many(vec![]).unwrap_err(), AppendError::Empty);
    let large = log.append(vec![0; MAX_RECORD_BYTES + 1]).unwrap_err();
    assert!(matches!(large, AppendError::TooLarge { unit: "record", .. }), "{large}");
    let quarter = Bytes::from(vec![0; MAX_GROUP_BYTES / 4]);
    let group = log.append_many(vec![quarter; 4]).unwrap_err();
    assert!(matches!(group, AppendError::TooLarge { unit: "append", .. }), "{group}");
    assert_eq!(log.append("small").unwrap().wait(), Ok(1));
}

#[test]
fn old_segments_are_removed_whole_and_stay_removed() {
    let dir = tempfile::tempdir().unwrap();
    let (log, _, _) = open(dir.path());
    for seq in 1..=60 {
        log.append(vec![seq; 600]).unwrap().wait().unwrap();
    }
    let segments = log.segments();
    assert!(segments.len() > 5);
    assert!(segments.windows(2).all(|pair| pair[0].next_seq == pair[1].first_seq));
    assert_eq!(segments.iter().map(|segment| segment.bytes).sum::<u64>(), log.health().bytes);
    let removed = log.remove_segments_before(31).unwrap();
    let first_seq = log.health().first_seq;
    assert!(removed > 0 && first_seq <= 31, "{removed} {first_seq}");
    assert!(matches!(log.read(1, 10), Err(ReadError::Removed { seq: 1, .. })));
    assert_eq!(log.iter(first_seq).count() as u64, 61 - first_seq);
    log.start_segment();
    log.append("last").unwrap().wait().unwrap();
    log.remove_segments_before(61).unwrap();
    assert_eq!((log.health().segments, log.health().first_seq), (1, 61));
    drop(log);
    let (_, recovered, seen) = open(dir.path());
    assert_eq!((recovered.first_seq, recovered.next_seq), (61, 62));
    assert_eq!(seen, [(61, b"last".to_vec())]);
}
