//! The policies in force, and the decisions they make.

use std::collections::{BTreeMap, HashMap};

use cedar_policy::{ActionConstraint, AuthorizationError, Authorizer, PrincipalConstraint};

use super::load::{self, Loaded, PolicyInfo, PolicyProblem, Source};
use super::vocabulary::{Place, SCHEMA, Vocabulary};
use super::{Action, Decision, PrincipalKind, Request};

/// Most approvals that a policy can ask for.
pub const MAX_APPROVALS: u32 = 5;

/// Most policies in force, the built-in ones included.
pub const MAX_POLICIES: usize = 1_000;

const BUILTIN: &[(&str, &str)] = &[
    ("tiers.cedar", include_str!("defaults/tiers.cedar")),
    ("requests.cedar", include_str!("defaults/requests.cedar")),
    ("roles.cedar", include_str!("defaults/roles.cedar")),
    ("agents.cedar", include_str!("defaults/agents.cedar")),
    ("services.cedar", include_str!("defaults/services.cedar")),
    ("operator.cedar", include_str!("defaults/operator.cedar")),
    ("applications.cedar", include_str!("defaults/applications.cedar")),
    ("system.cedar", include_str!("defaults/system.cedar")),
];

/// The policies in force: those that come with the server, and the operator's own.
pub struct PolicySet {
    hash: blake3::Hash,
    policies: Vec<Loaded>,
    /// For each kind of principal and action, the number of the group of policies whose head can match them.
    index: Vec<usize>,
    groups: Vec<Candidates>,
    authorizer: Authorizer,
}

/// Policies whose head matches the same kinds and actions.
struct Candidates {
    set: cedar_policy::PolicySet,
    members: Vec<usize>,
}

impl PolicySet {
    /// The policies that come with the server, alone.
    #[must_use]
    pub fn builtin() -> Self {
        // Without its policies, which a test proves sound, the set permits nothing.
        Self::with(&BTreeMap::new()).unwrap_or_else(|_| Self {
            hash: blake3::hash(&[]),
            policies: Vec::new(),
            index: Vec::new(),
            groups: Vec::new(),
            authorizer: Authorizer::new(),
        })
    }

    /// The policies that come with the server and those in `operator_files` (texts by file name); everything that is wrong
    /// with the files otherwise.
    ///
    /// # Errors
    ///
    /// If a file does not parse, or says what the schema does not know.
    pub fn with(operator_files: &BTreeMap<String, String>) -> Result<Self, Vec<PolicyProblem>> {
        let Some(vocabulary) = Vocabulary::get() else {
            return Err(vec![load::unusable("the built-in schema cannot be read")]);
        };
        let mut hasher = blake3::Hasher::new();
        let (mut policies, mut problems) = (Vec::new(), Vec::new());
        for source in sources(operator_files) {
            for part in [source.name, source.text] {
                hasher.update(&(part.len() as u64).to_le_bytes());
                hasher.update(part.as_bytes());
            }
            match load::read(source) {
                Ok(read) => {
                    if !source.builtin {
                        problems.extend(load::validate(vocabulary, source, &read).0);
                    }
                    policies.extend(read);
                }
                Err(found) => problems.extend(found),
            }
        }
        if policies.len() > MAX_POLICIES {
            problems.push(load::unusable(&format!("there are {} policies, {MAX_POLICIES} at most", policies.len())));
        }
        if !problems.is_empty() {
            return Err(problems);
        }
        let (index, groups) = group(vocabulary, &policies).map_err(|message| vec![load::unusable(&message)])?;
        Ok(Self { hash: hasher.finalize(), policies, index, groups, authorizer: Authorizer::new() })
    }

    /// BLAKE3 over names and texts of all files: what entries carry to say under which policies they were made.
    #[must_use]
    pub fn hash(&self) -> blake3::Hash {
        self.hash
    }

    /// Whether the request may be granted. Whatever goes wrong in deciding, nothing is allowed.
    #[must_use]
    pub fn decide(&self, request: &Request) -> Decision {
        self.candidates(request)
            .and_then(|candidates| self.ask(&candidates.set, request).ok())
            .map_or_else(Decision::refused, Verdict::into_decision)
    }

    /// The least number of approvals, up to [`MAX_APPROVALS`], with which the request is allowed; `None` if no number helps.
    #[must_use]
    pub fn needed_approvals(&self, request: &Request) -> Option<u32> {
        let mut request = request.clone();
        (0..=MAX_APPROVALS).find(|approvals| {
            request.facts.approvals = *approvals;
            self.decide(&request).allowed
        })
    }

    /// Every policy in force, in the order of the files.
    pub fn policies(&self) -> impl Iterator<Item = &PolicyInfo> {
        self.policies.iter().map(|loaded| &loaded.info)
    }

    /// The policy that decisions call `name`.
    #[must_use]
    pub fn policy(&self, name: &str) -> Option<&PolicyInfo> {
        self.policies().find(|info| info.name == name)
    }

