//! How the server bears load, beside floors measured in the same run: `cargo bench -p guidon-tests --bench load -- 1000 10000`.
//!
//! The server runs in a process of its own, the clients in this one, on addresses 127.0.0.2 and up. The numbers are the
//! sizes of the push part, in connections; `push` or `writes` among the arguments measures that part alone.
#![allow(clippy::print_stdout, reason = "a benchmark prints its table")]

#[path = "../../support/mod.rs"]
#[allow(dead_code, unused_imports, reason = "the tests use the rest")]
mod support;

mod connections;
mod push;
mod role;
mod writes;

fn main() {
    let arguments: Vec<String> = std::env::args().skip(1).filter(|argument| !argument.starts_with("--")).collect();
    let runtime = tokio::runtime::Runtime::new().unwrap();
    match arguments.first().map(String::as_str) {
        Some("server") => runtime.block_on(role::run_server(&arguments[1])),
        Some("floor") => role::run_floor(arguments[1].parse().unwrap(), arguments[2].parse().unwrap()),
        // `cargo test --all-targets` runs this too, and means only that it starts.
        None if !std::env::args().any(|argument| argument == "--bench") => {}
        _ => runtime.block_on(measure(&arguments)),
    }
}

async fn measure(arguments: &[String]) {
    let sizes = arguments.iter().filter_map(|size| size.parse().ok()).collect::<Vec<usize>>();
    let sizes = if sizes.is_empty() { &[1_000, 10_000] } else { &*sizes };
    let is_wanted = |part: &str| {
        let chosen = |name: &str| arguments.iter().any(|argument| argument == name);
        chosen(part) || !(chosen("push") || chosen("writes"))
    };
    println!("cargo bench -p guidon-tests --bench load -- {}", arguments.join(" "));
    if is_wanted("push") {
        for &count in sizes {
            push::measure(count).await;
        }
    }
    if is_wanted("writes") {
        writes::measure().await;
    }
}

/// The value below which `part` of the sorted values lie.
fn at(sorted: &[f64], part: f64) -> f64 {
    sorted[((sorted.len() - 1) as f64 * part) as usize]
}

/// The middle of the values.
fn median(mut values: Vec<f64>) -> f64 {
    values.sort_by(f64::total_cmp);
    at(&values, 0.5)
}
