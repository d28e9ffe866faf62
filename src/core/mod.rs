//! The pure core: no async, clock, randomness, I/O or logging. Production and the simulation run this code.

pub mod batch;
pub mod budget;
pub mod change;
pub mod fold;
pub mod history;
pub mod key_index;
pub mod letter;
pub mod mutant;
pub mod offsets;
pub mod order;
pub mod plan;
pub mod reposition;
pub mod resubmit;
pub mod schema;
pub mod writer;
