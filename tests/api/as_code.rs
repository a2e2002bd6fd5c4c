//! Configuration as code, from files to the server and back.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Output;

use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};
use serde_json::{Value, json};

use crate::support::ServerProcess;
use crate::support::people::{PASSWORD, Person, admin, person};
use crate::support::terminal::Terminal;

/// What the first tests begin with: a flag that an AI and people wrote, a segment, four environments.
const PROJECT: &[(&str, &str)] = &[
    (
        "flags/engine.yaml",
        "flags:
  engine:
    kind: string
    variations:
      - {key: ai, value: ai, provenance: {by: ai}}
      - {key: baseline, value: old, provenance: {by: human}}
    environments:
      development:
        on: true
        offVariation: baseline
        rules:
          - clauses: [{op: segment, values: [beta]}]
            serve: {variation: ai}
        fallthrough: {rollout: {weights: {ai: 5000, baseline: 95000}}}
",
    ),
    (
        "flags/inbox.yaml",
        "flags:
  inbox:
    kind: boolean
    variations: [{key: 'on', value: true}, {key: 'off', value: false}]
    environments:
      development: {on: true, fallthrough: {variation: 'on'}}
",
    ),
    (
        "segments.yml",
        "segments:
  development:
    beta:
      rules:
        - clauses: [{attribute: email, op: endsWith, values: ['@example.com']}]
",
    ),
];

/// A server with people, and a folder of files.
struct Shop {
    _server: ServerProcess,
    folder: tempfile::TempDir,
    developer: Person,
    developers: Terminal,
    approvers: [Terminal; 2],
    managers: Terminal,
    nobodys: Terminal,
}

/// What a command printed, and how it ended.
#[derive(Debug)]
struct Said {
    code: Option<i32>,
    out: String,
    err: String,
}

impl From<Output> for Said {
    fn from(output: Output) -> Self {
        let text = |bytes: Vec<u8>| String::from_utf8(bytes).expect("UTF-8");
        Self { code: output.status.code(), out: text(output.stdout), err: text(output.stderr) }
    }
}

impl Said {
    /// What was printed by a command that must end with `code`.
    #[track_caller]
    fn ends(self, code: i32) -> Self {
        assert_eq!(self.code, Some(code), "{self:#?}");
        self
    }

    #[track_caller]
    fn prints(self, parts: &[&str]) -> Self {
        for part in parts {
            assert!(self.out.contains(part), "no {part:?} in {self:#?}");
        }
        self
    }

    #[track_caller]
    fn complains(self, parts: &[&str]) -> Self {
        for part in parts {
            assert!(self.err.contains(part), "no {part:?} in {self:#?}");
        }
        self
    }

    #[track_caller]
    fn json(&self) -> Value {
        serde_json::from_str(&self.out).unwrap_or_else(|_| panic!("{self:#?}"))
    }
}

impl Shop {
    #[track_caller]
    fn open() -> Self {
        let server = ServerProcess::start();
        let admin = admin(&server);
        let terminal = |person: &Person| {
            let terminal = Terminal::new(&server.client.url);
            let variables = [("GUIDON_PASSWORD", PASSWORD), ("GUIDON_CODE", &*person.code())];
            terminal.json(&["login", &person.name], &variables);
            terminal
        };
        let developer = person(&admin, "dora", &["developer"]);
        let approvers = ["anna", "ben"].map(|name| terminal(&person(&admin, name, &["approver"])));
        let managers = terminal(&person(&admin, "rene", &["releaseManager"]));
        let (developers, nobodys) = (terminal(&developer), Terminal::new(&server.client.url));
        let folder = tempfile::tempdir().expect("a temporary folder");
        Self { _server: server, folder, developer, developers, approvers, managers, nobodys }
    }

    /// As [`Self::open`], with the project applied.
    #[track_caller]
    fn stocked() -> Self {
        let shop = Self::open();
        shop.write(PROJECT);
        shop.run(&["apply", "-f", &shop.files(), "--yes"]).ends(0);
        shop
    }

