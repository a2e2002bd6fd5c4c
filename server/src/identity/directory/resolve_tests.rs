//! What is refused of edits, by data.

use std::sync::Arc;

use super::*;
use crate::changes::mint::RandomMint;
use crate::identity::directory::Token;

const NOW: u64 = 1_000_000;
const NONE: [&str; 0] = [];

fn directory(edits: &[DirectoryEdit]) -> Directory {
    let mut directory = Directory::default();
    for edit in edits {
        apply(&mut directory, edit, 1).unwrap();
    }
    directory
}

fn codes(directory: &Directory, edit: DirectoryEdit) -> Vec<String> {
    let (world, mut problems) = (World::default(), Vec::new());
    let mut cx = Filling { world: &world, directory, now: NOW, mint: &mut RandomMint, at: "", problems: &mut problems };
    resolve(&mut cx, edit);
    problems.into_iter().map(|problem| problem.code.to_string()).collect()
}

fn administrator(id: &str) -> [DirectoryEdit; 3] {
    let id = id.to_owned();
    [
        DirectoryEdit::CreateAccount { id: id.clone() },
        DirectoryEdit::ClaimAccount { id: id.clone() },
        DirectoryEdit::GrantRole {
            id: format!("role-{id}"),
            principal: Some(id),
            group: None,
            role: Role::Administrator,
            project: None,
            tiers: Vec::new(),
        },
    ]
}

fn file(text: &str) -> DirectoryEdit {
    DirectoryEdit::SetPolicy { name: "ours.cedar".to_owned(), text: text.to_owned() }
}

#[test]
fn a_file_that_locks_everybody_out_is_refused() {
    let one = directory(&administrator("ada"));
    let two = directory(&[administrator("ada"), administrator("ben")].concat());
    assert_eq!(codes(&two, file("forbid(principal, action, resource);")), ["lockout"]);
    let on_ada = "forbid (principal == Human::\"ada\", action, resource);";
    assert_eq!(codes(&two, file(on_ada)), NONE);
    assert_eq!(codes(&one, file(on_ada)), ["lockout"]);
    assert_eq!(codes(&one, file("forbid (principal, action, resource in Project::\"shop\");")), NONE);
    assert_eq!(codes(&one, file("forbid (")), ["badPolicy"]);
}

#[test]
fn the_last_administrator_is_not_reset() {
    let reset = || DirectoryEdit::ResetAccount { id: "ada".to_owned() };
    assert_eq!(codes(&directory(&administrator("ada")), reset()), ["lastAdministrator"]);
    let two = directory(&[administrator("ada"), administrator("ben")].concat());
    assert_eq!(codes(&two, reset()), NONE);
}

#[test]
fn tokens_that_ended_make_room() {
    let service = DirectoryEdit::CreateServiceAccount { id: "ci".to_owned(), name: "CI".to_owned() };
    let mut full = directory(&[service]);
    let scope = Scope { actions: vec!["read".to_owned()], ..Scope::default() };
    let token = |id: &str, hash: String, expires_at: u64| Token {
        id: id.to_owned(),
        principal: "ci".to_owned(),
        name: String::new(),
        scope: scope.clone(),
        hash,
        created_at: 1,
        expires_at,
        revoked_at: None,
        replaced_by: None,
    };
    for number in 0..MAX_TOKENS {
        let made = token(&format!("t{number}"), format!("h{number}"), NOW + 1);
        full.token_hashes.insert(made.hash.clone(), made.id.clone());
        full.tokens.insert(made.id.clone(), Arc::new(made));
    }
    let create = || DirectoryEdit::CreateToken {
        id: String::new(),
        principal: "ci".to_owned(),
        name: String::new(),
        scope: scope.clone(),
        expires_at: NOW + 1_000,
        hash: "a".repeat(64),
    };
    assert_eq!(codes(&full, create()), ["tooMany"]);
    let ended = token("t0", "h0".to_owned(), NOW);
    full.tokens.insert(ended.id.clone(), Arc::new(ended));
    assert_eq!(codes(&full, create()), NONE);
}
