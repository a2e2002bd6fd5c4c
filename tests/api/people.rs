//! People: invited, signed in, shut out, erased.

use std::io::{BufRead, BufReader};
use std::os::unix::fs::PermissionsExt;
use std::process::Command;

use serde_json::{Value, json};

use crate::support::people::{PASSWORD, Person, admin, code_of, first_administrator, person, present_step};
use crate::support::terminal::{Terminal, send_line};
use crate::support::{Answer, ServerOptions, ServerProcess, TestClient, binary};

/// Accepts an invitation on the command line: the secret of the one-time codes, and the recovery codes.
#[track_caller]
fn claim(terminal: &Terminal, invitation: &str) -> (String, Vec<String>) {
    let variables = [("GUIDON_INVITATION", invitation), ("GUIDON_PASSWORD", PASSWORD)];
    let mut claiming = terminal.start(&["--json", "account", "claim"], &variables);
    let mut answers = BufReader::new(claiming.stdout.take().expect("a pipe")).lines();
    let mut next = || -> Value { serde_json::from_str(&answers.next().expect("a line").unwrap()).expect("JSON") };
    let begun = next();
    let secret = begun["secret"].as_str().expect("a secret").to_owned();
    assert!(begun["otpauthUrl"].as_str().is_some_and(|url| url.starts_with("otpauth://totp/")), "{begun}");
    send_line(&mut claiming, &code_of(&secret, present_step() - 1));
    let codes = next()["recoveryCodes"].as_array().expect("recovery codes").clone();
    assert!(claiming.wait().unwrap().success());
    (secret, codes.iter().map(|code| code.as_str().unwrap().to_owned()).collect())
}

fn attempt(client: &TestClient, name: &str, password: &str, code: &str) -> Answer {
    client.with_token(None).post("/api/v1/session", &json!({"name": name, "password": password, "code": code}))
}

fn session_credential(terminal: &Terminal) -> String {
    let text = std::fs::read_to_string(terminal.session_file()).expect("a session file");
    let line = text.lines().find_map(|line| line.strip_prefix("credential = ")).expect("a credential");
    line.trim_matches('"').to_owned()
}

#[test]
fn the_first_administrator_comes_in_by_the_command_line() {
    let server = ServerProcess::start();
    let terminal = Terminal::new(&server.client.url);
    let operator = [("GUIDON_TOKEN", "gdn-test-administrator-token")];
    let invited = terminal.json(&["account", "invite", "Ada", "--email", "ada@example.com"], &operator);
    let grant = json!({"principal": "ada", "role": "administrator"});
    server.client.post("/api/v1/roles", &grant).ok();
    let (secret, recovery_codes) = claim(&terminal, invited["invitation"].as_str().unwrap());
    assert_eq!(recovery_codes.len(), 10);

    let code = code_of(&secret, present_step());
    let signed_in = terminal.json(&["login", "Ada"], &[("GUIDON_PASSWORD", PASSWORD), ("GUIDON_CODE", &code)]);
    assert!(signed_in["credential"].is_null(), "the session stays in its file");
    assert_eq!(std::fs::metadata(terminal.session_file()).unwrap().permissions().mode() & 0o777, 0o600);
    let me = terminal.json(&["whoami"], &[]);
    assert_eq!((&me["name"], &me["kind"], &me["email"]), (&json!("Ada"), &json!("human"), &json!("ada@example.com")));
    assert!(me["session"]["factorAt"].is_u64() && me["roles"][0]["role"] == "administrator", "{me}");
    let accounts = terminal.json(&["account", "list"], &[]);
    assert_eq!((&accounts[0]["name"], &accounts[0]["state"]), (&json!("Ada"), &json!("active")));
    terminal.json(&["factor"], &[("GUIDON_CODE", &recovery_codes[0])]);
    let again = terminal.run(&["factor"], &[("GUIDON_CODE", &recovery_codes[0])]);
    assert_eq!(again.status.code(), Some(4), "a recovery code works once");

    let credential = session_credential(&terminal);
    let cli = [("user-agent", concat!("guidon-cli/", env!("CARGO_PKG_VERSION")))];
    let presented = server.client.with_token(Some(&credential));
    assert_eq!(presented.send("GET", "/api/v1/session", &cli, b"").status, 200);
    terminal.json(&["logout"], &[]);
    assert_eq!(presented.send("GET", "/api/v1/session", &cli, b"").status, 401);
    let out = terminal.run(&["whoami"], &[]);
    assert_eq!(out.status.code(), Some(4));
    assert!(String::from_utf8_lossy(&out.stderr).contains("guidon login"));

    let late = server.client.post("/api/v1/accounts", &json!({"name": "mallory"})).problem();
    assert_eq!((&late["status"], &late["code"]), (&json!(403), &json!("forbidden")), "the operator's time is over");
    let grant = json!({"principal": "ada", "role": "approver"});
    assert_eq!(server.client.post("/api/v1/roles", &grant).status, 403);
}

