//! Instructions: the typed, named edits that everything which writes speaks.
//!
//! The same type is what a caller sends and what the journal keeps. A caller leaves out what the server decides (salts, rule
//! ids, allocations, key sets); [`super::ChangeService`] fills it in, and the journal keeps the *resolved* instruction, so that
//! folding it again gives the same state. In JSON an instruction is one flat object, tagged by `kind`:
//! `{"kind":"turnFlagOn","flag":"summary-engine"}`. One that applies to an environment may name it, in place of the one that its
//! change names: `{"kind":"turnFlagOn","flag":"summary-engine","environment":"staging"}`.

use std::collections::BTreeMap;

use guidon_sdk::model::{
    Flag, FlagEnvironment, KeySetRef, Prerequisite, Provenance, Rule, Segment, SegmentRule, Serve, SlotRange, Variation,
};
use serde::{Deserialize, Deserializer, Serialize, Serializer, de, ser};
use serde_json::{Map, Value};

use super::RequestEdit;
use crate::drills::DrillEdit;
use crate::environments::{Audience, Tier};
use crate::identity::DirectoryEdit;
use crate::notifications::WebhookEdit;
use crate::policy::{Action, Group};
use crate::releases::ReleaseEdit;
use crate::segments::StoredSegment;

/// One typed edit. Instructions about how a flag or segment is served apply to the environment their change names, unless they
/// name one themselves: [`Instruction::Within`].
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(remote = "Self", rename_all = "camelCase", rename_all_fields = "camelCase")]
#[non_exhaustive]
pub enum Instruction {
    // ---- projects, environments and credentials
    /// Creates the project the change names, with one environment in each tier.
    CreateProject {
        /// Name for people.
        #[serde(default, skip_serializing_if = "String::is_empty")]
        name: String,
    },
    /// Adds an environment to the project.
    CreateEnvironment {
        /// Key of the new environment.
        key: String,
        /// Name for people.
        #[serde(default, skip_serializing_if = "String::is_empty")]
        name: String,
        /// Tier it belongs to.
        tier: Tier,
    },
    /// Renames an environment, or moves one that has never served to another tier; fields left out stay.
    UpdateEnvironment {
        /// Key of the environment.
        key: String,
        /// New name for people.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        name: Option<String>,
        /// New tier.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        tier: Option<Tier>,
    },
    /// Deletes an environment that holds no live SDK key and in which no flag is on.
    DeleteEnvironment {
        /// Key of the environment.
        key: String,
    },
    /// Records an SDK key; the credential itself is shown once and never stored.
    CreateSdkKey {
        /// Identifier, for listing and revoking.
        #[serde(default)]
        id: String,
        /// Name for people.
        #[serde(default, skip_serializing_if = "String::is_empty")]
        name: String,
        /// Server SDKs or browsers.
        audience: Audience,
        /// BLAKE3 of the credential, in hexadecimal. Filled in by the server.
        #[serde(default)]
        hash: String,
    },
    /// Records an SDK key that takes another's place, which lives until its deadline.
    RotateSdkKey {
        /// Identifier of the old key.
        id: String,
        /// Identifier of the new one. Filled in by the server.
        #[serde(default)]
        successor: String,
        /// BLAKE3 of the new credential, in hexadecimal.
        hash: String,
        /// When the old one ends, in milliseconds since 1970.
        deadline: u64,
    },
    /// Revokes an SDK key and closes its streams.
    RevokeSdkKey {
        /// Identifier of the key.
        id: String,
    },
    /// Forbids changes in the environment for a time, all but those that lower exposure.
    DeclareFreeze {
        /// Identifier, for lifting it. Filled in by the server.
        #[serde(default)]
        id: String,
        /// When it begins, in milliseconds since 1970; at once if left out.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        from: Option<u64>,
        /// When it ends, in milliseconds since 1970; when it is lifted if left out.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        until: Option<u64>,
        /// Why.
        reason: String,
    },
    /// Ends a freeze.
    LiftFreeze {
        /// Identifier of the freeze.
        id: String,
    },

    // ---- who may do what, and change requests: each its own list of instructions
    /// An edit of the directory.
    #[serde(skip)]
    Directory(Box<DirectoryEdit>),
    /// An edit of a change request.
    #[serde(skip)]
    Request(Box<RequestEdit>),
    /// An edit of a webhook.
    #[serde(skip)]
    Webhook(Box<WebhookEdit>),
    /// The record of a rollback drill, which only the server makes.
    #[serde(skip)]
    Drill(Box<DrillEdit>),
    /// An edit of a release or of an incident.
    #[serde(skip)]
    Release(Box<ReleaseEdit>),

