//! The rules of flags: what each instruction means, and what a definition must be. Pure.

mod apply;
pub(crate) mod diff;
mod published;
pub(crate) mod references;
mod resolve;
mod rollout;
pub mod schema;
mod served;
mod snapshot;
mod targets;

pub(crate) use apply::apply;
pub(crate) use published::{KnownKeys, publish_clauses};
pub use published::{publish, visit_clauses, visit_config, visit_flag};
pub use references::segments_of;
pub(crate) use resolve::resolve;
pub(crate) use rollout::check_variation;
pub(crate) use served::note_served;
pub use served::{ServedVariations, fingerprint};
pub use snapshot::snapshot_of;
