//! The only write path: instructions, validated against the present state and appended to the journal.

pub mod instruction;

pub use instruction::Instruction;
