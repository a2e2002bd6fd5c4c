//! Whom a flag is on for, before and after, and what follows for it and for those that require it.

use std::collections::{BTreeMap, BTreeSet, HashMap};

use guidon_sdk::model::{Flag, FlagEnvironment, ProvenanceKind};

use super::body;
use super::closure::Concerned;
use super::flow::{Flow, Judge, Served};
use crate::changes::reach::Reach;
use crate::environments::Audience;
use crate::state::Project;

/// Whom a flag is on for.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Gate {
    /// Nobody: absent, off, or with a prerequisite that nobody meets.
    Shut,
    /// Those who meet the prerequisites; at most this share.
    Partly(f64),
    /// Everybody.
    Open,
}

impl Gate {
    fn most(self) -> f64 {
        match self {
            Self::Shut => 0.0,
            Self::Partly(share) => share,
            Self::Open => 1.0,
        }
    }
}

/// A state and who looks at it.
#[derive(Clone, Copy)]
struct Side<'a> {
    project: &'a Project,
    environment: &'a str,
    audience: Audience,
}

impl<'a> Side<'a> {
    /// The flag and its configuration; `None` if it is not there, archived, or not shown.
    fn flag(self, key: &str) -> Option<(&'a Flag, &'a FlagEnvironment)> {
        let flag: &'a Flag = &self.project.flags.get(key)?.published;
        let shown = !flag.archived && (self.audience == Audience::Server || flag.client_side);
        let config = flag.environments.get(self.environment).filter(|_| shown)?;
        Some((flag, config))
    }
}

/// Two states of one environment, compared flag by flag.
pub(super) struct Comparison<'a> {
    before: Side<'a>,
    after: Side<'a>,
    flags: &'a BTreeSet<&'a str>,
    segments: &'a BTreeSet<&'a str>,
    reach: &'a Reach,
    flows: HashMap<&'a str, Flow<'a>>,
    /// By state (after or not), flag and variation: the largest share that meets a prerequisite on it.
    met: HashMap<(bool, &'a str, &'a str), Option<f64>>,
}

impl<'a> Comparison<'a> {
    pub(super) fn new(
        before: &'a Project,
        after: &'a Project,
        environment: &'a str,
        audience: Audience,
        concerned: &'a Concerned<'a>,
        reach: &'a Reach,
    ) -> Self {
        let side = |project| Side { project, environment, audience };
        Self {
            before: side(before),
            after: side(after),
            flags: &concerned.flags,
            segments: &concerned.segments,
            reach,
            flows: HashMap::new(),
            met: HashMap::new(),
        }
    }