#[test]
fn a_persons_roles_are_what_was_given() {
    let server = ServerProcess::start();
    let admin = admin(&server);
    let ada = person(&admin, "Ada", &["developer"]);
    let me = ada.client.get("/api/v1/session").ok();
    assert_eq!((&me["principal"], &me["roles"][0]["role"]), (&json!(ada.id), &json!("developer")));
    for refused in [ada.client.get("/api/v1/accounts"), ada.client.post("/api/v1/accounts", &json!({"name": "Ada"}))] {
        assert_eq!(refused.problem()["code"], "forbidden");
    }
    // Whether there is such an account is for nobody to learn who may not do it.
    let erase = |id: &str| ada.client.send("DELETE", &format!("/api/v1/accounts/{id}"), &[], b"").problem();
    assert_eq!(erase("admin"), erase("nobody"));
    assert_eq!(admin.post("/api/v1/accounts", &json!({"name": "ADA"})).problem()["code"], "conflict");
    let bad = admin.post("/api/v1/accounts", &json!({"name": "a:b", "email": "x"})).problem();
    assert_eq!(bad["errors"][0]["pointer"], "/name");
}

#[test]
fn what_is_wrong_with_a_sign_in_is_not_said_and_guessing_is_slowed() {
    let server = ServerProcess::start();
    let ada = first_administrator(&server.client);
    let code = ada.code();
    let wrong = [
        ("grace", PASSWORD, code.as_str()),
        ("admin", "quiet-otter-sings-93", &code),
        ("admin", PASSWORD, "zzzz-zzzz-zzzz-zzzz"),
    ];
    let said: Vec<Value> =
        wrong.map(|(name, password, code)| attempt(&server.client, name, password, code).problem()).into();
    assert!(said.iter().all(|problem| *problem == said[0] && problem["status"] == 401), "{said:?}");
    assert_eq!(attempt(&server.client, "admin", PASSWORD, &code).status, 200);
    assert_eq!(attempt(&server.client, "admin", PASSWORD, &code).problem(), said[0], "a code works once");
    let odd =
        server.client.with_token(None).post("/api/v1/session", &json!({"name": "a", "password": 12_345, "code": ""}));
    assert!(!odd.text.contains("12345"), "{}", odd.text);

    let slowed = (0..20).map(|_| attempt(&server.client, "admin", "wrong-password-99", "000000"));
    let slowed = slowed.into_iter().find(|answer| answer.status == 429).expect("a limit");
    assert!(slowed.header("retry-after").is_some_and(|seconds| seconds.parse::<u64>().is_ok_and(|it| it >= 1)));
    let right = attempt(&server.client, "admin", PASSWORD, &ada.code());
    assert_eq!(right.status, 429, "nobody learns by waiting answers that the password is right");
    assert_eq!(ada.client.get("/api/v1/session").status, 200, "who is signed in stays so");
}