    fn path(&self, path: &str) -> PathBuf {
        self.folder.path().join(path)
    }

    /// Where the files are.
    fn files(&self) -> String {
        self.path("config").to_str().expect("a path in UTF-8").to_owned()
    }

    fn write(&self, files: &[(&str, &str)]) {
        for (path, text) in files {
            let path = self.path("config").join(path);
            fs::create_dir_all(path.parent().expect("a folder")).expect("a folder");
            fs::write(path, text).expect("a file");
        }
    }

    /// Takes `from` for `to` in a file.
    #[track_caller]
    fn edit(&self, path: &str, from: &str, to: &str) {
        let path = self.path("config").join(path);
        let text = fs::read_to_string(&path).expect("a file");
        assert!(text.contains(from), "no {from:?} in {text}");
        fs::write(path, text.replace(from, to)).expect("a file");
    }

    /// Runs a command as the developer.
    fn run(&self, arguments: &[&str]) -> Said {
        self.developers.run(arguments, &[]).into()
    }

    /// Approves and applies the change request that a command opened.
    #[track_caller]
    fn carry_through(&self, said: &Said) {
        let opened = said.out.lines().find_map(|line| line.strip_prefix("opened change request "));
        let id = opened.and_then(|rest| rest.split(' ').next()).unwrap_or_else(|| panic!("no request in {said:#?}"));
        let mut out = said.out.clone();
        for terminal in &self.approvers {
            if out.contains("request approve") {
                out = Said::from(terminal.run(&["request", "approve", id, "--yes"], &[])).ends(0).out;
            }
        }
        Said::from(self.managers.run(&["request", "apply", id], &[])).ends(0);
    }

    fn flag(&self, key: &str) -> Value {
        self.developer.client.get(&format!("/api/v1/projects/default/flags/{key}")).ok()
    }

    fn revision(&self) -> u64 {
        let plan = self.run(&["--json", "plan", "-f", &self.files()]).ends(0);
        plan.json()["baseRevision"].as_u64().expect("a revision")
    }
}

/// All files below a folder with their bytes.
fn contents(folder: &Path) -> Vec<(PathBuf, Vec<u8>)> {
    let mut found = Vec::new();
    for entry in fs::read_dir(folder).expect("a folder") {
        let path = entry.expect("an entry").path();
        if path.is_dir() {
            found.extend(contents(&path));
        } else {
            let bytes = fs::read(&path).expect("a file");
            found.push((path, bytes));
        }
    }
    found.sort();
    found
}

#[test]
fn files_are_planned_and_applied_as_one_change() {
    let shop = Shop::open();
    shop.write(PROJECT);
    let (files, before) = (shop.files(), shop.revision());
    let plan = shop.run(&["plan", "-f", &files]).ends(0);
    plan.prints(&["+ engine: ", "+ inbox: ", "+ development / segment beta: ", "Applied, it takes effect at once."]);
    // Nobody is asked where nobody is.
    shop.run(&["apply", "-f", &files]).ends(2).complains(&["--yes"]);
    shop.run(&["apply", "-f", &files, "--yes", "-m", "as files"]).ends(0).prints(&["Revision"]);
    assert_eq!(shop.revision(), before + 1, "one change");
    assert_eq!(shop.flag("engine")["environments"]["development"]["on"], true);

    shop.run(&["plan", "-f", &files]).ends(0).prints(&["No changes"]);
    shop.run(&["apply", "-f", &files, "--yes"]).ends(0).prints(&["No changes"]);
    assert_eq!(shop.revision(), before + 1);

    shop.edit("flags/engine.yaml", "ai: 5000, baseline: 95000", "ai: 25000, baseline: 75000");
    let plan = shop.run(&["plan", "-f", &files]).ends(0);
    plan.prints(&["~ development / engine: ", "5 % -> 25 %", "0 to create, 1 to change, 0 to delete"]);
    let json = shop.run(&["--json", "plan", "-f", &files]).ends(0).json();
    assert_eq!(json["counts"]["update"], 1, "{json}");
    assert_eq!(json["steps"][0]["instruction"]["kind"], "setRollout", "{json}");
}

