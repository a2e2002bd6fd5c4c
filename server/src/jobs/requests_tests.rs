use serde_json::{Value, json};

use super::*;
use crate::changes::request::Schedule;
use crate::changes::tests::people::rollout;
use crate::changes::tests::{Server, draft};
use crate::changes::{ChangeDraft, Proposal};

const MINUTE_MS: u64 = 60 * 1_000;

struct Scheduler {
    server: Server,
    job: Requests,
}

impl Scheduler {
    async fn start() -> Self {
        let server = Server::governed().await;
        let job = Requests::new(Arc::clone(&server.service));
        Self { server, job }
    }

    async fn tick(&self) {
        self.job.tick(self.server.clock.now()).await;
    }

    async fn after(&self, ms: u64) {
        self.server.clock.advance_ms(ms);
        self.tick().await;
    }

    async fn propose(&self, instructions: Value, proposal: Proposal) -> String {
        let (environment, proposal) = (Some("production".to_owned()), Some(proposal));
        let change = ChangeDraft { environment, proposal, ..draft(instructions) };
        self.server.service.submit(&self.server.human("dev"), change).await.unwrap().request.unwrap()
    }

    /// An approved request, scheduled for 10 to 60 minutes from now.
    async fn scheduled(&self, ai: u32) -> String {
        let now = self.server.clock.now();
        let schedule = Schedule { not_before: now + 10 * MINUTE_MS, not_after: Some(now + 60 * MINUTE_MS) };
        let id = self.propose(rollout(ai), Proposal { schedule: Some(schedule), ..Proposal::default() }).await;
        self.server.approve(&self.server.human("approver"), &id).await.unwrap();
        id
    }

    fn state(&self, id: &str) -> RequestState {
        self.server.request(id).state
    }

    fn refusals(&self) -> usize {
        self.server.audit.events().len()
    }
}

#[tokio::test]
async fn an_approved_request_is_applied_when_its_time_has_come() {
    let it = Scheduler::start().await;
    let id = it.scheduled(1_000).await;
    let unscheduled = it.propose(rollout(2_000), Proposal::default()).await;
    it.server.approve(&it.server.human("approver"), &unscheduled).await.unwrap();
    it.tick().await;
    it.after(10 * MINUTE_MS - 1).await;
    assert_eq!(it.state(&id), RequestState::Approved);
    it.after(1).await;
    assert_eq!(it.state(&id), RequestState::Applied);
    assert_eq!(it.state(&unscheduled), RequestState::Approved, "it waits for a person");
}

#[tokio::test]
async fn what_needs_nobody_is_applied_once_it_is_no_draft() {
    let it = Scheduler::start().await;
    let name = json!([{"kind": "updateFlag", "flag": "engine", "name": "N"}]);
    let id = it.propose(name, Proposal { draft: true, ..Proposal::default() }).await;
    it.tick().await;
    assert_eq!(it.state(&id), RequestState::Draft);
    let dev = it.server.human("dev");
    it.server.step(&dev, RequestEdit::SubmitRequest { id: id.clone() }).await.unwrap();
    it.tick().await;
    assert_eq!(it.state(&id), RequestState::Applied);
}

#[tokio::test]
async fn requests_end_with_their_window_and_their_time() {
    let it = Scheduler::start().await;
    let windowed = it.scheduled(1_000).await;
    it.server.direct("production", rollout(7)).await;
    let short = Proposal { expires_at: Some(it.server.clock.now() + MINUTE_MS), ..Proposal::default() };
    let short = it.propose(rollout(3_000), short).await;
    it.after(MINUTE_MS).await;
    assert_eq!(it.state(&short), RequestState::Review);
    it.after(1).await;
    assert_eq!((it.state(&short), it.state(&windowed)), (RequestState::Expired, RequestState::Approved));
    it.after(60 * MINUTE_MS).await;
    assert_eq!(it.state(&windowed), RequestState::Expired, "it conflicts, and its window is over");
}

#[tokio::test]
async fn what_cannot_be_applied_is_tried_again_with_growing_pauses() {
    let it = Scheduler::start().await;
    let id = it.scheduled(1_000).await;
    let admin = it.server.human("admin");
    let freeze = json!([{"kind": "declareFreeze", "reason": "incident"}]);
    it.server.as_author(&admin, "production", freeze).await.unwrap();
    it.after(10 * MINUTE_MS).await;
    let mut tried = Vec::new();
    for second in 0..400 {
        let before = it.refusals();
        it.after(1_000).await;
        if it.refusals() > before {
            tried.push(second + 1);
        }
    }
    assert_eq!(tried, [10, 30, 70, 150, 310]);
    let world = it.server.service.world();
    let freeze = world.projects["default"].environments["production"].freezes[0].id.clone();
    let admin = it.server.human("admin");
    it.server.as_author(&admin, "production", json!([{"kind": "liftFreeze", "id": freeze}])).await.unwrap();
    it.after(240_000).await;
    assert_eq!(it.state(&id), RequestState::Applied);
}

#[tokio::test]
async fn one_tick_works_on_a_bounded_number() {
    let it = Scheduler::start().await;
    let ids: Vec<String> = futures_util::future::join_all((0..MAX_PER_TICK + 5).map(|at| {
        let expires_at = Some(it.server.clock.now() + MINUTE_MS);
        let at = u32::try_from(at).unwrap();
        it.propose(rollout(1_000 + at), Proposal { expires_at, ..Proposal::default() })
    }))
    .await;
    let ended = || ids.iter().filter(|id| it.state(id) == RequestState::Expired).count();
    it.after(MINUTE_MS + 1).await;
    assert_eq!(ended(), MAX_PER_TICK);
    it.tick().await;
    assert_eq!(ended(), ids.len());
}
