//! Sign-in and token exchange at a provider on loopback that misbehaves in every way it can.

mod provider;

use std::sync::Arc;
use std::sync::atomic::Ordering;

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use jsonwebtoken::{Algorithm, EncodingKey, Header};
use serde_json::{Value, json};

use self::provider::{Behaviour, Signer, forged, start};
use super::*;
use crate::clock::{Clock, ManualClock};

const START: u64 = 1_800_000_000_000;
const NOW_S: u64 = START / 1000;
const CLIENT: &str = "guidon";
const REDIRECT: &str = "http://127.0.0.1:49152/callback";
/// The example of RFC 7636, appendix B.
const VERIFIER: &str = "dBjftJeZ4CVP-mB92K27uhbUJU1p1r_wW1gFWFOEjXk";
const CHALLENGE: &str = "E9Melhoa2OwvFrEMTJguCHaoeK1t8URWbuGJSstw-cM";

struct Bench {
    provider: Arc<Behaviour>,
    signer: Signer,
    clock: Arc<ManualClock>,
    flow: SignInFlow,
}

impl Bench {
    async fn new(signer: Signer, change: impl FnOnce(&mut ProviderConfig)) -> Self {
        let provider = start(&[&signer]).await;
        let clock = Arc::new(ManualClock::new(START));
        let mut config = ProviderConfig::new(provider.url.clone(), CLIENT);
        change(&mut config);
        let flow = SignInFlow::new(config, Arc::clone(&clock) as Arc<dyn Clock>).unwrap();
        Self { provider, signer, clock, flow }
    }

    async fn plain() -> Self {
        Self::new(Signer::es256("key-1"), |_| {}).await
    }

    /// Begins a sign-in; answers its state and nonce.
    async fn begin(&self) -> (String, String) {
        let started = self.flow.start(REDIRECT, CHALLENGE).await.unwrap();
        let nonce = parameter(&started.authorize_url, "nonce");
        (started.state, nonce)
    }

    fn claims(&self, nonce: &str) -> Value {
        json!({
            "iss": self.provider.url, "aud": CLIENT, "sub": "subject-1", "nonce": nonce,
            "exp": NOW_S + 300, "iat": NOW_S, "auth_time": NOW_S - 20, "amr": ["pwd", "otp"],
            "name": "Ada Lovelace", "email": "ada@example.com", "email_verified": true, "groups": ["sre", "release"],
        })
    }

    /// A whole sign-in in which the provider answers with what `token` makes of the claims.
    async fn sign_in(&self, token: impl FnOnce(&Signer, Value) -> String) -> Result<Claims, OidcError> {
        let (state, nonce) = self.begin().await;
        *self.provider.id_token.lock() = token(&self.signer, self.claims(&nonce));
        self.flow.finish(&state, "code-1", VERIFIER).await
    }

    /// A whole sign-in with one claim changed, or removed where it is null.
    async fn sign_in_with(&self, name: &str, value: Value) -> Result<Claims, OidcError> {
        let token = |signer: &Signer, claims| signer.sign(&with(claims, name, value));
        self.sign_in(token).await
    }
}

fn with(mut claims: Value, name: &str, value: Value) -> Value {
    let fields = claims.as_object_mut().unwrap();
    if value.is_null() {
        fields.remove(name)
    } else {
        fields.insert(name.to_owned(), value)
    };
    claims
}

fn parameter(url: &str, name: &str) -> String {
    let query = url.split_once('?').unwrap().1;
    query.split('&').find_map(|pair| pair.strip_prefix(&format!("{name}="))).unwrap_or_default().to_owned()
}

fn problem(answer: Result<Claims, OidcError>) -> TokenProblem {
    match answer {
        Err(OidcError::Token(problem)) => problem,
        other => panic!("{other:?}"),
    }
}

