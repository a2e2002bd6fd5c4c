//! Keeps an AI path that goes wrong from being tried again and again, also while the server is out of reach.
//!
//! One circuit breaker for each flag and variation, inside the process: *closed* while the path does well, *open* after it failed
//! too often, when the baseline answers without the path being tried, and *half-open* when a single call at a time probes whether
//! it does well again (Nygard, "Release It!", 2nd ed. 2018, ch. 5). What was assigned stays what it was: only what is delivered
//! differs, and the record of it says [`Cause::Breaker`](crate::protocol::Cause::Breaker).
//!
//! Time is the monotonic clock's, as the time since the client began.

use std::collections::{HashMap, VecDeque};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use arc_swap::ArcSwap;

/// Most pairs of flag and variation that have a breaker; the paths of those beyond have none.
pub const MAX_BREAKERS: usize = 2_000;
/// Parts of the window in which failures are counted: what is forgotten is forgotten a part at a time.
const PARTS: u32 = 10;

/// When an AI path is given up for a while, and how it comes back. Set by
/// [`ClientBuilder::breaker`](super::ClientBuilder::breaker).
#[derive(Clone, Copy, Debug, PartialEq)]
#[must_use]
pub struct BreakerSettings {
    failures: u32,
    share: f64,
    window: Duration,
    pause: Duration,
    max_pause: Duration,
    probes: u32,
}

impl Default for BreakerSettings {
    fn default() -> Self {
        Self {
            failures: 20,
            share: 0.5,
            window: Duration::from_secs(10),
            pause: Duration::from_secs(5),
            max_pause: Duration::from_secs(60),
            probes: 3,
        }
    }
}

impl BreakerSettings {
    /// Failures (errors, panics, timeouts) within the window that open the breaker. Default: 20, at least 1.
    pub fn failures(mut self, failures: u32) -> Self {
        self.failures = failures.max(1);
        self
    }

    /// Share of the window's calls, 0 to 1, that must have failed as well: a path that fails now and then is for the server's
    /// guard to judge, and not for one process. Default: 0.5; 0 asks for the number of failures alone.
    pub fn share(mut self, share: f64) -> Self {
        self.share = if share.is_nan() { 0.5 } else { share.clamp(0.0, 1.0) };
        self
    }

    /// How far back calls are counted. Default: 10 s, at least 100 ms.
    pub fn window(mut self, window: Duration) -> Self {
        self.window = window.max(Duration::from_millis(100));
        self
    }

    /// How long the baseline answers before the path is probed; doubled for each probe that fails, up to `max`. Default: 5 s
    /// and 60 s, at least 10 ms.
    pub fn pause(mut self, pause: Duration, max: Duration) -> Self {
        self.pause = pause.max(Duration::from_millis(10));
        self.max_pause = max.max(self.pause);
        self
    }

    /// Probes that must succeed one after another before everybody who is assigned to the path gets it again. Default: 3, at
    /// least 1.
    pub fn probes(mut self, probes: u32) -> Self {
        self.probes = probes.max(1);
        self
    }
}

/// Where a breaker stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum BreakerState {
    /// The path is tried.
    Closed,
    /// The baseline answers.
    Open,
    /// One call at a time tries the path; the baseline answers the others.
    HalfOpen,
}

/// A breaker that is not closed, or was not at some time; see [`Client::breakers`](super::Client::breakers).
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct BreakerReport {
    /// Key of the flag.
    pub flag: String,
    /// Key of the AI variation.
    pub variation: String,
    /// Where it stands.
    pub state: BreakerState,
    /// How often it went from closed to open.
    pub opened: u64,
    /// Calls that the baseline answered because of it.
    pub skipped: u64,
}

/// How a call ended, as far as it says something of the path.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Ended {
    Well,
    Badly,
    /// It was given up by the caller: says nothing.
    Cancelled,
}

/// What a call may do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Admission {
    Try,
    /// Try, and decide with it whether the breaker closes.
    Probe,
    /// The baseline answers.
    Skip,
}

/// One breaker: pure, its time is handed in.
#[derive(Debug)]
struct Breaker {
    phase: Phase,
    /// Calls and failures by part of the window, oldest first: (number of the part, calls, failures).
    counts: VecDeque<(u64, u64, u64)>,
    opened: u64,
    skipped: u64,
}

