//! The commands' HTTP client.

use std::io::{BufRead, BufReader, Read};
use std::time::Duration;

use serde::Serialize;
use serde_json::Value;
use ureq::http::{Request, Response};
use ureq::tls::{Certificate, PemItem, RootCerts, TlsConfig, TlsProvider, parse_pem};
use ureq::{Agent, Body};

use super::error::Problem;
use super::profile::{Target, config_path};
use super::{CliError, prompt};

/// Where a session's second factor is proved.
const FACTOR_PATH: &str = "/api/v1/session/factor";
/// Longest time to wait for an answer to begin.
const RESPONSE_TIMEOUT: Duration = Duration::from_secs(60);
/// Largest answer that is read into memory, in bytes.
const MAX_ANSWER_BYTES: u64 = 256 * 1024 * 1024;

/// Talks to one server as one principal.
pub struct Api {
    agent: Agent,
    target: Target,
}

impl Api {
    /// Prepares to talk to `target`; nothing is sent yet.
    ///
    /// # Errors
    ///
    /// If there is no token, or the certificates to trust cannot be read.
    pub fn new(target: Target) -> Result<Self, CliError> {
        if target.token.is_none() {
            return Err(CliError::NoToken(config_path().display().to_string()));
        }
        Self::with(target)
    }

    /// Prepares to talk to `target` as somebody who is still to sign in.
    ///
    /// # Errors
    ///
    /// If the certificates to trust cannot be read.
    pub fn without_credential(target: Target) -> Result<Self, CliError> {
        Self::with(Target { token: None, ..target })
    }

    fn with(target: Target) -> Result<Self, CliError> {
        let mut tls = TlsConfig::builder().provider(TlsProvider::Rustls);
        if let Some(path) = &target.ca_file {
            tls = tls.root_certs(read_certificates(path)?);
        } else if target.server.starts_with("https:") {
            tls = tls.root_certs(system_certificates()?);
        }
        let config = Agent::config_builder()
            .http_status_as_error(false)
            .timeout_connect(Some(Duration::from_secs(10)))
            .timeout_recv_response(Some(RESPONSE_TIMEOUT))
            .user_agent(concat!("guidon-cli/", env!("CARGO_PKG_VERSION")))
            .tls_config(tls.build())
            .build();
        Ok(Self { agent: config.into(), target })
    }

    /// Key of the project that commands are about.
    #[must_use]
    pub fn project(&self) -> &str {
        &self.target.project
    }

    /// Path below the project.
    #[must_use]
    pub fn in_project(&self, rest: &str) -> String {
        format!("/api/v1/projects/{}{rest}", encode(&self.target.project))
    }

    /// Path below an environment of the project.
    #[must_use]
    pub fn in_environment(&self, environment: &str, rest: &str) -> String {
        self.in_project(&format!("/environments/{}{rest}", encode(environment)))
    }

    /// Reads a resource.
    pub fn get(&self, path: &str, query: &[(&str, String)]) -> Result<Value, CliError> {
        json(self.send("GET", path, query, None::<&()>)?)
    }

    /// Sends a document. Each call is one write: sending it again after a lost answer does not do it twice.
    pub fn post(&self, path: &str, body: &impl Serialize) -> Result<Value, CliError> {
        json(self.send("POST", path, &[], Some(body))?)
    }

    /// Sends what is to change of a resource, as [`Self::post`] does.
    pub fn patch(&self, path: &str, body: &impl Serialize) -> Result<Value, CliError> {
        json(self.send("PATCH", path, &[], Some(body))?)
    }

    /// Puts a document in its place.
    pub fn put(&self, path: &str, body: &impl Serialize) -> Result<Value, CliError> {
        json(self.send("PUT", path, &[], Some(body))?)
    }

    /// The id that people mean by `word` among what `path` lists as `field`: an id, or the only one of that name.
    pub fn id_of(&self, path: &str, field: &str, word: &str) -> Result<String, CliError> {
        let items = self.get_all(path, field, &[])?;
        if items.iter().any(|item| item["id"] == *word) {
            return Ok(word.to_owned());
        }
        let named: Vec<&str> =
            items.iter().filter(|item| item["name"] == *word).filter_map(|item| item["id"].as_str()).collect();
        match named.as_slice() {
            [id] => Ok((*id).to_owned()),
            [] => Ok(word.to_owned()),
            several => {
                Err(CliError::Usage(format!("several are called \"{word}\"; name one by id: {}", several.join(", "))))
            }
        }
    }

    /// Deletes a resource.
    pub fn delete(&self, path: &str) -> Result<Value, CliError> {
        json(self.send("DELETE", path, &[], None::<&()>)?)
    }

    /// Reads every page of a list: the items of `field`, following `next`.
    pub fn get_all(&self, path: &str, field: &str, query: &[(&str, String)]) -> Result<Vec<Value>, CliError> {
        let mut items = Vec::new();
        let mut after: Option<String> = None;
        loop {
            let mut page_query: Vec<_> =
                query.iter().filter(|(name, _)| *name != "after" || after.is_none()).cloned().collect();
            if let Some(after) = &after {
                page_query.push(("after", after.clone()));
            }
            let mut page = self.get(path, &page_query)?;
            if let Some(Value::Array(page_items)) = page.get_mut(field).map(Value::take) {
                items.extend(page_items);
            }
            match page.get("next") {
                Some(Value::String(next)) => after = Some(next.clone()),
                Some(Value::Number(next)) => after = Some(next.to_string()),
                _ => return Ok(items),
            }
        }
    }

    /// Reads an answer line by line as it arrives; also answers the response's headers by name.
    pub fn lines(
        &self,
        path: &str,
        query: &[(&str, String)],
    ) -> Result<impl Iterator<Item = std::io::Result<String>> + use<>, CliError> {
        let response = self.send("GET", path, query, None::<&()>)?;
        Ok(BufReader::new(response.into_body().into_reader()).lines())
    }

