use guidon_sdk::model::{Flag, Serve};
use proptest::prelude::*;
use serde_json::json;

use super::*;

fn faults(instruction: Value) -> Vec<(String, String)> {
    let faults = read_instruction(&instruction, "/instructions/2").unwrap_err();
    faults.into_iter().map(|fault| (fault.pointer, fault.code)).collect()
}

fn fault(pointer: &str, code: &str) -> (String, String) {
    (format!("/instructions/2{pointer}"), code.to_owned())
}

#[test]
fn an_instruction_reads_as_its_own_deserializer_reads_it() {
    let published = [
        json!({"kind":"turnFlagOn","flag":"summary-engine"}),
        json!({"kind":"updateVariation","flag":"f","variation":"v","value":null}),
        json!({"kind":"setFallthrough","flag":"f","serve":{"rollout":{"weights":{"a":1},"allocation":[["a",0,100000]]}}}),
        json!({"kind":"addSegmentKeys","segment":"s","list":"excluded","keys":["a","b"]}),
        json!({"kind":"createFlag","flag":{"key":"f","kind":"number","variations":[{"key":"a","value":1.5},{"key":"b","value":2}],
               "environments":{"production":{"on":true,"offVariation":"a","fallthrough":{"variation":"b"},
               "rules":[{"clauses":[{"attribute":"x","op":"in","values":[1,"a",null]}],"serve":{"variation":"a"}}]}}}}),
    ];
    for value in published {
        let read = read_instruction(&value, "").unwrap();
        assert_eq!(read, <Instruction as serde::Deserialize>::deserialize(&value).unwrap());
    }
}

#[test]
fn every_unknown_field_is_named_where_it_stands() {
    let found = faults(json!({"kind":"createFlag","colour":1,"flag":{"key":"f","kind":"string","tag":[],
        "variations":[{"key":"a","value":"a","provenance":{"by":"ai","modell":"m"}}],
        "environments":{"dev/1":{"offVariation":"a","fallthrough":{"rollout":{"weights":{},"wieghts":{}}}}}}}));
    // In the order of the body.
    assert_eq!(
        found,
        [
            fault("/colour", "unknownField"),
            fault("/flag/tag", "unknownField"),
            fault("/flag/variations/0/provenance/modell", "unknownField"),
            fault("/flag/environments/dev~11/fallthrough/rollout/wieghts", "unknownField"),
        ]
    );
    let hint = read_instruction(&json!({"kind":"turnFlagOn","flag":"f","flags":"f"}), "").unwrap_err();
    assert_eq!(hint[0].detail, "there is no field \"flags\" here; did you mean \"flag\"?");
}

#[test]
fn wrong_values_are_located() {
    let rule = |serve: Value| json!({"kind":"addRule","flag":"f","rule":{"clauses":[{"attribute":"a","op":"in"}],"serve":serve}});
    assert_eq!(faults(json!({"kind":"turnFlagOn"})), [fault("", "missingField")]);
    assert_eq!(faults(json!({"kind":"turnFlagOn","flag":7})), [fault("/flag", "wrongType")]);
    assert_eq!(faults(json!([])), [fault("", "wrongType")]);
    assert_eq!(faults(json!({"flag":"f"})), [fault("", "missingField")]);
    assert_eq!(faults(json!({"kind":null})), [fault("/kind", "wrongType")]);
    assert_eq!(faults(rule(json!("variation"))), [fault("/rule/serve", "wrongType")]);
    assert_eq!(faults(rule(json!({"variation":"a","rollout":{}}))), [fault("/rule/serve", "wrongType")]);
    assert_eq!(faults(rule(json!({"percent":1}))), [fault("/rule/serve", "unknownWord")]);
    assert_eq!(
        faults(rule(json!({"rollout":{"weights":{"a":1.5}}}))),
        [fault("/rule/serve/rollout/weights/a", "wrongType")]
    );
    assert_eq!(
        faults(rule(json!({"rollout":{"weights":{"a":-1}}}))),
        [fault("/rule/serve/rollout/weights/a", "outOfRange")]
    );
    let long = json!({"rollout":{"weights":{"a":1},"allocation":[["a",0,1,2]]}});
    assert_eq!(faults(rule(long)), [fault("/rule/serve/rollout/allocation/0", "wrongLength")]);
    let clause = json!({"kind":"addRule","flag":"f","rule":{"clauses":[{"attribute":"a","op":"inn"}],"serve":{"variation":"a"}}});
    assert_eq!(faults(clause), [fault("/rule/clauses/0/op", "unknownWord")]);
}

