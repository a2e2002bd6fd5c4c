//! What is printed: who got which engine, and how each did.

use std::fmt::Write;
use std::time::Duration;

/// Words shown for each engine and interval.
const EXAMPLES: usize = 3;

/// Which engine answered, and for whom.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Answered {
    /// The AI-written engine.
    Ai,
    /// The baseline, as assigned.
    Baseline,
    /// The baseline, for an AI-written engine that failed.
    Fallback,
}

/// How an engine did.
#[derive(Debug, Default)]
struct Tally {
    right: usize,
    micros: Vec<u64>,
    examples: Vec<String>,
}

impl Tally {
    fn add(&mut self, wrong: &str, answer: Option<&str>, right: bool, took: Duration) {
        self.right += usize::from(right);
        self.micros.push(u64::try_from(took.as_micros()).unwrap_or(u64::MAX));
        if self.examples.len() < EXAMPLES {
            let mark = if right { "" } else { " (wrong)" };
            self.examples.push(format!("{wrong} -> {}{mark}", answer.unwrap_or("?")));
        }
    }

    fn merge(&mut self, other: Self) {
        self.right += other.right;
        self.micros.extend(other.micros);
    }

    fn describe(&mut self, name: &str) -> String {
        if self.micros.is_empty() {
            return format!("{name:<9} {:>6}", 0);
        }
        self.micros.sort_unstable();
        let quantile = |share: f64| self.micros[((self.micros.len() - 1) as f64 * share) as usize] as f64 / 1000.0;
        let share = 100.0 * self.right as f64 / self.micros.len() as f64;
        format!(
            "{name:<9} {:>6} words  {share:>5.1} % right  p50 {:>7.3} ms  p99 {:>7.3} ms",
            self.micros.len(),
            quantile(0.5),
            quantile(0.99)
        )
    }
}

/// Counts of one interval, or of all.
#[derive(Debug, Default)]
pub struct Report {
    ai: Tally,
    baseline: Tally,
    fallback: Tally,
}

impl Report {
    /// Counts one answer.
    pub fn add(&mut self, answered: Answered, wrong: &str, answer: Option<&str>, right: bool, took: Duration) {
        let tally = match answered {
            Answered::Ai => &mut self.ai,
            Answered::Baseline => &mut self.baseline,
            Answered::Fallback => &mut self.fallback,
        };
        tally.add(wrong, answer, right, took);
    }

    /// Adds the counts of an interval.
    pub fn merge(&mut self, interval: Self) {
        self.ai.merge(interval.ai);
        self.baseline.merge(interval.baseline);
        self.fallback.merge(interval.fallback);
    }

    /// Share of words assigned to the AI-written engine, in percent.
    fn assigned_to_ai(&self) -> f64 {
        let ai = self.ai.micros.len() + self.fallback.micros.len();
        100.0 * ai as f64 / (ai + self.baseline.micros.len()).max(1) as f64
    }

    /// One line each for the engines, with examples.
    pub fn describe(&mut self, head: &str) -> String {
        let mut text = format!("{head}  AI {:.1} %", self.assigned_to_ai());
        for (name, tally) in [("ai", &mut self.ai), ("baseline", &mut self.baseline), ("fell back", &mut self.fallback)]
        {
            let line = tally.describe(name);
            let _ = write!(text, "\n    {line}");
            if !tally.examples.is_empty() {
                let _ = write!(text, "  {}", tally.examples.join(", "));
            }
        }
        text
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn shares_and_quantiles_are_those_of_what_was_counted() {
        let mut interval = Report::default();
        for ms in 1..=3 {
            interval.add(Answered::Ai, "teh", Some("the"), true, Duration::from_millis(ms));
        }
        interval.add(Answered::Fallback, "qq", None, false, Duration::from_millis(9));
        interval.add(Answered::Baseline, "adn", Some("add"), false, Duration::from_millis(4));
        let mut total = Report::default();
        total.merge(interval);
        let text = total.describe("total");
        assert!(text.starts_with("total  AI 80.0 %"), "{text}");
        assert!(text.contains("ai             3 words  100.0 % right  p50   2.000 ms  p99   2.000 ms"), "{text}");
    }
}
