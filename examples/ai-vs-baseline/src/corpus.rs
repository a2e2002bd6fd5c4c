//! The input: misspellings that people made, with what they meant, and a dictionary of English.
//!
//! Debian's package `codespell` carries the misspellings, collected from source code (`wrong->right` or
//! `wrong->right, other right,` a line); `wamerican` carries the dictionary, a word a line.

use std::collections::HashSet;
use std::fs;
use std::path::{Path, PathBuf};

/// Where Debian's package `codespell` puts its list.
pub const MISSPELLINGS: &str = "/usr/lib/python3/dist-packages/codespell_lib/data/dictionary.txt";
/// Where Debian's package `wamerican` puts its list.
pub const DICTIONARY: &str = "/usr/share/dict/american-english";

/// A misspelling, and every word it may stand for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Misspelling {
    /// What was written.
    pub wrong: String,
    /// What may have been meant, at least one.
    pub right: Vec<String>,
}

/// The input could not be read.
#[derive(Debug, thiserror::Error)]
#[error("{path} cannot be read ({error}): install the Debian package `{package}`, or name another file with {option}")]
pub struct Unreadable {
    path: PathBuf,
    error: std::io::Error,
    package: &'static str,
    option: &'static str,
}

/// The dictionary's words in lower case, without those that are not plain letters.
pub fn dictionary(path: &Path) -> Result<Vec<String>, Unreadable> {
    let text = read(path, "wamerican", "--dictionary")?;
    let mut words: Vec<String> = text.lines().filter(|word| is_plain(word)).map(str::to_lowercase).collect();
    words.sort_unstable();
    words.dedup();
    Ok(words)
}

/// The misspellings that somebody who knows just `dictionary` can correct, and how many others were left out: those that are
/// words themselves, or stand for something the dictionary does not have.
pub fn misspellings(path: &Path, dictionary: &[String]) -> Result<(Vec<Misspelling>, usize), Unreadable> {
    let text = read(path, "codespell", "--misspellings")?;
    let known: HashSet<&str> = dictionary.iter().map(String::as_str).collect();
    let all: Vec<Misspelling> = text.lines().filter_map(parse).collect();
    let count = all.len();
    let fit = |entry: &Misspelling| {
        is_plain(&entry.wrong)
            && !known.contains(entry.wrong.as_str())
            && entry.right.iter().any(|word| known.contains(word.as_str()))
    };
    let fitting: Vec<Misspelling> = all.into_iter().filter(fit).collect();
    let left_out = count - fitting.len();
    Ok((fitting, left_out))
}

fn read(path: &Path, package: &'static str, option: &'static str) -> Result<String, Unreadable> {
    fs::read_to_string(path).map_err(|error| Unreadable { path: path.to_owned(), error, package, option })
}

fn is_plain(word: &str) -> bool {
    word.len() > 2 && word.bytes().all(|byte| byte.is_ascii_alphabetic())
}

fn parse(line: &str) -> Option<Misspelling> {
    let (wrong, right) = line.split_once("->")?;
    // A line may end in a remark: `wrong->right, other, why not to trust this`; remarks have spaces.
    let right: Vec<String> =
        right.split(',').map(str::trim).filter(|word| is_plain(word)).map(str::to_lowercase).collect();
    (!right.is_empty()).then(|| Misspelling { wrong: wrong.trim().to_lowercase(), right })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_are_read_with_all_that_may_be_meant() {
        let entry = parse("ablet->able, tablet, disabled because too short").unwrap();
        assert_eq!((entry.wrong.as_str(), entry.right), ("ablet", vec!["able".to_owned(), "tablet".to_owned()]));
        assert_eq!(parse("alot->a lot"), None);
        assert_eq!(parse("# a remark"), None);
    }
}