#[derive(Clone, Copy, Debug)]
enum Phase {
    Closed,
    Open { until: Duration, pause: Duration },
    HalfOpen { pause: Duration, succeeded: u32, probing: bool },
}

impl Breaker {
    fn new() -> Self {
        Self { phase: Phase::Closed, counts: VecDeque::new(), opened: 0, skipped: 0 }
    }

    fn admit(&mut self, now: Duration) -> Admission {
        match self.phase {
            Phase::Closed => return Admission::Try,
            Phase::Open { until, pause } if now >= until => {
                self.phase = Phase::HalfOpen { pause, succeeded: 0, probing: true };
                return Admission::Probe;
            }
            Phase::HalfOpen { pause, succeeded, probing: false } => {
                self.phase = Phase::HalfOpen { pause, succeeded, probing: true };
                return Admission::Probe;
            }
            Phase::Open { .. } | Phase::HalfOpen { .. } => {}
        }
        self.skipped += 1;
        Admission::Skip
    }

    /// Takes note of how an admitted call ended; answers the state if that changed it.
    fn ended(
        &mut self,
        settings: &BreakerSettings,
        admission: Admission,
        ended: Ended,
        now: Duration,
    ) -> Option<BreakerState> {
        match (admission, self.phase) {
            (Admission::Probe, Phase::HalfOpen { pause, succeeded, .. }) => {
                self.probed(settings, (pause, succeeded), ended, now)
            }
            // Calls that began while it was closed say nothing once it is not: they are of the time before.
            (Admission::Try, Phase::Closed) if ended != Ended::Cancelled => {
                self.count(settings, ended, now).then(|| self.open(settings.pause, now))
            }
            _ => None,
        }
    }

    fn probed(
        &mut self,
        settings: &BreakerSettings,
        (pause, succeeded): (Duration, u32),
        ended: Ended,
        now: Duration,
    ) -> Option<BreakerState> {
        match ended {
            Ended::Cancelled => {
                self.phase = Phase::HalfOpen { pause, succeeded, probing: false };
                None
            }
            Ended::Badly => {
                let pause = pause.saturating_mul(2).min(settings.max_pause);
                self.phase = Phase::Open { until: now.saturating_add(pause), pause };
                Some(BreakerState::Open)
            }
            Ended::Well if succeeded + 1 >= settings.probes => {
                self.phase = Phase::Closed;
                self.counts.clear();
                Some(BreakerState::Closed)
            }
            Ended::Well => {
                self.phase = Phase::HalfOpen { pause, succeeded: succeeded + 1, probing: false };
                None
            }
        }
    }

    fn open(&mut self, pause: Duration, now: Duration) -> BreakerState {
        self.phase = Phase::Open { until: now.saturating_add(pause), pause };
        self.opened += 1;
        self.counts.clear();
        BreakerState::Open
    }

    /// Counts a call; answers whether the window now holds too many failures.
    fn count(&mut self, settings: &BreakerSettings, ended: Ended, now: Duration) -> bool {
        let part = (settings.window / PARTS).as_nanos().max(1);
        let present = u64::try_from(now.as_nanos() / part).unwrap_or(u64::MAX);
        while self.counts.front().is_some_and(|(number, ..)| number + u64::from(PARTS) <= present) {
            self.counts.pop_front();
        }
        let failed = u64::from(ended == Ended::Badly);
        match self.counts.back_mut() {
            // A thread that was held up may bring an earlier time: it counts with the present part.
            Some((number, calls, failures)) if *number >= present => {
                *calls += 1;
                *failures += failed;
            }
            _ => self.counts.push_back((present, 1, failed)),
        }
        if failed == 0 {
            return false;
        }
        let (calls, failures) =
            self.counts.iter().fold((0, 0), |(calls, failures), (_, more, bad)| (calls + more, failures + bad));
        failures >= u64::from(settings.failures) && failures as f64 >= settings.share * calls as f64
    }

    fn state(&self) -> BreakerState {
        match self.phase {
            Phase::Closed => BreakerState::Closed,
            Phase::Open { .. } => BreakerState::Open,
            Phase::HalfOpen { .. } => BreakerState::HalfOpen,
        }
    }
}

type ByFlag = HashMap<Arc<str>, HashMap<Arc<str>, Arc<Entry>>>;

/// A breaker, and whose it is.
struct Entry {
    flag: Arc<str>,
    variation: Arc<str>,
    breaker: Mutex<Breaker>,
}

