//! What the policies that come with the server say.

mod files;
mod tiers;

use std::collections::{BTreeMap, BTreeSet};

use super::*;
use crate::environments::Tier;

/// A request of a person with `roles`.
fn by_human(roles: &[Role], action: Action, tier: Tier) -> Request {
    by(PrincipalKind::Human, roles, action, tier)
}

/// A request of such a principal in an environment of `tier`, a widening at once with nothing in its favour.
fn by(kind: PrincipalKind, roles: &[Role], action: Action, tier: Tier) -> Request {
    let subject = Subject {
        id: "p1".to_owned(),
        kind,
        roles: roles.iter().copied().collect::<BTreeSet<_>>(),
        owner: (kind == PrincipalKind::Agent).then(|| "p0".to_owned()),
    };
    let resource = Resource { project: "default".to_owned(), environment: tier.as_str().to_owned(), tier: Some(tier) };
    let facts = Facts { direction: Direction::Widening, ..Facts::default() };
    Request { subject, action, resource, facts }
}

/// `request` under other facts.
fn given(mut request: Request, change: impl FnOnce(&mut Facts)) -> Request {
    change(&mut request.facts);
    request
}

fn files(files: &[(&str, &str)]) -> BTreeMap<String, String> {
    files.iter().map(|(name, text)| ((*name).to_owned(), (*text).to_owned())).collect()
}

fn with(text: &str) -> PolicySet {
    PolicySet::with(&files(&[("own.cedar", text)])).unwrap_or_else(|problems| panic!("{problems:#?}"))
}
