//! Who sends batches: one connection's instance, and how its clock goes.

use std::sync::Arc;

use super::clock::ClockOffset;
use super::window::InstanceId;
use crate::assignments::Origin;

/// The instance behind one connection. The connection keeps it; 96 bytes and the instance's name.
#[derive(Clone, Debug)]
pub struct Sender {
    /// The environment it counts for.
    pub(super) origin: Origin,
    pub(super) instance: Arc<str>,
    pub(super) id: InstanceId,
    pub(super) epoch: u64,
    pub(super) clock: ClockOffset,
    /// Whether the log says already that it sends what cannot be read.
    pub(super) complained: bool,
}

impl Sender {
    /// The instance that said `instance` and `epoch` in its hello.
    #[must_use]
    pub fn new(origin: Origin, instance: &str, epoch: u64) -> Self {
        // 64 bits: two of 10,000 names share them in one server of 370 billion.
        let hash = blake3::hash(instance.as_bytes());
        let mut bytes = [0; 8];
        bytes.iter_mut().zip(hash.as_bytes()).for_each(|(to, from)| *to = *from);
        let id = InstanceId(u64::from_le_bytes(bytes));
        Self { origin, instance: instance.into(), id, epoch, clock: ClockOffset::default(), complained: false }
    }

    /// Takes note of a message that was sent at `sent_ms` by the instance's clock and came at `now_ms` by the server's.
    pub fn heard(&mut self, sent_ms: u64, now_ms: u64) {
        self.clock.observe(sent_ms, now_ms);
    }
}
