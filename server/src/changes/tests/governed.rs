//! Who may change what, from end to end: requests, approvals, freezes, emergencies, AI agents.

use serde_json::json;

use super::people::{granted, rollout};
use super::*;
use crate::audit::EventKind;
use crate::changes::request::{RequestState, Schedule};
use crate::environments::Tier;
use crate::identity::DirectoryEdit;
use crate::policy::{Action, RiskLevel, Role};

const MINUTE_MS: u64 = 60 * 1_000;
const PRODUCTION: &str = "production";

fn refused(outcome: Result<ChangeOutcome, ChangeError>) -> Refused {
    match outcome {
        Err(ChangeError::Refused(refused)) => refused,
        other => panic!("{other:?}"),
    }
}

fn factor_needed(outcome: Result<ChangeOutcome, ChangeError>) -> Action {
    match outcome {
        Err(ChangeError::FactorNeeded(refused)) => refused.action,
        other => panic!("{other:?}"),
    }
}

fn problem(outcome: Result<ChangeOutcome, ChangeError>) -> String {
    match outcome {
        Err(ChangeError::Invalid { mut problems } | ChangeError::NotFound { mut problems }) => {
            let problem = problems.remove(0);
            format!("{}: {}", problem.code, problem.message)
        }
        other => panic!("{other:?}"),
    }
}

impl Server {
    /// The developer asks for 1 % AI in production.
    async fn asked(&self) -> String {
        let opened = self.as_author(&self.stale("dev"), PRODUCTION, rollout(1_000)).await.unwrap();
        opened.request.unwrap()
    }

    async fn propose(&self, author: &Author, environment: &str, instructions: Value, proposal: Proposal) -> String {
        let (environment, proposal) = (Some(environment.to_owned()), Some(proposal));
        let change = ChangeDraft { environment, proposal, ..draft(instructions) };
        self.service.submit(author, change).await.unwrap().request.unwrap()
    }

    /// Slots of `engine` in production that AI gets.
    fn ai_slots(&self) -> u32 {
        let world = self.service.world();
        let config = &world.flag("default", "engine").unwrap().stored.environments[PRODUCTION];
        match &config.fallthrough {
            guidon_sdk::model::Serve::Rollout(rollout) => {
                rollout.weights.iter().find(|(key, _)| *key == "ai").map_or(0, |(_, weight)| *weight)
            }
            guidon_sdk::model::Serve::Variation(variation) => {
                if variation == "ai" {
                    100_000
                } else {
                    0
                }
            }
        }
    }
}

#[tokio::test]
async fn a_developers_change_of_production_waits_for_an_approval_and_is_applied() {
    let server = Server::governed().await;
    let dry = ChangeDraft { environment: Some(PRODUCTION.to_owned()), dry_run: true, ..draft(rollout(1_000)) };
    let needs = server.service.submit(&server.stale("dev"), dry).await.unwrap().needs.unwrap();
    assert_eq!((needs.approvals, needs.risk.score), (1, 46));
    let opened = server.as_author(&server.stale("dev"), PRODUCTION, rollout(1_000)).await.unwrap();
    let request = opened.opened().unwrap();
    assert_eq!((request.state, request.content.needed), (RequestState::Review, 1));
    assert_eq!((request.content.risk.level, request.content.risk.score), (RiskLevel::Medium, 46));
    assert_eq!((request.author.id.as_str(), server.ai_slots()), ("dev", 0));
    assert_eq!(request.content.environments, [PRODUCTION]);

    let manager = server.human("manager");
    let early = server.apply(&manager, &request.id).await;
    assert!(problem(early).contains("only an approved one is applied"));
    assert_eq!(factor_needed(server.approve(&server.stale("approver"), &request.id).await), Action::ApproveRequest);
    refused(server.approve(&server.human("manager"), &request.id).await);
    server.approve(&server.human("approver"), &request.id).await.unwrap();
    assert_eq!(server.request(&request.id).state, RequestState::Approved);

    refused(server.apply(&server.human("dev"), &request.id).await);
    assert_eq!(factor_needed(server.apply(&server.stale("manager"), &request.id).await), Action::ApplyRequest);
    let applied = server.apply(&manager, &request.id).await.unwrap();
    assert_eq!(server.ai_slots(), 1_000);
    let entry = applied.entry.unwrap();
    let grounds = entry.grounds.as_ref().unwrap();
    assert_eq!((entry.actor_id.as_str(), grounds.author.as_deref()), ("manager", Some("dev")));
    assert_eq!(grounds.request.as_deref(), Some(&*request.id));
    assert_eq!((grounds.approvals.len(), grounds.approvals[0].by.as_str()), (1, "approver"));
    assert_eq!(grounds.approvals[0].hash, request.content.hash);
    assert_eq!(grounds.policies, ["release-managers-apply"]);
    let set = server.service.policies_of(&server.service.world()).unwrap();
    assert_eq!(grounds.policy_set, set.hash().to_string());
    assert_eq!(grounds.risk.as_ref().map(|risk| risk.score), Some(46));
    assert_eq!(server.request(&request.id).ended.as_ref().unwrap().revision, Some(entry.revision));
    assert!(problem(server.apply(&manager, &request.id).await).contains("applied"));
}

