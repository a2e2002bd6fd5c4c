//! `guidon webhook …`

use clap::{Args, Subcommand};
use serde_json::{Map, Value, json};

use super::api::encode;
use super::change::print_outcome;
use super::output::Output;
use super::show::{short_time, text};
use super::token::minutes;
use super::{Api, CliError};

/// Commands about webhooks.
#[derive(Debug, Subcommand)]
pub enum WebhookCommand {
    /// Create a webhook; its signing secret is shown once
    Create(CreateArgs),
    /// List webhooks and how they do
    List,
    /// Show a webhook
    Show {
        /// Id of the webhook
        id: String,
    },
    /// Edit a webhook; what is left out stays
    Update(UpdateArgs),
    /// Delete a webhook, at once
    Delete {
        /// Id of the webhook
        id: String,
    },
    /// Make a new signing secret; the old one signs as well for a while
    Rotate {
        /// Id of the webhook
        id: String,
        /// How long the old secret signs as well: 24h, 30m; 0 ends it at once
        #[arg(long, value_name = "TIME", value_parser = minutes, default_value = "24h")]
        overlap: u64,
    },
    /// Call a webhook once and say what came of it
    Test {
        /// Id of the webhook
        id: String,
    },
    /// List the last attempts
    Deliveries {
        /// Id of the webhook
        id: String,
    },
    /// List notifications that were given up
    DeadLetters {
        /// Id of the webhook
        id: String,
    },
    /// Send dead letters again
    Resend {
        /// Id of the webhook
        id: String,
        /// Id of a dead letter
        #[arg(required_unless_present = "all", conflicts_with = "all")]
        letter: Option<String>,
        /// All of them
        #[arg(long)]
        all: bool,
    },
}

/// A new webhook.
#[derive(Args, Debug)]
pub struct CreateArgs {
    /// Whom to call: an https URL; `-` reads it from standard input, where it stays out of the shell's history
    url: String,
    /// Name for people
    #[arg(long, default_value = "")]
    name: String,
    /// Form of what is sent
    #[arg(long, value_parser = ["json", "cloudevents", "slack"], default_value = "json")]
    format: String,
    #[command(flatten)]
    filters: FilterArgs,
    /// Do not send anything yet
    #[arg(long)]
    disabled: bool,
}

/// What to edit.
#[derive(Args, Debug)]
pub struct UpdateArgs {
    /// Id of the webhook
    id: String,
    /// Another URL; `-` reads it from standard input
    #[arg(long)]
    url: Option<String>,
    /// Another name
    #[arg(long)]
    name: Option<String>,
    /// Another form
    #[arg(long, value_parser = ["json", "cloudevents", "slack"])]
    format: Option<String>,
    #[command(flatten)]
    filters: FilterArgs,
    /// Tell of everything: remove all filters
    #[arg(long, conflicts_with_all = ["topics", "environments", "tiers", "flags"])]
    no_filters: bool,
    /// Send again, from now on
    #[arg(long, conflicts_with = "disable")]
    enable: bool,
    /// Send nothing any more
    #[arg(long)]
    disable: bool,
}

/// What to tell of.
#[derive(Args, Debug)]
pub struct FilterArgs {
    /// Only this topic, as change.applied, change.emergency, request.opened, security.refused; may be repeated
    #[arg(long = "topic", value_name = "TOPIC", value_delimiter = ',')]
    topics: Vec<String>,
    /// Only what is about this environment; may be repeated
    #[arg(long = "environment", short, value_name = "KEY", value_delimiter = ',')]
    environments: Vec<String>,
    /// Only what is about this tier; may be repeated
    #[arg(long = "tier", value_parser = ["development", "testing", "staging", "production"], value_delimiter = ',')]
    tiers: Vec<String>,
    /// Only what is about this flag; may be repeated
    #[arg(long = "flag", value_name = "KEY", value_delimiter = ',')]
    flags: Vec<String>,
}

