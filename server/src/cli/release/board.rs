//! How a release goes, in lines for people. Pure.

use serde_json::Value;

use crate::cli::show::{short_time, text};

/// Characters of a bar.
const BAR: usize = 24;
/// Below this chance of seeing such numbers by luck, a guardrail is worth watching.
const WATCHING_BELOW: f64 = 0.2;

/// The kind of a release, as people say it.
pub fn kind(release: &Value) -> &'static str {
    match release["plan"]["kind"].as_str() {
        Some("blueGreen") => "blue-green",
        Some("shadow") => "shadow",
        _ => "progressive",
    }
}

/// Where it stands, as people say it.
pub fn state(release: &Value) -> String {
    match release["state"].as_str() {
        Some("rolledBack") => "rolled back".to_owned(),
        Some("running") if release["hold"].is_object() => "held".to_owned(),
        other => other.unwrap_or_default().to_owned(),
    }
}

/// Its present step, as `2 of 4`.
pub fn step_of(release: &Value) -> String {
    let steps = release["plan"]["steps"].as_array().map_or(0, Vec::len);
    format!("{} of {steps}", release["step"].as_u64().unwrap_or(0) + 1)
}

/// The plan of its present step.
pub fn step(release: &Value) -> &Value {
    let index = release["step"].as_u64().and_then(|step| usize::try_from(step).ok()).unwrap_or(0);
    release["plan"]["steps"].get(index).unwrap_or(&Value::Null)
}

/// A share out of 100,000 as a percentage.
pub fn share(value: &Value) -> String {
    format!("{} %", value.as_f64().unwrap_or(0.0) / 1_000.0)
}

/// Why it stands where it stands; nothing while all goes well.
pub fn standing(release: &Value) -> String {
    match release["hold"]["reason"].as_str() {
        Some(reason) => reason.to_owned(),
        None => text(&release["reason"]),
    }
}

/// The whole board.
pub fn lines(release: &Value) -> Vec<String> {
    let (treatment, control) = (text(&release["plan"]["treatment"]), text(&release["plan"]["control"]));
    let mut lines = vec![
        format!(
            "{} in {}: {} release of {treatment}, against {control}  ({})",
            text(&release["flag"]),
            text(&release["environment"]),
            kind(release),
            text(&release["id"])
        ),
        format!("  {}", steps(release)),
        String::new(),
    ];
    let mut say = |label: &str, what: String| lines.push(format!("  {label:<10}{what}"));
    let active = matches!(release["state"].as_str(), Some("running" | "paused"));
    say(
        "state",
        if standing(release).is_empty() {
            state(release)
        } else {
            format!("{}: {}", state(release), standing(release))
        },
    );
    if !active {
        say("ended", short_time(&release["endedAt"]));
    }
    for incident in release["openIncidents"].as_array().into_iter().flatten() {
        let locks = if incident["locks"] == true { "no new release until it is closed: " } else { "" };
        let id = text(&incident["id"]);
        say("incident", format!("{id} is open; {locks}guidon incident show {id}"));
    }
    if active {
        say("step", in_step(release));
        measured(release, &treatment, &control, &mut say);
    }
    lines
}

/// The steps on one line, those behind it with a tick.
fn steps(release: &Value) -> String {
    let present = release["step"].as_u64().and_then(|step| usize::try_from(step).ok()).unwrap_or(0);
    let state = release["state"].as_str().unwrap_or_default();
    let steps = release["plan"]["steps"].as_array().into_iter().flatten().enumerate().map(|(at, step)| {
        let mut name = if step["shadow"].as_u64().unwrap_or(0) > 0 {
            format!("shadow {}", share(&step["shadow"]))
        } else {
            share(&step["share"])
        };
        if step["approval"] == true {
            name.push_str(" (a person starts it)");
        }
        match (at.cmp(&present), state) {
            (std::cmp::Ordering::Less, _) | (std::cmp::Ordering::Equal, "completed") => format!("✓ {name}"),
            (std::cmp::Ordering::Equal, "aborted" | "rolledBack") => format!("✗ {name}"),
            (std::cmp::Ordering::Equal, _) => format!("▶ {name}"),
            (std::cmp::Ordering::Greater, _) => format!("· {name}"),
        }
    });
    steps.collect::<Vec<_>>().join("   ")
}

