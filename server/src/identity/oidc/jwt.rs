//! Whether a token is what its issuer signed for us: RFC 7519, OpenID Connect Core 3.1.3.7, RFC 8725.

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use jsonwebtoken::jwk::{AlgorithmParameters, EllipticCurve, Jwk, PublicKeyUse};
use jsonwebtoken::{Algorithm, DecodingKey, Validation, decode, decode_header};
use serde_json::{Map, Value};
use subtle::ConstantTimeEq;

/// Largest token, in bytes.
pub const MAX_TOKEN_BYTES: usize = 16 << 10;
/// How far clocks may differ, in seconds.
const SKEW_S: u64 = 60;
/// Longest subject: OpenID Connect Core 2.
const MAX_SUBJECT_BYTES: usize = 255;
/// Most keys that are looked at.
const MAX_KEYS: usize = 100;
/// Shortest RSA modulus that is believed, in bytes: 2048 bits.
const MIN_RSA_BYTES: usize = 256;

/// What is wrong with a token.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum TokenProblem {
    /// Too large.
    #[error("it has over {MAX_TOKEN_BYTES} bytes")]
    TooLarge,
    /// Not a signed token, or signed in a way that proves nothing.
    #[error("it is not a token signed with RS, PS, ES or EdDSA")]
    Malformed,
    /// Signed by a key that is not the issuer's.
    #[error("the issuer has no such key")]
    UnknownKey,
    /// The signature is another's.
    #[error("its signature is not the issuer's")]
    Signature,
    /// Of another issuer.
    #[error("it is of another issuer")]
    Issuer,
    /// For somebody else.
    #[error("it is for another audience")]
    Audience,
    /// Given to somebody else.
    #[error("it was given to another party")]
    AuthorizedParty,
    /// Over.
    #[error("it has expired")]
    Expired,
    /// Not begun.
    #[error("it is not valid yet; check the clocks")]
    NotYetValid,
    /// Of another sign-in.
    #[error("it is of another sign-in")]
    Nonce,
    /// It does not say what it must.
    #[error("its claim {0} is missing or not of the right form")]
    Claim(&'static str),
}

/// What a token must say.
pub(super) struct Expected<'a> {
    pub(super) issuer: &'a str,
    pub(super) audience: &'a str,
    /// What an identity token of a sign-in must say beside; a token for an exchange has neither nonce nor azp of ours.
    pub(super) nonce: Option<&'a str>,
}

/// What a token's header says, before any of it is believed.
pub(super) struct Signed<'a> {
    token: &'a str,
    algorithm: Algorithm,
    pub(super) key_id: Option<String>,
}

impl<'a> Signed<'a> {
    /// Reads a token's header.
    pub(super) fn read(token: &'a str) -> Result<Self, TokenProblem> {
        if token.len() > MAX_TOKEN_BYTES {
            return Err(TokenProblem::TooLarge);
        }
        // `none`, and whatever the crate does not know, is no algorithm.
        let header = decode_header(token).map_err(|_| TokenProblem::Malformed)?;
        if !is_asymmetric(header.alg) || header.crit.is_some() {
            return Err(TokenProblem::Malformed);
        }
        Ok(Self { token, algorithm: header.alg, key_id: header.kid })
    }

    /// The claims, if `key` signed them. Nothing of what they say is checked yet.
    fn claims(&self, key: &Jwk) -> Result<Map<String, Value>, TokenProblem> {
        let key = DecodingKey::from_jwk(key).map_err(|_| TokenProblem::UnknownKey)?;
        let mut validation = Validation::new(self.algorithm);
        // Times are checked below, by our clock; the rest there too.
        validation.validate_exp = false;
        validation.validate_aud = false;
        validation.required_spec_claims.clear();
        decode(self.token, &key, &validation).map(|token| token.claims).map_err(|_| TokenProblem::Signature)
    }
}

/// An issuer's keys: only those that could have signed something.
pub(super) struct Keys(Vec<Jwk>);

impl Keys {
    /// Reads a JWK set. Keys that are not understood are left out; one odd key must not lock everybody out.
    pub(super) fn read(set: &Value) -> Option<Self> {
        let keys = set.get("keys")?.as_array()?;
        let read = |key: &Value| serde_json::from_value::<Jwk>(key.clone()).ok();
        Some(Self(keys.iter().take(MAX_KEYS).filter_map(read).collect()))
    }

    /// The key that `signed` says it is signed with. A token that does not say fits only if there is no choice.
    pub(super) fn find(&self, signed: &Signed<'_>) -> Option<&Jwk> {
        let mut fitting = self.0.iter().filter(|key| fits(key, signed.algorithm));
        match &signed.key_id {
            Some(id) => fitting.find(|key| key.common.key_id.as_ref() == Some(id)),
            None => fitting.next().filter(|_| fitting.next().is_none()),
        }
    }
}

