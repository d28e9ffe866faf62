//! The pure core: no async, clock, randomness, I/O or logging. Production and the simulation run this code.

pub mod change;
pub mod history;
pub mod key_index;
pub mod offsets;
pub mod schema;
