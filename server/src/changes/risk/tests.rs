//! The table, by example, and what must hold of every score.

use proptest::prelude::*;
use serde_json::json;

use super::*;
use crate::changes::Instruction;
use crate::changes::direction::Movement;
use crate::environments::Tier;
use crate::policy::Direction::{self, Lowering, Still, Widening};
use crate::policy::RiskLevel::{High, Low, Medium};

/// Nothing moves in production, with all that makes a release safe.
const CALM: RiskFacts = RiskFacts {
    tier: Tier::Production,
    direction: Still,
    share: 0.0,
    ai_share: 0.0,
    ai: false,
    guardrails: true,
    staged: false,
    drill_fresh: true,
    dependants: 0,
    schema_change: false,
    flags_touched: 1,
    segment_change: false,
    flag_wide: false,
    text_only: false,
};

/// The same share of AI and of people.
const fn ai(share: f64) -> RiskFacts {
    RiskFacts { direction: Widening, share, ai_share: share, ai: true, ..CALM }
}

/// To a variation that says nothing of who wrote it.
const fn plain(share: f64) -> RiskFacts {
    RiskFacts { direction: Widening, share, ..CALM }
}

const fn bare(facts: RiskFacts) -> RiskFacts {
    RiskFacts { guardrails: false, drill_fresh: false, ..facts }
}

const fn within(tier: Tier, facts: RiskFacts) -> RiskFacts {
    RiskFacts { tier, ..facts }
}

const LOWER: RiskFacts = RiskFacts { direction: Lowering, share: 1.0, ..CALM };
const WORST: RiskFacts = RiskFacts {
    dependants: 50,
    schema_change: true,
    flags_touched: 40,
    segment_change: true,
    flag_wide: true,
    ..bare(ai(1.0))
};

const CASES: &[(&str, RiskFacts, u32, RiskLevel)] = &[
    ("nothing moves", CALM, 12, Low),
    ("text only", RiskFacts { text_only: true, ..CALM }, 10, Low),
    ("text of many flags", RiskFacts { text_only: true, flags_touched: 30, ..CALM }, 10, Low),
    ("text is no excuse for moving people", RiskFacts { text_only: true, ..bare(ai(1.0)) }, 84, High),
    ("1 % AI, all gates", ai(0.01), 24, Low),
    ("AI for all in guarded steps", RiskFacts { staged: true, ..ai(1.0) }, 47, Medium),
    ("AI for all in steps that nothing guards", RiskFacts { staged: true, guardrails: false, ..ai(1.0) }, 74, High),
    ("1 % AI, neither guardrails nor drill", bare(ai(0.01)), 46, Medium),
    ("1 % AI, no guardrails", RiskFacts { guardrails: false, ..ai(0.01) }, 36, Medium),
    ("1 % AI, no drill", RiskFacts { drill_fresh: false, ..ai(0.01) }, 34, Medium),
    ("1 % as slots add up to it", ai(0.010_000_000_000_000_002), 24, Low),
    ("5 % AI, all gates", ai(0.05), 30, Medium),
    ("5 % AI, neither", bare(ai(0.05)), 52, Medium),
    ("25 % AI, all gates", ai(0.25), 41, Medium),
    ("25 % AI, neither", bare(ai(0.25)), 63, High),
    ("50 % AI, all gates", ai(0.5), 50, Medium),
    ("100 % AI, all gates", ai(1.0), 62, High),
    ("100 % AI, neither", bare(ai(1.0)), 84, High),
    ("100 % move, 1 % of them to AI", RiskFacts { ai_share: 0.01, ..ai(1.0) }, 50, Medium),
    ("a share that is none", RiskFacts { share: f64::NAN, ..plain(0.0) }, 40, Medium),
    ("1 % unlabelled, all gates", plain(0.01), 14, Low),
    ("100 % unlabelled, all gates", plain(1.0), 40, Medium),
    ("100 % unlabelled, neither", bare(plain(1.0)), 62, High),
    ("kill switch", LOWER, 12, Low),
    ("kill switch of many flags with many dependants", RiskFacts { direction: Lowering, ..WORST }, 20, Low),
    ("schema", RiskFacts { schema_change: true, flag_wide: true, ..CALM }, 26, Low),
    ("schema of 25 flags", RiskFacts { schema_change: true, flag_wide: true, flags_touched: 25, ..CALM }, 36, Medium),
    ("segment that grows into AI", RiskFacts { segment_change: true, ..bare(ai(1.0)) }, 90, High),
    ("ten dependants", RiskFacts { dependants: 10, ..ai(0.01) }, 34, Medium),
    ("three dependants", RiskFacts { dependants: 3, ..ai(0.01) }, 30, Medium),
    ("one dependant", RiskFacts { dependants: 1, ..ai(0.01) }, 27, Low),
    ("archiving an unused flag", RiskFacts { flag_wide: true, ..bare(plain(1.0)) }, 68, High),
    ("staging: 1 % AI, neither", within(Tier::Staging, bare(ai(0.01))), 41, Medium),
    ("staging: 100 % AI, all gates", within(Tier::Staging, ai(1.0)), 57, Medium),
    ("staging: 100 % AI, neither", within(Tier::Staging, bare(ai(1.0))), 79, High),
    ("testing: 100 % AI, neither", within(Tier::Testing, bare(ai(1.0))), 59, Medium),
    ("testing: 1 % AI, all gates", within(Tier::Testing, ai(0.01)), 15, Low),
    ("development: 100 % AI, neither", within(Tier::Development, bare(ai(1.0))), 29, Low),
    ("development: the worst", within(Tier::Development, WORST), 29, Low),
    ("production: the worst", WORST, 100, High),
];