#[test]
fn an_unknown_kind_lists_the_known_ones_and_the_nearest() {
    let found = read_instruction(&json!({"kind":"turnFlagsOn","flag":"f"}), "/instructions/0").unwrap_err();
    assert_eq!((found[0].pointer.as_str(), found[0].code.as_str()), ("/instructions/0/kind", "unknownInstruction"));
    assert!(found[0].detail.contains("did you mean \"turnFlagOn\"?"), "{}", found[0].detail);
    assert!(found[0].detail.contains("createProject, "), "{}", found[0].detail);
}

#[test]
fn an_instruction_of_an_environment_may_name_one() {
    let flat = json!({"kind": "setRollout", "flag": "f", "environment": "staging", "weights": {"a": 100_000}});
    let read = read_instruction(&flat, "/i").unwrap();
    let Instruction::Within { environment, edit } = &read else { panic!("{read:?}") };
    assert_eq!((environment.as_str(), edit.kind()), ("staging", "setRollout"));
    assert_eq!(serde_json::to_value(&read).unwrap(), flat);
    assert_eq!(serde_json::from_value::<Instruction>(flat).unwrap(), read);
    let refused = |instruction: Value| {
        let mut faults = read_instruction(&instruction, "/i").unwrap_err();
        let Fault { pointer, code, .. } = faults.remove(0);
        (pointer, code)
    };
    let place = || "/i/environment".to_owned();
    for flag_wide in [
        json!({"kind": "archiveFlag", "flag": "f", "environment": "staging"}),
        json!({"kind": "updateVariation", "flag": "f", "variation": "a", "value": 1, "environment": "staging"}),
        json!({"kind": "createEnvironment", "key": "x", "tier": "testing", "environment": "staging"}),
        json!({"kind": "revokeSdkKey", "id": "k", "environment": "staging"}),
    ] {
        assert_eq!(refused(flag_wide.clone()), (place(), "notHere".into()));
        assert!(serde_json::from_value::<Instruction>(flag_wide).is_err());
    }
    for no_key in [json!(null), json!(3), json!(["staging"])] {
        let instruction = json!({"kind": "turnFlagOn", "flag": "f", "environment": no_key});
        assert_eq!(refused(instruction.clone()), (place(), "wrongType".into()));
        assert!(serde_json::from_value::<Instruction>(instruction).is_err());
    }
    let misspelt = json!({"kind": "turnFlagOn", "flag": "f", "enviroment": "staging"});
    assert_eq!(refused(misspelt), ("/i/enviroment".to_owned(), "unknownField".into()));
}

#[test]
fn repeated_names_are_refused_with_their_place() {
    let error = parse(b"{\"a\":1,\n\"b\":{\"c\":1,\"c\":2}}").unwrap_err();
    assert_eq!(error.line(), 2);
    assert!(error.to_string().starts_with("the field \"c\" occurs twice"), "{error}");
    assert!(parse(b"{} x").is_err());
}

#[test]
fn the_number_of_faults_is_bounded() {
    let flag = (0..1000).map(|index| (format!("x{index}"), Value::Null)).collect::<Map<_, _>>();
    let found = read::<Flag>(&Value::Object(flag), "").unwrap_err();
    assert_eq!(found.len(), MAX_FAULTS + 1);
}

fn json_value() -> impl Strategy<Value = Value> {
    let leaf = prop_oneof![
        Just(Value::Null),
        any::<bool>().prop_map(Value::from),
        any::<i64>().prop_map(Value::from),
        any::<f64>().prop_map(Value::from),
        "[a-z]{0,8}".prop_map(Value::from),
    ];
    let name = prop_oneof![
        Just("key".to_owned()),
        Just("kind".to_owned()),
        Just("variations".to_owned()),
        Just("environments".to_owned()),
        Just("rollout".to_owned()),
        "[a-z]{1,4}",
    ];
    leaf.prop_recursive(5, 64, 6, move |inner| {
        prop_oneof![
            prop::collection::vec(inner.clone(), 0..4).prop_map(Value::from),
            prop::collection::btree_map(name.clone(), inner, 0..6)
                .prop_map(|map| Value::Object(map.into_iter().collect())),
        ]
    })
}

proptest! {
    #[test]
    fn parsing_agrees_with_the_lenient_parser(value in json_value()) {
        let text = value.to_string();
        prop_assert_eq!(parse(text.as_bytes()).unwrap(), serde_json::from_str::<Value>(&text).unwrap());
    }

    #[test]
    fn any_value_is_read_or_refused_without_a_panic(value in json_value()) {
        prop_assert_eq!(read::<Value>(&value, "").unwrap(), value.clone());
        // What strict reading takes, lenient reading takes alike.
        if let Ok(serve) = read::<Serve>(&value, "") {
            prop_assert_eq!(serve, serde_json::from_value::<Serve>(value.clone()).unwrap());
        }
        let _ = read_instruction(&value, "");
        let _ = read::<Flag>(&value, "");
    }
}
