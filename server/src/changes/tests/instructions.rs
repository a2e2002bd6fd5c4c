//! Every instruction: what it does, and what it refuses, by data.

use serde_json::{Value, json};

use super::*;

/// A project with flags, a segment and an SDK key, and one more environment.
async fn furnished() -> Server {
    let server = Server::start().await;
    let toggle = |key: &str| {
        json!({"kind": "createFlag", "flag": {"key": key, "kind": "boolean",
            "variations": [{"key": "on", "value": true}, {"key": "off", "value": false}]}})
    };
    let rule = |id: &str, values: Value| {
        json!({"kind": "addRule", "flag": "engine", "rule": {"id": id, "serve": {"variation": "ai"},
            "clauses": [{"attribute": "country", "op": "in", "values": values}]}})
    };
    let segment = json!({"kind": "createSegment", "segment": {"key": "beta", "included": ["u1", "u2"],
        "rules": [{"id": "s1", "clauses": [{"attribute": "plan", "op": "in", "values": ["pro"]}]}]}});
    let uses = json!({"kind": "addRule", "flag": "toggle", "rule": {"id": "t1", "serve": {"variation": "on"},
        "clauses": [{"op": "segment", "values": ["beta"]}]}});
    server
        .submit(json!([
            engine_flag("engine"), toggle("toggle"), toggle("gate"), toggle("old"), {"kind": "archiveFlag", "flag": "old"},
            rule("r1", json!(["US"])), rule("r2", json!(["CA"])), segment, uses,
            {"kind": "addPrerequisite", "flag": "toggle", "prerequisite": {"flag": "gate", "variation": "on"}},
            {"kind": "addTargets", "flag": "engine", "variation": "ai", "keys": ["u7", "u8"]},
            {"kind": "createSegment", "segment": {"key": "unused"}},
            {"kind": "createSdkKey", "id": "sdk-1", "audience": "server"},
            {"kind": "createEnvironment", "key": "canary", "tier": "testing"}]))
        .await
        .unwrap();
    server
}

