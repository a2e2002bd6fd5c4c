//! How much of a host's time AI paths may take that run beside the baseline, their answers thrown away.
//!
//! Each run takes a place, of which there are few, and once it has ended no other begins until it has been paid for: one that
//! was busy for 10 ms at a share of a tenth buys 100 ms, counted from its beginning or from the end of what was bought before
//! (the virtual time of the generic cell rate algorithm, ITU-T I.371). So the sum of all busy times stays below that share of the
//! time passed, but for the runs of the present. What finds no place is skipped and counted.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, mpsc};
use std::time::Duration;

use tokio::time::Instant;

use super::shared::Shared;

/// What runs in the shadow may take of this process. Set by [`ClientBuilder::shadow_budget`](super::ClientBuilder::shadow_budget).
#[derive(Clone, Copy, Debug, PartialEq)]
#[must_use]
pub struct ShadowBudget {
    at_once: usize,
    share: f64,
    timeout: Duration,
}

impl Default for ShadowBudget {
    fn default() -> Self {
        Self { at_once: 2, share: 0.1, timeout: Duration::from_secs(10) }
    }
}

impl ShadowBudget {
    /// Most runs that are under way, or wait for the thread of those that are no futures. Default: 2, at most 64; 0: none run.
    pub fn at_once(mut self, runs: usize) -> Self {
        self.at_once = runs.min(64);
        self
    }

    /// Share of one core's time that all runs together may be busy: the time of a closure, or of a future's polls. Default: 0.1;
    /// between 0.001 and 1.
    pub fn share(mut self, share: f64) -> Self {
        self.share = if share.is_nan() { 0.1 } else { share.clamp(0.001, 1.0) };
        self
    }

    /// Longest that a future runs; then it is dropped and counts as failed. A path's own timeout counts where it is shorter. A
    /// closure cannot be interrupted. Default: 10 s.
    pub fn timeout(mut self, limit: Duration) -> Self {
        self.timeout = limit;
        self
    }
}

/// How many AI paths ran in the shadow; see [`Client::shadows`](super::Client::shadows).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct ShadowReport {
    /// Runs that have begun, or wait for the thread.
    pub begun: u64,
    /// Calls that were to run both paths and did not: the budget was spent, or there is no runtime to run a future on.
    pub skipped: u64,
}

/// What is in use. Pure: times are those since the client began.
#[derive(Debug, Default)]
struct Used {
    running: usize,
    paid_until: Duration,
}

impl Used {
    /// Takes a place, if there is one.
    fn admit(&mut self, budget: &ShadowBudget, now: Duration) -> bool {
        let admitted = self.running < budget.at_once && now >= self.paid_until;
        self.running += usize::from(admitted);
        admitted
    }

    /// Gives a place back, of a run that began then and was busy for so long.
    fn ended(&mut self, budget: &ShadowBudget, began: Duration, busy: Duration) {
        self.running = self.running.saturating_sub(1);
        let price = Duration::try_from_secs_f64(busy.as_secs_f64() / budget.share).unwrap_or(Duration::MAX);
        self.paid_until = self.paid_until.max(began).saturating_add(price);
    }
}

type Job = Box<dyn FnOnce() + Send>;

/// The runs of a client.
pub(super) struct Shadows {
    budget: ShadowBudget,
    since: Instant,
    used: Mutex<Used>,
    /// Runs closures, one after another; begun by the first. It ends with the client.
    thread: Mutex<Option<mpsc::Sender<Job>>>,
    begun: AtomicU64,
    skipped: AtomicU64,
}

impl Shadows {
    pub(super) fn new(budget: ShadowBudget) -> Self {
        Self {
            budget,
            since: Instant::now(),
            used: Mutex::default(),
            thread: Mutex::default(),
            begun: AtomicU64::new(0),
            skipped: AtomicU64::new(0),
        }
    }

    pub(super) fn timeout(&self) -> Duration {
        self.budget.timeout
    }

    pub(super) fn report(&self) -> ShadowReport {
        ShadowReport { begun: self.begun.load(Ordering::Relaxed), skipped: self.skipped.load(Ordering::Relaxed) }
    }

    /// Runs `job` on the thread for such, and not at all if there is none. Places bound how many wait.
    pub(super) fn queue(&self, job: impl FnOnce() + Send + 'static) {
        let mut thread = lock(&self.thread);
        if thread.is_none() {
            *thread = start_thread();
        }
        if let Some(thread) = &*thread {
            // The thread ends when this sender is gone, and not before.
            let _ = thread.send(Box::new(job));
        }
    }
}

