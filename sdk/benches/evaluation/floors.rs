//! What a program would do that had no flag service: each evaluation written out by hand.

use std::borrow::Cow;
use std::collections::{HashMap, HashSet};

use foldhash::fast::RandomState;

pub(crate) type FloorMap = HashMap<String, FloorFlag, RandomState>;

pub(crate) enum FloorValue<'a> {
    Text(Cow<'a, str>),
    Number(f64),
    Flag(bool),
}

pub(crate) struct FloorContext<'a> {
    pub(crate) key: Cow<'a, str>,
    pub(crate) attributes: Vec<(&'static str, FloorValue<'a>)>,
}

impl FloorContext<'_> {
    pub(crate) fn into_owned(self) -> FloorContext<'static> {
        let owned = |value| match value {
            FloorValue::Text(text) => FloorValue::Text(Cow::Owned(text.into_owned())),
            FloorValue::Number(number) => FloorValue::Number(number),
            FloorValue::Flag(flag) => FloorValue::Flag(flag),
        };
        let attributes = self.attributes.into_iter().map(|(name, value)| (name, owned(value))).collect();
        FloorContext { key: Cow::Owned(self.key.into_owned()), attributes }
    }

    fn get(&self, name: &str) -> Option<&FloorValue<'_>> {
        self.attributes.iter().find(|(known, _)| *known == name).map(|(_, value)| value)
    }

    fn text(&self, name: &str) -> Option<&str> {
        match self.get(name) {
            Some(FloorValue::Text(text)) => Some(text),
            _ => None,
        }
    }

    fn number(&self, name: &str) -> Option<f64> {
        match self.get(name) {
            Some(FloorValue::Number(number)) => Some(*number),
            _ => None,
        }
    }
}

pub(crate) enum FloorFlag {
    Plain { on: bool },
    Split { on: bool, countries: [String; 3], version: [u64; 3], salt: String, threshold: u32 },
    Rules(Box<FloorRules>),
}

pub(crate) struct FloorRules {
    members: HashSet<String, RandomState>,
    countries: Vec<[String; 3]>,
    ages: Vec<f64>,
    suffixes: Vec<String>,
}

impl FloorFlag {
    pub(crate) fn plain() -> Self {
        Self::Plain { on: true }
    }

    pub(crate) fn split(key: &str) -> Self {
        let countries = ["US", "CA", "GB"].map(str::to_owned);
        Self::Split { on: true, countries, version: [2, 3, 0], salt: format!("salt-{key}"), threshold: 50_000 }
    }

    pub(crate) fn rules(members: Vec<String>) -> Self {
        let of_kind = |kind: u32| (1..20).filter(move |number| number % 3 == kind && *number != 10);
        Self::Rules(Box::new(FloorRules {
            members: members.into_iter().collect(),
            countries: of_kind(0).map(|number| ["AA".to_owned(), "BB".to_owned(), format!("C{number}")]).collect(),
            ages: of_kind(1).map(|number| f64::from(100 + number)).collect(),
            suffixes: of_kind(2).map(|number| format!("@example-{number}.org")).collect(),
        }))
    }
}

pub(crate) struct Served {
    pub(crate) value: bool,
    #[allow(dead_code, reason = "an evaluation answers these too")]
    pub(crate) variation: &'static str,
    #[allow(dead_code, reason = "an evaluation answers these too")]
    pub(crate) reason: &'static str,
}

fn served(value: bool, reason: &'static str) -> Option<Served> {
    Some(Served { value, variation: if value { "on" } else { "off" }, reason })
}

pub(crate) fn evaluate(flags: &FloorMap, flag: &str, context: &FloorContext<'_>) -> Option<Served> {
    match flags.get(flag)? {
        FloorFlag::Plain { on } => served(*on, "STATIC"),
        FloorFlag::Split { on: false, .. } => served(false, "DISABLED"),
        FloorFlag::Split { countries, version, salt, threshold, .. } => {
            let country = context.text("country").is_some_and(|country| countries.iter().any(|known| known == country));
            if country && context.text("appVersion").and_then(parse_version).is_some_and(|ours| ours >= *version) {
                let slot = ((u128::from(hash(salt, &context.key)) * 100_000) >> 64) as u32;
                return served(slot >= *threshold, "SPLIT");
            }
            served(false, "DEFAULT")
        }
        FloorFlag::Rules(rules) => served(matches_any(rules, context), "TARGETING_MATCH"),
    }
}

/// The rules by kind of comparison, each attribute fetched once: what one would write for just this flag.
fn matches_any(rules: &FloorRules, context: &FloorContext<'_>) -> bool {
    let age = context.number("age");
    let email = context.text("email");
    let country = context.text("country");
    rules.ages.iter().any(|limit| age.is_some_and(|age| age > *limit))
        || rules.suffixes.iter().any(|suffix| email.is_some_and(|email| email.ends_with(suffix.as_str())))
        || rules.countries.iter().any(|known| country.is_some_and(|country| known.iter().any(|known| known == country)))
        || rules.members.contains(&*context.key)
        || matches!(context.get("beta"), Some(FloorValue::Flag(true)))
}

fn parse_version(text: &str) -> Option<[u64; 3]> {
    let mut parts = text.split('.');
    Some([parts.next()?.parse().ok()?, parts.next()?.parse().ok()?, parts.next()?.parse().ok()?])
}

/// MurmurHash3_x64_128, first half, over salt, zero byte and key in one buffer.
fn hash(salt: &str, key: &str) -> u64 {
    const C1: u64 = 0x87c3_7b91_1142_53d5;
    const C2: u64 = 0x4cf5_ad43_2745_937f;
    let mut buffer = [0_u8; 128];
    buffer[..salt.len()].copy_from_slice(salt.as_bytes());
    let start = salt.len() + 1;
    buffer[start..start + key.len()].copy_from_slice(key.as_bytes());
    let bytes = &buffer[..start + key.len()];
    let (mut h1, mut h2) = (0_u64, 0_u64);
    let (blocks, rest) = bytes.as_chunks::<8>();
    let (pairs, odd) = blocks.as_chunks::<2>();
    for [low, high] in pairs {
        h1 ^= u64::from_le_bytes(*low).wrapping_mul(C1).rotate_left(31).wrapping_mul(C2);
        h1 = h1.rotate_left(27).wrapping_add(h2).wrapping_mul(5).wrapping_add(0x52dc_e729);
        h2 ^= u64::from_le_bytes(*high).wrapping_mul(C2).rotate_left(33).wrapping_mul(C1);
        h2 = h2.rotate_left(31).wrapping_add(h1).wrapping_mul(5).wrapping_add(0x3849_5ab5);
    }
    let mut tail = [0; 8];
    tail[..rest.len()].copy_from_slice(rest);
    let tail = u64::from_le_bytes(tail);
    let (low, high) = if let [low] = odd { (u64::from_le_bytes(*low), tail) } else { (tail, 0) };
    h2 ^= high.wrapping_mul(C2).rotate_left(33).wrapping_mul(C1) ^ bytes.len() as u64;
    h1 ^= low.wrapping_mul(C1).rotate_left(31).wrapping_mul(C2) ^ bytes.len() as u64;
    h1 = h1.wrapping_add(h2);
    h2 = h2.wrapping_add(h1);
    mix(h1).wrapping_add(mix(h2))
}

fn mix(mut k: u64) -> u64 {
    k = (k ^ (k >> 33)).wrapping_mul(0xff51_afd7_ed55_8ccd);
    k = (k ^ (k >> 33)).wrapping_mul(0xc4ce_b9fe_1a85_ec53);
    k ^ (k >> 33)
}