/// The instruction makes `pointer` of the flag or segment it is about (or of all the state there is) what is expected.
#[tokio::test]
async fn each_does_what_it_says() {
    let here = "/environments/development";
    let cases = [
        (
            json!({"kind": "updateFlag", "flag": "engine", "name": "N", "owner": "team", "tags": ["a"]}),
            "/name".to_owned(),
            json!("N"),
        ),
        (
            json!({"kind": "setClientSide", "flag": "engine", "clientSide": false}),
            "/clientSide".to_owned(),
            Value::Null,
        ),
        (
            json!({"kind": "setSchema", "flag": "engine", "schema": {"type": "string"}}),
            "/schema/type".to_owned(),
            json!("string"),
        ),
        (json!({"kind": "archiveFlag", "flag": "engine"}), "/archived".to_owned(), json!(true)),
        (json!({"kind": "unarchiveFlag", "flag": "old"}), "/archived".to_owned(), Value::Null),
        (json!({"kind": "deleteFlag", "flag": "old"}), String::new(), Value::Null),
        (
            json!({"kind": "addVariation", "flag": "engine", "variation": {"key": "b", "value": "b"}}),
            "/variations/2/value".to_owned(),
            json!("b"),
        ),
        (
            json!({"kind": "updateVariation", "flag": "engine", "variation": "ai", "value": "v"}),
            "/variations/0/value".to_owned(),
            json!("v"),
        ),
        (json!({"kind": "turnFlagOn", "flag": "engine"}), format!("{here}/on"), json!(true)),
        (
            json!({"kind": "setOffVariation", "flag": "engine", "variation": "ai"}),
            format!("{here}/offVariation"),
            json!("ai"),
        ),
        (
            json!({"kind": "addPrerequisite", "flag": "engine", "prerequisite": {"flag": "gate", "variation": "off"}}),
            format!("{here}/prerequisites/0/variation"),
            json!("off"),
        ),
        (
            json!({"kind": "addPrerequisite", "flag": "toggle", "prerequisite": {"flag": "gate", "variation": "off"}}),
            format!("{here}/prerequisites"),
            json!([{"flag": "gate", "variation": "off"}]),
        ),
        (
            json!({"kind": "removePrerequisite", "flag": "toggle", "prerequisite": "gate"}),
            format!("{here}/prerequisites"),
            Value::Null,
        ),
        (
            json!({"kind": "addTargets", "flag": "engine", "variation": "baseline", "keys": ["u7"]}),
            format!("{here}/targets"),
            json!([{"variation": "ai", "keys": ["u8"]}, {"variation": "baseline", "keys": ["u7"]}]),
        ),
        (
            json!({"kind": "removeTargets", "flag": "engine", "keys": ["u7", "u8"]}),
            format!("{here}/targets"),
            Value::Null,
        ),
        (
            json!({"kind": "addRule", "flag": "engine", "before": "r2", "rule": {"id": "r9", "clauses": [{"attribute": "a", "op": "exists"}], "serve": {"variation": "ai"}}}),
            format!("{here}/rules/1/id"),
            json!("r9"),
        ),
        (
            json!({"kind": "replaceRule", "flag": "engine", "rule": {"id": "r1", "clauses": [{"attribute": "a", "op": "exists"}], "serve": {"variation": "ai"}}}),
            format!("{here}/rules/0/clauses/0/op"),
            json!("exists"),
        ),
        (json!({"kind": "moveRule", "flag": "engine", "rule": "r1"}), format!("{here}/rules/1/id"), json!("r1")),
        (
            json!({"kind": "moveRule", "flag": "engine", "rule": "r2", "before": "r1"}),
            format!("{here}/rules/0/id"),
            json!("r2"),
        ),
        (json!({"kind": "removeRule", "flag": "engine", "rule": "r1"}), format!("{here}/rules/0/id"), json!("r2")),
        (
            json!({"kind": "setFallthrough", "flag": "engine", "serve": {"variation": "ai"}}),
            format!("{here}/fallthrough/variation"),
            json!("ai"),
        ),
        (
            json!({"kind": "setRollout", "flag": "engine", "rule": "r1", "weights": {"ai": 1000, "baseline": 99_000}}),
            format!("{here}/rules/0/serve/rollout/weights/ai"),
            json!(1000),
        ),
        (
            json!({"kind": "setRollout", "flag": "engine", "weights": {"ai": 1, "baseline": 99_999}, "bucketBy": "company"}),
            format!("{here}/fallthrough/rollout/bucketBy"),
            json!("company"),
        ),
        (
            json!({"kind": "updateSegment", "segment": "beta", "description": "d"}),
            "/description".to_owned(),
            json!("d"),
        ),
        (json!({"kind": "deleteSegment", "segment": "unused"}), String::new(), Value::Null),
        (
            json!({"kind": "addSegmentRule", "segment": "beta", "rule": {"id": "s2", "clauses": [{"attribute": "a", "op": "exists"}]}}),
            "/rules/1/id".to_owned(),
            json!("s2"),
        ),
        (
            json!({"kind": "replaceSegmentRule", "segment": "beta", "rule": {"id": "s1", "clauses": [{"attribute": "a", "op": "exists"}]}}),
            "/rules/0/clauses/0/op".to_owned(),
            json!("exists"),
        ),
        (json!({"kind": "removeSegmentRule", "segment": "beta", "rule": "s1"}), "/rules".to_owned(), Value::Null),
        (
            json!({"kind": "addSegmentKeys", "segment": "beta", "keys": ["u3", "u1"]}),
            "/included".to_owned(),
            json!(["u1", "u2", "u3"]),
        ),
        (
            json!({"kind": "addSegmentKeys", "segment": "beta", "list": "excluded", "keys": ["u3"]}),
            "/excluded".to_owned(),
            json!(["u3"]),
        ),
        (
            json!({"kind": "removeSegmentKeys", "segment": "beta", "keys": ["u1", "u9"]}),
            "/included".to_owned(),
            json!(["u2"]),
        ),
    ];
    for (instruction, pointer, expected) in cases {
        let server = furnished().await;
        let outcome =
            server.submit(json!([instruction])).await.unwrap_or_else(|error| panic!("{instruction}: {error:?}"));
        let world = server.service.world();
        let project = world.project("default").unwrap();
        let state = match (instruction["flag"].as_str(), instruction["segment"].as_str()) {
            (Some(key), _) => project.flags.get(key).map(|flag| serde_json::to_value(&flag.published).unwrap()),
            (_, key) => project
                .segment("development", key.unwrap())
                .map(|known| serde_json::to_value(known.published()).unwrap()),
        };
        let found = state.unwrap_or_default().pointer(&pointer).cloned().unwrap_or_default();
        assert_eq!(found, expected, "{instruction}");
        let already_so = instruction["kind"] == "setClientSide";
        assert_eq!(outcome.changed.is_empty(), already_so, "{instruction}");
        assert_eq!(outcome.summary.len(), usize::from(!already_so).max(outcome.summary.len()));
    }
}

