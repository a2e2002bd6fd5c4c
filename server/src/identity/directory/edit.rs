//! Instructions about the directory. They belong to the installation, not to a project.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use super::Scope;
use crate::environments::Tier;
use crate::journal::ObjectId;
use crate::policy::Role;

/// One edit of the directory. In JSON one flat object with a `kind`, as every instruction.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "camelCase", rename_all_fields = "camelCase")]
#[non_exhaustive]
pub enum DirectoryEdit {
    /// Creates a person's account. Who the person is stands in the vault.
    CreateAccount {
        /// Identifier. Filled in by the server.
        id: String,
    },
    /// Records that the person has chosen password and factor, or that a provider vouches for both.
    ClaimAccount {
        /// Identifier of the account.
        id: String,
    },
    /// Takes password and factor away, to be chosen anew with an invitation.
    ResetAccount {
        /// Identifier of the account.
        id: String,
    },
    /// Creates a service account.
    CreateServiceAccount {
        /// Identifier. Filled in by the server.
        #[serde(default)]
        id: String,
        /// Name for people.
        name: String,
    },
    /// Registers an AI agent.
    CreateAgent {
        /// Identifier. Filled in by the server.
        #[serde(default)]
        id: String,
        /// Name for people.
        name: String,
        /// The tool it is.
        tool: String,
        /// The model it uses.
        #[serde(default, skip_serializing_if = "String::is_empty")]
        model: String,
        /// The person who answers for it.
        owner: String,
        /// When its time is over, in milliseconds since 1970.
        expires_at: u64,
    },
    /// Renames a service account or an AI agent, or moves an AI agent's expiry; fields left out stay.
    UpdatePrincipal {
        /// Identifier of the principal.
        id: String,
        /// New name.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        name: Option<String>,
        /// New model.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        model: Option<String>,
        /// New expiry, in milliseconds since 1970.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        expires_at: Option<u64>,
    },
    /// Shuts a principal out at once.
    DisablePrincipal {
        /// Identifier of the principal.
        id: String,
    },
    /// Lets a principal in again.
    EnablePrincipal {
        /// Identifier of the principal.
        id: String,
    },
    /// Records that who a person is was erased.
    ErasePrincipal {
        /// Identifier of the account.
        id: String,
    },
    /// Gives a principal or a group a role.
    GrantRole {
        /// Identifier, for revoking. Filled in by the server.
        #[serde(default)]
        id: String,
        /// The person.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        principal: Option<String>,
        /// Or the group.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        group: Option<String>,
        /// The role.
        role: Role,
        /// The project; all of them if left out.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        project: Option<String>,
        /// The tiers; all of them if empty.
        #[serde(default, skip_serializing_if = "Vec::is_empty")]
        tiers: Vec<Tier>,
    },
    /// Takes a role away.
    RevokeRole {
        /// Identifier of the binding.
        id: String,
    },
    /// Records a token of a service account or an AI agent.
    CreateToken {
        /// Identifier. Filled in by the server.
        #[serde(default)]
        id: String,
        /// Whose it is.
        principal: String,
        /// Name for people.
        #[serde(default, skip_serializing_if = "String::is_empty")]
        name: String,
        /// What it is good for.
        scope: Scope,
        /// When it ends, in milliseconds since 1970.
        expires_at: u64,
        /// BLAKE3 of the credential, in hexadecimal.
        hash: String,
    },
    /// Records a token that takes another's place, which lives until its deadline.
    RotateToken {
        /// Identifier of the old one.
        id: String,
        /// Identifier of the new one. Filled in by the server.
        #[serde(default)]
        successor: String,
        /// BLAKE3 of the new credential, in hexadecimal.
        hash: String,
        /// When the new one ends, in milliseconds since 1970.
        expires_at: u64,
        /// When the old one ends, in milliseconds since 1970.
        deadline: u64,
    },
    /// Revokes a token.
    RevokeToken {
        /// Identifier of the token.
        id: String,
    },
    /// Lets an issuer's identity tokens buy tokens of a service account.
    TrustIssuer {
        /// Identifier. Filled in by the server.
        #[serde(default)]
        id: String,
        /// The issuer's URL.
        issuer: String,
        /// What `aud` has to hold.
        audience: String,
        /// Claims the identity token must have.
        claims: BTreeMap<String, String>,
        /// The service account.
        principal: String,
        /// What the tokens are good for.
        scope: Scope,
        /// How long they live, in seconds.
        lifetime_s: u64,
    },
    /// Ends the trust in an issuer.
    DistrustIssuer {
        /// Identifier of the trust.
        id: String,
    },
    /// Adds or replaces a policy file.
    SetPolicy {
        /// Its name.
        name: String,
        /// Cedar policies.
        text: String,
    },
    /// Removes a policy file.
    RemovePolicy {
        /// Its name.
        name: String,
    },
}

impl DirectoryEdit {
    /// The word in `kind`.
    #[must_use]
    pub fn kind(&self) -> &'static str {
        match self {
            Self::CreateAccount { .. } => "createAccount",
            Self::ClaimAccount { .. } => "claimAccount",
            Self::ResetAccount { .. } => "resetAccount",
            Self::CreateServiceAccount { .. } => "createServiceAccount",
            Self::CreateAgent { .. } => "createAgent",
            Self::UpdatePrincipal { .. } => "updatePrincipal",
            Self::DisablePrincipal { .. } => "disablePrincipal",
            Self::EnablePrincipal { .. } => "enablePrincipal",
            Self::ErasePrincipal { .. } => "erasePrincipal",
            Self::GrantRole { .. } => "grantRole",
            Self::RevokeRole { .. } => "revokeRole",
            Self::CreateToken { .. } => "createToken",
            Self::RotateToken { .. } => "rotateToken",
            Self::RevokeToken { .. } => "revokeToken",
            Self::TrustIssuer { .. } => "trustIssuer",
            Self::DistrustIssuer { .. } => "distrustIssuer",
            Self::SetPolicy { .. } => "setPolicy",
            Self::RemovePolicy { .. } => "removePolicy",
        }
    }

    /// The objects it may change.
    #[must_use]
    pub fn objects(&self) -> Vec<ObjectId> {
        match self {
            Self::CreateAccount { id }
            | Self::ClaimAccount { id }
            | Self::ResetAccount { id }
            | Self::CreateServiceAccount { id, .. }
            | Self::CreateAgent { id, .. }
            | Self::UpdatePrincipal { id, .. }
            | Self::DisablePrincipal { id }
            | Self::EnablePrincipal { id }
            | Self::ErasePrincipal { id } => vec![ObjectId::Principal(id.clone())],
            Self::GrantRole { id, .. } | Self::RevokeRole { id } => vec![ObjectId::RoleBinding(id.clone())],
            Self::CreateToken { id, .. } | Self::RevokeToken { id } => vec![ObjectId::Token(id.clone())],
            Self::RotateToken { id, successor, .. } => {
                vec![ObjectId::Token(id.clone()), ObjectId::Token(successor.clone())]
            }
            Self::TrustIssuer { id, .. } | Self::DistrustIssuer { id } => vec![ObjectId::Issuer(id.clone())],
            Self::SetPolicy { name, .. } | Self::RemovePolicy { name } => vec![ObjectId::Policy(name.clone())],
        }
    }
}
