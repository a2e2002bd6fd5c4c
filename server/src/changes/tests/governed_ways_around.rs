//! Ways around the policies that were found by trying, and stay closed.

use serde_json::json;

use super::*;

fn problem_codes(outcome: Result<ChangeOutcome, ChangeError>) -> Vec<String> {
    match outcome {
        Err(ChangeError::Invalid { problems } | ChangeError::NotFound { problems }) => {
            problems.into_iter().map(|problem| problem.code.to_string()).collect()
        }
        other => panic!("{other:?}"),
    }
}

fn refused_in(outcome: Result<ChangeOutcome, ChangeError>) -> String {
    match outcome {
        Err(ChangeError::Refused(refused)) => refused.environment,
        other => panic!("{other:?}"),
    }
}

fn value(flag: &str, variation: &str, value: &str) -> Value {
    json!([{"kind": "updateVariation", "flag": flag, "variation": variation, "value": value}])
}

#[tokio::test]
async fn what_an_off_flag_serves_in_production_is_no_matter_of_development() {
    let server = Server::governed().await;
    let agent = server.agent();
    // Nobody holds a key of production: no application is served anything there.
    server.as_author(&agent, "development", value("idle", "baseline", "b")).await.unwrap();
    let key = json!([{"kind": "createSdkKey", "audience": "server"}]);
    server.as_author(&server.human("admin"), "production", key).await.unwrap();
    let edited = server.as_author(&agent, "development", value("idle", "baseline", "c")).await;
    assert_eq!(refused_in(edited), "production");
    // Its other variation is served nowhere.
    server.as_author(&agent, "development", value("idle", "ai", "a")).await.unwrap();
    let prepared = json!([{"kind": "setFallthrough", "flag": "idle", "serve": {"variation": "ai"}}]);
    server.direct("production", prepared).await;
    let archived = json!([{"kind": "archiveFlag", "flag": "idle"}]);
    assert_eq!(refused_in(server.as_author(&agent, "development", archived).await), "production");
}

#[tokio::test]
async fn another_value_of_a_served_variation_is_nobodys_to_give() {
    let server = Server::governed().await;
    for id in ["dev", "manager", "admin", "both"] {
        let edited = server.as_author(&server.human(id), "production", value("engine", "baseline", "new")).await;
        assert_eq!(problem_codes(edited), ["variationServed"]);
    }
    // Where another one is prepared, it needs an approval, and is no way out of an emergency.
    let prepared = json!([{"kind": "setFallthrough", "flag": "idle", "serve": {"variation": "ai"}}]);
    server.direct("production", prepared).await;
    let opened = server.as_author(&server.human("manager"), "production", value("idle", "ai", "new")).await.unwrap();
    assert_eq!(server.request(&opened.request.unwrap()).content.environments, ["production"]);
}

#[tokio::test]
async fn an_ai_agent_vouches_for_no_person() {
    let server = Server::governed().await;
    let agent = server.agent();
    let human = json!({"by": "human"});
    let tries = [
        json!([engine_flag("other")]),
        json!([{"kind": "addVariation", "flag": "idle", "variation": {"key": "v2", "value": "2", "provenance": human}}]),
        json!([{"kind": "updateVariation", "flag": "idle", "variation": "ai", "provenance": human}]),
    ];
    for instructions in tries {
        assert_eq!(problem_codes(server.as_author(&agent, "development", instructions).await), ["notByAgents"]);
    }
}

#[tokio::test]
async fn turning_on_is_never_an_emergency() {
    let server = Server::governed().await;
    let on = json!([{"kind": "turnFlagOn", "flag": "idle"}]);
    let outcome = server.as_author(&server.human("manager"), "production", on.clone()).await.unwrap();
    assert!(outcome.request.is_some(), "at the least a change request that applies by itself");
    let stale =
        server.as_author(&server.stale("dev-2"), "production", json!([{"kind": "turnFlagOff", "flag": "idle"}])).await;
    assert!(stale.is_ok(), "{stale:?}");
    let again = server.as_author(&server.stale("dev-2"), "production", on).await;
    assert!(matches!(again, Err(ChangeError::FactorNeeded(_))), "{again:?}");
}

#[tokio::test]
async fn a_new_project_brings_nothing_along() {
    let server = Server::governed().await;
    let operator = Author::of(crate::identity::OPERATOR, "origin-1", PrincipalKind::Operator);
    let change = ChangeDraft {
        project: "shop".to_owned(),
        ..draft(json!([{"kind": "createProject"}, engine_flag("x"), {"kind": "turnFlagOn", "flag": "x"}]))
    };
    assert_eq!(problem_codes(server.service.submit(&operator, change).await), ["notHere"]);
    assert!(server.service.world().project("shop").is_none());
}

