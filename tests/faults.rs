//! What may go wrong outside of the program: a kill in the middle of writing, damaged files, a full volume.

mod damage;
mod disk;
mod kill;
mod power;
mod rebuild;

use serde_json::{Value, json};

use crate::support::{ServerOptions, TestClient};

/// A server that takes as many writes as come.
fn unthrottled() -> ServerOptions {
    let arguments = ["--max-writes-per-second", "1000000"].map(str::to_owned).to_vec();
    ServerOptions { arguments, ..ServerOptions::default() }
}

/// A change of `development`, with a comment.
fn change(comment: &str, instructions: Value) -> Value {
    json!({"environment": "development", "comment": comment, "instructions": instructions})
}

const CHANGES: &str = "/api/v1/projects/default/changes";

/// Everything the API shows of flags and segments.
fn whole_state(client: &TestClient) -> Vec<Value> {
    let mut pages = Vec::new();
    for path in ["/api/v1/projects/default/flags", "/api/v1/projects/default/environments/development/segments"] {
        let mut after = String::new();
        loop {
            let page = client.get(&format!("{path}?limit=100&after={after}")).ok();
            let next = page["next"].as_str().map(str::to_owned);
            pages.push(page);
            match next {
                Some(next) => after = next,
                None => break,
            }
        }
    }
    pages
}

/// All journal entries of the project, oldest first.
fn journal(client: &TestClient) -> Vec<Value> {
    let (mut entries, mut after) = (Vec::new(), 0);
    loop {
        let page = client.get(&format!("/api/v1/projects/default/journal?after={after}&limit=1000")).ok();
        entries.extend(page["entries"].as_array().expect("a page of entries").iter().cloned());
        match page["next"].as_u64() {
            Some(next) => after = next,
            None => return entries,
        }
    }
}
