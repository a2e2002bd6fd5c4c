//! What a document makes of a flag or a segment: what stands, with all that the document says laid over it. Pure.

use std::collections::BTreeMap;

use guidon_sdk::model::{Clause, Flag, FlagEnvironment, Rollout, Rule, SegmentRule, Serve, Target, Variation};

use super::document::{
    ClauseDocument, FlagDocument, RolloutDocument, RuleDocument, SegmentDocument, SegmentRuleDocument, ServeDocument,
    ServingDocument, TargetDocument, VariationDocument,
};
use crate::changes::Problem;
use crate::flags::diff::{is_same_clauses, lists_targeting_keys};
use crate::segments::diff::WantedSegment;
use crate::state::SegmentState;

/// Where in the document something stands, and what is wrong there.
pub(crate) struct Faults<'a> {
    pub(crate) problems: &'a mut Vec<Problem>,
    /// What is wrong where a clause leaves out its targeting keys and none stand, and what to do.
    pub(crate) no_keys: &'static str,
}

impl<'a> Faults<'a> {
    /// Gathers what is wrong with a document that somebody wrote.
    pub(crate) fn of_document(problems: &'a mut Vec<Problem>) -> Self {
        let no_keys =
            "the values were left out, and no such clause stands whose targeting keys could be kept: say them";
        Self { problems, no_keys }
    }

    fn add(&mut self, at: &str, code: &'static str, message: impl Into<String>) {
        self.problems.push(Problem::new(at, code, message));
    }
}

/// The flag that the document asks for. `standing` is its published form, with a configuration for every environment that
/// there will be. `None` if a new flag lacks what it needs.
pub(crate) fn flag(
    key: &str,
    standing: Option<&Flag>,
    document: &FlagDocument,
    at: &str,
    faults: &mut Faults<'_>,
) -> Option<Flag> {
    let mut flag = match standing {
        Some(standing) => standing.clone(),
        None => new_flag(key, document, at, faults)?,
    };
    if let Some(kind) = document.kind.filter(|kind| *kind != flag.kind) {
        let message = format!(
            "the kind of a flag is fixed, and this one is {}; give another flag the kind {}",
            flag.kind.as_str(),
            kind.as_str()
        );
        faults.add(&format!("{at}/kind"), "kindFixed", message);
    }
    set(&mut flag.name, &document.name);
    set(&mut flag.description, &document.description);
    set(&mut flag.tags, &document.tags);
    set(&mut flag.temporary, &document.temporary);
    set(&mut flag.client_side, &document.client_side);
    set(&mut flag.archived, &document.archived);
    set(&mut flag.schema, &document.schema);
    let given = |text: &Option<String>| text.clone().filter(|text| !text.is_empty());
    set(&mut flag.owner, &document.owner.as_ref().map(given));
    set(&mut flag.expires, &document.expires.as_ref().map(given));
    if let Some(wanted) = &document.variations {
        flag.variations = variations(&flag.variations, wanted, at, faults);
    }
    let silent = flag.default_environment();
    for (environment, serving) in &document.environments {
        let at = format!("{at}/environments/{}", super::steps::pointer_part(environment));
        let Some(before) = flag.environments.get(environment).or(silent.as_ref()) else { continue };
        let is_new = !flag.environments.contains_key(environment);
        let after = in_environment(before, serving, &at, faults);
        if !is_new || standing.is_none() {
            flag.environments.insert(environment.clone(), after);
        }
    }
    Some(flag)
}