#[test]
fn a_session_belongs_to_the_program_it_was_made_at() {
    let server = ServerProcess::start();
    let ada = first_administrator(&server.client);
    assert_eq!(ada.client.get("/api/v1/session").status, 200);
    let elsewhere = ada.client.send("GET", "/api/v1/session", &[("user-agent", "another/1.0")], b"");
    assert_eq!(elsewhere.status, 401);
    let cookie = format!("guidon={}", session_of(&ada));
    let as_cookie = server.client.with_token(None).send("GET", "/api/v1/session", &[("cookie", &cookie)], b"");
    assert_eq!(as_cookie.status, 401, "a bearer's session is no cookie");
}

/// A new session's credential.
fn session_of(person: &Person) -> String {
    let answer = attempt(&person.client, &person.name, PASSWORD, &person.code()).ok();
    answer["credential"].as_str().expect("a credential").to_owned()
}

#[test]
fn a_browsers_session_is_a_cookie_that_other_sites_cannot_use() {
    let server = ServerProcess::start();
    let ada = first_administrator(&server.client);
    let stranger = server.client.with_token(None);
    let sign_in = |client: &TestClient, origin: &str| {
        let body =
            json!({"name": "admin", "password": PASSWORD, "code": ada.code(), "transport": "cookie"}).to_string();
        client.send(
            "POST",
            "/api/v1/session",
            &[("content-type", "application/json"), ("origin", origin)],
            body.as_bytes(),
        )
    };
    assert_eq!(sign_in(&stranger, "https://evil.example").status, 403);
    let answer = sign_in(&stranger, &server.client.url);
    let set = answer.header("set-cookie").expect("a cookie").to_owned();
    assert!(set.starts_with("guidon=gdn_session_") && !set.contains("Secure"), "{set}");
    for part in ["; Path=/", "; HttpOnly", "; SameSite=Strict", "; Max-Age="] {
        assert!(set.contains(part), "{part} in {set}");
    }
    assert!(answer.ok()["credential"].is_null(), "no script of the page sees the credential");
    let cookie = set.split(';').next().unwrap();
    assert_eq!(stranger.send("GET", "/api/v1/accounts", &[("cookie", cookie)], b"").status, 200);
    let body = json!({"name": "Grace"}).to_string();
    let invite = |origin: Option<&str>| {
        let mut headers = vec![("content-type", "application/json"), ("cookie", cookie)];
        headers.extend(origin.map(|origin| ("origin", origin)));
        stranger.send("POST", "/api/v1/accounts", &headers, body.as_bytes()).status
    };
    assert_eq!((invite(None), invite(Some("https://evil.example"))), (403, 403));
    assert_eq!(invite(Some(&server.client.url)), 200);
    let own = [("cookie", cookie), ("origin", server.client.url.as_str())];
    let out = stranger.send("DELETE", "/api/v1/session", &own, b"");
    assert!(out.header("set-cookie").is_some_and(|set| set.contains("Max-Age=0")));
    assert_eq!(stranger.send("GET", "/api/v1/accounts", &[("cookie", cookie)], b"").status, 401);
}

#[test]
fn behind_a_proxy_the_cookie_is_for_https_only() {
    let arguments = ["--behind-proxy", "192.0.2.0/24"].map(str::to_owned).into();
    let server = ServerProcess::start_with(ServerOptions { arguments, ..ServerOptions::default() });
    let ada = first_administrator(&server.client);
    let body = json!({"name": "admin", "password": PASSWORD, "code": ada.code(), "transport": "cookie"}).to_string();
    let headers = [("content-type", "application/json"), ("origin", server.client.url.as_str())];
    let answer = server.client.with_token(None).send("POST", "/api/v1/session", &headers, body.as_bytes());
    let set = answer.header("set-cookie").expect("a cookie");
    assert!(set.starts_with("__Host-guidon=") && set.contains("; Secure") && !set.contains("Domain"), "{set}");
}

