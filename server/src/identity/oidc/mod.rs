//! Sign-in at an OpenID provider, and identity tokens that buy tokens of ours.
//!
//! A provider is believed for what it signs, and only as far as its discovery document, fetched over TLS from the issuer
//! that the operator named, says which keys are its own.

mod exchange;
mod fetch;
mod flow;
mod issuer;
mod jwt;
mod provider;

pub use self::exchange::{TrustedIssuers, claimed_issuer};
pub use self::flow::{Claims, SignInFlow, Started, challenge_of, random_text};
pub use self::jwt::{MAX_TOKEN_BYTES, TokenProblem};
pub use self::provider::{ClientSecret, ProviderConfig};

/// Why a provider, or what it said, was of no use.
#[derive(Debug, thiserror::Error)]
pub enum OidcError {
    /// A URL is not one that may be asked.
    #[error("{url}: an OpenID provider is reached by https (by http on loopback only), without user or fragment")]
    BadUrl {
        /// The URL.
        url: String,
    },
    /// The provider does not answer.
    #[error("{url}: {problem}; check that the provider is up and reachable from this server")]
    Unreachable {
        /// What was asked.
        url: String,
        /// What happened.
        problem: String,
    },
    /// The provider's answer cannot be used.
    #[error("{url}: {problem}; check the provider's configuration and the issuer URL")]
    BadAnswer {
        /// What was asked.
        url: String,
        /// What is wrong with it.
        problem: String,
    },
    /// The provider does not give a token for the code.
    #[error("the provider refused the code ({error}); sign in again")]
    CodeRefused {
        /// The provider's word for it.
        error: String,
    },
    /// The redirect is not to the machine the person sits at.
    #[error("a redirect goes to http://127.0.0.1:PORT/… or http://[::1]:PORT/…, without user, query or fragment")]
    BadRedirect,
    /// The PKCE challenge or verifier is not of the right form, or they do not belong together.
    #[error("the PKCE verifier does not fit the challenge; RFC 7636 with S256 says how they are made")]
    BadVerifier,
    /// There is no sign-in under way with this state.
    #[error("this sign-in was finished, or begun more than 10 minutes ago; sign in again")]
    UnknownState,
    /// The token does not hold.
    #[error("the identity token does not hold: {0}")]
    Token(#[from] TokenProblem),
    /// The person is of another company.
    #[error("people with this e-mail address may not sign in here; the operator lists the domains that may")]
    EmailDomain,
}

#[cfg(test)]
mod tests;
