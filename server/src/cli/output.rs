//! What the commands print: tables for people, JSON for scripts.

use std::borrow::Cow;
use std::io::{self, IsTerminal, Write};

use comfy_table::{ContentArrangement, Table, presets};
use serde::Serialize;

use super::CliError;

/// Width of a terminal that does not say.
const DEFAULT_COLUMNS: usize = 80;

/// Where a command prints, and in which form.
pub struct Output {
    json: bool,
    stdout: io::Stdout,
}

impl Output {
    /// Prints JSON if `json`, else tables and sentences.
    #[must_use]
    pub fn new(json: bool) -> Self {
        Self { json, stdout: io::stdout() }
    }

    /// Whether scripts read this.
    #[must_use]
    pub fn is_json(&self) -> bool {
        self.json
    }

    /// Whether a person watches standard error, where progress is shown.
    #[must_use]
    pub fn shows_progress(&self) -> bool {
        !self.json && io::stderr().is_terminal()
    }

    /// One line; for people, without what would steer their terminal.
    pub fn line(&self, text: impl AsRef<str>) -> Result<(), CliError> {
        let text = if self.json { Cow::Borrowed(text.as_ref()) } else { harmless(text.as_ref(), '\n') };
        let mut stdout = self.stdout.lock();
        writeln!(stdout, "{text}").and_then(|()| stdout.flush()).map_err(CliError::from)
    }

    /// One line in a colour of the terminal's, if there is one that shows colours and `NO_COLOR` does not forbid it.
    pub fn coloured(&self, colour: Colour, text: impl AsRef<str>) -> Result<(), CliError> {
        let forbidden = std::env::var_os("NO_COLOR").is_some_and(|value| !value.is_empty());
        if self.json || forbidden || !self.stdout.is_terminal() {
            return self.line(text);
        }
        let text = harmless(text.as_ref(), '\n');
        let mut stdout = self.stdout.lock();
        writeln!(stdout, "\u{1b}[{}m{text}\u{1b}[0m", colour.code())
            .and_then(|()| stdout.flush())
            .map_err(CliError::from)
    }

    /// Whether a person watches standard output, so that what was shown can be shown anew in its place.
    #[must_use]
    pub fn is_watched(&self) -> bool {
        !self.json && self.stdout.is_terminal()
    }

    /// Lines in the place of the last `before` ones, cut to the terminal's width so that each stays one.
    pub fn redraw(&self, before: usize, lines: &[String]) -> Result<(), CliError> {
        let columns = rustix::termios::tcgetwinsize(&self.stdout).map_or(0, |size| usize::from(size.ws_col));
        let columns = if columns == 0 { DEFAULT_COLUMNS } else { columns };
        let mut stdout = self.stdout.lock();
        let up = if before == 0 { String::new() } else { format!("\u{1b}[{before}A") };
        write!(stdout, "{up}\u{1b}[J")?;
        for line in lines {
            let line: String = harmless(line, ' ').chars().take(columns).collect();
            writeln!(stdout, "{line}")?;
        }
        Ok(stdout.flush()?)
    }

    /// One JSON document: indented for a terminal, on one line for a pipe.
    pub fn document(&self, value: &impl Serialize) -> Result<(), CliError> {
        let text =
            if self.stdout.is_terminal() { serde_json::to_string_pretty(value) } else { serde_json::to_string(value) };
        self.line(text.map_err(|error| CliError::Unexpected(error.to_string()))?)
    }

    /// The document for scripts, or whatever `people` prints for people.
    pub fn either(
        &self,
        value: &impl Serialize,
        people: impl FnOnce(&Self) -> Result<(), CliError>,
    ) -> Result<(), CliError> {
        if self.json { self.document(value) } else { people(self) }
    }

    /// A table, or `empty` where there are no rows.
    pub fn table(&self, headers: &[&str], rows: Vec<Vec<String>>, empty: &str) -> Result<(), CliError> {
        if rows.is_empty() {
            return self.line(empty);
        }
        let mut table = Table::new();
        table.load_style(presets::NOTHING).set_content_arrangement(ContentArrangement::Dynamic);
        if !self.stdout.is_terminal() {
            table.set_content_arrangement(ContentArrangement::Disabled);
        }
        table.set_header(headers.iter().map(|header| header.to_uppercase()).collect::<Vec<_>>());
        for row in rows {
            // A cell with line breaks could pass for further rows.
            table.add_row(row.iter().map(|cell| harmless(cell, ' ').into_owned()));
        }
        self.line(table.trim_fmt())
    }
}

/// A colour of the terminal's.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Colour {
    /// What comes.
    Green,
    /// What changes.
    Yellow,
    /// What goes.
    Red,
}

impl Colour {
    fn code(self) -> u8 {
        match self {
            Self::Green => 32,
            Self::Yellow => 33,
            Self::Red => 31,
        }
    }
}

/// The text with control characters and changes of writing direction spelled out, `kept` excepted: comments and names come
/// from other people, and could otherwise rewrite what a terminal shows.
#[must_use]
pub fn harmless(text: &str, kept: char) -> Cow<'_, str> {
    let steers =
        |it: char| it != kept && (it.is_control() || matches!(it, '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}'));
    if !text.contains(steers) {
        return Cow::Borrowed(text);
    }
    let mut shown = String::with_capacity(text.len());
    for it in text.chars() {
        if steers(it) {
            shown.extend(it.escape_default());
        } else {
            shown.push(it);
        }
    }
    Cow::Owned(shown)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn other_peoples_text_cannot_steer_the_terminal() {
        assert_eq!(harmless("first canary, größer", ' '), "first canary, größer");
        assert_eq!(harmless("\u{1b}[31mred\r\n\u{7}\u{202e}", ' '), "\\u{1b}[31mred\\r\\n\\u{7}\\u{202e}");
        assert_eq!(harmless("two\nlines\u{9b}2J", '\n'), "two\nlines\\u{9b}2J");
    }
}
