//! From an invitation to an account that can be signed in to, and back again by a reset.

use std::collections::HashMap;
use std::fmt;
use std::sync::Arc;

use super::index::{Invitation, Known};
use super::person::Person;
use super::{AccountError, Accounts, Inner, TotpRecord, entry, json, new_id};
use crate::identity::credential::{Credential, CredentialKind, SecretHash};
use crate::identity::password::check_strength;
use crate::identity::recovery::RecoveryCodes;
use crate::identity::totp::TotpSecret;
use crate::identity::unbroken::to_the_end;
use crate::vault::Kind;

/// Life of an invitation, in milliseconds.
pub const INVITATION_LIFE_MS: u64 = 72 * 60 * 60 * 1000;
/// How long a secret waits for its first code, in milliseconds.
const ENROLMENT_LIFE_MS: u64 = 15 * 60 * 1000;
/// Most secrets that wait at once. One more takes the place of the oldest, whose owner begins again.
const MAX_ENROLMENTS: usize = 1000;

/// An invitation that was made. Its credential is shown once.
#[derive(Debug)]
pub struct Invited {
    /// The account it is for.
    pub account: String,
    /// What opens it.
    pub credential: Credential,
    /// When it lapses, in milliseconds since 1970.
    pub expires_at: u64,
}

/// What a person needs to set up an authenticator app.
#[derive(Clone, PartialEq, Eq)]
pub struct Enrolment {
    /// The account's name.
    pub name: String,
    /// The secret in base 32, for typing in.
    pub secret: String,
    /// The same for scanning, as a QR code.
    pub otpauth_url: String,
}

impl fmt::Debug for Enrolment {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("Enrolment(…)")
    }
}

/// An account that can be signed in to from now on.
#[derive(Clone, PartialEq, Eq)]
pub struct Claimed {
    /// Its id.
    pub account: String,
    /// Its recovery codes, shown once.
    pub recovery_codes: Vec<String>,
}

impl fmt::Debug for Claimed {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "Claimed({:?}, …)", self.account)
    }
}

/// Secrets that wait for their first code, by the hash of the invitation.
#[derive(Default)]
pub(super) struct Enrolments(HashMap<[u8; 32], Waiting>);

struct Waiting {
    secret: TotpSecret,
    since_ms: u64,
}

impl Enrolments {
    /// The secret for an invitation: the same one as long as it waits, so that looking twice does no harm.
    fn begin(&mut self, invitation: SecretHash, now_ms: u64) -> TotpSecret {
        self.0.retain(|_, waiting| now_ms < waiting.since_ms.saturating_add(ENROLMENT_LIFE_MS));
        if self.0.len() >= MAX_ENROLMENTS && !self.0.contains_key(invitation.as_bytes()) {
            let oldest = self.0.iter().min_by_key(|(_, waiting)| waiting.since_ms).map(|(hash, _)| *hash);
            oldest.map(|oldest| self.0.remove(&oldest));
        }
        let fresh = || Waiting { secret: TotpSecret::generate(), since_ms: now_ms };
        self.0.entry(*invitation.as_bytes()).or_insert_with(fresh).secret.clone()
    }

    fn get(&self, invitation: SecretHash, now_ms: u64) -> Option<TotpSecret> {
        let waiting = self.0.get(invitation.as_bytes())?;
        (now_ms < waiting.since_ms.saturating_add(ENROLMENT_LIFE_MS)).then(|| waiting.secret.clone())
    }

    fn end(&mut self, invitation: SecretHash) {
        self.0.remove(invitation.as_bytes());
    }
}

impl Accounts {
    /// Invites a person to a new account called `name`.
    ///
    /// # Errors
    ///
    /// [`AccountError::BadPerson`], [`AccountError::NameTaken`]; or if the vault cannot be written.
    pub async fn invite(&self, name: &str, email: Option<&str>, now_ms: u64) -> Result<Invited, AccountError> {
        let (inner, person) = (Arc::clone(&self.0), Person::local(name, email)?);
        to_the_end(async move { inner.invite(person, now_ms).await }).await
    }

