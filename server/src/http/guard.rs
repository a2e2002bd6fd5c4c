//! What each route needs: asked of the policies before a handler runs.
//!
//! A route that is not in the table is refused, and a test holds the table against the API's description: a new route cannot be
//! left open by forgetting it. Routes that change something are judged by the write path, which sees what they change.

use std::collections::BTreeSet;
use std::sync::Arc;

use axum::extract::{MatchedPath, Request, State};
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};

use super::Api;
use super::auth::Caller;
use super::problem::Problem;
use crate::changes::Author;
use crate::environments::{self, Tier};
use crate::policy::{Action, Facts, PrincipalKind, Resource};
use crate::state::Project;

/// What a route needs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Need {
    /// The action on the installation.
    Installation(Action),
    /// The action in the environment that the path names; the answer holds no person's key for those who may not see any.
    Environment(Action),
    /// As [`Need::Environment`], and the answer may tell of persons' keys.
    Personal(Action),
    /// The action in at least one environment of the project that the path names. The handler leaves out the others: [`Sight`].
    Somewhere(Action),
    /// The action on the project as a whole that the path names.
    Project(Action),
    /// Whatever the write path says.
    Write,
    /// Nothing but a valid credential: it is about the caller alone.
    Own,
}

use Need::{Environment, Installation, Own, Personal, Somewhere, Write};

/// What routes about webhooks need.
const WEBHOOKS: Need = Need::Project(Action::ReadWebhooks);

