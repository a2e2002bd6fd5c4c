use std::os::unix::fs::PermissionsExt;
use std::time::Instant;

use futures_util::FutureExt;
use guidon_sdk::protocol::Directive;

use super::*;
use crate::metrics::IntakeLimits;
use crate::notifications::Target;
use crate::notifications::call::{Answer, CallError};
use crate::releases::ill::Ill;
use crate::releases::live::Receipts;

/// What a case's surroundings are in a test.
#[derive(Default)]
struct Around {
    notes: Mutex<Vec<String>>,
    routed_until: Mutex<Option<u64>>,
    called: Mutex<Vec<Message>>,
}

impl Incidents for Around {
    fn note<'a>(&'a self, _case: &'a Case, text: String) -> BoxFuture<'a, ()> {
        self.notes.lock().push(text);
        std::future::ready(()).boxed()
    }

    fn routed_until(&self, _case: &Case) -> Option<u64> {
        *self.routed_until.lock()
    }
}

impl Connections for Around {
    fn receipts(&self, _: &str, _: &str, _: u64, _: u64) -> Receipts {
        Receipts::default()
    }

    fn direct(&self, _: &str, _: &str, _: &str, _: &[Directive]) {}

    fn connected_since(&self, _: &str, _: &str, _: &str) -> Option<u64> {
        Some(u64::MAX)
    }
}

impl Caller for Around {
    fn check<'a>(&'a self, _: &'a Target) -> BoxFuture<'a, Result<(), CallError>> {
        std::future::ready(Ok(())).boxed()
    }

    fn call<'a>(&'a self, _: &'a Target, message: &'a Message) -> BoxFuture<'a, Result<Answer, CallError>> {
        self.called.lock().push(message.clone());
        std::future::ready(Ok(Answer { status: 202, retry_after_s: None })).boxed()
    }
}

/// The time since the test began.
struct Running(Instant);

impl Clock for Running {
    fn now_ms(&self) -> u64 {
        1_000_000 + self.0.elapsed().as_millis() as u64
    }
}

fn service(actions: &[&str]) -> (Arc<Around>, HealingService) {
    let around = Arc::new(Around::default());
    let parts = HealingParts {
        actions: actions.iter().map(|action| action.parse().unwrap()).collect(),
        secret: Some(Secret::new([7; 32])),
        caller: around.clone(),
        incidents: around.clone(),
        metrics: Arc::new(MetricsHub::new(IntakeLimits::default())),
        connections: around.clone(),
        clock: Arc::new(Running(Instant::now())),
        verify_after: Duration::from_millis(50),
    };
    (around, HealingService::new(parts))
}

fn case(instance: &str, action: Option<&str>) -> Case {
    let text = str::to_owned;
    let ill = Ill {
        instance: text(instance),
        reason: text("9 of its 10 calls failed"),
        calls: 10,
        errors: 9,
        peer_calls: 100,
        peer_errors: 0,
        p95: None,
        peer_p95: None,
    };
    Case {
        project: text("shop"),
        environment: text("production"),
        flag: text("checkout"),
        incident: text("inc-1"),
        instance: text(instance),
        action: action.map(text),
        until: 1_000_000 + 1_500,
        ill,
    }
}

async fn notes(around: &Around, count: usize) -> Vec<String> {
    for _ in 0..400 {
        if around.notes.lock().len() >= count {
            break;
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    around.notes.lock().clone()
}

fn script(folder: &Path, text: &str) -> String {
    let path = folder.join("act");
    std::fs::write(&path, format!("#!/bin/sh\n{text}\n")).unwrap();
    std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o755)).unwrap();
    path.display().to_string()
}

#[tokio::test]
async fn a_command_is_told_of_the_case_and_of_nothing_else() {
    let folder = tempfile::tempdir().unwrap();
    let told = folder.path().join("told");
    let program = script(folder.path(), &format!("echo \"$@\" > {0}; env >> {0}; exit 3", told.display()));
    let outcome = run(Path::new(&program), &["--soft".to_owned()], &case("web 7; rm", None), COMMAND_LIMIT).await;
    assert_eq!(outcome, Outcome::Exited(3));
    let told = std::fs::read_to_string(told).unwrap();
    let mut lines: Vec<&str> =
        told.lines().filter(|line| !line.starts_with("PWD=") && !line.starts_with("_=")).collect();
    lines.retain(|line| !line.starts_with("SHLVL=") && !line.starts_with("OLDPWD="));
    lines.sort_unstable();
    let path = format!("PATH={SEARCH_PATH}");
    let expected = [
        "--soft",
        "GUIDON_ENVIRONMENT=production",
        "GUIDON_FLAG=checkout",
        "GUIDON_INCIDENT=inc-1",
        "GUIDON_INSTANCE=web 7; rm",
        "GUIDON_PROJECT=shop",
        &path,
    ];
    assert_eq!(lines, expected);
}

