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
async fn another_value_of_a_served_variation_needs_an_approval() {
    let server = Server::governed().await;
    let opened =
        server.as_author(&server.human("dev"), "production", value("engine", "baseline", "new")).await.unwrap();
    let request = server.request(&opened.request.unwrap());
    assert!(request.state.is_open() && request.content.needed > 0, "{request:?}");
    let served = server.service.world().flag("default", "engine").unwrap().stored.variations[1].value.clone();
    assert_eq!(served, "baseline");
    // Nor is it a way out of an emergency.
    let manager =
        server.as_author(&server.human("manager"), "production", value("engine", "baseline", "x")).await.unwrap();
    assert!(server.request(&manager.request.unwrap()).state.is_open());
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
