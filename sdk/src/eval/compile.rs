//! Definitions, compiled: references resolved, values parsed, salts hashed ahead.

use std::fmt::Display;
use std::net::IpAddr;
use std::sync::Arc;

use foldhash::fast::FixedState;
use hashbrown::{HashMap, HashSet};
use ipnet::{IpNet, Ipv4Net};
use regex::{Regex, RegexBuilder};
use serde_json::Value;
use smol_str::SmolStr;

use super::bucket::Salt;
use super::clause::{Bound, Clause, LINEAR_STRINGS, Mixed, OwnedVersion, ShortText, Test, Texts, assign_memo};
use super::instant::Instant;
use super::measures::Measures;
use super::version::Version;
use super::{allocation, symbols::Symbols};
use crate::model::{self, EnvironmentFlag, FlagKind, Op, ProvenanceKind, Rollout, Serve, SlotRange, TARGETING_KEY};

/// Largest compiled form of one regular expression, in bytes.
pub const MAX_REGEX_BYTES: usize = 256 * 1024;

/// Largest lazily built automaton of one regular expression, in bytes; beyond it matching goes on, slower.
pub const MAX_REGEX_CACHE_BYTES: usize = 256 * 1024;

/// Deepest nesting of one regular expression.
pub const MAX_REGEX_NESTING: u32 = 64;

/// A flag ready to be evaluated.
#[derive(Clone, Debug)]
pub(crate) struct CompiledFlag {
    pub(crate) kind: FlagKind,
    pub(crate) client_side: bool,
    pub(crate) on: bool,
    /// Whether nothing but the fallthrough decides.
    pub(crate) bare: bool,
    pub(crate) off: u16,
    /// The variation a failed AI path falls back to, if there is one.
    pub(crate) baseline: Option<u16>,
    pub(crate) fallthrough: Outlet,
    pub(crate) variations: Arc<[Variation]>,
    pub(crate) rules: Box<[Rule]>,
    /// The clauses of all rules, one after another: one block of memory instead of one per rule.
    pub(crate) clauses: Box<[Clause]>,
    pub(crate) rollouts: Box<[CompiledRollout]>,
    pub(crate) gates: Option<Box<Gates>>,
    /// What a release that is under way asks to be measured.
    pub(crate) measures: Option<Arc<Measures>>,
}

/// A value that a flag can serve.
#[derive(Clone, Debug, PartialEq)]
pub struct Variation {
    pub(crate) key: Box<str>,
    pub(crate) value: Value,
    pub(crate) by: Option<ProvenanceKind>,
}

impl From<model::Variation> for Variation {
    fn from(variation: model::Variation) -> Self {
        let by = variation.provenance.map(|provenance| provenance.by);
        Self { key: variation.key.into(), value: variation.value, by }
    }
}

impl Variation {
    /// Whether this is what compiling `variation` gives.
    pub(crate) fn is(&self, variation: &model::Variation) -> bool {
        *self.key == *variation.key
            && self.value == variation.value
            && self.by == variation.provenance.as_ref().map(|provenance| provenance.by)
    }

    /// Key of the variation within its flag.
    #[must_use]
    pub fn key(&self) -> &str {
        &self.key
    }

    /// The value.
    #[must_use]
    pub fn value(&self) -> &Value {
        &self.value
    }

    /// Who wrote the code behind the variation, if it says so.
    #[must_use]
    pub fn provenance(&self) -> Option<ProvenanceKind> {
        self.by
    }

    /// Whether an AI model wrote the code behind the variation.
    #[must_use]
    pub fn is_ai(&self) -> bool {
        self.by == Some(ProvenanceKind::Ai)
    }
}

/// What stands before the rules.
#[derive(Clone, Debug)]
pub(crate) struct Gates {
    pub(crate) prerequisites: Box<[Prerequisite]>,
    pub(crate) targets: HashMap<Box<str>, u16, FixedState>,
}

#[derive(Clone, Debug)]
pub(crate) struct Prerequisite {
    /// Position of the other flag in the ruleset.
    pub(crate) flag: u32,
    pub(crate) variation: Box<str>,
}

#[derive(Clone, Debug)]
pub(crate) struct Rule {
    pub(crate) id: SmolStr,
    /// How many of the flag's clauses are this rule's.
    pub(crate) clauses: u32,
    pub(crate) serve: Outlet,
}

/// What is given out: a position among the flag's variations or rollouts.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Outlet {
    Variation(u16),
    Rollout(u16),
}

