//! Holds nothing: the crate exists for its integration-test binary.