#[tokio::test]
async fn a_person_signs_in_whatever_the_algorithm() {
    for signer in [Signer::rsa("a"), Signer::es256("b"), Signer::eddsa("c")] {
        let bench = Bench::new(signer, |_| {}).await;
        let started = bench.flow.start(REDIRECT, CHALLENGE).await.unwrap();
        let url = &started.authorize_url;
        assert!(url.starts_with(&format!("{}/authorize?tenant=a&response_type=code&", bench.provider.url)), "{url}");
        assert_eq!(parameter(url, "redirect_uri"), "http%3A%2F%2F127.0.0.1%3A49152%2Fcallback");
        assert_eq!(parameter(url, "scope"), "openid%20email%20profile");
        assert_eq!((parameter(url, "state"), parameter(url, "code_challenge")), (started.state, CHALLENGE.to_owned()));
        let claims = bench.sign_in(|signer, claims| signer.sign(&claims)).await.unwrap();
        assert_eq!((claims.issuer.as_str(), claims.subject.as_str()), (bench.provider.url.as_str(), "subject-1"));
        assert_eq!((claims.name.as_str(), claims.email.as_deref()), ("Ada Lovelace", Some("ada@example.com")));
        assert_eq!(claims.groups, ["sre", "release"]);
        assert_eq!((claims.factor, claims.factor_at), (true, Some(START - 20_000)));
        let (form, authorization) = bench.provider.forms.lock()[0].clone();
        assert!(form.contains("code_verifier=dBjft") && form.contains("client_id=guidon"), "{form}");
        assert_eq!(authorization, None);
        assert!(!format!("{claims:?}{:?}", bench.flow).contains("Ada"));
    }
}

#[tokio::test]
async fn claims_that_do_not_fit_are_refused() {
    let bench = Bench::plain().await;
    let cases = [
        ("iss", json!("https://other.example"), TokenProblem::Issuer),
        ("iss", json!(format!("{}/", bench.provider.url)), TokenProblem::Issuer),
        ("iss", json!([bench.provider.url]), TokenProblem::Issuer),
        ("iss", Value::Null, TokenProblem::Issuer),
        ("aud", json!("another"), TokenProblem::Audience),
        ("aud", json!([]), TokenProblem::Audience),
        ("aud", Value::Null, TokenProblem::Audience),
        ("aud", json!([CLIENT, "another"]), TokenProblem::AuthorizedParty),
        ("azp", json!("another"), TokenProblem::AuthorizedParty),
        ("azp", json!(7), TokenProblem::AuthorizedParty),
        ("exp", json!(NOW_S - 60), TokenProblem::Expired),
        ("exp", Value::Null, TokenProblem::Claim("exp")),
        ("exp", json!("soon"), TokenProblem::Claim("exp")),
        ("exp", json!(-1), TokenProblem::Claim("exp")),
        ("nbf", json!(NOW_S + 61), TokenProblem::NotYetValid),
        ("iat", json!(NOW_S + 61), TokenProblem::NotYetValid),
        ("iat", Value::Null, TokenProblem::Claim("iat")),
        ("nonce", json!("another"), TokenProblem::Nonce),
        ("nonce", Value::Null, TokenProblem::Nonce),
        ("sub", json!(""), TokenProblem::Claim("sub")),
        ("sub", json!("x".repeat(256)), TokenProblem::Claim("sub")),
        ("sub", Value::Null, TokenProblem::Claim("sub")),
    ];
    for (name, value, expected) in cases {
        assert_eq!(problem(bench.sign_in_with(name, value.clone()).await), expected, "{name}: {value}");
    }
    for (name, value) in [
        ("exp", json!(NOW_S - 59)),
        ("exp", json!(NOW_S as f64 + 0.5)),
        ("nbf", json!(NOW_S + 60)),
        ("aud", json!([CLIENT])),
        ("azp", json!(CLIENT)),
    ] {
        bench.sign_in_with(name, value.clone()).await.unwrap_or_else(|error| panic!("{name}: {value}: {error}"));
    }
}

#[tokio::test]
async fn a_signature_that_proves_nothing_is_refused() {
    let bench = Bench::new(Signer::rsa("key-1"), |_| {}).await;
    let none = |_: &Signer, claims| forged(&json!({"alg": "none", "kid": "key-1"}), &claims, b"");
    assert_eq!(problem(bench.sign_in(none).await), TokenProblem::Malformed);
    // The public key, which everybody has, as the secret of an HMAC.
    let modulus = bench.signer.published()["n"].as_str().unwrap().to_owned();
    let decoded = URL_SAFE_NO_PAD.decode(&modulus).unwrap();
    for secret in [EncodingKey::from_secret(modulus.as_bytes()), EncodingKey::from_secret(&decoded)] {
        let hmac = |_: &Signer, claims: Value| {
            let header = Header { kid: Some("key-1".to_owned()), ..Header::new(Algorithm::HS256) };
            jsonwebtoken::encode(&header, &claims, &secret).unwrap()
        };
        assert_eq!(problem(bench.sign_in(hmac).await), TokenProblem::Malformed);
    }
    let stranger = Signer::es256("key-1");
    assert_eq!(problem(bench.sign_in(|_, claims| stranger.sign(&claims)).await), TokenProblem::UnknownKey);
    let changed = |signer: &Signer, claims: Value| {
        let (token, other) = (signer.sign(&claims), signer.sign(&with(claims.clone(), "sub", json!("root"))));
        let (body, _) = other.rsplit_once('.').unwrap();
        format!("{body}.{}", token.rsplit_once('.').unwrap().1)
    };
    assert_eq!(problem(bench.sign_in(changed).await), TokenProblem::Signature);
    let critical = |signer: &Signer, claims: Value| {
        let header =
            Header { kid: Some("key-1".to_owned()), crit: Some(vec!["b64".into()]), ..Header::new(signer.algorithm) };
        signer.sign_with(&header, &claims)
    };
    assert_eq!(problem(bench.sign_in(critical).await), TokenProblem::Malformed);
    let large = |signer: &Signer, claims| signer.sign(&with(claims, "x", json!("x".repeat(MAX_TOKEN_BYTES))));
    assert_eq!(problem(bench.sign_in(large).await), TokenProblem::TooLarge);
    for text in ["", ".", "..", "a.b.c", "a.b.c.d"] {
        assert_eq!(problem(bench.sign_in(|_, _| text.to_owned()).await), TokenProblem::Malformed, "{text}");
    }
}

