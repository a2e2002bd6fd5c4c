//! Explain: the same evaluation, with every step written down.

use serde::Serialize;
use serde_json::Value;

use super::bucket::{Bucket, Unit};
use super::compile::{CompiledFlag, CompiledRollout, Variation};
use super::engine::{Engine, Evaluation, SegmentAnswer, Visitor};
use super::ruleset::{FlagSlot, Ruleset};
use super::table::Keyed;
use super::{ErrorCode, Reason};
use crate::model::{AttributeValue, Context, EnvironmentFlag, Op, SlotRange, TARGETING_KEY};

/// What a flag serves a context, and every step that led there.
#[derive(Clone, Debug, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Explanation {
    /// Key of the flag.
    pub flag: String,
    /// The value served; absent where the caller's default applies.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub value: Option<Value>,
    /// Key of the variation served.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub variation: Option<String>,
    /// Why.
    pub reason: Reason,
    /// What went wrong, where the reason is `ERROR`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub error_code: Option<ErrorCode>,
    /// Id of the rule that matched.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub rule: Option<String>,
    /// Whether the flag is on; absent where there is no such flag, or it cannot be read.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub on: Option<bool>,
    /// The prerequisites, up to the first that is not met.
    pub prerequisites: Vec<PrerequisiteStep>,
    /// What the individual targets said, if the flag has any and they were asked.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub targets: Option<TargetsStep>,
    /// Every rule, in order.
    pub rules: Vec<RuleStep>,
    /// How the deciding rollout split.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub rollout: Option<RolloutStep>,
}

/// A prerequisite and what became of it.
#[derive(Clone, Debug, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct PrerequisiteStep {
    /// Key of the other flag.
    pub flag: String,
    /// Variation it must serve.
    pub variation: String,
    /// Variation it served; absent if it is off, missing, cannot be read or is too far down the chain.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub served: Option<String>,
    /// Whether the prerequisite is met.
    pub met: bool,
}

/// What the individual targets gave the context.
#[derive(Clone, Debug, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct TargetsStep {
    /// Whether one of them names the context's targeting key.
    pub matched: bool,
    /// The variation it gives.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub variation: Option<String>,
}

/// A rule and what became of it.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct RuleStep {
    /// Id of the rule.
    pub id: String,
    /// What the rule is for.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub description: String,
    /// Whether it matched; absent where it was not reached, because something before it decided.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub matched: Option<bool>,
    /// Its clauses; empty where it was not reached.
    pub clauses: Vec<ClauseStep>,
}

/// A clause and what became of it.
#[derive(Clone, Debug, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct ClauseStep {
    /// Name of the attribute.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub attribute: String,
    /// How it is compared.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub op: Option<Op>,
    /// What it is compared with; only the first 20.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub values: Vec<Value>,
    /// Whether the outcome was turned around.
    pub negate: bool,
    /// Whether the clause matched, `negate` included.
    pub matched: bool,
    /// Why.
    pub because: Because,
    /// The context's value.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub actual: Option<Value>,
    /// What each segment said.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub segments: Vec<SegmentStep>,
}

/// Most values of a clause that an explanation repeats.
const MAX_VALUES_SHOWN: usize = 20;

/// Why a clause matched or did not, before `negate`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub enum Because {
    /// The context has no such attribute, or it is null.
    Missing,
    /// The attribute is of a type the operator does not compare.
    TypeMismatch,
    /// The comparison holds.
    Holds,
    /// The comparison does not hold.
    DoesNotHold,
}

/// A segment and what it said.
#[derive(Clone, Debug, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct SegmentStep {
    /// Key of the segment.
    pub segment: String,
    /// `included`, `excluded`, `rule`, `noRule`, `unknown`, or `broken` (it could not be compiled).
    pub answer: &'static str,
    /// Id of the rule that matched.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub rule: Option<String>,
}

