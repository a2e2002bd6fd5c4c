//! People: invited, with a second factor, signed in.

use guidon_server::clock::{Clock, SystemClock};
use parking_lot::Mutex;
use serde_json::{Value, json};
use totp_rs::{Algorithm, Builder, Secret};

use super::{ServerProcess, TestClient};

/// The password of everybody.
pub const PASSWORD: &str = "quiet-otter-sings-92";
/// Seconds a one-time code stands for.
const STEP_S: u64 = 30;

/// A person with an account, an authenticator app and recovery codes.
pub struct Person {
    /// Id of the account.
    pub id: String,
    /// Its name.
    pub name: String,
    /// Its password.
    pub password: String,
    /// The secret of its one-time codes.
    pub secret: String,
    /// Presents the last session; no credential before the first sign-in.
    pub client: TestClient,
    factor: Mutex<Factor>,
}

struct Factor {
    used_step: u64,
    recovery_codes: Vec<String>,
}

impl Person {
    /// Accepts an invitation.
    #[track_caller]
    pub fn claim(client: &TestClient, invitation: &str, password: &str) -> Self {
        let client = client.with_token(None);
        let begun = client.post("/api/v1/session/claim", &json!({ "invitation": invitation })).ok();
        let secret = begun["secret"].as_str().expect("a secret").to_owned();
        // The step before, so that the codes of this one and the next are still good.
        let step = present_step() - 1;
        let finish = json!({"invitation": invitation, "password": password, "code": code_of(&secret, step)});
        let claimed = client.post("/api/v1/session/claim/finish", &finish).ok();
        let codes = claimed["recoveryCodes"].as_array().expect("recovery codes").iter();
        let recovery_codes = codes.filter_map(|code| code.as_str().map(str::to_owned)).collect();
        let text = |value: &Value| value.as_str().expect("a text").to_owned();
        Self {
            id: text(&claimed["account"]),
            name: text(&begun["name"]),
            password: password.to_owned(),
            secret,
            client,
            factor: Mutex::new(Factor { used_step: step, recovery_codes }),
        }
    }

    /// A code that was not used yet: of the authenticator app if it has one that counts, else a recovery code.
    #[track_caller]
    pub fn code(&self) -> String {
        let mut factor = self.factor.lock();
        let (next, present) = (factor.used_step + 1, present_step());
        if next <= present + 1 {
            factor.used_step = next.max(present);
            return code_of(&self.secret, factor.used_step);
        }
        factor.recovery_codes.pop().expect("a recovery code that is left")
    }

    /// The recovery codes that are left.
    pub fn recovery_codes(&self) -> Vec<String> {
        self.factor.lock().recovery_codes.clone()
    }

    /// Signs in; the second factor is fresh. The person's earlier sessions go on.
    #[track_caller]
    pub fn sign_in(&self) -> TestClient {
        let body = json!({"name": self.name, "password": self.password, "code": self.code()});
        let session = self.client.with_token(None).post("/api/v1/session", &body).ok();
        self.client.with_token(Some(session["credential"].as_str().expect("a credential")))
    }

    /// As [`Self::sign_in`], as the command line does it, to which the session is bound: its credential.
    #[track_caller]
    pub fn command_line_session(&self) -> String {
        let body = json!({"name": self.name, "password": self.password, "code": self.code()}).to_string();
        let agent = concat!("guidon-cli/", env!("CARGO_PKG_VERSION"));
        let headers = [("content-type", "application/json"), ("user-agent", agent)];
        let session = self.client.with_token(None).send("POST", "/api/v1/session", &headers, body.as_bytes()).ok();
        session["credential"].as_str().expect("a credential").to_owned()
    }

    /// As [`Self::sign_in`], and keeps the session in `client`.
    #[track_caller]
    pub fn signed_in(mut self) -> Self {
        self.client = self.sign_in();
        self
    }
}

/// Makes the first administrator, with the server's own token, and signs in.
#[track_caller]
pub fn first_administrator(operator: &TestClient) -> Person {
    let invited = operator.post("/api/v1/accounts", &json!({"name": "admin"})).ok();
    operator.post("/api/v1/roles", &json!({"principal": invited["id"], "role": "administrator"})).ok();
    Person::claim(operator, invited["invitation"].as_str().expect("an invitation"), PASSWORD).signed_in()
}

/// As [`first_administrator`], for whoever needs no more than what an administrator may do.
#[track_caller]
pub fn admin(server: &ServerProcess) -> TestClient {
    first_administrator(&server.client).client
}

/// Invites a person, gives the person roles in all projects and tiers, and signs in.
#[track_caller]
pub fn person(admin: &TestClient, name: &str, roles: &[&str]) -> Person {
    let invited = admin.post("/api/v1/accounts", &json!({ "name": name })).ok();
    for role in roles {
        admin.post("/api/v1/roles", &json!({"principal": invited["id"], "role": role})).ok();
    }
    Person::claim(admin, invited["invitation"].as_str().expect("an invitation"), PASSWORD).signed_in()
}

/// The code of a secret at a step.
pub fn code_of(secret: &str, step: u64) -> String {
    let secret = Secret::try_from_base32(secret).expect("a secret in base 32");
    let totp = Builder::new()
        .with_algorithm(Algorithm::SHA1)
        .with_digits(6)
        .with_step_duration(STEP_S)
        .with_secret(secret.as_bytes())
        .build_noncompliant();
    totp.generate(step * STEP_S).to_string()
}

/// The step that codes are of now.
pub fn present_step() -> u64 {
    SystemClock.now_ms() / 1_000 / STEP_S
}