#[test]
fn every_case_of_the_table() {
    for (name, facts, score, level) in CASES {
        let found = assess(facts);
        assert_eq!((found.score, found.level), (*score, *level), "{name}: {found:#?}");
    }
}

fn facts() -> impl Strategy<Value = RiskFacts> {
    let share = || prop_oneof![0.0..=1.0_f64, Just(0.0), Just(0.01), Just(1.0), -1.0..2.0_f64, Just(f64::NAN)];
    let flags = (any::<[bool; 8]>(), 0..30_u32, 0..30_u32);
    let tier = prop::sample::select(Tier::ALL.to_vec());
    let direction = prop::sample::select(vec![Still, Lowering, Widening]);
    (tier, direction, share(), share(), flags).prop_map(
        |(tier, direction, share, ai_share, (bits, dependants, flags_touched))| {
            let [ai, guardrails, staged, drill_fresh, schema_change, segment_change, flag_wide, text_only] = bits;
            RiskFacts {
                tier,
                direction,
                share,
                ai_share,
                ai,
                guardrails,
                staged,
                drill_fresh,
                dependants,
                schema_change,
                flags_touched,
                segment_change,
                flag_wide,
                text_only,
            }
        },
    )
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(4_000))]

    #[test]
    fn reasons_add_up_to_the_score(facts in facts()) {
        let found = assess(&facts);
        let sum: i32 = found.reasons.iter().map(|reason| reason.points).sum();
        prop_assert_eq!(i64::from(sum.clamp(0, 100)), i64::from(found.score));
        prop_assert!(found.score <= 100);
        prop_assert_eq!(found.level, level(found.score));
        prop_assert!(found.reasons.iter().all(|reason| reason.points != 0 && !reason.text.is_empty()));
    }

    #[test]
    fn lowering_texts_and_development_are_low(facts in facts()) {
        let is_low = |facts: RiskFacts| assess(&facts).level == Low;
        let lowering = RiskFacts { direction: Lowering, ..facts };
        prop_assert!(is_low(lowering) && assess(&lowering).score <= 20);
        let text = RiskFacts { direction: Still, text_only: true, ..facts };
        prop_assert!(is_low(text));
        let development = RiskFacts { tier: Tier::Development, ..facts };
        prop_assert!(is_low(development));
    }

    #[test]
    fn what_is_worse_scores_no_less(facts in facts(), share in 0.0..=1.0_f64, more in 0..50_u32) {
        let score = |facts: RiskFacts| assess(&facts).score;
        let least = score(facts);
        let worse = |known: f64| if known.is_nan() { known } else { known.max(share) };
        let all = [
            RiskFacts { share: worse(facts.share), ..facts },
            RiskFacts { ai_share: worse(facts.ai_share), ..facts },
            RiskFacts { guardrails: false, ..facts },
            RiskFacts { drill_fresh: false, ..facts },
            RiskFacts { ai: true, ..facts },
            RiskFacts { dependants: facts.dependants.saturating_add(more), ..facts },
            RiskFacts { flags_touched: facts.flags_touched.saturating_add(more), ..facts },
            RiskFacts { schema_change: true, ..facts },
            RiskFacts { segment_change: true, ..facts },
            RiskFacts { flag_wide: true, ..facts },
            RiskFacts { text_only: false, ..facts },
        ];
        for worse in all {
            prop_assert!(score(worse) >= least, "{:?}", worse);
        }
        for tier in Tier::ALL {
            if tier >= facts.tier {
                prop_assert!(score(RiskFacts { tier, ..facts }) >= least, "{tier:?}");
            }
        }
        let lowering = RiskFacts { direction: Lowering, ..facts };
        let widening = RiskFacts { direction: Widening, ..facts };
        prop_assert!(score(widening) >= score(lowering));
    }

    #[test]
    fn what_is_journaled_reads_back(facts in facts()) {
        let found = assess(&facts);
        let text = serde_json::to_string(&found).unwrap();
        prop_assert_eq!(serde_json::from_str::<Assessment>(&text).unwrap(), found);
    }
}

