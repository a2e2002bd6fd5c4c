//! Signing in, proving a factor and signing out: slowed where it fails, and on record.
//!
//! A wrong name, a wrong password and a wrong code have one answer and cost one effort: which of them was wrong is for
//! nobody to learn.

use std::fmt;
use std::sync::Arc;

use super::Identity;
use super::accounts::{AccountError, Accounts, Claimed, Proof, ProviderIdentity, Verified};
use super::credential::{Credential, SecretHash};
use super::oidc::Claims;
use super::password::PasswordError;
use super::sessions::{NewSession, Place, SessionInfo, Sessions};
use super::throttle::Throttle;
use crate::audit::{AuditLog, Event, EventKind};
use crate::clock::Clock;
use crate::vault::VaultError;

/// Where somebody comes from, and the id that stands for it in the audit trail.
#[derive(Clone, Copy, Debug)]
pub struct Caller<'a> {
    /// Door, program and address.
    pub place: Place<'a>,
    /// The origin's id, as far as it is known: a stranger's, unless the place is on record.
    pub origin_id: &'a str,
    /// Where, and by which door, to put the place on record once somebody has shown who they are.
    pub record: Option<(&'a Identity, &'a str)>,
}

impl Caller<'_> {
    /// The id of the place, which is on record from now on. If it cannot be, nobody is turned away for that any more.
    async fn settle(&self) -> String {
        let Some((identity, door)) = self.record else { return self.origin_id.to_owned() };
        identity.origin(self.place.address, door).await.unwrap_or_else(|error| {
            tracing::warn!(%error, "the place of a sign-in could not be recorded");
            self.origin_id.to_owned()
        })
    }
}

/// What somebody signs in with.
#[derive(Clone, Copy)]
pub struct Attempt<'a> {
    /// The account's name.
    pub name: &'a str,
    /// Its password.
    pub password: &'a str,
    /// A one-time code, or a recovery code.
    pub code: &'a str,
}

impl fmt::Debug for Attempt<'_> {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("Attempt(…)")
    }
}

/// Somebody who is signed in.
#[derive(Debug)]
pub struct SignedIn {
    /// What the session is presented by; shown once.
    pub credential: Credential,
    /// The session.
    pub session: SessionInfo,
    /// How many recovery codes are left, if one was used to sign in.
    pub recovery_codes_left: Option<usize>,
}

/// Why somebody is not signed in, or has not proven a factor.
#[derive(Debug, thiserror::Error)]
pub enum SignInError {
    /// Too many attempts failed; nothing was looked at.
    #[error("too many attempts failed; try again in {seconds} s")]
    Wait {
        /// Seconds to wait, at least 1.
        seconds: u64,
    },
    /// Name, password or code is wrong.
    #[error("name, password or code is wrong; a code works once, so wait for the next one")]
    Refused,
    /// The session is over, or is not one of this door.
    #[error("the session is over; sign in again")]
    NoSession,
    /// The account's provider keeps its factor.
    #[error("this account proves its factor at its OpenID provider; sign in there again")]
    OfProvider,
    /// The account is shut out.
    #[error("this account is disabled; an administrator enables it again")]
    ShutOut,
    /// Too many sign-ins at once.
    #[error("too many sign-ins at once; try again in a few seconds")]
    Busy,
    /// Accounts cannot be read or written.
    #[error(transparent)]
    Account(AccountError),
    /// The vault cannot be read or written.
    #[error(transparent)]
    Vault(#[from] VaultError),
}

impl From<AccountError> for SignInError {
    fn from(error: AccountError) -> Self {
        match error {
            AccountError::Password(PasswordError::Busy) => Self::Busy,
            other => Self::Account(other),
        }
    }
}

/// Signs people in and out.
pub struct SignIn {
    accounts: Accounts,
    sessions: Sessions,
    throttle: Throttle,
    /// Apart from sign-ins: nobody slows a person's proofs by signing in under that person's id.
    factor_throttle: Throttle,
    clock: Arc<dyn Clock>,
    audit: Arc<dyn AuditLog>,
}

impl SignIn {
    /// Signs people in to `accounts`, which were opened with `sessions`.
    #[must_use]
    pub fn new(accounts: Accounts, sessions: Sessions, clock: Arc<dyn Clock>, audit: Arc<dyn AuditLog>) -> Self {
        Self { accounts, sessions, throttle: Throttle::new(), factor_throttle: Throttle::new(), clock, audit }
    }

