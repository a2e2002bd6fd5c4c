//! Evaluation itself, one for answering and for explaining: a visitor sees every step, and one that looks away costs nothing.

use std::sync::Arc;

use serde_json::Value;

use super::bucket::{Bucket, Unit};
use super::clause::{Clause, Memo, Test};
use super::compile::{CompiledFlag, CompiledRollout, Gates, Outlet, Rule, Variation};
use super::measures::Measures;
use super::ruleset::{FlagRef, FlagSlot, FlagState, Ruleset, SegmentState};
use super::symbols::Names;
use super::table::Keyed;
use super::{ErrorCode, Reason};
use crate::model::{Context, FlagKind, ProvenanceKind};

/// Longest chain of prerequisites that is followed; a flag behind a longer one, or behind a cycle, serves its off variation.
pub const MAX_PREREQUISITE_DEPTH: u32 = 16;

/// Most prerequisites that one evaluation looks at, repeated ones included; past it the flag serves its off variation.
pub const MAX_PREREQUISITES_EVALUATED: u32 = 1_000;

/// What a flag serves a context, and why. Borrows from the ruleset and the context.
#[derive(Clone, Copy, Debug)]
pub struct Evaluation<'a> {
    flag: Option<&'a CompiledFlag>,
    variation: Option<&'a Variation>,
    rule: Option<&'a Rule>,
    /// The rollout that decided.
    rollout: Option<&'a CompiledRollout>,
    context: &'a Context<'a>,
    slot: Option<u32>,
    reason: Reason,
    error: Option<ErrorCode>,
}

impl<'a> Evaluation<'a> {
    /// An evaluation that could serve no variation.
    #[must_use]
    pub fn failed(error: ErrorCode, context: &'a Context<'_>) -> Self {
        Self {
            flag: None,
            variation: None,
            rule: None,
            rollout: None,
            context,
            slot: None,
            reason: Reason::Error,
            error: Some(error),
        }
    }

    /// The value served, or `None` if the caller's default applies.
    #[must_use]
    pub fn value(&self) -> Option<&'a Value> {
        self.variation.map(Variation::value)
    }

    /// The variation served, or `None` if the caller's default applies.
    #[must_use]
    pub fn variation(&self) -> Option<&'a Variation> {
        self.variation
    }

    /// Key of the variation served.
    #[must_use]
    pub fn variation_key(&self) -> Option<&'a str> {
        self.variation.map(Variation::key)
    }

    /// Type of the flag's values, if there is such a flag.
    #[must_use]
    pub fn kind(&self) -> Option<FlagKind> {
        self.flag.map(|flag| flag.kind)
    }

    /// Whether client-side keys may see the flag.
    #[must_use]
    pub fn client_side(&self) -> bool {
        self.flag.is_some_and(|flag| flag.client_side)
    }

    /// Why.
    #[must_use]
    pub fn reason(&self) -> Reason {
        self.reason
    }

    /// What went wrong, where the reason is [`Reason::Error`].
    #[must_use]
    pub fn error(&self) -> Option<ErrorCode> {
        self.error
    }

    /// Id of the rule that matched.
    #[must_use]
    pub fn rule(&self) -> Option<&'a str> {
        self.rule.map(|rule| &*rule.id)
    }

    /// Slot of the unit, where a rollout decided.
    #[must_use]
    pub fn slot(&self) -> Option<u32> {
        self.slot
    }

    /// The value the deciding rollout is bucketed by, else the targeting key.
    #[must_use]
    pub fn unit(&self) -> Option<Unit<'a>> {
        unit_of(self.rollout, self.context).or_else(|| self.context.targeting_key().map(Unit::Text))
    }

    /// Whether an AI model wrote the code behind the variation served.
    #[must_use]
    pub fn is_ai(&self) -> bool {
        self.variation.is_some_and(Variation::is_ai)
    }

    /// Who wrote the code behind the variation served, if it says so.
    #[must_use]
    pub fn provenance(&self) -> Option<ProvenanceKind> {
        self.variation.and_then(Variation::provenance)
    }

    /// What answers when the AI path fails: the first variation of human provenance, else the off variation unless that is
    /// AI's too.
    #[must_use]
    pub fn baseline(&self) -> Option<&'a Variation> {
        let flag = self.flag?;
        flag.variations.get(usize::from(flag.baseline?))
    }

    /// What a release of the flag that is under way asks to be measured.
    #[must_use]
    pub fn measures(&self) -> Option<&'a Arc<Measures>> {
        self.flag?.measures.as_ref()
    }

    /// The same if the flag's values are of `kind`; else the error [`ErrorCode::TypeMismatch`]. Errors stay as they are.
    #[must_use]
    pub fn of_kind(self, kind: FlagKind) -> Self {
        match self.flag {
            Some(flag) if flag.kind != kind && self.error.is_none() => {
                Self { flag: Some(flag), ..Self::failed(ErrorCode::TypeMismatch, self.context) }
            }
            _ => self,
        }
    }
}

