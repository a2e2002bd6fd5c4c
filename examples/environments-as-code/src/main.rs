//! An authenticator app for the script beside it: prints the code that a secret has now.

use std::error::Error;
use std::io::Write;
use std::time::{SystemTime, UNIX_EPOCH};

use totp_rs::{Algorithm, Builder, Secret};

/// Seconds that a code stands for.
const STEP_S: u64 = 30;

#[expect(clippy::disallowed_methods, reason = "an authenticator app goes by the time of day")]
fn main() -> Result<(), Box<dyn Error>> {
    let secret = std::env::args().nth(1).ok_or("usage: environments-as-code SECRET")?;
    let secret = Secret::try_from_base32(&secret).map_err(|_| "the secret is not in base 32")?;
    let totp = Builder::new()
        .with_algorithm(Algorithm::SHA1)
        .with_digits(6)
        .with_step_duration(STEP_S)
        .with_secret(secret.as_bytes())
        .build_noncompliant();
    let now = SystemTime::now().duration_since(UNIX_EPOCH)?.as_secs();
    writeln!(std::io::stdout(), "{}", totp.generate(now))?;
    Ok(())
}