    /// Reads an answer's bytes as they arrive.
    pub fn reader(&self, path: &str, query: &[(&str, String)]) -> Result<impl Read + use<>, CliError> {
        Ok(self.send("GET", path, query, None::<&()>)?.into_body().into_reader())
    }

    fn send(
        &self,
        method: &str,
        path: &str,
        query: &[(&str, String)],
        body: Option<&impl Serialize>,
    ) -> Result<Response<Body>, CliError> {
        let mut uri = format!("{}{path}", self.target.server);
        for (index, (name, value)) in query.iter().enumerate() {
            uri.push(if index == 0 { '?' } else { '&' });
            uri.push_str(&format!("{name}={}", encode(value)));
        }
        let bytes =
            body.map(serde_json::to_vec).transpose().map_err(|error| CliError::Unexpected(error.to_string()))?;
        let repeat_key = uuid::Uuid::new_v4().to_string();
        let attempt = || {
            let mut request = Request::builder().method(method).uri(&uri).header("accept", "application/json");
            if let Some(token) = &self.target.token {
                request = request.header("authorization", format!("Bearer {token}"));
            }
            if bytes.is_some() {
                request = request.header("content-type", "application/json").header("idempotency-key", &repeat_key);
            }
            let request = request.body(bytes.clone().unwrap_or_default());
            let request = request.map_err(|error| CliError::Usage(format!("{uri}: {error}")))?;
            self.agent.run(request).map_err(|error| self.unreachable(&error))
        };
        // The idempotency key makes a second attempt safe when the answer to the first was lost.
        let response = attempt().or_else(|error| if bytes.is_some() { attempt() } else { Err(error) })?;
        if response.status().is_success() {
            return Ok(response);
        }
        let problem = problem(response);
        if !needs_factor(&problem) || !prompt::is_possible() || path == FACTOR_PATH {
            return Err(problem);
        }
        // Nothing was done: the person at the terminal proves the factor, and the same request is sent once more.
        eprintln!("This needs a second factor that was proved in the last ten minutes.");
        self.post(FACTOR_PATH, &serde_json::json!({ "code": prompt::secret("Code", "GUIDON_CODE")? }))?;
        let response = attempt()?;
        if response.status().is_success() { Ok(response) } else { Err(self::problem(response)) }
    }

    fn unreachable(&self, error: &ureq::Error) -> CliError {
        let mut reason = error.to_string();
        if reason.contains("CaUsedAsEndEntity") {
            reason = "its certificate is that of an authority, which may not serve too; make one with \
                      `openssl req -x509 … -addext basicConstraints=critical,CA:FALSE`"
                .to_owned();
        } else if reason.contains("UnknownIssuer") {
            reason.push_str("; --ca-file or GUIDON_CA_FILE names the certificate to trust");
        }
        CliError::Unreachable { server: self.target.server.clone(), reason }
    }
}

fn needs_factor(error: &CliError) -> bool {
    matches!(error, CliError::Problem(problem) if problem.document["code"] == "factorNeeded")
}

fn json(response: Response<Body>) -> Result<Value, CliError> {
    let bytes = read(response)?;
    if bytes.is_empty() {
        return Ok(Value::Null);
    }
    serde_json::from_slice(&bytes)
        .map_err(|error| CliError::Unexpected(format!("the server's answer is not JSON: {error}")))
}

fn read(response: Response<Body>) -> Result<Vec<u8>, CliError> {
    let mut bytes = Vec::new();
    response.into_body().into_reader().take(MAX_ANSWER_BYTES).read_to_end(&mut bytes)?;
    Ok(bytes)
}

fn problem(response: Response<Body>) -> CliError {
    let status = response.status().as_u16();
    let document = read(response).ok().and_then(|bytes| serde_json::from_slice(&bytes).ok()).unwrap_or_default();
    CliError::Problem(Problem { status, document })
}

fn read_certificates(path: &std::path::Path) -> Result<RootCerts, CliError> {
    let wrong = |reason: String| CliError::Usage(format!("{}: {reason}", path.display()));
    let pem = std::fs::read(path).map_err(|error| wrong(error.to_string()))?;
    let mut certificates: Vec<Certificate<'static>> = Vec::new();
    for item in parse_pem(&pem) {
        if let PemItem::Certificate(certificate) = item.map_err(|error| wrong(error.to_string()))? {
            certificates.push(certificate);
        }
    }
    if certificates.is_empty() {
        return Err(wrong("holds no certificate in PEM form".to_owned()));
    }
    Ok(RootCerts::from(certificates))
}

/// The certificates this system trusts.
fn system_certificates() -> Result<RootCerts, CliError> {
    let found = rustls_native_certs::load_native_certs();
    if found.certs.is_empty() {
        let reasons: Vec<String> = found.errors.iter().map(ToString::to_string).collect();
        return Err(CliError::Usage(format!(
            "this system has no root certificates ({}); name the one to trust with --ca-file",
            reasons.join("; ")
        )));
    }
    let certificates: Vec<_> =
        found.certs.iter().map(|certificate| Certificate::from_der(certificate).to_owned()).collect();
    Ok(RootCerts::from(certificates))
}

/// Percent-encodes everything but RFC 3986's unreserved characters.
#[must_use]
pub fn encode(text: &str) -> String {
    text.bytes().fold(String::with_capacity(text.len()), |mut encoded, byte| {
        if byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'.' | b'_' | b'~') {
            encoded.push(char::from(byte));
        } else {
            encoded.push_str(&format!("%{byte:02X}"));
        }
        encoded
    })
}
