//! One webhook's deliveries: one at a time, in order.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use tokio::time::Instant;

use super::call::Message;
use super::record::Streak;
use super::service::{Hook, Parts};
use super::signature::{Secret, signatures};
use super::{DeadLetter, Delivery, Notification, Outcome, Position, Target, Webhook, WebhookEdit, backoff, payload};
use crate::changes::{Author, ChangeDraft, Instruction};
use crate::shutdown::Shutdown;
use crate::state::World;

/// Entries or events that are read at once.
const READ_AT_ONCE: usize = 64;
/// Most entries or events that are looked through in one step.
const MAX_LOOKED_THROUGH: usize = 1_024;
/// How often a webhook that waits looks whether it was changed, and at the security log.
const LOOK_EVERY: Duration = Duration::from_secs(1);
/// How long to wait when a log cannot be read, in milliseconds.
const UNREADABLE_WAIT_MS: u64 = 60_000;
/// How much of what was delivered may be delivered again after a crash, in milliseconds.
const SAVE_EVERY_MS: u64 = 500;
/// The status with which a receiver says that it wants no more.
const GONE: u16 = 410;

/// What comes next.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Step {
    /// There may be more to do.
    Again,
    /// Nothing before this time, in milliseconds since 1970.
    WaitUntil(u64),
    /// Nothing until something happens.
    Idle,
}

/// What came of an attempt.
pub(super) struct Attempt {
    pub(super) status: Option<u16>,
    pub(super) retry_after_s: Option<u64>,
    pub(super) took_ms: u64,
    pub(super) error: Option<String>,
}

enum Found {
    Next(Position, Box<Notification>),
    /// Not yet: there is more to look through.
    More,
    Nothing,
}

/// Delivers until the webhook is disabled or deleted, or the server stops.
pub(super) async fn run(parts: Arc<Parts>, hook: Arc<Hook>, shutdown: Shutdown) {
    let mut revisions = parts.changes.follower().watch();
    loop {
        revisions.borrow_and_update();
        let step = tokio::select! {
            biased;
            // An attempt under way is cut off; the notification is sent again after the start.
            () = shutdown.begun() => break,
            step = step(&parts, &hook) => step,
        };
        let now = parts.clock.now_ms();
        match step {
            None => break,
            Some(Step::Again) => {
                if hook.saved_at().saturating_add(SAVE_EVERY_MS) <= now {
                    hook.save(&parts).await;
                }
                tokio::task::yield_now().await;
            }
            Some(Step::WaitUntil(at)) => {
                hook.save(&parts).await;
                let wait = Duration::from_millis(at.saturating_sub(now)).min(LOOK_EVERY);
                tokio::select! {
                    () = tokio::time::sleep(wait) => {}
                    () = hook.wake.notified() => {}
                    () = shutdown.begun() => {}
                }
            }
            Some(Step::Idle) => {
                hook.save(&parts).await;
                tokio::select! {
                    _ = revisions.changed() => {}
                    () = tokio::time::sleep(LOOK_EVERY) => {}
                    () = hook.wake.notified() => {}
                    () = shutdown.begun() => {}
                }
            }
        }
    }
    hook.save(&parts).await;
}

