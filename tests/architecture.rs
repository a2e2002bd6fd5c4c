//! Who may name whom. These are the import rules of `docs/ARCHITECTURE.md`, read off the sources.

mod source;

use std::fmt::Write as _;
use std::path::{Path, PathBuf};

use source::named_paths;

/// A place where something may not be named.
struct Rule {
    /// Why, for whoever breaks it.
    reason: &'static str,
    /// Which files it binds, by their path in the repository.
    binds: fn(&str) -> bool,
    /// What they may not name: a path (with everything below it), or a single name wherever it stands.
    forbidden: &'static [&'static str],
}

const RULES: &[Rule] = &[
    Rule {
        reason: "only app.rs, with app/, names an implementation; everything else takes the trait",
        binds: |path| {
            in_server(path, &[])
                && !in_server(path, &["app.rs", "app/", "journal/", "vault/", "state/", "assignments/", "audit/"])
        },
        forbidden: &[
            "FileJournal",
            "MemoryJournal",
            "FileVault",
            "MemoryVault",
            "SledStore",
            "FileAssignmentLog",
            "FileAuditLog",
            "MemoryAudit",
        ],
    },
    Rule {
        reason: "only app.rs, main.rs and the command line choose the system's clock; everything else takes `Clock`",
        binds: |path| in_server(path, &[]) && !in_server(path, &["app.rs", "app/", "main.rs", "cli/", "clock.rs"]),
        forbidden: &["SystemClock"],
    },
    Rule {
        reason: "no sled type leaves state/sled.rs (write `self::sled` for the module)",
        binds: |path| in_server(path, &[]) && !in_server(path, &["state/sled.rs", "state/sled/"]),
        forbidden: &["sled::"],
    },
    Rule {
        reason: "in a capability folder every file but service.rs is free of async, clock, storage and axum",
        binds: |path| {
            in_server(path, &["flags/", "segments/", "environments/", "policy/", "metrics/", "releases/guard/"])
                && !path.ends_with("/service.rs")
        },
        forbidden: &[
            "async",
            "tokio::",
            "axum::",
            "rand::",
            "std::time::Instant",
            "SystemTime",
            "std::fs",
            "std::net::TcpStream",
            "std::net::TcpListener",
            "std::net::UdpSocket",
            "std::thread",
            "crate::clock",
            "crate::journal::Journal",
            "crate::log",
            "crate::vault",
            "crate::state::sled",
        ],
    },
    Rule {
        reason: "axum stays at the edge: http/, dashboard/, push/ and app.rs",
        binds: |path| in_server(path, &[]) && !in_server(path, &["http/", "dashboard/", "push/", "app.rs"]),
        forbidden: &["axum::"],
    },
    Rule {
        reason: "callers name services, services never name their callers",
        binds: |path| {
            in_server(path, &[])
                && !in_server(path, &["app.rs", "main.rs", "lib.rs", "http/", "dashboard/", "jobs/", "cli/"])
        },
        forbidden: &["crate::http", "crate::dashboard", "crate::jobs", "crate::cli"],
    },
    Rule {
        reason: "the pure half of the SDK has no I/O, clock, randomness or lock",
        binds: in_pure_half,
        forbidden: &[
            "async",
            "tokio::",
            "rand::",
            "std::time::Instant",
            "SystemTime",
            "std::fs",
            "std::io",
            "std::net::TcpStream",
            "std::net::TcpListener",
            "std::net::UdpSocket",
            "std::env",
            "std::thread",
            "Mutex",
            "RwLock",
            "arc_swap::",
            "crate::client",
        ],
    },
    Rule {
        reason: "a test that is not run is not a test",
        binds: |path| path.ends_with(".rs"),
        forbidden: &["ignore"],
    },
];

/// Most lines of a source file: past it, the file tells two stories.
const MAX_LINES: usize = 700;

/// Names that say nothing of what a file holds.
const EMPTY_NAMES: &[&str] = &["util", "utils", "helper", "helpers", "common", "misc", "manager"];

/// Whether `path` holds the unit tests of the file or folder beside it, whose doubles and fixtures may do what the product may not.
fn is_unit_tests(path: &str) -> bool {
    path.ends_with("/tests.rs") || path.ends_with("_tests.rs") || path.contains("/tests/")
}