#[test]
fn whoever_is_shut_out_is_out_at_once() {
    let server = ServerProcess::start();
    let admin = admin(&server);
    let ada = person(&admin, "Ada", &["developer"]);
    let step = |of: &str, step: &str| admin.post(&format!("/api/v1/accounts/{of}/{step}"), &json!({}));
    step("Ada", "disable").ok();
    assert_eq!(ada.client.get("/api/v1/session").status, 401);
    let shut_out = attempt(&server.client, "Ada", PASSWORD, &ada.code());
    assert_eq!(shut_out.problem()["code"], "forbidden");
    step("Ada", "enable").ok();
    assert_eq!(ada.client.get("/api/v1/session").status, 401, "the session does not come back");
    let back = ada.sign_in();
    let reset = step("Ada", "reset").ok();
    assert_eq!(back.get("/api/v1/session").status, 401);
    assert_eq!(attempt(&server.client, "Ada", PASSWORD, &ada.code()).status, 401);
    let anew = Person::claim(&server.client, reset["invitation"].as_str().unwrap(), "brave-heron-walks-17");
    assert_eq!((&anew.id, anew.sign_in().get("/api/v1/session").status), (&ada.id, 200));

    for way in ["disable", "erase"] {
        let path =
            if way == "erase" { "/api/v1/accounts/admin".to_owned() } else { format!("/api/v1/accounts/admin/{way}") };
        let method = if way == "erase" { "DELETE" } else { "POST" };
        let refused = admin.send(method, &path, &[], b"").problem();
        assert_eq!(refused["errors"][0]["code"], "lastAdministrator", "{refused}");
    }
    assert_eq!(admin.get("/api/v1/accounts/admin").ok()["state"], "active");
}

