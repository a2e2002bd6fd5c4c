//! Policy files read: their policies with names and places, and what is wrong with them.

use std::collections::HashSet;
use std::fmt;
use std::str::FromStr;

use cedar_policy::ffi::DetailedError;
use cedar_policy::{PolicyId, ValidationMode, Validator};

use super::vocabulary::Vocabulary;

/// Most bytes of a policy file.
pub const MAX_FILE_BYTES: usize = 64 * 1024;

/// Most policies in a file.
pub const MAX_FILE_POLICIES: usize = 200;

/// Most operators and accesses of a policy. Each can be a level of nesting; past about twice as many the validator gives up
/// without a word on the 2 MiB stack of a server's thread, and the evaluator with an error.
pub const MAX_OPERATORS: usize = 400;

/// Most characters of a policy's `@id`.
const MAX_ID: usize = 100;

/// What a policy does when it applies.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Effect {
    /// Lets it happen, if nothing forbids it.
    Permit,
    /// Forbids it, whatever permits it.
    Forbid,
}

impl Effect {
    /// The word used in policies.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Permit => "permit",
            Self::Forbid => "forbid",
        }
    }
}

/// A policy, told to people.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PolicyInfo {
    /// What decisions and the audit call it: its `@id`, in an operator's file after the file's name and `#`.
    pub name: String,
    /// Its `@id`, or the one it was given for want of it.
    pub id: String,
    /// Its `@description`; empty if it has none.
    pub description: String,
    /// What it does when it applies.
    pub effect: Effect,
    /// The file that holds it.
    pub file: String,
    /// Line on which it starts, from 1.
    pub line: usize,
    /// Whether it comes with the server.
    pub builtin: bool,
}

/// What is wrong in a policy file, or worth a second look.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct PolicyProblem {
    /// The file.
    pub file: String,
    /// Line, from 1.
    pub line: usize,
    /// Character in the line, from 1.
    pub column: usize,
    /// What is wrong.
    pub message: String,
    /// What to do about it, where that is known.
    pub hint: Option<String>,
}

impl fmt::Display for PolicyProblem {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "{}:{}:{}: {}", self.file, self.line, self.column, self.message)?;
        match &self.hint {
            Some(hint) => write!(formatter, " ({hint})"),
            None => Ok(()),
        }
    }
}

/// A policy file.
#[derive(Clone, Copy)]
pub(super) struct Source<'a> {
    pub name: &'a str,
    pub text: &'a str,
    pub builtin: bool,
}

impl Source<'_> {
    fn problem(&self, offset: usize, message: impl Into<String>, hint: Option<String>) -> PolicyProblem {
        let (line, column) = place(self.text, offset);
        PolicyProblem { file: self.name.to_owned(), line, column, message: message.into(), hint }
    }

    fn told(&self, error: DetailedError, otherwise: usize) -> PolicyProblem {
        let offset = error.source_locations.first().map_or(otherwise, |label| label.loc.start);
        let label = error.source_locations.first().and_then(|label| label.label.clone());
        self.problem(offset, error.message, error.help.or(label))
    }
}

/// A policy as it was read.
#[derive(Clone)]
pub(super) struct Loaded {
    pub info: PolicyInfo,
    pub policy: cedar_policy::Policy,
    /// Whether the file gave it no name.
    pub unnamed: bool,
    /// Where it starts in the file, in bytes.
    offset: usize,
}

