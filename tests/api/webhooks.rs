//! `/api/v1/projects/{project}/webhooks`, with receivers on this machine.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::sync::Arc;
use std::time::{Duration, Instant};

use guidon_server::notifications::signature::Secret;
use parking_lot::Mutex;
use serde_json::{Value, json};

use crate::support::people::{admin, first_administrator, person};
use crate::support::{ServerOptions, ServerProcess, TestClient, binary};

const PATH: &str = "/api/v1/projects/default/webhooks";

/// A request as it arrived.
#[derive(Clone, Debug)]
struct Got {
    head: String,
    body: Vec<u8>,
}

impl Got {
    fn header(&self, name: &str) -> &str {
        let lines = self.head.lines().filter_map(|line| line.split_once(": "));
        lines.filter(|(of, _)| of.eq_ignore_ascii_case(name)).map(|(_, value)| value).next().unwrap_or_default()
    }

    fn json(&self) -> Value {
        serde_json::from_slice(&self.body).expect("JSON")
    }
}

/// Answers with a status that tests set; 0 hangs.
#[derive(Clone)]
struct Receiver {
    url: String,
    status: Arc<Mutex<u16>>,
    got: Arc<Mutex<Vec<Got>>>,
}

impl Receiver {
    fn start() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let url = format!("http://{}/hook/SECRET-PATH", listener.local_addr().unwrap());
        let receiver = Self { url, status: Arc::new(Mutex::new(200)), got: Arc::default() };
        let serving = receiver.clone();
        std::thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                let serving = serving.clone();
                std::thread::spawn(move || serving.serve(stream));
            }
        });
        receiver
    }

    fn serve(&self, mut stream: TcpStream) {
        let mut reader = BufReader::new(stream.try_clone().unwrap());
        let (mut head, mut line) = (String::new(), String::new());
        while reader.read_line(&mut line).is_ok_and(|length| length > 2) {
            head.push_str(&std::mem::take(&mut line));
        }
        let mut got = Got { head, body: Vec::new() };
        got.body = vec![0; got.header("content-length").trim().parse().unwrap_or(0)];
        if reader.read_exact(&mut got.body).is_err() {
            return;
        }
        let status = *self.status.lock();
        self.got.lock().push(got);
        if status == 0 {
            std::thread::sleep(Duration::from_secs(60));
        }
        let _ = write!(stream, "HTTP/1.1 {status} X\r\ncontent-length: 0\r\nconnection: close\r\n\r\n");
    }

    fn answers(&self, status: u16) {
        *self.status.lock() = status;
    }

    fn got(&self) -> Vec<Got> {
        self.got.lock().clone()
    }

    #[track_caller]
    fn wait_for(&self, count: usize) -> Vec<Got> {
        eventually(|| self.got().len() >= count);
        self.got()
    }
}

#[track_caller]
fn eventually(holds: impl Fn() -> bool) {
    let started = Instant::now();
    while !holds() {
        assert!(started.elapsed() < Duration::from_secs(30), "it did not come to that");
        std::thread::sleep(Duration::from_millis(20));
    }
}

fn server() -> ServerProcess {
    let arguments = ["--webhook-allow", "127.0.0.1/32"].map(str::to_owned).to_vec();
    ServerProcess::start_with(ServerOptions { arguments, ..ServerOptions::default() })
}

fn patch(client: &TestClient, id: &str, body: &Value) -> Value {
    let headers = [("content-type", "application/json")];
    client.send("PATCH", &format!("{PATH}/{id}"), &headers, body.to_string().as_bytes()).ok()
}

fn create(admin: &TestClient, body: &Value) -> (String, String) {
    let made = admin.post(PATH, body).ok();
    let text = |name: &str| made[name].as_str().unwrap_or_else(|| panic!("{made}")).to_owned();
    (text("id"), text("secret"))
}