/// Evaluates the flag with this key.
#[must_use]
#[inline]
pub fn evaluate<'a>(ruleset: &'a Ruleset, flag: &str, context: &'a Context<'_>) -> Evaluation<'a> {
    match ruleset.flags.find(flag) {
        Some((_, slot)) => Engine::new(ruleset, context, ()).top(slot),
        None => Evaluation::failed(ErrorCode::FlagNotFound, context),
    }
}

/// Evaluates a flag that was found before. A reference found in another ruleset costs a look-up and is as right.
#[must_use]
#[inline]
pub fn evaluate_at<'a>(ruleset: &'a Ruleset, flag: &FlagRef, context: &'a Context<'_>) -> Evaluation<'a> {
    match ruleset.flags.at(flag.position) {
        Some(slot) if slot.key() == &*flag.key => Engine::new(ruleset, context, ()).top(slot),
        _ => evaluate(ruleset, &flag.key, context),
    }
}

/// How a segment answered.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum SegmentAnswer<'a> {
    Included,
    Excluded,
    /// A rule, by id, matched.
    Rule(&'a str),
    NoRule,
    Unknown,
    Broken,
}

impl SegmentAnswer<'_> {
    fn is_member(self) -> bool {
        matches!(self, Self::Included | Self::Rule(_))
    }
}

/// Sees the steps of an evaluation in the order they are taken.
pub(super) trait Visitor<'a> {
    /// Whether all clauses of a rule are tested although one has failed.
    const EXHAUSTIVE: bool = false;
    fn enter(&mut self, _slot: &'a FlagSlot, _flag: &'a CompiledFlag) {}
    fn prerequisite(
        &mut self,
        _position: usize,
        _flag: Option<&'a FlagSlot>,
        _wanted: &'a str,
        _served: Option<&'a Variation>,
        _met: bool,
    ) {
    }
    /// What the targets gave the context, if they named it.
    fn target(&mut self, _variation: Option<&'a Variation>) {}
    fn segment(&mut self, _key: &'a str, _answer: SegmentAnswer<'a>) {}
    fn clause(&mut self, _position: usize, _matched: bool) {}
    fn rule(&mut self, _position: usize, _matched: bool) {}
    fn rollout(&mut self, _rollout: &'a CompiledRollout, _unit: Option<Unit<'a>>, _bucket: Option<Bucket>) {}
}

impl Visitor<'_> for () {}

pub(super) struct Engine<'a, V> {
    ruleset: &'a Ruleset,
    context: &'a Context<'a>,
    pub(super) visitor: V,
    prerequisites_left: u32,
}

