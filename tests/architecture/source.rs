//! Reads Rust source far enough to say which paths it names: without comments, literals and unit tests, with `use` groups
//! expanded and `self`, `super` and `crate` resolved.

use std::path::Path;

/// A path that a source file names, as in `["crate", "journal", "Journal"]`; a keyword or a plain name is a path of one.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Named {
    pub(super) line: usize,
    pub(super) segments: Vec<String>,
}

/// Every path named in `text`, the source of the file at `path` (relative to the repository, as `server/src/flags/apply.rs`).
pub(super) fn named_paths(path: &str, text: &str) -> Vec<Named> {
    let module = module_of(path);
    let code = without_unit_tests(&without_comments_and_literals(text));
    let tokens = tokens(&code);
    let mut named = Vec::new();
    let mut position = 0;
    while position < tokens.len() {
        if tokens[position].text == "use" {
            let end =
                tokens[position..].iter().position(|token| token.text == ";").map_or(tokens.len(), |at| position + at);
            expand_group(&tokens[position + 1..end], &[], &mut named);
            position = end;
        } else {
            position = read_path(&tokens, position, &mut named);
        }
    }
    for path in &mut named {
        resolve(&module, &mut path.segments);
    }
    named
}

/// Source with every comment, string and character literal replaced by spaces; lines stay where they were.
fn without_comments_and_literals(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    let mut rest = text;
    while let Some(first) = rest.chars().next() {
        let after_name = out.chars().next_back().is_some_and(is_name);
        let skipped = skip_length(rest, after_name);
        if skipped == 0 {
            out.push(first);
            rest = &rest[first.len_utf8()..];
        } else {
            out.extend(rest[..skipped].chars().map(|character| if character == '\n' { '\n' } else { ' ' }));
            rest = &rest[skipped..];
        }
    }
    out
}

/// Length of the comment or literal that `rest` begins with; 0 if it begins with neither.
fn skip_length(rest: &str, after_name: bool) -> usize {
    if rest.starts_with("//") {
        return rest.find('\n').unwrap_or(rest.len());
    }
    if rest.starts_with("/*") {
        return block_comment_length(rest);
    }
    if rest.starts_with('"') {
        return quoted_length(rest, '"');
    }
    if rest.starts_with('\'') {
        return character_length(rest);
    }
    let raw = rest.trim_start_matches(['b', 'c']).strip_prefix('r').filter(|_| !after_name);
    let hashes = raw.map_or(0, |raw| raw.chars().take_while(|&character| character == '#').count());
    match raw.and_then(|raw| raw[hashes..].strip_prefix('"')) {
        Some(body) => {
            let start = rest.len() - body.len();
            let close = format!("\"{}", "#".repeat(hashes));
            body.find(&close).map_or(rest.len(), |at| start + at + close.len())
        }
        None => 0,
    }
}

fn block_comment_length(rest: &str) -> usize {
    let mut depth = 0_usize;
    for (at, _) in rest.char_indices() {
        if rest[at..].starts_with("/*") {
            depth += 1;
        } else if rest[at..].starts_with("*/") {
            depth -= 1;
            if depth == 0 {
                return at + 2;
            }
        }
    }
    rest.len()
}

fn quoted_length(rest: &str, quote: char) -> usize {
    let mut escaped = false;
    for (at, character) in rest.char_indices().skip(1) {
        if !escaped && character == quote {
            return at + 1;
        }
        escaped = !escaped && character == '\\';
    }
    rest.len()
}

/// Length of a character literal; 0 for a lifetime.
fn character_length(rest: &str) -> usize {
    let mut characters = rest.char_indices().skip(1);
    match (characters.next(), characters.next()) {
        (Some((_, '\\')), _) | (Some(_), Some((_, '\''))) => quoted_length(rest, '\''),
        _ => 0,
    }
}

/// Source without the items under `#[cfg(test)]`: doubles and fixtures may do what the product may not.
fn without_unit_tests(code: &str) -> String {
    const ATTRIBUTE: &str = "#[cfg(test)]";
    let mut out = String::with_capacity(code.len());
    let mut rest = code;
    while let Some(at) = rest.find(ATTRIBUTE) {
        let (before, item) = rest.split_at(at);
        out.push_str(before);
        let length = ATTRIBUTE.len() + item_length(&item[ATTRIBUTE.len()..]);
        out.extend(item[..length].chars().filter(|&character| character == '\n'));
        rest = &item[length..];
    }
    out.push_str(rest);
    out
}

