//! Clears away sessions that are over and invitations that nobody claimed.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use futures_util::FutureExt;
use futures_util::future::BoxFuture;

use super::Job;
use crate::identity::sign_in::SignIn;

/// How often: every ten minutes, in milliseconds. What is over opens nothing in between either.
const EVERY_MS: u64 = 10 * 60 * 1_000;

/// Clears away what is over, so that the vault does not grow without bound.
pub struct Sweep {
    sign_in: Arc<SignIn>,
    next: AtomicU64,
}

impl Sweep {
    /// Sweeps sessions and invitations of `sign_in`.
    #[must_use]
    pub fn new(sign_in: Arc<SignIn>) -> Self {
        Self { sign_in, next: AtomicU64::new(0) }
    }
}

impl Job for Sweep {
    fn name(&self) -> &'static str {
        "sweep"
    }

    fn tick(&self, now: u64) -> BoxFuture<'_, ()> {
        async move {
            if now < self.next.load(Ordering::Relaxed) {
                return;
            }
            self.next.store(now + EVERY_MS, Ordering::Relaxed);
            if let Err(error) = self.sign_in.sessions().sweep(now).await {
                tracing::warn!(%error, "sessions that are over could not be cleared away; tried again later");
            }
            if let Err(error) = self.sign_in.accounts().sweep(now).await {
                tracing::warn!(%error, "invitations that are over could not be cleared away; tried again later");
            }
        }
        .boxed()
    }
}
