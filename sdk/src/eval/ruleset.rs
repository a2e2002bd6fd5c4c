//! A ruleset: every flag and segment of an environment, compiled.

use std::collections::HashMap;
use std::sync::Arc;

use serde::Serialize;
use serde_json::value::RawValue;
use smol_str::SmolStr;

use super::KeySet;
use super::clause::Clause;
use super::compile::{self, CompiledFlag, Fault, Variation};
use super::measures::Measures;
use super::symbols::{Names, Symbols};
use super::table::{Keyed, Table};
use crate::model::{EnvironmentFlag, FlagKind, Segment};
use crate::protocol::SegmentKeysPatch;

/// Every flag and segment of an environment, compiled and immutable. A clone shares everything.
#[derive(Clone, Debug, Default)]
pub struct Ruleset {
    pub(super) flags: Table<FlagSlot>,
    pub(super) segments: Table<SegmentSlot>,
    pub(super) names: Arc<Names>,
    /// Flags whose release reads a tracked metric, by the metric.
    tracked: Arc<HashMap<String, Vec<FlagRef>>>,
}

/// A flag's place: reserved, once somebody has referred to it, for as long as the ruleset and its descendants live.
#[derive(Clone, Debug)]
pub(super) struct FlagSlot {
    /// Beside the rest of the flag unless it is long, so that comparing it touches no memory of its own.
    key: SmolStr,
    pub(super) state: FlagState,
    /// The definition as it came, for writing the snapshot down again.
    source: Option<Box<RawValue>>,
}

#[derive(Clone, Debug)]
pub(super) enum FlagState {
    /// Referred to, but not there.
    Missing,
    Broken(Box<Fault>),
    Ready(CompiledFlag),
}

/// A segment's place, as for flags.
#[derive(Clone, Debug)]
pub(super) struct SegmentSlot {
    key: Box<str>,
    pub(super) state: SegmentState,
}

#[derive(Clone, Debug)]
pub(super) enum SegmentState {
    Missing,
    Unreadable(Box<(Fault, Box<RawValue>)>),
    Known(CompiledSegment),
}

#[derive(Clone, Debug)]
pub(super) struct CompiledSegment {
    pub(super) included: KeySet,
    pub(super) excluded: KeySet,
    pub(super) rules: Result<Arc<[SegmentRule]>, Box<Fault>>,
    /// The definition without its key lists.
    definition: Arc<Segment>,
}

#[derive(Clone, Debug)]
pub(super) struct SegmentRule {
    pub(super) id: Box<str>,
    pub(super) clauses: Box<[Clause]>,
}

impl Keyed for FlagSlot {
    #[inline]
    fn key(&self) -> &str {
        &self.key
    }
}

impl Keyed for SegmentSlot {
    #[inline]
    fn key(&self) -> &str {
        &self.key
    }
}

impl FlagSlot {
    pub(super) fn missing(key: &str) -> Self {
        Self { key: key.into(), state: FlagState::Missing, source: None }
    }

    /// Tracked metrics that a release of the flag reads.
    fn metrics(&self) -> &[String] {
        match &self.state {
            FlagState::Ready(flag) => flag.measures.as_ref().map_or(&[], |measures| &measures.asked().metrics),
            _ => &[],
        }
    }
}

impl SegmentSlot {
    pub(super) fn missing(key: &str) -> Self {
        Self { key: key.into(), state: SegmentState::Missing }
    }
}

/// A definition that could not be compiled: its flag answers `ERROR` with `PARSE_ERROR`, its segment matches nobody.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct DefinitionProblem {
    /// Key of the flag; empty where even that cannot be read.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub flag: Option<String>,
    /// Key of the segment.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub segment: Option<String>,
    /// Where in the definition (RFC 6901).
    pub pointer: String,
    /// A stable word for what is wrong.
    pub code: &'static str,
    /// What is wrong, for people.
    pub message: String,
}

/// A flag's key and where it was found: evaluating by it skips the look-up. Valid, if not always quick, for any ruleset.
#[derive(Clone, Debug)]
pub struct FlagRef {
    pub(super) key: Arc<str>,
    pub(super) position: u32,
}

