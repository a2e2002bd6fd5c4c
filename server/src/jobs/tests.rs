use std::sync::atomic::{AtomicUsize, Ordering};

use super::*;
use crate::clock::ManualClock;

#[derive(Default)]
struct Counting {
    ticks: AtomicUsize,
    panics_at: Option<usize>,
}

impl Job for Counting {
    fn name(&self) -> &'static str {
        "counting"
    }

    fn tick(&self, _: u64) -> BoxFuture<'_, ()> {
        let count = self.ticks.fetch_add(1, Ordering::SeqCst);
        assert_ne!(Some(count), self.panics_at, "as the test wants it");
        Box::pin(async {})
    }
}

#[tokio::test(start_paused = true)]
async fn a_job_survives_its_own_panic_and_ends_with_the_server() {
    let job = Arc::new(Counting { panics_at: Some(1), ..Counting::default() });
    let clock: Arc<dyn Clock> = Arc::new(ManualClock::new(1));
    let shutdown = Shutdown::new();
    let all: [Arc<dyn Job>; 1] = [job.clone()];
    let jobs = Jobs::start(&all, &clock, &shutdown);
    tokio::time::sleep(Duration::from_millis(3_500)).await;
    assert_eq!(job.ticks.load(Ordering::SeqCst), 4);
    shutdown.begin();
    jobs.ended().await;
    tokio::time::sleep(Duration::from_secs(10)).await;
    assert_eq!(job.ticks.load(Ordering::SeqCst), 4);
}
