//! Instructions about webhooks: resolved and applied. Pure.

use serde::{Deserialize, Serialize};
use std::sync::Arc;

use super::webhook::{Filters, Format, MAX_FILTER_ENTRIES, MAX_OVERLAP_MS, MAX_WEBHOOKS, OldSecret, Since, Webhook};
use crate::changes::apply::{ApplyError, exists, unknown};
use crate::changes::mint;
use crate::changes::resolve::Resolving;
use crate::state::Project;

/// One edit of a webhook. In JSON one flat object with a `kind`, as every instruction. URL and secrets stand for themselves in
/// none: they are in the vault, under the references.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "camelCase", rename_all_fields = "camelCase")]
#[non_exhaustive]
pub enum WebhookEdit {
    /// Creates a webhook.
    CreateWebhook {
        /// Identifier. Filled in by the server.
        #[serde(default)]
        id: String,
        /// Name for people.
        #[serde(default, skip_serializing_if = "String::is_empty")]
        name: String,
        /// Scheme and host of the URL.
        target: String,
        /// Where the vault has the URL.
        url_ref: String,
        /// Where the vault has the signing secret.
        secret_ref: String,
        /// The form of what is sent.
        #[serde(default)]
        format: Format,
        /// Which notifications it gets.
        #[serde(default)]
        filters: Filters,
        /// Whether it gets any yet.
        enabled: bool,
    },
    /// Edits a webhook; fields left out stay.
    UpdateWebhook {
        /// Identifier of the webhook.
        id: String,
        /// New name.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        name: Option<String>,
        /// Scheme and host of the new URL.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        target: Option<String>,
        /// Where the vault has the new URL.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        url_ref: Option<String>,
        /// New form.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        format: Option<Format>,
        /// New filters, all of them.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        filters: Option<Filters>,
        /// Whether it gets notifications.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        enabled: Option<bool>,
    },
    /// Deletes a webhook; what waits for it is not sent any more.
    DeleteWebhook {
        /// Identifier of the webhook.
        id: String,
    },
    /// Gives a webhook a new signing secret; the old one signs as well until the deadline.
    RotateWebhookSecret {
        /// Identifier of the webhook.
        id: String,
        /// Where the vault has the new secret.
        secret_ref: String,
        /// Until when the old one signs as well, in milliseconds since 1970.
        deadline: u64,
    },
}

impl WebhookEdit {
    /// The words in `kind`.
    pub const KINDS: [&'static str; 4] = ["createWebhook", "updateWebhook", "deleteWebhook", "rotateWebhookSecret"];

    /// The word in `kind`.
    #[must_use]
    pub fn kind(&self) -> &'static str {
        match self {
            Self::CreateWebhook { .. } => "createWebhook",
            Self::UpdateWebhook { .. } => "updateWebhook",
            Self::DeleteWebhook { .. } => "deleteWebhook",
            Self::RotateWebhookSecret { .. } => "rotateWebhookSecret",
        }
    }

    /// Identifier of the webhook.
    #[must_use]
    pub fn id(&self) -> &str {
        match self {
            Self::CreateWebhook { id, .. }
            | Self::UpdateWebhook { id, .. }
            | Self::DeleteWebhook { id }
            | Self::RotateWebhookSecret { id, .. } => id,
        }
    }

    /// What it does, as a sentence without a full stop.
    #[must_use]
    pub fn describe(&self) -> String {
        match self {
            Self::CreateWebhook { id, target, .. } => format!("created the webhook {id}, which calls {target}"),
            Self::UpdateWebhook { id, enabled: Some(true), .. } => format!("edited and enabled the webhook {id}"),
            Self::UpdateWebhook { id, enabled: Some(false), .. } => format!("disabled the webhook {id}"),
            Self::UpdateWebhook { id, target: Some(target), .. } => {
                format!("edited the webhook {id}, which calls {target} now")
            }
            Self::UpdateWebhook { id, .. } => format!("edited the webhook {id}"),
            Self::DeleteWebhook { id } => format!("deleted the webhook {id}"),
            Self::RotateWebhookSecret { id, .. } => format!("gave the webhook {id} a new signing secret"),
        }
    }
}