#[tokio::test]
async fn each_refuses_what_cannot_be_and_says_where() {
    let server = furnished().await;
    let revision = server.service.world().revision;
    let clause = json!([{"attribute": "a", "op": "exists"}]);
    let rollout = |ai: u32, baseline: u32| json!({"rollout": {"weights": {"ai": ai, "baseline": baseline}}});
    let cases = [
        (json!({"kind": "createEnvironment", "key": "Bad Key", "tier": "testing"}), vec![("/key", "badKey")]),
        (
            json!({"kind": "createEnvironment", "key": "staging", "tier": "testing"}),
            vec![("/key", "environmentExists")],
        ),
        (json!({"kind": "updateEnvironment", "key": "nowhere", "name": "n"}), vec![("/key", "unknownEnvironment")]),
        (
            json!({"kind": "deleteEnvironment", "key": "development"}),
            vec![("/key", "environmentInUse"), ("/key", "environmentInUse")],
        ),
        (json!({"kind": "createSdkKey", "id": "sdk-1", "audience": "client"}), vec![("/id", "sdkKeyExists")]),
        (json!({"kind": "createSdkKey", "audience": "client", "hash": "00"}), vec![("/hash", "invalidHash")]),
        (json!({"kind": "revokeSdkKey", "id": "nobody"}), vec![("/id", "unknownSdkKey")]),
        (engine_flag("engine"), vec![("/flag/key", "flagExists")]),
        (
            json!({"kind": "createFlag", "flag": {"key": "Bad", "kind": "boolean", "schema": {"const": true},
            "variations": [{"key": "on", "value": 1}, {"key": "on", "value": false}],
            "environments": {"mars": {"offVariation": "on", "fallthrough": {"variation": "on"}},
                "development": {"offVariation": "no", "fallthrough": {"rollout": {"weights": {"on": 5}}}}}}}),
            vec![
                ("/flag/key", "badKey"),
                ("/flag/variations/0/value", "wrongKind"),
                ("/flag/variations/1/key", "duplicateKey"),
                ("/flag/environments/mars", "unknownEnvironment"),
                ("/flag/environments/development/offVariation", "unknownVariation"),
                ("/flag/environments/development/fallthrough/rollout/weights", "weightsSum"),
                ("/flag/variations/0/value", "schemaViolation"),
                ("/flag/variations/1/value", "schemaViolation"),
            ],
        ),
        (json!({"kind": "updateFlag", "flag": "nope", "name": "n"}), vec![("/flag", "unknownFlag")]),
        (
            json!({"kind": "updateFlag", "flag": "engine", "tags": ["ok", "Not Ok"], "expires": "soon"}),
            vec![("/tags/1", "badKey"), ("/expires", "badDate")],
        ),
        (
            json!({"kind": "setSchema", "flag": "engine", "schema": {"$ref": "https://example.com/"}}),
            vec![("/schema/$ref", "badSchema")],
        ),
        (json!({"kind": "archiveFlag", "flag": "gate"}), vec![("/flag", "required")]),
        (json!({"kind": "deleteFlag", "flag": "engine"}), vec![("/flag", "notArchived")]),
        (
            json!({"kind": "addVariation", "flag": "engine", "variation": {"key": "ai", "value": "x"}}),
            vec![("/variation/key", "variationExists")],
        ),
        (
            json!({"kind": "addVariation", "flag": "engine", "variation": {"key": "b", "value": 3}}),
            vec![("/variation/value", "wrongKind")],
        ),
        (
            json!({"kind": "updateVariation", "flag": "engine", "variation": "b", "name": "n"}),
            vec![("/variation", "unknownVariation")],
        ),
        (
            json!({"kind": "updateVariation", "flag": "engine", "variation": "ai", "value": 3}),
            vec![("/value", "wrongKind")],
        ),
        (
            json!({"kind": "removeVariation", "flag": "engine", "variation": "ai"}),
            vec![("/variation", "variationInUse")],
        ),
        (json!({"kind": "removeVariation", "flag": "gate", "variation": "on"}), vec![("/variation", "variationInUse")]),
        (
            json!({"kind": "setOffVariation", "flag": "engine", "variation": "b"}),
            vec![("/variation", "unknownVariation")],
        ),
        (
            json!({"kind": "addPrerequisite", "flag": "engine", "prerequisite": {"flag": "nope", "variation": "on"}}),
            vec![("/prerequisite/flag", "unknownFlag")],
        ),
        (
            json!({"kind": "addPrerequisite", "flag": "gate", "prerequisite": {"flag": "toggle", "variation": "on"}}),
            vec![("/prerequisite/flag", "prerequisiteCycle")],
        ),
        (
            json!({"kind": "removePrerequisite", "flag": "engine", "prerequisite": "gate"}),
            vec![("/prerequisite", "unknownFlag")],
        ),
        (
            json!({"kind": "addTargets", "flag": "engine", "variation": "ai", "keys": ["u9", ""]}),
            vec![("/keys/1", "badTargetingKey")],
        ),
        (
            json!({"kind": "addTargets", "flag": "engine", "variation": "ai", "keys": ["u9"], "targets": []}),
            vec![("/targets", "filledInByServer")],
        ),
        (
            json!({"kind": "addRule", "flag": "engine", "rule": {"id": "r1", "clauses": clause, "serve": {"variation": "ai"}}}),
            vec![("/rule/id", "ruleExists")],
        ),
        (
            json!({"kind": "addRule", "flag": "engine", "rule": {"id": "r\u{1b}[31m", "clauses": clause, "serve": {"variation": "ai"}}}),
            vec![("/rule/id", "controlCharacter")],
        ),
        (
            json!({"kind": "addRule", "flag": "engine", "rule": {"clauses": [{"attribute": "a", "op": "matches", "values": ["("]}], "serve": rollout(1, 2)}}),
            vec![("/rule/clauses/0/values/0", "badRegex"), ("/rule/serve/rollout/weights", "weightsSum")],
        ),
        (
            json!({"kind": "addRule", "flag": "engine", "rule": {"clauses": [{"op": "segment", "values": ["nobody"]}], "serve": {"variation": "ai"}}}),
            vec![("/rule/clauses/0/values/0", "unknownSegment")],
        ),
        (
            json!({"kind": "replaceRule", "flag": "engine", "rule": {"id": "r7", "clauses": clause, "serve": {"variation": "ai"}}}),
            vec![("/rule/id", "unknownRule")],
        ),
        (json!({"kind": "moveRule", "flag": "engine", "rule": "r1", "before": "r7"}), vec![("/before", "unknownRule")]),
        (json!({"kind": "removeRule", "flag": "engine", "rule": "r7"}), vec![("/rule", "unknownRule")]),
        (
            json!({"kind": "setFallthrough", "flag": "engine", "serve": {"variation": "b"}}),
            vec![("/serve/variation", "unknownVariation")],
        ),
        (
            json!({"kind": "setRollout", "flag": "engine", "weights": {"ai": 1, "b": 99_998}}),
            vec![("/weights", "weightsSum"), ("/weights/b", "unknownVariation")],
        ),
        (
            json!({"kind": "setRollout", "flag": "engine", "weights": {"ai": 100_000}, "allocation": [["baseline", 0, 100_000]]}),
            vec![("/allocation", "badAllocation")],
        ),
        (
            json!({"kind": "setRollout", "flag": "engine", "weights": {"ai": 100_000}, "bucketBy": ""}),
            vec![("/bucketBy", "empty")],
        ),
        (
            json!({"kind": "setRollout", "flag": "engine", "weights": {"ai": 50_000, "baseline": 50_000},
            "allocation": striped(100_000)}),
            vec![("/allocation", "tooMany")],
        ),
        (
            json!({"kind": "setRollout", "flag": "engine", "rule": "r7", "weights": {"ai": 100_000}}),
            vec![("/rule", "unknownRule")],
        ),
        (json!({"kind": "revertFlag", "flag": "engine", "toRevision": 1}), vec![("/toRevision", "nothingThere")]),
        (json!({"kind": "revertFlag", "flag": "engine", "toRevision": 900}), vec![("/toRevision", "unknownRevision")]),
        (json!({"kind": "createSegment", "segment": {"key": "beta"}}), vec![("/segment/key", "segmentExists")]),
        (
            json!({"kind": "createSegment", "segment": {"key": "X", "rules": [{"clauses": []}]}}),
            vec![("/segment/key", "badKey"), ("/segment/rules/0/clauses", "empty")],
        ),
        (json!({"kind": "deleteSegment", "segment": "beta"}), vec![("/segment", "segmentInUse")]),
        (
            json!({"kind": "addSegmentRule", "segment": "beta", "rule": {"clauses": [{"op": "segment", "values": ["beta"]}]}}),
            vec![("/rule/clauses/0/op", "nestedSegment")],
        ),
        (json!({"kind": "removeSegmentRule", "segment": "beta", "rule": "s7"}), vec![("/rule", "unknownRule")]),
        (json!({"kind": "addSegmentKeys", "segment": "nobody", "keys": ["a"]}), vec![("/segment", "unknownSegment")]),
        (json!({"kind": "addSegmentKeys", "segment": "beta", "keys": [""]}), vec![("/keys/0", "badTargetingKey")]),
        (
            json!({"kind": "setClientSide", "flag": "toggle", "clientSide": true}),
            vec![("", "keysInBrowser"), ("", "prerequisiteNotClientSide")],
        ),
    ];
    let alone = server.submit(json!([{"kind": "createProject"}])).await.unwrap_err().to_string();
    assert!(alone.contains("there is a project of this key already"), "{alone}");
    let beside = server.submit(json!([{"kind": "createProject"}, {"kind": "turnFlagOn", "flag": "gate"}])).await;
    assert!(beside.unwrap_err().to_string().contains("by a change of its own"));
    for (instruction, expected) in cases {
        let first = json!({"kind": "turnFlagOn", "flag": "gate"});
        let refused = server.submit(json!([first, instruction])).await;
        let (ChangeError::Invalid { problems } | ChangeError::NotFound { problems }) = refused.unwrap_err() else {
            panic!("{instruction}")
        };
        let mut found: Vec<_> = problems.iter().map(|known| (known.pointer.clone(), known.code.to_string())).collect();
        let mut expected: Vec<_> =
            expected.into_iter().map(|(at, code)| (format!("/instructions/1{at}"), code.to_owned())).collect();
        found.sort();
        expected.sort();
        assert_eq!(found, expected, "{instruction}");
    }
    assert_eq!(server.service.world().revision, revision, "nothing of a refused change is applied");
}

