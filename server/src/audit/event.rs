//! What the second log records: what happened that is no change of state.

use serde::{Deserialize, Serialize};

/// What happened.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum EventKind {
    /// The policies, a scope or a freeze refused something.
    Refused,
    /// A presented credential was not valid.
    CredentialRefused,
    /// Somebody signed in.
    SignedIn,
    /// A sign-in failed.
    SignInFailed,
    /// Somebody signed out.
    SignedOut,
    /// A second factor was proven again.
    FactorProven,
    /// A proof of a second factor failed.
    FactorFailed,
    /// An account chose its password and factor.
    AccountClaimed,
    /// An account was given a new invitation on the server's own machine, with the server stopped.
    AccountRecovered,
    /// A credential was used from an address it was not used from before.
    NewAddress,
    /// An identity token bought a token.
    TokenExchanged,
    /// A person's identity or key was erased.
    Erased,
    /// The audit trail was exported.
    Exported,
    /// A build of an application connected to an environment for the first time.
    Deployment,
    /// A backup of the store was taken.
    BackedUp,
    /// The store was made from a backup.
    Restored,
    /// The second log itself lost events because it could not be written; says how many.
    EventsLost,
}

impl EventKind {
    /// All kinds.
    pub const ALL: [Self; 17] = [
        Self::Refused,
        Self::CredentialRefused,
        Self::SignedIn,
        Self::SignInFailed,
        Self::SignedOut,
        Self::FactorProven,
        Self::FactorFailed,
        Self::AccountClaimed,
        Self::AccountRecovered,
        Self::NewAddress,
        Self::TokenExchanged,
        Self::Erased,
        Self::Exported,
        Self::Deployment,
        Self::BackedUp,
        Self::Restored,
        Self::EventsLost,
    ];

    /// The word used in JSON.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Refused => "refused",
            Self::CredentialRefused => "credentialRefused",
            Self::SignedIn => "signedIn",
            Self::SignInFailed => "signInFailed",
            Self::SignedOut => "signedOut",
            Self::FactorProven => "factorProven",
            Self::FactorFailed => "factorFailed",
            Self::AccountClaimed => "accountClaimed",
            Self::AccountRecovered => "accountRecovered",
            Self::NewAddress => "newAddress",
            Self::TokenExchanged => "tokenExchanged",
            Self::Erased => "erased",
            Self::Exported => "exported",
            Self::Deployment => "deployment",
            Self::BackedUp => "backedUp",
            Self::Restored => "restored",
            Self::EventsLost => "eventsLost",
        }
    }
}

/// One event. It never holds a name, an address or a secret: people and places are ids that the vault explains.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Event {
    /// When, in milliseconds since 1970.
    pub at: u64,
    /// What.
    pub kind: EventKind,
    /// Who, where that is known.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub actor_id: Option<String>,
    /// From where: address and door.
    pub origin_id: String,
    /// Project it was about.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub project: Option<String>,
    /// Environment it was about.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub environment: Option<String>,
    /// Flag it was about.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub flag: Option<String>,
    /// Action that was asked for.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub action: Option<String>,
    /// Policies that decided, by name.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub policies: Vec<String>,
    /// Which credential, by id.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub credential: Option<String>,
    /// What else there is to say, in words without names.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub detail: String,
    /// The build that was seen.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub deployment: Option<Deployment>,
    /// How many like it this one stands for, itself among them.
    pub count: u32,
}

/// A build of an application, as an SDK instance reported it. What is empty was not reported.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Deployment {
    /// Name of the application.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub application: String,
    /// Version of the application.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub version: String,
    /// Source commit it was built from.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub commit: String,
    /// Digest of the image it runs from.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub image: String,
    /// Name and version of the SDK.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub sdk: String,
}

impl Event {
    /// An event from `origin_id` at `at` (milliseconds since 1970), about nothing yet.
    #[must_use]
    pub fn new(at: u64, kind: EventKind, origin_id: impl Into<String>) -> Self {
        Self {
            at,
            kind,
            actor_id: None,
            origin_id: origin_id.into(),
            project: None,
            environment: None,
            flag: None,
            action: None,
            policies: Vec::new(),
            credential: None,
            detail: String::new(),
            deployment: None,
            count: 1,
        }
    }
}

/// Takes events in.
pub trait AuditLog: Send + Sync + 'static {
    /// Takes note of an event. Returns at once: writing, coalescing and dropping under a flood are the log's affair.
    fn record(&self, event: Event);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_are_those_of_the_json() {
        for kind in EventKind::ALL {
            assert_eq!(serde_json::json!(kind), kind.as_str());
        }
        assert_eq!(EventKind::ALL.iter().collect::<std::collections::BTreeSet<_>>().len(), EventKind::ALL.len());
    }
}
