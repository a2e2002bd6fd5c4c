//! Journals that earlier versions wrote, which every later one reads.
//!
//! `GUIDON_BLESS=1 cargo test -p guidon-server --lib journal_of_version_4` writes that of this version anew, which is right only
//! as long as no version with its form was given to anybody.

use std::path::Path;

use guidon_sdk::model::Flag;

use super::*;
use crate::changes::request::RequestState;
use crate::changes::{Author, ChangeDraft, ChangeOutcome, Instruction, RequestEdit};
use crate::identity::DirectoryEdit;
use crate::journal::{Entry, Journal, StoredEntry, verify};
use crate::policy::{PrincipalKind, RiskLevel};

fn fixture(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../tests/fixtures").join(name)
}

#[tokio::test]
async fn a_journal_of_version_1_opens() {
    let site = Site::new();
    copy_dir(&fixture("journal-1"), &site.journal());
    let opened = site.open();
    let head = opened.journal.head();
    assert_eq!((opened.journal.history(), head.revision), ("019b76daa8007f3fb233f302443d59b0", 12));
    assert_eq!(head.hash.to_string(), "d790bb18a1de95c78d90c481b0a67f94f63d4f6576de21e4a2bfdc33f00d939e");
    let project = opened.world.project("default").expect("there");
    assert_eq!(project.flags.keys().map(String::as_str).collect::<Vec<_>>(), ["engine"]);
    assert_eq!(project.segment("production", "beta").expect("there").stored.included.len(), 3);
    assert!(project.environments.contains_key("preview"));
    let config = &project.flags["engine"].stored.environments["production"];
    assert!(config.on && config.rules.len() == 1 && config.targets.len() == 1);
    let entries = opened.journal.read(0, 100).await.expect("reads");
    assert!(entries.iter().all(|stored| stored.entry.format == 1 && stored.entry.grounds.is_none()));
}

#[tokio::test]
async fn a_journal_of_version_2_opens() {
    a_journal_opens("journal-2", 2).await;
}

#[tokio::test]
async fn a_journal_of_version_3_opens() {
    has_an_entry_in_several_environments(&a_journal_opens("journal-3", 3).await);
}

#[tokio::test]
async fn a_journal_of_version_4_opens() {
    if std::env::var_os("GUIDON_BLESS").is_some_and(|value| value != "0") {
        bless().await;
    }
    let entries = a_journal_opens("journal-4", 4).await;
    has_an_entry_in_several_environments(&entries);
    let kinds: Vec<&str> = entries
        .iter()
        .flat_map(|stored| &stored.entry.instructions)
        .filter(|instruction| matches!(instruction.edit(), Instruction::Release(_)))
        .map(Instruction::kind)
        .collect();
    let expected = [
        "startRelease",
        "advanceRelease",
        "pauseRelease",
        "resumeRelease",
        "holdRelease",
        "liftHold",
        "rollBackRelease",
        "closeIncident",
        "restartRelease",
        "routeInstance",
        "noteIncident",
        "abortRelease",
        "startRelease",
        "completeRelease",
    ];
    assert_eq!(kinds, expected, "every kind, with what it was resolved to");
}

fn has_an_entry_in_several_environments(entries: &[StoredEntry]) {
    let in_several = entries.iter().find(|stored| {
        stored.entry.instructions.iter().any(|instruction| matches!(instruction, Instruction::Within { .. }))
    });
    let entry = &in_several.expect("an entry with instructions in environments of their own").entry;
    assert_eq!(entry.environments(), ["development", "testing"].map(str::to_owned).into());
    assert_eq!(entry.objects.len(), 2);
}

