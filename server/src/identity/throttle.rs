//! Slows the guessing of passwords and codes: a wait that doubles with every failure, in bounded memory.
//!
//! Failures are counted three times: for an account as seen from one network, for an account as seen from everywhere, and
//! for an address whatever the account. An attacker elsewhere thus makes a person wait neither long nor, once that person
//! has signed in from a network, at all there.
//!
//! An attempt counts as failed from its beginning until it succeeds, so that many at once are not all let through.

use std::collections::HashMap;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use parking_lot::Mutex;

/// Failures before there is a wait.
const FREE_FAILURES: u32 = 5;
/// Failures of one account from everywhere before there is a wait from networks that it is not known from.
const FREE_FAILURES_EVERYWHERE: u32 = 50;
/// Quiet time, after the wait, that failures are forgotten after, in milliseconds.
const WINDOW_MS: u64 = 15 * 60 * 1000;
/// The first wait, in milliseconds.
const FIRST_WAIT_MS: u64 = 1000;
/// The longest wait, in milliseconds.
const MAX_WAIT_MS: u64 = 15 * 60 * 1000;
/// The longest wait for an account from everywhere: it falls on its owner too, so it only takes the attacker's speed.
const MAX_WAIT_EVERYWHERE_MS: u64 = 30 * 1000;
/// Most entries in each of the counts. Past it, the one whose last failure is longest ago goes.
const MAX_ENTRIES: usize = 20_000;
/// Networks remembered for each account.
const MAX_NETWORKS: usize = 8;

/// An account's name, hashed: whatever is typed in takes sixteen bytes.
type AccountKey = [u8; 16];

/// Counts failed attempts and says how long to wait.
#[derive(Default)]
pub struct Throttle {
    counts: Mutex<Counts>,
}

#[derive(Default)]
struct Counts {
    from_network: HashMap<(AccountKey, IpAddr), Failures>,
    from_everywhere: HashMap<AccountKey, Failures>,
    of_address: HashMap<IpAddr, Failures>,
    /// Networks that an account was signed in to from, the latest last.
    known: HashMap<AccountKey, Known>,
}

#[derive(Default)]
struct Known {
    networks: Vec<IpAddr>,
    at_ms: u64,
}

/// How failures turn into waits.
#[derive(Clone, Copy)]
struct Pace {
    free: u32,
    max_wait_ms: u64,
}

const PACE: Pace = Pace { free: FREE_FAILURES, max_wait_ms: MAX_WAIT_MS };
const PACE_EVERYWHERE: Pace = Pace { free: FREE_FAILURES_EVERYWHERE, max_wait_ms: MAX_WAIT_EVERYWHERE_MS };

#[derive(Clone, Copy, Default)]
struct Failures {
    count: u32,
    last_ms: u64,
}

impl Failures {
    fn wait_ms(self, pace: Pace) -> u64 {
        let Some(doublings) = self.count.checked_sub(pace.free + 1) else { return 0 };
        FIRST_WAIT_MS.saturating_mul(1_u64.checked_shl(doublings).unwrap_or(u64::MAX)).min(pace.max_wait_ms)
    }

    fn is_forgotten(self, pace: Pace, now_ms: u64) -> bool {
        now_ms >= self.last_ms.saturating_add(self.wait_ms(pace)).saturating_add(WINDOW_MS)
    }

    /// Milliseconds still to wait.
    fn remaining_ms(&mut self, pace: Pace, now_ms: u64) -> u64 {
        // A clock that was set back must not lengthen a wait.
        self.last_ms = self.last_ms.min(now_ms);
        self.last_ms.saturating_add(self.wait_ms(pace)).saturating_sub(now_ms)
    }
}

