//! The provider that people sign in at, as the operator configures it.

use std::fmt;

/// What the server is known by at the provider.
#[derive(Clone, PartialEq, Eq)]
pub struct ClientSecret(String);

impl ClientSecret {
    /// The secret that the provider gave out.
    #[must_use]
    pub fn new(text: impl Into<String>) -> Self {
        Self(text.into())
    }

    /// Its text, for the provider alone.
    pub(super) fn reveal(&self) -> &str {
        &self.0
    }
}

impl fmt::Debug for ClientSecret {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("ClientSecret(…)")
    }
}

/// An OpenID provider.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ProviderConfig {
    /// Its issuer URL, exactly as its tokens spell it.
    pub issuer: String,
    /// The server's client id there.
    pub client_id: String,
    /// The server's secret there; none for a public client.
    pub client_secret: Option<ClientSecret>,
    /// The claim that lists a person's groups.
    pub groups_claim: String,
    /// Scopes to ask for beside `openid`, `email` and `profile`.
    pub extra_scopes: Vec<String>,
    /// The domains of e-mail addresses whose people may sign in; empty for everybody the provider knows.
    pub allowed_email_domains: Vec<String>,
    /// Authentication context classes (`acr`) that stand for a second factor, beside what `amr` says.
    pub factor_classes: Vec<String>,
}

impl ProviderConfig {
    /// A provider with the usual names for everything.
    #[must_use]
    pub fn new(issuer: impl Into<String>, client_id: impl Into<String>) -> Self {
        Self {
            issuer: issuer.into(),
            client_id: client_id.into(),
            client_secret: None,
            groups_claim: "groups".to_owned(),
            extra_scopes: Vec::new(),
            allowed_email_domains: Vec::new(),
            factor_classes: Vec::new(),
        }
    }

    /// Whether a person with this verified address may sign in.
    pub(super) fn admits(&self, email: Option<&str>) -> bool {
        let domain = email.and_then(|email| email.rsplit_once('@')).map(|(_, domain)| domain);
        let is = |allowed: &String| domain.is_some_and(|domain| domain.eq_ignore_ascii_case(allowed));
        self.allowed_email_domains.is_empty() || self.allowed_email_domains.iter().any(is)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn domains_are_compared_whole() {
        let mut config = ProviderConfig::new("https://id.example", "guidon");
        assert!(config.admits(None));
        config.allowed_email_domains = vec!["Example.com".to_owned()];
        assert!(config.admits(Some("ada@example.COM")));
        for email in [None, Some("ada@notexample.com"), Some("ada@example.com.evil.net"), Some("example.com")] {
            assert!(!config.admits(email), "{email:?}");
        }
        config.client_secret = Some(ClientSecret::new("hush"));
        assert!(!format!("{config:?}").contains("hush"));
    }
}
