//! One instance of a service that prices baskets: an AI-written engine beside the baseline, as the flag `price-engine` decides.
//!
//! It makes its own load: so many requests a second, from people of whom few come often. A word on standard input makes the AI
//! engine go wrong: `errors` (30 % of its calls fail), `latency` (its slowest calls take three times as long), `cpu` (it takes
//! twice the CPU time), `good` again; `quit` or the end of input ends it. What happens goes to standard output, a line each,
//! with milliseconds since 1970 first, so that a script can tell how long the service was bad. See the README.
#![allow(clippy::print_stdout, reason = "lines on standard output are what it says")]

mod engine;

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use clap::Parser;
use engine::{Engine, Fault};
use guidon_sdk::{Client, Context};
use rand::rngs::SmallRng;
use rand::{RngExt, SeedableRng};
use tokio::io::{AsyncBufReadExt, BufReader};
use tokio::time::{MissedTickBehavior, interval};

/// The flag that decides.
const FLAG: &str = "price-engine";
/// Milliseconds without an AI call after which the last one counts as the last.
const QUIET_MS: u64 = 1_500;

/// One instance of a made-up service under release.
#[derive(Parser)]
struct Options {
    /// Address of the server
    #[arg(long, env = "GUIDON_SERVER")]
    server: String,
    /// SDK key of the environment
    #[arg(long, env = "GUIDON_SDK_KEY", hide_env_values = true)]
    sdk_key: String,
    /// Name of this instance
    #[arg(long, default_value = "instance")]
    name: String,
    /// Requests a second
    #[arg(long, default_value_t = 50)]
    rate: u32,
    /// People who make them
    #[arg(long, default_value_t = 20_000)]
    people: u32,
    /// Seed of the load
    #[arg(long, default_value_t = 1)]
    seed: u64,
}

/// Why the instance ends.
#[derive(Debug, thiserror::Error)]
enum Failure {
    #[error(transparent)]
    Connect(#[from] guidon_sdk::ConnectError),
    #[error("standard input: {0}")]
    Input(#[from] std::io::Error),
}

/// Counts of the present second, and when the AI engine was bad first and last.
#[derive(Default)]
struct Tally {
    ai: AtomicU64,
    baseline: AtomicU64,
    failed: AtomicU64,
    first_bad: AtomicU64,
    last_bad: AtomicU64,
}

#[tokio::main]
async fn main() -> Result<(), Failure> {
    let options = Options::parse();
    let client =
        Client::builder(&options.server, &options.sdk_key).application(FLAG).instance(&options.name).connect().await?;
    let (engine, tally) = (Arc::new(Engine::default()), Arc::new(Tally::default()));
    tokio::spawn(make_load(options, client.clone(), Arc::clone(&engine), Arc::clone(&tally)));
    tokio::spawn(report(Arc::clone(&tally)));
    let mut words = BufReader::new(tokio::io::stdin()).lines();
    while let Some(word) = words.next_line().await? {
        let fault = match word.trim() {
            "good" => Fault::None,
            "errors" => Fault::Errors,
            "latency" => Fault::Latency,
            "cpu" => Fault::Cpu,
            "quit" => break,
            other => {
                println!("{} unknown {other}: say errors, latency, cpu, good or quit", now());
                continue;
            }
        };
        tally.first_bad.store(0, Ordering::Relaxed);
        tally.last_bad.store(0, Ordering::Relaxed);
        engine.go_wrong(fault);
        println!("{} fault {}", now(), word.trim());
    }
    // What is not stored within the limit is lost with the process; the exit does not wait for it.
    let _ = client.close(Duration::from_secs(2)).await;
    Ok(())
}

/// Makes requests at an even rate. Each is a task of its own, so that a slow one delays no other.
async fn make_load(options: Options, client: Client, engine: Arc<Engine>, tally: Arc<Tally>) {
    let mut random = SmallRng::seed_from_u64(options.seed);
    let mut due = interval(Duration::from_secs(1) / options.rate.max(1));
    due.set_missed_tick_behavior(MissedTickBehavior::Burst);
    loop {
        due.tick().await;
        // Squaring makes few people come often.
        let chance: f64 = random.random();
        let person = (chance * chance * f64::from(options.people)) as u32;
        let (seed, client, engine, tally) = (random.random(), client.clone(), Arc::clone(&engine), Arc::clone(&tally));
        tokio::spawn(async move { serve(person, seed, &client, &engine, &tally).await });
    }
}

/// Serves one request.
async fn serve(person: u32, seed: u64, client: &Client, engine: &Engine, tally: &Tally) {
    let context = Context::new(format!("person-{person}"));
    let path = client.path(FLAG, &context);
    let ai = || async {
        tally.ai.fetch_add(1, Ordering::Relaxed);
        if engine.is_bad() {
            let at = now();
            let _ = tally.first_bad.compare_exchange(0, at, Ordering::Relaxed, Ordering::Relaxed);
            tally.last_bad.fetch_max(at, Ordering::Relaxed);
        }
        let priced = engine.ai(seed).await;
        if priced.is_err() {
            tally.failed.fetch_add(1, Ordering::Relaxed);
        }
        priced
    };
    let baseline = || async {
        tally.baseline.fetch_add(1, Ordering::Relaxed);
        engine.baseline(seed).await
    };
    let _price: u64 = path.ai(ai).baseline(baseline).run_async().await;
}

/// Says once a second what was served, and when a bad AI engine was called for the last time.
async fn report(tally: Arc<Tally>) {
    let mut second = interval(Duration::from_secs(1));
    let mut told = 0;
    loop {
        second.tick().await;
        let take = |count: &AtomicU64| count.swap(0, Ordering::Relaxed);
        let (ai, baseline, failed) = (take(&tally.ai), take(&tally.baseline), take(&tally.failed));
        println!("{} served ai={ai} baseline={baseline} failed={failed}", now());
        let (first, last) = (tally.first_bad.load(Ordering::Relaxed), tally.last_bad.load(Ordering::Relaxed));
        if last > 0 && last != told && now().saturating_sub(last) > QUIET_MS {
            told = last;
            println!("{} bad first={first} last={last}", now());
        }
    }
}

/// Milliseconds since 1970.
#[allow(clippy::disallowed_methods, reason = "times of several processes are compared")]
fn now() -> u64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    u64::try_from(since.as_millis()).unwrap_or(u64::MAX)
}
