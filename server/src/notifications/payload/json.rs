//! Plain JSON, laid out as the Standard Webhooks specification advises: `type`, `timestamp`, `data`.

use serde_json::{Map, Value, json};

use super::time;
use crate::notifications::Notification;

/// The body.
pub(super) fn body(notification: &Notification) -> Value {
    json!({
        "type": notification.topic,
        "timestamp": time(notification.at),
        "data": data(notification),
    })
}

/// What there is to tell; what there is nothing to say of is left out.
pub(super) fn data(notification: &Notification) -> Value {
    let mut data = Map::new();
    let mut put = |name: &str, value: Value| {
        let is_empty = match &value {
            Value::Null => true,
            Value::String(text) => text.is_empty(),
            Value::Array(items) => items.is_empty(),
            _ => false,
        };
        if !is_empty {
            data.insert(name.to_owned(), value);
        }
    };
    put("project", json!(notification.project));
    put("revision", json!(notification.revision));
    put("actor", json!(notification.actor));
    put("environments", json!(notification.environments));
    put("flags", json!(notification.flags));
    put("summary", json!(notification.summary));
    put("comment", json!(notification.comment));
    put("commit", json!(notification.commit));
    put("request", json!(notification.request));
    put("count", if notification.count > 1 { json!(notification.count) } else { Value::Null });
    Value::Object(data)
}