/// Opens the fixture of this name, checks what everybody did in it, and answers its entries.
async fn a_journal_opens(name: &str, format: u32) -> Vec<StoredEntry> {
    let site = Site::new();
    copy_dir(&fixture(name), &site.journal());
    let opened = site.open();
    let head = fs::read_to_string(fixture(&format!("{name}.head"))).expect("the head that it had when it was written");
    let found = opened.journal.head();
    assert_eq!(format!("{} {} {}\n", opened.journal.history(), found.revision, found.hash), head);
    verify(&*RealFiles::shared(), &site.journal(), &mut |_| ()).expect("the chain holds");

    let directory = &opened.world.directory;
    let kinds: Vec<PrincipalKind> = directory.principals.values().map(|principal| principal.kind).collect();
    for (kind, count) in [(PrincipalKind::Human, 5), (PrincipalKind::Service, 1), (PrincipalKind::Agent, 1)] {
        assert_eq!(kinds.iter().filter(|known| **known == kind).count(), count, "{kind:?}");
    }
    assert!(directory.is_claimed());
    assert_eq!((directory.bindings.len(), directory.tokens.len(), directory.issuers.len()), (4, 2, 1));
    assert_eq!(directory.policies.keys().map(String::as_str).collect::<Vec<_>>(), ["own.cedar"]);
    let gone = directory.principals.values().filter(|principal| principal.erased_at.is_some());
    assert_eq!(gone.count(), 1);

    let project = opened.world.project("default").expect("there");
    assert_eq!(project.flags.keys().map(String::as_str).collect::<Vec<_>>(), ["by-agent", "engine"]);
    let engine: &Flag = &project.flags["engine"].stored;
    assert!(engine.environments["development"].on && !engine.environments["production"].on);
    assert_eq!(engine.environments["development"].targets.len(), 1);
    assert!(project.environments["production"].freezes.is_empty());
    assert!(!project.environments["staging"].freezes.is_empty());
    let states: Vec<RequestState> = project.requests.values().map(|request| request.state).collect();
    for state in [RequestState::Applied, RequestState::Withdrawn, RequestState::Review] {
        assert_eq!(states.iter().filter(|known| **known == state).count(), 1, "{state:?} in {states:?}");
    }
    let reviews: Vec<bool> = project.reviews.values().map(|review| review.finding.is_some()).collect();
    assert_eq!(reviews, [true]);

    // What production has served follows from the entries, whichever version wrote them.
    let served = project.served_variations.get("engine").expect("it was on there");
    assert_eq!(served.keys().collect::<Vec<_>>(), ["ai", "baseline"]);

    let entries = opened.journal.read(0, 1_000).await.expect("reads");
    assert!(entries.iter().all(|stored| stored.entry.format == format));
    let grounds = |of: &dyn Fn(&Entry) -> bool| {
        let found = entries.iter().find(|stored| of(&stored.entry)).expect("there");
        found.entry.grounds.clone().expect("every entry from format 2 on has grounds")
    };
    let applied = grounds(&|entry| entry.grounds.as_ref().is_some_and(|grounds| grounds.request.is_some()));
    assert_eq!(applied.approvals.len(), 1);
    assert!(applied.risk.is_some_and(|risk| risk.level >= RiskLevel::Medium));
    let emergency = grounds(&|entry| entry.grounds.as_ref().is_some_and(|grounds| grounds.emergency));
    assert_eq!(emergency.environments, ["production"]);
    let by_token = grounds(&|entry| entry.grounds.as_ref().is_some_and(|grounds| grounds.credential.is_some()));
    assert!(!by_token.policies.is_empty() && by_token.policy_set.len() == 64);

    // And the copy on disk has all of it.
    let world = opened.world.clone();
    opened.keeper.close();
    opened.journal.close().expect("closes");
    drop(opened);
    let again = site.open();
    assert_eq!(again.report.loaded_revision, Some(world.revision), "{:?}", again.report);
    assert_eq!(again.world, world);
    entries
}

