//! `guidon plan` and `guidon apply`: configuration files, compared with the server and applied as one change.

use std::fs;
use std::io::Read;
use std::path::{Path, PathBuf};

use clap::Args;
use serde_json::{Value, json};

use super::change::print_outcome;
use super::error::Problem;
use super::output::Output;
use super::put_file::{Readers, put_file};
use super::show::text;
use super::yaml::Document;
use super::{Api, CliError, plan_text, prompt, show};

/// What a saved plan says it is.
const FORMAT: &str = "guidon-plan/1";
/// Largest saved plan, in bytes.
const MAX_PLAN_BYTES: u64 = 64 << 20;

/// Longest body that a server takes unless it is told otherwise, in bytes.
const USUAL_BODY_BYTES: usize = 8 << 20;

/// Which files, and what to make of them.
#[derive(Debug, Args)]
pub struct PlanArgs {
    /// Folder of the configuration files (*.yaml, *.yml, also in folders below), or one such file
    #[arg(long, short, value_name = "DIR")]
    file: PathBuf,
    /// Archive flags and delete segments that are in no file
    #[arg(long)]
    prune: bool,
    /// Save the plan, for `guidon apply FILE`
    #[arg(long, short, value_name = "FILE")]
    output: Option<PathBuf>,
}

/// Which files or saved plan, and what to say of the change.
#[derive(Debug, Args)]
#[command(group = clap::ArgGroup::new("what").required(true))]
pub struct ApplyArgs {
    /// A plan that `guidon plan -o` saved
    #[arg(value_name = "PLAN", group = "what")]
    plan: Option<PathBuf>,
    /// Folder of the configuration files (*.yaml, *.yml, also in folders below), or one such file
    #[arg(long, short, value_name = "DIR", group = "what")]
    file: Option<PathBuf>,
    /// Archive flags and delete segments that are in no file
    #[arg(long, conflicts_with = "plan")]
    prune: bool,
    /// Do not ask
    #[arg(long, short)]
    yes: bool,
    /// Why, for the history
    #[arg(long, short = 'm', value_name = "TEXT")]
    comment: Option<String>,
    /// Source commit the change ships
    #[arg(long, value_name = "SHA")]
    commit: Option<String>,
}

/// What is to be planned.
pub struct Wanted {
    document: Value,
    prune: bool,
    /// Revision that an earlier plan was made against.
    base: Option<u64>,
    /// The files, if it comes from files.
    files: Option<Document>,
}

/// Shows what applying files would change, and saves it if asked to.
pub fn plan(args: &PlanArgs, api: &Api, output: &Output) -> Result<(), CliError> {
    let mut wanted = Wanted::of_files(&args.file, args.prune)?;
    let plan = wanted.plan(api)?;
    if let Some(path) = &args.output {
        save(path, api, &wanted, &plan)?;
    }
    output.either(&plan, |output| {
        plan_text::print(&plan, output)?;
        if let Some(path) = &args.output {
            let path = path.display();
            output.line(format!("Saved as {path}; `guidon apply {path}` applies it."))?;
        }
        Ok(())
    })
}

/// Applies files or a saved plan as one change, after it was shown and agreed to.
pub fn apply(args: &ApplyArgs, api: &Api, output: &Output) -> Result<(), CliError> {
    let mut wanted = match (&args.plan, &args.file) {
        (Some(path), _) => saved(path, api)?,
        (None, Some(folder)) => Wanted::of_files(folder, args.prune)?,
        (None, None) => return Err(CliError::Usage("name the files with -f DIR, or a saved plan".to_owned())),
    };
    if !args.yes && !prompt::is_possible() {
        let message =
            "nobody is here to agree to it\n  `guidon plan` shows what it would change; --yes applies it unasked.";
        return Err(CliError::Usage(message.to_owned()));
    }
    let plan = wanted.plan(api)?;
    if wanted.base.is_some() && plan["since"].is_object() {
        return Err(overtaken(&plan["since"]));
    }
    if !output.is_json() {
        plan_text::print(&plan, output)?;
    }
    let is_empty = plan["steps"].as_array().is_none_or(Vec::is_empty);
    if is_empty && output.is_json() {
        return output.document(&plan);
    }
    if is_empty {
        return Ok(());
    }
    if !args.yes && !prompt::confirm("Apply this?")? {
        return output.line("Nothing was changed.");
    }
    let mut body = json!({
        "document": wanted.document, "prune": wanted.prune,
        // What was shown is what is applied, or nothing.
        "baseRevision": wanted.base.map_or_else(|| plan["baseRevision"].clone(), Value::from),
    });
    for (field, value) in [("comment", &args.comment), ("commit", &args.commit)] {
        if let Some(value) = value {
            body[field] = json!(value);
        }
    }
    let outcome = wanted.send(api, "/apply", &body).map_err(told_who_won)?;
    print_outcome(&outcome, output)
}

