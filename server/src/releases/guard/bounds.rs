//! Formulas that the tests share: normal mixtures, and the functions they are made of.

use std::f64::consts::{LN_2, PI};

/// How far a sum of fair bets with intrinsic time (variance) `v` may wander: crossed at any time with probability at most
/// `alpha`. The two-sided normal mixture of Howard, Ramdas, McAuliffe, Sekhon ("Time-uniform, nonparametric, nonasymptotic
/// confidence sequences", 2021, equation 14), tightest near time `v_opt`. Both in the square of the sum's unit, above 0;
/// `alpha` between 0 and 1.
#[must_use]
pub fn two_sided_normal_mixture(v: f64, v_opt: f64, alpha: f64) -> f64 {
    let rho = best_rho(v_opt, alpha);
    ((v + rho) * ((v + rho) / (rho * alpha * alpha)).ln()).sqrt()
}

/// As [`two_sided_normal_mixture`], for wandering upwards only (equation 15 of the same paper, solved by bisection).
#[must_use]
pub fn one_sided_normal_mixture(v: f64, v_opt: f64, alpha: f64) -> f64 {
    let rho = best_rho(v_opt, 2.0 * alpha);
    let reached = |s: f64| {
        let spread = v + rho;
        0.5 * (4.0 * rho / spread).ln() + s * s / (2.0 * spread) + normal_cdf(s / spread.sqrt()).ln() >= -alpha.ln()
    };
    // The two-sided bound is above the one-sided one.
    let (mut low, mut high) = (0.0, ((v + rho) * ((v + rho) / (rho * alpha * alpha)).ln()).sqrt());
    for _ in 0..80 {
        let middle = 0.5 * (low + high);
        if reached(middle) { high = middle } else { low = middle }
    }
    high
}

/// The mixing parameter for which the two-sided bound is tightest near `v_opt` (the same paper, proposition 3).
fn best_rho(v_opt: f64, alpha: f64) -> f64 {
    let log = 2.0 * (1.0 / alpha).ln();
    v_opt / (log + log.ln_1p())
}

/// The standard normal distribution function, relative error below 1e-9 (absolute below 1e-15).
#[must_use]
pub fn normal_cdf(z: f64) -> f64 {
    if z.is_nan() {
        return z;
    }
    if z > 0.0 {
        return 1.0 - normal_cdf(-z);
    }
    let x = -z;
    let density = (-0.5 * x * x).exp() / (2.0 * PI).sqrt();
    if x < 3.0 {
        // Power series of the integral from 0 (Marsaglia 2004), exact to rounding in this range.
        let (mut term, mut sum, mut n) = (x, x, 1.0);
        while term > 1e-18 {
            n += 2.0;
            term *= x * x / n;
            sum += term;
        }
        return 0.5 - sum * density;
    }
    // Continued fraction of Mills' ratio.
    let fraction = (1..=80).rev().fold(x, |tail, n| x + f64::from(n) / tail);
    density / fraction
}

/// Logarithm of the gamma function for `x` above 0: Stirling's series after shifting to 10 or more; error below 1e-12.
#[must_use]
pub fn ln_gamma(x: f64) -> f64 {
    let (mut shifted, mut product) = (x, 1.0);
    while shifted < 10.0 {
        product *= shifted;
        shifted += 1.0;
    }
    let inverse = 1.0 / shifted;
    let square = inverse * inverse;
    let series = inverse * (1.0 / 12.0 - square * (1.0 / 360.0 - square * (1.0 / 1260.0 - square / 1680.0)));
    (shifted - 0.5) * shifted.ln() - shifted + 0.5 * (LN_2 + PI.ln()) + series - product.ln()
}

/// Logarithm of the beta function, both above 0.
#[must_use]
pub fn ln_beta(a: f64, b: f64) -> f64 {
    ln_gamma(a) + ln_gamma(b) - ln_gamma(a + b)
}

#[cfg(test)]
#[path = "bounds_tests.rs"]
mod tests;
