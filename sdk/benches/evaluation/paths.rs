//! What a measured path costs beside a plain call of the same function.

use std::hint::black_box;

use guidon_sdk::{Client, Context};
use serde_json::{Value, json};

const USERS: usize = 10_000;

/// Two flags under release and one that is not, all with a rollout of one half.
fn bootstrap() -> String {
    let flag = |key: &str, release: Value| {
        json!({
            "key": key, "kind": "string",
            "variations": [
                {"key": "ai", "value": "ai", "provenance": {"by": "ai"}},
                {"key": "base", "value": "base", "provenance": {"by": "human"}},
            ],
            "config": {"on": true, "offVariation": "base", "fallthrough": {"rollout": {
                "weights": {"ai": 50_000, "base": 50_000}, "salt": "s",
                "allocation": [["ai", 0, 50_000], ["base", 50_000, 100_000]],
            }}},
            "release": release,
        })
    };
    let release = |cpu: bool| json!({"treatment": "ai", "control": "base", "cpu": cpu});
    json!({
        "revision": "h:1", "project": "p", "environment": "e", "segments": [],
        "flags": [flag("plain", Value::Null), flag("released", release(false)), flag("with-cpu", release(true))],
    })
    .to_string()
}

/// Hands out each line: its name, the plain call and the path, each doing as many calls as it is told. The client has no server,
/// so it counts and drops: what a call pays is the same.
pub(crate) fn each(mut run: impl FnMut(&str, &dyn Fn(usize), &dyn Fn(usize))) {
    let runtime =
        tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().expect("a runtime");
    let connecting = Client::builder("http://127.0.0.1:9", "no-key").bootstrap(bootstrap()).connect();
    let client = runtime.block_on(connecting).expect("a client that serves its bootstrap");
    let contexts: Vec<Context<'static>> = (0..USERS).map(|number| Context::new(format!("user-{number}"))).collect();
    let plain = |calls| {
        for call in 0..calls {
            black_box(black_box(&contexts[call % USERS]));
        }
    };
    for (name, flag) in [
        ("P1 path, no release", "plain"),
        ("P2 path under release", "released"),
        ("P3 path under release, with CPU time", "with-cpu"),
    ] {
        let path = |calls| {
            for call in 0..calls {
                let context = &contexts[call % USERS];
                let path =
                    client.path(flag, context).ai(|| Ok::<_, ()>(black_box(context))).baseline(|| black_box(context));
                black_box(path.run());
            }
        };
        run(name, &plain, &path);
    }
}
