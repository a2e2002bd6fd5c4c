//! Who may do what: `decide(principal, action, resource, facts)`, answered by policies that people can read.

mod action;
mod cache;
mod request;
mod set;

pub use action::{Action, Group, UnknownAction};
pub use cache::PolicyCache;
pub use set::{PolicySet, PolicyProblem};
pub use request::{Decision, Direction, Facts, Mode, PrincipalKind, Request, Resource, RiskLevel, Role, Subject};
