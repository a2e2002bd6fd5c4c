//! What an application asks a client: values of flags.

use std::collections::BTreeMap;

use serde::de::DeserializeOwned;
use serde_json::Value;

use super::Client;
use super::path::Path;
use super::shared::{Flag, State};
use crate::eval::{ErrorCode, Evaluation, FlagRef, Reason, evaluate};
use crate::model::{Context, FlagKind, ProvenanceKind};
use crate::protocol::Revision;

/// Integers in JSON are doubles: exact within ±2⁵³.
const MAX_EXACT_INTEGER: f64 = 9_007_199_254_740_992.0;

/// A type that a flag's value can be read as.
pub trait FlagValue: Sized {
    /// Kind of flag that has such values; `None`: any.
    const KIND: Option<FlagKind>;

    /// The value, if it is of this type.
    fn read(value: &Value) -> Option<Self>;
}

impl FlagValue for bool {
    const KIND: Option<FlagKind> = Some(FlagKind::Boolean);

    #[inline]
    fn read(value: &Value) -> Option<Self> {
        value.as_bool()
    }
}

impl FlagValue for String {
    const KIND: Option<FlagKind> = Some(FlagKind::String);

    fn read(value: &Value) -> Option<Self> {
        value.as_str().map(str::to_owned)
    }
}

impl FlagValue for f64 {
    const KIND: Option<FlagKind> = Some(FlagKind::Number);

    #[inline]
    fn read(value: &Value) -> Option<Self> {
        value.as_f64()
    }
}

/// A number with a fraction, or beyond ±2⁵³, is not an integer.
impl FlagValue for i64 {
    const KIND: Option<FlagKind> = Some(FlagKind::Number);

    #[inline]
    fn read(value: &Value) -> Option<Self> {
        let exact = |number: &f64| number.fract() == 0.0 && number.abs() <= MAX_EXACT_INTEGER;
        value.as_f64().filter(exact).map(|number| number as i64)
    }
}

impl FlagValue for Value {
    const KIND: Option<FlagKind> = None;

    fn read(value: &Value) -> Option<Self> {
        Some(value.clone())
    }
}

/// What a flag serves a context, and why.
#[derive(Clone, Debug, PartialEq)]
#[non_exhaustive]
pub struct Detail<T> {
    /// The value; `None`: the caller's default applies.
    pub value: Option<T>,
    /// Key of the variation served.
    pub variation: Option<String>,
    /// Who wrote the code behind the variation served, if it says so.
    pub provenance: Option<ProvenanceKind>,
    /// Why.
    pub reason: Reason,
    /// Id of the rule that matched.
    pub rule: Option<String>,
    /// Slot of the context, where a rollout decided.
    pub slot: Option<u32>,
    /// What went wrong, where the reason is [`Reason::Error`].
    pub error: Option<ErrorCode>,
    /// The revision evaluated; `None` while there is none.
    pub revision: Option<Revision>,
    /// Whether that revision may be out of date, as the client is not connected.
    pub stale: bool,
}

/// A flag that was looked up once. Right for every revision, and quick as long as the flag keeps its place, which it does
/// while the client is patched.
#[derive(Clone, Debug)]
pub struct FlagHandle {
    client: Client,
    found: FlagRef,
}

impl Client {
    /// The boolean flag's value; `default` if there is no such flag or value.
    #[must_use]
    #[inline]
    pub fn bool(&self, flag: &str, context: &Context<'_>, default: bool) -> bool {
        self.value(Flag::Key(flag), context).unwrap_or(default)
    }

    /// The string flag's value; `default` if there is no such flag or value.
    #[must_use]
    pub fn string(&self, flag: &str, context: &Context<'_>, default: &str) -> String {
        self.value(Flag::Key(flag), context).unwrap_or_else(|| default.to_owned())
    }

    /// The number flag's value; `default` if there is no such flag or value.
    #[must_use]
    #[inline]
    pub fn number(&self, flag: &str, context: &Context<'_>, default: f64) -> f64 {
        self.value(Flag::Key(flag), context).unwrap_or(default)
    }

    /// The number flag's value as an integer; `default` if there is no such flag or value, or the value has a fraction or is
    /// beyond ±2⁵³.
    #[must_use]
    #[inline]
    pub fn integer(&self, flag: &str, context: &Context<'_>, default: i64) -> i64 {
        self.value(Flag::Key(flag), context).unwrap_or(default)
    }

    /// The flag's value, of whatever kind, as `T`; `default` if there is no such flag or value, or it does not read as `T`.
    #[must_use]
    pub fn json<T: DeserializeOwned>(&self, flag: &str, context: &Context<'_>, default: T) -> T {
        self.read(Flag::Key(flag), context, None, |value| T::deserialize(value).ok()).unwrap_or(default)
    }

    /// The flag's value with what led to it. Reported as an exposure, as the getters are.
    #[must_use]
    pub fn detail<T: FlagValue>(&self, flag: &str, context: &Context<'_>) -> Detail<T> {
        self.detail_of(Flag::Key(flag), context)
    }