#[test]
fn a_change_is_told_signed_and_its_url_is_no_mans_business() {
    let server = server();
    let (admin, receiver) = (admin(&server), Receiver::start());
    let (id, secret) = create(&admin, &json!({"url": receiver.url, "name": "chat"}));
    let revision = server.client.create_flag("checkout");
    let got = receiver.wait_for(1).remove(0);
    assert!(got.head.starts_with("POST /hook/SECRET-PATH HTTP/1.1"), "{}", got.head);
    let timestamp = got.header("webhook-timestamp").parse().unwrap();
    let expected = Secret::parse(&secret).unwrap().sign(got.header("webhook-id"), timestamp, &got.body);
    assert_eq!(got.header("webhook-signature"), expected);
    let body = got.json();
    assert_eq!((&body["type"], &body["data"]["revision"]), (&json!("change.applied"), &json!(revision)), "{body}");
    let tested = admin.post(&format!("{PATH}/{id}/test"), &Value::Null).ok();
    assert_eq!((&tested["outcome"], &tested["status"]), (&json!("delivered"), &json!(200)));
    eventually(|| admin.get(&format!("{PATH}/{id}/deliveries")).ok()["deliveries"].as_array().unwrap().len() == 2);
    for path in [PATH.to_owned(), format!("{PATH}/{id}"), format!("{PATH}/{id}/deliveries")] {
        let shown = admin.get(&path);
        assert!(!shown.text.contains("SECRET-PATH") && !shown.text.contains("whsec_"), "{}", shown.text);
    }
    let journal = admin.get("/api/v1/projects/default/journal").text;
    assert!(journal.contains("createWebhook") && !journal.contains("SECRET-PATH") && !journal.contains("whsec_"));
    assert!(!server.log().contains("SECRET-PATH"));
    let metrics = server.client.get("/metrics").text;
    assert!(metrics.contains("guidon_webhook_deliveries_total{outcome=\"delivered\"} 2"), "{metrics}");
    assert!(metrics.contains("guidon_webhook_queue_age_seconds 0"), "{metrics}");
    // Both secrets sign after a rotation.
    let rotated = admin.post(&format!("{PATH}/{id}/rotate"), &Value::Null).ok();
    assert_ne!(rotated["secret"], json!(secret));
    server.client.create_flag("second");
    let last = receiver.wait_for(4).pop().unwrap();
    assert_eq!(last.header("webhook-signature").split(' ').count(), 2);
    admin.send("DELETE", &format!("{PATH}/{id}"), &[], b"").ok();
    assert_eq!(admin.get(&format!("{PATH}/{id}")).problem()["status"], 404);
}

#[test]
fn a_webhook_sent_again_is_made_once_and_shows_the_same_secret() {
    let server = server();
    let (admin, receiver) = (admin(&server), Receiver::start());
    let headers = [("content-type", "application/json"), ("idempotency-key", "once")];
    let body = json!({"url": receiver.url}).to_string();
    let first = admin.send("POST", PATH, &headers, body.as_bytes()).ok();
    let again = admin.send("POST", PATH, &headers, body.as_bytes());
    assert_eq!(again.header("idempotency-replayed"), Some("true"));
    let again = again.ok();
    assert_eq!((&again["id"], &again["secret"]), (&first["id"], &first["secret"]));
    assert_eq!(admin.get(PATH).ok()["webhooks"].as_array().unwrap().len(), 1);
}

#[test]
fn private_targets_are_refused_unless_the_operator_lists_them() {
    let server = ServerProcess::start();
    let admin = admin(&server);
    let receiver = Receiver::start();
    for url in [
        receiver.url.as_str(),
        "https://127.0.0.1/",
        "https://localhost/",
        "https://[::1]/",
        "https://[::ffff:127.0.0.1]/",
        "https://169.254.169.254/latest/meta-data",
        "https://10.0.0.1/",
        "https://2130706433/",
        "ftp://example.org/",
        "nonsense",
    ] {
        let problem = admin.post(PATH, &json!({ "url": url })).problem();
        assert_eq!((&problem["status"], &problem["errors"][0]["pointer"]), (&json!(400), &json!("/url")), "{problem}");
    }
    let problem = admin.post(PATH, &json!({"url": "https://127.0.0.1/", "filter": {}})).problem();
    assert_eq!(problem["errors"][0]["pointer"], "/filter");
    assert!(admin.get(PATH).ok()["webhooks"].as_array().unwrap().is_empty());
    assert!(receiver.got().is_empty());
}

#[test]
fn only_administrators_may_see_and_make_webhooks() {
    let server = server();
    let administrator = first_administrator(&server.client);
    let receiver = Receiver::start();
    let body = json!({"url": receiver.url});
    let (id, _) = create(&administrator.client, &body);
    for role in ["viewer", "developer", "releaseManager", "approver"] {
        let somebody = person(&administrator.client, &format!("a-{}", role.to_lowercase()), &[role]).client;
        assert_eq!(somebody.post(PATH, &body).problem()["status"], 403, "{role}");
        assert_eq!(somebody.get(PATH).problem()["status"], 403, "{role}");
        for step in ["rotate", "test", "dead-letters/resend"] {
            let refused = somebody.post(&format!("{PATH}/{id}/{step}"), &Value::Null).problem();
            assert_eq!(refused["status"], 403, "{role}: {step}");
        }
    }
    assert_eq!(server.client.post(PATH, &body).problem()["status"], 403, "the server's own token");
    assert!(receiver.got().is_empty());
}

