//! Who comes in, and what everybody else is told.

use serde_json::json;

use crate::support::ServerProcess;

#[test]
fn strangers_are_told_nothing_but_how_to_come_in() {
    let server = ServerProcess::start();
    let stranger = |token| server.client.with_token(token).get("/api/v1/projects");
    let nobody = stranger(None);
    assert_eq!(nobody.header("www-authenticate"), Some("Bearer realm=\"guidon\""));
    assert_eq!(
        nobody.problem(),
        json!({
            "type": "urn:guidon:problem:unauthorized", "status": 401, "code": "unauthorized",
            "title": "A valid credential is needed", "detail": "Send the header Authorization: Bearer <token>.",
        })
    );
    // The same answer for one that is malformed, one that is mistyped and one that is unknown.
    let details: Vec<_> = ["x", "gdn_admin_aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa_aaaaaaa", "gdn-test-administrator-tokex"]
        .map(|token| stranger(Some(token)).problem())
        .to_vec();
    assert!(details.iter().all(|problem| problem == &details[0] && problem["status"] == 401), "{details:?}");
}

#[test]
fn an_sdk_key_is_valid_and_not_enough() {
    let server = ServerProcess::start();
    let key = server.client.create_sdk_key("development");
    let problem = server.client.with_token(Some(&key)).get("/api/v1/projects").problem();
    assert_eq!((&problem["status"], &problem["code"]), (&json!(403), &json!("forbidden")));
}

#[test]
fn refused_credentials_are_rate_limited() {
    let server = ServerProcess::start();
    let stranger = server.client.with_token(Some("wrong"));
    let refused = (0..200).map(|_| stranger.get("/api/v1/projects")).find(|answer| answer.status == 429);
    let refused = refused.expect("a limit");
    assert_eq!(refused.header("retry-after"), Some("1"));
    assert_eq!(refused.problem()["code"], "tooManyRequests");
}

#[test]
fn unknown_routes_and_methods_are_problem_documents() {
    let server = ServerProcess::start();
    let unknown = server.client.get("/api/v2/flags").problem();
    assert_eq!((&unknown["status"], &unknown["code"]), (&json!(404), &json!("notFound")));
    let put = server.client.send("PUT", "/api/v1/projects", &[], b"");
    assert_eq!(put.header("allow"), Some("GET,HEAD,POST"));
    assert_eq!(put.problem()["code"], "methodNotAllowed");
    let brought = server.client.send("GET", "/healthz", &[("x-request-id", "mine-1")], b"");
    assert_eq!(brought.header("x-request-id"), Some("mine-1"));
    let odd = server.client.send("GET", "/healthz", &[("x-request-id", "no spaces, please")], b"");
    assert_ne!(odd.header("x-request-id"), Some("no spaces, please"));
}