/// Does one thing: looks for the next notification and tries to deliver it. `None` if there is no such webhook, or it is
/// disabled.
pub(super) async fn step(parts: &Parts, hook: &Hook) -> Option<Step> {
    let (world, now) = (parts.changes.world(), parts.clock.now_ms());
    let webhook = world.project(&hook.project)?.webhooks.get(&hook.id).filter(|webhook| webhook.enabled).cloned()?;
    hook.edit(|record| record.follow(&webhook));
    if let Some(letter) = hook.read(|record| record.dead_letters.iter().find(|letter| letter.resending).cloned()) {
        resend(parts, hook, &webhook, &world, letter).await;
        return Some(Step::Again);
    }
    let streak = hook.read(|record| record.streak);
    if let Some(streak) = streak.filter(|streak| streak.next_at > now) {
        return Some(Step::WaitUntil(streak.next_at));
    }
    match find(parts, hook, &webhook, &world).await {
        Ok(Found::Next(position, notification)) => {
            let never_tried = hook.read(|record| record.attempts == 0);
            match streak.filter(|streak| never_tried && now >= backoff::gives_up_at(notification.at, streak.since)) {
                Some(_) => {
                    let reason = "not tried: the receiver had failed for a day already".to_owned();
                    give_up(parts, hook, position, &notification, now, reason, None);
                }
                None => deliver(parts, hook, &webhook, &world, position, *notification).await,
            }
            Some(Step::Again)
        }
        Ok(Found::More) => Some(Step::Again),
        Ok(Found::Nothing) => Some(Step::Idle),
        Err(reason) => {
            tracing::error!(webhook = hook.id, reason, "notifications wait: a log cannot be read");
            Some(Step::WaitUntil(now + UNREADABLE_WAIT_MS))
        }
    }
}

async fn deliver(
    parts: &Parts,
    hook: &Hook,
    webhook: &Webhook,
    world: &World,
    position: Position,
    notification: Notification,
) {
    hook.edit(|record| {
        record.attempts += 1;
        record.waiting_since = Some(notification.at);
    });
    let attempt = attempt(parts, webhook, &notification, world).await;
    let now = parts.clock.now_ms();
    let Some(reason) = attempt.error.clone() else {
        note(parts, hook, &notification, now, Outcome::Delivered, &attempt);
        return hook.edit(|record| {
            record.advance(position);
            record.streak = None;
        });
    };
    if attempt.status == Some(GONE) {
        give_up(parts, hook, position, &notification, now, reason, Some(&attempt));
        return disable(parts, hook).await;
    }
    let streak = hook.read(|record| record.streak);
    let (failures, since) = streak.map_or((1, now), |streak| (streak.failures.saturating_add(1), streak.since));
    let next_at = now + backoff::wait_ms(failures, (parts.jitter)(), attempt.retry_after_s);
    if failures == 1 {
        tracing::warn!(webhook = hook.id, project = hook.project, reason, "a webhook fails; it is tried again");
    }
    hook.edit(|record| record.streak = Some(Streak { failures, since, next_at }));
    if now >= backoff::gives_up_at(notification.at, since) {
        give_up(parts, hook, position, &notification, now, reason, Some(&attempt));
    } else {
        note(parts, hook, &notification, now, Outcome::Failed, &attempt);
    }
}

/// Takes note of an attempt.
fn note(parts: &Parts, hook: &Hook, notification: &Notification, now: u64, outcome: Outcome, attempt: &Attempt) {
    parts.metrics.count(outcome);
    hook.edit(|record| {
        record.log(Delivery {
            id: notification.id.clone(),
            topic: notification.topic,
            at: now,
            attempt: record.attempts,
            outcome,
            status: attempt.status,
            took_ms: attempt.took_ms,
            error: attempt.error.clone(),
        });
    });
}

fn give_up(
    parts: &Parts,
    hook: &Hook,
    position: Position,
    notification: &Notification,
    now: u64,
    reason: String,
    attempt: Option<&Attempt>,
) {
    let none = Attempt { status: None, retry_after_s: None, took_ms: 0, error: Some(reason.clone()) };
    note(parts, hook, notification, now, Outcome::Dead, attempt.unwrap_or(&none));
    tracing::warn!(webhook = hook.id, project = hook.project, notification = notification.id, reason, "a dead letter");
    hook.edit(|record| {
        record.bury(DeadLetter {
            id: notification.id.clone(),
            position,
            topic: notification.topic,
            at: notification.at,
            dead_at: now,
            attempts: record.attempts,
            reason,
            resending: false,
        });
        record.advance(position);
    });
}