#[test]
fn what_is_in_no_file_stays_unless_it_is_pruned() {
    let shop = Shop::stocked();
    fs::remove_file(shop.path("config/flags/inbox.yaml")).expect("a file");
    let files = shop.files();
    let plan = shop.run(&["plan", "-f", &files]).ends(0).prints(&["No changes", "in no file: flag inbox"]);
    assert!(!plan.out.contains("- inbox"), "{plan:?}");
    shop.run(&["drift", "-f", &files]).ends(2).complains(&["1 in no file"]);
    shop.run(&["plan", "-f", &files, "--prune"]).ends(0).prints(&["inbox: "]);
    shop.run(&["apply", "-f", &files, "--prune", "--yes"]).ends(0);
    assert_eq!(shop.flag("inbox")["archived"], true);
    shop.run(&["drift", "-f", &files]).ends(0);
}

#[test]
fn wrong_files_are_refused_whole_with_every_line() {
    let shop = Shop::stocked();
    let (files, before) = (shop.files(), shop.flag("engine"));
    shop.edit("flags/engine.yaml", "ai: 5000, baseline: 95000", "ai: 6000, baseline: 94000");
    // What only the server knows is shown in the files too.
    shop.write(&[(
        "flags/wrong.yaml",
        "flags:
  wrong:
    kind: boolean
    descripton: a typo
    variations: [{key: a, value: true}, {key: b, value: false}]
    environments:
      development:
        on: true
        prerequisites: [{flag: enigne, variation: ai}]
        rules:
          - clauses: [{op: segment, values: [betta]}]
            serve: {variation: c}
      stagign: {on: false}
",
    )]);
    for command in [&["plan", "-f"][..], &["apply", "--yes", "-f"], &["drift", "-f"]] {
        let arguments: Vec<&str> = command.iter().copied().chain([files.as_str()]).collect();
        let said = shop.run(&arguments).ends(6);
        let line = |number: usize| format!("wrong.yaml:{number}:");
        let places: Vec<usize> = (1..20).filter(|number| said.err.contains(&line(*number))).collect();
        assert!(places.contains(&4), "the unknown key: {said:#?}");
        assert!(said.err.contains("description"), "the nearest known one: {said:#?}");
    }
    shop.edit("flags/wrong.yaml", "    descripton: a typo\n", "");
    let said = shop.run(&["plan", "-f", &files]).ends(6);
    for (line, remedy) in [(8, "engine"), (10, "beta"), (11, ""), (12, "staging")] {
        let at = format!("wrong.yaml:{line}:");
        let told = said.err.lines().find(|told| told.contains(&at)).unwrap_or_else(|| panic!("{at} {said:#?}"));
        assert!(told.contains(remedy), "{told}");
    }
    assert_eq!(shop.flag("engine"), before);

    // The reader's own refusals need no server.
    let twice = "flags:\n  engine: {kind: string}\n";
    let laughs = "a: &a [x]\nb: &b [*a, *a]\nc: [*b, *b]\n";
    shop.write(&[("flags/wrong.yaml", twice)]);
    shop.run(&["plan", "-f", &files]).ends(6).complains(&["wrong.yaml:2:3: ", "engine.yaml:2:3", "`flags.engine`"]);
    shop.write(&[("flags/wrong.yaml", laughs), ("more.yaml", "flags:\n  a: 1\n  a: 2\n")]);
    shop.run(&["apply", "-f", &files, "--yes"]).ends(6).complains(&[
        "wrong.yaml:1:4: anchors",
        "wrong.yaml:2:",
        "aliases",
        "more.yaml:3:3: the key `a` is here twice",
    ]);
    let scripts = shop.run(&["--json", "plan", "-f", &files]).ends(6);
    let error: Value = serde_json::from_str(&scripts.err).expect("a document");
    assert_eq!(error["code"], "invalidFiles");
    assert!(error["problems"].as_array().is_some_and(|problems| problems.len() >= 3), "{error}");
    fs::remove_file(shop.path("config/more.yaml")).expect("a file");

    let large = format!("flags:\n  wrong:\n    description: \"{}\"\n", "x".repeat(10 << 20));
    shop.write(&[("flags/wrong.yaml", &large)]);
    shop.run(&["plan", "-f", &files]).ends(6).complains(&["wrong.yaml: is larger than 1 MiB"]);
    assert_eq!(shop.flag("engine"), before);
}

