//! What has been served in production stays what it was.

use guidon_sdk::model::Variation;

use super::people::rollout;
use super::*;
use crate::flags::fingerprint;

/// Codes and places of what is wrong.
fn problems(outcome: Result<ChangeOutcome, ChangeError>) -> Vec<(String, String)> {
    match outcome {
        Err(ChangeError::Invalid { problems }) => {
            problems.into_iter().map(|problem| (problem.code.to_string(), problem.pointer)).collect()
        }
        other => panic!("{other:?}"),
    }
}

fn served(pointer: &str) -> Vec<(String, String)> {
    vec![("variationServed".to_owned(), pointer.to_owned())]
}

/// As the server itself, which may edit everywhere, in production.
async fn make(server: &Server, instructions: Value) -> Result<ChangeOutcome, ChangeError> {
    server.as_author(&Author::system(), "production", instructions).await
}

fn kept(server: &Server, flag: &str) -> Vec<String> {
    let world = server.service.world();
    let known = world.projects["default"].served_variations.get(flag);
    known.into_iter().flat_map(|known| known.keys().map(str::to_owned).collect::<Vec<_>>()).collect()
}

fn update(flag: &str, variation: &str, field: &str, value: Value) -> Value {
    json!({"kind": "updateVariation", "flag": flag, "variation": variation, field: value})
}

/// The state after these instructions, made as older versions let them be made: without a check.
fn unchecked(world: &World, instructions: Value) -> World {
    let instructions: Vec<Instruction> = serde_json::from_value(instructions).unwrap();
    let mut draft = crate::changes::apply::Draft::new(world, "default", Some("production"), world.at);
    for instruction in &instructions {
        draft.apply(instruction, &crate::state::NoKeySets).unwrap();
    }
    draft.into_world()
}

#[tokio::test]
async fn value_and_provenance_are_fixed_and_texts_are_not() {
    let server = Server::governed().await;
    assert_eq!(kept(&server, "engine"), ["baseline"]);
    let dev = server.human("dev");
    for environment in ["development", "production"] {
        for (field, value) in [("value", json!("b")), ("provenance", json!({"by": "human", "commit": "4be1c02"}))] {
            let edited = server.as_author(&dev, environment, json!([update("engine", "baseline", field, value)])).await;
            assert_eq!(problems(edited), served(&format!("/instructions/0/{field}")));
        }
    }
    let message = match make(&server, json!([update("engine", "baseline", "value", json!("b"))])).await {
        Err(ChangeError::Invalid { problems }) => problems[0].message.clone(),
        other => panic!("{other:?}"),
    };
    assert!(message.contains("guidon flag replace-variation engine baseline NEW"), "{message}");
    for (field, value) in [
        ("name", json!("Baseline")),
        ("description", json!("as it was")),
        ("value", json!("baseline")),
        ("provenance", json!({"by": "human"})),
    ] {
        make(&server, json!([update("engine", "baseline", field, value)])).await.unwrap();
    }
    // What production never served may still be anything, until it does.
    make(&server, json!([update("engine", "ai", "value", json!("v2"))])).await.unwrap();
    make(&server, rollout(1)).await.unwrap();
    assert_eq!(kept(&server, "engine"), ["ai", "baseline"]);
    assert_eq!(
        problems(make(&server, json!([update("engine", "ai", "value", json!("v3"))])).await),
        served("/instructions/0/value")
    );
    make(&server, rollout(0)).await.unwrap();
    assert_eq!(
        problems(make(&server, json!([update("engine", "ai", "value", json!("v3"))])).await),
        served("/instructions/0/value"),
        "nobody is served it any more, but somebody was"
    );
}

