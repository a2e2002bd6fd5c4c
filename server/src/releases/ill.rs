//! Which instances do worse than their peers: then it is the instance, and not the release. Pure.

use serde::Serialize;

use crate::metrics::{ArmTally, InstanceTally};

/// Instances below which nobody can be told from the rest.
pub const MIN_INSTANCES: usize = 3;
/// The largest share of the instances that can be ill at once; more is the release.
pub const MAX_ILL_SHARE: f64 = 1.0 / 3.0;
/// Failures, or calls for latencies, below which an instance is not judged.
const MIN_FAILURES: u64 = 3;
const MIN_CALLS: u64 = 30;
/// Chance, over all instances, that a healthy one is called ill where a release is about to be taken back. In doubt it is the
/// instance: then the tests begin anew, and a release that is bad after all is taken back a second or two later.
const CHANCE: f64 = 1e-4;
/// How many times its peers' 95th percentile an ill instance's is at least.
const SLOWER: f64 = 2.0;

/// An instance that does worse than its peers.
#[derive(Clone, Debug, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Ill {
    /// Its name.
    pub instance: String,
    /// Why, in words.
    pub reason: String,
    /// Its calls and failures under release.
    pub calls: u64,
    /// As above.
    pub errors: u64,
    /// Those of all its peers.
    pub peer_calls: u64,
    /// As above.
    pub peer_errors: u64,
    /// 95th percentile of its latency under release, in microseconds.
    pub p95: Option<f64>,
    /// The median of its peers'.
    pub peer_p95: Option<f64>,
}

/// The instances whose treatment does worse than their peers' treatment, the worst first. None if they are more than a third
/// of all: then it is not they.
#[must_use]
pub fn ill(instances: &[InstanceTally]) -> Vec<Ill> {
    let there: Vec<&InstanceTally> = instances.iter().filter(|it| it.treatment.count > 0).collect();
    if there.len() < MIN_INSTANCES {
        return Vec::new();
    }
    let total = |of: fn(&ArmTally) -> u64| there.iter().map(|it| of(&it.treatment)).sum::<u64>();
    let (calls, errors) = (total(|arm| arm.count), total(|arm| arm.errors));
    // Whoever fails most is left out of what is expected of the others, so that one ill instance does not hide another.
    let most = (there.len() as f64 * MAX_ILL_SHARE) as usize;
    let mut by_errors: Vec<&&InstanceTally> = there.iter().collect();
    by_errors.sort_by(|one, two| rate(&two.treatment).total_cmp(&rate(&one.treatment)));
    let suspects: Vec<&str> = by_errors.iter().take(most).map(|it| it.instance.as_str()).collect();
    let rest = there.iter().filter(|it| !suspects.contains(&it.instance.as_str()));
    let (rest_calls, rest_errors) =
        rest.fold((0, 0), |(calls, errors), it| (calls + it.treatment.count, errors + it.treatment.errors));
    let expected_rate = (rest_errors as f64 + 0.5) / (rest_calls as f64 + 1.0);
    let mut p95s: Vec<f64> = there.iter().filter_map(|it| p95(&it.treatment)).collect();
    p95s.sort_by(f64::total_cmp);
    let peer_p95 = p95s.get(p95s.len() / 2).copied();
    let mut found: Vec<Ill> = there
        .iter()
        .filter_map(|it| {
            let arm = &it.treatment;
            let expected = expected_rate * arm.count as f64;
            let unlikely = poisson_tail(arm.errors, expected) * (there.len() as f64) < CHANCE;
            let fails = arm.errors >= MIN_FAILURES && unlikely;
            let (own, beside) = (p95(arm), p95(&it.control));
            // Where its baseline is as slow, the instance is slow and not its treatment: another variation would not help.
            let slow = own.zip(peer_p95).is_some_and(|(own, peers)| own >= SLOWER * peers)
                && own.zip(beside).is_none_or(|(own, beside)| own >= SLOWER * beside)
                && p95s.len() >= MIN_INSTANCES;
            let reason = match (fails, slow) {
                (true, _) => {
                    format!("{} of its {} calls failed, {errors} of {calls} everywhere", arm.errors, arm.count)
                }
                (false, true) => "its calls take at least twice as long as its peers'".to_owned(),
                (false, false) => return None,
            };
            Some(Ill {
                instance: it.instance.clone(),
                reason,
                calls: arm.count,
                errors: arm.errors,
                peer_calls: calls - arm.count,
                peer_errors: errors - arm.errors,
                p95: own,
                peer_p95,
            })
        })
        .collect();
    found.sort_by(|one, two| two.errors.cmp(&one.errors).then_with(|| one.instance.cmp(&two.instance)));
    if found.len() > most { Vec::new() } else { found }
}

