//! Push: every change, to every connected SDK that sees it.
//!
//! [`Hub`] is the registry and takes changes in; each connection is a task that follows one channel (an environment as one
//! audience sees it) and takes shared bytes from it. Nothing here waits for a connection.

mod channel;
mod connection;
mod directives;
mod frame;
mod hub;
mod limits;
mod metrics;
mod patch;
mod probe;
mod receipts;
#[cfg(test)]
mod sample;

pub use connection::{refuse, serve};
pub use directives::DirectiveSource;
pub use hub::{Admission, ConnectionInfo, Hub, Refused, SdkIdentity, Sights};
pub use limits::PushLimits;
pub use metrics::PushMetrics;
pub use patch::{ChannelKey, Extent, between, snapshot};
pub use receipts::{MAX_SLOWEST, Receipts, SlowReceipt};
