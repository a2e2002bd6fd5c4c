//! A document as YAML, the same bytes for the same document.

use std::fmt::Write as _;

use serde_json::{Map, Value};

use super::scalar;

/// Longest list of texts and numbers that stands on one line, in characters.
const MAX_LINE: usize = 100;

/// A document as YAML in block style, keys in the order they come in.
#[must_use]
pub fn document(value: &Map<String, Value>) -> String {
    let mut text = String::new();
    if value.is_empty() {
        text.push_str("{}\n");
    }
    mapping(&mut text, value, 0, false);
    text
}

/// The entries of a mapping; the first stands on the line that was begun if `begun`.
fn mapping(text: &mut String, fields: &Map<String, Value>, indent: usize, begun: bool) {
    for (index, (key, value)) in fields.iter().enumerate() {
        if index > 0 || !begun {
            text.extend(std::iter::repeat_n(' ', indent));
        }
        scalar_text(text, key);
        text.push(':');
        after_colon(text, value, indent);
    }
}

fn after_colon(text: &mut String, value: &Value, indent: usize) {
    match value {
        Value::Object(fields) if !fields.is_empty() => {
            text.push('\n');
            mapping(text, fields, indent + 2, false);
        }
        Value::Array(items) if !items.is_empty() => match on_one_line(items) {
            Some(line) => {
                text.push(' ');
                text.push_str(&line);
                text.push('\n');
            }
            None => {
                text.push('\n');
                list(text, items, indent + 2, false);
            }
        },
        other => {
            text.push(' ');
            small(text, other);
            text.push('\n');
        }
    }
}

fn list(text: &mut String, items: &[Value], indent: usize, begun: bool) {
    for (index, item) in items.iter().enumerate() {
        if index > 0 || !begun {
            text.extend(std::iter::repeat_n(' ', indent));
        }
        text.push_str("- ");
        match item {
            Value::Object(fields) if !fields.is_empty() => mapping(text, fields, indent + 2, true),
            Value::Array(inner) if !inner.is_empty() => match on_one_line(inner) {
                Some(line) => {
                    text.push_str(&line);
                    text.push('\n');
                }
                None => list(text, inner, indent + 2, true),
            },
            other => {
                small(text, other);
                text.push('\n');
            }
        }
    }
}

/// A list of nothing but texts, numbers and the like, if it is short.
fn on_one_line(items: &[Value]) -> Option<String> {
    let mut line = String::from("[");
    for (index, item) in items.iter().enumerate() {
        if matches!(item, Value::Object(_) | Value::Array(_)) || line.len() > MAX_LINE {
            return None;
        }
        if index > 0 {
            line.push_str(", ");
        }
        small(&mut line, item);
    }
    line.push(']');
    (line.chars().count() <= MAX_LINE).then_some(line)
}

/// What needs one line: a scalar, or an empty mapping or list.
fn small(text: &mut String, value: &Value) {
    match value {
        Value::String(it) => scalar_text(text, it),
        Value::Object(_) => text.push_str("{}"),
        Value::Array(_) => text.push_str("[]"),
        // Numbers, booleans and null are written as in JSON.
        other => text.push_str(&other.to_string()),
    }
}

/// A text: as it is where every reader takes it for what it is, else in double quotes.
fn scalar_text(text: &mut String, it: &str) {
    if scalar::is_safe(it) {
        text.push_str(it);
        return;
    }
    text.push('"');
    for it in it.chars() {
        match it {
            '"' => text.push_str("\\\""),
            '\\' => text.push_str("\\\\"),
            '\n' => text.push_str("\\n"),
            '\t' => text.push_str("\\t"),
            '\r' => text.push_str("\\r"),
            it if is_printable(it) => text.push(it),
            it => {
                let code = u32::from(it);
                let _ = if code <= 0xffff { write!(text, "\\u{code:04x}") } else { write!(text, "\\U{code:08x}") };
            }
        }
    }
    text.push('"');
}

/// Whether a character is shown as itself: no control, no line break of Unicode, nothing that turns the direction of writing.
fn is_printable(it: char) -> bool {
    !it.is_control()
        && !matches!(it, '\u{2028}' | '\u{2029}' | '\u{feff}' | '\u{200b}'..='\u{200f}' | '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}' | '\u{fffe}' | '\u{ffff}')
}
