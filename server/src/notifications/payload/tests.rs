use serde_json::{Value, json};

use super::*;
use crate::environments::Tier;
use crate::notifications::{Actor, Environment, Topic};

fn notification() -> Notification {
    Notification {
        id: "evt-h-7".to_owned(),
        topic: Topic::ChangeApplied,
        at: 1_767_225_600_123,
        project: "shop".to_owned(),
        revision: Some(7),
        actor: Some(Actor { id: "a-1".to_owned(), kind: Some("human"), name: None }),
        environments: vec![Environment { key: "production".to_owned(), tier: Some(Tier::Production) }],
        flags: vec!["checkout".to_owned()],
        summary: vec!["turned checkout on in production".to_owned()],
        comment: "<!channel> <https://evil.example|free> & more\n*bold*".to_owned(),
        commit: Some("abc".to_owned()),
        request: None,
        count: 1,
    }
}

fn body(format: Format) -> Value {
    serde_json::from_slice(&payload(format, &notification(), "h").1).unwrap()
}

#[test]
fn plain_json_says_what_when_and_about_what() {
    assert_eq!(
        body(Format::Json),
        json!({
            "type": "change.applied",
            "timestamp": "2026-01-01T00:00:00.123Z",
            "data": {
                "project": "shop",
                "revision": 7,
                "actor": {"id": "a-1", "kind": "human"},
                "environments": [{"key": "production", "tier": "production"}],
                "flags": ["checkout"],
                "summary": ["turned checkout on in production"],
                "comment": "<!channel> <https://evil.example|free> & more\n*bold*",
                "commit": "abc",
            },
        })
    );
}

#[test]
fn cloud_events_have_what_the_specification_asks_for() {
    let body = body(Format::CloudEvents);
    for (name, value) in [
        ("specversion", "1.0"),
        ("id", "evt-h-7"),
        ("source", "/guidon/h/projects/shop"),
        ("type", "guidon.change.applied"),
        ("time", "2026-01-01T00:00:00.123Z"),
        ("subject", "flags/checkout"),
        ("datacontenttype", "application/json"),
    ] {
        assert_eq!(body[name], value, "{name}");
    }
    assert_eq!(body["data"]["revision"], 7);
    let names = body.as_object().unwrap().keys();
    assert!(names.into_iter().all(|name| name.bytes().all(|byte| byte.is_ascii_lowercase() || byte.is_ascii_digit())));
    let (media_type, _) = payload(Format::CloudEvents, &notification(), "h");
    assert!(media_type.starts_with("application/cloudevents+json"));
}

#[test]
fn nobodys_text_mentions_or_links_in_slack() {
    let body = body(Format::Slack);
    let text = body["blocks"][0]["text"]["text"].as_str().unwrap();
    assert!(text.contains("&lt;!channel&gt; &lt;https://evil.example|free&gt; &amp; more"), "{text}");
    assert!(!body.to_string().contains("<!"), "{body}");
    assert!(body["text"].as_str().unwrap().starts_with("Change in shop"));
    let long = Notification { comment: "&".repeat(4_000), ..notification() };
    let (_, long) = payload(Format::Slack, &long, "h");
    let long: Value = serde_json::from_slice(&long).unwrap();
    let text = long["blocks"][0]["text"]["text"].as_str().unwrap();
    assert!(text.chars().count() < 3_000 && text.ends_with("&amp;…"), "{text}");
}
