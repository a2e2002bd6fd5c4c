//! Semantic versions (SemVer 2.0.0), as the `semver…` operators read them.
//!
//! Lenient in two ways: a leading `v` or `V` is skipped, and a missing minor or patch number is 0 (`v2`, `2.4`, `2.4-beta`).
//! Everything else is the specification: no leading zeros, numbers up to 2⁶⁴-1, build metadata well-formed and ignored.

use std::cmp::Ordering;

/// A version: its numbers, and its pre-release identifiers as text.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Version<'a> {
    pub(crate) numbers: [u64; 3],
    /// Empty for a release.
    pub(crate) pre_release: &'a str,
}

impl<'a> Version<'a> {
    /// Reads a version; `None` if `text` is not one.
    #[inline]
    pub(crate) fn parse(text: &'a str) -> Option<Self> {
        let text = text.strip_prefix(['v', 'V']).unwrap_or(text);
        let mut numbers = [0; 3];
        let mut rest = text.as_bytes();
        let mut parts = numbers.iter_mut();
        loop {
            let number = parts.next()?;
            (*number, rest) = number_prefix(rest)?;
            match rest.split_first() {
                Some((b'.', after)) => rest = after,
                _ => break,
            }
        }
        if rest.is_empty() {
            return Some(Self { numbers, pre_release: "" });
        }
        let suffix = text.get(text.len() - rest.len()..)?;
        Some(Self { numbers, pre_release: pre_release(suffix)? })
    }

    /// Precedence (SemVer 2.0.0, section 11).
    #[inline]
    pub(crate) fn precedence(&self, other: &Version<'_>) -> Ordering {
        self.numbers.cmp(&other.numbers).then_with(|| compare_pre_release(self.pre_release, other.pre_release))
    }
}

/// A number without leading zeros, and what follows it.
#[inline]
fn number_prefix(bytes: &[u8]) -> Option<(u64, &[u8])> {
    let (first, mut rest) = bytes.split_first()?;
    let mut number = u64::from(digit(*first)?);
    while let Some((byte, after)) = rest.split_first() {
        let Some(digit) = digit(*byte) else { break };
        if number == 0 {
            return None;
        }
        number = number.checked_mul(10)?.checked_add(digit.into())?;
        rest = after;
    }
    Some((number, rest))
}

#[inline]
fn digit(byte: u8) -> Option<u8> {
    let digit = byte.wrapping_sub(b'0');
    (digit < 10).then_some(digit)
}

/// The pre-release identifiers of `-pre.release+build`, checked; build metadata is checked and dropped.
fn pre_release(suffix: &str) -> Option<&str> {
    let (version, build) = match suffix.split_once('+') {
        Some((version, build)) => (version, Some(build)),
        None => (suffix, None),
    };
    if build.is_some_and(|build| !build.split('.').all(is_identifier)) {
        return None;
    }
    if version.is_empty() {
        return Some("");
    }
    let identifiers = version.strip_prefix('-')?;
    identifiers.split('.').all(|part| is_identifier(part) && !has_leading_zero(part)).then_some(identifiers)
}

fn is_identifier(part: &str) -> bool {
    !part.is_empty() && part.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'-')
}

fn is_numeric(part: &str) -> bool {
    part.bytes().all(|byte| byte.is_ascii_digit())
}

fn has_leading_zero(part: &str) -> bool {
    part.len() > 1 && part.starts_with('0') && is_numeric(part)
}

/// Identifier by identifier: numbers by value and below words, words by ASCII; more identifiers are higher; a release,
/// which has none, is highest.
fn compare_pre_release(left: &str, right: &str) -> Ordering {
    match (left.is_empty(), right.is_empty()) {
        (true, true) => return Ordering::Equal,
        (true, false) => return Ordering::Greater,
        (false, true) => return Ordering::Less,
        (false, false) => {}
    }
    let (mut left, mut right) = (left.split('.'), right.split('.'));
    loop {
        let order = match (left.next(), right.next()) {
            (None, None) => return Ordering::Equal,
            (None, Some(_)) => Ordering::Less,
            (Some(_), None) => Ordering::Greater,
            (Some(left), Some(right)) => match (is_numeric(left), is_numeric(right)) {
                // Without leading zeros, the longer number is the larger, however long.
                (true, true) => left.len().cmp(&right.len()).then_with(|| left.cmp(right)),
                (true, false) => Ordering::Less,
                (false, true) => Ordering::Greater,
                (false, false) => left.cmp(right),
            },
        };
        if order != Ordering::Equal {
            return order;
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn lenient_in_two_ways_and_no_more() {
        let numbers = |text| Version::parse(text).map(|version| version.numbers);
        assert_eq!(numbers("1.2.3"), Some([1, 2, 3]));
        assert_eq!(numbers("v1.2.3"), Some([1, 2, 3]));
        assert_eq!(numbers("V2"), Some([2, 0, 0]));
        assert_eq!(numbers("2.4"), Some([2, 4, 0]));
        assert_eq!(Version::parse("2.4-beta").map(|version| version.pre_release), Some("beta"));
        assert_eq!(numbers("18446744073709551615.0.0"), Some([u64::MAX, 0, 0]));
        for bad in [
            "",
            "v",
            "1.",
            ".1",
            "1.2.3.4",
            "01.2.3",
            "1.2.3-",
            "1.2.3-01",
            "1.2.3+",
            "1.2.3-a..b",
            " 1.2.3",
            "1.2.3 ",
            "-1",
            "18446744073709551616",
            "1.x",
            "vv1",
            "1.2.3-é",
        ] {
            assert_eq!(Version::parse(bad), None, "{bad:?}");
        }
    }

    #[test]
    fn precedence_is_that_of_the_specification() {
        let ascending = [
            "1.0.0-alpha",
            "1.0.0-alpha.1",
            "1.0.0-alpha.beta",
            "1.0.0-beta",
            "1.0.0-beta.2",
            "1.0.0-beta.11",
            "1.0.0-rc.1",
            "1.0.0",
            "2.0.0",
            "2.1.0",
            "2.1.1",
        ];
        for (low, left) in ascending.iter().enumerate() {
            for (high, right) in ascending.iter().enumerate() {
                let order = Version::parse(left).unwrap().precedence(&Version::parse(right).unwrap());
                assert_eq!(order, low.cmp(&high), "{left} {right}");
            }
        }
        assert_eq!(Version::parse("1.0.0+a").unwrap().precedence(&Version::parse("1.0.0+b").unwrap()), Ordering::Equal);
    }

    proptest! {
        #[test]
        fn agrees_with_the_semver_crate(left in "[0-9]{1,3}\\.[0-9]{1,2}\\.[0-9]{1,2}(-[0-9a-b.-]{0,6})?(\\+[0-9a-b.]{0,4})?", right in "[0-2]\\.[0-2]\\.[0-2](-[0-9a-b.]{0,6})?") {
            let (ours, theirs) = (Version::parse(&left), semver::Version::parse(&left));
            prop_assert_eq!(ours.is_some(), theirs.is_ok(), "{}", left);
            if let (Some(ours), Ok(theirs), Some(other), Ok(their_other)) = (ours, theirs, Version::parse(&right), semver::Version::parse(&right)) {
                prop_assert_eq!(ours.precedence(&other), theirs.cmp_precedence(&their_other), "{} {}", left, right);
            }
        }

        #[test]
        fn never_panics(text in "\\PC*") {
            let _ = Version::parse(&text);
        }
    }
}
