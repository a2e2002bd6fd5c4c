//! Starts, kills and restarts the binary.

use std::io::{BufRead, BufReader, Read, Write};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::{Arc, OnceLock};
use std::time::{Duration, Instant};

use parking_lot::Mutex;

use super::TestClient;

/// The token every test server is started with.
const TOKEN: &str = "gdn-test-administrator-token";
/// How long a server may take until it answers.
const START_LIMIT: Duration = Duration::from_secs(60);

/// How to start a server.
#[derive(Clone, Default)]
pub struct ServerOptions {
    /// Further arguments of `guidon serve`.
    pub arguments: Vec<String>,
    /// Further environment variables.
    pub variables: Vec<(String, String)>,
}

/// A running `guidon serve` with a folder of its own, which ends with it.
pub struct ServerProcess {
    child: Child,
    folder: tempfile::TempDir,
    options: ServerOptions,
    port: u16,
    log: Arc<Mutex<Vec<u8>>>,
    /// Calls it as the administrator.
    pub client: TestClient,
}

impl ServerProcess {
    /// Starts a server on a free port and waits until it is ready.
    #[track_caller]
    pub fn start() -> Self {
        Self::start_with(ServerOptions::default())
    }

    /// Starts a server with options and waits until it is ready.
    #[track_caller]
    pub fn start_with(options: ServerOptions) -> Self {
        let folder = tempfile::tempdir().expect("a temporary folder");
        let log = Arc::default();
        let (child, url) = spawn(folder.path(), 0, &options, &log);
        let port = url.rsplit(':').next().and_then(|port| port.parse().ok()).expect("a port");
        let client = TestClient::new(&url, Some(TOKEN));
        wait_until_ready(&client);
        Self { child, folder, options, port, log, client }
    }

    /// Where it keeps its data.
    pub fn data(&self) -> PathBuf {
        self.folder.path().join("data")
    }

    /// What it wrote to standard error since its first start.
    pub fn log(&self) -> String {
        String::from_utf8_lossy(&self.log.lock()).into_owned()
    }

    /// Its process id.
    pub fn id(&self) -> u32 {
        self.child.id()
    }

    /// Ends it without warning, as a crash would.
    pub fn kill(&mut self) {
        self.child.kill().expect("a running server");
        self.child.wait().expect("an ended server");
    }

    /// Asks it to stop, waits until it has, and answers how.
    pub fn stop(&mut self) -> ExitStatus {
        let id = self.child.id().to_string();
        let sent = Command::new("kill").args(["-TERM", &id]).status().expect("kill");
        assert!(sent.success());
        self.child.wait().expect("an ended server")
    }

    /// Starts it again, after it was killed or stopped, on the same folder and port, and waits until it is ready.
    #[track_caller]
    pub fn restart(&mut self) {
        (self.child, _) = spawn(self.folder.path(), self.port, &self.options, &self.log);
        wait_until_ready(&self.client);
    }
}

impl Drop for ServerProcess {
    fn drop(&mut self) {
        // One that has ended already is no matter.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// The `guidon` binary beside this test, built first if need be.
pub fn binary() -> &'static Path {
    static BINARY: OnceLock<PathBuf> = OnceLock::new();
    BINARY.get_or_init(|| {
        let test = std::env::current_exe().expect("the test's own path");
        let folder = test.parent().and_then(Path::parent).expect("target/<profile>/deps/<test>");
        let mut build = Command::new(std::env::var("CARGO").unwrap_or_else(|_| "cargo".to_owned()));
        // The whole workspace, as the tests were built: features are the same, so that nothing is built a second time.
        build.args(["build", "--quiet", "--workspace", "--bins"]);
        if folder.ends_with("release") {
            build.arg("--release");
        }
        build.current_dir(env!("CARGO_MANIFEST_DIR"));
        assert!(build.status().expect("cargo").success(), "the server does not build");
        folder.join("guidon")
    })
}

#[track_caller]
fn spawn(folder: &Path, port: u16, options: &ServerOptions, log: &Arc<Mutex<Vec<u8>>>) -> (Child, String) {
    let mut child = Command::new(binary())
        .args(["serve", "--listen", &format!("127.0.0.1:{port}"), "--data"])
        .arg(folder.join("data"))
        .args(&options.arguments)
        .env("GUIDON_ADMIN_TOKEN", TOKEN)
        .envs(options.variables.iter().cloned())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .expect("a server process");
    let mut first = String::new();
    let mut stdout = BufReader::new(child.stdout.take().expect("a pipe"));
    let read = stdout.read_line(&mut first);
    let mut stderr = child.stderr.take().expect("a pipe");
    let Some(url) = first.trim().strip_prefix("listening ").filter(|_| read.is_ok()) else {
        let mut said = String::new();
        let _ = stderr.read_to_string(&mut said);
        let _ = child.wait();
        panic!("the server did not start: {said}");
    };
    let url = url.to_owned();
    // Both pipes are read to their ends, so that the server never waits for a reader.
    std::thread::spawn(move || std::io::copy(&mut stdout, &mut std::io::sink()));
    let (log, chatty) = (Arc::clone(log), options.variables.iter().any(|(name, _)| name == "GUIDON_LOG"));
    std::thread::spawn(move || {
        let mut buffer = [0; 8_192];
        while let Ok(length @ 1..) = stderr.read(&mut buffer) {
            log.lock().extend_from_slice(&buffer[..length]);
            if !chatty {
                // A test that fails shows it.
                let _ = std::io::stderr().write_all(&buffer[..length]);
            }
        }
    });
    (child, url)
}

#[track_caller]
fn wait_until_ready(client: &TestClient) {
    let started = Instant::now();
    loop {
        match client.try_send("GET", "/readyz", &[], b"") {
            Ok(answer) if answer.status == 200 => return,
            last if started.elapsed() > START_LIMIT => panic!("the server is not ready: {last:?}"),
            _ => std::thread::sleep(Duration::from_millis(20)),
        }
    }
}
