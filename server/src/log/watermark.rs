//! The high-water mark: how far the log was acknowledged, kept beside the segments.
//!
//! The file `watermark` is three sectors of 512 bytes. Two are written in turn and synced: when the log is opened,
//! when nothing was written for a while, when segments are removed and when the log is closed. The third, the hint, is
//! written without a sync after each commit and before its acknowledgement: it costs no wait, outlives a killed process
//! (the kernel has it) and often a power cut. All three are written only after the records they speak of were synced,
//! so each that reads back with a right checksum is true.

use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use super::damage::Damage;
use super::error::{OpenError, at};
use super::files::{File, Files, create_whole, read_fully};
use super::frame::{FORMAT_VERSION, LogId, array, u32_at, u64_at};

pub(crate) const WATERMARK_FILE: &str = "watermark";
const MAGIC: &[u8; 8] = b"GUIDMARK";
const SLOT_BYTES: usize = 512;
const SYNCED_SLOTS: u64 = 2;
const HINT_SLOT: u64 = 2;
const FILE_BYTES: usize = 3 * SLOT_BYTES;
const ZERO_UNTIL: usize = SLOT_BYTES - 4;

/// How far the log goes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Mark {
    /// First record kept.
    pub(crate) first_seq: u64,
    /// Every record before this one was durable.
    pub(crate) next_seq: u64,
}

#[derive(Debug, Clone, Copy)]
struct Slot {
    generation: u64,
    mark: Mark,
    kind: u8,
    id: LogId,
}

impl Slot {
    fn encode(&self) -> [u8; SLOT_BYTES] {
        let mut bytes = [0; SLOT_BYTES];
        bytes[..8].copy_from_slice(MAGIC);
        bytes[8..10].copy_from_slice(&FORMAT_VERSION.to_le_bytes());
        bytes[10] = self.kind;
        bytes[16..32].copy_from_slice(&self.id);
        bytes[32..40].copy_from_slice(&self.generation.to_le_bytes());
        bytes[40..48].copy_from_slice(&self.mark.first_seq.to_le_bytes());
        bytes[48..56].copy_from_slice(&self.mark.next_seq.to_le_bytes());
        let checksum = crc32c::crc32c(&bytes[..ZERO_UNTIL]);
        bytes[ZERO_UNTIL..].copy_from_slice(&checksum.to_le_bytes());
        bytes
    }

    fn decode(bytes: &[u8]) -> Option<(u16, Self)> {
        let sound = bytes.len() >= SLOT_BYTES
            && &bytes[..8] == MAGIC
            && crc32c::crc32c(&bytes[..ZERO_UNTIL]) == u32_at(bytes, ZERO_UNTIL);
        sound.then(|| {
            let mark = Mark { first_seq: u64_at(bytes, 40), next_seq: u64_at(bytes, 48) };
            let slot = Self { generation: u64_at(bytes, 32), mark, kind: bytes[10], id: array(bytes, 16) };
            (u16::from_le_bytes(array(bytes, 8)), slot)
        })
    }
}

/// What the file said when it was opened.
#[derive(Debug, Clone)]
pub(crate) struct Evidence {
    pub(crate) path: PathBuf,
    pub(crate) kind: u8,
    pub(crate) id: LogId,
    /// The furthest of all sound slots.
    pub(crate) mark: Mark,
    /// The furthest of the two synced ones.
    pub(crate) synced: Mark,
    /// Offset of a synced slot that is not sound: then the mark may be lower than it was.
    pub(crate) damaged_slot: Option<u64>,
    /// Whether the unsynced hint is not sound, which a power cut may do.
    pub(crate) torn_hint: bool,
    generation: u64,
}

/// The file, open for writing.
#[derive(Debug)]
pub(crate) struct Watermark {
    file: Arc<dyn File>,
    kind: u8,
    id: LogId,
    generation: u64,
    mark: Mark,
    synced: Mark,
}

fn path_in(dir: &Path) -> PathBuf {
    dir.join(WATERMARK_FILE)
}

/// Creates the file of a log, in place of the one there may be.
pub(crate) fn create(files: &dyn Files, dir: &Path, kind: u8, id: LogId, mark: Mark) -> io::Result<()> {
    let mut bytes = Vec::with_capacity(FILE_BYTES);
    for generation in 0..=SYNCED_SLOTS {
        bytes.extend_from_slice(&Slot { generation, mark, kind, id }.encode());
    }
    create_whole(files, &path_in(dir), &bytes).map(drop)
}