    /// Invites the owner of an account to choose password and factor anew. The old ones and every session end now.
    ///
    /// # Errors
    ///
    /// [`AccountError::Unknown`], [`AccountError::OfProvider`]; or if the vault cannot be written.
    pub async fn reset(&self, account: &str, now_ms: u64) -> Result<Invited, AccountError> {
        let (inner, account) = (Arc::clone(&self.0), account.to_owned());
        to_the_end(async move { inner.reset(&account, now_ms).await }).await
    }

    /// The first step of accepting an invitation: a secret for one-time codes. Nothing is stored.
    ///
    /// # Errors
    ///
    /// [`AccountError::BadInvitation`].
    pub fn begin_claim(&self, invitation: &str, now_ms: u64) -> Result<Enrolment, AccountError> {
        let hash = invitation_hash(invitation)?;
        let name = self.0.invited(hash, now_ms)?.1;
        let secret = self.0.enrolments.lock().begin(hash, now_ms);
        Ok(Enrolment { otpauth_url: secret.enrolment_url(&name), secret: secret.reveal(), name })
    }

    /// The second step: `code` proves that the secret arrived, and `password` is chosen. From then on the account can be
    /// signed in to, and the invitation is used up.
    ///
    /// # Errors
    ///
    /// [`AccountError::BadInvitation`], [`AccountError::NotBegun`], [`AccountError::WrongCode`],
    /// [`AccountError::WeakPassword`], after each of which nothing has changed; or if the vault cannot be written.
    pub async fn finish_claim(
        &self,
        invitation: &str,
        password: &str,
        code: &str,
        now_ms: u64,
    ) -> Result<Claimed, AccountError> {
        let hash = invitation_hash(invitation)?;
        let (_, name) = self.0.invited(hash, now_ms)?;
        let secret = self.0.enrolments.lock().get(hash, now_ms).ok_or(AccountError::NotBegun)?;
        let step = secret.matching_step(code, now_ms, None).ok_or(AccountError::WrongCode)?;
        check_strength(password, &name)?;
        let password_hash = self.0.passwords.hash(password).await?;
        let factor = TotpRecord { secret: secret.reveal(), used: Some(step) };
        let inner = Arc::clone(&self.0);
        to_the_end(async move { inner.finish_claim(hash, password_hash, factor, now_ms).await }).await
    }

    /// Forgets the invitations that lapsed and says how many there were. To be called now and then.
    ///
    /// # Errors
    ///
    /// If the vault cannot be written; they stay lapsed.
    pub async fn sweep(&self, now_ms: u64) -> Result<usize, AccountError> {
        let inner = Arc::clone(&self.0);
        to_the_end(async move { inner.sweep(now_ms).await }).await
    }
}

impl Inner {
    /// Id and name of the account that an open invitation is for.
    fn invited(&self, hash: SecretHash, now_ms: u64) -> Result<(String, String), AccountError> {
        let index = self.index.read();
        let (account, known) = index.invited(&hash, now_ms).ok_or(AccountError::BadInvitation)?;
        Ok((account.clone(), known.person.name.clone()))
    }

    async fn invite(&self, person: Person, now_ms: u64) -> Result<Invited, AccountError> {
        let _writing = self.writing.lock().await;
        if self.index.read().named(&person.name).is_some() {
            return Err(AccountError::NameTaken);
        }
        let (invited, invitation) = invitation(new_id(), now_ms);
        let entries = vec![
            entry(Kind::Actor, &invited.account, person.to_record()),
            entry(Kind::Invitation, &invited.account, json(&invitation)),
        ];
        self.vault.put_many(entries).await?;
        let known = Known { person, claimed: false, invitation: Some(invitation), epoch: 0 };
        self.index.write().insert(&invited.account, known);
        Ok(invited)
    }

