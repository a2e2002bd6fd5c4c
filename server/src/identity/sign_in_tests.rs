//! Signing in over a vault in memory, with time told by the test and the audit trail read back.

use parking_lot::Mutex;

use super::*;
use crate::clock::ManualClock;
use crate::identity::password::Passwords;
use crate::identity::sessions::Door;
use crate::identity::totp::TotpSecret;
use crate::vault::MemoryVault;

const START: u64 = 1_800_000_000_000;
const PASSWORD: &str = "quiet-otter-sings-92";

#[derive(Default)]
struct Trail(Mutex<Vec<Event>>);

impl AuditLog for Trail {
    fn record(&self, event: Event) {
        self.0.lock().push(event);
    }
}

struct Bench {
    sign_in: SignIn,
    clock: Arc<ManualClock>,
    trail: Arc<Trail>,
    account: String,
    secret: TotpSecret,
    recovery_codes: Vec<String>,
}

fn caller(address: &str) -> Caller<'static> {
    let place = Place { door: Door::Cli, user_agent: "guidon-cli", address: address.parse().unwrap() };
    Caller { place, origin_id: "origin-1", record: None }
}

fn here() -> Caller<'static> {
    caller("192.0.2.7")
}

impl Bench {
    async fn new() -> Self {
        let vault = Arc::new(MemoryVault::new());
        let (clock, trail) = (Arc::new(ManualClock::new(START)), Arc::new(Trail::default()));
        let sessions = Sessions::open(Arc::clone(&vault) as _, START).await.unwrap();
        let accounts = Accounts::open(vault, sessions.clone(), Passwords::quick()).unwrap();
        let sign_in = SignIn::new(accounts, sessions, Arc::clone(&clock) as _, Arc::clone(&trail) as _);
        let invited = sign_in.accounts().invite("ada", None, START).await.unwrap();
        let invitation = invited.credential.reveal();
        let enrolment = sign_in.accounts().begin_claim(invitation, START).unwrap();
        let secret = TotpSecret::from_base32(&enrolment.secret).unwrap();
        let claimed = sign_in.finish_claim(invitation, PASSWORD, &secret.code_at(START), here()).await.unwrap();
        clock.advance_ms(60_000);
        let Claimed { account, recovery_codes } = claimed;
        Self { sign_in, clock, trail, account, secret, recovery_codes }
    }

    fn code(&self) -> String {
        self.secret.code_at(self.clock.now_ms())
    }

    async fn attempt(&self, name: &str, password: &str, code: &str, from: Caller<'_>) -> Result<SignedIn, SignInError> {
        self.sign_in.sign_in(Attempt { name, password, code }, from, &|_| true).await
    }

    fn events(&self) -> Vec<(EventKind, Option<String>)> {
        self.trail.0.lock().iter().map(|event| (event.kind, event.actor_id.clone())).collect()
    }
}

#[tokio::test]
async fn signing_in_out_and_proving_a_factor_are_on_record() {
    let bench = Bench::new().await;
    let signed_in = bench.attempt("Ada", PASSWORD, &bench.code(), here()).await.unwrap();
    assert_eq!(signed_in.session.factor_at, Some(bench.clock.now_ms()));
    let hash = signed_in.credential.hash();
    let again = bench.sign_in.prove_factor(&hash, &bench.code(), here()).await;
    assert!(matches!(again, Err(SignInError::Refused)), "the code is used up");
    bench.clock.advance_ms(60_000);
    let away = caller("198.51.100.9");
    let proven = bench.sign_in.prove_factor(&hash, &bench.code(), away).await.unwrap();
    assert_eq!(proven.factor_at, Some(bench.clock.now_ms()));
    assert!(bench.sign_in.sign_out(&hash, here()).await.unwrap());
    assert!(!bench.sign_in.sign_out(&hash, here()).await.unwrap());
    let over = bench.sign_in.prove_factor(&hash, &bench.code(), here()).await;
    assert!(matches!(over, Err(SignInError::NoSession)));
    let account = Some(bench.account.clone());
    let kinds = [
        EventKind::AccountClaimed,
        EventKind::SignedIn,
        EventKind::FactorFailed,
        EventKind::FactorProven,
        EventKind::SignedOut,
    ];
    assert_eq!(bench.events(), kinds.map(|kind| (kind, account.clone())));
    let trail = serde_json::to_string(&*bench.trail.0.lock()).unwrap();
    for secret in ["ada", "Ada", PASSWORD, signed_in.credential.reveal(), "192.0.2.7"] {
        assert!(!trail.contains(secret), "{secret} in {trail}");
    }
}

