//! The vault's records as bytes, and what is kept of them in memory.
//!
//! ```text
//! log record     role u8, nonce (24), sealed text with its tag (16)
//! text of a part kind u8, id length u16, id, index of this part u32, number of parts u32, bytes of the value
//! text of a deletion  kind u8, id length u16, id
//! text of a key check "guidon vault"
//! ```
//!
//! The parts of a value are consecutive records of one append. Integers are little-endian.

use std::collections::BTreeMap;

use super::Kind;

pub(crate) const ROLE_KEY_CHECK: u8 = 0;
pub(crate) const ROLE_PART: u8 = 1;
pub(crate) const ROLE_DELETION: u8 = 2;
pub(crate) const KEY_CHECK: &[u8] = b"guidon vault";

/// Largest part of a value in one record, in bytes.
pub(crate) const PART_BYTES: usize = 64 << 10;
/// Values up to this many bytes are kept in memory; of larger ones only the place.
const INLINE_BYTES: usize = 512;

/// The text of a part, without its value's bytes, or of a deletion.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Header {
    pub(crate) kind: Kind,
    pub(crate) id: String,
}

impl Header {
    pub(crate) fn encode(kind: Kind, id: &str) -> Vec<u8> {
        let mut text = vec![kind as u8];
        text.extend_from_slice(&(id.len() as u16).to_le_bytes());
        text.extend_from_slice(id.as_bytes());
        text
    }

    /// The header and what follows it.
    pub(crate) fn decode(text: &[u8]) -> Option<(Self, &[u8])> {
        let (&[kind, low, high], rest) = text.split_first_chunk::<3>()?;
        let (id, rest) = rest.split_at_checked(usize::from(u16::from_le_bytes([low, high])))?;
        let id = std::str::from_utf8(id).ok()?.to_owned();
        Some((Self { kind: Kind::from_code(kind)?, id }, rest))
    }
}

/// The texts of all parts of a value; an empty value has one.
pub(crate) fn encode_parts(kind: Kind, id: &str, value: &[u8]) -> Vec<Vec<u8>> {
    let count = value.len().div_ceil(PART_BYTES).max(1) as u32;
    let mut parts = value.chunks(PART_BYTES);
    (0..count)
        .map(|index| {
            let mut text = Header::encode(kind, id);
            text.extend_from_slice(&index.to_le_bytes());
            text.extend_from_slice(&count.to_le_bytes());
            text.extend_from_slice(parts.next().unwrap_or(&[]));
            text
        })
        .collect()
}

/// A part of a value.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Part<'a> {
    pub(crate) header: Header,
    pub(crate) index: u32,
    pub(crate) count: u32,
    pub(crate) bytes: &'a [u8],
}

impl<'a> Part<'a> {
    pub(crate) fn decode(text: &'a [u8]) -> Option<Self> {
        let (header, rest) = Header::decode(text)?;
        let (index, rest) = rest.split_first_chunk()?;
        let (count, bytes) = rest.split_first_chunk()?;
        let (index, count) = (u32::from_le_bytes(*index), u32::from_le_bytes(*count));
        (index < count).then_some(Self { header, index, count, bytes })
    }
}

/// Where a value lies.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Location {
    pub(crate) first_seq: u64,
    pub(crate) parts: u32,
    /// Length of the value in bytes.
    pub(crate) len: usize,
    /// The value itself, if it is small.
    pub(crate) inline: Option<Vec<u8>>,
}

impl Location {
    pub(crate) fn new(first_seq: u64, parts: u32, value: &[u8]) -> Self {
        let inline = (value.len() <= INLINE_BYTES).then(|| value.to_vec());
        Self { first_seq, parts, len: value.len(), inline }
    }
}

/// What the vault holds.
#[derive(Debug, Default)]
pub(crate) struct Index {
    values: BTreeMap<Kind, BTreeMap<String, Location>>,
}

impl Index {
    pub(crate) fn get(&self, kind: Kind, id: &str) -> Option<&Location> {
        self.values.get(&kind)?.get(id)
    }

    pub(crate) fn insert(&mut self, kind: Kind, id: String, location: Location) {
        self.values.entry(kind).or_default().insert(id, location);
    }

    pub(crate) fn remove(&mut self, kind: Kind, id: &str) -> bool {
        self.values.get_mut(&kind).is_some_and(|ids| ids.remove(id).is_some())
    }

    pub(crate) fn ids(&self, kind: Kind) -> Vec<String> {
        self.values.get(&kind).map(|ids| ids.keys().cloned().collect()).unwrap_or_default()
    }

    pub(crate) fn all(&self) -> Vec<(Kind, String)> {
        self.values.iter().flat_map(|(&kind, ids)| ids.keys().map(move |id| (kind, id.clone()))).collect()
    }

    /// About how many bytes the live values take in the log.
    pub(crate) fn live_bytes(&self, overhead_per_part: usize) -> u64 {
        let ids = self.values.values().flatten();
        ids.map(|(id, location)| (location.len + location.parts as usize * (overhead_per_part + id.len())) as u64).sum()
    }
}
