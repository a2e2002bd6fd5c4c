//! The Guidon evaluator for JavaScript hosts: an exported class that holds a snapshot, takes patches, and evaluates.
//!
//! Snapshots, patches and contexts may be given as JSON text or as the objects it stands for. Nothing here knows of a network, a clock or
//! a disk: the host brings the bytes.

mod convert;

use guidon_sdk::Context;
use guidon_sdk::eval::{ErrorCode, Evaluation, evaluate};
use guidon_sdk::model::FlagKind;
use guidon_sdk::protocol::PROTOCOL_VERSION;
use guidon_sdk::snapshot::{ApplyError, Snapshot};
use wasm_bindgen::prelude::{JsError, JsValue, wasm_bindgen};

#[wasm_bindgen(typescript_custom_section)]
const TYPES: &str = r#"
/** OpenFeature's evaluation context: a targeting key, and attributes. */
export type Context = { targetingKey?: string } & Record<string, unknown>;

/** What a flag serves a context, and why. */
export interface Evaluation {
    /** The variation's value, or the caller's default where `reason` is `ERROR`. */
    value: unknown;
    /** Key of the variation served; absent where the default is. */
    variation?: string;
    reason: 'STATIC' | 'DEFAULT' | 'TARGETING_MATCH' | 'SPLIT' | 'DISABLED' | 'ERROR';
    /** Id of the rule that matched. */
    rule?: string;
    /** Slot of the unit, of 100,000, where a rollout decided. */
    slot?: number;
    errorCode?: 'FLAG_NOT_FOUND' | 'PARSE_ERROR' | 'TYPE_MISMATCH' | 'TARGETING_KEY_MISSING' | 'INVALID_CONTEXT' | 'GENERAL';
    errorMessage?: string;
    /** Revision evaluated, `<history>:<number>`. */
    revision: string;
}

/** A definition that could not be compiled; it fails alone. */
export interface Problem {
    /** Key of the flag, or of the segment, where it can be read. */
    flag?: string;
    segment?: string;
    /** Where in the definition (RFC 6901). */
    pointer: string;
    /** A stable word for what is wrong. */
    code: string;
    message: string;
}
"#;

#[wasm_bindgen]
extern "C" {
    #[wasm_bindgen(js_namespace = JSON, js_name = stringify, catch)]
    fn to_json(value: &JsValue) -> Result<JsValue, JsValue>;
    #[wasm_bindgen(js_namespace = JSON, js_name = parse, catch)]
    fn from_json(text: &str) -> Result<JsValue, JsValue>;
    #[wasm_bindgen(js_namespace = Reflect, js_name = set, catch)]
    fn set_property(object: &JsValue, name: &str, value: &JsValue) -> Result<bool, JsValue>;
}

/// Version of the push protocol whose snapshots and patches this module reads.
#[wasm_bindgen(js_name = protocolVersion)]
#[must_use]
pub fn protocol_version() -> u32 {
    PROTOCOL_VERSION
}

/// Evaluates the flags of one environment. Free it (`free()`, or `using`) when it is no longer needed.
#[wasm_bindgen]
#[derive(Debug)]
pub struct Evaluator {
    snapshot: Snapshot,
}

#[wasm_bindgen]
impl Evaluator {
    /// Compiles a snapshot. A definition that cannot be compiled is listed by `problems` and fails alone.
    ///
    /// # Errors
    /// Throws if `snapshot` is not the JSON of a snapshot.
    #[wasm_bindgen(constructor)]
    pub fn new(#[wasm_bindgen(unchecked_param_type = "string | object")] snapshot: &JsValue) -> Result<Self, JsError> {
        let json = text_of(snapshot).map_err(|message| refused("snapshot", &message))?;
        let snapshot = Snapshot::parse(json.as_bytes()).map_err(|error| refused("snapshot", &error.to_string()))?;
        Ok(Self { snapshot })
    }