#[tokio::test]
async fn an_embedded_key_and_a_weak_or_encrypting_one_are_not_believed() {
    let bench = Bench::plain().await;
    let stranger = Signer::es256("stranger");
    let embedded = |_: &Signer, claims: Value| {
        let key = serde_json::from_value(stranger.published()).unwrap();
        let header = Header { kid: Some("stranger".to_owned()), jwk: Some(key), ..Header::new(Algorithm::ES256) };
        stranger.sign_with(&header, &claims)
    };
    assert_eq!(problem(bench.sign_in(embedded).await), TokenProblem::UnknownKey);
    bench.provider.keys.lock()[0]["use"] = json!("enc");
    bench.clock.advance_ms(60_000);
    let answer = bench.sign_in_with("exp", json!(NOW_S + 3600)).await;
    assert!(answer.is_ok(), "known keys are believed for an hour");
    bench.clock.advance_ms(3_600_000);
    assert_eq!(problem(bench.sign_in_with("exp", json!(NOW_S + 7200)).await), TokenProblem::UnknownKey);
}

#[tokio::test]
async fn a_token_without_a_key_id_needs_an_only_key() {
    let bench = Bench::plain().await;
    let unnamed = |signer: &Signer, claims: Value| signer.sign_with(&Header::new(signer.algorithm), &claims);
    bench.sign_in(unnamed).await.unwrap();
    bench.provider.keys.lock().push(Signer::es256("key-2").published());
    bench.clock.advance_ms(3_600_000);
    let late = |signer: &Signer, claims| unnamed(signer, with(claims, "exp", json!(NOW_S + 7200)));
    assert_eq!(problem(bench.sign_in(late).await), TokenProblem::UnknownKey);
}

#[tokio::test]
async fn a_rotated_key_is_looked_for_at_most_twice_a_minute() {
    let bench = Bench::plain().await;
    bench.sign_in(|signer, claims| signer.sign(&claims)).await.unwrap();
    assert_eq!(bench.provider.keys_asked(), 1);
    let rotated = Signer::eddsa("key-2");
    let attempt = || bench.sign_in(|_, claims| rotated.sign(&claims));
    for _ in 0..3 {
        assert_eq!(problem(attempt().await), TokenProblem::UnknownKey);
    }
    assert_eq!(bench.provider.keys_asked(), 1, "looked at a moment ago");
    bench.clock.advance_ms(30_000);
    *bench.provider.keys.lock() = vec![json!({"kty": "odd"}), json!(7), rotated.published()];
    attempt().await.unwrap();
    assert_eq!(bench.provider.keys_asked(), 2);
    let withdrawn = bench.sign_in(|signer, claims| signer.sign(&claims)).await;
    assert_eq!(problem(withdrawn), TokenProblem::UnknownKey);
    assert_eq!((bench.provider.keys_asked(), bench.provider.discovery_asked.load(Ordering::SeqCst)), (2, 1));
}

#[tokio::test]
async fn a_provider_that_fails_is_not_asked_for_keys_more_often() {
    let bench = Bench::plain().await;
    bench.sign_in(|signer, claims| signer.sign(&claims)).await.unwrap();
    let stranger = Signer::eddsa("key-2");
    *bench.provider.keys_redirect.lock() = Some("http://127.0.0.1:9/".to_owned());
    for _ in 0..12 {
        bench.clock.advance_ms(5_000);
        assert!(bench.sign_in(|_, claims| stranger.sign(&claims)).await.is_err());
        bench.sign_in(|signer, claims| signer.sign(&claims)).await.expect("known keys go on being good");
    }
    assert_eq!(bench.provider.keys_asked(), 3, "at the beginning, and twice in a minute");
}

