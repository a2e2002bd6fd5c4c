//! Individual targets: which keys get which variation, as key sets.

use std::collections::HashSet;

use guidon_sdk::model::Target;

use crate::changes::resolve::Resolving;
use crate::state::FlagState;

/// Moves the keys of targets that a new flag brings out to key sets.
pub(crate) fn move_targets(cx: &mut Resolving<'_>, at: &str, targets: &mut [Target]) {
    for (index, target) in targets.iter_mut().enumerate() {
        cx.refuse_if_sent(&format!("{at}/{index}/keySet"), target.key_set.is_some());
        let keys = std::mem::take(&mut target.keys);
        if !keys.is_empty() {
            target.key_set = Some(cx.key_sets.make(keys, &mut *cx.mint));
        }
    }
}

/// All targets once `keys` get `variation`, and no other one; `None` if they do already.
pub(crate) fn add(
    cx: &mut Resolving<'_>,
    state: &FlagState,
    environment: &str,
    variation: &str,
    keys: Vec<String>,
) -> Option<Vec<Target>> {
    cx.check_targeting_keys("/keys", &keys);
    let (stored, published) = standing(state, environment)?;
    let wanted: HashSet<&str> = keys.iter().map(String::as_str).collect();
    let mut found = false;
    let mut after = Vec::new();
    for (stored, published) in stored.iter().zip(published) {
        let here = stored.variation == variation;
        found |= here;
        after.push(if here { with(cx, stored, published, &keys) } else { without(cx, stored, published, &wanted) });
    }
    if !found {
        let mut seen = HashSet::new();
        let keys: Vec<String> = keys.iter().filter(|key| seen.insert(key.as_str())).cloned().collect();
        if !keys.is_empty() {
            let key_set = Some(cx.key_sets.make(keys, &mut *cx.mint));
            after.push(Some(Target { variation: variation.to_owned(), keys: Vec::new(), key_set }));
        }
    }
    changed(stored, after)
}

/// All targets without `keys`; `None` if none of them is a target.
pub(crate) fn remove(
    cx: &mut Resolving<'_>,
    state: &FlagState,
    environment: &str,
    keys: Vec<String>,
) -> Option<Vec<Target>> {
    cx.check_targeting_keys("/keys", &keys);
    let (stored, published) = standing(state, environment)?;
    let unwanted: HashSet<&str> = keys.iter().map(String::as_str).collect();
    let after = stored.iter().zip(published).map(|(stored, published)| without(cx, stored, published, &unwanted));
    let after = after.collect();
    changed(stored, after)
}

fn standing<'s>(state: &'s FlagState, environment: &str) -> Option<(&'s [Target], &'s [Target])> {
    let stored = state.stored.environments.get(environment)?;
    let published = state.published.environments.get(environment)?;
    Some((&stored.targets, &published.targets))
}

fn changed(before: &[Target], after: Vec<Option<Target>>) -> Option<Vec<Target>> {
    let after: Vec<Target> = after.into_iter().flatten().collect();
    (after != before).then_some(after)
}

fn with(cx: &mut Resolving<'_>, stored: &Target, published: &Target, keys: &[String]) -> Option<Target> {
    let mut seen: HashSet<&str> = published.keys.iter().map(String::as_str).collect();
    let new: Vec<String> = keys.iter().filter(|key| seen.insert(key.as_str())).cloned().collect();
    if new.is_empty() {
        return Some(stored.clone());
    }
    let all = published.keys.iter().cloned().chain(new).collect();
    Some(Target { key_set: Some(cx.key_sets.make(all, &mut *cx.mint)), ..stored.clone() })
}

fn without(cx: &mut Resolving<'_>, stored: &Target, published: &Target, unwanted: &HashSet<&str>) -> Option<Target> {
    let rest: Vec<String> = published.keys.iter().filter(|key| !unwanted.contains(key.as_str())).cloned().collect();
    if rest.len() == published.keys.len() {
        return Some(stored.clone());
    }
    if rest.is_empty() {
        return None;
    }
    Some(Target { key_set: Some(cx.key_sets.make(rest, &mut *cx.mint)), ..stored.clone() })
}