    /// An edit in an environment of its own, whatever its change names. Made by [`Instruction::within`] and by reading only, which
    /// see to it that the edit is one of an environment and not another of these.
    #[serde(skip)]
    Within {
        /// Key of the environment.
        environment: String,
        /// The edit.
        edit: Box<Instruction>,
    },

    // ---- flags, in every environment
    /// Creates a flag; off wherever the definition is silent.
    CreateFlag {
        /// The definition.
        flag: Box<Flag>,
    },
    /// Edits what people read about a flag; fields left out stay. An empty string removes `owner` or `expires`.
    UpdateFlag {
        /// Key of the flag.
        flag: String,
        /// New name.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        name: Option<String>,
        /// New description.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        description: Option<String>,
        /// New tags, all of them.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        tags: Option<Vec<String>>,
        /// New owner.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        owner: Option<String>,
        /// Whether the flag is to be removed one day.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        temporary: Option<bool>,
        /// New expiry day.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        expires: Option<String>,
    },
    /// Shows a flag to client-side keys, or hides it from them.
    SetClientSide {
        /// Key of the flag.
        flag: String,
        /// Whether they may see it.
        client_side: bool,
    },
    /// Sets or removes the JSON Schema of a flag's values.
    SetSchema {
        /// Key of the flag.
        flag: String,
        /// The schema; null removes it.
        #[serde(default)]
        schema: Option<Value>,
    },
    /// Retires a flag: SDKs answer the caller's default. Refused while another flag requires it.
    ArchiveFlag {
        /// Key of the flag.
        flag: String,
    },
    /// Brings an archived flag back as it was.
    UnarchiveFlag {
        /// Key of the flag.
        flag: String,
    },
    /// Deletes an archived flag.
    DeleteFlag {
        /// Key of the flag.
        flag: String,
    },
    /// Adds a variation.
    AddVariation {
        /// Key of the flag.
        flag: String,
        /// The variation.
        variation: Variation,
    },
    /// Edits a variation; fields left out stay.
    UpdateVariation {
        /// Key of the flag.
        flag: String,
        /// Key of the variation.
        variation: String,
        /// New value.
        #[serde(default, skip_serializing_if = "Option::is_none", deserialize_with = "some_value")]
        value: Option<Value>,
        /// New name.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        name: Option<String>,
        /// New description.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        description: Option<String>,
        /// New provenance.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        provenance: Option<Provenance>,
    },
    /// Removes a variation that nothing refers to.
    RemoveVariation {
        /// Key of the flag.
        flag: String,
        /// Key of the variation.
        variation: String,
    },

    // ---- flags, in one environment
    /// Turns a flag on.
    TurnFlagOn {
        /// Key of the flag.
        flag: String,
    },
    /// Turns a flag off: everybody gets the off variation.
    TurnFlagOff {
        /// Key of the flag.
        flag: String,
    },
    /// Chooses what is served while the flag is off.
    SetOffVariation {
        /// Key of the flag.
        flag: String,
        /// Key of the variation.
        variation: String,
    },
    /// Adds a prerequisite, or changes the variation that one requires.
    AddPrerequisite {
        /// Key of the flag.
        flag: String,
        /// The prerequisite.
        prerequisite: Prerequisite,
    },
    /// Removes a prerequisite.
    RemovePrerequisite {
        /// Key of the flag.
        flag: String,
        /// Key of the flag it required.
        prerequisite: String,
    },
    /// Gives individual targeting keys a variation, taking them from any other.
    AddTargets {
        /// Key of the flag.
        flag: String,
        /// Key of the variation.
        variation: String,
        /// The targeting keys.
        #[serde(default, skip_serializing_if = "Vec::is_empty")]
        keys: Vec<String>,
        /// All targets of the flag afterwards, as stored. Filled in by the server.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        targets: Option<Vec<guidon_sdk::model::Target>>,
    },
    /// Takes individual targeting keys out of the targets.
    RemoveTargets {
        /// Key of the flag.
        flag: String,
        /// The targeting keys.
        #[serde(default, skip_serializing_if = "Vec::is_empty")]
        keys: Vec<String>,
        /// All targets of the flag afterwards, as stored. Filled in by the server.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        targets: Option<Vec<guidon_sdk::model::Target>>,
    },
    /// Adds a rule, last unless `before` names another.
    AddRule {
        /// Key of the flag.
        flag: String,
        /// The rule; the server makes its id where it is empty.
        rule: Rule,
        /// Id of the rule it goes in front of.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        before: Option<String>,
    },
    /// Replaces the rule with this rule's id, keeping its place.
    ReplaceRule {
        /// Key of the flag.
        flag: String,
        /// The rule.
        rule: Rule,
    },
    /// Moves a rule, to the end unless `before` names another.
    MoveRule {
        /// Key of the flag.
        flag: String,
        /// Id of the rule.
        rule: String,
        /// Id of the rule it goes in front of.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        before: Option<String>,
    },
    /// Removes a rule.
    RemoveRule {
        /// Key of the flag.
        flag: String,
        /// Id of the rule.
        rule: String,
    },
    /// Chooses what is served when no rule matches.
    SetFallthrough {
        /// Key of the flag.
        flag: String,
        /// A variation or a rollout.
        serve: Serve,
    },
    /// Sets the weights of a rule's or the fallthrough's rollout, moving only the slots that must change owner.
    SetRollout {
        /// Key of the flag.
        flag: String,
        /// Id of the rule; the fallthrough if left out.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        rule: Option<String>,
        /// Weight of each variation, out of 100,000.
        weights: BTreeMap<String, u32>,
        /// Attribute to bucket by; as it was, or the targeting key, if left out.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        bucket_by: Option<String>,
        /// Gives the rollout a fresh salt, which deals everybody anew.
        #[serde(default, skip_serializing_if = "std::ops::Not::not")]
        reshuffle: bool,
        /// The salt afterwards. Filled in by the server.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        salt: Option<String>,
        /// Owner of every slot afterwards. Computed by the server; one that is sent is checked against the weights.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        allocation: Option<Vec<SlotRange>>,
    },
    /// Puts a flag's configuration in this environment back to what it was at an earlier revision.
    RevertFlag {
        /// Key of the flag.
        flag: String,
        /// Number of the revision to go back to.
        to_revision: u64,
        /// The configuration of that revision, as stored. Filled in by the server.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        state: Option<Box<FlagEnvironment>>,
    },

