//! Accounts over a vault in memory, and what an erasure leaves on the disk.

use super::*;
use crate::identity::sessions::{Door, NewSession, Place};
use crate::vault::{FileVault, MasterKey, MemoryVault};

const START: u64 = 1_800_000_000_000;
const HOUR: u64 = 60 * 60 * 1000;
const PASSWORD: &str = "quiet-otter-sings-92";

async fn over(vault: Arc<dyn Vault>) -> Accounts {
    let sessions = Sessions::open(Arc::clone(&vault), START).await.unwrap();
    Accounts::open(vault, sessions, Passwords::quick()).unwrap()
}

async fn empty() -> (Arc<dyn Vault>, Accounts) {
    let vault: Arc<dyn Vault> = Arc::new(MemoryVault::new());
    (Arc::clone(&vault), over(vault).await)
}

/// Accepts an invitation; answers the secret too.
async fn claim(accounts: &Accounts, invited: &Invited, now: u64) -> (Claimed, TotpSecret) {
    let enrolment = accounts.begin_claim(invited.credential.reveal(), now).unwrap();
    let secret = TotpSecret::from_base32(&enrolment.secret).unwrap();
    let code = secret.code_at(now);
    let claimed = accounts.finish_claim(invited.credential.reveal(), PASSWORD, &code, now).await.unwrap();
    (claimed, secret)
}

#[tokio::test]
async fn nothing_is_stored_until_a_code_is_proven() {
    let (vault, accounts) = empty().await;
    let invited = accounts.invite("Ada", Some("ada@example.com"), START).await.unwrap();
    let invitation = invited.credential.reveal().to_owned();
    assert_eq!(accounts.get(&invited.account).unwrap().state, AccountState::Invited);
    let finish = |password, code: String| {
        let (accounts, invitation) = (accounts.clone(), invitation.clone());
        async move { accounts.finish_claim(&invitation, password, &code, START).await }
    };
    assert!(matches!(finish(PASSWORD, "000000".into()).await, Err(AccountError::NotBegun)));
    let enrolment = accounts.begin_claim(&invitation, START).unwrap();
    assert_eq!(accounts.begin_claim(&invitation, START + 1).unwrap(), enrolment);
    assert!(enrolment.otpauth_url.contains(&enrolment.secret) && enrolment.name == "Ada");
    let secret = TotpSecret::from_base32(&enrolment.secret).unwrap();
    let wrong = secret.code_at(START + HOUR);
    assert!(matches!(finish(PASSWORD, wrong).await, Err(AccountError::WrongCode)));
    let weak = finish("short", secret.code_at(START)).await;
    assert!(matches!(weak, Err(AccountError::WeakPassword(WeakPassword::TooShort))));
    assert!(vault.list(Kind::PasswordHash).is_empty() && vault.list(Kind::TotpSecret).is_empty());

    let claimed = finish(PASSWORD, secret.code_at(START)).await.unwrap();
    assert_eq!((claimed.account.as_str(), claimed.recovery_codes.len()), (invited.account.as_str(), 10));
    assert_eq!(accounts.get(&invited.account).unwrap().state, AccountState::Active);
    assert!(matches!(finish(PASSWORD, secret.code_at(START)).await, Err(AccountError::BadInvitation)));
    assert!(matches!(accounts.begin_claim(&invitation, START), Err(AccountError::BadInvitation)));
    let used = accounts.prove(Some(&claimed.account), &secret.code_at(START), START).await.unwrap();
    assert_eq!(used, None, "the code that claimed the account is used up");
}

#[tokio::test]
async fn of_two_that_claim_at_once_one_succeeds() {
    let (_, accounts) = empty().await;
    let invited = accounts.invite("ada", None, START).await.unwrap();
    let invitation = invited.credential.reveal();
    let secret = TotpSecret::from_base32(&accounts.begin_claim(invitation, START).unwrap().secret).unwrap();
    let code = secret.code_at(START);
    let (first, second) = tokio::join!(
        accounts.finish_claim(invitation, PASSWORD, &code, START),
        accounts.finish_claim(invitation, "another-good-pass-77", &code, START)
    );
    assert!(first.is_ok() != second.is_ok());
}

