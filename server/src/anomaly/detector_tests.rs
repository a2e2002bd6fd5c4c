//! What the detector sees, what it leaves alone, and that it goes on after a restart.

use proptest::prelude::*;

use super::{Cause, Detector, Reading, Refused, Sensitivity};

const MINUTE_MS: i64 = 60_000;

/// Numbers from 0 to 1 without a pattern.
struct Uniform(u64);

impl Uniform {
    fn next(&mut self) -> f64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        (self.0 >> 11) as f64 / (1_u64 << 53) as f64
    }

    /// Nearly normal, around 0 with deviation 1 (Irwin and Hall: the sum of twelve).
    fn normal(&mut self) -> f64 {
        (0..12).map(|_| self.next()).sum::<f64>() - 6.0
    }
}

/// The readings of a series with a point every five minutes.
fn readings(values: impl IntoIterator<Item = f64>) -> Vec<Reading> {
    let mut detector = Detector::new();
    (0..).zip(values).map(|(index, value)| detector.observe(index * 5 * MINUTE_MS, value).unwrap()).collect()
}

/// Indices of the anomalies at the default sensitivity.
fn anomalies(readings: &[Reading]) -> Vec<usize> {
    let threshold = Sensitivity::default().threshold();
    (0..readings.len()).filter(|index| readings[*index].score >= threshold).collect()
}

/// Whether an anomaly is told within so many points from the place where it begins.
fn told(readings: &[Reading], place: usize, within: usize) -> bool {
    anomalies(readings).iter().any(|index| (place..place + within).contains(index))
}

/// 3,000 points: a day's curve with noise.
fn daily(seed: u64) -> Vec<f64> {
    let mut random = Uniform(seed);
    (0..3_000)
        .map(|index| {
            100.0 + 30.0 * (f64::from(index % 288) / 288.0 * std::f64::consts::TAU).sin() + 2.0 * random.normal()
        })
        .collect()
}

#[test]
fn a_spike_a_shift_and_a_drift_are_told() {
    for seed in 1..=10 {
        let mut spike = daily(seed);
        spike[2_000] += 60.0;
        assert!(told(&readings(spike), 2_000, 1), "spike, seed {seed}");

        let mut shift = daily(seed);
        shift[2_000..].iter_mut().for_each(|value| *value += 40.0);
        assert!(told(&readings(shift), 2_000, 60), "shift, seed {seed}");

        let mut drift = daily(seed);
        drift[2_000..].iter_mut().enumerate().for_each(|(index, value)| *value += index as f64 * 0.3);
        assert!(told(&readings(drift), 2_000, 600), "drift, seed {seed}");
    }
}

#[test]
fn what_is_usual_at_another_time_only_is_told() {
    let mut random = Uniform(7);
    let day = |index: usize| if (96..192).contains(&(index % 288)) { 80.0 } else { 20.0 };
    let mut values: Vec<f64> = (0..4_000).map(|index| day(index) + random.normal()).collect();
    // A working day at night.
    let night = 10 * 288 + 240;
    values[night..night + 40].iter_mut().for_each(|value| *value += 60.0);
    assert!(told(&readings(values), night, 40));
}

#[test]
fn healthy_series_are_left_alone() {
    let (mut alarms, mut days) = (0, 0.0);
    for seed in 1..=20 {
        let healthy = readings(daily(seed));
        alarms += anomalies(&healthy).len();
        days += healthy.len() as f64 / 288.0;
    }
    let rate = alarms as f64 / days;
    println!("{rate:.3} false alarms a day");
    assert!(rate < 0.7, "{rate} false alarms a day");
}

#[test]
fn an_alarm_is_told_once() {
    let mut values = daily(3);
    values[2_000..2_050].iter_mut().for_each(|value| *value += 200.0);
    let told = anomalies(&readings(values)).into_iter().filter(|index| (2_000..2_050).contains(index)).count();
    assert!((1..=5).contains(&told), "{told} times");
}