fn new_flag(key: &str, document: &FlagDocument, at: &str, faults: &mut Faults<'_>) -> Option<Flag> {
    let missing = |field: &str| format!("the flag {key:?} is new, and a new flag needs {field}");
    if document.kind.is_none() {
        faults.add(at, "missingField", missing("a kind: boolean, string, number or json"));
    }
    if document.variations.as_ref().is_none_or(Vec::is_empty) {
        faults.add(at, "missingField", missing("variations"));
    }
    let variations = document.variations.as_deref().filter(|variations| !variations.is_empty())?;
    Some(Flag {
        key: key.to_owned(),
        kind: document.kind?,
        name: String::new(),
        description: String::new(),
        tags: Vec::new(),
        owner: None,
        temporary: false,
        expires: None,
        client_side: false,
        archived: false,
        variations: self::variations(&[], variations, at, &mut Faults::of_document(&mut Vec::new())),
        schema: None,
        environments: BTreeMap::new(),
    })
}

fn set<T: Clone>(field: &mut T, said: &Option<T>) {
    if let Some(said) = said {
        field.clone_from(said);
    }
}

/// Known variations first and in their order, then the new ones. Two of one key stay two, to be refused.
fn variations(
    standing: &[Variation],
    wanted: &[VariationDocument],
    at: &str,
    faults: &mut Faults<'_>,
) -> Vec<Variation> {
    let mut made: Vec<(usize, Variation)> = Vec::new();
    for (index, document) in wanted.iter().enumerate() {
        let place = standing.iter().position(|known| known.key == document.key);
        let known = place.and_then(|place| standing.get(place));
        let Some(value) = document.value.clone().or_else(|| known.map(|known| known.value.clone())) else {
            let message = format!("the variation {:?} is new, and a new variation needs a value", document.key);
            faults.add(&format!("{at}/variations/{index}"), "missingField", message);
            continue;
        };
        let mut variation = known.cloned().unwrap_or_else(|| Variation {
            key: document.key.clone(),
            value: serde_json::Value::Null,
            name: String::new(),
            description: String::new(),
            provenance: None,
        });
        variation.value = value;
        set(&mut variation.name, &document.name);
        set(&mut variation.description, &document.description);
        if document.provenance.is_some() {
            variation.provenance.clone_from(&document.provenance);
        }
        made.push((place.unwrap_or(standing.len() + index), variation));
    }
    made.sort_by_key(|(place, _)| *place);
    made.into_iter().map(|(_, variation)| variation).collect()
}

/// How the environment is to serve the flag.
pub(crate) fn in_environment(
    standing: &FlagEnvironment,
    document: &ServingDocument,
    at: &str,
    faults: &mut Faults<'_>,
) -> FlagEnvironment {
    let mut config = standing.clone();
    set(&mut config.on, &document.on);
    set(&mut config.off_variation, &document.off_variation);
    set(&mut config.prerequisites, &document.prerequisites);
    if let Some(wanted) = &document.targets {
        config.targets = targets(wanted);
    }
    if let Some(wanted) = &document.rules {
        config.rules = rules(&standing.rules, wanted, &format!("{at}/rules"), faults);
    }
    if let Some(wanted) = &document.fallthrough {
        config.fallthrough = serve(wanted, Some(&standing.fallthrough));
    }
    config
}

/// Targets, one for each variation. Keys that are listed twice are left in, to be refused.
fn targets(wanted: &[TargetDocument]) -> Vec<Target> {
    let mut made: Vec<Target> = Vec::new();
    for TargetDocument { variation, keys } in wanted.iter().filter(|target| !target.keys.is_empty()) {
        match made.iter_mut().find(|known| known.variation == *variation) {
            Some(known) => known.keys.extend(keys.iter().cloned()),
            None => made.push(Target { variation: variation.clone(), keys: keys.clone(), key_set: None }),
        }
    }
    made
}

/// What is served, with the salt and allocation that stand where none is said.
fn serve(document: &ServeDocument, standing: Option<&Serve>) -> Serve {
    let rollout = match document {
        ServeDocument::Variation(variation) => return Serve::Variation(variation.clone()),
        ServeDocument::Rollout(rollout) => rollout,
    };
    let RolloutDocument { weights, bucket_by, salt, allocation } = rollout;
    let before = match standing {
        Some(Serve::Rollout(before)) => Some(before),
        _ => None,
    };
    let salt = salt.clone().filter(|salt| !salt.is_empty()).or_else(|| before.map(|before| before.salt.clone()));
    let salt = salt.unwrap_or_default();
    let same =
        before.filter(|before| before.salt == salt && before.bucket_by == *bucket_by && before.weights == *weights);
    let allocation = allocation.clone().or_else(|| same.map(|before| before.allocation.clone())).unwrap_or_default();
    Serve::Rollout(Rollout { weights: weights.clone(), bucket_by: bucket_by.clone(), salt, allocation })
}

