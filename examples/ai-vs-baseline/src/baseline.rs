//! The baseline, as people have written it for decades: the dictionary's word with the fewest edits.
//!
//! Optimal string alignment distance (Damerau, "A technique for computer detection and correction of spelling errors", 1964):
//! insertions, deletions, substitutions and transpositions of neighbours, each counting one, up to two of them.

/// Most edits between a misspelling and its correction.
const MAX_EDITS: usize = 2;

/// The dictionary, by length.
pub struct EditDistance {
    by_length: Vec<Vec<String>>,
}

impl EditDistance {
    /// An engine for these words.
    pub fn new(words: &[String]) -> Self {
        let longest = words.iter().map(String::len).max().unwrap_or_default();
        let mut by_length = vec![Vec::new(); longest + 1];
        for word in words {
            by_length[word.len()].push(word.clone());
        }
        Self { by_length }
    }

    /// The word with the fewest edits; of several the one with the same first letter, then the nearest in length, then the
    /// first in the alphabet. `None` if all need more than two.
    pub fn correct(&self, wrong: &str) -> Option<&str> {
        let lengths = wrong.len().saturating_sub(MAX_EDITS)..=wrong.len() + MAX_EDITS;
        let words = lengths.filter_map(|length| self.by_length.get(length)).flatten();
        let mut best: Option<((usize, bool, usize), &str)> = None;
        for word in words {
            let limit = best.map_or(MAX_EDITS, |((edits, ..), _)| edits);
            let Some(edits) = distance(wrong.as_bytes(), word.as_bytes(), limit) else { continue };
            let other_start = word.as_bytes().first() != wrong.as_bytes().first();
            let rank = (edits, other_start, word.len().abs_diff(wrong.len()));
            if best.is_none_or(|known| (rank, word.as_str()) < known) {
                best = Some((rank, word));
            }
        }
        best.map(|(_, word)| word)
    }
}

/// The optimal string alignment distance, or `None` if it is over `limit`.
fn distance(left: &[u8], right: &[u8], limit: usize) -> Option<usize> {
    if left.len().abs_diff(right.len()) > limit {
        return None;
    }
    let mut before = vec![0; right.len() + 1];
    let mut last: Vec<usize> = (0..=right.len()).collect();
    let mut row = last.clone();
    for (i, &a) in left.iter().enumerate() {
        row[0] = i + 1;
        for (j, &b) in right.iter().enumerate() {
            let mut cost = (last[j] + usize::from(a != b)).min(last[j + 1] + 1).min(row[j] + 1);
            if i > 0 && j > 0 && a == right[j - 1] && left[i - 1] == b {
                cost = cost.min(before[j - 1] + 1);
            }
            row[j + 1] = cost;
        }
        if row.iter().all(|&cost| cost > limit) {
            return None;
        }
        std::mem::swap(&mut before, &mut last);
        std::mem::swap(&mut last, &mut row);
    }
    Some(last[right.len()]).filter(|&edits| edits <= limit)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn distances_are_those_of_the_definition() {
        for (left, right, edits) in
            [("", "ab", 2), ("abc", "abc", 0), ("acheive", "achieve", 1), ("ca", "abc", 3), ("kitten", "sitting", 3)]
        {
            assert_eq!(distance(left.as_bytes(), right.as_bytes(), 9), Some(edits), "{left} {right}");
            assert_eq!(distance(right.as_bytes(), left.as_bytes(), edits), Some(edits));
            assert_eq!(edits.checked_sub(1).and_then(|limit| distance(left.as_bytes(), right.as_bytes(), limit)), None);
        }
    }

    #[test]
    fn the_nearest_word_answers() {
        let words = ["achieve", "active", "believe"].map(str::to_owned);
        let engine = EditDistance::new(&words);
        assert_eq!(engine.correct("acheive"), Some("achieve"));
        assert_eq!(engine.correct("beleive"), Some("believe"));
        assert_eq!(engine.correct("zzzzzzz"), None);
    }
}
