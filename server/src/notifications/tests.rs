//! Deliveries on a journal in memory, with receivers that do as they are told and a clock that moves when told to.

mod network;

use std::collections::VecDeque;
use std::net::IpAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use futures_util::future::BoxFuture;
use parking_lot::Mutex;
use serde_json::{Value, json};

use super::backoff::GIVE_UP_AFTER_MS;
use super::call::{Answer, CallError, Message};
use super::service::Hook;
use super::signature::Secret;
use super::worker::{Step, step};
use super::*;
use crate::audit::{Events, EventsError, EventsHead, People, Person, Place, StoredEvent};
use crate::changes::tests::{START_MS, Server, engine_flag};
use crate::changes::{Author, ChangeDraft, Instruction};
use crate::policy::PrincipalKind;
use crate::vault::MemoryVault;

const MINUTE_MS: u64 = 60_000;
const URL: &str = "https://hooks.example/services/SECRET-PATH";

/// What a receiver does next; the last one again and again.
#[derive(Clone)]
enum Does {
    Answers(u16),
    AsksToWait(u64),
    Breaks,
}

#[derive(Default)]
struct Receiver {
    does: Mutex<VecDeque<Does>>,
    got: Mutex<Vec<Message>>,
    calls: AtomicUsize,
}

impl Receiver {
    fn then(&self, does: &[Does]) {
        *self.does.lock() = does.iter().cloned().collect();
    }

    fn ids(&self) -> Vec<String> {
        self.got.lock().iter().map(|message| message.id.clone()).collect()
    }

    fn calls(&self) -> usize {
        self.calls.load(Ordering::SeqCst)
    }
}

impl Caller for Receiver {
    fn check<'a>(&'a self, _: &'a Target) -> BoxFuture<'a, Result<(), CallError>> {
        Box::pin(async { Ok(()) })
    }

    fn call<'a>(&'a self, target: &'a Target, message: &'a Message) -> BoxFuture<'a, Result<Answer, CallError>> {
        assert_eq!(target.path, "/services/SECRET-PATH");
        self.calls.fetch_add(1, Ordering::SeqCst);
        let mut does = self.does.lock();
        let next = if does.len() > 1 { does.pop_front() } else { does.front().cloned() };
        let answer = match next.unwrap_or(Does::Answers(200)) {
            Does::Answers(status) => Ok(Answer { status, retry_after_s: None }),
            Does::AsksToWait(seconds) => Ok(Answer { status: 503, retry_after_s: Some(seconds) }),
            Does::Breaks => Err(CallError::Broken("connection reset".to_owned())),
        };
        if answer.as_ref().is_ok_and(|answer| answer.status < 300) {
            self.got.lock().push(message.clone());
        }
        Box::pin(async move { answer })
    }
}

struct NoEvents;

impl Events for NoEvents {
    fn head(&self) -> EventsHead {
        EventsHead::EMPTY
    }

    fn first_seq(&self) -> u64 {
        1
    }

    fn read(&self, _: u64, _: usize) -> BoxFuture<'_, Result<Vec<StoredEvent>, EventsError>> {
        Box::pin(async { Ok(Vec::new()) })
    }
}

struct Ada;

impl People for Ada {
    fn person(&self, id: &str) -> Person {
        Person { id: id.to_owned(), kind: "human".to_owned(), name: "Ada".to_owned() }
    }

    fn place(&self, id: &str) -> Place {
        Place { id: id.to_owned(), address: String::new(), door: String::new() }
    }
}

struct World {
    server: Server,
    receiver: Arc<Receiver>,
    service: Arc<Notifications>,
    parts: Arc<service::Parts>,
    webhook: String,
}

impl World {
    async fn start(filters: Value) -> Self {
        Self::named(filters, false).await
    }

    async fn named(filters: Value, show_names: bool) -> Self {
        let server = Server::start().await;
        server.invite().await;
        let receiver = Arc::new(Receiver::default());
        let vault = Arc::new(MemoryVault::new());
        let parts = || service::Parts {
            changes: Arc::clone(&server.service),
            events: Arc::new(NoEvents),
            people: Arc::new(Ada),
            vault: vault.clone(),
            caller: receiver.clone(),
            store: Arc::new(MemoryRecordStore::default()),
            clock: server.clock.clone(),
            jitter: || 1.0,
            show_names,
            metrics: WebhookMetrics::default(),
        };
        let service = Notifications::new(parts());
        let url_ref = service.keep(URL).await.unwrap();
        let secret_ref = service.make_secret().await.unwrap();
        let filters = serde_json::from_value(filters).unwrap();
        let create = WebhookEdit::CreateWebhook {
            id: String::new(),
            name: "chat".to_owned(),
            target: Target::parse(URL).unwrap().shown(),
            url_ref,
            secret_ref,
            format: Format::Json,
            filters,
            enabled: true,
        };
        let world = Self { parts: Arc::new(parts()), server, receiver, service, webhook: String::new() };
        let made = world.edit(create).await.unwrap();
        let Some(Instruction::Webhook(made)) = made.entry.as_ref().unwrap().instructions.first() else { panic!() };
        Self { webhook: made.id().to_owned(), ..world }
    }

