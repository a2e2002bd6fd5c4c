//! Reading the assignment log back.

use std::str::FromStr;

use serde::{Serialize, Serializer};

use super::{Assignment, AssignmentLog, Origin};

/// Most assignments of one page.
pub const MAX_PAGE_ITEMS: usize = 1_000;
/// Most pages that [`lines_of_flag`] reads.
const MAX_PAGES: usize = 20;

/// Which assignments to read.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Query {
    /// The environment.
    pub origin: Origin,
    /// Only those of this flag.
    pub flag: Option<String>,
    /// Only those the server received at or after this time, in milliseconds since 1970.
    pub from: Option<u64>,
    /// Only those the server received before this time, in milliseconds since 1970.
    pub to: Option<u64>,
    /// Only those after this one.
    pub after: Option<Cursor>,
    /// Most assignments to answer, at most [`MAX_PAGE_ITEMS`].
    pub limit: usize,
}

/// A place in the log, opaque to callers: after the item `index` of the record `seq`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Cursor {
    pub(crate) seq: u64,
    pub(crate) index: u32,
}

impl std::fmt::Display for Cursor {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(formatter, "{}.{}", self.seq, self.index)
    }
}

impl FromStr for Cursor {
    type Err = MalformedCursor;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let (seq, index) = text.split_once('.').ok_or(MalformedCursor)?;
        let number = |digits: &str| digits.bytes().all(|byte| byte.is_ascii_digit());
        if !number(seq) || !number(index) {
            return Err(MalformedCursor);
        }
        Ok(Self { seq: seq.parse().map_err(|_| MalformedCursor)?, index: index.parse().map_err(|_| MalformedCursor)? })
    }
}

impl Serialize for Cursor {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

/// A text is no cursor.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("not a cursor: use the `cursor` of a line that was answered, as it stands")]
pub struct MalformedCursor;

/// A stored assignment and where it came from.
#[derive(Clone, Debug, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Line {
    /// What was served.
    #[serde(flatten)]
    pub assignment: Assignment,
    /// The SDK instance.
    pub instance: String,
    /// When the server received it, in milliseconds since 1970.
    pub received: u64,
    /// Go on after this line by asking for what is after this.
    pub cursor: Cursor,
}

/// A part of an answer.
#[derive(Clone, Debug, PartialEq)]
pub struct Page {
    /// The assignments, in the order they were stored.
    pub lines: Vec<Line>,
    /// Where the next page begins; `None` at the end of what is stored.
    pub next: Option<Cursor>,
}

/// What the log has of a flag in an environment since `from`, in milliseconds since 1970: the first 20,000 lines of it. Blocks on
/// the disk.
///
/// # Errors
///
/// As [`AssignmentLog::read`].
pub fn lines_of_flag(log: &dyn AssignmentLog, origin: Origin, flag: &str, from: u64) -> Result<Vec<Line>, QueryError> {
    let mut query =
        Query { origin, flag: Some(flag.to_owned()), from: Some(from), to: None, after: None, limit: MAX_PAGE_ITEMS };
    let mut lines = Vec::new();
    for _ in 0..MAX_PAGES {
        let page = log.read(&query)?;
        lines.extend(page.lines);
        match page.next {
            Some(next) => query.after = Some(next),
            None => break,
        }
    }
    Ok(lines)
}

/// Why the log cannot be read back.
#[derive(Debug, thiserror::Error)]
pub enum QueryError {
    /// What is there is not what was written.
    #[error(transparent)]
    Read(#[from] crate::log::ReadError),
    /// A sound record says what no record says.
    #[error("record {seq} of the assignment log {problem}")]
    BadRecord {
        /// The record.
        seq: u64,
        /// What is wrong with it.
        problem: String,
    },
    /// The thread that read ended before it was done.
    #[error("reading the assignment log was interrupted")]
    Interrupted,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn cursors_survive_their_text_and_other_texts_are_refused() {
        let cursor = Cursor { seq: 17, index: 3 };
        assert_eq!(cursor.to_string().parse(), Ok(cursor));
        for text in ["", "17", ".", "17.", "+1.2", "1.-2", "99999999999999999999.1", "1.2.3"] {
            assert!(text.parse::<Cursor>().is_err(), "{text}");
        }
        assert!(Cursor { seq: 9, index: 900 } < Cursor { seq: 10, index: 0 });
    }
}