    /// The accounts.
    #[must_use]
    pub fn accounts(&self) -> &Accounts {
        &self.accounts
    }

    /// The sessions.
    #[must_use]
    pub fn sessions(&self) -> &Sessions {
        &self.sessions
    }

    /// Signs in to a local account that `admits` lets in; it is asked once the owner is known.
    ///
    /// # Errors
    ///
    /// [`SignInError`].
    pub async fn sign_in(
        &self,
        attempt: Attempt<'_>,
        caller: Caller<'_>,
        admits: &(dyn Fn(&str) -> bool + Sync),
    ) -> Result<SignedIn, SignInError> {
        let (address, now) = (caller.place.address, self.clock.now_ms());
        let named = self.accounts.named(attempt.name);
        if let Err(seconds) = self.throttle.begin(attempt.name, address, now) {
            self.record(EventKind::SignInFailed, named, caller, "made to wait");
            return Err(SignInError::Wait { seconds });
        }
        let proven = match self.verify(attempt, now).await {
            Ok(proven) => proven,
            Err(error) => {
                self.throttle.withdrawn(attempt.name, address);
                return Err(error);
            }
        };
        let Some((verified, proof)) = proven else {
            self.record(EventKind::SignInFailed, named, caller, "");
            return Err(SignInError::Refused);
        };
        self.throttle.succeeded(attempt.name, address, now);
        self.admit(&verified, caller, admits)?;
        let new = NewSession { account: verified.account.clone(), groups: Vec::new(), factor_at: Some(now) };
        self.open_session(&verified, new, Some(proof), caller).await
    }

    /// Signs in a person that a provider vouches for.
    ///
    /// # Errors
    ///
    /// [`SignInError::ShutOut`]; or if the account or the session cannot be recorded.
    pub async fn sign_in_of_provider(
        &self,
        claims: &Claims,
        caller: Caller<'_>,
        admits: &(dyn Fn(&str) -> bool + Sync),
    ) -> Result<SignedIn, SignInError> {
        let identity = ProviderIdentity { issuer: claims.issuer.clone(), subject: claims.subject.clone() };
        let verified = self.accounts.record_of_provider(identity, &claims.name, claims.email.as_deref()).await?;
        self.admit(&verified, caller, admits)?;
        let factor_at = claims.factor_at.map(|at| at.min(self.clock.now_ms()));
        let new = NewSession { account: verified.account.clone(), groups: claims.groups.clone(), factor_at };
        self.open_session(&verified, new, None, caller).await
    }

    /// Proves a factor again in a session, with a one-time code or a recovery code.
    ///
    /// # Errors
    ///
    /// [`SignInError`].
    pub async fn prove_factor(
        &self,
        presented: &SecretHash,
        code: &str,
        caller: Caller<'_>,
    ) -> Result<SessionInfo, SignInError> {
        let (address, now) = (caller.place.address, self.clock.now_ms());
        let session = self.sessions.check(presented, caller.place, now).ok_or(SignInError::NoSession)?;
        let account = session.account.as_str();
        if self.accounts.get(account).is_some_and(|account| account.person.provider.is_some()) {
            return Err(SignInError::OfProvider);
        }
        if let Err(seconds) = self.factor_throttle.begin(account, address, now) {
            self.record(EventKind::FactorFailed, Some(account.to_owned()), caller, "made to wait");
            return Err(SignInError::Wait { seconds });
        }
        let proof = match self.accounts.prove(Some(account), code, now).await {
            Ok(proof) => proof,
            Err(error) => {
                self.factor_throttle.withdrawn(account, address);
                return Err(error.into());
            }
        };
        let Some(proof) = proof else {
            self.record(EventKind::FactorFailed, Some(account.to_owned()), caller, "");
            return Err(SignInError::Refused);
        };
        self.factor_throttle.succeeded(account, address, now);
        let proven = self.sessions.prove_factor(presented, address, now).await?.ok_or(SignInError::NoSession)?;
        self.record(EventKind::FactorProven, Some(account.to_owned()), caller, detail_of(proof));
        Ok(proven)
    }

