//! Passwords: which are good enough, and their argon2id hashes as PHC strings.
//!
//! Hashing costs 19 MiB and a good part of a second's processor time on purpose, so few run at once and few wait.

use std::fmt;
use std::sync::Arc;

use argon2::password_hash::{PasswordHasher, PasswordVerifier};
use argon2::{Algorithm, Argon2, Params, Version};
use rand::RngExt;
use tokio::sync::Semaphore;

/// Least length of a password, in characters.
pub const MIN_PASSWORD_CHARACTERS: usize = 12;
/// Greatest length of a password, in bytes.
pub const MAX_PASSWORD_BYTES: usize = 256;
/// Memory of one hash in KiB, passes over it and lanes: OWASP's second recommendation for argon2id.
const COST: (u32, u32, u32) = (19 << 10, 2, 1);
/// Hashes computed at once: 76 MiB.
const MAX_RUNNING: usize = 4;
/// Hashes computed or waited for at once. More are refused at once rather than kept waiting for seconds.
const MAX_ADMITTED: usize = 64;
/// Shortest account name that a password may not contain, in characters: shorter ones are in too many words.
const MIN_NAME_CHARACTERS: usize = 3;
/// Least number of different characters.
const MIN_DISTINCT_CHARACTERS: usize = 5;
/// Passwords of twelve characters and more that are on top of every list of guesses, in lower case.
const VERY_COMMON: &[&str] = &[
    "000000000000",
    "010203040506",
    "111111111111",
    "121212121212",
    "123123123123",
    "1234567890123",
    "123456789012",
    "1234567891011",
    "123456789123",
    "1q2w3e4r5t6y",
    "1qaz2wsx3edc",
    "abcdefghijkl",
    "administrator",
    "adminadminadmin",
    "changemenow123",
    "changemeplease",
    "correct horse battery staple",
    "correcthorsebatterystaple",
    "iloveyou1234",
    "letmein12345",
    "letmeinletmein",
    "password1234",
    "password12345",
    "password123456",
    "password2024!",
    "password2025!",
    "password2026!",
    "passwordpassword",
    "q1w2e3r4t5y6",
    "qwerty123456",
    "qwertyqwerty",
    "qwertyuiop12",
    "qwertyuiop123",
    "qwertyuiopasdfghjkl",
    "welcome12345",
    "welcomewelcome",
    "zaq12wsxcde3",
];

/// Why a password may not be chosen.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum WeakPassword {
    /// Too short.
    #[error("a password has at least {MIN_PASSWORD_CHARACTERS} characters; a few unrelated words make a good one")]
    TooShort,
    /// Too long.
    #[error("a password has at most {MAX_PASSWORD_BYTES} bytes")]
    TooLong,
    /// The account's name is in it.
    #[error("a password does not contain the account's name; choose a few unrelated words")]
    ContainsName,
    /// Everybody guesses it.
    #[error("this password is among the first that are guessed; choose a few unrelated words")]
    Common,
}

/// Why a password was neither hashed nor verified.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum PasswordError {
    /// Too many sign-ins at once.
    #[error("too many sign-ins at once; try again in a few seconds")]
    Busy,
    /// The thread was interrupted, or there was no memory for it.
    #[error("the password could not be hashed; try again")]
    Failed,
}

/// Whether `password` may be chosen by the account called `name`.
///
/// # Errors
///
/// [`WeakPassword`].
pub fn check_strength(password: &str, name: &str) -> Result<(), WeakPassword> {
    if password.len() > MAX_PASSWORD_BYTES {
        return Err(WeakPassword::TooLong);
    }
    if password.chars().count() < MIN_PASSWORD_CHARACTERS {
        return Err(WeakPassword::TooShort);
    }
    let (password, name) = (password.to_lowercase(), name.to_lowercase());
    let local_part = name.split('@').next().unwrap_or_default();
    let long_enough = |part: &&str| part.chars().count() >= MIN_NAME_CHARACTERS;
    if [name.as_str(), local_part].iter().filter(|part| long_enough(part)).any(|part| password.contains(part)) {
        return Err(WeakPassword::ContainsName);
    }
    let distinct: std::collections::BTreeSet<char> = password.chars().collect();
    if distinct.len() < MIN_DISTINCT_CHARACTERS || VERY_COMMON.contains(&password.trim()) {
        return Err(WeakPassword::Common);
    }
    Ok(())
}

/// Hashes and verifies passwords, a few at once.
pub struct Passwords {
    params: Params,
    /// What is verified where there is no account, so that the answer takes as long.
    dummy: Arc<str>,
    admitted: Arc<Semaphore>,
    running: Arc<Semaphore>,
}

impl Passwords {
    /// Prepares to hash at the server's cost. Blocks for as long as one hash takes.
    ///
    /// # Errors
    ///
    /// [`PasswordError::Failed`] if there is no memory for a hash.
    pub fn new() -> Result<Self, PasswordError> {
        Self::with_cost(COST)
    }

    /// Hashes that cost next to nothing, for tests of what is above.
    #[cfg(test)]
    pub(crate) fn quick() -> Self {
        Self::with_cost((8, 1, 1)).unwrap()
    }

    fn with_cost((memory_kib, passes, lanes): (u32, u32, u32)) -> Result<Self, PasswordError> {
        let params = Params::new(memory_kib, passes, lanes, None).map_err(|_| PasswordError::Failed)?;
        let nobodys: [u8; 32] = rand::rng().random();
        let dummy = hash_now(&params, &nobodys)?.into();
        let semaphore = |permits| Arc::new(Semaphore::new(permits));
        Ok(Self { params, dummy, admitted: semaphore(MAX_ADMITTED), running: semaphore(MAX_RUNNING) })
    }