/// Writes the journal of this version: somebody of every kind does what there is to do.
async fn bless() {
    let site = Site::new();
    let mut script = Script::start(&site).await;
    let keys = ["ann", "bob"];
    script
        .edit(
            &author(),
            "development",
            json!([engine_flag("engine"), {"kind": "turnFlagOn", "flag": "engine"},
            {"kind": "addTargets", "flag": "engine", "variation": "ai", "keys": keys},
            {"kind": "createSegment", "segment": {"key": "beta", "included": keys}}]),
        )
        .await;
    // The first administrator, whom the operator invites; then the others, whom the administrator invites.
    script.directory(&author(), json!({"kind": "createAccount", "id": "human-admin"})).await;
    script
        .directory(&author(), json!({"kind": "grantRole", "principal": "human-admin", "role": "administrator"}))
        .await;
    script.directory(&Author::system(), json!({"kind": "claimAccount", "id": "human-admin"})).await;
    let others = [
        ("human-approver", Some("approver")),
        ("human-developer", Some("developer")),
        ("human-manager", Some("releaseManager")),
        ("human-gone", None),
    ];
    for (id, role) in others {
        let admin = script.human("human-admin");
        script.directory(&admin, json!({"kind": "createAccount", "id": id})).await;
        if let Some(role) = role {
            script.directory(&admin, json!({"kind": "grantRole", "principal": id, "role": role})).await;
        }
        script.directory(&Author::system(), json!({"kind": "claimAccount", "id": id})).await;
    }
    let [admin, approver, developer, manager] =
        ["admin", "approver", "developer", "manager"].map(|name| script.human(&format!("human-{name}")));
    script.directory(&admin, json!({"kind": "erasePrincipal", "id": "human-gone"})).await;
    script.directory(&admin, json!({"kind": "createServiceAccount", "name": "CI"})).await;
    let end = START_MS + 30 * 24 * 60 * 60 * 1_000;
    script
        .directory(
            &admin,
            json!({"kind": "createAgent", "name": "Helper", "tool": "editor", "model": "m-1",
            "owner": "human-developer", "expiresAt": end}),
        )
        .await;
    let (service, agent) = (script.principal(PrincipalKind::Service), script.principal(PrincipalKind::Agent));
    let scope = json!({"project": "default", "environments": ["development"], "actions": ["read", "edit"]});
    script
        .directory(
            &admin,
            json!({"kind": "createToken", "principal": agent, "scope": scope, "expiresAt": end,
            "hash": "11".repeat(32)}),
        )
        .await;
    let token = script.world().directory.tokens.keys().next().expect("made").clone();
    script
        .directory(
            &admin,
            json!({"kind": "rotateToken", "id": token, "hash": "22".repeat(32), "expiresAt": end,
            "deadline": START_MS + 24 * 60 * 60 * 1_000}),
        )
        .await;
    script
        .directory(
            &admin,
            json!({"kind": "trustIssuer", "issuer": "https://ci.example", "audience": "guidon",
            "claims": {"repository": "acme/shop"}, "principal": service, "scope": scope, "lifetimeS": 600}),
        )
        .await;
    let text = "@id(\"own\")\nforbid (principal is Agent, action == Action::\"deleteFlag\", resource);\n";
    script.directory(&admin, json!({"kind": "setPolicy", "name": "own.cedar", "text": text})).await;
    let by_token = Author {
        owner: Some("human-developer".to_owned()),
        scope: serde_json::from_value(scope).expect("a scope"),
        credential: Some(token),
        ..Author::of(&agent, "origin-2", PrincipalKind::Agent)
    };
    let flag = json!({"key": "by-agent", "kind": "boolean", "variations": [
        {"key": "on", "value": true, "provenance": {"by": "ai"}}, {"key": "off", "value": false}]});
    script.edit(&by_token, "development", json!([{"kind": "createFlag", "flag": flag}])).await;

    // A request from its draft to the end, one that is taken back, and one that waits.
    let ramp = |ai: u32| {
        json!([{"kind": "turnFlagOn", "flag": "engine"},
               {"kind": "setRollout", "flag": "engine", "weights": {"ai": ai, "baseline": 100_000 - ai}}])
    };
    let opened = script.open_request(&developer, ramp(5_000)).await;
    script
        .step(
            &developer,
            RequestEdit::CommentRequest { id: opened.clone(), by: by(&developer), text: "a tenth later".into() },
        )
        .await;
    let hash = script.service.request("default", &opened).expect("there").content.hash.clone();
    script.step(&approver, RequestEdit::ApproveRequest { id: opened.clone(), by: by(&approver), hash }).await;
    script.tick();
    script.service.apply_request(&manager, "default", &opened, None).await.expect("applies");
    let other = script.open_request(&developer, ramp(10_000)).await;
    let taken_back = RequestEdit::WithdrawRequest { id: other, by: by(&developer), reason: "too early".into() };
    script.step(&developer, taken_back).await;
    script.open_request(&developer, ramp(20_000)).await;

    // Frozen, and lowered all the same.
    script.edit(&admin, "staging", json!([{"kind": "declareFreeze", "reason": "the fair", "until": end}])).await;
    script.edit(&admin, "production", json!([{"kind": "declareFreeze", "reason": "holidays"}])).await;
    let killed = script.edit(&manager, "production", json!([{"kind": "turnFlagOff", "flag": "engine"}])).await;
    let finding = "the new engine was too slow".to_owned();
    let review = RequestEdit::ReviewEntry { revision: killed.revision, by: by(&admin), finding };
    script.step(&admin, review).await;
    let freeze = script.world().project("default").expect("there").environments["production"].freezes[0].id.clone();
    script.edit(&admin, "production", json!([{"kind": "liftFreeze", "id": freeze}])).await;
    // One change in two environments.
    let weights = json!({"ai": 50_000, "baseline": 50_000});
    script
        .edit(
            &developer,
            "development",
            json!([{"kind": "setRollout", "flag": "engine", "weights": weights},
            {"kind": "setRollout", "flag": "engine", "environment": "testing", "weights": weights}]),
        )
        .await;
    bless_releases(&script).await;
    let head = script.end();
    let folder = fixture("journal-4");
    let _ = fs::remove_dir_all(&folder);
    copy_dir(&site.journal(), &folder);
    for leftover in ["lock", "watermark.tmp"] {
        let _ = fs::remove_file(folder.join(leftover));
    }
    fs::write(fixture("journal-4.head"), head).expect("writes");
}

