//! Asking a provider: TLS, a time limit, a size limit, and no redirects.

use std::sync::Arc;
use std::time::Duration;

use http::Uri;
use serde_json::Value;
use tokio::sync::Semaphore;
use ureq::tls::{Certificate, RootCerts, TlsConfig, TlsProvider};
use ureq::{Agent, Body};

use super::OidcError;

/// Time for a whole exchange, in seconds.
const TIMEOUT_S: u64 = 10;
/// Largest answer, in bytes.
const MAX_ANSWER_BYTES: u64 = 1 << 20;
/// Requests to one provider at once: each holds a thread.
const MAX_AT_ONCE: usize = 8;

/// Asks one provider.
pub(super) struct Fetcher {
    agent: Agent,
    /// Whether the provider is on this machine, where http will do.
    loopback: bool,
    at_once: Arc<Semaphore>,
}

/// An answer: the status and the document.
pub(super) struct Answer {
    pub(super) status: u16,
    pub(super) document: Value,
}

impl Fetcher {
    /// Prepares to ask the provider whose issuer URL is `issuer`.
    pub(super) fn new(issuer: &str) -> Result<Self, OidcError> {
        let loopback = match scheme(issuer) {
            Some(Scheme::Https) => false,
            Some(Scheme::LoopbackHttp) => true,
            None => return Err(OidcError::BadUrl { url: issuer.to_owned() }),
        };
        let mut tls = TlsConfig::builder().provider(TlsProvider::Rustls);
        if !loopback {
            let found = rustls_native_certs::load_native_certs();
            let roots: Vec<_> = found.certs.iter().map(|root| Certificate::from_der(root).to_owned()).collect();
            // Without roots of its own a system trusts those that came with the server.
            if !roots.is_empty() {
                tls = tls.root_certs(RootCerts::from(roots));
            }
        }
        let mut config = Agent::config_builder()
            .http_status_as_error(false)
            .https_only(!loopback)
            .max_redirects(0)
            .max_redirects_will_error(false)
            .timeout_global(Some(Duration::from_secs(TIMEOUT_S)))
            .user_agent(concat!("guidon/", env!("CARGO_PKG_VERSION")))
            .tls_config(tls.build());
        if loopback {
            config = config.proxy(None);
        }
        Ok(Self { agent: config.build().into(), loopback, at_once: Arc::new(Semaphore::new(MAX_AT_ONCE)) })
    }

    /// Whether `url`, which the provider named, may be asked.
    pub(super) fn check(&self, url: &str) -> Result<(), OidcError> {
        match scheme(url) {
            Some(Scheme::Https) => Ok(()),
            Some(Scheme::LoopbackHttp) if self.loopback => Ok(()),
            _ => Err(OidcError::BadUrl { url: url.to_owned() }),
        }
    }

    /// Reads a document.
    pub(super) async fn get(&self, url: &str) -> Result<Value, OidcError> {
        self.check(url)?;
        let (agent, target) = (self.agent.clone(), url.to_owned());
        let call = move || agent.get(&target).header("accept", "application/json").call();
        let answer = self.run(url, call).await?;
        if answer.status == 200 {
            return Ok(answer.document);
        }
        Err(OidcError::BadAnswer { url: url.to_owned(), problem: format!("answered with status {}", answer.status) })
    }

    /// Sends a form, and `authorization` if there is one.
    pub(super) async fn post_form(
        &self,
        url: &str,
        form: Vec<(&'static str, String)>,
        authorization: Option<String>,
    ) -> Result<Answer, OidcError> {
        self.check(url)?;
        let (agent, target) = (self.agent.clone(), url.to_owned());
        let call = move || {
            let mut request = agent.post(&target).header("accept", "application/json");
            if let Some(authorization) = authorization {
                request = request.header("authorization", authorization);
            }
            request.send_form(form)
        };
        self.run(url, call).await
    }

    async fn run(
        &self,
        url: &str,
        call: impl FnOnce() -> Result<http::Response<Body>, ureq::Error> + Send + 'static,
    ) -> Result<Answer, OidcError> {
        let unreachable = |problem: String| OidcError::Unreachable { url: url.to_owned(), problem };
        let permit = Arc::clone(&self.at_once).acquire_owned().await;
        let permit = permit.map_err(|_| unreachable("the server is stopping".to_owned()))?;
        let done = tokio::task::spawn_blocking(move || {
            let _permit = permit;
            let mut response = call()?;
            let status = response.status().as_u16();
            let bytes = response.body_mut().with_config().limit(MAX_ANSWER_BYTES).read_to_vec()?;
            Ok::<_, ureq::Error>((status, bytes))
        });
        let (status, bytes) = match done.await {
            Ok(Ok(answer)) => answer,
            Ok(Err(ureq::Error::BodyExceedsLimit(_))) => {
                return Err(OidcError::BadAnswer {
                    url: url.to_owned(),
                    problem: "the answer is over 1 MiB".to_owned(),
                });
            }
            Ok(Err(error)) => return Err(unreachable(error.to_string())),
            Err(_) => return Err(unreachable("the request was interrupted".to_owned())),
        };
        // An error may come without a document; the status says enough.
        let document = match serde_json::from_slice(&bytes) {
            Ok(document) => document,
            Err(_) if status != 200 => Value::Null,
            Err(_) => {
                return Err(OidcError::BadAnswer { url: url.to_owned(), problem: "the answer is not JSON".to_owned() });
            }
        };
        Ok(Answer { status, document })
    }
}

enum Scheme {
    Https,
    LoopbackHttp,
}

/// How `url` is reached, if it is by a way that is allowed at all.
fn scheme(url: &str) -> Option<Scheme> {
    let plain = !url.contains('#') && url.bytes().all(|byte| byte.is_ascii_graphic());
    let uri: Uri = url.parse().ok().filter(|_| plain)?;
    let authority = uri.authority().filter(|authority| !authority.as_str().contains('@'))?;
    match uri.scheme_str()? {
        "https" => Some(Scheme::Https),
        "http" if matches!(authority.host(), "127.0.0.1" | "[::1]" | "localhost") => Some(Scheme::LoopbackHttp),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_tls_or_this_machine_is_asked() {
        for url in ["https://id.example", "https://id.example:8443/realms/a", "http://127.0.0.1:1", "http://[::1]:1/a"]
        {
            assert!(Fetcher::new(url).is_ok(), "{url}");
        }
        for url in [
            "",
            "id.example",
            "http://id.example",
            "http://127.0.0.1.evil.example",
            "http://localhost@evil.example",
            "https://user:password@id.example",
            "https://id.example/#x",
            "https://id.example/a b",
            "file:///etc/passwd",
            "ftp://127.0.0.1",
        ] {
            assert!(Fetcher::new(url).is_err(), "{url}");
        }
        let far = Fetcher::new("https://id.example").unwrap();
        assert!(far.check("https://keys.example/jwks").is_ok());
        assert!(far.check("http://127.0.0.1:9200/jwks").is_err(), "no provider points us at our own machine");
    }
}
