//! Progress of what takes long, on standard error, for people only.

use indicatif::{ProgressBar, ProgressStyle};

use super::output::Output;

/// A bar that counts to `total`; hidden from scripts and pipes.
#[must_use]
pub fn bar(output: &Output, total: u64, unit: &'static str) -> ProgressBar {
    if !output.shows_progress() {
        return ProgressBar::hidden();
    }
    let template = format!("{{bar:30}} {{human_pos}} of {{human_len}} {unit}  {{elapsed}}, {{eta}} left");
    let style = ProgressStyle::with_template(&template).unwrap_or_else(|_| ProgressStyle::default_bar());
    ProgressBar::new(total).with_style(style)
}

/// Counts bytes of which nobody knows how many there will be; hidden from scripts and pipes.
#[must_use]
pub fn bytes(output: &Output) -> ProgressBar {
    if !output.shows_progress() {
        return ProgressBar::hidden();
    }
    let style = ProgressStyle::with_template("{spinner} {bytes} in {elapsed}, {bytes_per_sec}");
    ProgressBar::new_spinner().with_style(style.unwrap_or_else(|_| ProgressStyle::default_spinner()))
}
