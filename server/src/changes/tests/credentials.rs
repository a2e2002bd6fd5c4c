//! What people need a fresh factor for: credentials, access and policy.

use super::*;
use crate::identity::DirectoryEdit;
use crate::identity::directory::Scope;
use crate::policy::Role;

fn edit(edit: DirectoryEdit) -> ChangeDraft {
    ChangeDraft { instructions: vec![Instruction::Directory(Box::new(edit))], ..ChangeDraft::default() }
}

/// An administrator who proved the factor at this time.
fn administrator(factor_at: Option<u64>) -> Author {
    Author { factor_at, ..Author::of("ada", "origin-1", PrincipalKind::Human) }
}

async fn with_administrator() -> Server {
    let server = Server::start().await;
    let grant = DirectoryEdit::GrantRole {
        id: String::new(),
        principal: Some("ada".to_owned()),
        group: None,
        role: Role::Administrator,
        project: None,
        tiers: Vec::new(),
    };
    for first in [DirectoryEdit::CreateAccount { id: "ada".to_owned() }, grant] {
        server.service.submit(&author(), edit(first)).await.unwrap();
    }
    let claim = DirectoryEdit::ClaimAccount { id: "ada".to_owned() };
    server.service.submit(&Author::system(), edit(claim)).await.unwrap();
    server
}

#[tokio::test]
async fn credentials_and_access_need_a_factor_of_the_last_ten_minutes() {
    let server = with_administrator().await;
    let create = DirectoryEdit::CreateServiceAccount { id: String::new(), name: "ci".to_owned() };
    let fresh = administrator(Some(START_MS));
    let made = server.service.submit(&fresh, edit(create.clone())).await.unwrap();
    let Some(Instruction::Directory(created)) = made.entry.as_ref().and_then(|entry| entry.instructions.first()) else {
        panic!("{made:?}");
    };
    let DirectoryEdit::CreateServiceAccount { id, .. } = &**created else { panic!("{created:?}") };
    let token = DirectoryEdit::CreateToken {
        id: String::new(),
        principal: id.clone(),
        name: String::new(),
        scope: Scope { actions: vec!["read".to_owned()], ..Scope::default() },
        expires_at: START_MS + 60 * 60 * 1_000,
        hash: "a".repeat(64),
    };
    let policy = DirectoryEdit::SetPolicy { name: "ours.cedar".to_owned(), text: String::new() };
    server.clock.advance_ms(10 * 60 * 1_000 - 1);
    let before = server.service.world().revision;
    for stale in [administrator(None), administrator(Some(START_MS - 1)), administrator(Some(u64::MAX))] {
        for asked in [&create, &token, &policy] {
            let refused = server.service.submit(&stale, edit(asked.clone())).await;
            assert!(matches!(refused, Err(ChangeError::FactorNeeded(_))), "{asked:?} {refused:?}");
        }
    }
    assert_eq!(server.service.world().revision, before);
    server.service.submit(&fresh, edit(policy)).await.unwrap();
}

#[tokio::test]
async fn the_last_administrator_stays() {
    let server = with_administrator().await;
    let binding = server.service.world().directory.bindings.keys().next().unwrap().clone();
    for asked in [
        DirectoryEdit::RevokeRole { id: binding },
        DirectoryEdit::DisablePrincipal { id: "ada".to_owned() },
        DirectoryEdit::ErasePrincipal { id: "ada".to_owned() },
    ] {
        let refused = server.service.submit(&administrator(Some(START_MS)), edit(asked.clone())).await;
        let Err(ChangeError::Invalid { problems }) = refused else { panic!("{asked:?} {refused:?}") };
        assert_eq!(problems[0].code, "lastAdministrator");
    }
}