    /// Signs out: the session is over. Says whether there was one.
    ///
    /// # Errors
    ///
    /// If the vault cannot be written.
    pub async fn sign_out(&self, presented: &SecretHash, caller: Caller<'_>) -> Result<bool, SignInError> {
        let account = self.sessions.end(presented).await?;
        let ended = account.is_some();
        if ended {
            self.record(EventKind::SignedOut, account, caller, "");
        }
        Ok(ended)
    }

    /// Ends one session of an account, by its id; on record. Answers whether there was one.
    ///
    /// # Errors
    ///
    /// If the vault cannot be written.
    pub async fn end_session(&self, account: &str, id: &str, caller: Caller<'_>) -> Result<bool, SignInError> {
        let ended = self.sessions.end_by_id(account, id).await?;
        if ended {
            self.record(EventKind::SignedOut, Some(account.to_owned()), caller, "from another session");
        }
        Ok(ended)
    }

    /// The second step of accepting an invitation, on record; the first is [`Accounts::begin_claim`].
    ///
    /// # Errors
    ///
    /// As [`Accounts::finish_claim`].
    pub async fn finish_claim(
        &self,
        invitation: &str,
        password: &str,
        code: &str,
        caller: Caller<'_>,
    ) -> Result<Claimed, AccountError> {
        let claimed = self.accounts.finish_claim(invitation, password, code, self.clock.now_ms()).await?;
        let origin = caller.settle().await;
        let caller = Caller { origin_id: &origin, ..caller };
        self.record(EventKind::AccountClaimed, Some(claimed.account.clone()), caller, "");
        Ok(claimed)
    }

    /// Who is behind a name, a password and a code, if they belong together.
    async fn verify(&self, attempt: Attempt<'_>, now: u64) -> Result<Option<(Verified, Proof)>, SignInError> {
        let verified = self.accounts.verify_password(attempt.name, attempt.password).await?;
        // Without an account this computes the same.
        let account = verified.as_ref().map(|verified| verified.account.as_str());
        let proof = self.accounts.prove(account, attempt.code, now).await?;
        Ok(verified.zip(proof))
    }

    fn admit(
        &self,
        verified: &Verified,
        caller: Caller<'_>,
        admits: &(dyn Fn(&str) -> bool + Sync),
    ) -> Result<(), SignInError> {
        if admits(&verified.account) {
            return Ok(());
        }
        self.record(EventKind::SignInFailed, Some(verified.account.clone()), caller, "disabled");
        Err(SignInError::ShutOut)
    }

    async fn open_session(
        &self,
        verified: &Verified,
        new: NewSession,
        proof: Option<Proof>,
        caller: Caller<'_>,
    ) -> Result<SignedIn, SignInError> {
        let (credential, session) = self.sessions.create(new, caller.place, self.clock.now_ms()).await?;
        // A reset or an erasure ends the sessions that it finds; one that came after it is ended here.
        if !self.accounts.stands(verified) {
            self.sessions.end(&credential.hash()).await?;
            return Err(SignInError::Refused);
        }
        let origin = caller.settle().await;
        let caller = Caller { origin_id: &origin, ..caller };
        let detail = proof.map_or("by provider", detail_of);
        self.record(EventKind::SignedIn, Some(verified.account.clone()), caller, detail);
        let recovery_codes_left = match proof {
            Some(Proof::RecoveryCode { left }) => Some(left),
            _ => None,
        };
        Ok(SignedIn { credential, session, recovery_codes_left })
    }

    fn record(&self, kind: EventKind, actor_id: Option<String>, caller: Caller<'_>, detail: &str) {
        let event = Event::new(self.clock.now_ms(), kind, caller.origin_id);
        self.audit.record(Event { actor_id, detail: detail.to_owned(), ..event });
    }
}

impl fmt::Debug for SignIn {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.debug_struct("SignIn").finish_non_exhaustive()
    }
}

fn detail_of(proof: Proof) -> &'static str {
    match proof {
        Proof::Code => "with a one-time code",
        Proof::RecoveryCode { .. } => "with a recovery code",
    }
}

#[cfg(test)]
#[path = "sign_in_tests.rs"]
mod tests;
