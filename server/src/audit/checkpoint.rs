//! Signed statements of where both logs end.
//!
//! Whoever can write the store can also write a new journal with a chain that holds. An auditor who has kept a checkpoint
//! notices: the chain at the checkpoint's revision is another one then. What is signed is a text of fixed lines, so that no
//! two readers can disagree about which bytes those are ([`Checkpoint::signed_text`]).

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;
use ed25519_dalek::{Signature, Signer as _, SigningKey, VerifyingKey};
use serde::{Deserialize, Serialize};

use super::{Events, EventsError, EventsHead};
use crate::journal::{ChainHash, Head, Journal, ReadError};
use crate::vault::{Kind, Vault, VaultError};

/// Version of a checkpoint's form.
pub const CHECKPOINT_FORMAT: u32 = 1;

/// Where the vault keeps the key.
const KEY_ID: &str = "audit-checkpoint";

/// A signed statement of where both logs ended.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Checkpoint {
    /// Version of this form.
    pub format: u32,
    /// History id of the journal.
    pub history: String,
    /// Where the journal ended.
    pub journal: JournalPoint,
    /// Where the second log ended.
    pub security: SecurityPoint,
    /// When, in milliseconds since 1970.
    pub at: u64,
    /// Which key signed it: [`CheckpointPublicKey::id`].
    pub key_id: String,
    /// Ed25519 signature of [`Checkpoint::signed_text`], in base64.
    pub signature: String,
}

/// A place in the journal.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct JournalPoint {
    /// Number of the last entry; 0 if there was none.
    pub revision: u64,
    /// The chain up to it, in hexadecimal.
    pub hash: String,
}

/// A place in the second log.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct SecurityPoint {
    /// Number of the last event; 0 if there was none.
    pub seq: u64,
    /// The chain up to it, in hexadecimal.
    pub hash: String,
}

/// Why a checkpoint proves nothing.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum CheckpointError {
    /// It has another form.
    #[error("the checkpoint has format {0} and this version knows format {CHECKPOINT_FORMAT}")]
    Format(u32),
    /// A field does not hold what it must.
    #[error("the checkpoint's {field} is not {expected}")]
    BadField {
        /// The field.
        field: &'static str,
        /// What it must be.
        expected: &'static str,
    },
    /// Another key signed it.
    #[error("the checkpoint was signed by the key {signed}, and the given key is {given}")]
    OtherKey {
        /// Id of the key that the checkpoint names.
        signed: String,
        /// Id of the key at hand.
        given: String,
    },
    /// The signature is not the key's over these fields.
    #[error("the signature does not hold: the checkpoint was changed, or made up")]
    BadSignature,
    /// The key cannot be read.
    #[error("the public key is not base64 of 32 bytes that are an Ed25519 key")]
    BadKey,
}

impl Checkpoint {
    /// The bytes that are signed: these lines, each ended by one line feed.
    ///
    /// ```text
    /// guidon checkpoint 1
    /// history <history id>
    /// journal <revision> <chain hash, 64 lower-case hexadecimal digits>
    /// security <number of the event> <chain hash, likewise>
    /// at <milliseconds since 1970>
    /// key <key id>
    /// ```
    ///
    /// Numbers are decimal, without leading zeros.
    #[must_use]
    pub fn signed_text(&self) -> String {
        let Self { format, history, journal, security, at, key_id, .. } = self;
        format!(
            "guidon checkpoint {format}\nhistory {history}\njournal {} {}\nsecurity {} {}\nat {at}\nkey {key_id}\n",
            journal.revision, journal.hash, security.seq, security.hash,
        )
    }

    /// Checks what must hold for the signed text to have one reading.
    fn check_fields(&self) -> Result<(), CheckpointError> {
        let word = |field, text: &str| {
            let is_word = (1..=128).contains(&text.len())
                && text.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'-' || byte == b'_');
            is_word.then_some(()).ok_or(CheckpointError::BadField { field, expected: "a word of letters and digits" })
        };
        if self.format != CHECKPOINT_FORMAT {
            return Err(CheckpointError::Format(self.format));
        }
        word("history", &self.history)?;
        word("keyId", &self.key_id)?;
        self.heads().map(drop)
    }

    /// Where both logs ended.
    ///
    /// # Errors
    ///
    /// [`CheckpointError::BadField`] if a hash is none.
    pub fn heads(&self) -> Result<(Head, EventsHead), CheckpointError> {
        let hash = |field, text: &str| {
            let parsed: Option<ChainHash> = text.parse().ok();
            // The text is what is signed: it has one spelling.
            let parsed = parsed.filter(|hash| hash.to_string() == text);
            parsed.ok_or(CheckpointError::BadField { field, expected: "64 lower-case hexadecimal digits" })
        };
        Ok((
            Head { revision: self.journal.revision, hash: hash("journal.hash", &self.journal.hash)? },
            EventsHead { seq: self.security.seq, hash: hash("security.hash", &self.security.hash)? },
        ))
    }
}

/// The server's key for checkpoints. Only the server can sign; everybody may have the public half.
pub struct CheckpointKey(SigningKey);

