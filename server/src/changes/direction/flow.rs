//! Who goes from what to what, as bounds.

use std::collections::{BTreeMap, BTreeSet};

use guidon_sdk::model::{Flag, FlagEnvironment, ProvenanceKind};

use crate::policy::Direction;

/// Most pairs of variations that are named for one flag.
const MAX_NAMED: usize = 4;

/// What somebody is served.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Served<'a> {
    /// Key of the variation; `None` is the caller's default.
    pub(super) variation: Option<&'a str>,
    /// Whether the flag is on for them: else it meets no prerequisite, whatever it serves.
    pub(super) open: bool,
}

impl<'a> Served<'a> {
    pub(super) fn open(variation: &'a str) -> Self {
        Self { variation: Some(variation), open: true }
    }

    /// The flag is on, and somebody has nothing that the rollout could be bucketed by.
    pub(super) fn no_unit() -> Self {
        Self { variation: None, open: true }
    }

    /// The flag is absent, off, or a prerequisite is not met.
    pub(super) fn shut(config: Option<&'a FlagEnvironment>) -> Self {
        Self { variation: config.map(|config| config.off_variation.as_str()), open: false }
    }

    fn as_prerequisite(self) -> Option<&'a str> {
        self.variation.filter(|_| self.open)
    }
}

/// Bounds of who moves in one flag. A share of zero that is there stands for people who may be, and cannot be counted.
#[derive(Clone, Debug, Default)]
pub(super) struct Flow<'a> {
    /// Share that gets something else; `None` if nobody does.
    pub(super) moved: Option<f64>,
    /// Share that newly gets an AI variation.
    pub(super) ai: f64,
    /// Whether somebody may get what is neither the off variation nor by a person.
    pub(super) widening: bool,
    /// Share that newly meets a prerequisite on this variation.
    pub(super) gains: BTreeMap<&'a str, f64>,
    /// Share that no longer does.
    pub(super) losses: BTreeMap<&'a str, f64>,
    moves: BTreeSet<(Option<&'a str>, Option<&'a str>)>,
    /// Whether nothing is known but that anything may happen.
    anything: bool,
}

impl<'a> Flow<'a> {
    /// Anything may happen to anybody.
    pub(super) fn anything() -> Self {
        Self { moved: Some(1.0), ai: 1.0, widening: true, anything: true, ..Self::default() }
    }

    pub(super) fn is_still(&self) -> bool {
        self.moved.is_none() && self.gains.is_empty() && self.losses.is_empty() && !self.anything
    }

    pub(super) fn direction(&self) -> Direction {
        match self.moved {
            None => Direction::Still,
            Some(_) if self.widening => Direction::Widening,
            Some(_) => Direction::Lowering,
        }
    }

    /// Share that newly meets a prerequisite on `variation`, if anybody may.
    pub(super) fn gain(&self, variation: &str) -> Option<f64> {
        if self.anything { Some(1.0) } else { self.gains.get(variation).copied() }
    }

    /// Share that no longer meets a prerequisite on `variation`, if anybody may.
    pub(super) fn loss(&self, variation: &str) -> Option<f64> {
        if self.anything { Some(1.0) } else { self.losses.get(variation).copied() }
    }

    /// These people and those: shares add up.
    pub(super) fn and(self, other: Self) -> Self {
        self.merge(other, |one, two| (one + two).min(1.0))
    }

    /// Either these people or those, whoever there are more of.
    pub(super) fn or(self, other: Self) -> Self {
        self.merge(other, f64::max)
    }

    fn merge(mut self, other: Self, join: fn(f64, f64) -> f64) -> Self {
        self.moved = match (self.moved, other.moved) {
            (Some(one), Some(two)) => Some(join(one, two)),
            (one, two) => one.or(two),
        };
        self.ai = join(self.ai, other.ai);
        self.widening |= other.widening;
        self.anything |= other.anything;
        for (mine, theirs) in [(&mut self.gains, other.gains), (&mut self.losses, other.losses)] {
            for (variation, share) in theirs {
                mine.entry(variation).and_modify(|known| *known = join(*known, share)).or_insert(share);
            }
        }
        self.moves.extend(other.moves);
        self
    }

    /// The same moves, with every share put through `bound`.
    pub(super) fn bounded(mut self, bound: impl Fn(f64) -> f64) -> Self {
        self.moved = self.moved.map(&bound);
        self.ai = bound(self.ai);
        self.gains.values_mut().chain(self.losses.values_mut()).for_each(|share| *share = bound(*share));
        self
    }

