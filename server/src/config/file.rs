//! The configuration file: TOML, a section per struct of [`Config`](super::Config), keys named as the flags are.

use std::any::TypeId;
use std::collections::BTreeMap;
use std::error::Error as _;
use std::ops::Range;
use std::path::{Path, PathBuf};
use std::time::Duration;

use clap::error::{ContextKind, ContextValue};
use clap::{Arg, Args, Command};
use toml::de::{DeTable, DeValue};

use super::{Config, ConfigError, SECRETS};
use crate::spelling::nearest;

/// Largest configuration file, in bytes.
pub const MAX_FILE_BYTES: u64 = 1 << 20;

/// Something in the configuration file that is not as it has to be.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{}:{line}:{column}: {what}", path.display())]
pub struct FileProblem {
    /// The file.
    pub path: PathBuf,
    /// Line, from 1.
    pub line: usize,
    /// Column in characters, from 1.
    pub column: usize,
    /// What is wrong, and what to do.
    pub what: String,
}

/// One option: what is the same of flag, variable and key.
pub(super) struct Known {
    pub(super) arg: Arg,
    pub(super) section: String,
    pub(super) key: String,
    pub(super) flag: String,
    pub(super) variable: String,
}

/// Every option of the server.
pub(super) fn known() -> Vec<Known> {
    let command = Config::augment_args(Command::new("guidon"));
    let known = command.get_arguments().filter_map(|arg| {
        let flag = arg.get_long()?.to_owned();
        let key = flag.replace('-', "_");
        let variable = format!("GUIDON_{}", key.to_uppercase());
        let section = arg.get_help_heading().unwrap_or_default().to_lowercase();
        Some(Known { arg: arg.clone(), section, key, flag, variable })
    });
    known.collect()
}

/// What a value of an option has to be.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Form {
    Text,
    Number,
    Boolean,
    List,
}

impl Form {
    fn of(arg: &Arg) -> Self {
        let parser = arg.get_value_parser().type_id();
        let numbers = [TypeId::of::<usize>(), TypeId::of::<u32>(), TypeId::of::<u64>(), TypeId::of::<Duration>()];
        if arg.get_value_delimiter().is_some() {
            Self::List
        } else if !arg.get_action().takes_values() || parser == TypeId::of::<bool>() {
            Self::Boolean
        } else if numbers.iter().any(|number| parser == *number) {
            Self::Number
        } else {
            Self::Text
        }
    }

    fn name(self) -> &'static str {
        match self {
            Self::Text => "a string",
            Self::Number => "a number",
            Self::Boolean => "true or false",
            Self::List => "a list of strings",
        }
    }
}

/// What a file says of one option.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct InFile {
    /// The values, as they would be given on the command line.
    pub(super) values: Vec<String>,
    /// Line of the key, from 1.
    pub(super) line: usize,
}

/// Reads a configuration file: by the name of each option what is said of it.
///
/// # Errors
///
/// Everything that is wrong with it.
pub(super) fn read(path: &Path) -> Result<BTreeMap<String, InFile>, Vec<ConfigError>> {
    let unreadable = |problem: String| vec![ConfigError::Unreadable { path: path.to_owned(), problem }];
    let length = std::fs::metadata(path).map_err(|error| unreadable(error.to_string()))?.len();
    if length > MAX_FILE_BYTES {
        return Err(unreadable(format!("{length} bytes; at most {MAX_FILE_BYTES} are read")));
    }
    let bytes = std::fs::read(path).map_err(|error| unreadable(error.to_string()))?;
    let text = String::from_utf8(bytes).map_err(|error| unreadable(format!("it is not UTF-8: {error}")))?;
    parse(path, &text).map_err(|problems| problems.into_iter().map(ConfigError::from).collect())
}

/// As [`read`], of the text of a file.
pub(super) fn parse(path: &Path, text: &str) -> Result<BTreeMap<String, InFile>, Vec<FileProblem>> {
    let known = known();
    let mut reading = Reading { path, text, known: &known, values: BTreeMap::new(), problems: Vec::new() };
    let (document, errors) = DeTable::parse_recoverable(text);
    for error in errors {
        reading.problem(error.span().unwrap_or_default(), error.message().trim().to_owned());
    }
    // What a broken line was meant to say is not guessed at.
    if reading.problems.is_empty() {
        reading.document(document.get_ref());
    }
    let Reading { values, mut problems, .. } = reading;
    problems.sort_by_key(|problem| (problem.line, problem.column));
    if problems.is_empty() { Ok(values) } else { Err(problems) }
}

struct Reading<'a> {
    path: &'a Path,
    text: &'a str,
    known: &'a [Known],
    values: BTreeMap<String, InFile>,
    problems: Vec<FileProblem>,
}

