//! `guidon anomaly …`

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

use clap::{Args, Subcommand};
use jiff::civil::DateTime;
use jiff::tz::TimeZone;
use serde::{Deserialize, Serialize};

use super::CliError;
use super::output::Output;
use crate::anomaly::nab::{self, Costs, Scored, Verdict, Window};
use crate::anomaly::{Detector, Tuning};

/// What the result files call the detector.
const NAME: &str = "guidon";
/// The profile whose threshold the false alarms are counted at.
const MAIN_PROFILE: &str = "standard";
/// Seconds of a day.
const DAY_S: f64 = 86_400.0;

/// Commands about anomaly detection.
#[derive(Debug, Subcommand)]
pub enum AnomalyCommand {
    /// Run the detector over a folder of labelled series and score it as the Numenta Anomaly Benchmark does
    Score(ScoreArgs),
}

/// What to score, and where the results go.
#[derive(Debug, Args)]
pub struct ScoreArgs {
    /// Folder with data/, labels/combined_windows.json and config/profiles.json
    folder: PathBuf,
    /// Folder for the result files; it is made if need be
    #[arg(long, short)]
    output: Option<PathBuf>,
    /// Also score with each number of the detector moved up and down by this many percent
    #[arg(long, value_name = "PERCENT", value_parser = clap::value_parser!(u8).range(1..=90))]
    vary: Option<u8>,
    /// Also score each folder of series at the threshold that is best for all others
    #[arg(long)]
    hold_out: bool,
}

/// One labelled series.
struct Series {
    /// Path below `data/`, with `/` between its parts.
    name: String,
    /// As the file has them.
    timestamps: Vec<String>,
    times_ms: Vec<i64>,
    values: Vec<f64>,
    windows: Vec<Window>,
}

/// What is printed.
#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Report {
    series: usize,
    points: usize,
    windows: usize,
    profiles: Vec<ProfileVerdict>,
    false_alarms_per_series_day: f64,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    held_out: Vec<HeldOut>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    varied: Vec<Varied>,
}

#[derive(Serialize)]
struct ProfileVerdict {
    profile: String,
    #[serde(flatten)]
    verdict: Verdict,
}

/// A folder of series at the threshold that the other folders choose.
#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct HeldOut {
    category: String,
    #[serde(flatten)]
    verdict: Verdict,
}

/// Scores under the standard profile with one number of the detector moved.
#[derive(Serialize)]
struct Varied {
    number: &'static str,
    value: f64,
    lowered: f64,
    raised: f64,
}

/// Runs one of the commands; none needs a server.
pub fn run(command: AnomalyCommand, output: &Output) -> Result<(), CliError> {
    match command {
        AnomalyCommand::Score(args) => score(&args, output),
    }
}

fn score(args: &ScoreArgs, output: &Output) -> Result<(), CliError> {
    let profiles = read_profiles(&args.folder)?;
    let series = read_series(&args.folder)?;
    let scores = detect(&series, Tuning::default());
    if let Some(folder) = &args.output {
        for (one, scores) in series.iter().zip(&scores) {
            write_results(folder, one, scores)?;
        }
    }
    let all: Vec<Scored<'_>> = scored(&series, &scores);
    let verdicts: Vec<ProfileVerdict> = profiles
        .iter()
        .map(|(name, costs)| ProfileVerdict { profile: name.clone(), verdict: nab::judge(&all, *costs) })
        .collect();
    let main = profiles.iter().position(|(name, _)| name == MAIN_PROFILE).unwrap_or(0);
    let (Some((_, costs)), Some(verdict)) = (profiles.get(main), verdicts.get(main)) else {
        return Err(CliError::Usage("config/profiles.json names no profile".to_owned()));
    };
    let days: f64 = series.iter().map(scored_days).sum();
    let false_alarms_per_series_day = if days > 0.0 { verdict.verdict.false_alarms as f64 / days } else { 0.0 };
    let report = Report {
        series: series.len(),
        points: series.iter().map(|one| one.values.len()).sum(),
        windows: series.iter().map(|one| one.windows.len()).sum(),
        false_alarms_per_series_day,
        held_out: if args.hold_out { held_out(&series, &scores, *costs) } else { Vec::new() },
        varied: args.vary.map_or_else(Vec::new, |percent| vary(&series, *costs, percent)),
        profiles: verdicts,
    };
    output.either(&report, |output| print(&report, output))
}