    /// The PHC string to store for `password`.
    ///
    /// # Errors
    ///
    /// [`PasswordError`].
    pub async fn hash(&self, password: &str) -> Result<String, PasswordError> {
        let (params, password) = (self.params.clone(), Secret(password.as_bytes().to_vec()));
        self.run(move || hash_now(&params, &password.0)).await?
    }

    /// Whether `password` is the one behind the PHC string `stored`. Where there is none, the same work is done and the
    /// answer is no.
    ///
    /// # Errors
    ///
    /// [`PasswordError`].
    pub async fn verify(&self, password: &str, stored: Option<&str>) -> Result<bool, PasswordError> {
        let exists = stored.is_some();
        let stored: Arc<str> = stored.map_or_else(|| Arc::clone(&self.dummy), Arc::from);
        // A longer one cannot be right, but takes the same time as any.
        let fits = password.len() <= MAX_PASSWORD_BYTES;
        let password = Secret(if fits { password.as_bytes().to_vec() } else { Vec::new() });
        let params = self.params.clone();
        let matches = move || argon2(&params).verify_password(&password.0, &*stored).is_ok();
        Ok(self.run(matches).await? && exists && fits)
    }

    async fn run<T: Send + 'static>(&self, work: impl FnOnce() -> T + Send + 'static) -> Result<T, PasswordError> {
        let admitted = Arc::clone(&self.admitted).try_acquire_owned().map_err(|_| PasswordError::Busy)?;
        let running = Arc::clone(&self.running).acquire_owned().await.map_err(|_| PasswordError::Failed)?;
        let done = tokio::task::spawn_blocking(move || {
            // Held for as long as the memory is, though nobody wait for the answer any more.
            let _permits = (admitted, running);
            work()
        });
        done.await.map_err(|_| PasswordError::Failed)
    }
}

impl fmt::Debug for Passwords {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.debug_struct("Passwords").finish_non_exhaustive()
    }
}

/// A password on its way to another thread.
struct Secret(Vec<u8>);

fn argon2(params: &Params) -> Argon2<'static> {
    Argon2::new(Algorithm::Argon2id, Version::V0x13, params.clone())
}

fn hash_now(params: &Params, password: &[u8]) -> Result<String, PasswordError> {
    let salt: [u8; 16] = rand::rng().random();
    let hash = argon2(params).hash_password_with_salt(password, &salt).map_err(|_| PasswordError::Failed)?;
    Ok(hash.to_string())
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn weak_passwords_are_refused_with_the_reason() {
        let cases = [
            ("elevenchars", "ada", Err(WeakPassword::TooShort)),
            ("zwölf éééßß", "ada", Err(WeakPassword::TooShort)),
            ("I am Ada, let me in", "ada", Err(WeakPassword::ContainsName)),
            ("lovelace-is-the-name", "LoveLace@example.com", Err(WeakPassword::ContainsName)),
            ("PasswordPassword", "ada", Err(WeakPassword::Common)),
            ("abababababababab", "ada", Err(WeakPassword::Common)),
            ("al pine meadows glow", "al", Ok(())),
            ("quiet-otter-sings-92", "ada", Ok(())),
        ];
        for (password, name, expected) in cases {
            assert_eq!(check_strength(password, name), expected, "{password}");
        }
        assert_eq!(check_strength(&"long word ".repeat(26), "ada"), Err(WeakPassword::TooLong));
    }

    #[tokio::test]
    async fn the_hash_is_argon2id_at_the_recommended_cost() {
        let passwords = Passwords::new().unwrap();
        let stored = passwords.hash("quiet-otter-sings-92").await.unwrap();
        assert!(stored.starts_with("$argon2id$v=19$m=19456,t=2,p=1$"), "{stored}");
        assert!(passwords.dummy.starts_with("$argon2id$v=19$m=19456,t=2,p=1$"));
        assert!(passwords.verify("quiet-otter-sings-92", Some(&stored)).await.unwrap());
        assert!(!passwords.verify("quiet-otter-sings-93", Some(&stored)).await.unwrap());
        assert_ne!(passwords.hash("quiet-otter-sings-92").await.unwrap(), stored);
    }

    #[tokio::test]
    async fn nobody_has_no_password() {
        let passwords = Passwords::quick();
        for password in ["", "anything at all", &"x".repeat(MAX_PASSWORD_BYTES + 1)] {
            assert!(!passwords.verify(password, None).await.unwrap());
            assert!(!passwords.verify(password, Some("not a PHC string")).await.unwrap());
        }
        let stored = passwords.hash("").await.unwrap();
        assert!(!passwords.verify(&"x".repeat(MAX_PASSWORD_BYTES + 1), Some(&stored)).await.unwrap());
    }

    #[tokio::test]
    async fn too_many_at_once_are_refused() {
        let passwords = Passwords::quick();
        let held = Arc::clone(&passwords.admitted).acquire_many_owned(MAX_ADMITTED as u32).await.unwrap();
        assert_eq!(passwords.verify("anything", None).await, Err(PasswordError::Busy));
        drop(held);
        assert_eq!(passwords.verify("anything", None).await, Ok(false));
    }

    proptest! {
        #[test]
        fn any_text_is_judged(password in "\\PC{0,300}", name in "\\PC{0,20}") {
            if check_strength(&password, &name).is_ok() {
                prop_assert!(password.len() <= MAX_PASSWORD_BYTES);
                prop_assert!(password.chars().count() >= MIN_PASSWORD_CHARACTERS);
            }
        }
    }
}