#[test]
fn files_up_to_the_limit_are_answered() {
    let shop = Shop::open();
    let (files, text) = (shop.files(), "x".repeat(900 << 10));
    let write = |number: usize| {
        let flag = format!("flags:\n  f{number}:\n    description: \"{text}\"\n");
        shop.write(&[(&format!("f{number:02}.yaml"), &flag)]);
    };
    (0..8).for_each(write);
    // All of it reaches the server, which finds it wrong at its lines.
    let said = shop.run(&["plan", "-f", &files]).ends(6);
    assert!(said.err.contains("f00.yaml:") && said.err.contains("f07.yaml:"), "{:.2000}", said.err);
    // More than the server takes in one request, and less than the command line does.
    (8..11).for_each(write);
    shop.run(&["plan", "-f", &files]).ends(6).complains(&["--max-body-bytes"]);
    (11..12).for_each(write);
    shop.run(&["plan", "-f", &files]).ends(6).complains(&["f11.yaml: with this file", "10 MiB"]);
}

#[test]
fn a_saved_plan_is_applied_as_it_was_or_not_at_all() {
    let shop = Shop::stocked();
    let (files, saved) = (shop.files(), shop.path("plan.json"));
    let saved = saved.to_str().expect("a path in UTF-8");
    shop.edit("flags/inbox.yaml", "on: true", "on: false");
    shop.run(&["plan", "-f", &files, "-o", saved]).ends(0).prints(&["guidon apply"]);
    // What others do elsewhere is no matter.
    shop.developer.client.create_flag("elsewhere");
    let applied = shop.run(&["apply", saved, "--yes"]);
    applied.ends(0).prints(&["~ development / inbox: "]);
    assert_eq!(shop.flag("inbox")["environments"]["development"]["on"], false);

    shop.edit("flags/inbox.yaml", "on: false", "on: true");
    shop.edit("flags/engine.yaml", "ai: 5000, baseline: 95000", "ai: 10000, baseline: 90000");
    shop.run(&["plan", "-f", &files, "-o", saved]).ends(0);
    let change = json!([{"kind": "updateFlag", "flag": "inbox", "description": "by hand"}]);
    shop.developer.client.change("development", change).ok();
    let refused = shop.run(&["apply", saved, "--yes"]).ends(7);
    refused.complains(&["inbox", "these were changed since", "Make a new plan"]);
    assert_eq!(shop.flag("inbox")["environments"]["development"]["on"], false);

    shop.run(&["-p", "other", "apply", saved, "--yes"]).ends(2).complains(&["project"]);
    shop.run(&["apply", &files, "--yes"]).ends(2).complains(&["-f"]);
    fs::write(saved, "{}").expect("a file");
    shop.run(&["apply", saved, "--yes"]).ends(2).complains(&["no saved plan"]);
}

