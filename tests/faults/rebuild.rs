//! The state is rebuilt from the journal when its copy is gone.

use std::time::Instant;

use serde_json::json;

use super::{CHANGES, change, unthrottled, whole_state};
use crate::counts::{count, report};
use crate::support::ServerProcess;

const WRITERS: usize = 8;

#[test]
fn a_state_without_its_copy_is_rebuilt_the_same() {
    let (flags, entries) = (count(200, 2_000), count(3_000, 100_000));
    let mut server = ServerProcess::start_with(unthrottled());
    let create = |flag: usize| {
        let variations = json!([{"key": "on", "value": true}, {"key": "off", "value": false}]);
        json!({"kind": "createFlag", "flag": {"key": format!("flag-{flag}"), "kind": "boolean", "variations": variations}})
    };
    for first in (0..flags).step_by(100) {
        let instructions: Vec<_> = (first..flags.min(first + 100)).map(create).collect();
        server.client.post(CHANGES, &change("", instructions.into())).ok();
    }
    std::thread::scope(|scope| {
        for writer in 0..WRITERS {
            let client = server.client.clone();
            scope.spawn(move || {
                for number in 0..entries.div_ceil(WRITERS) {
                    let flag = format!("flag-{}", (writer + number * WRITERS) % flags);
                    let ai = 1 + (number * 7919) % 99_998;
                    let rollout =
                        json!({"kind": "setRollout", "flag": flag, "weights": {"on": ai, "off": 100_000 - ai}});
                    client.post(CHANGES, &change("", json!([rollout]))).ok();
                }
            });
        }
    });
    let state = whole_state(&server.client);
    assert!(server.stop().success());
    let started = Instant::now();
    server.restart();
    let with_copy = started.elapsed();
    assert_eq!(whole_state(&server.client), state);
    assert!(server.stop().success());
    std::fs::remove_dir_all(server.data().join("state")).expect("a copy of the state");
    let started = Instant::now();
    server.restart();
    let without_copy = started.elapsed();
    assert_eq!(whole_state(&server.client), state);
    report(&format!(
        "a state of {flags} flags and {entries} entries: ready after {with_copy:?} with its copy, {without_copy:?} rebuilt"
    ));
}
