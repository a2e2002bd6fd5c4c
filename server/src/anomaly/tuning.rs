//! The numbers of the detector, with their reasons. They are the same for every series.

/// Everything that could be set. There is nothing to set: [`Tuning::default`] serves all series, and the one knob is the
/// [`Sensitivity`](super::Sensitivity). The fields are for measuring how much each number matters.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Tuning {
    /// Weight of a new value in the quickest level, which follows within some points: spikes stand out against it.
    pub fast: f64,
    /// Weight in the means over some dozen points: shifts of level and noise show there before they are old.
    pub short: f64,
    /// Weight in the level and noise of the last few hundred points.
    pub long: f64,
    /// Weight in the slowest level, of about a thousand points: what drifts leaves it.
    pub slowest: f64,
    /// Least weight of a new value in its half hour of the day.
    pub season: f64,
    /// Of the distance from the quickest level.
    pub weight_spike: f64,
    /// Of the distance from what is usual at this time.
    pub weight_season: f64,
    /// Of the recent mean of that distance.
    pub weight_shift: f64,
    /// Of recent noise against that of the last few hundred points.
    pub weight_noise: f64,
    /// Of the distance from the level of the last few hundred points.
    pub weight_level: f64,
    /// Of the distance from the slowest level.
    pub weight_drift: f64,
    /// What a doubling beyond everything seen adds, where large values are usually `1 - spread` doublings apart.
    pub excess: f64,
    /// Doublings added to the distance of large values, so that it is never zero.
    pub spread: f64,
    /// A magnitude that was reached within so many points is a common one.
    pub common: f64,
    /// How much more a series that is ten times as old has to show. With 1, false alarms would end; with 0, they would come
    /// at a constant rate.
    pub age: f64,
    /// Points of age at which nothing is added or taken.
    pub age_unit: f64,
    /// The views are joined by their power mean of this order: 1 would ask for agreement, a large one takes the loudest.
    pub power: f64,
    /// Share of the second look: whether the joined surprise is itself a record.
    pub second_look: f64,
    /// Surprise that starts an episode, in which only what is still more surprising is told.
    pub episode: f64,
    /// Points that an episode lasts.
    pub episode_points: f64,
}

impl Default for Tuning {
    fn default() -> Self {
        Self {
            fast: 0.15,
            short: 0.05,
            long: 0.003,
            slowest: 0.0017,
            season: 0.12,
            weight_spike: 0.7,
            weight_season: 1.0,
            weight_shift: 1.0,
            weight_noise: 1.0,
            weight_level: 1.0,
            weight_drift: 1.0,
            excess: 0.9,
            spread: 0.5,
            common: 85.0,
            age: 0.8,
            age_unit: 1_000.0,
            power: 3.5,
            second_look: 0.3,
            episode: 3.1,
            episode_points: 100.0,
        }
    }
}

impl Tuning {
    /// Every field by name, so that a measurement can move one at a time.
    pub fn fields(&mut self) -> [(&'static str, &mut f64); 20] {
        [
            ("fast", &mut self.fast),
            ("short", &mut self.short),
            ("long", &mut self.long),
            ("slowest", &mut self.slowest),
            ("season", &mut self.season),
            ("weight_spike", &mut self.weight_spike),
            ("weight_season", &mut self.weight_season),
            ("weight_shift", &mut self.weight_shift),
            ("weight_noise", &mut self.weight_noise),
            ("weight_level", &mut self.weight_level),
            ("weight_drift", &mut self.weight_drift),
            ("excess", &mut self.excess),
            ("spread", &mut self.spread),
            ("common", &mut self.common),
            ("age", &mut self.age),
            ("age_unit", &mut self.age_unit),
            ("power", &mut self.power),
            ("second_look", &mut self.second_look),
            ("episode", &mut self.episode),
            ("episode_points", &mut self.episode_points),
        ]
    }
}
