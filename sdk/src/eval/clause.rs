//! Clauses, compiled: one test of one attribute.

use std::cmp::Ordering;
use std::net::IpAddr;

use foldhash::fast::FixedState;
use hashbrown::HashSet;
use ipnet::IpNet;
use regex::Regex;

use super::instant::Instant;
use super::version::Version;
use crate::model::{AttributeName, AttributeValue, Context};

/// One condition on a context, ready to be tested.
#[derive(Clone, Debug)]
pub(crate) struct Clause {
    /// Name of the attribute; `None` is the targeting key.
    pub(crate) attribute: Option<AttributeName>,
    pub(crate) negate: bool,
    /// Where the attribute is kept once it was looked up, if other clauses of the flag test it too; see [`Memo`].
    pub(crate) memo: u8,
    pub(crate) test: Test,
}

/// How an attribute is tested. Several values of an ordering operator are reduced to the one that decides.
#[derive(Clone, Debug)]
pub(crate) enum Test {
    /// Nothing matches: an operator without values.
    Never,
    Exists,
    /// Up to three strings of up to [`ShortText::MAX_BYTES`] bytes, each in one word.
    ShortStrings([ShortText; 3]),
    Strings(Box<[Box<str>]>),
    /// More than [`LINEAR_STRINGS`] strings.
    StringSet(Box<HashSet<Box<str>, FixedState>>),
    Numbers(Box<[f64]>),
    /// Values of several types.
    Mixed(Box<Mixed>),
    Contains(Box<[Box<str>]>),
    StartsWith(Box<[Box<str>]>),
    EndsWith(Box<[Box<str>]>),
    Matches(Box<[Regex]>),
    Number(Bound, f64),
    /// A release version: no pre-release identifiers on our side.
    Release(Bound, [u64; 3]),
    /// Versions, any of which may match.
    Versions(Box<(Bound, Box<[OwnedVersion]>)>),
    Before(Instant),
    After(Instant),
    IpInRange(Box<[IpNet]>),
    /// Positions of segments in the ruleset.
    Segment(Box<[u32]>),
}

/// Most strings that are searched one by one.
pub(crate) const LINEAR_STRINGS: usize = 8;

/// Which orderings of attribute and value match.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Bound {
    Equal,
    Less,
    LessOrEqual,
    Greater,
    GreaterOrEqual,
}

impl Bound {
    #[inline]
    pub(crate) fn admits(self, order: Ordering) -> bool {
        match self {
            Self::Equal => order.is_eq(),
            Self::Less => order.is_lt(),
            Self::LessOrEqual => order.is_le(),
            Self::Greater => order.is_gt(),
            Self::GreaterOrEqual => order.is_ge(),
        }
    }
}

/// A string of up to seven bytes and its length in one word, compared in one instruction.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct ShortText(u64);

impl ShortText {
    pub(crate) const MAX_BYTES: usize = 7;
    /// Equal to no text: its length byte is impossible.
    pub(crate) const NONE: Self = Self(u64::MAX);

    #[inline]
    pub(crate) fn new(text: &str) -> Self {
        let bytes = text.as_bytes();
        let packed = match bytes.len() {
            0..=3 => bytes.iter().rev().fold(0, |packed, byte| (packed << 8) | u64::from(*byte)),
            4..=7 => match (bytes.first_chunk::<4>(), bytes.last_chunk::<4>()) {
                (Some(first), Some(last)) => {
                    let shift = (bytes.len() - 4) * 8;
                    u64::from(u32::from_le_bytes(*first)) | (u64::from(u32::from_le_bytes(*last)) << shift)
                }
                _ => return Self::NONE,
            },
            // A length byte that no short text has, and that `NONE` has not either.
            _ => return Self(0xfe << 56),
        };
        Self(packed | ((bytes.len() as u64) << 56))
    }
}

/// Values of several types that `in` compares with.
#[derive(Clone, Debug)]
pub(crate) struct Mixed {
    pub(crate) strings: HashSet<Box<str>, FixedState>,
    pub(crate) numbers: Box<[f64]>,
    pub(crate) booleans: Box<[bool]>,
}

/// A version that the clause owns.
#[derive(Clone, Debug)]
pub(crate) struct OwnedVersion {
    pub(crate) numbers: [u64; 3],
    pub(crate) pre_release: Box<str>,
}

impl OwnedVersion {
    fn borrow(&self) -> Version<'_> {
        Version { numbers: self.numbers, pre_release: &self.pre_release }
    }
}

/// Attributes that were looked up in this evaluation, present or not: twenty rules on one attribute look it up once.
pub(crate) type Memo<'a> = [Option<Option<&'a AttributeValue<'a>>>; MEMO];

/// Attributes of a flag that are remembered during one evaluation.
const MEMO: usize = 4;