#[tokio::test]
async fn an_ai_agent_does_not_edit_what_its_owner_wrote() {
    let server = Server::governed().await;
    let proposal = Some(Proposal { draft: true, ..Proposal::default() });
    let change = ChangeDraft {
        environment: Some("staging".to_owned()),
        proposal,
        ..draft(json!([{"kind": "turnFlagOff", "flag": "engine"}]))
    };
    let id = server.service.submit(&server.human("both"), change).await.unwrap().request.unwrap();
    let revision = RequestRevision {
        instructions: Some(serde_json::from_value(json!([{"kind": "turnFlagOn", "flag": "idle"}])).unwrap()),
        ..RequestRevision::default()
    };
    let edited = server.service.edit_request(&server.agent(), "default", &id, revision).await;
    assert!(matches!(edited, Err(ChangeError::Refused(_))), "{edited:?}");
}

#[tokio::test]
async fn an_approval_counts_as_long_as_its_giver_may_approve() {
    let server = Server::governed().await;
    let weights = json!({"ai": 1_000, "baseline": 99_000});
    let rollout = json!([{"kind": "setRollout", "flag": "engine", "weights": weights}]);
    let id = server.as_author(&server.human("dev"), "production", rollout).await.unwrap().request.unwrap();
    server.approve(&server.human("approver"), &id).await.unwrap();
    assert_eq!(server.service.counted_approvals(&server.request(&id)), 1);
    let world = server.service.world();
    let binding = world.directory.bindings_of("approver", &[]).next().unwrap().id.clone();
    let revoke = crate::identity::DirectoryEdit::RevokeRole { id: binding };
    server.direct_directory(&server.human("admin"), vec![revoke]).await;
    assert_eq!(server.service.counted_approvals(&server.request(&id)), 0);
    assert!(server.apply(&server.human("manager"), &id).await.is_err());
}

fn rollout_in(environment: &str, ai: u32) -> Value {
    let weights = json!({"ai": ai, "baseline": 100_000 - ai});
    json!({"kind": "setRollout", "flag": "engine", "environment": environment, "weights": weights})
}

#[tokio::test]
async fn an_instruction_is_judged_where_it_applies_and_not_where_its_change_says() {
    let server = Server::governed().await;
    let before = server.service.world();
    let agent = server.agent();
    for (named, own) in [("development", "production"), ("staging", "production"), ("testing", "production")] {
        assert_eq!(refused_in(server.as_author(&agent, named, json!([rollout_in(own, 1_000)])).await), own);
        let beside = json!([rollout_in(named, 1_000), rollout_in(own, 1_000)]);
        assert!(matches!(server.as_author(&agent, named, beside).await, Err(ChangeError::Refused(_))));
    }
    // Nor does a token reach what it was not made for.
    let pipeline = server.service_account(&["edit"], &["development"]);
    assert_eq!(
        refused_in(server.as_author(&pipeline, "development", json!([rollout_in("testing", 1)])).await),
        "testing"
    );
    // Nor does an environment that there is not.
    assert_eq!(refused_in(server.as_author(&agent, "development", json!([rollout_in("no-such", 1)])).await), "no-such");
    assert_eq!(server.service.world(), before);
    // In staging it may propose, wherever its change says that it is.
    let proposed = server.as_author(&agent, "development", json!([rollout_in("staging", 1_000)])).await.unwrap();
    let request = server.request(&proposed.request.unwrap());
    assert!(request.state.is_open() && request.content.needed > 0);
    assert_eq!(request.content.environments, ["staging"]);
    // The other way round nothing happens where the change says.
    let made = server.as_author(&agent, "production", json!([rollout_in("development", 1_000)])).await.unwrap();
    assert_eq!(made.changed.len(), 1);
    assert_eq!(made.changed[0].to_string(), "environment/development/flag/engine");
}

#[tokio::test]
async fn one_part_that_needs_a_request_makes_the_whole_one() {
    let server = Server::governed().await;
    let both = json!([rollout_in("development", 1_000), rollout_in("production", 100_000)]);
    let opened = server.as_author(&server.human("dev"), "development", both).await.unwrap();
    let request = server.request(&opened.request.unwrap());
    assert_eq!(request.content.environments, ["development", "production"]);
    // As strict as the strictest.
    assert_eq!(request.content.needed, 2);
    let serves = |environment: &str| {
        let flag = server.service.world().flag("default", "engine").unwrap().stored.clone();
        serde_json::to_value(&flag.environments[environment].fallthrough).unwrap()
    };
    assert_eq!(serves("development"), json!({"variation": "baseline"}));
    for approver in ["approver", "approver-2"] {
        server.approve(&server.human(approver), &request.id).await.unwrap();
    }
    let applied = server.apply(&server.human("manager"), &request.id).await.unwrap();
    assert_eq!(applied.summary[0], "made engine serve 1 % ai, 99 % baseline by default in development");
    assert_eq!(applied.summary[1], "made engine serve 100 % ai, 0 % baseline by default in production");
    assert_eq!(serves("development")["rollout"]["weights"]["ai"], 1_000);
    assert_eq!(serves("production")["rollout"]["weights"]["ai"], 100_000);
}

