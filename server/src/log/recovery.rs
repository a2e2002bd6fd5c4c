//! Opening a log: every frame is checked, and what does not check out is either a torn tail or damage.
//!
//! The rule, argued in `docs/decisions/0003-torn-tail.md`. A frame is one write, and the next one is written only after
//! the one before was synced. Bytes that are not a sound frame are cut off as a **torn tail** only if all of this holds:
//!
//! 1. they are in the last segment, and no sound frame header with a later sequence number follows them;
//! 2. nothing shows that the record was acknowledged: neither the watermark (its two synced copies or its hint) nor the
//!    number that the caller passes ([`Options::acknowledged`](super::Options)), and both synced copies are readable;
//! 3. they have the shape that a lost write leaves: the file ends before the frame does, or at least one 512-byte sector
//!    of the frame is all zeros, and no single changed byte explains the wrong checksum.
//!
//! Everything else is [`Damage`]: the log does not open and nothing is changed.

use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use super::Kind;
use super::damage::{Damage, FlippedByte, Tail, classify, flipped_body, flipped_header};
use super::error::{OpenError, at};
use super::files::{File, Files, TEMPORARY_SUFFIX, read_fully};
use super::frame::{
    BadSegmentHeader, FORMAT_VERSION, FRAME_HEADER_BYTES, FRAME_MAGIC, FrameHeader, MAX_FRAME_BYTES, Records,
    SEGMENT_HEADER_BYTES, SegmentHeader, Tag, kind_name,
};
use super::segment::{Scanner, Segment, file_name, parse_file_name};
use super::watermark::{self, Evidence, WATERMARK_FILE};

/// A record as it is met while a log is opened.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct RecordRef<'a> {
    /// Its sequence number.
    pub seq: u64,
    /// What was appended.
    pub payload: &'a [u8],
    /// The segment file it is in.
    pub path: &'a Path,
    /// Where in the file the payload starts, in bytes.
    pub offset: u64,
}

/// A write that a power cut or a kill tore, never acknowledged.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TornTail {
    /// The segment file.
    pub path: PathBuf,
    /// Where the sound part of the file ends, in bytes.
    pub offset: u64,
    /// How many bytes lie behind it.
    pub bytes: u64,
}

/// What a log holds and what was found when it was opened.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Recovered {
    /// First record kept. 1 unless segments were removed.
    pub first_seq: u64,
    /// Sequence number of the next record; `first_seq` in an empty log.
    pub next_seq: u64,
    /// The torn tail that was cut off, to be reported.
    pub torn: Option<TornTail>,
    /// Further things an operator should know, as sentences.
    pub notes: Vec<String>,
}

/// The result of looking at a log's folder without changing it.
#[derive(Debug)]
pub(crate) struct Scan {
    pub(crate) evidence: Evidence,
    pub(crate) segments: Vec<Segment>,
    /// Files to remove: half-created ones, and segments that were being removed.
    pub(crate) leftovers: Vec<PathBuf>,
    pub(crate) torn: Option<TornTail>,
    /// Offset of the last sound frame in the last segment.
    pub(crate) last_frame: Option<u64>,
    pub(crate) notes: Vec<String>,
}

impl Scan {
    pub(crate) fn next_seq(&self) -> u64 {
        self.segments.last().map_or(self.evidence.mark.first_seq, |segment| segment.next_seq)
    }

    pub(crate) fn recovered(&self) -> Recovered {
        Recovered {
            first_seq: self.evidence.mark.first_seq,
            next_seq: self.next_seq(),
            torn: self.torn.clone(),
            notes: self.notes.clone(),
        }
    }
}

/// Whether a folder holds no log yet. Half-created files do not count.
pub(crate) fn is_new(files: &dyn Files, dir: &Path) -> Result<bool, OpenError> {
    let names = files.list(dir).map_err(at(dir))?;
    Ok(!names.iter().any(|name| name == WATERMARK_FILE || parse_file_name(name).is_some()))
}

