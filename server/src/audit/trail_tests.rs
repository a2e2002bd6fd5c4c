//! Queries and exports over both logs.

use std::collections::BTreeSet;
use std::sync::Arc;

use futures_util::future::BoxFuture;
use proptest::prelude::*;
use tokio::sync::watch;

use super::*;
use crate::changes::Instruction;
use crate::environments::Tier;
use crate::journal::conformance::sample;
use crate::journal::{
    AppendError, Appending, Entry, Head, Health, Journal, MemoryJournal, ObjectHash, ObjectId, ReadError, StoredEntry,
};

/// Calls everybody by id.
struct ById;

impl People for ById {
    fn person(&self, id: &str) -> Person {
        Person { id: id.to_owned(), kind: "human".to_owned(), name: format!("name of {id}") }
    }

    fn place(&self, id: &str) -> Place {
        Place { id: id.to_owned(), address: "192.0.2.7".to_owned(), door: "api".to_owned() }
    }
}

/// The four that every project starts with, and `production-eu`; nothing else is known.
struct Known;

impl Tiers for Known {
    fn tier(&self, _: &str, environment: &str) -> Option<Tier> {
        let named = Tier::ALL.into_iter().find(|tier| tier.as_str() == environment);
        named.or((environment == "production-eu").then_some(Tier::Production))
    }

    fn environment_of_key(&self, _: &str, id: &str) -> Option<String> {
        (id == "key-1").then(|| "staging".to_owned())
    }

    fn needs_review(&self, project: &str, revision: u64) -> bool {
        (project, revision) == ("shop", 2)
    }
}

async fn append(journal: &MemoryJournal, entry: Entry) {
    let appending = journal.append(journal.head().revision, entry).await.expect("appends");
    appending.durable.await.expect("durable");
}

fn trail(journal: MemoryJournal, events: MemoryAudit) -> Trail {
    Trail { journal: Arc::new(journal), events: Arc::new(events), people: Arc::new(ById), tiers: Arc::new(Known) }
}

fn entry(at: u64, objects: Vec<ObjectId>, instructions: Vec<Instruction>) -> Entry {
    let objects = objects.into_iter().map(|object| ObjectHash { object, hash: None }).collect();
    Entry { at, objects, instructions, environment: None, idempotency: None, ..sample(1) }
}

fn on(environment: &str, flag: &str) -> ObjectId {
    ObjectId::FlagEnvironment(environment.to_owned(), flag.to_owned())
}

fn turned_on(flag: &str) -> Vec<Instruction> {
    vec![Instruction::TurnFlagOn { flag: flag.to_owned() }]
}

/// Six changes and four events, in the order of their times.
async fn mixed() -> Trail {
    let journal = MemoryJournal::new("h");
    let one = Entry {
        environment: Some("production-eu".to_owned()),
        actor_id: "ada".to_owned(),
        comment: "=cmd()".to_owned(),
        ..entry(100, vec![on("production-eu", "a")], turned_on("a"))
    };
    append(&journal, one).await;
    append(&journal, entry(200, vec![on("development", "a")], turned_on("a"))).await;
    let shared = vec![Instruction::ArchiveFlag { flag: "b".to_owned() }];
    append(&journal, entry(300, vec![ObjectId::Flag("b".to_owned())], shared)).await;
    append(&journal, entry(300, vec![on("gone", "c")], turned_on("c"))).await;
    append(&journal, entry(500, vec![ObjectId::SdkKey("key-1".to_owned())], Vec::new())).await;
    let segment = ObjectId::Segment("testing".to_owned(), "beta".to_owned());
    append(&journal, Entry { project: "other".to_owned(), ..entry(600, vec![segment], Vec::new()) }).await;
    let events = MemoryAudit::new();
    let event = |at, kind| Event::new(at, kind, "o-1");
    events.record(Event {
        actor_id: Some("ada".to_owned()),
        project: Some("shop".to_owned()),
        environment: Some("production".to_owned()),
        flag: Some("a".to_owned()),
        action: Some("turnFlagOn".to_owned()),
        policies: vec!["production-is-protected".to_owned()],
        detail: "+1 attempt".to_owned(),
        ..event(150, EventKind::Refused)
    });
    events.record(event(300, EventKind::SignInFailed));
    events.record(event(400, EventKind::CredentialRefused));
    events.record(Event { count: 9, ..event(700, EventKind::SignedIn) });
    trail(journal, events)
}

