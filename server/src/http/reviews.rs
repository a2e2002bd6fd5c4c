//! `/api/v1/projects/{project}/reviews`: emergency changes, which somebody has to look at afterwards.

use std::sync::Arc;

use axum::extract::State;
use axum::response::Response;
use axum::routing::{get, post};
use axum::{Extension, Json, Router};
use serde::Deserialize;
use serde_json::{Value, json};

use super::Api;
use super::guard::Sight;
use super::page::{limit, page};
use super::parameters::{Path, Query};
use super::problem::Problem;
use super::requests::act;
use super::write::Write;
use crate::changes::RequestEdit;
use crate::state::Review;

/// The routes, behind authentication and the policies.
pub(super) fn routes() -> Router<Api> {
    Router::new()
        .route("/api/v1/projects/{project}/reviews", get(list_reviews))
        .route("/api/v1/projects/{project}/reviews/{revision}", post(close_review))
}

/// Which reviews.
#[derive(Debug, Deserialize, utoipa::IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub struct ReviewQuery {
    /// Only those that are still to be closed, or only those that are.
    pending: Option<bool>,
    /// Most items to answer: 1 to 1,000, 100 by default.
    limit: Option<usize>,
    /// Answers items after this one: the `next` of the page before.
    after: Option<String>,
}

#[derive(Debug, Deserialize)]
struct Closing {
    finding: String,
}

/// Lists emergency changes: those that are still to be reviewed first, then the others, newest first.
#[utoipa::path(get, path = "/api/v1/projects/{project}/reviews", tag = "requests",
    params(("project" = String, Path, description = "Key of the project"), ReviewQuery),
    responses((status = 200, description = "A page of reviews", body = ref("#/components/schemas/ReviewPage"))))]
pub async fn list_reviews(
    State(api): State<Api>,
    Path(project): Path<String>,
    Query(query): Query<ReviewQuery>,
    Extension(sight): Extension<Sight>,
) -> Result<Json<Value>, Problem> {
    let (limit, project) = (limit(query.limit)?, api.project(&project)?);
    let wanted = |review: &&Arc<Review>| {
        sight.sees(&review.environment) && query.pending.is_none_or(|pending| pending == review.finding.is_none())
    };
    let mut reviews: Vec<&Arc<Review>> = project.reviews.values().filter(wanted).collect();
    reviews.sort_by_key(|review| std::cmp::Reverse(cursor(review)));
    let after = query.after.unwrap_or_default();
    let rest = reviews.into_iter().filter(|review| after.is_empty() || cursor(review) < after);
    let shown = |review: &&Arc<Review>| {
        let mut shown = json!(***review);
        shown["pending"] = review.finding.is_none().into();
        shown
    };
    Ok(Json(page("reviews", rest, limit, |review| cursor(review), shown)))
}

/// Its place in the list.
fn cursor(review: &Review) -> String {
    format!("{}.{:015}", if review.finding.is_none() { "pending" } else { "closed" }, review.revision)
}

/// Closes the review of an emergency change with a finding.
#[utoipa::path(post, path = "/api/v1/projects/{project}/reviews/{revision}", tag = "requests",
    params(("project" = String, Path, description = "Key of the project"),
           ("revision" = u64, Path, description = "The revision that the emergency change made")),
    request_body(content = ref("#/components/schemas/ReviewFinding")),
    responses((status = 200, description = "What changed", body = ref("#/components/schemas/RequestOutcome"))))]
pub async fn close_review(
    State(api): State<Api>,
    Path((project, revision)): Path<(String, u64)>,
    write: Write,
) -> Result<Response, Problem> {
    let Closing { finding } = write.body.read()?;
    act(&api, &write, &project, RequestEdit::ReviewEntry { revision, by: String::new(), finding }).await
}