#[tokio::test]
async fn an_invitation_lapses_and_another_credential_is_none() {
    let (vault, accounts) = empty().await;
    let invited = accounts.invite("ada", None, START).await.unwrap();
    assert!(accounts.begin_claim(invited.credential.reveal(), START + INVITATION_LIFE_MS - 1).is_ok());
    let late = START + INVITATION_LIFE_MS;
    assert!(matches!(accounts.begin_claim(invited.credential.reveal(), late), Err(AccountError::BadInvitation)));
    for text in ["", "gdn_invite_", "gdn_session_aaaa"] {
        assert!(matches!(accounts.begin_claim(text, START), Err(AccountError::BadInvitation)), "{text}");
    }
    assert_eq!(accounts.sweep(late - 1).await.unwrap(), 0);
    assert_eq!(accounts.sweep(late).await.unwrap(), 1);
    assert!(vault.list(Kind::Invitation).is_empty());
}

#[tokio::test]
async fn names_are_unique_whatever_the_capitals() {
    let (_, accounts) = empty().await;
    let ada = accounts.invite("Ada", None, START).await.unwrap().account;
    assert!(matches!(accounts.invite("aDA", None, START).await, Err(AccountError::NameTaken)));
    assert!(matches!(accounts.invite("a/b", None, START).await, Err(AccountError::BadPerson(BadPerson::Name))));
    assert_eq!(accounts.named(" ADA "), Some(ada));
}

#[tokio::test]
async fn passwords_and_codes_open_once_each() {
    let (_, accounts) = empty().await;
    let invited = accounts.invite("ada", None, START).await.unwrap();
    assert_eq!(accounts.verify_password("ada", "").await.unwrap(), None, "not claimed yet");
    let (claimed, secret) = claim(&accounts, &invited, START).await;
    let verified = accounts.verify_password("ADA", PASSWORD).await.unwrap().unwrap();
    assert!(verified.account == claimed.account && accounts.stands(&verified));
    assert_eq!(accounts.verify_password("ada", "quiet-otter-sings-93").await.unwrap(), None);
    assert_eq!(accounts.verify_password("grace", PASSWORD).await.unwrap(), None);

    let (account, later) = (Some(claimed.account.as_str()), START + HOUR);
    let code = secret.code_at(later);
    let (first, second) = tokio::join!(accounts.prove(account, &code, later), accounts.prove(account, &code, later));
    assert_eq!([first.unwrap(), second.unwrap()].iter().flatten().count(), 1, "a code is single use");
    let recovery = &claimed.recovery_codes[3];
    let proof = accounts.prove(account, &recovery.to_uppercase(), later).await.unwrap();
    assert_eq!(proof, Some(Proof::RecoveryCode { left: 9 }));
    assert_eq!(accounts.prove(account, recovery, later).await.unwrap(), None);
    assert_eq!(accounts.prove(None, &code, later).await.unwrap(), None);
    assert_eq!(accounts.prove(Some("human-0"), &code, later).await.unwrap(), None);

    let renewed = accounts.renew_recovery_codes(&claimed.account).await.unwrap();
    assert_eq!(accounts.prove(account, &claimed.recovery_codes[4], later).await.unwrap(), None);
    assert!(accounts.prove(account, &renewed[0], later).await.unwrap().is_some());
    assert!(matches!(accounts.renew_recovery_codes("human-0").await, Err(AccountError::Unknown)));
}

#[tokio::test]
async fn a_reset_ends_what_was_and_opens_what_comes() {
    let (_, accounts) = empty().await;
    let invited = accounts.invite("ada", None, START).await.unwrap();
    let (claimed, secret) = claim(&accounts, &invited, START).await;
    let account = claimed.account.as_str();
    let verified = accounts.verify_password("ada", PASSWORD).await.unwrap().unwrap();
    let place = Place { door: Door::Cli, user_agent: "cli", address: "192.0.2.7".parse().unwrap() };
    let session = NewSession { account: account.to_owned(), groups: Vec::new(), factor_at: None };
    let (session, _) = accounts.0.sessions.create(session, place, START).await.unwrap();

    let first = accounts.reset(account, START).await.unwrap();
    assert!(!accounts.stands(&verified));
    assert!(accounts.0.sessions.check(&session.hash(), place, START).is_none());
    assert_eq!(accounts.verify_password("ada", PASSWORD).await.unwrap(), None);
    let later = START + HOUR;
    assert_eq!(accounts.prove(Some(account), &secret.code_at(later), later).await.unwrap(), None);
    assert_eq!(accounts.prove(Some(account), &claimed.recovery_codes[0], later).await.unwrap(), None);

    let second = accounts.reset(account, later).await.unwrap();
    assert!(matches!(accounts.begin_claim(first.credential.reveal(), later), Err(AccountError::BadInvitation)));
    let (again, new_secret) = claim(&accounts, &second, later).await;
    assert_eq!(again.account, account);
    assert_ne!(new_secret, secret);
    assert!(accounts.verify_password("ada", PASSWORD).await.unwrap().is_some());
    assert!(matches!(accounts.reset("human-0", START).await, Err(AccountError::Unknown)));
}

