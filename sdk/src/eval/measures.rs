//! What a release asks instances to measure of a flag, compiled. It has no part in evaluating.

use super::bucket::{Salt, Unit};
use super::compile::Variation;
use crate::model::ReleaseMeasures;

/// What a release asks of an instance that runs the paths of its flag.
#[derive(Clone, Debug)]
pub struct Measures {
    asked: ReleaseMeasures,
    treatment_is_ai: bool,
    unit_salt: Salt,
    edition: u64,
}

impl Measures {
    /// `definition` is the flag's whole definition; equal ones give one edition.
    pub(crate) fn new(flag: &str, asked: ReleaseMeasures, variations: &[Variation], definition: &[u8]) -> Self {
        let treatment = variations.iter().find(|variation| variation.key() == asked.treatment);
        Self {
            treatment_is_ai: treatment.is_some_and(Variation::is_ai),
            asked,
            unit_salt: Salt::new(&format!("unit of {flag}")),
            edition: Salt::new("edition").bucket(definition).hash,
        }
    }

    /// What the snapshot says.
    #[must_use]
    pub fn asked(&self) -> &ReleaseMeasures {
        &self.asked
    }

    /// The same for as long as the flag's definition is: a hash of it.
    #[must_use]
    pub fn edition(&self) -> u64 {
        self.edition
    }

    /// [`crate::measure::unit_hash`] of the unit, hashed ahead as far as the flag's key goes.
    #[must_use]
    pub fn unit_hash(&self, unit: Unit<'_>) -> u64 {
        unit.bucket(&self.unit_salt).hash
    }

    /// Whether the treatment runs beside the baseline on a share of the calls that are assigned `variation`: where that is the
    /// control, and the treatment is AI's.
    #[must_use]
    pub fn shadows(&self, variation: &str) -> bool {
        self.asked.shadow > 0 && self.treatment_is_ai && self.asked.control == variation
    }
}
