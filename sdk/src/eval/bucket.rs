//! Bucketing: which of the [`SLOTS`] slots a unit falls into. A frozen contract, specified in `docs/FORMATS.md`.
//!
//! `slot = (h1 × 100,000) >> 64`, where `h1` is the first half of MurmurHash3_x64_128 (Austin Appleby, SMHasher), seed 0, of
//! the salt's bytes, one zero byte, and the unit's bytes. Integers only, so that every platform agrees.

use crate::model::{AttributeValue, SLOTS};

const C1: u64 = 0x87c3_7b91_1142_53d5;
const C2: u64 = 0x4cf5_ad43_2745_937f;

/// Largest magnitude up to which every integer has a double of its own: 2⁵³.
const MAX_EXACT_INTEGER: f64 = 9_007_199_254_740_992.0;

/// The slot of a unit, and the hash it comes from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Bucket {
    /// First half of the 128-bit hash.
    pub hash: u64,
    /// `0..100_000`.
    pub slot: u32,
}

impl Bucket {
    fn of(hash: u64) -> Self {
        let slot = (u128::from(hash) * u128::from(SLOTS)) >> 64;
        Self { hash, slot: slot as u32 }
    }
}

/// The slot of `unit` under `salt`.
#[must_use]
pub fn bucket(salt: &str, unit: &str) -> Bucket {
    Salt::new(salt).bucket(unit.as_bytes())
}

/// A salt and the zero byte after it, hashed ahead as far as whole blocks go.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Salt {
    h1: u64,
    h2: u64,
    /// Bytes past the last whole block, zero-padded.
    rest: [u64; 2],
    len: u32,
}

impl Salt {
    pub(crate) fn new(salt: &str) -> Self {
        let mut bytes = Vec::with_capacity(salt.len() + 1);
        bytes.extend_from_slice(salt.as_bytes());
        bytes.push(0);
        let (mut h1, mut h2) = (0, 0);
        let (blocks, rest) = bytes.as_chunks::<16>();
        for block in blocks {
            (h1, h2) = mix(h1, h2, u128::from_le_bytes(*block));
        }
        let rest = load_partial(rest);
        Self { h1, h2, rest: [rest as u64, (rest >> 64) as u64], len: u32::try_from(bytes.len()).unwrap_or(u32::MAX) }
    }

    /// Hashes what is left of the salt and then the unit, without copying either: the unit's blocks are shifted into place.
    #[inline]
    pub(crate) fn bucket(&self, unit: &[u8]) -> Bucket {
        let [low, high] = self.rest;
        let mut carry = u128::from(low) | (u128::from(high) << 64);
        let carried_bits = (self.len % 16) * 8;
        // Two shifts, because one by 128 bits would overflow when nothing is carried.
        let spill = |block: u128| (block >> 1) >> (127 - carried_bits);
        let (mut h1, mut h2) = (self.h1, self.h2);
        let (blocks, rest) = unit.as_chunks::<16>();
        for block in blocks {
            let block = u128::from_le_bytes(*block);
            (h1, h2) = mix(h1, h2, carry | (block << carried_bits));
            carry = spill(block);
        }
        let last = load_partial(rest);
        carry |= last << carried_bits;
        if carried_bits as usize + rest.len() * 8 >= 128 {
            (h1, h2) = mix(h1, h2, carry);
            carry = spill(last);
        }
        Bucket::of(finish(h1, h2, carry, u64::from(self.len) + unit.len() as u64))
    }
}

/// Up to 15 bytes, little-endian and zero-padded, read in at most two overlapping loads.
#[inline]
fn load_partial(bytes: &[u8]) -> u128 {
    if let (Some(first), Some(last)) = (bytes.first_chunk::<8>(), bytes.last_chunk::<8>()) {
        let shift = (bytes.len() - 8) * 8;
        u128::from(u64::from_le_bytes(*first)) | (u128::from(u64::from_le_bytes(*last)) << shift)
    } else if let (Some(first), Some(last)) = (bytes.first_chunk::<4>(), bytes.last_chunk::<4>()) {
        let shift = (bytes.len() - 4) * 8;
        u128::from(u64::from(u32::from_le_bytes(*first)) | (u64::from(u32::from_le_bytes(*last)) << shift))
    } else {
        bytes.iter().rev().fold(0, |value, byte| (value << 8) | u128::from(*byte))
    }
}

#[inline]
fn mix(mut h1: u64, mut h2: u64, block: u128) -> (u64, u64) {
    h1 ^= (block as u64).wrapping_mul(C1).rotate_left(31).wrapping_mul(C2);
    h1 = h1.rotate_left(27).wrapping_add(h2).wrapping_mul(5).wrapping_add(0x52dc_e729);
    h2 ^= ((block >> 64) as u64).wrapping_mul(C2).rotate_left(33).wrapping_mul(C1);
    h2 = h2.rotate_left(31).wrapping_add(h1).wrapping_mul(5).wrapping_add(0x3849_5ab5);
    (h1, h2)
}