#[test]
fn a_restart_in_the_middle_of_a_delivery_loses_nothing() {
    let mut server = server();
    let (admin, receiver) = (admin(&server), Receiver::start());
    receiver.answers(0);
    create(&admin, &json!({"url": receiver.url}));
    let first = server.client.create_flag("first");
    receiver.wait_for(1);
    let second = server.client.create_flag("second");
    server.kill();
    receiver.answers(200);
    server.restart();
    let got = receiver.wait_for(3);
    let revisions: Vec<u64> = got.iter().map(|got| got.json()["data"]["revision"].as_u64().unwrap()).collect();
    assert_eq!(revisions, [first, first, second]);
    assert_eq!(got[0].header("webhook-id"), got[1].header("webhook-id"), "receivers can drop what they had");
    server.stop();
    server.restart();
    server.client.create_flag("third");
    assert_eq!(receiver.wait_for(4).len(), 4, "what was delivered is not sent again after an orderly stop");
}

#[test]
fn a_hanging_receiver_is_in_nobodys_way() {
    let mut server = server();
    let admin = admin(&server);
    let (hanging, other) = (Receiver::start(), Receiver::start());
    hanging.answers(0);
    create(&admin, &json!({"url": hanging.url}));
    create(&admin, &json!({"url": other.url}));
    server.client.create_flag("flag-0");
    hanging.wait_for(1);
    let started = Instant::now();
    (1..=100).for_each(|number| {
        server.client.create_flag(&format!("flag-{number}"));
    });
    let took = started.elapsed();
    assert!(took < Duration::from_secs(10), "100 changes took {took:?}");
    // The second webhook itself is told of as well, to nobody but the first.
    let got = other.wait_for(101);
    let revisions: Vec<u64> = got.iter().map(|got| got.json()["data"]["revision"].as_u64().unwrap()).collect();
    assert!(revisions.is_sorted() && got.len() == 101, "{revisions:?}");
    assert_eq!(hanging.got().len(), 1);
    let started = Instant::now();
    server.stop();
    assert!(started.elapsed() < Duration::from_secs(10), "nor of a stop");
}

#[test]
fn failures_are_shown_and_one_that_is_gone_is_disabled() {
    let server = server();
    let (admin, receiver) = (admin(&server), Receiver::start());
    receiver.answers(307);
    let (id, _) = create(&admin, &json!({"url": receiver.url}));
    server.client.create_flag("a");
    let standing = || admin.get(&format!("{PATH}/{id}")).ok()["standing"].clone();
    eventually(|| standing()["state"] == "failing");
    let error = standing()["lastDelivery"]["error"].clone();
    assert!(error.as_str().unwrap().contains("redirects are not followed"), "{error}");
    receiver.answers(410);
    eventually(|| standing()["state"] == "disabled");
    let letters = admin.get(&format!("{PATH}/{id}/dead-letters")).ok()["deadLetters"].clone();
    assert_eq!((letters.as_array().unwrap().len(), &letters[0]["topic"]), (1, &json!("change.applied")), "{letters}");
    let letter = letters[0]["id"].as_str().unwrap().to_owned();
    let resend = format!("{PATH}/{id}/dead-letters/{letter}/resend");
    assert_eq!(admin.post(&resend, &Value::Null).problem()["code"], "conflict");
    receiver.answers(200);
    assert_eq!(patch(&admin, &id, &json!({"enabled": true}))["enabled"], true);
    let before = receiver.got().len();
    assert_eq!(admin.post(&resend, &Value::Null).status, 202);
    let got = receiver.wait_for(before + 1);
    assert_eq!(got[before].header("webhook-id"), letter);
    eventually(|| admin.get(&format!("{PATH}/{id}/dead-letters")).ok()["deadLetters"].as_array().unwrap().is_empty());
    assert_eq!(admin.post(&resend, &Value::Null).problem()["status"], 404);
    let refused = admin.get("/api/v1/projects/default/journal?limit=1000").text;
    assert!(refused.contains("The receiver answered 410 Gone"), "the audit trail says who disabled it, and why");
}