/// A release that is taken back, looked at and started anew, with an ill instance; another one that is through.
async fn bless_releases(script: &Script<'_>) {
    let id = || {
        script.world().project("default").expect("there").release("development", "engine").expect("started").id.clone()
    };
    let incident = || {
        let world = script.world();
        let mut open = world.project("default").expect("there").open_incidents("development", "engine");
        open.next().expect("opened").id.clone()
    };
    let edit = async |author: &Author, kind: &str, fields: Value| {
        let mut instruction = json!({"kind": kind, "flag": "engine"});
        instruction.as_object_mut().expect("an object").extend(fields.as_object().expect("fields").clone());
        script.edit(author, "development", json!([instruction])).await
    };
    let (operator, system) = (author(), Author::system());
    let plan = json!({"treatment": "ai", "control": "baseline"});
    edit(&operator, "startRelease", json!({ "plan": plan })).await;
    edit(&system, "advanceRelease", json!({"to": 1, "release": id()})).await;
    edit(&operator, "pauseRelease", json!({"reason": "lunch"})).await;
    edit(&operator, "resumeRelease", json!({})).await;
    edit(&system, "holdRelease", json!({"release": id(), "reason": "no traffic", "evidence": {"second": 1}})).await;
    edit(&system, "liftHold", json!({"release": id()})).await;
    edit(&system, "rollBackRelease", json!({"release": id(), "reason": "errors", "evidence": {"second": 2}})).await;
    edit(&operator, "closeIncident", json!({"incident": incident(), "finding": "the model was too slow"})).await;
    edit(&operator, "restartRelease", json!({})).await;
    let until = START_MS + 24 * 60 * 60 * 1_000;
    edit(&system, "routeInstance", json!({"release": id(), "instance": "host-7", "until": until, "reason": "slow"}))
        .await;
    edit(&system, "noteIncident", json!({"incident": incident(), "text": "restarted it"})).await;
    edit(&operator, "abortRelease", json!({"reason": "enough"})).await;
    edit(
        &operator,
        "startRelease",
        json!({"plan": {"treatment": "ai", "control": "baseline", "steps": [{"share": 100_000}]}}),
    )
    .await;
    edit(&system, "completeRelease", json!({"release": id(), "reason": "through"})).await;
}

fn by(author: &Author) -> String {
    author.actor_id.clone()
}

struct Script<'a> {
    site: &'a Site,
    journal: Arc<FileJournal>,
    keeper: Arc<Keeper>,
    service: Arc<ChangeService>,
}

impl<'a> Script<'a> {
    async fn start(site: &'a Site) -> Self {
        let opened = site.open();
        let (journal, keeper) = (Arc::new(opened.journal), Arc::new(opened.keeper));
        let service = site.service(journal.clone(), keeper.clone(), opened.world);
        service.ensure_default_project().await.expect("made");
        Self { site, journal, keeper, service }
    }

    fn tick(&self) {
        self.site.clock.advance_ms(1_000);
    }

    fn world(&self) -> Arc<World> {
        self.service.world()
    }

    /// A person who has just proved a second factor.
    fn human(&self, id: &str) -> Author {
        Author { factor_at: Some(self.world().at), ..Author::of(id, "origin-1", PrincipalKind::Human) }
    }

    fn principal(&self, kind: PrincipalKind) -> String {
        let world = self.world();
        world.directory.principals.values().find(|known| known.kind == kind).expect("made").id.clone()
    }

    async fn submit(&self, author: &Author, draft: ChangeDraft) -> ChangeOutcome {
        self.tick();
        let said = format!("{:?}", draft.instructions);
        self.service.submit(author, draft).await.unwrap_or_else(|error| panic!("{said}: {error:?}"))
    }

    async fn edit(&self, author: &Author, environment: &str, instructions: Value) -> ChangeOutcome {
        let draft = ChangeDraft { environment: Some(environment.to_owned()), ..draft(instructions) };
        self.submit(author, draft).await
    }

    async fn directory(&mut self, author: &Author, edit: Value) {
        let edit: DirectoryEdit = serde_json::from_value(edit).expect("an edit");
        let instructions = vec![Instruction::Directory(Box::new(edit))];
        self.submit(author, ChangeDraft { instructions, ..ChangeDraft::default() }).await;
    }

    /// Proposes a change of production and answers the request that it became.
    async fn open_request(&self, author: &Author, instructions: Value) -> String {
        let outcome = self.edit(author, "production", instructions).await;
        let found = outcome.entry.as_ref().and_then(|entry| {
            entry.instructions.iter().find_map(|instruction| match instruction {
                Instruction::Request(edit) => edit.request().map(str::to_owned),
                _ => None,
            })
        });
        found.expect("it became a request")
    }

    async fn step(&self, author: &Author, edit: RequestEdit) {
        self.tick();
        self.service.act_on_request(author, "default", edit, None).await.expect("it may be");
    }

    /// Closes the journal; its history, revision and hash.
    fn end(self) -> String {
        let head = self.journal.head();
        self.keeper.close();
        self.journal.close().expect("closes");
        format!("{} {} {}\n", self.journal.history(), head.revision, head.hash)
    }
}
