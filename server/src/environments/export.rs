//! A project as a document that says every field. Pure.

use std::collections::BTreeMap;

use guidon_sdk::model::{Clause, Flag, FlagEnvironment, Serve};

use super::document::{
    ClauseDocument, Document, EnvironmentDocument, FlagDocument, RolloutDocument, RuleDocument, SegmentDocument,
    SegmentRuleDocument, ServeDocument, ServingDocument, TargetDocument, VariationDocument,
};
use crate::flags::diff::lists_targeting_keys;
use crate::state::{Project, SegmentState};

/// What an export says.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ExportOptions {
    /// Targets, key lists of segments, and targeting keys in clauses: persons' keys.
    pub keys: bool,
    /// Who owns which slot of each rollout.
    pub allocations: bool,
}

/// The project as it stands, with the environments that `seen` lets through.
#[must_use]
pub fn export(project: &Project, options: ExportOptions, seen: &dyn Fn(&str) -> bool) -> Document {
    let environments: Vec<_> = project.environments.values().filter(|environment| seen(&environment.key)).collect();
    let flags =
        project.flags.values().map(|flag| (flag.published.key.clone(), flag_of(&flag.published, options, seen)));
    let mut segments: BTreeMap<String, BTreeMap<String, SegmentDocument>> =
        environments.iter().map(|environment| (environment.key.clone(), BTreeMap::new())).collect();
    for ((environment, key), segment) in &project.segments {
        if let Some(here) = segments.get_mut(environment) {
            here.insert(key.clone(), segment_of(segment, options));
        }
    }
    let environments = environments.into_iter().map(|environment| {
        let (name, tier) = (Some(environment.name.clone()), Some(environment.tier));
        (environment.key.clone(), EnvironmentDocument { name, tier })
    });
    Document { environments: Some(environments.collect()), flags: Some(flags.collect()), segments: Some(segments) }
}

/// A flag as a document.
pub(crate) fn flag_of(flag: &Flag, options: ExportOptions, seen: &dyn Fn(&str) -> bool) -> FlagDocument {
    let variations = flag.variations.iter().map(|variation| VariationDocument {
        key: variation.key.clone(),
        value: Some(variation.value.clone()),
        name: Some(variation.name.clone()),
        description: Some(variation.description.clone()),
        provenance: variation.provenance.clone(),
    });
    let environments = flag.environments.iter().filter(|(environment, _)| seen(environment));
    FlagDocument {
        kind: Some(flag.kind),
        name: Some(flag.name.clone()),
        description: Some(flag.description.clone()),
        tags: Some(flag.tags.clone()),
        owner: Some(flag.owner.clone()),
        temporary: Some(flag.temporary),
        expires: Some(flag.expires.clone()),
        client_side: Some(flag.client_side),
        archived: Some(flag.archived),
        schema: Some(flag.schema.clone()),
        variations: Some(variations.collect()),
        environments: environments.map(|(key, config)| (key.clone(), serving_of(config, options))).collect(),
    }
}

/// How an environment serves a flag, as a document.
pub(crate) fn serving_of(config: &FlagEnvironment, options: ExportOptions) -> ServingDocument {
    let rules = config.rules.iter().map(|rule| RuleDocument {
        id: Some(rule.id.clone()).filter(|id| !id.is_empty()),
        description: rule.description.clone(),
        clauses: rule.clauses.iter().map(|clause| clause_of(clause, options)).collect(),
        serve: serve_of(&rule.serve, options),
    });
    let targets = config
        .targets
        .iter()
        .map(|target| TargetDocument { variation: target.variation.clone(), keys: target.keys.clone() });
    ServingDocument {
        on: Some(config.on),
        off_variation: Some(config.off_variation.clone()),
        prerequisites: Some(config.prerequisites.clone()),
        targets: options.keys.then(|| targets.collect()),
        rules: Some(rules.collect()),
        fallthrough: Some(serve_of(&config.fallthrough, options)),
    }
}

/// A clause as a document; which persons' keys it lists is left out unless it is asked for.
pub(crate) fn clause_of(clause: &Clause, options: ExportOptions) -> ClauseDocument {
    let hidden = lists_targeting_keys(clause) && !options.keys;
    ClauseDocument {
        attribute: clause.attribute.clone(),
        op: clause.op,
        values: (!hidden && !clause.values.is_empty()).then(|| clause.values.clone()),
        negate: clause.negate,
    }
}

/// What is served, as a document.
pub(crate) fn serve_of(serve: &Serve, options: ExportOptions) -> ServeDocument {
    match serve {
        Serve::Variation(variation) => ServeDocument::Variation(variation.clone()),
        Serve::Rollout(rollout) => ServeDocument::Rollout(RolloutDocument {
            weights: rollout.weights.clone(),
            bucket_by: rollout.bucket_by.clone(),
            salt: Some(rollout.salt.clone()).filter(|salt| !salt.is_empty()),
            allocation: options.allocations.then(|| rollout.allocation.clone()),
        }),
    }
}

/// A segment as a document.
pub(crate) fn segment_of(segment: &SegmentState, options: ExportOptions) -> SegmentDocument {
    let sorted = |keys: &guidon_sdk::eval::KeySet| {
        let mut keys: Vec<String> = keys.iter().map(str::to_owned).collect();
        keys.sort_unstable();
        keys
    };
    let rules = segment.rules.iter().map(|rule| SegmentRuleDocument {
        id: Some(rule.id.clone()).filter(|id| !id.is_empty()),
        description: rule.description.clone(),
        clauses: rule.clauses.iter().map(|clause| clause_of(clause, options)).collect(),
    });
    SegmentDocument {
        name: Some(segment.stored.name.clone()),
        description: Some(segment.stored.description.clone()),
        included: options.keys.then(|| sorted(&segment.included)),
        excluded: options.keys.then(|| sorted(&segment.excluded)),
        rules: Some(rules.collect()),
    }
}