/// What every route of the API needs, by method and path.
pub(super) const NEEDS: &[(&str, &str, Need)] = &[
    ("GET", "/api/v1/status", Own),
    ("GET", "/api/v1/projects", Own),
    ("POST", "/api/v1/projects", Write),
    ("GET", "/api/v1/projects/{project}", Somewhere(Action::ReadConfiguration)),
    ("POST", "/api/v1/projects/{project}/changes", Write),
    ("POST", "/api/v1/projects/{project}/plan", Somewhere(Action::ReadConfiguration)),
    ("POST", "/api/v1/projects/{project}/apply", Write),
    ("POST", "/api/v1/projects/{project}/promote", Write),
    ("GET", "/api/v1/projects/{project}/drift", Somewhere(Action::ReadConfiguration)),
    ("GET", "/api/v1/projects/{project}/documents", Somewhere(Action::ExportConfiguration)),
    ("GET", "/api/v1/projects/{project}/flags", Somewhere(Action::ReadConfiguration)),
    ("GET", "/api/v1/projects/{project}/flags/{flag}", Somewhere(Action::ReadConfiguration)),
    ("GET", "/api/v1/projects/{project}/flags/{flag}/history", Somewhere(Action::ReadJournal)),
    ("GET", "/api/v1/projects/{project}/journal", Somewhere(Action::ReadJournal)),
    ("GET", "/api/v1/projects/{project}/environments", Somewhere(Action::ReadConfiguration)),
    ("POST", "/api/v1/projects/{project}/environments", Write),
    ("GET", "/api/v1/projects/{project}/environments/{environment}/segments", Environment(Action::ReadConfiguration)),
    (
        "GET",
        "/api/v1/projects/{project}/environments/{environment}/segments/{segment}",
        Environment(Action::ReadConfiguration),
    ),
    ("POST", "/api/v1/projects/{project}/environments/{environment}/explain", Personal(Action::ReadConfiguration)),
    ("POST", "/api/v1/projects/{project}/environments/{environment}/revert", Write),
    ("GET", "/api/v1/projects/{project}/environments/{environment}/sdk-keys", Environment(Action::ReadConfiguration)),
    ("POST", "/api/v1/projects/{project}/environments/{environment}/sdk-keys", Write),
    ("POST", "/api/v1/projects/{project}/environments/{environment}/sdk-keys/{id}/rotate", Write),
    ("DELETE", "/api/v1/projects/{project}/environments/{environment}/sdk-keys/{id}", Write),
    ("GET", "/api/v1/projects/{project}/environments/{environment}/connections", Environment(Action::ReadConnections)),
    ("GET", "/api/v1/projects/{project}/environments/{environment}/instances", Environment(Action::ReadConnections)),
    ("GET", "/api/v1/projects/{project}/environments/{environment}/assignments", Environment(Action::ReadAssignments)),
    ("GET", "/api/v1/projects/{project}/requests", Somewhere(Action::ReadRequests)),
    ("POST", "/api/v1/projects/{project}/requests", Write),
    ("GET", "/api/v1/projects/{project}/requests/{id}", Somewhere(Action::ReadRequests)),
    ("PATCH", "/api/v1/projects/{project}/requests/{id}", Write),
    ("POST", "/api/v1/projects/{project}/requests/{id}/submit", Write),
    ("POST", "/api/v1/projects/{project}/requests/{id}/approve", Write),
    ("POST", "/api/v1/projects/{project}/requests/{id}/reject", Write),
    ("POST", "/api/v1/projects/{project}/requests/{id}/withdraw", Write),
    ("POST", "/api/v1/projects/{project}/requests/{id}/comment", Write),
    ("POST", "/api/v1/projects/{project}/requests/{id}/apply", Write),
    ("GET", "/api/v1/projects/{project}/reviews", Somewhere(Action::ReadRequests)),
    ("POST", "/api/v1/projects/{project}/reviews/{revision}", Write),
    ("GET", "/api/v1/projects/{project}/webhooks", WEBHOOKS),
    ("POST", "/api/v1/projects/{project}/webhooks", Write),
    ("GET", "/api/v1/projects/{project}/webhooks/{id}", WEBHOOKS),
    ("PATCH", "/api/v1/projects/{project}/webhooks/{id}", Write),
    ("DELETE", "/api/v1/projects/{project}/webhooks/{id}", Write),
    ("POST", "/api/v1/projects/{project}/webhooks/{id}/rotate", Write),
    ("POST", "/api/v1/projects/{project}/webhooks/{id}/test", Write),
    ("GET", "/api/v1/projects/{project}/webhooks/{id}/deliveries", WEBHOOKS),
    ("GET", "/api/v1/projects/{project}/webhooks/{id}/dead-letters", WEBHOOKS),
    ("POST", "/api/v1/projects/{project}/webhooks/{id}/dead-letters/resend", Write),
    ("POST", "/api/v1/projects/{project}/webhooks/{id}/dead-letters/{delivery}/resend", Write),
    ("GET", "/api/v1/projects/{project}/environments/{environment}/releases", Environment(Action::ReadConfiguration)),
    (
        "GET",
        "/api/v1/projects/{project}/environments/{environment}/flags/{flag}/release",
        Environment(Action::ReadConfiguration),
    ),
    (
        "GET",
        "/api/v1/projects/{project}/environments/{environment}/flags/{flag}/release/report",
        Environment(Action::ReadConfiguration),
    ),
    ("GET", "/api/v1/projects/{project}/environments/{environment}/incidents", Environment(Action::ReadConfiguration)),
    (
        "GET",
        "/api/v1/projects/{project}/environments/{environment}/incidents/{id}",
        Environment(Action::ReadConfiguration),
    ),
    ("GET", "/api/v1/projects/{project}/drills", Somewhere(Action::ReadConfiguration)),
    ("POST", "/api/v1/projects/{project}/environments/{environment}/flags/{flag}/rollback", Write),
    ("POST", "/api/v1/projects/{project}/environments/{environment}/flags/{flag}/drills", Write),
    ("POST", "/api/v1/projects/{project}/environments/{environment}/flags/{flag}/drills/{id}/record", Write),
    ("GET", "/api/v1/session", Own),
    ("DELETE", "/api/v1/session", Own),
    ("POST", "/api/v1/session/factor", Own),
    ("POST", "/api/v1/session/recovery-codes", Own),
    ("GET", "/api/v1/sessions", Own),
    ("DELETE", "/api/v1/sessions", Own),
    ("DELETE", "/api/v1/sessions/{id}", Own),
    ("GET", "/api/v1/accounts", Installation(Action::ReadAccess)),
    ("POST", "/api/v1/accounts", Write),
    ("GET", "/api/v1/accounts/{id}", Installation(Action::ReadAccess)),
    ("DELETE", "/api/v1/accounts/{id}", Write),
    ("POST", "/api/v1/accounts/{id}/reset", Write),
    ("POST", "/api/v1/accounts/{id}/disable", Write),
    ("POST", "/api/v1/accounts/{id}/enable", Write),
    ("GET", "/api/v1/service-accounts", Installation(Action::ReadAccess)),
    ("POST", "/api/v1/service-accounts", Write),
    ("PATCH", "/api/v1/service-accounts/{id}", Write),
    ("POST", "/api/v1/service-accounts/{id}/{step}", Write),
    ("GET", "/api/v1/agents", Installation(Action::ReadAccess)),
    ("POST", "/api/v1/agents", Write),
    ("PATCH", "/api/v1/agents/{id}", Write),
    ("POST", "/api/v1/agents/{id}/{step}", Write),
    ("GET", "/api/v1/roles", Installation(Action::ReadAccess)),
    ("POST", "/api/v1/roles", Write),
    ("DELETE", "/api/v1/roles/{id}", Write),
    ("GET", "/api/v1/tokens", Installation(Action::ReadAccess)),
    ("POST", "/api/v1/tokens", Write),
    ("POST", "/api/v1/tokens/{id}/rotate", Write),
    ("DELETE", "/api/v1/tokens/{id}", Write),
    ("GET", "/api/v1/issuers", Installation(Action::ReadAccess)),
    ("POST", "/api/v1/issuers", Write),
    ("DELETE", "/api/v1/issuers/{id}", Write),
    ("GET", "/api/v1/policies", Installation(Action::ReadAccess)),
    ("PUT", "/api/v1/policies/{name}", Write),
    ("DELETE", "/api/v1/policies/{name}", Write),
    ("POST", "/api/v1/policies/check", Installation(Action::ReadAccess)),
    ("POST", "/api/v1/policies/explain", Installation(Action::ReadAccess)),
    ("GET", "/api/v1/audit", Installation(Action::ReadAudit)),
    ("GET", "/api/v1/audit/records/{id}", Installation(Action::ReadAudit)),
    ("GET", "/api/v1/audit/verification", Installation(Action::ReadAudit)),
    ("GET", "/api/v1/audit/checkpoint", Installation(Action::ReadAudit)),
    ("POST", "/api/v1/audit/checkpoint", Installation(Action::ReadAudit)),
    ("GET", "/api/v1/audit/export", Installation(Action::ExportAudit)),
    ("GET", "/api/v1/backup", Installation(Action::Backup)),
    ("POST", "/api/v1/privacy/erase-key", Installation(Action::EraseKey)),
];