fn in_step(release: &Value) -> String {
    let planned = step(release)["minimumSeconds"].as_u64().unwrap_or(0);
    let since = release["stepAt"].as_u64().unwrap_or(0);
    let elapsed = release["at"].as_u64().unwrap_or(0).saturating_sub(since) / 1_000;
    let time = if planned == 0 {
        duration(elapsed)
    } else {
        format!("{} {} of at least {}", bar(elapsed, planned), duration(elapsed), duration(planned))
    };
    format!("{}, {time}", step_of(release))
}

/// What the guard sees.
fn measured(release: &Value, treatment: &str, control: &str, say: &mut impl FnMut(&str, String)) {
    let live = &release["live"];
    if !live.is_object() {
        return say("measured", "nothing yet".to_owned());
    }
    let sample = step(release)["minimumSample"].as_u64().unwrap_or(0);
    let wanted = if sample == 0 { String::new() } else { format!(" (at least {sample} of each)") };
    let units = &live["units"];
    say("units", format!("{treatment} {}   {control} {}{wanted}", text(&units["treatment"]), text(&units["control"])));
    let guardrails: Vec<&Value> = live["guardrails"].as_array().into_iter().flatten().collect();
    let width = guardrails.iter().map(|it| text(&it["id"]).chars().count()).max().unwrap_or(0).max(8) + 2;
    for guardrail in guardrails {
        let id = text(&guardrail["id"]);
        let planned = planned(release, &id);
        let value = |arm: &str| in_unit(&guardrail["value"][arm], planned);
        let (ours, theirs) = (format!("{treatment} {}", value("treatment")), format!("{control} {}", value("control")));
        let found = format!("{ours:<26} {theirs:<26} {}", health(guardrail, live));
        say("", format!("{id:<width$}{found}"));
    }
    for verdict in live["verdicts"].as_array().into_iter().flatten().filter(|verdict| verdict["guardrail"].is_null()) {
        say("", format!("{}: {}", reason(&verdict["reason"]), action(&verdict["action"])));
    }
    for series in live["learned"].as_array().into_iter().flatten() {
        let score = series["score"].as_f64().unwrap_or(0.0);
        if score >= 0.5 {
            say("unusual", format!("{} (score {score:.2})", text(&series["series"])));
        }
    }
    let receipts = &live["receipts"];
    let slowest = receipts["slowestMs"].as_u64().map_or_else(String::new, |ms| format!(", the last after {ms} ms"));
    let (serve, connected) = (text(&receipts["acknowledged"]), text(&receipts["connected"]));
    say("SDKs", format!("{serve} of {connected} connected serve this step{slowest}"));
    let routed: Vec<String> = live["routed"].as_array().into_iter().flatten().map(text).collect();
    if !routed.is_empty() {
        say("routed", format!("away from {treatment}: {}", routed.join(", ")));
    }
    let waiting: Vec<String> = live["waiting"].as_array().into_iter().flatten().map(text).collect();
    say("waits for", if waiting.is_empty() { "nothing".to_owned() } else { waiting.join("; ") });
}

/// A guardrail of the plan.
pub fn planned<'a>(release: &'a Value, id: &str) -> &'a Value {
    let guardrails = release["plan"]["guard"]["guardrails"].as_array();
    guardrails.into_iter().flatten().find(|guardrail| guardrail["id"] == *id).unwrap_or(&Value::Null)
}

/// A value in the unit of what a guardrail of the plan looks at.
pub fn in_unit(value: &Value, guardrail: &Value) -> String {
    let Some(value) = value.as_f64() else { return "-".to_owned() };
    let is_time = guardrail["measure"]["kind"] == "latency" || guardrail["series"] == "cpu";
    match value {
        _ if guardrail["measure"]["kind"] == "errorRate" || guardrail["series"] == "shadow-match" => {
            format!("{:.2} %", value * 100.0)
        }
        _ if !is_time => significant(value),
        0.0..1_000.0 => format!("{value:.0} µs"),
        0.0..1_000_000.0 => format!("{:.1} ms", value / 1_000.0),
        _ => format!("{:.2} s", value / 1_000_000.0),
    }
}

/// A number with four significant digits.
pub fn significant(value: f64) -> String {
    let digits = if value == 0.0 { 0.0 } else { 3.0 - value.abs().log10().floor() };
    // Between 0 and 12 digits after the point.
    #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "clamped")]
    let digits = digits.clamp(0.0, 12.0) as usize;
    let shown = format!("{value:.digits$}");
    if shown.contains('.') { shown.trim_end_matches('0').trim_end_matches('.').to_owned() } else { shown }
}

