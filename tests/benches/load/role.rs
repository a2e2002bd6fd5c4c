//! Processes of this program in other roles: the server under load, and the floor of the push part.

use std::io::{BufRead, BufReader, Read as _, Write as _};
use std::net::{SocketAddr, TcpListener};
use std::process::{Child, Command, Stdio};
use std::time::Instant;

use serde_json::{Value, json};

use crate::support::{TOKEN, TestServer};

/// A process of this program in another role; ended by its id when dropped.
pub struct Role {
    child: Child,
    /// Where it listens.
    pub address: SocketAddr,
}

impl Role {
    pub fn start(arguments: &[&str]) -> Self {
        let program = std::env::current_exe().unwrap();
        let mut child =
            Command::new(program).args(arguments).stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
        let mut line = String::new();
        BufReader::new(child.stdout.as_mut().unwrap()).read_line(&mut line).unwrap();
        Self { address: line.trim().parse().unwrap(), child }
    }

    /// Resident memory in bytes.
    pub fn resident(&self) -> u64 {
        let status = std::fs::read_to_string(format!("/proc/{}/status", self.child.id())).unwrap();
        let line = status.lines().find(|line| line.starts_with("VmRSS:")).unwrap();
        line.split_whitespace().nth(1).unwrap().parse::<u64>().unwrap() * 1024
    }
}

impl Drop for Role {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Serves until its input ends. The limit of one credential's writes is out of the way: all writers here share one.
pub async fn run_server(folder: &str) {
    let arguments = ["--max-writes-per-second", "1000000"];
    let server = TestServer::start_with(std::path::Path::new(folder), "127.0.0.1:0", &arguments).await;
    announce(server.url.trim_start_matches("http://"));
    let _ = tokio::task::spawn_blocking(|| std::io::stdin().read(&mut [0])).await;
    server.stop().await;
}

/// Accepts `count` sockets and one that controls it, again and again. Whenever the control sends a byte, answers it and then
/// writes one text frame of `bytes` bytes to each of the others, straight, in one loop.
pub fn run_floor(count: usize, bytes: usize) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    announce(&listener.local_addr().unwrap().to_string());
    let payload = u16::try_from(bytes - 4).expect("a frame with a length of two bytes");
    let mut frame = vec![0x81, 126];
    frame.extend(payload.to_be_bytes());
    frame.resize(bytes, b'x');
    loop {
        let mut sockets = Vec::new();
        while sockets.len() < count {
            sockets.push(listener.accept().unwrap().0);
        }
        let (mut control, _) = listener.accept().unwrap();
        while control.read_exact(&mut [0]).is_ok() {
            control.write_all(&[1]).unwrap();
            for socket in &mut sockets {
                socket.write_all(&frame).unwrap();
            }
        }
    }
}

fn announce(address: &str) {
    println!("{address}");
    std::io::stdout().flush().unwrap();
}

/// The API of a server in another process. Blocks; for threads of their own.
#[derive(Clone)]
pub struct Remote {
    url: String,
    agent: ureq::Agent,
}

impl Remote {
    pub fn new(address: SocketAddr) -> Self {
        Self { url: format!("http://{address}"), agent: ureq::Agent::new_with_defaults() }
    }

    pub fn call(&self, path: &str, body: &Value) -> Value {
        let url = format!("{}/api/v1/projects/default{path}", self.url);
        let request = self.agent.post(url).header("authorization", format!("Bearer {TOKEN}"));
        request.send_json(body).unwrap().body_mut().read_json().unwrap()
    }

    /// Makes a change in `development`; when its request was sent and when it was acknowledged.
    pub fn change(&self, instructions: Value) -> (Instant, Instant) {
        let body = json!({"environment": "development", "instructions": instructions});
        let sent = Instant::now();
        self.call("/changes", &body);
        (sent, Instant::now())
    }

    /// A credential for server SDKs in `development`.
    pub fn sdk_key(&self) -> String {
        let made = self.call("/environments/development/sdk-keys", &json!({"name": "load"}));
        made["key"].as_str().unwrap().to_owned()
    }

    /// The present value of a metric without labels.
    pub fn metric(&self, name: &str) -> f64 {
        let text = self.agent.get(format!("{}/metrics", self.url)).call().unwrap().body_mut().read_to_string().unwrap();
        let line = text.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(' '));
        line.unwrap_or_else(|| panic!("no metric {name}")).trim().parse().unwrap()
    }
}