#[tokio::test]
async fn whatever_is_wrong_the_answer_is_the_same() {
    let bench = Bench::new().await;
    let code = bench.code();
    let other = bench.secret.code_at(START + 3_600_000);
    let wrong = [("grace", PASSWORD, code.as_str()), ("ada", "quiet-otter-sings-93", &code), ("ada", PASSWORD, &other)];
    for (name, password, code) in wrong {
        let refused = bench.attempt(name, password, code, here()).await.unwrap_err();
        assert_eq!(refused.to_string(), SignInError::Refused.to_string());
    }
    let account = Some(bench.account.clone());
    let failed: Vec<_> = bench.events().split_off(1);
    assert_eq!(failed, [None, account.clone(), account].map(|account| (EventKind::SignInFailed, account)));
    bench.attempt("ada", PASSWORD, &code, here()).await.expect("a wrong password uses no code up");
}

#[tokio::test]
async fn guessing_is_slowed_without_a_look_at_the_password() {
    let bench = Bench::new().await;
    let mut waited = None;
    for _ in 0..10 {
        match bench.attempt("ada", "wrong wrong wrong", "000000", here()).await {
            Err(SignInError::Refused) => {}
            Err(SignInError::Wait { seconds }) => waited = waited.or(Some(seconds)),
            other => panic!("{other:?}"),
        }
    }
    assert_eq!(waited, Some(1));
    let right = bench.attempt("ada", PASSWORD, &bench.code(), here()).await;
    assert!(matches!(right, Err(SignInError::Wait { seconds: 1 })), "right or wrong, it waits");
    bench.attempt("ada", PASSWORD, &bench.code(), caller("198.51.100.9")).await.expect("from elsewhere it does not");
    bench.clock.advance_ms(60_000);
    bench.attempt("ada", PASSWORD, &bench.code(), here()).await.expect("once the wait is over");
}

#[tokio::test]
async fn a_recovery_code_signs_in_once() {
    let bench = Bench::new().await;
    let code = &bench.recovery_codes[0];
    let signed_in = bench.attempt("ada", PASSWORD, code, here()).await.unwrap();
    assert_eq!(signed_in.recovery_codes_left, Some(9));
    assert!(matches!(bench.attempt("ada", PASSWORD, code, here()).await, Err(SignInError::Refused)));
}

#[tokio::test]
async fn an_erased_or_reset_account_has_no_sessions() {
    let bench = Bench::new().await;
    let signed_in = bench.attempt("ada", PASSWORD, &bench.code(), here()).await.unwrap();
    let hash = signed_in.credential.hash();
    let verified = bench.sign_in.accounts().verify_password("ada", PASSWORD).await.unwrap().unwrap();
    bench.sign_in.accounts().erase(&bench.account).await.unwrap();
    assert!(bench.sign_in.sessions().check(&hash, here().place, bench.clock.now_ms()).is_none());
    // A sign-in that was under way.
    let new = NewSession { account: bench.account.clone(), groups: Vec::new(), factor_at: None };
    let late = bench.sign_in.open_session(&verified, new, None, here()).await;
    assert!(matches!(late, Err(SignInError::Refused)));
    assert!(bench.sign_in.sessions().list_of(&bench.account, bench.clock.now_ms()).is_empty());
}

#[tokio::test]
async fn a_person_of_a_provider_signs_in_with_groups_and_the_providers_factor() {
    let bench = Bench::new().await;
    let now = bench.clock.now_ms();
    let claims = Claims {
        issuer: "https://id.example".to_owned(),
        subject: "42".to_owned(),
        name: "Grace".to_owned(),
        email: None,
        groups: vec!["release".to_owned()],
        factor: true,
        factor_at: Some(now - 30_000),
    };
    let signed_in = bench.sign_in.sign_in_of_provider(&claims, here(), &|_| true).await.unwrap();
    assert_eq!(signed_in.session.groups, ["release"]);
    assert_eq!(signed_in.session.factor_at, Some(now - 30_000));
    let proof = bench.sign_in.prove_factor(&signed_in.credential.hash(), "123456", here()).await;
    assert!(matches!(proof, Err(SignInError::OfProvider)));
    let shut_out = bench.sign_in.sign_in_of_provider(&claims, here(), &|_| false).await;
    assert!(matches!(shut_out, Err(SignInError::ShutOut)));
    let later = Claims { factor_at: None, ..claims };
    let again = bench.sign_in.sign_in_of_provider(&later, here(), &|_| true).await.unwrap();
    assert_eq!((again.session.account, again.session.factor_at), (signed_in.session.account, None));
}