#[tokio::test]
async fn a_command_that_hangs_floods_or_leaves_something_behind_is_bounded() {
    let folder = tempfile::tempdir().unwrap();
    let limit = Duration::from_secs(1);
    let started = Instant::now();
    let pid = folder.path().join("pid");
    let hangs = script(folder.path(), &format!("sleep 60 & echo $! > {}; wait", pid.display()));
    assert_eq!(run(Path::new(&hangs), &[], &case("a", None), limit).await, Outcome::Late { seconds: 1 });
    let child = format!("/proc/{}/stat", std::fs::read_to_string(pid).unwrap().trim());
    let is_gone = || std::fs::read_to_string(&child).map_or(true, |stat| stat.contains(") Z "));
    for _ in 0..50 {
        if is_gone() {
            break;
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    assert!(is_gone(), "what it started is killed too");
    let floods = script(folder.path(), "head -c 3000000 /dev/zero; echo end >&2");
    assert_eq!(run(Path::new(&floods), &[], &case("a", None), limit * 10).await, Outcome::Exited(0));
    // A restarted service holds the pipe: one does not wait for it.
    let leaves = script(folder.path(), "sleep 2 &");
    let before = Instant::now();
    assert_eq!(run(Path::new(&leaves), &[], &case("a", None), limit * 10).await, Outcome::Exited(0));
    assert!(before.elapsed() < Duration::from_secs(2) && started.elapsed() < Duration::from_secs(30));
    let missing = run(Path::new("/nonexistent/act"), &[], &case("a", None), limit).await;
    assert!(matches!(missing, Outcome::Failed(_)), "{missing:?}");
}

#[tokio::test]
async fn a_case_is_told_from_the_action_to_the_verdict() {
    let folder = tempfile::tempdir().unwrap();
    let (around, service) = service(&[&format!("restart={}", script(folder.path(), "exit 0"))]);
    let case = case("web-7", Some("restart"));
    *around.routed_until.lock() = Some(case.until);
    service.take(case.clone());
    let told = notes(&around, 4).await;
    assert!(told[0].starts_with("healing action restart (command ") && told[0].ends_with("exit code 0"), "{told:#?}");
    assert!(told[1].contains("web-7 has connected anew"), "{told:#?}");
    assert_eq!(told[2], "the time is over: web-7 gets its share of checkout again");
    assert_eq!(told[3], "nobody can say whether web-7 is well again: it was not heard in the last minute");
    // The same instance again: the action rests, and the release has ended.
    *around.routed_until.lock() = None;
    service.take(case);
    let told = notes(&around, 6).await;
    assert_eq!(told[4], "no healing action: one ran for this instance less than 15 minutes ago");
    assert_eq!(told[5], "the release is over: the instance is not routed away any more");
}

#[tokio::test]
async fn a_call_is_signed_and_an_unknown_action_is_said() {
    let (around, service) = service(&["scale=https://ops.example/heal"]);
    service.take(case("web-7", Some("scale")));
    let told = notes(&around, 1).await;
    assert_eq!(told[0], "healing action scale (call of https://ops.example/…) was answered with status 202");
    let message = around.called.lock()[0].clone();
    assert_eq!(message.signatures, Secret::new([7; 32]).sign(&message.id, message.timestamp, &message.body));
    let body: serde_json::Value = serde_json::from_slice(&message.body).unwrap();
    assert_eq!((&body["type"], &body["data"]["instance"]), (&json!("healing.requested"), &json!("web-7")));
    service.take(case("web-8", Some("reboot")));
    let told = notes(&around, 3).await;
    assert!(told.iter().any(|text| text.ends_with("is not configured here; the operator allows scale")), "{told:#?}");
}
