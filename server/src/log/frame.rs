//! The bytes of a log: segment header, frames and records. All integers are little-endian; checksums are CRC32C.
//!
//! ```text
//! segment header (64)   magic "GUIDLOG1", version u16, kind u8, 5 zero bytes, first sequence number u64,
//!                       log id (16), 20 zero bytes, checksum u32 of the 60 bytes before
//! frame header (28)     magic "GFRM", body length u32, first sequence number u64, record count u32,
//!                       body checksum u32, checksum u32 of the 24 bytes before
//! record (8 + n)        payload length u32, checksum u32 of length and payload, payload
//! ```
//!
//! A frame is what one write and one sync made durable: the records of all writers that came together. The frame's two
//! checksums start from `Tag`, a value drawn from the log id, so that bytes of another log, or a frame quoted in a
//! payload, are not taken for a frame of this one.

use bytes::Bytes;

use super::Kind;

/// Version of the layout in this file. A log of another version is refused, never guessed at.
pub const FORMAT_VERSION: u16 = 1;
/// Largest payload of one record, in bytes.
pub const MAX_RECORD_BYTES: usize = 16 << 20;
/// Largest sum of a group's records (payloads and their 8-byte headers), in bytes: a group is in one frame.
pub const MAX_GROUP_BYTES: usize = 40 << 20;

pub(crate) const SEGMENT_HEADER_BYTES: usize = 64;
pub(crate) const FRAME_HEADER_BYTES: usize = 28;
pub(crate) const RECORD_HEADER_BYTES: usize = 8;
pub(crate) const MAX_FRAME_BYTES: usize = FRAME_HEADER_BYTES + MAX_GROUP_BYTES;

const SEGMENT_MAGIC: &[u8; 8] = b"GUIDLOG1";
pub(crate) const FRAME_MAGIC: &[u8; 4] = b"GFRM";

/// Identity of a log, drawn at random when it is created.
pub type LogId = [u8; 16];

/// First value of a log's frame checksums.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Tag(u32);

impl Tag {
    pub(crate) fn of(id: &LogId) -> Self {
        Self(crc32c::crc32c(id))
    }

    pub(crate) fn checksum(self, bytes: &[u8]) -> u32 {
        crc32c::crc32c_append(self.0, bytes)
    }
}

/// The `N` bytes at `at`, or zeros past the end. The callers have checked the length.
pub(crate) fn array<const N: usize>(bytes: &[u8], at: usize) -> [u8; N] {
    bytes.get(at..at + N).and_then(|slice| slice.try_into().ok()).unwrap_or([0; N])
}

pub(crate) fn u32_at(bytes: &[u8], at: usize) -> u32 {
    u32::from_le_bytes(array(bytes, at))
}

pub(crate) fn u64_at(bytes: &[u8], at: usize) -> u64 {
    u64::from_le_bytes(array(bytes, at))
}

/// What a segment file says of itself.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct SegmentHeader {
    pub(crate) kind: u8,
    pub(crate) first_seq: u64,
    pub(crate) id: LogId,
}

/// Why a segment header was not accepted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum BadSegmentHeader {
    /// Too short, wrong magic or wrong checksum.
    Damaged,
    /// Sound, but written by a version this one does not know.
    Version(u16),
}

impl SegmentHeader {
    pub(crate) fn encode(&self) -> [u8; SEGMENT_HEADER_BYTES] {
        let mut bytes = [0; SEGMENT_HEADER_BYTES];
        bytes[..8].copy_from_slice(SEGMENT_MAGIC);
        bytes[8..10].copy_from_slice(&FORMAT_VERSION.to_le_bytes());
        bytes[10] = self.kind;
        bytes[16..24].copy_from_slice(&self.first_seq.to_le_bytes());
        bytes[24..40].copy_from_slice(&self.id);
        let checksum = crc32c::crc32c(&bytes[..60]);
        bytes[60..].copy_from_slice(&checksum.to_le_bytes());
        bytes
    }

