//! How many connections are let in.

use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::{Duration, Instant};

use parking_lot::Mutex;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use crate::config::RESERVED_DESCRIPTORS;
use crate::telemetry::ConnectionMetrics;

/// Least time between two lines in the log that say that the limit is reached.
const COMPLAINT_INTERVAL: Duration = Duration::from_secs(10);

/// The number of connections to let in: what the operator asked for, or, for 0, what the descriptor limit leaves. Raises the
/// process's soft descriptor limit to its hard one first.
///
/// # Errors
///
/// If more is asked for than the descriptor limit allows; the text says how to raise it.
pub fn connection_limit(asked: usize) -> Result<usize, String> {
    use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
    let limit = getrlimit(Resource::Nofile);
    if limit.current != limit.maximum {
        // Where this is not allowed the soft limit stands.
        let _ = setrlimit(Resource::Nofile, Rlimit { current: limit.maximum, maximum: limit.maximum });
    }
    let descriptors = getrlimit(Resource::Nofile).current.unwrap_or(u64::MAX);
    let available = usize::try_from(descriptors.saturating_sub(RESERVED_DESCRIPTORS).max(1)).unwrap_or(usize::MAX);
    match asked {
        0 => Ok(available.min(Semaphore::MAX_PERMITS)),
        asked if asked <= available => Ok(asked),
        asked => Err(format!(
            "--max-connections {asked} needs {} file descriptors and the process may open {descriptors}: raise the limit \
             (ulimit -n, or LimitNOFILE= in a systemd unit) or ask for at most {available}",
            asked.saturating_add(usize::try_from(RESERVED_DESCRIPTORS).unwrap_or(usize::MAX)),
        )),
    }
}

/// Lets connections in up to a limit. Clones share it.
#[derive(Clone, Debug)]
pub struct Admission {
    places: Arc<Semaphore>,
    limit: usize,
    metrics: ConnectionMetrics,
    complained: Arc<Mutex<Option<Instant>>>,
}

impl Admission {
    /// Room for `limit` connections.
    #[must_use]
    pub fn new(limit: usize, metrics: ConnectionMetrics) -> Self {
        let limit = limit.min(Semaphore::MAX_PERMITS);
        Self { places: Arc::new(Semaphore::new(limit)), limit, metrics, complained: Arc::default() }
    }

    /// Wraps a connection that got a place, which it keeps until it is dropped, also when a stream took it over. `None` if
    /// there is no place left.
    pub fn admit<Io>(&self, io: Io) -> Option<Admitted<Io>> {
        if let Ok(place) = Arc::clone(&self.places).try_acquire_owned() {
            self.metrics.open.inc();
            return Some(Admitted { io, place: Place { _permit: place, metrics: self.metrics.clone() } });
        }
        self.metrics.refused.inc();
        let mut complained = self.complained.lock();
        if complained.is_none_or(|last| last.elapsed() >= COMPLAINT_INTERVAL) {
            *complained = Some(Instant::now());
            tracing::warn!(limit = self.limit, "connections are closed: --max-connections is reached");
        }
        None
    }

    /// Number of connections let in now.
    #[must_use]
    pub fn open(&self) -> usize {
        self.limit - self.places.available_permits()
    }

    /// Done once every connection is gone.
    pub async fn all_gone(&self) {
        // Permits are handed out in whole ranges of u32; a limit beyond that is no limit of any host.
        let all = u32::try_from(self.limit).unwrap_or(u32::MAX);
        // The semaphore is never closed.
        let _ = self.places.acquire_many(all).await;
    }
}

/// A connection that holds one of the places.
#[derive(Debug)]
pub struct Admitted<Io> {
    io: Io,
    place: Place,
}

#[derive(Debug)]
struct Place {
    _permit: OwnedSemaphorePermit,
    metrics: ConnectionMetrics,
}

impl Drop for Place {
    fn drop(&mut self) {
        self.metrics.open.dec();
    }
}

impl<Io> Admitted<Io> {
    /// The connection's own metrics.
    pub(super) fn metrics(&self) -> &ConnectionMetrics {
        &self.place.metrics
    }
}

impl<Io: AsyncRead + Unpin> AsyncRead for Admitted<Io> {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buffer: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.io).poll_read(cx, buffer)
    }
}

impl<Io: AsyncWrite + Unpin> AsyncWrite for Admitted<Io> {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.io).poll_write(cx, bytes)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        slices: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.io).poll_write_vectored(cx, slices)
    }

    fn is_write_vectored(&self) -> bool {
        self.io.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.io).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.io).poll_shutdown(cx)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_place_is_free_again_once_its_connection_is_dropped() {
        let admission = Admission::new(2, ConnectionMetrics::default());
        let (first, second) = (admission.admit(()).unwrap(), admission.admit(()).unwrap());
        assert!(admission.admit(()).is_none());
        assert_eq!((admission.open(), admission.metrics.refused.get()), (2, 1));
        drop(first);
        let third = admission.admit(());
        assert!(third.is_some());
        drop((second, third));
        admission.all_gone().await;
        assert_eq!((admission.open(), admission.metrics.open.get()), (0, 0));
    }

    #[test]
    fn more_connections_than_descriptors_are_refused_with_the_remedy() {
        assert!(connection_limit(0).unwrap() >= 1);
        if let Err(text) = connection_limit(usize::MAX) {
            assert!(text.contains("ulimit -n"), "{text}");
        }
    }
}