/// The receiver wants no more: the webhook is disabled, for people to see.
async fn disable(parts: &Parts, hook: &Hook) {
    let edit = WebhookEdit::UpdateWebhook {
        id: hook.id.clone(),
        name: None,
        target: None,
        url_ref: None,
        format: None,
        filters: None,
        enabled: Some(false),
    };
    let draft = ChangeDraft {
        project: hook.project.clone(),
        comment: "The receiver answered 410 Gone".to_owned(),
        instructions: vec![Instruction::Webhook(Box::new(edit))],
        ..ChangeDraft::default()
    };
    let changes = Arc::clone(&parts.changes);
    // Goes on to its end though the server stop.
    let disabled = tokio::spawn(async move { changes.submit(&Author::system(), draft).await }).await;
    if let Ok(Err(error)) = disabled {
        tracing::error!(webhook = hook.id, %error, "a webhook whose receiver wants no more could not be disabled");
    }
}

/// Tries a dead letter once more. It stays one if that fails.
async fn resend(parts: &Parts, hook: &Hook, webhook: &Webhook, world: &World, letter: DeadLetter) {
    let found = reread(parts, &letter, world).await;
    let now = parts.clock.now_ms();
    let notification = match found {
        Ok(Some(notification)) => notification,
        Ok(None) | Err(_) => {
            return hook.edit(|record| {
                let kept = record.dead_letters.iter_mut().find(|kept| kept.id == letter.id);
                if let Some(kept) = kept {
                    kept.resending = false;
                    kept.reason = "what it told of cannot be read any more".to_owned();
                }
            });
        }
    };
    let attempt = attempt(parts, webhook, &notification, world).await;
    let outcome = if attempt.error.is_none() { Outcome::Delivered } else { Outcome::Dead };
    parts.metrics.count(outcome);
    hook.edit(|record| {
        record.log(Delivery {
            id: letter.id.clone(),
            topic: letter.topic,
            at: now,
            attempt: letter.attempts.saturating_add(1),
            outcome,
            status: attempt.status,
            took_ms: attempt.took_ms,
            error: attempt.error.clone(),
        });
        match &attempt.error {
            None => record.dead_letters.retain(|kept| kept.id != letter.id),
            Some(reason) => {
                let kept = record.dead_letters.iter_mut().find(|kept| kept.id == letter.id);
                if let Some(kept) = kept {
                    kept.resending = false;
                    kept.attempts = kept.attempts.saturating_add(1);
                    kept.reason = reason.chars().take(300).collect();
                }
            }
        }
    });
}

async fn reread(parts: &Parts, letter: &DeadLetter, world: &World) -> Result<Option<Notification>, String> {
    let history = parts.changes.journal().history();
    match letter.position {
        Position::Entry(revision) => {
            let read = parts.changes.journal().read(revision.saturating_sub(1), 1).await;
            let read = read.map_err(|error| error.to_string())?;
            let entry = read.first().map(|stored| &stored.entry).filter(|entry| entry.revision == revision);
            Ok(entry.and_then(|entry| Notification::of_entry(entry, world, history)))
        }
        Position::Event(seq) => {
            let read = parts.events.read(seq.saturating_sub(1), 1).await.map_err(|error| error.to_string())?;
            let event = read.first().filter(|stored| stored.seq == seq);
            Ok(event.and_then(|stored| Notification::of_event(seq, &stored.event, world, history)))
        }
    }
}