    /// Edits a webhook as an administrator does.
    async fn edit(&self, edit: WebhookEdit) -> Result<crate::changes::ChangeOutcome, crate::changes::ChangeError> {
        self.edit_as(&self.server.human("admin"), edit).await
    }

    async fn edit_as(
        &self,
        author: &Author,
        edit: WebhookEdit,
    ) -> Result<crate::changes::ChangeOutcome, crate::changes::ChangeError> {
        let instructions = vec![Instruction::Webhook(Box::new(edit))];
        let draft = ChangeDraft { project: "default".to_owned(), instructions, ..ChangeDraft::default() };
        self.server.service.submit(author, draft).await
    }

    fn definition(&self) -> Arc<Webhook> {
        Arc::clone(&self.server.service.world().projects["default"].webhooks[&self.webhook])
    }

    fn hook(&self) -> Hook {
        let record = HookRecord::new(&self.definition(), self.now());
        Hook::new("default", &self.webhook, record)
    }

    fn now(&self) -> u64 {
        crate::clock::Clock::now_ms(&*self.server.clock)
    }

    async fn flag(&self, key: &str) -> u64 {
        self.server.submit(json!([engine_flag(key)])).await.unwrap().revision
    }

    /// Steps until there is nothing to do, or to wait for.
    async fn drain(&self, hook: &Hook) -> Option<Step> {
        loop {
            match step(&self.parts, hook).await {
                Some(Step::Again) => {}
                other => return other,
            }
        }
    }

    /// Steps for some time, as the clock goes by.
    async fn wait(&self, hook: &Hook, for_ms: u64) {
        let end = self.now() + for_ms;
        while self.now() < end {
            match self.drain(hook).await {
                Some(Step::WaitUntil(at)) => self.server.clock.set_ms(at.min(end)),
                _ => self.server.clock.set_ms(end),
            }
        }
        self.drain(hook).await;
    }
}

#[tokio::test]
async fn changes_are_told_once_in_order_and_signed() {
    let world = World::start(json!({})).await;
    let hook = world.hook();
    let revisions = [world.flag("a").await, world.flag("b").await];
    assert_eq!(world.drain(&hook).await, Some(Step::Idle));
    assert_eq!(world.receiver.ids(), revisions.map(|revision| format!("evt-h-{revision}")));
    let message = world.receiver.got.lock()[0].clone();
    let secret = world.service.kept(&world.definition().secret_ref).await.unwrap().unwrap();
    let signed = Secret::parse(&secret).unwrap().sign(&message.id, START_MS / 1_000, &message.body);
    assert_eq!((message.signatures, message.timestamp), (signed, START_MS / 1_000));
    let body: Value = serde_json::from_slice(&message.body).unwrap();
    assert_eq!(body["type"], "change.applied");
    assert_eq!(body["data"]["summary"], json!(["created the flag a"]));
    assert_eq!(body["data"]["actor"]["id"], "actor-1");
    assert!(body["data"]["actor"].get("name").is_none(), "names stay where they are: {body}");
    assert_eq!(world.drain(&hook).await, Some(Step::Idle));
    assert_eq!(world.receiver.calls(), 2);
}

#[tokio::test]
async fn filters_leave_out_the_rest() {
    let world = World::start(json!({"topics": ["change.applied"], "flags": ["b"]})).await;
    let hook = world.hook();
    world.flag("a").await;
    let wanted = world.flag("b").await;
    world.drain(&hook).await;
    assert_eq!(world.receiver.ids(), [format!("evt-h-{wanted}")]);
    let production = World::named(json!({"tiers": ["production"]}), true).await;
    let hook = production.hook();
    // A new flag is one in every environment.
    production.flag("a").await;
    production.drain(&hook).await;
    assert_eq!(production.receiver.calls(), 1);
    production.server.submit(json!([{"kind": "turnFlagOn", "flag": "a"}])).await.unwrap();
    production.drain(&hook).await;
    assert_eq!(production.receiver.calls(), 1, "development is not production");
}

