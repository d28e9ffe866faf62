//! Values in JSON whose JSON Schema the registry has. The schema becomes a record with Avro's types, and a value the Avro
//! body of that record, which the plans then read like any other.

#[cfg(test)]
mod oracle;
mod read;
mod schema;
#[cfg(test)]
mod tests;
mod tree;

pub use self::read::write;
pub use self::schema::{Kind, Node, read};
