use std::sync::Arc;

use guidon_sdk::protocol::Hello;

use super::*;
use crate::audit::{EventKind, Events, MemoryAudit};
use crate::clock::ManualClock;
use crate::environments::Audience;
use crate::push::{ConnectionInfo, Sights};

fn info(instance: &str, commit: &str, image: &str) -> ConnectionInfo {
    ConnectionInfo {
        instance: instance.to_owned(),
        application: "shop".to_owned(),
        version: "1".to_owned(),
        commit: commit.to_owned(),
        image: image.to_owned(),
        sdk: "guidon-rust/1".to_owned(),
        applied: 1,
        since: 1,
        key_id: "k".to_owned(),
        audience: Audience::Server,
    }
}

#[test]
fn who_is_not_as_most_are_is_marked_by_fact() {
    let marked = compare(vec![info("a", "c1", ""), info("b", "c1", ""), info("c", "c2", "")], None);
    let differs: Vec<_> = marked.iter().map(|one| one.differs.clone()).collect();
    assert_eq!(differs, [vec![], vec![], vec!["commit"]]);
    let torn = compare(vec![info("a", "c1", ""), info("b", "c2", "")], None);
    assert!(torn.iter().all(|one| one.differs == ["commit"]), "where there is no majority, nobody is in it");
    assert!(compare(vec![info("a", "c1", "")], None)[0].differs.is_empty());
}

#[test]
fn what_staging_never_ran_is_marked_where_it_is_asked() {
    let build = |application: &str| Build { application: application.into(), commit: "c1".into(), image: "i1".into() };
    let connected = || vec![info("a", "c1", ""), info("b", "c2", "i2"), info("c", "c1", "i2"), info("d", "", "")];
    let unvalidated = |marked: Vec<Instance>| marked.into_iter().map(|one| one.unvalidated).collect::<Vec<_>>();
    let marked = unvalidated(compare(connected(), Some(&[build("shop")].into())));
    assert_eq!(marked, [vec![], vec!["commit", "image"], vec!["image"], vec![]]);
    let of_another = unvalidated(compare(connected(), Some(&[build("other")].into())));
    assert_eq!(of_another[0], ["commit"], "another application's commits say nothing");
    assert!(unvalidated(compare(connected(), None)).iter().all(Vec::is_empty));
}

fn build(commit: usize) -> Build {
    Build { application: "shop".to_owned(), commit: commit.to_string(), image: String::new() }
}

#[test]
fn builds_are_new_once_and_made_up_ones_are_few() {
    let mut sightings = Sightings::default();
    assert_eq!(sightings.see("p", "e", &build(0), 1), Seen::First);
    assert_eq!(sightings.see("p", "e", &build(0), 1), Seen::Before);
    assert_eq!(sightings.see("p", "other", &build(0), 1), Seen::First);
    let noted = (1..5_000).filter(|commit| sightings.see("p", "e", &build(*commit), 1) == Seen::First).count();
    assert_eq!(noted as u64, NEW_BUILDS_BURST - 1);
    assert_eq!(sightings.see("p", "e", &build(0), 1), Seen::Before, "those that are known stay known");
    let hour = 60 * 60 * 1_000;
    let noted = (5_000..9_000).filter(|it| sightings.see("p", "e", &build(*it), 1 + hour) == Seen::First).count();
    assert_eq!(noted as u64, NEW_BUILDS_PER_HOUR);
    for commit in 10_000..10_000 + 2 * MAX_BUILDS {
        sightings.remember("p", "e", build(commit));
    }
    assert_eq!(sightings.of("p", "e").count(), MAX_BUILDS);
    assert!(sightings.of("p", "e").all(|build| build.commit != "0"), "the oldest is forgotten");
}

#[tokio::test]
async fn first_sights_are_on_record_and_remembered_across_restarts() {
    let (audit, clock) = (Arc::new(MemoryAudit::default()), Arc::new(ManualClock::new(5)));
    let hello = |commit: &str| Hello { application: "shop".into(), commit: commit.into(), ..Hello::default() };
    let begin = || Deployments::new(audit.clone(), clock.clone());
    let deployments = begin();
    deployments.saw("p", "staging", "k", &hello("c1"));
    deployments.remember(&*audit).await.expect("read");
    deployments.saw("p", "staging", "k", &hello("c1"));
    deployments.saw("p", "staging", "k", &hello("c2"));
    deployments.saw("p", "staging", "k", &hello(""));
    let again = begin();
    again.saw("p", "staging", "k", &hello("c2"));
    again.remember(&*audit).await.expect("read");
    again.saw("p", "staging", "k", &hello("c1"));
    assert_eq!(again.seen_in("p", ["staging"]).len(), 2);
    assert!(again.seen_in("p", ["production"]).is_empty());
    let events = audit.read(0, 100).await.expect("read");
    let commits: Vec<_> = events.iter().filter_map(|it| it.event.deployment.as_ref().map(|it| &*it.commit)).collect();
    assert_eq!(commits, ["c1", "c2"]);
    assert!(events.iter().all(|it| it.event.kind == EventKind::Deployment));
}