    /// The same moves by no more than `share` of the people.
    pub(super) fn at_most(self, share: f64) -> Self {
        self.bounded(|known| known.min(share))
    }

    /// What moves, in words.
    pub(super) fn in_words(&self, flag: &str) -> Option<String> {
        let share = percent(self.moved?);
        let name = |variation: &Option<&str>| match variation {
            Some(key) => format!("\"{key}\""),
            None => "the caller's default".to_owned(),
        };
        let mut pairs: Vec<String> = self
            .moves
            .iter()
            .take(MAX_NAMED)
            .map(|(from, to)| match (from, to) {
                (from, to) if from == to => format!("{} edited", name(from)),
                (from, to) => format!("{} → {}", name(from), name(to)),
            })
            .collect();
        if self.moves.len() > MAX_NAMED {
            pairs.push(format!("{} more", self.moves.len() - MAX_NAMED));
        }
        let pairs = if pairs.is_empty() { "anything may happen".to_owned() } else { pairs.join(", ") };
        Some(format!("\"{flag}\": up to {share} are served something else ({pairs})"))
    }
}

/// A share, for people.
pub(crate) fn percent(share: f64) -> String {
    let text = format!("{:.3}", share * 100.0);
    let text = if text.contains('.') { text.trim_end_matches('0').trim_end_matches('.') } else { &text };
    format!("{text} %")
}

/// Says of one flag what counts as a move, and where it leads.
pub(super) struct Judge<'a> {
    after: Option<&'a Flag>,
    off_after: Option<&'a str>,
    /// Variations that are there before and after, and are not what they were: another value, or newly by AI.
    edited: BTreeSet<&'a str>,
}

impl<'a> Judge<'a> {
    pub(super) fn new(before: Option<&'a Flag>, after: Option<&'a Flag>, config: Option<&'a FlagEnvironment>) -> Self {
        let mut edited = BTreeSet::new();
        if let (Some(before), Some(after)) = (before, after) {
            for new in &after.variations {
                let Some(old) = before.variation(&new.key) else { continue };
                let newly_ai = new.is_by(ProvenanceKind::Ai) && !old.is_by(ProvenanceKind::Ai);
                if old.value != new.value || newly_ai {
                    edited.insert(new.key.as_str());
                }
            }
        }
        Self { after, off_after: config.map(|config| config.off_variation.as_str()), edited }
    }

    /// Whether nothing is a move that stays with its variation.
    pub(super) fn nothing_edited(&self) -> bool {
        self.edited.is_empty()
    }

    fn is_by(&self, variation: Option<&str>, kind: ProvenanceKind) -> bool {
        let found = variation.and_then(|key| self.after.and_then(|flag| flag.variation(key)));
        found.is_some_and(|variation| variation.is_by(kind))
    }

    pub(super) fn is_ai(&self, variation: &str) -> bool {
        self.is_by(Some(variation), ProvenanceKind::Ai)
    }

    /// Notes that `share` of the people go from `from` to `to`.
    pub(super) fn note(&self, flow: &mut Flow<'a>, from: Served<'a>, to: Served<'a>, share: f64) {
        self.note_prerequisite(flow, from, to, share);
        let stays = from.variation == to.variation;
        if stays && !to.variation.is_some_and(|variation| self.edited.contains(variation)) {
            return;
        }
        flow.moved = Some((flow.moved.unwrap_or(0.0) + share).min(1.0));
        flow.moves.insert((from.variation, to.variation));
        if self.is_by(to.variation, ProvenanceKind::Ai) {
            flow.ai = (flow.ai + share).min(1.0);
        }
        let is_off = to.variation.is_some() && to.variation == self.off_after;
        flow.widening |= !is_off && !self.is_by(to.variation, ProvenanceKind::Human);
    }

    /// Notes only what it means for flags that require this one.
    pub(super) fn note_prerequisite(&self, flow: &mut Flow<'a>, from: Served<'a>, to: Served<'a>, share: f64) {
        let (old, new) = (from.as_prerequisite(), to.as_prerequisite());
        if old == new {
            return;
        }
        let add = |known: &mut f64| *known = (*known + share).min(1.0);
        if let Some(old) = old {
            add(flow.losses.entry(old).or_default());
        }
        if let Some(new) = new {
            add(flow.gains.entry(new).or_default());
        }
    }
}