/// How a rollout split.
#[derive(Clone, Debug, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct RolloutStep {
    /// The attribute that decides.
    pub bucket_by: String,
    /// Its value as text; absent where the context has no usable one.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub unit: Option<String>,
    /// First half of the hash, in hexadecimal.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub hash: Option<String>,
    /// The slot.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub slot: Option<u32>,
    /// The range of slots that holds it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub range: Option<SlotRange>,
}

/// Evaluates the flag with this key and writes every step down.
#[must_use]
pub fn explain(ruleset: &Ruleset, flag: &str, context: &Context<'_>) -> Explanation {
    let Some((_, slot)) = ruleset.flags.find(flag) else {
        return Steps::default().explanation(flag, &Evaluation::failed(ErrorCode::FlagNotFound, context));
    };
    let mut engine = Engine::new(ruleset, context, Steps::default());
    let evaluation = engine.top(slot);
    let mut explanation = engine.visitor.explanation(flag, &evaluation);
    // The words of a clause are in the definition only: the compiled form has no more than the evaluation needs.
    let definition =
        ruleset.definition(flag).and_then(|source| serde_json::from_str::<EnvironmentFlag>(source.get()).ok());
    if let Some(definition) = definition {
        describe(&mut explanation.rules, &definition, context);
    }
    explanation
}

#[derive(Default)]
struct Steps<'a> {
    flag: Option<&'a CompiledFlag>,
    prerequisites: Vec<PrerequisiteStep>,
    targets: Option<TargetsStep>,
    rules: Vec<RuleStep>,
    clauses: Vec<ClauseStep>,
    segments: Vec<SegmentStep>,
    rollout: Option<RolloutStep>,
}

impl<'a> Visitor<'a> for Steps<'a> {
    const EXHAUSTIVE: bool = true;

    fn enter(&mut self, _slot: &'a FlagSlot, flag: &'a CompiledFlag) {
        self.flag = Some(flag);
    }

    fn prerequisite(
        &mut self,
        _: usize,
        flag: Option<&'a FlagSlot>,
        wanted: &'a str,
        served: Option<&'a Variation>,
        met: bool,
    ) {
        self.prerequisites.push(PrerequisiteStep {
            flag: flag.map_or_else(String::new, |flag| flag.key().to_owned()),
            variation: wanted.to_owned(),
            served: served.map(|served| served.key().to_owned()),
            met,
        });
    }

    fn target(&mut self, variation: Option<&'a Variation>) {
        self.targets = Some(TargetsStep {
            matched: variation.is_some(),
            variation: variation.map(|variation| variation.key().to_owned()),
        });
    }

    fn segment(&mut self, key: &'a str, answer: SegmentAnswer<'a>) {
        let (word, rule) = match answer {
            SegmentAnswer::Included => ("included", None),
            SegmentAnswer::Excluded => ("excluded", None),
            SegmentAnswer::Rule(id) => ("rule", Some(id.to_owned())),
            SegmentAnswer::NoRule => ("noRule", None),
            SegmentAnswer::Unknown => ("unknown", None),
            SegmentAnswer::Broken => ("broken", None),
        };
        self.segments.push(SegmentStep { segment: key.to_owned(), answer: word, rule });
    }

    fn clause(&mut self, _position: usize, matched: bool) {
        self.clauses.push(ClauseStep {
            attribute: String::new(),
            op: None,
            values: Vec::new(),
            negate: false,
            matched,
            because: if matched { Because::Holds } else { Because::DoesNotHold },
            actual: None,
            segments: std::mem::take(&mut self.segments),
        });
    }

    fn rule(&mut self, _position: usize, matched: bool) {
        self.rules.push(RuleStep {
            matched: Some(matched),
            clauses: std::mem::take(&mut self.clauses),
            ..RuleStep::default()
        });
    }

    fn rollout(&mut self, rollout: &'a CompiledRollout, unit: Option<Unit<'a>>, bucket: Option<Bucket>) {
        let range = bucket.zip(self.flag).and_then(|(bucket, flag)| {
            let (start, end, owner) = rollout.ranges.range(bucket.slot)?;
            let variation = flag.variations.get(usize::from(owner))?;
            Some(SlotRange { variation: variation.key().to_owned(), start, end })
        });
        self.rollout = Some(RolloutStep {
            bucket_by: rollout.bucket_by.as_deref().unwrap_or(TARGETING_KEY).to_owned(),
            unit: unit.map(|unit| unit.to_text().into_owned()),
            hash: bucket.map(|bucket| format!("{:016x}", bucket.hash)),
            slot: bucket.map(|bucket| bucket.slot),
            range,
        });
    }
}

