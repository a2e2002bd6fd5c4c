//! What the journal says, folded into memory, and kept on disk for a quick start.

mod world;

pub use world::{FlagState, Project, Repeatable, SegmentState, World};
