//! What others do: z-tests at the end, z-tests looked at again and again, and the always-valid mSPRT, on requests.

use guidon_sdk::measure::Moments;
use guidon_server::metrics::Pair;

/// Sums that every rival reads.
#[derive(Clone, Copy)]
pub enum On {
    Errors,
    Latency,
}

/// A difference with its standard error.
#[derive(Default)]
pub struct Rival {
    errors: [u64; 2],
    counts: [u64; 2],
    values: [Moments; 2],
}

/// One-sided 1 % point of the standard normal.
pub const Z: f64 = 2.326_347_874_040_841;

impl Rival {
    pub fn add(&mut self, pair: &Pair) {
        for (arm, tally) in [&pair.treatment, &pair.control].into_iter().enumerate() {
            self.errors[arm] += tally.errors;
            self.counts[arm] += tally.count;
            self.values[arm].merge(&tally.values);
        }
    }

    /// Difference (worse is above 0), its variance, and the scale of effects the mSPRT expects. None before there are enough.
    fn difference(&self, on: On) -> Option<(f64, f64, f64)> {
        let [n, m] = self.counts.map(|count| count as f64);
        if n < 20.0 || m < 20.0 {
            return None;
        }
        match on {
            On::Errors => {
                let [x, y] = self.errors.map(|errors| errors as f64);
                let pooled = (x + y) / (n + m);
                Some((x / n - y / m, pooled * (1.0 - pooled) * (1.0 / n + 1.0 / m), 0.01))
            }
            On::Latency => {
                let [t, c] = self.values;
                let (mean, beside) = (t.mean()?, c.mean()?);
                Some((mean - beside, t.variance()? / n + c.variance()? / m, 0.1 * beside))
            }
        }
    }

    pub fn z(&self, on: On) -> f64 {
        self.difference(on)
            .filter(|(_, variance, _)| *variance > 0.0)
            .map_or(0.0, |(d, variance, _)| d / variance.sqrt())
    }

    /// The mixture sequential probability ratio (Johari, Koomen, Pekelis, Walsh, "Always valid inference", 2022).
    pub fn msprt(&self, on: On) -> f64 {
        let Some((difference, variance, scale)) = self.difference(on) else { return 1.0 };
        if difference <= 0.0 || variance <= 0.0 {
            return 1.0;
        }
        let mixing = scale * scale;
        (variance / (variance + mixing)).sqrt()
            * (difference * difference * mixing / (2.0 * variance * (variance + mixing))).min(600.0).exp()
    }
}