#[test]
fn the_journaled_form_is_this_one() {
    let found = serde_json::to_value(assess(&plain(0.0025))).unwrap();
    assert_eq!(
        found,
        json!({"score": 14, "level": "low", "reasons": [
            {"code": "tier", "points": 12, "text": "in production"},
            {"code": "share", "points": 2, "text": "up to 0.25 % of the people get something else"}]})
    );
}

#[test]
fn facts_follow_from_instructions_and_movement() {
    let kinds = |instructions| EditKinds::of(&serde_json::from_value::<Vec<Instruction>>(instructions).unwrap());
    let name = json!({"kind": "updateFlag", "flag": "a", "name": "A"});
    let value = json!({"kind": "updateVariation", "flag": "a", "variation": "x", "value": true});
    let label = json!({"kind": "updateVariation", "flag": "a", "variation": "x", "name": "X"});
    let on = json!({"kind": "turnFlagOn", "flag": "b"});
    let schema = json!({"kind": "setSchema", "flag": "a", "schema": null});
    let keys = json!({"kind": "addSegmentKeys", "segment": "s", "keys": ["k"]});
    assert!(kinds(json!([name, label])).text_only && !kinds(json!([name, label])).flag_wide);
    assert!(kinds(json!([value])).flag_wide && !kinds(json!([name, value])).text_only);
    assert!(!kinds(json!([on])).flag_wide && !kinds(json!([])).text_only);
    let found = kinds(json!([on, schema, keys, name]));
    assert!(found.schema && found.segment && found.flag_wide && !found.text_only);
    let movement = Movement {
        direction: Direction::Widening,
        share: 0.5,
        ai_share: 0.25,
        flags: ["a", "b", "c"].map(str::to_owned).to_vec(),
        reasons: Vec::new(),
    };
    let facts = RiskFacts::new(Tier::Staging, &movement, &found, false);
    assert_eq!((facts.dependants, facts.flags_touched, facts.ai, facts.share), (1, 2, true, 0.5));
    assert!(!facts.guardrails && !facts.drill_fresh);
}