fn print(report: &Report, output: &Output) -> Result<(), CliError> {
    let Report { series, points, windows, .. } = report;
    output.line(format!("{series} series, {points} points, {windows} windows."))?;
    let row = |name: &str, verdict: &Verdict| {
        vec![
            name.to_owned(),
            format!("{:.2}", verdict.score),
            format!("{:.4}", verdict.threshold),
            verdict.found.to_string(),
            verdict.missed.to_string(),
            verdict.false_alarms.to_string(),
        ]
    };
    let headers = ["profile", "score", "threshold", "found", "missed", "false alarms"];
    output.table(&headers, report.profiles.iter().map(|it| row(&it.profile, &it.verdict)).collect(), "No profiles.")?;
    output.line(format!("False alarms per series and day: {:.3}", report.false_alarms_per_series_day))?;
    if !report.held_out.is_empty() {
        let headers = ["held out", "score", "threshold of the rest", "found", "missed", "false alarms"];
        output.table(&headers, report.held_out.iter().map(|it| row(&it.category, &it.verdict)).collect(), "")?;
    }
    if !report.varied.is_empty() {
        let rows = report.varied.iter().map(|it| {
            vec![it.number.to_owned(), it.value.to_string(), format!("{:.2}", it.lowered), format!("{:.2}", it.raised)]
        });
        output.table(&["number", "value", "lowered", "raised"], rows.collect(), "")?;
    }
    Ok(())
}

/// The scores of every point. A value that the detector refuses is scored 0.
fn detect(series: &[Series], tuning: Tuning) -> Vec<Vec<f64>> {
    let one = |one: &Series| {
        let mut detector = Detector::with_tuning(tuning);
        let points = one.times_ms.iter().zip(&one.values);
        points.map(|(at, value)| detector.observe(*at, *value).map_or(0.0, |reading| reading.score)).collect()
    };
    series.iter().map(one).collect()
}

fn scored<'a>(series: &'a [Series], scores: &'a [Vec<f64>]) -> Vec<Scored<'a>> {
    series.iter().zip(scores).map(|(one, scores)| Scored { scores, windows: &one.windows }).collect()
}

fn category(series: &Series) -> &str {
    series.name.split_once('/').map_or("", |(category, _)| category)
}

fn held_out(series: &[Series], scores: &[Vec<f64>], costs: Costs) -> Vec<HeldOut> {
    let mut categories: Vec<&str> = series.iter().map(category).collect();
    categories.dedup();
    let all = scored(series, scores);
    let pick = |wanted: &dyn Fn(&str) -> bool| -> Vec<Scored<'_>> {
        series.iter().zip(&all).filter(|(one, _)| wanted(category(one))).map(|(_, scored)| *scored).collect()
    };
    let one = |held: &str| {
        let threshold = nab::judge(&pick(&|it| it != held), costs).threshold;
        HeldOut { category: held.to_owned(), verdict: nab::judge_at(&pick(&|it| it == held), costs, threshold) }
    };
    categories.into_iter().map(one).collect()
}

fn vary(series: &[Series], costs: Costs, percent: u8) -> Vec<Varied> {
    let numbers = Tuning::default().fields().map(|(number, value)| (number, *value));
    let with = |number: &str, value: f64| {
        let mut tuning = Tuning::default();
        if let Some((_, field)) = tuning.fields().into_iter().find(|(name, _)| *name == number) {
            *field = value;
        }
        nab::judge(&scored(series, &detect(series, tuning)), costs).score
    };
    let by = 1.0 + f64::from(percent) / 100.0;
    numbers
        .into_iter()
        .map(|(number, value)| Varied {
            number,
            value,
            lowered: with(number, value / by),
            raised: with(number, value * by),
        })
        .collect()
}