/// One word for a guardrail, and why.
fn health(guardrail: &Value, live: &Value) -> String {
    let verdicts = live["verdicts"].as_array();
    let verdict = verdicts.into_iter().flatten().find(|verdict| verdict["guardrail"] == guardrail["id"]);
    if let Some(verdict) = verdict {
        let (why, does) = (reason(&verdict["reason"]), action(&verdict["action"]));
        let word = if verdict["action"] == guardrail["action"] { "broken" } else { "watching" };
        return format!("{word}: {why}; {does}");
    }
    let p_value = guardrail["evidence"]["pValue"].as_f64();
    match p_value.filter(|p| *p < WATCHING_BELOW) {
        Some(p) => format!("watching (p {p:.3})"),
        None if guardrail["value"]["treatment"].is_null() => "no data".to_owned(),
        None => "healthy".to_owned(),
    }
}

/// Why a guardrail is not healthy, in words.
pub fn reason(word: &Value) -> String {
    match word.as_str().unwrap_or_default() {
        "worseThanControl" => "worse than the control".to_owned(),
        "tooFew" => "worse than the control, on fewer units than the plan wants".to_owned(),
        "beyondLimit" => "beyond its limit".to_owned(),
        "bothAlike" => "both arms alike: it is not the release".to_owned(),
        "sampleRatio" => "the arms do not get the shares they were given".to_owned(),
        "noTraffic" => "no calls of the variation under release".to_owned(),
        "gap" => "measurements of instances are missing".to_owned(),
        "unusual" => "unlike its own past".to_owned(),
        "unanswered" => "its query was not answered".to_owned(),
        other => other.to_owned(),
    }
}

/// What a guardrail does, in words.
pub fn action(word: &Value) -> &'static str {
    match word.as_str() {
        Some("hold") => "holds",
        Some("rollBack") => "rolls back",
        Some("kill") => "turns the flag off",
        _ => "is noted",
    }
}

/// A bar of `part` in `whole`; full where there is nothing to wait for.
fn bar(part: u64, whole: u64) -> String {
    let (part, whole) = if whole == 0 { (1, 1) } else { (part, whole) };
    let filled = usize::try_from(part.min(whole).saturating_mul(BAR as u64) / whole).unwrap_or(BAR);
    format!("{}{}", "█".repeat(filled), "░".repeat(BAR - filled))
}

/// A number of seconds in words: `2m 05s`.
pub fn duration(seconds: u64) -> String {
    match seconds {
        0..=59 => format!("{seconds}s"),
        60..=3_599 => format!("{}m {:02}s", seconds / 60, seconds % 60),
        3_600..=86_399 => format!("{}h {:02}m", seconds / 3_600, seconds % 3_600 / 60),
        _ => format!("{}d {:02}h", seconds / 86_400, seconds % 86_400 / 3_600),
    }
}

/// What of a release makes a new line when it is followed without a terminal: not the numbers of every second.
pub fn signature(release: &Value) -> Value {
    let live = &release["live"];
    let verdicts = live["verdicts"].as_array().into_iter().flatten();
    let verdicts: Vec<Value> =
        verdicts.map(|it| serde_json::json!([it["guardrail"], it["action"], it["reason"]])).collect();
    serde_json::json!([
        release["id"],
        release["state"],
        release["step"],
        release["stepRevision"],
        release["hold"]["reason"],
        release["reason"],
        release["openIncidents"],
        live["routed"],
        verdicts,
        live["receipts"]["acknowledged"] == live["receipts"]["connected"],
    ])
}