#[tokio::test]
async fn names_are_given_where_the_operator_chose_that() {
    let world = World::named(json!({}), true).await;
    let hook = world.hook();
    world.flag("a").await;
    world.drain(&hook).await;
    let body: Value = serde_json::from_slice(&world.receiver.got.lock()[0].body).unwrap();
    assert_eq!(body["data"]["actor"]["name"], "Ada");
}

#[tokio::test]
async fn an_hour_of_failures_loses_nothing_and_keeps_the_order() {
    let world = World::start(json!({})).await;
    let hook = world.hook();
    world.receiver.then(&[Does::Answers(500), Does::Breaks, Does::Answers(302), Does::Answers(500)]);
    let first = world.flag("a").await;
    world.wait(&hook, 60 * MINUTE_MS).await;
    let second = world.flag("b").await;
    assert!((9..=13).contains(&world.receiver.calls()), "{}", world.receiver.calls());
    let logged = hook.read(|record| record.deliveries.clone());
    assert!(logged.iter().all(|delivery| delivery.outcome == Outcome::Failed));
    assert!(logged[2].error.as_ref().unwrap().contains("redirects are not followed"), "{:?}", logged[2]);
    assert!(!format!("{logged:?}").contains("SECRET-PATH"));
    world.receiver.then(&[Does::Answers(200)]);
    world.wait(&hook, 61 * MINUTE_MS).await;
    assert_eq!(world.receiver.ids(), [format!("evt-h-{first}"), format!("evt-h-{second}")]);
    assert_eq!(hook.read(|record| (record.streak, record.dead_letters.len())), (None, 0));
}

#[tokio::test]
async fn what_fails_for_a_day_is_a_dead_letter_and_is_sent_again_on_request() {
    let world = World::start(json!({})).await;
    let hook = world.hook();
    world.receiver.then(&[Does::Answers(503)]);
    let first = world.flag("a").await;
    world.drain(&hook).await;
    world.server.clock.advance_ms(1_000);
    let mut later = Vec::new();
    for key in ["b", "c", "d"] {
        later.push(world.flag(key).await);
    }
    world.wait(&hook, GIVE_UP_AFTER_MS + 130 * MINUTE_MS).await;
    let letters = hook.read(|record| record.dead_letters.clone());
    assert_eq!(letters.len(), 4, "those that waited behind it have not a day more each");
    assert!(letters[0].attempts > 20 && letters[0].reason.contains("503"), "{:?}", letters[0]);
    assert!(letters.iter().skip(1).all(|letter| letter.attempts <= 1), "{letters:?}");
    // One more after all that: tried, and again when it is due.
    let calls = world.receiver.calls();
    world.flag("e").await;
    world.wait(&hook, 61 * MINUTE_MS).await;
    assert!(world.receiver.calls() > calls);
    world.receiver.then(&[Does::Answers(200)]);
    world.wait(&hook, 61 * MINUTE_MS).await;
    assert_eq!(world.receiver.got.lock().len(), 1);
    hook.edit(|record| assert_eq!(record.resend(Some(&format!("evt-h-{first}"))), 1));
    world.drain(&hook).await;
    assert_eq!(world.receiver.ids()[1], format!("evt-h-{first}"), "under the id that it had");
    world.receiver.then(&[Does::Answers(500)]);
    hook.edit(|record| assert_eq!(record.resend(None), 3));
    world.drain(&hook).await;
    let letters = hook.read(|record| record.dead_letters.clone());
    assert!(letters.len() == 3 && letters.iter().all(|letter| !letter.resending && letter.reason.contains("500")));
}

#[tokio::test]
async fn a_receiver_may_ask_for_time_and_one_that_is_gone_is_left_alone() {
    let world = World::start(json!({})).await;
    let hook = world.hook();
    world.receiver.then(&[Does::AsksToWait(600), Does::Answers(410)]);
    world.flag("a").await;
    assert_eq!(world.drain(&hook).await, Some(Step::WaitUntil(world.now() + 600_000)));
    world.server.clock.advance_ms(600_000);
    assert_eq!(world.drain(&hook).await, None, "it is disabled");
    let definition = world.definition();
    assert!(!definition.enabled);
    assert_eq!(hook.read(|record| record.dead_letters.len()), 1);
    // What happens meanwhile is not sent when it is enabled again.
    world.flag("b").await;
    let enable = json!({"kind": "updateWebhook", "id": world.webhook, "enabled": true});
    world.edit(serde_json::from_value(enable).unwrap()).await.unwrap();
    world.receiver.then(&[Does::Answers(200)]);
    let after = world.flag("c").await;
    world.drain(&hook).await;
    assert_eq!(world.receiver.ids(), [format!("evt-h-{after}")]);
}