/// Gives the attributes that several clauses test a place in the [`Memo`].
pub(crate) fn assign_memo(clauses: &mut [Clause]) {
    let mut names: Vec<(AttributeName, u32)> = Vec::new();
    let position = |names: &[(AttributeName, u32)], clause: &Clause| {
        let name = clause.attribute.as_ref()?;
        names.iter().position(|(known, _)| known.as_str() == name.as_str())
    };
    for clause in clauses.iter() {
        match (position(&names, clause), &clause.attribute) {
            (Some(known), _) => names.iter_mut().skip(known).take(1).for_each(|(_, count)| *count += 1),
            // The first few names are enough to find the frequent ones, and bound the search.
            (None, Some(name)) if names.len() < 4 * MEMO => names.push((name.clone(), 1)),
            _ => {}
        }
    }
    names.retain(|(_, count)| *count > 1);
    names.truncate(MEMO);
    for clause in clauses {
        clause.memo = position(&names, clause).and_then(|place| u8::try_from(place).ok()).unwrap_or(u8::MAX);
    }
}

impl Clause {
    /// As [`Clause::test`], looking the attribute up at most once in an evaluation.
    #[inline]
    pub(crate) fn test_once<'a>(&self, context: &'a Context<'a>, memo: &mut Memo<'a>) -> bool {
        match (&self.attribute, memo.get_mut(usize::from(self.memo))) {
            (Some(name), Some(place)) => {
                let value = *place.get_or_insert_with(|| context.look_up(name));
                value.is_some_and(|value| self.test.value(value))
            }
            _ => self.test(context),
        }
    }

    /// Whether the attribute passes the test, before `negate`. Segments are the caller's to test.
    #[inline]
    pub(crate) fn test(&self, context: &Context<'_>) -> bool {
        match &self.attribute {
            Some(name) => context.look_up(name).is_some_and(|value| self.test.value(value)),
            None => context.targeting_key().is_some_and(|key| self.test.text(key)),
        }
    }
}

impl Test {
    /// Whether an attribute's value, or any element of a list, passes.
    #[inline]
    pub(crate) fn value(&self, value: &AttributeValue<'_>) -> bool {
        match value {
            AttributeValue::String(text) => self.text(text),
            AttributeValue::Number(number) => self.number(*number),
            AttributeValue::Bool(boolean) => self.boolean(*boolean),
            AttributeValue::Null => false,
            AttributeValue::Array(elements) => {
                matches!(self, Self::Exists) || elements.iter().any(|element| self.element(element))
            }
            AttributeValue::Object(_) => matches!(self, Self::Exists),
        }
    }

    /// An element of a list; lists and structures within a list match nothing.
    #[inline(never)]
    fn element(&self, value: &AttributeValue<'_>) -> bool {
        match value {
            AttributeValue::String(text) => self.text(text),
            AttributeValue::Number(number) => self.number(*number),
            AttributeValue::Bool(boolean) => self.boolean(*boolean),
            AttributeValue::Null | AttributeValue::Array(_) | AttributeValue::Object(_) => false,
        }
    }

    #[inline]
    pub(crate) fn text(&self, text: &str) -> bool {
        match self {
            Self::ShortStrings(values) => {
                let text = ShortText::new(text);
                values.contains(&text)
            }
            Self::Strings(values) => values.iter().any(|value| **value == *text),
            Self::StringSet(values) => values.contains(text),
            Self::Release(bound, numbers) => Version::parse(text).is_some_and(|version| {
                bound.admits(version.precedence(&Version { numbers: *numbers, pre_release: "" }))
            }),
            Self::Contains(values) => values.iter().any(|value| text.contains(&**value)),
            Self::StartsWith(values) => values.iter().any(|value| text.starts_with(&**value)),
            Self::EndsWith(values) => values.iter().any(|value| text.ends_with(&**value)),
            _ => self.rare_text(text),
        }
    }

    #[inline(never)]
    fn rare_text(&self, text: &str) -> bool {
        match self {
            Self::Exists => true,
            Self::Mixed(values) => values.strings.contains(text),
            Self::Matches(patterns) => patterns.iter().any(|pattern| pattern.is_match(text)),
            Self::Versions(any) => {
                let (bound, versions) = &**any;
                Version::parse(text)
                    .is_some_and(|ours| versions.iter().any(|version| bound.admits(ours.precedence(&version.borrow()))))
            }
            Self::Before(limit) => Instant::parse(text).is_some_and(|instant| instant < *limit),
            Self::After(limit) => Instant::parse(text).is_some_and(|instant| instant > *limit),
            Self::IpInRange(ranges) => text.parse::<IpAddr>().is_ok_and(|address| {
                let address = address.to_canonical();
                ranges.iter().any(|range| range.contains(&address))
            }),
            _ => false,
        }
    }

    #[inline]
    fn number(&self, number: f64) -> bool {
        match self {
            Self::Exists => true,
            Self::Number(bound, limit) => number.partial_cmp(limit).is_some_and(|order| bound.admits(order)),
            Self::Numbers(values) => values.contains(&number),
            Self::Mixed(values) => values.numbers.contains(&number),
            Self::Before(limit) => Instant::from_milliseconds(number).is_some_and(|instant| instant < *limit),
            Self::After(limit) => Instant::from_milliseconds(number).is_some_and(|instant| instant > *limit),
            _ => false,
        }
    }

    #[inline]
    fn boolean(&self, boolean: bool) -> bool {
        match self {
            Self::Exists => true,
            Self::Mixed(values) => values.booleans.contains(&boolean),
            _ => false,
        }
    }
}
