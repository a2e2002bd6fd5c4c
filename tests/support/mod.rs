//! Servers for tests: one in this process ([`TestServer`]), and the binary as a process of its own ([`ServerProcess`]).

mod client;
pub mod people;
mod process;
pub mod terminal;

use std::path::Path;
use std::time::Duration;

use clap::Parser;
use guidon_sdk::Client;
use guidon_server::app::Embedded;
use guidon_server::config::Config;
use guidon_server::shutdown::Shutdown;
use serde_json::{Value, json};
use tokio::net::TcpListener;
use tokio::task::JoinHandle;

pub use client::{Answer, TestClient};
pub use process::{ServerOptions, ServerProcess, binary};

/// The administrator's token of every test server.
pub const TOKEN: &str = "gdn_admin_0123456789abcdefghijklmnopqrstuvwxyzABCDEFG";

/// A server on the embedded store.
pub struct TestServer {
    /// Where it is, as `http://127.0.0.1:…`.
    pub url: String,
    shutdown: Shutdown,
    serving: JoinHandle<()>,
}

#[derive(Parser)]
struct Command {
    #[command(flatten)]
    config: Config,
}

impl TestServer {
    /// Starts a server on `folder` and any port.
    pub async fn start(folder: &Path) -> Self {
        Self::start_at(folder, "127.0.0.1:0").await
    }

    /// Starts a server on `folder` and `address`.
    pub async fn start_at(folder: &Path, address: &str) -> Self {
        Self::start_with(folder, address, &[]).await
    }

    /// Starts a server on `folder` and `address` with further arguments of `guidon serve`.
    pub async fn start_with(folder: &Path, address: &str, arguments: &[&str]) -> Self {
        let usual = ["guidon", "--data", folder.to_str().unwrap(), "--shutdown-timeout", "5"];
        let config = Command::try_parse_from(usual.iter().chain(arguments)).unwrap().config;
        let listener = TcpListener::bind(address).await.unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap());
        let embedded = Box::pin(Embedded::open(&config, Some(TOKEN), None)).await.unwrap();
        let shutdown = embedded.parts.shutdown.clone();
        let (app, store) = embedded.into_app(&config);
        let serving = tokio::spawn(async move {
            app.serve(listener).await;
            tokio::task::spawn_blocking(move || store.close()).await.unwrap();
        });
        Self { url, shutdown, serving }
    }

    /// Stops the server and waits until its folder is free.
    pub async fn stop(self) {
        self.shutdown.begin();
        self.serving.await.unwrap();
    }

    /// Sends a request to the API as the administrator; the body of what is answered, whatever the status.
    pub async fn call(&self, method: &str, path: &str, body: Option<Value>) -> (u16, String) {
        let request = http::Request::builder()
            .method(method)
            .uri(format!("{}{path}", self.url))
            .header("authorization", format!("Bearer {TOKEN}"))
            .header("content-type", "application/json")
            .body(body.map(|body| body.to_string()).unwrap_or_default())
            .unwrap();
        tokio::task::spawn_blocking(move || {
            let agent = ureq::Agent::config_builder().http_status_as_error(false).build().new_agent();
            let mut answer = agent.run(request).unwrap();
            (answer.status().as_u16(), answer.body_mut().read_to_string().unwrap())
        })
        .await
        .unwrap()
    }

    /// Makes a change in `development` of the default project and answers the revision.
    pub async fn change(&self, instructions: Value) -> u64 {
        let body = json!({"environment": "development", "comment": "test", "instructions": instructions});
        let (status, answer) = self.call("POST", "/api/v1/projects/default/changes", Some(body)).await;
        assert!(status < 300, "{status} {answer}");
        serde_json::from_str::<Value>(&answer).unwrap()["revision"].as_u64().unwrap()
    }

    /// Makes an SDK key for `development` of the default project: its id and credential.
    pub async fn sdk_key(&self, audience: &str) -> (String, String) {
        let path = "/api/v1/projects/default/environments/development/sdk-keys";
        let (status, answer) = self.call("POST", path, Some(json!({"name": "test", "audience": audience}))).await;
        assert!(status < 300, "{status} {answer}");
        let answer: Value = serde_json::from_str(&answer).unwrap();
        let text = |name: &str| answer[name].as_str().unwrap_or_else(|| panic!("{answer}")).to_owned();
        (text("id"), text("key"))
    }
}

/// A boolean flag by an AI and a person, on in `development`.
pub fn flag(key: &str, client_side: bool) -> Value {
    json!({
        "key": key, "kind": "boolean", "clientSide": client_side,
        "variations": [
            {"key": "ai", "value": true, "provenance": {"by": "ai"}},
            {"key": "baseline", "value": false, "provenance": {"by": "human"}},
        ],
        "environments": {"development": {"on": true, "offVariation": "baseline", "fallthrough": {"variation": "ai"}}},
    })
}

/// Waits until the client serves `revision` or a later one.
pub async fn reaches(client: &Client, revision: u64) {
    let reached = async {
        while client.revision().is_none_or(|has| has.number < revision) {
            tokio::time::sleep(Duration::from_millis(2)).await;
        }
    };
    tokio::time::timeout(Duration::from_secs(30), reached).await.expect("the client follows");
}
