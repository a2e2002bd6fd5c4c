//! Journal entries and the hash chain over their stored bytes.

use std::collections::BTreeSet;
use std::sync::Arc;

use bytes::Bytes;
use serde::{Deserialize, Serialize};

use super::{AppendError, Head};
use crate::changes::Instruction;
use crate::changes::request::{Approval, Risk};

/// Version of the entry's JSON; entries of every older version stay readable.
pub const ENTRY_FORMAT: u32 = 4;

/// One applied change: who, when, from where, why, and what, resolved.
///
/// People appear as `actor_id` and `origin_id` only; who and where those are is in the vault, where it can be erased.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Entry {
    /// Version of this form.
    pub format: u32,
    /// Number of the entry, counted from 1 without gaps; the store's revision after it.
    pub revision: u64,
    /// When the server accepted it, in milliseconds since 1970. Never less than the entry before it.
    pub at: u64,
    /// Who made the change.
    pub actor_id: String,
    /// From where: address and door.
    pub origin_id: String,
    /// Project changed; empty if it is the directory that was.
    pub project: String,
    /// Environment that environment-bound instructions apply to, unless they name one themselves.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub environment: Option<String>,
    /// Why, in the author's words.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub comment: String,
    /// Source commit the change ships.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub commit: Option<String>,
    /// The edits, resolved.
    pub instructions: Vec<Instruction>,
    /// Hash of each object the edits changed, after them: folding that gives another state is noticed.
    pub objects: Vec<ObjectHash>,
    /// On what grounds it was allowed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub grounds: Option<Grounds>,
    /// For a change that can be sent again safely: its key and body.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub idempotency: Option<Idempotency>,
}

/// On what grounds a change was allowed. Entries of format 1 have none.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Grounds {
    /// The environments that it was judged in, by key.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub environments: Vec<String>,
    /// The policies that allowed it, by name.
    pub policies: Vec<String>,
    /// BLAKE3 of all the policies in force, in hexadecimal.
    pub policy_set: String,
    /// How much it might hurt, as judged when it was made.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub risk: Option<Risk>,
    /// The change request that it carries out.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub request: Option<String>,
    /// Who wrote that request.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub author: Option<String>,
    /// Approvals of that request.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub approvals: Vec<Approval>,
    /// Whether it was made at once in an emergency, and is to be reviewed.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub emergency: bool,
    /// The token that was used, by id.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub credential: Option<String>,
}

impl Entry {
    /// The environments that it concerns, by key: those it was judged in (from format 2 on), those of the objects it changed, and
    /// those it names.
    #[must_use]
    pub fn environments(&self) -> BTreeSet<String> {
        let judged = self.grounds.iter().flat_map(|grounds| grounds.environments.iter().map(String::as_str));
        let of_objects = self.objects.iter().filter_map(|changed| match &changed.object {
            ObjectId::Environment(key)
            | ObjectId::FlagEnvironment(key, _)
            | ObjectId::Segment(key, _)
            | ObjectId::Drill(key, _)
            | ObjectId::Release(key, _) => Some(&**key),
            _ => None,
        });
        judged.chain(of_objects).chain(self.named_environments()).map(str::to_owned).collect()
    }

    /// The environments that it, or an instruction of it, names, by key; some more than once. It need not have changed anything
    /// there.
    pub fn named_environments(&self) -> impl Iterator<Item = &str> {
        let named = self.environment.as_deref();
        named.into_iter().chain(self.instructions.iter().filter_map(move |it| it.environment(named)))
    }
}

/// An object and what its stored form hashes to; `None` once it is deleted.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ObjectHash {
    /// The object.
    pub object: ObjectId,
    /// BLAKE3 of its stored JSON, in hexadecimal.
    pub hash: Option<String>,
}

/// Names one object of a project: the grain at which two changes conflict. In JSON a path, as `flag/checkout`.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub enum ObjectId {
    /// The project itself.
    Project,
    /// An environment, by key.
    Environment(String),
    /// A flag's part that all environments share, by key.
    Flag(String),
    /// How one environment serves a flag: environment, flag.
    FlagEnvironment(String, String),
    /// A segment: environment, segment.
    Segment(String, String),
    /// An SDK key, by id.
    SdkKey(String),
    /// A change request, by id.
    Request(String),
    /// The review of an emergency change, by the revision that it made.
    Review(u64),
    /// A webhook, by id.
    Webhook(String),
    /// The last rollback drill of a flag: environment, flag.
    Drill(String, String),
    /// The last release of a flag: environment, flag.
    Release(String, String),
    /// An incident, by id.
    Incident(String),
    /// A principal of the directory, by id.
    Principal(String),
    /// A role binding, by id.
    RoleBinding(String),
    /// A token, by id.
    Token(String),
    /// A trusted issuer, by id.
    Issuer(String),
    /// A policy file, by name.
    Policy(String),
}

