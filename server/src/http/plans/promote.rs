//! One environment made like another, and what differs between them.

use std::collections::BTreeSet;
use std::sync::Arc;

use axum::Json;
use axum::extract::State;
use axum::response::{IntoResponse, Response};
use serde::Deserialize;
use serde_json::{Value, json};

use super::super::Api;
use super::super::auth::Caller;
use super::super::changes::refusal;
use super::super::guard::Sight;
use super::super::parameters::{Path, Query};
use super::super::problem::{Code, Fault, Problem};
use super::super::shown::hide_values;
use super::super::write::{Write, invalid};
use super::answer::{Facts, show};
use super::{Touched, aside, carry_out, conflict, sight_of_writer, wrong};
use crate::changes::{Author, ChangeDraft};
use crate::environments::drift::{Pairs, compare, pairs};
use crate::environments::promote::{Promotion, promote};
use crate::flags::segments_of;
use crate::policy::Action;
use crate::state::Project;

#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
struct PromoteBody {
    from: String,
    to: String,
    flags: Option<Vec<String>>,
    #[serde(default)]
    targets: bool,
    #[serde(default)]
    dry_run: bool,
    #[serde(default)]
    comment: String,
    commit: Option<String>,
    expected_revision: Option<u64>,
}

/// Makes one environment serve flags as another does, as one change.
#[utoipa::path(post, path = "/api/v1/projects/{project}/promote", tag = "as code",
    params(("project" = String, Path, description = "Key of the project"),
           ("Idempotency-Key" = Option<String>, Header, description = "Makes it safe to send the request again within 24 hours")),
    request_body(content = ref("#/components/schemas/PromoteRequest")),
    responses((status = 200, description = "What changed; with `dryRun` the plan", body = ref("#/components/schemas/ChangeOutcome")),
              (status = 202, description = "It has to be a change request, which was opened", body = ref("#/components/schemas/RequestOutcome"))))]
pub async fn promote_flags(State(api): State<Api>, Path(key): Path<String>, write: Write) -> Result<Response, Problem> {
    let body: PromoteBody = write.body.read()?;
    let sight = sight_of_writer(&api, &write.author, &key)?;
    let world = api.world();
    let project = world.project(&key).cloned().ok_or_else(|| Problem::not_found("project", &key))?;
    for environment in [&body.from, &body.to] {
        check_named(&api, &write.author, &project, environment, &sight)?;
    }
    if api.is_blind(&write.author, &key, &body.from) {
        let detail = format!(
            "What clauses compare in {:?} is not shown to an AI agent, and so it is not carried out of there by one: let a \
             person promote it.",
            body.from
        );
        return Err(Problem::new(Code::Forbidden, detail));
    }
    if body.targets {
        // Persons' keys leave the environment: that is an export of them.
        api.allow(&write.author, Action::ExportConfiguration, &api.place(&key, &body.from), false)?;
    }
    if body.from == body.to {
        return Err(invalid(vec![Fault::new("/to", "same", "an environment is promoted to another one")]));
    }
    let of = Arc::clone(&project);
    let (body, plan) = aside(move || {
        let promotion =
            Promotion { from: &body.from, to: &body.to, flags: body.flags.as_deref(), targets: body.targets };
        let plan = promote(&of, promotion);
        (body, plan)
    })
    .await?;
    if !plan.problems.is_empty() {
        return Err(wrong(plan.problems.into_iter().map(Fault::from).collect()));
    }
    if body.dry_run {
        let facts = Facts { project: &project, revision: world.revision, plan: &plan, pointer: "" };
        return show(&api, &write.author, facts, None).await.map(|shown| Json(shown).into_response());
    }
    let touched = Touched::Promotion {
        segments: named_segments(&project, &body.from, body.flags.as_deref()),
        ends: [body.from.clone(), body.to.clone()],
        flags: body.flags.clone(),
    };
    let comment = if body.comment.is_empty() {
        let what = body.flags.as_ref().map_or_else(|| "all flags".to_owned(), |flags| shortly(flags));
        format!("Promote {what} from {} to {}", body.from, body.to)
    } else {
        body.comment
    };
    let draft = ChangeDraft {
        project: key,
        comment,
        commit: body.commit,
        expected_revision: body.expected_revision,
        ..ChangeDraft::default()
    };
    if !api.changes.is_repeat(&write.author, write.idempotency.as_ref())
        && let Some(conflict) =
            conflict(&api, &draft.project, world.revision, draft.expected_revision, &touched).await?
    {
        return Err(refusal(&api, &write.author, &draft.project, conflict));
    }
    carry_out(&api, write.author, write.idempotency, draft, (plan, world.revision), &touched).await
}

