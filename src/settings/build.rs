//! The tree becomes [`Settings`]: defaults, bounds, and what one section demands of another.

use std::collections::BTreeMap;
use std::path::Path;

use secrecy::SecretString;

use super::fault::{Faults, printable};
use super::names;
use super::read::{Item, Section};
use super::substitute::substitute;
use super::yaml::{self, Node, Value};
use super::{
    Brokers, Catalog, CatalogKind, FILE_BYTES_MAX, Kafka, LogFormat, Observe, Pipeline, RegistryTls, RegistryUrl, Role,
    SchemaRegistry, Settings, keys, pipeline, too_large,
};
use crate::Result;

const MEMORY: u64 = 2_000_000_000;
/// Below this a writer could not hold one useful batch.
const MEMORY_MIN: u64 = 64_000_000;
const STATE_DIR: &str = "data/state";

/// Roles of the design whose feature does not exist yet.
pub(super) const ROLES_NOT_BUILT: [&str; 3] = ["maintain", "query", "ingest"];

/// librdkafka properties that Firn sets, and what to do instead.
const OWNED: [(&str, &str); 9] = [
    ("bootstrap.servers", "set kafka.brokers"),
    ("metadata.broker.list", "set kafka.brokers"),
    ("group.id", "set `group` in the pipeline"),
    ("auto.offset.reset", "set `start` in the pipeline"),
    ("enable.auto.commit", "the position is kept in the table"),
    ("enable.auto.offset.store", "the position is kept in the table"),
    ("auto.commit.interval.ms", "the position is kept in the table"),
    ("enable.partition.eof", "the reader depends on it"),
    ("isolation.level", "only committed records are read"),
];

/// Reads the whole file.
pub(super) fn settings(
    path: &Path,
    text: &str,
    base_dir: &Path,
    env: &dyn Fn(&str) -> Option<String>,
) -> Result<Settings> {
    if text.len() as u64 > FILE_BYTES_MAX {
        return Err(too_large(path));
    }
    let mut faults = Faults::default();
    let Some(mut root) = yaml::parse(text, &mut faults) else { return Err(faults.into_error(path)) };
    if !matches!(root.value, Value::Map(_)) {
        let what = if let Value::Null = root.value { "the file is empty" } else { "the file is no mapping" };
        faults.add(root.line, "", format!("{what}; it begins with a key such as `kafka:`"));
        return Err(faults.into_error(path));
    }
    substitute(&mut root, "", env, &mut faults);
    let settings = build(path, base_dir, &root, &mut faults);
    if faults.is_empty() { Ok(settings) } else { Err(faults.into_error(path)) }
}

fn build(path: &Path, base_dir: &Path, root: &Node, faults: &mut Faults) -> Settings {
    let top = Section::open(Item { path: String::new(), node: root }, &keys::TOP, faults);
    let memory = top.get("memory").and_then(|item| item.size(MEMORY_MIN..=u64::MAX, faults)).unwrap_or(MEMORY);
    let state_dir = top.get("state_dir").and_then(|item| item.text(faults)).unwrap_or(STATE_DIR);
    let mut declared = Vec::new();
    let catalogs = catalogs(&top, base_dir, &mut declared, faults);
    let mut context = pipeline::Context::new(&declared, &catalogs, memory);
    let pipelines = pipelines(&top, &mut context, faults);
    let mut notes = context.notes;
    for catalog in catalogs.values() {
        let idle = catalog.properties.keys().find(|name| !crate::files::is_store_property(name));
        if let (CatalogKind::IcebergSql { .. }, Some(name)) = (&catalog.kind, idle) {
            notes.push(format!("catalogs.{}.properties.{name}: no effect on an iceberg-sql catalog", catalog.name));
        }
    }
    Settings {
        path: path.to_owned(),
        base_dir: base_dir.to_owned(),
        kafka: kafka(&top, base_dir, faults),
        schema_registry: schema_registry(&top, base_dir, faults),
        observe: observe(&top, faults),
        roles: roles(&top, &pipelines, faults),
        catalogs,
        pipelines,
        memory,
        state_dir: names::absolute(state_dir, base_dir),
        notes,
    }
}

/// Opens a section that only pipelines need. A file for queries alone may leave it out.
fn source_section<'t>(top: &Section<'t>, key: &str, keys: &keys::Keys, faults: &mut Faults) -> Option<Section<'t>> {
    let item = if top.get("pipelines").is_some() { top.need(key, faults) } else { top.get(key) };
    item.map(|item| Section::open(item, keys, faults))
}

fn kafka(top: &Section<'_>, base_dir: &Path, faults: &mut Faults) -> Kafka {
    let Some(section) = source_section(top, "kafka", &keys::KAFKA, faults) else {
        return Kafka { brokers: Brokers::Embedded, properties: BTreeMap::new() };
    };
    let properties = properties(&section, base_dir, faults);
    for (name, item) in section.get("properties").map(|item| item.named(faults)).unwrap_or_default() {
        if let Some((_, instead)) = OWNED.iter().find(|(owned, _)| *owned == name) {
            item.fault(faults, format!("Firn owns this property: {instead}"));
        } else if name.starts_with("enable.auto.") {
            item.fault(faults, "Firn owns the properties that begin with enable.auto.");
        }
    }
    Kafka { brokers: brokers(&section, faults), properties }
}