/// The policies of a file, in the file's order; everything that is wrong with it otherwise.
pub(super) fn read(source: Source<'_>) -> Result<Vec<Loaded>, Vec<PolicyProblem>> {
    if source.text.len() > MAX_FILE_BYTES {
        let message = format!("the file has {} bytes, {MAX_FILE_BYTES} at most", source.text.len());
        return Err(vec![source.problem(0, message, Some("divide it".to_owned()))]);
    }
    if let Some(offset) = too_deep(source.text) {
        let message = format!("expressions nest deeper than {MAX_DEPTH}");
        return Err(vec![source.problem(offset, message, Some("divide the policy".to_owned()))]);
    }
    let set = cedar_policy::PolicySet::from_str(source.text)
        .map_err(|errors| errors.iter().map(|error| source.told(DetailedError::from(error), 0)).collect::<Vec<_>>())?;
    let mut problems = Vec::new();
    if set.num_of_templates() > 0 {
        let hint = Some("write out the principal or resource".to_owned());
        problems.push(source.problem(source.text.find("?").unwrap_or(0), "templates are not supported", hint));
    }
    let mut parsed: Vec<(usize, &cedar_policy::Policy)> =
        set.policies().map(|policy| (ordinal(policy.id()), policy)).collect();
    parsed.sort_by_key(|(ordinal, _)| *ordinal);
    if parsed.len() > MAX_FILE_POLICIES {
        let message = format!("the file has {} policies, {MAX_FILE_POLICIES} at most", parsed.len());
        problems.push(source.problem(0, message, Some("divide it".to_owned())));
    }
    let (mut loaded, mut ids, mut from) = (Vec::with_capacity(parsed.len()), HashSet::new(), 0);
    for (number, (_, policy)) in parsed.into_iter().enumerate() {
        // A parsed policy prints as it was written, so that its place can be found.
        let written = policy.to_string();
        let offset = source.text[from..].find(&written).map_or(from, |found| from + found);
        from = offset + if source.text[offset..].starts_with(&written) { written.len() } else { 0 };
        let operators = operators(&written);
        if operators > MAX_OPERATORS {
            let message = format!("the policy has {operators} operators and accesses, {MAX_OPERATORS} at most");
            problems.push(source.problem(offset, message, Some("divide it".to_owned())));
        }
        let id = policy.annotation("id").map(str::to_owned);
        let unnamed = id.is_none();
        let id = id.unwrap_or_else(|| format!("policy-{}", number + 1));
        if !is_id(&id) {
            let hint = Some(format!("1 to {MAX_ID} letters, digits, \"-\", \"_\" and \".\""));
            problems.push(source.problem(offset, format!("\"{}\" is no @id", id.escape_debug()), hint));
        } else if !ids.insert(id.clone()) {
            let hint = Some("give each policy an @id of its own".to_owned());
            problems.push(source.problem(offset, format!("two policies have the id \"{id}\""), hint));
        }
        let name = if source.builtin { id.clone() } else { format!("{}#{id}", source.name) };
        let info = PolicyInfo {
            description: policy.annotation("description").unwrap_or_default().to_owned(),
            effect: match policy.effect() {
                cedar_policy::Effect::Permit => Effect::Permit,
                cedar_policy::Effect::Forbid => Effect::Forbid,
            },
            file: source.name.to_owned(),
            line: place(source.text, offset).0,
            builtin: source.builtin,
            id,
            name,
        };
        let policy = policy.new_id(PolicyId::new(&info.name));
        loaded.push(Loaded { info, policy, unnamed, offset });
    }
    if problems.is_empty() { Ok(loaded) } else { Err(problems) }
}

/// What is wrong with the files as a whole.
pub(super) fn unusable(message: &str) -> PolicyProblem {
    PolicyProblem { file: "policies".to_owned(), line: 1, column: 1, message: message.to_owned(), hint: None }
}

/// What the schema says against a file's policies: problems, and what it only doubts.
pub(super) fn validate(
    vocabulary: &Vocabulary,
    source: Source<'_>,
    policies: &[Loaded],
) -> (Vec<PolicyProblem>, Vec<PolicyProblem>) {
    let set = match cedar_policy::PolicySet::from_policies(policies.iter().map(|loaded| loaded.policy.clone())) {
        Ok(set) => set,
        Err(error) => return (vec![source.problem(0, error.to_string(), None)], Vec::new()),
    };
    let starts = |id: &PolicyId| {
        policies.iter().find(|loaded| loaded.info.name == id.as_ref() as &str).map_or(0, |loaded| loaded.offset)
    };
    let result = Validator::new(vocabulary.schema().clone()).validate(&set, ValidationMode::Strict);
    let mut problems: Vec<_> = result
        .validation_errors()
        .map(|error| source.told(DetailedError::from(error), starts(error.policy_id())))
        .collect();
    let mut doubts: Vec<_> = result
        .validation_warnings()
        .map(|warning| source.told(DetailedError::from(warning), starts(warning.policy_id())))
        .collect();
    for found in [&mut problems, &mut doubts] {
        found.sort();
        found.dedup();
        *found = once_for_all_actions(std::mem::take(found));
    }
    (problems, doubts)
}