impl<'a, V: Visitor<'a>> Engine<'a, V> {
    pub(super) fn new(ruleset: &'a Ruleset, context: &'a Context<'_>, visitor: V) -> Self {
        Self { ruleset, context, visitor, prerequisites_left: MAX_PREREQUISITES_EVALUATED }
    }

    #[inline]
    pub(super) fn top(&mut self, slot: &'a FlagSlot) -> Evaluation<'a> {
        match &slot.state {
            FlagState::Ready(flag) => {
                self.visitor.enter(slot, flag);
                self.flag(flag, 0)
            }
            FlagState::Broken(_) => Evaluation::failed(ErrorCode::ParseError, self.context),
            FlagState::Missing => Evaluation::failed(ErrorCode::FlagNotFound, self.context),
        }
    }

    /// Off, prerequisites, targets, rules, fallthrough.
    #[inline]
    fn flag(&mut self, flag: &'a CompiledFlag, depth: u32) -> Evaluation<'a> {
        if !flag.on {
            return self.variation(flag, flag.off, Reason::Disabled, None);
        }
        if let Some(gates) = &flag.gates
            && let Some(decided) = self.gates(flag, gates, depth)
        {
            return decided;
        }
        let rule = self.first_match(flag);
        let (serve, reason) = match rule {
            Some(rule) => (rule.serve, Reason::TargetingMatch),
            None => (flag.fallthrough, if flag.bare { Reason::Static } else { Reason::Default }),
        };
        self.serve(flag, serve, rule, reason)
    }

    #[inline]
    fn first_match(&mut self, flag: &'a CompiledFlag) -> Option<&'a Rule> {
        let mut memo = Memo::default();
        let mut rest = &*flag.clauses;
        for (position, rule) in flag.rules.iter().enumerate() {
            let (clauses, after) = rest.split_at_checked(rule.clauses as usize)?;
            rest = after;
            if self.rule(position, clauses, &mut memo) {
                return Some(rule);
            }
        }
        None
    }

    #[inline]
    fn variation(
        &self,
        flag: &'a CompiledFlag,
        position: u16,
        reason: Reason,
        rule: Option<&'a Rule>,
    ) -> Evaluation<'a> {
        Evaluation {
            flag: Some(flag),
            variation: flag.variations.get(usize::from(position)),
            rule,
            rollout: None,
            context: self.context,
            slot: None,
            reason,
            error: None,
        }
    }

    #[inline]
    fn serve(
        &mut self,
        flag: &'a CompiledFlag,
        serve: Outlet,
        rule: Option<&'a Rule>,
        reason: Reason,
    ) -> Evaluation<'a> {
        match serve {
            Outlet::Variation(position) => self.variation(flag, position, reason, rule),
            Outlet::Rollout(position) => match flag.rollouts.get(usize::from(position)) {
                Some(rollout) => self.rollout(flag, rollout, rule),
                None => Evaluation::failed(ErrorCode::General, self.context),
            },
        }
    }

    #[inline]
    fn rollout(
        &mut self,
        flag: &'a CompiledFlag,
        rollout: &'a CompiledRollout,
        rule: Option<&'a Rule>,
    ) -> Evaluation<'a> {
        let unit = unit_of(Some(rollout), self.context);
        let Some(unit) = unit else {
            self.visitor.rollout(rollout, None, None);
            return Evaluation {
                flag: Some(flag),
                rule,
                ..Evaluation::failed(ErrorCode::TargetingKeyMissing, self.context)
            };
        };
        let bucket = unit.bucket(&rollout.salt);
        self.visitor.rollout(rollout, Some(unit), Some(bucket));
        let Some(owner) = rollout.ranges.owner(bucket.slot) else {
            return Evaluation { flag: Some(flag), rule, ..Evaluation::failed(ErrorCode::General, self.context) };
        };
        let served = self.variation(flag, owner, Reason::Split, rule);
        Evaluation { rollout: Some(rollout), slot: Some(bucket.slot), ..served }
    }

    #[cold]
    #[inline(never)]
    fn gates(&mut self, flag: &'a CompiledFlag, gates: &'a Gates, depth: u32) -> Option<Evaluation<'a>> {
        for (position, wanted) in gates.prerequisites.iter().enumerate() {
            let slot = self.ruleset.flags.at(wanted.flag).map(|slot| &**slot);
            let served = slot.and_then(|slot| self.prerequisite(slot, depth));
            let met = served.is_some_and(|served| served.key == wanted.variation);
            self.visitor.prerequisite(position, slot, &wanted.variation, served, met);
            if !met {
                return Some(self.variation(flag, flag.off, Reason::Disabled, None));
            }
        }
        let target = self.context.targeting_key().and_then(|key| gates.targets.get(key)).copied();
        if !gates.targets.is_empty() {
            self.visitor.target(target.and_then(|position| flag.variations.get(usize::from(position))));
        }
        Some(self.variation(flag, target?, Reason::TargetingMatch, None))
    }

    /// What a prerequisite serves: nothing if it is off, missing, broken or too far down the chain.
    fn prerequisite(&mut self, slot: &'a FlagSlot, depth: u32) -> Option<&'a Variation> {
        let FlagState::Ready(flag) = &slot.state else { return None };
        if !flag.on || depth >= MAX_PREREQUISITE_DEPTH || self.prerequisites_left == 0 {
            return None;
        }
        self.prerequisites_left -= 1;
        // What the visitor is shown of a prerequisite is what it served, not the steps within.
        let mut within = Engine {
            ruleset: self.ruleset,
            context: self.context,
            visitor: (),
            prerequisites_left: self.prerequisites_left,
        };
        let served = within.flag_of_prerequisite(flag, depth + 1);
        self.prerequisites_left = within.prerequisites_left;
        served
    }

    #[inline]
    fn rule(&mut self, rule: usize, clauses: &'a [Clause], memo: &mut Memo<'a>) -> bool {
        let mut all = true;
        for (position, clause) in clauses.iter().enumerate() {
            let matched = self.clause(clause, memo);
            self.visitor.clause(position, matched);
            all &= matched;
            if !all && !V::EXHAUSTIVE {
                break;
            }
        }
        self.visitor.rule(rule, all);
        all
    }

    #[inline]
    fn clause(&mut self, clause: &'a Clause, memo: &mut Memo<'a>) -> bool {
        let matched = match &clause.test {
            Test::Segment(positions) => self.any_segment(positions),
            _ => clause.test_once(self.context, &self.ruleset.names, memo),
        };
        matched != clause.negate
    }

    fn any_segment(&mut self, positions: &'a [u32]) -> bool {
        let mut any = false;
        for &position in positions {
            let Some(slot) = self.ruleset.segments.at(position) else { continue };
            let answer = in_segment(&slot.state, self.context, &self.ruleset.names);
            self.visitor.segment(slot.key(), answer);
            any |= answer.is_member();
            if any && !V::EXHAUSTIVE {
                break;
            }
        }
        any
    }
}

