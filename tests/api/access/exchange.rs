//! Identity tokens of a CI provider buy tokens: with an issuer on loopback.

use std::io::{BufRead, BufReader, Write};
use std::net::{TcpListener, TcpStream};

use jsonwebtoken::jwk::Jwk;
use jsonwebtoken::{Algorithm, EncodingKey, Header, encode};
use serde_json::{Value, json};

use super::{guidon, now_ms, said, switch};
use crate::support::ServerProcess;
use crate::support::people::admin;

/// An issuer with one Ed25519 key.
struct Issuer {
    url: String,
    key: EncodingKey,
}

impl Issuer {
    fn start() -> Self {
        // The head of a PKCS #8 document that holds an Ed25519 key.
        let mut der = b"\x30\x2e\x02\x01\x00\x30\x05\x06\x03\x2b\x65\x70\x04\x22\x04\x20".to_vec();
        der.extend(rand::random::<[u8; 32]>());
        let key = EncodingKey::from_ed_der(&der);
        let mut published = serde_json::to_value(Jwk::from_encoding_key(&key, Algorithm::EdDSA).unwrap()).unwrap();
        published["kid"] = json!("key-1");
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap());
        let discovery = json!({"issuer": url, "jwks_uri": format!("{url}/keys")}).to_string();
        let keys = json!({ "keys": [published] }).to_string();
        std::thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                answer(stream, &discovery, &keys);
            }
        });
        Self { url, key }
    }

    fn token(&self, changes: Value) -> String {
        let now = now_ms() / 1_000;
        let mut claims = json!({
            "iss": self.url, "aud": "guidon", "sub": "job-7", "jti": rand::random::<u64>().to_string(), "iat": now, "exp": now + 300,
            "repository": "acme/shop", "ref": "refs/heads/main",
        });
        for (name, value) in changes.as_object().unwrap() {
            claims[name] = value.clone();
        }
        let header = Header { kid: Some("key-1".to_owned()), ..Header::new(Algorithm::EdDSA) };
        encode(&header, &claims, &self.key).unwrap()
    }
}

fn answer(mut stream: TcpStream, discovery: &str, keys: &str) {
    let mut lines = BufReader::new(stream.try_clone().unwrap()).lines().map_while(Result::ok);
    let Some(first) = lines.next() else { return };
    let _ = lines.by_ref().take_while(|line| !line.is_empty()).count();
    let body = if first.contains("/keys") { keys } else { discovery };
    let head = format!("HTTP/1.1 200 OK\r\ncontent-length: {}\r\nconnection: close\r\n\r\n", body.len());
    // Whoever hung up needs no answer.
    let _ = stream.write_all(format!("{head}{body}").as_bytes());
}

#[test]
fn an_identity_token_of_a_trusted_issuer_buys_a_short_lived_token() {
    let server = ServerProcess::start();
    let admin = admin(&server);
    server.client.create_flag("engine");
    let issuer = Issuer::start();
    admin.post("/api/v1/service-accounts", &json!({"name": "ci"})).ok();
    let stranger = server.client.with_token(None);
    let exchange = |token: &str| stranger.post("/api/v1/token-exchange", &json!({ "token": token }));
    assert_eq!(exchange(&issuer.token(json!({}))).status, 401, "nobody is trusted yet");

    let trust = json!({
        "issuer": issuer.url, "audience": "guidon", "principal": "ci", "lifetimeS": 60,
        "claims": {"repository": "acme/shop", "ref": "refs/heads/*"},
        "scope": {"project": "default", "environments": ["testing"], "actions": ["read", "turnFlagOn"]},
    });
    let trusted = admin.post("/api/v1/issuers", &trust).ok();
    assert_eq!(trusted["principalName"], "ci");
    for (name, value) in
        [("claims", json!({})), ("claims", json!({"sub": "*"})), ("issuer", json!("http://example.com"))]
    {
        let mut wide = trust.clone();
        wide[name] = value;
        assert_eq!(admin.post("/api/v1/issuers", &wide).status, 422, "{wide}");
    }

    let bought = exchange(&issuer.token(json!({}))).ok();
    assert!(bought["expiresAt"].as_u64().unwrap() <= now_ms() + 60_000, "{}", bought["expiresAt"]);
    let client = server.client.with_token(bought["token"].as_str());
    assert_eq!(switch(&client, "testing", "turnFlagOn", "engine"), 200);
    assert_eq!(switch(&client, "development", "turnFlagOn", "engine"), 403);
    for wrong in [
        json!({"repository": "acme/other"}),
        json!({"ref": "refs/tags/v1"}),
        json!({"aud": "another"}),
        json!({"exp": 1_000}),
        json!({"iss": "https://example.com"}),
    ] {
        let answer = exchange(&issuer.token(wrong.clone()));
        assert_eq!(answer.status, 401, "{wrong} {}", answer.text);
    }
    let mut forged = issuer.token(json!({}));
    forged.replace_range(forged.len() - 4.., "AAAA");
    assert_eq!(exchange(&forged).status, 401);
    let audit = |kind: &str| admin.get(&format!("/api/v1/audit?kind={kind}")).text;
    super::eventually("both are on record", || {
        audit("tokenExchanged").contains(bought["id"].as_str().unwrap())
            && audit("credentialRefused").contains("identity token")
    });
    assert!(admin.get("/api/v1/tokens?principal=ci").ok()["tokens"][0].get("hash").is_none());

    let token = issuer.token(json!({}));
    exchange(&token).ok();
    let twice = exchange(&token).problem();
    assert!(twice["status"] == 401 && twice["detail"].as_str().unwrap().contains("already"), "{twice}");
    let token = issuer.token(json!({}));
    let file = tempfile::NamedTempFile::new().unwrap();
    std::fs::write(file.path(), &token).unwrap();
    let quiet = guidon(&server, None, &["token", "exchange", "--quiet", "--file", file.path().to_str().unwrap()]);
    assert!(said(&quiet).starts_with("gdn_svc_"), "{}", said(&quiet));

    let again = admin.post("/api/v1/issuers", &trust).ok();
    let token = issuer.token(json!({}));
    let several = exchange(&token).problem();
    assert!(several["errors"][0]["code"] == "ambiguous", "{several}");
    let named = json!({"token": token, "issuer": again["id"]});
    assert_eq!(
        stranger.post("/api/v1/token-exchange", &named).ok()["name"],
        format!("bought under {}", again["id"].as_str().unwrap())
    );
    for trust in [&trusted, &again] {
        let path = format!("/api/v1/issuers/{}", trust["id"].as_str().unwrap());
        admin.send("DELETE", &path, &[], b"").ok();
    }
    assert_eq!(exchange(&token).status, 401);
    assert_eq!(client.get("/api/v1/projects").status, 200, "what was bought lives on for its minute");

    let mut last = 0;
    for _ in 0..500 {
        last = exchange("not.a.token").status;
        if last == 429 {
            break;
        }
    }
    assert_eq!(last, 429, "guessing is slowed");
}
