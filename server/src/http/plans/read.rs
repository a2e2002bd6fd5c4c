//! Reads a document part by part, so that all that is wrong is found at once.

use std::collections::BTreeMap;

use serde::de::DeserializeOwned;
use serde_json::{Map, Value};

use super::super::problem::Fault;
use super::super::strict::{self, MAX_FAULTS};
use crate::environments::document::{Document, FlagDocument, ServingDocument};
use crate::spelling::hint;

/// Sections of a document.
const SECTIONS: [&str; 3] = ["environments", "flags", "segments"];

/// What can be read of a document that stands at `pointer` in the body, and all that is wrong with its form.
pub(super) fn read_document(value: &Value, pointer: &str) -> (Document, Vec<Fault>) {
    let mut reading = Reading { faults: Vec::new() };
    let mut document = Document::default();
    let Some(sections) = reading.object(value, pointer, "a document") else { return (document, reading.faults) };
    for name in sections.keys().filter(|name| !SECTIONS.contains(&name.as_str())) {
        let hint = hint(name, &SECTIONS);
        let detail = format!("a document has no section {name:?}; it has environments, flags and segments{hint}");
        reading.add(Fault::new(below(pointer, name), "unknownField", detail));
    }
    let section = |name: &str| sections.get(name).map(|value| (value, below(pointer, name)));
    document.environments = section("environments").map(|(value, at)| reading.entries(value, &at, Reading::typed));
    document.flags = section("flags").map(|(value, at)| reading.entries(value, &at, Reading::flag));
    document.segments = section("segments").map(|(value, at)| {
        reading.entries(value, &at, |reading, value, at| Some(reading.entries(value, at, Reading::typed)))
    });
    (document, reading.faults)
}

fn below(pointer: &str, name: &str) -> String {
    format!("{pointer}/{}", name.replace('~', "~0").replace('/', "~1"))
}

struct Reading {
    faults: Vec<Fault>,
}

impl Reading {
    fn add(&mut self, fault: Fault) {
        if self.faults.len() < MAX_FAULTS {
            self.faults.push(fault);
        }
    }

    fn object<'v>(&mut self, value: &'v Value, at: &str, what: &str) -> Option<&'v Map<String, Value>> {
        let fields = value.as_object();
        if fields.is_none() {
            self.add(Fault::new(at, "wrongType", format!("{what} is an object")));
        }
        fields
    }

    fn typed<T: DeserializeOwned>(&mut self, value: &Value, at: &str) -> Option<T> {
        match strict::read(value, at) {
            Ok(read) => Some(read),
            Err(faults) => {
                faults.into_iter().for_each(|fault| self.add(fault));
                None
            }
        }
    }

    /// The entries of an object that can be read.
    fn entries<T>(
        &mut self,
        value: &Value,
        at: &str,
        read: impl Fn(&mut Self, &Value, &str) -> Option<T>,
    ) -> BTreeMap<String, T> {
        let mut entries = BTreeMap::new();
        for (key, value) in self.object(value, at, "this").into_iter().flatten() {
            if let Some(entry) = read(self, value, &below(at, key)) {
                entries.insert(key.clone(), entry);
            }
        }
        entries
    }

    /// A flag, and each of its environments by itself.
    fn flag(&mut self, value: &Value, at: &str) -> Option<FlagDocument> {
        let mut fields = self.object(value, at, "a flag")?.clone();
        let environments = fields.remove("environments");
        let flag: Option<FlagDocument> = self.typed(&Value::Object(fields), at);
        let environments: BTreeMap<String, ServingDocument> =
            environments.map(|value| self.entries(&value, &below(at, "environments"), Self::typed)).unwrap_or_default();
        flag.map(|flag| FlagDocument { environments, ..flag })
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn everything_wrong_is_found_at_once_and_in_its_place() {
        let (document, faults) = read_document(
            &json!({
                "flag": {},
                "flags": {
                    "a/b": {"kind": "bool", "environments": {"staging": {"on": "yes"}, "production": {"onn": true}}},
                    "c": {"variations": [{"value": 1}]},
                    "d": 5,
                    "e": {"owner": null, "environments": {"staging": {"fallthrough": {"rollout": {"weights": {"a": -1}}}}}},
                },
                "segments": {"staging": {"s": {"rules": [{"clauses": [], "id": 5}]}}},
                "environments": {"x": {"tier": "prod"}},
            }),
            "/document",
        );
        let found: Vec<(&str, &str)> = faults.iter().map(|fault| (&*fault.pointer, &*fault.code)).collect();
        assert_eq!(
            found,
            [
                ("/document/flag", "unknownField"),
                ("/document/environments/x/tier", "unknownWord"),
                ("/document/flags/a~1b/kind", "unknownWord"),
                ("/document/flags/a~1b/environments/staging/on", "wrongType"),
                ("/document/flags/a~1b/environments/production/onn", "unknownField"),
                ("/document/flags/c/variations/0", "missingField"),
                ("/document/flags/d", "wrongType"),
                ("/document/flags/e/environments/staging/fallthrough/rollout/weights/a", "outOfRange"),
                ("/document/segments/staging/s/rules/0/id", "wrongType"),
            ]
        );
        assert_eq!(document.flags.unwrap()["e"].owner, Some(None));
        assert_eq!(read_document(&json!([]), "").1[0].code, "wrongType");
    }
}