#[tokio::test]
async fn an_approval_binds_to_what_was_asked_for_and_an_edit_voids_it() {
    let server = Server::governed().await;
    let id = server.asked().await;
    let approver = server.human("approver");
    let first = server.request(&id).content.hash.clone();
    server.approve(&approver, &id).await.unwrap();
    let revision = RequestRevision {
        instructions: Some(serde_json::from_value(rollout(500)).unwrap()),
        ..RequestRevision::default()
    };
    refused(server.service.edit_request(&server.human("dev-2"), "default", &id, revision.clone()).await);
    server.service.edit_request(&server.stale("dev"), "default", &id, revision).await.unwrap();
    let edited = server.request(&id);
    assert_eq!((edited.state, edited.version, edited.approvals.len()), (RequestState::Review, 2, 0));
    assert_ne!(edited.content.hash, first);
    let old = RequestEdit::ApproveRequest { id: id.clone(), by: String::new(), hash: first };
    assert!(problem(server.step(&approver, old).await).contains("edited since"));
    assert!(problem(server.apply(&server.human("manager"), &id).await).contains("only an approved one"));
    assert_eq!(server.ai_slots(), 0);
}

#[tokio::test]
async fn only_what_a_request_asks_for_now_is_kept() {
    let server = Server::governed().await;
    let id = server.asked().await;
    assert_eq!(server.requests.count(), 1);
    let revision = |to: u32| RequestRevision {
        instructions: Some(serde_json::from_value(rollout(to)).unwrap()),
        ..RequestRevision::default()
    };
    // Refused before it is looked at or stored, and noted once.
    let refusals = || server.audit.events().iter().filter(|event| event.kind == EventKind::Refused).count();
    let before = refusals();
    let edited = server.service.edit_request(&server.human("dev-2"), "default", &id, revision(500)).await;
    assert_eq!(refused(edited).action, Action::EditRequest);
    assert_eq!((server.requests.count(), refusals()), (1, before + 1));
    // An edit takes the place of what was asked for; sent again it stores nothing.
    let idempotency = Some(IdempotencyKey { key: "k".to_owned(), body_hash: "a".to_owned() });
    let sent = RequestRevision { idempotency, ..revision(500) };
    let first = server.service.edit_request(&server.stale("dev"), "default", &id, sent.clone()).await.unwrap();
    let again = server.service.edit_request(&server.stale("dev"), "default", &id, sent).await.unwrap();
    assert_eq!((again.revision, again.replayed), (first.revision, true));
    assert_eq!((server.requests.count(), server.request(&id).version), (1, 2));
    assert!(server.service.request_body(&server.request(&id)).await.is_ok());
}

