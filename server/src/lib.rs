//! The Guidon server: flags, segments and releases on an embedded journal, pushed to SDKs over websockets.

pub mod assignments;
pub mod changes;
pub mod cli;
pub mod clock;
pub mod environments;
pub mod flags;
pub mod journal;
pub mod log;
pub mod push;
pub mod segments;
pub mod state;
pub mod vault;