    // ---- segments of one environment
    /// Creates a segment.
    CreateSegment {
        /// The definition.
        segment: Box<Segment>,
        /// Its included keys, as stored. Filled in by the server.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        included: Option<KeySetRef>,
        /// Its excluded keys, as stored. Filled in by the server.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        excluded: Option<KeySetRef>,
    },
    /// Edits what people read about a segment; fields left out stay.
    UpdateSegment {
        /// Key of the segment.
        segment: String,
        /// New name.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        name: Option<String>,
        /// New description.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        description: Option<String>,
    },
    /// Deletes a segment that no flag refers to.
    DeleteSegment {
        /// Key of the segment.
        segment: String,
    },
    /// Adds a rule to a segment.
    AddSegmentRule {
        /// Key of the segment.
        segment: String,
        /// The rule; the server makes its id where it is empty.
        rule: SegmentRule,
    },
    /// Replaces the rule with this rule's id.
    ReplaceSegmentRule {
        /// Key of the segment.
        segment: String,
        /// The rule.
        rule: SegmentRule,
    },
    /// Removes a rule from a segment.
    RemoveSegmentRule {
        /// Key of the segment.
        segment: String,
        /// Id of the rule.
        rule: String,
    },
    /// Adds targeting keys to one of a segment's lists. Keys that are there already change nothing.
    AddSegmentKeys {
        /// Key of the segment.
        segment: String,
        /// Which list.
        #[serde(default)]
        list: SegmentList,
        /// The targeting keys.
        #[serde(default, skip_serializing_if = "Vec::is_empty")]
        keys: Vec<String>,
        /// In place of `keys` in what is stored. Filled in by the server.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        key_set: Option<KeySetRef>,
        /// Where the server merges the list's parts into one: the whole list afterwards. Filled in by the server.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        merged: Option<KeySetRef>,
    },
    /// Takes targeting keys out of one of a segment's lists. Keys that are not there change nothing.
    RemoveSegmentKeys {
        /// Key of the segment.
        segment: String,
        /// Which list.
        #[serde(default)]
        list: SegmentList,
        /// The targeting keys.
        #[serde(default, skip_serializing_if = "Vec::is_empty")]
        keys: Vec<String>,
        /// In place of `keys` in what is stored. Filled in by the server.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        key_set: Option<KeySetRef>,
        /// Where the server merges the list's parts into one: the whole list afterwards. Filled in by the server.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        merged: Option<KeySetRef>,
    },
    /// Puts a segment back to what it was at an earlier revision.
    RevertSegment {
        /// Key of the segment.
        segment: String,
        /// Number of the revision to go back to.
        to_revision: u64,
        /// The segment of that revision, as stored. Filled in by the server.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        state: Option<Box<StoredSegment>>,
    },
}

/// The field in which an instruction names an environment of its own.
pub(crate) const ENVIRONMENT: &str = "environment";

/// One of the two key lists of a segment.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum SegmentList {
    /// Keys that belong.
    #[default]
    Included,
    /// Keys that do not belong unless included.
    Excluded,
}