/// Mixes in the zero-padded tail (the padding changes nothing: zero times a constant is zero) and finalises.
#[inline]
fn finish(mut h1: u64, mut h2: u64, tail: u128, len: u64) -> u64 {
    h2 ^= ((tail >> 64) as u64).wrapping_mul(C2).rotate_left(33).wrapping_mul(C1);
    h1 ^= (tail as u64).wrapping_mul(C1).rotate_left(31).wrapping_mul(C2);
    h1 ^= len;
    h2 ^= len;
    h1 = h1.wrapping_add(h2);
    h2 = h2.wrapping_add(h1);
    avalanche(h1).wrapping_add(avalanche(h2))
}

#[inline]
fn avalanche(mut k: u64) -> u64 {
    k ^= k >> 33;
    k = k.wrapping_mul(0xff51_afd7_ed55_8ccd);
    k ^= k >> 33;
    k = k.wrapping_mul(0xc4ce_b9fe_1a85_ec53);
    k ^ (k >> 33)
}

/// What a rollout is bucketed by: a non-empty string, or an integer within ±2⁵³ as decimal text.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Unit<'a> {
    /// A string.
    Text(&'a str),
    /// An integer; a number without a fraction counts as one, and -0.0 as 0.
    Integer(i64),
}

impl<'a> Unit<'a> {
    /// The unit an attribute value stands for, or `None` if a rollout cannot be bucketed by it.
    #[must_use]
    pub fn of(value: &'a AttributeValue<'_>) -> Option<Self> {
        match value {
            AttributeValue::String(text) if !text.is_empty() => Some(Self::Text(text)),
            AttributeValue::Number(number) if number.fract() == 0.0 && number.abs() <= MAX_EXACT_INTEGER => {
                Some(Self::Integer(*number as i64))
            }
            _ => None,
        }
    }

    /// The unit as text: what is hashed, and what an exposure carries.
    #[must_use]
    pub fn to_text(&self) -> std::borrow::Cow<'a, str> {
        match self {
            Self::Text(text) => (*text).into(),
            Self::Integer(number) => number.to_string().into(),
        }
    }

    #[inline]
    pub(crate) fn bucket(&self, salt: &Salt) -> Bucket {
        match self {
            Self::Text(text) => salt.bucket(text.as_bytes()),
            Self::Integer(number) => {
                let mut buffer = [0; 20];
                salt.bucket(decimal(*number, &mut buffer))
            }
        }
    }
}