fn rules(standing: &[Rule], wanted: &[RuleDocument], at: &str, faults: &mut Faults<'_>) -> Vec<Rule> {
    let looks = wanted.iter().map(|rule| Look::of(&rule.id, &rule.description, &rule.clauses));
    let known =
        standing.iter().map(|rule| Known { id: &rule.id, description: &rule.description, clauses: &rule.clauses });
    let serves_alike = |wanted_at: usize, standing_at: usize| {
        let (Some(wanted), Some(standing)) = (wanted.get(wanted_at), standing.get(standing_at)) else { return false };
        serve(&wanted.serve, Some(&standing.serve)) == standing.serve
    };
    let matched = match_rules(looks, known, &serves_alike);
    let mut made = Vec::with_capacity(wanted.len());
    for (index, (document, found)) in wanted.iter().zip(matched).enumerate() {
        let found = found.and_then(|place| standing.get(place));
        let at = format!("{at}/{index}/clauses");
        made.push(Rule {
            id: found.map(|rule| rule.id.clone()).or_else(|| document.id.clone()).unwrap_or_default(),
            description: document.description.clone(),
            clauses: clauses(&document.clauses, found.map(|rule| &*rule.clauses).unwrap_or_default(), &at, faults),
            serve: serve(&document.serve, found.map(|rule| &rule.serve)),
        });
    }
    made
}

/// A rule of a document, as far as it is compared.
struct Look<'a> {
    id: Option<&'a str>,
    description: &'a str,
    clauses: &'a [ClauseDocument],
}

impl<'a> Look<'a> {
    fn of(id: &'a Option<String>, description: &'a str, clauses: &'a [ClauseDocument]) -> Self {
        Self { id: id.as_deref(), description, clauses }
    }
}

/// A standing rule, as far as it is compared.
struct Known<'a> {
    id: &'a str,
    description: &'a str,
    clauses: &'a [Clause],
}

/// Which standing rule each rule of a document is: by id, else of the same content, else of the same clauses, else at the same
/// place. No standing rule is two.
fn match_rules<'a>(
    wanted: impl Iterator<Item = Look<'a>>,
    standing: impl Iterator<Item = Known<'a>>,
    serves_alike: &dyn Fn(usize, usize) -> bool,
) -> Vec<Option<usize>> {
    let (wanted, standing): (Vec<_>, Vec<_>) = (wanted.collect(), standing.collect());
    let mut matched: Vec<Option<usize>> = vec![None; wanted.len()];
    let mut taken = vec![false; standing.len()];
    let mut round = |is_it: &dyn Fn(usize, &Look<'_>, usize, &Known<'_>) -> bool| {
        for (at, (look, slot)) in wanted.iter().zip(&mut matched).enumerate().filter(|(_, (_, slot))| slot.is_none()) {
            let mut free = standing.iter().zip(&mut taken).enumerate().filter(|(_, (_, taken))| !**taken);
            if let Some((place, (_, taken))) = free.find(|(place, (known, _))| is_it(at, look, *place, known)) {
                *slot = Some(place);
                *taken = true;
            }
        }
    };
    let unnamed = |look: &Look<'_>| look.id.is_none_or(str::is_empty);
    round(&|_, look, _, known| !unnamed(look) && look.id == Some(known.id));
    round(&|at, look, place, known| {
        unnamed(look)
            && look.description == known.description
            && is_like(look.clauses, known.clauses)
            && serves_alike(at, place)
    });
    round(&|_, look, _, known| unnamed(look) && is_like(look.clauses, known.clauses));
    round(&|at, look, place, _| unnamed(look) && at == place);
    matched
}

