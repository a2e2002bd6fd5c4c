//! One file, from bytes to a tree with places.

use std::collections::HashMap;

use saphyr_parser::{Event, Marker, Parser, ScalarStyle};
use serde_json::Value;

use super::{Content, Entry, MAX_DEPTH, MAX_PROBLEMS, MAX_VALUES, Node, Place, Problem, scalar};

/// Reads a file; `None` if there is nothing in it. `values` is how many values may still be read, and is counted down.
pub fn read(bytes: &[u8], file: u32, values: &mut usize) -> Result<Option<Node>, Vec<Problem>> {
    let text = check_text(bytes, file).map_err(|problem| vec![problem])?;
    let mut builder = Builder { file, values, frames: Vec::new(), root: None, problems: Vec::new() };
    let mut has_document = false;
    for event in Parser::new_from_str(text) {
        let (event, span) = match event {
            Ok(found) => found,
            Err(error) => {
                let at = builder.place(*error.marker());
                builder.problems.push(Problem::new(at, syntax(text, at, error.info())));
                break;
            }
        };
        let at = builder.place(span.start);
        if matches!(event, Event::DocumentStart(_)) && std::mem::replace(&mut has_document, true) {
            let message = "a second document begins here; put it into a file of its own";
            builder.problems.push(Problem::new(at, message));
            break;
        }
        if let Err(message) = builder.take(event, at) {
            // What follows could only be misread.
            builder.problems.push(Problem::new(at, message));
            break;
        }
    }
    let Builder { root, problems, .. } = builder;
    if !problems.is_empty() {
        return Err(problems);
    }
    Ok(root.filter(|root| !matches!(root.content, Content::Scalar(Value::Null))))
}

/// The text of a file, without the mark that some editors put in front.
fn check_text(bytes: &[u8], file: u32) -> Result<&str, Problem> {
    let text = std::str::from_utf8(bytes).map_err(|error| {
        let good = String::from_utf8_lossy(bytes.get(..error.valid_up_to()).unwrap_or_default());
        let message = "this is not text in UTF-8; save the file as UTF-8";
        Problem::new(end_of(&good, file), message)
    })?;
    let text = text.strip_prefix('\u{feff}').unwrap_or(text);
    let forbidden = |it: char| (it.is_control() && !matches!(it, '\t' | '\n' | '\r')) || it == '\u{feff}';
    if let Some((index, it)) = text.char_indices().find(|(_, it)| forbidden(*it)) {
        let message = format!(
            "the character U+{:04X} is not allowed here; write it as \"\\u{:04x}\" in double quotes",
            u32::from(it),
            u32::from(it)
        );
        return Err(Problem::new(end_of(text.get(..index).unwrap_or_default(), file), message));
    }
    let first = text.lines().enumerate().find(|(_, line)| !line.trim_start().is_empty() && !line.starts_with('#'));
    if let Some((index, _)) = first.filter(|(_, line)| line.starts_with('%')) {
        let line = u32::try_from(index).unwrap_or(u32::MAX).saturating_add(1);
        return Err(Problem::new(Place { file, line, column: 1 }, "directives are not read; remove this line"));
    }
    Ok(text)
}

/// The place right after `text`.
fn end_of(text: &str, file: u32) -> Place {
    let count = |count: usize| u32::try_from(count).unwrap_or(u32::MAX).saturating_add(1);
    let last = text.rsplit('\n').next().unwrap_or_default();
    Place { file, line: count(text.matches('\n').count()), column: count(last.chars().count()) }
}

/// What is wrong with the syntax, with a remedy for what goes wrong most.
fn syntax(text: &str, at: Place, info: &str) -> String {
    let line =
        usize::try_from(at.line).ok().and_then(|line| text.lines().nth(line.saturating_sub(1))).unwrap_or_default();
    let indent: &str = line.get(..line.len() - line.trim_start().len()).unwrap_or_default();
    let remedy = if indent.contains('\t') || info.contains("tab") {
        "indent with spaces, not with tabs"
    } else if info.contains("unknown anchor") {
        "aliases are not read; write the value out"
    } else if line.matches(": ").count() > 1 {
        "a text with \": \" in it needs quotes"
    } else {
        "check the indentation, and put quotes around texts with special characters"
    };
    format!("this is not YAML ({info}); {remedy}")
}

/// A mapping or list that is still being read.
enum Frame {
    List(Place, Vec<Node>),
    Mapping { place: Place, entries: Vec<Entry>, keys: HashMap<String, Place>, key: Option<(String, Place)> },
}

struct Builder<'a> {
    file: u32,
    values: &'a mut usize,
    frames: Vec<Frame>,
    root: Option<Node>,
    problems: Vec<Problem>,
}

