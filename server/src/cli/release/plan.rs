//! Plans from options and files.

use std::path::PathBuf;

use clap::{Args, ValueEnum};
use guidon_sdk::model::SLOTS;
use serde_json::{Value, json};

use super::FlagArgs;
use crate::cli::change::{ChangeOptions, submit};
use crate::cli::output::Output;
use crate::cli::yaml::{read_one, write_document};
use crate::cli::{Api, CliError};
use crate::releases::guard::mean::Worse;
use crate::releases::guard::thresholds::{Limit, Measure};
use crate::releases::guard::{Action, Guardrail};
use crate::releases::{PlanKind, ReleasePlan, Step};

/// Seconds of the window that `--limit` looks at.
const LIMIT_WINDOW_SECONDS: u64 = 10;
/// Observations below which it says nothing.
const LIMIT_SAMPLE: u64 = 20;
/// Seconds in a row beyond it that break it.
const LIMIT_BREACHES: u32 = 3;

/// A release to start.
#[derive(Debug, Args)]
pub struct StartArgs {
    #[command(flatten)]
    at: FlagArgs,
    #[command(flatten)]
    plan: PlanArgs,
    #[command(flatten)]
    options: ChangeOptions,
}

/// What a release is to do. What is left out is that of the file, or the default of the kind.
#[derive(Debug, Default, Args)]
pub struct PlanArgs {
    /// The plan, as YAML or JSON; `guidon release plan` prints one to begin from. Other options go before what it says
    #[arg(long = "plan", value_name = "FILE")]
    file: Option<PathBuf>,
    /// How to go about it: more and more people, everybody at once and back, or nobody, beside the control
    #[arg(long)]
    kind: Option<Kind>,
    /// Variation under release; left out: the flag's one AI variation, or its only other one
    #[arg(long, value_name = "VARIATION")]
    treatment: Option<String>,
    /// Variation it is compared with; left out: what is served now
    #[arg(long, value_name = "VARIATION")]
    control: Option<String>,
    /// Rule whose rollout it drives; left out: what everybody gets whom no rule matches
    #[arg(long, value_name = "ID")]
    rule: Option<String>,
    /// Shares of the steps in percent, as 1,5,25,100; of a shadow release the share of calls it runs beside
    #[arg(long, value_name = "PERCENT,…", value_delimiter = ',', value_parser = percent)]
    steps: Vec<u32>,
    /// Shortest time of every step, as 30s, 5m or 2h
    #[arg(long, value_name = "TIME", value_parser = seconds)]
    step_time: Option<u64>,
    /// Units that each arm must have had in every step
    #[arg(long, value_name = "UNITS")]
    min_sample: Option<u64>,
    /// Step that a person has to start, counted from 1; may be given again
    #[arg(long, value_name = "STEP")]
    approve_step: Vec<usize>,
    /// Last value that is still allowed, as errors=2%, p99=800ms, cpu=5ms, or METRIC=NUMBER for the mean of a metric that the
    /// application tracks; over 10 seconds, three in a row. May be given again
    #[arg(long, value_name = "WHAT=VALUE", value_parser = |text: &str| limit(text, Worse::Higher))]
    limit: Vec<NamedLimit>,
    /// As --limit, for a tracked metric of which less is worse, as revenue=3.5
    #[arg(long, value_name = "METRIC=VALUE", value_parser = |text: &str| limit(text, Worse::Lower))]
    floor: Vec<NamedLimit>,
    /// What a broken guardrail does, for all of them [default: roll-back]
    #[arg(long, value_name = "ACTION")]
    on_breach: Option<OnBreach>,
    /// Share of releases that worsen nothing and may yet be disturbed, as 1%
    #[arg(long, value_name = "PERCENT", value_parser = share)]
    alpha: Option<f64>,
    /// How readily the learned baseline tells that something is unusual, 0 to 1
    #[arg(long, value_name = "0…1")]
    sensitivity: Option<f64>,
    /// Healing action of the server's configuration, for instances that do worse than their peers
    #[arg(long, value_name = "NAME")]
    heal: Option<String>,
}