/// The environments of the project in which the caller may see what the route shows.
#[derive(Clone, Debug, Default)]
pub struct Sight(Arc<BTreeSet<String>>);

impl Sight {
    /// Whether the caller may see what is in this environment.
    #[must_use]
    pub fn sees(&self, environment: &str) -> bool {
        self.0.contains(environment)
    }

    /// Whether the caller may see nothing.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Whether the caller may see all of these.
    pub fn sees_all<'a>(&self, environments: impl IntoIterator<Item = &'a String>) -> bool {
        environments.into_iter().all(|environment| self.sees(environment))
    }
}

/// Lets a request through if the policies let its caller do what the route does.
pub async fn guard(State(api): State<Api>, mut request: Request, next: Next) -> Response {
    let route = request.extensions().get::<MatchedPath>().map(|matched| matched.as_str().to_owned());
    let caller = request.extensions().get::<Caller>().cloned();
    let (Some(route), Some(caller)) = (route, caller) else {
        return Problem::internal("a guarded route has no path or no caller").into_response();
    };
    let Some(need) = need(request.method().as_str(), &route) else {
        return Problem::internal(format!("no rule says what {} {route} needs", request.method())).into_response();
    };
    let path = request.uri().path().to_owned();
    match judge(&api, &caller.author, need, &route, &path) {
        Ok(Some(sight)) => {
            request.extensions_mut().insert(sight);
        }
        Ok(None) => {}
        Err(problem) => return problem.into_response(),
    }
    next.run(request).await
}