impl Steps<'_> {
    fn explanation(mut self, flag: &str, evaluation: &Evaluation<'_>) -> Explanation {
        if let Some(compiled) = self.flag {
            self.rules.resize(compiled.rules.len(), RuleStep::default());
            for (step, rule) in self.rules.iter_mut().zip(&compiled.rules) {
                step.id = rule.id.to_string();
            }
        }
        Explanation {
            flag: flag.to_owned(),
            value: evaluation.value().cloned(),
            variation: evaluation.variation_key().map(str::to_owned),
            reason: evaluation.reason(),
            error_code: evaluation.error(),
            rule: evaluation.rule().map(str::to_owned),
            on: self.flag.map(|flag| flag.on),
            prerequisites: self.prerequisites,
            targets: self.targets,
            rules: self.rules,
            rollout: self.rollout,
        }
    }
}

/// Adds what the definition and the context say to what the evaluation found.
fn describe(rules: &mut [RuleStep], definition: &EnvironmentFlag, context: &Context<'_>) {
    for (step, rule) in rules.iter_mut().zip(&definition.config.rules) {
        step.description.clone_from(&rule.description);
        for (step, clause) in step.clauses.iter_mut().zip(&rule.clauses) {
            step.attribute.clone_from(&clause.attribute);
            step.op = Some(clause.op);
            step.values = clause.values.iter().take(MAX_VALUES_SHOWN).cloned().collect();
            step.negate = clause.negate;
            step.because = if step.matched == clause.negate { Because::DoesNotHold } else { Because::Holds };
            if clause.op == Op::Segment {
                continue;
            }
            let key = context.targeting_key().map(AttributeValue::from);
            let actual = if clause.attribute == TARGETING_KEY { key.as_ref() } else { context.get(&clause.attribute) };
            step.actual = actual.and_then(|actual| serde_json::to_value(actual).ok());
            if step.because == Because::DoesNotHold {
                step.because = match actual {
                    None | Some(AttributeValue::Null) => Because::Missing,
                    Some(value) if !compares(clause.op, &clause.values, value) => Because::TypeMismatch,
                    Some(_) => Because::DoesNotHold,
                };
            }
        }
    }
}

/// Whether an operator compares values of this type at all.
fn compares(op: Op, values: &[Value], actual: &AttributeValue<'_>) -> bool {
    match actual {
        AttributeValue::Null | AttributeValue::Object(_) => false,
        AttributeValue::Array(elements) => elements.iter().any(|element| compares(op, values, element)),
        AttributeValue::Bool(_) => op == Op::In && values.iter().any(Value::is_boolean),
        AttributeValue::Number(_) => match op {
            Op::In => values.iter().any(Value::is_number),
            Op::LessThan | Op::LessThanOrEqual | Op::GreaterThan | Op::GreaterThanOrEqual | Op::Before | Op::After => {
                true
            }
            _ => false,
        },
        AttributeValue::String(_) => match op {
            Op::In => values.iter().any(Value::is_string),
            Op::LessThan | Op::LessThanOrEqual | Op::GreaterThan | Op::GreaterThanOrEqual => false,
            _ => true,
        },
    }
}
