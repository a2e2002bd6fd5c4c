//! Who calls: credentials, the administrator, and the people and places that journal entries name.

mod administrator;
pub mod credential;
pub mod directory;

pub use administrator::{Identity, IdentityError, MIN_TOKEN_BYTES, Origin};
pub use directory::{Directory, DirectoryEdit};
pub use credential::{Credential, CredentialKind, MalformedCredential};
