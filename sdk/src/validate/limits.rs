//! Limits of definitions. Each is checked where changes are written, and documented in `docs/FORMATS.md`.

/// Most variations of a flag.
pub const MAX_VARIATIONS: usize = 100;
/// Most rules of a flag in one environment, or of a segment.
pub const MAX_RULES: usize = 1_000;
/// Most clauses of a rule.
pub const MAX_CLAUSES: usize = 64;
/// Most values of a clause.
pub const MAX_VALUES: usize = 10_000;
/// Most regular expressions of a clause.
pub const MAX_REGEXES: usize = 32;
/// Longest string among a clause's values, in bytes.
pub const MAX_CLAUSE_VALUE_BYTES: usize = 4_096;
/// Largest value of a variation, in bytes of JSON.
pub const MAX_VALUE_BYTES: usize = 64 * 1024;
/// Largest JSON Schema of a flag, in bytes.
pub const MAX_SCHEMA_BYTES: usize = 64 * 1024;
/// Most prerequisites of a flag in one environment.
pub const MAX_PREREQUISITES: usize = 32;
/// Most keys that a flag's targets list in one environment.
pub const MAX_TARGET_KEYS: usize = 10_000;
/// Most keys that a segment includes, or excludes.
pub const MAX_SEGMENT_KEYS: usize = 1_000_000;
/// Longest targeting key, in bytes.
pub const MAX_CONTEXT_KEY_BYTES: usize = 1_024;
/// Longest attribute name, in bytes.
pub const MAX_ATTRIBUTE_BYTES: usize = 256;
/// Longest name or owner, in bytes.
pub const MAX_NAME_BYTES: usize = 256;
/// Longest description, in bytes.
pub const MAX_DESCRIPTION_BYTES: usize = 4_096;
/// Longest part of a provenance, in bytes.
pub const MAX_PROVENANCE_BYTES: usize = 512;
/// Longest salt, in bytes.
pub const MAX_SALT_BYTES: usize = 128;
/// Most ranges of a rollout's allocation. What the server computes stays far below; one that is sent may not exceed it, since
/// every change of weights looks at all of them.
pub const MAX_ALLOCATION_RANGES: usize = 2_000;
/// Longest id of a rule, in bytes.
pub const MAX_RULE_ID_BYTES: usize = 128;
/// Most tags of a flag.
pub const MAX_TAGS: usize = 50;
/// Most environments of a flag.
pub const MAX_ENVIRONMENTS: usize = 100;
/// Most problems that are reported of one definition.
pub const MAX_PROBLEMS: usize = 200;
/// Most keys that a message names as the possible ones.
pub(crate) const MAX_NAMED: usize = 10;
