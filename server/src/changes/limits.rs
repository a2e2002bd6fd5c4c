//! How much one change may hold. Limits of definitions are [`guidon_sdk::validate::limits`].

use guidon_sdk::validate::limits as definitions;

/// Most instructions of one change.
pub const MAX_INSTRUCTIONS: usize = 5_000;

/// Longest comment of a change, in bytes.
pub const MAX_COMMENT_BYTES: usize = 4_096;

/// Longest source commit of a change, in bytes.
pub const MAX_COMMIT_BYTES: usize = 256;

/// Longest idempotency key, in bytes.
pub const MAX_IDEMPOTENCY_KEY_BYTES: usize = 256;

/// Most targeting keys that one instruction adds or removes.
pub const MAX_KEYS_PER_INSTRUCTION: usize = 100_000;

/// Most targeting keys of one list of a segment.
pub const MAX_KEYS_PER_LIST: usize = definitions::MAX_SEGMENT_KEYS;

/// Longest targeting key, in bytes.
pub const MAX_TARGETING_KEY_BYTES: usize = definitions::MAX_CONTEXT_KEY_BYTES;

/// Most steps that a segment's key list is stored in; the next one merges them into one.
pub const MAX_PARTS_PER_LIST: usize = 100;

/// Most environments of a project.
pub const MAX_ENVIRONMENTS: usize = definitions::MAX_ENVIRONMENTS;

/// Most flags of a project.
pub const MAX_FLAGS: usize = 20_000;

/// Most variations that a flag has served in production, removed ones among them, and those that it has now.
pub const MAX_KEPT_VARIATIONS: usize = 1_000;

/// Most flags of a project, deleted ones among them, of which is kept what they served in production.
pub const MAX_KEPT_FLAGS: usize = 100_000;

/// Most segments of a project.
pub const MAX_SEGMENTS: usize = 10_000;

/// Most SDK keys of a project, revoked ones among them.
pub const MAX_SDK_KEYS: usize = 10_000;

/// Most projects of a store.
pub const MAX_PROJECTS: usize = 1_000;

/// Most different earlier revisions that one change goes back to.
pub const MAX_REVERT_REVISIONS: usize = 4;

/// Most problems that are reported at once.
pub const MAX_PROBLEMS: usize = 100;

/// Longest name for people, in bytes.
pub const MAX_NAME_BYTES: usize = definitions::MAX_NAME_BYTES;
