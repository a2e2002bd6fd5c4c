//! Words that were meant.

/// The known word that is most like `word`, if any is like it.
#[must_use]
pub fn nearest<'a>(word: &str, known: &[&'a str]) -> Option<&'a str> {
    let (score, near) = known
        .iter()
        .map(|candidate| (strsim::jaro_winkler(word, candidate), *candidate))
        .max_by(|left, right| left.0.total_cmp(&right.0))?;
    (score > 0.8).then_some(near)
}

/// What to add to a message about `word`: the known word that was probably meant, or nothing.
#[must_use]
pub fn hint(word: &str, known: &[&str]) -> String {
    nearest(word, known).map_or_else(String::new, |near| format!("; did you mean {near:?}?"))
}
