//! Changes reach SDKs, and what SDKs served comes back.

use std::time::Duration;

use futures_util::{SinkExt, StreamExt};
use guidon_sdk::{Client, Context, State};
use serde_json::{Value, json};
use tokio::net::TcpStream;
use tokio_tungstenite::tungstenite::client::IntoClientRequest;
use tokio_tungstenite::tungstenite::{Error, Message};
use tokio_tungstenite::{WebSocketStream, client_async};

use crate::support::{TestServer, flag, reaches};

const ASSIGNMENTS: &str = "/api/v1/projects/default/environments/development/assignments";

async fn connect(server: &TestServer, credential: &str, instance: &str) -> Client {
    Client::builder(&server.url, credential)
        .instance(instance)
        .application("shop")
        .reconnect_delay(Duration::from_millis(10), Duration::from_millis(100))
        .connect()
        .await
        .unwrap()
}

async fn assignments(server: &TestServer, query: &str) -> Vec<Value> {
    let (status, lines) = server.call("GET", &format!("{ASSIGNMENTS}{query}"), None).await;
    assert_eq!(status, 200, "{lines}");
    lines.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_change_reaches_a_connected_sdk() {
    let folder = tempfile::tempdir().unwrap();
    let server = TestServer::start(folder.path()).await;
    let (_, credential) = server.sdk_key("server").await;
    let created = server.change(json!([{"kind": "createFlag", "flag": flag("engine", false)}])).await;
    let client = connect(&server, &credential, "one").await;
    reaches(&client, created).await;
    let context = Context::new("user-1");
    assert!(client.bool("engine", &context, false));
    let off = server.change(json!([{"kind": "turnFlagOff", "flag": "engine"}])).await;
    reaches(&client, off).await;
    assert!(!client.bool("engine", &context, true));

    let applied = async {
        loop {
            let path = "/api/v1/projects/default/environments/development/connections";
            let (_, answer) = server.call("GET", path, None).await;
            let seen = serde_json::from_str::<Value>(&answer).unwrap()["connections"][0].clone();
            if seen["applied"] == off {
                return seen;
            }
        }
    };
    let seen = tokio::time::timeout(Duration::from_secs(30), applied).await.unwrap();
    assert_eq!(
        (&seen["instance"], &seen["application"], &seen["audience"]),
        (&"one".into(), &"shop".into(), &"server".into())
    );
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn exposures_are_stored_once_across_a_restart() {
    let folder = tempfile::tempdir().unwrap();
    let server = TestServer::start(folder.path()).await;
    let (_, credential) = server.sdk_key("server").await;
    let created = server.change(json!([{"kind": "createFlag", "flag": flag("engine", false)}])).await;
    let client = connect(&server, &credential, "one").await;
    reaches(&client, created).await;
    for user in 0..50 {
        let _ = client.bool("engine", &Context::new(format!("person-{user}")), false);
    }
    client.flush(Duration::from_secs(30)).await.unwrap();
    let before = assignments(&server, "").await;
    assert_eq!(before.len(), 50);
    assert!(before.iter().all(|line| line["assigned"] == "ai" && line["instance"] == "one"));
    assert!(!before.iter().any(|line| line.to_string().contains("person-")));
    let address = server.url.trim_start_matches("http://").to_owned();
    server.stop().await;

    for user in 50..60 {
        let _ = client.bool("engine", &Context::new(format!("person-{user}")), false);
    }
    let server = TestServer::start_at(folder.path(), &address).await;
    client.flush(Duration::from_secs(30)).await.unwrap();
    let after = assignments(&server, "").await;
    assert_eq!(after.len(), 60);
    let units: std::collections::BTreeSet<&str> = after.iter().map(|line| line["unit"].as_str().unwrap()).collect();
    assert_eq!(units.len(), 60);
    let rest = assignments(&server, &format!("?after={}", before[49]["cursor"].as_str().unwrap())).await;
    assert_eq!(rest, after[50..]);
    assert_eq!(assignments(&server, "?limit=7&flag=engine").await.len(), 7);
    assert!(assignments(&server, "?flag=other").await.is_empty());
    assert!(assignments(&server, "?to=2020-01-01T00:00:00Z").await.is_empty());
    let (status, problem) = server.call("GET", &format!("{ASSIGNMENTS}?from=yesterday&after=x"), None).await;
    assert_eq!(status, 400);
    assert!(problem.contains("from: ") && problem.contains("after: "), "{problem}");
    server.stop().await;

    let mut written = Vec::new();
    read_all(folder.path(), &mut written);
    assert!(!written.windows(7).any(|bytes| bytes == b"person-"), "a raw unit is on the disk");
}

fn read_all(folder: &std::path::Path, bytes: &mut Vec<u8>) {
    for entry in std::fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() { read_all(&path, bytes) } else { bytes.extend(std::fs::read(path).unwrap()) }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_revoked_key_closes_its_streams_and_opens_none() {
    let folder = tempfile::tempdir().unwrap();
    let server = TestServer::start(folder.path()).await;
    let (id, credential) = server.sdk_key("server").await;
    let created = server.change(json!([{"kind": "createFlag", "flag": flag("engine", false)}])).await;
    let client = connect(&server, &credential, "one").await;
    reaches(&client, created).await;
    let path = format!("/api/v1/projects/default/environments/development/sdk-keys/{id}");
    let (status, answer) = server.call("DELETE", &path, None).await;
    assert!(status < 300, "{status} {answer}");
    let refused = async {
        let mut state = client.state();
        while !matches!(state, State::Stale | State::Closed) {
            state = client.state_changed(state).await;
        }
    };
    tokio::time::timeout(Duration::from_secs(30), refused).await.expect("the client hears of it");
    assert!(client.bool("engine", &Context::new("u"), false), "the last good snapshot still serves");
    for path in ["/sdk/v1/snapshot", "/sdk/v1/exposures"] {
        let (status, _) = sdk_call(&server, &credential, path).await;
        assert_eq!(status, if path.ends_with("exposures") { 405 } else { 401 });
    }
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_snapshot_can_be_polled_and_browsers_see_their_part() {
    let folder = tempfile::tempdir().unwrap();
    let server = TestServer::start(folder.path()).await;
    let (_, for_server) = server.sdk_key("server").await;
    let (_, for_browser) = server.sdk_key("client").await;
    let flags = json!([
        {"kind": "createFlag", "flag": flag("open", true)},
        {"kind": "createFlag", "flag": flag("hidden", false)},
    ]);
    server.change(flags).await;
    let (status, whole) = sdk_call(&server, &for_server, "/sdk/v1/snapshot").await;
    assert_eq!(status, 200);
    let (_, part) = sdk_call(&server, &for_browser, "/sdk/v1/snapshot").await;
    assert!(whole.contains("hidden") && part.contains("open") && !part.contains("hidden"));
    let revision = serde_json::from_str::<Value>(&whole).unwrap()["revision"].as_str().unwrap().to_owned();
    let (status, body) = sdk_call(&server, &for_server, &format!("/sdk/v1/snapshot?basis={revision}")).await;
    assert_eq!((status, body.as_str()), (304, ""));
    let (status, _) = sdk_call(&server, &for_server, "/sdk/v1/snapshot?basis=other:9").await;
    assert_eq!(status, 200, "another history has no basis");
    let (status, problem) = sdk_call(&server, &for_server, "/sdk/v1/snapshot?basis=nonsense").await;
    assert!(status == 400 && problem.contains("<history>:<number>"), "{problem}");
    for credential in ["", "nonsense"] {
        assert_eq!(sdk_call(&server, credential, "/sdk/v1/snapshot").await.0, 401);
    }
    let (status, _) = sdk_call(&server, &for_server, "/sdk/v1/stream").await;
    assert_eq!(status, 400, "no handshake");
    server.stop().await;
}

async fn sdk_call(server: &TestServer, credential: &str, path: &str) -> (u16, String) {
    let url = format!("{}{path}", server.url);
    let credential = format!("Bearer {credential}");
    tokio::task::spawn_blocking(move || {
        let agent = ureq::Agent::config_builder().http_status_as_error(false).build().new_agent();
        let mut answer = agent.get(url).header("authorization", credential).call().unwrap();
        (answer.status().as_u16(), answer.body_mut().read_to_string().unwrap())
    })
    .await
    .unwrap()
}

/// A browser's websocket: no header but those a page can set.
async fn open_from_browser(server: &TestServer, protocols: &str) -> Result<WebSocketStream<TcpStream>, Error> {
    let address = server.url.trim_start_matches("http://");
    let mut request = format!("ws://{address}/sdk/v1/stream").into_client_request().unwrap();
    request.headers_mut().insert("sec-websocket-protocol", protocols.parse().unwrap());
    let (socket, answer) = client_async(request, TcpStream::connect(address).await.unwrap()).await?;
    assert_eq!(answer.headers()["sec-websocket-protocol"], "guidon.v1", "no credential is echoed");
    Ok(socket)
}

/// What the server says next: a message, or the code it closes with.
async fn hear(socket: &mut WebSocketStream<TcpStream>) -> Result<Value, u16> {
    let next = tokio::time::timeout(Duration::from_secs(30), socket.next());
    match next.await.expect("the server says something").unwrap().unwrap() {
        Message::Text(text) => Ok(serde_json::from_str(&text).unwrap()),
        Message::Close(frame) => Err(frame.unwrap().code.into()),
        other => panic!("{other:?}"),
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_browser_brings_its_key_as_a_subprotocol_and_is_told_when_it_is_refused() {
    let folder = tempfile::tempdir().unwrap();
    let server = TestServer::start(folder.path()).await;
    let (id, credential) = server.sdk_key("client").await;
    let flags = json!([
        {"kind": "createFlag", "flag": flag("open", true)},
        {"kind": "createFlag", "flag": flag("hidden", false)},
    ]);
    server.change(flags).await;
    let mut socket = open_from_browser(&server, &format!("guidon.v1, guidon.key.{credential}")).await.unwrap();
    let hello = json!({"kind": "hello", "protocol": 1, "instance": "page", "epoch": 1});
    socket.send(Message::text(hello.to_string())).await.unwrap();
    assert_eq!(hear(&mut socket).await.unwrap()["kind"], "welcome");
    let snapshot = hear(&mut socket).await.unwrap();
    let keys = |message: &Value| -> Vec<String> {
        let flags = message["flags"].as_array().unwrap().iter();
        flags.map(|flag| flag["key"].as_str().unwrap().to_owned()).collect()
    };
    assert_eq!((&snapshot["kind"], keys(&snapshot)), (&json!("snapshot"), vec!["open".to_owned()]));
    // A change that it does not see is not told; the next one that it sees is.
    server.change(json!([{"kind": "turnFlagOff", "flag": "hidden"}])).await;
    let seen = server.change(json!([{"kind": "turnFlagOff", "flag": "open"}])).await;
    let patch = hear(&mut socket).await.unwrap();
    assert_eq!((&patch["kind"], keys(&patch)), (&json!("patch"), vec!["open".to_owned()]));
    assert!(patch["revision"].as_str().unwrap().ends_with(&format!(":{seen}")), "{patch}");

    let path = format!("/api/v1/projects/default/environments/development/sdk-keys/{id}");
    let (status, answer) = server.call("DELETE", &path, None).await;
    assert!(status < 300, "{status} {answer}");
    assert_eq!(hear(&mut socket).await, Err(4001));
    for refused in [&credential, "nonsense"] {
        let mut socket = open_from_browser(&server, &format!("guidon.v1, guidon.key.{refused}")).await.unwrap();
        assert_eq!(hear(&mut socket).await, Err(4001), "a page cannot read a handshake's status");
    }
    for without_key in ["guidon.v1", "guidon.key.nonsense"] {
        let Err(Error::Http(answer)) = open_from_browser(&server, without_key).await else { panic!("{without_key}") };
        assert_eq!(answer.status().as_u16(), if without_key == "guidon.v1" { 401 } else { 400 });
    }
    server.stop().await;
}
