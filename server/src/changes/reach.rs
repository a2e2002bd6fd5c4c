//! How many people each rule reaches, measured from the assignment log. Pure.

use std::collections::{BTreeMap, BTreeSet, HashMap};

use crate::assignments::Line;

/// Standard deviations that a measured share is raised by: what is measured of few people is little known.
const DEVIATIONS: f64 = 3.0;

/// Shares of the people that a flag's rules and fallthrough reach, as upper bounds.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Reach {
    flags: BTreeMap<String, Measured>,
}

#[derive(Clone, Debug, Default, PartialEq)]
struct Measured {
    /// By id of the rule; `None` is the fallthrough.
    shares: BTreeMap<Option<String>, f64>,
    /// Bound of what was never seen.
    unseen: f64,
}

impl Reach {
    /// Nothing is known: every rule may reach everybody.
    #[must_use]
    pub fn unknown() -> Self {
        Self::default()
    }

    /// Adds that at most `share` (0 to 1) of the people meet `rule` of `flag`, or its fallthrough; of its other rules, that
    /// nothing is known.
    #[must_use]
    pub fn with(mut self, flag: &str, rule: Option<&str>, share: f64) -> Self {
        let measured = self.flags.entry(flag.to_owned()).or_insert(Measured { unseen: 1.0, ..Measured::default() });
        measured.shares.insert(rule.map(str::to_owned), share);
        self
    }

    /// Upper bound of the share of people, 0 to 1, who meet `rule` of `flag`, or its fallthrough; 1 where nothing is known.
    #[must_use]
    pub fn share(&self, flag: &str, rule: Option<&str>) -> f64 {
        let Some(measured) = self.flags.get(flag) else { return 1.0 };
        let found = measured.shares.get(&rule.map(str::to_owned)).copied().unwrap_or(measured.unseen);
        if found.is_nan() { 1.0 } else { found.clamp(0.0, 1.0) }
    }

    /// What the last `most` lines of an environment say of the flags in `since`, which maps each to the revision from which its
    /// rules are what they are: who was served by earlier rules says nothing. `lines` are in the order they were stored.
    ///
    /// A unit counts once for every rule it met: among fewer than all people, no rule is said to reach fewer than it does.
    #[must_use]
    pub fn measured(lines: &[Line], most: usize, since: &BTreeMap<String, u64>) -> Self {
        let mut units: HashMap<&str, BTreeSet<_>> = HashMap::new();
        let mut met: HashMap<&str, BTreeMap<Option<&str>, BTreeSet<_>>> = HashMap::new();
        for line in lines.iter().skip(lines.len().saturating_sub(most)) {
            let assignment = &line.assignment;
            if since.get(&assignment.flag).is_none_or(|since| assignment.revision < *since) {
                continue;
            }
            let flag = assignment.flag.as_str();
            units.entry(flag).or_default().insert(assignment.unit);
            let rule = assignment.rule.as_deref();
            // Without a rule, only these two reasons say that the fallthrough decided; the others are off, targets and errors.
            if rule.is_some() || matches!(assignment.reason.as_str(), "SPLIT" | "DEFAULT" | "STATIC") {
                met.entry(flag).or_default().entry(rule).or_default().insert(assignment.unit);
            }
        }
        let measured = |(flag, all): (&str, BTreeSet<_>)| {
            let known = met.get(flag);
            let share = |found: &BTreeSet<_>| upper_bound(found.len(), all.len());
            let shares = known.into_iter().flatten().map(|(rule, found)| (rule.map(str::to_owned), share(found)));
            (flag.to_owned(), Measured { shares: shares.collect(), unseen: upper_bound(0, all.len()) })
        };
        Self { flags: units.into_iter().map(measured).collect() }
    }
}

/// Upper end of Wilson's interval (E. B. Wilson, "Probable inference", 1927) for `found` of `all`.
fn upper_bound(found: usize, all: usize) -> f64 {
    if all == 0 {
        return 1.0;
    }
    let (n, z) = (all as f64, DEVIATIONS);
    let share = found as f64 / n;
    let middle = share + z * z / (2.0 * n);
    let spread = z * (share * (1.0 - share) / n + z * z / (4.0 * n * n)).sqrt();
    ((middle + spread) / (1.0 + z * z / n)).min(1.0)
}

#[cfg(test)]
mod tests {
    use guidon_sdk::protocol::Cause;

    use super::*;
    use crate::assignments::anonymize::PseudonymKey;
    use crate::assignments::{Assignment, Cursor};

    fn line(index: u32, flag: &str, rule: Option<&str>, reason: &str, revision: u64) -> Line {
        let key = PseudonymKey::new([7; 32]);
        Line {
            assignment: Assignment {
                flag: flag.to_owned(),
                unit: key.pseudonym(&format!("unit-{index}")),
                assigned: "a".to_owned(),
                delivered: "a".to_owned(),
                cause: Cause::Normal,
                reason: reason.to_owned(),
                rule: rule.map(str::to_owned),
                slot: None,
                revision,
                at: 0,
            },
            instance: "i".to_owned(),
            received: 0,
            cursor: Cursor { seq: 1, index },
        }
    }

    #[test]
    fn shares_are_of_distinct_units_and_raised_by_what_few_can_say() {
        let mut lines = Vec::new();
        for index in 0..1_000 {
            let (rule, reason) = if index < 100 { (Some("r"), "TARGETING_MATCH") } else { (None, "SPLIT") };
            lines.push(line(index, "f", rule, reason, 5));
            lines.push(line(index, "f", rule, reason, 6));
            lines.push(line(index, "f", Some("old"), reason, 4));
            lines.push(line(index, "other", None, "DEFAULT", 5));
        }
        let since = BTreeMap::from([("f".to_owned(), 5)]);
        let reach = Reach::measured(&lines, usize::MAX, &since);
        let share = |rule| reach.share("f", rule);
        assert!((0.1..0.14).contains(&share(Some("r"))), "{}", share(Some("r")));
        assert!((0.9..0.94).contains(&share(None)), "{}", share(None));
        assert!((0.0..0.01).contains(&share(Some("old"))), "{}", share(Some("old")));
        assert_eq!(reach.share("other", None), 1.0);
        // Of the last few lines only the last units are known, and little is said of them.
        let last = Reach::measured(&lines, 40, &since);
        assert!(last.share("f", Some("r")) > 0.4 && last.share("f", None) == 1.0);
        assert_eq!(Reach::measured(&[], 40, &since), Reach::unknown());
    }

    #[test]
    fn what_is_not_known_is_everybody() {
        let reach = Reach::unknown().with("f", Some("r"), 0.25).with("g", None, f64::NAN);
        assert_eq!(reach.share("f", Some("r")), 0.25);
        assert_eq!(reach.share("f", None), 1.0);
        assert_eq!(reach.share("g", None), 1.0);
        assert_eq!(Reach::unknown().share("f", None), 1.0);
    }

    #[test]
    fn targets_and_closed_gates_are_not_the_fallthrough() {
        let lines: Vec<Line> = (0..1_000)
            .map(|index| line(index, "f", None, ["DISABLED", "TARGETING_MATCH"][index as usize % 2], 1))
            .collect();
        let reach = Reach::measured(&lines, 10_000, &BTreeMap::from([("f".to_owned(), 0)]));
        assert!(reach.share("f", None) < 0.01);
    }
}
