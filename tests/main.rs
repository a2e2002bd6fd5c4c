//! The integration tests of the whole product, in one binary.

mod api;
mod architecture;
mod counts;
mod crowd;
mod examples;
mod faults;
mod fuzz;
mod network;
mod oidc;
mod policy_matrix;
mod push;
mod releases;
mod support;
mod vectors;
