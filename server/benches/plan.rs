//! `cargo bench -p guidon-server --bench plan`: what it costs to plan 2,000 flags that are kept as files.
//!
//! The whole is what a person waits for: `guidon plan -f DIR` from its start to its end, against a server that runs beside it.
//! Its parts are measured by themselves: reading the files, the request to the server, and within it the plan itself, which is
//! made here once more from the server's journal. What is left is starting the command and printing.
#![allow(clippy::print_stdout, reason = "a benchmark prints its table")]

use std::fmt::Write as _;
use std::fs;
use std::hint::black_box;
use std::io::{BufRead, BufReader};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::time::{Duration, Instant};

use guidon_server::cli::yaml;
use guidon_server::environments::document::Document;
use guidon_server::environments::plan::{PlanOptions, plan};
use guidon_server::journal::{ChainHash, Entry, StoredEntry};
use guidon_server::state::{NoKeySets, Project, World};
use serde_json::{Value, json};

const FLAGS: usize = 2_000;
const SEGMENTS: usize = 20;
/// Flags that the files ask otherwise of than the server has.
const DIFFERENT: usize = 5;
const ROUNDS: usize = 20;
/// As many environments as there are tiers, in tiers that the token of the server may set up by itself; what a plan costs does not
/// depend on the tier.
const ENVIRONMENTS: [(&str, &str); 4] =
    [("development", "development"), ("testing", "testing"), ("preview", "testing"), ("load", "testing")];
const TOKEN: &str = "gdn_admin_0123456789abcdef0123456789abcdef";
/// What the command may take, start to end.
const AIM: Duration = Duration::from_secs(1);

fn main() {
    // `cargo test --benches` runs the binary without `--bench`: then it only has to start.
    if !std::env::args().any(|argument| argument == "--bench") {
        return;
    }
    let folder = tempfile::tempdir().expect("a temporary folder");
    let server = Server::start(folder.path());
    let files = folder.path().join("files");
    write_files(&files, 0);
    let start = Instant::now();
    server.guidon(&["apply", "--yes", "-f", &files.display().to_string()]);
    let read = yaml::Document::read(&files).expect("the files are sound").to_value();
    let bytes = serde_json::to_vec(&json!({"document": read})).map_or(0, |body| body.len());
    println!("flags                  {FLAGS:>6} in {} environments, {SEGMENTS} segments in each", ENVIRONMENTS.len());
    println!("document               {:>6} KiB as JSON", bytes / 1024);
    println!("applying it all        {:>10.1?}", start.elapsed());

    let mut slowest = Duration::ZERO;
    slowest = slowest.max(table("nothing differs", &server, &files, false));
    write_files(&files, DIFFERENT);
    slowest = slowest.max(table("5 flags differ", &server, &files, false));
    // Two thirds of what there is are in no file any more.
    for number in (0..FLAGS).filter(|number| number % 3 != 0) {
        let _ = fs::remove_file(files.join(format!("flags/flag-{number}.yaml")));
    }
    slowest = slowest.max(table("1,333 flags are pruned", &server, &files, true));
    let verdict = if slowest < AIM { "within" } else { "ABOVE" };
    println!("\nslowest median         {slowest:>10.1?}: {verdict} the aim of {AIM:?}");
}

/// Measures a plan of the files, whole and in parts, and answers the median of the whole.
fn table(what: &str, server: &Server, files: &Path, prune: bool) -> Duration {
    let folder = files.display().to_string();
    let mut arguments = vec!["plan", "-f", &folder];
    arguments.extend(prune.then_some("--prune"));
    let mut whole = measure(|| server.guidon(&arguments));
    let mut reading = measure(|| yaml::Document::read(files).expect("the files are sound").to_value());
    let document = yaml::Document::read(files).expect("the files are sound").to_value();
    let body = json!({"document": document, "prune": prune});
    let mut request = measure(|| server.post("/api/v1/projects/default/plan", &body));
    let typed: Document = serde_json::from_value(document).expect("the document is sound");
    let project = server.project();
    let options = PlanOptions { prune, seen: &|_| true };
    let mut planning = measure(|| plan(&project, &typed, &options));
    let made = plan(&project, &typed, &options);
    assert!(made.problems.is_empty(), "{:?}", made.problems);

    println!("\n{what}: {} steps", made.steps.len());
    let all = median(&mut whole);
    let line = |part: &str, times: &mut Vec<Duration>| {
        let (middle, share) = (median(times), median(times).as_secs_f64() / all.as_secs_f64() * 100.0);
        let p99 = times[(times.len() * 99 / 100).min(times.len() - 1)];
        println!("{part:<34} median {:>8.1} ms   p99 {:>8.1} ms   {share:>5.1} %", ms(middle), ms(p99));
        middle
    };
    let parts = line("  reading the files", &mut reading) + line("  the server's answer", &mut request);
    line("    of which the plan", &mut planning);
    let rest = all.saturating_sub(parts);
    println!("{:<34} median {:>8.1} ms", "  the rest", ms(rest));
    line("guidon plan, start to end", &mut whole)
}

fn measure<T>(call: impl Fn() -> T) -> Vec<Duration> {
    black_box(call());
    let timed = |_| {
        let start = Instant::now();
        black_box(call());
        start.elapsed()
    };
    (0..ROUNDS).map(timed).collect()
}

