//! Everything a principal can ask for, by the word that policies, tokens and the audit use.

use std::fmt;
use std::str::FromStr;

use crate::changes::Instruction;

/// What kind of thing an action is; policies speak of these where they do not name single actions.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Group {
    /// Shows something and changes nothing.
    Read,
    /// Hands out more than a page of data.
    Export,
    /// Edits flags and segments.
    Edit,
    /// Takes flags or segments away.
    Delete,
    /// Makes or ends a credential of an application, a service account or an AI agent.
    Credential,
    /// Changes who may do what, the environments, or the policy.
    Administer,
    /// Works on a change request.
    Request,
    /// Proves something, and changes nothing that is served.
    Rehearse,
    /// Works on a release that was started.
    Release,
    /// What an application's SDK does.
    Serve,
}

impl Group {
    /// All groups.
    pub const ALL: [Self; 10] = [
        Self::Read,
        Self::Export,
        Self::Edit,
        Self::Delete,
        Self::Credential,
        Self::Administer,
        Self::Request,
        Self::Rehearse,
        Self::Release,
        Self::Serve,
    ];

    /// The word used in policies.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Read => "read",
            Self::Export => "export",
            Self::Edit => "edit",
            Self::Delete => "delete",
            Self::Credential => "credential",
            Self::Administer => "administer",
            Self::Request => "request",
            Self::Rehearse => "rehearse",
            Self::Release => "release",
            Self::Serve => "serve",
        }
    }
}

macro_rules! actions {
    ($($group:ident { $($name:ident $word:literal $what:literal)* })*) => {
        /// Something a principal can ask for. Every instruction is one, under the word in its `kind`.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub enum Action { $($(#[doc = $what] $name,)*)* }

        impl Action {
            /// All actions, by group.
            pub const ALL: &'static [Self] = &[$($(Self::$name,)*)*];

            /// The word used in policies, scopes and the audit.
            #[must_use]
            pub fn as_str(self) -> &'static str {
                match self { $($(Self::$name => $word,)*)* }
            }

            /// What kind of thing it is.
            #[must_use]
            pub fn group(self) -> Group {
                match self { $($(Self::$name => Group::$group,)*)* }
            }
        }
    };
}

