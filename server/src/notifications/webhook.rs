//! What a webhook is: where notifications go, which ones, and in which form. Pure.

use serde::{Deserialize, Serialize};

use super::{Notification, Topic};
use crate::environments::Tier;

/// Most webhooks of a project.
pub const MAX_WEBHOOKS: usize = 20;
/// Most entries of one list of a filter.
pub const MAX_FILTER_ENTRIES: usize = 100;
/// Longest overlap of two signing secrets: 30 days, in milliseconds.
pub const MAX_OVERLAP_MS: u64 = 30 * 24 * 60 * 60 * 1_000;

/// The form of what is sent.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Format {
    /// Plain JSON: `type`, `timestamp`, `data`.
    #[default]
    Json,
    /// CloudEvents 1.0, structured.
    CloudEvents,
    /// A message for Slack's incoming webhooks.
    Slack,
}

impl Format {
    /// The word used in JSON.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Json => "json",
            Self::CloudEvents => "cloudevents",
            Self::Slack => "slack",
        }
    }
}

/// Which notifications a webhook gets: those that pass every list. A list that is empty lets all pass, but for the topics of
/// the security log, which have to be named.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Filters {
    /// Topics.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub topics: Vec<Topic>,
    /// Environments, by key.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub environments: Vec<String>,
    /// Tiers.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub tiers: Vec<Tier>,
    /// Flags, by key.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub flags: Vec<String>,
}

impl Filters {
    /// Whether a notification passes.
    #[must_use]
    pub fn pass(&self, notification: &Notification) -> bool {
        let topic = if self.topics.is_empty() {
            !notification.topic.is_security()
        } else {
            notification.topics().any(|topic| self.topics.contains(&topic))
        };
        let environment = self.environments.is_empty()
            || notification.environments.iter().any(|environment| self.environments.contains(&environment.key));
        // An environment that is gone has no tier any more: rather a notification too many than one that is missed.
        let tier = self.tiers.is_empty()
            || notification
                .environments
                .iter()
                .any(|environment| environment.tier.is_none_or(|tier| self.tiers.contains(&tier)));
        let flag = self.flags.is_empty() || notification.flags.iter().any(|flag| self.flags.contains(flag));
        topic && environment && tier && flag
    }

    /// Whether anything of the security log could pass.
    #[must_use]
    pub fn want_security(&self) -> bool {
        self.topics.iter().any(|topic| topic.is_security())
    }

    /// How many entries its longest list has.
    #[must_use]
    pub fn longest(&self) -> usize {
        [self.topics.len(), self.environments.len(), self.tiers.len(), self.flags.len()].into_iter().max().unwrap_or(0)
    }
}

/// The secret before the present one.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct OldSecret {
    /// Where the vault has it.
    pub secret_ref: String,
    /// Until when notifications are signed with it as well, in milliseconds since 1970.
    pub until: u64,
}

/// From where on a webhook gets notifications: what came before is not sent.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Since {
    /// The entry that created or enabled it.
    pub revision: u64,
    /// Its time, in milliseconds since 1970.
    pub at: u64,
}

/// A webhook, as the journal has it: its URL and its secrets are in the vault.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Webhook {
    /// Identifier.
    pub id: String,
    /// Name for people.
    pub name: String,
    /// Scheme and host of the URL, whose path may be a secret.
    pub target: String,
    /// Where the vault has the URL.
    pub url_ref: String,
    /// The form of what is sent.
    pub format: Format,
    /// Which notifications it gets.
    #[serde(default)]
    pub filters: Filters,
    /// Whether it gets any.
    pub enabled: bool,
    /// Where the vault has the secret that notifications are signed with.
    pub secret_ref: String,
    /// The secret before it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub old_secret: Option<OldSecret>,
    /// From where on it gets notifications.
    pub since: Since,
    /// When it was created, in milliseconds since 1970.
    pub created_at: u64,
    /// When it was last changed, in milliseconds since 1970.
    pub updated_at: u64,
}

impl Webhook {
    /// Everything that it has in the vault.
    pub fn references(&self) -> impl Iterator<Item = &str> {
        let old = self.old_secret.as_ref().map(|old| &*old.secret_ref);
        [&*self.url_ref, &*self.secret_ref].into_iter().chain(old)
    }

    /// The secrets that a notification is signed with at `now` (milliseconds since 1970), the present one first.
    #[must_use]
    pub fn secrets(&self, now: u64) -> Vec<&str> {
        let old = self.old_secret.as_ref().filter(|old| now < old.until).map(|old| &*old.secret_ref);
        std::iter::once(&*self.secret_ref).chain(old).collect()
    }
}
