//! Work that is not to be left half done.

use std::future::Future;

use crate::vault::VaultError;

/// Carries `work` out to its end though nobody wait for it any more: a client that hangs up must not leave a lock released
/// between two writes that belong together.
pub(super) async fn to_the_end<T, E>(work: impl Future<Output = Result<T, E>> + Send + 'static) -> Result<T, E>
where
    T: Send + 'static,
    E: From<VaultError> + Send + 'static,
{
    tokio::spawn(work).await.unwrap_or_else(|_| Err(VaultError::Interrupted.into()))
}