impl FilterArgs {
    /// As the API takes them; nothing if none was given.
    fn filters(&self) -> Option<Value> {
        let lists = [
            ("topics", &self.topics),
            ("environments", &self.environments),
            ("tiers", &self.tiers),
            ("flags", &self.flags),
        ];
        let given: Map<String, Value> = lists
            .iter()
            .filter(|(_, list)| !list.is_empty())
            .map(|(name, list)| ((*name).to_owned(), json!(list)))
            .collect();
        (!given.is_empty()).then_some(Value::Object(given))
    }
}

/// Runs one of the commands.
pub fn run(command: WebhookCommand, api: &Api, output: &Output) -> Result<(), CliError> {
    let all = api.in_project("/webhooks");
    let one = |id: &str, rest: &str| format!("{all}/{}{rest}", encode(id));
    match command {
        WebhookCommand::Create(args) => {
            let mut body = json!({
                "url": read_url(args.url)?,
                "name": args.name,
                "format": args.format,
                "enabled": !args.disabled,
            });
            if let Some(filters) = args.filters.filters() {
                body["filters"] = filters;
            }
            show_secret(&api.post(&all, &body)?, output)
        }
        WebhookCommand::List => {
            let webhooks = api.get_all(&all, "webhooks", &[])?;
            output.either(&webhooks, |output| {
                let rows = webhooks.iter().map(|hook| {
                    let standing = &hook["standing"];
                    vec![
                        text(&hook["id"]),
                        text(&hook["name"]),
                        text(&hook["target"]),
                        text(&hook["format"]),
                        filter_words(&hook["filters"]),
                        text(&standing["state"]),
                        text(&standing["deadLetters"]),
                    ]
                });
                let headers = ["id", "name", "calls", "format", "tells of", "state", "dead letters"];
                output.table(&headers, rows.collect(), "No webhooks. `guidon webhook create URL` makes one.")
            })
        }
        WebhookCommand::Show { id } => show(&api.get(&one(&id, ""), &[])?, output),
        WebhookCommand::Update(args) => {
            let mut body = json!({});
            let mut put = |name: &str, value: Option<Value>| {
                if let Some(value) = value {
                    body[name] = value;
                }
            };
            put("url", args.url.map(read_url).transpose()?.map(Value::String));
            put("name", args.name.map(Value::String));
            put("format", args.format.map(Value::String));
            put("filters", args.filters.filters().or_else(|| args.no_filters.then(|| json!({}))));
            put("enabled", (args.enable || args.disable).then_some(Value::Bool(args.enable)));
            show(&api.patch(&one(&args.id, ""), &body)?, output)
        }
        WebhookCommand::Delete { id } => print_outcome(&api.delete(&one(&id, ""))?, output),
        WebhookCommand::Rotate { id, overlap } => {
            show_secret(&api.post(&one(&id, "/rotate"), &json!({"overlapMinutes": overlap}))?, output)
        }
        WebhookCommand::Test { id } => {
            let delivery = api.post(&one(&id, "/test"), &Value::Null)?;
            output.either(&delivery, |output| {
                let took = format!("{} ms", text(&delivery["tookMs"]));
                match delivery["error"].as_str() {
                    None => output.line(format!("Delivered: {} in {took}.", text(&delivery["status"]))),
                    Some(error) => output.line(format!("Failed after {took}: {error}.")),
                }
            })?;
            match delivery["error"].as_str() {
                Some(_) => Err(CliError::Unexpected(format!(
                    "the webhook {id} did not take the test\n  `guidon webhook update {id} --url …` sets another URL."
                ))),
                None => Ok(()),
            }
        }
        WebhookCommand::Deliveries { id } => {
            let deliveries = api.get_all(&one(&id, "/deliveries"), "deliveries", &[])?;
            output.either(&deliveries, |output| {
                let rows = deliveries.iter().map(|delivery| {
                    vec![
                        short_time(&delivery["at"]),
                        text(&delivery["topic"]),
                        text(&delivery["attempt"]),
                        text(&delivery["outcome"]),
                        text(&delivery["status"]),
                        format!("{} ms", text(&delivery["tookMs"])),
                        text(&delivery["id"]),
                        text(&delivery["error"]),
                    ]
                });
                let headers = ["at", "topic", "attempt", "outcome", "status", "took", "notification", "error"];
                output.table(&headers, rows.collect(), "Nothing was sent yet. `guidon webhook test` sends a ping.")
            })
        }
        WebhookCommand::DeadLetters { id } => {
            let letters = api.get_all(&one(&id, "/dead-letters"), "deadLetters", &[])?;
            output.either(&letters, |output| {
                let rows = letters.iter().map(|letter| {
                    let resending = if letter["resending"] == true { "being sent again" } else { "" };
                    vec![
                        text(&letter["id"]),
                        text(&letter["topic"]),
                        short_time(&letter["at"]),
                        short_time(&letter["deadAt"]),
                        text(&letter["attempts"]),
                        text(&letter["reason"]),
                        resending.to_owned(),
                    ]
                });
                let headers = ["notification", "topic", "happened", "given up", "attempts", "reason", ""];
                output.table(&headers, rows.collect(), "No dead letters.")
            })
        }
        WebhookCommand::Resend { id, letter, all: _ } => {
            let path = match letter {
                Some(letter) => one(&id, &format!("/dead-letters/{}/resend", encode(&letter))),
                None => one(&id, "/dead-letters/resend"),
            };
            let answer = api.post(&path, &Value::Null)?;
            output.either(&answer, |output| {
                output.line(format!(
                    "Sent again: {}. `guidon webhook deliveries {id}` says what comes of it.",
                    text(&answer["resending"])
                ))
            })
        }
    }
}

