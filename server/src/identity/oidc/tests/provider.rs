//! A small OpenID provider on loopback that does as the test says.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, LazyLock};

use axum::Router;
use axum::body::Bytes;
use axum::extract::State;
use axum::response::{IntoResponse, Redirect, Response};
use axum::routing::{get, post};
use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use http::{HeaderMap, StatusCode};
use jsonwebtoken::jwk::Jwk;
use jsonwebtoken::{Algorithm, EncodingKey, Header, encode};
use parking_lot::Mutex;
use rand::RngExt;
use rsa::pkcs1::EncodeRsaPrivateKey;
use serde_json::{Value, json};

/// RSA keys take long to make.
static RSA_DER: LazyLock<Vec<u8>> = LazyLock::new(|| {
    let key = rsa::RsaPrivateKey::new(&mut rsa::rand_core::OsRng, 2048).unwrap();
    key.to_pkcs1_der().unwrap().as_bytes().to_vec()
});

/// A key of the provider's.
#[derive(Clone)]
pub struct Signer {
    pub id: String,
    pub algorithm: Algorithm,
    key: EncodingKey,
}

impl Signer {
    pub fn rsa(id: &str) -> Self {
        Self { id: id.to_owned(), algorithm: Algorithm::RS256, key: EncodingKey::from_rsa_der(&RSA_DER) }
    }

    /// A new key on P-256, as PKCS #8.
    pub fn es256(id: &str) -> Self {
        let mut der = b"\x30\x41\x02\x01\x00\x30\x13\x06\x07\x2a\x86\x48\xce\x3d\x02\x01\x06\x08\x2a\x86\x48\xce\x3d\x03\x01\x07\x04\x27\x30\x25\x02\x01\x01\x04\x20".to_vec();
        let scalar: [u8; 32] = rand::rng().random();
        der.extend(scalar);
        Self { id: id.to_owned(), algorithm: Algorithm::ES256, key: EncodingKey::from_ec_der(&der) }
    }

    /// A new key on Ed25519, as PKCS #8.
    pub fn eddsa(id: &str) -> Self {
        let mut der = b"\x30\x2e\x02\x01\x00\x30\x05\x06\x03\x2b\x65\x70\x04\x22\x04\x20".to_vec();
        let seed: [u8; 32] = rand::rng().random();
        der.extend(seed);
        Self { id: id.to_owned(), algorithm: Algorithm::EdDSA, key: EncodingKey::from_ed_der(&der) }
    }

    /// The public key, as it is published.
    pub fn published(&self) -> Value {
        let mut key = serde_json::to_value(Jwk::from_encoding_key(&self.key, self.algorithm).unwrap()).unwrap();
        key["kid"] = json!(self.id);
        key["use"] = json!("sig");
        key
    }

    pub fn sign(&self, claims: &Value) -> String {
        self.sign_with(&Header { kid: Some(self.id.clone()), ..Header::new(self.algorithm) }, claims)
    }

    pub fn sign_with(&self, header: &Header, claims: &Value) -> String {
        encode(header, claims, &self.key).unwrap()
    }
}

/// A token with any header and any signature.
pub fn forged(header: &Value, claims: &Value, signature: &[u8]) -> String {
    let part = |value: &Value| URL_SAFE_NO_PAD.encode(value.to_string());
    format!("{}.{}.{}", part(header), part(claims), URL_SAFE_NO_PAD.encode(signature))
}

/// What the provider does.
#[derive(Default)]
pub struct Behaviour {
    pub url: String,
    pub keys: Mutex<Vec<Value>>,
    /// The token for the next code.
    pub id_token: Mutex<String>,
    /// What takes the place of fields of the discovery document.
    pub discovery: Mutex<Value>,
    pub keys_redirect: Mutex<Option<String>>,
    pub keys_padding: AtomicUsize,
    pub token_error: Mutex<Option<String>>,
    pub keys_asked: AtomicUsize,
    pub discovery_asked: AtomicUsize,
    /// Forms and `Authorization` headers that came to the token endpoint.
    pub forms: Mutex<Vec<(String, Option<String>)>>,
}

impl Behaviour {
    pub fn keys_asked(&self) -> usize {
        self.keys_asked.load(Ordering::SeqCst)
    }
}

/// Starts a provider whose keys are those of `signers`.
pub async fn start(signers: &[&Signer]) -> Arc<Behaviour> {
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap());
    let keys = Mutex::new(signers.iter().map(|signer| signer.published()).collect());
    let behaviour = Arc::new(Behaviour { url, keys, ..Behaviour::default() });
    let routes = Router::new()
        .route("/.well-known/openid-configuration", get(discovery))
        .route("/keys", get(published_keys))
        .route("/token", post(token))
        .with_state(Arc::clone(&behaviour));
    tokio::spawn(async move { axum::serve(listener, routes).await });
    behaviour
}

async fn discovery(State(provider): State<Arc<Behaviour>>) -> Response {
    provider.discovery_asked.fetch_add(1, Ordering::SeqCst);
    let url = &provider.url;
    let mut document = json!({
        "issuer": url,
        "authorization_endpoint": format!("{url}/authorize?tenant=a"),
        "token_endpoint": format!("{url}/token"),
        "jwks_uri": format!("{url}/keys"),
    });
    if let Value::Object(fields) = &*provider.discovery.lock() {
        for (name, value) in fields {
            document[name] = value.clone();
        }
    }
    document.to_string().into_response()
}

async fn published_keys(State(provider): State<Arc<Behaviour>>) -> Response {
    provider.keys_asked.fetch_add(1, Ordering::SeqCst);
    if let Some(elsewhere) = &*provider.keys_redirect.lock() {
        return Redirect::temporary(elsewhere).into_response();
    }
    let padding = " ".repeat(provider.keys_padding.load(Ordering::SeqCst));
    format!("{}{padding}", json!({ "keys": *provider.keys.lock() })).into_response()
}

async fn token(State(provider): State<Arc<Behaviour>>, headers: HeaderMap, body: Bytes) -> Response {
    let authorization = headers.get("authorization").map(|value| value.to_str().unwrap().to_owned());
    provider.forms.lock().push((String::from_utf8(body.to_vec()).unwrap(), authorization));
    if let Some(error) = &*provider.token_error.lock() {
        return (StatusCode::BAD_REQUEST, json!({ "error": error }).to_string()).into_response();
    }
    json!({ "access_token": "x", "token_type": "Bearer", "id_token": *provider.id_token.lock() })
        .to_string()
        .into_response()
}
