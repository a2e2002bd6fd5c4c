//! A plan in words.

use serde_json::Value;

use super::CliError;
use super::output::{Colour, Output};
use super::show::{instructions, short_time, text};

/// Most objects that are named in one sentence.
const MAX_NAMED: usize = 20;

/// Prints what a plan changes, what the policies say to it, and what is on the server but in no file.
pub fn print(plan: &Value, output: &Output) -> Result<(), CliError> {
    print_since(&plan["since"], output)?;
    print_differences(&plan["differences"], output)?;
    let revision = text(&plan["baseRevision"]);
    if plan["steps"].as_array().is_none_or(Vec::is_empty) {
        output.line(format!("No changes: the server is as it should be (revision {revision})."))?;
    } else {
        output.line(format!("{} (against revision {revision})", counts(&plan["counts"])))?;
        print_answer(&plan["answer"], output)?;
    }
    print_unmanaged(&plan["unmanaged"], output)
}

/// The differences, a line each: `~ production / summary-engine: rollout: ai 1 % -> 5 %`.
pub fn print_differences(differences: &Value, output: &Output) -> Result<(), CliError> {
    let mut differences: Vec<&Value> = differences.as_array().into_iter().flatten().collect();
    // Stable: what the server put in order within an object stays so.
    differences.sort_by_key(|difference| (tier_rank(difference), text(&difference["environment"]), object(difference)));
    for difference in differences {
        let (sign, colour) = match difference["kind"].as_str() {
            Some("create") => ('+', Colour::Green),
            Some("delete") => ('-', Colour::Red),
            _ => ('~', Colour::Yellow),
        };
        output.coloured(colour, format!("{sign} {}: {}", place(difference), text(&difference["text"])))?;
    }
    Ok(())
}

/// What concerns no environment first, then from development to production.
fn tier_rank(difference: &Value) -> usize {
    const TIERS: [&str; 4] = ["development", "testing", "staging", "production"];
    let tier = difference["tier"].as_str();
    tier.map_or(0, |tier| 1 + TIERS.iter().position(|known| *known == tier).unwrap_or(TIERS.len()))
}

fn object(difference: &Value) -> String {
    match (&difference["flag"], &difference["segment"]) {
        (Value::String(flag), _) => flag.clone(),
        (_, Value::String(segment)) => format!("segment {segment}"),
        _ => String::new(),
    }
}

fn place(difference: &Value) -> String {
    let environment = text(&difference["environment"]);
    match (environment.as_str(), object(difference)) {
        (environment, object) if object.is_empty() => format!("environment {environment}"),
        ("", object) => object,
        (environment, object) => format!("{environment} / {object}"),
    }
}

fn counts(counts: &Value) -> String {
    let count = |name: &str| counts[name].as_u64().unwrap_or(0);
    format!("{} to create, {} to change, {} to delete", count("create"), count("update"), count("delete"))
}

/// What the policies would do with it.
fn print_answer(answer: &Value, output: &Output) -> Result<(), CliError> {
    let detail = || match (answer["detail"].as_str(), answer["policies"].as_array()) {
        (Some(detail), _) if !detail.is_empty() => detail.to_owned(),
        (_, Some(policies)) => policies.iter().map(text).collect::<Vec<_>>().join(", "),
        _ => String::new(),
    };
    match answer["outcome"].as_str() {
        Some("applies") => output.line("Applied, it takes effect at once."),
        Some("request") => {
            let needs = super::request::needs(&answer["needs"]["risk"], &answer["needs"]["approvals"]);
            output.line(format!("Applied, it becomes a change request ({needs})."))
        }
        Some("factorNeeded") => {
            output.line(format!("Applied, it needs a second factor that was proved lately: {}", detail()))?;
            output.line("  `guidon factor` proves it.")
        }
        Some("refused") => output.coloured(Colour::Red, format!("Applied, it would be refused: {}", detail())),
        _ => Ok(()),
    }
}

fn print_since(since: &Value, output: &Output) -> Result<(), CliError> {
    if since["entries"].as_array().is_none_or(Vec::is_empty) {
        return Ok(());
    }
    output.line(format!("Changed since revision {}:{}", text(&since["baseRevision"]), entries(&since["entries"])))
}

/// Entries of the journal, each on a line of its own after a line break.
#[must_use]
pub fn entries(entries: &Value) -> String {
    let lines = entries.as_array().into_iter().flatten().map(|entry| {
        let did: Vec<String> = entry["summary"].as_array().into_iter().flatten().map(text).collect();
        let did = if did.is_empty() { instructions(&entry["instructions"]) } else { did.join("; ") };
        let (revision, by) = (text(&entry["revision"]), text(&entry["actorId"]));
        let comment = entry["comment"].as_str().filter(|comment| !comment.is_empty());
        let comment = comment.map_or_else(String::new, |comment| format!(" ({comment})"));
        format!("\n    revision {revision}, {}, by {by}: {did}{comment}", short_time(&entry["at"]))
    });
    lines.collect()
}

fn print_unmanaged(unmanaged: &Value, output: &Output) -> Result<(), CliError> {
    let all: Vec<&Value> = unmanaged.as_array().into_iter().flatten().collect();
    let kept: Vec<&Value> = all.iter().copied().filter(|item| item["prune"] != true).collect();
    if kept.is_empty() {
        return Ok(());
    }
    let mut names: Vec<String> = kept.iter().take(MAX_NAMED).map(|item| unmanaged_name(item)).collect();
    if kept.len() > names.len() {
        names.push(format!("and {} more", kept.len() - names.len()));
    }
    output.line(format!("On the server, but in no file: {}.", names.join(", ")))?;
    output.line("  They stay as they are; `guidon export` writes them to files, --prune archives and deletes them.")
}

fn unmanaged_name(item: &Value) -> String {
    let because = item["because"].as_str().map_or_else(String::new, |because| format!(" ({because})"));
    match (&item["flag"], &item["segment"]) {
        (Value::String(flag), _) => format!("flag {flag}{because}"),
        (_, Value::String(segment)) => format!("segment {segment} of {}{because}", text(&item["environment"])),
        _ => text(&item["path"]),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn a_difference_says_where_it_is() {
        let at = |difference: Value| place(&difference);
        assert_eq!(at(json!({"flag": "a"})), "a");
        assert_eq!(at(json!({"flag": "a", "environment": "staging"})), "staging / a");
        assert_eq!(at(json!({"segment": "s", "environment": "staging"})), "staging / segment s");
        assert_eq!(at(json!({"environment": "eu"})), "environment eu");
        assert!(tier_rank(&json!({})) < tier_rank(&json!({"tier": "development"})));
        assert!(tier_rank(&json!({"tier": "staging"})) < tier_rank(&json!({"tier": "production"})));
    }

    #[test]
    fn what_is_unmanaged_is_named() {
        assert_eq!(unmanaged_name(&json!({"flag": "a", "because": "b needs it"})), "flag a (b needs it)");
        assert_eq!(unmanaged_name(&json!({"segment": "s", "environment": "staging"})), "segment s of staging");
        assert_eq!(counts(&json!({"create": 1, "update": 2})), "1 to create, 2 to change, 0 to delete");
    }
}
