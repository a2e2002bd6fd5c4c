//! Address of a server, and what may be sent there.

use std::io;
use std::net::IpAddr;
use std::sync::Arc;

use http::Uri;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, ServerName};

/// What is wrong with the way a client is set up.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ConfigError {
    /// The server's address is not of the form `https://host[:port][/path]`.
    #[error("the server address {0:?} is not of the form https://host[:port][/path]")]
    Address(String),
    /// The address is neither loopback nor HTTPS.
    #[error(
        "the SDK key and raw unit ids would go to {0} unencrypted: use https://, or call allow_plaintext() where the network \
         between is trusted"
    )]
    Plaintext(String),
    /// The SDK key is empty or holds characters that cannot be sent.
    #[error("the SDK key is empty or holds characters other than visible ASCII")]
    SdkKey,
    /// The application's name, version, commit or image, or the instance id, is too long or has control characters, or the instance id is
    /// empty.
    #[error("{0} must have at most {max} bytes and no control characters, and the instance id at least one byte", max = super::MAX_NAME_BYTES)]
    Name(&'static str),
    /// A root certificate is not PEM, or there is none in it.
    #[error("the root certificate is not usable: {0}")]
    RootCertificate(String),
    /// The system has no usable root certificates.
    #[error("no root certificates were found on this system ({0}); name one with root_certificate()")]
    NoRootCertificates(String),
    /// There is no tokio runtime to run on.
    #[error("connect() must be called within a tokio runtime")]
    NoRuntime,
}

/// Address of a server.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Endpoint {
    host: String,
    port: u16,
    tls: bool,
    /// Without a slash at the end.
    prefix: String,
}

impl Endpoint {
    pub(super) fn parse(address: &str, allow_plaintext: bool) -> Result<Self, ConfigError> {
        // What stands before an `@` may be a password and is not repeated.
        let wrong = || ConfigError::Address(address.rsplit('@').next().unwrap_or_default().to_owned());
        let uri: Uri = address.trim().parse().map_err(|_| wrong())?;
        let tls = match uri.scheme_str() {
            Some("https" | "wss") => true,
            Some("http" | "ws") => false,
            _ => return Err(wrong()),
        };
        let authority = uri.authority().ok_or_else(wrong)?;
        let host = authority.host().trim_start_matches('[').trim_end_matches(']').to_owned();
        if host.is_empty() || authority.as_str().contains('@') || uri.query().is_some() {
            return Err(wrong());
        }
        let endpoint = Self {
            host,
            port: authority.port_u16().unwrap_or(if tls { 443 } else { 80 }),
            tls,
            prefix: uri.path().trim_end_matches('/').to_owned(),
        };
        if !tls && !allow_plaintext && !endpoint.is_loopback() {
            return Err(ConfigError::Plaintext(endpoint.host));
        }
        Ok(endpoint)
    }

    fn is_loopback(&self) -> bool {
        self.host == "localhost" || self.host.parse::<IpAddr>().is_ok_and(|address| address.is_loopback())
    }

    pub(super) fn host(&self) -> &str {
        &self.host
    }

    pub(super) fn port(&self) -> u16 {
        self.port
    }

    pub(super) fn uses_tls(&self) -> bool {
        self.tls
    }

    /// Host and port, as in a `Host` header.
    pub(super) fn authority(&self) -> String {
        if self.host.contains(':') {
            format!("[{}]:{}", self.host, self.port)
        } else {
            format!("{}:{}", self.host, self.port)
        }
    }

    pub(super) fn path(&self, path: &str) -> String {
        format!("{}{path}", self.prefix)
    }

    pub(super) fn websocket_url(&self, path: &str) -> String {
        let scheme = if self.tls { "wss" } else { "ws" };
        format!("{scheme}://{}{}", self.authority(), self.path(path))
    }

    pub(super) fn server_name(&self) -> io::Result<ServerName<'static>> {
        ServerName::try_from(self.host.clone()).map_err(|error| io::Error::new(io::ErrorKind::InvalidInput, error))
    }
}

impl std::fmt::Display for Endpoint {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let scheme = if self.tls { "https" } else { "http" };
        write!(formatter, "{scheme}://{}{}", self.authority(), self.prefix)
    }
}

/// Certificates that are trusted: those given as PEM, or the system's if none is given.
pub(super) fn tls_connector(root_certificates: &[Vec<u8>]) -> Result<tokio_rustls::TlsConnector, ConfigError> {
    let mut roots = rustls::RootCertStore::empty();
    for pem in root_certificates {
        let before = roots.len();
        for certificate in CertificateDer::pem_slice_iter(pem) {
            let certificate = certificate.map_err(|error| ConfigError::RootCertificate(error.to_string()))?;
            roots.add(certificate).map_err(|error| ConfigError::RootCertificate(error.to_string()))?;
        }
        if roots.len() == before {
            return Err(ConfigError::RootCertificate("there is no certificate in it".to_owned()));
        }
    }
    if root_certificates.is_empty() {
        let found = rustls_native_certs::load_native_certs();
        roots.add_parsable_certificates(found.certs);
        if roots.is_empty() {
            let why = found.errors.iter().map(ToString::to_string).collect::<Vec<_>>().join("; ");
            return Err(ConfigError::NoRootCertificates(why));
        }
    }
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let config = rustls::ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .map_err(|error| ConfigError::RootCertificate(error.to_string()))?
        .with_root_certificates(roots)
        .with_no_client_auth();
    Ok(tokio_rustls::TlsConnector::from(Arc::new(config)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_are_read() {
        let endpoint = Endpoint::parse("https://flags.example.com/guidon/", false).unwrap();
        assert_eq!(endpoint.websocket_url("/a"), "wss://flags.example.com:443/guidon/a");
        assert_eq!(endpoint.to_string(), "https://flags.example.com:443/guidon");
        let endpoint = Endpoint::parse("http://[::1]:8080", false).unwrap();
        assert_eq!(endpoint.authority(), "[::1]:8080");
        assert_eq!(endpoint.path("/a?b"), "/a?b");
        assert!(!endpoint.uses_tls());
    }

    #[test]
    fn bad_addresses_are_refused() {
        for address in
            ["", "flags", "ftp://flags", "https://", "https://user:secret@host", "https://host?x=1", "http:///x"]
        {
            assert!(matches!(Endpoint::parse(address, true), Err(ConfigError::Address(_))), "{address}");
        }
    }

    #[test]
    fn plaintext_needs_loopback_or_permission() {
        for address in ["http://flags:8080", "http://10.0.0.7"] {
            assert!(matches!(Endpoint::parse(address, false), Err(ConfigError::Plaintext(_))), "{address}");
            assert!(Endpoint::parse(address, true).is_ok());
        }
        for address in ["http://localhost", "http://127.0.0.9:1", "http://[::1]"] {
            assert!(Endpoint::parse(address, false).is_ok(), "{address}");
        }
    }

    #[test]
    fn root_certificates_must_be_pem() {
        assert!(matches!(tls_connector(&[b"nothing".to_vec()]), Err(ConfigError::RootCertificate(_))));
    }
}
