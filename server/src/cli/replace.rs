//! `guidon flag replace-variation`: what to do in place of editing a variation that has been served in production.

use clap::Args;
use serde_json::{Map, Value, json};

use super::change::{ChangeOptions, submit};
use super::output::Output;
use super::{Api, CliError};

/// Which variation takes another's place.
#[derive(Debug, Args)]
pub struct ReplaceArgs {
    /// Key of the flag
    flag: String,
    /// Key of the variation whose place is taken
    old: String,
    /// Key of the variation that takes it; made, if the flag has none of this key
    new: String,
    /// Value of the new variation: text for a flag of strings, else JSON
    #[arg(long)]
    value: Option<String>,
    /// Who wrote the new variation: `ai`, `human`, or a whole provenance as JSON
    #[arg(long, value_name = "ai|human|JSON")]
    provenance: Option<String>,
    /// Name of the new variation, for people
    #[arg(long)]
    name: Option<String>,
    /// Environment
    #[arg(long, short, env = "GUIDON_ENVIRONMENT", default_value = "development")]
    environment: String,
    #[command(flatten)]
    change: ChangeOptions,
}

/// Adds the new variation and moves every reference in the environment to it, as one change.
pub fn run(args: &ReplaceArgs, api: &Api, output: &Output) -> Result<(), CliError> {
    // Read first: what changes from here on is in the way of the change, and is not overwritten.
    let revision = api.get("/api/v1/status", &[])?["revision"].as_u64();
    let flag = api.get(&api.in_project(&format!("/flags/{}", super::api::encode(&args.flag))), &[])?;
    let query = [("limit", "1000".to_owned()), ("environment", args.environment.clone())];
    let flags = api.get_all(&api.in_project("/flags"), "flags", &query)?;
    let instructions = instructions(args, &flag, &flags)?;
    if instructions.is_empty() {
        let said = format!("Nothing to change: nothing in {} refers to {}.", args.environment, args.old);
        return output.either(&json!({"changed": []}), |output| output.line(&said));
    }
    submit(api, output, Some(&args.environment), &args.change.clone().read_at(revision), instructions)
}

fn instructions(args: &ReplaceArgs, flag: &Value, flags: &[Value]) -> Result<Vec<Value>, CliError> {
    let usage = |message: String| Err(CliError::Usage(message));
    let config = &flag["environments"][&args.environment];
    if !config.is_object() {
        return usage(format!("there is no environment {}, or you may not see it", args.environment));
    }
    if args.old == args.new {
        return usage("a variation does not take its own place: choose another key for the new one".to_owned());
    }
    let known = |key: &str| flag["variations"].as_array().into_iter().flatten().find(|it| it["key"] == *key);
    if known(&args.old).is_none() {
        let keys = flag["variations"].as_array().into_iter().flatten().filter_map(|it| it["key"].as_str());
        let keys = keys.collect::<Vec<_>>().join(", ");
        return usage(format!("{} has no variation {}; it has {keys}", args.flag, args.old));
    }
    let mut instructions = Vec::new();
    match (known(&args.new), &args.value) {
        (Some(stands), Some(value)) if parse(value, flag)? != stands["value"] => {
            let message = format!("{} has another value already: leave --value out, or choose another key", args.new);
            return usage(message);
        }
        (Some(_), _) => {}
        (None, None) => return usage(format!("say what {} is: --value …", args.new)),
        (None, Some(value)) => instructions.push(addition(args, parse(value, flag)?)?),
    }
    let moves = Moves { flag: &args.flag, old: &args.old, new: &args.new };
    moves.config(config, &mut instructions)?;
    for other in flags {
        let required = other["environments"][&args.environment]["prerequisites"].as_array().into_iter().flatten();
        if required.into_iter().any(|it| it["flag"] == args.flag && it["variation"] == args.old) {
            let prerequisite = json!({"flag": args.flag, "variation": args.new});
            instructions.push(json!({"kind": "addPrerequisite", "flag": other["key"], "prerequisite": prerequisite}));
        }
    }
    Ok(instructions)
}