impl Builder<'_> {
    fn place(&self, marker: Marker) -> Place {
        let number = |number: usize| u32::try_from(number).unwrap_or(u32::MAX);
        Place { file: self.file, line: number(marker.line()), column: number(marker.col()).saturating_add(1) }
    }

    /// Takes one event. An error is what nothing after it could be read for.
    fn take(&mut self, event: Event<'_>, at: Place) -> Result<(), String> {
        if self.problems.len() >= MAX_PROBLEMS {
            return Err("the rest of the file was not read, since so much is wrong above".to_owned());
        }
        match event {
            Event::Alias(_) => Err("aliases (*name) are not read; write the value out".to_owned()),
            Event::Scalar(text, style, anchor, tag) => {
                self.check(at, anchor, tag.is_some());
                self.count()?;
                self.scalar(&text, style == ScalarStyle::Plain, at);
                Ok(())
            }
            Event::SequenceStart(anchor, tag) => {
                self.check(at, anchor, tag.is_some());
                self.open(Frame::List(at, Vec::new()))
            }
            Event::MappingStart(anchor, tag) => {
                self.check(at, anchor, tag.is_some());
                let frame = Frame::Mapping { place: at, entries: Vec::new(), keys: HashMap::new(), key: None };
                self.open(frame)
            }
            Event::SequenceEnd | Event::MappingEnd => {
                match self.frames.pop() {
                    Some(Frame::List(place, items)) => self.put(Node { place, content: Content::List(items) }),
                    Some(Frame::Mapping { place, entries, .. }) => {
                        self.put(Node { place, content: Content::Mapping(entries) });
                    }
                    None => {}
                }
                Ok(())
            }
            _ => Ok(()),
        }
    }

    fn check(&mut self, at: Place, anchor: usize, tagged: bool) {
        if anchor != 0 {
            self.problem(at, "anchors (&name) are not read; write the value out where it is needed".to_owned());
        }
        if tagged {
            self.problem(
                at,
                "tags (!name) are not read; remove it, and put a text that looks like a number in quotes".to_owned(),
            );
        }
    }

    fn problem(&mut self, at: Place, message: String) {
        self.problems.push(Problem::new(at, message));
    }

    fn count(&mut self) -> Result<(), String> {
        *self.values = self
            .values
            .checked_sub(1)
            .ok_or_else(|| format!("the files hold more than {MAX_VALUES} values; apply them in parts"))?;
        Ok(())
    }

    fn open(&mut self, frame: Frame) -> Result<(), String> {
        self.count()?;
        if self.frames.len() >= MAX_DEPTH {
            return Err(format!("this is nested deeper than {MAX_DEPTH} levels; make it flatter"));
        }
        if self.expects_key() {
            return Err(
                "a key is a text, and this is a list or a mapping; put it in quotes if a text is meant".to_owned()
            );
        }
        self.frames.push(frame);
        Ok(())
    }

    fn expects_key(&self) -> bool {
        matches!(self.frames.last(), Some(Frame::Mapping { key: None, .. }))
    }

    fn set_key(&mut self, name: String, at: Place) {
        if let Some(Frame::Mapping { key, .. }) = self.frames.last_mut() {
            *key = Some((name, at));
        }
    }

    fn scalar(&mut self, text: &str, is_plain: bool, at: Place) {
        if self.expects_key() {
            let name = self.key(text, is_plain, at);
            self.set_key(name, at);
            return;
        }
        let value = if is_plain { scalar::plain(text) } else { Ok(Value::String(text.to_owned())) };
        let value = value.unwrap_or_else(|message| {
            self.problem(at, message);
            Value::Null
        });
        self.put(Node { place: at, content: Content::Scalar(value) });
    }

    /// A key, after it was looked at; also a wrong one, so that what follows can be.
    fn key(&mut self, text: &str, is_plain: bool, at: Place) -> String {
        if is_plain && text == "<<" {
            self.problem(at, "merge keys (<<) are not read; write the values out".to_owned());
        } else if is_plain && text.is_empty() {
            self.problem(at, "a key is missing before the colon".to_owned());
        } else if is_plain && !matches!(scalar::plain(text), Ok(Value::String(_))) {
            self.problem(at, format!("a key is a text; write \"{text}\" in quotes"));
        }
        let repeated = match self.frames.last() {
            Some(Frame::Mapping { keys, .. }) => keys.get(text).copied(),
            _ => None,
        };
        if let Some(first) = repeated {
            self.problem(at, format!("the key `{text}` is here twice, first in line {}; remove one", first.line));
        }
        text.to_owned()
    }

    /// Puts a finished value where it belongs.
    fn put(&mut self, node: Node) {
        match self.frames.last_mut() {
            None => self.root = Some(node),
            Some(Frame::List(_, items)) => items.push(node),
            Some(Frame::Mapping { entries, keys, key, .. }) => {
                if let Some((key, place)) = key.take()
                    && !keys.contains_key(&key)
                {
                    keys.insert(key.clone(), place);
                    entries.push(Entry { key, place, node });
                }
            }
        }
    }
}
