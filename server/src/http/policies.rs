//! `/api/v1/policies`: what decides, and why.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use axum::extract::State;
use axum::response::Response;
use axum::routing::{get, post, put};
use axum::{Json, Router};
use serde::Deserialize;
use serde_json::{Value, json};

use super::Api;
use super::changes::answer;
use super::directory::submit_edit;
use super::page::{limit, page};
use super::parameters::{Path, Query};
use super::problem::{Code, Fault, Problem};
use super::projects::PageQuery;
use super::write::{JsonBody, Write, invalid};
use crate::changes::{Author, Question};
use crate::environments::Tier;
use crate::identity::DirectoryEdit;
use crate::identity::directory::{MAX_POLICY_BYTES, Scope};
use crate::policy::{
    Action, Direction, Explanation, Facts, Group, Mode, PolicyInfo, PolicyProblem, PolicySet, PrincipalKind, Remedy,
    Request, Resource, RiskLevel, Role, check,
};

/// Most files that are checked at once.
const MAX_CHECKED_FILES: usize = 20;

/// The operations, for the API's description.
#[derive(utoipa::OpenApi)]
#[openapi(paths(list_policies, set_policy, remove_policy, check_policies, explain_policy))]
pub struct Operations;

/// The routes, behind authentication and the policies.
pub fn routes() -> Router<Api> {
    Router::new()
        .route("/api/v1/policies", get(list_policies))
        .route("/api/v1/policies/check", post(check_policies))
        .route("/api/v1/policies/explain", post(explain_policy))
        .route("/api/v1/policies/{name}", put(set_policy).delete(remove_policy))
}

#[derive(Deserialize)]
struct NewPolicy {
    text: String,
}

#[derive(Deserialize)]
struct Files {
    files: BTreeMap<String, String>,
}

/// What is asked: who, what, where, and under which circumstances. What is left out is taken from the state, or else as it is
/// for most.
#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Asked {
    principal: Option<String>,
    kind: Option<PrincipalKind>,
    roles: Option<BTreeSet<Role>>,
    #[serde(default)]
    groups: Vec<String>,
    action: String,
    project: Option<String>,
    environment: Option<String>,
    tier: Option<Tier>,
    flag: Option<String>,
    token: Option<String>,
    mode: Option<ModeWord>,
    direction: Option<Direction>,
    #[serde(default)]
    factor_fresh: bool,
    in_scope: Option<bool>,
    frozen: Option<bool>,
    changes_last_hour: Option<u32>,
    anonymised: Option<bool>,
    #[serde(default)]
    own: bool,
    risk_score: Option<u32>,
    risk_level: Option<RiskLevel>,
    approvals: Option<u32>,
    approved_plan: Option<bool>,
    by_agent: Option<bool>,
    drill_fresh: Option<bool>,
}

#[derive(Clone, Copy, Deserialize)]
#[serde(rename_all = "camelCase")]
enum ModeWord {
    Direct,
    Proposed,
}

/// Lists the policies in force, by file: those that come with the server and the operator's own. `set` is the hash that
/// journal entries name.
#[utoipa::path(get, path = "/api/v1/policies", tag = "access", params(PageQuery),
    responses((status = 200, description = "A page of policy files", body = ref("#/components/schemas/PolicyPage"))))]
pub async fn list_policies(State(api): State<Api>, Query(query): Query<PageQuery>) -> Result<Json<Value>, Problem> {
    let (limit, after, world) = (limit(query.limit)?, query.after.unwrap_or_default(), api.world());
    let set = api.changes.policies_of(&world)?;
    let mut files: Vec<(String, Value)> = PolicySet::builtin_files()
        .iter()
        .map(|(name, text)| ((*name).to_owned(), json!({"name": name, "builtin": true, "text": text})))
        .collect();
    files.extend(world.directory.policies.values().map(|file| {
        let shown = json!({"name": file.name, "builtin": false, "text": file.text, "updatedAt": file.updated_at});
        (file.name.clone(), shown)
    }));
    files.sort_by(|(one, _), (other, _)| one.cmp(other));
    let shown = |(name, file): &(String, Value)| {
        let mut file = file.clone();
        let policies = set.policies().filter(|info| info.file == *name);
        file["policies"] = policies.map(info_view).collect();
        file
    };
    let chosen = files.into_iter().filter(|(name, _)| *name > after);
    let mut answer = page("files", chosen, limit, |(name, _)| name.clone(), shown);
    answer["set"] = set.hash().to_string().into();
    Ok(Json(answer))
}

/// Puts a policy file in force, in place of the one of this name if there is one. What it permits, the built-in limits of the
/// tiers may still forbid.
#[utoipa::path(put, path = "/api/v1/policies/{name}", tag = "access",
    params(("name" = String, Path, description = "Name of the file"),
           ("Idempotency-Key" = Option<String>, Header, description = "Makes it safe to send the request again within 24 hours")),
    request_body(content = ref("#/components/schemas/PolicyText")),
    responses((status = 200, description = "What changed", body = ref("#/components/schemas/ChangeOutcome"))))]
