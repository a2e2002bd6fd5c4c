//! What goes wrong with accounts and sessions, as callers read it.

use crate::http::problem::{Code, Fault, Problem};
use crate::http::write::invalid;
use crate::identity::accounts::{AccountError, BadPerson};
use crate::identity::password::PasswordError;
use crate::identity::sign_in::SignInError;
use crate::log::AppendError;
use crate::vault::VaultError;

/// Seconds after which a hash of a password may find room.
const BUSY_RETRY_S: u64 = 2;

impl From<SignInError> for Problem {
    fn from(error: SignInError) -> Self {
        let detail = format!("{}.", sentence(&error.to_string()));
        match error {
            SignInError::Wait { seconds } => Self::new(Code::TooManyRequests, detail).retry_after_s(seconds),
            SignInError::Refused | SignInError::NoSession => Self::new(Code::Unauthorized, detail),
            SignInError::ShutOut | SignInError::OfProvider => Self::new(Code::Forbidden, detail),
            SignInError::Busy => Self::new(Code::TooManyRequests, detail).retry_after_s(BUSY_RETRY_S),
            SignInError::Account(error) => error.into(),
            SignInError::Vault(error) => of_vault(error),
        }
    }
}

impl From<AccountError> for Problem {
    fn from(error: AccountError) -> Self {
        let text = error.to_string();
        let detail = format!("{}.", sentence(&text));
        let fault = |pointer: &str, code: &str| invalid(vec![Fault::new(pointer, code, text.clone())]);
        match error {
            AccountError::BadPerson(BadPerson::Name) => fault("/name", "badName"),
            AccountError::BadPerson(BadPerson::Email) => fault("/email", "badEmail"),
            AccountError::NameTaken => Self::new(Code::Conflict, detail),
            AccountError::Unknown => Self::new(Code::NotFound, detail),
            AccountError::OfProvider => Self::new(Code::Conflict, detail),
            AccountError::BadInvitation => Self::new(Code::Unauthorized, detail),
            AccountError::NotBegun => fault("/invitation", "notBegun"),
            AccountError::WrongCode => fault("/code", "wrongCode"),
            AccountError::WeakPassword(_) => fault("/password", "weakPassword"),
            AccountError::Password(PasswordError::Busy) => {
                Self::new(Code::TooManyRequests, detail).retry_after_s(BUSY_RETRY_S)
            }
            AccountError::Vault(error) => of_vault(error),
            AccountError::Password(_) | AccountError::Unreadable(_) => Self::internal(text),
        }
    }
}

fn of_vault(error: VaultError) -> Problem {
    match error {
        VaultError::Append(AppendError::DiskFull) => {
            Problem::new(Code::DiskFull, format!("{}.", sentence(&error.to_string())))
        }
        other => Problem::internal(other),
    }
}

/// With a capital.
fn sentence(text: &str) -> String {
    let mut characters = text.chars();
    characters.next().map(|first| first.to_uppercase().chain(characters).collect()).unwrap_or_default()
}
