//! The Guidon server: flags, segments and releases on an embedded journal, pushed to SDKs over websockets.

pub mod app;
pub mod assignments;
pub mod audit;
pub mod changes;
pub mod cli;
pub mod clock;
pub mod config;
pub mod environments;
pub mod flags;
pub mod http;
pub mod identity;
pub mod jobs;
pub mod journal;
pub mod log;
pub mod metrics;
pub mod policy;
pub mod push;
pub mod releases;
pub mod segments;
pub mod shutdown;
pub mod state;
pub mod telemetry;
pub mod vault;