    /// What the flag serves the context. Where no variation can be served, or the flag's values are not of the default's type,
    /// the value is the default.
    ///
    /// # Errors
    /// Throws only if the host's `JSON` or `Reflect` does.
    #[wasm_bindgen(unchecked_return_type = "Evaluation")]
    pub fn evaluate(
        &self,
        flag: &str,
        #[wasm_bindgen(unchecked_param_type = "string | Context")] context: &JsValue,
        #[wasm_bindgen(unchecked_optional_param_type = "unknown")] default: &JsValue,
    ) -> Result<JsValue, JsValue> {
        let revision = self.snapshot.revision();
        let nobody = Context::default();
        let (json, served) = match text_of(context).and_then(|json| convert::context(&json)) {
            Ok(context) => {
                let evaluation = evaluate(self.snapshot.ruleset(), flag, &context);
                let evaluation = kind_of(default).map_or(evaluation, |kind| evaluation.of_kind(kind));
                (convert::answer(&evaluation, None, revision), evaluation.value().is_some())
            }
            Err(message) => {
                let evaluation = Evaluation::failed(ErrorCode::InvalidContext, &nobody);
                (convert::answer(&evaluation, Some(&message), revision), false)
            }
        };
        let answer = from_json(&json.map_err(JsError::from)?)?;
        if !served {
            set_property(&answer, "value", default)?;
        }
        Ok(answer)
    }

    /// Takes a patch: `applied`; `ignored`, because the snapshot is at its revision or past it; or `resync`, because something
    /// between the two is missing and the host has to fetch a snapshot. Only `applied` changes anything.
    ///
    /// # Errors
    /// Throws if `patch` is not the JSON of a patch.
    #[wasm_bindgen(js_name = applyPatch, unchecked_return_type = "'applied' | 'ignored' | 'resync'")]
    pub fn apply_patch(
        &mut self,
        #[wasm_bindgen(unchecked_param_type = "string | object")] patch: &JsValue,
    ) -> Result<String, JsError> {
        let json = text_of(patch).map_err(|message| refused("patch", &message))?;
        let patch = serde_json::from_str(&json).map_err(|error| refused("patch", &error.to_string()))?;
        let outcome = match self.snapshot.apply(&patch) {
            Ok(next) => {
                self.snapshot = next;
                "applied"
            }
            Err(ApplyError::AlreadyApplied { .. }) => "ignored",
            Err(ApplyError::Resync { .. }) => "resync",
        };
        Ok(outcome.to_owned())
    }

    /// The revision evaluated, `<history>:<number>`.
    #[wasm_bindgen(getter)]
    #[must_use]
    pub fn revision(&self) -> String {
        self.snapshot.revision().to_string()
    }

    /// Every definition that could not be compiled.
    ///
    /// # Errors
    /// Throws only if the host's `JSON` does.
    #[wasm_bindgen(getter, unchecked_return_type = "Problem[]")]
    pub fn problems(&self) -> Result<JsValue, JsValue> {
        let json = serde_json::to_string(&self.snapshot.problems()).map_err(JsError::from)?;
        from_json(&json)
    }
}

/// JSON text as it is, an object written as JSON, nothing as an empty object.
fn text_of(value: &JsValue) -> Result<String, String> {
    if value.is_undefined() || value.is_null() {
        return Ok("{}".to_owned());
    }
    if let Some(text) = value.as_string() {
        return Ok(text);
    }
    let text = to_json(value).map_err(|error| format!("it cannot be written as JSON: {error:?}"))?;
    text.as_string().ok_or_else(|| "it has no form in JSON".to_owned())
}

/// The type of values a caller asks for by its default; none if there is no default.
fn kind_of(default: &JsValue) -> Option<FlagKind> {
    if default.is_undefined() || default.is_null() {
        None
    } else if default.as_bool().is_some() {
        Some(FlagKind::Boolean)
    } else if default.as_f64().is_some() {
        Some(FlagKind::Number)
    } else if default.is_string() {
        Some(FlagKind::String)
    } else {
        Some(FlagKind::Json)
    }
}

fn refused(what: &str, message: &str) -> JsError {
    JsError::new(&format!("this {what} cannot be used: {message}"))
}