async fn pages(trail: &Trail, filter: &Filter, order: Order, limit: usize) -> Vec<AuditRecord> {
    let mut query = AuditQuery { filter: filter.clone(), order, cursor: None, limit };
    let mut found = Vec::new();
    loop {
        let page = trail.page(&query).await.expect("reads");
        assert!(page.records.len() <= limit);
        found.extend(page.records);
        let Some(next) = page.next else { return found };
        query.cursor = Some(next.to_string().parse().expect("a cursor reads back"));
    }
}

async fn ids(trail: &Trail, filter: Filter) -> Vec<String> {
    let oldest: Vec<String> =
        pages(trail, &filter, Order::OldestFirst, 3).await.into_iter().map(|record| record.id).collect();
    let mut newest: Vec<String> =
        pages(trail, &filter, Order::NewestFirst, 2).await.into_iter().map(|record| record.id).collect();
    newest.reverse();
    assert_eq!(oldest, newest, "both orders find the same");
    oldest
}

#[tokio::test]
async fn both_logs_come_in_the_order_of_time() {
    let trail = mixed().await;
    let all = ids(&trail, Filter::default()).await;
    assert_eq!(all, ["j:1", "s:1", "j:2", "j:3", "j:4", "s:2", "s:3", "j:5", "j:6", "s:4"]);
    let at_once = pages(&trail, &Filter::default(), Order::NewestFirst, 100).await;
    assert_eq!((at_once.len(), at_once[0].id.as_str(), at_once[0].count), (10, "s:4", 9));
}

#[tokio::test]
async fn every_filter_finds_what_it_names() {
    let trail = mixed().await;
    let some = |text: &str| Some(text.to_owned());
    let kind = |word: &str| Some(word.parse().expect("a kind"));
    let none = Filter::default;
    let cases: Vec<(Filter, &[&str])> = vec![
        (Filter { person: some("ada"), ..none() }, &["j:1", "s:1"]),
        (Filter { flag: some("a"), ..none() }, &["j:1", "s:1", "j:2"]),
        (Filter { environment: some("development"), ..none() }, &["j:2", "j:3"]),
        (Filter { environment: some("staging"), ..none() }, &["j:3", "j:5"]),
        (Filter { tier: Some(Tier::Production), ..none() }, &["j:1", "s:1", "j:3", "j:4"]),
        (Filter { tier: Some(Tier::Testing), ..none() }, &["j:3", "j:4", "j:6"]),
        (Filter { project: some("other"), ..none() }, &["j:6"]),
        (Filter { kind: kind("change"), from: Some(500), ..none() }, &["j:5", "j:6"]),
        (Filter { kind: kind("refusal"), ..none() }, &["s:1", "s:3"]),
        (Filter { kind: kind("signIn"), ..none() }, &["s:2", "s:4"]),
        (Filter { kind: kind("signedIn"), ..none() }, &["s:4"]),
        (Filter { kind: kind("archiveFlag"), ..none() }, &["j:3"]),
        (Filter { from: Some(300), to: Some(400), ..none() }, &["j:3", "j:4", "s:2", "s:3"]),
        (Filter { from: Some(301), to: Some(399), ..none() }, &[]),
        (Filter { from: Some(701), ..none() }, &[]),
        (Filter { to: Some(99), ..none() }, &[]),
        (Filter { person: some("ada"), kind: kind("refusal"), flag: some("a"), ..none() }, &["s:1"]),
    ];
    for (filter, expected) in cases {
        assert_eq!(ids(&trail, filter.clone()).await, expected, "{filter:?}");
    }
    for word in ["", "nothing", "readAudit", "evaluate"] {
        assert!(word.parse::<KindFilter>().is_err(), "{word}");
    }
}

#[tokio::test]
async fn a_record_says_who_what_and_where() {
    let trail = mixed().await;
    let change = trail.record("j:1").await.expect("reads").expect("there");
    assert_eq!(change.summary, ["turned a on in production-eu"]);
    assert_eq!((change.kind, change.tiers.as_slice()), (CHANGE, [Tier::Production].as_slice()));
    assert_eq!(change.actor.map(|actor| actor.name).as_deref(), Some("name of ada"));
    let refused = trail.record("s:1").await.expect("reads").expect("there");
    assert_eq!((refused.kind, refused.grounds.policies.len()), ("refused", 1));
    let json = serde_json::to_value(&refused).expect("JSON");
    assert_eq!((&json["policies"][0], &json["actions"][0]), (&"production-is-protected".into(), &"turnFlagOn".into()));
    for id in ["j:7", "s:0", "s:5", "x:1", "j", "j:-1"] {
        assert!(trail.record(id).await.expect("reads").is_none(), "{id}");
    }
}

