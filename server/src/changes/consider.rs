//! What would become of a change: asked by those who only plan it, and noted nowhere.

use std::sync::Arc;

use super::authorize::Verdict;
use super::gate::{Judged, judge_change, propose};
use super::mint::Mint;
use super::prepare::Prepared;
use super::{Author, ChangeDraft, ChangeError, ChangeService, Needs, describe};
use crate::journal::{Entry, ObjectId};
use crate::state::World;

/// What would become of a change, were it made now.
#[derive(Clone, Debug, PartialEq)]
pub struct Considered {
    /// Whether it would change anything.
    pub changes: bool,
    /// What it would need as a change request, if it could only be one.
    pub needs: Option<Needs>,
    /// A sentence for people for each instruction.
    pub summary: Vec<String>,
}

impl ChangeService {
    /// What would become of a change, were it made now. Nothing is made, and a refusal is not noted in the audit trail.
    ///
    /// # Errors
    ///
    /// As [`ChangeService::submit`].
    pub async fn consider(&self, author: &Author, change: &ChangeDraft) -> Result<Considered, ChangeError> {
        let past = self.past(change).await?;
        let reach = self.reach(author, change).await;
        // A copy: a large change takes a while to be judged, and nobody who writes waits for that.
        let world = self.head().await?.world.clone();
        let policies = self.policies_of(&world)?;
        let at = self.clock.now_ms().max(world.at);
        let (author, change) = (author.clone(), change.clone());
        let judging = tokio::task::spawn_blocking(move || {
            let (policies, author, change, past, reach) = (&*policies, &author, &change, &past, &reach);
            let judged = Judged { world: &world, policies, author, change, at, past, reach };
            judge_change(&judged, &mut Numbers(0)).map(|(prepared, verdict)| considered(&world, &prepared, verdict))
        });
        judging.await.map_err(|error| ChangeError::Unavailable { reason: error.to_string() })??
    }

    /// Entries after `since` that changed an object of the project which `touches` lets through, oldest first: the last 100 of
    /// them. `None` if more entries lie between than are looked through.
    ///
    /// # Errors
    ///
    /// [`ChangeError::Unavailable`] if the journal cannot be read.
    pub async fn entries_since(
        &self,
        since: u64,
        project: &str,
        touches: &(dyn Fn(&ObjectId) -> bool + Sync),
    ) -> Result<Option<Vec<Arc<Entry>>>, ChangeError> {
        // With what was accepted and is not durable yet: whoever came first has won.
        let (recent, revision) = self.head().await?.newest();
        self.entries_after(recent, revision, since, project, touches).await
    }
}

/// Makes ids and salts of a change that is not made: they only have to differ.
struct Numbers(u64);

impl Mint for Numbers {
    fn random(&mut self) -> [u8; 32] {
        self.0 += 1;
        // Spread over all bytes: an id takes a few of them, and is made anew until it differs from what there is.
        *blake3::hash(&self.0.to_le_bytes()).as_bytes()
    }
}

/// What became of a change that was judged against `world`.
fn considered(world: &World, prepared: &Prepared, verdict: Verdict) -> Result<Considered, ChangeError> {
    let changes = !prepared.entry.objects.is_empty();
    match verdict {
        Verdict::Apply(_) => {
            let environment = prepared.entry.environment.as_deref();
            let sentences = prepared.entry.instructions.iter().map(|it| describe(it, environment));
            Ok(Considered { changes, needs: None, summary: sentences.collect() })
        }
        Verdict::Propose(judgement) => {
            let proposed = propose(world.revision, prepared, judgement);
            let needs = Needs { approvals: proposed.judgement.needed, risk: proposed.judgement.risk };
            Ok(Considered { changes, needs: Some(needs), summary: proposed.summary })
        }
        Verdict::FactorNeeded(refused) => Err(ChangeError::FactorNeeded(refused)),
        Verdict::Refused(refused) => Err(ChangeError::Refused(refused)),
    }
}