/// The line of such a change.
pub fn line(release: &Value) -> String {
    let step = step(release);
    let served = if step["shadow"].as_u64().unwrap_or(0) > 0 {
        format!("shadow {}", share(&step["shadow"]))
    } else {
        format!("{} {}", text(&release["plan"]["treatment"]), share(&step["share"]))
    };
    let mut parts = vec![state(release), format!("step {}", step_of(release)), served];
    let live = &release["live"];
    if live.is_object() {
        let (serve, connected) = (&live["receipts"]["acknowledged"], &live["receipts"]["connected"]);
        parts.push(format!("{} of {} SDKs", text(serve), text(connected)));
        for verdict in live["verdicts"].as_array().into_iter().flatten() {
            let id = verdict["guardrail"].as_str().map_or_else(String::new, |id| format!("{id} "));
            parts.push(format!("{id}{}", reason(&verdict["reason"])));
        }
    }
    if !standing(release).is_empty() {
        parts.push(standing(release));
    }
    format!("{}  {}  {}", short_time(&release["at"]), text(&release["flag"]), parts.join(", "))
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn release() -> Value {
        json!({
            "id": "rel-1", "flag": "summary", "environment": "production", "state": "running", "step": 1,
            "stepAt": 1_000_000, "at": 1_125_000, "startedAt": 900_000, "openIncidents": [],
            "plan": {"kind": "progressive", "treatment": "ai", "control": "baseline",
                "steps": [{"share": 1_000}, {"share": 5_000, "minimumSeconds": 250, "minimumSample": 50}, {"share": 100_000, "approval": true}],
                "guard": {"guardrails": [
                    {"id": "errors", "measure": {"kind": "errorRate"}, "action": "rollBack"},
                    {"id": "latency", "measure": {"kind": "latency", "quantile": 0.95}, "action": "rollBack"}]}},
            "live": {
                "waiting": ["125 more seconds"], "units": {"treatment": 12, "control": 230}, "routed": [], "learned": [],
                "receipts": {"connected": 8, "acknowledged": 8, "slowestMs": 41},
                "verdicts": [{"guardrail": "errors", "action": "rollBack", "reason": "worseThanControl"}],
                "guardrails": [
                    {"id": "errors", "action": "rollBack", "value": {"treatment": 0.0525, "control": 0.01}, "evidence": {"pValue": 0.001}},
                    {"id": "latency", "action": "rollBack", "value": {"treatment": 120_400.0, "control": null}, "evidence": {"pValue": 0.15}}]},
        })
    }

    #[test]
    fn a_board_says_all_that_matters() {
        let board = lines(&release()).join("\n");
        for part in [
            "summary in production: progressive release of ai, against baseline  (rel-1)",
            "✓ 1 %   ▶ 5 %   · 100 % (a person starts it)",
            "2 of 3, ████████████░░░░░░░░░░░░ 2m 05s of at least 4m 10s",
            "ai 12   baseline 230 (at least 50 of each)",
            "ai 5.25 %",
            "broken: worse than the control; rolls back",
            "ai 120.4 ms                baseline -                 watching (p 0.150)",
            "8 of 8 connected serve this step, the last after 41 ms",
            "waits for 125 more seconds",
        ] {
            assert!(board.contains(part), "{part}\n in\n{board}");
        }
    }

    #[test]
    fn what_is_over_says_how_and_what_to_do() {
        let mut over = release();
        over["state"] = json!("rolledBack");
        over["reason"] = json!("errors: worse");
        over["openIncidents"] = json!([{"id": "inc-1", "kind": "rolledBack", "locks": true}]);
        let board = lines(&over).join("\n");
        assert!(board.contains("✗ 5 %") && board.contains("state     rolled back: errors: worse"), "{board}");
        assert!(board.contains("no new release until it is closed: guidon incident show inc-1"), "{board}");
        assert!(!board.contains("units"), "{board}");
    }

    #[test]
    fn nothing_measured_and_nothing_known_is_shown_too() {
        let mut unmeasured = release();
        unmeasured["live"] = Value::Null;
        assert!(lines(&unmeasured).join("\n").contains("measured  nothing yet"));
        lines(&Value::Null);
        assert!(line(&Value::Null).contains("step 1 of 0"));
    }

    #[test]
    fn a_line_is_made_for_a_change_and_not_for_a_number() {
        let (first, mut later) = (release(), release());
        later["at"] = json!(1_200_000);
        later["live"]["units"]["treatment"] = json!(99);
        assert_eq!(signature(&first), signature(&later));
        later["live"]["verdicts"] = json!([]);
        assert_ne!(signature(&first), signature(&later));
        assert!(line(&first).ends_with("running, step 2 of 3, ai 5 %, 8 of 8 SDKs, errors worse than the control"));
    }

    #[test]
    fn numbers_are_short() {
        for (value, shown) in [(0.0, "0"), (1.0, "1"), (0.012_341, "0.01234"), (1_234.5, "1234"), (2.718_81, "2.719")] {
            assert_eq!(significant(value), shown);
        }
        assert_eq!([59, 60, 3_660, 90_000].map(duration), ["59s", "1m 00s", "1h 01m", "1d 01h"]);
        assert_eq!(bar(5, 0), "█".repeat(BAR));
    }
}
