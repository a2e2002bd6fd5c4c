//! The streaming detector: learned level, season and noise of one series.

use serde::{Deserialize, Serialize};

use super::records::{Records, Sided};
use super::season::Season;
use super::tuning::Tuning;

/// Points at the start that only fill the levels: distances from levels that nothing supports mean nothing.
const SETTLING_POINTS: u32 = 20;
/// Points at the start that are scored 0.
const LEARNING_POINTS: u32 = 100;
/// Values beyond this, up or down, are refused: differences of sums have to stay numbers.
const LARGEST_VALUE: f64 = 1e100;
/// How much more surprising than its start something has to be to be told within an episode.
const EPISODE_MARGIN: f64 = 0.3;
/// Surprise per factor of ten by which the score comes closer to 1.
const SURPRISE_PER_NINE: f64 = 3.0;
/// Views of a point.
const VIEWS: usize = 6;

/// Which view of the series a point stood out in most.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum Cause {
    /// Far from the points just before it.
    Spike,
    /// Far from what is usual at this time of the day and week.
    Season,
    /// The mean of the last dozen points is far from what is usual at this time.
    Shift,
    /// Neighbouring points differ more, or less, than they did.
    Noise,
    /// Far from the level of the last few hundred points.
    Level,
    /// Far from the level of the last thousand points.
    Drift,
}

/// In the order of the views.
const CAUSES: [Cause; VIEWS] = [Cause::Spike, Cause::Season, Cause::Shift, Cause::Noise, Cause::Level, Cause::Drift];

/// What the detector says of one point.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Reading {
    /// From 0 (nothing to see) to below 1. 0 for the first hundred points, and within an episode that was told already.
    pub score: f64,
    /// The view it stood out in most; `None` where the score is 0.
    pub cause: Option<Cause>,
    /// What was expected at this time, in the unit of the series.
    pub expected: f64,
}

/// Why a value was not taken. The detector is as it was before.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum Refused {
    /// NaN or infinite.
    #[error("the value is not a number: leave a missing value out")]
    NotANumber,
    /// Beyond 1e100, up or down.
    #[error("the value is beyond 1e100: choose a larger unit")]
    TooLarge,
}

/// The one knob: how readily a score counts as an anomaly. From 0 (only what was never seen) to 1; 0.5 unless stated.
#[derive(Debug, Clone, Copy, PartialEq, PartialOrd, Serialize, Deserialize)]
#[serde(from = "f64", into = "f64")]
pub struct Sensitivity(f64);

impl Sensitivity {
    /// Surprise needed at sensitivity 0.
    const MOST_SURPRISE: f64 = 5.0;
    /// By how much sensitivity 1 lowers it.
    const RANGE: f64 = 4.0;

    /// What is outside of 0 to 1 becomes the nearer end, no number 0.5.
    #[must_use]
    pub fn new(value: f64) -> Self {
        if value.is_nan() { Self::default() } else { Self(value.clamp(0.0, 1.0)) }
    }

    /// The score from which on a point is an anomaly.
    #[must_use]
    pub fn threshold(self) -> f64 {
        score_of(Self::MOST_SURPRISE - Self::RANGE * self.0)
    }
}

impl Default for Sensitivity {
    fn default() -> Self {
        Self(0.5)
    }
}

impl From<f64> for Sensitivity {
    fn from(value: f64) -> Self {
        Self::new(value)
    }
}

impl From<Sensitivity> for f64 {
    fn from(sensitivity: Sensitivity) -> Self {
        sensitivity.0
    }
}

fn score_of(surprise: f64) -> f64 {
    1.0 - 10_f64.powf(-surprise.max(0.0) / SURPRISE_PER_NINE)
}

/// The baseline of one series, and what is unlike it.
///
/// Feed it each value once, as it comes. Missing values are left out: nothing is interpolated, and only the season reads the
/// clock, so gaps and irregular, repeated or backward times do no harm.
///
/// Every point is looked at in six views, see [`Cause`]. In each, the distance from what was learned is turned into the time
/// since a distance of that size was last seen, which is a probability without assumptions about the noise. A
/// series that is older has to show more ([`Tuning::age`]), so that false alarms come ever more rarely instead of
/// at a constant rate. After an anomaly an episode of some hundred points tells only what is still worse.
///
/// State: about 16 kB, whatever the length of the series; [`Detector::bytes`] counts it. Serialised and read back, it goes
/// on as if nothing had happened. Counts points up to 4 billion; after that ages stop growing.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
pub struct Detector {
    /// Never stored: a newer version brings its own.
    #[serde(skip)]
    tuning: Tuning,
    points: u32,
    levels: Levels,
    season: Season,
    views: [Sided; VIEWS],
    joined: Records,
    episode: Option<Episode>,
}

/// Exponentially weighted means; in the unit of the series.
#[derive(Debug, Clone, Copy, PartialEq, Default, Serialize, Deserialize)]
struct Levels {
    fast: f64,
    long: f64,
    slowest: f64,
    /// Mean distance from what the season expected, lately.
    shift: f64,
    /// Mean size of that distance.
    off_by: f64,
    /// Mean distance of a point from the fast level, lately.
    noise_short: f64,
    /// The same over the last few hundred points.
    noise_long: f64,
}

/// Something was told, and is not told again.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
struct Episode {
    /// Number of the point that started it.
    since: u32,
    surprise: f64,
}