/// Reads what the file of a log says.
pub(crate) fn read(files: &dyn Files, dir: &Path) -> Result<Evidence, OpenError> {
    let path = path_in(dir);
    let mut bytes = [0; FILE_BYTES];
    let file = match files.open(&path) {
        Ok(file) => file,
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            return Err(damage(&path, 0, "the file is missing, though there are segments beside it").into());
        }
        Err(error) => return Err(at(&path)(error)),
    };
    let len = read_fully(&*file, 0, &mut bytes).map_err(at(&path))?;
    let mut slots = Vec::new();
    let (mut damaged_slot, mut torn_hint) = (None, false);
    for index in 0..=HINT_SLOT {
        let start = index as usize * SLOT_BYTES;
        match Slot::decode(bytes[..len].get(start..).unwrap_or(&[])) {
            Some((FORMAT_VERSION, slot)) => slots.push((index, slot)),
            Some((version, _)) => {
                let what = format!("log format version {version}, this program knows {FORMAT_VERSION}");
                return Err(OpenError::Foreign { path, what });
            }
            // A hint that a power cut tore says nothing; the synced slots carry the proof.
            None if index == HINT_SLOT => torn_hint = true,
            None => damaged_slot = damaged_slot.or(Some(start as u64)),
        }
    }
    Ok(Evidence { damaged_slot, torn_hint, ..evidence(path, &slots)? })
}

fn evidence(path: PathBuf, slots: &[(u64, Slot)]) -> Result<Evidence, OpenError> {
    let synced = |slot: &&(u64, Slot)| slot.0 < HINT_SLOT;
    let Some(&(_, first)) = slots.iter().find(synced) else {
        return Err(damage(&path, 0, "neither of its two synced copies is readable").into());
    };
    if slots.iter().any(|(_, slot)| (slot.id, slot.kind) != (first.id, first.kind)) {
        return Err(damage(&path, 0, "its copies belong to different logs").into());
    }
    let furthest = |marks: &mut dyn Iterator<Item = Mark>| {
        marks.fold(first.mark, |so_far, mark| Mark {
            first_seq: so_far.first_seq.max(mark.first_seq),
            next_seq: so_far.next_seq.max(mark.next_seq),
        })
    };
    Ok(Evidence {
        kind: first.kind,
        id: first.id,
        mark: furthest(&mut slots.iter().map(|(_, slot)| slot.mark)),
        synced: furthest(&mut slots.iter().filter(synced).map(|(_, slot)| slot.mark)),
        damaged_slot: None,
        torn_hint: false,
        generation: slots.iter().map(|(_, slot)| slot.generation).max().unwrap_or(0),
        path,
    })
}

fn damage(path: &Path, offset: u64, what: &str) -> Damage {
    Damage { path: path.to_owned(), offset, seq: None, what: what.to_owned(), flipped: None }
}

impl Evidence {
    /// Stands for a file that is lost, with what the segments say.
    pub(crate) fn of_segments(dir: &Path, kind: u8, id: LogId, mark: Mark) -> Self {
        let path = path_in(dir);
        Self { path, kind, id, mark, synced: mark, damaged_slot: None, torn_hint: false, generation: 0 }
    }

    /// Opens the file for writing.
    pub(crate) fn open(&self, files: &dyn Files) -> io::Result<Watermark> {
        // A damaged slot is the next one to be written: the sound one stays until there are two again.
        let skip = self.damaged_slot.is_some_and(|slot| slot / SLOT_BYTES as u64 == self.generation % SYNCED_SLOTS);
        Ok(Watermark {
            file: files.open(&self.path)?,
            kind: self.kind,
            id: self.id,
            generation: self.generation + u64::from(skip),
            mark: self.mark,
            synced: self.synced,
        })
    }
}

impl Watermark {
    /// Notes, without a sync, that everything before `next_seq` is durable.
    pub(crate) fn hint(&mut self, next_seq: u64) -> io::Result<()> {
        self.mark.next_seq = next_seq;
        self.write(HINT_SLOT)
    }

    /// Whether [`Watermark::sync`] has something to do.
    pub(crate) fn is_behind(&self) -> bool {
        self.mark != self.synced
    }

    /// Makes the mark durable.
    pub(crate) fn sync(&mut self) -> io::Result<()> {
        if self.is_behind() {
            self.rewrite(self.mark)?;
        }
        Ok(())
    }

    /// Writes and syncs `mark` into the older of the two synced slots.
    pub(crate) fn rewrite(&mut self, mark: Mark) -> io::Result<()> {
        self.mark = mark;
        let slot = (self.generation + 1) % SYNCED_SLOTS;
        self.write(slot)?;
        self.file.sync_data()?;
        self.synced = mark;
        Ok(())
    }

    pub(crate) fn mark(&self) -> Mark {
        self.mark
    }

    fn write(&mut self, slot: u64) -> io::Result<()> {
        if slot != HINT_SLOT {
            self.generation += 1;
        }
        let bytes = Slot { generation: self.generation, mark: self.mark, kind: self.kind, id: self.id }.encode();
        self.file.write_all_at(slot * SLOT_BYTES as u64, &bytes)
    }
}