#[tokio::test]
async fn nobody_takes_the_room_of_all_others() {
    use crate::changes::request::{MAX_OPEN_PER_AGENT, MAX_OPEN_PER_AUTHOR};
    let server = Server::governed().await;
    let draft_of = |author: Author| {
        let proposal = Some(Proposal { draft: true, ..Proposal::default() });
        let environment = Some("staging".to_owned());
        let change = ChangeDraft { environment, proposal, ..draft(json!([{"kind": "turnFlagOff", "flag": "engine"}])) };
        let server = &server;
        async move { server.service.submit(&author, change).await }
    };
    for _ in 0..MAX_OPEN_PER_AGENT {
        draft_of(server.agent()).await.unwrap();
    }
    let message = problem(draft_of(server.agent()).await);
    assert!(message.starts_with("tooMany: you have 20 open change requests"), "{message}");
    for _ in 0..MAX_OPEN_PER_AUTHOR {
        draft_of(server.stale("dev")).await.unwrap();
    }
    assert!(problem(draft_of(server.stale("dev")).await).starts_with("tooMany: you have 50"));
    draft_of(server.stale("dev-2")).await.unwrap();
    assert_eq!(server.requests.count(), MAX_OPEN_PER_AGENT + MAX_OPEN_PER_AUTHOR + 1);
    // Approvers clear drafts away.
    let agent = server.agent().actor_id;
    let world = server.service.world();
    let id = world.projects["default"].requests.values().find(|request| request.author.id == agent).unwrap().id.clone();
    let reject = RequestEdit::RejectRequest { id: id.clone(), by: String::new(), reason: "stale".to_owned() };
    server.step(&server.human("approver"), reject).await.unwrap();
    assert_eq!(server.request(&id).state, RequestState::Rejected);
    draft_of(server.agent()).await.unwrap();
}

#[tokio::test]
async fn neither_authors_nor_owners_nor_who_was_shut_out_count() {
    let server = Server::governed().await;
    let both = server.human("both");
    // Their own.
    let own = server.propose(&both, PRODUCTION, rollout(1_000), Proposal::default()).await;
    assert!(problem(server.approve(&both, &own).await).contains("nobody approves a change that they"));
    // Of an AI agent of theirs.
    let agents = server.as_author(&server.agent(), "staging", json!([{"kind": "turnFlagOff", "flag": "engine"}])).await;
    let agents = agents.unwrap().request.unwrap();
    assert_eq!(server.request(&agents).content.needed, 1, "however low the risk of what an AI agent proposes");
    assert!(problem(server.approve(&both, &agents).await).contains("or an AI agent of theirs"));
    server.approve(&server.human("approver-2"), &agents).await.unwrap();
    server.apply(&server.human("manager"), &agents).await.unwrap();
    assert!(!server.is_on("staging", "engine"));
    // By somebody who was shut out since.
    server.approve(&server.human("approver"), &own).await.unwrap();
    let disable = DirectoryEdit::DisablePrincipal { id: "approver".to_owned() };
    server.direct_directory(&server.human("admin"), vec![disable]).await;
    assert_eq!(server.service.counted_approvals(&server.request(&own)), 0);
    let manager = server.human("manager");
    assert_eq!(refused(server.apply(&manager, &own).await).policies, ["approvals-medium-in-production"]);
    server.approve(&server.human("approver-2"), &own).await.unwrap();
    server.apply(&manager, &own).await.unwrap();
    assert_eq!(server.ai_slots(), 1_000);
}

#[tokio::test]
async fn a_high_risk_takes_two_different_people() {
    let server = Server::governed().await;
    let opened = server.as_author(&server.stale("dev"), PRODUCTION, rollout(60_000)).await.unwrap();
    let id = opened.request.unwrap();
    assert_eq!((server.request(&id).content.needed, server.request(&id).content.risk.level), (2, RiskLevel::High));
    server.approve(&server.human("approver"), &id).await.unwrap();
    server.approve(&server.human("approver"), &id).await.unwrap();
    assert_eq!(server.request(&id).state, RequestState::Review, "one person counts once");
    server.approve(&server.human("approver-2"), &id).await.unwrap();
    server.apply(&server.human("manager"), &id).await.unwrap();
    assert_eq!(server.ai_slots(), 60_000);
}

#[tokio::test]
async fn a_request_that_no_longer_applies_names_the_entries_and_is_rebased() {
    let server = Server::governed().await;
    let id = server.asked().await;
    server.approve(&server.human("approver"), &id).await.unwrap();
    assert!(server.service.check_request(&server.request(&id)).await.is_ok());
    server.direct(PRODUCTION, rollout(200)).await;
    let revision = server.service.world().revision;
    let named = |outcome: ChangeError| match outcome {
        ChangeError::Conflict { entries, .. } => entries.iter().map(|entry| entry.revision).collect::<Vec<_>>(),
        other => panic!("{other:?}"),
    };
    let manager = server.human("manager");
    assert_eq!(named(server.apply(&manager, &id).await.unwrap_err()), [revision]);
    assert_eq!(named(server.service.check_request(&server.request(&id)).await.unwrap_err()), [revision]);
    server.service.edit_request(&server.stale("dev"), "default", &id, RequestRevision::default()).await.unwrap();
    assert_eq!(server.request(&id).content.base_revision, revision);
    assert_eq!(server.request(&id).state, RequestState::Review);
    assert!(server.service.check_request(&server.request(&id)).await.is_ok());
    server.approve(&server.human("approver"), &id).await.unwrap();
    server.apply(&manager, &id).await.unwrap();
    assert_eq!(server.ai_slots(), 1_000);
}

