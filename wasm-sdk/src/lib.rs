//! The Guidon evaluator for JavaScript hosts.

use wasm_bindgen::prelude::wasm_bindgen;

/// Version of the push protocol whose snapshots and patches this module reads.
#[wasm_bindgen(js_name = protocolVersion)]
#[must_use]
pub fn protocol_version() -> u32 {
    guidon_sdk::protocol::PROTOCOL_VERSION
}