#[derive(Clone, Debug)]
pub(crate) struct CompiledRollout {
    pub(crate) salt: Salt,
    /// `None` is the targeting key.
    pub(crate) bucket_by: Option<Box<str>>,
    pub(crate) ranges: Ranges,
}

/// Where each range ends and who owns it.
#[derive(Clone, Debug)]
pub(crate) enum Ranges {
    /// Up to four, beside the rest of the rollout.
    Few {
        ends: [u32; 4],
        owners: [u16; 4],
    },
    Many(Box<[(u32, u16)]>),
}

impl Ranges {
    /// Owner of `slot`.
    #[inline]
    pub(crate) fn owner(&self, slot: u32) -> Option<u16> {
        match self {
            Self::Few { ends, owners } => {
                ends.iter().zip(owners).find(|(end, _)| slot < **end).map(|(_, owner)| *owner)
            }
            Self::Many(ranges) => ranges.get(ranges.partition_point(|(end, _)| *end <= slot)).map(|(_, owner)| *owner),
        }
    }

    /// First slot, end and owner of the range that holds `slot`.
    pub(crate) fn range(&self, slot: u32) -> Option<(u32, u32, u16)> {
        let ranges: Vec<(u32, u16)> = match self {
            Self::Few { ends, owners } => ends.iter().copied().zip(owners.iter().copied()).collect(),
            Self::Many(ranges) => ranges.to_vec(),
        };
        let mut start = 0;
        ranges.into_iter().find_map(|(end, owner)| {
            let range = (start, end, owner);
            start = end;
            (slot < end).then_some(range)
        })
    }
}

/// What keeps a definition from being compiled, and where in it (RFC 6901, relative to the definition).
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Fault {
    pub(crate) pointer: String,
    pub(crate) code: &'static str,
    pub(crate) message: String,
}

impl Fault {
    pub(crate) fn new(pointer: impl Into<String>, code: &'static str, message: impl Display) -> Self {
        Self { pointer: pointer.into(), code, message: message.to_string() }
    }
}

pub(crate) fn compile_flag(mut flag: EnvironmentFlag, symbols: &mut Symbols<'_>) -> Result<CompiledFlag, Fault> {
    let asked = flag.release.take().map(|asked| (asked, serde_json::to_vec(&flag).unwrap_or_default()));
    let config = flag.config;
    if let Some(index) = flag.variations.iter().position(|variation| !flag.kind.admits(&variation.value)) {
        let message = format!("the value is not of the flag's kind, {}", flag.kind.as_str());
        return Err(Fault::new(format!("/variations/{index}/value"), "wrongKind", message));
    }
    let variations = symbols.variations(flag.variations);
    let mut builder = FlagBuilder { variations: &variations, rollouts: Vec::new() };
    let off = builder.variation(&config.off_variation, || "/config/offVariation".to_owned())?;
    let gates = builder.gates(&config.prerequisites, &config.targets, symbols)?;
    let mut clauses = Vec::with_capacity(config.rules.iter().map(|rule| rule.clauses.len()).sum());
    let mut rules = Vec::with_capacity(config.rules.len());
    for (index, rule) in config.rules.into_iter().enumerate() {
        let at = || format!("/config/rules/{index}");
        let count = rule.clauses.len() as u32;
        if count == 0 {
            return Err(Fault::new(format!("{}/clauses", at()), "empty", "a rule needs at least one clause"));
        }
        compile_clauses(&rule.clauses, symbols, &mut clauses).map_err(|fault| fault.under(&at()))?;
        let serve = builder.serve(&rule.serve, || format!("{}/serve", at()))?;
        rules.push(Rule { id: rule.id.into(), clauses: count, serve });
    }
    let fallthrough = builder.serve(&config.fallthrough, || "/config/fallthrough".to_owned())?;
    let rollouts = builder.rollouts.into();
    if clauses.len() > 1 {
        assign_memo(&mut clauses);
    }
    let human = variations.iter().position(|variation| variation.by == Some(ProvenanceKind::Human));
    let off_is_ai = variations.get(usize::from(off)).is_none_or(Variation::is_ai);
    Ok(CompiledFlag {
        kind: flag.kind,
        client_side: flag.client_side,
        on: config.on,
        bare: rules.is_empty() && gates.is_none(),
        off,
        baseline: human.and_then(|index| u16::try_from(index).ok()).or((!off_is_ai).then_some(off)),
        fallthrough,
        rules: rules.into(),
        clauses: clauses.into(),
        rollouts,
        gates,
        measures: asked.map(|(asked, rest)| Arc::new(Measures::new(&flag.key, asked, &variations, &rest))),
        variations,
    })
}

