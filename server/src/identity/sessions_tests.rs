//! Sessions over a vault in memory, with time told by the test.

use super::*;
use crate::vault::MemoryVault;

const START: u64 = 1_800_000_000_000;
const MINUTE: u64 = 60_000;

fn place(door: Door, address: &str) -> Place<'static> {
    Place { door, user_agent: "guidon-cli/0.1.0", address: address.parse().unwrap() }
}

fn home(door: Door) -> Place<'static> {
    place(door, "192.0.2.7")
}

fn of(account: &str) -> NewSession {
    NewSession { account: account.to_owned(), groups: vec!["sre".to_owned()], factor_at: Some(START) }
}

async fn empty() -> (Arc<MemoryVault>, Sessions) {
    let vault = Arc::new(MemoryVault::new());
    (Arc::clone(&vault), Sessions::open(vault, START).await.unwrap())
}

#[tokio::test]
async fn a_session_is_valid_where_it_was_made_until_it_expires() {
    for (door, life) in [(Door::Cli, CLI_LIFE_MS), (Door::Browser, BROWSER_LIFE_MS)] {
        let (_, sessions) = empty().await;
        let (credential, info) = sessions.create(of("human-1"), home(door), START).await.unwrap();
        assert_eq!(credential.kind(), CredentialKind::Session);
        assert_eq!(info.expires_at, START + life);
        let mut now = START;
        while now < START + life {
            assert_eq!(sessions.check(&credential.hash(), home(door), now), Some(info.clone()));
            now += 30 * MINUTE;
        }
        assert_eq!(sessions.check(&credential.hash(), home(door), START + life), None);
        assert_eq!(sessions.check(&SecretHash::of("another"), home(door), START), None);
    }
}

#[tokio::test]
async fn a_browser_left_alone_is_signed_out_and_a_command_line_is_not() {
    let (_, sessions) = empty().await;
    let (browser, _) = sessions.create(of("human-1"), home(Door::Browser), START).await.unwrap();
    let (cli, _) = sessions.create(of("human-1"), home(Door::Cli), START).await.unwrap();
    let later = START + 59 * MINUTE;
    assert!(sessions.check(&browser.hash(), home(Door::Browser), later).is_some());
    assert!(sessions.check(&browser.hash(), home(Door::Browser), later + 60 * MINUTE).is_none());
    assert!(sessions.check(&cli.hash(), home(Door::Cli), later + 60 * MINUTE).is_some());
    assert_eq!(sessions.list_of("human-1", later + 60 * MINUTE).len(), 1);
}

#[tokio::test]
async fn another_door_or_program_is_refused() {
    let (_, sessions) = empty().await;
    let (credential, _) = sessions.create(of("human-1"), home(Door::Cli), START).await.unwrap();
    assert!(sessions.check(&credential.hash(), home(Door::Browser), START).is_none());
    let other = Place { user_agent: "curl/8", ..home(Door::Cli) };
    assert!(sessions.check(&credential.hash(), other, START).is_none());
    assert!(sessions.check(&credential.hash(), home(Door::Cli), START).is_some());
}

#[tokio::test]
async fn from_another_address_the_factor_is_to_be_proven_again() {
    let (_, sessions) = empty().await;
    let (credential, info) = sessions.create(of("human-1"), home(Door::Cli), START).await.unwrap();
    let (hash, away) = (credential.hash(), place(Door::Cli, "198.51.100.9"));
    assert_eq!(info.factor_at, Some(START));
    let seen = sessions.check(&hash, away, START + MINUTE).unwrap();
    assert_eq!((seen.factor_at, seen.account.as_str()), (None, "human-1"));
    let proven = sessions.prove_factor(&hash, away.address, START + 2 * MINUTE).await.unwrap().unwrap();
    assert_eq!(proven.factor_at, Some(START + 2 * MINUTE));
    assert_eq!(sessions.check(&hash, away, START + 3 * MINUTE).unwrap().factor_at, Some(START + 2 * MINUTE));
    assert_eq!(sessions.check(&hash, home(Door::Cli), START + 3 * MINUTE).unwrap().factor_at, None);
    let mapped = place(Door::Cli, "::ffff:198.51.100.9");
    assert!(sessions.check(&hash, mapped, START + 3 * MINUTE).unwrap().factor_at.is_some(), "the same address");
}

