//! Runs the operator's own proof of a rollback drill, on this machine.

use std::io::{self, PipeReader, Read, Write};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use crate::drills::{Check, MAX_CHECK_OUTPUT_BYTES};

/// How often it is looked whether the command has ended.
const POLL: Duration = Duration::from_millis(20);
/// How long output is still read once the command has ended: what it left running may hold it open.
const LAST_WORDS: Duration = Duration::from_millis(500);
/// Bytes read at once.
const READ_BYTES: usize = 8 << 10;

/// What the command has printed.
#[derive(Default)]
struct Printed {
    hasher: blake3::Hasher,
    tail: Vec<u8>,
}

impl Printed {
    fn take(&mut self, bytes: &[u8]) {
        self.hasher.update(bytes);
        self.tail.extend_from_slice(bytes);
        let excess = self.tail.len().saturating_sub(MAX_CHECK_OUTPUT_BYTES);
        self.tail.drain(..excess);
    }

    /// The end of it as text, in no more bytes than are recorded: what is no text takes more than it did.
    fn text(&self) -> String {
        let text = String::from_utf8_lossy(&self.tail);
        let mut from = text.len().saturating_sub(MAX_CHECK_OUTPUT_BYTES);
        while !text.is_char_boundary(from) {
            from += 1;
        }
        text.get(from..).unwrap_or_default().to_owned()
    }
}

/// Runs `command` in a shell, for at most `limit`; what it prints is shown on standard error if `shown`, and recorded if
/// `recorded`.
pub fn run(command: &str, variables: &[(&str, String)], limit: Duration, shown: bool, recorded: bool) -> Check {
    let started = Instant::now();
    let printed = Arc::new(Mutex::new(Printed::default()));
    let ended = start(command, variables).map(|(child, output)| {
        let reading = read(output, Arc::clone(&printed), shown);
        let ended = wait(child, limit);
        let until = Instant::now() + LAST_WORDS;
        while !reading.is_finished() && Instant::now() < until {
            thread::sleep(POLL);
        }
        ended
    });
    let duration_ms = u64::try_from(started.elapsed().as_millis()).unwrap_or(u64::MAX);
    let (exit_code, timed_out) = match &ended {
        Ok(Some(status)) => (status.code(), false),
        Ok(None) => (None, true),
        Err(error) => {
            printed.lock().unwrap_or_else(PoisonError::into_inner).take(format!("{error}\n").as_bytes());
            (None, false)
        }
    };
    let printed = printed.lock().unwrap_or_else(PoisonError::into_inner);
    Check {
        command: command.to_owned(),
        exit_code,
        timed_out,
        duration_ms,
        output: if recorded { printed.text() } else { String::new() },
        output_hash: printed.hasher.finalize().to_hex().to_string(),
    }
}

fn start(command: &str, variables: &[(&str, String)]) -> io::Result<(Child, PipeReader)> {
    let (reader, writer) = io::pipe()?;
    let mut shell = if cfg!(windows) { Command::new("cmd") } else { Command::new("sh") };
    shell.arg(if cfg!(windows) { "/C" } else { "-c" }).arg(command);
    shell.envs(variables.iter().map(|(name, value)| (*name, value)));
    shell.stdin(Stdio::null()).stderr(writer.try_clone()?).stdout(writer);
    #[cfg(unix)]
    {
        // A group of its own, so that what it started ends with it.
        use std::os::unix::process::CommandExt;
        shell.process_group(0);
    }
    Ok((shell.spawn()?, reader))
}

fn read(mut output: PipeReader, printed: Arc<Mutex<Printed>>, shown: bool) -> thread::JoinHandle<()> {
    thread::spawn(move || {
        let mut bytes = [0; READ_BYTES];
        while let Ok(length @ 1..) = output.read(&mut bytes) {
            let Some(read) = bytes.get(..length) else { return };
            printed.lock().unwrap_or_else(PoisonError::into_inner).take(read);
            if shown {
                let text = String::from_utf8_lossy(read);
                // Nobody is left to watch if standard error is gone.
                let _ = io::stderr().write_all(super::output::harmless(&text, '\n').as_bytes());
            }
        }
    })
}

/// How the command ended; `None` if its time was over and it was ended.
fn wait(mut child: Child, limit: Duration) -> Option<ExitStatus> {
    let until = Instant::now() + limit;
    loop {
        match child.try_wait() {
            Ok(Some(status)) => return Some(status),
            Ok(None) if Instant::now() < until => thread::sleep(POLL),
            _ => {
                end(&mut child);
                return None;
            }
        }
    }
}

/// Ends the command and what it started.
fn end(child: &mut Child) {
    #[cfg(unix)]
    if let Some(group) = i32::try_from(child.id()).ok().and_then(rustix::process::Pid::from_raw) {
        // It may have ended just now.
        let _ = rustix::process::kill_process_group(group, rustix::process::Signal::KILL);
    }
    let _ = child.kill();
    let _ = child.wait();
}

#[cfg(all(test, unix))]
mod tests {
    use super::*;

    fn check(command: &str, limit_ms: u64) -> Check {
        let variables = [("GUIDON_DRILL_FLAG", "engine".to_owned())];
        run(command, &variables, Duration::from_millis(limit_ms), false, true)
    }

    #[test]
    fn exit_code_and_output_of_both_streams_are_kept() {
        let passed = check("echo down $GUIDON_DRILL_FLAG; echo up >&2", 10_000);
        assert!(passed.passed() && passed.failure().is_none());
        assert_eq!((passed.exit_code, passed.output.as_str()), (Some(0), "down engine\nup\n"));
        assert_eq!(passed.output_hash, blake3::hash(b"down engine\nup\n").to_hex().to_string());
        let failed = check("echo no; exit 3", 10_000);
        assert_eq!(failed.failure().unwrap(), "the check ended with exit code 3");
        let missing = check("no-such-command-anywhere", 10_000);
        assert_eq!(missing.exit_code, Some(127));
        assert!(missing.failure().unwrap().contains("127"), "{missing:?}");
    }

    #[test]
    fn a_late_command_is_ended_with_all_it_started() {
        let began = Instant::now();
        let late = check("sleep 60 & sleep 60; echo never", 200);
        assert!(late.timed_out && !late.passed() && late.exit_code.is_none());
        assert!(began.elapsed() < Duration::from_secs(20));
        assert!(late.failure().unwrap().contains("time was over"));
        assert!(late.faults().is_empty());
    }

    #[test]
    fn what_it_leaves_running_does_not_keep_it() {
        let began = Instant::now();
        assert!(check("sleep 5 & echo done", 10_000).passed());
        assert!(began.elapsed() < Duration::from_secs(4));
    }

    #[test]
    fn much_output_is_cut_to_its_end() {
        let much = check("yes 0123456789 | head -c 100000; printf 'the end'", 20_000);
        assert!(much.output.ends_with("the end") && much.output.len() <= MAX_CHECK_OUTPUT_BYTES);
        let binary = check("head -c 10000 /dev/zero | tr '\\0' '\\377'", 20_000);
        assert!(binary.output.len() <= MAX_CHECK_OUTPUT_BYTES && binary.faults().is_empty());
        assert_eq!(run("echo secret", &[], Duration::from_secs(10), false, false).output, "");
    }
}
