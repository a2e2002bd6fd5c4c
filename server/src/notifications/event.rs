//! What is told of: topics, and a notification of a journal entry or of an event of the security log. Pure.
//!
//! A further kind of thing to tell of is a [`Topic`], and a function beside [`Notification::of_entry`] that makes a
//! notification of where it is recorded.

use std::collections::BTreeSet;

use serde::{Deserialize, Deserializer, Serialize, Serializer, de};

use crate::audit::{self, EventKind};
use crate::changes::{Instruction, RequestEdit, describe};
use crate::environments::Tier;
use crate::journal::{Entry, ObjectId};
use crate::policy::PrincipalKind;
use crate::state::World;

/// Most sentences, flags or environments that a notification lists.
pub const MAX_LISTED: usize = 100;

macro_rules! topics {
    ($($name:ident $word:literal $what:literal)*) => {
        /// What a notification is about.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub enum Topic {
            $(#[doc = $what] $name,)*
            /// Something that the security log has of the project, as `security.refused`.
            Security(EventKind),
        }

        const WORDS: &[(Topic, &str, &str)] = &[$((Topic::$name, $word, $what),)*];
    };
}

topics! {
    ChangeApplied "change.applied" "Something was changed."
    ChangeEmergency "change.emergency" "Something was changed at once in an emergency, and is to be reviewed."
    RequestOpened "request.opened" "A change request was opened."
    RequestEdited "request.edited" "A change request was edited; its approvals are void."
    RequestSubmitted "request.submitted" "A draft of a change request was put to review."
    RequestCommented "request.commented" "Somebody commented on a change request."
    RequestApproved "request.approved" "Somebody approved a change request."
    RequestRejected "request.rejected" "A change request was rejected."
    RequestWithdrawn "request.withdrawn" "A change request was withdrawn."
    RequestApplied "request.applied" "A change request was applied."
    RequestExpired "request.expired" "A change request expired."
    ReviewClosed "review.closed" "The review of an emergency change was closed."
    Ping "ping" "Somebody tests the webhook."
}

/// What stands before the word of an event of the security log.
const SECURITY: &str = "security.";

impl Topic {
    /// All topics, in the order of the documentation.
    pub fn all() -> impl Iterator<Item = Self> {
        let of_events = EventKind::ALL.into_iter().map(Self::Security);
        WORDS.iter().map(|(topic, ..)| *topic).chain(of_events)
    }

    /// Whether it is told by the security log.
    #[must_use]
    pub fn is_security(self) -> bool {
        matches!(self, Self::Security(_))
    }
}

impl std::fmt::Display for Topic {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Security(kind) => write!(formatter, "{SECURITY}{}", kind.as_str()),
            other => {
                let word = WORDS.iter().find(|(topic, ..)| topic == other).map(|(_, word, _)| *word);
                formatter.write_str(word.unwrap_or_default())
            }
        }
    }
}

impl std::str::FromStr for Topic {
    type Err = String;

    fn from_str(word: &str) -> Result<Self, String> {
        Self::all().find(|topic| topic.to_string() == word).ok_or_else(|| {
            let all: Vec<String> = Self::all().map(|topic| topic.to_string()).collect();
            format!("there is no topic {word:?}; the topics are {}", all.join(", "))
        })
    }
}

impl Serialize for Topic {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for Topic {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        String::deserialize(deserializer)?.parse().map_err(de::Error::custom)
    }
}

/// Who did something.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Actor {
    /// The id, as the audit trail has it.
    pub id: String,
    /// What it is, where that is known: `human`, `agent`, `service`, …
    #[serde(skip_serializing_if = "Option::is_none")]
    pub kind: Option<&'static str>,
    /// The name, where the operator chose to give it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub name: Option<String>,
}

/// An environment that something was about.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Environment {
    /// Its key.
    pub key: String,
    /// Its tier; none once it is deleted.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub tier: Option<Tier>,
}

/// Something to tell of. Persons' keys, values and credentials are never in one.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Notification {
    /// Stays the same when it is sent again: receivers drop what they had already.
    pub id: String,
    /// What it is about.
    pub topic: Topic,
    /// When it happened, in milliseconds since 1970.
    pub at: u64,
    /// The project.
    pub project: String,
    /// The revision that a change made.
    pub revision: Option<u64>,
    /// Who did it, where that is known.
    pub actor: Option<Actor>,
    /// Environments it was about.
    pub environments: Vec<Environment>,
    /// Flags it was about.
    pub flags: Vec<String>,
    /// What was done, as sentences without a full stop.
    pub summary: Vec<String>,
    /// Why, in the author's words.
    pub comment: String,
    /// Source commit that the change ships.
    pub commit: Option<String>,
    /// The change request it was about, or that it carried out.
    pub request: Option<String>,
    /// How many like it this one stands for.
    pub count: u32,
}