#[tokio::test]
async fn a_freeze_holds_for_instructions_of_other_changes() {
    let server = Server::governed().await;
    let freeze = json!([{"kind": "declareFreeze", "reason": "a launch", "environment": "staging"}]);
    server.as_author(&server.human("manager"), "development", freeze).await.unwrap();
    let world = server.service.world();
    assert_eq!(world.environment("default", "staging").unwrap().freezes.len(), 1);
    assert!(world.environment("default", "development").unwrap().freezes.is_empty());
    let both = json!([rollout_in("development", 1_000), rollout_in("staging", 1_000)]);
    let edited = server.as_author(&server.human("manager"), "development", both).await.unwrap();
    let request = server.request(&edited.request.unwrap());
    assert_eq!(request.content.environments, ["development", "staging"]);
    server.approve(&server.human("approver"), &request.id).await.unwrap();
    assert_eq!(refused_in(server.apply(&server.human("manager"), &request.id).await), "staging");
}

#[tokio::test]
async fn what_off_may_serve_in_production_is_checked_there() {
    let server = Server::governed().await;
    let off = json!([{"kind": "setOffVariation", "flag": "idle", "variation": "ai", "environment": "production"}]);
    let refused = server.as_author(&Author::system(), "development", off).await;
    assert_eq!(problem_codes(refused), ["aiOffVariation"]);
}

#[tokio::test]
async fn an_emergency_in_one_environment_excuses_nothing_in_another() {
    let server = Server::governed().await;
    server.direct("production", json!([rollout_in("production", 50_000)])).await;
    let kill = json!({"kind": "turnFlagOff", "flag": "engine", "environment": "production"});
    let prepare =
        json!({"kind": "setFallthrough", "flag": "idle", "environment": "production", "serve": {"variation": "ai"}});
    let widen = json!({"kind": "turnFlagOn", "flag": "idle", "environment": "production"});
    let manager = server.human("manager");
    let both = server.as_author(&manager, "staging", json!([kill, prepare, widen])).await.unwrap();
    assert!(both.request.is_some() && server.is_on("production", "engine"));
    // In staging a release manager may do what they like, and lowering in production is theirs too.
    let direct = server.as_author(&manager, "staging", json!([kill, rollout_in("staging", 1_000)])).await.unwrap();
    let entry = direct.entry.unwrap();
    let grounds = entry.grounds.as_ref().unwrap();
    assert!(grounds.emergency && !server.is_on("production", "engine"));
    assert_eq!(grounds.environments, ["production", "staging"]);
    let world = server.service.world();
    assert_eq!(world.projects["default"].reviews[&entry.revision].environment, "production");
}

#[tokio::test]
async fn no_door_but_reading_makes_odd_nestings_and_they_change_nothing() {
    let server = Server::governed().await;
    let within = |environment: &str, edit: Instruction| Instruction::Within {
        environment: environment.to_owned(),
        edit: Box::new(edit),
    };
    let change = |instruction: Instruction| ChangeDraft { instructions: vec![instruction], ..draft(json!([])) };
    let agent = server.agent();
    // The outermost counts, for the policies and for what is done alike.
    let off = Instruction::TurnFlagOff { flag: "engine".to_owned() };
    let nested = within("production", within("development", off));
    assert_eq!(refused_in(server.service.submit(&agent, change(nested)).await), "production");
    // What all environments share is judged in all of them.
    let archived = within("development", Instruction::ArchiveFlag { flag: "engine".to_owned() });
    assert!(matches!(server.service.submit(&agent, change(archived)).await, Err(ChangeError::Refused(_))));
    // And no step of a request hides.
    let step = RequestEdit::ApplyRequest { id: "cr-1".to_owned(), by: "dev".to_owned(), hash: String::new() };
    let hidden = within("development", Instruction::Request(Box::new(step)));
    assert_eq!(problem_codes(server.service.submit(&server.human("dev"), change(hidden)).await), ["notHere"]);
}

#[tokio::test]
async fn an_environment_that_a_change_makes_is_judged_as_the_highest_tier_it_gets() {
    let server = Server::governed().await;
    let operator = Author::of(crate::identity::OPERATOR, "origin-1", PrincipalKind::Operator);
    let detour = json!([{"kind": "createEnvironment", "key": "live", "tier": "development"},
        {"kind": "updateEnvironment", "key": "live", "tier": "production"}]);
    assert_eq!(refused_in(server.as_author(&operator, "development", detour).await), "live");
}
