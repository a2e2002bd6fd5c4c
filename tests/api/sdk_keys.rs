//! `…/environments/{environment}/sdk-keys`.

use serde_json::json;

use crate::support::ServerProcess;

const PATH: &str = "/api/v1/projects/default/environments/testing/sdk-keys";

#[test]
fn a_credential_is_shown_once_listed_without_and_revoked() {
    let server = ServerProcess::start();
    let created = server.client.post(PATH, &json!({"name": "shop", "audience": "client"})).ok();
    assert!(created["key"].as_str().unwrap().starts_with("gdn_client_"), "{created}");
    let listed = server.client.get(PATH);
    assert!(!listed.text.contains("gdn_client_") && !listed.text.contains("hash"), "{}", listed.text);
    let id = created["id"].as_str().unwrap();
    server.client.send("DELETE", &format!("{PATH}/{id}"), &[], b"").ok();
    assert!(server.client.get(PATH).ok()["sdkKeys"][0]["revokedAt"].is_u64());
    assert_eq!(server.client.send("DELETE", &format!("{PATH}/nowhere"), &[], b"").problem()["status"], 404);
}

#[test]
fn a_repeated_request_shows_the_same_credential_also_after_a_restart() {
    let mut server = ServerProcess::start();
    let headers = [("content-type", "application/json"), ("idempotency-key", "once")];
    let first = server.client.send("POST", PATH, &headers, b"{\"name\":\"a\"}").ok();
    server.kill();
    server.restart();
    let again = server.client.send("POST", PATH, &headers, b"{\"name\":\"a\"}");
    assert_eq!(again.header("idempotency-replayed"), Some("true"));
    assert_eq!(again.ok(), first);
    let other = server.client.send("POST", PATH, &headers, b"{\"name\":\"b\"}").problem();
    assert_eq!(other["code"], "idempotencyKeyReused");
    assert_eq!(server.client.get(PATH).ok()["sdkKeys"].as_array().unwrap().len(), 1);
}
