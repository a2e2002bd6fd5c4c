//! Frames on the push stream: garbage, wrong order, huge, deeply nested.

use std::time::Duration;

use futures_util::{SinkExt, StreamExt};
use guidon_sdk::protocol::{ClientMessage, Hello, Revision, STREAM_PATH};
use proptest::prelude::*;
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio_tungstenite::tungstenite::client::IntoClientRequest;
use tokio_tungstenite::tungstenite::protocol::Message;
use tokio_tungstenite::{WebSocketStream, client_async};

use super::{check_alive, json, runner, server};
use crate::counts::report;
use crate::support::ServerProcess;

/// How long the server may take to react to one frame; past it the connection is left.
const PATIENCE: Duration = Duration::from_millis(200);

type Socket = WebSocketStream<TcpStream>;

async fn open(server: &ServerProcess, credential: &str) -> Socket {
    let address = server.client.url.strip_prefix("http://").expect("a plain address");
    let stream = TcpStream::connect(address).await.expect("the server listens");
    let mut request = format!("ws://{address}{STREAM_PATH}").into_client_request().expect("a request");
    let authorization = format!("Bearer {credential}").parse().expect("a header");
    request.headers_mut().insert("authorization", authorization);
    client_async(request, stream).await.expect("a websocket").0
}

fn value(message: &ClientMessage) -> Value {
    serde_json::to_value(message).expect("messages are JSON")
}

fn hello() -> Value {
    value(&ClientMessage::Hello(Hello { protocol: 1, instance: "fuzz".to_owned(), epoch: 1, ..Hello::default() }))
}

/// One frame after another; whatever comes back, the server ends the connection or goes on with it.
async fn throw(server: &ServerProcess, credential: &str, frames: &[Message]) {
    let mut socket = open(server, credential).await;
    for frame in frames {
        if socket.send(frame.clone()).await.is_err() {
            return;
        }
    }
    while let Ok(Some(Ok(_))) = tokio::time::timeout(PATIENCE, socket.next()).await {}
}

fn frame() -> impl Strategy<Value = Message> {
    let exposure = json!({"flag": "f", "unit": "u", "assigned": "on", "delivered": "on", "cause": "normal", "reason": "STATIC",
        "slot": 1, "revision": 1, "at": 1});
    let batch =
        json!({"kind": "exposures", "instance": "fuzz", "epoch": 1, "batch": 1, "dropped": 0, "items": [exposure]});
    let revision = Revision { history: "h".to_owned(), number: 1 };
    let text = |value: Value| Message::text(value.to_string());
    prop_oneof![
        3 => Just(text(hello())),
        3 => json::replaced(hello()).prop_map(text),
        3 => json::replaced(batch).prop_map(text),
        2 => json::replaced(value(&ClientMessage::Applied { revision })).prop_map(text),
        1 => Just(text(value(&ClientMessage::Resync))),
        1 => Just(text(value(&ClientMessage::Heartbeat { at: None }))),
        1 => json::value().prop_map(text),
        1 => ".{0,200}".prop_map(Message::text),
        1 => prop::collection::vec(any::<u8>(), 0..200).prop_map(Message::binary),
        1 => prop::collection::vec(any::<u8>(), 0..125).prop_map(|bytes| Message::Ping(bytes.into())),
    ]
}

/// Bytes where frames should be, after a right handshake.
async fn throw_raw(server: &ServerProcess, credential: &str, bytes: &[u8]) {
    let mut stream = open(server, credential).await.into_inner();
    if stream.write_all(bytes).await.is_err() {
        return;
    }
    let mut buffer = [0; 1024];
    while matches!(tokio::time::timeout(PATIENCE, stream.read(&mut buffer)).await, Ok(Ok(read)) if read > 0) {}
}

#[test]
fn no_frames_upset_the_server() {
    let server = server();
    server.client.create_flag("f");
    let credential = server.client.create_sdk_key("development");
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
    let huge = [
        vec![Message::text("[".repeat(600_000))],
        vec![Message::text(hello().to_string()), Message::text("{\"a\":".repeat(100_000))],
        vec![Message::text("x".repeat(4 << 20))],
        vec![Message::text(hello().to_string()), Message::binary(vec![0; 4 << 20])],
        vec![Message::text(hello().to_string()); 50],
        vec![Message::Ping(vec![0; 125].into()); 5_000],
    ];
    for frames in &huge {
        runtime.block_on(throw(&server, &credential, frames));
        check_alive(&server);
    }
    let (mut runner, cases) = runner(60, 5_000);
    let sequences = (prop::collection::vec(frame(), 1..8), prop::collection::vec(any::<u8>(), 1..300));
    let outcome = runner.run(&sequences, |(frames, bytes)| {
        runtime.block_on(async {
            tokio::join!(throw(&server, &credential, &frames), throw_raw(&server, &credential, &bytes));
        });
        Ok(())
    });
    outcome.unwrap_or_else(|failure| panic!("{failure}"));
    let peak = check_alive(&server);
    report(&format!("frames: {} sequences made by hand, {cases} random, peak memory {peak:?} KiB", huge.len()));
}