/// Keys of the segments that these flags (or all) refer to in an environment.
fn named_segments(project: &Project, environment: &str, flags: Option<&[String]>) -> BTreeSet<String> {
    let promoted = project.flags.values().filter(|flag| flags.is_none_or(|keys| keys.contains(&flag.published.key)));
    let configs = promoted.filter_map(|flag| flag.published.environments.get(environment));
    configs.flat_map(segments_of).map(str::to_owned).collect()
}

/// The first few keys.
fn shortly(keys: &[String]) -> String {
    const MOST: usize = 5;
    let shown: Vec<&str> = keys.iter().take(MOST).map(String::as_str).collect();
    let more = keys.len().saturating_sub(MOST);
    if more == 0 { shown.join(", ") } else { format!("{} and {more} more", shown.join(", ")) }
}

/// Lets an environment be named only if it is in sight and there.
fn check_named(api: &Api, author: &Author, project: &Project, environment: &str, sight: &Sight) -> Result<(), Problem> {
    if !sight.sees(environment) {
        let resource = api.place(&project.key, environment);
        api.allow(author, Action::ReadConfiguration, &resource, true)?;
    }
    if project.environments.contains_key(environment) {
        Ok(())
    } else {
        Err(Problem::not_found("environment", environment))
    }
}

/// Which environments are compared.
#[derive(Debug, Deserialize, utoipa::IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub struct DriftQuery {
    /// Key of the one; all environments, each with those of the next tier, if both are left out.
    from: Option<String>,
    /// Key of the other.
    to: Option<String>,
}

/// Compares environments, tier by tier, as far as the caller may see them.
#[utoipa::path(get, path = "/api/v1/projects/{project}/drift", tag = "as code",
    params(("project" = String, Path, description = "Key of the project"), DriftQuery),
    responses((status = 200, description = "What differs", body = ref("#/components/schemas/Drift"))))]
pub async fn show_drift(
    State(api): State<Api>,
    Path(key): Path<String>,
    axum::Extension(caller): axum::Extension<Caller>,
    axum::Extension(sight): axum::Extension<Sight>,
    Query(query): Query<DriftQuery>,
) -> Result<Json<Value>, Problem> {
    let world = api.world();
    let project = world.project(&key).cloned().ok_or_else(|| Problem::not_found("project", &key))?;
    let named = match (query.from, query.to) {
        (None, None) => None,
        (Some(from), Some(to)) => {
            for environment in [&from, &to] {
                check_named(&api, &caller.author, &project, environment, &sight)?;
            }
            Some((from, to))
        }
        _ => {
            let fault = Fault::new("", "invalidParameter", "name both `from` and `to`, or neither");
            return Err(invalid(vec![fault]));
        }
    };
    let revision = world.revision;
    let shown = aside(move || {
        let found = match &named {
            None => pairs(&project, &|environment| sight.sees(environment)),
            Some((from, to)) => {
                let ends = project.environments.get(from).zip(project.environments.get(to));
                Pairs { compared: ends.map(|(from, to)| (&**from, &**to)).into_iter().collect(), left_out: 0 }
            }
        };
        let compared = found.compared.into_iter().map(|(from, to)| {
            let mut shown = json!(compare(&project, from, to));
            if [&from.key, &to.key].into_iter().any(|key| api.is_blind(&caller.author, &project.key, key)) {
                hide_values(&mut shown);
            }
            shown
        });
        let compared: Vec<Value> = compared.collect();
        json!({"revision": revision, "pairs": compared, "pairsLeftOut": found.left_out})
    });
    shown.await.map(Json)
}