#[tokio::test]
async fn environments_and_sdk_keys_come_and_go() {
    let server = furnished().await;
    let world = server.service.world();
    assert!(!world.flag("default", "engine").unwrap().stored.environments["canary"].on);
    let made = server.submit(json!([{"kind": "createSdkKey", "audience": "client"}])).await.unwrap();
    let credential = &made.credentials[0];
    let hash = blake3::hash(credential.secret.as_bytes()).to_hex().to_string();
    let world = server.service.world();
    assert_eq!(world.sdk_key(&hash).map(|(_, key)| key.environment.as_str()), Some("development"));
    let bytes = server.journal.read(made.revision - 1, 1).await.unwrap()[0].bytes.clone();
    assert!(!String::from_utf8_lossy(&bytes).contains(&credential.secret));
    let twice = server.submit(json!([{"kind": "createSdkKey", "audience": "client", "hash": hash}])).await;
    assert!(matches!(twice, Err(ChangeError::Invalid { .. })), "one credential, one key: {twice:?}");
    server.submit(json!([{"kind": "revokeSdkKey", "id": credential.id}])).await.unwrap();
    let world = server.service.world();
    assert!(world.sdk_key(&hash).is_none());
    assert!(world.project("default").unwrap().sdk_keys[&credential.id].revoked_at.is_some());
    server.submit(json!([{"kind": "deleteEnvironment", "key": "canary"}])).await.unwrap();
    assert!(!server.service.world().flag("default", "engine").unwrap().stored.environments.contains_key("canary"));
}

