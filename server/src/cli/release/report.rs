//! What happened in a release, in lines for people. Pure.

use serde_json::Value;

use super::board::{action, duration, in_unit, kind, planned, reason, share, significant, standing, state};
use crate::cli::show::{short_time, text};

/// The whole report.
pub fn lines(report: &Value) -> Vec<String> {
    let release = &report["release"];
    let (treatment, control) = (text(&release["plan"]["treatment"]), text(&release["plan"]["control"]));
    let mut lines = vec![
        format!(
            "Release {} of {} in {}: {}, {treatment} against {control}",
            text(&release["id"]),
            text(&release["flag"]),
            text(&release["environment"]),
            kind(release)
        ),
        how_it_stands(release),
        format!("  plan {}", text(&release["planHash"])),
    ];
    let guard = &release["plan"]["guard"];
    if let Some(alpha) = guard["alpha"].as_f64() {
        lines.push(format!(
            "  guarded so that at most {} % of releases that worsen nothing are disturbed",
            significant(alpha * 100.0)
        ));
    }
    lines.push(String::new());
    lines.push("Steps".to_owned());
    lines.extend(report["steps"].as_array().into_iter().flatten().map(|step| self::step(report, step)));
    lines.push(String::new());
    lines.push("What happened".to_owned());
    if let Some(left_out) = report["leftOut"].as_u64().filter(|count| *count > 0) {
        lines.push(format!("  ({left_out} earlier events are left out; `guidon journal` has them)"));
    }
    for event in report["events"].as_array().into_iter().flatten() {
        told(report, event, &mut lines);
    }
    for incident in report["incidents"].as_array().into_iter().flatten() {
        lines.push(String::new());
        lines.extend(self::incident(incident));
    }
    lines
}

fn how_it_stands(release: &Value) -> String {
    let (started, ended) = (&release["startedAt"], &release["endedAt"]);
    let why = match standing(release) {
        why if why.is_empty() => String::new(),
        why => format!(": {why}"),
    };
    let lasted = match (started.as_u64(), ended.as_u64()) {
        (Some(from), Some(to)) => format!(", after {}", duration(to.saturating_sub(from) / 1_000)),
        _ => String::new(),
    };
    let when = if ended.is_null() { String::new() } else { format!(" at {}", short_time(ended)) };
    format!("  started {}, {}{when}{lasted}{why}", short_time(started), state(release))
}

fn step(report: &Value, step: &Value) -> String {
    let (began, ended) = (step["beganAt"].as_u64().unwrap_or(0), step["endedAt"].as_u64());
    let lasted = ended.or(report["at"].as_u64()).map_or(0, |end| end.saturating_sub(began) / 1_000);
    let so_far = if ended.is_none() { " so far" } else { "" };
    let mut wanted = Vec::new();
    if let Some(seconds) = step["minimumSeconds"].as_u64().filter(|seconds| *seconds > 0) {
        wanted.push(duration(seconds));
    }
    if let Some(units) = step["minimumSample"].as_u64().filter(|units| *units > 0) {
        wanted.push(format!("{units} units of each arm"));
    }
    let wanted =
        if wanted.is_empty() { String::new() } else { format!(" (planned: at least {})", wanted.join(" and ")) };
    format!(
        "  step {}  {:>8}  from {} for {}{so_far}{wanted}, begun by {} as revision {}",
        step["step"].as_u64().unwrap_or(0) + 1,
        share(&step["share"]),
        short_time(&step["beganAt"]),
        duration(lasted),
        who(report, &step["by"]),
        text(&step["revision"])
    )
}

/// Who somebody is: by name where the reader may know it.
fn who(report: &Value, id: &Value) -> String {
    let named = report["names"][text(id)].as_str();
    match id.as_str() {
        Some("system") => "the server".to_owned(),
        _ => named.map_or_else(|| text(id), str::to_owned),
    }
}