/// What a route needs; `HEAD` what `GET` does.
pub(super) fn need(method: &str, route: &str) -> Option<Need> {
    let method = if method == "HEAD" { "GET" } else { method };
    NEEDS.iter().find(|(of, path, _)| *of == method && *path == route).map(|(_, _, need)| *need)
}

fn judge(api: &Api, author: &Author, need: Need, route: &str, path: &str) -> Result<Option<Sight>, Problem> {
    match need {
        Write | Own => Ok(None),
        Installation(action) => {
            let resource = Resource { project: String::new(), environment: String::new(), tier: None };
            api.allow(author, action, &resource, true)?;
            Ok(None)
        }
        Environment(action) | Personal(action) => {
            let (project, environment) = (parameter(route, path, "{project}"), parameter(route, path, "{environment}"));
            let resource = api.place(&project, &environment);
            api.allow(author, action, &resource, need == Environment(action))?;
            Ok(None)
        }
        Need::Project(action) => {
            let project = parameter(route, path, "{project}");
            api.allow(author, action, &whole_project(project), true)?;
            Ok(None)
        }
        Somewhere(action) => {
            let key = parameter(route, path, "{project}");
            let sight = api.sight(author, &key, action);
            if sight.0.is_empty() {
                // Refused, and noted, as the environment where most is allowed refuses it.
                let known = api.world().project(&key).and_then(|project| lowest(project));
                let (environment, tier) = known.unwrap_or_else(|| (String::new(), Some(Tier::Production)));
                api.allow(author, action, &Resource { project: key, environment, tier }, true)?;
            }
            Ok(Some(sight))
        }
    }
}

/// A project as a whole, as policies know it.
pub(super) fn whole_project(project: String) -> Resource {
    Resource { project, environment: String::new(), tier: None }
}

fn lowest(project: &Project) -> Option<(String, Option<Tier>)> {
    let environment = project.environments.values().min_by_key(|environment| environment.tier)?;
    Some((environment.key.clone(), Some(environment.tier)))
}

/// The part of `path` that stands where `name` stands in `route`.
fn parameter(route: &str, path: &str, name: &str) -> String {
    let mut parts = route.split('/').zip(path.split('/'));
    let raw = parts.find(|(pattern, _)| *pattern == name).map(|(_, part)| part).unwrap_or_default();
    decode(raw)
}

/// Percent-decodes a part of a path; what is no text stays as it is, and names nothing.
fn decode(raw: &str) -> String {
    let mut bytes = Vec::with_capacity(raw.len());
    let mut rest = raw.as_bytes();
    while let Some((first, after)) = rest.split_first() {
        let hex = after.get(..2).and_then(|digits| std::str::from_utf8(digits).ok());
        match hex.filter(|_| *first == b'%').and_then(|digits| u8::from_str_radix(digits, 16).ok()) {
            Some(byte) => {
                bytes.push(byte);
                rest = after.get(2..).unwrap_or_default();
            }
            None => {
                bytes.push(*first);
                rest = after;
            }
        }
    }
    String::from_utf8(bytes).unwrap_or_else(|_| raw.to_owned())
}

