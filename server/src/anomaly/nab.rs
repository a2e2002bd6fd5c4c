//! The scoring of the Numenta Anomaly Benchmark.
//!
//! Lavin and Ahmad, "Evaluating Real-time Anomaly Detection Algorithms: the Numenta Anomaly Benchmark" (ICMLA 2015). An early
//! detection inside a labelled window earns nearly the full weight, a late one little, a second one nothing; every detected
//! row outside costs, less so just behind a window. One threshold serves all series; each profile chooses its own.

use serde::Serialize;

/// Rows at the start of a series that are not scored: this share of them...
const PROBATION_SHARE: f64 = 0.15;
/// ...but never more than this many.
const PROBATION_MOST: usize = 750;
/// Behind a window, in widths of that window, where a detection is as wrong as one far from everything.
const FAR_BEHIND: f64 = 3.0;

/// What right and wrong detections are worth; all at least 0.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Costs {
    /// Earned by a window that was detected in its first row.
    pub true_positive: f64,
    /// Lost by a window that was not detected.
    pub false_negative: f64,
    /// Lost by a detected row far from every window.
    pub false_positive: f64,
}

/// The rows that count as one anomaly.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Window {
    /// Index of its first row.
    pub first: usize,
    /// Index of its last row, not below `first`.
    pub last: usize,
}

impl Window {
    /// Number of rows.
    fn width(self) -> f64 {
        (self.last.saturating_sub(self.first) + 1) as f64
    }
}

/// One series as the scoring sees it.
#[derive(Debug, Clone, Copy)]
pub struct Scored<'a> {
    /// The detector's score of each row, from 0 to 1. One that is no number counts as 0.
    pub scores: &'a [f64],
    /// The labelled windows, in order, without overlap.
    pub windows: &'a [Window],
}

/// How a detector did under one set of costs.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Verdict {
    /// 0 for a detector that never detects, 100 for a perfect one; below 0 for one that had better said nothing. 0 if there
    /// is no window to find.
    pub score: f64,
    /// A row is a detection if its score is at or above this. Above 1 means that nothing is.
    pub threshold: f64,
    /// Windows with a detection in them.
    pub found: usize,
    /// Windows without.
    pub missed: usize,
    /// Detected rows outside every window.
    pub false_alarms: usize,
}

/// How many rows at the start of a series of `rows` rows are not scored.
#[must_use]
pub fn probation(rows: usize) -> usize {
    ((rows as f64 * PROBATION_SHARE).floor() as usize).min(PROBATION_MOST)
}

/// 1 far before 0, -1 far behind it.
fn sigmoid(x: f64) -> f64 {
    if x > FAR_BEHIND { -1.0 } else { 2.0 / (1.0 + (5.0 * x).exp()) - 1.0 }
}

/// A row that could be detected.
struct Row {
    score: f64,
    /// What its detection adds to the sum.
    worth: f64,
    /// Number of its window among those of all series.
    window: Option<usize>,
}

