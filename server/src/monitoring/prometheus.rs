//! Asks other monitoring: the query endpoint of Prometheus, or of what answers as it does.

use std::sync::Arc;
use std::time::Duration;

use futures_util::future::BoxFuture;
use serde::Deserialize;
use serde_json::Value;
use tokio::sync::Semaphore;
use ureq::Agent;
use ureq::tls::{Certificate, RootCerts, TlsConfig, TlsProvider};

use crate::notifications::Target;
use crate::releases::runner::Monitor;

/// Time for a whole exchange, in seconds: less than [`crate::releases::runner::ANSWER_WITHIN`], so that the error says what was
/// late.
pub const TIMEOUT_S: u64 = 4;
/// Largest answer, in bytes: one number has some 200.
pub const MAX_ANSWER_BYTES: u64 = 64 << 10;
/// Questions at once: each holds a thread.
pub const MAX_AT_ONCE: usize = 8;
/// Longest part of a monitor's own error that is repeated, in bytes.
const MAX_REPEATED_BYTES: usize = 200;

/// Why the configured endpoint cannot be asked at all.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum BadEndpoint {
    /// It is no URL.
    #[error("{0}")]
    Url(String),
    /// The token would cross a network in the clear.
    #[error("the token would be sent in the clear: use https, or an address of this machine")]
    TokenInTheClear,
}

/// Why a query has no number.
#[derive(Clone, Debug, PartialEq, thiserror::Error)]
pub enum QueryError {
    /// Nobody answered.
    #[error("monitoring does not answer: {0}")]
    Unreachable(String),
    /// More came than one number has.
    #[error("the answer is over {MAX_ANSWER_BYTES} bytes: the query has to answer one number, as sum(…) does")]
    TooLarge,
    /// The answer is not one of the API.
    #[error("the answer (status {0}) is none of Prometheus' query API: does --prometheus-url name its root?")]
    NotTheApi(u16),
    /// The credential was refused.
    #[error("monitoring refuses the credential (status {0}): give its token by GUIDON_PROMETHEUS_TOKEN")]
    Refused(u16),
    /// The monitor says what is wrong.
    #[error("monitoring refuses the query: {0}")]
    BadQuery(String),
    /// There is nothing to judge.
    #[error("the query finds no series")]
    Nothing,
    /// Nobody could tell which is meant.
    #[error("the query answers {0} series: it has to answer one, as sum(…) does")]
    Many(usize),
    /// It answers something else.
    #[error("the query answers a {0}: it has to answer a scalar or a vector of one")]
    NotANumber(String),
    /// Not a number that can be compared.
    #[error("the query answers {0:?}, which is no finite number")]
    NotFinite(String),
}

/// A Prometheus-compatible query endpoint.
pub struct Prometheus {
    agent: Agent,
    url: String,
    token: Option<String>,
    at_once: Arc<Semaphore>,
}

impl Prometheus {
    /// The endpoint whose root is `url` (`/api/v1/query` is below it); `token` goes along as a bearer token. The operator names
    /// it, so private networks and this machine are as good as any other place, with or without TLS.
    ///
    /// # Errors
    ///
    /// [`BadEndpoint`].
    pub fn new(url: &str, token: Option<String>) -> Result<Self, BadEndpoint> {
        let target = Target::parse(url).map_err(|error| BadEndpoint::Url(error.to_string()))?;
        if target.path.contains('?') {
            return Err(BadEndpoint::Url("give the root of the endpoint, without a query".to_owned()));
        }
        let here = matches!(target.host.as_str(), "127.0.0.1" | "::1" | "localhost");
        if token.is_some() && !target.tls && !here {
            return Err(BadEndpoint::TokenInTheClear);
        }
        let mut tls = TlsConfig::builder().provider(TlsProvider::Rustls);
        if target.tls {
            let found = rustls_native_certs::load_native_certs();
            let roots: Vec<_> = found.certs.iter().map(|root| Certificate::from_der(root).to_owned()).collect();
            // Without roots of its own a system trusts those that came with the server.
            if !roots.is_empty() {
                tls = tls.root_certs(RootCerts::from(roots));
            }
        }
        let config = Agent::config_builder()
            .http_status_as_error(false)
            .max_redirects(0)
            .max_redirects_will_error(false)
            .timeout_global(Some(Duration::from_secs(TIMEOUT_S)))
            .user_agent(concat!("guidon/", env!("CARGO_PKG_VERSION")))
            .tls_config(tls.build())
            .proxy(None);
        Ok(Self {
            agent: config.build().into(),
            url: format!("{}/api/v1/query", url.trim_end_matches('/')),
            token,
            at_once: Arc::new(Semaphore::new(MAX_AT_ONCE)),
        })
    }

