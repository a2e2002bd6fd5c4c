//! The integration tests of the whole product, in one binary.

mod architecture;
mod push;
mod support;
mod vectors;