/// Whether clauses of a document can be taken for these: targeting keys that are not said are any.
fn is_like(document: &[ClauseDocument], standing: &[Clause]) -> bool {
    let like = |(document, standing): (&ClauseDocument, &Clause)| {
        let mut as_said = clause(document);
        if document.values.is_none() && lists_targeting_keys(&as_said) && lists_targeting_keys(standing) {
            as_said.values.clone_from(&standing.values);
        }
        is_same_clauses(std::slice::from_ref(&as_said), std::slice::from_ref(standing))
    };
    document.len() == standing.len() && document.iter().zip(standing).all(like)
}

fn clause(document: &ClauseDocument) -> Clause {
    Clause {
        attribute: document.attribute.clone(),
        op: document.op,
        values: document.values.clone().unwrap_or_default(),
        negate: document.negate,
        key_set: None,
    }
}

/// The clauses, with the targeting keys that stand where none are said.
fn clauses(wanted: &[ClauseDocument], standing: &[Clause], at: &str, faults: &mut Faults<'_>) -> Vec<Clause> {
    let mut made = Vec::with_capacity(wanted.len());
    for (index, document) in wanted.iter().enumerate() {
        let mut clause = clause(document);
        if document.values.is_none() && lists_targeting_keys(&clause) {
            // At the same place first; else, if there is but one such clause, that one.
            let here = standing.get(index).filter(|known| lists_targeting_keys(known));
            let mut such = standing.iter().filter(|known| lists_targeting_keys(known));
            match here.or_else(|| such.next().filter(|_| such.next().is_none())) {
                Some(known) => clause.values.clone_from(&known.values),
                None => faults.add(&format!("{at}/{index}"), "missingField", faults.no_keys),
            }
        }
        made.push(clause);
    }
    made
}

/// The segment that the document asks for.
pub(crate) fn segment(
    key: &str,
    standing: Option<&SegmentState>,
    document: &SegmentDocument,
    at: &str,
    faults: &mut Faults<'_>,
) -> WantedSegment {
    let before = standing.map(|state| &state.stored);
    let mut wanted = WantedSegment {
        key: key.to_owned(),
        name: before.map(|before| before.name.clone()).unwrap_or_default(),
        description: before.map(|before| before.description.clone()).unwrap_or_default(),
        included: document.included.clone(),
        excluded: document.excluded.clone(),
        rules: standing.map(|state| state.rules.to_vec()).unwrap_or_default(),
    };
    set(&mut wanted.name, &document.name);
    set(&mut wanted.description, &document.description);
    if let Some(rules) = &document.rules {
        wanted.rules = segment_rules(&wanted.rules, rules, &format!("{at}/rules"), faults);
    }
    wanted
}

fn segment_rules(
    standing: &[SegmentRule],
    wanted: &[SegmentRuleDocument],
    at: &str,
    faults: &mut Faults<'_>,
) -> Vec<SegmentRule> {
    let looks = wanted.iter().map(|rule| Look::of(&rule.id, &rule.description, &rule.clauses));
    let known =
        standing.iter().map(|rule| Known { id: &rule.id, description: &rule.description, clauses: &rule.clauses });
    let matched = match_rules(looks, known, &|_, _| true);
    let mut made = Vec::with_capacity(wanted.len());
    for (index, (document, found)) in wanted.iter().zip(matched).enumerate() {
        let found = found.and_then(|place| standing.get(place));
        let at = format!("{at}/{index}/clauses");
        made.push(SegmentRule {
            id: found.map(|rule| rule.id.clone()).or_else(|| document.id.clone()).unwrap_or_default(),
            description: document.description.clone(),
            clauses: clauses(&document.clauses, found.map(|rule| &*rule.clauses).unwrap_or_default(), &at, faults),
        });
    }
    made
}