impl ObjectId {
    /// Whether it belongs to the installation and not to a project.
    #[must_use]
    pub fn is_of_directory(&self) -> bool {
        matches!(self, Self::Principal(_) | Self::RoleBinding(_) | Self::Token(_) | Self::Issuer(_) | Self::Policy(_))
    }
}

impl From<ObjectId> for String {
    fn from(id: ObjectId) -> Self {
        id.to_string()
    }
}

impl std::fmt::Display for ObjectId {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Project => formatter.write_str("project"),
            Self::Environment(key) => write!(formatter, "environment/{key}"),
            Self::Flag(key) => write!(formatter, "flag/{key}"),
            Self::FlagEnvironment(environment, key) => write!(formatter, "environment/{environment}/flag/{key}"),
            Self::Segment(environment, key) => write!(formatter, "environment/{environment}/segment/{key}"),
            Self::SdkKey(id) => write!(formatter, "sdk-key/{id}"),
            Self::Request(id) => write!(formatter, "request/{id}"),
            Self::Review(revision) => write!(formatter, "review/{revision}"),
            Self::Webhook(id) => write!(formatter, "webhook/{id}"),
            Self::Drill(environment, flag) => write!(formatter, "environment/{environment}/drill/{flag}"),
            Self::Release(environment, flag) => write!(formatter, "environment/{environment}/release/{flag}"),
            Self::Incident(id) => write!(formatter, "incident/{id}"),
            Self::Principal(id) => write!(formatter, "principal/{id}"),
            Self::RoleBinding(id) => write!(formatter, "role-binding/{id}"),
            Self::Token(id) => write!(formatter, "token/{id}"),
            Self::Issuer(id) => write!(formatter, "issuer/{id}"),
            Self::Policy(name) => write!(formatter, "policy/{name}"),
        }
    }
}

impl TryFrom<String> for ObjectId {
    type Error = String;

    fn try_from(path: String) -> Result<Self, Self::Error> {
        let parts: Vec<&str> = path.split('/').collect();
        match parts.as_slice() {
            ["project"] => Ok(Self::Project),
            ["environment", key] => Ok(Self::Environment((*key).to_owned())),
            ["flag", key] => Ok(Self::Flag((*key).to_owned())),
            ["environment", environment, "flag", key] => {
                Ok(Self::FlagEnvironment((*environment).to_owned(), (*key).to_owned()))
            }
            ["environment", environment, "segment", key] => {
                Ok(Self::Segment((*environment).to_owned(), (*key).to_owned()))
            }
            ["environment", environment, "drill", flag] => {
                Ok(Self::Drill((*environment).to_owned(), (*flag).to_owned()))
            }
            ["environment", environment, "release", flag] => {
                Ok(Self::Release((*environment).to_owned(), (*flag).to_owned()))
            }
            ["incident", id] => Ok(Self::Incident((*id).to_owned())),
            ["sdk-key", id] => Ok(Self::SdkKey((*id).to_owned())),
            ["request", id] => Ok(Self::Request((*id).to_owned())),
            ["review", revision] if revision.parse::<u64>().is_ok() => {
                Ok(Self::Review(revision.parse().unwrap_or_default()))
            }
            ["webhook", id] => Ok(Self::Webhook((*id).to_owned())),
            ["principal", id] => Ok(Self::Principal((*id).to_owned())),
            ["role-binding", id] => Ok(Self::RoleBinding((*id).to_owned())),
            ["token", id] => Ok(Self::Token((*id).to_owned())),
            ["issuer", id] => Ok(Self::Issuer((*id).to_owned())),
            ["policy", name] => Ok(Self::Policy((*name).to_owned())),
            _ => Err(format!("{path:?} names no object")),
        }
    }
}

/// Lets a change be sent again: the same key and body give the same answer, another body is refused.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Idempotency {
    /// BLAKE3 of the principal and the key it sent, in hexadecimal.
    pub key: String,
    /// BLAKE3 of the request's body, in hexadecimal.
    pub body: String,
}

