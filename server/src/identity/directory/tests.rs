//! Roles, scopes and tokens, by data.

use super::*;
use crate::policy::Action;

fn person(id: &str) -> DirectoryEdit {
    DirectoryEdit::CreateAccount { id: id.to_owned() }
}

fn grant(id: &str, principal: &str, role: Role, project: Option<&str>, tiers: &[Tier]) -> DirectoryEdit {
    DirectoryEdit::GrantRole {
        id: id.to_owned(),
        principal: Some(principal.to_owned()),
        group: None,
        role,
        project: project.map(str::to_owned),
        tiers: tiers.to_vec(),
    }
}

fn directory(edits: &[DirectoryEdit]) -> Directory {
    let mut directory = Directory::default();
    for (at, edit) in (1..).zip(edits) {
        apply(&mut directory, edit, at).unwrap();
    }
    directory
}

#[test]
fn roles_hold_where_they_were_given() {
    let mut edits = vec![person("ada"), grant("r1", "ada", Role::Developer, Some("shop"), &[])];
    edits.push(grant("r2", "ada", Role::ReleaseManager, None, &[Tier::Staging]));
    edits.push(DirectoryEdit::GrantRole {
        id: "r3".to_owned(),
        principal: None,
        group: Some("sre".to_owned()),
        role: Role::Approver,
        project: None,
        tiers: Vec::new(),
    });
    let directory = directory(&edits);
    let roles = |groups: &[&str], project: &str, tier| {
        let groups: Vec<String> = groups.iter().map(|group| (*group).to_owned()).collect();
        directory.roles("ada", &groups, project, tier).into_iter().collect::<Vec<_>>()
    };
    assert_eq!(roles(&[], "shop", Some(Tier::Production)), [Role::Developer]);
    assert_eq!(roles(&[], "shop", Some(Tier::Staging)), [Role::Developer, Role::ReleaseManager]);
    assert_eq!(roles(&[], "other", Some(Tier::Staging)), [Role::ReleaseManager]);
    assert_eq!(roles(&[], "other", None), []);
    assert_eq!(roles(&["sre"], "", None), [Role::Approver]);
    assert_eq!(directory.roles("ben", &[], "shop", None).len(), 0);
}

#[test]
fn somebody_administers_once_the_account_is_claimed() {
    let mut edits = vec![person("ada"), grant("r1", "ada", Role::Administrator, None, &[])];
    assert!(!directory(&edits).is_claimed());
    edits.push(DirectoryEdit::ClaimAccount { id: "ada".to_owned() });
    assert!(directory(&edits).is_claimed());
    edits.push(DirectoryEdit::DisablePrincipal { id: "ada".to_owned() });
    assert!(!directory(&edits).is_claimed());
    let partly = [person("ada"), grant("r1", "ada", Role::Administrator, Some("shop"), &[])];
    assert!(!directory(&partly).is_claimed());
}

#[test]
fn a_rotated_token_lives_until_its_deadline_beside_its_successor() {
    let scope = Scope { actions: vec!["read".to_owned()], ..Scope::default() };
    let directory = directory(&[
        DirectoryEdit::CreateServiceAccount { id: "ci".to_owned(), name: "CI".to_owned() },
        DirectoryEdit::CreateToken {
            id: "t1".to_owned(),
            principal: "ci".to_owned(),
            name: String::new(),
            scope,
            expires_at: 1_000,
            hash: "h1".to_owned(),
        },
        DirectoryEdit::RotateToken {
            id: "t1".to_owned(),
            successor: "t2".to_owned(),
            hash: "h2".to_owned(),
            expires_at: 2_000,
            deadline: 500,
        },
    ]);
    let opens = |hash: &str, now| directory.live_token(hash, now).map(|(token, _)| token.id.clone());
    assert_eq!(opens("h1", 499).as_deref(), Some("t1"));
    assert_eq!(opens("h1", 500), None);
    assert_eq!(opens("h2", 1_999).as_deref(), Some("t2"));
    assert_eq!(opens("h2", 2_000), None);
    let mut revoked = directory.clone();
    apply(&mut revoked, &DirectoryEdit::RevokeToken { id: "t2".to_owned() }, 9).unwrap();
    assert!(revoked.live_token("h2", 10).is_none());
    let mut disabled = directory.clone();
    apply(&mut disabled, &DirectoryEdit::DisablePrincipal { id: "ci".to_owned() }, 9).unwrap();
    assert!(disabled.live_token("h2", 10).is_none());
}

#[test]
fn scopes_cover_what_they_name() {
    let scope = Scope {
        project: Some("shop".to_owned()),
        environments: vec!["staging".to_owned()],
        actions: vec!["read".to_owned(), "turnFlagOff".to_owned()],
        flag: Some("engine".to_owned()),
    };
    assert_eq!(scope.check(), Ok(()));
    let covers = |action, project, environment, flag| scope.covers(action, project, environment, flag);
    assert!(covers(Action::TurnFlagOff, "shop", "staging", Some("engine")));
    assert!(covers(Action::ReadConfiguration, "shop", "staging", None));
    assert!(!covers(Action::TurnFlagOff, "shop", "staging", Some("other")));
    assert!(!covers(Action::TurnFlagOn, "shop", "staging", Some("engine")));
    assert!(!covers(Action::TurnFlagOff, "shop", "production", Some("engine")));
    assert!(!covers(Action::TurnFlagOff, "other", "staging", Some("engine")));
    assert_eq!(Scope::default().check(), Err(ScopeProblem::NoActions));
    let unknown = Scope { actions: vec!["fly".to_owned()], ..Scope::default() };
    assert_eq!(unknown.check(), Err(ScopeProblem::UnknownAction("fly".to_owned())));
}