impl Notification {
    /// What a journal entry has to tell; nothing where it is about no project.
    #[must_use]
    pub fn of_entry(entry: &Entry, world: &World, history: &str) -> Option<Self> {
        if entry.project.is_empty() {
            return None;
        }
        let (mut request, mut topic) = (None, Topic::ChangeApplied);
        let mut keys = entry.environments();
        let mut flags = BTreeSet::new();
        for instruction in &entry.instructions {
            flags.extend(instruction.flag().map(str::to_owned));
            if let Instruction::Request(edit) = instruction {
                topic = topic_of(edit);
                request = edit.request().map(str::to_owned);
                let (RequestEdit::OpenRequest { content, .. } | RequestEdit::EditRequest { content, .. }) = &**edit
                else {
                    continue;
                };
                keys.extend(content.environments.iter().cloned());
                flags.extend(content.flags.iter().cloned());
            }
        }
        flags.extend(entry.objects.iter().filter_map(|changed| match &changed.object {
            ObjectId::Flag(key) | ObjectId::FlagEnvironment(_, key) => Some(key.clone()),
            _ => None,
        }));
        let project = world.project(&entry.project);
        // A step of a request says by itself neither where nor on what: the request does.
        if let Some(known) = request.as_ref().and_then(|id| project?.requests.get(id)) {
            keys.extend(known.content.environments.iter().cloned());
            flags.extend(known.content.flags.iter().cloned());
        }
        if entry.grounds.as_ref().is_some_and(|grounds| grounds.emergency) {
            topic = Topic::ChangeEmergency;
        }
        keys.retain(|key| !key.is_empty());
        let mut summary: Vec<String> = Vec::new();
        for instruction in entry.instructions.iter().take(MAX_LISTED) {
            summary.push(describe(instruction, entry.environment.as_deref()));
            if let Instruction::Request(edit) = instruction
                && let RequestEdit::OpenRequest { content, .. } | RequestEdit::EditRequest { content, .. } = &**edit
            {
                summary.extend(content.summary.iter().map(|sentence| format!("asks for: {sentence}")));
            }
        }
        let more = entry.instructions.len().max(summary.len()).saturating_sub(MAX_LISTED);
        summary.truncate(MAX_LISTED);
        if more > 0 {
            summary.push(format!("and {more} more"));
        }
        Some(Self {
            id: format!("evt-{history}-{}", entry.revision),
            topic,
            at: entry.at,
            project: entry.project.clone(),
            revision: Some(entry.revision),
            actor: Some(actor(&entry.actor_id, world)),
            environments: environments(keys, &entry.project, world),
            flags: flags.into_iter().take(MAX_LISTED).collect(),
            summary,
            comment: entry.comment.clone(),
            commit: entry.commit.clone(),
            request: request.or_else(|| entry.grounds.as_ref().and_then(|grounds| grounds.request.clone())),
            count: 1,
        })
    }

    /// What an event of the security log has to tell; nothing where it is about no project.
    #[must_use]
    pub fn of_event(seq: u64, event: &audit::Event, world: &World, history: &str) -> Option<Self> {
        let project = event.project.clone().filter(|project| !project.is_empty())?;
        let mut said = event.kind.as_str().to_owned();
        if let Some(action) = &event.action {
            said = format!("{said}: {action}");
        }
        if !event.policies.is_empty() {
            said = format!("{said} ({})", event.policies.join(", "));
        }
        let keys = event.environment.iter().filter(|key| !key.is_empty()).cloned().collect();
        Some(Self {
            id: format!("evt-{history}-s{seq}"),
            topic: Topic::Security(event.kind),
            at: event.at,
            revision: None,
            actor: event.actor_id.as_deref().map(|id| actor(id, world)),
            environments: environments(keys, &project, world),
            project,
            flags: event.flag.iter().cloned().collect(),
            summary: vec![said],
            comment: String::new(),
            commit: None,
            request: None,
            count: event.count,
        })
    }

    /// A test of a webhook.
    #[must_use]
    pub fn ping(id: String, at: u64, project: &str, actor_id: &str, world: &World) -> Self {
        Self {
            id,
            topic: Topic::Ping,
            at,
            project: project.to_owned(),
            revision: None,
            actor: Some(actor(actor_id, world)),
            environments: Vec::new(),
            flags: Vec::new(),
            summary: vec!["tests this webhook".to_owned()],
            comment: String::new(),
            commit: None,
            request: None,
            count: 1,
        }
    }

    /// The topics that it passes as: what came of a change request, or was an emergency, is a change as well.
    pub fn topics(&self) -> impl Iterator<Item = Topic> {
        let more = match self.topic {
            Topic::ChangeEmergency | Topic::RequestApplied => Some(Topic::ChangeApplied),
            _ => None,
        };
        // An emergency may carry a request out; that it was applied is said too.
        let applied = (self.topic == Topic::ChangeEmergency && self.request.is_some()).then_some(Topic::RequestApplied);
        std::iter::once(self.topic).chain(more).chain(applied)
    }
}

fn topic_of(edit: &RequestEdit) -> Topic {
    match edit {
        RequestEdit::OpenRequest { .. } => Topic::RequestOpened,
        RequestEdit::EditRequest { .. } => Topic::RequestEdited,
        RequestEdit::SubmitRequest { .. } => Topic::RequestSubmitted,
        RequestEdit::CommentRequest { .. } => Topic::RequestCommented,
        RequestEdit::ApproveRequest { .. } => Topic::RequestApproved,
        RequestEdit::RejectRequest { .. } => Topic::RequestRejected,
        RequestEdit::WithdrawRequest { .. } => Topic::RequestWithdrawn,
        RequestEdit::ApplyRequest { .. } => Topic::RequestApplied,
        RequestEdit::ExpireRequest { .. } => Topic::RequestExpired,
        RequestEdit::ReviewEntry { .. } => Topic::ReviewClosed,
    }
}

fn actor(id: &str, world: &World) -> Actor {
    let kind = world.directory.principals.get(id).map(|principal| principal.kind);
    Actor { id: id.to_owned(), kind: kind.map(PrincipalKind::as_str), name: None }
}

fn environments(keys: BTreeSet<String>, project: &str, world: &World) -> Vec<Environment> {
    let tier = |key: &str| world.environment(project, key).map(|environment| environment.tier);
    keys.into_iter().take(MAX_LISTED).map(|key| Environment { tier: tier(&key), key }).collect()
}
