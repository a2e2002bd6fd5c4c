//! Who calls: credentials, the administrator, accounts and sessions of people, and the people and places that journal
//! entries name.

pub mod accounts;
mod administrator;
pub mod credential;
pub mod oidc;
pub mod password;
pub mod recovery;
pub mod sessions;
pub mod sign_in;
pub mod throttle;
pub mod totp;
mod unbroken;

pub use administrator::{Identity, IdentityError, MIN_TOKEN_BYTES, Origin};
pub use credential::{Credential, CredentialKind, MalformedCredential};
