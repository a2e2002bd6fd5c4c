//! For the unit tests of applications: a client without a server.
//!
//! ```
//! use guidon_sdk::testing::TestClient;
//! use guidon_sdk::{Client, Context};
//!
//! fn greeting(guidon: &Client, user: &str) -> &'static str {
//!     if guidon.bool("new-greeting", &Context::new(user), false) { "Ahoy" } else { "Hello" }
//! }
//!
//! let guidon = TestClient::new();
//! assert_eq!(greeting(&guidon, "user-42"), "Hello");
//! guidon.set("new-greeting", true);
//! assert_eq!(greeting(&guidon, "user-42"), "Ahoy");
//! assert_eq!(guidon.evaluated().len(), 2);
//! ```

use std::collections::BTreeMap;
use std::ops::Deref;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use serde_json::{Value, json};
use tokio::sync::mpsc;

use crate::client::{Call, Client, Hook, Outcome, Ran};
use crate::eval::Reason;
use crate::model::{Context, EnvironmentFlag};
use crate::protocol::{Exposure, Revision};
use crate::snapshot::Snapshot;

/// Most evaluations and exposures that a [`TestClient`] keeps; further ones are not.
pub const MAX_RECORDED: usize = 100_000;

/// A [`Client`] whose flags the test sets, and which keeps what was evaluated. It is the real client and the real evaluator,
/// without a network: `&TestClient` goes wherever `&Client` is taken.
pub struct TestClient {
    client: Client,
    flags: Mutex<Flags>,
    evaluated: Arc<Mutex<Vec<Evaluated>>>,
    exposures: Mutex<mpsc::Receiver<Exposure>>,
}

#[derive(Default)]
struct Flags {
    revision: u64,
    definitions: BTreeMap<String, EnvironmentFlag>,
}

/// One evaluation.
#[derive(Clone, Debug, PartialEq)]
#[non_exhaustive]
pub struct Evaluated {
    /// Key of the flag.
    pub flag: String,
    /// For whom.
    pub context: Context<'static>,
    /// The value served; `None`: the caller's default.
    pub value: Option<Value>,
    /// Key of the variation served.
    pub variation: Option<String>,
    /// Why.
    pub reason: Reason,
}

struct Recording(Arc<Mutex<Vec<Evaluated>>>);

impl Hook for Recording {
    fn after(&self, call: &Call<'_>, outcome: &Outcome<'_>) {
        let mut evaluated = lock(&self.0);
        if evaluated.len() < MAX_RECORDED {
            evaluated.push(Evaluated {
                flag: call.flag.to_owned(),
                context: call.context.clone().into_owned(),
                value: outcome.value.cloned(),
                variation: outcome.variation.map(str::to_owned),
                reason: outcome.reason,
            });
        }
    }
}

impl TestClient {
    /// A client without flags: every getter answers its default.
    #[must_use]
    pub fn new() -> Self {
        let evaluated = Arc::default();
        let (client, exposures) =
            Client::recording(vec![Arc::new(Recording(Arc::clone(&evaluated)))], None, None, MAX_RECORDED);
        let test = Self { client, flags: Mutex::default(), evaluated, exposures: Mutex::new(exposures) };
        test.serve(&mut lock(&test.flags));
        test
    }

    /// The flag serves everybody this value: a `bool`, a string, a number or JSON.
    pub fn set(&self, flag: &str, value: impl Into<Value>) -> &Self {
        let value = value.into();
        let kind = match value {
            Value::Bool(_) => "boolean",
            Value::String(_) => "string",
            Value::Number(_) => "number",
            _ => "json",
        };
        self.define_json(&json!({
            "key": flag, "kind": kind,
            "variations": [{"key": "value", "value": value}],
            "config": {"on": true, "offVariation": "value", "fallthrough": {"variation": "value"}},
        }))
    }