fn parse(value: &str, flag: &Value) -> Result<Value, CliError> {
    if flag["kind"] == "string" {
        return Ok(json!(value));
    }
    serde_json::from_str(value).map_err(|error| CliError::Usage(format!("--value {value:?} is not JSON: {error}")))
}

fn addition(args: &ReplaceArgs, value: Value) -> Result<Value, CliError> {
    let mut variation = json!({"key": args.new, "value": value});
    match args.provenance.as_deref() {
        None => {}
        Some(by @ ("ai" | "human")) => variation["provenance"] = json!({"by": by}),
        Some(text) => {
            variation["provenance"] = serde_json::from_str(text).map_err(|error| {
                CliError::Usage(format!("--provenance is ai, human, or JSON as {{\"by\":\"ai\",…}}: {error}"))
            })?;
        }
    }
    if let Some(name) = &args.name {
        variation["name"] = json!(name);
    }
    Ok(json!({"kind": "addVariation", "flag": args.flag, "variation": variation}))
}

/// One variation in the place of another.
struct Moves<'a> {
    flag: &'a str,
    old: &'a str,
    new: &'a str,
}

impl Moves<'_> {
    fn config(&self, config: &Value, instructions: &mut Vec<Value>) -> Result<(), CliError> {
        if config["offVariation"] == *self.old {
            instructions.push(json!({"kind": "setOffVariation", "flag": self.flag, "variation": self.new}));
        }
        for target in config["targets"].as_array().into_iter().flatten().filter(|it| it["variation"] == *self.old) {
            let keys = target["keys"].as_array().ok_or_else(|| self.hidden("its targets"))?;
            instructions.push(json!({"kind": "addTargets", "flag": self.flag, "variation": self.new, "keys": keys}));
        }
        for rule in config["rules"].as_array().into_iter().flatten() {
            if let Some(weights) = self.weights(&rule["serve"]) {
                instructions
                    .push(json!({"kind": "setRollout", "flag": self.flag, "rule": rule["id"], "weights": weights}));
            } else if rule["serve"]["variation"] == *self.old {
                let is_hidden = |clause: &Value| !clause["valueCount"].is_null();
                if rule["clauses"].as_array().into_iter().flatten().any(is_hidden) {
                    return Err(self.hidden("the values of its rules"));
                }
                let mut replaced = rule.clone();
                replaced["serve"] = json!({"variation": self.new});
                instructions.push(json!({"kind": "replaceRule", "flag": self.flag, "rule": replaced}));
            }
        }
        if let Some(weights) = self.weights(&config["fallthrough"]) {
            instructions.push(json!({"kind": "setRollout", "flag": self.flag, "weights": weights}));
        } else if config["fallthrough"]["variation"] == *self.old {
            let serve = json!({"variation": self.new});
            instructions.push(json!({"kind": "setFallthrough", "flag": self.flag, "serve": serve}));
        }
        Ok(())
    }

    /// The weights of a rollout with the old variation's given to the new one; `None` if it has none.
    fn weights(&self, serve: &Value) -> Option<Map<String, Value>> {
        let mut weights = serve["rollout"]["weights"].as_object()?.clone();
        let moved = weights.remove(self.old)?.as_u64().unwrap_or_default();
        let standing = weights.get(self.new).and_then(Value::as_u64).unwrap_or_default();
        weights.insert(self.new.to_owned(), json!(standing + moved));
        Some(weights)
    }

    fn hidden(&self, what: &str) -> CliError {
        CliError::Usage(format!(
            "you may not see {what}, which name people: somebody who may has to replace {} of {}",
            self.old, self.flag
        ))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn args(value: Option<&str>) -> ReplaceArgs {
        ReplaceArgs {
            flag: "engine".to_owned(),
            old: "ai".to_owned(),
            new: "ai-2".to_owned(),
            value: value.map(str::to_owned),
            provenance: Some("ai".to_owned()),
            name: None,
            environment: "staging".to_owned(),
            change: ChangeOptions::default(),
        }
    }

    fn flag() -> Value {
        let rule =
            |id: &str, serve: Value| json!({"id": id, "clauses": [{"op": "exists", "attribute": "a"}], "serve": serve});
        json!({"key": "engine", "kind": "string", "variations": [{"key": "ai", "value": "v1"}, {"key": "base", "value": "b"}],
            "environments": {"staging": {"on": true, "offVariation": "ai",
                "targets": [{"variation": "base", "keys": ["p-1"]}, {"variation": "ai", "keys": ["p-2", "p-3"]}],
                "rules": [rule("r1", json!({"variation": "ai"})), rule("r2", json!({"variation": "base"})),
                          rule("r3", json!({"rollout": {"weights": {"ai": 10, "base": 99_990}, "salt": "s"}}))],
                "fallthrough": {"rollout": {"weights": {"ai": 5_000, "base": 95_000}, "salt": "s"}}}}})
    }

    #[test]
    fn every_reference_moves_and_nothing_else() {
        let requires = |key: &str, variation: &str| json!({"key": key, "environments": {"staging": {"prerequisites": [{"flag": "engine", "variation": variation}]}}});
        let others = [requires("one", "ai"), requires("two", "base")];
        let made = instructions(&args(Some("v2")), &flag(), &others).unwrap();
        let expected = json!([
            {"kind": "addVariation", "flag": "engine", "variation": {"key": "ai-2", "value": "v2", "provenance": {"by": "ai"}}},
            {"kind": "setOffVariation", "flag": "engine", "variation": "ai-2"},
            {"kind": "addTargets", "flag": "engine", "variation": "ai-2", "keys": ["p-2", "p-3"]},
            {"kind": "replaceRule", "flag": "engine", "rule":
                {"id": "r1", "clauses": [{"op": "exists", "attribute": "a"}], "serve": {"variation": "ai-2"}}},
            {"kind": "setRollout", "flag": "engine", "rule": "r3", "weights": {"ai-2": 10, "base": 99_990}},
            {"kind": "setRollout", "flag": "engine", "weights": {"ai-2": 5_000, "base": 95_000}},
            {"kind": "addPrerequisite", "flag": "one", "prerequisite": {"flag": "engine", "variation": "ai-2"}}]);
        assert_eq!(Value::Array(made), expected);
    }

    #[test]
    fn what_stands_in_the_way_is_said() {
        let refused = |args: &ReplaceArgs, flag: &Value| instructions(args, flag, &[]).unwrap_err().to_string();
        assert!(refused(&args(None), &flag()).contains("--value"));
        assert!(refused(&ReplaceArgs { old: "gone".to_owned(), ..args(Some("x")) }, &flag()).contains("ai, base"));
        assert!(refused(&ReplaceArgs { environment: "live".to_owned(), ..args(Some("x")) }, &flag()).contains("live"));
        assert!(refused(&ReplaceArgs { new: "base".to_owned(), ..args(Some("x")) }, &flag()).contains("another value"));
        let mut blind = flag();
        blind["environments"]["staging"]["targets"][1] = json!({"variation": "ai", "keyCount": 2});
        assert!(refused(&args(Some("x")), &blind).contains("may not see"));
        let mut number = flag();
        number["kind"] = json!("number");
        assert!(refused(&args(Some("x")), &number).contains("not JSON"));
    }

    #[test]
    fn in_the_next_environment_the_new_one_is_there_already() {
        let mut flag = flag();
        flag["variations"] = json!([{"key": "ai", "value": "v1"}, {"key": "ai-2", "value": "v2"}]);
        for value in [None, Some("v2")] {
            let made = instructions(&args(value), &flag, &[]).unwrap();
            assert!(
                made.iter().all(|instruction| instruction["kind"] != "addVariation") && made.len() == 5,
                "{made:?}"
            );
        }
    }
}
