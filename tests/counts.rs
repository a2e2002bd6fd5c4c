//! How much the fault and simulation tests do, and what they say they did.

/// The count to run: `full` where `GUIDON_FULL` is set to anything but `0`, else `reduced`.
pub fn count(reduced: usize, full: usize) -> usize {
    if std::env::var_os("GUIDON_FULL").is_some_and(|value| value != "0") { full } else { reduced }
}

/// Says what a test ran and measured; shown with `--nocapture`.
#[expect(clippy::print_stdout, reason = "what a test measured is for whoever runs it")]
pub fn report(what: &str) {
    println!("{what}");
}
