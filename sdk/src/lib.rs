//! Guidon's SDK: decide in-process, with no network round-trip, which code path a user gets.
//!
//! The crate has two halves. The pure half ([`model`], [`validate`], [`eval`], [`snapshot`], [`protocol`], [`measure`]) has no I/O, no clock
//! and no randomness, and builds for WASM; the server and the WASM package use it with `default-features = false`. The
//! network client behind the default feature `client` keeps a snapshot current and reports what was served.
//!
//! ```no_run
//! # #[cfg(feature = "client")] {
//! use guidon_sdk::{Client, Context};
//!
//! # #[derive(Clone)]
//! # struct Document;
//! # fn summary(_: &Document) -> String { String::new() }
//! # fn ai_summary(_: &Document) -> Result<String, std::io::Error> { Ok(String::new()) }
//! # async fn example(sdk_key: String, doc: Document) -> Result<(), Box<dyn std::error::Error>> {
//! let guidon = Client::builder("http://127.0.0.1:8080", sdk_key).snapshot_file("flags.json").connect().await?;
//! let context = Context::new("user-42").with("country", "US").with("appVersion", "2.4.0");
//!
//! // Getters take a default. They never fail and never block.
//! if guidon.bool("new-checkout", &context, false) {
//!     // the new checkout
//! }
//! let engine = guidon.detail::<String>("summary-engine", &context);
//! println!("{:?} because {}", engine.value, engine.reason);
//!
//! // The AI-written path runs only for those it is rolled out to, and the baseline answers wherever it fails.
//! let text = guidon.path("summary-engine", &context).ai(|| ai_summary(&doc)).baseline(|| summary(&doc)).run();
//!
//! // What it does to errors, latency and CPU time is measured. What it does to anything else the application says.
//! guidon.track("summary-words", &context, text.split_whitespace().count() as f64);
//!
//! // In a release's shadow step the AI path may run beside the baseline: only if running it has no side effects.
//! let copy = doc.clone();
//! let path = guidon.path("summary-engine", &context).ai(move || ai_summary(&copy)).baseline(|| summary(&doc));
//! let text = path.shadow(|human, ai| human.len().abs_diff(ai.len()) < 100).run();
//! # drop(text);
//! # Ok(()) } }
//! ```

#[cfg(feature = "client")]
pub mod client;
pub mod eval;
pub mod measure;
pub mod model;
pub mod protocol;
pub mod snapshot;
#[cfg(feature = "testing")]
pub mod testing;
pub mod validate;

#[cfg(feature = "client")]
pub use client::{Client, ClientBuilder, ConnectError, Detail, FlagHandle, State};
pub use model::{AttributeValue, Context};