#[tokio::test]
async fn a_scheduled_request_is_applied_within_its_window_only() {
    let server = Server::governed().await;
    let now = server.clock.now();
    let schedule = Some(Schedule { not_before: now + 10 * MINUTE_MS, not_after: Some(now + 20 * MINUTE_MS) });
    let scheduled = Proposal { schedule, ..Proposal::default() };
    let id = server.propose(&server.stale("dev"), PRODUCTION, rollout(1_000), scheduled.clone()).await;
    let late = server.propose(&server.stale("dev-2"), PRODUCTION, rollout(2_000), scheduled).await;
    for request in [&id, &late] {
        server.approve(&server.human("approver"), request).await.unwrap();
    }
    assert!(problem(server.apply(&server.human("manager"), &id).await).starts_with("outsideWindow"));
    server.clock.advance_ms(10 * MINUTE_MS);
    server.apply(&Author::system(), &id).await.unwrap();
    assert_eq!(server.ai_slots(), 1_000);
    server.clock.advance_ms(10 * MINUTE_MS + 1);
    assert!(problem(server.apply(&server.human("manager"), &late).await).starts_with("outsideWindow"));
    let past = ChangeDraft {
        environment: Some(PRODUCTION.to_owned()),
        proposal: Some(Proposal {
            schedule: Some(Schedule { not_before: 5, not_after: Some(6) }),
            ..Proposal::default()
        }),
        ..draft(rollout(3))
    };
    assert!(problem(server.service.submit(&server.human("dev"), past).await).starts_with("outOfRange"));
}

#[tokio::test]
async fn a_freeze_holds_everything_but_lowering() {
    let server = Server::governed().await;
    let id = server.asked().await;
    server.approve(&server.human("approver"), &id).await.unwrap();
    server.direct(PRODUCTION, json!([{"kind": "updateFlag", "flag": "idle", "name": "Idle"}])).await;
    let freeze = json!([{"kind": "declareFreeze", "reason": "Black Friday"}]);
    assert_eq!(
        factor_needed(server.as_author(&server.stale("admin"), PRODUCTION, freeze.clone()).await),
        Action::DeclareFreeze
    );
    server.as_author(&server.human("admin"), PRODUCTION, freeze).await.unwrap();
    let manager = server.human("manager");
    assert_eq!(refused(server.apply(&manager, &id).await).policies, ["freeze"]);
    assert_eq!(refused(server.apply(&Author::system(), &id).await).policies, ["freeze"]);
    server.asked().await;
    let off = json!([{"kind": "turnFlagOff", "flag": "engine"}]);
    let freezes = server.service.world().projects["default"].environments[PRODUCTION].freezes.clone();
    let lift = json!([{"kind": "liftFreeze", "id": freezes[0].id}]);
    refused(server.as_author(&server.human("dev"), PRODUCTION, lift.clone()).await);
    server.as_author(&server.human("admin"), PRODUCTION, lift).await.unwrap();
    server.apply(&manager, &id).await.unwrap();
    let again = json!([{"kind": "declareFreeze", "reason": "Again"}]);
    server.as_author(&manager, PRODUCTION, again).await.unwrap();
    server.as_author(&manager, PRODUCTION, off).await.unwrap();
    assert!(!server.is_on(PRODUCTION, "engine"));
}