    /// The flag sends everybody down this code path: [`Client::path`] runs the AI path or the baseline. No circuit breaker opens,
    /// nothing is measured, and nothing runs in the shadow.
    pub fn set_path(&self, flag: &str, ran: Ran) -> &Self {
        let variation = if ran == Ran::Ai { "ai" } else { "baseline" };
        self.define_json(&json!({
            "key": flag, "kind": "string",
            "variations": [
                {"key": "ai", "value": "ai", "provenance": {"by": "ai"}},
                {"key": "baseline", "value": "baseline", "provenance": {"by": "human"}},
            ],
            "config": {"on": true, "offVariation": "baseline", "fallthrough": {"variation": variation}},
        }))
    }

    /// The flag is evaluated by this definition, with its rules and rollouts.
    pub fn define(&self, flag: EnvironmentFlag) -> &Self {
        let mut flags = lock(&self.flags);
        flags.definitions.insert(flag.key.clone(), flag);
        self.serve(&mut flags);
        drop(flags);
        self
    }

    /// The flag is gone: getters answer their default.
    pub fn remove(&self, flag: &str) -> &Self {
        let mut flags = lock(&self.flags);
        flags.definitions.remove(flag);
        self.serve(&mut flags);
        drop(flags);
        self
    }

    /// Takes the evaluations since the last call, oldest first.
    #[must_use]
    pub fn evaluated(&self) -> Vec<Evaluated> {
        std::mem::take(&mut lock(&self.evaluated))
    }

    /// Takes the exposures since the last call, oldest first. As in production, one unit, flag and variation is exposed once,
    /// but for outcomes of the AI path that are not normal.
    #[must_use]
    pub fn exposures(&self) -> Vec<Exposure> {
        let mut exposures = lock(&self.exposures);
        std::iter::from_fn(|| exposures.try_recv().ok()).collect()
    }

    fn define_json(&self, definition: &Value) -> &Self {
        match serde_json::from_value(definition.clone()) {
            Ok(flag) => self.define(flag),
            Err(error) => unreachable!("the definition is written above: {error}"),
        }
    }

    fn serve(&self, flags: &mut Flags) {
        flags.revision += 1;
        let revision = Revision { history: "test".to_owned(), number: flags.revision };
        let definitions: Vec<EnvironmentFlag> = flags.definitions.values().cloned().collect();
        match Snapshot::from_definitions(revision, "test", "test", &definitions, &[]) {
            Ok(snapshot) => self.client.serve_offline(snapshot),
            Err(error) => unreachable!("definitions are written as JSON: {error}"),
        }
    }
}

impl Default for TestClient {
    fn default() -> Self {
        Self::new()
    }
}

impl Deref for TestClient {
    type Target = Client;

    fn deref(&self) -> &Client {
        &self.client
    }
}

impl std::fmt::Debug for TestClient {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        self.client.fmt(formatter)
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::protocol::Cause;

    #[test]
    fn values_of_every_kind_are_served_and_recorded() {
        let guidon = TestClient::new();
        let context = Context::new("u");
        guidon.set("a", true).set("b", "text").set("c", 2.5).set("d", json!({"size": 3}));
        assert!(guidon.bool("a", &context, false));
        assert_eq!(guidon.string("b", &context, ""), "text");
        assert_eq!(guidon.number("c", &context, 0.0), 2.5);
        assert_eq!(guidon.json("d", &context, json!(null))["size"], 3);
        assert!(!guidon.remove("a").bool("a", &context, false));
        let flags: Vec<_> =
            guidon.evaluated().into_iter().map(|evaluated| (evaluated.flag, evaluated.variation)).collect();
        assert_eq!(flags.len(), 5);
        assert_eq!(flags[4], ("a".to_owned(), None));
        assert_eq!(guidon.exposures().len(), 4);
        assert!(guidon.evaluated().is_empty());
    }

    #[test]
    fn either_path_can_be_forced() {
        let guidon = TestClient::new();
        let context = Context::new("u");
        let run =
            |client: &Client| client.path("f", &context).ai(|| Err::<u8, _>("broken")).baseline(|| 1).run_detail();
        assert_eq!(run(guidon.set_path("f", Ran::Ai)).cause, Cause::Error);
        assert_eq!(run(guidon.set_path("f", Ran::Baseline)).cause, Cause::Normal);
        let causes: Vec<Cause> = guidon.exposures().iter().map(|exposure| exposure.cause).collect();
        assert_eq!(causes, [Cause::Error, Cause::Normal]);
    }
}
