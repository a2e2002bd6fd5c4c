//! Which records are asked for.

use std::str::FromStr;

use super::record::About;
use super::{EventKind, StoredEvent};
use crate::environments::Tier;
use crate::journal::Entry;
use crate::policy::{Action, Group};

/// Which records are asked for: those that meet every condition that is set.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Filter {
    /// Actor id of who did, or approved, it.
    pub person: Option<String>,
    /// Key of a flag.
    pub flag: Option<String>,
    /// Key of an environment. What all environments share concerns each of them.
    pub environment: Option<String>,
    /// Tier of an environment. What all environments share, and what concerns an environment that is deleted and so in no
    /// known tier, is found with every tier.
    pub tier: Option<Tier>,
    /// What happened.
    pub kind: Option<KindFilter>,
    /// Key of the project.
    pub project: Option<String>,
    /// Only emergency changes that nobody has reviewed yet.
    pub needs_review: bool,
    /// Not before this time, in milliseconds since 1970.
    pub from: Option<u64>,
    /// Not after this time, in milliseconds since 1970.
    pub to: Option<u64>,
}

/// What happened.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum KindFilter {
    /// `change`: everything in the journal.
    Change,
    /// `refusal`: something, or a credential, was refused.
    Refusal,
    /// `signIn`: sign-ins and sign-outs, factors proven or not.
    SignIn,
    /// Events of one kind.
    Event(EventKind),
    /// Changes with an instruction of this kind.
    Instruction(Action),
}

/// No kind of event or instruction has this name.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "\"{0}\" is no kind: choose change, refusal, signIn, a kind of event such as signInFailed, or a kind of instruction such as \
     turnFlagOn"
)]
pub struct UnknownKind(pub String);

impl FromStr for KindFilter {
    type Err = UnknownKind;

    fn from_str(word: &str) -> Result<Self, Self::Err> {
        let event = EventKind::ALL.into_iter().find(|kind| kind.as_str() == word);
        let is_instruction = |action: &Action| !matches!(action.group(), Group::Read | Group::Export | Group::Serve);
        match word {
            "change" => Ok(Self::Change),
            "refusal" => Ok(Self::Refusal),
            "signIn" => Ok(Self::SignIn),
            _ => event
                .map(Self::Event)
                .or_else(|| word.parse().ok().filter(is_instruction).map(Self::Instruction))
                .ok_or_else(|| UnknownKind(word.to_owned())),
        }
    }
}

impl Filter {
    /// Whether any journal entry can meet it.
    pub(super) fn wants_entries(&self) -> bool {
        matches!(self.kind, None | Some(KindFilter::Change | KindFilter::Instruction(_)))
    }

    /// Whether any event can meet it.
    pub(super) fn wants_events(&self) -> bool {
        !self.needs_review && !matches!(self.kind, Some(KindFilter::Change | KindFilter::Instruction(_)))
    }

    /// Whether an entry, which is about `about`, meets it.
    #[must_use]
    pub fn matches_entry(&self, entry: &Entry, about: &About) -> bool {
        let is_kind = match self.kind {
            None | Some(KindFilter::Change) => true,
            Some(KindFilter::Instruction(action)) => {
                entry.instructions.iter().any(|instruction| instruction.kind() == action.as_str())
            }
            Some(_) => false,
        };
        is_kind && self.matches(about)
    }

    /// Whether an event, which is about `about`, meets it.
    #[must_use]
    pub fn matches_event(&self, stored: &StoredEvent, about: &About) -> bool {
        let kind = stored.event.kind;
        let is_kind = match self.kind {
            None => true,
            Some(KindFilter::Event(wanted)) => kind == wanted,
            Some(KindFilter::Refusal) => matches!(kind, EventKind::Refused | EventKind::CredentialRefused),
            Some(KindFilter::SignIn) => matches!(
                kind,
                EventKind::SignedIn
                    | EventKind::SignInFailed
                    | EventKind::SignedOut
                    | EventKind::FactorProven
                    | EventKind::FactorFailed
            ),
            Some(KindFilter::Change | KindFilter::Instruction(_)) => false,
        };
        is_kind && self.matches(about)
    }

    fn matches(&self, about: &About) -> bool {
        let is = |wanted: &Option<String>, found: &Option<String>| wanted.is_none() || wanted == found;
        (!self.needs_review || about.needs_review)
            && self.person.as_ref().is_none_or(|person| about.people.contains(person))
            && is(&self.project, &about.project)
            && self.flag.as_ref().is_none_or(|flag| about.flags.contains(flag))
            && self.environment.as_ref().is_none_or(|key| about.everywhere || about.environments.contains(key))
            && self.tier.is_none_or(|tier| about.everywhere || about.has_unknown_tier || about.tiers.contains(&tier))
            && self.from.is_none_or(|from| about.at >= from)
            && self.to.is_none_or(|to| about.at <= to)
    }
}
