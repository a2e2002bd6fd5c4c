//! A notification as it is sent, in each format. Pure.

mod cloudevents;
mod json;
mod slack;

use serde_json::Value;

use super::{Format, Notification};

/// The media type and the body of a notification of the history `history`.
#[must_use]
pub fn payload(format: Format, notification: &Notification, history: &str) -> (&'static str, Vec<u8>) {
    let (media_type, body): (_, Value) = match format {
        Format::Json => ("application/json", json::body(notification)),
        Format::CloudEvents => {
            ("application/cloudevents+json; charset=utf-8", cloudevents::body(notification, history))
        }
        Format::Slack => ("application/json", slack::body(notification)),
    };
    (media_type, body.to_string().into_bytes())
}

/// A time in milliseconds since 1970 as RFC 3339 writes it.
fn time(at: u64) -> String {
    let millisecond = i64::try_from(at).ok().and_then(|at| jiff::Timestamp::from_millisecond(at).ok());
    millisecond.unwrap_or_default().strftime("%Y-%m-%dT%H:%M:%S.%3fZ").to_string()
}

#[cfg(test)]
mod tests;