#[tokio::test]
async fn a_state_is_good_once_for_ten_minutes_with_its_verifier() {
    let bench = Bench::plain().await;
    let (state, nonce) = bench.begin().await;
    *bench.provider.id_token.lock() = bench.signer.sign(&bench.claims(&nonce));
    bench.flow.finish(&state, "code-1", VERIFIER).await.unwrap();
    let again = bench.flow.finish(&state, "code-1", VERIFIER).await;
    assert!(matches!(again, Err(OidcError::UnknownState)));
    assert!(matches!(bench.flow.finish("made-up", "code-1", VERIFIER).await, Err(OidcError::UnknownState)));

    let (state, _) = bench.begin().await;
    let other = "e".repeat(43);
    assert!(matches!(bench.flow.finish(&state, "code-1", &other).await, Err(OidcError::BadVerifier)));
    assert!(matches!(bench.flow.finish(&state, "code-1", VERIFIER).await, Err(OidcError::UnknownState)), "used up");
    assert_eq!(bench.provider.forms.lock().len(), 1, "the provider was not asked");

    let (state, _) = bench.begin().await;
    bench.clock.advance_ms(600_000);
    assert!(matches!(bench.flow.finish(&state, "code-1", VERIFIER).await, Err(OidcError::UnknownState)));
}

#[tokio::test]
async fn a_sign_in_begins_only_for_the_persons_own_machine() {
    let bench = Bench::plain().await;
    for redirect in ["http://evil.example:80/", "https://127.0.0.1:1/", "http://127.0.0.1:1@evil.example/"] {
        assert!(matches!(bench.flow.start(redirect, CHALLENGE).await, Err(OidcError::BadRedirect)), "{redirect}");
    }
    for challenge in ["", VERIFIER.trim_end_matches('k'), &format!("{CHALLENGE}="), "plain text"] {
        assert!(matches!(bench.flow.start(REDIRECT, challenge).await, Err(OidcError::BadVerifier)), "{challenge}");
    }
}

#[tokio::test]
async fn the_provider_refuses_and_is_authenticated_to() {
    let secret = || Some(ClientSecret::new("hush+&"));
    let bench = Bench::new(Signer::eddsa("key-1"), |config| config.client_secret = secret()).await;
    bench.sign_in(|signer, claims| signer.sign(&claims)).await.unwrap();
    let (form, authorization) = bench.provider.forms.lock()[0].clone();
    assert_eq!(authorization.as_deref(), Some("Basic Z3VpZG9uOmh1c2glMkIlMjY="));
    assert!(!form.contains("hush"), "{form}");
    *bench.provider.token_error.lock() = Some("invalid_grant".to_owned());
    match bench.sign_in(|signer, claims| signer.sign(&claims)).await {
        Err(OidcError::CodeRefused { error }) => assert_eq!(error, "invalid_grant"),
        other => panic!("{other:?}"),
    }

    let bench = Bench::new(Signer::eddsa("key-1"), |config| config.client_secret = secret()).await;
    *bench.provider.discovery.lock() = json!({"token_endpoint_auth_methods_supported": ["client_secret_post"]});
    bench.sign_in(|signer, claims| signer.sign(&claims)).await.unwrap();
    let (form, authorization) = bench.provider.forms.lock()[0].clone();
    assert!(authorization.is_none() && form.contains("client_secret=hush%2B%26"), "{form}");
}

#[tokio::test]
async fn a_provider_that_points_elsewhere_is_not_followed() {
    for (name, value) in [
        ("issuer", "https://other.example"),
        ("token_endpoint", "http://192.0.2.1/token"),
        ("jwks_uri", "file:///etc/passwd"),
        ("authorization_endpoint", "javascript:alert(1)"),
    ] {
        let bench = Bench::plain().await;
        *bench.provider.discovery.lock() = json!({ name: value });
        let refused = bench.flow.start(REDIRECT, CHALLENGE).await;
        assert!(matches!(refused, Err(OidcError::BadUrl { .. } | OidcError::BadAnswer { .. })), "{name}");
        let soon = bench.flow.start(REDIRECT, CHALLENGE).await;
        assert!(matches!(soon, Err(OidcError::Unreachable { .. })), "not asked again at once");
        *bench.provider.discovery.lock() = Value::Null;
        bench.clock.advance_ms(5_000);
        bench.flow.start(REDIRECT, CHALLENGE).await.unwrap();
    }
    let bench = Bench::plain().await;
    *bench.provider.keys_redirect.lock() = Some(format!("{}/.well-known/openid-configuration", bench.provider.url));
    let redirected = bench.sign_in(|signer, claims| signer.sign(&claims)).await;
    assert!(matches!(redirected, Err(OidcError::BadAnswer { problem, .. }) if problem.contains("307")));
    *bench.provider.keys_redirect.lock() = None;
    bench.provider.keys_padding.store(1 << 20, Ordering::SeqCst);
    bench.clock.advance_ms(5_000);
    let large = bench.sign_in(|signer, claims| signer.sign(&claims)).await;
    assert!(matches!(large, Err(OidcError::BadAnswer { problem, .. }) if problem.contains("1 MiB")));
}