#[tokio::test]
async fn a_page_that_finds_little_looks_through_a_bounded_number() {
    let journal = MemoryJournal::new("h");
    let events = MemoryAudit::new();
    for number in 0..MAX_SCANNED as u64 + 500 {
        events.record(Event::new(number, EventKind::Refused, "o"));
    }
    let trail = trail(journal, events);
    let filter = Filter { kind: Some(KindFilter::SignIn), ..Filter::default() };
    for order in [Order::NewestFirst, Order::OldestFirst] {
        let query = AuditQuery { filter: filter.clone(), order, cursor: None, limit: 10 };
        let page = trail.page(&query).await.expect("reads");
        assert!(page.records.is_empty() && page.next.is_some());
        let page = trail.page(&AuditQuery { cursor: page.next, ..query }).await.expect("reads");
        assert!(page.records.is_empty() && page.next.is_none());
    }
}

#[tokio::test]
async fn what_is_added_meanwhile_shifts_no_page() {
    let journal = MemoryJournal::new("h");
    for number in 0..20 {
        append(&journal, entry(number, Vec::new(), Vec::new())).await;
    }
    let trail = trail(journal.clone(), MemoryAudit::new());
    let query = AuditQuery { limit: 5, ..AuditQuery::default() };
    let first = trail.page(&query).await.expect("reads");
    append(&journal, entry(99, Vec::new(), Vec::new())).await;
    let second = trail.page(&AuditQuery { cursor: first.next, ..query }).await.expect("reads");
    let ids = |page: &AuditPage| page.records.iter().map(|record| record.id.clone()).collect::<Vec<_>>();
    assert_eq!(ids(&first), ["j:20", "j:19", "j:18", "j:17", "j:16"]);
    assert_eq!(ids(&second), ["j:15", "j:14", "j:13", "j:12", "j:11"]);
}

#[tokio::test]
async fn a_cursor_of_another_order_or_from_nowhere_does_no_harm() {
    let trail = mixed().await;
    for text in ["", "x.1.2", "n.1", "n.1.2.3", "o.-1.2", "n.a.b"] {
        assert!(text.parse::<Cursor>().is_err(), "{text}");
    }
    let wild = |text: &str, order| AuditQuery {
        cursor: Some(text.parse().expect("a cursor")),
        order,
        limit: 5,
        filter: Filter::default(),
    };
    let refused = trail.page(&wild("n.1.1", Order::OldestFirst)).await;
    assert!(matches!(refused, Err(QueryError::Cursor(_))));
    let most = u64::MAX;
    let newest = trail.page(&wild(&format!("n.{most}.{most}"), Order::NewestFirst)).await.expect("reads");
    assert_eq!(newest.records.len(), 5);
    let over = trail.page(&wild(&format!("o.{most}.{most}"), Order::OldestFirst)).await.expect("reads");
    assert!(over.records.is_empty() && over.next.is_none());
    let over = trail.page(&wild("n.0.0", Order::NewestFirst)).await.expect("reads");
    assert!(over.records.is_empty() && over.next.is_none());
}

/// A journal that answers few entries at a time, as one does whose entries are large.
struct Sparing(MemoryJournal);

impl Journal for Sparing {
    fn history(&self) -> &str {
        self.0.history()
    }

    fn head(&self) -> Head {
        self.0.head()
    }

    fn append(&self, expected: u64, entry: Entry) -> BoxFuture<'_, Result<Appending, AppendError>> {
        self.0.append(expected, entry)
    }

    fn read(&self, after: u64, limit: usize) -> BoxFuture<'_, Result<Vec<StoredEntry>, ReadError>> {
        self.0.read(after, limit.min(3))
    }

    fn watch(&self) -> watch::Receiver<u64> {
        self.0.watch()
    }

    fn health(&self) -> Health {
        self.0.health()
    }
}

#[tokio::test]
async fn entries_that_come_few_at_a_time_are_all_found() {
    let journal = MemoryJournal::new("h");
    for number in 0..50 {
        append(&journal, entry(number, Vec::new(), Vec::new())).await;
    }
    let trail = Trail { journal: Arc::new(Sparing(journal.clone())), ..trail(journal, MemoryAudit::new()) };
    assert_eq!(ids(&trail, Filter::default()).await.len(), 50);
}

async fn exported(trail: &Trail, format: ExportFormat) -> String {
    let mut export = Export::new(trail.clone(), Filter::default(), Order::OldestFirst, format);
    let mut bytes = Vec::new();
    while let Some(piece) = export.next().await.expect("exports") {
        assert!(!piece.is_empty());
        bytes.extend(piece);
    }
    String::from_utf8(bytes).expect("UTF-8")
}