/// Whether `path` is a source of the server, and below one of `places` if there are any.
fn in_server(path: &str, places: &[&str]) -> bool {
    path.strip_prefix("server/src/")
        .filter(|inside| !is_unit_tests(inside))
        .is_some_and(|inside| places.is_empty() || places.iter().any(|place| inside.starts_with(place)))
}

fn in_pure_half(path: &str) -> bool {
    const PURE: &[&str] = &["eval/", "model/", "validate.rs", "validate/", "snapshot.rs", "snapshot/", "protocol.rs"];
    path.strip_prefix("sdk/src/")
        .filter(|inside| !is_unit_tests(inside))
        .is_some_and(|inside| PURE.iter().any(|place| inside.starts_with(place)))
}

/// What is wrong with the file at `path`, one line each.
fn violations(path: &str, text: &str) -> Vec<String> {
    let mut found = Vec::new();
    let lines = text.lines().count();
    if lines > MAX_LINES {
        found.push(format!("{path}: {lines} lines, {MAX_LINES} at most: divide it by what it tells"));
    }
    let empty = Path::new(path).with_extension("");
    if let Some(name) = empty.iter().filter_map(|name| name.to_str()).find(|name| EMPTY_NAMES.contains(name)) {
        found.push(format!("{path}: `{name}` says nothing of what it holds"));
    }
    if path.ends_with(".rs") {
        found.extend(forbidden_names(path, text));
    }
    found
}

fn forbidden_names(path: &str, text: &str) -> Vec<String> {
    let rules: Vec<_> = RULES.iter().filter(|rule| (rule.binds)(path)).collect();
    let mut found = Vec::new();
    for named in named_paths(path, text) {
        for rule in &rules {
            if rule.forbidden.iter().any(|forbidden| names(&named.segments, forbidden)) {
                found.push(format!("{path}:{}: names {}: {}", named.line, named.segments.join("::"), rule.reason));
            }
        }
    }
    found
}

/// Whether a path is below `forbidden` (as `std::fs` or `tokio::`), or has it as one of its names (as `FileJournal`).
fn names(segments: &[String], forbidden: &str) -> bool {
    if forbidden.contains("::") {
        let prefix: Vec<_> = forbidden.split("::").filter(|segment| !segment.is_empty()).collect();
        let deeper = segments.len() > 1;
        deeper
            && segments.len() >= prefix.len()
            && segments.iter().zip(&prefix).all(|(segment, wanted)| segment == wanted)
    } else {
        segments.iter().any(|segment| segment == forbidden)
    }
}

/// The repository's source files, with paths relative to it.
fn sources(root: &Path) -> Vec<(String, String)> {
    const KINDS: &[&str] = &["rs", "js", "mjs", "ts", "html", "css"];
    let mut found = Vec::new();
    let mut folders: Vec<PathBuf> =
        ["sdk", "server", "wasm-sdk", "tests", "examples"].iter().map(|folder| root.join(folder)).collect();
    while let Some(folder) = folders.pop() {
        for entry in std::fs::read_dir(&folder).unwrap_or_else(|error| panic!("{}: {error}", folder.display())) {
            let path = entry.expect("a folder entry").path();
            let name = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
            // Built, installed and vendored files are not ours to shape.
            let foreign =
                name.starts_with('.') || matches!(name.as_str(), "target" | "node_modules" | "vendor" | "assets");
            if path.is_dir() && !foreign {
                folders.push(path);
            } else if KINDS.iter().any(|kind| path.extension().is_some_and(|extension| extension == *kind)) {
                let text = std::fs::read_to_string(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
                let inside = path.strip_prefix(root).expect("below the root").to_string_lossy().into_owned();
                found.push((inside, text));
            }
        }
    }
    found
}

#[test]
fn every_source_keeps_the_rules() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).parent().expect("the workspace's folder");
    let sources = sources(root);
    assert!(
        sources.iter().any(|(path, _)| in_pure_half(path)),
        "the pure half of the SDK was not found below {}",
        root.display()
    );
    assert!(sources.iter().any(|(path, _)| in_server(path, &[])), "the server was not found below {}", root.display());
    let mut report = String::new();
    for violation in sources.iter().flat_map(|(path, text)| violations(path, text)) {
        writeln!(report, "{violation}").expect("a string takes everything");
    }
    assert!(report.is_empty(), "docs/ARCHITECTURE.md says who may name whom:\n{report}");
}

