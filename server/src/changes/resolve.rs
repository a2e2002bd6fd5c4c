//! Resolving: what a caller left to the server is filled in, and what cannot be done is refused with its place.
//!
//! Pure: randomness comes from a [`Mint`], earlier states from [`Past`]. The outcome needs nothing but the state before it to
//! be applied.

use std::collections::BTreeMap;
use std::sync::Arc;

use guidon_sdk::model::{Clause, KeySetRef, Op, TARGETING_KEY, is_valid_key};
use serde_json::Value;

use super::keysets::NewKeySets;
use super::limits;
use super::mint::Mint;
use super::{ChangeDraft, Instruction, Problem};
use crate::state::{FetchedKeySets, Project, World};
use crate::{environments, flags, notifications, releases, segments};

/// Earlier states that a change goes back to, and their key sets.
#[derive(Clone, Debug, Default)]
pub(crate) struct Past {
    pub(crate) worlds: BTreeMap<u64, Arc<World>>,
    pub(crate) key_sets: FetchedKeySets,
}

impl Past {
    /// Key sets of what `change` brings back.
    pub(crate) fn wanted(&self, change: &ChangeDraft) -> Vec<KeySetRef> {
        let mut wanted = Vec::new();
        let mut see = |set: &KeySetRef| wanted.push(set.clone());
        for instruction in &change.instructions {
            let environment = instruction.environment(change.environment.as_deref()).unwrap_or_default();
            match instruction.edit() {
                Instruction::RevertFlag { flag, to_revision, .. } => {
                    let flag = self.worlds.get(to_revision).and_then(|world| world.flag(&change.project, flag));
                    let config = flag.and_then(|flag| flag.stored.environments.get(environment));
                    config.into_iter().for_each(|config| flags::visit_config(config, &mut see));
                }
                Instruction::RevertSegment { segment, to_revision, .. } => {
                    let world = self.worlds.get(to_revision);
                    let state = world.and_then(|world| world.segment(&change.project, environment, segment));
                    state.into_iter().for_each(|state| segments::visit_segment(&state.stored, &mut see));
                }
                _ => {}
            }
        }
        wanted
    }
}

/// What one instruction is resolved with.
pub(crate) struct Resolving<'a> {
    /// All there was before the change.
    pub(crate) before: &'a World,
    /// The project as the instructions before left it.
    pub(crate) project: &'a Project,
    /// The environment that the instruction applies to, if it is one.
    pub(crate) environment: Option<&'a str>,
    /// When the change is made, in milliseconds since 1970.
    pub(crate) now: u64,
    /// Earlier states.
    pub(crate) past: &'a Past,
    pub(crate) mint: &'a mut dyn Mint,
    pub(crate) key_sets: &'a mut NewKeySets,
    /// Credentials made, by id of the SDK key.
    pub(crate) credentials: &'a mut Vec<super::MintedCredential>,
    /// Where the instruction stands in the request.
    pub(crate) at: &'a str,
    pub(crate) problems: &'a mut Vec<Problem>,
}

/// The instruction as it is to be journaled; `None` if it asks for what is already so, or was refused. Where it applies is for
/// [`Resolving::environment`] to say: it must not say so itself.
pub(crate) fn resolve(cx: &mut Resolving<'_>, instruction: Instruction) -> Option<Instruction> {
    if let Instruction::Release(edit) = instruction {
        releases::resolve::resolve(cx, *edit).map(|edit| Instruction::Release(Box::new(edit)))
    } else if instruction.flag().is_some() {
        flags::resolve(cx, instruction)
    } else if instruction.segment().is_some() {
        segments::resolve(cx, instruction)
    } else if let Instruction::Webhook(edit) = instruction {
        notifications::resolve(cx, *edit).map(|edit| Instruction::Webhook(Box::new(edit)))
    } else {
        environments::resolve(cx, instruction)
    }
}

impl Resolving<'_> {
    /// Refuses the instruction for what stands at `pointer` in it.
    pub(crate) fn refuse(&mut self, pointer: &str, code: &'static str, message: impl Into<String>) {
        if self.problems.len() < limits::MAX_PROBLEMS {
            let pointer = format!("{}{pointer}", self.at);
            self.problems.push(Problem::new(pointer, code, message));
        }
    }

    /// Refuses a field that only the server fills in.
    pub(crate) fn refuse_if_sent(&mut self, pointer: &str, sent: bool) {
        if sent {
            self.refuse(pointer, "filledInByServer", "the server fills this in; leave it out");
        }
    }

    /// Refuses a key of the wrong form.
    pub(crate) fn check_key(&mut self, pointer: &str, key: &str) {
        if !is_valid_key(key) {
            let message =
                "a key has 1 to 128 of the characters a-z, 0-9, '.', '_' and '-', and starts with a letter or digit";
            self.refuse(pointer, "badKey", message);
        }
    }

    /// Refuses a name for people that is too long.
    pub(crate) fn check_name(&mut self, pointer: &str, name: &str) {
        if name.len() > limits::MAX_NAME_BYTES {
            let message = format!("a name has at most {} bytes, this one {}", limits::MAX_NAME_BYTES, name.len());
            self.refuse(pointer, "tooLong", message);
        }
    }

    /// Refuses targeting keys that are too many, empty or too long.
    pub(crate) fn check_targeting_keys(&mut self, pointer: &str, keys: &[String]) {
        if keys.len() > limits::MAX_KEYS_PER_INSTRUCTION {
            let most = limits::MAX_KEYS_PER_INSTRUCTION;
            let message = format!("{} keys, at most {most} fit into one instruction; use several", keys.len());
            return self.refuse(pointer, "tooMany", message);
        }
        for (index, key) in keys.iter().enumerate() {
            if key.is_empty() || key.len() > limits::MAX_TARGETING_KEY_BYTES {
                let message = format!("a targeting key has 1 to {} bytes", limits::MAX_TARGETING_KEY_BYTES);
                self.refuse(&format!("{pointer}/{index}"), "badTargetingKey", message);
            }
        }
    }

    /// Moves the targeting keys of clauses out to key sets. `known` finds the set of a list that stands already.
    pub(crate) fn move_clauses(
        &mut self,
        pointer: &str,
        clauses: &mut [Clause],
        known: &dyn Fn(&[String]) -> Option<KeySetRef>,
    ) {
        for (index, clause) in clauses.iter_mut().enumerate() {
            self.refuse_if_sent(&format!("{pointer}/{index}/keySet"), clause.key_set.is_some());
            if clause.attribute != TARGETING_KEY || clause.op != Op::In {
                continue;
            }
            let (strings, others): (Vec<Value>, Vec<Value>) = clause.values.drain(..).partition(Value::is_string);
            clause.values = others;
            let keys: Vec<String> = strings.iter().filter_map(|value| value.as_str().map(str::to_owned)).collect();
            if !keys.is_empty() {
                clause.key_set = Some(known(&keys).unwrap_or_else(|| self.key_sets.make(keys, &mut *self.mint)));
            }
        }
    }

    /// An id for a rule that none of `taken` has.
    pub(crate) fn rule_id<'i>(&mut self, taken: impl Iterator<Item = &'i str> + Clone) -> String {
        loop {
            let id = super::mint::id("rule", &mut *self.mint);
            if taken.clone().all(|known| known != id) {
                return id;
            }
        }
    }
}
