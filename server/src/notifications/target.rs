//! The URL of a webhook. Its path and query may be a secret, and never show. Pure.

use http::Uri;

/// Longest URL, in bytes.
pub const MAX_URL_BYTES: usize = 2_048;

/// A URL that can be called.
#[derive(Clone, PartialEq, Eq)]
pub struct Target {
    /// Whether TLS is spoken.
    pub tls: bool,
    /// Name or address, without brackets.
    pub host: String,
    /// Port.
    pub port: u16,
    /// Path and query.
    pub path: String,
    authority: String,
}

/// Why a URL is no target.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct BadTarget(&'static str);

impl Target {
    /// Reads a URL.
    ///
    /// # Errors
    ///
    /// [`BadTarget`], which does not repeat the URL.
    pub fn parse(url: &str) -> Result<Self, BadTarget> {
        if url.len() > MAX_URL_BYTES {
            return Err(BadTarget("a URL has at most 2,048 bytes"));
        }
        if url.contains('#') || !url.bytes().all(|byte| byte.is_ascii_graphic()) {
            return Err(BadTarget("a URL has no fragment and no spaces; write other characters percent-encoded"));
        }
        let uri: Uri = url.parse().map_err(|_| BadTarget("this is no URL: it is written https://host/path"))?;
        let tls = match uri.scheme_str() {
            Some("https") => true,
            Some("http") => false,
            _ => return Err(BadTarget("a URL starts with https://")),
        };
        let authority = uri.authority().ok_or(BadTarget("a URL names a host, as https://host/path"))?;
        if authority.as_str().contains('@') {
            return Err(BadTarget("a URL with a user name or password is not called: put the secret into the path"));
        }
        let host = authority.host().trim_start_matches('[').trim_end_matches(']').to_ascii_lowercase();
        let given = authority.as_str().strip_prefix(authority.host()).unwrap_or_default();
        let port = if given.is_empty() { Some(if tls { 443 } else { 80 }) } else { authority.port_u16() };
        let Some(port) = port.filter(|port| *port != 0 && !host.is_empty()) else {
            return Err(BadTarget("a URL names a host and, if it names one, a port from 1 to 65535"));
        };
        let path = uri.path_and_query().map_or("/", |path| path.as_str()).to_owned();
        Ok(Self { tls, host, port, path, authority: authority.as_str().to_ascii_lowercase() })
    }

    /// The URL without what may be secret.
    #[must_use]
    pub fn shown(&self) -> String {
        format!("{}://{}/…", if self.tls { "https" } else { "http" }, self.authority)
    }

    /// The value of the `host` header.
    #[must_use]
    pub fn authority(&self) -> &str {
        &self.authority
    }
}

impl std::fmt::Debug for Target {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(formatter, "Target({})", self.shown())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_target_shows_no_path() {
        let target = Target::parse("https://hooks.Example.com:8443/services/T0/SECRET?x=1").unwrap();
        assert_eq!((target.tls, &*target.host, target.port), (true, "hooks.example.com", 8_443));
        assert_eq!(target.path, "/services/T0/SECRET?x=1");
        assert_eq!(target.shown(), "https://hooks.example.com:8443/…");
        assert!(!format!("{target:?}").contains("SECRET"));
        let short = Target::parse("http://[::1]").unwrap();
        assert_eq!((&*short.host, short.port, &*short.path), ("::1", 80, "/"));
    }

    #[test]
    fn what_is_no_target_is_refused() {
        let long = format!("https://a/{}", "x".repeat(MAX_URL_BYTES));
        for url in [
            "",
            "host/path",
            "ftp://host",
            "file:///etc/passwd",
            "https://",
            "https:///a",
            "https://user@host/",
            "https://user:password@host/",
            "https://host/#a",
            "https://host/a b",
            "https://host:0/",
            "https://host:99999/",
            "//host/a",
            &long,
        ] {
            assert!(Target::parse(url).is_err(), "{url}");
        }
    }
}
