//! Corrects real misspellings, word by word, by an AI-written engine or by the baseline, as the flag `spelling-engine` decides
//! for each word, and prints who got which and how each did. See the README.

mod ai;
mod baseline;
mod corpus;
mod report;

use std::error::Error;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use clap::Parser;
use guidon_sdk::client::Ran;
use guidon_sdk::snapshot::Snapshot;
use guidon_sdk::{Client, Context};

use ai::Trigrams;
use baseline::EditDistance;
use corpus::Misspelling;
use report::{Answered, Report};

/// Corrects real misspellings by an AI-written engine or the baseline, as a Guidon flag decides.
#[derive(Debug, Parser)]
struct Options {
    /// Address of the Guidon server
    #[arg(long, env = "GUIDON_SERVER", default_value = "http://127.0.0.1:8080", value_name = "URL")]
    server: String,
    /// SDK key of the environment
    #[arg(
        long,
        env = "GUIDON_SDK_KEY",
        hide_env_values = true,
        required_unless_present = "snapshot",
        value_name = "KEY"
    )]
    sdk_key: Option<String>,
    /// Decide by this snapshot (JSON), without a server
    #[arg(long, value_name = "FILE", conflicts_with = "sdk_key")]
    snapshot: Option<PathBuf>,
    /// Key of the flag
    #[arg(long, default_value = "spelling-engine", value_name = "KEY")]
    flag: String,
    /// Misspellings, as the Debian package `codespell` has them
    #[arg(long, default_value = corpus::MISSPELLINGS, value_name = "FILE")]
    misspellings: PathBuf,
    /// Dictionary, as the Debian package `wamerican` has it
    #[arg(long, default_value = corpus::DICTIONARY, value_name = "FILE")]
    dictionary: PathBuf,
    /// Stop after this many words; the list begins anew where it ends. Default: once through the list
    #[arg(long, value_name = "COUNT")]
    words: Option<usize>,
    /// Words a second; 0 is as fast as it goes
    #[arg(long, default_value_t = 100, value_name = "COUNT")]
    rate: u32,
    /// Seconds between two reports
    #[arg(long, default_value_t = 2.0, value_name = "SECONDS")]
    interval: f64,
}

/// A prime, so that every word has its turn before the first comes again, unless the list's length is a multiple of it.
const STRIDE: usize = 104_729;

struct Engines {
    ai: Trigrams,
    baseline: EditDistance,
}

#[tokio::main]
async fn main() -> Result<(), Box<dyn Error>> {
    let options = Options::parse();
    let dictionary = corpus::dictionary(&options.dictionary)?;
    let (misspellings, left_out) = corpus::misspellings(&options.misspellings, &dictionary)?;
    let engines = Engines { ai: Trigrams::new(&dictionary), baseline: EditDistance::new(&dictionary) };
    say(&format!(
        "{} misspellings ({left_out} left out: words themselves, or not in the dictionary), {} words in the dictionary",
        misspellings.len(),
        dictionary.len()
    ));
    let guidon = match &options.snapshot {
        Some(path) => Client::offline(snapshot(path)?),
        None => {
            let key = options.sdk_key.clone().unwrap_or_default();
            let builder = Client::builder(&options.server, key).application("ai-vs-baseline");
            builder.version(env!("CARGO_PKG_VERSION")).connect().await?
        }
    };
    if misspellings.is_empty() {
        return Err("there is no misspelling to correct".into());
    }
    let mut reports = Reports::default();
    tokio::select! {
        () = correct_all(&options, &guidon, &engines, &misspellings, &mut reports) => {}
        _ = tokio::signal::ctrl_c() => say("interrupted"),
    }
    say(&reports.total().describe("total"));
    if let Err(error) = guidon.close(Duration::from_secs(5)).await {
        say(&format!("not every exposure was stored: {error}"));
    }
    Ok(())
}

/// What was done: in the present interval, and before it.
#[derive(Default)]
struct Reports {
    interval: Report,
    before: Report,
}

impl Reports {
    /// Ends the interval and describes it.
    fn next_interval(&mut self, head: &str) -> String {
        let mut interval = std::mem::take(&mut self.interval);
        let description = interval.describe(head);
        self.before.merge(interval);
        description
    }

    fn total(mut self) -> Report {
        self.before.merge(self.interval);
        self.before
    }
}

fn snapshot(path: &Path) -> Result<Snapshot, Box<dyn Error>> {
    let json = std::fs::read(path).map_err(|error| format!("{} cannot be read: {error}", path.display()))?;
    Snapshot::parse(&json).map_err(|error| format!("{} is not a snapshot: {error}", path.display()).into())
}

async fn correct_all(
    options: &Options,
    guidon: &Client,
    engines: &Engines,
    misspellings: &[Misspelling],
    reports: &mut Reports,
) {
    let started = Instant::now();
    let pause = Duration::from_secs(1).checked_div(options.rate).unwrap_or_default();
    let interval = Duration::try_from_secs_f64(options.interval).unwrap_or(Duration::from_secs(2));
    let mut ticks = tokio::time::interval(pause.max(Duration::from_micros(1)));
    let mut reported = started;
    let count = options.words.unwrap_or(misspellings.len());
    for turn in 0..count {
        // The list is in the order of the alphabet; a stride mixes it, so that one interval is like another.
        let entry = &misspellings[turn.wrapping_mul(STRIDE) % misspellings.len()];
        if pause.is_zero() {
            tokio::task::yield_now().await;
        } else {
            ticks.tick().await;
        }
        correct(options, guidon, engines, entry, &mut reports.interval);
        if reported.elapsed() >= interval {
            reported = Instant::now();
            let revision = guidon.revision().map_or(0, |revision| revision.number);
            let head = format!("{:>6.1} s  {:?}, revision {revision}", started.elapsed().as_secs_f64(), guidon.state());
            say(&reports.next_interval(&head));
        }
    }
}

/// The whole use of the SDK: the word is the unit that is assigned, and either engine may answer.
fn correct(options: &Options, guidon: &Client, engines: &Engines, entry: &Misspelling, report: &mut Report) {
    let started = Instant::now();
    let context = Context::new(&entry.wrong).with("length", entry.wrong.len());
    let done = guidon
        .path(&options.flag, &context)
        .ai(|| engines.ai.correct(&entry.wrong).map(Some))
        .baseline(|| engines.baseline.correct(&entry.wrong))
        .run_detail();
    let answered = match (done.ran, done.cause.is_failure()) {
        (Ran::Ai, _) => Answered::Ai,
        (Ran::Baseline, false) => Answered::Baseline,
        (Ran::Baseline, true) => Answered::Fallback,
    };
    let right = done.value.is_some_and(|answer| entry.right.iter().any(|word| word == answer));
    report.add(answered, &entry.wrong, done.value, right, started.elapsed());
}

/// Prints a line. Nobody who reads it any more is no reason to stop.
fn say(line: &str) {
    let _ = writeln!(std::io::stdout().lock(), "{line}");
}