#[tokio::test]
async fn a_release_manager_stops_production_at_once_and_somebody_reviews_it() {
    let server = Server::governed().await;
    server.direct(PRODUCTION, rollout(30_000)).await;
    let off = json!([{"kind": "turnFlagOff", "flag": "engine"}]);
    assert_eq!(
        factor_needed(server.as_author(&server.stale("manager"), PRODUCTION, off.clone()).await),
        Action::TurnFlagOff
    );
    assert!(server.is_on(PRODUCTION, "engine"));
    let killed = server.as_author(&server.human("manager"), PRODUCTION, off).await.unwrap();
    assert!(!server.is_on(PRODUCTION, "engine"));
    let entry = killed.entry.unwrap();
    let grounds = entry.grounds.as_ref().unwrap();
    assert!(grounds.emergency && grounds.request.is_none());
    assert_eq!(grounds.policies, ["release-managers-stop"]);
    let review = server.service.world().projects["default"].reviews[&entry.revision].clone();
    assert_eq!((review.by.as_str(), review.environment.as_str(), &review.finding), ("manager", PRODUCTION, &None));
    // Turning it on again is no emergency.
    let on =
        server.as_author(&server.human("manager"), PRODUCTION, json!([{"kind": "turnFlagOn", "flag": "engine"}])).await;
    assert!(on.unwrap().opened().is_some());
    let close = |finding: &str| RequestEdit::ReviewEntry {
        revision: entry.revision,
        by: String::new(),
        finding: finding.to_owned(),
    };
    refused(server.step(&server.human("manager"), close("fine")).await);
    assert_eq!(factor_needed(server.step(&server.stale("approver"), close("fine")).await), Action::ReviewEntry);
    assert!(problem(server.step(&server.human("approver"), close(" ")).await).starts_with("badText"));
    server.step(&server.human("approver"), close("errors doubled")).await.unwrap();
    let review = server.service.world().projects["default"].reviews[&entry.revision].clone();
    assert_eq!(
        review.finding.as_ref().map(|finding| (&*finding.by, &*finding.text)),
        Some(("approver", "errors doubled"))
    );
}

#[tokio::test]
async fn an_ai_agent_has_less_from_tier_to_tier() {
    let server = Server::governed().await;
    let agent = server.agent();
    let on = json!([{"kind": "turnFlagOn", "flag": "idle"}]);
    for environment in ["development", "testing"] {
        server.as_author(&agent, environment, on.clone()).await.unwrap();
        assert!(server.is_on(environment, "idle"));
    }
    let staging = server.as_author(&agent, "staging", on.clone()).await.unwrap();
    assert!(staging.opened().is_some() && !server.is_on("staging", "idle"));
    let production = refused(server.as_author(&agent, PRODUCTION, on).await);
    assert_eq!(production.policies, ["agents-nothing-in-production"]);
    // `idle` is on in testing, so archiving it is a matter of testing too.
    let archive = json!([{"kind": "archiveFlag", "flag": "idle"}]);
    assert_eq!(refused(server.as_author(&agent, "development", archive).await).environment, "testing");
    let id = staging.request.unwrap();
    refused(server.approve(&agent, &id).await);
    refused(server.apply(&agent, &id).await);
    let comment = RequestEdit::CommentRequest { id: id.clone(), by: "dev".to_owned(), text: "mine".to_owned() };
    server.step(&agent, comment).await.unwrap();
    assert_eq!(server.request(&id).comments[0].by, agent.actor_id, "whoever it says it is");
    let others = server.asked().await;
    let comment = RequestEdit::CommentRequest { id: others, by: String::new(), text: "?".to_owned() };
    refused(server.step(&agent, comment).await);
}

#[tokio::test]
async fn an_ai_agent_makes_sixty_changes_an_hour_in_testing() {
    let server = Server::governed().await;
    let agent = server.agent();
    for round in 0..60 {
        let kind = if round % 2 == 0 { "turnFlagOn" } else { "turnFlagOff" };
        server.as_author(&agent, "testing", json!([{"kind": kind, "flag": "idle"}])).await.unwrap();
    }
    let one_more = json!([{"kind": "turnFlagOn", "flag": "idle"}]);
    let over = refused(server.as_author(&agent, "testing", one_more.clone()).await);
    assert_eq!(over.policies, ["agents-quota-in-testing"]);
    server.as_author(&agent, "development", one_more.clone()).await.unwrap();
    server.clock.advance_ms(60 * MINUTE_MS + 1);
    server.as_author(&agent, "testing", one_more).await.unwrap();
}