#[test]
fn of_two_at_once_one_wins_and_the_other_is_told() {
    let shop = Shop::stocked();
    let second = shop.path("second");
    for (path, text) in PROJECT {
        let path = second.join(path);
        fs::create_dir_all(path.parent().expect("a folder")).expect("a folder");
        fs::write(path, text.replace("ai: 5000, baseline: 95000", "ai: 50000, baseline: 50000")).expect("a file");
    }
    shop.edit("flags/engine.yaml", "ai: 5000, baseline: 95000", "ai: 20000, baseline: 80000");
    let (first, second) = (shop.files(), second.to_str().expect("a path in UTF-8").to_owned());
    let before = shop.revision();
    // Both were read against the same state: whichever comes second is told, however fast the machine.
    let plans = [("first.json", first), ("second.json", second)].map(|(name, folder)| {
        let file = shop.path(name).to_str().expect("a path in UTF-8").to_owned();
        shop.run(&["plan", "-f", &folder, "-o", &file]).ends(0);
        file
    });
    let apply = |file: &String| shop.run(&["apply", file, "--yes", "-m", "one of two"]);
    let ends: Vec<Said> = std::thread::scope(|scope| {
        let running: Vec<_> = plans.iter().map(|file| scope.spawn(|| apply(file))).collect();
        running.into_iter().map(|thread| thread.join().expect("an end")).collect()
    });
    let mut codes: Vec<_> = ends.iter().map(|end| end.code).collect();
    codes.sort_unstable();
    assert_eq!(codes, [Some(0), Some(7)], "{ends:#?}");
    assert!(shop.revision() > before);
}

#[test]
fn what_is_exported_plans_as_empty() {
    let shop = Shop::stocked();
    let out = shop.path("out");
    let folder = out.to_str().expect("a path in UTF-8");
    let mut random = StdRng::seed_from_u64(4);
    for round in 0..8 {
        shop.run(&["export", "-d", folder]).ends(0);
        let plan = shop.run(&["--json", "plan", "-f", folder]).ends(0).json();
        assert_eq!((&plan["differences"], &plan["unmanaged"]), (&json!([]), &json!([])), "round {round}");
        let first = contents(&out);
        shop.run(&["export", "-d", folder]).ends(0).prints(&["files written: 0,"]);
        assert_eq!(contents(&out), first, "the same state, the same bytes");
        for edit in 0..6 {
            let ai = random.random_range(0..=100_000);
            let key = format!("r{round}-{edit}");
            let edits = [
                json!({"kind": "setRollout", "flag": "engine", "weights": {"ai": ai, "baseline": 100_000 - ai}}),
                json!({"kind": if ai % 2 == 0 { "turnFlagOn" } else { "turnFlagOff" }, "flag": "inbox"}),
                json!({"kind": "addRule", "flag": "engine", "rule": {
                    "clauses": [{"attribute": "plan", "op": "in", "values": ["true", "5", 5, true, "a: b", "- c", "é\u{1}\n", ai]}],
                    "serve": {"rollout": {"weights": {"ai": ai, "baseline": 100_000 - ai}, "bucketBy": "org"}}}}),
                json!({"kind": "createFlag", "flag": {"key": key, "kind": "json", "description": "two\nlines # no comment",
                    "tags": ["yes", "1", "null"], "variations": [
                        {"key": "a", "value": {"on": [1.5, -2, null, {"x": "y"}], "": "~", "<<": []}},
                        {"key": "b", "value": [[], {}, "0x10", "2026-01-01"]}]}}),
                json!({"kind": "createSegment", "segment": {"key": key, "name": "=x", "included": ["u1"], "rules": []}}),
            ];
            let edit = &edits[random.random_range(0..edits.len())];
            shop.developer.client.change("development", json!([edit])).ok();
        }
    }
    // What was removed on the server goes, what somebody edited stays.
    let gone = json!([{"kind": "archiveFlag", "flag": "inbox"}, {"kind": "deleteFlag", "flag": "inbox"}]);
    shop.developer.client.change("development", gone).ok();
    shop.run(&["export", "-d", folder]).ends(0).prints(&["removed: 1 "]);
    assert!(!out.join("flags/inbox.yaml").exists());
    let engine = out.join("flags/engine.yaml");
    let edited = fs::read_to_string(&engine).expect("a file").replace("kind: string", "kind: string # edited");
    fs::write(&engine, &edited).expect("a file");
    shop.run(&["export", "-d", folder]).ends(2).complains(&["flags/engine.yaml", "--force"]);
    assert_eq!(fs::read_to_string(&engine).expect("a file"), edited);
    shop.run(&["export", "-d", folder, "--force"]).ends(0).prints(&["files written: 1,"]);
    assert!(!fs::read_to_string(&engine).expect("a file").contains("# edited"));
}