fn told(report: &Value, event: &Value, lines: &mut Vec<String>) {
    let (at, by) = (short_time(&event["at"]), who(report, &event["by"]));
    lines.push(format!("  {at}  r{}  {by} {}", text(&event["revision"]), text(&event["summary"])));
    let mut more = |what: String| lines.push(format!("      {what}"));
    let summary = text(&event["summary"]);
    for (label, field) in [("why", "reason"), ("comment", "comment"), ("ships", "commit")] {
        let said = text(&event[field]);
        if !said.is_empty() && !summary.contains(&said) {
            more(format!("{label}: {said}"));
        }
    }
    let grounds = &event["grounds"];
    if let Some(request) = grounds["request"].as_str() {
        let author = &grounds["author"];
        let author = if author.is_null() { String::new() } else { format!(", written by {}", who(report, author)) };
        more(format!("by the change request {request}{author}"));
    }
    for approval in grounds["approvals"].as_array().into_iter().flatten() {
        more(format!("approved by {} at {}", who(report, &approval["by"]), short_time(&approval["at"])));
    }
    if event["by"] != "system" && grounds["risk"].is_object() {
        more(format!("risk {} {}", text(&grounds["risk"]["level"]), text(&grounds["risk"]["score"])));
    }
    evidence(&report["release"], &event["evidence"], &mut more);
}

/// The numbers of a decision.
fn evidence(release: &Value, evidence: &Value, more: &mut impl FnMut(String)) {
    // An incident by itself does not say which variations they were.
    let named = |arm: &str| release["plan"][arm].as_str().map_or_else(|| arm.to_owned(), str::to_owned);
    let (treatment, control) = (named("treatment"), named("control"));
    if evidence["sample"].is_object() {
        let sample = &evidence["sample"];
        more(format!("units: {treatment} {}, {control} {}", text(&sample["treatment"]), text(&sample["control"])));
    }
    for verdict in evidence["decision"]["verdicts"].as_array().into_iter().flatten() {
        let name = verdict["guardrail"].as_str().unwrap_or("the release");
        more(format!("{name}: {}; {}", reason(&verdict["reason"]), action(&verdict["action"])));
        let numbers = &verdict["evidence"];
        for (arm, whose) in [("treatment", &treatment), ("control", &control)] {
            let counted = &numbers[arm];
            if counted["count"].as_u64().unwrap_or(0) > 0 {
                more(format!(
                    "  {whose}: {} of {} calls and {} of {} units failed",
                    text(&counted["errors"]),
                    text(&counted["count"]),
                    text(&counted["failingUnits"]),
                    text(&counted["units"])
                ));
            }
        }
        tests(planned(release, name), numbers, more);
    }
}

fn tests(guardrail: &Value, numbers: &Value, more: &mut impl FnMut(String)) {
    if let (Some(wealth), Some(decisive)) = (numbers["wealth"].as_f64(), numbers["decisive"].as_f64()) {
        let p_value = numbers["pValue"].as_f64().map_or_else(String::new, |p| format!(", p {}", significant(p)));
        more(format!("  compared: wealth {}, decided at {}{p_value}", significant(wealth), significant(decisive)));
    }
    let limit = &numbers["limit"];
    if limit.is_object() {
        let allowed = in_unit(&guardrail["limit"]["value"], guardrail);
        more(format!(
            "  limit {allowed}: {} against {}, {} s in a row beyond it",
            in_unit(&limit["treatment"], guardrail),
            in_unit(&limit["control"], guardrail),
            text(&limit["breaches"])
        ));
    }
}

