//! Values in Protobuf whose schema the registry has. A message becomes a record with Avro's types, and a value the Avro body
//! of that record, which the plans then read like any other.

#[cfg(test)]
mod oracle;
mod read;
mod schema;
#[cfg(test)]
mod tests;

pub use self::read::write;
pub use self::schema::{Defined, Message, read};