#[tokio::test]
async fn a_key_stays_reserved_for_what_it_was() {
    let server = Server::governed().await;
    make(&server, rollout(50_000)).await.unwrap();
    let baseline = json!({"kind": "setFallthrough", "flag": "engine", "serve": {"variation": "baseline"}});
    let remove = json!({"kind": "removeVariation", "flag": "engine", "variation": "ai"});
    let add = |value: &str, by: &str| {
        json!({"kind": "addVariation", "flag": "engine",
            "variation": {"key": "ai", "value": value, "provenance": {"by": by}}})
    };
    let within_one = make(&server, json!([baseline, remove, add("other", "ai")])).await;
    assert_eq!(problems(within_one), served("/instructions/2/variation/value"));
    make(&server, json!([baseline, remove])).await.unwrap();
    assert_eq!(kept(&server, "engine"), ["ai", "baseline"]);
    assert_eq!(problems(make(&server, json!([add("other", "ai")])).await), served("/instructions/0/variation/value"));
    assert_eq!(problems(make(&server, json!([add("ai", "human")])).await), served("/instructions/0/variation/value"));
    let other = json!({"kind": "addVariation", "flag": "engine", "variation": {"key": "ai-2", "value": "other"}});
    make(&server, json!([other])).await.unwrap();
    make(&server, json!([add("ai", "ai")])).await.unwrap();
}

#[tokio::test]
async fn a_flag_that_is_created_anew_keeps_its_promises() {
    let server = Server::governed().await;
    let admin = server.human("admin");
    let gone = json!([{"kind": "turnFlagOff", "flag": "engine"}, {"kind": "archiveFlag", "flag": "engine"},
        {"kind": "deleteFlag", "flag": "engine"}]);
    let anew = |value: &str| {
        json!({"kind": "createFlag", "flag": {"key": "engine", "kind": "string", "variations": [
            {"key": "baseline", "value": value, "provenance": {"by": "human"}}, {"key": "ai", "value": "whatever"}]}})
    };
    let opened = server.as_author(&admin, "production", gone.clone()).await.unwrap();
    let id = opened.request.unwrap();
    for approver in ["approver", "approver-2"] {
        server.approve(&server.human(approver), &id).await.unwrap();
    }
    let mut within_one = gone.as_array().unwrap().clone();
    within_one.push(anew("another"));
    let refused = server.as_author(&admin, "production", Value::Array(within_one)).await;
    assert_eq!(problems(refused), served("/instructions/3/flag/variations/0/value"));
    server.apply(&server.human("manager"), &id).await.unwrap();
    assert!(server.service.world().flag("default", "engine").is_none());
    assert_eq!(kept(&server, "engine"), ["baseline"]);
    let refused = server.as_author(&server.human("dev"), "development", json!([anew("another")])).await;
    assert_eq!(problems(refused), served("/instructions/0/flag/variations/0/value"));
    // As it was, it may come back; what was never served may be anything.
    server.as_author(&server.human("dev"), "development", json!([anew("baseline")])).await.unwrap();
}

#[tokio::test]
async fn what_is_served_while_off_counts_once_there_is_somebody_to_serve_it_to() {
    let server = Server::governed().await;
    let free = |value: &str| json!([update("idle", "baseline", "value", json!(value))]);
    make(&server, free("b")).await.unwrap();
    let key = |audience: &str, environment: &str| json!([{"kind": "createSdkKey", "audience": audience, "environment": environment}]);
    let admin = server.human("admin");
    server.as_author(&admin, "development", key("server", "staging")).await.unwrap();
    server.as_author(&admin, "development", key("client", "production")).await.unwrap();
    make(&server, free("c")).await.unwrap();
    assert!(kept(&server, "idle").is_empty(), "browsers do not see it");
    make(&server, json!([{"kind": "setClientSide", "flag": "idle", "clientSide": true}])).await.unwrap();
    assert_eq!(kept(&server, "idle"), ["baseline"]);
    assert_eq!(problems(make(&server, free("d")).await), served("/instructions/0/value"));
    // Of all flags, those that come later too, once a server SDK has a key.
    make(&server, json!([engine_flag("later")])).await.unwrap();
    assert!(kept(&server, "later").is_empty());
    server.as_author(&admin, "development", key("server", "production")).await.unwrap();
    assert_eq!(kept(&server, "later"), ["baseline"]);
    make(&server, json!([engine_flag("latest")])).await.unwrap();
    assert_eq!(kept(&server, "latest"), ["baseline"]);
    make(&server, json!([update("latest", "ai", "value", json!("x"))])).await.unwrap();
}

