//! Learned baselines: what is unlike a series' own past.
//!
//! [`Detector`] learns level, season and noise of one series as it streams, and scores each point from 0 to 1; the one knob is
//! the [`Sensitivity`]. Pure: no clock, no storage, no randomness. [`nab`] scores it on the Numenta Anomaly Benchmark.

mod detector;
pub mod nab;
mod records;
mod season;
mod tuning;

pub use detector::{Cause, Detector, Reading, Refused, Sensitivity};
pub use tuning::Tuning;

#[cfg(test)]
mod detector_tests;
#[cfg(test)]
mod nab_tests;