#[tokio::test]
async fn both_secrets_sign_until_the_deadline() {
    let world = World::start(json!({})).await;
    let hook = world.hook();
    let secret_ref = world.service.make_secret().await.unwrap();
    let deadline = START_MS + 60_000;
    world.edit(WebhookEdit::RotateWebhookSecret { id: world.webhook.clone(), secret_ref, deadline }).await.unwrap();
    world.flag("a").await;
    world.drain(&hook).await;
    world.server.clock.set_ms(deadline);
    world.flag("b").await;
    world.drain(&hook).await;
    let counts: Vec<usize> =
        world.receiver.got.lock().iter().map(|message| message.signatures.split(' ').count()).collect();
    assert_eq!(counts, [2, 2, 1], "the rotation itself, one before the deadline, one after");
}

#[tokio::test]
async fn only_administrators_make_webhooks_and_the_journal_holds_no_secret() {
    let world = World::start(json!({})).await;
    let delete = || WebhookEdit::DeleteWebhook { id: world.webhook.clone() };
    for kind in [PrincipalKind::Operator, PrincipalKind::Agent, PrincipalKind::Service] {
        let refused = world.edit_as(&Author::of("somebody", "origin-1", kind), delete()).await;
        assert!(matches!(refused, Err(crate::changes::ChangeError::Refused(_))), "{kind:?}: {refused:?}");
    }
    let stored = crate::journal::Journal::read(&world.server.journal, 0, 100).await.unwrap();
    let secret = world.service.kept(&world.definition().secret_ref).await.unwrap().unwrap();
    for entry in stored {
        let text = String::from_utf8_lossy(&entry.bytes).into_owned();
        assert!(!text.contains("SECRET-PATH") && !text.contains(&secret), "{text}");
    }
    world.edit(delete()).await.unwrap();
    assert!(world.server.service.world().projects["default"].webhooks.is_empty());
    assert_eq!(step(&world.parts, &Hook::new("default", "hook-x", HookRecord::new(&hook_of("hook-x"), 0))).await, None);
}

fn hook_of(id: &str) -> Webhook {
    serde_json::from_value(json!({
        "id": id, "name": "", "target": "https://a/…", "urlRef": "u", "format": "json", "enabled": true,
        "secretRef": "s", "since": {"revision": 0, "at": 0}, "createdAt": 0, "updatedAt": 0}))
    .unwrap()
}

#[tokio::test]
async fn nobody_uses_what_another_webhook_keeps() {
    let world = World::start(json!({})).await;
    let other = world.definition();
    let steal = WebhookEdit::CreateWebhook {
        id: String::new(),
        name: String::new(),
        target: other.target.clone(),
        url_ref: other.url_ref.clone(),
        secret_ref: other.secret_ref.clone(),
        format: Format::Json,
        filters: Filters::default(),
        enabled: true,
    };
    let refused = world.edit(steal).await;
    assert!(matches!(refused, Err(crate::changes::ChangeError::Invalid { .. })), "{refused:?}");
}

#[test]
fn every_topic_is_read_back() {
    let all: Vec<Topic> = Topic::all().collect();
    for topic in &all {
        assert_eq!(topic.to_string().parse::<Topic>().as_ref(), Ok(topic));
    }
    assert!("change".parse::<Topic>().unwrap_err().contains("change.applied, change.emergency"));
    let words: std::collections::BTreeSet<String> = all.iter().map(ToString::to_string).collect();
    assert_eq!(words.len(), all.len());
}

/// Says what it is told, another each time.
struct FakeDns(Mutex<VecDeque<Vec<IpAddr>>>, AtomicUsize);

impl Resolver for FakeDns {
    fn resolve<'a>(&'a self, _: &'a str, _: u16) -> BoxFuture<'a, Result<Vec<IpAddr>, String>> {
        self.1.fetch_add(1, Ordering::SeqCst);
        let mut answers = self.0.lock();
        let answer = if answers.len() > 1 { answers.pop_front() } else { answers.front().cloned() };
        Box::pin(async move { answer.ok_or_else(|| "no such name".to_owned()) })
    }
}
