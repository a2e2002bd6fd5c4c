//! Environments, their tiers, and the SDK keys that belong to them.

mod apply;
pub mod difference;
pub mod document;
pub mod drift;
mod expected;
mod export;
mod overlay;
pub mod plan;
mod pointers;
pub mod promote;
mod resolve;
mod retire;
pub(crate) mod steps;

pub(crate) use apply::apply;
pub use export::{ExportOptions, export};
pub(crate) use resolve::resolve;

use serde::{Deserialize, Serialize};

/// How close to real users an environment is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Tier {
    /// Where code is written.
    Development,
    /// Where it is tested.
    Testing,
    /// Where it is rehearsed.
    Staging,
    /// Where it serves real users.
    Production,
}

impl Tier {
    /// All tiers, in order of closeness to real users.
    pub const ALL: [Self; 4] = [Self::Development, Self::Testing, Self::Staging, Self::Production];

    /// The word used in JSON, and the key of the environment that every project starts with.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Development => "development",
            Self::Testing => "testing",
            Self::Staging => "staging",
            Self::Production => "production",
        }
    }
}

/// Who holds an SDK key, and so what a snapshot for it contains.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Audience {
    /// Server SDKs: every flag.
    Server,
    /// Browsers and devices, which anybody can read: only flags marked `clientSide`.
    Client,
}

/// An environment of a project.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Environment {
    /// Key, unique in the project.
    pub key: String,
    /// Name for people.
    pub name: String,
    /// Tier it belongs to.
    pub tier: Tier,
    /// Freezes declared: those that last, and those to come.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub freezes: Vec<Freeze>,
}

/// A time in which nothing in an environment may be changed, but for what lowers exposure.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Freeze {
    /// Identifier, for lifting it.
    pub id: String,
    /// When it begins, in milliseconds since 1970.
    pub from: u64,
    /// When it ends, in milliseconds since 1970; when it is lifted if there is none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub until: Option<u64>,
    /// Why.
    pub reason: String,
}

/// Most freezes of an environment at once.
pub const MAX_FREEZES: usize = 100;

impl SdkKey {
    /// Whether it opens anything at `now` (milliseconds since 1970).
    #[must_use]
    pub fn is_live(&self, now: u64) -> bool {
        self.revoked_at.is_none() && self.expires_at.is_none_or(|end| now < end)
    }
}

impl Environment {
    /// The environment of a tier that every project starts with.
    #[must_use]
    pub fn of_tier(tier: Tier) -> Self {
        let key = tier.as_str().to_owned();
        let name = key[..1].to_uppercase() + &key[1..];
        Self { key, name, tier, freezes: Vec::new() }
    }

    /// The freeze that holds at `now` (milliseconds since 1970).
    #[must_use]
    pub fn frozen_by(&self, now: u64) -> Option<&Freeze> {
        self.freezes.iter().find(|freeze| freeze.from <= now && freeze.until.is_none_or(|end| now < end))
    }
}

/// An SDK key as it is stored: never the credential itself.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct SdkKey {
    /// Identifier, for listing and revoking.
    pub id: String,
    /// Name for people.
    pub name: String,
    /// Environment it belongs to.
    pub environment: String,
    /// Server SDKs or browsers.
    pub audience: Audience,
    /// BLAKE3 of the credential, in hexadecimal.
    pub hash: String,
    /// When it was made, in milliseconds since 1970.
    pub created_at: u64,
    /// When it ends, once it was rotated, in milliseconds since 1970.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub expires_at: Option<u64>,
    /// When it was revoked, if it was.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub revoked_at: Option<u64>,
    /// The key that takes its place, once it was rotated.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub replaced_by: Option<String>,
}