impl FlagRef {
    /// A reference to a flag that need not exist (yet).
    #[must_use]
    pub fn new(key: &str) -> Self {
        Self { key: key.into(), position: u32::MAX }
    }

    /// Key of the flag.
    #[must_use]
    pub fn key(&self) -> &str {
        &self.key
    }
}

/// What is known of a flag without evaluating it.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct FlagSummary<'a> {
    /// Key of the flag.
    pub key: &'a str,
    /// Type of its values.
    pub kind: FlagKind,
    /// Whether client-side keys may see it.
    pub client_side: bool,
    /// Whether it is on.
    pub on: bool,
    /// The possible values.
    pub variations: &'a [Variation],
}

impl Ruleset {
    /// Compiles definitions. Where two have one key, the last counts.
    #[must_use]
    pub fn compile(
        flags: impl IntoIterator<Item = EnvironmentFlag>,
        segments: impl IntoIterator<Item = Segment>,
    ) -> Self {
        let mut ruleset = Self::default();
        for segment in segments {
            ruleset.set_segment(segment);
        }
        let mut lists = Vec::new();
        for flag in flags {
            ruleset.set_flag(flag, None, &mut lists);
        }
        ruleset
    }

    /// Where a flag is, to evaluate it without looking it up; `None` if it is not there.
    #[must_use]
    pub fn find(&self, flag: &str) -> Option<FlagRef> {
        let (position, slot) = self.flags.find(flag)?;
        (!matches!(slot.state, FlagState::Missing)).then(|| FlagRef { key: flag.into(), position })
    }