/// The claims of a token that `key` signed and that says what is expected at `now_ms`.
pub(super) fn verify(
    signed: &Signed<'_>,
    key: &Jwk,
    expected: &Expected<'_>,
    now_ms: u64,
) -> Result<Map<String, Value>, TokenProblem> {
    let claims = signed.claims(key)?;
    check(&claims, expected, now_ms / 1000)?;
    Ok(claims)
}

fn check(claims: &Map<String, Value>, expected: &Expected<'_>, now_s: u64) -> Result<(), TokenProblem> {
    if text(claims, "iss") != Some(expected.issuer) {
        return Err(TokenProblem::Issuer);
    }
    let audiences = strings(claims.get("aud"));
    if !audiences.contains(&expected.audience) {
        return Err(TokenProblem::Audience);
    }
    if expected.nonce.is_some() {
        let party = claims.get("azp").map(|party| party.as_str() == Some(expected.audience));
        if party == Some(false) || party.is_none() && audiences.len() > 1 {
            return Err(TokenProblem::AuthorizedParty);
        }
    }
    let expires = seconds(claims, "exp")?.ok_or(TokenProblem::Claim("exp"))?;
    if now_s >= expires.saturating_add(SKEW_S) {
        return Err(TokenProblem::Expired);
    }
    let begins = [seconds(claims, "nbf")?, seconds(claims, "iat")?];
    if begins.iter().flatten().any(|begins| *begins > now_s.saturating_add(SKEW_S)) {
        return Err(TokenProblem::NotYetValid);
    }
    if expected.nonce.is_some() && begins[1].is_none() {
        return Err(TokenProblem::Claim("iat"));
    }
    if !text(claims, "sub").is_some_and(|subject| (1..=MAX_SUBJECT_BYTES).contains(&subject.len())) {
        return Err(TokenProblem::Claim("sub"));
    }
    if let Some(nonce) = expected.nonce {
        let presented = text(claims, "nonce").unwrap_or_default();
        if !bool::from(presented.as_bytes().ct_eq(nonce.as_bytes())) {
            return Err(TokenProblem::Nonce);
        }
    }
    Ok(())
}

/// A claim that is a text.
pub(super) fn text<'a>(claims: &'a Map<String, Value>, name: &str) -> Option<&'a str> {
    claims.get(name).and_then(Value::as_str)
}

/// A claim that is a text or a list of them.
pub(super) fn strings(claim: Option<&Value>) -> Vec<&str> {
    match claim {
        Some(Value::String(one)) => vec![one.as_str()],
        Some(Value::Array(many)) => many.iter().filter_map(Value::as_str).collect(),
        _ => Vec::new(),
    }
}

/// A claim that is a time, in whole seconds since 1970.
pub(super) fn seconds(claims: &Map<String, Value>, name: &'static str) -> Result<Option<u64>, TokenProblem> {
    let Some(value) = claims.get(name) else { return Ok(None) };
    let fraction = || value.as_f64().filter(|seconds| (0.0..9e15).contains(seconds)).map(|seconds| seconds as u64);
    value.as_u64().or_else(fraction).map(Some).ok_or(TokenProblem::Claim(name))
}

/// Whether whoever can verify with `algorithm` cannot sign with it.
fn is_asymmetric(algorithm: Algorithm) -> bool {
    use Algorithm::{ES256, ES384, EdDSA, PS256, PS384, PS512, RS256, RS384, RS512};
    matches!(algorithm, RS256 | RS384 | RS512 | PS256 | PS384 | PS512 | ES256 | ES384 | EdDSA)
}

/// Whether `key` is for signing, with `algorithm`.
fn fits(key: &Jwk, algorithm: Algorithm) -> bool {
    use Algorithm::{ES256, ES384, EdDSA, PS256, PS384, PS512, RS256, RS384, RS512};
    let common = &key.common;
    let signs = !matches!(&common.public_key_use, Some(other) if *other != PublicKeyUse::Signature);
    let says_so = common.key_algorithm.is_none_or(|says| says == algorithm.into());
    let family = match (&key.algorithm, algorithm) {
        (AlgorithmParameters::RSA(rsa), RS256 | RS384 | RS512 | PS256 | PS384 | PS512) => {
            URL_SAFE_NO_PAD.decode(&rsa.n).is_ok_and(|modulus| modulus.len() >= MIN_RSA_BYTES)
        }
        (AlgorithmParameters::EllipticCurve(curve), ES256) => curve.curve == EllipticCurve::P256,
        (AlgorithmParameters::EllipticCurve(curve), ES384) => curve.curve == EllipticCurve::P384,
        (AlgorithmParameters::OctetKeyPair(pair), EdDSA) => pair.curve == EllipticCurve::Ed25519,
        _ => false,
    };
    signs && says_so && family
}
