//! The engine that an AI model wrote: candidates by shared trigrams, ranked by what kind of edits lead to them.
//!
//! It looks at a few dozen words where the baseline looks at a hundred thousand, knows that some slips are likelier than
//! others, and gives up where nothing looks alike.

use std::collections::HashMap;

/// Candidates that are ranked.
const CANDIDATES: usize = 96;
/// Share of trigrams (Dice's coefficient) below which a word is no candidate.
const LEAST_LIKENESS: f64 = 0.25;
/// Weighted edits, for each letter of the misspelling, beyond which there is no answer.
const MOST_EDITS_PER_LETTER: f64 = 0.4;

/// The dictionary, by trigrams.
pub struct Trigrams {
    words: Vec<String>,
    postings: HashMap<[u8; 3], Vec<u32>>,
}

/// Nothing in the dictionary looks like the misspelling.
#[derive(Debug, PartialEq, thiserror::Error)]
#[error("no candidate")]
pub struct NoCandidate;

impl Trigrams {
    /// An engine for these words.
    pub fn new(words: &[String]) -> Self {
        let mut postings: HashMap<[u8; 3], Vec<u32>> = HashMap::new();
        for (position, word) in (0..).zip(words) {
            for trigram in trigrams(word) {
                let list = postings.entry(trigram).or_default();
                if list.last() != Some(&position) {
                    list.push(position);
                }
            }
        }
        Self { words: words.to_vec(), postings }
    }

    /// The likeliest word.
    pub fn correct(&self, wrong: &str) -> Result<&str, NoCandidate> {
        let ranked = self.candidates(wrong).into_iter().map(|(likeness, word)| {
            let cost = weighted_distance(wrong.as_bytes(), word.as_bytes());
            (cost - likeness / 2.0, cost, word)
        });
        let best = ranked.min_by(|left, right| left.0.total_cmp(&right.0).then(left.2.cmp(right.2)));
        let affordable = wrong.len() as f64 * MOST_EDITS_PER_LETTER;
        best.filter(|(_, cost, _)| *cost <= affordable).map(|(.., word)| word).ok_or(NoCandidate)
    }

    fn candidates(&self, wrong: &str) -> Vec<(f64, &str)> {
        let mut shared: HashMap<u32, u32> = HashMap::new();
        let mut count = 0;
        for trigram in trigrams(wrong) {
            count += 1;
            for &position in self.postings.get(&trigram).map_or(&[][..], Vec::as_slice) {
                *shared.entry(position).or_default() += 1;
            }
        }
        let mut alike: Vec<(f64, &str)> = shared
            .into_iter()
            .map(|(position, shared)| {
                let word = self.words[position as usize].as_str();
                (2.0 * f64::from(shared) / (count + trigrams(word).count()) as f64, word)
            })
            .filter(|(likeness, _)| *likeness >= LEAST_LIKENESS)
            .collect();
        alike.sort_unstable_by(|left, right| right.0.total_cmp(&left.0).then(left.1.cmp(right.1)));
        alike.truncate(CANDIDATES);
        alike
    }
}

/// Trigrams of the word with two marks before it and one after, so that its beginning counts more than its end.
fn trigrams(word: &str) -> impl Iterator<Item = [u8; 3]> {
    let mut window = [b'^', b'^', b'^'];
    word.bytes().chain([b'$']).map(move |byte| {
        window = [window[1], window[2], byte];
        window
    })
}

fn is_vowel(byte: u8) -> bool {
    matches!(byte, b'a' | b'e' | b'i' | b'o' | b'u' | b'y')
}

/// Edits by likelihood: a letter doubled or not, a vowel for a vowel and neighbours exchanged are cheap, the first letter is
/// dear.
fn weighted_distance(wrong: &[u8], right: &[u8]) -> f64 {
    let drop_cost = |word: &[u8], at: usize| {
        let doubled = at > 0 && word[at] == word[at - 1];
        if doubled {
            0.4
        } else if is_vowel(word[at]) {
            0.8
        } else {
            1.0
        }
    };
    let mut rows = vec![vec![0.0_f64; right.len() + 1]; wrong.len() + 1];
    for j in 0..right.len() {
        rows[0][j + 1] = rows[0][j] + drop_cost(right, j);
    }
    for i in 0..wrong.len() {
        rows[i + 1][0] = rows[i][0] + drop_cost(wrong, i);
        for j in 0..right.len() {
            let (a, b) = (wrong[i], right[j]);
            let change = if a == b {
                0.0
            } else if i == 0 && j == 0 {
                1.5
            } else if is_vowel(a) && is_vowel(b) {
                0.6
            } else {
                1.0
            };
            let mut cost = (rows[i][j] + change)
                .min(rows[i][j + 1] + drop_cost(wrong, i))
                .min(rows[i + 1][j] + drop_cost(right, j));
            if i > 0 && j > 0 && a == right[j - 1] && wrong[i - 1] == b {
                cost = cost.min(rows[i - 1][j - 1] + 0.6);
            }
            rows[i + 1][j + 1] = cost;
        }
    }
    rows[wrong.len()][right.len()]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn likely_slips_cost_less() {
        let cost = |wrong: &str, right: &str| weighted_distance(wrong.as_bytes(), right.as_bytes());
        assert_eq!(cost("word", "word"), 0.0);
        assert!(cost("acheive", "achieve") < cost("acheive", "acheixe"));
        assert!(cost("comitted", "committed") < cost("comitted", "comfitted"));
        assert!(cost("seperate", "separate") < cost("seperate", "sekerate"));
    }

    #[test]
    fn words_that_look_alike_answer_and_others_are_an_error() {
        let engine = Trigrams::new(&["achieve", "active", "believe", "separate"].map(str::to_owned));
        assert_eq!(engine.correct("seperate"), Ok("separate"));
        assert_eq!(engine.correct("beleive"), Ok("believe"));
        assert_eq!(engine.correct("qqqqqq"), Err(NoCandidate));
    }
}
