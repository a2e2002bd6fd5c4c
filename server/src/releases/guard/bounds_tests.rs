//! The formulas against known values, and against a reference package.

use super::*;

#[test]
fn the_functions_have_known_values() {
    for (z, p) in
        [(0.0, 0.5), (1.0, 0.841_344_746_068_542_9), (-3.5, 2.326_290_790_355_25e-4), (-8.0, 6.220_960_574_271_78e-16)]
    {
        assert!((normal_cdf(z) / p - 1.0).abs() < 1e-9, "{z}: {}", normal_cdf(z));
    }
    let mut factorial = 0.0;
    for n in 1..60 {
        assert!((ln_gamma(f64::from(n)) - factorial).abs() < 1e-11 * (1.0 + factorial));
        factorial += f64::from(n).ln();
    }
    assert!((ln_gamma(0.5) - 0.5 * PI.ln()).abs() < 1e-12);
    assert!((ln_beta(2.0, 3.0) - (1.0_f64 / 12.0).ln()).abs() < 1e-12);
}

#[test]
fn one_sided_is_tighter_than_two_sided() {
    for v in [1.0, 100.0, 1e4, 1e6] {
        let (one, two) = (one_sided_normal_mixture(v, 1e4, 0.05), two_sided_normal_mixture(v, 1e4, 0.05));
        assert!(one < two && one > 0.5 * two, "{v}: {one} {two}");
    }
}

#[test]
#[allow(clippy::print_stdout, reason = "says plainly that it was not run")]
fn the_bound_is_that_of_the_reference_package() {
    let Some(folder) = std::env::var_os("GUIDON_CONFORMANCE") else {
        println!("GUIDON_CONFORMANCE is not set: the bounds were not compared with the reference package");
        return;
    };
    let path = std::path::Path::new(&folder).join("stats/confseq.json");
    let text = std::fs::read_to_string(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
    let all: serde_json::Value = serde_json::from_str(&text).unwrap();
    let table = all["normal_mixture_bound_v_vopt10000_alpha.05"].as_object().unwrap();
    assert!(!table.is_empty());
    for (v, expected) in table {
        let (v, expected) = (v.parse::<f64>().unwrap(), expected.as_f64().unwrap());
        let one = one_sided_normal_mixture(v, 1e4, 0.05);
        assert!((one / expected - 1.0).abs() < 1e-6, "v {v}: {one} here, {expected} there");
    }
}
