//! Guidon's SDK: decide in-process, with no network round-trip, which code path a user gets.
//!
//! The crate has two halves. The pure half ([`model`], [`validate`], [`eval`], [`snapshot`], [`protocol`]) has no I/O, no clock
//! and no randomness, and builds for WASM; the server and the WASM package use it with `default-features = false`. The
//! network client behind the default feature `client` keeps a snapshot current and reports what was served.

pub mod eval;
pub mod model;
pub mod protocol;
pub mod snapshot;
pub mod validate;

pub use model::{AttributeValue, Context};