#[tokio::test]
async fn a_flag_wide_edit_is_judged_wherever_the_flag_is_live_and_the_strictest_answer_wins() {
    let server = Server::governed().await;
    let name = |flag: &str| json!([{"kind": "updateFlag", "flag": flag, "name": "New name"}]);
    let variation =
        |flag: &str| json!([{"kind": "addVariation", "flag": flag, "variation": {"key": "v2", "value": "2"}}]);
    // `idle` serves nowhere: its variations are a matter of development.
    server.as_author(&server.agent(), "development", variation("idle")).await.unwrap();
    // `engine` serves production, where an AI agent has nothing and a developer proposes.
    let agent = refused(server.as_author(&server.agent(), "development", variation("engine")).await);
    assert_eq!(agent.environment, PRODUCTION);
    let opened = server.as_author(&server.stale("dev"), "development", variation("engine")).await.unwrap();
    let entry = opened.entry.unwrap();
    let request = server.request(&opened.request.unwrap());
    assert_eq!(request.content.environments, [PRODUCTION, "staging"]);
    // Low risk that passes every gate applies by itself, and the entry says so.
    assert_eq!(request.state, RequestState::Applied);
    let grounds = entry.grounds.as_ref().unwrap();
    assert_eq!((entry.actor_id.as_str(), grounds.author.as_deref()), ("system", Some("dev")));
    assert_eq!(grounds.request.as_deref(), Some(&*request.id));
    assert_eq!(grounds.policies, ["system-applies-requests"]);
    assert_eq!((grounds.risk.as_ref().unwrap().level, grounds.approvals.len()), (RiskLevel::Low, 0));
    assert_eq!(grounds.environments, [PRODUCTION, "staging"]);
    // A scoped token is held to its scope in every one of these places.
    let narrow = server.service_account(&["edit"], &["development", "staging"]);
    assert_eq!(refused(server.as_author(&narrow, "development", name("engine")).await).environment, PRODUCTION);
    server.as_author(&narrow, "development", name("idle")).await.unwrap();
}

#[tokio::test]
async fn production_never_serves_ai_while_a_flag_is_off() {
    let server = Server::governed().await;
    let off = json!([{"kind": "setOffVariation", "flag": "engine", "variation": "ai"}]);
    for author in [server.human("manager"), server.stale("dev"), Author::system()] {
        assert!(problem(server.as_author(&author, PRODUCTION, off.clone()).await).starts_with("aiOffVariation"));
    }
    server.as_author(&server.stale("dev"), "development", off).await.unwrap();
    // Nor does what is off that way elsewhere come to production with its environment.
    let create = |tier: &str| json!([{"kind": "createEnvironment", "key": "next", "tier": tier}]);
    server.as_author(&server.human("admin"), "development", create("testing")).await.unwrap();
    server.direct("next", json!([{"kind": "setOffVariation", "flag": "idle", "variation": "ai"}])).await;
    let moved = json!([{"kind": "updateEnvironment", "key": "next", "tier": "production"}]);
    assert!(problem(server.as_author(&server.human("admin"), "next", moved).await).starts_with("aiOffVariation"));
}

#[tokio::test]
async fn a_service_account_applies_in_production_and_does_nothing_else_there() {
    let server = Server::governed().await;
    let id = server.asked().await;
    server.approve(&server.human("approver"), &id).await.unwrap();
    let everything = server.service_account(&["read", "edit", "delete", "request"], &[]);
    refused(server.as_author(&everything, PRODUCTION, rollout(5)).await);
    refused(server.approve(&everything, &id).await);
    let elsewhere = server.service_account(&["applyRequest"], &["staging"]);
    assert_eq!(refused(server.apply(&elsewhere, &id).await).policies, ["tokens-only-in-scope"]);
    server.apply(&server.service_account(&["applyRequest"], &[PRODUCTION]), &id).await.unwrap();
    assert_eq!(server.ai_slots(), 1_000);
}

#[tokio::test]
async fn roles_count_where_they_were_given() {
    let server = Server::governed().await;
    let staging = granted("nobody", Role::ReleaseManager, &[Tier::Staging]);
    server.direct_directory(&server.human("admin"), vec![staging]).await;
    let off = json!([{"kind": "turnFlagOff", "flag": "engine"}]);
    server.as_author(&server.human("nobody"), "staging", off.clone()).await.unwrap();
    refused(server.as_author(&server.human("nobody"), PRODUCTION, off).await);
}