impl Throttle {
    /// One that has seen nothing.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Begins an attempt on the account called `account` from `address` at `now_ms` (milliseconds since 1970). It counts as
    /// failed until [`Throttle::succeeded`] or [`Throttle::withdrawn`] says otherwise.
    ///
    /// # Errors
    ///
    /// The seconds, at least 1, after which to try again. Such an attempt is not counted, and its password not to be looked
    /// at: the answer must not depend on it.
    pub fn begin(&self, account: &str, address: IpAddr, now_ms: u64) -> Result<(), u64> {
        let (account, network, host) = (account_key(account), network(address), host(address));
        let mut counts = self.counts.lock();
        let Counts { from_network, from_everywhere, of_address, known } = &mut *counts;
        let is_known = known.get(&account).is_some_and(|known| known.networks.contains(&network));
        let waits = [
            remaining(from_network, &(account, network), PACE, now_ms),
            remaining(of_address, &host, PACE, now_ms),
            if is_known { 0 } else { remaining(from_everywhere, &account, PACE_EVERYWHERE, now_ms) },
        ];
        let wait_ms = waits.into_iter().max().unwrap_or_default();
        if wait_ms > 0 {
            return Err(wait_ms.div_ceil(1000));
        }
        add(from_network, (account, network), PACE, now_ms);
        add(of_address, host, PACE, now_ms);
        if !is_known {
            add(from_everywhere, account, PACE_EVERYWHERE, now_ms);
        }
        Ok(())
    }

    /// The attempt succeeded: what was held against the account from there is forgotten, not what is held against the
    /// address, which could otherwise try one account of its own between two guesses at others.
    pub fn succeeded(&self, account: &str, address: IpAddr, now_ms: u64) {
        let (account, network) = (account_key(account), network(address));
        let mut counts = self.counts.lock();
        counts.from_network.remove(&(account, network));
        take_back(&mut counts.of_address, &host(address));
        // From a network that the account is known from, nothing was counted.
        if !counts.known.get(&account).is_some_and(|known| known.networks.contains(&network)) {
            take_back(&mut counts.from_everywhere, &account);
        }
        if counts.known.len() >= MAX_ENTRIES && !counts.known.contains_key(&account) {
            let oldest = counts.known.iter().min_by_key(|(_, known)| known.at_ms).map(|(account, _)| *account);
            oldest.map(|oldest| counts.known.remove(&oldest));
        }
        let known = counts.known.entry(account).or_default();
        known.at_ms = now_ms;
        known.networks.retain(|other| *other != network);
        known.networks.push(network);
        if known.networks.len() > MAX_NETWORKS {
            known.networks.remove(0);
        }
    }

    /// The attempt was neither right nor wrong: the server could not look.
    pub fn withdrawn(&self, account: &str, address: IpAddr) {
        let (account, network) = (account_key(account), network(address));
        let mut counts = self.counts.lock();
        take_back(&mut counts.from_network, &(account, network));
        take_back(&mut counts.of_address, &host(address));
        if !counts.known.get(&account).is_some_and(|known| known.networks.contains(&network)) {
            take_back(&mut counts.from_everywhere, &account);
        }
    }
}

impl std::fmt::Debug for Throttle {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.debug_struct("Throttle").finish_non_exhaustive()
    }
}

fn remaining<K: Eq + std::hash::Hash>(failures: &mut HashMap<K, Failures>, key: &K, pace: Pace, now_ms: u64) -> u64 {
    failures.get_mut(key).map_or(0, |failures| failures.remaining_ms(pace, now_ms))
}

fn add<K: Eq + std::hash::Hash + Copy>(failures: &mut HashMap<K, Failures>, key: K, pace: Pace, now_ms: u64) {
    if failures.len() >= MAX_ENTRIES && !failures.contains_key(&key) {
        failures.retain(|_, failures| !failures.is_forgotten(pace, now_ms));
        if failures.len() >= MAX_ENTRIES {
            let oldest = failures.iter().min_by_key(|(_, failures)| failures.last_ms).map(|(key, _)| *key);
            oldest.map(|oldest| failures.remove(&oldest));
        }
    }
    let entry = failures.entry(key).or_default();
    if entry.is_forgotten(pace, now_ms) {
        entry.count = 0;
    }
    *entry = Failures { count: entry.count.saturating_add(1), last_ms: now_ms };
}