#[derive(Clone, Copy, Debug, ValueEnum)]
enum Kind {
    Progressive,
    BlueGreen,
    Shadow,
}

#[derive(Clone, Copy, Debug, ValueEnum)]
enum OnBreach {
    Observe,
    Hold,
    RollBack,
    Kill,
}

/// A limit, and what it is of.
#[derive(Clone, Debug, PartialEq)]
struct NamedLimit {
    name: String,
    /// The series; none for that of the plan's calls.
    series: Option<String>,
    measure: Measure,
    value: f64,
}

/// Starts a release.
pub fn start(args: &StartArgs, api: &Api, output: &Output) -> Result<(), CliError> {
    let plan = args.plan.compose()?;
    let instruction = json!({"kind": "startRelease", "flag": args.at.flag, "plan": plan});
    submit(api, output, Some(&args.at.environment), &args.options, vec![instruction])
}

/// Prints a whole plan.
pub fn print(args: &PlanArgs, output: &Output) -> Result<(), CliError> {
    let plan = json!(args.compose()?);
    output.either(&plan, |output| {
        let Value::Object(fields) = &plan else { return Ok(()) };
        output.line("# `guidon release start FLAG --plan FILE` starts it. Shares are out of 100,000, latencies and limits on them in")?;
        output.line("# microseconds. A treatment or control that is left empty is found by the server.")?;
        output.line(write_document(fields).trim_end())
    })
}

impl PlanArgs {
    /// The plan of the file and the options.
    fn compose(&self) -> Result<ReleasePlan, CliError> {
        let mut plan = match &self.file {
            None => ReleasePlan::default(),
            Some(path) => {
                let content = read_one(path)?;
                let wrong = |error: serde_json::Error| {
                    CliError::Usage(format!(
                        "{}: {error}\n  `guidon release plan` prints a plan with all its fields.",
                        path.display()
                    ))
                };
                serde_json::from_value(content).map_err(wrong)?
            }
        };
        if let Some(kind) = self.kind {
            plan.kind = match kind {
                Kind::Progressive => PlanKind::Progressive,
                Kind::BlueGreen => PlanKind::BlueGreen,
                Kind::Shadow => PlanKind::Shadow,
            };
        }
        for (given, field) in [(&self.treatment, &mut plan.treatment), (&self.control, &mut plan.control)] {
            if let Some(given) = given {
                field.clone_from(given);
            }
        }
        if self.rule.is_some() {
            plan.rule.clone_from(&self.rule);
        }
        self.write_steps(&mut plan)?;
        plan.complete();
        self.write_guard(&mut plan);
        Ok(plan)
    }

    fn write_steps(&self, plan: &mut ReleasePlan) -> Result<(), CliError> {
        if !self.steps.is_empty() {
            let usual = ReleasePlan::default_steps(plan.kind).into_iter().next().unwrap_or_default();
            let step = |share: &u32| match plan.kind {
                PlanKind::Shadow => Step { shadow: *share, ..usual.clone() },
                _ => Step { share: *share, ..usual.clone() },
            };
            plan.steps = self.steps.iter().map(step).collect();
        }
        if plan.steps.is_empty() {
            plan.steps = ReleasePlan::default_steps(plan.kind);
        }
        for step in &mut plan.steps {
            step.minimum_seconds = self.step_time.unwrap_or(step.minimum_seconds);
            step.minimum_sample = self.min_sample.unwrap_or(step.minimum_sample);
        }
        let count = plan.steps.len();
        for number in &self.approve_step {
            let step = number.checked_sub(1).and_then(|index| plan.steps.get_mut(index));
            let Some(step) = step else {
                return Err(CliError::Usage(format!("--approve-step {number}: the plan has the steps 1 to {count}")));
            };
            step.approval = true;
        }
        Ok(())
    }

