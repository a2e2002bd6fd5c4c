//! `guidon drift`: what differs from tier to tier, or between files and the server.

use std::path::PathBuf;

use clap::{Args, ValueEnum};
use serde_json::{Value, json};

use super::output::Output;
use super::plan::Wanted;
use super::show::text;
use super::{Api, CliError, plan_text};

/// What to compare.
#[derive(Debug, Args)]
pub struct DriftArgs {
    /// Compare the configuration files of this folder with the server, in place of the tiers with each other
    #[arg(long, short, value_name = "DIR", conflicts_with_all = ["from", "to", "left_out"])]
    file: Option<PathBuf>,
    /// Compare this environment, not those of every tier
    #[arg(long, value_name = "ENVIRONMENT", requires = "to")]
    from: Option<String>,
    /// With this one
    #[arg(long, value_name = "ENVIRONMENT", requires = "from")]
    to: Option<String>,
    /// Leave out differences of this kind; what is served differs by design while a release is on its way
    #[arg(long = "ignore", value_name = "KIND")]
    left_out: Vec<Kind>,
}

/// A kind of difference.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Kind {
    /// On or off, weights, the variation served
    Serving,
    /// Targeting rules
    Rules,
    /// Off variation, prerequisites, what a rollout is bucketed by
    Definition,
    /// Segments
    Segments,
}

impl Kind {
    fn word(self) -> &'static str {
        match self {
            Self::Serving => "serving",
            Self::Rules => "rules",
            Self::Definition => "definition",
            Self::Segments => "segments",
        }
    }
}

/// Prints what differs.
///
/// # Errors
///
/// [`CliError::Drift`] if anything does.
pub fn run(args: &DriftArgs, api: &Api, output: &Output) -> Result<(), CliError> {
    match &args.file {
        Some(folder) => of_files(Wanted::of_files(folder, false)?, api, output),
        None => of_tiers(args, api, output),
    }
}

fn of_files(mut wanted: Wanted, api: &Api, output: &Output) -> Result<(), CliError> {
    let plan = wanted.plan(api)?;
    output.either(&plan, |output| plan_text::print(&plan, output))?;
    let count = |name: &str| plan[name].as_array().map_or(0, Vec::len);
    match (count("differences"), count("unmanaged")) {
        (0, 0) => Ok(()),
        (different, unmanaged) => Err(CliError::Drift(format!(
            "the server is not as the files say: {}, {unmanaged} in no file\n  \
             `guidon apply` makes it so; `guidon export` writes what it is.",
            differences(different)
        ))),
    }
}

fn of_tiers(args: &DriftArgs, api: &Api, output: &Output) -> Result<(), CliError> {
    let ends = [("from", &args.from), ("to", &args.to)];
    let query: Vec<_> = ends.iter().filter_map(|(name, end)| Some((*name, (*end).clone()?))).collect();
    let mut answer = api.get(&api.in_project("/drift"), &query)?;
    if answer["pairs"].as_array().is_none_or(Vec::is_empty) {
        return Err(CliError::Usage(
            "nothing was compared: this credential sees no two environments, of neighbouring tiers, of the project"
                .to_owned(),
        ));
    }
    let ignored: Vec<&str> = args.left_out.iter().map(|kind| kind.word()).collect();
    let mut found = 0;
    for pair in answer["pairs"].as_array_mut().into_iter().flatten() {
        found += leave_out(pair, &ignored);
    }
    let not_compared = answer["pairsLeftOut"].as_u64().unwrap_or(0);
    output.either(&answer, |output| {
        answer["pairs"].as_array().into_iter().flatten().try_for_each(|pair| print(pair, output))?;
        if not_compared > 0 {
            output.line(format!(
                "{not_compared} more pairs of environments were not compared: --from and --to compare any two."
            ))?;
        }
        Ok(())
    })?;
    if found == 0 {
        return Ok(());
    }
    let remedy = "`guidon promote` takes one to the next; --ignore leaves out what differs by design.";
    Err(CliError::Drift(format!("environments differ: {}\n  {remedy}", differences(found))))
}

/// Takes differences of some kinds out of a pair, and counts those that are left.
fn leave_out(pair: &mut Value, ignored: &[&str]) -> u64 {
    if let Some(found) = pair["differences"].as_array_mut() {
        found.retain(|difference| !ignored.iter().any(|kind| difference["kind"] == *kind));
    }
    let mut left = 0;
    for (kind, count) in pair["counts"].as_object_mut().into_iter().flatten() {
        if ignored.contains(&kind.as_str()) {
            *count = json!(0);
        }
        left += count.as_u64().unwrap_or(0);
    }
    left
}

fn print(pair: &Value, output: &Output) -> Result<(), CliError> {
    let found: Vec<&Value> = pair["differences"].as_array().into_iter().flatten().collect();
    let count: u64 = pair["counts"].as_object().into_iter().flatten().filter_map(|(_, count)| count.as_u64()).sum();
    let ends = format!("{} -> {}", text(&pair["from"]), text(&pair["to"]));
    if count == 0 {
        return output.line(format!("{ends}: no differences"));
    }
    output.line(format!("{ends}: {}", differences(usize::try_from(count).unwrap_or(usize::MAX))))?;
    let rows: Vec<Vec<String>> = found
        .iter()
        .map(|difference| {
            let object = match &difference["segment"] {
                Value::String(segment) => format!("segment {segment}"),
                _ => text(&difference["flag"]),
            };
            vec![text(&difference["kind"]), object, text(&difference["text"])]
        })
        .collect();
    let shown = u64::try_from(rows.len()).unwrap_or(u64::MAX);
    output.table(&["kind", "of", "difference"], rows, "")?;
    if shown < count {
        output.line(format!("and {} more", count - shown))?;
    }
    Ok(())
}

fn differences(count: impl TryInto<u64>) -> String {
    match count.try_into() {
        Ok(1) => "1 difference".to_owned(),
        Ok(count) => format!("{count} differences"),
        Err(_) => "many differences".to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_ignored_is_not_counted() {
        let mut pair = json!({
            "counts": {"serving": 2, "rules": 1},
            "differences": [{"kind": "serving"}, {"kind": "rules"}, {"kind": "serving"}],
        });
        assert_eq!(leave_out(&mut pair, &["serving"]), 1);
        assert_eq!(pair, json!({"counts": {"serving": 0, "rules": 1}, "differences": [{"kind": "rules"}]}));
        assert_eq!(differences(1_usize), "1 difference");
    }
}