actions! {
    Read {
        ReadConfiguration "readConfiguration" "Shows projects, environments, flags and segments, and explains evaluations."
        ReadConnections "readConnections" "Shows connected SDKs."
        ReadAssignments "readAssignments" "Shows the assignment log, under pseudonyms."
        ReadJournal "readJournal" "Shows what was changed."
        ReadRequests "readRequests" "Shows change requests."
        ReadWebhooks "readWebhooks" "Shows webhooks, their deliveries and dead letters; never a URL's path or a secret."
        ReadAccess "readAccess" "Shows principals, roles, credentials and policies; never a secret."
        ReadAudit "readAudit" "Shows the audit trail, refusals and sign-ins included."
    }
    Export {
        ExportAudit "exportAudit" "Hands out the audit trail."
        Backup "backup" "Hands out the whole store, secrets sealed."
        ExportConfiguration "exportConfiguration" "Hands out the configuration as files."
    }
    Edit {
        CreateFlag "createFlag" "Creates a flag."
        UpdateFlag "updateFlag" "Edits what people read about a flag."
        SetClientSide "setClientSide" "Shows a flag to browsers, or hides it."
        SetSchema "setSchema" "Sets the schema of a flag's values."
        UnarchiveFlag "unarchiveFlag" "Brings a flag back from the archive."
        AddVariation "addVariation" "Adds a variation."
        UpdateVariation "updateVariation" "Edits a variation."
        RemoveVariation "removeVariation" "Removes a variation that nothing refers to."
        TurnFlagOn "turnFlagOn" "Turns a flag on."
        TurnFlagOff "turnFlagOff" "Turns a flag off."
        SetOffVariation "setOffVariation" "Chooses what is served while a flag is off."
        AddPrerequisite "addPrerequisite" "Makes a flag require another."
        RemovePrerequisite "removePrerequisite" "Makes a flag no longer require another."
        AddTargets "addTargets" "Gives individual keys a variation."
        RemoveTargets "removeTargets" "Takes individual keys out."
        AddRule "addRule" "Adds a targeting rule."
        ReplaceRule "replaceRule" "Replaces a targeting rule."
        MoveRule "moveRule" "Moves a targeting rule."
        RemoveRule "removeRule" "Removes a targeting rule."
        SetFallthrough "setFallthrough" "Chooses what is served when no rule matches."
        SetRollout "setRollout" "Sets the weights of a rollout."
        StartRelease "startRelease" "Starts a release of a flag."
        RestartRelease "restartRelease" "Starts a flag's last release anew."
        AbortRelease "abortRelease" "Ends a release and restores what was served before it."
        RevertFlag "revertFlag" "Puts a flag back to an earlier revision."
        CreateSegment "createSegment" "Creates a segment."
        UpdateSegment "updateSegment" "Edits what people read about a segment."
        AddSegmentRule "addSegmentRule" "Adds a rule to a segment."
        ReplaceSegmentRule "replaceSegmentRule" "Replaces a segment's rule."
        RemoveSegmentRule "removeSegmentRule" "Removes a segment's rule."
        AddSegmentKeys "addSegmentKeys" "Adds keys to a segment."
        RemoveSegmentKeys "removeSegmentKeys" "Takes keys out of a segment."
        RevertSegment "revertSegment" "Puts a segment back to an earlier revision."
    }
    Delete {
        ArchiveFlag "archiveFlag" "Retires a flag."
        DeleteFlag "deleteFlag" "Deletes an archived flag."
        DeleteSegment "deleteSegment" "Deletes a segment."
    }
    Credential {
        CreateSdkKey "createSdkKey" "Makes an SDK key."
        RotateSdkKey "rotateSdkKey" "Replaces an SDK key; the old one lives until its deadline."
        RevokeSdkKey "revokeSdkKey" "Revokes an SDK key."
        CreateToken "createToken" "Makes a token of a service account or an AI agent."
        RotateToken "rotateToken" "Replaces a token; the old one lives until its deadline."
        RevokeToken "revokeToken" "Revokes a token."
    }
    Administer {
        CreateProject "createProject" "Creates a project."
        CreateEnvironment "createEnvironment" "Adds an environment."
        UpdateEnvironment "updateEnvironment" "Renames an environment, or moves an unused one to another tier."
        DeleteEnvironment "deleteEnvironment" "Deletes an environment."
        DeclareFreeze "declareFreeze" "Forbids changes in an environment for a time."
        LiftFreeze "liftFreeze" "Ends a freeze."
        CreateWebhook "createWebhook" "Creates a webhook, which is told what happens in the whole project."
        UpdateWebhook "updateWebhook" "Edits, enables or disables a webhook."
        DeleteWebhook "deleteWebhook" "Deletes a webhook."
        RotateWebhookSecret "rotateWebhookSecret" "Gives a webhook a new signing secret."
        TestWebhook "testWebhook" "Calls a webhook once."
        ResendDeadLetters "resendDeadLetters" "Has a webhook's dead letters sent again."
        CreateAccount "createAccount" "Creates a person's account, to be claimed with an invitation or by a provider's sign-in."
        ClaimAccount "claimAccount" "Records that a person has claimed an account."
        ResetAccount "resetAccount" "Lets a person choose password and factor anew."
        CreateServiceAccount "createServiceAccount" "Creates a service account."
        CreateAgent "createAgent" "Registers an AI agent."
        UpdatePrincipal "updatePrincipal" "Renames a principal, or moves an AI agent's expiry."
        DisablePrincipal "disablePrincipal" "Shuts a principal out."
        EnablePrincipal "enablePrincipal" "Lets a principal in again."
        ErasePrincipal "erasePrincipal" "Erases who a person is."
        GrantRole "grantRole" "Gives a person or a group a role."
        RevokeRole "revokeRole" "Takes a role away."
        TrustIssuer "trustIssuer" "Lets an issuer's identity tokens buy tokens."
        DistrustIssuer "distrustIssuer" "Ends that."
        SetPolicy "setPolicy" "Adds or replaces a policy file of the operator's."
        RemovePolicy "removePolicy" "Removes a policy file of the operator's."
        EraseKey "eraseKey" "Erases a person's key from segments, targets and requests of all times."
    }
    Request {
        OpenRequest "openRequest" "Proposes a change."
        EditRequest "editRequest" "Edits or rebases a change request."
        SubmitRequest "submitRequest" "Puts a draft to review."
        CommentRequest "commentRequest" "Comments on a change request."
        ApproveRequest "approveRequest" "Approves a change request."
        RejectRequest "rejectRequest" "Rejects a change request."
        WithdrawRequest "withdrawRequest" "Withdraws a change request."
        ApplyRequest "applyRequest" "Applies an approved change request."
        ExpireRequest "expireRequest" "Ends a change request whose time is over."
        ReviewEntry "reviewEntry" "Closes the review of an emergency change with a finding."
    }
    Rehearse {
        RecordDrill "recordDrill" "Rehearses the rollback of a flag, and records what came of it."
    }
    Release {
        AdvanceRelease "advanceRelease" "Moves a release to another of its steps."
        PauseRelease "pauseRelease" "Keeps a release where it is."
        ResumeRelease "resumeRelease" "Lets a paused release go on."
        CloseIncident "closeIncident" "Closes an incident with a finding."
        RollBackRelease "rollBackRelease" "Takes a release back, or turns its flag off, and opens an incident."
        CompleteRelease "completeRelease" "Records that a release is through."
        HoldRelease "holdRelease" "Records that the guard keeps a release from advancing."
        LiftHold "liftHold" "Records that it no longer does."
        RouteInstance "routeInstance" "Routes an instance away from what is released, and opens an incident."
        NoteIncident "noteIncident" "Adds to an incident what was done about it."
    }
    Serve {
        Evaluate "evaluate" "Follows an environment and reports what was served."
    }
}

impl Action {
    /// The action that an instruction is.
    #[must_use]
    pub fn of(instruction: &Instruction) -> Option<Self> {
        instruction.kind().parse().ok()
    }
}

impl fmt::Display for Action {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(self.as_str())
    }
}

/// No action has this name.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("there is no action \"{0}\"")]
pub struct UnknownAction(pub String);

impl FromStr for Action {
    type Err = UnknownAction;

    fn from_str(word: &str) -> Result<Self, Self::Err> {
        Self::ALL.iter().copied().find(|action| action.as_str() == word).ok_or_else(|| UnknownAction(word.to_owned()))
    }
}
