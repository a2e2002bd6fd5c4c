//! Who may do what: `decide(principal, action, resource, facts)`, answered by policies that people can read.

mod action;
mod cache;
mod check;
mod explain;
mod load;
mod lockout;
mod matrix;
mod request;
mod set;
mod vocabulary;

pub use action::{Action, Group, UnknownAction};
pub use cache::PolicyCache;
pub use check::{Report, check};
pub use explain::{Explanation, Remedy};
pub use load::{Effect, MAX_FILE_BYTES, MAX_FILE_POLICIES, MAX_OPERATORS, PolicyInfo, PolicyProblem};
pub use matrix::{Answer, Row, Who, render, rows};
pub use request::{Decision, Direction, Facts, Mode, PrincipalKind, Request, Resource, RiskLevel, Role, Subject};
pub use set::{MAX_APPROVALS, MAX_POLICIES, PolicySet};

#[cfg(test)]
mod tests;