#[tokio::test]
async fn the_change_as_a_whole_is_checked() {
    let server = Server::start().await;
    let refused = |change: ChangeDraft| {
        let service = server.service.clone();
        async move {
            match service.submit(&author(), change).await.unwrap_err() {
                ChangeError::Invalid { problems } | ChangeError::NotFound { problems } => problems
                    .into_iter()
                    .map(|problem| format!("{} {}", problem.pointer, problem.code))
                    .collect::<Vec<_>>(),
                other => panic!("{other:?}"),
            }
        }
    };
    let on = json!([{"kind": "turnFlagOn", "flag": "x"}, {"kind": "turnFlagOff", "flag": "y"}]);
    let elsewhere = ChangeDraft { environment: Some("mars".to_owned()), ..draft(on.clone()) };
    assert_eq!(refused(elsewhere).await, ["/environment unknownEnvironment"]);
    assert_eq!(
        refused(ChangeDraft { environment: None, ..draft(on.clone()) }).await,
        ["/environment environmentNeeded"]
    );
    assert_eq!(
        refused(ChangeDraft { project: "p".to_owned(), ..draft(on.clone()) }).await,
        ["/project unknownProject"]
    );
    assert_eq!(refused(draft(json!([]))).await, ["/instructions empty"]);
    let long = ChangeDraft { comment: "x".repeat(limits::MAX_COMMENT_BYTES + 1), ..draft(on.clone()) };
    assert_eq!(refused(long).await, ["/comment tooMany"]);
    let later = ChangeDraft { expected_revision: Some(99), ..draft(on.clone()) };
    assert_eq!(refused(later).await, ["/expectedRevision unknownRevision"]);
    assert_eq!(refused(draft(on)).await, ["/instructions/0/flag unknownFlag", "/instructions/1/flag unknownFlag"]);
    let builds_on_refused = json!([{"kind": "createFlag", "flag": {"key": "x", "kind": "boolean", "variations": []}},
        {"kind": "turnFlagOn", "flag": "x"}]);
    let found = refused(draft(builds_on_refused)).await;
    assert!(found.contains(&"/instructions/0/flag/variations empty".to_owned()), "{found:?}");
}