#[test]
fn an_invitation_that_was_lost_on_the_way_is_made_anew() {
    let server = ServerProcess::start();
    let admin = admin(&server);
    let invite = || {
        let headers = [("content-type", "application/json"), ("idempotency-key", "k-1")];
        admin.send("POST", "/api/v1/accounts", &headers, br#"{"name":"Ada"}"#).ok()
    };
    let (first, second) = (invite(), invite());
    assert_eq!(first["id"], second["id"]);
    let claim = |invitation: &Value| {
        server.client.with_token(None).post("/api/v1/session/claim", &json!({"invitation": invitation}))
    };
    assert_eq!(claim(&first["invitation"]).status, 401);
    assert_eq!(claim(&second["invitation"]).status, 200);
    Person::claim(&server.client, second["invitation"].as_str().unwrap(), PASSWORD);
    let headers = [("content-type", "application/json"), ("idempotency-key", "k-1")];
    assert_eq!(admin.send("POST", "/api/v1/accounts", &headers, br#"{"name":"Ada"}"#).status, 409);
    let weak = json!({"invitation": admin.post("/api/v1/accounts", &json!({"name": "Ben"})).ok()["invitation"], "password": "short", "code": "000000"});
    assert_eq!(server.client.with_token(None).post("/api/v1/session/claim/finish", &weak).status, 400);
}

#[test]
fn an_erased_person_is_nobody_and_the_chain_still_holds() {
    let mut server = ServerProcess::start();
    let admin = admin(&server);
    let ada = person(&admin, "Ada", &["developer"]);
    let erased = admin.send("DELETE", "/api/v1/accounts/Ada", &[], b"").ok();
    assert_eq!(erased["changed"].as_array().map(Vec::len), Some(1), "{erased}");
    assert_eq!(ada.client.get("/api/v1/session").status, 401);
    assert_eq!(attempt(&server.client, "Ada", PASSWORD, &ada.code()).status, 401);
    let known = admin.get(&format!("/api/v1/accounts/{}", ada.id)).ok();
    assert_eq!((&known["state"], &known["name"], &known["lastUsedAt"]), (&json!("erased"), &json!(null), &json!(null)));
    assert_eq!(admin.get("/api/v1/accounts/Ada").status, 404);
    let again = person(&admin, "Ada", &[]);
    assert_ne!(again.id, ada.id, "who is called so later is somebody else");
    assert!(server.stop().success());
    let data = server.data();
    let verify = Command::new(binary()).args(["journal", "verify", "--data"]).arg(&data).output().unwrap();
    assert!(verify.status.success(), "{}", String::from_utf8_lossy(&verify.stderr));
    server.restart();
    assert_eq!(admin.get(&format!("/api/v1/accounts/{}", ada.id)).ok()["state"], "erased");
}

#[test]
fn an_administrator_without_a_factor_comes_back_with_the_server_stopped() {
    let mut server = ServerProcess::start();
    let ada = first_administrator(&server.client);
    let terminal = Terminal::new(&server.client.url);
    let data = server.data();
    let recover = || terminal.run(&["--json", "account", "recover", "admin", "--data", data.to_str().unwrap()], &[]);
    let busy = recover();
    assert!(!busy.status.success());
    let said = String::from_utf8_lossy(&busy.stderr).into_owned();
    assert!(said.contains("Stop the server first"), "{said}");
    assert!(server.stop().success());
    let recovered = recover();
    assert!(recovered.status.success(), "{}", String::from_utf8_lossy(&recovered.stderr));
    let invited: Value = serde_json::from_slice(&recovered.stdout).unwrap();
    server.restart();
    assert_eq!(ada.client.get("/api/v1/session").status, 401);
    assert_eq!(attempt(&server.client, "admin", PASSWORD, &ada.code()).status, 401);
    let back = Person::claim(&server.client, invited["invitation"].as_str().unwrap(), PASSWORD).signed_in();
    assert_eq!(back.id, ada.id);
    assert_eq!(back.client.get("/api/v1/session").ok()["roles"][0]["role"], "administrator");
    back.client.post("/api/v1/accounts", &json!({"name": "Grace"})).ok();
}

#[test]
fn new_recovery_codes_take_the_place_of_the_old() {
    let server = ServerProcess::start();
    let ada = first_administrator(&server.client);
    let path = "/api/v1/session/recovery-codes";
    let old = ada.recovery_codes();
    let made = ada.client.post(path, &Value::Null).ok();
    let codes: Vec<&str> = made["recoveryCodes"].as_array().expect("codes").iter().filter_map(Value::as_str).collect();
    assert_eq!((codes.len(), made["account"].as_str()), (10, Some(&*ada.id)));
    assert_eq!(attempt(&ada.client, &ada.name, &ada.password, &old[0]).status, 401);
    attempt(&ada.client, &ada.name, &ada.password, codes[0]).ok();
    assert_eq!(server.client.post(path, &Value::Null).status, 403, "a token is nobody's session");
}

#[test]
fn people_see_where_they_are_signed_in_and_sign_out_elsewhere() {
    let server = ServerProcess::start();
    let admin = admin(&server);
    let (ben, eva) = (person(&admin, "ben", &["developer"]), person(&admin, "eva", &["viewer"]));
    let (elsewhere, lost) = (ben.sign_in(), ben.sign_in());
    let listed = ben.client.get("/api/v1/sessions").ok();
    let sessions = listed["sessions"].as_array().unwrap();
    let current: Vec<&Value> = sessions.iter().filter(|session| session["current"] == true).collect();
    assert_eq!((sessions.len(), current.len()), (3, 1), "{listed}");
    let id_of = |client: &TestClient| client.get("/api/v1/session").ok()["session"]["id"].as_str().unwrap().to_owned();
    assert_eq!(current[0]["id"], id_of(&ben.client).as_str());

    let lost_id = id_of(&lost);
    assert_eq!(
        eva.client.send("DELETE", &format!("/api/v1/sessions/{lost_id}"), &[], b"").status,
        404,
        "somebody else's"
    );
    assert_eq!(
        ben.client.send("DELETE", &format!("/api/v1/sessions/{lost_id}"), &[], b"").ok(),
        json!({"ended": true})
    );
    assert_eq!(lost.get("/api/v1/session").status, 401);
    assert_eq!(ben.client.send("DELETE", "/api/v1/sessions", &[], b"").ok(), json!({"ended": 1}));
    assert_eq!(elsewhere.get("/api/v1/session").status, 401);
    assert_eq!(ben.client.get("/api/v1/session").status, 200);
    assert_eq!(eva.client.get("/api/v1/session").status, 200);
    let problem = server.client.get("/api/v1/sessions");
    assert_eq!(problem.status, 403, "the server's own token is no session");
}
