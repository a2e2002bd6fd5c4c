//! What an open flag does: targets, rules, fallthrough, before against after.

use std::collections::{BTreeMap, BTreeSet, HashMap};

use guidon_sdk::model::{FlagEnvironment, Op, Rule, Serve};

use super::flow::{Flow, Judge, Served};
use super::serve;
use crate::changes::reach::Reach;

/// Most pairs of places that are compared for one flag. Past it, which takes hundreds of rules on one segment that changes,
/// anything may happen.
const MAX_PAIRS: usize = 50_000;

/// A configuration's rules and fallthrough, those left out that nobody can reach because an earlier rule has their clauses.
struct Outlets<'a> {
    config: &'a FlagEnvironment,
    /// What tells the people of each rule from others: rules of the same text match the same people.
    matches: Vec<String>,
    /// First rule of each text.
    first: HashMap<String, usize>,
}

impl<'a> Outlets<'a> {
    /// `side` keeps rules apart from those of the other side if they use a segment that changed.
    fn new(config: &'a FlagEnvironment, changed_segments: &BTreeSet<&str>, side: &str) -> Self {
        let text = |(index, rule): (usize, &Rule)| {
            let segments = rule.clauses.iter().filter(|clause| clause.op == Op::Segment);
            let mut used = segments.flat_map(|clause| &clause.values).filter_map(|value| value.as_str());
            let readable = serde_json::to_string(&rule.clauses).ok();
            match readable.filter(|_| !used.any(|key| changed_segments.contains(key))) {
                Some(text) => text,
                None => format!("{side} {index}"),
            }
        };
        let matches: Vec<String> = config.rules.iter().enumerate().map(text).collect();
        let mut first = HashMap::new();
        for (index, text) in matches.iter().enumerate() {
            first.entry(text.clone()).or_insert(index);
        }
        Self { config, matches, first }
    }

    /// Where nobody has matched: behind the last rule.
    fn end(&self) -> usize {
        self.config.rules.len()
    }

    /// The first place that catches whoever the rule at `index` of `other` matches; `None` if any place may.
    fn first_like(&self, other: &Self, index: usize) -> Option<usize> {
        match other.matches.get(index) {
            Some(text) => self.first.get(text).copied(),
            None => Some(self.end()),
        }
    }

    fn serve(&self, index: usize) -> &'a Serve {
        self.config.rules.get(index).map_or(&self.config.fallthrough, |rule| &rule.serve)
    }

    fn rule(&self, index: usize) -> Option<&'a str> {
        self.config.rules.get(index).map(|rule| rule.id.as_str())
    }

    /// Places that somebody can reach.
    fn live(&self) -> impl Iterator<Item = usize> {
        (0..=self.end()).filter(|index| self.first_like(self, *index) == Some(*index))
    }
}

/// Which variation each targeting key gets: the first target that names it wins.
fn targets(config: &FlagEnvironment) -> HashMap<&str, &str> {
    let mut targets = HashMap::new();
    for target in &config.targets {
        for key in &target.keys {
            targets.entry(key.as_str()).or_insert(target.variation.as_str());
        }
    }
    targets
}

fn targeted(config: &FlagEnvironment) -> BTreeSet<&str> {
    let named = config.targets.iter().filter(|target| !target.keys.is_empty());
    named.map(|target| target.variation.as_str()).collect()
}

fn serves(config: &FlagEnvironment) -> impl Iterator<Item = &Serve> {
    config.rules.iter().map(|rule| &rule.serve).chain([&config.fallthrough])
}

/// Upper bound of the share that an open flag serves `variation`; `None` if nobody.
pub(super) fn most(config: &FlagEnvironment, variation: &str) -> Option<f64> {
    if targeted(config).contains(variation) {
        return Some(1.0);
    }
    serves(config).filter_map(|serve| serve::shares(serve).get(variation).copied()).reduce(f64::max)
}

/// Everybody goes from `from` to what the open flag gives out.
pub(super) fn into<'a>(judge: &Judge<'a>, from: Served<'a>, config: &'a FlagEnvironment) -> Flow<'a> {
    let one = |variation| {
        let mut flow = Flow::default();
        judge.note(&mut flow, from, Served::open(variation), 1.0);
        flow
    };
    let ruled = serves(config).map(|serve| serve::into(judge, from, serve));
    targeted(config).into_iter().map(one).chain(ruled).fold(Flow::default(), Flow::or)
}

/// Everybody goes from what the open flag gives out to `to`.
pub(super) fn out_of<'a>(judge: &Judge<'a>, config: &'a FlagEnvironment, to: Served<'a>) -> Flow<'a> {
    let one = |variation| {
        let mut flow = Flow::default();
        judge.note(&mut flow, Served::open(variation), to, 1.0);
        flow
    };
    let ruled = serves(config).map(|serve| serve::out_of(judge, serve, to));
    targeted(config).into_iter().map(one).chain(ruled).fold(Flow::default(), Flow::or)
}

