//! A message for Slack's incoming webhooks, and for those who take the same.

use serde_json::{Value, json};

use crate::notifications::{Notification, Topic};

/// Most sentences of a message.
const MAX_SENTENCES: usize = 10;
/// Most characters of one text of a block; Slack takes 3,000.
const MAX_TEXT_CHARS: usize = 2_800;

/// The body: `text` for where blocks are not shown, and blocks.
pub(super) fn body(notification: &Notification) -> Value {
    let title = title(notification);
    let mut lines = vec![format!("*{title}*")];
    lines.extend(notification.summary.iter().take(MAX_SENTENCES).map(|sentence| format!("• {}", escape(sentence))));
    let more = notification.summary.len().saturating_sub(MAX_SENTENCES);
    if more > 0 {
        lines.push(format!("• and {more} more"));
    }
    if !notification.comment.is_empty() {
        lines.extend(notification.comment.lines().take(MAX_SENTENCES).map(|line| format!("> {}", escape(line))));
    }
    let mut context = Vec::new();
    if let Some(actor) = &notification.actor {
        context.push(format!("by {}", escape(actor.name.as_ref().unwrap_or(&actor.id))));
    }
    if !notification.environments.is_empty() {
        let keys: Vec<String> = notification.environments.iter().map(|environment| escape(&environment.key)).collect();
        context.push(format!("in {}", keys.join(", ")));
    }
    context.extend(notification.revision.map(|revision| format!("revision {revision}")));
    context.extend(notification.request.iter().map(|request| format!("request {}", escape(request))));
    context.extend(notification.commit.iter().map(|commit| format!("commit {}", escape(commit))));
    let mut blocks = vec![json!({"type": "section", "text": {"type": "mrkdwn", "text": cut(&lines.join("\n"))}})];
    if !context.is_empty() {
        let text = cut(&context.join(" · "));
        blocks.push(json!({"type": "context", "elements": [{"type": "mrkdwn", "text": text}]}));
    }
    let first = notification.summary.first().map(|sentence| format!(": {}", escape(sentence))).unwrap_or_default();
    json!({"text": cut(&format!("{title}{first}")), "blocks": blocks})
}

fn title(notification: &Notification) -> String {
    let project = escape(&notification.project);
    match notification.topic {
        Topic::ChangeEmergency => format!(":rotating_light: Emergency change in {project}"),
        Topic::ChangeApplied => format!("Change in {project}"),
        Topic::Ping => format!("Test of a webhook of {project}"),
        Topic::Security(_) if notification.count > 1 => {
            format!("{} in {project}, {} times", notification.topic, notification.count)
        }
        other => format!("{other} in {project}"),
    }
}

/// The three characters that Slack reads: with them escaped nobody's text becomes a link or a mention.
fn escape(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;")
}

/// The text, no longer than a block takes, and not cut inside of what was escaped.
fn cut(text: &str) -> String {
    if text.chars().count() <= MAX_TEXT_CHARS {
        return text.to_owned();
    }
    let mut kept: String = text.chars().take(MAX_TEXT_CHARS).collect();
    if let Some(started) = kept.rfind('&').filter(|at| !kept[*at..].contains(';')) {
        kept.truncate(started);
    }
    kept.push('…');
    kept
}
