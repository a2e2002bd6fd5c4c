//! What the risk of a change is judged by.

use std::collections::BTreeSet;

use guidon_sdk::model::SLOTS;
use serde::{Deserialize, Serialize};

use crate::changes::Instruction;
use crate::changes::direction::Movement;
use crate::environments::Tier;
use crate::policy::Direction;
use crate::releases::guard::plan::Action as GuardAction;
use crate::releases::{PlanKind, ReleasePlan};

/// What the risk of a change is judged by.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct RiskFacts {
    /// Tier of the environment; of several, the one closest to real users.
    pub tier: Tier,
    /// Where the change moves people; of several environments the worst.
    pub direction: Direction,
    /// Share of people, 0 to 1, who get something else, as an upper bound.
    pub share: f64,
    /// Share of people, 0 to 1, who newly get an AI variation, as an upper bound.
    pub ai_share: f64,
    /// Whether the change leads somebody to an AI variation.
    pub ai: bool,
    /// Whether a guardrail metric would stop it.
    pub guardrails: bool,
    /// Whether it is a release that gets to its share in steps.
    pub staged: bool,
    /// Whether the way back was rehearsed lately.
    pub drill_fresh: bool,
    /// Flags that require one of those touched.
    pub dependants: u32,
    /// Whether the schema of a flag's values changes.
    pub schema_change: bool,
    /// Flags that the change names.
    pub flags_touched: u32,
    /// Whether the people of a segment change.
    pub segment_change: bool,
    /// Whether an edit reaches a flag in all environments.
    pub flag_wide: bool,
    /// Whether nothing but names and descriptions is edited.
    pub text_only: bool,
}

impl RiskFacts {
    /// The facts that follow from the instructions and from where they move people, and from whether the way back was
    /// rehearsed. The start of a release counts as what the last of its steps does, since the steps ask nobody again.
    #[must_use]
    pub fn new(tier: Tier, movement: &Movement, kinds: &EditKinds, drill_fresh: bool) -> Self {
        let touched = |flag: &&String| kinds.flags.contains(*flag);
        let dependants = movement.flags.iter().filter(|flag| !touched(flag)).count();
        let mut direction = movement.direction;
        let (mut share, mut ai_share) = (movement.share, movement.ai_share);
        if let Some(most) = kinds.release {
            direction = Direction::Widening;
            share = share.max(most);
            ai_share = ai_share.max(most);
        }
        Self {
            tier,
            direction,
            share,
            ai_share,
            ai: ai_share > 0.0,
            guardrails: kinds.guardrails,
            staged: kinds.staged,
            drill_fresh,
            dependants: u32::try_from(dependants).unwrap_or(u32::MAX),
            schema_change: kinds.schema,
            flags_touched: u32::try_from(kinds.flags.len()).unwrap_or(u32::MAX),
            segment_change: kinds.segment,
            flag_wide: kinds.flag_wide,
            text_only: kinds.text_only,
        }
    }
}

/// What kinds of edits a change is made of.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct EditKinds {
    /// Flags named.
    pub flags: BTreeSet<String>,
    /// Whether the schema of a flag's values is set or removed.
    pub schema: bool,
    /// Whether the people of a segment change.
    pub segment: bool,
    /// Whether an edit other than of texts reaches a flag in all environments.
    pub flag_wide: bool,
    /// Whether every edit is one of texts.
    pub text_only: bool,
    /// The largest share of people, 0 to 1, that a release started here leads to the treatment.
    pub release: Option<f64>,
    /// Whether every edit starts a release that takes itself back when a guardrail is broken.
    pub guardrails: bool,
    /// Whether every edit starts a release of several steps.
    pub staged: bool,
}

impl EditKinds {
    /// What `instructions` are.
    #[must_use]
    pub fn of(instructions: &[Instruction]) -> Self {
        let plans: Vec<&ReleasePlan> = instructions.iter().filter_map(plan_of).collect();
        let every = |is: fn(&ReleasePlan) -> bool| {
            !plans.is_empty() && plans.len() == instructions.len() && plans.iter().all(|plan| is(plan))
        };
        let most = plans.iter().map(|plan| f64::from(plan.most()) / f64::from(SLOTS)).reduce(f64::max);
        let any = |is: fn(&Instruction) -> bool| instructions.iter().any(is);
        Self {
            flags: instructions.iter().filter_map(Instruction::flag).map(str::to_owned).collect(),
            schema: any(|edit| matches!(edit, Instruction::SetSchema { .. })),
            segment: any(|edit| edit.segment().is_some() && !is_text(edit)),
            flag_wide: any(|edit| edit.flag().is_some() && edit.flag_in_environment().is_none() && !is_text(edit)),
            text_only: !instructions.is_empty() && instructions.iter().all(is_text),
            release: most,
            guardrails: every(|plan| {
                plan.guard.guardrails.iter().any(|guardrail| guardrail.action >= GuardAction::RollBack)
            }),
            staged: every(is_staged),
        }
    }
}

/// Whether few meet the release first, for long enough to tell.
fn is_staged(plan: &ReleasePlan) -> bool {
    let waits = plan.steps.split_last().is_some_and(|(_, before)| {
        !before.is_empty() && before.iter().all(|step| step.minimum_seconds >= STAGED_SECONDS)
    });
    let first = plan.steps.iter().map(|step| step.share).find(|share| *share > 0);
    plan.kind == PlanKind::Progressive && waits && first.is_some_and(|share| share <= STAGED_SHARE)
}

/// Shortest time of every step but the last, in seconds, and largest first share, for a release to count as one in steps.
const STAGED_SECONDS: u64 = 60;
const STAGED_SHARE: u32 = 5_000;

fn plan_of(instruction: &Instruction) -> Option<&ReleasePlan> {
    if let Instruction::Release(edit) = instruction.edit() { edit.plan() } else { None }
}

/// Whether an instruction edits nothing but what people read.
fn is_text(instruction: &Instruction) -> bool {
    match instruction.edit() {
        Instruction::UpdateFlag { .. } | Instruction::UpdateSegment { .. } | Instruction::UpdateEnvironment { .. } => {
            true
        }
        Instruction::UpdateVariation { value, provenance, .. } => value.is_none() && provenance.is_none(),
        _ => false,
    }
}
