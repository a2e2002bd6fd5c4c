//! Controlled releases.

pub mod guard;