#[tokio::test]
async fn a_person_of_a_provider_is_recorded_once() {
    let (vault, accounts) = empty().await;
    let identity = ProviderIdentity { issuer: "https://id.example".to_owned(), subject: "1".to_owned() };
    let first = accounts.record_of_provider(identity.clone(), "Ada", Some("ada@example.com")).await.unwrap();
    let again = accounts.record_of_provider(identity.clone(), "Ada L.", None).await.unwrap();
    assert_eq!(first, again);
    assert_eq!(accounts.of_provider(&identity), Some(first.account.clone()));
    let account = accounts.get(&first.account).unwrap();
    assert_eq!((account.state, account.person.name.as_str()), (AccountState::OfProvider, "Ada L."));
    assert!(matches!(accounts.reset(&first.account, START).await, Err(AccountError::OfProvider)));
    assert_eq!(accounts.verify_password("Ada L.", "").await.unwrap(), None, "no local account is called so");
    accounts.invite("Ada L.", None, START).await.unwrap();
    assert_eq!(over(vault).await.of_provider(&identity), Some(first.account));
}

#[tokio::test]
async fn accounts_are_found_again_after_a_start() {
    let (vault, accounts) = empty().await;
    vault.put(Kind::Actor, "system", br#"{"kind":"system","name":"Guidon"}"#.to_vec()).await.unwrap();
    let (claimed, secret) = claim(&accounts, &accounts.invite("ada", None, START).await.unwrap(), START).await;
    let grace = accounts.invite("grace", None, START).await.unwrap();
    let again = over(vault).await;
    assert_eq!(again.list(), accounts.list());
    assert_eq!(again.list().len(), 2);
    assert!(again.verify_password("ada", PASSWORD).await.unwrap().is_some());
    assert_eq!(again.prove(Some(&claimed.account), &secret.code_at(START), START).await.unwrap(), None);
    claim(&again, &grace, START).await;
}

#[tokio::test]
async fn an_erasure_leaves_nothing_in_the_vault_or_on_the_disk() {
    let dir = tempfile::tempdir().unwrap();
    let key = MasterKey::from_bytes([5; 32]);
    let opened = FileVault::open(crate::log::RealFiles::shared(), dir.path(), &key).unwrap();
    let vault: Arc<dyn Vault> = Arc::new(opened.vault);
    let accounts = over(Arc::clone(&vault)).await;
    let (kept, _) = claim(&accounts, &accounts.invite("grace", None, START).await.unwrap(), START).await;
    let (gone, secret) = claim(&accounts, &accounts.invite("ada", None, START).await.unwrap(), START).await;
    let size =
        || std::fs::read_dir(dir.path()).unwrap().map(|file| file.unwrap().metadata().unwrap().len()).sum::<u64>();
    let before = size();
    assert!(accounts.erase(&gone.account).await.unwrap());
    assert!(size() < before);
    for kind in KINDS {
        assert_eq!(vault.get(kind, &gone.account).unwrap(), None, "{kind:?}");
    }
    assert_eq!((accounts.named("ada"), accounts.get(&gone.account)), (None, None));
    assert_eq!(accounts.verify_password("ada", PASSWORD).await.unwrap(), None);
    assert_eq!(accounts.prove(Some(&gone.account), &secret.code_at(START + HOUR), START + HOUR).await.unwrap(), None);
    assert!(!accounts.erase(&gone.account).await.unwrap());
    assert!(!accounts.erase("administrator").await.unwrap(), "no person");
    assert_eq!(accounts.list().iter().map(|account| account.id.as_str()).collect::<Vec<_>>(), [kept.account.as_str()]);
    accounts.invite("ada", None, START).await.unwrap();
}