    pub(crate) fn decode(bytes: &[u8]) -> Result<Self, BadSegmentHeader> {
        if bytes.len() < SEGMENT_HEADER_BYTES
            || &bytes[..8] != SEGMENT_MAGIC
            || crc32c::crc32c(&bytes[..60]) != u32_at(bytes, 60)
        {
            return Err(BadSegmentHeader::Damaged);
        }
        match u16::from_le_bytes(array(bytes, 8)) {
            FORMAT_VERSION => Ok(Self { kind: bytes[10], first_seq: u64_at(bytes, 16), id: array(bytes, 24) }),
            other => Err(BadSegmentHeader::Version(other)),
        }
    }
}

/// What a frame says of its body.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct FrameHeader {
    pub(crate) body_len: u32,
    pub(crate) first_seq: u64,
    pub(crate) count: u32,
    pub(crate) body_checksum: u32,
}

impl FrameHeader {
    fn encode(&self, tag: Tag) -> [u8; FRAME_HEADER_BYTES] {
        let mut bytes = [0; FRAME_HEADER_BYTES];
        bytes[..4].copy_from_slice(FRAME_MAGIC);
        bytes[4..8].copy_from_slice(&self.body_len.to_le_bytes());
        bytes[8..16].copy_from_slice(&self.first_seq.to_le_bytes());
        bytes[16..20].copy_from_slice(&self.count.to_le_bytes());
        bytes[20..24].copy_from_slice(&self.body_checksum.to_le_bytes());
        let checksum = tag.checksum(&bytes[..24]);
        bytes[24..].copy_from_slice(&checksum.to_le_bytes());
        bytes
    }

    /// The header at the start of `bytes`, if it is whole and its checksum is right.
    pub(crate) fn decode(bytes: &[u8], tag: Tag) -> Option<Self> {
        if bytes.len() < FRAME_HEADER_BYTES
            || &bytes[..4] != FRAME_MAGIC
            || tag.checksum(&bytes[..24]) != u32_at(bytes, 24)
        {
            return None;
        }
        let header = Self {
            body_len: u32_at(bytes, 4),
            first_seq: u64_at(bytes, 8),
            count: u32_at(bytes, 16),
            body_checksum: u32_at(bytes, 20),
        };
        let sound = header.body_len as usize <= MAX_GROUP_BYTES
            && header.count > 0
            && header.first_seq.checked_add(u64::from(header.count)).is_some();
        sound.then_some(header)
    }

    /// Length of the whole frame in bytes.
    pub(crate) fn frame_len(&self) -> usize {
        FRAME_HEADER_BYTES + self.body_len as usize
    }

    /// The sequence number after the frame's last record.
    pub(crate) fn next_seq(&self) -> u64 {
        self.first_seq.saturating_add(u64::from(self.count))
    }
}

/// One frame of `records`, the first of which gets `first_seq`.
pub(crate) fn encode_frame<'a>(tag: Tag, first_seq: u64, records: impl Iterator<Item = &'a Bytes>) -> Vec<u8> {
    let mut frame = vec![0; FRAME_HEADER_BYTES];
    let mut count = 0;
    for payload in records {
        let len = (payload.len() as u32).to_le_bytes();
        frame.extend_from_slice(&len);
        frame.extend_from_slice(&record_checksum(len, payload).to_le_bytes());
        frame.extend_from_slice(payload);
        count += 1;
    }
    let body = &frame[FRAME_HEADER_BYTES..];
    let header = FrameHeader { body_len: body.len() as u32, first_seq, count, body_checksum: tag.checksum(body) };
    frame[..FRAME_HEADER_BYTES].copy_from_slice(&header.encode(tag));
    frame
}

fn record_checksum(len: [u8; 4], payload: &[u8]) -> u32 {
    crc32c::crc32c_append(crc32c::crc32c(&len), payload)
}

/// Walks the records of a frame's body, checking each one's checksum.
pub(crate) struct Records<'a> {
    body: &'a [u8],
    at: usize,
}

/// Offset within the body of a record that is not sound.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct BadRecord(pub(crate) usize);

impl<'a> Records<'a> {
    pub(crate) fn new(body: &'a [u8]) -> Self {
        Self { body, at: 0 }
    }