impl Fault {
    fn under(mut self, parent: &str) -> Self {
        self.pointer.insert_str(0, parent);
        self
    }
}

struct FlagBuilder<'a> {
    variations: &'a [Variation],
    rollouts: Vec<CompiledRollout>,
}

impl FlagBuilder<'_> {
    fn variation(&self, key: &str, at: impl FnOnce() -> String) -> Result<u16, Fault> {
        self.variations
            .iter()
            .position(|variation| *variation.key == *key)
            .and_then(|index| u16::try_from(index).ok())
            .ok_or_else(|| Fault::new(at(), "unknownVariation", format!("the flag has no variation \"{key}\"")))
    }

    fn gates(
        &self,
        prerequisites: &[model::Prerequisite],
        targets: &[model::Target],
        symbols: &mut Symbols<'_>,
    ) -> Result<Option<Box<Gates>>, Fault> {
        let prerequisites: Box<[Prerequisite]> = prerequisites
            .iter()
            .map(|needed| Prerequisite {
                flag: symbols.flag(&needed.flag),
                variation: needed.variation.as_str().into(),
            })
            .collect();
        let mut by_key: HashMap<Box<str>, u16, FixedState> = HashMap::default();
        for (index, target) in targets.iter().enumerate() {
            let variation = self.variation(&target.variation, || format!("/config/targets/{index}/variation"))?;
            for key in &target.keys {
                // The first target that names a key wins.
                by_key.entry(key.as_str().into()).or_insert(variation);
            }
        }
        let none = prerequisites.is_empty() && by_key.is_empty();
        Ok((!none).then(|| Box::new(Gates { prerequisites, targets: by_key })))
    }

    fn serve(&mut self, serve: &Serve, at: impl Fn() -> String) -> Result<Outlet, Fault> {
        match serve {
            Serve::Variation(key) => Ok(Outlet::Variation(self.variation(key, || format!("{}/variation", at()))?)),
            Serve::Rollout(rollout) => {
                let rollout = self.rollout(rollout, || format!("{}/rollout", at()))?;
                let position = u16::try_from(self.rollouts.len())
                    .map_err(|_| Fault::new(at(), "tooMany", "a flag may have 65536 rollouts"))?;
                self.rollouts.push(rollout);
                Ok(Outlet::Rollout(position))
            }
        }
    }

    fn rollout(&self, rollout: &Rollout, at: impl Fn() -> String) -> Result<CompiledRollout, Fault> {
        let computed: Vec<SlotRange>;
        let ranges = if rollout.allocation.is_empty() {
            computed = allocation::reallocate(&[], &rollout.weights);
            &computed
        } else {
            &rollout.allocation
        };
        allocation::check_contiguous(ranges)
            .map_err(|error| Fault::new(format!("{}/allocation", at()), "badAllocation", error))?;
        let mut owners = Vec::with_capacity(ranges.len());
        for (index, range) in ranges.iter().enumerate() {
            owners.push((range.end, self.variation(&range.variation, || format!("{}/allocation/{index}/0", at()))?));
        }
        let ranges = if owners.len() <= 4 {
            let (mut ends, mut few) = ([0; 4], [0; 4]);
            for (index, (end, owner)) in owners.into_iter().enumerate() {
                if let (Some(place), Some(held)) = (ends.get_mut(index), few.get_mut(index)) {
                    (*place, *held) = (end, owner);
                }
            }
            Ranges::Few { ends, owners: few }
        } else {
            Ranges::Many(owners.into())
        };
        let bucket_by = (rollout.bucket_by != TARGETING_KEY).then(|| rollout.bucket_by.as_str().into());
        Ok(CompiledRollout { salt: Salt::new(&rollout.salt), bucket_by, ranges })
    }
}

/// Compiles clauses onto `compiled`; the fault's pointer starts with `/clauses`.
pub(crate) fn compile_clauses(
    clauses: &[model::Clause],
    symbols: &mut Symbols<'_>,
    compiled: &mut Vec<Clause>,
) -> Result<(), Fault> {
    for (index, clause) in clauses.iter().enumerate() {
        let test = match clause.op {
            Op::Segment => segment_test(clause, symbols),
            _ => compile_test(clause),
        };
        let test = test.map_err(|faults| {
            let first = faults.into_iter().next();
            first
                .unwrap_or_else(|| Fault::new("", "badClause", "the clause cannot be read"))
                .under(&format!("/clauses/{index}"))
        })?;
        let attribute =
            (clause.attribute != TARGETING_KEY && clause.op != Op::Segment).then(|| symbols.name(&clause.attribute));
        compiled.push(Clause { attribute, negate: clause.negate, memo: u8::MAX, test });
    }
    Ok(())
}

