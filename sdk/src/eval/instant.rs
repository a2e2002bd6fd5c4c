//! Points in time, as the operators `before` and `after` read them: RFC 3339, or a number of milliseconds since 1970.

/// Longest fraction of a second that counts; further digits are read and dropped.
const FRACTION_DIGITS: u32 = 9;

/// Seconds since 1970-01-01T00:00:00Z and nanoseconds within the second.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Instant {
    seconds: i64,
    nanoseconds: u32,
}

impl Instant {
    /// Reads an RFC 3339 date-time: `2026-11-22T20:36:50.25Z`, `…+01:00`. The letters may be small; a space in place of `T`
    /// is not read. Second 60 is the first of the next minute. `None` if `text` is not one.
    pub(crate) fn parse(text: &str) -> Option<Self> {
        let mut reader = Reader(text.as_bytes());
        let days = reader.date()?;
        reader.one_of(b"Tt")?;
        let hours = reader.number(2, 0, 23)?;
        reader.one_of(b":")?;
        let minutes = reader.number(2, 0, 59)?;
        reader.one_of(b":")?;
        let seconds = reader.number(2, 0, 60)?;
        let nanoseconds = if reader.one_of(b".").is_some() { reader.fraction()? } else { 0 };
        let offset = reader.offset()?;
        let seconds = days * 86_400 + hours * 3_600 + minutes * 60 + seconds - offset;
        reader.0.is_empty().then_some(Self { seconds, nanoseconds })
    }

    /// The instant this many milliseconds after 1970; `None` unless it is between the years 0000 and 9999.
    pub(crate) fn from_milliseconds(milliseconds: f64) -> Option<Self> {
        const YEAR_0: f64 = -62_167_219_200_000.0;
        const YEAR_10000: f64 = 253_402_300_800_000.0;
        if !(YEAR_0..YEAR_10000).contains(&milliseconds) {
            return None;
        }
        let whole = milliseconds.div_euclid(1_000.0);
        let nanoseconds = (milliseconds.rem_euclid(1_000.0) * 1e6).min(999_999_999.0);
        Some(Self { seconds: whole as i64, nanoseconds: nanoseconds as u32 })
    }
}

/// Whether `text` is a day of the calendar, `YYYY-MM-DD`.
pub(crate) fn is_date(text: &str) -> bool {
    let mut reader = Reader(text.as_bytes());
    reader.date().is_some() && reader.0.is_empty()
}

struct Reader<'a>(&'a [u8]);

impl Reader<'_> {
    fn one_of(&mut self, accepted: &[u8]) -> Option<u8> {
        let (first, rest) = self.0.split_first()?;
        accepted.contains(first).then(|| {
            self.0 = rest;
            *first
        })
    }

    fn number(&mut self, digits: usize, least: i64, most: i64) -> Option<i64> {
        let (text, rest) = self.0.split_at_checked(digits)?;
        let mut number = 0;
        for byte in text {
            if !byte.is_ascii_digit() {
                return None;
            }
            number = number * 10 + i64::from(byte - b'0');
        }
        self.0 = rest;
        (least..=most).contains(&number).then_some(number)
    }

    /// Days since 1970-01-01.
    fn date(&mut self) -> Option<i64> {
        let year = self.number(4, 0, 9_999)?;
        self.one_of(b"-")?;
        let month = self.number(2, 1, 12)?;
        self.one_of(b"-")?;
        let leap = year % 4 == 0 && (year % 100 != 0 || year % 400 == 0);
        let last = match month {
            2 => 28 + i64::from(leap),
            4 | 6 | 9 | 11 => 30,
            _ => 31,
        };
        let day = self.number(2, 1, last)?;
        Some(days_from_civil(year, month, day))
    }

    fn fraction(&mut self) -> Option<u32> {
        let (mut nanoseconds, mut digits) = (0, 0);
        while let Some(digit) = self.one_of(b"0123456789") {
            if digits < FRACTION_DIGITS {
                nanoseconds = nanoseconds * 10 + u32::from(digit - b'0');
            }
            digits = digits.saturating_add(1);
        }
        (digits > 0).then(|| nanoseconds * 10_u32.pow(FRACTION_DIGITS.saturating_sub(digits)))
    }

    /// Seconds east of UTC.
    fn offset(&mut self) -> Option<i64> {
        let sign = match self.one_of(b"Zz+-")? {
            b'+' => 1,
            b'-' => -1,
            _ => return Some(0),
        };
        let hours = self.number(2, 0, 23)?;
        self.one_of(b":")?;
        let minutes = self.number(2, 0, 59)?;
        Some(sign * (hours * 3_600 + minutes * 60))
    }
}

