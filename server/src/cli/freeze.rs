//! `guidon freeze …` and `guidon review …`

use clap::Subcommand;
use serde_json::json;

use super::change::{ChangeOptions, moment, submit};
use super::output::Output;
use super::show::{short_time, text};
use super::{Api, CliError};

/// Commands about freezes.
#[derive(Debug, Subcommand)]
pub enum FreezeCommand {
    /// Freeze an environment: nothing is changed in it but what lowers exposure
    Declare {
        /// Why: people will ask
        #[arg(long)]
        reason: String,
        /// Environment
        #[arg(long, short, env = "GUIDON_ENVIRONMENT", default_value = "development")]
        environment: String,
        /// When it begins; at once if left out
        #[arg(long, value_name = "TIME", value_parser = moment)]
        from: Option<u64>,
        /// When it ends by itself; when it is lifted if left out
        #[arg(long, value_name = "TIME", value_parser = moment)]
        until: Option<u64>,
    },
    /// Lift a freeze
    Lift {
        /// Id of the freeze
        id: String,
        /// Environment
        #[arg(long, short, env = "GUIDON_ENVIRONMENT", default_value = "development")]
        environment: String,
    },
    /// List freezes, those to come among them
    List,
}

/// Commands about reviews.
#[derive(Debug, Subcommand)]
pub enum ReviewCommand {
    /// List emergency changes that are still to be reviewed
    List {
        /// Those whose review is closed too
        #[arg(long)]
        all: bool,
    },
    /// Close the review of an emergency change
    Close {
        /// The revision that the change made
        revision: u64,
        /// What was found
        finding: String,
    },
}

/// Runs a command about freezes.
pub fn run_freeze(command: FreezeCommand, api: &Api, output: &Output) -> Result<(), CliError> {
    let options = ChangeOptions::default();
    match command {
        FreezeCommand::Declare { reason, environment, from, until } => {
            let mut instruction = json!({"kind": "declareFreeze", "reason": reason});
            for (field, at) in [("from", from), ("until", until)] {
                if let Some(at) = at {
                    instruction[field] = json!(at);
                }
            }
            submit(api, output, Some(&environment), &options, vec![instruction])
        }
        FreezeCommand::Lift { id, environment } => {
            submit(api, output, Some(&environment), &options, vec![json!({"kind": "liftFreeze", "id": id})])
        }
        FreezeCommand::List => {
            let environments = api.get_all(&api.in_project("/environments"), "environments", &[])?;
            output.either(&environments, |output| {
                let rows = environments.iter().flat_map(|environment| {
                    let freezes = environment["freezes"].as_array().into_iter().flatten();
                    freezes.map(|freeze| {
                        let until = short_time(&freeze["until"]);
                        let until = if until.is_empty() { "lifted".to_owned() } else { until };
                        let (id, reason) = (text(&freeze["id"]), text(&freeze["reason"]));
                        vec![text(&environment["key"]), id, short_time(&freeze["from"]), until, reason]
                    })
                });
                let headers = ["environment", "id", "from", "until", "reason"];
                output.table(&headers, rows.collect(), "Nothing is frozen.")
            })
        }
    }
}

/// Runs a command about reviews.
pub fn run_review(command: ReviewCommand, api: &Api, output: &Output) -> Result<(), CliError> {
    match command {
        ReviewCommand::List { all } => {
            let query = if all { Vec::new() } else { vec![("pending", "true".to_owned())] };
            let reviews = api.get_all(&api.in_project("/reviews"), "reviews", &query)?;
            output.either(&reviews, |output| {
                let rows = reviews.iter().map(|review| {
                    let finding = text(&review["finding"]["text"]);
                    let finding = if review["pending"] == true { "to be reviewed".to_owned() } else { finding };
                    let (revision, environment) = (text(&review["revision"]), text(&review["environment"]));
                    vec![revision, short_time(&review["at"]), environment, text(&review["by"]), finding]
                });
                let headers = ["revision", "at", "environment", "by", "finding"];
                output.table(&headers, rows.collect(), "No emergency change waits for its review.")
            })
        }
        ReviewCommand::Close { revision, finding } => {
            let path = api.in_project(&format!("/reviews/{revision}"));
            let closed = api.post(&path, &json!({"finding": finding}))?;
            output.either(&closed, |output| output.line(format!("The review of revision {revision} is closed.")))
        }
    }
}