/// The next notification for the webhook, of the journal first.
async fn find(parts: &Parts, hook: &Hook, webhook: &Webhook, world: &World) -> Result<Found, String> {
    let journal = parts.changes.journal();
    let not_before = hook.read(|record| record.not_before);
    let wanted = |notification: &Notification| {
        notification.project == hook.project && notification.at >= not_before && webhook.filters.pass(notification)
    };
    let (mut done, mut looked_through) = (hook.read(|record| record.entries_done), 0);
    while done < world.revision {
        let read = journal.read(done, READ_AT_ONCE).await.map_err(|error| error.to_string())?;
        if read.is_empty() {
            break;
        }
        for stored in read.into_iter().take_while(|stored| stored.entry.revision <= world.revision) {
            let revision = stored.entry.revision;
            let of_project = stored.entry.project == hook.project;
            let notification =
                of_project.then(|| Notification::of_entry(&stored.entry, world, journal.history())).flatten();
            if let Some(notification) = notification.filter(|notification| wanted(notification)) {
                return Ok(Found::Next(Position::Entry(revision), Box::new(notification)));
            }
            done = revision;
            hook.edit(|record| record.advance(Position::Entry(revision)));
            looked_through += 1;
        }
        if looked_through >= MAX_LOOKED_THROUGH {
            return Ok(Found::More);
        }
    }
    let head = parts.events.head().seq;
    if !webhook.filters.want_security() {
        if hook.read(|record| record.events_done < head) {
            hook.edit(|record| record.events_done = head);
        }
        return Ok(Found::Nothing);
    }
    let mut done = hook.read(|record| record.events_done);
    while done < head {
        let read = parts.events.read(done, READ_AT_ONCE).await.map_err(|error| error.to_string())?;
        if read.is_empty() {
            break;
        }
        for stored in read {
            let notification = Notification::of_event(stored.seq, &stored.event, world, journal.history());
            if let Some(notification) = notification.filter(|notification| wanted(notification)) {
                return Ok(Found::Next(Position::Event(stored.seq), Box::new(notification)));
            }
            done = stored.seq;
            hook.edit(|record| record.advance(Position::Event(done)));
            looked_through += 1;
        }
        if looked_through >= MAX_LOOKED_THROUGH {
            return Ok(Found::More);
        }
    }
    Ok(Found::Nothing)
}

/// Sends a notification once.
pub(super) async fn attempt(parts: &Parts, webhook: &Webhook, notification: &Notification, world: &World) -> Attempt {
    let started = Instant::now();
    let sent = send(parts, webhook, notification, world).await;
    let took_ms = u64::try_from(started.elapsed().as_millis()).unwrap_or(u64::MAX);
    match sent {
        Err(error) => Attempt { status: None, retry_after_s: None, took_ms, error: Some(error) },
        Ok(answer) => {
            let error = match answer.status {
                200..=299 => None,
                300..=399 => Some(format!("answered {}: redirects are not followed", answer.status)),
                GONE => Some("answered 410: the receiver wants no more".to_owned()),
                status => Some(format!("answered {status}")),
            };
            Attempt { status: Some(answer.status), retry_after_s: answer.retry_after_s, took_ms, error }
        }
    }
}

async fn send(
    parts: &Parts,
    webhook: &Webhook,
    notification: &Notification,
    world: &World,
) -> Result<super::call::Answer, String> {
    let (now, history) = (parts.clock.now_ms(), parts.changes.journal().history());
    let missing = |what: &str| format!("the webhook's {what} is not in the vault any more: set it again");
    let url = parts.kept(&webhook.url_ref).await?.ok_or_else(|| missing("URL"))?;
    let target = Target::parse(&url).map_err(|error| error.to_string())?;
    let mut secrets = Vec::new();
    for reference in webhook.secrets(now) {
        secrets.extend(parts.kept(reference).await?.as_deref().and_then(Secret::parse));
    }
    if secrets.is_empty() {
        return Err(missing("secret"));
    }
    let mut notification = notification.clone();
    if let Some(actor) = notification.actor.as_mut().filter(|_| parts.show_names) {
        let of_directory = world.directory.principals.get(&actor.id).map(|principal| principal.name.clone());
        actor.name =
            Some(of_directory.filter(|name| !name.is_empty()).unwrap_or_else(|| parts.people.person(&actor.id).name));
    }
    let (media_type, body) = payload(webhook.format, &notification, history);
    let timestamp = now / 1_000;
    let signatures = signatures(&secrets, &notification.id, timestamp, &body);
    let message = Message { id: notification.id, timestamp, signatures, media_type, body: Bytes::from(body) };
    parts.caller.call(&target, &message).await.map_err(|error| error.to_string())
}