fn median(times: &mut [Duration]) -> Duration {
    times.sort_unstable();
    times[times.len() / 2]
}

fn ms(time: Duration) -> f64 {
    time.as_secs_f64() * 1_000.0
}

/// A flag in each file, as a team would keep them; the first `different` ask for other weights.
fn write_files(folder: &Path, different: usize) {
    fs::create_dir_all(folder.join("flags")).expect("a folder");
    for number in 0..FLAGS {
        let share = if number < different { 10_000 } else { 5_000 };
        fs::write(folder.join(format!("flags/flag-{number}.yaml")), flag(number, share)).expect("a file");
    }
    let mut segments = "environments:\n".to_owned();
    for (key, tier) in ENVIRONMENTS {
        let _ = writeln!(segments, "  {key}: {{tier: {tier}}}");
    }
    segments.push_str("segments:\n");
    for (key, _) in ENVIRONMENTS {
        let _ = writeln!(segments, "  {key}:");
        for number in 0..SEGMENTS {
            let clause = format!("{{attribute: email, op: endsWith, values: ['@team{number}.example.com']}}");
            let _ = writeln!(segments, "    team-{number}:\n      rules:\n        - clauses: [{clause}]");
        }
    }
    fs::write(folder.join("segments.yaml"), segments).expect("a file");
}

fn flag(number: usize, share: u32) -> String {
    let mut text = format!(
        "flags:\n  flag-{number}:\n    kind: string\n    name: Flag number {number}\n    description: Which code answers in \
         place {number}\n    tags: [area-{}, benchmark]\n    owner: team-{}\n    variations:\n      - {{key: ai, value: new, \
         provenance: {{by: ai}}}}\n      - {{key: baseline, value: old, provenance: {{by: human}}}}\n    environments:\n",
        number % 17,
        number % SEGMENTS,
    );
    for (environment, _) in ENVIRONMENTS {
        let on = !number.is_multiple_of(7);
        let requires = if number % 10 == 9 {
            format!("        prerequisites: [{{flag: flag-{}, variation: ai}}]\n", number - 1)
        } else {
            String::new()
        };
        let _ = write!(
            text,
            "      {environment}:\n        on: {on}\n        offVariation: baseline\n{requires}        rules:\n          - clauses: \
             [{{op: segment, values: [team-{}]}}]\n            serve: {{variation: ai}}\n          - clauses: [{{attribute: \
             country, op: in, values: [de, fr, it]}}, {{attribute: plan, op: in, values: [free]}}]\n            serve: \
             {{variation: baseline}}\n        fallthrough: {{rollout: {{weights: {{ai: {share}, baseline: {}}}}}}}\n",
            number % SEGMENTS,
            100_000 - share,
        );
    }
    text
}

/// A server process of this build.
struct Server {
    child: Child,
    url: String,
}

impl Server {
    fn start(folder: &Path) -> Self {
        let mut child = Command::new(env!("CARGO_BIN_EXE_guidon"))
            .args(["serve", "--listen", "127.0.0.1:0", "--data"])
            .arg(folder.join("data"))
            .env("GUIDON_ADMIN_TOKEN", TOKEN)
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .expect("a server");
        let mut first = String::new();
        let mut stdout = BufReader::new(child.stdout.take().expect("a pipe"));
        stdout.read_line(&mut first).expect("the server's first line");
        let url = first.trim().strip_prefix("listening ").expect("the server listens").to_owned();
        let server = Self { child, url };
        while ureq::get(format!("{}/readyz", server.url)).call().is_err() {
            std::thread::sleep(Duration::from_millis(20));
        }
        server
    }

    /// Runs a command to its end.
    fn guidon(&self, arguments: &[&str]) -> Vec<u8> {
        let output = Command::new(env!("CARGO_BIN_EXE_guidon"))
            .args(arguments)
            .env("GUIDON_SERVER", &self.url)
            .env("GUIDON_TOKEN", TOKEN)
            .output()
            .expect("a command");
        assert!(output.status.success(), "{arguments:?}: {}", String::from_utf8_lossy(&output.stderr));
        output.stdout
    }

    fn post(&self, path: &str, body: &Value) -> Value {
        let request = ureq::post(format!("{}{path}", self.url)).header("Authorization", format!("Bearer {TOKEN}"));
        // As the command sends it, without spaces.
        let body = serde_json::to_vec(body).expect("a document");
        let mut answer = request.header("Content-Type", "application/json").send(&body[..]).expect("an answer");
        answer.body_mut().with_config().limit(64 << 20).read_json().expect("a document")
    }

    /// The project as the server has it, from its journal.
    fn project(&self) -> Arc<Project> {
        let url = format!("{}/api/v1/projects/default/journal?limit=1000", self.url);
        let request = ureq::get(url).header("Authorization", format!("Bearer {TOKEN}"));
        let mut answer = request.call().expect("the journal");
        let page: Value = answer.body_mut().with_config().limit(256 << 20).read_json().expect("a document");
        let entries: Vec<Entry> = serde_json::from_value(page["entries"].clone()).expect("entries");
        let stored =
            |entry| StoredEntry { entry: Arc::new(entry), bytes: Default::default(), hash: ChainHash::GENESIS };
        let world = entries.into_iter().fold(World::empty(), |world, entry| {
            world.fold(&stored(entry), &NoKeySets).expect("an entry that follows")
        });
        Arc::clone(world.project("default").expect("the project"))
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