    /// The number that `query` answers now.
    ///
    /// # Errors
    ///
    /// [`QueryError`].
    pub async fn query(&self, query: &str) -> Result<f64, QueryError> {
        let unreachable = |problem: String| QueryError::Unreachable(problem);
        let permit = Arc::clone(&self.at_once).acquire_owned().await;
        let permit = permit.map_err(|error| unreachable(error.to_string()))?;
        let mut request = self.agent.get(&self.url).query("query", query).header("accept", "application/json");
        if let Some(token) = &self.token {
            request = request.header("authorization", format!("Bearer {token}"));
        }
        let done = tokio::task::spawn_blocking(move || {
            let _permit = permit;
            let mut response = request.call()?;
            let status = response.status().as_u16();
            let bytes = response.body_mut().with_config().limit(MAX_ANSWER_BYTES).read_to_vec()?;
            Ok::<_, ureq::Error>((status, bytes))
        });
        match done.await {
            Ok(Ok((status, bytes))) => read(status, &bytes),
            Ok(Err(ureq::Error::BodyExceedsLimit(_))) => Err(QueryError::TooLarge),
            Ok(Err(error)) => Err(unreachable(error.to_string())),
            Err(_) => Err(unreachable("the question was interrupted".to_owned())),
        }
    }
}

impl Monitor for Prometheus {
    fn value<'a>(&'a self, query: &'a str) -> BoxFuture<'a, Result<f64, String>> {
        Box::pin(async move { self.query(query).await.map_err(|error| error.to_string()) })
    }
}

#[derive(Deserialize)]
struct Answer {
    data: Option<Data>,
    error: Option<String>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Data {
    result_type: String,
    result: Value,
}

/// The one number of an answer.
fn read(status: u16, bytes: &[u8]) -> Result<f64, QueryError> {
    if matches!(status, 401 | 403) {
        return Err(QueryError::Refused(status));
    }
    let answer: Answer = serde_json::from_slice(bytes).map_err(|_| QueryError::NotTheApi(status))?;
    if let Some(mut error) = answer.error {
        let end = (0..=MAX_REPEATED_BYTES.min(error.len())).rev().find(|at| error.is_char_boundary(*at));
        error.truncate(end.unwrap_or(0));
        return Err(QueryError::BadQuery(error));
    }
    let data = answer.data.filter(|_| status == 200).ok_or(QueryError::NotTheApi(status))?;
    let sample = match (data.result_type.as_str(), &data.result) {
        ("scalar", sample) => sample.get(1),
        ("vector", Value::Array(series)) => match series.as_slice() {
            [] => return Err(QueryError::Nothing),
            [one] => one.get("value").and_then(|sample| sample.get(1)),
            more => return Err(QueryError::Many(more.len())),
        },
        _ => return Err(QueryError::NotANumber(data.result_type.chars().take(20).collect())),
    };
    let text = sample.and_then(Value::as_str).ok_or(QueryError::NotTheApi(status))?;
    let number = text.parse().ok().filter(|number: &f64| number.is_finite());
    number.ok_or_else(|| QueryError::NotFinite(text.chars().take(20).collect()))
}

#[cfg(test)]
#[path = "prometheus_tests.rs"]
mod tests;
