//! Who may do what: `decide(principal, action, resource, facts)`, answered by policies that people can read.

mod action;
mod request;

pub use action::{Action, Group, UnknownAction};
pub use request::{Decision, Direction, Facts, Mode, PrincipalKind, Request, Resource, RiskLevel, Role, Subject};
