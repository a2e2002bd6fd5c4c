use super::*;

const LIMIT: Duration = Duration::from_secs(60);

fn mark(revision: u64) -> Mark {
    let hash = ChainHash::GENESIS.next(&revision.to_le_bytes()).to_string();
    let at = 1_790_000_000_000 + revision;
    Mark { format: STORE_FORMAT, entry_format: ENTRY_FORMAT, history: "h".to_owned(), revision, hash, at }
}

fn records(count: usize) -> Vec<Write> {
    (0..count).map(|index| (format!("f/shop/flag-{index}"), Some(vec![index as u8; 100 + index * 37]))).collect()
}

fn as_stored(writes: &[Write]) -> BTreeMap<String, Vec<u8>> {
    writes.iter().filter_map(|(key, value)| Some((key.clone(), value.clone()?))).collect()
}

/// Opens again what was dropped. On a busy machine sled's own threads may hold the file's lock for a moment longer.
fn reopen(dir: &Path) -> (SledStore, Stored) {
    for _ in 0..1_000 {
        match SledStore::open(dir, LIMIT) {
            Err(problem) if problem.contains("could not acquire lock") => std::thread::sleep(Duration::from_millis(5)),
            opened => return opened.expect("opens").expect("was written"),
        }
    }
    panic!("the lock of {} was not released", dir.display());
}

#[test]
fn records_read_back_whatever_their_size() {
    let dir = tempfile::tempdir().expect("a folder");
    let dir = dir.path().join("000001");
    let mut store = SledStore::create(&dir, LIMIT).expect("creates");
    let sizes = [0, 1, CHUNK_BYTES - 1, CHUNK_BYTES, CHUNK_BYTES + 1, 3 * CHUNK_BYTES, 1_000_000];
    let writes: Vec<Write> =
        sizes.iter().map(|size| (format!("s/{size}"), Some((0..*size).map(|at| at as u8).collect()))).collect();
    store.write(&mark(1), writes.clone()).expect("writes");
    drop(store);
    let (mut store, stored) = reopen(&dir);
    assert_eq!((stored.mark, stored.records), (mark(1), as_stored(&writes)));
    // Shrinking and removing leave no chunk behind.
    let shrunk = vec![("s/1000000".to_owned(), Some(vec![7; 10])), (format!("s/{}", 3 * CHUNK_BYTES), None)];
    store.write(&mark(2), shrunk).expect("writes");
    drop(store);
    let (_, stored) = reopen(&dir);
    assert_eq!(stored.mark, mark(2));
    assert_eq!(stored.records.len(), sizes.len() - 1);
    assert_eq!(stored.records["s/1000000"], [7; 10]);
}

#[test]
fn a_fresh_folder_holds_nothing() {
    let dir = tempfile::tempdir().expect("a folder");
    drop(SledStore::create(dir.path(), LIMIT).expect("creates"));
    assert!(SledStore::open(dir.path(), LIMIT).expect("opens").is_none());
}

#[test]
fn a_lost_a_stale_and_a_changed_record_are_noticed() {
    let dir = tempfile::tempdir().expect("a folder");
    let mut store = SledStore::create(dir.path(), LIMIT).expect("creates");
    store.write(&mark(1), records(10)).expect("writes");
    let key = chunk_key("f/shop/flag-3", 0);
    let sound = store.db.get(&key).expect("reads").expect("there");
    store.write(&mark(2), vec![("f/shop/flag-3".to_owned(), Some(b"newer".to_vec()))]).expect("writes");
    let newer = store.db.get(&key).expect("reads").expect("there");
    let mut changed = newer.to_vec();
    changed[CHECKSUM_BYTES] ^= 1;
    for (wrong, expected) in
        [(None, "missing or older"), (Some(sound.to_vec()), "missing or older"), (Some(changed), "checksum")]
    {
        match wrong {
            None => store.db.remove(&key).expect("removes"),
            Some(value) => store.db.insert(&key, value).expect("inserts"),
        };
        store.db.flush().expect("flushes");
        drop(store);
        let problem = SledStore::open(dir.path(), LIMIT).err().expect("noticed");
        assert!(problem.contains(expected), "{problem}");
        // Put right by hand, past the checks.
        let db = sled::Config::new().path(dir.path()).segment_size(SEGMENT_BYTES).open().expect("opens");
        db.insert(&key, &newer).expect("inserts");
        drop(db);
        store = reopen(dir.path()).0;
    }
}

#[test]
fn another_format_is_not_read() {
    let dir = tempfile::tempdir().expect("a folder");
    let mut store = SledStore::create(dir.path(), LIMIT).expect("creates");
    store.write(&Mark { format: STORE_FORMAT + 1, ..mark(1) }, records(2)).expect("writes");
    drop(store);
    let problem = SledStore::open(dir.path(), LIMIT).err().expect("refused");
    assert!(problem.contains(&format!("format {}", STORE_FORMAT + 1)), "{problem}");

    let dir = tempfile::tempdir().expect("a folder");
    let mut store = SledStore::create(dir.path(), LIMIT).expect("creates");
    store.write(&Mark { entry_format: ENTRY_FORMAT + 1, ..mark(1) }, records(2)).expect("writes");
    drop(store);
    let problem = SledStore::open(dir.path(), LIMIT).err().expect("refused");
    assert!(problem.contains(&format!("up to format {}", ENTRY_FORMAT + 1)), "{problem}");
}