impl Reading<'_> {
    fn place(&self, span: &Range<usize>) -> (usize, usize) {
        let before = self.text.get(..span.start).unwrap_or(self.text);
        let line_start = before.rfind('\n').map_or(0, |at| at + 1);
        (before.matches('\n').count() + 1, before[line_start..].chars().count() + 1)
    }

    fn problem(&mut self, span: Range<usize>, what: String) {
        let (line, column) = self.place(&span);
        self.problems.push(FileProblem { path: self.path.to_owned(), line, column, what });
    }

    fn document(&mut self, document: &DeTable<'_>) {
        let mut sections: Vec<&str> = self.known.iter().map(|known| &*known.section).collect();
        sections.dedup();
        for (name, value) in document {
            let section = name.get_ref();
            match value.get_ref() {
                DeValue::Table(table) if sections.contains(&&**section) => self.section(section, table),
                DeValue::Table(_) => {
                    let hint = nearest(section, &sections);
                    let hint = hint.map_or_else(
                        || format!("; the sections are {}", sections.join(", ")),
                        |near| format!("; did you mean [{near}]?"),
                    );
                    self.problem(name.span(), format!("there is no section [{section}]{hint}"));
                }
                _ => {
                    let place = self.known.iter().find(|known| known.key == **section);
                    let what = place.map_or_else(
                        || format!("{section:?} stands outside of a section, and no section has it"),
                        |known| format!("{section} belongs below [{}]", known.section),
                    );
                    self.problem(name.span(), what);
                }
            }
        }
    }

    fn section(&mut self, section: &str, table: &DeTable<'_>) {
        for (name, value) in table {
            let key = &**name.get_ref();
            match self.known.iter().find(|known| known.key == key) {
                Some(known) if known.section == section => {
                    let values = self.values_of(known, value.get_ref());
                    match values {
                        Ok(values) => {
                            let (line, _) = self.place(&name.span());
                            self.values.insert(known.key.clone(), InFile { values, line });
                        }
                        Err(what) => self.problem(value.span(), format!("{key}: {what}")),
                    }
                }
                Some(known) => self.problem(name.span(), format!("{key} belongs below [{}]", known.section)),
                None => self.problem(name.span(), self.unknown(section, key)),
            }
        }
    }

    fn unknown(&self, section: &str, key: &str) -> String {
        if let Some(secret) = SECRETS.iter().find(|secret| secret.key == key) {
            return format!(
                "{key} is a secret, which the configuration file must not hold; give {key}_file below [{}] with the path \
                 of a file that holds it, or set {}",
                secret.section, secret.variable
            );
        }
        let keys = |of: &dyn Fn(&Known) -> bool| -> Vec<&str> {
            self.known.iter().filter(|known| of(known)).map(|known| &*known.key).collect()
        };
        let near = nearest(key, &keys(&|known| known.section == section)).or_else(|| nearest(key, &keys(&|_| true)));
        let hint = near.and_then(|near| self.known.iter().find(|known| known.key == near));
        match hint {
            Some(known) if known.section == section => format!("there is no {key}; did you mean {}?", known.key),
            Some(known) => format!("there is no {key}; did you mean {} below [{}]?", known.key, known.section),
            None => format!("there is no {key}; `guidon config show` lists the names"),
        }
    }

    /// The values as the command line would give them, each of which is one that the option takes.
    fn values_of(&self, known: &Known, value: &DeValue<'_>) -> Result<Vec<String>, String> {
        let form = Form::of(&known.arg);
        let expected = || format!("expected {}, found {}", form.name(), found(value));
        let values = match (form, value) {
            (Form::List, DeValue::Array(items)) => {
                let texts = items.iter().map(|item| match item.get_ref() {
                    DeValue::String(text) if known.arg.get_value_delimiter().is_some_and(|one| text.contains(one)) => {
                        let between = if known.arg.get_value_delimiter() == Some(',') { "comma" } else { "line break" };
                        Err(format!("{text:?} holds a {between}: give each part as an item of its own"))
                    }
                    DeValue::String(text) => Ok(text.to_string()),
                    other => Err(format!("expected a list of strings, found {} in it", found(other))),
                });
                texts.collect::<Result<Vec<_>, _>>()?
            }
            (Form::Text, DeValue::String(text)) => vec![text.to_string()],
            (Form::Number, DeValue::Integer(number)) => {
                let value = i64::from_str_radix(number.as_str(), number.radix());
                vec![value.map_err(|error| format!("{}: {error}", number.as_str()))?.to_string()]
            }
            (Form::Number, DeValue::Float(number)) => vec![number.as_str().to_owned()],
            (Form::Boolean, DeValue::Boolean(value)) => vec![value.to_string()],
            _ => return Err(expected()),
        };
        for value in &values {
            accepts(known, value)?;
        }
        Ok(values)
    }
}

fn found(value: &DeValue<'_>) -> &'static str {
    match value {
        DeValue::String(_) => "a string",
        DeValue::Integer(_) => "a whole number",
        DeValue::Float(_) => "a number with a fraction",
        DeValue::Boolean(_) => "true or false",
        DeValue::Datetime(_) => "a date",
        DeValue::Array(_) => "a list",
        DeValue::Table(_) => "a table",
    }
}

/// Whether the option takes a value, and why not.
fn accepts(known: &Known, value: &str) -> Result<(), String> {
    if !known.arg.get_action().takes_values() {
        return Ok(());
    }
    let arg = known.arg.clone().env(None).required(false);
    let command = Command::new("guidon").no_binary_name(true).arg(arg);
    let Err(error) = command.try_get_matches_from([format!("--{}={value}", known.flag)]) else { return Ok(()) };
    let reason = match (error.source(), error.get(ContextKind::ValidValue)) {
        (_, Some(ContextValue::Strings(valid))) if !valid.is_empty() => format!("expected one of {}", valid.join(", ")),
        (Some(reason), _) => reason.to_string(),
        _ => "the option does not take it".to_owned(),
    };
    Err(format!("{value:?} is refused: {reason}"))
}

#[cfg(test)]
#[path = "file_tests.rs"]
mod tests;