/// Cedar checks a policy for each action that it may apply to, and says the same of each: said once, with their number.
fn once_for_all_actions(sorted: Vec<PolicyProblem>) -> Vec<PolicyProblem> {
    let mut said: Vec<(PolicyProblem, String, usize)> = Vec::new();
    for problem in sorted {
        let general = without_action(&problem.message);
        let same = said.iter_mut().find(|(first, text, _)| {
            (&first.file, first.line, first.column) == (&problem.file, problem.line, problem.column) && *text == general
        });
        match same {
            Some((_, _, times)) => *times += 1,
            None => said.push((problem, general, 1)),
        }
    }
    let worded = said.into_iter().map(|(first, _, times)| match times {
        1 => first,
        _ => PolicyProblem {
            message: format!("{} (and likewise for {} other actions)", first.message, times - 1),
            ..first
        },
    });
    worded.collect()
}

/// The message with no action named: `Action::"turnFlagOn"` becomes `Action`.
fn without_action(message: &str) -> String {
    let mut general = String::with_capacity(message.len());
    let mut rest = message;
    while let Some((before, after)) = rest.split_once("Action::\"") {
        general.push_str(before);
        general.push_str("Action");
        rest = after.split_once('"').map_or("", |(_, after)| after);
    }
    general.push_str(rest);
    general
}

/// Most levels of brackets in a policy.
const MAX_DEPTH: usize = 32;

/// Where `text` nests deeper than a reader that recurses should follow. Brackets in strings and comments count too, which
/// only makes this stricter.
fn too_deep(text: &str) -> Option<usize> {
    let mut depth = 0_usize;
    for (offset, byte) in text.bytes().enumerate() {
        match byte {
            b'(' | b'[' | b'{' => depth += 1,
            b')' | b']' | b'}' => depth = depth.saturating_sub(1),
            _ => {}
        }
        if depth > MAX_DEPTH {
            return Some(offset);
        }
    }
    None
}

/// Operators and accesses in a policy's text, outside strings and comments.
fn operators(text: &str) -> usize {
    let (mut code, mut rest) = (String::with_capacity(text.len()), text.chars());
    let mut in_string = false;
    while let Some(one) = rest.next() {
        match one {
            '"' => in_string = !in_string,
            '\\' if in_string => drop(rest.next()),
            '/' if !in_string && rest.as_str().starts_with('/') => drop(rest.find(|one| *one == '\n')),
            _ if in_string => {}
            _ => code.push(one),
        }
    }
    [".", "[", "&&", "||", "+", "-", "*", "!", "then"].iter().map(|operator| code.matches(operator).count()).sum()
}

/// The number in the id that the parser gives, in the file's order.
fn ordinal(id: &PolicyId) -> usize {
    let id: &str = id.as_ref();
    id.trim_start_matches("policy").parse().unwrap_or(usize::MAX)
}

fn is_id(id: &str) -> bool {
    (1..=MAX_ID).contains(&id.len())
        && id.bytes().all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_' | b'.'))
}

/// Line and character of a byte offset, both from 1.
fn place(text: &str, offset: usize) -> (usize, usize) {
    let mut end = offset.min(text.len());
    while !text.is_char_boundary(end) {
        end -= 1;
    }
    let before = &text[..end];
    let line = before.matches('\n').count() + 1;
    let column = before.rsplit('\n').next().unwrap_or_default().chars().count() + 1;
    (line, column)
}
