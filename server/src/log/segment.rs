//! The segment files of a log: names, an index in memory, and reading.

use std::collections::VecDeque;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use bytes::Bytes;

use super::damage::Damage;
use super::error::ReadError;
use super::files::{File, Files, create_whole, read_fully};
use super::frame::{FRAME_HEADER_BYTES, FrameHeader, LogId, Records, SEGMENT_HEADER_BYTES, SegmentHeader, Tag};

const SUFFIX: &str = ".log";
/// Distance in bytes between two entries of a segment's index in memory: what a read at most skips over.
const INDEX_INTERVAL_BYTES: u64 = 16 << 10;
/// How much is read ahead, in bytes.
const READ_AHEAD_BYTES: usize = 64 << 10;

/// A record as stored.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Record {
    /// Its sequence number.
    pub seq: u64,
    /// What was appended.
    pub payload: Bytes,
}

/// A segment's file name; names sort as their sequence numbers do.
pub(crate) fn file_name(first_seq: u64) -> String {
    format!("{first_seq:020}{SUFFIX}")
}

/// The first sequence number that a segment's file name states.
pub(crate) fn parse_file_name(name: &str) -> Option<u64> {
    let digits = name.strip_suffix(SUFFIX).filter(|digits| digits.len() == 20)?;
    digits.parse().ok()
}

/// One segment: the sound frames of a file.
#[derive(Debug, Clone)]
pub(crate) struct Segment {
    pub(crate) path: PathBuf,
    pub(crate) first_seq: u64,
    /// The sequence number after its last record.
    pub(crate) next_seq: u64,
    /// End of its last sound frame, in bytes.
    pub(crate) len: u64,
    /// Sparse: first sequence number and offset of a frame, in order.
    index: Vec<(u64, u64)>,
}

impl Segment {
    pub(crate) fn new(path: PathBuf, first_seq: u64) -> Self {
        Self { path, first_seq, next_seq: first_seq, len: SEGMENT_HEADER_BYTES as u64, index: Vec::new() }
    }

    /// Creates the file of a new segment, durable with its header when this returns.
    pub(crate) fn create(
        files: &dyn Files,
        dir: &Path,
        kind: u8,
        id: LogId,
        first_seq: u64,
    ) -> io::Result<(Self, Arc<dyn File>)> {
        let path = dir.join(file_name(first_seq));
        let file = create_whole(files, &path, &SegmentHeader { kind, first_seq, id }.encode())?;
        Ok((Self::new(path, first_seq), file))
    }

    /// Takes note of a frame at the end.
    pub(crate) fn push(&mut self, first_seq: u64, next_seq: u64, frame_len: u64) {
        if self.index.last().is_none_or(|&(_, offset)| self.len - offset >= INDEX_INTERVAL_BYTES) {
            self.index.push((first_seq, self.len));
        }
        self.len += frame_len;
        self.next_seq = next_seq;
    }

    /// Offset of a frame at or before the one with `seq`.
    fn offset_before(&self, seq: u64) -> u64 {
        let after = self.index.partition_point(|&(first_seq, _)| first_seq <= seq);
        after.checked_sub(1).map_or(SEGMENT_HEADER_BYTES as u64, |at| self.index[at].1)
    }
}

/// All segments, oldest first, as far as they are durable.
#[derive(Debug, Default)]
pub(crate) struct Segments {
    pub(crate) all: VecDeque<Segment>,
}

/// Where a read goes on.
struct Place {
    path: PathBuf,
    offset: u64,
    end: u64,
}

impl Segments {
    pub(crate) fn first_seq(&self) -> u64 {
        self.all.front().map_or(1, |segment| segment.first_seq)
    }

    pub(crate) fn next_seq(&self) -> u64 {
        self.all.back().map_or(1, |segment| segment.next_seq)
    }

    pub(crate) fn bytes(&self) -> u64 {
        self.all.iter().map(|segment| segment.len).sum()
    }

    /// How many of the oldest segments hold only records before `seq`. The newest one always stays.
    pub(crate) fn count_before(&self, seq: u64) -> usize {
        let full = self.all.len().saturating_sub(1);
        self.all.iter().take(full).take_while(|segment| segment.next_seq <= seq).count()
    }

    fn place(&self, seq: u64) -> Result<Option<Place>, ReadError> {
        if seq < self.first_seq() {
            return Err(ReadError::Removed { seq, first_seq: self.first_seq() });
        }
        let after = self.all.partition_point(|segment| segment.first_seq <= seq);
        let segment = after.checked_sub(1).and_then(|at| self.all.get(at)).filter(|segment| seq < segment.next_seq);
        Ok(segment.map(|segment| Place {
            path: segment.path.clone(),
            offset: segment.offset_before(seq),
            end: segment.len,
        }))
    }
}

