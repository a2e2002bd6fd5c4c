//! Signing in at a real OpenID provider, the npm package `oidc-provider`, from the command line.

#![allow(clippy::print_stderr, reason = "a test that cannot run here says so plainly")]

use std::collections::BTreeMap;
use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use guidon_server::identity::oidc::{challenge_of, random_text};
use serde_json::{Value, json};
use ureq::Agent;
use ureq::http::Request;

use crate::support::people::admin;
use crate::support::terminal::Terminal;
use crate::support::{ServerOptions, ServerProcess, binary};

/// Longest way through the provider's pages.
const MAX_STEPS: usize = 10;

/// The provider, which ends with it.
struct Provider {
    child: Child,
    issuer: String,
}

impl Drop for Provider {
    fn drop(&mut self) {
        // One that has ended already is no matter.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

impl Provider {
    /// Starts the provider; `None`, and a sentence why, where there is no Node.js to run it.
    fn start() -> Option<Self> {
        let runs = |program: &str| Command::new(program).arg("--version").stdout(Stdio::null()).status().is_ok();
        if !runs("node") || !runs("npm") {
            eprintln!("NOT TESTED: signing in at an OpenID provider needs node and npm, which tests/run installs");
            return None;
        }
        let sources = Path::new(env!("CARGO_MANIFEST_DIR")).join("oidc");
        let folder = install(&sources);
        let mut command = Command::new("node");
        command.arg(sources.join("provider.mjs")).arg(folder).stdout(Stdio::piped()).stderr(Stdio::null());
        let mut child = command.spawn().expect("node");
        let mut lines = BufReader::new(child.stdout.take().expect("a pipe")).lines();
        let issuer = lines.find_map(|line| line.ok()?.strip_prefix("listening ").map(str::to_owned));
        std::thread::spawn(move || lines.for_each(drop));
        Some(Self { child, issuer: issuer.expect("a provider that listens") })
    }

    fn server(&self) -> ServerProcess {
        let arguments = ["--oidc-issuer", &self.issuer, "--oidc-client-id", "guidon"].map(str::to_owned).into();
        ServerProcess::start_with(ServerOptions { arguments, ..ServerOptions::default() })
    }
}

/// Installs the package into the target folder, unless it is there.
fn install(sources: &Path) -> PathBuf {
    let target = binary().parent().and_then(Path::parent).expect("target/<profile>/guidon");
    let folder = target.join("tools").join("oidc");
    std::fs::create_dir_all(&folder).expect("a folder");
    let read = |path: PathBuf| std::fs::read(path).unwrap_or_default();
    let lock = "package-lock.json";
    let is_current = read(folder.join(lock)) == read(sources.join(lock));
    if !is_current || !folder.join("node_modules").is_dir() {
        for file in ["package.json", lock] {
            std::fs::copy(sources.join(file), folder.join(file)).expect("a copy");
        }
        let npm = Command::new("npm").args(["ci", "--no-audit", "--no-fund"]).current_dir(&folder).output();
        let npm = npm.expect("npm");
        assert!(npm.status.success(), "npm ci: {}", String::from_utf8_lossy(&npm.stderr));
    }
    folder
}

/// A browser without anything to look at: follows redirects, keeps cookies, and fills the provider's form in.
struct Browser {
    agent: Agent,
    cookies: BTreeMap<String, String>,
}

impl Browser {
    fn new() -> Self {
        let config =
            Agent::config_builder().http_status_as_error(false).max_redirects(0).max_redirects_will_error(false);
        Self { agent: config.build().into(), cookies: BTreeMap::new() }
    }

    /// One request: status, where it leads, and the page.
    fn visit(&mut self, method: &str, url: &str, form: &str) -> (u16, Option<String>, String) {
        let cookies: Vec<String> = self.cookies.iter().map(|(name, value)| format!("{name}={value}")).collect();
        let request = Request::builder().method(method).uri(url).header("cookie", cookies.join("; "));
        let request = request.header("content-type", "application/x-www-form-urlencoded").body(form.to_owned());
        let mut answer = self.agent.run(request.unwrap()).expect("an answer");
        for set in answer.headers().get_all("set-cookie") {
            let pair = set.to_str().unwrap().split(';').next().unwrap();
            let (name, value) = pair.split_once('=').unwrap();
            self.cookies.insert(name.to_owned(), value.to_owned());
        }
        let location = answer.headers().get("location").map(|location| location.to_str().unwrap().to_owned());
        (answer.status().as_u16(), location, answer.body_mut().read_to_string().unwrap())
    }

    /// Signs in at the provider and answers where it sends the browser back to.
    fn sign_in(&mut self, issuer: &str, authorize_url: &str, login: &str) -> String {
        let mut url = authorize_url.to_owned();
        for _ in 0..MAX_STEPS {
            let is_form = url.contains("/interaction/");
            let (status, location, page) = match is_form {
                true => self.visit("POST", &format!("{url}/login"), &format!("login={login}")),
                false => self.visit("GET", &url, ""),
            };
            let next = location.unwrap_or_else(|| panic!("{url} leads nowhere: {status} {page}"));
            url = if next.starts_with('/') { format!("{issuer}{next}") } else { next };
            if url.starts_with("http://127.0.0.1:") && url.contains("/callback?") {
                return url;
            }
        }
        panic!("the provider's pages do not end: {url}");
    }
}

/// `guidon login --oidc`, which waits for a browser.
struct Waiting {
    child: Child,
    url: String,
}

impl Waiting {
    fn start(terminal: &Terminal) -> Self {
        let mut child = terminal.start(&["--json", "login", "--oidc", "--no-browser"], &[]);
        let mut lines = BufReader::new(child.stderr.take().expect("a pipe")).lines();
        let url =
            lines.find_map(|line| line.ok().map(|line| line.trim().to_owned()).filter(|line| line.starts_with("http")));
        std::thread::spawn(move || lines.for_each(drop));
        Self { child, url: url.expect("where the browser is to go") }
    }

    /// Lets the browser come back and answers what the command printed, and the page.
    fn finish(self, callback: &str) -> (Option<Value>, String) {
        let (_, _, page) = Browser::new().visit("GET", callback, "");
        let output = self.child.wait_with_output().unwrap();
        (output.status.success().then(|| serde_json::from_slice(&output.stdout).expect("JSON")), page)
    }
}

fn parameter(url: &str, name: &str) -> String {
    let query = url.split_once('?').expect("a query").1;
    let mut pairs = query.split('&').filter_map(|pair| pair.split_once('='));
    pairs.find(|(key, _)| *key == name).expect("the parameter").1.to_owned()
}

#[test]
fn people_sign_in_at_their_provider_with_the_roles_of_their_groups() {
    let Some(provider) = Provider::start() else { return };
    let server = provider.server();
    let admin = admin(&server);
    let providers = server.client.with_token(None).get("/api/v1/session/providers").ok();
    assert_eq!(providers["providers"][0]["issuer"], json!(provider.issuer));
    admin.post("/api/v1/roles", &json!({"group": "release", "role": "releaseManager"})).ok();

    let terminal = Terminal::new(&server.client.url);
    let waiting = Waiting::start(&terminal);
    let callback = Browser::new().sign_in(&provider.issuer, &waiting.url, "ada");
    // A page of somebody else's sends the browser back with a code of its own.
    let forged = callback.replace(&parameter(&callback, "state"), "another");
    let (status, _, page) = Browser::new().visit("GET", &forged, "");
    assert_eq!(status, 400, "{page}");
    let (signed_in, page) = waiting.finish(&callback);
    let account = signed_in.expect("a session")["account"].clone();
    assert!(page.contains("You are signed in"), "{page}");
    let me = terminal.json(&["whoami"], &[]);
    assert_eq!((&me["principal"], &me["name"]), (&account, &json!("Ada Lovelace")));
    assert_eq!(me["roles"][0]["role"], "releaseManager", "{me}");
    assert!(me["session"]["factorAt"].is_u64(), "the provider saw a one-time code: {me}");
    let listed = admin.get(&format!("/api/v1/accounts/{}", account.as_str().unwrap())).ok();
    assert_eq!((&listed["state"], &listed["provider"]), (&json!("active"), &json!(provider.issuer)));

    let second = Waiting::start(&terminal);
    let callback = Browser::new().sign_in(&provider.issuer, &second.url, "ada");
    assert_eq!(second.finish(&callback).0.expect("a session")["account"], account, "the same person again");
    let grace = Terminal::new(&server.client.url);
    let waiting = Waiting::start(&grace);
    let callback = Browser::new().sign_in(&provider.issuer, &waiting.url, "grace");
    waiting.finish(&callback).0.expect("a session");
    let me = grace.json(&["whoami"], &[]);
    assert_eq!((&me["roles"], &me["session"]["factorAt"]), (&json!([]), &json!(null)), "no role, and no factor");

    admin.post(&format!("/api/v1/accounts/{}/disable", account.as_str().unwrap()), &json!({})).ok();
    assert_eq!(terminal.run(&["whoami"], &[]).status.code(), Some(4));
    let shut_out = Waiting::start(&terminal);
    let callback = Browser::new().sign_in(&provider.issuer, &shut_out.url, "ada");
    let (session, page) = shut_out.finish(&callback);
    assert!(session.is_none() && page.contains("You are not signed in"), "{page}");
}

#[test]
fn a_stolen_code_or_state_is_worth_nothing() {
    let Some(provider) = Provider::start() else { return };
    let server = provider.server();
    let stranger = server.client.with_token(None);
    let begin = |verifier: &str| {
        let body = json!({"redirectUri": "http://127.0.0.1:9/callback", "codeChallenge": challenge_of(verifier)});
        let begun = stranger.post("/api/v1/session/oidc", &body).ok();
        (begun["authorizeUrl"].as_str().unwrap().to_owned(), begun["state"].as_str().unwrap().to_owned())
    };
    let finish = |state: &str, code: &str, verifier: &str| {
        stranger.post("/api/v1/session/oidc/finish", &json!({"state": state, "code": code, "codeVerifier": verifier}))
    };
    let victim = random_text();
    let (url, state) = begin(&victim);
    let code = parameter(&Browser::new().sign_in(&provider.issuer, &url, "ada"), "code");
    let thief = random_text();
    // With a sign-in of the thief's own: the provider made the code for another verifier.
    let (_, own_state) = begin(&thief);
    assert_eq!(finish(&own_state, &code, &thief).problem()["code"], "unauthorized");
    // With the victim's state: the server knows the verifier's challenge.
    let (url, state_two) = begin(&victim);
    let code_two = parameter(&Browser::new().sign_in(&provider.issuer, &url, "ada"), "code");
    assert_eq!(finish(&state_two, &code_two, &thief).problem()["code"], "unauthorized");
    assert_eq!(finish(&state_two, &code_two, &victim).status, 401, "a state is used once");
    assert_eq!(finish("no-such-state", &code, &victim).status, 401);
    // None of it kept the victim from coming in, once.
    assert_eq!(finish(&state, &code, &victim).status, 200);
    assert_eq!(finish(&state, &code, &victim).status, 401);
    let elsewhere = json!({"redirectUri": "https://evil.example/callback", "codeChallenge": challenge_of(&thief)});
    assert_eq!(stranger.post("/api/v1/session/oidc", &elsewhere).problem()["errors"][0]["pointer"], "/redirectUri");
    assert_eq!(stranger.post("/api/v1/session/oidc/finish", &json!({"state": "x"})).status, 400);
}