pub async fn set_policy(State(api): State<Api>, Path(name): Path<String>, write: Write) -> Result<Response, Problem> {
    let NewPolicy { text } = write.body.read()?;
    let comment = format!("Set the policy file {name}");
    submit_edit(&api, write, comment, DirectoryEdit::SetPolicy { name, text }).await.map(answer)
}

/// Removes a policy file of the operator's.
#[utoipa::path(delete, path = "/api/v1/policies/{name}", tag = "access",
    params(("name" = String, Path, description = "Name of the file")),
    responses((status = 200, description = "What changed", body = ref("#/components/schemas/ChangeOutcome"))))]
pub async fn remove_policy(
    State(api): State<Api>,
    Path(name): Path<String>,
    write: Write,
) -> Result<Response, Problem> {
    let comment = format!("Remove the policy file {name}");
    submit_edit(&api, write, comment, DirectoryEdit::RemovePolicy { name }).await.map(answer)
}

/// Checks policy files and changes nothing: what keeps them from being put in force, and what is worth a second look.
#[utoipa::path(post, path = "/api/v1/policies/check", tag = "access",
    request_body(content = ref("#/components/schemas/PolicyFiles")),
    responses((status = 200, description = "What was found", body = ref("#/components/schemas/PolicyReport"))))]
pub async fn check_policies(State(api): State<Api>, body: JsonBody) -> Result<Json<Value>, Problem> {
    let Files { files } = body.read()?;
    if files.len() > MAX_CHECKED_FILES || files.values().any(|text| text.len() > MAX_POLICY_BYTES) {
        let detail = format!("at most {MAX_CHECKED_FILES} files of {MAX_POLICY_BYTES} bytes are checked at once");
        return Err(invalid(vec![Fault::new("/files", "tooLarge", detail)]));
    }
    // Every policy is tried on many questions, which takes long.
    let Ok(place) = Arc::clone(&api.policy_checks).try_acquire_owned() else {
        let detail = "Other policy files are being checked; `guidon policy check` does it without the server.";
        return Err(Problem::new(Code::TooManyRequests, detail).retry_after_s(2));
    };
    let checked = tokio::task::spawn_blocking(move || {
        let _place = place;
        check(&files)
    });
    let report = checked.await.map_err(Problem::internal)?;
    let shown = |problems: &[PolicyProblem]| problems.iter().map(problem_view).collect::<Vec<_>>();
    Ok(Json(json!({
        "passed": report.passed(),
        "policies": report.policies,
        "problems": shown(&report.problems),
        "warnings": shown(&report.warnings),
    })))
}

/// Says whether a principal may do something somewhere, which policies say so, and what would have it allowed.
#[utoipa::path(post, path = "/api/v1/policies/explain", tag = "access",
    request_body(content = ref("#/components/schemas/PolicyQuestion")),
    responses((status = 200, description = "The decision and its reasons", body = ref("#/components/schemas/PolicyAnswer"))))]
pub async fn explain_policy(State(api): State<Api>, body: JsonBody) -> Result<Json<Value>, Problem> {
    let asked: Asked = body.read()?;
    let action: Action = asked.action.parse().map_err(|error: crate::policy::UnknownAction| {
        invalid(vec![Fault::new(
            "/action",
            "unknownAction",
            format!("{error}; `guidon policy explain --help` lists them"),
        )])
    })?;
    let author = author(&api, &asked)?;
    let resource = resource(&api, &asked)?;
    let known = |facts: Facts| asked.facts(action, facts);
    let (roles, flag) = (asked.roles.clone(), asked.flag.as_deref());
    let question = Question { author: &author, roles, action, resource: &resource, flag };
    let (request, explanation) = api.changes.explain(question, &known)?;
    let world = api.world();
    let set = api.changes.policies_of(&world)?.hash().to_string();
    Ok(Json(answer_view(&request, &explanation, &set)))
}

/// Who is asked about: somebody the directory knows, or somebody of a kind.
fn author(api: &Api, asked: &Asked) -> Result<Author, Problem> {
    let world = api.world();
    let mut author = match (&asked.principal, asked.kind) {
        (Some(word), None) => {
            let id = api.principal_id(word);
            let known = world.directory.principals.get(&id).ok_or_else(|| Problem::not_found("principal", word))?;
            Author { owner: known.owner.clone(), ..Author::of(&id, "", known.kind) }
        }
        (None, Some(kind)) => {
            let owner = (kind == PrincipalKind::Agent).then(|| "somebody".to_owned());
            Author { owner, ..Author::of("anybody", "", kind) }
        }
        _ => {
            let detail = "say who: either a `principal`, or a `kind` (and for people `roles`)";
            return Err(invalid(vec![Fault::new("/principal", "oneOf", detail)]));
        }
    };
    author.groups.clone_from(&asked.groups);
    if let Some(id) = &asked.token {
        let token = world.directory.tokens.get(id).filter(|token| token.principal == author.actor_id);
        let token = token.ok_or_else(|| Problem::not_found("token of this principal", id))?;
        author.scope = Some(Scope::clone(&token.scope));
    }
    Ok(author)
}