impl Entry {
    fn lock(&self) -> MutexGuard<'_, Breaker> {
        // Nothing that runs under the lock panics.
        self.breaker.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The breakers of a client. Finding one takes no lock; what it counts is behind a lock of its own, held for nanoseconds.
pub(super) struct Breakers {
    settings: Option<BreakerSettings>,
    began: Instant,
    known: ArcSwap<ByFlag>,
    /// Held by whoever adds one.
    adding: Mutex<()>,
}

impl Breakers {
    /// Without settings no path has a breaker.
    pub(super) fn new(settings: Option<BreakerSettings>) -> Self {
        Self { settings, began: Instant::now(), known: ArcSwap::default(), adding: Mutex::default() }
    }

    /// Asks whether the AI path of `variation` may be tried. `None`: it may, and has no breaker.
    pub(super) fn admit(&self, flag: &str, variation: &str) -> Option<Permit> {
        let settings = self.settings?;
        let entry = self.find(flag, variation)?;
        let admission = entry.lock().admit(self.began.elapsed());
        Some(Permit { entry, settings, admission, began: self.began })
    }

    /// The breakers that have ever opened, by flag and variation.
    pub(super) fn reports(&self) -> Vec<BreakerReport> {
        let known = self.known.load();
        let entries = known.values().flat_map(HashMap::values);
        let mut reports: Vec<BreakerReport> = entries
            .filter_map(|entry| {
                let breaker = entry.lock();
                (breaker.opened > 0).then(|| BreakerReport {
                    flag: entry.flag.to_string(),
                    variation: entry.variation.to_string(),
                    state: breaker.state(),
                    opened: breaker.opened,
                    skipped: breaker.skipped,
                })
            })
            .collect();
        reports.sort_by(|one, other| (&one.flag, &one.variation).cmp(&(&other.flag, &other.variation)));
        reports
    }

    fn find(&self, flag: &str, variation: &str) -> Option<Arc<Entry>> {
        let found = |known: &ByFlag| known.get(flag).and_then(|of| of.get(variation)).cloned();
        found(&self.known.load()).or_else(|| self.add(flag, variation, found))
    }

    #[cold]
    fn add(&self, flag: &str, variation: &str, found: impl Fn(&ByFlag) -> Option<Arc<Entry>>) -> Option<Arc<Entry>> {
        let _adding = self.adding.lock().unwrap_or_else(PoisonError::into_inner);
        let known = self.known.load_full();
        if let Some(entry) = found(&known) {
            return Some(entry);
        }
        if known.values().map(HashMap::len).sum::<usize>() >= MAX_BREAKERS {
            return None;
        }
        let mut more = ByFlag::clone(&known);
        let breaker = Mutex::new(Breaker::new());
        let entry = Arc::new(Entry { flag: flag.into(), variation: variation.into(), breaker });
        more.entry(Arc::clone(&entry.flag)).or_default().insert(Arc::clone(&entry.variation), Arc::clone(&entry));
        self.known.store(Arc::new(more));
        Some(entry)
    }
}

/// What a breaker said of one call, and where the call's end is to be told.
pub(super) struct Permit {
    entry: Arc<Entry>,
    settings: BreakerSettings,
    admission: Admission,
    began: Instant,
}

impl Permit {
    /// Whether the baseline has to answer.
    pub(super) fn is_refusal(&self) -> bool {
        self.admission == Admission::Skip
    }