fn brokers(section: &Section<'_>, faults: &mut Faults) -> Brokers {
    let mut list = Vec::new();
    for item in section.need("brokers", faults).map(|item| item.list()).unwrap_or_default() {
        let Some(text) = item.text(faults) else { continue };
        if text == "embedded" && !section.get("brokers").is_some_and(|brokers| brokers.is_list()) {
            return Brokers::Embedded;
        }
        if let Err(reason) = names::check_brokers(text) {
            item.fault(faults, format!("{} {reason}", item.shown()));
        }
        list.push(text.trim());
    }
    Brokers::List(list.join(","))
}

fn schema_registry(top: &Section<'_>, base_dir: &Path, faults: &mut Faults) -> SchemaRegistry {
    let (username, password, token, tls) = Default::default();
    let mut registry = SchemaRegistry { url: RegistryUrl::Embedded, username, password, token, tls };
    let Some(section) = source_section(top, "schema_registry", &keys::SCHEMA_REGISTRY, faults) else { return registry };
    if let Some(item) = section.need("url", faults)
        && let Some(text) = item.text(faults).filter(|text| *text != "embedded")
    {
        match names::http_url(text) {
            Ok(url) => registry.url = RegistryUrl::Url(url),
            // Not shown: what should not be in a URL is most often a password.
            Err(reason) => item.fault(faults, format!("the address {reason}")),
        }
    }
    registry.username = section.get("username").and_then(|item| item.text_or_unset(faults)).map(str::to_owned);
    registry.password = section.get("password").and_then(|item| item.secret(base_dir, faults)).filter(|s| !is_empty(s));
    if let Some(password) =
        section.get("password").filter(|_| registry.password.is_some() && registry.username.is_none())
    {
        password.fault(faults, "a password without a username; set schema_registry.username");
    }
    registry.token = section.get("token").and_then(|item| item.secret(base_dir, faults)).filter(|s| !is_empty(s));
    if let Some(token) = section.get("token").filter(|_| registry.token.is_some() && registry.username.is_some()) {
        token.fault(faults, "a token beside a username; set one of them");
    }
    if let Some(item) = section.get("tls") {
        registry.tls = registry_tls(&Section::open(item, &keys::REGISTRY_TLS, faults), base_dir, faults);
    }
    registry
}

fn registry_tls(section: &Section<'_>, base_dir: &Path, faults: &mut Faults) -> RegistryTls {
    let mut read = |key: &str| section.get(key).and_then(|item| item.secret(base_dir, faults)).filter(|s| !is_empty(s));
    let tls = RegistryTls { ca: read("ca"), certificate: read("certificate"), key: read("key") };
    if tls.certificate.is_some() != tls.key.is_some() {
        faults.add(section.line, &section.path, "certificate and key belong together; set both or none");
    }
    tls
}

fn is_empty(secret: &SecretString) -> bool {
    use secrecy::ExposeSecret;
    secret.expose_secret().is_empty()
}

/// A mapping of names to values that may be secrets.
fn properties(section: &Section<'_>, base_dir: &Path, faults: &mut Faults) -> BTreeMap<String, SecretString> {
    let mut properties = BTreeMap::new();
    for (name, item) in section.get("properties").map(|item| item.named(faults)).unwrap_or_default() {
        if let Some(value) = item.secret(base_dir, faults) {
            properties.insert(name.to_owned(), value);
        }
    }
    properties
}

/// The catalogs that could be read. `names` gets all that the file declares, so that a pipeline is not blamed for a
/// catalog's own fault.
fn catalogs(
    top: &Section<'_>,
    base_dir: &Path,
    names: &mut Vec<String>,
    faults: &mut Faults,
) -> BTreeMap<String, Catalog> {
    let mut catalogs = BTreeMap::new();
    let Some(section) = top.need("catalogs", faults) else { return catalogs };
    let declared = section.named(faults);
    if declared.is_empty() && section.is_map() {
        section.fault(faults, "names no catalog");
    }
    for (name, item) in declared {
        if let Err(reason) = names::check_name(name) {
            item.fault(faults, format!("'{}': {reason}", printable(name)));
        }
        names.push(name.to_owned());
        if let Some(catalog) = catalog(name, item, base_dir, faults) {
            catalogs.insert(name.to_owned(), catalog);
        }
    }
    catalogs
}

#[derive(Clone, Copy)]
enum Kind {
    Sql,
    Rest,
    Delta,
}