#[tokio::test]
async fn a_standing_rollout_keeps_its_salt_and_moves_the_minimum() {
    let server = Server::start().await;
    let ai = |ai: u32| json!({"ai": ai, "baseline": 100_000 - ai});
    server
        .submit(json!([engine_flag("engine"), {"kind": "setRollout", "flag": "engine", "weights": ai(1_000)}]))
        .await
        .unwrap();
    let mut before = server.fallthrough("engine");
    assert_eq!(before["rollout"]["allocation"].as_array().unwrap().len(), 2, "the standing variation owned every slot");
    for (next, last) in [(5_000, 1_000_u32), (40_000, 5_000), (500, 40_000), (100_000, 500), (0, 100_000)] {
        let by_weights = json!({"kind": "setRollout", "flag": "engine", "weights": ai(next)});
        let by_serve = json!({"kind": "setFallthrough", "flag": "engine", "serve": {"rollout": {"weights": ai(next)}}});
        let instruction = if next % 1_000 == 0 { by_weights } else { by_serve };
        server.submit(json!([instruction])).await.unwrap();
        let after = server.fallthrough("engine");
        assert_eq!(moved(&before, &after), next.abs_diff(last) as usize);
        assert_eq!(before["rollout"]["salt"], after["rollout"]["salt"]);
        before = after;
    }
    let reshuffle = json!({"kind": "setRollout", "flag": "engine", "weights": ai(0), "reshuffle": true});
    server.submit(json!([reshuffle])).await.unwrap();
    assert_ne!(before["rollout"]["salt"], server.fallthrough("engine")["rollout"]["salt"]);
}