/// Days since 1970-01-01 in the proleptic Gregorian calendar (Howard Hinnant, "chrono-Compatible Low-Level Date Algorithms").
fn days_from_civil(year: i64, month: i64, day: i64) -> i64 {
    let year = year - i64::from(month <= 2);
    let era = year.div_euclid(400);
    let year_of_era = year.rem_euclid(400);
    let day_of_year = (153 * ((month + 9) % 12) + 2) / 5 + day - 1;
    let day_of_era = year_of_era * 365 + year_of_era / 4 - year_of_era / 100 + day_of_year;
    era * 146_097 + day_of_era - 719_468
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn parse(text: &str) -> Option<(i64, u32)> {
        Instant::parse(text).map(|instant| (instant.seconds, instant.nanoseconds))
    }

    #[test]
    fn reads_rfc_3339_and_nothing_else() {
        assert_eq!(parse("1970-01-01T00:00:00Z"), Some((0, 0)));
        assert_eq!(parse("2026-11-22T20:36:50Z"), Some((1_795_379_810, 0)));
        assert_eq!(parse("2026-11-22t21:36:50+01:00"), Some((1_795_379_810, 0)));
        assert_eq!(parse("1985-04-12T23:20:50.52Z"), Some((482_196_050, 520_000_000)));
        assert_eq!(parse("1990-12-31T23:59:60Z"), parse("1991-01-01T00:00:00Z"));
        assert_eq!(parse("1970-01-01T00:00:00.1234567899Z"), Some((0, 123_456_789)));
        for bad in [
            "",
            "2026-11-22",
            "2026-11-22T20:36:50",
            "2026-11-22 20:36:50Z",
            "2026-02-29T00:00:00Z",
            "2026-13-01T00:00:00Z",
            "2026-11-22T24:00:00Z",
            "2026-11-22T20:36:50.Z",
            "2026-11-22T20:36:50+01",
            "2026-11-22T20:36:50Z ",
            "2026-11-22T20:36:50Z[UTC]",
        ] {
            assert_eq!(parse(bad), None, "{bad:?}");
        }
        assert!(is_date("2024-02-29") && !is_date("2023-02-29") && !is_date("2024-02-29T") && !is_date("24-02-29"));
    }

    #[test]
    fn milliseconds_and_text_agree() {
        assert_eq!(Instant::from_milliseconds(482_196_050_520.0), Instant::parse("1985-04-12T23:20:50.52Z"));
        assert_eq!(Instant::from_milliseconds(-1.0), Instant::parse("1969-12-31T23:59:59.999Z"));
        assert_eq!(Instant::from_milliseconds(f64::NAN), None);
        assert_eq!(Instant::from_milliseconds(1e300), None);
    }

    proptest! {
        #[test]
        fn agrees_with_jiff(seconds in -62_000_000_000_i64..253_000_000_000, nanoseconds in 0_i32..1_000_000_000) {
            let expected = jiff::Timestamp::new(seconds, 0).unwrap().checked_add(jiff::SignedDuration::new(0, nanoseconds)).unwrap();
            prop_assert_eq!(parse(&expected.to_string()), Some((seconds, nanoseconds as u32)));
        }

        #[test]
        fn never_panics(text in "\\PC*") {
            let _ = parse(&text);
        }
    }
}