impl Detector {
    /// A detector that knows nothing.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// One with other numbers, to measure how much they matter.
    #[must_use]
    pub fn with_tuning(tuning: Tuning) -> Self {
        Self { tuning, ..Self::default() }
    }

    /// Points taken so far.
    #[must_use]
    pub fn points(&self) -> u32 {
        self.points
    }

    /// Bytes of memory that the state takes, on the heap too. The same for every series.
    #[must_use]
    pub fn bytes(&self) -> usize {
        size_of::<Self>()
            + self.season.heap_bytes()
            + self.joined.heap_bytes()
            + self.views.iter().map(Sided::heap_bytes).sum::<usize>()
    }

    /// Takes the next value of the series, at a time in Unix milliseconds, and says how anomalous it is, by what came before.
    ///
    /// # Errors
    ///
    /// If the value is no finite number, or too large to compute with.
    pub fn observe(&mut self, at_ms: i64, value: f64) -> Result<Reading, Refused> {
        if !value.is_finite() {
            return Err(Refused::NotANumber);
        }
        if value.abs() > LARGEST_VALUE {
            return Err(Refused::TooLarge);
        }
        if self.points == 0 {
            self.levels = Levels { fast: value, long: value, slowest: value, ..Levels::default() };
        }
        self.points = self.points.saturating_add(1);
        let expected = self.season.expected(at_ms).unwrap_or(self.levels.long);
        let distances = self.distances(at_ms, value, expected);
        if self.points < SETTLING_POINTS {
            return Ok(Reading { score: 0.0, cause: None, expected });
        }
        let (surprise, cause) = self.join(distances);
        let told = self.told(surprise);
        let score = if self.points < LEARNING_POINTS { 0.0 } else { score_of(told) };
        Ok(Reading { score, cause: cause.filter(|_| score > 0.0), expected })
    }

    /// How far the value is from what each view expects, in the order of [`CAUSES`]; then it is learned.
    fn distances(&mut self, at_ms: i64, value: f64, expected: f64) -> [f64; VIEWS] {
        let (tuning, levels) = (&self.tuning, &mut self.levels);
        // The first points weigh alike, until there are as many as the rate remembers.
        let rate = |rate: f64| rate.max(1.0 / f64::from(self.points));
        let off_by = value - expected;
        let usual = self.season.deviation(at_ms) + levels.off_by + 1e-9 * value.abs();
        let unseasonal = if usual > 0.0 && self.season.is_known(at_ms) { off_by / usual } else { 0.0 };
        self.season.learn(at_ms, value, off_by, tuning);
        levels.off_by += rate(tuning.long) * (off_by.abs() - levels.off_by);
        levels.shift += tuning.short * (off_by - levels.shift);

        let spike = value - levels.fast;
        levels.fast += rate(tuning.fast) * spike;
        levels.noise_long += rate(tuning.long) * (spike.abs() - levels.noise_long);
        levels.noise_short += rate(tuning.short) * (spike.abs() - levels.noise_short);
        // Bounded below, so that silence after noise is not infinitely far from it.
        let noise = if levels.noise_long > 0.0 {
            ((levels.noise_short + 0.01 * levels.noise_long) / (1.01 * levels.noise_long)).ln()
        } else {
            0.0
        };
        let level = value - levels.long;
        levels.long += rate(tuning.long) * level;
        let drift = value - levels.slowest;
        levels.slowest += rate(tuning.slowest) * drift;
        [spike, unseasonal, levels.shift, noise, level, drift]
    }

    /// The surprise of all views together, and the view that is most surprised.
    fn join(&mut self, distances: [f64; VIEWS]) -> (f64, Option<Cause>) {
        let tuning = &self.tuning;
        let weights = [
            tuning.weight_spike,
            tuning.weight_season,
            tuning.weight_shift,
            tuning.weight_noise,
            tuning.weight_level,
            tuning.weight_drift,
        ];
        let age = tuning.age * (f64::from(self.points) / tuning.age_unit).log10();
        let (mut sum, mut most, mut cause) = (0.0, 0.0, None);
        for (((view, distance), weight), of) in self.views.iter_mut().zip(distances).zip(weights).zip(CAUSES) {
            let seen = view.see(distance, self.points, tuning);
            // No distance is no surprise, however young the series.
            let surprise = if seen > 0.0 { (seen * weight - age).max(0.0) } else { 0.0 };
            sum += surprise.powf(tuning.power);
            if surprise > most {
                (most, cause) = (surprise, Some(of));
            }
        }
        if sum <= 0.0 {
            return (0.0, None);
        }
        let joined = sum.powf(tuning.power.recip());
        let plain = Tuning { excess: 0.0, ..*tuning };
        // As the records compare by 9 %, on a scale on which that is a small difference of surprise.
        let again = (self.joined.see(10_f64.powf(joined * 0.7), self.points, &plain) - age).max(0.0);
        ((1.0 - tuning.second_look) * joined + tuning.second_look * again, cause)
    }

    /// The surprise, or 0 within an episode that has begun with as much.
    fn told(&mut self, surprise: f64) -> f64 {
        let known = self.episode.is_some_and(|episode| {
            f64::from(self.points.saturating_sub(episode.since)) < self.tuning.episode_points
                && surprise < episode.surprise + EPISODE_MARGIN
        });
        if surprise > self.tuning.episode {
            self.episode = Some(Episode { since: self.points, surprise });
        }
        if known { 0.0 } else { surprise }
    }
}