impl CheckpointKey {
    /// The key in the vault, made and put there when it is first needed.
    ///
    /// # Errors
    ///
    /// [`VaultError`] if the vault cannot be read or written, or holds something else in the key's place.
    pub async fn open(vault: &dyn Vault) -> Result<Self, VaultError> {
        if let Some(stored) = vault.get(Kind::ServerKey, KEY_ID)? {
            let bytes = <[u8; 32]>::try_from(stored).map_err(|_| VaultError::Key {
                origin: format!("the vault's record {KEY_ID}"),
                problem: "expected 32 bytes; restore the vault from a backup".to_owned(),
            })?;
            return Ok(Self::from_bytes(&bytes));
        }
        let bytes: [u8; 32] = rand::random();
        vault.put(Kind::ServerKey, KEY_ID, bytes.to_vec()).await?;
        Ok(Self::from_bytes(&bytes))
    }

    /// The key with these secret bytes, which must be random.
    #[must_use]
    pub fn from_bytes(bytes: &[u8; 32]) -> Self {
        Self(SigningKey::from_bytes(bytes))
    }

    /// The public half.
    #[must_use]
    pub fn public(&self) -> CheckpointPublicKey {
        CheckpointPublicKey(self.0.verifying_key())
    }

    /// Signs where both logs ended at `at` (milliseconds since 1970).
    #[must_use]
    pub fn sign(&self, history: &str, journal: Head, security: EventsHead, at: u64) -> Checkpoint {
        let mut checkpoint = Checkpoint {
            format: CHECKPOINT_FORMAT,
            history: history.to_owned(),
            journal: JournalPoint { revision: journal.revision, hash: journal.hash.to_string() },
            security: SecurityPoint { seq: security.seq, hash: security.hash.to_string() },
            at,
            key_id: self.public().id(),
            signature: String::new(),
        };
        let signature = self.0.sign(checkpoint.signed_text().as_bytes());
        checkpoint.signature = BASE64.encode(signature.to_bytes());
        checkpoint
    }

    /// Signs where both logs end now.
    #[must_use]
    pub fn sign_present(&self, journal: &dyn Journal, events: &dyn Events, at: u64) -> Checkpoint {
        self.sign(journal.history(), journal.head(), events.head(), at)
    }
}

impl std::fmt::Debug for CheckpointKey {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(formatter, "CheckpointKey({})", self.public().id())
    }
}

/// The public half of a checkpoint key. In text: base64 of its 32 bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct CheckpointPublicKey(VerifyingKey);

impl CheckpointPublicKey {
    /// BLAKE3 of the key's 32 bytes, in hexadecimal: what people compare.
    #[must_use]
    pub fn fingerprint(&self) -> String {
        blake3::hash(self.0.as_bytes()).to_hex().to_string()
    }

    /// The first 16 digits of the fingerprint: what checkpoints name their key by.
    #[must_use]
    pub fn id(&self) -> String {
        self.fingerprint()[..16].to_owned()
    }
}

impl std::fmt::Display for CheckpointPublicKey {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.write_str(&BASE64.encode(self.0.as_bytes()))
    }
}

impl std::str::FromStr for CheckpointPublicKey {
    type Err = CheckpointError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let bytes = BASE64.decode(text.trim()).map_err(|_| CheckpointError::BadKey)?;
        let bytes = <[u8; 32]>::try_from(bytes).map_err(|_| CheckpointError::BadKey)?;
        VerifyingKey::from_bytes(&bytes).map(Self).map_err(|_| CheckpointError::BadKey)
    }
}

/// Whether `key` signed this checkpoint as it stands.
///
/// # Errors
///
/// [`CheckpointError`].
pub fn verify_checkpoint(checkpoint: &Checkpoint, key: &CheckpointPublicKey) -> Result<(), CheckpointError> {
    checkpoint.check_fields()?;
    if checkpoint.key_id != key.id() {
        return Err(CheckpointError::OtherKey { signed: checkpoint.key_id.clone(), given: key.id() });
    }
    let signature = BASE64.decode(&checkpoint.signature).ok().and_then(|bytes| Signature::from_slice(&bytes).ok());
    let signature = signature.ok_or(CheckpointError::BadSignature)?;
    let text = checkpoint.signed_text();
    key.0.verify_strict(text.as_bytes(), &signature).map_err(|_| CheckpointError::BadSignature)
}

/// The present logs, as far as a checkpoint speaks of them.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Present {
    /// History id of the journal.
    pub history: String,
    /// The journal's last revision.
    pub revision: u64,
    /// The journal's chain at the checkpoint's revision, where it goes that far.
    pub journal: Option<ChainHash>,
    /// Number of the first event that is kept.
    pub first_seq: u64,
    /// Number of the last event.
    pub last_seq: u64,
    /// The second log's chain at the checkpoint's event, where it is kept.
    pub security: Option<ChainHash>,
}

