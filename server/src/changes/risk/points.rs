//! The points of every reason: the table of the module above, as code.

use std::borrow::Cow;

use super::{Assessment, Reason, RiskFacts, level};
use crate::changes::direction::percent;
use crate::environments::Tier;
use crate::policy::Direction;

/// Shares are sums of slots in binary fractions: what differs by less is the same.
const SHARE_TOLERANCE: f64 = 1e-9;

/// Largest score.
const MOST: i32 = 100;

/// How much the change may hurt.
#[must_use]
pub fn assess(facts: &RiskFacts) -> Assessment {
    let mut sheet = Sheet::default();
    place(facts, &mut sheet);
    if facts.direction == Direction::Widening {
        widening(facts, &mut sheet);
    }
    extent(facts, &mut sheet);
    caps(facts, &mut sheet);
    let score = sheet.total.clamp(0, MOST).unsigned_abs();
    Assessment { score, level: level(score), reasons: sheet.reasons }
}

#[derive(Default)]
struct Sheet {
    total: i32,
    reasons: Vec<Reason>,
}

impl Sheet {
    fn add(&mut self, code: &'static str, points: i32, text: impl Into<String>) {
        if points != 0 {
            self.total += points;
            self.reasons.push(Reason { code: Cow::Borrowed(code), points, text: text.into() });
        }
    }

    fn cap(&mut self, code: &'static str, most: i32, text: &str) {
        self.add(code, (most - self.total).min(0), format!("{text}: at most {most}"));
    }
}

fn place(facts: &RiskFacts, sheet: &mut Sheet) {
    let points = match facts.tier {
        Tier::Development => 0,
        Tier::Testing => 3,
        Tier::Staging => 7,
        Tier::Production => 12,
    };
    sheet.add("tier", points, format!("in {}", facts.tier.as_str()));
}

fn widening(facts: &RiskFacts, sheet: &mut Sheet) {
    let (share, ai_share) = (known(facts.share), known(facts.ai_share));
    let points = by_share(share, [2, 6, 14, 20, 28]);
    let mut of_shares = points;
    sheet.add("share", points, format!("up to {} of the people get something else", percent(share)));
    if facts.ai || ai_share > 0.0 {
        sheet.add("ai", 10, "it leads to a variation written by AI");
        let points = by_share(ai_share, [0, 2, 5, 8, 12]);
        of_shares += points;
        sheet.add("aiShare", points, format!("up to {} newly get a variation written by AI", percent(ai_share)));
    }
    if !facts.guardrails {
        sheet.add("noGuardrails", 12, "no guardrail metric would stop it");
    }
    if facts.staged && facts.guardrails {
        sheet.add("staged", -of_shares.min(15), "it gets there in steps, each of which takes itself back");
    }
    if !facts.drill_fresh {
        sheet.add("noDrill", 10, "the way back was not rehearsed lately");
    }
}

fn extent(facts: &RiskFacts, sheet: &mut Sheet) {
    let points = match facts.dependants {
        0 => 0,
        1..=2 => 3,
        3..=9 => 6,
        _ => 10,
    };
    sheet.add("dependants", points, format!("{} more flags depend on it", facts.dependants));
    if facts.schema_change {
        sheet.add("schema", 8, "the schema of a flag's values changes");
    }
    let points = match facts.flags_touched {
        0..=1 => 0,
        2..=4 => 2,
        5..=19 => 5,
        _ => 10,
    };
    sheet.add("flags", points, format!("{} flags are edited at once", facts.flags_touched));
    if facts.segment_change {
        sheet.add("segment", 6, "the people of a segment change");
    }
    if facts.flag_wide {
        sheet.add("flagWide", 6, "it reaches the flag in every environment");
    }
}

fn caps(facts: &RiskFacts, sheet: &mut Sheet) {
    match facts.direction {
        Direction::Lowering => sheet.cap("lowering", 20, "everybody who moves gets the off variation or a person's"),
        Direction::Still if facts.text_only => sheet.cap("textOnly", 10, "only names and descriptions change"),
        _ => {}
    }
    match facts.tier {
        Tier::Development => sheet.cap("development", 29, "nobody but its authors sees development"),
        Tier::Testing => sheet.cap("testing", 59, "nobody outside sees testing"),
        Tier::Staging | Tier::Production => {}
    }
}

/// A share, or everybody where it is not one.
fn known(share: f64) -> f64 {
    if share.is_nan() { 1.0 } else { share.clamp(0.0, 1.0) }
}

/// Points of a share: none of nobody, then up to 1 %, 5 %, 25 %, 50 %, and more.
fn by_share(share: f64, points: [i32; 5]) -> i32 {
    let [one, five, quarter, half, more] = points;
    let up_to = |most: f64| share <= most + SHARE_TOLERANCE;
    match share {
        _ if up_to(0.0) => 0,
        _ if up_to(0.01) => one,
        _ if up_to(0.05) => five,
        _ if up_to(0.25) => quarter,
        _ if up_to(0.5) => half,
        _ => more,
    }
}