    /// Every flag that can be evaluated, in no particular order.
    pub fn flags(&self) -> impl Iterator<Item = FlagSummary<'_>> {
        self.flags.iter().filter_map(|slot| match &slot.state {
            FlagState::Ready(flag) => Some(FlagSummary {
                key: &slot.key,
                kind: flag.kind,
                client_side: flag.client_side,
                on: flag.on,
                variations: &flag.variations,
            }),
            _ => None,
        })
    }

    /// Flags whose release, now under way, reads this tracked metric.
    #[must_use]
    #[inline]
    pub fn tracked(&self, metric: &str) -> &[FlagRef] {
        if self.tracked.is_empty() {
            return &[];
        }
        self.tracked.get(metric).map_or(&[], Vec::as_slice)
    }

    /// What a release of the flag that is under way asks to be measured.
    #[must_use]
    pub fn measures(&self, flag: &str) -> Option<&Arc<Measures>> {
        match &self.flags.find(flag)?.1.state {
            FlagState::Ready(flag) => flag.measures.as_ref(),
            _ => None,
        }
    }

    /// Every definition that could not be compiled.
    #[must_use]
    pub fn problems(&self) -> Vec<DefinitionProblem> {
        let problem = |flag: Option<&str>, segment: Option<&str>, fault: &Fault| DefinitionProblem {
            flag: flag.map(str::to_owned),
            segment: segment.map(str::to_owned),
            pointer: fault.pointer.clone(),
            code: fault.code,
            message: fault.message.clone(),
        };
        let flags = self.flags.iter().filter_map(|slot| match &slot.state {
            FlagState::Broken(fault) => Some(problem(Some(&slot.key), None, fault)),
            _ => None,
        });
        let segments = self.segments.iter().filter_map(|slot| match &slot.state {
            SegmentState::Unreadable(unreadable) => Some(problem(None, Some(&slot.key), &unreadable.0)),
            SegmentState::Known(segment) => {
                segment.rules.as_ref().err().map(|fault| problem(None, Some(&slot.key), fault))
            }
            SegmentState::Missing => None,
        });
        flags.chain(segments).collect()
    }

    /// The definition of a flag as it came, if there is one.
    #[must_use]
    pub fn definition(&self, flag: &str) -> Option<&RawValue> {
        self.flags.find(flag)?.1.source.as_deref()
    }

    /// Places, taken and reserved; and how many of them hold nothing.
    pub(crate) fn occupancy(&self) -> (usize, usize) {
        let empty = self.flags.iter().filter(|slot| matches!(slot.state, FlagState::Missing)).count()
            + self.segments.iter().filter(|slot| matches!(slot.state, SegmentState::Missing)).count();
        (self.flags.len() + self.segments.len(), empty)
    }

    pub(crate) fn flag_sources(&self) -> impl Iterator<Item = &RawValue> {
        self.flags.iter().filter_map(|slot| slot.source.as_deref())
    }

    /// Segments as the wire carries them, key lists filled in.
    pub(crate) fn segment_sources(&self) -> impl Iterator<Item = SegmentSource<'_>> {
        self.segments.iter().filter_map(|slot| match &slot.state {
            SegmentState::Missing => None,
            SegmentState::Unreadable(unreadable) => Some(SegmentSource::Raw(&unreadable.1)),
            SegmentState::Known(segment) => {
                let mut whole = (*segment.definition).clone();
                whole.included = sorted(&segment.included);
                whole.excluded = sorted(&segment.excluded);
                Some(SegmentSource::Whole(Box::new(whole)))
            }
        })
    }

    /// Puts a flag in from its unparsed definition. A definition without a readable key is told by the answer.
    pub(crate) fn set_flag_source(
        &mut self,
        source: Box<RawValue>,
        lists: &mut Vec<Arc<[Variation]>>,
    ) -> Option<DefinitionProblem> {
        match serde_json::from_str::<EnvironmentFlag>(source.get()) {
            Ok(flag) => {
                self.set_flag(flag, Some(source), lists);
                None
            }
            Err(error) => {
                let fault = Fault::new("", "unreadable", error);
                let Some(key) = key_of(&source) else { return Some(keyless("flag", fault)) };
                let state = FlagState::Broken(Box::new(fault));
                self.put_flag(FlagSlot { key: key.into(), state, source: Some(source) });
                None
            }
        }
    }

    fn set_flag(&mut self, flag: EnvironmentFlag, source: Option<Box<RawValue>>, lists: &mut Vec<Arc<[Variation]>>) {
        let key = flag.key.clone();
        let mut symbols =
            Symbols { names: &mut self.names, lists, flags: &mut self.flags, segments: Some(&mut self.segments) };
        let state = match compile::compile_flag(flag, &mut symbols) {
            Ok(compiled) => FlagState::Ready(compiled),
            Err(fault) => FlagState::Broken(Box::new(fault)),
        };
        self.put_flag(FlagSlot { key: key.into(), state, source });
    }

    fn put_flag(&mut self, slot: FlagSlot) {
        let key = slot.key.clone();
        let metrics = slot.metrics().to_vec();
        self.forget_tracked(&key);
        let position = self.flags.put(slot);
        if metrics.is_empty() {
            return;
        }
        let tracked = Arc::make_mut(&mut self.tracked);
        for metric in metrics {
            let flags = tracked.entry(metric).or_default();
            // A metric that the definition names twice is counted once.
            if flags.last().is_none_or(|last| *last.key != *key) {
                flags.push(FlagRef { key: key.as_str().into(), position });
            }
        }
    }

    /// Takes the flag out of the index of tracked metrics.
    fn forget_tracked(&mut self, flag: &str) {
        let Some((_, slot)) = self.flags.find(flag).filter(|(_, slot)| !slot.metrics().is_empty()) else { return };
        let tracked = Arc::make_mut(&mut self.tracked);
        for metric in slot.metrics() {
            if let Some(flags) = tracked.get_mut(metric) {
                flags.retain(|found| &*found.key != flag);
            }
        }
        tracked.retain(|_, flags| !flags.is_empty());
    }

    pub(crate) fn remove_flag(&mut self, key: &str) {
        self.forget_tracked(key);
        if let Some((position, _)) = self.flags.find(key) {
            self.flags.set(position, FlagSlot::missing(key));
        }
    }

    pub(crate) fn set_segment_source(&mut self, source: &RawValue) -> Option<DefinitionProblem> {
        match serde_json::from_str::<Segment>(source.get()) {
            Ok(segment) => {
                self.set_segment(segment);
                None
            }
            Err(error) => {
                let fault = Fault::new("", "unreadable", error);
                let Some(key) = key_of(source) else { return Some(keyless("segment", fault)) };
                let state = SegmentState::Unreadable(Box::new((fault, source.to_owned())));
                self.segments.put(SegmentSlot { key: key.into(), state });
                None
            }
        }
    }

    fn set_segment(&mut self, mut segment: Segment) {
        let included = std::mem::take(&mut segment.included).into_iter().collect();
        let excluded = std::mem::take(&mut segment.excluded).into_iter().collect();
        let mut lists = Vec::new();
        let mut symbols = Symbols { names: &mut self.names, lists: &mut lists, flags: &mut self.flags, segments: None };
        let rules = compile_segment_rules(&segment, &mut symbols).map_err(Box::new);
        let key = segment.key.as_str().into();
        let compiled = CompiledSegment { included, excluded, rules, definition: Arc::new(segment) };
        self.segments.put(SegmentSlot { key, state: SegmentState::Known(compiled) });
    }

    pub(crate) fn remove_segment(&mut self, key: &str) {
        if let Some((position, _)) = self.segments.find(key) {
            self.segments.set(position, SegmentSlot::missing(key));
        }
    }

    /// Changes the key lists of a segment; `false` if the segment is not there or could not be read.
    pub(crate) fn patch_segment_keys(&mut self, patch: &SegmentKeysPatch) -> bool {
        let Some((position, slot)) = self.segments.find(&patch.segment) else { return false };
        let SegmentState::Known(segment) = &slot.state else { return false };
        let mut changed = segment.clone();
        for key in &patch.not_included {
            changed.included.remove(key);
        }
        for key in &patch.not_excluded {
            changed.excluded.remove(key);
        }
        changed.included.extend(patch.included.iter().map(String::as_str));
        changed.excluded.extend(patch.excluded.iter().map(String::as_str));
        let key = slot.key.clone();
        self.segments.set(position, SegmentSlot { key, state: SegmentState::Known(changed) });
        true
    }
}