    fn write_guard(&self, plan: &mut ReleasePlan) {
        let calls = if plan.kind == PlanKind::Shadow { "shadow" } else { "path" };
        for named in self.limit.iter().chain(&self.floor) {
            let series = named.series.clone().unwrap_or_else(|| calls.to_owned());
            let limit = Limit {
                value: named.value,
                window_seconds: LIMIT_WINDOW_SECONDS,
                minimum_sample: LIMIT_SAMPLE,
                breaches: LIMIT_BREACHES,
            };
            let known = plan.guard.guardrails.iter_mut().find(|it| it.series == series && it.measure == named.measure);
            match known {
                Some(guardrail) => guardrail.limit = Some(limit),
                None => plan.guard.guardrails.push(Guardrail {
                    id: named.name.clone(),
                    series,
                    measure: named.measure,
                    action: Action::RollBack,
                    comparison: None,
                    limit: Some(limit),
                }),
            }
        }
        if let Some(action) = self.on_breach {
            let action = match action {
                OnBreach::Observe => Action::Observe,
                OnBreach::Hold => Action::Hold,
                OnBreach::RollBack => Action::RollBack,
                OnBreach::Kill => Action::Kill,
            };
            plan.guard.guardrails.iter_mut().for_each(|guardrail| guardrail.action = action);
        }
        plan.guard.alpha = self.alpha.unwrap_or(plan.guard.alpha);
        if let Some(sensitivity) = self.sensitivity {
            plan.learned.get_or_insert_default().sensitivity = sensitivity;
        }
        if self.heal.is_some() {
            plan.healing.action.clone_from(&self.heal);
        }
    }
}

/// A percentage as a share of 1: `1%`, or `0.01`.
fn share(text: &str) -> Result<f64, String> {
    let wrong = || format!("write a percentage as 1%, or a share as 0.01, not {text:?}");
    let number = |text: &str| text.trim().parse::<f64>().ok().filter(|it| it.is_finite()).ok_or_else(wrong);
    match text.strip_suffix('%') {
        Some(percent) => Ok(number(percent)? / 100.0),
        None => number(text),
    }
}

/// A percentage out of [`SLOTS`]: `5`, `5%` or `0.5`.
fn percent(text: &str) -> Result<u32, String> {
    let number = text.trim().trim_end_matches('%').trim().parse::<f64>().ok();
    let number = number.filter(|percent| (0.0..=100.0).contains(percent));
    let number = number.ok_or_else(|| format!("write percentages of 0 to 100, as 1,5,25,100, not {text:?}"))?;
    // 0 to 100,000.
    #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "within bounds")]
    let share = (number / 100.0 * f64::from(SLOTS)).round() as u32;
    Ok(share)
}

/// A time: `30s`, `5m`, `2h`, or a number of seconds.
fn seconds(text: &str) -> Result<u64, String> {
    let micros =
        microseconds(text).or_else(|error| text.parse::<f64>().map(|seconds| seconds * 1e6).map_err(|_| error));
    micros.and_then(|micros| {
        // Whole seconds, and no more than some years of them: the server says what is too long.
        #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "within bounds")]
        let seconds = (micros / 1e6).round().clamp(0.0, 1e9) as u64;
        if micros >= 0.0 { Ok(seconds) } else { Err("a time is 0 or more".to_owned()) }
    })
}

fn microseconds(text: &str) -> Result<f64, String> {
    let time = text.trim().parse::<jiff::SignedDuration>();
    time.map(|time| time.as_secs_f64() * 1e6).map_err(|_| format!("write a time as 800ms, 30s, 5m or 2h, not {text:?}"))
}

