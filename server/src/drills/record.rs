//! What a drill found.

use std::time::Duration;

use guidon_sdk::model::SLOTS;
use serde::{Deserialize, Serialize};

/// Most pairs of variations that a tally lists, the largest first.
pub const MAX_MOVES: usize = 50;
/// Most reasons why a drill failed that are recorded.
pub const MAX_DRILL_REASONS: usize = 20;
/// Most names of SDKs that are listed as silent.
pub const MAX_NAMED_SDKS: usize = 20;
/// Most bytes of a check's output that are recorded: the last ones.
pub const MAX_CHECK_OUTPUT_BYTES: usize = 4_096;
/// Most bytes of a check's command line that are recorded.
pub const MAX_CHECK_COMMAND_BYTES: usize = 1_024;

/// The record of a drill, as it is journaled.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct DrillReport {
    /// Identifier.
    pub id: String,
    /// Who had it made.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub by: String,
    /// Revision of the state that was rehearsed on.
    pub base_revision: u64,
    /// Revision that the rollback goes back to.
    pub to_revision: u64,
    /// Whether everything held.
    pub passed: bool,
    /// Why it did not.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub reasons: Vec<String>,
    /// What was proved.
    pub proof: Proof,
    /// Who would get something else.
    pub moved: Moved,
    /// How long connected SDKs take to hear of a change.
    pub probe: ProbeReport,
    /// The operator's own proof.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub check: Option<Check>,
    /// What the flag was like, apart from shares and whether it is on: a flag that is otherwise has not been rehearsed.
    #[serde(default)]
    pub shape: String,
}

/// What a drill proved on a copy of the state.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Proof {
    /// The rollback passes every check of a change, and the policies allow it in one of the ways.
    pub validates: bool,
    /// Folded into a copy of the state it gives what was at the target revision, served by the same variations.
    pub restores: bool,
    /// Flags, prerequisites and dependants among them, that were found valid after it.
    pub flags_checked: u32,
    /// How whoever drilled could make it: `direct`, `factor` (with a factor proved anew) or `request`; empty if not at all.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub way: String,
    /// Where it moves people: `still`, `lowering` or `widening`.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub direction: String,
}

/// Who would get something else. Counts people, and never names one.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Moved {
    /// Upper bound of the share of people who get something else, out of 100,000.
    pub at_most: u32,
    /// Of a sample of the people seen lately, each evaluated before and after.
    pub sampled: Tally,
    /// Of all people the assignment log has seen lately, by the slots stored with their assignments; only where the rollback
    /// changes nothing but who owns which slot.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub stored: Option<Tally>,
}

/// A count of people.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Tally {
    /// People looked at.
    pub people: u64,
    /// Those of whom it cannot be told, because rules look at attributes that the server does not know.
    pub unknown: u64,
    /// From which variation to which, the largest first; the caller's default is the empty word.
    pub moves: Vec<Move>,
}

/// People who would get another variation.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Move {
    /// Variation they get now.
    pub from: String,
    /// Variation they would get.
    pub to: String,
    /// How many.
    pub count: u64,
    /// Their share of those of whom it can be told, out of 100,000.
    pub share: u32,
}

impl Tally {
    /// A tally of `people`, of whom `unknown` could not be told, and the moves counted.
    #[must_use]
    pub fn of(people: u64, unknown: u64, counted: impl IntoIterator<Item = ((String, String), u64)>) -> Self {
        let known = people.saturating_sub(unknown);
        let of_all = |count: u64| u32::try_from(count * u64::from(SLOTS) / known.max(1)).unwrap_or(u32::MAX);
        let made = counted.into_iter().map(|((from, to), count)| Move { from, to, count, share: of_all(count) });
        let mut moves: Vec<Move> = made.collect();
        moves.sort_by(|a, b| b.count.cmp(&a.count).then_with(|| (&a.from, &a.to).cmp(&(&b.from, &b.to))));
        moves.truncate(MAX_MOVES);
        Self { people, unknown, moves }
    }

    /// People who would get something else.
    #[must_use]
    pub fn moving(&self) -> u64 {
        self.moves.iter().map(|of| of.count).sum()
    }
}

