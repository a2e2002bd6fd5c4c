//! Which builds of which applications run where: what connected SDK instances say of themselves, how they differ from their
//! peers and from what staging has run, and the first sight of each build, which is an event of the security log.

mod compare;
mod sightings;
mod watch;

pub use self::compare::{Instance, compare};
pub use self::sightings::{Build, MAX_BUILDS, NEW_BUILDS_BURST, NEW_BUILDS_PER_HOUR, Seen, Sightings};
pub use self::watch::Deployments;

#[cfg(test)]
mod tests;