fn catalog(name: &str, item: Item<'_>, base_dir: &Path, faults: &mut Faults) -> Option<Catalog> {
    let section = Section::open(item, &keys::CATALOG, faults);
    let properties = properties(&section, base_dir, faults);
    for (property, item) in section.get("properties").map(|item| item.named(faults)).unwrap_or_default() {
        if matches!(property, "uri" | "warehouse" | "type") {
            item.fault(faults, format!("set catalogs.{name}.{property} instead"));
        }
    }
    let kinds = [("iceberg-sql", Kind::Sql), ("iceberg-rest", Kind::Rest), ("delta", Kind::Delta)];
    let kind = section.need("type", faults).and_then(|item| item.choice(&kinds, &[], faults));
    if matches!(kind, Some(Kind::Delta)) {
        if let Some(uri) = section.get("uri") {
            uri.fault(faults, "a delta catalog has no uri: its tables are the folders of the warehouse");
        }
        let warehouse = section.need("warehouse", faults).and_then(|item| place(&item, base_dir, faults));
        return Some(Catalog {
            name: name.to_owned(),
            kind: CatalogKind::Delta,
            warehouse: Some(warehouse?),
            properties,
        });
    }
    let uri = section.need("uri", faults);
    let kind = kind?;
    let (kind, warehouse) = match kind {
        Kind::Sql => {
            let warehouse = section.need("warehouse", faults).and_then(|item| place(&item, base_dir, faults));
            (sql(&uri?, base_dir, faults)?, Some(warehouse?))
        }
        Kind::Rest => {
            // Its server gives warehouses any names.
            let warehouse = section.get("warehouse").and_then(|item| item.text(faults)).map(str::to_owned);
            (rest(&uri?, faults)?, warehouse)
        }
        Kind::Delta => return None,
    };
    Some(Catalog { name: name.to_owned(), kind, warehouse, properties })
}

fn sql(uri: &Item<'_>, base_dir: &Path, faults: &mut Faults) -> Option<CatalogKind> {
    use secrecy::ExposeSecret;
    let secret = uri.secret(base_dir, faults)?;
    match names::sql_uri(secret.expose_secret(), base_dir) {
        Ok(uri) => Some(CatalogKind::IcebergSql { uri }),
        Err(reason) => {
            uri.fault(faults, format!("the uri {reason}"));
            None
        }
    }
}

fn rest(uri: &Item<'_>, faults: &mut Faults) -> Option<CatalogKind> {
    match names::http_url(uri.text(faults)?) {
        Ok(uri) => Some(CatalogKind::IcebergRest { uri }),
        Err(reason) => {
            uri.fault(faults, format!("the uri {reason}"));
            None
        }
    }
}

fn place(item: &Item<'_>, base_dir: &Path, faults: &mut Faults) -> Option<String> {
    match names::warehouse(item.text(faults)?, base_dir) {
        Ok(warehouse) => Some(warehouse),
        Err(reason) => {
            // What should not be in an address is most often a password.
            let secret = item.text(faults).is_some_and(|text| text.contains('@') && !text.starts_with("abfs"));
            let shown = if secret { "the address".to_owned() } else { item.shown().to_string() };
            item.fault(faults, format!("{shown} {reason}"));
            None
        }
    }
}

fn pipelines(
    top: &Section<'_>,
    context: &mut pipeline::Context<'_>,
    faults: &mut Faults,
) -> BTreeMap<String, Pipeline> {
    let mut pipelines = BTreeMap::new();
    for (name, item) in top.get("pipelines").map(|item| item.named(faults)).unwrap_or_default() {
        if let Err(reason) = names::check_name(name) {
            item.fault(faults, format!("'{}': {reason}", printable(name)));
        }
        let pipeline = pipeline::pipeline(name, item, context, faults);
        pipelines.insert(name.to_owned(), pipeline);
    }
    pipelines
}

fn observe(top: &Section<'_>, faults: &mut Faults) -> Observe {
    let Some(item) = top.get("observe") else { return Observe::default() };
    let section = Section::open(item, &keys::OBSERVE, faults);
    let listen = section.get("listen").and_then(|item| {
        let parsed = item.text(faults)?.parse();
        if parsed.is_err() {
            item.fault(faults, format!("{} is no address; write one like 127.0.0.1:9090", item.shown()));
        }
        parsed.ok()
    });
    let formats = [("text", LogFormat::Text), ("json", LogFormat::Json)];
    let log = section.get("log").and_then(|item| item.choice(&formats, &[], faults)).unwrap_or_default();
    Observe { listen, log }
}

fn roles(top: &Section<'_>, pipelines: &BTreeMap<String, Pipeline>, faults: &mut Faults) -> Vec<Role> {
    let Some(list) = top.get("roles") else {
        return if pipelines.is_empty() { Vec::new() } else { vec![Role::Writer] };
    };
    let mut roles = Vec::new();
    for item in list.list() {
        let Some(role) = item.choice(&[("writer", Role::Writer)], &ROLES_NOT_BUILT, faults) else { continue };
        if roles.contains(&role) {
            item.fault(faults, format!("{} is listed twice", item.shown()));
        }
        roles.push(role);
    }
    if roles.contains(&Role::Writer) && pipelines.is_empty() {
        list.fault(faults, "the writer role needs a pipeline; add one below `pipelines`");
    }
    roles
}