impl Api {
    /// The environment of these keys; one that does not exist counts as production, so that asking tells nothing.
    #[must_use]
    pub fn place(&self, project: &str, environment: &str) -> Resource {
        let known = self.world().project(project).and_then(|project| project.environments.get(environment).cloned());
        let tier = known.map_or(Tier::Production, |environment| environment.tier);
        Resource { project: project.to_owned(), environment: environment.to_owned(), tier: Some(tier) }
    }

    /// Asks the policies.
    ///
    /// # Errors
    ///
    /// A 403 that names the policies that refuse it; it is noted in the audit trail.
    pub fn allow(&self, author: &Author, action: Action, resource: &Resource, anonymised: bool) -> Result<(), Problem> {
        let known = |facts: Facts| Facts { anonymised, ..facts };
        self.changes
            .authorize(author, action, resource, None, &known)
            .map(|_| ())
            .map_err(|error| Problem::from(*error))
    }

    /// Lets on those who may see what is configured in an environment or do `action` in it: asked by a route that changes
    /// something before an answer tells what is there and what is not.
    ///
    /// # Errors
    ///
    /// As [`Self::allow`].
    pub fn may_hear(&self, author: &Author, action: Action, project: &str, environment: &str) -> Result<(), Problem> {
        if self.sight(author, project, Action::ReadConfiguration).sees(environment) {
            return Ok(());
        }
        self.allow(author, action, &self.place(project, environment), true)
    }

    /// The environments of a project in which `author` may do `action`, without a note of the others in the audit trail.
    #[must_use]
    pub fn sight(&self, author: &Author, project: &str, action: Action) -> Sight {
        let world = self.world();
        let Some(state) = world.project(project) else { return Sight::default() };
        let seen = state.environments.values().filter(|environment| self.may(author, state, environment, action));
        Sight(Arc::new(seen.map(|environment| environment.key.clone()).collect()))
    }

    /// Whether `author` may do `action` in any environment of a project: as [`Self::sight`], which lists them.
    #[must_use]
    pub fn sees_any(&self, author: &Author, project: &Project, action: Action) -> bool {
        // Those farthest from real users first: where most is allowed the first answer is the last.
        let mut environments: Vec<_> = project.environments.values().collect();
        environments.sort_by_key(|environment| environment.tier);
        environments.into_iter().any(|environment| self.may(author, project, environment, action))
    }

    fn may(&self, author: &Author, project: &Project, environment: &environments::Environment, action: Action) -> bool {
        let (key, tier) = (environment.key.clone(), Some(environment.tier));
        let resource = Resource { project: project.key.clone(), environment: key, tier };
        let known = |facts: Facts| Facts { anonymised: true, ..facts };
        self.changes.decide(author, action, &resource, None, &known).is_ok_and(|decision| decision.allowed)
    }

    /// Whether what `author` sees in an environment has to be without persons' keys.
    #[must_use]
    pub fn is_blind(&self, author: &Author, project: &str, environment: &str) -> bool {
        author.kind == PrincipalKind::Agent
            && self.place(project, environment).tier.is_none_or(|tier| tier >= Tier::Staging)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parameters_are_read_off_the_path() {
        let (route, path) = ("/api/v1/projects/{project}/flags/{flag}", "/api/v1/projects/sh%6fp/flags/a%2Fb");
        assert_eq!(parameter(route, path, "{project}"), "shop");
        assert_eq!(parameter(route, path, "{flag}"), "a/b");
        assert_eq!(parameter(route, path, "{environment}"), "");
        assert_eq!(decode("100%"), "100%");
        assert_eq!(decode("%ff"), "%ff");
    }

    #[test]
    fn every_rule_is_found_and_stands_once() {
        for (index, (method, path, need_of)) in NEEDS.iter().enumerate() {
            assert_eq!(need(method, path), Some(*need_of), "{method} {path} stands twice");
            assert!(NEEDS.iter().skip(index + 1).all(|(of, other, _)| (of, other) != (method, path)));
        }
        assert_eq!(need("HEAD", "/api/v1/status"), Some(Own));
        assert_eq!(need("PUT", "/api/v1/status"), None);
    }
}
