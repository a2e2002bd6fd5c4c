//! One-time codes from an authenticator app: RFC 6238 with SHA-1, six digits and steps of thirty seconds, which is what
//! every app understands.

use std::fmt;

use rand::RngExt;
use subtle::ConstantTimeEq;
use totp_rs::{Algorithm, Builder, Secret, Totp};

use super::credential::push_base32;

/// Length of a secret: as long as the output of the hash, as RFC 4226 recommends.
const SECRET_BYTES: usize = 20;
/// Seconds a code stands for.
const STEP_S: u64 = 30;
/// Digits of a code.
const DIGITS: usize = 6;
/// Steps before and after the present one whose codes are accepted too: clocks differ and people are slow.
const SKEW_STEPS: u64 = 1;
/// Who the authenticator app says a code is for.
const ISSUER: &str = "Guidon";

/// The secret that an authenticator app shares with the server.
#[derive(Clone, PartialEq, Eq)]
pub struct TotpSecret([u8; SECRET_BYTES]);

impl TotpSecret {
    /// A new one.
    #[must_use]
    pub fn generate() -> Self {
        Self(rand::rng().random())
    }

    /// The one that [`TotpSecret::reveal`] spells.
    #[must_use]
    pub fn from_base32(text: &str) -> Option<Self> {
        let secret = Secret::try_from_base32(text).ok()?;
        secret.as_bytes().try_into().ok().map(Self)
    }

    /// The secret in base 32, for the one time it is shown and for the vault; never for a log.
    #[must_use]
    pub fn reveal(&self) -> String {
        let mut text = String::new();
        push_base32(&mut text, &self.0, SECRET_BYTES * 8 / 5);
        text.to_ascii_uppercase()
    }

    /// What an authenticator app reads, usually as a QR code. As secret as the secret.
    #[must_use]
    pub fn enrolment_url(&self, account: &str) -> String {
        // The crate refuses only what no account is called.
        self.totp(account).to_url().unwrap_or_else(|_| format!("otpauth://totp/{ISSUER}?secret={}", self.reveal()))
    }

    /// The step whose code `code` is, if it is a step about `now_ms` (milliseconds since 1970) and after `used`, the last
    /// one that was accepted: a code that was seen once, over a shoulder or on the wire, is worth nothing.
    #[must_use]
    pub fn matching_step(&self, code: &str, now_ms: u64, used: Option<u64>) -> Option<u64> {
        let code: String = code.chars().filter(|character| !character.is_whitespace()).collect();
        let (totp, present) = (self.totp(""), now_ms / 1000 / STEP_S);
        let mut found = None;
        for step in present.saturating_sub(SKEW_STEPS)..=present.saturating_add(SKEW_STEPS) {
            let expected = totp.generate(step.saturating_mul(STEP_S)).to_string();
            let equal: bool = expected.as_bytes().ct_eq(code.as_bytes()).into();
            if equal && used.is_none_or(|used| step > used) && found.is_none() {
                found = Some(step);
            }
        }
        found
    }

    fn totp(&self, account: &str) -> Totp {
        Builder::new()
            .with_algorithm(Algorithm::SHA1)
            .with_digits(DIGITS as u8)
            .with_step_duration(STEP_S)
            .with_secret(self.0)
            .with_issuer(Some(ISSUER))
            .with_account_name(account.replace(':', "_"))
            .build_noncompliant()
    }

    /// The code at `now_ms`.
    #[cfg(test)]
    pub(crate) fn code_at(&self, now_ms: u64) -> String {
        self.totp("").generate(now_ms / 1000).to_string()
    }
}

impl fmt::Debug for TotpSecret {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("TotpSecret(…)")
    }
}

/// Whether `code` has the form of a one-time code, as against that of a recovery code.
#[must_use]
pub fn is_code(code: &str) -> bool {
    let mut digits = 0;
    code.chars().filter(|character| !character.is_whitespace()).all(|character| {
        digits += 1;
        character.is_ascii_digit()
    }) && digits == DIGITS
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// RFC 6238, appendix B, SHA-1: the last six of eight digits.
    const VECTORS: [(u64, &str); 6] = [
        (59, "287082"),
        (1_111_111_109, "081804"),
        (1_111_111_111, "050471"),
        (1_234_567_890, "005924"),
        (2_000_000_000, "279037"),
        (20_000_000_000, "353130"),
    ];

    fn rfc_secret() -> TotpSecret {
        TotpSecret(*b"12345678901234567890")
    }

    #[test]
    fn the_vectors_of_rfc_6238_hold() {
        for (second, code) in VECTORS {
            assert_eq!(rfc_secret().code_at(second * 1000), code);
            assert_eq!(rfc_secret().matching_step(code, second * 1000, None), Some(second / 30));
        }
    }

    #[test]
    fn a_neighbouring_step_is_accepted_and_no_other() {
        let (secret, now) = (rfc_secret(), 1_111_111_111_000);
        for (away, accepted) in [(-2, false), (-1, true), (0, true), (1, true), (2, false)] {
            let code = secret.code_at(now + 60_000);
            let now = (now as i64 + 60_000 - away * 30_000) as u64;
            assert_eq!(secret.matching_step(&code, now, None).is_some(), accepted, "{away}");
        }
    }

    #[test]
    fn the_form_decides_what_a_code_is() {
        assert!(is_code("123456") && is_code(" 123 456 "));
        assert!(!is_code("12345") && !is_code("1234567") && !is_code("abcd-efgh-ijkl-mnop") && !is_code("12345６"));
    }

    #[test]
    fn the_enrolment_url_is_what_apps_read() {
        let url = rfc_secret().enrolment_url("ada@example.com");
        assert!(url.starts_with("otpauth://totp/Guidon:ada%40example.com?"), "{url}");
        assert!(url.contains("secret=GEZDGNBVGY3TQOJQGEZDGNBVGY3TQOJQ") && url.contains("issuer=Guidon"), "{url}");
        assert!(!format!("{:?}", rfc_secret()).contains("GEZ"));
    }

    proptest! {
        #[test]
        fn a_step_is_accepted_once(seed: [u8; 20], start in 0_u64..4_000_000_000_000, delays in prop::collection::vec(0_u64..40_000, 1..20)) {
            let (secret, mut now, mut used) = (TotpSecret(seed), start, None);
            for delay in delays {
                now += delay;
                let code = secret.code_at(now);
                if let Some(step) = secret.matching_step(&code, now, used) {
                    prop_assert!(used.is_none_or(|used| step > used));
                    used = Some(step);
                    prop_assert!(secret.matching_step(&code, now, used).is_none_or(|again| again > step));
                }
            }
        }

        #[test]
        fn a_secret_reads_back(seed: [u8; 20]) {
            prop_assert_eq!(TotpSecret::from_base32(&TotpSecret(seed).reveal()), Some(TotpSecret(seed)));
        }

        #[test]
        fn any_text_is_answered(code in "\\PC{0,40}", now: u64) {
            let _ = rfc_secret().matching_step(&code, now, None);
            let _ = is_code(&code);
        }
    }
}