    /// Tells how the call ended.
    pub(super) fn ended(self, ended: Ended) {
        let Entry { flag, variation, .. } = &*self.entry;
        let changed = self.entry.lock().ended(&self.settings, self.admission, ended, self.began.elapsed());
        match changed {
            Some(BreakerState::Open) => {
                tracing::warn!(%flag, %variation, "the AI path fails too often: the baseline answers for a while");
            }
            Some(_) => tracing::info!(%flag, %variation, "the AI path does well again and is back in use"),
            None => {}
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    fn settings() -> BreakerSettings {
        BreakerSettings::default().failures(3).pause(SECOND, 4 * SECOND).probes(2)
    }

    /// Makes a call at `now` that ends so; answers what it was admitted as.
    fn call(breaker: &mut Breaker, ended: Ended, now: Duration) -> Admission {
        let admission = breaker.admit(now);
        breaker.ended(&settings(), admission, ended, now);
        admission
    }

    #[test]
    fn it_opens_probes_and_closes() {
        let mut breaker = Breaker::new();
        for _ in 0..3 {
            assert_eq!(call(&mut breaker, Ended::Badly, SECOND), Admission::Try);
        }
        assert_eq!((breaker.state(), breaker.opened), (BreakerState::Open, 1));
        assert_eq!(call(&mut breaker, Ended::Well, SECOND + SECOND / 2), Admission::Skip);
        let probe = breaker.admit(2 * SECOND);
        assert_eq!(probe, Admission::Probe);
        assert_eq!(breaker.admit(2 * SECOND), Admission::Skip, "one probe at a time");
        assert_eq!(breaker.ended(&settings(), probe, Ended::Badly, 2 * SECOND), Some(BreakerState::Open));
        assert_eq!(breaker.admit(3 * SECOND), Admission::Skip, "the pause is twice as long");
        assert_eq!(call(&mut breaker, Ended::Cancelled, 4 * SECOND), Admission::Probe);
        assert_eq!(call(&mut breaker, Ended::Well, 4 * SECOND), Admission::Probe, "a cancelled probe says nothing");
        assert_eq!(breaker.state(), BreakerState::HalfOpen);
        assert_eq!(call(&mut breaker, Ended::Well, 4 * SECOND), Admission::Probe);
        assert_eq!((breaker.state(), breaker.opened, breaker.skipped), (BreakerState::Closed, 1, 3));
        assert_eq!(call(&mut breaker, Ended::Badly, 5 * SECOND), Admission::Try, "it begins anew");
        assert_eq!(breaker.state(), BreakerState::Closed);
    }

    #[test]
    fn failures_far_apart_or_few_among_many_do_not_open_it() {
        let mut breaker = Breaker::new();
        for at in 0..100 {
            call(&mut breaker, Ended::Badly, at * 6 * SECOND);
        }
        assert_eq!(breaker.state(), BreakerState::Closed, "two within ten seconds");
        for at in 0..1_000 {
            let ended = if at % 3 == 0 { Ended::Badly } else { Ended::Well };
            call(&mut breaker, ended, 1_000 * SECOND + at * SECOND / 100);
        }
        assert_eq!(breaker.state(), BreakerState::Closed, "a third of the calls");
    }

    #[test]
    fn late_ends_of_earlier_calls_change_nothing() {
        let mut breaker = Breaker::new();
        let late = breaker.admit(SECOND);
        for _ in 0..3 {
            call(&mut breaker, Ended::Badly, SECOND);
        }
        assert_eq!(breaker.ended(&settings(), late, Ended::Well, SECOND), None);
        assert_eq!(breaker.state(), BreakerState::Open);
    }

    #[test]
    fn breakers_are_found_again_and_bounded() {
        let breakers = Breakers::new(Some(settings().pause(1_000 * SECOND, 1_000 * SECOND)));
        for number in 0..MAX_BREAKERS + 1 {
            let admitted = breakers.admit("f", &number.to_string());
            assert_eq!(admitted.is_some(), number < MAX_BREAKERS);
            if number > 100 && number < MAX_BREAKERS - 1 && number % 500 != 0 {
                continue;
            }
            for permit in (0..3).filter_map(|_| breakers.admit("f", &number.to_string())) {
                permit.ended(Ended::Badly);
            }
        }
        assert!(breakers.admit("f", "7").unwrap().is_refusal());
        assert!(breakers.reports().iter().all(|report| report.state == BreakerState::Open && report.opened == 1));
        assert!(Breakers::new(None).admit("f", "v").is_none());
    }

    proptest! {
        /// Whatever happens, a path is tried again once its longest pause is over, by one call at a time, and the counts stay small.
        #[test]
        fn it_never_stays_open_for_good(calls in prop::collection::vec((0_u64..5_000, 0_u8..3), 1..300)) {
            let (mut breaker, mut now) = (Breaker::new(), Duration::ZERO);
            for (later, ended) in calls {
                now += Duration::from_millis(later);
                let ended = [Ended::Well, Ended::Badly, Ended::Cancelled][usize::from(ended)];
                call(&mut breaker, ended, now);
                prop_assert!(breaker.counts.len() <= PARTS as usize);
            }
            let after = now + 4 * SECOND;
            prop_assert_ne!(breaker.admit(after), Admission::Skip);
            if breaker.state() != BreakerState::Closed {
                prop_assert_eq!(breaker.admit(after), Admission::Skip);
            }
        }
    }
}