/// Checks a whole log, visiting its records in order, and changes nothing.
pub(crate) fn scan(
    files: &dyn Files,
    dir: &Path,
    kind: Kind,
    acknowledged: Option<u64>,
    visit: &mut dyn FnMut(RecordRef<'_>),
) -> Result<Scan, OpenError> {
    let evidence = watermark::read(files, dir)?;
    if evidence.kind != kind.code() {
        return Err(other_kind(&evidence.path, evidence.kind, kind));
    }
    let mut scan =
        Scan { segments: Vec::new(), leftovers: Vec::new(), torn: None, last_frame: None, notes: Vec::new(), evidence };
    scan.note_watermark();
    let starts = scan.sort_names(files, dir)?;
    let proven = scan.evidence.mark.next_seq.max(acknowledged.map_or(0, |seq| seq.saturating_add(1)));
    for (index, &first_seq) in starts.iter().enumerate() {
        let expected = scan.next_seq();
        let path = dir.join(file_name(first_seq));
        if first_seq != expected {
            let what =
                format!("the segment before it is missing: records {expected} to {}", first_seq.saturating_sub(1));
            return Err(damage(&path, 0, Some(expected), what).into());
        }
        let is_last = index + 1 == starts.len();
        scan.segment(files, path, first_seq, is_last, proven, visit)?;
    }
    if scan.next_seq() < proven {
        let (path, offset) =
            scan.segments.last().map_or((dir.to_owned(), 0), |segment| (segment.path.clone(), segment.len));
        let what = format!("the log ends here, but records up to {} were acknowledged", proven - 1);
        return Err(damage(&path, offset, Some(scan.next_seq()), what).into());
    }
    Ok(scan)
}

pub(crate) fn damage(path: &Path, offset: u64, seq: Option<u64>, what: impl Into<String>) -> Damage {
    Damage { path: path.to_owned(), offset, seq, what: what.into(), flipped: None }
}

fn other_kind(path: &Path, found: u8, kind: Kind) -> OpenError {
    let what = format!("holds the log of {}, expected {kind}: check the configured folder", kind_name(found));
    OpenError::Foreign { path: path.to_owned(), what }
}

impl Scan {
    fn note_watermark(&mut self) {
        let path = self.evidence.path.display();
        if let Some(offset) = self.evidence.damaged_slot {
            self.notes
                .push(format!("{path}: the copy at byte {offset} is damaged; the other one is sound and was used"));
        }
        if self.evidence.torn_hint {
            self.notes.push(format!("{path}: the unsynced hint at byte 1024 is damaged and was not used"));
        }
    }

    /// The first sequence numbers of the segments to read; the other files are leftovers or not the log's.
    fn sort_names(&mut self, files: &dyn Files, dir: &Path) -> Result<Vec<u64>, OpenError> {
        let mut starts = Vec::new();
        for name in files.list(dir).map_err(at(dir))? {
            match parse_file_name(&name) {
                Some(first_seq) if first_seq >= self.evidence.mark.first_seq => starts.push(first_seq),
                Some(_) => self.leftovers.push(dir.join(name)),
                None if name.ends_with(TEMPORARY_SUFFIX) => self.leftovers.push(dir.join(name)),
                None => {}
            }
        }
        starts.sort_unstable();
        Ok(starts)
    }

    fn segment(
        &mut self,
        files: &dyn Files,
        path: PathBuf,
        first_seq: u64,
        is_last: bool,
        proven: u64,
        visit: &mut dyn FnMut(RecordRef<'_>),
    ) -> Result<(), OpenError> {
        let file = files.open(&path).map_err(at(&path))?;
        self.check_header(&*file, &path, first_seq)?;
        let file_len = file.len().map_err(at(&path))?;
        let mut segment = Segment::new(path, first_seq);
        let mut scanner = Scanner::new(file, segment.len, file_len);
        let tag = Tag::of(&self.evidence.id);
        self.last_frame = None;
        while scanner.offset < file_len {
            let offset = scanner.offset;
            let Some(header) =
                next_frame(&mut scanner, &segment.path, tag, segment.next_seq, visit).map_err(at(&segment.path))?
            else {
                let torn = self.judge(&mut scanner, &segment, file_len, is_last, proven)?;
                self.torn = Some(torn);
                break;
            };
            self.last_frame = Some(offset);
            segment.push(header.first_seq, header.next_seq(), header.frame_len() as u64);
        }
        self.segments.push(segment);
        Ok(())
    }

    fn check_header(&self, file: &dyn File, path: &Path, first_seq: u64) -> Result<(), OpenError> {
        let mut bytes = [0; SEGMENT_HEADER_BYTES];
        let len = read_fully(file, 0, &mut bytes).map_err(at(path))?;
        let header = match SegmentHeader::decode(&bytes[..len]) {
            Ok(header) => header,
            Err(BadSegmentHeader::Damaged) => {
                return Err(damage(path, 0, Some(first_seq), "the segment's header is not sound").into());
            }
            Err(BadSegmentHeader::Version(version)) => {
                let what = format!("log format version {version}, this program knows {FORMAT_VERSION}");
                return Err(OpenError::Foreign { path: path.to_owned(), what });
            }
        };
        if header.id != self.evidence.id || header.kind != self.evidence.kind {
            let what = "a segment of another log: it does not belong in this folder".to_owned();
            return Err(OpenError::Foreign { path: path.to_owned(), what });
        }
        if header.first_seq != first_seq {
            let what = format!("the segment starts with record {}, its name says {first_seq}", header.first_seq);
            return Err(damage(path, 0, Some(first_seq), what).into());
        }
        Ok(())
    }

    /// Decides whether the bytes at the scanner's offset, which are not the frame that belongs there, are a torn tail.
    fn judge(
        &self,
        scanner: &mut Scanner,
        segment: &Segment,
        file_len: u64,
        is_last: bool,
        proven: u64,
    ) -> Result<TornTail, OpenError> {
        let (offset, seq) = (scanner.offset, segment.next_seq);
        let tag = Tag::of(&self.evidence.id);
        let tail = scanner.peek(MAX_FRAME_BYTES + 1).map_err(at(&segment.path))?.to_vec();
        let mut found = damage(&segment.path, offset, Some(seq), describe(&tail, tag, seq));
        found.flipped = flipped(&tail, tag, offset);
        let file = Arc::clone(&scanner.file);
        let follows = follows(&*file, offset + 1, file_len, tag, seq).map_err(at(&segment.path))?;
        let reason = if !is_last {
            Some("later segments follow, so it was acknowledged".to_owned())
        } else if let Some(later) = follows {
            Some(format!("record {later} follows at a later place, so it was acknowledged"))
        } else if seq < proven {
            Some(format!("records up to {} were acknowledged", proven - 1))
        } else if let Some(slot) = self.evidence.damaged_slot {
            Some(format!("whether it was acknowledged cannot be told: {} is damaged at byte {slot}", WATERMARK_FILE))
        } else {
            match classify(&tail, offset, tag) {
                Tail::Torn => None,
                Tail::Flipped { .. } => Some("one changed byte explains it, a torn write does not".to_owned()),
                Tail::Unclear => Some("all its sectors were written, so a torn write does not explain it".to_owned()),
            }
        };
        match reason {
            None => Ok(TornTail { path: segment.path.clone(), offset, bytes: file_len - offset }),
            Some(reason) => {
                found.what = format!("{}; {reason}", found.what);
                Err(found.into())
            }
        }
    }
}

/// Checks the frame at the scanner's offset, visits its records and goes on behind it; `None` if it is not sound.
pub(crate) fn next_frame(
    scanner: &mut Scanner,
    path: &Path,
    tag: Tag,
    expected_seq: u64,
    visit: &mut dyn FnMut(RecordRef<'_>),
) -> io::Result<Option<FrameHeader>> {
    let Some(header) = scanner.header(tag)?.filter(|header| header.first_seq == expected_seq) else {
        return Ok(None);
    };
    let body_at = scanner.offset + FRAME_HEADER_BYTES as u64;
    let Some(body) = scanner.body(&header)?.filter(|body| tag.checksum(body) == header.body_checksum) else {
        return Ok(None);
    };
    if Records::new(body).try_fold(0, |count, record| record.map(|_| count + 1)) != Ok(header.count) {
        return Ok(None);
    }
    for (seq, range) in (header.first_seq..).zip(Records::new(body).flatten()) {
        visit(RecordRef { seq, path, offset: body_at + range.start as u64, payload: &body[range] });
    }
    scanner.skip(header.frame_len());
    Ok(Some(header))
}

fn describe(tail: &[u8], tag: Tag, seq: u64) -> String {
    match FrameHeader::decode(tail, tag) {
        None if tail.len() < FRAME_HEADER_BYTES => "the file ends within a frame header".to_owned(),
        None => "no sound frame header where one belongs".to_owned(),
        Some(header) if header.first_seq != seq => {
            format!("a frame that starts with record {} where record {seq} belongs", header.first_seq)
        }
        Some(header) if tail.len() < header.frame_len() => "the file ends within a frame".to_owned(),
        Some(_) => "the checksum of a frame does not match its content".to_owned(),
    }
}

fn flipped(tail: &[u8], tag: Tag, offset: u64) -> Option<FlippedByte> {
    let (at, xor) = match FrameHeader::decode(tail, tag) {
        None => flipped_header(tail, tag)?,
        Some(header) => flipped_body(&header, tail.get(FRAME_HEADER_BYTES..header.frame_len())?, tag)?,
    };
    let found = tail[at];
    Some(FlippedByte { offset: offset + at as u64, found, written: found ^ xor })
}

/// Sequence number of the first sound frame header at or after `from` that belongs behind `seq`.
fn follows(file: &dyn File, from: u64, end: u64, tag: Tag, seq: u64) -> io::Result<Option<u64>> {
    const CHUNK_BYTES: usize = 1 << 20;
    let mut chunk = vec![0; CHUNK_BYTES + FRAME_HEADER_BYTES];
    let mut offset = from;
    while offset < end {
        let len = read_fully(file, offset, &mut chunk)?;
        let bytes = &chunk[..len];
        for at in 0..len.min(CHUNK_BYTES) {
            if bytes[at..].starts_with(FRAME_MAGIC)
                && let Some(header) = FrameHeader::decode(&bytes[at..], tag)
                && header.first_seq > seq
            {
                return Ok(Some(header.first_seq));
            }
        }
        if len == 0 {
            break;
        }
        offset += CHUNK_BYTES as u64;
    }
    Ok(None)
}