    /// Who moves in one flag.
    pub(super) fn flow(&mut self, key: &'a str) -> Flow<'a> {
        if !self.flags.contains(key) {
            return Flow::default();
        }
        if let Some(known) = self.flows.get(key) {
            return known.clone();
        }
        // Stands until the flow is known: of flags that require each other nothing can be said.
        self.flows.insert(key, Flow::anything());
        let flow = self.compare(key);
        self.flows.insert(key, flow.clone());
        flow
    }

    fn compare(&mut self, key: &'a str) -> Flow<'a> {
        let (old, new) = (self.before.flag(key), self.after.flag(key));
        let (old_config, new_config) = (old.map(|(_, config)| config), new.map(|(_, config)| config));
        let (gate_before, gate_after) = (self.gate(false, old_config), self.gate(true, new_config));
        let judge = Judge::new(old.map(|(flag, _)| flag), new.map(|(flag, _)| flag), new_config);
        let (shut_before, shut_after) = (Served::shut(old_config), Served::shut(new_config));
        let mut flow = Flow::default();
        if gate_before != Gate::Open && gate_after != Gate::Open {
            judge.note(&mut flow, shut_before, shut_after, 1.0);
        }
        let (most_before, most_after) = (gate_before.most(), gate_after.most());
        if let (Some(config), Some(share)) =
            (new_config, self.entering(old_config, gate_before, new_config, gate_after))
        {
            flow = flow.and(body::into(&judge, shut_before, config).at_most(share.min(most_after)));
        }
        if let (Some(config), Some(share)) = (old_config, self.leaving(old_config, gate_before, new_config, gate_after))
        {
            flow = flow.and(body::out_of(&judge, config, shut_after).at_most(share.min(most_before)));
        }
        if let (Some(old), Some(new)) = (old_config, new_config)
            && gate_before != Gate::Shut
            && gate_after != Gate::Shut
        {
            let stays = body::compare(&judge, (old, new), self.segments, body::reach_in(self.reach, key));
            flow = flow.and(stays.at_most(most_before.min(most_after)));
        }
        flow
    }

    /// The share that the flag is off for before and on for after; `None` if nobody.
    fn entering(
        &mut self,
        old: Option<&'a FlagEnvironment>,
        gate_before: Gate,
        new: Option<&'a FlagEnvironment>,
        gate_after: Gate,
    ) -> Option<f64> {
        match (gate_before, gate_after) {
            (_, Gate::Shut) | (Gate::Open, _) => None,
            (Gate::Shut, _) | (_, Gate::Open) => Some(1.0),
            (Gate::Partly(_), Gate::Partly(_)) => self.turning(old, new, |flow, variation| flow.gain(variation)),
        }
    }

    /// The share that the flag is on for before and off for after; `None` if nobody.
    fn leaving(
        &mut self,
        old: Option<&'a FlagEnvironment>,
        gate_before: Gate,
        new: Option<&'a FlagEnvironment>,
        gate_after: Gate,
    ) -> Option<f64> {
        match (gate_before, gate_after) {
            (Gate::Shut, _) | (_, Gate::Open) => None,
            (Gate::Open, _) | (_, Gate::Shut) => Some(1.0),
            // What the one direction is to prerequisites that go, the other is to those that come.
            (Gate::Partly(_), Gate::Partly(_)) => self.turning(new, old, |flow, variation| flow.loss(variation)),
        }
    }

    /// Everybody, if `here` has a prerequisite that `there` has not; else those for whom one that both have turns.
    fn turning(
        &mut self,
        here: Option<&'a FlagEnvironment>,
        there: Option<&'a FlagEnvironment>,
        turns: fn(&Flow<'a>, &str) -> Option<f64>,
    ) -> Option<f64> {
        let there = &there?.prerequisites;
        let mut share: Option<f64> = None;
        for prerequisite in &here?.prerequisites {
            if !there.contains(prerequisite) {
                return Some(1.0);
            }
            if let Some(turned) = turns(&self.flow(&prerequisite.flag), &prerequisite.variation) {
                share = Some((share.unwrap_or(0.0) + turned).min(1.0));
            }
        }
        share
    }

    fn gate(&mut self, after: bool, config: Option<&'a FlagEnvironment>) -> Gate {
        let Some(config) = config.filter(|config| config.on) else { return Gate::Shut };
        let mut gate = Gate::Open;
        for prerequisite in &config.prerequisites {
            match self.met(after, &prerequisite.flag, &prerequisite.variation) {
                None => return Gate::Shut,
                Some(share) => gate = Gate::Partly(gate.most().min(share)),
            }
        }
        gate
    }

    /// The largest share that may be served `variation` by a flag that is on for them; `None` if nobody is.
    fn met(&mut self, after: bool, key: &'a str, variation: &'a str) -> Option<f64> {
        let place = (after, key, variation);
        if let Some(known) = self.met.get(&place) {
            return *known;
        }
        // Stands until it is known, for flags that require each other.
        self.met.insert(place, Some(1.0));
        let side = if after { self.after } else { self.before };
        let config = side.flag(key).map(|(_, config)| config);
        let found = match (self.gate(after, config), config) {
            (Gate::Shut, _) | (_, None) => None,
            (gate, Some(config)) => body::most(config, variation).map(|share| share.min(gate.most())),
        };
        self.met.insert(place, found);
        found
    }

    /// Variations that the change says a person wrote, and that were not said to be before.
    pub(super) fn relabelled(&self, key: &str) -> Option<String> {
        let ((old, _), (new, _)) = (self.before.flag(key)?, self.after.flag(key)?);
        let by_person = |variation: &&guidon_sdk::model::Variation| variation.is_by(ProvenanceKind::Human);
        let were: BTreeMap<&str, bool> =
            old.variations.iter().map(|old| (old.key.as_str(), old.is_by(ProvenanceKind::Human))).collect();
        let newly = new.variations.iter().filter(by_person).filter(|new| were.get(new.key.as_str()) == Some(&false));
        let names: Vec<String> = newly.map(|variation| format!("\"{}\"", variation.key)).collect();
        (!names.is_empty()).then(|| format!("\"{key}\": said to be by a person from now on: {}", names.join(", ")))
    }
}