impl<'a> Engine<'a, ()> {
    fn flag_of_prerequisite(&mut self, flag: &'a CompiledFlag, depth: u32) -> Option<&'a Variation> {
        // A prerequisite whose own prerequisites fail counts as off, like one that is switched off.
        let served = self.flag(flag, depth);
        if served.reason == Reason::Disabled { None } else { served.variation }
    }
}

/// What `rollout` is bucketed by in this context: the targeting key where there is no rollout.
#[inline]
fn unit_of<'a>(rollout: Option<&CompiledRollout>, context: &'a Context<'a>) -> Option<Unit<'a>> {
    match rollout.and_then(|rollout| rollout.bucket_by.as_deref()) {
        None => context.targeting_key().map(Unit::Text),
        Some(name) => context.get(name).and_then(Unit::of),
    }
}

fn in_segment<'a>(state: &'a SegmentState, context: &Context<'_>, names: &Names) -> SegmentAnswer<'a> {
    let segment = match state {
        SegmentState::Known(segment) => segment,
        SegmentState::Missing => return SegmentAnswer::Unknown,
        SegmentState::Unreadable(_) => return SegmentAnswer::Broken,
    };
    if let Some(key) = context.targeting_key() {
        if segment.included.contains(key) {
            return SegmentAnswer::Included;
        }
        if segment.excluded.contains(key) {
            return SegmentAnswer::Excluded;
        }
    }
    let Ok(rules) = &segment.rules else { return SegmentAnswer::Broken };
    // Segments' rules refer to no segments, so that a clause's own test is all there is.
    let matches = |clause: &Clause| clause.test(context, names) != clause.negate;
    rules
        .iter()
        .find(|rule| rule.clauses.iter().all(matches))
        .map_or(SegmentAnswer::NoRule, |rule| SegmentAnswer::Rule(&rule.id))
}