/// Whether a log still contains what a checkpoint saw.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Contained {
    /// It does, unchanged.
    Yes,
    /// Something at or before that place is not what it was: the log was rewritten.
    Differs,
    /// The log ends before that place: its end was cut off, or it was begun anew.
    Missing {
        /// Where it ends.
        last: u64,
    },
    /// What was there is past its retention; this checkpoint can say nothing any more.
    Removed {
        /// The first that is kept.
        first: u64,
    },
}

/// What a checkpoint says about the present logs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Findings {
    /// Whether the journal has the history id that the checkpoint names. A store that was imported has another, and the
    /// same entries.
    pub is_same_history: bool,
    /// What became of the journal.
    pub journal: Contained,
    /// What became of the second log.
    pub security: Contained,
}

impl Findings {
    /// Whether a log was rewritten, cut off or begun anew.
    #[must_use]
    pub fn is_broken(&self) -> bool {
        let is_broken = |what| matches!(what, Contained::Differs | Contained::Missing { .. });
        is_broken(self.journal) || is_broken(self.security)
    }

    /// The findings as sentences.
    #[must_use]
    pub fn sentences(&self, checkpoint: &Checkpoint) -> Vec<String> {
        let (revision, seq) = (checkpoint.journal.revision, checkpoint.security.seq);
        let mut said = vec![match self.journal {
            Contained::Yes => {
                format!("The journal contains everything up to revision {revision} as the checkpoint saw it.")
            }
            Contained::Differs => format!(
                "The journal was rewritten: at revision {revision} its chain is not what the checkpoint saw; an entry at or \
                 before it is another one."
            ),
            Contained::Missing { last } => format!(
                "The journal ends at revision {last}; the checkpoint saw revision {revision}. Entries are missing."
            ),
            Contained::Removed { first } => format!("The journal starts at revision {first}."),
        }];
        said.push(match self.security {
            Contained::Yes => format!("The security log contains everything up to event {seq} as the checkpoint saw it."),
            Contained::Differs => format!(
                "The security log was rewritten: at event {seq} its chain is not what the checkpoint saw; an event at or \
                 before it is another one."
            ),
            Contained::Missing { last } => {
                format!("The security log ends at event {last}; the checkpoint saw event {seq}. Events are missing.")
            }
            Contained::Removed { first } => format!(
                "The security log starts at event {first}; event {seq} is past its retention, so this checkpoint says \
                 nothing about the security log any more."
            ),
        });
        if !self.is_same_history {
            said.push("The journal has another history id: it was imported from an export, or begun anew.".to_owned());
        }
        said
    }
}

/// Compares the present logs with what a checkpoint saw.
///
/// # Errors
///
/// [`CheckpointError::BadField`] if a hash of the checkpoint is none.
pub fn compare(checkpoint: &Checkpoint, present: &Present) -> Result<Findings, CheckpointError> {
    let (journal, security) = checkpoint.heads()?;
    let found = |found: Option<ChainHash>, seen: ChainHash, otherwise| match found {
        Some(hash) if hash == seen => Contained::Yes,
        Some(_) => Contained::Differs,
        None => otherwise,
    };
    // Nothing comes before the first one: every log contains that.
    let start = |number: u64| (number == 0).then_some(ChainHash::GENESIS);
    let gone = match present.last_seq {
        last if last < security.seq => Contained::Missing { last },
        _ => Contained::Removed { first: present.first_seq },
    };
    Ok(Findings {
        is_same_history: checkpoint.history == present.history,
        journal: found(
            start(journal.revision).or(present.journal),
            journal.hash,
            Contained::Missing { last: present.revision },
        ),
        security: found(start(security.seq).or(present.security), security.hash, gone),
    })
}

/// Why the present logs could not be compared with a checkpoint.
#[derive(Debug, thiserror::Error)]
pub enum CheckError {
    /// The checkpoint says nothing.
    #[error(transparent)]
    Checkpoint(#[from] CheckpointError),
    /// The journal cannot be read.
    #[error(transparent)]
    Journal(#[from] ReadError),
    /// The second log cannot be read.
    #[error(transparent)]
    Events(#[from] EventsError),
}

/// Whether the present logs contain what `checkpoint` saw. Its signature is another matter: [`verify_checkpoint`].
///
/// # Errors
///
/// [`CheckError`].
pub async fn check_against(
    journal: &dyn Journal,
    events: &dyn Events,
    checkpoint: &Checkpoint,
) -> Result<Findings, CheckError> {
    let (revision, seq) = (checkpoint.journal.revision, checkpoint.security.seq);
    let head = journal.head().revision;
    let mut entry = Vec::new();
    if (1..=head).contains(&revision) {
        entry = journal.read(revision - 1, 1).await?;
    }
    let mut event = Vec::new();
    let last_seq = events.head().seq;
    if (1..=last_seq).contains(&seq) {
        event = events.read(seq - 1, 1).await?;
    }
    let present = Present {
        history: journal.history().to_owned(),
        revision: head,
        journal: entry.first().map(|stored| stored.hash),
        first_seq: events.first_seq(),
        last_seq,
        security: event.first().filter(|stored| stored.seq == seq).map(|stored| stored.hash),
    };
    Ok(compare(checkpoint, &present)?)
}