#[tokio::test]
async fn a_refusal_is_recorded_and_tells_nothing_of_what_is_there() {
    let server = Server::governed().await;
    let mut answers = Vec::new();
    for flag in ["engine", "there-is-none"] {
        for author in [server.agent(), server.human("viewer"), server.service_account(&["edit"], &[])] {
            let on = json!([{"kind": "turnFlagOn", "flag": flag}]);
            let error = server.as_author(&author, PRODUCTION, on).await.unwrap_err();
            answers.push((flag, error.to_string()));
        }
    }
    let of =
        |flag: &str| answers.iter().filter(|(of, _)| *of == flag).map(|(_, text)| text.clone()).collect::<Vec<_>>();
    assert_eq!(of("engine"), of("there-is-none"));
    let events = server.audit.events();
    assert_eq!(events.len(), 6);
    let first = &events[0];
    assert_eq!((first.kind, first.actor_id.as_ref()), (EventKind::Refused, Some(&server.agent().actor_id)));
    assert_eq!((first.environment.as_deref(), first.action.as_deref()), (Some(PRODUCTION), Some("turnFlagOn")));
    assert_eq!(first.policies, ["agents-nothing-in-production"]);
    assert_eq!(first.credential.as_deref(), Some("token-1"));
}

#[tokio::test]
async fn a_step_of_a_request_cannot_be_passed_off_as_a_change() {
    let server = Server::governed().await;
    let id = server.asked().await;
    let hash = server.request(&id).content.hash.clone();
    let steps = [
        RequestEdit::ApproveRequest { id: id.clone(), by: "approver".to_owned(), hash: hash.clone() },
        RequestEdit::ApplyRequest { id: id.clone(), by: "both".to_owned(), hash },
        RequestEdit::ExpireRequest { id: id.clone() },
    ];
    let both = server.human("both");
    for step in steps {
        let step = Instruction::Request(Box::new(step));
        for request in [None, Some(id.clone())] {
            let mut change =
                ChangeDraft { environment: Some(PRODUCTION.to_owned()), request, ..draft(rollout(90_000)) };
            change.instructions.push(step.clone());
            assert!(problem(server.service.submit(&both, change.clone()).await).starts_with("notHere"));
            change.instructions = vec![step.clone()];
            assert!(problem(server.service.submit(&both, change).await).starts_with("notHere"));
        }
    }
    let open = server.service.world().revision;
    let carried =
        ChangeDraft { environment: Some(PRODUCTION.to_owned()), request: Some(id.clone()), ..draft(rollout(90_000)) };
    assert!(problem(server.service.submit(&both, carried).await).starts_with("notHere"));
    assert_eq!((server.service.world().revision, server.ai_slots()), (open, 0));
}

#[tokio::test]
async fn a_change_that_became_a_request_and_is_sent_again_answers_what_came_of_it() {
    let server = Server::governed().await;
    let sent = |instructions: Value, key: &str| ChangeDraft {
        environment: Some(PRODUCTION.to_owned()),
        idempotency: Some(IdempotencyKey { key: key.to_owned(), body_hash: key.to_owned() }),
        ..draft(instructions)
    };
    let dev = server.human("dev");
    let waits = server.service.submit(&dev, sent(rollout(1_000), "a")).await.unwrap();
    let again = server.service.submit(&dev, sent(rollout(1_000), "a")).await.unwrap();
    assert_eq!((again.replayed, again.opened().map(|it| it.id)), (true, waits.request));
    let name = json!([{"kind": "updateFlag", "flag": "engine", "name": "N"}]);
    let applied = server.service.submit(&dev, sent(name.clone(), "b")).await.unwrap();
    let again = server.service.submit(&dev, sent(name, "b")).await.unwrap();
    assert!(applied.opened().is_none() && again.opened().is_none());
    assert_eq!((again.replayed, again.revision), (true, applied.revision));
    let id = server.asked().await;
    server.approve(&server.human("approver"), &id).await.unwrap();
    let key = || Some(IdempotencyKey { key: "c".to_owned(), body_hash: "c".to_owned() });
    let manager = server.human("manager");
    let first = server.service.apply_request(&manager, "default", &id, key()).await.unwrap();
    let second = server.service.apply_request(&manager, "default", &id, key()).await.unwrap();
    assert_eq!((second.replayed, second.revision), (true, first.revision));
}
