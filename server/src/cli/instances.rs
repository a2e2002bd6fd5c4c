//! `guidon instances`

use clap::Args;
use serde_json::Value;

use super::output::Output;
use super::show::{short_time, text};
use super::{Api, CliError};

/// Most characters of a cell; `--json` has the whole text.
const MAX_CELL_CHARACTERS: usize = 20;

/// Whose instances.
#[derive(Args, Debug)]
pub struct InstancesArgs {
    /// Environment
    #[arg(long, short, env = "GUIDON_ENVIRONMENT", default_value = "development")]
    environment: String,
}

/// Lists the connected instances.
pub fn run(args: &InstancesArgs, api: &Api, output: &Output) -> Result<(), CliError> {
    let instances = api.get_all(&api.in_environment(&args.environment, "/instances"), "instances", &[])?;
    output.either(&instances, |output| {
        let rows = instances.iter().map(|one| {
            let cell = |name: &str| shortened(&text(&one[name]));
            vec![
                cell("application"),
                cell("instance"),
                cell("version"),
                cell("commit"),
                cell("image"),
                cell("sdk"),
                short_time(&one["since"]),
                text(&one["applied"]),
                marks(one),
            ]
        });
        let headers = ["application", "instance", "version", "commit", "image", "sdk", "since", "revision", "marks"];
        output.table(&headers, rows.collect(), "No instances are connected with a server's SDK key.")
    })
}

fn marks(instance: &Value) -> String {
    let names = |field: &str| {
        let names = instance[field].as_array().into_iter().flatten().filter_map(Value::as_str);
        names.collect::<Vec<_>>().join(", ")
    };
    let marks = [("differs from peers", names("differs")), ("not seen in staging", names("unvalidated"))];
    let marks = marks.iter().filter(|(_, names)| !names.is_empty());
    marks.map(|(mark, names)| format!("{mark}: {names}")).collect::<Vec<_>>().join("; ")
}

fn shortened(text: &str) -> String {
    match text.char_indices().nth(MAX_CELL_CHARACTERS) {
        Some((end, _)) => format!("{}…", &text[..end]),
        None => text.to_owned(),
    }
}