/// Scores all series together, at the threshold that serves them best. Of equally good thresholds the highest is taken.
#[must_use]
pub fn judge(series: &[Scored<'_>], costs: Costs) -> Verdict {
    let (mut rows, windows) = rows(series, costs);
    rows.sort_by(|a, b| b.score.total_cmp(&a.score));
    let perfect = windows as f64 * costs.true_positive;
    let null = windows as f64 * -costs.false_negative;
    let normalise = |sum: f64| if perfect > null { 100.0 * (sum - null) / (perfect - null) } else { 0.0 };

    let mut sums = vec![-costs.false_negative; windows];
    let (mut sum, mut found, mut false_alarms) = (null, 0, 0);
    let verdict = |sum, threshold, found, false_alarms| Verdict {
        score: normalise(sum),
        threshold,
        found,
        missed: windows - found,
        false_alarms,
    };
    // Far enough above 1 that no rounding of written scores reaches it.
    let mut best = verdict(sum, 1.1, 0, 0);
    let mut best_sum = sum;
    let mut rows = rows.iter().peekable();
    while let Some(row) = rows.next() {
        match row.window.and_then(|window| sums.get_mut(window)) {
            Some(so_far) => {
                if *so_far == -costs.false_negative {
                    found += 1;
                }
                sum += (row.worth - *so_far).max(0.0);
                *so_far = so_far.max(row.worth);
            }
            None => {
                sum += row.worth;
                false_alarms += 1;
            }
        }
        // Rows of equal score are detected together or not at all.
        let last_of_score = rows.peek().is_none_or(|next| next.score != row.score);
        if last_of_score && sum > best_sum {
            best_sum = sum;
            best = verdict(sum, row.score, found, false_alarms);
        }
    }
    best
}

/// Scores all series together at a threshold that is given.
#[must_use]
pub fn judge_at(series: &[Scored<'_>], costs: Costs, threshold: f64) -> Verdict {
    let clipped: Vec<Vec<f64>> = series
        .iter()
        .map(|one| one.scores.iter().map(|score| if *score >= threshold { 1.0 } else { 0.0 }).collect())
        .collect();
    let (rows, windows) = rows(
        &series.iter().zip(&clipped).map(|(one, scores)| Scored { scores, windows: one.windows }).collect::<Vec<_>>(),
        costs,
    );
    let mut best = vec![None::<f64>; windows];
    let (mut sum, mut false_alarms) = (0.0, 0);
    for row in rows.iter().filter(|row| row.score > 0.5) {
        match row.window.and_then(|window| best.get_mut(window)) {
            Some(so_far) => *so_far = Some(so_far.map_or(row.worth, |it| it.max(row.worth))),
            None => {
                sum += row.worth;
                false_alarms += 1;
            }
        }
    }
    let found = best.iter().flatten().count();
    sum += best.iter().map(|it| it.unwrap_or(-costs.false_negative)).sum::<f64>();
    let (perfect, null) = (windows as f64 * costs.true_positive, windows as f64 * -costs.false_negative);
    let score = if perfect > null { 100.0 * (sum - null) / (perfect - null) } else { 0.0 };
    Verdict { score, threshold, found, missed: windows - found, false_alarms }
}

/// The rows of all series that are scored, and the number of windows.
fn rows(series: &[Scored<'_>], costs: Costs) -> (Vec<Row>, usize) {
    let mut rows = Vec::with_capacity(series.iter().map(|one| one.scores.len()).sum());
    let mut before = 0;
    for one in series {
        let mut next = 0;
        for (index, score) in one.scores.iter().enumerate() {
            while one.windows.get(next).is_some_and(|window| window.last < index) {
                next += 1;
            }
            if index < probation(one.scores.len()) {
                continue;
            }
            let inside = one.windows.get(next).filter(|window| window.first <= index);
            let previous = next.checked_sub(1).and_then(|it| one.windows.get(it));
            rows.push(Row {
                score: if score.is_nan() { 0.0 } else { *score },
                worth: match inside {
                    Some(window) => worth_inside(*window, index) * costs.true_positive,
                    None => worth_outside(previous.copied(), index) * costs.false_positive,
                },
                window: inside.map(|_| before + next),
            });
        }
        before += one.windows.len();
    }
    (rows, before)
}

/// From 1 in the window's first row to nearly 0 in its last.
fn worth_inside(window: Window, index: usize) -> f64 {
    let to_go = (window.last.saturating_sub(index) + 1) as f64;
    sigmoid(-to_go / window.width()) / sigmoid(-1.0)
}

/// From 0 in the window's last row down to -1.
fn worth_outside(previous: Option<Window>, index: usize) -> f64 {
    previous.map_or(-1.0, |window| {
        let behind = index.saturating_sub(window.last) as f64;
        // A window of one row has no width to measure in: whatever is behind it is far behind.
        if window.width() < 2.0 { -1.0 } else { sigmoid(behind / (window.width() - 1.0)) }
    })
}
