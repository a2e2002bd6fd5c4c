//! Configuration as YAML files: read with the place of everything, merged into one document, and written.
//!
//! The files are a small part of YAML 1.2: mappings, lists, texts, numbers, `true`, `false` and `null`. What different readers
//! take differently (anchors, aliases, merge keys, tags, keys that are no texts, the many ways to write a number) is refused
//! with its place and what to write in its stead.

mod folder;
mod merge;
mod reader;
mod scalar;
mod write;

#[cfg(test)]
mod fuzz_tests;
#[cfg(test)]
mod tests;

use std::fmt;

use serde_json::{Map, Value};

pub use folder::{Sources, read_one, yaml_files};
pub use merge::{Document, problem_document};
pub use write::document as write_document;

/// Largest file, in bytes.
pub const MAX_FILE_BYTES: u64 = 1 << 20;
/// Most bytes of all files together.
pub const MAX_TOTAL_BYTES: u64 = 10 << 20;
/// Most files.
pub const MAX_FILES: usize = 10_000;
/// Most folders within folders.
pub const MAX_FOLDER_DEPTH: usize = 16;
/// Most mappings and lists within each other.
pub const MAX_DEPTH: usize = 64;
/// Most values of all files together: texts, numbers, mappings, lists.
pub const MAX_VALUES: usize = 1_000_000;
/// Most problems that are kept; the rest is counted.
pub const MAX_PROBLEMS: usize = 200;

/// A place in a file; lines and columns count from 1.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct Place {
    /// Number of the file among the [`Sources`].
    pub file: u32,
    /// Line.
    pub line: u32,
    /// Column, in characters.
    pub column: u32,
}

/// A value and where it stands.
#[derive(Clone, Debug)]
pub struct Node {
    /// Where it begins.
    pub place: Place,
    /// What it is.
    pub content: Content,
}

/// What a value is.
#[derive(Clone, Debug)]
pub enum Content {
    /// A text, number, boolean or null.
    Scalar(Value),
    /// A list.
    List(Vec<Node>),
    /// A mapping; no key is twice in it.
    Mapping(Vec<Entry>),
}

/// A key of a mapping, and its value.
#[derive(Clone, Debug)]
pub struct Entry {
    /// The key.
    pub key: String,
    /// Where the key stands.
    pub place: Place,
    /// Its value.
    pub node: Node,
}

/// Something wrong at a place.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Problem {
    /// Where.
    pub place: Place,
    /// What is wrong, and what to do about it.
    pub message: String,
}

impl Problem {
    fn new(place: Place, message: impl Into<String>) -> Self {
        Self { place, message: message.into() }
    }
}

impl Node {
    /// The value without its places.
    #[must_use]
    pub fn to_value(&self) -> Value {
        match &self.content {
            Content::Scalar(value) => value.clone(),
            Content::List(items) => Value::Array(items.iter().map(Self::to_value).collect()),
            Content::Mapping(entries) => {
                let fields = entries.iter().map(|entry| (entry.key.clone(), entry.node.to_value()));
                Value::Object(fields.collect::<Map<_, _>>())
            }
        }
    }

    /// The place of what a JSON pointer names, or of the innermost thing around it that is there; and whether all of it is
    /// there. What a mapping holds is placed at its key.
    #[must_use]
    pub fn find(&self, pointer: &str) -> (Place, bool) {
        let (mut node, mut place) = (self, self.place);
        for token in pointer.split('/').skip(1) {
            let token = token.replace("~1", "/").replace("~0", "~");
            let next = match &node.content {
                Content::Mapping(entries) => {
                    entries.iter().find(|entry| entry.key == token).map(|entry| (&entry.node, entry.place))
                }
                Content::List(items) => {
                    token.parse::<usize>().ok().and_then(|index| items.get(index)).map(|item| (item, item.place))
                }
                Content::Scalar(_) => None,
            };
            match next {
                Some(found) => (node, place) = found,
                None => return (place, false),
            }
        }
        (place, true)
    }

    /// What it is, for sentences.
    fn kind(&self) -> &'static str {
        match &self.content {
            Content::List(_) => "a list",
            Content::Mapping(_) => "a mapping",
            Content::Scalar(Value::String(_)) => "a text",
            Content::Scalar(Value::Number(_)) => "a number",
            Content::Scalar(Value::Bool(_)) => "a boolean",
            Content::Scalar(_) => "nothing",
        }
    }
}

/// Problems, at most [`MAX_PROBLEMS`] of them, in the order of files and lines.
#[derive(Clone, Debug, Default)]
pub struct Problems {
    found: Vec<Problem>,
    more: usize,
}

impl Problems {
    /// Adds one.
    pub fn add(&mut self, place: Place, message: impl Into<String>) {
        if self.found.len() < MAX_PROBLEMS {
            self.found.push(Problem::new(place, message));
        } else {
            self.more += 1;
        }
    }

    /// Whether there is none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.found.is_empty()
    }

    /// All of them as lines `file:line:column: message`, sorted, each once.
    #[must_use]
    pub fn lines(mut self, sources: &Sources) -> Vec<String> {
        self.found.sort();
        self.found.dedup();
        let mut lines: Vec<String> =
            self.found.iter().map(|it| format!("{}: {}", sources.at(it.place), it.message)).collect();
        if self.more > 0 {
            lines.push(format!("and {} more", self.more));
        }
        lines
    }
}

impl fmt::Display for Place {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "{}:{}", self.line, self.column)
    }
}