/// Where: an environment, a tier of a project, a project, or the installation.
fn resource(api: &Api, asked: &Asked) -> Result<Resource, Problem> {
    let project = asked.project.clone().unwrap_or_default();
    if project.is_empty() && (asked.environment.is_some() || asked.tier.is_some()) {
        let detail = "an environment or tier is a project's: name it";
        return Err(invalid(vec![Fault::new("/project", "missingField", detail)]));
    }
    let state = if project.is_empty() { None } else { Some(api.project(&project)?) };
    let (environment, tier) = match (&asked.environment, asked.tier) {
        (Some(key), tier) => {
            let known = state.as_ref().and_then(|state| state.environments.get(key));
            match (known, tier) {
                (Some(known), None) => (key.clone(), Some(known.tier)),
                (_, Some(tier)) => (key.clone(), Some(tier)),
                (None, None) => return Err(Problem::not_found("environment", key)),
            }
        }
        (None, Some(tier)) => (tier.as_str().to_owned(), Some(tier)),
        (None, None) => (String::new(), None),
    };
    Ok(Resource { project, environment, tier })
}

impl Asked {
    fn facts(&self, action: Action, found: Facts) -> Facts {
        let edits = matches!(action.group(), Group::Edit | Group::Delete);
        // Where nobody says where an edit moves people, the answer is the one for an edit that moves them the wrong way.
        let worst = if edits { Direction::Widening } else { Direction::Still };
        Facts {
            mode: match self.mode {
                Some(ModeWord::Proposed) => Mode::Proposed,
                Some(ModeWord::Direct) | None => Mode::Direct,
            },
            direction: self.direction.unwrap_or(worst),
            factor_fresh: self.factor_fresh,
            in_scope: self.in_scope.unwrap_or(found.in_scope),
            frozen: self.frozen.unwrap_or(found.frozen),
            changes_last_hour: self.changes_last_hour.unwrap_or(found.changes_last_hour),
            anonymised: self.anonymised.unwrap_or(true),
            own: self.own,
            risk_score: self.risk_score.unwrap_or(found.risk_score),
            risk_level: self.risk_level.unwrap_or(found.risk_level),
            approvals: self.approvals.unwrap_or(found.approvals),
            approved_plan: self.approved_plan.unwrap_or(found.approved_plan),
            by_agent: self.by_agent.unwrap_or(found.by_agent),
            drill_fresh: self.drill_fresh.unwrap_or(found.drill_fresh),
            ..found
        }
    }
}

fn info_view(info: &PolicyInfo) -> Value {
    json!({
        "name": info.name,
        "id": info.id,
        "effect": info.effect.as_str(),
        "description": info.description,
        "file": info.file,
        "line": info.line,
        "builtin": info.builtin,
    })
}

fn problem_view(problem: &PolicyProblem) -> Value {
    json!({
        "file": problem.file,
        "line": problem.line,
        "column": problem.column,
        "message": problem.message,
        "hint": problem.hint,
    })
}

fn answer_view(request: &Request, explanation: &Explanation, set: &str) -> Value {
    let named = |policies: &[PolicyInfo]| policies.iter().map(info_view).collect::<Vec<_>>();
    let (subject, resource, facts) = (&request.subject, &request.resource, &request.facts);
    let remedy = |remedy: &Remedy| {
        let word = match remedy {
            Remedy::FreshFactor => "freshFactor",
            Remedy::ChangeRequest => "changeRequest",
            Remedy::Approvals(_) => "approvals",
            Remedy::Scope => "scope",
            Remedy::Anonymise => "anonymise",
            Remedy::FreezeEnd => "freezeEnd",
        };
        json!({"kind": word, "text": remedy.to_string()})
    };
    json!({
        "allowed": explanation.decision.allowed,
        "action": request.action.as_str(),
        "principal": {"id": subject.id, "kind": subject.kind, "roles": subject.roles, "owner": subject.owner},
        "resource": {"project": resource.project, "environment": resource.environment, "tier": resource.tier},
        "facts": {
            "mode": facts.mode.as_str(),
            "direction": facts.direction,
            "factorFresh": facts.factor_fresh,
            "inScope": facts.in_scope,
            "frozen": facts.frozen,
            "changesLastHour": facts.changes_last_hour,
            "anonymised": facts.anonymised,
            "unclaimed": facts.unclaimed,
            "own": facts.own,
            "riskScore": facts.risk_score,
            "riskLevel": facts.risk_level,
            "approvals": facts.approvals,
            "approvedPlan": facts.approved_plan,
            "byAgent": facts.by_agent,
            "drillFresh": facts.drill_fresh,
        },
        "policySet": set,
        "applied": named(&explanation.applied),
        "failed": named(&explanation.failed),
        "nearest": named(&explanation.nearest),
        "remedies": explanation.remedies.iter().map(remedy).collect::<Vec<_>>(),
    })
}