impl Wanted {
    /// What files say.
    ///
    /// # Errors
    ///
    /// If they cannot be read, with every place that is wrong.
    pub fn of_files(folder: &Path, prune: bool) -> Result<Self, CliError> {
        let files = Document::read(folder)?;
        Ok(Self { document: files.to_value(), prune, base: None, files: Some(files) })
    }

    /// Asks the server what applying it would change.
    ///
    /// # Errors
    ///
    /// Everything that is wrong with it, in the files where it comes from files.
    pub fn plan(&mut self, api: &Api) -> Result<Value, CliError> {
        let mut body = json!({"document": self.document, "prune": self.prune});
        if let Some(base) = self.base {
            body["baseRevision"] = json!(base);
        }
        self.send(api, "/plan", &body)
    }

    fn send(&mut self, api: &Api, path: &str, body: &Value) -> Result<Value, CliError> {
        let answer = api.post(&api.in_project(path), body);
        // A server may hang up on a body that it finds too long before all of it was sent.
        let is_long = || serde_json::to_vec(body).is_ok_and(|bytes| bytes.len() > USUAL_BODY_BYTES);
        let answer = answer.map_err(|error| match error {
            CliError::Problem(problem) if problem.status == 413 => too_long(),
            CliError::Unreachable { .. } if is_long() => too_long(),
            other => other,
        });
        let Some(files) = &mut self.files else { return answer };
        let found = match &answer {
            Err(CliError::Problem(problem)) => problem.document["errors"].as_array().cloned().unwrap_or_default(),
            _ => Vec::new(),
        };
        files.add_problems(&found, "/document");
        // What is wrong with the files stands before all else: without them, nothing can be sent.
        files.check()?;
        answer
    }
}

fn too_long() -> CliError {
    let remedy = "the files are more than the server takes in one request; apply them in parts, or start it with a larger \
                  --max-body-bytes";
    let document = json!({"title": "Too much at once", "status": 413, "code": "bodyTooLarge", "detail": remedy});
    CliError::Problem(Problem { status: 413, document })
}

/// Saves a plan where nobody else reads it: the files may hold persons' keys.
fn save(path: &Path, api: &Api, wanted: &Wanted, plan: &Value) -> Result<(), CliError> {
    let content = json!({
        "format": FORMAT,
        "project": api.project(),
        "baseRevision": plan["baseRevision"],
        "prune": wanted.prune,
        "document": wanted.document,
        "differences": plan["differences"],
        "counts": plan["counts"],
    });
    let wrong = |error: std::io::Error| CliError::Unexpected(format!("{}: {error}", path.display()));
    put_file(path, format!("{content}\n").as_bytes(), Readers::Owner).map_err(wrong)
}

fn saved(path: &Path, api: &Api) -> Result<Wanted, CliError> {
    let wrong = |reason: String| CliError::Usage(format!("{}: {reason}", path.display()));
    if path.is_dir() {
        return Err(wrong("is a folder; `guidon apply -f` takes the files in it".to_owned()));
    }
    let mut text = String::new();
    let file = fs::File::open(path).map_err(|error| wrong(error.to_string()))?;
    let read = file.take(MAX_PLAN_BYTES + 1).read_to_string(&mut text).map_err(|error| wrong(error.to_string()))?;
    if u64::try_from(read).unwrap_or(u64::MAX) > MAX_PLAN_BYTES {
        return Err(wrong(format!("is larger than {} MiB: no saved plan", MAX_PLAN_BYTES >> 20)));
    }
    let plan: Value = serde_json::from_str(&text).map_err(|error| wrong(format!("is no saved plan: {error}")))?;
    if plan["format"] != FORMAT || !plan["document"].is_object() {
        return Err(wrong("is no saved plan; `guidon plan -o` makes one, and -f takes files".to_owned()));
    }
    if plan["project"] != api.project() {
        let (made, asked) = (show::text(&plan["project"]), api.project());
        return Err(wrong(format!("is a plan for the project \"{made}\", not for \"{asked}\"; -p says which project")));
    }
    Ok(Wanted {
        document: plan["document"].clone(),
        prune: plan["prune"] == true,
        base: plan["baseRevision"].as_u64(),
        files: None,
    })
}

/// A saved plan that others made out of date.
fn overtaken(since: &Value) -> CliError {
    let message = format!(
        "the plan is of revision {}, and these were changed since; nothing was changed{}\n  {}",
        text(&since["baseRevision"]),
        plan_text::entries(&since["entries"]),
        "Make a new plan, look at it, and apply that."
    );
    CliError::Stale { message, entries: since["entries"].clone() }
}

/// A conflict with who won and what to do, for people.
fn told_who_won(error: CliError) -> CliError {
    match error {
        CliError::Problem(problem) if problem.document["code"] == "staleRevision" => {
            let message = format!(
                "somebody else changed the same in between; nothing of yours was applied{}\n  {}",
                plan_text::entries(&problem.document["entries"]),
                "Run `guidon plan` again: what it still shows is not there yet; then apply it."
            );
            CliError::Stale { message, entries: problem.document["entries"].clone() }
        }
        other => other,
    }
}