#[tokio::test]
async fn ndjson_is_one_object_a_line() {
    let text = exported(&mixed().await, ExportFormat::Ndjson).await;
    let lines: Vec<serde_json::Value> =
        text.lines().map(|line| serde_json::from_str(line).expect("an object")).collect();
    assert_eq!((lines.len(), &lines[0]["id"], &lines[9]["count"]), (10, &"j:1".into(), &9.into()));
    assert!(text.ends_with('\n'));
}

#[tokio::test]
async fn csv_is_rfc_4180_and_holds_no_formula() {
    let text = exported(&mixed().await, ExportFormat::Csv).await;
    assert!(text.starts_with("id,time,kind,") && text.ends_with("\r\n"));
    assert_eq!(text.matches("\r\n").count(), 11);
    let mut reader = csv::Reader::from_reader(text.as_bytes());
    assert_eq!(reader.headers().expect("a header").iter().collect::<Vec<_>>(), CSV_COLUMNS);
    let rows: Vec<csv::StringRecord> = reader.records().map(|row| row.expect("a row")).collect();
    let cell = |row: usize, column: &str| {
        rows[row][CSV_COLUMNS.iter().position(|name| *name == column).expect("a column")].to_owned()
    };
    assert_eq!((cell(0, "comment"), cell(1, "summary")), ("'=cmd()".to_owned(), "'+1 attempt".to_owned()));
    assert_eq!(
        (cell(0, "time"), cell(2, "environments")),
        ("1970-01-01T00:00:00.1Z".to_owned(), "development".to_owned())
    );
    assert_eq!(cell(3, "environments"), "all");
    let dangerous = |cell: &str| cell.starts_with(['=', '+', '-', '@', '\t', '\r', '\n']);
    assert!(!rows.iter().any(|row| row.iter().any(dangerous)));
}

#[tokio::test]
async fn an_export_of_nothing_has_its_header_and_ends() {
    let nothing = trail(MemoryJournal::new("h"), MemoryAudit::new());
    assert_eq!(exported(&nothing, ExportFormat::Csv).await.lines().count(), 1);
    assert_eq!(exported(&nothing, ExportFormat::Ndjson).await, "");
}

#[tokio::test]
async fn exports_and_queries_may_run_on_any_thread() {
    fn is_send<T: Send>(_: &T) {}
    let trail = mixed().await;
    let query = AuditQuery { limit: 1, ..AuditQuery::default() };
    is_send(&trail.page(&query));
    let mut export = Export::new(trail.clone(), Filter::default(), Order::OldestFirst, ExportFormat::Csv);
    is_send(&export.next());
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(48))]

    #[test]
    fn pages_of_any_size_and_order_hold_everything_once(
        changes in prop::collection::vec(0..20_u64, 0..300),
        happened in prop::collection::vec(0..20_u64, 0..300),
        limit in 1..70_usize,
        bounds in prop::option::of((0..2_000_u64, 0..2_000_u64)),
    ) {
        let runtime = tokio::runtime::Builder::new_current_thread().build().expect("a runtime");
        runtime.block_on(async move {
            let journal = MemoryJournal::new("h");
            let events = MemoryAudit::new();
            let mut expected = BTreeSet::new();
            let within = |at| bounds.is_none_or(|(from, to)| from <= at && at <= to);
            let mut at = 0;
            for (number, step) in (1..).zip(&changes) {
                at += step;
                append(&journal, entry(at, Vec::new(), Vec::new())).await;
                if within(at) {
                    expected.insert(format!("j:{number}"));
                }
            }
            at = 0;
            for (number, step) in (1..).zip(&happened) {
                at += step;
                events.record(Event::new(at, EventKind::Refused, "o"));
                if within(at) {
                    expected.insert(format!("s:{number}"));
                }
            }
            let trail = trail(journal, events);
            let filter = Filter { from: bounds.map(|of| of.0), to: bounds.map(|of| of.1), ..Filter::default() };
            for order in [Order::OldestFirst, Order::NewestFirst] {
                let found = pages(&trail, &filter, order, limit).await;
                let times: Vec<u64> = found.iter().map(|record| record.at).collect();
                let in_order = match order {
                    Order::OldestFirst => times.is_sorted(),
                    Order::NewestFirst => times.iter().rev().is_sorted(),
                };
                assert!(in_order, "{order:?}: {times:?}");
                assert_eq!(found.len(), expected.len(), "each once");
                assert_eq!(found.into_iter().map(|record| record.id).collect::<BTreeSet<_>>(), expected);
            }
        });
    }
}