#[test]
fn requests_and_refusals_are_told_in_the_formats() {
    let server = server();
    let administrator = first_administrator(&server.client);
    let (events, chat) = (Receiver::start(), Receiver::start());
    let topics = json!({"topics": ["request.opened", "security.refused"], "tiers": ["production"]});
    let body = json!({"url": events.url, "format": "cloudevents", "filters": topics});
    create(&administrator.client, &body);
    create(
        &administrator.client,
        &json!({"url": chat.url, "format": "slack", "filters": {"topics": ["request.opened"]}}),
    );
    server.client.create_flag("checkout");
    let developer = person(&administrator.client, "dev", &["developer"]).client;
    let on = json!([{"kind": "turnFlagOn", "flag": "checkout"}]);
    developer.change("production", on.clone()).ok();
    let opened = events.wait_for(1).remove(0);
    assert!(opened.header("content-type").starts_with("application/cloudevents+json"));
    let body = opened.json();
    assert_eq!((&body["specversion"], &body["type"]), (&json!("1.0"), &json!("guidon.request.opened")), "{body}");
    assert_eq!(body["id"], opened.header("webhook-id"));
    assert!(body["data"]["request"].is_string() && body["data"]["environments"][0]["key"] == "production", "{body}");
    let message = chat.wait_for(1).remove(0).json();
    assert!(message["text"].as_str().unwrap().contains("request.opened"), "{message}");
    // The server's own token may not touch production: that is refused, and told.
    assert_eq!(server.client.change("production", on).problem()["status"], 403);
    let refused = events.wait_for(2).remove(1).json();
    assert_eq!(
        (&refused["type"], &refused["data"]["flags"]),
        (&json!("guidon.security.refused"), &json!(["checkout"]))
    );
}

#[test]
fn the_command_line_makes_tests_and_lists() {
    let server = server();
    let (administrator, receiver) = (first_administrator(&server.client), Receiver::start());
    let admin = administrator.client.clone();
    let credential = administrator.command_line_session();
    let run = |arguments: &[&str]| {
        let done = std::process::Command::new(binary())
            .args(arguments)
            .env("GUIDON_SERVER", server_url(&server))
            .env("GUIDON_TOKEN", &credential)
            .env("GUIDON_PROFILES", "/nowhere")
            .output()
            .unwrap();
        let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
        (done.status.code(), text(&done.stdout), text(&done.stderr))
    };
    let (code, said, errors) =
        run(&["webhook", "create", &receiver.url, "--name", "chat", "--topic", "change.applied"]);
    assert!(code == Some(0) && said.contains("whsec_") && !said.contains("SECRET-PATH"), "{said}{errors}");
    let id = admin.get(PATH).ok()["webhooks"][0]["id"].as_str().unwrap().to_owned();
    let (code, said, _) = run(&["webhook", "test", &id]);
    assert!(code == Some(0) && said.starts_with("Delivered: 200 in "), "{said}");
    receiver.answers(500);
    let (code, said, errors) = run(&["webhook", "test", &id]);
    assert!(code == Some(1) && said.contains("answered 500") && errors.contains("webhook update"), "{said}{errors}");
    let (_, said, _) = run(&["webhook", "list"]);
    assert!(said.contains(&id) && said.contains("change.applied") && said.contains("http://127.0.0.1"), "{said}");
    let (_, said, _) = run(&["webhook", "deliveries", &id]);
    assert!(said.contains("ping") && said.contains("answered 500"), "{said}");
    let (_, said, _) = run(&["webhook", "dead-letters", &id]);
    assert_eq!(said.trim(), "No dead letters.");
    let (code, said, _) = run(&["webhook", "update", &id, "--disable", "--name", "quiet"]);
    assert!(code == Some(0) && said.contains("disabled") && said.contains("quiet"), "{said}");
    let (_, said, _) = run(&["webhook", "rotate", &id, "--overlap", "1h"]);
    assert!(said.contains("whsec_") && said.contains("signs as well until"), "{said}");
    let (code, _, errors) = run(&["webhook", "resend", &id, "--all"]);
    assert!(code != Some(0) && errors.contains("enable it first"), "{errors}");
    let (code, _, errors) = run(&["webhook", "show", "hook-nowhere"]);
    assert!(code == Some(5), "{errors}");
    let (code, said, _) = run(&["webhook", "delete", &id]);
    assert!(code == Some(0) && said.contains("deleted the webhook"), "{said}");
}

fn server_url(server: &ServerProcess) -> String {
    server.client.url.clone()
}