fn segment_test(clause: &model::Clause, symbols: &mut Symbols<'_>) -> Result<Test, Vec<Fault>> {
    let keys = strings(clause)?;
    let mut positions = Vec::with_capacity(keys.len());
    for key in keys {
        match symbols.segment(key) {
            Some(position) => positions.push(position),
            None => {
                return Err(vec![Fault::new("/op", "nestedSegment", "a segment's rules may not refer to segments")]);
            }
        }
    }
    Ok(Test::Segment(positions.into()))
}

/// Compiles what an attribute is compared with. Every value that does not fit its operator is a fault.
pub(crate) fn compile_test(clause: &model::Clause) -> Result<Test, Vec<Fault>> {
    if clause.op == Op::Exists {
        return Ok(Test::Exists);
    }
    if clause.values.is_empty() {
        return Ok(Test::Never);
    }
    match clause.op {
        Op::In => in_values(clause),
        Op::Contains => Ok(Test::Contains(owned(strings(clause)?))),
        Op::StartsWith => Ok(Test::StartsWith(owned(strings(clause)?))),
        Op::EndsWith => Ok(Test::EndsWith(owned(strings(clause)?))),
        Op::Matches => Ok(Test::Matches(each(clause, regex)?.into())),
        Op::LessThan => numbers(clause, Bound::Less),
        Op::LessThanOrEqual => numbers(clause, Bound::LessOrEqual),
        Op::GreaterThan => numbers(clause, Bound::Greater),
        Op::GreaterThanOrEqual => numbers(clause, Bound::GreaterOrEqual),
        Op::SemverEqual => versions(clause, Bound::Equal),
        Op::SemverLessThan => versions(clause, Bound::Less),
        Op::SemverLessThanOrEqual => versions(clause, Bound::LessOrEqual),
        Op::SemverGreaterThan => versions(clause, Bound::Greater),
        Op::SemverGreaterThanOrEqual => versions(clause, Bound::GreaterOrEqual),
        Op::Before => Ok(each(clause, instant)?.into_iter().max().map_or(Test::Never, Test::Before)),
        Op::After => Ok(each(clause, instant)?.into_iter().min().map_or(Test::Never, Test::After)),
        Op::IpInRange => Ok(Test::IpInRange(each(clause, ip_range)?.into())),
        // Both are dealt with before: `exists` has no values, and segments are resolved against the ruleset.
        Op::Exists | Op::Segment => Ok(Test::Never),
    }
}

/// Reads every value with `read`, or reports every value that cannot be read.
fn each<'a, T>(
    clause: &'a model::Clause,
    read: impl Fn(&'a Value) -> Result<T, (&'static str, String)>,
) -> Result<Vec<T>, Vec<Fault>> {
    let (mut read_values, mut faults) = (Vec::with_capacity(clause.values.len()), Vec::new());
    for (index, value) in clause.values.iter().enumerate() {
        match read(value) {
            Ok(value) => read_values.push(value),
            Err((code, message)) => faults.push(Fault::new(format!("/values/{index}"), code, message)),
        }
    }
    if faults.is_empty() { Ok(read_values) } else { Err(faults) }
}

fn text(value: &Value) -> Result<&str, (&'static str, String)> {
    value.as_str().ok_or_else(|| ("wrongType", "this operator takes strings".to_owned()))
}

fn strings(clause: &model::Clause) -> Result<Vec<&str>, Vec<Fault>> {
    each(clause, text)
}

fn owned(values: Vec<&str>) -> Texts {
    match values.as_slice() {
        [one] => Texts::One((*one).into()),
        _ => Texts::Many(values.into_iter().map(Into::into).collect()),
    }
}