fn start_thread() -> Option<mpsc::Sender<Job>> {
    let (sender, jobs) = mpsc::channel::<Job>();
    let run = move || {
        for job in jobs {
            // A panic of the application's code is told where it is counted; this is for what it drops.
            let _ = catch_unwind(AssertUnwindSafe(job));
        }
    };
    let started = std::thread::Builder::new().name("guidon-shadow".to_owned()).spawn(run);
    started.inspect_err(|error| tracing::warn!(%error, "nothing runs in the shadow: no thread for it")).ok()?;
    Some(sender)
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    // Nothing that runs under these locks panics.
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// A place of a run, given back when it is dropped.
pub(super) struct Place {
    shared: Arc<Shared>,
    began: Instant,
    busy: Duration,
}

impl Place {
    /// `None`, and counted, if there is none left, or the run is not `able` to begin.
    pub(super) fn take(shared: &Arc<Shared>, able: bool) -> Option<Self> {
        let shadows = &shared.shadows;
        let began = Instant::now();
        let admitted =
            able && lock(&shadows.used).admit(&shadows.budget, began.saturating_duration_since(shadows.since));
        let counter = if admitted { &shadows.begun } else { &shadows.skipped };
        counter.fetch_add(1, Ordering::Relaxed);
        admitted.then(|| Self { shared: Arc::clone(shared), began, busy: Duration::ZERO })
    }

    pub(super) fn shared(&self) -> &Arc<Shared> {
        &self.shared
    }

    /// Does a piece of the run, which counts as busy meanwhile.
    pub(super) fn busy<T>(&mut self, work: impl FnOnce() -> T) -> T {
        let began = Instant::now();
        let done = work();
        self.busy += began.elapsed();
        done
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        let shadows = &self.shared.shadows;
        let began = self.began.saturating_duration_since(shadows.since);
        lock(&shadows.used).ended(&shadows.budget, began, self.busy);
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const MS: Duration = Duration::from_millis(1);

    #[test]
    fn a_run_is_paid_for_before_the_next() {
        let budget = ShadowBudget::default();
        let mut used = Used::default();
        assert!(used.admit(&budget, 5 * MS) && used.admit(&budget, 5 * MS));
        assert!(!used.admit(&budget, 6 * MS), "two at once");
        used.ended(&budget, 5 * MS, 10 * MS);
        assert!(!used.admit(&budget, 104 * MS));
        assert!(used.admit(&budget, 105 * MS));
        used.ended(&budget, 5 * MS, 20 * MS);
        assert!(!used.admit(&budget, 304 * MS));
        assert!(used.admit(&budget, 305 * MS));
        assert!(!Used::default().admit(&budget.at_once(0), MS), "none");
    }

    #[test]
    fn settings_are_kept_within_reason() {
        let budget = ShadowBudget::default().at_once(1_000).share(7.0);
        assert_eq!((budget.at_once, budget.share), (64, 1.0));
        assert_eq!((budget.share(0.0).share, budget.share(f64::NAN).share), (0.001, 0.1));
        let mut used = Used { running: 1, paid_until: Duration::MAX };
        used.ended(&budget, Duration::ZERO, Duration::MAX);
        assert_eq!((used.running, used.paid_until), (0, Duration::MAX));
    }

    proptest! {
        /// Whatever comes, the time bought is all busy times over the share, and there are never more places taken than exist.
        #[test]
        fn busy_times_stay_below_their_share(calls in prop::collection::vec((0_u64..50, 0_u64..30), 1..300), at_once in 1_usize..4) {
            let budget = ShadowBudget::default().at_once(at_once);
            let (mut used, mut now, mut busy) = (Used::default(), Duration::ZERO, Duration::ZERO);
            let mut last = Duration::ZERO;
            let mut under_way: Vec<(Duration, Duration)> = Vec::new();
            for (later, length) in calls {
                now += later as u32 * MS;
                under_way.retain(|&(began, length)| {
                    let runs = began + length > now;
                    if !runs {
                        used.ended(&budget, began, length);
                        busy += length;
                    }
                    runs
                });
                if used.admit(&budget, now) {
                    under_way.push((now, length as u32 * MS));
                    last = last.max(length as u32 * MS);
                }
                prop_assert!(under_way.len() <= at_once && used.running == under_way.len());
                let allowed = now.mul_f64(budget.share) + at_once as u32 * last;
                prop_assert!(busy <= allowed, "{busy:?} of {now:?}");
            }
        }
    }
}