fn take_back<K: Eq + std::hash::Hash>(failures: &mut HashMap<K, Failures>, key: &K) {
    if let Some(entry) = failures.get_mut(key) {
        entry.count = entry.count.saturating_sub(1);
    }
}

fn account_key(account: &str) -> AccountKey {
    let mut key = AccountKey::default();
    key.copy_from_slice(&blake3::hash(account.to_lowercase().as_bytes()).as_bytes()[..16]);
    key
}

/// What one person or company has: a /24 or a /64.
fn network(address: IpAddr) -> IpAddr {
    match address.to_canonical() {
        IpAddr::V4(address) => {
            let [a, b, c, _] = address.octets();
            Ipv4Addr::new(a, b, c, 0).into()
        }
        IpAddr::V6(_) => host(address),
    }
}

/// What one machine has: an address, or a /64.
fn host(address: IpAddr) -> IpAddr {
    match address.to_canonical() {
        IpAddr::V6(address) => {
            let [a, b, c, d, ..] = address.segments();
            Ipv6Addr::new(a, b, c, d, 0, 0, 0, 0).into()
        }
        address => address,
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn address(text: &str) -> IpAddr {
        text.parse().unwrap()
    }

    /// Fails until a wait is asked for, and answers it.
    fn fail_until_wait(throttle: &Throttle, account: &str, from: IpAddr, now_ms: u64) -> u64 {
        (0..1000).find_map(|_| throttle.begin(account, from, now_ms).err()).expect("a wait")
    }

    #[test]
    fn the_wait_doubles_from_one_second_to_fifteen_minutes() {
        let (throttle, here, mut now) = (Throttle::new(), address("192.0.2.7"), 1_000_000);
        for _ in 0..FREE_FAILURES {
            assert_eq!(throttle.begin("ada", here, now), Ok(()));
        }
        for expected in [1, 2, 4, 8, 16, 32, 64, 128, 256, 512, 900, 900] {
            assert_eq!(throttle.begin("ada", here, now), Ok(()));
            assert_eq!(throttle.begin("ada", here, now), Err(expected));
            assert_eq!(throttle.begin("ADA", here, now), Err(expected), "whatever the capitals");
            now += expected * 1000;
        }
        now += WINDOW_MS;
        assert_eq!(throttle.begin("ada", here, now), Ok(()));
        assert_eq!(throttle.begin("ada", here, now), Ok(()));
    }

    #[test]
    fn success_clears_the_account_but_not_the_address() {
        let (throttle, here, now) = (Throttle::new(), address("192.0.2.7"), 1_000_000);
        for _ in 0..FREE_FAILURES {
            throttle.begin("ada", here, now).unwrap();
        }
        throttle.begin("grace", here, now).unwrap();
        throttle.succeeded("grace", here, now);
        assert_eq!(throttle.begin("grace", here, now), Ok(()), "the sixth of the address");
        assert_eq!(throttle.begin("grace", here, now), Err(1));
        assert_eq!(throttle.begin("grace", address("192.0.2.8"), now), Ok(()));
    }

    #[test]
    fn the_account_waits_by_network() {
        let (throttle, now) = (Throttle::new(), 1_000_000);
        for last in 0..=FREE_FAILURES {
            throttle.begin("ada", format!("198.51.100.{last}").parse().unwrap(), now).unwrap();
        }
        assert_eq!(throttle.begin("ada", address("198.51.100.77"), now), Err(1));
        assert_eq!(throttle.begin("ada", address("198.51.101.77"), now), Ok(()));
        for last in 0..=FREE_FAILURES {
            throttle.begin("ada", format!("2001:db8::{last}").parse().unwrap(), now).unwrap();
        }
        assert_eq!(throttle.begin("grace", address("2001:db8::77"), now), Err(1), "a machine has its /64");
        assert_eq!(throttle.begin("ada", address("2001:db8:0:1::77"), now), Ok(()));
    }

    #[test]
    fn an_attack_from_everywhere_slows_but_does_not_lock_out() {
        let (throttle, now) = (Throttle::new(), 1_000_000);
        let home = address("203.0.113.5");
        throttle.begin("ada", home, now).unwrap();
        throttle.succeeded("ada", home, now);
        for network in 0..60_u8 {
            let _ = throttle.begin("ada", IpAddr::from([10, 0, network, 1]), now);
        }
        let wait = throttle.begin("ada", address("192.0.2.1"), now).unwrap_err();
        assert!(wait <= MAX_WAIT_EVERYWHERE_MS / 1000);
        assert_eq!(throttle.begin("ada", home, now), Ok(()), "from where its owner signs in");
        assert_eq!(throttle.begin("grace", address("192.0.2.1"), now), Ok(()));
    }

    #[test]
    fn a_clock_set_back_does_not_lengthen_the_wait() {
        let (throttle, here) = (Throttle::new(), address("192.0.2.7"));
        fail_until_wait(&throttle, "ada", here, 10_000_000);
        assert_eq!(throttle.begin("ada", here, 5_000_000), Err(1));
        assert_eq!(throttle.begin("ada", here, 5_001_000), Ok(()));
    }

    #[test]
    fn a_withdrawn_attempt_does_not_count() {
        let (throttle, here) = (Throttle::new(), address("192.0.2.7"));
        for _ in 0..100 {
            assert_eq!(throttle.begin("ada", here, 1000), Ok(()));
            throttle.withdrawn("ada", here);
        }
    }

    #[test]
    fn memory_is_bounded() {
        let throttle = Throttle::new();
        for index in 0..MAX_ENTRIES as u32 + 50 {
            let from = IpAddr::from((0x0a00_0000 + index * 256).to_be_bytes());
            let _ = throttle.begin(&format!("account {index}"), from, u64::from(index));
            throttle.succeeded(&format!("account {index}"), from, u64::from(index));
        }
        let counts = throttle.counts.lock();
        assert!(counts.from_network.len() <= MAX_ENTRIES && counts.from_everywhere.len() <= MAX_ENTRIES);
        assert!(counts.of_address.len() <= MAX_ENTRIES && counts.known.len() == MAX_ENTRIES);
    }

    proptest! {
        /// However attempts and pauses are mixed, no more get through than the waits allow, and waiting as long as one is
        /// told always helps.
        #[test]
        fn waiting_helps_and_nothing_else(pauses in prop::collection::vec(0_u64..2_000_000, 1..200)) {
            let (throttle, here, mut now) = (Throttle::new(), address("192.0.2.7"), 1_u64 << 40);
            let mut last_let_through = None::<u64>;
            let mut in_a_row = 0;
            for pause in pauses {
                now += pause;
                match throttle.begin("ada", here, now) {
                    Ok(()) => {
                        let quiet = last_let_through.is_none_or(|last| now - last >= WINDOW_MS + MAX_WAIT_MS);
                        in_a_row = if quiet { 1 } else { in_a_row + 1 };
                        last_let_through = Some(now);
                    }
                    Err(seconds) => {
                        prop_assert!((1..=MAX_WAIT_MS / 1000).contains(&seconds));
                        prop_assert!(in_a_row > FREE_FAILURES);
                        now += seconds * 1000;
                        prop_assert_eq!(throttle.begin("ada", here, now), Ok(()));
                        last_let_through = Some(now);
                        in_a_row += 1;
                    }
                }
            }
        }

        #[test]
        fn a_day_of_guessing_makes_few_guesses(step_ms in 1000_u64..10_000) {
            let (throttle, here) = (Throttle::new(), address("192.0.2.7"));
            let day = 24 * 60 * 60 * 1000;
            let guesses = (0..day / step_ms).filter(|index| throttle.begin("ada", here, index * step_ms).is_ok()).count();
            prop_assert!(guesses < 130, "{} guesses", guesses);
        }
    }
}