fn in_values(clause: &model::Clause) -> Result<Test, Vec<Fault>> {
    each(clause, |value| match value {
        Value::String(_) | Value::Number(_) | Value::Bool(_) => Ok(()),
        _ => Err(("wrongType", "\"in\" takes strings, numbers and booleans".to_owned())),
    })?;
    let strings: Vec<&str> = clause.values.iter().filter_map(Value::as_str).collect();
    let numbers: Box<[f64]> = clause.values.iter().filter_map(Value::as_f64).collect();
    if strings.len() == clause.values.len() {
        return Ok(in_strings(strings));
    }
    if numbers.len() == clause.values.len() {
        return Ok(Test::Numbers(numbers));
    }
    let accepts = |wanted| clause.values.iter().filter_map(Value::as_bool).any(|value| value == wanted);
    let booleans = [accepts(false), accepts(true)];
    if strings.is_empty() && numbers.is_empty() {
        return Ok(Test::Booleans(booleans));
    }
    Ok(Test::Mixed(Box::new(Mixed { strings: strings.into_iter().map(Into::into).collect(), numbers, booleans })))
}

fn in_strings(strings: Vec<&str>) -> Test {
    if strings.len() <= 3 && strings.iter().all(|text| text.len() <= ShortText::MAX_BYTES) {
        let mut short = [ShortText::NONE; 3];
        for (place, text) in short.iter_mut().zip(strings) {
            *place = ShortText::new(text);
        }
        return Test::ShortStrings(short);
    }
    if strings.len() <= LINEAR_STRINGS {
        return Test::Strings(owned(strings));
    }
    let set: HashSet<Box<str>, FixedState> = strings.into_iter().map(Into::into).collect();
    Test::StringSet(Box::new(set))
}

/// Of several limits the one that lets most through decides.
fn numbers(clause: &model::Clause, bound: Bound) -> Result<Test, Vec<Fault>> {
    let limits =
        each(clause, |value| value.as_f64().ok_or_else(|| ("wrongType", "this operator takes numbers".to_owned())))?;
    let widest = match bound {
        Bound::Less | Bound::LessOrEqual => limits.into_iter().reduce(f64::max),
        _ => limits.into_iter().reduce(f64::min),
    };
    Ok(widest.map_or(Test::Never, |limit| Test::Number(bound, limit)))
}

fn versions(clause: &model::Clause, bound: Bound) -> Result<Test, Vec<Fault>> {
    let versions = each(clause, |value| {
        Version::parse(text(value)?).ok_or_else(|| {
            (
                "badVersion",
                "not a semantic version; write it as 2.3.0 (a leading v and missing minor or patch are allowed)"
                    .to_owned(),
            )
        })
    })?;
    let widest = match bound {
        Bound::Equal if versions.len() > 1 => None,
        Bound::Less | Bound::LessOrEqual => versions.iter().copied().max_by(Version::precedence),
        _ => versions.iter().copied().min_by(Version::precedence),
    };
    if let Some(release) = widest.filter(|version| version.pre_release.is_empty()) {
        return Ok(Test::Release(bound, release.numbers));
    }
    let versions = widest.map_or(versions, |widest| vec![widest]);
    let owned = versions
        .into_iter()
        .map(|version| OwnedVersion { numbers: version.numbers, pre_release: version.pre_release.into() });
    Ok(Test::Versions(Box::new((bound, owned.collect()))))
}

fn regex(value: &Value) -> Result<Regex, (&'static str, String)> {
    RegexBuilder::new(text(value)?)
        .size_limit(MAX_REGEX_BYTES)
        .dfa_size_limit(MAX_REGEX_CACHE_BYTES)
        .nest_limit(MAX_REGEX_NESTING)
        .build()
        .map_err(|error| ("badRegex", format!("not a regular expression this operator takes: {error}")))
}

fn instant(value: &Value) -> Result<Instant, (&'static str, String)> {
    Instant::parse(text(value)?)
        .ok_or_else(|| ("badTime", "not an RFC 3339 time; write it as 2026-11-22T20:36:50Z".to_owned()))
}

/// A CIDR range, or one address. IPv4-mapped IPv6 counts as IPv4.
fn ip_range(value: &Value) -> Result<IpNet, (&'static str, String)> {
    let text = text(value)?;
    let range = match text.parse::<IpNet>() {
        Ok(range) => Some(range),
        Err(_) => text.parse::<IpAddr>().ok().map(|address| IpNet::from(address.to_canonical())),
    };
    match range {
        Some(IpNet::V6(range)) => {
            let mapped = range.addr().to_ipv4_mapped().filter(|_| range.prefix_len() >= 96);
            let mapped = mapped.and_then(|address| Ipv4Net::new(address, range.prefix_len() - 96).ok());
            Ok(mapped.map_or(IpNet::V6(range), IpNet::V4))
        }
        Some(range) => Ok(range),
        None => Err(("badRange", "not an IP range; write it as 10.0.0.0/8 or 2001:db8::/32".to_owned())),
    }
}
