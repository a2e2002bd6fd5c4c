//! Makes what must be unguessable or unique: salts, ids, credentials.

use rand::RngExt;

use crate::environments::Audience;
use crate::identity::{Credential, CredentialKind};

/// A source of random bytes: a dependency, so that what is made from it can be tested.
pub trait Mint: Send + Sync {
    /// 32 random bytes.
    fn random(&mut self) -> [u8; 32];
}

/// The operating system's randomness, stretched.
#[derive(Clone, Copy, Debug, Default)]
pub struct RandomMint;

impl Mint for RandomMint {
    fn random(&mut self) -> [u8; 32] {
        rand::rng().random()
    }
}

/// A salt: 64 random bits in hexadecimal.
pub(crate) fn salt(mint: &mut dyn Mint) -> String {
    hex(&mint.random()[..8])
}

/// An id with a prefix that says of what, as in `rule-5c0fd1a2`.
pub(crate) fn id(prefix: &str, mint: &mut dyn Mint) -> String {
    format!("{prefix}-{}", hex(&mint.random()[..4]))
}

/// A credential for an SDK.
pub(crate) fn credential(audience: Audience, mint: &mut dyn Mint) -> Credential {
    let kind = match audience {
        Audience::Server => CredentialKind::ServerSdk,
        Audience::Client => CredentialKind::ClientSdk,
    };
    Credential::derive(kind, &mint.random(), &[])
}

pub(crate) fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}
