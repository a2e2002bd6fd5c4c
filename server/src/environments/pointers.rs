//! From places in a flag's definition to places in the document that asks for it, and hints at what was meant. Pure.

use guidon_sdk::model::Flag;
use serde_json::{Value, json};

use super::document::FlagDocument;
use super::expected::Expected;
use crate::spelling::hint;

/// Where the document says what stands at `pointer` in the flag: there, or as near to it as the document says anything.
pub(crate) fn place_in_document(pointer: &str, flag: &Flag, document: &FlagDocument) -> String {
    let mut parts: Vec<String> = pointer.split('/').skip(1).map(str::to_owned).collect();
    if parts.first().map(String::as_str) == Some("variations")
        && let Some(place) = parts.get_mut(1)
    {
        // The definition has known variations first.
        let key = place.parse::<usize>().ok().and_then(|place| flag.variations.get(place)).map(|it| &it.key);
        let said = document.variations.as_ref().zip(key);
        // Of two with one key the last one is meant.
        if let Some(index) = said.and_then(|(said, key)| said.iter().rposition(|variation| variation.key == *key)) {
            *place = index.to_string();
        }
    }
    let document = json!(document);
    let (mut at, mut place) = (&document, String::new());
    for part in parts {
        let raw = part.replace("~1", "/").replace("~0", "~");
        let next = match at {
            Value::Object(fields) => fields.get(&raw),
            Value::Array(items) => raw.parse::<usize>().ok().and_then(|index| items.get(index)),
            _ => None,
        };
        let Some(next) = next else { break };
        at = next;
        place.push('/');
        place.push_str(&part);
    }
    place
}

/// Adds the nearest known word, if there is one.
pub(crate) fn with_hint<'k>(message: String, word: &str, known: impl Iterator<Item = &'k String>) -> String {
    message + &hint(word, &known.map(String::as_str).collect::<Vec<_>>())
}

/// What there is to refer to.
pub(crate) struct Known<'a> {
    pub(crate) flag: &'a Flag,
    pub(crate) expected: &'a Expected<'a>,
}

impl Known<'_> {
    /// Adds to `message` what may have been meant at `pointer` in the flag, where something was referred to that is not there.
    pub(crate) fn hint(&self, code: &str, pointer: &str, message: String) -> String {
        let definition = json!(self.flag);
        let parts: Vec<String> =
            pointer.split('/').skip(1).map(|part| part.replace("~1", "/").replace("~0", "~")).collect();
        let environment = parts.get(1).filter(|_| parts.first().is_some_and(|first| first == "environments"));
        // A weight's key stands in the pointer; everything else is the value there.
        let word = match definition.pointer(pointer) {
            Some(Value::String(word)) => word.clone(),
            _ => parts.last().cloned().unwrap_or_default(),
        };
        let known: Vec<&str> = match code {
            "unknownSegment" => {
                environment.map(|key| self.expected.segments_in(key).into_iter().collect()).unwrap_or_default()
            }
            "unknownFlag" => {
                let others = self.expected.all_flags().filter(|flag| !flag.archived && flag.key != self.flag.key);
                others.map(|flag| flag.key.as_str()).collect()
            }
            "unknownVariation" => {
                let required = pointer.strip_suffix("/variation").filter(|at| at.contains("/prerequisites/"));
                let required = required.and_then(|at| definition.pointer(&format!("{at}/flag"))?.as_str());
                let flag = required.and_then(|key| self.expected.any_flag(key)).unwrap_or(self.flag);
                flag.variations.iter().map(|variation| variation.key.as_str()).collect()
            }
            _ => return message,
        };
        message + &hint(&word, &known)
    }
}
