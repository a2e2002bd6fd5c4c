//! Makes what must be unguessable or unique: salts, ids, credentials.

use rand::RngExt;

use crate::environments::Audience;

/// A source of random bytes: a dependency, so that what is made from it can be tested.
pub trait Mint: Send {
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

/// A credential of 256 random bits, with a prefix by which scanners for leaked secrets can find it.
pub(crate) fn credential(audience: Audience, mint: &mut dyn Mint) -> String {
    let prefix = match audience {
        Audience::Server => "guidon_sdk_",
        Audience::Client => "guidon_client_",
    };
    format!("{prefix}{}", hex(&mint.random()))
}

pub(crate) fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}
