//! Everything that happened in a run, as one number.

use std::fmt::{Debug, Write};
use std::hash::{DefaultHasher, Hasher};

/// A sum over what was noted, in order.
#[derive(Default)]
pub struct Trace {
    // One built by `new` is not seeded: the same text has the same sum in every process of a build.
    sum: DefaultHasher,
}

impl Trace {
    pub fn note(&mut self, what: &impl Debug) {
        write!(Text(&mut self.sum), "{what:?}").expect("a sum takes everything");
    }

    pub fn sum(&self) -> u64 {
        self.sum.finish()
    }
}

struct Text<'a>(&'a mut DefaultHasher);

impl Write for Text<'_> {
    fn write_str(&mut self, text: &str) -> std::fmt::Result {
        self.0.write(text.as_bytes());
        Ok(())
    }
}
