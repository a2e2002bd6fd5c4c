//! People: invited, signed in, shut out, erased.

use serde_json::json;

use crate::support::ServerProcess;
use crate::support::people::{admin, person};

#[test]
fn the_first_administrator_is_invited_by_the_servers_own_token_and_nobody_after() {
    let server = ServerProcess::start();
    let admin = admin(&server);
    let me = admin.get("/api/v1/session").ok();
    assert_eq!(
        (&me["kind"], &me["name"], &me["roles"][0]["role"]),
        (&json!("human"), &json!("admin"), &json!("administrator"))
    );
    let late = server.client.post("/api/v1/accounts", &json!({"name": "mallory"})).problem();
    assert_eq!((&late["status"], &late["code"]), (&json!(403), &json!("forbidden")));
    let grant = json!({"principal": me["principal"], "role": "approver"});
    assert_eq!(server.client.post("/api/v1/roles", &grant).status, 403);
    let ada = person(&admin, "Ada", &["developer"]);
    assert_eq!(ada.client.get("/api/v1/session").ok()["roles"][0]["role"], "developer");
    assert_eq!(ada.client.get("/api/v1/accounts").status, 403);
}
