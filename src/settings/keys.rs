//! Every key of the file, section by section. `docs/configuration.md` is checked against these lists.

/// The keys of one section.
#[derive(Debug)]
pub(super) struct Keys {
    pub accepted: &'static [&'static str],
    /// Named in the design, refused until their feature exists.
    pub not_built: &'static [&'static str],
}

pub(super) const TOP: Keys = Keys {
    accepted: &["kafka", "schema_registry", "catalogs", "pipelines", "memory", "state_dir", "roles", "observe"],
    not_built: &["query", "ingest"],
};

pub(super) const KAFKA: Keys = Keys { accepted: &["brokers", "properties"], not_built: &[] };

pub(super) const SCHEMA_REGISTRY: Keys =
    Keys { accepted: &["url", "username", "password", "token", "tls"], not_built: &[] };

pub(super) const REGISTRY_TLS: Keys = Keys { accepted: &["ca", "certificate", "key"], not_built: &[] };

pub(super) const CATALOG: Keys = Keys { accepted: &["type", "uri", "warehouse", "properties"], not_built: &[] };

pub(super) const PIPELINE: Keys = Keys {
    accepted: &[
        "topics",
        "group",
        "subject_strategy",
        "record_types",
        "on_unknown_type",
        "key",
        "record_key",
        "key_partitioned",
        "mode",
        "lineage",
        "order_by",
        "delete",
        "tables",
        "commit",
        "start",
        "on_bad_record",
        "dead_letter",
        "max_bad_ratio",
        "on_incompatible_schema",
        "recursive_types",
        "nanoseconds",
    ],
    not_built: &["merge"],
};

pub(super) const DELETE: Keys = Keys { accepted: &["field", "values"], not_built: &[] };

pub(super) const DEAD_LETTER: Keys = Keys { accepted: &["topic"], not_built: &[] };

pub(super) const TABLE: Keys = Keys {
    accepted: &["catalog", "name", "record_type", "key", "order_by", "format_version", "partition_by", "sort_by"],
    not_built: &[],
};

pub(super) const COMMIT: Keys = Keys { accepted: &["interval", "max_rows", "max_bytes"], not_built: &[] };

pub(super) const OBSERVE: Keys = Keys { accepted: &["listen", "log"], not_built: &[] };

/// Every section with the name that the documentation gives it.
#[cfg(test)]
pub(super) const SECTIONS: [(&str, &Keys); 11] = [
    ("", &TOP),
    ("kafka", &KAFKA),
    ("schema_registry", &SCHEMA_REGISTRY),
    ("schema_registry.tls", &REGISTRY_TLS),
    ("catalogs.<name>", &CATALOG),
    ("pipelines.<name>", &PIPELINE),
    ("pipelines.<name>.delete", &DELETE),
    ("pipelines.<name>.dead_letter", &DEAD_LETTER),
    ("pipelines.<name>.tables[]", &TABLE),
    ("pipelines.<name>.commit", &COMMIT),
    ("observe", &OBSERVE),
];