/// Tells a `null` that was sent from a field that was left out.
fn some_value<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<Value>, D::Error> {
    Value::deserialize(deserializer).map(Some)
}

impl Serialize for Instruction {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match self {
            Self::Directory(edit) => return edit.serialize(serializer),
            Self::Request(edit) => return edit.serialize(serializer),
            Self::Webhook(edit) => return edit.serialize(serializer),
            Self::Drill(edit) => return edit.serialize(serializer),
            Self::Release(edit) => return edit.serialize(serializer),
            Self::Within { environment, edit } => {
                let flat = edit.serialize(serde_json::value::Serializer).map_err(ser::Error::custom)?;
                let Value::Object(mut flat) = flat else {
                    return Err(ser::Error::custom("an instruction is an object"));
                };
                flat.insert(ENVIRONMENT.to_owned(), Value::String(environment.clone()));
                return flat.serialize(serializer);
            }
            _ => {}
        }
        // The derived form is {"kind": {fields}}; the published one is flat.
        let tagged = Self::serialize(self, serde_json::value::Serializer).map_err(ser::Error::custom)?;
        flatten(tagged).map_err(ser::Error::custom)?.serialize(serializer)
    }
}

impl<'de> Deserialize<'de> for Instruction {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let mut flat = Map::deserialize(deserializer)?;
        let is_of_webhook = |kind: &str| WebhookEdit::KINDS.contains(&kind);
        if flat.get("kind").and_then(Value::as_str).is_some_and(is_of_webhook) {
            return read(flat).map(|edit| Self::Webhook(Box::new(edit)));
        }
        match flat.get("kind").and_then(Value::as_str).and_then(|kind| kind.parse::<Action>().ok()).map(Action::group) {
            Some(Group::Request) => return read(flat).map(|edit| Self::Request(Box::new(edit))),
            Some(Group::Rehearse) => return read(flat).map(|edit| Self::Drill(Box::new(edit))),
            Some(Group::Administer | Group::Credential) if is_of_directory(&flat) => {
                return read(flat).map(|edit| Self::Directory(Box::new(edit)));
            }
            _ => {}
        }
        let own = match flat.remove(ENVIRONMENT) {
            None => None,
            Some(Value::String(environment)) => Some(environment),
            Some(_) => return Err(de::Error::custom("the environment of an instruction must be a string")),
        };
        let is_of_release = |kind: &str| ReleaseEdit::KINDS.contains(&kind);
        let edit = if flat.get("kind").and_then(Value::as_str).is_some_and(is_of_release) {
            Self::Release(Box::new(read(flat)?))
        } else {
            Self::deserialize(tag(flat).map_err(de::Error::custom)?).map_err(de::Error::custom)?
        };
        match own {
            None => Ok(edit),
            Some(environment) if edit.needs_environment() => Ok(Self::within(environment, edit)),
            Some(_) => Err(de::Error::custom(edit.in_no_environment())),
        }
    }
}

fn read<T: serde::de::DeserializeOwned, E: de::Error>(flat: Map<String, Value>) -> Result<T, E> {
    T::deserialize(Value::Object(flat)).map_err(E::custom)
}

/// Whether an instruction about rights or credentials is one of the directory, and not of a project.
fn is_of_directory(flat: &Map<String, Value>) -> bool {
    const OF_A_PROJECT: [&str; 9] = [
        "createProject",
        "createEnvironment",
        "updateEnvironment",
        "deleteEnvironment",
        "createSdkKey",
        "rotateSdkKey",
        "revokeSdkKey",
        "declareFreeze",
        "liftFreeze",
    ];
    flat.get("kind").and_then(Value::as_str).is_some_and(|kind| !OF_A_PROJECT.contains(&kind))
}

/// Turns the derived form into the published, flat one.
pub(crate) fn flatten(tagged: Value) -> Result<Map<String, Value>, &'static str> {
    let Value::Object(tagged) = tagged else { return Err("an instruction is an object") };
    let mut flat = Map::new();
    for (kind, fields) in tagged {
        flat.insert("kind".to_owned(), Value::String(kind));
        if let Value::Object(fields) = fields {
            flat.extend(fields);
        }
    }
    Ok(flat)
}

/// Turns the published, flat form into the derived form, whose errors can name the path of what is wrong.
pub(crate) fn tag(mut flat: Map<String, Value>) -> Result<Value, &'static str> {
    match flat.remove("kind") {
        Some(Value::String(kind)) => Ok(Value::Object(Map::from_iter([(kind, Value::Object(flat))]))),
        Some(_) => Err("the kind of an instruction must be a string"),
        None => Err("an instruction needs a kind, as in {\"kind\":\"turnFlagOn\",\"flag\":\"…\"}"),
    }
}