/// Reads records from `seq` on until their payloads exceed `limit_bytes` or the log ends; at least one if there is one.
/// `segments` is locked only to look up places, never while the disk works.
pub(crate) fn read(
    segments: &parking_lot::RwLock<Segments>,
    files: &dyn Files,
    tag: Tag,
    mut seq: u64,
    limit_bytes: usize,
) -> Result<Vec<Record>, ReadError> {
    let mut records = Vec::new();
    let mut bytes = 0;
    loop {
        let Some(place) = segments.read().place(seq)? else {
            return Ok(records);
        };
        let io_error = |source| ReadError::Io { path: place.path.clone(), source };
        let file = match files.open(&place.path) {
            Ok(file) => file,
            // Removed since it was looked up: the second look says so.
            Err(error) if error.kind() == io::ErrorKind::NotFound && seq < segments.read().first_seq() => continue,
            Err(error) => return Err(io_error(error)),
        };
        let mut scanner = Scanner::new(file, place.offset, place.end);
        while scanner.offset < place.end {
            let offset = scanner.offset;
            let wanted = seq;
            let damaged = |what: &str| damaged(&place.path, offset, wanted, what);
            let header = scanner.header(tag).map_err(io_error)?.ok_or_else(|| damaged("no sound frame header"))?;
            if header.next_seq() <= seq {
                scanner.skip(header.frame_len());
                continue;
            }
            let body = scanner.body(&header).map_err(io_error)?.map(Bytes::copy_from_slice);
            let body = body.ok_or_else(|| damaged("the file ends within a frame"))?;
            for range in Records::new(&body).skip_unchecked(seq.saturating_sub(header.first_seq)) {
                let range = range.map_err(|_| damaged("the checksum of a record does not match its content"))?;
                if bytes >= limit_bytes && !records.is_empty() {
                    return Ok(records);
                }
                bytes += range.len();
                records.push(Record { seq, payload: body.slice(range) });
                seq += 1;
            }
            if seq != header.next_seq() {
                return Err(damaged("a frame holds another number of records than it says"));
            }
            scanner.skip(header.frame_len());
        }
    }
}

fn damaged(path: &Path, offset: u64, seq: u64, what: &str) -> ReadError {
    let damage = Damage { path: path.to_owned(), offset, seq: Some(seq), what: what.to_owned(), flipped: None };
    ReadError::Damaged(Box::new(damage))
}

/// Walks the frames of a file with read-ahead.
pub(crate) struct Scanner {
    pub(crate) file: Arc<dyn File>,
    /// Where the next frame starts.
    pub(crate) offset: u64,
    end: u64,
    buffer: Vec<u8>,
    start: usize,
}

impl Scanner {
    /// Starts at `offset`; nothing at or after `end` is looked at.
    pub(crate) fn new(file: Arc<dyn File>, offset: u64, end: u64) -> Self {
        Self { file, offset, end, buffer: Vec::new(), start: 0 }
    }

    /// At least `wanted` bytes from the present offset, fewer at the end.
    pub(crate) fn peek(&mut self, wanted: usize) -> io::Result<&[u8]> {
        let held = self.buffer.len() - self.start;
        if held < wanted {
            self.buffer.drain(..self.start);
            self.start = 0;
            let at = self.offset + held as u64;
            let room = usize::try_from(self.end.saturating_sub(at)).unwrap_or(usize::MAX);
            let more = (wanted - held).max(READ_AHEAD_BYTES).min(room);
            self.buffer.resize(held + more, 0);
            let read = read_fully(&*self.file, at, &mut self.buffer[held..])?;
            self.buffer.truncate(held + read);
        }
        Ok(&self.buffer[self.start..])
    }

    /// The header at the present offset, if there is a sound one.
    pub(crate) fn header(&mut self, tag: Tag) -> io::Result<Option<FrameHeader>> {
        Ok(FrameHeader::decode(self.peek(FRAME_HEADER_BYTES)?, tag))
    }

    /// The body that belongs to the header at the present offset, if it is all there. Its checksum is not compared.
    pub(crate) fn body(&mut self, header: &FrameHeader) -> io::Result<Option<&[u8]>> {
        Ok(self.peek(header.frame_len())?.get(FRAME_HEADER_BYTES..header.frame_len()))
    }

    /// Goes on behind `len` bytes.
    pub(crate) fn skip(&mut self, len: usize) {
        self.offset += len as u64;
        let held = self.buffer.len() - self.start;
        if len <= held {
            self.start += len;
        } else {
            self.buffer.clear();
            self.start = 0;
        }
    }
}