fn read_url(url: String) -> Result<String, CliError> {
    if url != "-" {
        return Ok(url);
    }
    super::change::read_text(std::path::Path::new("-")).map(|text| text.trim().to_owned())
}

fn show_secret(webhook: &Value, output: &Output) -> Result<(), CliError> {
    output.either(webhook, |output| {
        output.line(format!("Webhook {}, which calls {}", text(&webhook["id"]), text(&webhook["target"])))?;
        output.line("Its signing secret, shown this once:\n")?;
        output.line(format!("  {}\n", text(&webhook["secret"])))?;
        if webhook["oldSecretEndsAt"].is_u64() {
            output.line(format!("The old one signs as well until {}.", short_time(&webhook["oldSecretEndsAt"])))?;
        }
        output.line(format!("`guidon webhook test {}` sends a ping.", text(&webhook["id"])))
    })
}

fn show(webhook: &Value, output: &Output) -> Result<(), CliError> {
    output.either(webhook, |output| {
        let standing = &webhook["standing"];
        let mut rows = vec![
            ("webhook", text(&webhook["id"])),
            ("name", text(&webhook["name"])),
            ("calls", text(&webhook["target"])),
            ("format", text(&webhook["format"])),
            ("tells of", filter_words(&webhook["filters"])),
            ("state", text(&standing["state"])),
            ("got to revision", text(&standing["revision"])),
            ("dead letters", text(&standing["deadLetters"])),
            ("created", short_time(&webhook["createdAt"])),
        ];
        if standing["failures"].is_u64() {
            let since = short_time(&standing["since"]);
            rows.push(("fails", format!("{} times since {since}", text(&standing["failures"]))));
            rows.push(("tried again", short_time(&standing["nextAt"])));
        }
        if let Some(error) = standing["lastDelivery"]["error"].as_str() {
            rows.push(("last error", error.to_owned()));
        }
        if webhook["oldSecretEndsAt"].is_u64() {
            rows.push(("old secret until", short_time(&webhook["oldSecretEndsAt"])));
        }
        rows.iter()
            .filter(|(_, value)| !value.is_empty())
            .try_for_each(|(name, value)| output.line(format!("{name:<17}{value}")))
    })
}

/// `change.applied in production`, or `everything`.
fn filter_words(filters: &Value) -> String {
    let list = |name: &str| -> Vec<String> { filters[name].as_array().into_iter().flatten().map(text).collect() };
    let (topics, flags) = (list("topics"), list("flags"));
    let places: Vec<String> = list("environments").into_iter().chain(list("tiers")).collect();
    let mut words = if topics.is_empty() { "everything".to_owned() } else { topics.join(", ") };
    if !places.is_empty() {
        words = format!("{words} in {}", places.join(", "));
    }
    if flags.is_empty() { words } else { format!("{words} about {}", flags.join(", ")) }
}