#[tokio::test]
async fn a_provider_that_is_down_is_said_to_be() {
    let clock = Arc::new(ManualClock::new(START));
    let flow = SignInFlow::new(ProviderConfig::new("http://127.0.0.1:9", CLIENT), clock).unwrap();
    assert!(matches!(flow.start(REDIRECT, CHALLENGE).await, Err(OidcError::Unreachable { .. })));
}

#[tokio::test]
async fn addresses_factors_and_groups_are_read_with_care() {
    let domain = |config: &mut ProviderConfig| {
        config.allowed_email_domains = vec!["example.com".to_owned()];
        config.factor_classes = vec!["urn:two-factors".to_owned()];
        config.groups_claim = "https://example.com/roles".to_owned();
    };
    let bench = Bench::new(Signer::es256("key-1"), domain).await;
    for (name, value) in [
        ("email", json!("ada@evil.example")),
        ("email", Value::Null),
        ("email_verified", json!(false)),
        ("email_verified", Value::Null),
    ] {
        let refused = bench.sign_in_with(name, value).await;
        assert!(matches!(refused, Err(OidcError::EmailDomain)), "{name}: {refused:?}");
    }
    let by_password = bench.sign_in_with("amr", json!(["pwd"])).await.unwrap();
    assert_eq!((by_password.factor, by_password.factor_at), (false, None));
    assert!(by_password.groups.is_empty(), "the claim is called otherwise");
    let by_class =
        |signer: &Signer, claims| signer.sign(&with(with(claims, "amr", Value::Null), "acr", json!("urn:two-factors")));
    assert!(bench.sign_in(by_class).await.unwrap().factor);
    let undated = bench.sign_in_with("auth_time", Value::Null).await.unwrap();
    assert_eq!((undated.factor, undated.factor_at), (true, None));
    let groups = bench.sign_in_with("https://example.com/roles", json!("sre")).await.unwrap().groups;
    assert_eq!(groups, ["sre"]);
    let nameless = bench.sign_in_with("name", Value::Null).await.unwrap();
    assert_eq!(nameless.name, "ada@example.com");
}

#[tokio::test]
async fn a_machines_token_is_verified_for_an_exchange() {
    let signer = Signer::rsa("ci-1");
    let provider = start(&[&signer]).await;
    *provider.discovery.lock() = json!({"authorization_endpoint": "", "token_endpoint": ""});
    let clock = Arc::new(ManualClock::new(START));
    let issuers = TrustedIssuers::new(Arc::clone(&clock) as Arc<dyn Clock>);
    let claims = json!({
        "iss": provider.url, "aud": ["https://guidon.example", "other"], "sub": "repo:acme/shop:ref:refs/heads/main",
        "exp": NOW_S + 300, "repository": "acme/shop",
    });
    let verify = |claims: Value, audience: &'static str| {
        let (issuers, token, url) = (&issuers, signer.sign(&claims), provider.url.clone());
        async move { issuers.verify_for_exchange(&token, &url, audience).await }
    };
    let verified = verify(claims.clone(), "https://guidon.example").await.unwrap();
    assert_eq!(verified["repository"], "acme/shop");
    let refused = |answer: Result<_, OidcError>| match answer {
        Err(OidcError::Token(problem)) => problem,
        _ => panic!("not refused for what it says"),
    };
    assert_eq!(refused(verify(claims.clone(), "https://elsewhere.example").await), TokenProblem::Audience);
    let other = with(claims.clone(), "iss", json!("https://other.example"));
    assert_eq!(refused(verify(other, "https://guidon.example").await), TokenProblem::Issuer);
    clock.advance_ms(360_000);
    assert_eq!(refused(verify(claims.clone(), "https://guidon.example").await), TokenProblem::Expired);
    assert_eq!(provider.keys_asked(), 1);
    let untrusted = issuers.verify_for_exchange(&signer.sign(&claims), "http://evil.example", "a").await;
    assert!(matches!(untrusted, Err(OidcError::BadUrl { .. })));
}