/// Decimal text of `number`, written from the end of `buffer`.
fn decimal(number: i64, buffer: &mut [u8; 20]) -> &[u8] {
    let mut rest = number.unsigned_abs();
    let mut start = buffer.len();
    for (position, byte) in buffer.iter_mut().enumerate().rev() {
        *byte = b'0' + (rest % 10) as u8;
        start = position;
        rest /= 10;
        if rest == 0 {
            break;
        }
    }
    if number < 0 {
        start = start.saturating_sub(1);
        if let Some(sign) = buffer.get_mut(start) {
            *sign = b'-';
        }
    }
    buffer.get(start..).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use std::io::Cursor;

    use proptest::prelude::*;

    use super::*;

    /// h1 of the crate that the contract is checked against.
    fn reference(salt: &str, unit: &[u8]) -> u64 {
        let bytes = [salt.as_bytes(), &[0], unit].concat();
        murmur3::murmur3_x64_128(&mut Cursor::new(bytes), 0).unwrap() as u64
    }

    proptest! {
        #[test]
        fn hash_equals_the_reference(salt in "\\PC{0,40}", unit in proptest::collection::vec(any::<u8>(), 0..80)) {
            prop_assert_eq!(Salt::new(&salt).bucket(&unit).hash, reference(&salt, &unit));
        }

        #[test]
        fn decimal_equals_the_formatter(number in any::<i64>()) {
            let mut buffer = [0; 20];
            prop_assert_eq!(decimal(number, &mut buffer).to_vec(), number.to_string().into_bytes());
        }
    }

    #[test]
    fn every_length_of_salt_and_unit_equals_the_reference() {
        let text = "0123456789abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ";
        for salt in 0..50 {
            for unit in 0..50 {
                let (salt, unit) = (&text[..salt], &text[62 - unit..]);
                assert_eq!(bucket(salt, unit).hash, reference(salt, unit.as_bytes()), "{salt:?} {unit:?}");
            }
        }
    }

    /// Full MurmurHash3_x64_128 with any seed, from the parts above: what SMHasher's verification needs.
    fn x64_128(bytes: &[u8], seed: u64) -> [u8; 16] {
        let (mut h1, mut h2) = (seed, seed);
        let (blocks, rest) = bytes.as_chunks::<16>();
        for block in blocks {
            (h1, h2) = mix(h1, h2, u128::from_le_bytes(*block));
        }
        let tail = load_partial(rest);
        let first = finish(h1, h2, tail, bytes.len() as u64);
        // `finish` gives the first half only; the second is the first plus the avalanche of its own half.
        h2 ^= ((tail >> 64) as u64).wrapping_mul(C2).rotate_left(33).wrapping_mul(C1) ^ bytes.len() as u64;
        h1 ^= (tail as u64).wrapping_mul(C1).rotate_left(31).wrapping_mul(C2) ^ bytes.len() as u64;
        h2 = h2.wrapping_add(h1.wrapping_add(h2));
        let second = first.wrapping_add(avalanche(h2));
        (u128::from(first) | (u128::from(second) << 64)).to_le_bytes()
    }

    /// SMHasher `VerificationTest`: hashes of the keys [], [0], [0,1], … with seeds 256 - length, hashed together with seed 0.
    fn verification_value(hash: impl Fn(&[u8], u32) -> Vec<u8>) -> u32 {
        let key: Vec<u8> = (0..=255).collect();
        let hashes: Vec<u8> = (0..256_u32).flat_map(|len| hash(&key[..len as usize], 256 - len)).collect();
        u32::from_le_bytes(hash(&hashes, 0)[..4].try_into().unwrap())
    }

    #[test]
    fn verification_values_are_those_of_smhasher() {
        assert_eq!(verification_value(|bytes, seed| x64_128(bytes, seed.into()).to_vec()), 0x6384_BA69);
        let by_crate_128 = |bytes: &[u8], seed| {
            murmur3::murmur3_x64_128(&mut Cursor::new(bytes), seed).unwrap().to_le_bytes().to_vec()
        };
        assert_eq!(verification_value(by_crate_128), 0x6384_BA69);
        let by_crate_32 =
            |bytes: &[u8], seed| murmur3::murmur3_32(&mut Cursor::new(bytes), seed).unwrap().to_le_bytes().to_vec();
        assert_eq!(verification_value(by_crate_32), 0xB0F5_7EE3);
    }

    /// Vectors made by others, where the folder that holds them is named.
    #[test]
    #[allow(clippy::print_stdout, reason = "what was not run is said")]
    fn hash_agrees_with_outside_vectors() {
        #[derive(serde::Deserialize)]
        struct Outside {
            vectors: Vec<Vector>,
        }
        #[derive(serde::Deserialize)]
        struct Vector {
            key_hex: String,
            seed: u32,
            x64_128_hex: String,
        }
        let Some(folder) = std::env::var_os("GUIDON_CONFORMANCE") else {
            println!("GUIDON_CONFORMANCE is not set: the outside MurmurHash3 vectors were not run");
            return;
        };
        let path = std::path::Path::new(&folder).join("murmur3/vectors.json");
        let outside: Outside = serde_json::from_slice(&std::fs::read(&path).unwrap()).unwrap();
        assert!(!outside.vectors.is_empty());
        for Vector { key_hex, seed, x64_128_hex } in outside.vectors {
            let key: Vec<u8> = (0..key_hex.len() / 2)
                .map(|at| u8::from_str_radix(&key_hex[at * 2..at * 2 + 2], 16).unwrap())
                .collect();
            let digest: String = x64_128(&key, seed.into()).iter().map(|byte| format!("{byte:02x}")).collect();
            assert_eq!(digest, x64_128_hex, "key {key_hex}, seed {seed}");
        }
    }

    #[test]
    fn units_are_strings_and_exact_integers() {
        let unit = |value: AttributeValue<'static>| Unit::of(&value).map(|unit| unit.to_text().into_owned());
        assert_eq!(unit("a".into()), Some("a".to_owned()));
        assert_eq!(unit("".into()), None);
        assert_eq!(unit(3.0.into()), Some("3".to_owned()));
        assert_eq!(unit((-0.0).into()), Some("0".to_owned()));
        assert_eq!(unit(3.5.into()), None);
        assert_eq!(unit(9_007_199_254_740_992_i64.into()), Some("9007199254740992".to_owned()));
        assert_eq!(unit((-9_007_199_254_740_992_i64).into()), Some("-9007199254740992".to_owned()));
        assert_eq!(unit(9_007_199_254_740_994_i64.into()), None);
        assert_eq!(unit(f64::NAN.into()), None);
        assert_eq!(unit(f64::INFINITY.into()), None);
        assert_eq!(unit(true.into()), None);
        assert_eq!(unit(vec!["a"].into()), None);
    }
}