/// The flag is open to everybody before and after.
pub(super) fn compare<'a>(
    judge: &Judge<'a>,
    (old, new): (&'a FlagEnvironment, &'a FlagEnvironment),
    changed_segments: &BTreeSet<&str>,
    reach: impl Fn(Option<&str>) -> f64,
) -> Flow<'a> {
    let same_people = changed_segments.is_empty() && old.rules == new.rules;
    if judge.nothing_edited() && same_people && old.targets == new.targets && old.fallthrough == new.fallthrough {
        return Flow::default();
    }
    let by_target = compare_targets(judge, old, new);
    by_target.and(compare_rules(judge, old, new, changed_segments, reach))
}

fn compare_targets<'a>(judge: &Judge<'a>, old: &'a FlagEnvironment, new: &'a FlagEnvironment) -> Flow<'a> {
    let (before, after) = (targets(old), targets(new));
    let both = before.iter().map(|(key, from)| (Some(*from), after.get(key).copied()));
    let added = after.iter().filter(|(key, _)| !before.contains_key(*key)).map(|(_, to)| (None, Some(*to)));
    let pairs: BTreeSet<(Option<&str>, Option<&str>)> = both.chain(added).collect();
    let mut flow = Flow::default();
    for pair in pairs {
        // Who has a targeting key and is named nowhere gets what the rules or the fallthrough give.
        let moves = match pair {
            (Some(from), Some(to)) => {
                let mut flow = Flow::default();
                judge.note(&mut flow, Served::open(from), Served::open(to), 1.0);
                flow
            }
            (Some(from), None) => {
                serves(new).map(|serve| serve::into(judge, Served::open(from), serve)).fold(Flow::default(), Flow::or)
            }
            (None, Some(to)) => {
                serves(old).map(|serve| serve::out_of(judge, serve, Served::open(to))).fold(Flow::default(), Flow::or)
            }
            (None, None) => continue,
        };
        // How many people the keys are, and where their slots lie, is not known.
        flow = flow.or(moves.bounded(|share| if share > 0.0 { 1.0 } else { share }));
    }
    flow
}

/// Everybody meets one place before (a rule or the fallthrough) and one after.
fn compare_rules<'a>(
    judge: &Judge<'a>,
    old: &'a FlagEnvironment,
    new: &'a FlagEnvironment,
    changed_segments: &BTreeSet<&str>,
    reach: impl Fn(Option<&str>) -> f64,
) -> Flow<'a> {
    let (before, after) = (Outlets::new(old, changed_segments, "before"), Outlets::new(new, changed_segments, "after"));
    let live_after: Vec<usize> = after.live().collect();
    let mut places: Vec<(f64, Flow<'a>)> = Vec::new();
    let mut pairs = 0_usize;
    for from in before.live() {
        // Whoever meets `from` before meets nothing later than where its clauses stand after, and the other way round.
        let latest = after.first_like(&before, from).unwrap_or(usize::MAX);
        let possible = live_after.iter().take_while(|to| **to <= latest).filter(|to| {
            let earliest = before.first_like(&after, **to);
            earliest.is_none_or(|earliest| earliest >= from)
        });
        let (serve, mut moves) = (before.serve(from), Flow::default());
        for to in possible {
            pairs += 1;
            if pairs > MAX_PAIRS {
                return Flow::anything();
            }
            let given = after.serve(*to);
            if !judge.nothing_edited() || given != serve {
                moves = moves.or(serve::compare(judge, serve, given));
            }
        }
        if !moves.is_still() {
            places.push((reach(before.rule(from)), moves));
        }
    }
    weighed(places)
}

/// The most that can move when no more than its reach stands at each place, and each person at one.
fn weighed<'a>(places: Vec<(f64, Flow<'a>)>) -> Flow<'a> {
    let most = |share: &dyn Fn(&Flow<'a>) -> f64| {
        let mut by_share: Vec<(f64, f64)> = places.iter().map(|(reach, flow)| (share(flow), *reach)).collect();
        by_share.sort_by(|one, two| two.0.total_cmp(&one.0));
        let (mut total, mut people) = (0.0_f64, 1.0_f64);
        for (share, reach) in by_share {
            let here = reach.clamp(0.0, people);
            total += share * here;
            people -= here;
        }
        total.min(1.0)
    };
    let keyed = |select: for<'f> fn(&'f Flow<'a>) -> &'f BTreeMap<&'a str, f64>| -> BTreeMap<&'a str, f64> {
        let keys: BTreeSet<&'a str> = places.iter().flat_map(|(_, flow)| select(flow).keys().copied()).collect();
        let share = |key| most(&|flow| select(flow).get(key).copied().unwrap_or(0.0));
        keys.into_iter().map(|key| (key, share(key))).collect()
    };
    let moved = most(&|flow| flow.moved.unwrap_or(0.0));
    let ai = most(&|flow| flow.ai);
    let (gains, losses) = (keyed(|flow| &flow.gains), keyed(|flow| &flow.losses));
    let mut all = places.into_iter().map(|(_, flow)| flow).fold(Flow::default(), Flow::or);
    all.moved = all.moved.map(|_| moved);
    (all.ai, all.gains, all.losses) = (ai, gains, losses);
    all
}

/// What is known of the people at each place of `flag`.
pub(super) fn reach_in<'r>(reach: &'r Reach, flag: &'r str) -> impl Fn(Option<&str>) -> f64 + 'r {
    move |rule| reach.share(flag, rule)
}