/// A link of the hash chain: BLAKE3 of the previous link and the stored bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct ChainHash(pub [u8; 32]);

impl ChainHash {
    /// What the first entry's link is computed from.
    pub const GENESIS: Self = Self([0; 32]);

    /// The link after this one, over an entry's stored bytes.
    #[must_use]
    pub fn next(&self, stored: &[u8]) -> Self {
        let mut hasher = blake3::Hasher::new();
        hasher.update(&self.0);
        hasher.update(stored);
        Self(*hasher.finalize().as_bytes())
    }
}

impl std::fmt::Display for ChainHash {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        self.0.iter().try_for_each(|byte| write!(formatter, "{byte:02x}"))
    }
}

impl std::str::FromStr for ChainHash {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let hash = blake3::Hash::from_hex(text).map_err(|_| format!("{text:?} is not 64 hexadecimal digits"))?;
        Ok(Self(*hash.as_bytes()))
    }
}

/// An entry as it is stored: its bytes, which are never made anew, what they say, and the chain after them.
#[derive(Clone, Debug)]
pub struct StoredEntry {
    /// What the bytes say.
    pub entry: Arc<Entry>,
    /// The stored JSON.
    pub bytes: Bytes,
    /// The chain up to and with this entry.
    pub hash: ChainHash,
}

/// Largest stored JSON of one entry, in bytes: a record of the log less the chain hash beside it.
pub const MAX_ENTRY_BYTES: usize = (16 << 20) - 32;

impl StoredEntry {
    /// Gives an entry the place after `head`: sets its revision, writes its JSON and links it to the chain.
    ///
    /// # Errors
    ///
    /// [`AppendError::TooLarge`] above [`MAX_ENTRY_BYTES`].
    pub fn link(head: Head, mut entry: Entry) -> Result<Self, AppendError> {
        entry.revision = head.revision + 1;
        let bytes =
            serde_json::to_vec(&entry).map_err(|error| AppendError::Unstorable { reason: error.to_string() })?;
        if bytes.len() > MAX_ENTRY_BYTES {
            return Err(AppendError::TooLarge { actual: bytes.len(), limit: MAX_ENTRY_BYTES });
        }
        Ok(Self { hash: head.hash.next(&bytes), entry: Arc::new(entry), bytes: bytes.into() })
    }

    /// Reads the entry after `head` from its stored bytes, checking them against the chain.
    ///
    /// # Errors
    ///
    /// What is wrong, in words: another hash, JSON that is no entry, another place, or a version this program does not know.
    pub fn verify(head: Head, bytes: Bytes, hash: ChainHash) -> Result<Self, String> {
        let computed = head.hash.next(&bytes);
        if computed != hash {
            return Err(format!("the chain does not hold: the stored hash is {hash}, its bytes give {computed}"));
        }
        Self::read(head, bytes, hash)
    }

    /// Reads the entry after `head` from stored bytes whose link to the chain was checked before.
    pub(super) fn read(head: Head, bytes: Bytes, hash: ChainHash) -> Result<Self, String> {
        let entry = parse(&bytes)?;
        let (found, expected) = (entry.revision, head.revision + 1);
        if found != expected {
            return Err(format!("it says that it is entry {found} and stands in the place of entry {expected}"));
        }
        Ok(Self { entry: Arc::new(entry), bytes, hash })
    }

    /// Where the journal ends with this entry.
    #[must_use]
    pub fn head(&self) -> Head {
        Head { revision: self.entry.revision, hash: self.hash }
    }
}

fn parse(bytes: &[u8]) -> Result<Entry, String> {
    match serde_json::from_slice::<Entry>(bytes) {
        Ok(entry) if entry.format <= ENTRY_FORMAT => Ok(entry),
        Ok(entry) => Err(later_format(entry.format)),
        // A later version may have entries that this one cannot read at all: say so rather than call it damaged.
        Err(error) => match serde_json::from_slice::<FormatOnly>(bytes) {
            Ok(FormatOnly { format }) if format > ENTRY_FORMAT => Err(later_format(format)),
            _ => Err(format!("its bytes are no entry: {error}")),
        },
    }
}

#[derive(Deserialize)]
struct FormatOnly {
    format: u32,
}

fn later_format(format: u32) -> String {
    format!(
        "it has format {format} and this version knows formats up to {ENTRY_FORMAT}: install the later version again"
    )
}