#[test]
fn persons_keys_are_exported_only_when_asked_for() {
    let shop = Shop::stocked();
    let segment = json!({"key": "vip", "included": ["ada@example.com"]});
    shop.developer.client.change("development", json!([{"kind": "createSegment", "segment": segment}])).ok();
    let out = shop.path("out");
    let folder = out.to_str().expect("a path in UTF-8");
    let holds_key =
        || contents(&out).iter().any(|(_, bytes)| String::from_utf8_lossy(bytes).contains("ada@example.com"));
    shop.run(&["export", "-d", folder]).ends(0);
    assert!(!holds_key());
    shop.run(&["export", "-d", folder, "--keys"]).ends(0);
    assert!(holds_key());
}

#[test]
fn flags_are_promoted_tier_by_tier_to_a_change_request() {
    let shop = Shop::stocked();
    shop.run(&["drift", "--from", "development", "--to", "testing"]).ends(2).prints(&["engine"]);
    let dry = shop.run(&["promote", "engine", "--from", "development", "--to", "testing", "--dry-run"]).ends(0);
    dry.prints(&["testing / engine: ", "nothing was changed"]);
    shop.run(&["promote", "--all", "--from", "development", "--to", "testing"]).ends(0).prints(&["Revision"]);
    assert_eq!(shop.flag("engine")["environments"]["testing"]["on"], true);
    shop.run(&["promote", "--all", "--from", "development", "--to", "testing"]).ends(0).prints(&["Nothing to promote"]);
    shop.run(&["drift", "--from", "development", "--to", "testing"]).ends(0);

    for (from, to) in [("testing", "staging"), ("staging", "production")] {
        let said = shop.run(&["promote", "engine", "--from", from, "--to", to, "-m", "tier by tier"]).ends(0);
        let said = said.prints(&["opened change request", "needs", &format!("{to} / engine: ")]);
        assert_ne!(shop.flag("engine")["environments"][to]["on"], true);
        shop.carry_through(&said);
        assert_eq!(shop.flag("engine")["environments"][to]["on"], true);
    }
    shop.run(&["promote", "nothing", "--from", "staging", "--to", "production"]).complains(&["nothing"]);
    shop.run(&["promote", "--from", "staging", "--to", "production"]).ends(2);
    // A promotion deals nobody anew: each environment has its own salt.
    let salt = |environment: &str| {
        let flag = shop.flag("engine");
        flag["environments"][environment]["fallthrough"]["rollout"]["salt"].as_str().expect("a salt").to_owned()
    };
    assert_ne!(salt("staging"), salt("production"));
}

#[test]
fn drift_is_found_by_hand_and_put_back() {
    let shop = Shop::stocked();
    let files = shop.files();
    shop.run(&["drift", "-f", &files]).ends(0);
    shop.run(&["flag", "off", "inbox"]).ends(0);
    let said = shop.run(&["drift", "-f", &files]).ends(2);
    said.prints(&["~ development / inbox: "]).complains(&["1 difference"]);
    let json = shop.run(&["--json", "drift"]).ends(2).json();
    assert!(json["pairs"].as_array().is_some_and(|pairs| pairs.len() == 3), "{json}");
    shop.run(&["drift", "--ignore", "serving", "--ignore", "rules", "--ignore", "definition", "--ignore", "segments"])
        .ends(0);
    shop.run(&["apply", "-f", &files, "--yes"]).ends(0);
    shop.run(&["drift", "-f", &files]).ends(0);
    // The wrong way to ask is told from drift by what is printed.
    let wrong = shop.run(&["drift", "--from", "staging"]).ends(2);
    assert_eq!(wrong.out, "");
    let nobody: Said = shop.nobodys.run(&["drift"], &[]).into();
    nobody.ends(4);
}