#[tokio::test]
async fn many_small_additions_to_a_large_list_are_merged() {
    let server = Server::start().await;
    let keys: Vec<String> = (0..5_000).map(|number| format!("user-{number}")).collect();
    server.submit(json!([{"kind": "createSegment", "segment": {"key": "s", "included": keys}}])).await.unwrap();
    for number in 0..2 * limits::MAX_PARTS_PER_LIST {
        let one = json!({"kind": "addSegmentKeys", "segment": "s", "keys": [format!("late-{number}")]});
        server.submit(json!([one])).await.unwrap();
    }
    server.submit(json!([{"kind": "removeSegmentKeys", "segment": "s", "keys": ["user-7", "late-0"]}])).await.unwrap();
    let world = server.service.world();
    let segment = world.segment("default", "development", "s").unwrap();
    assert!(segment.stored.included.len() <= limits::MAX_PARTS_PER_LIST);
    assert_eq!(segment.included.len(), 5_000 + 2 * limits::MAX_PARTS_PER_LIST - 2);
    assert!(!segment.included.contains("user-7") && segment.included.contains("late-199"));
    let again = Server::on(server.journal.reopened(), server.key_sets.clone());
    again.service.follower().reach(world.revision).await.unwrap();
    assert_eq!(*again.service.world(), *world);
}

/// An allocation that gives every other slot to each of two variations.
fn striped(slots: u32) -> Value {
    let owner = |slot: u32| if slot.is_multiple_of(2) { "ai" } else { "baseline" };
    (0..slots).map(|slot| json!([owner(slot), slot, slot + 1])).collect()
}

#[tokio::test]
async fn rules_of_a_segment_that_stay_keep_their_keys() {
    let server = Server::start().await;
    let clause = |key: &str| json!([{"attribute": "targetingKey", "op": "in", "values": [key]}]);
    let created =
        json!([{"kind": "createSegment", "segment": {"key": "s", "rules": [{"id": "r1", "clauses": clause("p1")}]}}]);
    server.submit(created).await.unwrap();
    let added = json!([{"kind": "addSegmentRule", "segment": "s", "rule": {"id": "r2", "clauses": clause("p2")}}]);
    server.submit(added).await.unwrap();
    let world = server.service.world();
    let segment = world.segment("default", "development", "s").unwrap();
    let keys: Vec<_> = segment.rules.iter().map(|rule| rule.clauses[0].values[0].as_str()).collect();
    assert_eq!(keys, [Some("p1"), Some("p2")]);
}
