//! Why an evaluation answered what it did, in OpenFeature's words.

use serde::{Deserialize, Serialize};

/// Why a value was served (OpenFeature specification, "Resolution reason").
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "SCREAMING_SNAKE_CASE")]
pub enum Reason {
    /// The flag is on, has no prerequisites, targets or rules, and its fallthrough is one variation.
    Static,
    /// Nothing matched, and the fallthrough is one variation.
    Default,
    /// A target or a rule that serves one variation matched.
    TargetingMatch,
    /// A percentage rollout, of a rule or of the fallthrough, decided.
    Split,
    /// The flag is off, or a prerequisite is not met: the off variation.
    Disabled,
    /// The value is of a snapshot that may be out of date. Given by the client, never by the evaluator.
    Stale,
    /// No variation could be served; the caller's default applies. See [`ErrorCode`].
    Error,
}

impl Reason {
    /// The word used in JSON.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Static => "STATIC",
            Self::Default => "DEFAULT",
            Self::TargetingMatch => "TARGETING_MATCH",
            Self::Split => "SPLIT",
            Self::Disabled => "DISABLED",
            Self::Stale => "STALE",
            Self::Error => "ERROR",
        }
    }
}

impl std::fmt::Display for Reason {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.write_str(self.as_str())
    }
}

/// What went wrong where the reason is [`Reason::Error`] (OpenFeature specification, "Error code").
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "SCREAMING_SNAKE_CASE")]
pub enum ErrorCode {
    /// There is no snapshot to evaluate yet. Given by the client, never by the evaluator.
    ProviderNotReady,
    /// The snapshot has no flag of this key.
    FlagNotFound,
    /// The flag's definition could not be compiled; the snapshot's problems say why.
    ParseError,
    /// The flag's value is not of the type that was asked for.
    TypeMismatch,
    /// A rollout has to decide, and the context has no usable value of its bucketing attribute.
    TargetingKeyMissing,
    /// The context is not usable.
    InvalidContext,
    /// Anything else.
    General,
}

impl ErrorCode {
    /// The word used in JSON.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::ProviderNotReady => "PROVIDER_NOT_READY",
            Self::FlagNotFound => "FLAG_NOT_FOUND",
            Self::ParseError => "PARSE_ERROR",
            Self::TypeMismatch => "TYPE_MISMATCH",
            Self::TargetingKeyMissing => "TARGETING_KEY_MISSING",
            Self::InvalidContext => "INVALID_CONTEXT",
            Self::General => "GENERAL",
        }
    }
}

impl std::fmt::Display for ErrorCode {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.write_str(self.as_str())
    }
}