/// An incident.
pub fn incident(incident: &Value) -> Vec<String> {
    let what = match incident["kind"].as_str() {
        Some("killed") => "the flag was turned off".to_owned(),
        Some("instance") => format!("the instance {} was routed away", text(&incident["instance"])),
        _ => "the release was taken back".to_owned(),
    };
    let mut lines = vec![
        format!(
            "Incident {} of {} in {}: {what}",
            text(&incident["id"]),
            text(&incident["flag"]),
            text(&incident["environment"])
        ),
        format!("  opened {} as revision {}", short_time(&incident["openedAt"]), text(&incident["openedRevision"])),
        format!("  {}", text(&incident["summary"])),
    ];
    for note in incident["notes"].as_array().into_iter().flatten() {
        lines.push(format!("  {}  {}", short_time(&note["at"]), text(&note["text"])));
    }
    let finding = &incident["finding"];
    lines.push(if finding.is_object() {
        format!(
            "  closed {} as revision {}: {}",
            short_time(&finding["at"]),
            text(&finding["revision"]),
            text(&finding["finding"])
        )
    } else {
        let (id, environment) = (text(&incident["id"]), text(&incident["environment"]));
        let locks = if incident["kind"] == "instance" {
            "open"
        } else {
            "open: the flag is not released again until it is closed"
        };
        format!("  {locks}; `guidon incident close {id} -e {environment} --finding TEXT` closes it")
    });
    lines
}

/// The numbers an incident was decided on.
pub fn incident_evidence(incident: &Value) -> Vec<String> {
    let mut lines = Vec::new();
    evidence(&Value::Null, &incident["evidence"], &mut |line| lines.push(format!("    {line}")));
    lines
}

#[cfg(test)]
mod tests_of_text {
    use super::*;
    use serde_json::json;

    #[test]
    fn a_reviewer_reads_who_why_and_on_which_numbers() {
        let verdict = json!({"guardrail": "errors", "action": "rollBack", "reason": "worseThanControl", "evidence": {
            "treatment": {"count": 120, "errors": 31, "units": 40, "failingUnits": 12},
            "control": {"count": 2_300, "errors": 20, "units": 700, "failingUnits": 9},
            "wealth": 340.2, "decisive": 330.0, "pValue": 0.0029}});
        let report = json!({
            "at": 200_000, "leftOut": 0, "names": {"acc-1": "ada"},
            "release": {"id": "rel-1", "flag": "summary", "environment": "production", "state": "rolledBack",
                "startedAt": 100_000, "endedAt": 170_000, "reason": "errors: worse", "planHash": "abcd",
                "plan": {"treatment": "ai", "control": "baseline", "guard": {"alpha": 0.01, "guardrails": []}}},
            "steps": [{"step": 0, "share": 1_000, "revision": 7, "beganAt": 100_000, "endedAt": 170_000,
                "minimumSeconds": 300, "minimumSample": 20, "by": "acc-1"}],
            "events": [
                {"revision": 7, "at": 100_000, "by": "acc-1", "kind": "startRelease", "summary": "started it",
                    "grounds": {"policies": [], "risk": {"level": "low", "score": 12}, "request": "req-1", "author": "acc-1",
                        "approvals": [{"by": "acc-2", "at": 90_000, "hash": "x"}]}},
                {"revision": 9, "at": 170_000, "by": "system", "kind": "rollBackRelease", "summary": "rolled it back",
                    "reason": "errors: worse", "evidence": {"sample": {"treatment": 40, "control": 700}, "decision": {"verdicts": [verdict]}}}],
            "incidents": [{"id": "inc-1", "flag": "summary", "environment": "production", "kind": "rolledBack",
                "openedAt": 170_000, "openedRevision": 9, "summary": "errors: worse"}],
        });
        let text = lines(&report).join("\n");
        for part in [
            "rolled back at 1970-01-01 00:02:50Z, after 1m 10s: errors: worse",
            "at most 1 % of releases that worsen nothing",
            "step 1       1 %  from 1970-01-01 00:01:40Z for 1m 10s (planned: at least 5m 00s and 20 units of each arm), begun by ada",
            "by the change request req-1, written by ada",
            "approved by acc-2 at",
            "r9  the server rolled it back",
            "ai: 31 of 120 calls and 12 of 40 units failed",
            "compared: wealth 340.2, decided at 330, p 0.0029",
            "guidon incident close inc-1 -e production --finding TEXT",
        ] {
            assert!(text.contains(part), "{part}\n in\n{text}");
        }
        lines(&Value::Null);
    }
}