    async fn reset(&self, account: &str, now_ms: u64) -> Result<Invited, AccountError> {
        let _writing = self.writing.lock().await;
        let known = self.index.read().get(account).cloned().ok_or(AccountError::Unknown)?;
        if known.person.provider.is_some() {
            return Err(AccountError::OfProvider);
        }
        let (invited, invitation) = invitation(account.to_owned(), now_ms);
        // One write: there is no moment at which the old password stands and the new invitation too.
        let entries = vec![
            entry(Kind::PasswordHash, account, Vec::new()),
            entry(Kind::TotpSecret, account, Vec::new()),
            entry(Kind::RecoveryCodes, account, Vec::new()),
            entry(Kind::Invitation, account, json(&invitation)),
        ];
        self.vault.put_many(entries).await?;
        let reset = Known { claimed: false, invitation: Some(invitation), epoch: known.epoch + 1, ..known };
        self.index.write().insert(account, reset);
        self.sessions.end_all_of(account).await?;
        Ok(invited)
    }

    async fn finish_claim(
        &self,
        hash: SecretHash,
        password_hash: String,
        factor: TotpRecord,
        now_ms: u64,
    ) -> Result<Claimed, AccountError> {
        let _writing = self.writing.lock().await;
        // Somebody may have used or replaced it while the password was hashed.
        let (account, _) = self.invited(hash, now_ms)?;
        let known = self.index.read().get(&account).cloned().ok_or(AccountError::BadInvitation)?;
        let (codes, recovery_codes) = RecoveryCodes::generate();
        let entries = vec![
            entry(Kind::PasswordHash, &account, password_hash.into_bytes()),
            entry(Kind::TotpSecret, &account, json(&factor)),
            entry(Kind::RecoveryCodes, &account, codes.to_bytes()),
            entry(Kind::Invitation, &account, Vec::new()),
        ];
        self.vault.put_many(entries).await?;
        let claimed = Known { claimed: true, invitation: None, epoch: known.epoch + 1, ..known };
        self.index.write().insert(&account, claimed);
        self.enrolments.lock().end(hash);
        Ok(Claimed { account, recovery_codes })
    }

    async fn sweep(&self, now_ms: u64) -> Result<usize, AccountError> {
        let _writing = self.writing.lock().await;
        let lapsed: Vec<(String, Known)> = {
            let index = self.index.read();
            let is_lapsed = |known: &Known| known.invitation.as_ref().is_some_and(|open| now_ms >= open.expires_at);
            index.iter().filter(|(_, known)| is_lapsed(known)).map(|(id, known)| (id.clone(), known.clone())).collect()
        };
        for (account, known) in &lapsed {
            self.vault.delete(Kind::Invitation, account).await?;
            self.index.write().insert(account, Known { invitation: None, ..known.clone() });
        }
        Ok(lapsed.len())
    }
}

fn invitation(account: String, now_ms: u64) -> (Invited, Invitation) {
    let credential = Credential::generate(CredentialKind::Invitation, &mut rand::rng());
    let expires_at = now_ms.saturating_add(INVITATION_LIFE_MS);
    let stored = Invitation { hash: credential.hash().to_hex(), expires_at };
    (Invited { account, credential, expires_at }, stored)
}

fn invitation_hash(text: &str) -> Result<SecretHash, AccountError> {
    let credential: Credential = text.trim().parse().map_err(|_| AccountError::BadInvitation)?;
    if credential.kind() != CredentialKind::Invitation {
        return Err(AccountError::BadInvitation);
    }
    Ok(credential.hash())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn waiting_secrets_are_bounded_and_lapse() {
        let mut enrolments = Enrolments::default();
        let hash = |index: usize| SecretHash::of(&index.to_string());
        let first = enrolments.begin(hash(0), 0);
        assert!(enrolments.begin(hash(0), 10) == first && enrolments.get(hash(0), 10) == Some(first));
        for index in 1..=MAX_ENROLMENTS {
            enrolments.begin(hash(index), index as u64);
        }
        assert_eq!(enrolments.0.len(), MAX_ENROLMENTS);
        assert_eq!(enrolments.get(hash(0), 10), None);
        let lapse = 1 + ENROLMENT_LIFE_MS;
        assert!(enrolments.get(hash(1), lapse).is_none() && enrolments.get(hash(2), lapse).is_some());
    }
}