/// Days from the first scored row to the last.
fn scored_days(series: &Series) -> f64 {
    let first = series.times_ms.get(nab::probation(series.times_ms.len()));
    let milliseconds = first.zip(series.times_ms.last()).map_or(0, |(first, last)| last.saturating_sub(*first));
    milliseconds as f64 / 1_000.0 / DAY_S
}

#[derive(Deserialize)]
struct ProfileFile {
    #[serde(rename = "CostMatrix")]
    costs: CostsFile,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct CostsFile {
    tp_weight: f64,
    fn_weight: f64,
    fp_weight: f64,
}

/// In the order of the file.
fn read_profiles(folder: &Path) -> Result<Vec<(String, Costs)>, CliError> {
    let path = folder.join("config").join("profiles.json");
    let profiles: serde_json::Map<String, serde_json::Value> = read_json(&path)?;
    let costs = |value| -> Result<Costs, CliError> {
        let file: ProfileFile = serde_json::from_value(value).map_err(|error| wrong(&path, &error))?;
        Ok(Costs {
            true_positive: file.costs.tp_weight,
            false_negative: file.costs.fn_weight,
            false_positive: file.costs.fp_weight,
        })
    };
    profiles.into_iter().map(|(name, value)| Ok((name, costs(value)?))).collect()
}

/// Every series that has labels, even if these are no windows, by name.
fn read_series(folder: &Path) -> Result<Vec<Series>, CliError> {
    let path = folder.join("labels").join("combined_windows.json");
    let labels: BTreeMap<String, Vec<(String, String)>> = read_json(&path)?;
    labels.into_iter().map(|(name, windows)| read_one(folder, name, &windows)).collect()
}

fn read_one(folder: &Path, name: String, windows: &[(String, String)]) -> Result<Series, CliError> {
    // The name is written to later: it stays inside the folder.
    if name.split('/').any(|part| part.is_empty() || part == "." || part == "..") || name.contains('\\') {
        return Err(CliError::Usage(format!("labels/combined_windows.json: {name:?} is no path below data/")));
    }
    let path = folder.join("data").join(&name);
    let mut reader = csv::Reader::from_path(&path).map_err(|error| wrong(&path, &error))?;
    let mut series =
        Series { name, timestamps: Vec::new(), times_ms: Vec::new(), values: Vec::new(), windows: Vec::new() };
    for row in reader.deserialize::<(String, f64)>() {
        let (timestamp, value) = row.map_err(|error| wrong(&path, &error))?;
        series.times_ms.push(time_ms(&timestamp).map_err(|error| wrong(&path, &error))?);
        series.timestamps.push(timestamp);
        series.values.push(value);
    }
    let row_at = |timestamp: &str| -> Result<usize, CliError> {
        let at = time_ms(timestamp).map_err(|error| wrong(&path, &error))?;
        let row = series.times_ms.iter().position(|time| *time == at);
        row.ok_or_else(|| CliError::Usage(format!("{}: a window names {timestamp}, which has no row", path.display())))
    };
    let mut found = Vec::with_capacity(windows.len());
    for (first, last) in windows {
        found.push(Window { first: row_at(first)?, last: row_at(last)? });
    }
    series.windows = found;
    Ok(series)
}

/// Unix milliseconds of a timestamp without time zone, taken as UTC.
fn time_ms(timestamp: &str) -> Result<i64, jiff::Error> {
    let time: DateTime = timestamp.trim().parse()?;
    Ok(time.to_zoned(TimeZone::UTC)?.timestamp().as_millisecond())
}

fn read_json<T: serde::de::DeserializeOwned>(path: &Path) -> Result<T, CliError> {
    let text = fs::read_to_string(path).map_err(|error| wrong(path, &error))?;
    serde_json::from_str(&text).map_err(|error| wrong(path, &error))
}

fn wrong(path: &Path, error: &dyn std::fmt::Display) -> CliError {
    CliError::Usage(format!("{}: {error}", path.display()))
}

/// `<folder>/guidon/<category>/guidon_<file>.csv`, as the benchmark's own program reads it.
fn write_results(folder: &Path, series: &Series, scores: &[f64]) -> Result<(), CliError> {
    let (category, file) = series.name.rsplit_once('/').unwrap_or(("", &series.name));
    let folder = folder.join(NAME).join(category);
    fs::create_dir_all(&folder).map_err(|error| wrong(&folder, &error))?;
    let path = folder.join(format!("{NAME}_{file}"));
    let mut writer = csv::Writer::from_path(&path).map_err(|error| wrong(&path, &error))?;
    writer.write_record(["timestamp", "value", "anomaly_score", "label"]).map_err(|error| wrong(&path, &error))?;
    let rows = series.timestamps.iter().zip(&series.values).zip(scores).enumerate();
    for (index, ((timestamp, value), score)) in rows {
        let label = series.windows.iter().any(|window| (window.first..=window.last).contains(&index));
        let row = (timestamp, value, score, u8::from(label));
        writer.serialize(row).map_err(|error| wrong(&path, &error))?;
    }
    writer.flush().map_err(|error| wrong(&path, &error))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Well below what is reached, so that chance does not fail it, and above the detectors that only look at spikes.
    const FLOOR: f64 = 68.0;

    #[test]
    fn the_benchmark_is_scored_above_the_floor() {
        let Some(folder) = std::env::var_os("GUIDON_CONFORMANCE") else {
            println!("GUIDON_CONFORMANCE is not set: the anomaly benchmark was not run");
            return;
        };
        let folder = PathBuf::from(folder).join("nab");
        let profiles = read_profiles(&folder).unwrap();
        let series = read_series(&folder).unwrap();
        let scores = detect(&series, Tuning::default());
        let (_, costs) = profiles.iter().find(|(name, _)| name == MAIN_PROFILE).unwrap();
        let verdict = nab::judge(&scored(&series, &scores), *costs);
        assert!(verdict.score > FLOOR, "{verdict:?}");
    }

    #[test]
    fn a_folder_is_read_scored_and_written() {
        let folder = tempfile::tempdir().unwrap();
        let at = |path: &str| folder.path().join(path);
        for path in ["data/kind", "labels", "config"] {
            fs::create_dir_all(at(path)).unwrap();
        }
        let rows: String = (0..200)
            .map(|row| {
                format!("2024-01-01 {:02}:{:02}:00,{}\n", row / 60, row % 60, if row == 150 { 99 } else { row % 7 })
            })
            .collect();
        fs::write(at("data/kind/one.csv"), format!("timestamp,value\n{rows}")).unwrap();
        let window = r#"["2024-01-01 02:30:00.000000", "2024-01-01 02:39:00.000000"]"#;
        fs::write(at("labels/combined_windows.json"), format!(r#"{{"kind/one.csv": [{window}]}}"#)).unwrap();
        let costs = r#"{"CostMatrix": {"tpWeight": 1.0, "fnWeight": 1.0, "fpWeight": 0.11, "tnWeight": 1.0}}"#;
        fs::write(at("config/profiles.json"), format!(r#"{{"standard": {costs}}}"#)).unwrap();

        let args =
            ScoreArgs { folder: folder.path().to_owned(), output: Some(at("results")), vary: None, hold_out: true };
        score(&args, &Output::new(true)).unwrap();
        let results = fs::read_to_string(at("results/guidon/kind/guidon_one.csv")).unwrap();
        let lines: Vec<&str> = results.lines().collect();
        assert_eq!(lines[0], "timestamp,value,anomaly_score,label");
        assert_eq!(lines[1], "2024-01-01 00:00:00,0.0,0.0,0");
        assert!(lines[151].starts_with("2024-01-01 02:30:00,99.0,0.9") && lines[151].ends_with(",1"), "{}", lines[151]);
        assert_eq!(lines.len(), 201);

        fs::write(at("labels/combined_windows.json"), r#"{"../one.csv": []}"#).unwrap();
        assert!(matches!(score(&args, &Output::new(true)), Err(CliError::Usage(_))));
    }
}
