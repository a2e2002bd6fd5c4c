//! The journal folded into memory: immutable, cheap to clone, swapped whole.

use std::collections::BTreeSet;
use std::sync::Arc;

use guidon_sdk::model::{Flag, SegmentRule};
use imbl::OrdMap;
use serde::{Deserialize, Serialize};

use crate::changes::request::ChangeRequest;
use crate::drills::StandingDrill;
use crate::environments::{Environment, SdkKey};
use crate::flags::ServedVariations;
use crate::identity::Directory;
use crate::journal::ChainHash;
use crate::notifications::Webhook;
use crate::releases::{Incident, Release};
use crate::segments::StoredSegment;

use super::{Quotas, Repeatables};

/// Everything there is at one revision.
///
/// Clones share all they have in common, so that a change costs what it changes.
#[derive(Clone, Debug, PartialEq)]
pub struct World {
    /// Number of the last entry folded in.
    pub revision: u64,
    /// The chain up to it.
    pub hash: ChainHash,
    /// Its time, in milliseconds since 1970.
    pub at: u64,
    /// Projects by key.
    pub projects: OrdMap<String, Arc<Project>>,
    /// SDK keys that are not revoked: BLAKE3 of the credential (hexadecimal) to project and key id.
    pub credentials: OrdMap<String, (String, String)>,
    /// Who there is, and what they may do.
    pub directory: Directory,
    /// When AI agents changed what in the last hour: what their quota is counted by.
    pub quotas: Quotas,
    /// Changes of the last 24 hours that may be sent again.
    pub repeatable: Repeatables,
}

/// A project and all it holds.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Project {
    /// Key, unique in the store.
    pub key: String,
    /// Name for people.
    pub name: String,
    /// When it was created, in milliseconds since 1970.
    pub created_at: u64,
    /// Environments by key.
    pub environments: OrdMap<String, Arc<Environment>>,
    /// Flags by key, archived ones among them.
    pub flags: OrdMap<String, Arc<FlagState>>,
    /// Segments by environment and key.
    pub segments: OrdMap<(String, String), Arc<SegmentState>>,
    /// SDK keys by id, revoked ones among them.
    pub sdk_keys: OrdMap<String, Arc<SdkKey>>,
    /// Variations that have been served in production, by key of the flag: of deleted flags too.
    pub served_variations: OrdMap<String, Arc<ServedVariations>>,
    /// Change requests by id.
    pub requests: OrdMap<String, Arc<ChangeRequest>>,
    /// Emergency changes, by the revision they made, and what their review found.
    pub reviews: OrdMap<u64, Arc<Review>>,
    /// Webhooks by id.
    pub webhooks: OrdMap<String, Arc<Webhook>>,
    /// The last rollback drill of each flag in each environment.
    pub drills: OrdMap<(String, String), Arc<StandingDrill>>,
    /// The last release of each flag in each environment.
    pub releases: OrdMap<(String, String), Arc<Release>>,
    /// Incidents by id.
    pub incidents: OrdMap<String, Arc<Incident>>,
}

/// A flag, and when it last changed.
#[derive(Clone, Debug, PartialEq)]
pub struct FlagState {
    /// As the journal has it: key sets in place of targeting keys.
    pub stored: Arc<Flag>,
    /// As people and SDKs see it: with the keys. The same allocation as `stored` where there are none.
    pub published: Arc<Flag>,
    /// When it was created, in milliseconds since 1970.
    pub created_at: u64,
    /// When it last changed, in milliseconds since 1970.
    pub updated_at: u64,
    /// Number of the entry that last changed it.
    pub revision: u64,
    /// Environments in which it has ever been on.
    pub served: BTreeSet<String>,
}

/// An emergency change, which somebody has to look at afterwards.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Review {
    /// The revision it made.
    pub revision: u64,
    /// When, in milliseconds since 1970.
    pub at: u64,
    /// Who made it.
    pub by: String,
    /// Environment it was made in.
    pub environment: String,
    /// What the review found, once it is closed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub finding: Option<Finding>,
}

/// What a review found.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Finding {
    /// Who reviewed.
    pub by: String,
    /// When, in milliseconds since 1970.
    pub at: u64,
    /// What was found.
    pub text: String,
}

/// A segment, its key lists at hand, and when it last changed.
#[derive(Clone, Debug, PartialEq)]
pub struct SegmentState {
    /// As the journal has it.
    pub stored: Arc<StoredSegment>,
    /// Keys that belong.
    pub included: guidon_sdk::eval::KeySet,
    /// Keys that do not belong unless included.
    pub excluded: guidon_sdk::eval::KeySet,
    /// The rules as people and SDKs see them: with the keys.
    pub rules: Arc<Vec<SegmentRule>>,
    /// When it was created, in milliseconds since 1970.
    pub created_at: u64,
    /// When it last changed, in milliseconds since 1970.
    pub updated_at: u64,
    /// Number of the entry that last changed it.
    pub revision: u64,
}