/// A segment to be written down.
#[derive(Serialize)]
#[serde(untagged)]
pub(crate) enum SegmentSource<'a> {
    Raw(&'a RawValue),
    Whole(Box<Segment>),
}

/// Keys in order, so that the same segment is written down the same way.
fn sorted(keys: &KeySet) -> Vec<String> {
    let mut keys: Vec<String> = keys.iter().map(str::to_owned).collect();
    keys.sort_unstable();
    keys
}

fn compile_segment_rules(segment: &Segment, symbols: &mut Symbols<'_>) -> Result<Arc<[SegmentRule]>, Fault> {
    let mut rules = Vec::with_capacity(segment.rules.len());
    for (index, rule) in segment.rules.iter().enumerate() {
        let mut clauses = Vec::with_capacity(rule.clauses.len());
        compile::compile_clauses(&rule.clauses, symbols, &mut clauses).map_err(|mut fault| {
            fault.pointer.insert_str(0, &format!("/rules/{index}"));
            fault
        })?;
        if clauses.is_empty() {
            return Err(Fault::new(format!("/rules/{index}/clauses"), "empty", "a rule needs at least one clause"));
        }
        rules.push(SegmentRule { id: rule.id.as_str().into(), clauses: clauses.into() });
    }
    Ok(rules.into())
}

/// The key of a definition that is otherwise unreadable.
fn key_of(source: &RawValue) -> Option<String> {
    #[derive(serde::Deserialize)]
    struct OnlyKey {
        key: String,
    }
    serde_json::from_str::<OnlyKey>(source.get()).ok().map(|only| only.key)
}

fn keyless(what: &str, fault: Fault) -> DefinitionProblem {
    let named = |wanted| (what == wanted).then(String::new);
    DefinitionProblem {
        flag: named("flag"),
        segment: named("segment"),
        pointer: fault.pointer,
        code: fault.code,
        message: fault.message,
    }
}