/// Every rule finds what it forbids, in every form that it could be written in.
#[test]
fn a_breach_is_found() {
    let breaches = [
        (
            "server/src/http/flags.rs",
            "use crate::journal::{Entry, file::FileJournal};",
            "crate::journal::file::FileJournal",
        ),
        ("server/src/changes/service.rs", "struct Service { journal: MemoryJournal }", "MemoryJournal"),
        ("server/src/releases/guard.rs", "let now = SystemClock.now();", "SystemClock"),
        ("server/src/state/world.rs", "fn open() -> sled::Result<sled::Db> { }", "sled::Result"),
        ("server/src/flags/apply.rs", "pub async fn apply() {}", "async"),
        (
            "server/src/flags/apply.rs",
            "use std::{collections::BTreeMap, time::{Duration, Instant}};",
            "std::time::Instant",
        ),
        ("server/src/segments/mod.rs", "use super::clock::Clock;", "crate::clock::Clock"),
        (
            "server/src/environments/diff.rs",
            "fn f(journal: &dyn super::super::journal::Journal) {}",
            "crate::journal::Journal",
        ),
        ("server/src/changes/risk.rs", "impl axum::response::IntoResponse for Risk {}", "axum::response::IntoResponse"),
        (
            "server/src/changes/risk.rs",
            "use crate::{http::problem::Problem, state::World};",
            "crate::http::problem::Problem",
        ),
        ("sdk/src/eval/bucket.rs", "use std::sync::Mutex as Lock;", "std::sync::Mutex"),
        ("sdk/src/snapshot.rs", "let text = std::fs::read_to_string(path);", "std::fs::read_to_string"),
        ("sdk/src/eval/clause.rs", "use std::net::{IpAddr, TcpStream};", "std::net::TcpStream"),
        ("sdk/src/model/flag.rs", "use rand::*;", "rand::*"),
        ("sdk/src/client/sync.rs", "#[test]\n#[ignore]\nfn slow() {}", "ignore"),
    ];
    for (path, text, named) in breaches {
        let found = violations(path, text);
        assert!(found.iter().any(|line| line.contains(&format!("names {named}: "))), "{path}: {text}: {found:?}");
    }
    assert_eq!(violations("server/src/log/helpers.rs", "").len(), 1);
    assert_eq!(violations("server/src/log/mod.rs", &"//\n".repeat(MAX_LINES + 1)).len(), 1);
}

/// What only looks like a breach is let through.
#[test]
fn the_rest_is_let_through() {
    let permitted = [
        ("server/src/app.rs", "use crate::journal::file::FileJournal;"),
        ("server/src/state/mod.rs", "mod sled; pub use self::sled::SledStore;"),
        ("server/src/flags/service.rs", "pub async fn list(clock: &dyn crate::clock::Clock) {}"),
        ("server/src/flags/apply.rs", "// async, tokio::spawn\n/* axum::Router /* std::fs */ */"),
        (
            "server/src/flags/apply.rs",
            r##"const TEXT: &str = r#"tokio::spawn "async""#; const QUOTE: char = '"'; // "async"##,
        ),
        (
            "server/src/flags/apply.rs",
            "fn name<'a>(text: &'a str) {}\n#[cfg(test)]\nmod tests { async fn f() { std::fs::read(); } }",
        ),
        ("server/src/push/connection.rs", "use axum::extract::ws::WebSocket;"),
        ("sdk/src/client/connection.rs", "use tokio::net::TcpStream;"),
        ("sdk/src/eval/clause.rs", "use std::{net::IpAddr, time::Duration};"),
        ("sdk/src/eval/clause.rs", "fn f(rand: u32, time: u32) -> u32 { rand + time }"),
    ];
    for (path, text) in permitted {
        assert_eq!(violations(path, text), Vec::<String>::new(), "{path}: {text}");
    }
}