    /// The values of all flags, by key; flags that answer an error are left out. Not reported as exposures, and not seen by
    /// hooks: nobody was served yet.
    #[must_use]
    pub fn all_flags(&self, context: &Context<'_>) -> BTreeMap<String, Value> {
        let snapshot = self.inner.shared.snapshot.load();
        let Some(ruleset) = snapshot.as_deref().map(|snapshot| snapshot.ruleset()) else { return BTreeMap::new() };
        let served = ruleset.flags().filter_map(|flag| {
            let value = evaluate(ruleset, flag.key, context).value()?;
            Some((flag.key.to_owned(), value.clone()))
        });
        served.collect()
    }

    /// Decides between the AI-written code path and the human baseline.
    ///
    /// The AI path runs only if the variation served has provenance `ai`; everything else, errors included, runs the
    /// baseline, and so does an AI path that fails.
    pub fn path<'a>(&'a self, flag: &'a str, context: &'a Context<'a>) -> Path<'a> {
        Path::new(self, Flag::Key(flag), context)
    }

    /// A handle that evaluates `flag` without looking it up. The flag need not exist yet.
    #[must_use]
    pub fn flag(&self, flag: &str) -> FlagHandle {
        let snapshot = self.inner.shared.snapshot.load();
        let found = snapshot.as_deref().and_then(|snapshot| snapshot.ruleset().find(flag));
        FlagHandle { client: self.clone(), found: found.unwrap_or_else(|| FlagRef::new(flag)) }
    }

    #[inline]
    fn value<T: FlagValue>(&self, flag: Flag<'_>, context: &Context<'_>) -> Option<T> {
        self.read(flag, context, T::KIND, T::read)
    }

    /// Evaluates and reads; what was read was served, and is recorded.
    #[inline]
    fn read<T>(
        &self,
        flag: Flag<'_>,
        context: &Context<'_>,
        kind: Option<FlagKind>,
        read: impl FnOnce(&Value) -> Option<T>,
    ) -> Option<T> {
        let shared = &self.inner.shared;
        shared.evaluate(flag, context, |evaluation, revision| {
            if kind.is_some_and(|kind| evaluation.kind() != Some(kind)) {
                return None;
            }
            let value = read(evaluation.value()?)?;
            shared.record(flag.key(), evaluation, revision);
            Some(value)
        })
    }

    fn detail_of<T: FlagValue>(&self, flag: Flag<'_>, context: &Context<'_>) -> Detail<T> {
        let shared = &self.inner.shared;
        let stale = self.state() != State::Ready;
        shared.evaluate(flag, context, |evaluation, revision| {
            let mut detail = describe(evaluation, revision, stale);
            let fits = T::KIND.is_none_or(|kind| evaluation.kind() == Some(kind));
            detail.value = evaluation.value().filter(|_| fits).and_then(T::read);
            if detail.value.is_some() {
                shared.record(flag.key(), evaluation, revision);
            } else if evaluation.value().is_some() {
                let (reason, error) = (Reason::Error, Some(ErrorCode::TypeMismatch));
                return Detail { variation: None, provenance: None, rule: None, slot: None, reason, error, ..detail };
            }
            detail
        })
    }
}

fn describe<T>(evaluation: &Evaluation<'_>, revision: Option<&Revision>, stale: bool) -> Detail<T> {
    Detail {
        value: None,
        variation: evaluation.variation_key().map(str::to_owned),
        provenance: evaluation.provenance(),
        reason: evaluation.reason(),
        rule: evaluation.rule().map(str::to_owned),
        slot: evaluation.slot(),
        error: evaluation.error(),
        revision: revision.cloned(),
        stale,
    }
}

impl FlagHandle {
    /// Key of the flag.
    #[must_use]
    pub fn key(&self) -> &str {
        self.found.key()
    }

    /// As [`Client::bool`].
    #[must_use]
    #[inline]
    pub fn bool(&self, context: &Context<'_>, default: bool) -> bool {
        self.client.value(Flag::Found(&self.found), context).unwrap_or(default)
    }

    /// As [`Client::string`].
    #[must_use]
    pub fn string(&self, context: &Context<'_>, default: &str) -> String {
        self.client.value(Flag::Found(&self.found), context).unwrap_or_else(|| default.to_owned())
    }

    /// As [`Client::number`].
    #[must_use]
    #[inline]
    pub fn number(&self, context: &Context<'_>, default: f64) -> f64 {
        self.client.value(Flag::Found(&self.found), context).unwrap_or(default)
    }

    /// As [`Client::integer`].
    #[must_use]
    #[inline]
    pub fn integer(&self, context: &Context<'_>, default: i64) -> i64 {
        self.client.value(Flag::Found(&self.found), context).unwrap_or(default)
    }

    /// As [`Client::json`].
    #[must_use]
    pub fn json<T: DeserializeOwned>(&self, context: &Context<'_>, default: T) -> T {
        self.client.read(Flag::Found(&self.found), context, None, |value| T::deserialize(value).ok()).unwrap_or(default)
    }

    /// As [`Client::detail`].
    #[must_use]
    pub fn detail<T: FlagValue>(&self, context: &Context<'_>) -> Detail<T> {
        self.client.detail_of(Flag::Found(&self.found), context)
    }

    /// As [`Client::path`].
    pub fn path<'a>(&'a self, context: &'a Context<'a>) -> Path<'a> {
        Path::new(&self.client, Flag::Found(&self.found), context)
    }
}
