//! Journals that earlier versions wrote, which every later one reads.
//!
//! `GUIDON_BLESS=1 cargo test -p guidon-server --lib journal_of_version_4` writes that of this version anew, which is right only
//! as long as no version with its form was given to anybody.

use std::path::Path;

use guidon_sdk::model::{Flag, Serve};

use super::*;
use crate::changes::request::RequestState;
use crate::changes::{Author, ChangeDraft, ChangeOutcome, Instruction, RequestEdit};
use crate::identity::DirectoryEdit;
use crate::journal::{ENTRY_FORMAT, Entry, FileJournal, Journal, Options, StoredEntry, conformance, verify};
use crate::policy::{PrincipalKind, RiskLevel};
use crate::releases::{IncidentKind, ReleaseState};

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
    let (entries, _) = a_journal_opens("journal-3", 3).await;
    one_is_in_several_environments(&entries);
}

#[tokio::test]
async fn a_journal_of_version_4_opens() {
    if std::env::var_os("GUIDON_BLESS").is_some_and(|value| value != "0") {
        bless().await;
    }
    let (entries, world) = a_journal_opens("journal-4", 4).await;
    one_is_in_several_environments(&entries);
    let project = world.project("default").expect("there");
    let place = ("development".to_owned(), "engine".to_owned());
    let release = &project.releases[&place];
    assert_eq!((release.state, release.step), (ReleaseState::RolledBack, 1));
    assert_eq!(release.reason, "errors: 9 % against 1 %");
    let incidents: Vec<_> = project.incidents.values().map(|incident| (incident.kind, &incident.release)).collect();
    assert_eq!(incidents.len(), 2, "{incidents:?}");
    for kind in [IncidentKind::Instance, IncidentKind::RolledBack] {
        assert!(incidents.contains(&(kind, &release.id)), "{incidents:?}");
    }
    let taken_back = release.incident.as_ref().and_then(|id| project.incidents.get(id)).expect("it has one");
    assert_eq!(taken_back.evidence, json!({"treatment": 0.09, "control": 0.01}));
    assert_eq!(taken_back.notes.len(), 1);
    let closed = taken_back.finding.as_ref().expect("it was closed");
    assert_eq!(closed.finding, "a cache was missing; fixed in the next build");
    // What was served before the release is served again.
    let config = &project.flags["engine"].stored.environments["development"];
    let Serve::Rollout(rollout) = &config.fallthrough else { panic!("{config:?}") };
    assert_eq!(rollout.weights["ai"], 50_000);
}

/// One entry has instructions in environments of their own.
fn one_is_in_several_environments(entries: &[StoredEntry]) {
    let in_several = entries.iter().find(|stored| {
        stored.entry.instructions.iter().any(|instruction| matches!(instruction, Instruction::Within { .. }))
    });
    let entry = &in_several.expect("an entry with instructions in environments of their own").entry;
    assert_eq!(entry.environments(), ["development", "testing"].map(str::to_owned).into());
    assert_eq!(entry.objects.len(), 2);
}

#[tokio::test]
async fn an_entry_of_a_later_version_stops_the_start_and_changes_nothing() {
    let site = Site::new();
    let world = site.change(vec![json!([engine_flag("engine")])]).await;
    // A later version goes on, with the journal and with the copy that spares reading it.
    let opened = FileJournal::open(RealFiles::shared(), &site.journal(), Options::default(), &*site.clock, |_| Ok(()));
    let journal = opened.expect("opens").0;
    let entry = Entry { format: ENTRY_FORMAT + 1, ..conformance::sample(1) };
    let appending = journal.append(world.revision, entry).await.expect("taken");
    appending.durable.await.expect("stored");
    journal.close().expect("closes");
    let (mut store, stored) =
        StoreFolder::new(&site.state(), Duration::from_secs(60)).open().expect("opens").expect("there");
    let mark = crate::state::sled::Mark {
        entry_format: ENTRY_FORMAT + 1,
        revision: appending.stored.entry.revision,
        hash: appending.stored.hash.to_string(),
        ..stored.mark
    };
    store.write(&mark, Vec::new()).expect("writes");
    drop(store);

    let bytes = || files_in(&site.journal()).into_iter().map(|path| fs::read(path).expect("reads")).collect::<Vec<_>>();
    let before = bytes();
    let refused = site.try_open().err().expect("it is refused").to_string();
    let later = format!("it has format {} and this version knows formats up to {ENTRY_FORMAT}", ENTRY_FORMAT + 1);
    let named = format!("entry {}", appending.stored.entry.revision);
    assert!(refused.contains(&named) && refused.contains(&later) && refused.contains("install the later"), "{refused}");
    assert!(bytes() == before, "the journal is as it was");
}

/// Opens the fixture of this name, checks what everybody did in it, and answers its entries and the world.
async fn a_journal_opens(name: &str, format: u32) -> (Vec<StoredEntry>, World) {
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
    (entries, world)
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
    script.a_release_is_taken_back(&developer).await;
    let head = script.end();
    let folder = fixture("journal-4");
    let _ = fs::remove_dir_all(&folder);
    copy_dir(&site.journal(), &folder);
    for leftover in ["lock", "watermark.tmp"] {
        let _ = fs::remove_file(folder.join(leftover));
    }
    fs::write(fixture("journal-4.head"), head).expect("writes");
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

    /// A release goes a step on, one instance is ill, then all are; somebody looks into it.
    async fn a_release_is_taken_back(&self, author: &Author) {
        let release = |world: &World| {
            let place = ("development".to_owned(), "engine".to_owned());
            world.project("default").expect("there").releases[&place].clone()
        };
        let system = Author::system();
        let steps = json!([{"share": 60_000}, {"share": 100_000, "minimumSeconds": 600}]);
        let start = json!([{"kind": "startRelease", "flag": "engine", "plan": {"steps": steps}}]);
        self.edit(author, "development", start).await;
        let id = release(&self.world()).id.clone();
        let of_guard = |mut edit: Value| {
            edit["flag"] = json!("engine");
            edit["release"] = json!(id);
            json!([edit])
        };
        for edit in [
            json!({"kind": "holdRelease", "reason": "too few people"}),
            json!({"kind": "liftHold"}),
            json!({"kind": "advanceRelease"}),
            json!({"kind": "routeInstance", "instance": "i-1", "until": START_MS + 3_600_000, "reason": "one is ill"}),
        ] {
            self.edit(&system, "development", of_guard(edit)).await;
        }
        for edit in ["pauseRelease", "resumeRelease"] {
            self.edit(author, "development", json!([{"kind": edit, "flag": "engine"}])).await;
        }
        let back = json!({"kind": "rollBackRelease", "reason": "errors: 9 % against 1 %",
            "evidence": {"treatment": 0.09, "control": 0.01}});
        self.edit(&system, "development", of_guard(back)).await;
        let incident = release(&self.world()).incident.clone().expect("it was opened");
        let note = json!({"kind": "noteIncident", "flag": "engine", "incident": incident, "text": "the hook was told"});
        self.edit(&system, "development", json!([note])).await;
        let close = json!({"kind": "closeIncident", "flag": "engine", "incident": incident,
            "finding": "a cache was missing; fixed in the next build"});
        self.edit(author, "development", json!([close])).await;
    }

    /// Closes the journal; its history, revision and hash.
    fn end(self) -> String {
        let head = self.journal.head();
        self.keeper.close();
        self.journal.close().expect("closes");
        format!("{} {} {}\n", self.journal.history(), head.revision, head.hash)
    }
}