/// A limit: `errors=2%`, `p99=800ms`, `cpu=5ms`, `METRIC=NUMBER`.
fn limit(text: &str, worse: Worse) -> Result<NamedLimit, String> {
    let (name, value) = text
        .split_once('=')
        .map(|(name, value)| (name.trim(), value.trim()))
        .filter(|(name, value)| !name.is_empty() && !value.is_empty())
        .ok_or_else(|| format!("write what and how much, as errors=2%, p99=800ms or queue=40, not {text:?}"))?;
    let quantile = name.strip_prefix('p').and_then(|digits| digits.parse::<f64>().ok());
    let quantile = quantile.map(|percent| percent / 100.0).filter(|quantile| *quantile > 0.0 && *quantile < 1.0);
    let (series, measure, value) = match (name, quantile, worse) {
        ("errors", ..) => (None, Measure::ErrorRate, share(value)?),
        (_, Some(quantile), _) => (None, Measure::Latency { quantile }, microseconds(value)?),
        ("cpu", ..) => (Some("cpu".to_owned()), Measure::Mean { worse: Worse::Higher }, microseconds(value)?),
        (metric, None, worse) => {
            let value = value.parse::<f64>().ok().filter(|it| it.is_finite());
            let value = value.ok_or_else(|| format!("the limit of a tracked metric is a number, as {metric}=3.5"))?;
            (Some(metric.to_owned()), Measure::Mean { worse }, value)
        }
    };
    Ok(NamedLimit { name: name.to_owned(), series, measure, value })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_become_a_plan() {
        let args = PlanArgs {
            steps: vec![5_000, 100_000],
            step_time: Some(30),
            min_sample: Some(7),
            approve_step: vec![2],
            limit: ["errors=2%", "p99=800ms", "cpu=5ms", "queue=40"]
                .map(|it| limit(it, Worse::Higher).unwrap())
                .to_vec(),
            floor: vec![limit("revenue=3.5", Worse::Lower).unwrap()],
            on_breach: Some(OnBreach::Hold),
            alpha: share("2%").ok(),
            sensitivity: Some(0.9),
            heal: Some("restart".to_owned()),
            ..PlanArgs::default()
        };
        let plan = args.compose().unwrap();
        assert_eq!(plan.problems(), []);
        let steps: Vec<_> =
            plan.steps.iter().map(|it| (it.share, it.minimum_seconds, it.minimum_sample, it.approval)).collect();
        assert_eq!(steps, [(5_000, 30, 7, false), (100_000, 30, 7, true)]);
        let limits: Vec<_> =
            plan.guard.guardrails.iter().map(|it| (it.id.as_str(), it.limit.map(|limit| limit.value))).collect();
        assert_eq!(
            limits,
            [
                ("errors", Some(0.02)),
                ("latency", None),
                ("cpu", Some(5_000.0)),
                ("p99", Some(800_000.0)),
                ("queue", Some(40.0)),
                ("revenue", Some(3.5))
            ]
        );
        assert!(plan.guard.guardrails.iter().all(|guardrail| guardrail.action == Action::Hold));
        assert_eq!((plan.guard.alpha, plan.learned.unwrap().sensitivity), (0.02, 0.9));
        assert_eq!(plan.healing.action.as_deref(), Some("restart"));
    }

    #[test]
    fn every_kind_has_a_whole_plan() {
        for kind in [Kind::Progressive, Kind::BlueGreen, Kind::Shadow] {
            let args = PlanArgs { kind: Some(kind), ..PlanArgs::default() };
            assert_eq!(args.compose().unwrap().problems(), [], "{kind:?}");
        }
        let shadow = PlanArgs { kind: Some(Kind::Shadow), steps: vec![20_000], ..PlanArgs::default() };
        let plan = shadow.compose().unwrap();
        assert_eq!((plan.steps[0].share, plan.steps[0].shadow), (0, 20_000));
        let error = PlanArgs { approve_step: vec![9], ..PlanArgs::default() }.compose().unwrap_err();
        assert_eq!(error.to_string(), "--approve-step 9: the plan has the steps 1 to 4");
    }

    #[test]
    fn what_cannot_be_read_says_how_to_write_it() {
        assert_eq!([percent("0.5"), percent("5%"), percent("100")], [Ok(500), Ok(5_000), Ok(100_000)]);
        assert_eq!([seconds("90"), seconds("5m"), seconds("2h")], [Ok(90), Ok(300), Ok(7_200)]);
        for wrong in ["101", "-1", "five"] {
            assert!(percent(wrong).unwrap_err().contains("1,5,25,100"), "{wrong}");
        }
        assert!(seconds("soon").unwrap_err().contains("5m") && seconds("-5s").is_err());
        for wrong in ["errors", "=2%", "errors=", "p99=fast", "queue=long", "errors=many"] {
            assert!(limit(wrong, Worse::Higher).is_err(), "{wrong}");
        }
    }
}