fn rate(arm: &ArmTally) -> f64 {
    if arm.count == 0 { 0.0 } else { arm.errors as f64 / arm.count as f64 }
}

fn p95(arm: &ArmTally) -> Option<f64> {
    (arm.count >= MIN_CALLS).then(|| arm.latency.quantile(0.95)).flatten()
}

/// An upper bound of the chance of `count` or more where `mean` are expected, both at least 0: Chernoff's bound for Poisson
/// counts, `exp(-m) (e m / k)^k` (Mitzenmacher, Upfal: "Probability and Computing", theorem 5.4).
fn poisson_tail(count: u64, mean: f64) -> f64 {
    let k = count as f64;
    if k <= mean {
        return 1.0;
    }
    (k - mean + k * (mean / k).ln()).min(0.0).exp()
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn instance(name: usize, calls: u64, errors: u64) -> InstanceTally {
        let arm = |count, errors| ArmTally { count, errors, ..ArmTally::default() };
        InstanceTally {
            instance: format!("i{name}"),
            treatment: arm(calls, errors),
            control: arm(20 * calls, 0),
            host: None,
            heard: 0,
            epoch: 0,
        }
    }

    fn names(instances: &[InstanceTally]) -> Vec<String> {
        ill(instances).into_iter().map(|ill| ill.instance).collect()
    }

    #[test]
    fn one_that_fails_where_its_peers_do_not_is_found() {
        let fleet = |bad: &[(usize, u64)]| -> Vec<InstanceTally> {
            (0..8)
                .map(|at| {
                    let errors = bad.iter().find(|(name, _)| *name == at).map_or(1, |(_, errors)| *errors);
                    instance(at, 100, errors)
                })
                .collect()
        };
        assert_eq!(names(&fleet(&[])), Vec::<String>::new());
        assert_eq!(names(&fleet(&[(3, 40)])), ["i3"]);
        assert_eq!(names(&fleet(&[(3, 40), (5, 60)])), ["i5", "i3"]);
        let all: Vec<(usize, u64)> = (0..8).map(|at| (at, 40)).collect();
        assert_eq!(names(&fleet(&all)), Vec::<String>::new(), "all of them are the release");
        let half: Vec<(usize, u64)> = (0..4).map(|at| (at, 40)).collect();
        assert_eq!(names(&fleet(&half)), Vec::<String>::new(), "half of them too");
        assert_eq!(names(&fleet(&[(3, 40)])[3..5]), Vec::<String>::new(), "of two nobody can tell which is ill");
    }

    #[test]
    fn a_slow_treatment_is_found_and_a_slow_instance_is_not() {
        let slow = |control_too: bool| -> Vec<InstanceTally> {
            (0..4)
                .map(|at| {
                    let mut tally = instance(at, 100, 0);
                    let micros = if at == 2 { 90_000.0 } else { 30_000.0 };
                    (0..100).for_each(|_| tally.treatment.latency.record(micros));
                    let micros = if at == 2 && control_too { 90_000.0 } else { 30_000.0 };
                    (0..100).for_each(|_| tally.control.latency.record(micros));
                    tally
                })
                .collect()
        };
        assert_eq!(names(&slow(false)), ["i2"]);
        assert_eq!(names(&slow(true)), Vec::<String>::new());
    }

    proptest! {
        #[test]
        fn the_bound_is_a_chance_and_falls(count in 0_u64..500, mean in 0.001_f64..500.0) {
            let (one, more) = (poisson_tail(count, mean), poisson_tail(count + 1, mean));
            prop_assert!((0.0..=1.0).contains(&one) && more <= one);
        }

        #[test]
        fn never_more_than_a_third_are_ill(errors in prop::collection::vec(0_u64..100, 3..20)) {
            let all: Vec<InstanceTally> = errors.iter().enumerate().map(|(at, errors)| instance(at, 100, *errors)).collect();
            prop_assert!(ill(&all).len() * 3 <= all.len());
        }
    }
}