/// Length of the item `code` begins with: to its `;`, or to the brace that closes its first one.
fn item_length(code: &str) -> usize {
    let mut depth = 0_usize;
    for (at, character) in code.char_indices() {
        match character {
            ';' if depth == 0 => return at + 1,
            '{' => depth += 1,
            '}' => {
                depth = depth.saturating_sub(1);
                if depth == 0 {
                    return at + 1;
                }
            }
            _ => {}
        }
    }
    code.len()
}

struct Token<'a> {
    line: usize,
    text: &'a str,
}

/// Names, `::`, and other characters one by one.
fn tokens(code: &str) -> Vec<Token<'_>> {
    let mut tokens = Vec::new();
    let (mut line, mut rest) = (1, code);
    while let Some(first) = rest.chars().next() {
        let length = match first {
            ':' if rest.starts_with("::") => 2,
            _ if is_name(first) => rest.find(|character| !is_name(character)).unwrap_or(rest.len()),
            _ => first.len_utf8(),
        };
        if !first.is_whitespace() {
            tokens.push(Token { line, text: &rest[..length] });
        }
        line += usize::from(first == '\n');
        rest = &rest[length..];
    }
    tokens
}

fn is_name(character: char) -> bool {
    character.is_alphanumeric() || character == '_'
}

/// Reads the path that starts at `position`, if one does, and returns the position after it.
fn read_path(tokens: &[Token<'_>], mut position: usize, named: &mut Vec<Named>) -> usize {
    let is_name_at = |at: usize| tokens.get(at).is_some_and(|token| token.text.starts_with(is_name));
    if !is_name_at(position) {
        return position + 1;
    }
    let line = tokens[position].line;
    let mut segments = vec![tokens[position].text.to_owned()];
    position += 1;
    while tokens.get(position).is_some_and(|token| token.text == "::") && is_name_at(position + 1) {
        segments.push(tokens[position + 1].text.to_owned());
        position += 2;
    }
    named.push(Named { line, segments });
    position
}

/// Expands `a::{b, c::{d, e}}` into its paths, each under `prefix`.
fn expand_group(tokens: &[Token<'_>], prefix: &[String], named: &mut Vec<Named>) {
    let mut segments = prefix.to_vec();
    let (mut line, mut position) = (0, 0);
    while position < tokens.len() {
        match tokens[position].text {
            "::" => {}
            "as" => position += 1,
            "{" => {
                let end = position + closing_brace(&tokens[position..]);
                for item in split_at_commas(&tokens[position + 1..end]) {
                    expand_group(item, &segments, named);
                }
                return;
            }
            name => {
                line = tokens[position].line;
                segments.push(name.to_owned());
            }
        }
        position += 1;
    }
    if segments.len() > prefix.len() {
        named.push(Named { line, segments });
    }
}

fn closing_brace(tokens: &[Token<'_>]) -> usize {
    let mut depth = 0_usize;
    for (at, token) in tokens.iter().enumerate() {
        match token.text {
            "{" => depth += 1,
            "}" if depth == 1 => return at,
            "}" => depth -= 1,
            _ => {}
        }
    }
    tokens.len()
}

fn split_at_commas<'a, 'b>(tokens: &'a [Token<'b>]) -> Vec<&'a [Token<'b>]> {
    let mut depth = 0_usize;
    tokens
        .split(|token| {
            match token.text {
                "{" => depth += 1,
                "}" => depth -= 1,
                _ => {}
            }
            depth == 0 && token.text == ","
        })
        .collect()
}

/// The module a file holds, as `["crate", "flags", "apply"]`.
fn module_of(path: &str) -> Vec<String> {
    let inside = path.split_once("src/").map_or(path, |(_, inside)| inside);
    let mut module = vec!["crate".to_owned()];
    module.extend(Path::new(inside).with_extension("").iter().map(|name| name.to_string_lossy().into_owned()));
    if matches!(module.last().map(String::as_str), Some("mod" | "lib" | "main")) {
        module.pop();
    }
    module
}

/// Replaces leading `self` and `super` by the module they stand for.
fn resolve(module: &[String], segments: &mut Vec<String>) {
    let supers = segments.iter().take_while(|segment| *segment == "super").count();
    let own = usize::from(segments.len() > 1 && segments[0] == "self");
    if supers + own > 0 {
        let kept = &module[..module.len().saturating_sub(supers)];
        segments.splice(..supers + own, kept.iter().cloned());
    }
}
