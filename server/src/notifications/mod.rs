//! Notifications: what happens, told to the webhooks of its project.
//!
//! The write path knows nothing of them. A task for each webhook follows the journal, and the security log where the webhook
//! wants that, from the place that it got to, which is kept in a file. What is sent is read from there again each time.

pub mod address;
pub mod backoff;
pub mod call;
mod edit;
mod event;
mod metrics;
mod payload;
mod record;
mod service;
pub mod signature;
mod store;
mod target;
mod webhook;
mod worker;

pub use call::{Caller, HttpCaller, Resolver, SystemResolver};
pub use edit::WebhookEdit;
pub(crate) use edit::{apply, resolve};
pub use event::{Actor, Environment, Notification, Topic};
pub use metrics::WebhookMetrics;
pub use payload::payload;
pub use record::{DeadLetter, Delivery, HookRecord, MAX_DEAD_LETTERS, MAX_DELIVERIES, Outcome, Position, Streak};
pub use service::{HookError, Notifications, Parts, Running};
pub use store::{FileRecordStore, MemoryRecordStore, RecordStore};
pub use target::{BadTarget, MAX_URL_BYTES, Target};
pub use webhook::{Filters, Format, MAX_FILTER_ENTRIES, MAX_WEBHOOKS, OldSecret, Since, Webhook};

#[cfg(test)]
mod tests;
