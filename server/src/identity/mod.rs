//! Who calls: credentials, the operator, accounts and sessions of people, and the people and places that journal
//! entries name.

pub mod accounts;
pub mod credential;
pub mod directory;
pub mod oidc;
mod operator;
pub mod password;
pub mod recovery;
pub mod sessions;
pub mod sign_in;
pub mod throttle;
pub mod totp;
mod unbroken;
mod uses;

pub use credential::{Credential, CredentialKind, MalformedCredential};
pub use directory::{Directory, DirectoryEdit};
pub use operator::{Identity, IdentityError, MIN_TOKEN_BYTES, OPERATOR, Origin};
pub use uses::{CredentialUse, Uses};
