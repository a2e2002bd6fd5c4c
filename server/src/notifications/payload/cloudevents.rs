//! CloudEvents 1.0, JSON, structured mode.

use serde_json::{Value, json};

use super::{json, time};
use crate::notifications::Notification;

/// What stands before the topic in `type`.
const PREFIX: &str = "guidon";

/// The body. `source` and `id` together name one notification for all time.
pub(super) fn body(notification: &Notification, history: &str) -> Value {
    let mut body = json!({
        "specversion": "1.0",
        "id": notification.id,
        "source": format!("/guidon/{history}/projects/{}", notification.project),
        "type": format!("{PREFIX}.{}", notification.topic),
        "time": time(notification.at),
        "datacontenttype": "application/json",
        "data": json::data(notification),
    });
    if let [flag] = notification.flags.as_slice() {
        body["subject"] = format!("flags/{flag}").into();
    }
    body
}
