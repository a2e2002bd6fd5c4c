//! What a word without quotes means.

use serde_json::{Number, Value};

/// Largest integer, and its negative the smallest: those that every reader of JSON keeps as they are.
const MAX_INTEGER: u64 = 1 << 53;

/// The value of a word without quotes, or why it is refused and what to write in its stead.
///
/// Booleans are `true` and `false`, nothing is `null`, `~` or empty, numbers are as in JSON. `yes`, `no`, `on` and `off` are
/// texts, as YAML 1.2 has it. What YAML 1.2 reads as something else than the text it looks like (`True`, `0x1F`, `017`, `.5`) is
/// refused.
pub fn plain(word: &str) -> Result<Value, String> {
    match word {
        "" | "~" | "null" => return Ok(Value::Null),
        "true" => return Ok(Value::Bool(true)),
        "false" => return Ok(Value::Bool(false)),
        "True" | "TRUE" | "False" | "FALSE" | "Null" | "NULL" => {
            let lower = word.to_ascii_lowercase();
            return Err(format!("`{word}` is read in different ways; write {lower}, or \"{word}\" if a text is meant"));
        }
        _ => {}
    }
    let unsigned = word.strip_prefix(['-', '+']).unwrap_or(word);
    if [".inf", ".Inf", ".INF", ".nan", ".NaN", ".NAN"].contains(&unsigned) {
        return Err(format!("`{word}` is not a number that a flag can serve; put it in quotes if a text is meant"));
    }
    if is_json_number(word) {
        return number(word);
    }
    if is_number(unsigned) {
        return Err(format!(
            "`{word}` is read in different ways; write a decimal number as in 31, 0.5 or 1e9, or \"{word}\" if a text is meant"
        ));
    }
    Ok(Value::String(word.to_owned()))
}

fn number(word: &str) -> Result<Value, String> {
    let too_large = || {
        format!(
            "{word} is beyond what every reader keeps exactly (2^53); put it in quotes if its digits are meant as a text"
        )
    };
    if word.bytes().all(|byte| byte.is_ascii_digit() || byte == b'-') {
        let value = word.parse::<i64>().ok().filter(|value| value.unsigned_abs() <= MAX_INTEGER);
        return value.map(Value::from).ok_or_else(too_large);
    }
    let value = word.parse::<f64>().ok().and_then(Number::from_f64);
    value.map(Value::Number).ok_or_else(too_large)
}

/// Whether `word` is a number as JSON writes it.
fn is_json_number(word: &str) -> bool {
    let word = word.strip_prefix('-').unwrap_or(word);
    let (mantissa, exponent) = match word.split_once(['e', 'E']) {
        Some((mantissa, exponent)) => (mantissa, Some(exponent)),
        None => (word, None),
    };
    let (whole, fraction) = match mantissa.split_once('.') {
        Some((whole, fraction)) => (whole, Some(fraction)),
        None => (mantissa, None),
    };
    is_digits(whole)
        && (whole == "0" || !whole.starts_with('0'))
        && fraction.is_none_or(is_digits)
        && exponent.is_none_or(|exponent| is_digits(exponent.strip_prefix(['+', '-']).unwrap_or(exponent)))
}

/// Whether YAML reads `word`, which has no sign, as a number.
fn is_number(word: &str) -> bool {
    if let Some(digits) = word.strip_prefix("0x") {
        return !digits.is_empty() && digits.bytes().all(|byte| byte.is_ascii_hexdigit());
    }
    if let Some(digits) = word.strip_prefix("0o") {
        return !digits.is_empty() && digits.bytes().all(|byte| (b'0'..=b'7').contains(&byte));
    }
    let (mantissa, exponent) = match word.split_once(['e', 'E']) {
        Some((mantissa, exponent)) => (mantissa, Some(exponent)),
        None => (word, None),
    };
    let digits = mantissa.replacen('.', "", 1);
    is_digits(&digits)
        && exponent.is_none_or(|exponent| is_digits(exponent.strip_prefix(['+', '-']).unwrap_or(exponent)))
}

fn is_digits(text: &str) -> bool {
    !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit())
}

/// Whether `text`, without quotes, would be read as itself by this reader and by those of YAML 1.1.
#[must_use]
pub fn is_safe(text: &str) -> bool {
    const OTHERWISE: [&str; 9] = ["true", "false", "null", "yes", "no", "on", "off", "y", "n"];
    let mut bytes = text.bytes();
    bytes.next().is_some_and(|first| first.is_ascii_alphabetic())
        && bytes.all(|byte| {
            byte.is_ascii_alphanumeric() || matches!(byte, b'.' | b'_' | b'-' | b'/' | b' ' | b'+' | b'(' | b')')
        })
        && !text.ends_with(' ')
        && !OTHERWISE.contains(&text.to_ascii_lowercase().as_str())
}
