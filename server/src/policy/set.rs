//! stub
use std::collections::BTreeMap;
use super::*;
pub struct PolicySet;
#[derive(Debug, thiserror::Error)]
#[error("stub")]
pub struct PolicyProblem;
impl PolicySet {
    pub fn builtin() -> Self { Self }
    pub fn with(_: &BTreeMap<String, String>) -> Result<Self, Vec<PolicyProblem>> { Ok(Self) }
    pub fn hash(&self) -> String { String::new() }
    pub fn decide(&self, _: &Request) -> Decision { Decision { allowed: true, policies: vec![] } }
    pub fn needed_approvals(&self, _: &Request) -> Option<u32> { Some(0) }
}
