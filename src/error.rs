//! Errors by what the operator can do about them; the command line turns each kind into an exit code.

/// What went wrong, sorted by the reaction it asks for. Messages are lowercase sentences without a final stop, and say
/// what happened, where, and what to do.
#[derive(Debug, Clone, thiserror::Error)]
pub enum Error {
    /// The question was answered, and the answer is no (exit 1): no such key, an incompatible schema.
    #[error("{0}")]
    No(String),
    /// The command line or `firn.yaml` is wrong (exit 2). Nothing was started.
    #[error("{0}")]
    Config(String),
    /// A dependency (broker, registry, catalog, object store, disk) does not answer (exit 3 at start; waited out later).
    #[error("{0}")]
    Unreachable(String),
    /// The data needs a person's decision (exit 4): lost offsets, a recreated topic, a bad record under `stop`.
    /// Nothing retries this.
    #[error("{0}")]
    Decision(String),
    /// A broken promise of our own: please report it. Never used for what a producer or a server sent.
    #[error("internal error: {0}")]
    Internal(String),
}

impl Error {
    /// The process exit code of DESIGN section 9.
    #[must_use]
    pub fn exit_code(&self) -> u8 {
        match self {
            Error::No(_) => 1,
            Error::Config(_) => 2,
            Error::Unreachable(_) => 3,
            Error::Decision(_) => 4,
            Error::Internal(_) => 70,
        }
    }

    /// The same kind of error with `context` in front of its message.
    #[must_use]
    pub fn within(self, context: impl std::fmt::Display) -> Self {
        match self {
            Error::No(m) => Error::No(format!("{context}: {m}")),
            Error::Config(m) => Error::Config(format!("{context}: {m}")),
            Error::Unreachable(m) => Error::Unreachable(format!("{context}: {m}")),
            Error::Decision(m) => Error::Decision(format!("{context}: {m}")),
            Error::Internal(m) => Error::Internal(format!("{context}: {m}")),
        }
    }
}

/// A result whose error says what an operator can do.
pub type Result<T, E = Error> = std::result::Result<T, E>;
