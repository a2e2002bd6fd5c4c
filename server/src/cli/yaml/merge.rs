//! Files into one document.

use std::collections::HashMap;

use serde_json::{Value, json};

use super::folder::{self, Sources};
use super::{Content, Entry, Node, Place, Problems};
use crate::cli::CliError;
use crate::spelling::nearest;

/// The parts of a document, and how many levels of keys below each name a thing that stands in one file.
const PARTS: [(&str, usize); 3] = [("environments", 1), ("flags", 1), ("segments", 2)];

/// Several files as one document, with the place of everything.
#[derive(Debug)]
pub struct Document {
    root: Node,
    sources: Sources,
    problems: Problems,
}

/// Puts trees together.
pub fn merge(trees: Vec<Node>, sources: Sources) -> Document {
    let mut problems = Problems::default();
    let mut root = Vec::new();
    // Index of what was found under a path, so that many files do not cost the square of their number.
    let mut known: HashMap<Vec<String>, (usize, Place)> = HashMap::new();
    for tree in trees {
        let kind = tree.kind();
        let Content::Mapping(entries) = tree.content else {
            let detail = "a file holds `environments`, `flags` and `segments`";
            problems.add(tree.place, format!("this is {kind}; {detail}"));
            continue;
        };
        for entry in entries {
            let Some((_, depth)) = PARTS.iter().find(|(name, _)| *name == entry.key) else {
                problems.add(entry.place, unknown(&entry.key));
                continue;
            };
            let mut merging = Merging { known: &mut known, sources: &sources, problems: &mut problems };
            merging.put(&mut root, entry, *depth, &mut Vec::new());
        }
    }
    let root = Node { place: Place::default(), content: Content::Mapping(root) };
    Document { root, sources, problems }
}

fn unknown(key: &str) -> String {
    match nearest(key, &PARTS.map(|(name, _)| name)) {
        Some(name) => format!("there is no part `{key}`; `{name}` is probably meant"),
        None => format!("there is no part `{key}`; a file holds `environments`, `flags` and `segments`"),
    }
}

struct Merging<'a> {
    known: &'a mut HashMap<Vec<String>, (usize, Place)>,
    sources: &'a Sources,
    problems: &'a mut Problems,
}

impl Merging<'_> {
    /// Puts an entry among `entries`, joining mappings for `depth` more levels; `path` is where those are.
    fn put(&mut self, entries: &mut Vec<Entry>, entry: Entry, depth: usize, path: &mut Vec<String>) {
        path.push(entry.key.clone());
        let kind = entry.node.kind();
        match (depth, entry.node.content) {
            (0, content) => match self.known.get(path.as_slice()) {
                Some((_, first)) => {
                    let first = self.sources.at(*first);
                    let message = format!("`{}` is at {first} already; each stands in one place", path.join("."));
                    self.problems.add(entry.place, message);
                }
                None => {
                    self.known.insert(path.clone(), (entries.len(), entry.place));
                    let node = Node { place: entry.node.place, content };
                    entries.push(Entry { key: entry.key, place: entry.place, node });
                }
            },
            (_, Content::Mapping(inner)) => {
                let index = match self.known.get(path.as_slice()) {
                    Some((index, _)) => *index,
                    None => {
                        self.known.insert(path.clone(), (entries.len(), entry.place));
                        let node = Node { place: entry.node.place, content: Content::Mapping(Vec::new()) };
                        entries.push(Entry { key: entry.key, place: entry.place, node });
                        entries.len() - 1
                    }
                };
                if let Some(Entry { node: Node { content: Content::Mapping(joined), .. }, .. }) = entries.get_mut(index)
                {
                    inner.into_iter().for_each(|entry| self.put(joined, entry, depth - 1, path));
                }
            }
            // `flags:` with nothing below it is a file that has none.
            (_, Content::Scalar(Value::Null)) => {}
            _ => {
                let message = format!("`{}` is {kind}; it maps keys to what they stand for", path.join("."));
                self.problems.add(entry.place, message);
            }
        }
        path.pop();
    }
}

impl Document {
    /// Reads the files below a folder.
    ///
    /// # Errors
    ///
    /// Everything that makes them no YAML of ours; see [`Self::check`] for what else may be wrong.
    pub fn read(folder: &std::path::Path) -> Result<Self, CliError> {
        folder::read(folder)
    }

    /// The document as the server takes it.
    #[must_use]
    pub fn to_value(&self) -> Value {
        self.root.to_value()
    }

    /// Adds what the server finds wrong: a list of problems that say by JSON pointers where they are.
    ///
    /// Answers those that are of no place in the document.
    pub fn add_problems(&mut self, errors: &[Value], prefix: &str) -> Vec<Value> {
        let mut elsewhere = Vec::new();
        for error in errors {
            let pointer = error["pointer"].as_str().unwrap_or_default();
            let Some(within) = pointer.strip_prefix(prefix) else {
                elsewhere.push(error.clone());
                continue;
            };
            let (place, is_whole) = self.root.find(within);
            if place == Place::default() {
                elsewhere.push(error.clone());
                continue;
            }
            let detail = error["detail"].as_str().unwrap_or("this is refused");
            let message = if is_whole { detail.to_owned() } else { format!("{detail} ({within})") };
            self.problems.add(place, message);
        }
        elsewhere
    }

    /// Whether nothing is known to be wrong.
    ///
    /// # Errors
    ///
    /// Everything that is known to be.
    pub fn check(&self) -> Result<(), CliError> {
        if self.problems.is_empty() { Ok(()) } else { Err(folder::refusal(self.problems.clone(), &self.sources)) }
    }
}

/// The error's problems as a document for scripts.
pub fn problem_document(message: &str, problems: &[String]) -> Value {
    json!({"title": message.lines().next().unwrap_or_default(), "code": "invalidFiles", "problems": problems})
}