/// The edit as it is to be journaled; `None` if it asks for what is already so, or was refused.
pub(crate) fn resolve(cx: &mut Resolving<'_>, mut edit: WebhookEdit) -> Option<WebhookEdit> {
    let project = cx.project;
    if !matches!(edit, WebhookEdit::CreateWebhook { .. }) && !project.webhooks.contains_key(edit.id()) {
        let message = format!("there is no webhook \"{}\"", edit.id());
        cx.refuse("/id", "unknownWebhook", message);
        return None;
    }
    match &mut edit {
        WebhookEdit::CreateWebhook { id, name, url_ref, secret_ref, filters, .. } => {
            cx.check_name("/name", name);
            check_filters(cx, filters);
            if project.webhooks.len() >= MAX_WEBHOOKS {
                cx.refuse("", "tooMany", format!("a project has at most {MAX_WEBHOOKS} webhooks; delete some"));
            }
            cx.refuse_if_sent("/id", !id.is_empty());
            *id = fresh_id(cx);
            check_reference(cx, url_ref);
            check_reference(cx, secret_ref);
        }
        WebhookEdit::UpdateWebhook { id, name, target, url_ref, filters, format, enabled } => {
            if let Some(name) = name {
                cx.check_name("/name", name);
            }
            if let Some(filters) = filters {
                check_filters(cx, filters);
            }
            if target.is_some() != url_ref.is_some() {
                cx.refuse("/target", "oneOf", "target and urlRef change together");
            }
            if let Some(url_ref) = url_ref {
                check_reference(cx, url_ref);
            }
            let known = project.webhooks.get(id)?;
            // Only what differs is journaled.
            name.take_if(|name| *name == known.name);
            filters.take_if(|filters| *filters == known.filters);
            format.take_if(|format| *format == known.format);
            enabled.take_if(|enabled| *enabled == known.enabled);
        }
        WebhookEdit::RotateWebhookSecret { secret_ref, deadline, .. } => {
            *deadline = (*deadline).max(cx.now);
            if *deadline - cx.now > MAX_OVERLAP_MS {
                let days = MAX_OVERLAP_MS / (24 * 60 * 60 * 1_000);
                cx.refuse("/overlapMinutes", "outOfRange", format!("the old secret signs on for at most {days} days"));
            }
            check_reference(cx, secret_ref);
        }
        WebhookEdit::DeleteWebhook { .. } => {}
    }
    Some(edit)
}

fn fresh_id(cx: &mut Resolving<'_>) -> String {
    loop {
        let id = mint::id("hook", &mut *cx.mint);
        if !cx.project.webhooks.contains_key(&id) {
            return id;
        }
    }
}

/// Refuses what another webhook has in the vault: who can name its reference could have its notifications signed.
fn check_reference(cx: &mut Resolving<'_>, reference: &str) {
    let mut known = cx.before.projects.values().flat_map(|project| project.webhooks.values());
    if reference.is_empty() || known.any(|hook| hook.references().any(|of| of == reference)) {
        cx.refuse("", "badReference", "a reference is made by the server, for one webhook");
    }
}

fn check_filters(cx: &mut Resolving<'_>, filters: &Filters) {
    if filters.longest() > MAX_FILTER_ENTRIES {
        cx.refuse("/filters", "tooMany", format!("a list of a filter has at most {MAX_FILTER_ENTRIES} entries"));
    }
    for (index, key) in filters.environments.iter().enumerate() {
        if !cx.project.environments.contains_key(key) {
            let message = format!("there is no environment \"{key}\"");
            cx.refuse(&format!("/filters/environments/{index}"), "unknownEnvironment", message);
        }
    }
    for (index, key) in filters.flags.iter().enumerate() {
        cx.check_key(&format!("/filters/flags/{index}"), key);
    }
}

/// Applies a resolved edit, made at `at` (milliseconds since 1970) by the entry `revision`.
pub(crate) fn apply(project: &mut Project, edit: &WebhookEdit, at: u64, revision: u64) -> Result<(), ApplyError> {
    let since = Since { revision, at };
    if let WebhookEdit::CreateWebhook { id, name, target, url_ref, secret_ref, format, filters, enabled } = edit {
        if project.webhooks.contains_key(id) {
            return Err(exists("webhook", id));
        }
        let made = Webhook {
            id: id.clone(),
            name: name.clone(),
            target: target.clone(),
            url_ref: url_ref.clone(),
            format: *format,
            filters: filters.clone(),
            enabled: *enabled,
            secret_ref: secret_ref.clone(),
            old_secret: None,
            since,
            created_at: at,
            updated_at: at,
        };
        project.webhooks.insert(id.clone(), Arc::new(made));
        return Ok(());
    }
    let known = project.webhooks.get(edit.id()).ok_or_else(|| unknown("webhook", edit.id()))?;
    let mut hook = Webhook::clone(known);
    match edit {
        WebhookEdit::UpdateWebhook { name, target, url_ref, format, filters, enabled, .. } => {
            hook.name = name.clone().unwrap_or(hook.name);
            hook.target = target.clone().unwrap_or(hook.target);
            hook.url_ref = url_ref.clone().unwrap_or(hook.url_ref);
            hook.format = format.unwrap_or(hook.format);
            hook.filters = filters.clone().unwrap_or(hook.filters);
            if *enabled == Some(true) && !hook.enabled {
                hook.since = since;
            }
            hook.enabled = enabled.unwrap_or(hook.enabled);
        }
        WebhookEdit::RotateWebhookSecret { secret_ref, deadline, .. } => {
            let old = std::mem::replace(&mut hook.secret_ref, secret_ref.clone());
            hook.old_secret = (*deadline > at).then_some(OldSecret { secret_ref: old, until: *deadline });
        }
        WebhookEdit::DeleteWebhook { id } => {
            project.webhooks.remove(id);
            return Ok(());
        }
        WebhookEdit::CreateWebhook { .. } => {}
    }
    if *known.as_ref() != hook {
        hook.updated_at = at;
        project.webhooks.insert(hook.id.clone(), Arc::new(hook));
    }
    Ok(())
}