#[tokio::test]
async fn every_way_to_be_served_counts_and_only_in_production() {
    let server = Server::governed().await;
    let variations: Vec<Value> =
        ["off", "target", "rule", "part", "none", "rest"].map(|key| json!({"key": key, "value": key})).to_vec();
    let clause = json!({"attribute": "country", "op": "in", "values": ["CA"]});
    let instructions = json!([
        {"kind": "createFlag", "flag": {"key": "wide", "kind": "string", "variations": variations}},
        {"kind": "setOffVariation", "flag": "wide", "variation": "off"},
        {"kind": "addTargets", "flag": "wide", "variation": "target", "keys": ["p"]},
        {"kind": "addRule", "flag": "wide", "rule": {"id": "r", "clauses": [clause], "serve": {"variation": "rule"}}},
        {"kind": "setRollout", "flag": "wide", "weights": {"part": 1, "none": 0, "rest": 99_999}}]);
    let mut elsewhere = instructions.as_array().unwrap().clone();
    elsewhere.push(json!({"kind": "turnFlagOn", "flag": "wide"}));
    server.as_author(&Author::system(), "staging", Value::Array(elsewhere)).await.unwrap();
    let rest: Vec<Value> = instructions.as_array().unwrap()[1..].to_vec();
    make(&server, Value::Array(rest)).await.unwrap();
    assert!(kept(&server, "wide").is_empty(), "off, and nobody has a key");
    make(&server, json!([{"kind": "turnFlagOn", "flag": "wide"}])).await.unwrap();
    assert_eq!(kept(&server, "wide"), ["off", "part", "rest", "rule", "target"]);
    // Off again, it was on once.
    make(
        &server,
        json!([{"kind": "turnFlagOff", "flag": "wide"},
        {"kind": "setOffVariation", "flag": "wide", "variation": "none"}]),
    )
    .await
    .unwrap();
    assert_eq!(kept(&server, "wide").len(), 6);
}

#[tokio::test]
async fn within_one_change_only_its_end_is_served() {
    let server = Server::governed().await;
    let both = json!([{"kind": "turnFlagOn", "flag": "idle"}, update("idle", "baseline", "value", json!("b")),
        update("idle", "baseline", "value", json!("c"))]);
    make(&server, both).await.unwrap();
    let world = server.service.world();
    let flag = world.flag("default", "idle").unwrap();
    let baseline = flag.stored.variation("baseline").unwrap();
    assert_eq!(baseline.value, "c");
    let known = &world.projects["default"].served_variations["idle"];
    assert_eq!(known.get("baseline"), Some(&*fingerprint(baseline)));
    // Whoever reads the journal again knows the same.
    let again = Server::on(server.journal.reopened(), server.key_sets.clone());
    again.service.follower().reach(world.revision).await.unwrap();
    assert_eq!(again.service.world(), world);
}

#[tokio::test]
async fn what_older_versions_let_be_edited_stays_as_it_is() {
    let server = Server::governed().await;
    let edited =
        unchecked(&server.service.world(), json!([update("engine", "baseline", "value", json!("edited in place"))]));
    let project = &edited.projects["default"];
    let baseline: &Variation = project.flags["engine"].stored.variation("baseline").unwrap();
    assert_eq!(project.served_variations["engine"].get("baseline"), Some(&*fingerprint(baseline)), "it is served now");
    // One that was served once, and edited when it no longer was: what it is now is fixed, and nobody is kept from
    // turning the flag off.
    let moved = unchecked(
        &server.service.world(),
        json!([{"kind": "setFallthrough", "flag": "engine", "serve": {"variation": "ai"}},
            {"kind": "setOffVariation", "flag": "engine", "variation": "ai"}]),
    );
    let edited = unchecked(&moved, json!([update("engine", "baseline", "value", json!("later"))]));
    let prepare = |instructions: Value| {
        let change = ChangeDraft { environment: Some("production".to_owned()), ..draft(instructions) };
        let past = crate::changes::resolve::Past::default();
        crate::changes::prepare::prepare(&edited, &Author::system(), &change, edited.at, &mut RandomMint, &past)
            .map(|_| ())
    };
    prepare(json!([{"kind": "turnFlagOff", "flag": "engine"}])).unwrap();
    assert_eq!(
        prepare(json!([update("engine", "baseline", "value", json!("baseline"))])).unwrap_err()[0].code,
        "variationServed"
    );
}
