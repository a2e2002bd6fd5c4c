//! CPU time, where the system tells it: Linux, Android, macOS and FreeBSD.

use std::time::Duration;

/// CPU time that the calling thread has taken.
pub(super) fn thread_time() -> Option<Duration> {
    system::time(Whose::Thread)
}

/// Whether the system tells it.
pub(super) const fn is_known() -> bool {
    cfg!(any(target_os = "linux", target_os = "android", target_os = "macos", target_os = "freebsd"))
}

/// CPU time that all threads of the process have taken.
pub(super) fn process_time() -> Option<Duration> {
    system::time(Whose::Process)
}

#[derive(Clone, Copy)]
enum Whose {
    Thread,
    Process,
}

#[cfg(any(target_os = "linux", target_os = "android", target_os = "macos", target_os = "freebsd"))]
mod system {
    use std::time::Duration;

    use rustix::time::{ClockId, clock_gettime};

    use super::Whose;

    pub(super) fn time(whose: Whose) -> Option<Duration> {
        let clock = match whose {
            Whose::Thread => ClockId::ThreadCPUTime,
            Whose::Process => ClockId::ProcessCPUTime,
        };
        clock_gettime(clock).try_into().ok()
    }
}

#[cfg(not(any(target_os = "linux", target_os = "android", target_os = "macos", target_os = "freebsd")))]
mod system {
    pub(super) fn time(_: super::Whose) -> Option<std::time::Duration> {
        None
    }
}