    /// The schema, as people read it.
    #[must_use]
    pub fn schema_text() -> &'static str {
        SCHEMA
    }

    /// Names and texts of the files that come with the server.
    #[must_use]
    pub fn builtin_files() -> &'static [(&'static str, &'static str)] {
        BUILTIN
    }

    /// The policies that could apply to the request by kind of principal and action; `None` where the action is unknown.
    fn candidates(&self, request: &Request) -> Option<&Candidates> {
        Place::of(&request.resource).filter(|place| place.knows(request.action))?;
        self.groups.get(*self.index.get(slot(request.subject.kind, request.action))?)
    }

    /// The loaded policies that could apply to the request by kind of principal and action.
    pub(super) fn candidate_policies(&self, request: &Request) -> impl Iterator<Item = &Loaded> {
        let members = self.candidates(request).map_or(&[][..], |candidates| &candidates.members[..]);
        members.iter().map(|member| &self.policies[*member])
    }

    /// What `set` says to the request.
    pub(super) fn ask(&self, set: &cedar_policy::PolicySet, request: &Request) -> Result<Verdict, String> {
        let vocabulary = Vocabulary::get().ok_or("the built-in schema cannot be read")?;
        let (question, entities) = vocabulary.question(request)?;
        let response = self.authorizer.is_authorized(&question, set, &entities);
        let diagnostics = response.diagnostics();
        let mut reasons: Vec<String> = diagnostics.reason().map(ToString::to_string).collect();
        let mut failed: Vec<String> = diagnostics
            .errors()
            .map(|error| match error {
                AuthorizationError::PolicyEvaluationError(error) => error.policy_id().to_string(),
            })
            .collect();
        reasons.sort_unstable();
        failed.sort_unstable();
        Ok(Verdict { allowed: response.decision() == cedar_policy::Decision::Allow, reasons, failed })
    }
}

impl std::fmt::Debug for PolicySet {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter
            .debug_struct("PolicySet")
            .field("hash", &self.hash)
            .field("policies", &self.policies.len())
            .finish_non_exhaustive()
    }
}

impl Decision {
    fn refused() -> Self {
        Self { allowed: false, policies: Vec::new() }
    }
}

/// What a set of policies says.
pub(super) struct Verdict {
    allowed: bool,
    /// The policies that decided.
    pub reasons: Vec<String>,
    /// The policies that could not be evaluated.
    pub failed: Vec<String>,
}

impl Verdict {
    /// A forbid that failed must not count as one that did not apply, so a failure refuses.
    fn into_decision(self) -> Decision {
        if self.failed.is_empty() {
            Decision { allowed: self.allowed, policies: self.reasons }
        } else {
            Decision { allowed: false, policies: self.failed }
        }
    }
}

fn sources(operator_files: &BTreeMap<String, String>) -> impl Iterator<Item = Source<'_>> {
    let builtin = BUILTIN.iter().map(|(name, text)| Source { name, text, builtin: true });
    builtin.chain(operator_files.iter().map(|(name, text)| Source { name, text, builtin: false }))
}

fn slot(kind: PrincipalKind, action: Action) -> usize {
    kind as usize * Action::ALL.len() + action as usize
}

/// Sorts policies by their heads, so that a decision looks only at those that can matter.
fn group(vocabulary: &Vocabulary, policies: &[Loaded]) -> Result<(Vec<usize>, Vec<Candidates>), String> {
    let (mut index, mut groups) = (Vec::new(), Vec::new());
    let mut known: HashMap<Vec<usize>, usize> = HashMap::new();
    for kind in PrincipalKind::ALL {
        for action in Action::ALL {
            let members: Vec<usize> =
                (0..policies.len()).filter(|at| may_match(vocabulary, &policies[*at].policy, kind, *action)).collect();
            let number = match known.get(&members) {
                Some(number) => *number,
                None => {
                    let chosen = members.iter().map(|member| policies[*member].policy.clone());
                    let set = cedar_policy::PolicySet::from_policies(chosen).map_err(|error| error.to_string())?;
                    known.insert(members.clone(), groups.len());
                    groups.push(Candidates { set, members });
                    groups.len() - 1
                }
            };
            index.push(number);
        }
    }
    Ok((index, groups))
}

/// Whether the head of `policy` can match such a principal asking for such an action.
pub(super) fn may_match(
    vocabulary: &Vocabulary,
    policy: &cedar_policy::Policy,
    kind: PrincipalKind,
    action: Action,
) -> bool {
    let type_name = vocabulary.kind(kind);
    let principal = match policy.principal_constraint() {
        PrincipalConstraint::Any => true,
        PrincipalConstraint::Is(name) | PrincipalConstraint::IsIn(name, _) => name == *type_name,
        PrincipalConstraint::Eq(uid) => uid.type_name() == type_name,
        // Only people are in something: in roles. Anybody is in themselves.
        PrincipalConstraint::In(uid) => kind == PrincipalKind::Human || uid.type_name() == type_name,
    };
    principal
        && match policy.action_constraint() {
            ActionConstraint::Any => true,
            ActionConstraint::Eq(word) => vocabulary.names(&word, action),
            ActionConstraint::In(words) => words.iter().any(|word| vocabulary.names(word, action)),
        }
}