    /// Goes on behind `count` records without looking at more than their lengths. A wrong length shows in the checksum
    /// of the record that it leads to.
    pub(crate) fn skip_unchecked(mut self, count: u64) -> Self {
        for _ in 0..count {
            let len = RECORD_HEADER_BYTES.saturating_add(u32_at(self.body, self.at) as usize);
            self.at = self.at.saturating_add(len).min(self.body.len());
        }
        self
    }
}

impl Iterator for Records<'_> {
    /// Where the payload lies in the body.
    type Item = Result<std::ops::Range<usize>, BadRecord>;

    fn next(&mut self) -> Option<Self::Item> {
        let start = self.at;
        if start >= self.body.len() {
            return None;
        }
        self.at = self.body.len();
        let payload_at = start + RECORD_HEADER_BYTES;
        let range = payload_at..payload_at.saturating_add(u32_at(self.body, start) as usize);
        let sound = self
            .body
            .get(range.clone())
            .is_some_and(|payload| record_checksum(array(self.body, start), payload) == u32_at(self.body, start + 4));
        if !sound {
            return Some(Err(BadRecord(start)));
        }
        self.at = range.end;
        Some(Ok(range))
    }
}

/// Whether a stored kind byte is the wanted one, with a name for messages.
pub(crate) fn kind_name(kind: u8) -> String {
    Kind::ALL
        .iter()
        .find(|known| known.code() == kind)
        .map_or_else(|| format!("kind {kind}"), |known| known.to_string())
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn tag() -> Tag {
        Tag::of(&[7; 16])
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(64))]

        #[test]
        fn a_frame_reads_back_and_no_single_flip_goes_unnoticed(
            payloads in prop::collection::vec(prop::collection::vec(any::<u8>(), 0..80), 1..8),
            first_seq in 1_u64..1 << 60,
            at in any::<prop::sample::Index>(),
            bit in 0_u8..8,
        ) {
            let records: Vec<Bytes> = payloads.iter().cloned().map(Bytes::from).collect();
            let frame = encode_frame(tag(), first_seq, records.iter());
            let header = FrameHeader::decode(&frame, tag()).expect("sound header");
            prop_assert_eq!(header.next_seq(), first_seq + records.len() as u64);
            let body = &frame[FRAME_HEADER_BYTES..];
            let read: Vec<Vec<u8>> = Records::new(body).map(|range| body[range.unwrap()].to_vec()).collect();
            prop_assert_eq!(read, payloads);

            let mut flipped = frame.clone();
            flipped[at.index(frame.len())] ^= 1 << bit;
            let sound = FrameHeader::decode(&flipped, tag())
                .is_some_and(|header| tag().checksum(&flipped[FRAME_HEADER_BYTES..]) == header.body_checksum);
            prop_assert!(!sound);
        }

        #[test]
        fn bytes_of_no_frame_are_refused_without_a_panic(bytes in prop::collection::vec(any::<u8>(), 0..100)) {
            prop_assert!(FrameHeader::decode(&bytes, tag()).is_none());
            prop_assert_eq!(SegmentHeader::decode(&bytes), Err(BadSegmentHeader::Damaged));
            prop_assert!(Records::new(&bytes).flatten().all(|range| range.end <= bytes.len()));
        }
    }

    #[test]
    fn another_log_s_frame_is_not_taken_for_one_of_this() {
        let frame = encode_frame(Tag::of(&[1; 16]), 1, [Bytes::from_static(b"x")].iter());
        assert_eq!(FrameHeader::decode(&frame, tag()), None);
    }

    #[test]
    fn a_segment_header_names_another_version() {
        let header = SegmentHeader { kind: 1, first_seq: 9, id: [3; 16] };
        let mut bytes = header.encode();
        assert_eq!(SegmentHeader::decode(&bytes), Ok(header));
        bytes[8] = 2;
        let checksum = crc32c::crc32c(&bytes[..60]);
        bytes[60..].copy_from_slice(&checksum.to_le_bytes());
        assert_eq!(SegmentHeader::decode(&bytes), Err(BadSegmentHeader::Version(2)));
    }
}
