//! A plain HTTP client that shows whole answers.

use std::time::Duration;

use serde_json::{Value, json};
use ureq::Agent;
use ureq::http::{HeaderMap, Request};

/// Calls a server's API.
#[derive(Clone)]
pub struct TestClient {
    agent: Agent,
    /// Address of the server, as `http://127.0.0.1:1234`.
    pub url: String,
    token: Option<String>,
}

/// An answer, whole.
#[derive(Debug)]
pub struct Answer {
    /// HTTP status.
    pub status: u16,
    /// Headers.
    pub headers: HeaderMap,
    /// The body as text.
    pub text: String,
}

impl Answer {
    /// The body as JSON; null if it is none.
    pub fn json(&self) -> Value {
        serde_json::from_str(&self.text).unwrap_or_default()
    }

    /// The body as JSON of an answer that must be a success.
    #[track_caller]
    pub fn ok(self) -> Value {
        assert!((200..300).contains(&self.status), "{} {}", self.status, self.text);
        self.json()
    }

    /// A problem document without what differs from request to request.
    #[track_caller]
    pub fn problem(self) -> Value {
        assert_eq!(self.header("content-type"), Some("application/problem+json"), "{} {}", self.status, self.text);
        let mut document = self.json();
        assert_eq!(document["status"], self.status);
        assert_eq!(document["type"], format!("urn:guidon:problem:{}", document["code"].as_str().unwrap_or_default()));
        let instance = document.as_object_mut().and_then(|fields| fields.remove("instance"));
        let id = self.header("x-request-id").unwrap_or_default();
        assert_eq!(instance, Some(json!(format!("urn:guidon:request:{id}"))));
        document
    }

    /// A header, if it is there and text.
    pub fn header(&self, name: &str) -> Option<&str> {
        self.headers.get(name)?.to_str().ok()
    }
}

impl TestClient {
    /// A client with a token.
    pub fn new(url: &str, token: Option<&str>) -> Self {
        let config = Agent::config_builder().http_status_as_error(false).timeout_global(Some(Duration::from_secs(60)));
        Self { agent: config.build().into(), url: url.to_owned(), token: token.map(str::to_owned) }
    }

    /// The credential it presents.
    pub fn credential(&self) -> Option<&str> {
        self.token.as_deref()
    }

    /// The same server, another credential.
    pub fn with_token(&self, token: Option<&str>) -> Self {
        Self { token: token.map(str::to_owned), ..self.clone() }
    }

    /// Sends a request; `Err` only if there was no answer.
    pub fn try_send(
        &self,
        method: &str,
        path: &str,
        headers: &[(&str, &str)],
        body: &[u8],
    ) -> Result<Answer, ureq::Error> {
        let mut request = Request::builder().method(method).uri(format!("{}{path}", self.url));
        if let Some(token) = &self.token {
            request = request.header("authorization", format!("Bearer {token}"));
        }
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        let mut response = self.agent.run(request.body(body).expect("a well-formed request"))?;
        let text = response.body_mut().with_config().limit(256 << 20).read_to_string()?;
        Ok(Answer { status: response.status().as_u16(), headers: response.headers().clone(), text })
    }

    /// Sends a request and expects an answer.
    #[track_caller]
    pub fn send(&self, method: &str, path: &str, headers: &[(&str, &str)], body: &[u8]) -> Answer {
        self.try_send(method, path, headers, body).expect("an answer")
    }

    /// Reads.
    #[track_caller]
    pub fn get(&self, path: &str) -> Answer {
        self.send("GET", path, &[], b"")
    }

    /// Sends JSON.
    #[track_caller]
    pub fn post(&self, path: &str, body: &Value) -> Answer {
        self.send("POST", path, &[("content-type", "application/json")], body.to_string().as_bytes())
    }

    /// Makes a change in an environment of the project `default`.
    #[track_caller]
    pub fn change(&self, environment: &str, instructions: Value) -> Answer {
        let change = json!({"environment": environment, "instructions": instructions});
        self.post("/api/v1/projects/default/changes", &change)
    }

    /// Creates a boolean flag, `on` and `off`, that is off everywhere.
    #[track_caller]
    pub fn create_flag(&self, key: &str) -> u64 {
        let variations = json!([{"key": "on", "value": true}, {"key": "off", "value": false}]);
        let flag = json!({"key": key, "kind": "boolean", "variations": variations});
        let outcome = self.change("development", json!([{"kind": "createFlag", "flag": flag}])).ok();
        outcome["revision"].as_u64().expect("a revision")
    }

    /// Creates a server SDK key and answers its credential.
    #[track_caller]
    pub fn create_sdk_key(&self, environment: &str) -> String {
        let path = format!("/api/v1/projects/default/environments/{environment}/sdk-keys");
        let created = self.post(&path, &json!({"name": "test"})).ok();
        created["key"].as_str().expect("a credential").to_owned()
    }
}