#[tokio::test]
async fn the_vault_keeps_sessions_and_never_a_credential() {
    let (vault, sessions) = empty().await;
    let (credential, info) = sessions.create(of("human-1"), home(Door::Cli), START).await.unwrap();
    sessions.create(of("human-2"), home(Door::Browser), START).await.unwrap();
    assert_eq!(vault.list(Kind::Session).len(), 2);
    let stored = vault.get(Kind::Session, &info.id).unwrap().unwrap();
    let text = String::from_utf8(stored).unwrap();
    assert!(!text.contains(credential.reveal()) && !text.contains("guidon-cli"), "{text}");
    vault.put(Kind::Session, "not a hash", b"{}".to_vec()).await.unwrap();

    let again = Sessions::open(Arc::clone(&vault) as Arc<dyn Vault>, START + 9 * 60 * MINUTE).await.unwrap();
    assert_eq!(again.check(&credential.hash(), home(Door::Cli), START + 9 * 60 * MINUTE), Some(info));
    assert_eq!(vault.list(Kind::Session).len(), 1, "the expired and the unreadable one are gone");
    assert!(again.end(&credential.hash()).await.unwrap().is_some_and(|account| account == "human-1"));
    assert!(vault.list(Kind::Session).is_empty());
    assert_eq!(again.end(&credential.hash()).await.unwrap(), None);
    assert_eq!(again.prove_factor(&credential.hash(), home(Door::Cli).address, START).await.unwrap(), None);
}

#[tokio::test]
async fn the_oldest_of_too_many_ends() {
    let (vault, sessions) = empty().await;
    let mut made = Vec::new();
    for index in 0..MAX_SESSIONS_PER_ACCOUNT as u64 + 3 {
        made.push(sessions.create(of("human-1"), home(Door::Cli), START + index).await.unwrap().0.hash());
    }
    let other = sessions.create(of("human-2"), home(Door::Cli), START).await.unwrap().0.hash();
    let now = START + MINUTE;
    let valid: Vec<_> = made.iter().map(|hash| sessions.check(hash, home(Door::Cli), now).is_some()).collect();
    assert_eq!(valid.iter().take_while(|valid| !**valid).count(), 3);
    assert_eq!(valid.iter().filter(|valid| **valid).count(), MAX_SESSIONS_PER_ACCOUNT);
    assert_eq!(sessions.end_all_of("human-1").await.unwrap(), MAX_SESSIONS_PER_ACCOUNT);
    assert!(sessions.check(&other, home(Door::Cli), now).is_some());
    assert_eq!(vault.list(Kind::Session).len(), 1);
}

#[tokio::test]
async fn expired_ones_are_swept_and_one_can_be_ended_by_its_id() {
    let (vault, sessions) = empty().await;
    let (_, first) = sessions.create(of("human-1"), home(Door::Browser), START).await.unwrap();
    let (_, second) = sessions.create(of("human-1"), home(Door::Cli), START).await.unwrap();
    assert_eq!(sessions.sweep(START + 61 * MINUTE).await.unwrap(), 1);
    assert_eq!(vault.list(Kind::Session), std::slice::from_ref(&second.id));
    assert!(!sessions.end_by_id("human-2", &second.id).await.unwrap(), "somebody else's");
    assert!(!sessions.end_by_id("human-1", &first.id).await.unwrap());
    assert!(sessions.end_by_id("human-1", &second.id).await.unwrap());
    assert!(vault.list(Kind::Session).is_empty());
}
