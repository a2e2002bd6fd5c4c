//! How the host does, as far as the application says so.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use super::cpu;
use crate::measure::HostReading;

/// Asked once a second.
pub(super) type HostHook = Arc<dyn Fn() -> HostReading + Send + Sync>;

/// What the hook says; nothing if it panics.
pub(super) fn read(hook: &HostHook) -> Option<HostReading> {
    let reading = catch_unwind(AssertUnwindSafe(|| hook()));
    reading
        .inspect_err(|_| tracing::error!("the application's host_readings hook panicked; nothing is sent of it"))
        .ok()
}

/// Reads how this process does, for [`ClientBuilder::host_readings`](super::ClientBuilder::host_readings): its CPU utilisation
/// since the last reading, as a share of the cores it may use (whole ones, as [`std::thread::available_parallelism`] counts them
/// when this is called), and its resident memory, out of one small file in `/proc`. On macOS and FreeBSD it tells of CPU alone, on
/// other systems than those, Linux and Android of nothing.
///
/// An application that knows how much work waits adds it:
///
/// ```
/// use guidon_sdk::client::process_readings;
/// use guidon_sdk::measure::HostReading;
///
/// # fn jobs_waiting() -> f64 { 3.0 }
/// let process = process_readings();
/// let hook = move || HostReading { queue_depth: Some(jobs_waiting()), ..process() };
/// # assert_eq!(hook().queue_depth, Some(3.0));
/// ```
pub fn process_readings() -> impl Fn() -> HostReading + Send + Sync + 'static {
    let cores = std::thread::available_parallelism().map_or(1, std::num::NonZero::get);
    let last = Mutex::new((Instant::now(), cpu::process_time()));
    move || {
        let present = (Instant::now(), cpu::process_time());
        let last = std::mem::replace(&mut *last.lock().unwrap_or_else(PoisonError::into_inner), present);
        let cpu = last.1.zip(present.1).and_then(|(before, now)| {
            utilisation(now.saturating_sub(before), present.0.saturating_duration_since(last.0), cores)
        });
        HostReading { cpu, memory: resident_bytes(), queue_depth: None }
    }
}

/// Share of the cores' time; none if no time has passed.
fn utilisation(taken: Duration, passed: Duration, cores: usize) -> Option<f64> {
    let share = taken.as_secs_f64() / (passed.as_secs_f64() * cores as f64);
    share.is_finite().then(|| share.min(1.0))
}

#[cfg(any(target_os = "linux", target_os = "android"))]
fn resident_bytes() -> Option<f64> {
    parse_resident(&std::fs::read_to_string("/proc/self/status").ok()?)
}

#[cfg(not(any(target_os = "linux", target_os = "android")))]
fn resident_bytes() -> Option<f64> {
    None
}

/// Out of a file `status` as proc(5) describes it.
#[cfg(any(target_os = "linux", target_os = "android"))]
fn parse_resident(status: &str) -> Option<f64> {
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"))?;
    let kibibytes: u64 = line.trim().strip_suffix("kB")?.trim().parse().ok()?;
    Some(kibibytes as f64 * 1024.0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn utilisation_is_a_share_of_the_cores() {
        let second = Duration::from_secs(1);
        assert_eq!(utilisation(second, second, 2), Some(0.5));
        assert_eq!(utilisation(3 * second, second, 2), Some(1.0));
        assert_eq!(utilisation(Duration::ZERO, Duration::ZERO, 2), None);
        assert_eq!(utilisation(second, Duration::ZERO, 2), None);
    }

    #[cfg(target_os = "linux")]
    #[test]
    fn this_process_is_read() {
        assert_eq!(parse_resident("VmPeak:\t  9 kB\nVmRSS:\t   1234 kB\nThreads:\t1\n"), Some(1234.0 * 1024.0));
        assert_eq!((parse_resident("VmRSS: many kB"), parse_resident("")), (None, None));
        let read = process_readings();
        let began = cpu::thread_time().unwrap();
        while cpu::thread_time().unwrap() - began < Duration::from_millis(20) {}
        let reading = read();
        assert!(reading.cpu.is_some_and(|cpu| cpu > 0.0 && cpu <= 1.0), "{reading:?}");
        assert!(reading.memory.is_some_and(|memory| (1e6..1e12).contains(&memory)), "{reading:?}");
    }

    #[test]
    fn a_hook_that_panics_says_nothing() {
        let hook: HostHook = Arc::new(|| panic!("the application's mistake"));
        assert_eq!(read(&hook), None);
    }
}