/// How long connected SDKs took to answer. Times are in microseconds, there and back.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct ProbeReport {
    /// SDK instances that were connected to this server.
    pub connected: u64,
    /// Those that answered.
    pub answered: u64,
    /// Those that did not.
    pub silent: u64,
    /// Half of those that answered did within this time.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub p50_us: Option<u64>,
    /// 99 of 100 that answered did within this time.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub p99_us: Option<u64>,
    /// All that answered did within this time.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub max_us: Option<u64>,
    /// Who did not answer.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub silent_sdks: Vec<SilentSdk>,
}

/// SDK instances of one name that did not answer.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct SilentSdk {
    /// Name and version of the SDK.
    pub sdk: String,
    /// Whether it answers probes at all: earlier versions do not, which says nothing against them.
    pub supported: bool,
    /// How many.
    pub count: u64,
}

impl ProbeReport {
    /// What came of asking `connected` instances, which answered after `times`.
    #[must_use]
    pub fn of(connected: usize, mut times: Vec<Duration>, silent_sdks: Vec<SilentSdk>) -> Self {
        times.sort_unstable();
        let micros = |time: &Duration| u64::try_from(time.as_micros()).unwrap_or(u64::MAX);
        // The nearest rank: the least time within which that many of a hundred answered.
        let within = |percent: usize| {
            let rank = (times.len() * percent).div_ceil(100);
            times.get(rank.saturating_sub(1)).map(micros)
        };
        let (connected, answered) = (connected as u64, times.len() as u64);
        Self {
            connected,
            answered,
            silent: connected.saturating_sub(answered),
            p50_us: within(50),
            p99_us: within(99),
            max_us: times.last().map(micros),
            silent_sdks,
        }
    }

    /// SDK instances that should have answered and did not.
    #[must_use]
    pub fn unanswered(&self) -> u64 {
        self.silent_sdks.iter().filter(|sdk| sdk.supported).map(|sdk| sdk.count).sum()
    }
}

/// The operator's own proof, run where `guidon rollback drill` was.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Check {
    /// The command, as it was given.
    pub command: String,
    /// Its exit code; `null` if it did not start, was ended for lateness, or by a signal.
    #[serde(default)]
    pub exit_code: Option<i32>,
    /// Whether it was ended because its time was over.
    #[serde(default)]
    pub timed_out: bool,
    /// How long it ran, in milliseconds.
    pub duration_ms: u64,
    /// The last of what it printed.
    #[serde(default)]
    pub output: String,
    /// BLAKE3 of all it printed, in hexadecimal.
    #[serde(default)]
    pub output_hash: String,
}

impl Check {
    /// Whether it proves anything.
    #[must_use]
    pub fn passed(&self) -> bool {
        self.exit_code == Some(0) && !self.timed_out
    }

    /// What is wrong with it, as a place and a sentence.
    #[must_use]
    pub fn faults(&self) -> Vec<(&'static str, String)> {
        let mut faults = Vec::new();
        if self.command.is_empty() || self.command.len() > MAX_CHECK_COMMAND_BYTES {
            faults.push(("/check/command", format!("a command has 1 to {MAX_CHECK_COMMAND_BYTES} bytes")));
        }
        if self.output.len() > MAX_CHECK_OUTPUT_BYTES {
            let most = MAX_CHECK_OUTPUT_BYTES;
            faults.push(("/check/output", format!("at most the last {most} bytes of the output are recorded")));
        }
        if !self.output_hash.is_empty() && blake3::Hash::from_hex(&self.output_hash).is_err() {
            faults.push(("/check/outputHash", "a hash is 64 hexadecimal digits".to_owned()));
        }
        faults
    }

    /// Why it does not count.
    #[must_use]
    pub fn failure(&self) -> Option<String> {
        match (self.passed(), self.timed_out, self.exit_code) {
            (true, ..) => None,
            (_, true, _) => Some(format!("the check was ended after {} ms: its time was over", self.duration_ms)),
            (_, _, Some(code)) => Some(format!("the check ended with exit code {code}")),
            (_, _, None) => Some("the check could not be run, or was ended by a signal".to_owned()),
        }
    }
}

/// The last drill of a flag in an environment.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct StandingDrill {
    /// Key of the environment.
    pub environment: String,
    /// Key of the flag.
    pub flag: String,
    /// When it was recorded, in milliseconds since 1970.
    pub at: u64,
    /// The revision that its record made.
    pub revision: u64,
    /// What it found.
    pub report: DrillReport,
}