#[test]
fn a_cause_and_an_expectation_go_with_a_score() {
    let mut values = vec![10.0; 1_000];
    let mut random = Uniform(11);
    values.iter_mut().for_each(|value| *value += random.normal());
    values[900] = 100.0;
    let reading = readings(values)[900];
    assert!(reading.score > 0.99);
    assert!((reading.expected - 10.0).abs() < 2.0, "{}", reading.expected);
    assert!(matches!(reading.cause, Some(Cause::Spike | Cause::Level | Cause::Drift | Cause::Season)));
}

#[test]
fn what_is_no_number_is_refused_and_changes_nothing() {
    let mut detector = Detector::new();
    (0..200).for_each(|index| {
        detector.observe(index * MINUTE_MS, index as f64).unwrap();
    });
    let before = detector.clone();
    for value in [f64::NAN, f64::INFINITY, f64::NEG_INFINITY] {
        assert_eq!(detector.observe(0, value), Err(Refused::NotANumber));
    }
    assert_eq!(detector.observe(0, -1e101), Err(Refused::TooLarge));
    assert_eq!(detector, before);
}

#[test]
fn the_state_is_bounded() {
    let mut detector = Detector::new();
    let bytes = detector.bytes();
    let mut random = Uniform(5);
    for index in 0..50_000 {
        detector.observe(index * 1_000, random.normal() * (random.next() * 200.0 - 100.0).exp2()).unwrap();
    }
    assert_eq!(detector.bytes(), bytes);
    assert!(bytes <= 16 * 1_024, "{bytes} bytes");
}

#[test]
fn a_constant_series_is_no_anomaly() {
    assert!(readings(vec![42.0; 2_000]).iter().all(|reading| reading.score == 0.0));
    assert!(readings(vec![0.0; 2_000]).iter().all(|reading| reading.score == 0.0));
}

#[test]
fn the_knob_only_moves_the_threshold() {
    let at = |value| Sensitivity::new(value).threshold();
    assert!(at(0.0) > at(0.5) && at(0.5) > at(1.0) && at(1.0) > 0.0 && at(0.0) < 1.0);
    assert_eq!(at(f64::NAN), at(0.5));
    assert_eq!((at(-1.0), at(7.0)), (at(0.0), at(1.0)));
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(32))]

    #[test]
    fn any_values_at_any_times_give_a_score(
        points in prop::collection::vec((any::<i64>(), prop_oneof![any::<f64>(), -1e3_f64..1e3, Just(0.0), -1e100_f64..1e100]), 1..600),
    ) {
        let mut detector = Detector::new();
        for (at_ms, value) in points {
            if let Ok(reading) = detector.observe(at_ms, value) {
                prop_assert!((0.0..=1.0).contains(&reading.score), "{reading:?}");
                prop_assert!(reading.expected.is_finite(), "{reading:?}");
            }
        }
    }

    #[test]
    fn a_restart_makes_no_difference(seed in 1_u64..u64::MAX, at in 0_usize..600) {
        let mut random = Uniform(seed);
        let mut detector = Detector::new();
        let mut restarted = Detector::new();
        for index in 0..700_usize {
            if index == at {
                let stored = serde_json::to_string(&restarted).unwrap();
                restarted = serde_json::from_str(&stored).unwrap();
            }
            let (at_ms, value) = (index as i64 * MINUTE_MS, random.normal());
            let (one, other) = (detector.observe(at_ms, value).unwrap(), restarted.observe(at_ms, value).unwrap());
            prop_assert!((one.score - other.score).abs() < 1e-6, "point {index}: {one:?} {other:?}");
        }
    }

    #[test]
    fn nothing_is_seen_ahead(seed in 1_u64..u64::MAX, cut in 100_usize..500) {
        let mut random = Uniform(seed);
        let values: Vec<f64> = (0..500).map(|_| random.normal()).collect();
        let (whole, part) = (readings(values.iter().copied()), readings(values[..cut].iter().copied()));
        prop_assert_eq!(&whole[..cut], &part[..]);
    }
}
