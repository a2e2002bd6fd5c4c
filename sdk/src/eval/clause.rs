//! Clauses, compiled: one test of one attribute.

use std::cmp::Ordering;
use std::net::IpAddr;

use foldhash::fast::FixedState;
use hashbrown::HashSet;
use ipnet::IpNet;
use regex::Regex;

use super::instant::Instant;
use super::symbols::{NameId, Names};
use super::version::Version;
use crate::model::{AttributeValue, Context};

/// One condition on a context, ready to be tested.
#[derive(Clone, Debug)]
pub(crate) struct Clause {
    /// The attribute; `None` is the targeting key.
    pub(crate) attribute: Option<NameId>,
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
    Strings(Texts),
    /// More than [`LINEAR_STRINGS`] strings.
    StringSet(Box<HashSet<Box<str>, FixedState>>),
    Numbers(Box<[f64]>),
    /// Whether false and whether true is accepted.
    Booleans([bool; 2]),
    /// Values of several types.
    Mixed(Box<Mixed>),
    Contains(Texts),
    StartsWith(Texts),
    EndsWith(Texts),
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

/// One string or several, any of which may match.
#[derive(Clone, Debug)]
pub(crate) enum Texts {
    One(Box<str>),
    Many(Box<[Box<str>]>),
}

impl Texts {
    #[inline]
    fn any(&self, matches: impl Fn(&str) -> bool) -> bool {
        match self {
            Self::One(text) => matches(text),
            Self::Many(texts) => texts.iter().any(|text| matches(text)),
        }
    }
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
    /// As in [`Test::Booleans`].
    pub(crate) booleans: [bool; 2],
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

/// Attributes that were looked up in this evaluation: twenty rules on one attribute look it up once.
pub(crate) type Memo<'a> = [Option<&'a AttributeValue<'a>>; MEMO];

/// Attributes of a flag that are remembered during one evaluation.
const MEMO: usize = 4;

/// What an attribute is that is not there.
static ABSENT: AttributeValue<'static> = AttributeValue::Null;

/// Gives the attributes that several clauses test a place in the [`Memo`].
pub(crate) fn assign_memo(clauses: &mut [Clause]) {
    let mut names: Vec<(NameId, u32)> = Vec::new();
    let position =
        |names: &[(NameId, u32)], clause: &Clause| names.iter().position(|(known, _)| Some(*known) == clause.attribute);
    for clause in clauses.iter() {
        match (position(&names, clause), clause.attribute) {
            (Some(known), _) => names.iter_mut().skip(known).take(1).for_each(|(_, count)| *count += 1),
            // The first few names are enough to find the frequent ones, and bound the search.
            (None, Some(name)) if names.len() < 4 * MEMO => names.push((name, 1)),
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
    #[inline(always)]
    pub(crate) fn test_once<'a>(&self, context: &'a Context<'a>, names: &Names, memo: &mut Memo<'a>) -> bool {
        let Some(name) = self.attribute else { return self.test_key(context) };
        let value = match memo.get_mut(usize::from(self.memo)) {
            Some(place) => *place.get_or_insert_with(|| look_up(context, names, name)),
            None => look_up(context, names, name),
        };
        self.test.value(value)
    }

    /// Whether the attribute passes the test, before `negate`. Segments are the caller's to test.
    pub(crate) fn test(&self, context: &Context<'_>, names: &Names) -> bool {
        match self.attribute {
            Some(name) => self.test.value(look_up(context, names, name)),
            None => self.test_key(context),
        }
    }

    #[inline(never)]
    fn test_key(&self, context: &Context<'_>) -> bool {
        context.targeting_key().is_some_and(|key| self.test.text(key))
    }
}

#[inline]
fn look_up<'a>(context: &'a Context<'_>, names: &Names, name: NameId) -> &'a AttributeValue<'a> {
    names.get(name).and_then(|name| context.get(name)).unwrap_or(&ABSENT)
}

/// As `text.ends_with(end)`, seldom calling `memcmp`: the last byte tells most texts apart.
#[inline]
fn ends_with(text: &str, end: &str) -> bool {
    end.is_empty() || (text.as_bytes().last() == end.as_bytes().last() && text.ends_with(end))
}

impl Test {
    /// Whether an attribute's value, or any element of a list, passes.
    #[inline(always)]
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

    #[inline(always)]
    pub(crate) fn text(&self, text: &str) -> bool {
        match self {
            Self::ShortStrings(values) => values.contains(&ShortText::new(text)),
            Self::Strings(values) => values.any(|value| value == text),
            Self::Release(bound, numbers) => Version::parse(text).is_some_and(|version| {
                bound.admits(version.precedence(&Version { numbers: *numbers, pre_release: "" }))
            }),
            Self::StartsWith(values) => values.any(|value| text.starts_with(value)),
            Self::EndsWith(values) => values.any(|value| ends_with(text, value)),
            _ => self.rare_text(text),
        }
    }

    #[inline(never)]
    fn rare_text(&self, text: &str) -> bool {
        match self {
            Self::Exists => true,
            Self::StringSet(values) => values.contains(text),
            Self::Contains(values) => values.any(|value| text.contains(value)),
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

    #[inline(always)]
    fn number(&self, number: f64) -> bool {
        match self {
            Self::Number(bound, limit) => number.partial_cmp(limit).is_some_and(|order| bound.admits(order)),
            _ => self.rare_number(number),
        }
    }

    #[inline(never)]
    fn rare_number(&self, number: f64) -> bool {
        match self {
            Self::Exists => true,
            Self::Numbers(values) => values.contains(&number),
            Self::Mixed(values) => values.numbers.contains(&number),
            Self::Before(limit) => Instant::from_milliseconds(number).is_some_and(|instant| instant < *limit),
            Self::After(limit) => Instant::from_milliseconds(number).is_some_and(|instant| instant > *limit),
            _ => false,
        }
    }

    #[inline]
    fn boolean(&self, boolean: bool) -> bool {
        let accepts = |[no, yes]: [bool; 2]| if boolean { yes } else { no };
        match self {
            Self::Exists => true,
            Self::Booleans(accepted) => accepts(*accepted),
            Self::Mixed(values) => accepts(values.booleans),
            _ => false,
        }
    }
}
