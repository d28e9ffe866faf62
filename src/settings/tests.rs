//! Golden files hold a settings file and what is said about it: `UPDATE_GOLDEN=1` rewrites the answers.

use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

use secrecy::ExposeSecret;

use super::*;

/// Appears wherever a secret may stand, and nowhere in what is printed.
const CANARY: &str = "c4n4ry-s3cret";

const MINIMAL: &str = "\
kafka: {brokers: 'localhost:9092'}
schema_registry: {url: 'http://localhost:8081'}
catalogs:
  lake: {type: iceberg-sql, uri: 'sqlite:data/catalog.db', warehouse: ./data/warehouse}
pipelines:
  trades:
    topics: [trades]
    tables: [{catalog: lake, name: market.trades}]
";

fn env(name: &str) -> Option<String> {
    match name {
        "SR_USER" => Some("reader".to_owned()),
        "SR_PASSWORD" | "TOKEN" => Some(CANARY.to_owned()),
        "EMPTY" => Some(String::new()),
        "ROWS" => Some("5000".to_owned()),
        "HOSTILE" => Some("x\nroles: [query]".to_owned()),
        _ => None,
    }
}

fn parse(text: &str) -> Result<Settings> {
    Settings::parse(text, Path::new("/base"), &env)
}

/// The pipeline of `MINIMAL` with more keys.
fn trades(more: &str) -> Result<Pipeline> {
    let text = format!("{MINIMAL}    {more}\n");
    parse(&text).map(|mut settings| settings.pipelines.remove("trades").unwrap())
}

fn golden() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden/settings")
}

#[test]
fn golden_files_are_judged_as_written() {
    let mut checked = 0;
    let mut wrong = Vec::new();
    for entry in fs::read_dir(golden()).unwrap() {
        let path = entry.unwrap().path();
        if path.extension().is_none_or(|extension| extension != "yaml") {
            continue;
        }
        checked += 1;
        let said = match parse(&fs::read_to_string(&path).unwrap()) {
            Ok(settings) => {
                settings.notes.iter().map(|n| format!("note: {n}\n")).collect::<String>() + &settings.redacted()
            }
            Err(error) => format!("{error}\n"),
        };
        assert!(!said.contains(CANARY), "{}: a secret is printed:\n{said}", path.display());
        let expected = path.with_extension("expected");
        if std::env::var_os("UPDATE_GOLDEN").is_some() {
            fs::write(&expected, &said).unwrap();
        } else if fs::read_to_string(&expected).unwrap_or_default() != said {
            wrong.push(format!("{}:\n{said}", expected.display()));
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
    assert!(checked >= 10, "only {checked} golden files");
}

#[test]
fn a_minimal_file_gets_the_documented_defaults() {
    let settings = parse(MINIMAL).unwrap();
    assert_eq!(settings.kafka.brokers, Brokers::List("localhost:9092".into()));
    assert_eq!(settings.schema_registry.url, RegistryUrl::Url("http://localhost:8081".into()));
    assert_eq!(settings.memory, 2_000_000_000);
    assert_eq!(settings.state_dir, Path::new("/base/data/state"));
    assert_eq!(settings.roles, [Role::Writer]);
    let lake = &settings.catalogs["lake"];
    assert_eq!(lake.warehouse.as_deref(), Some("file:///base/data/warehouse"));
    let CatalogKind::IcebergSql { uri: SqlUri::Sqlite(path) } = &lake.kind else { panic!("{lake:?}") };
    assert_eq!(path, Path::new("/base/data/catalog.db"));
    let trades = &settings.pipelines["trades"];
    assert_eq!(trades.topics, Topics::Names(vec!["trades".into()]));
    assert_eq!((trades.group.as_str(), trades.mode, trades.start), ("firn-trades", Mode::Upsert, Start::Earliest));
    assert_eq!((trades.lineage.as_deref(), &trades.delete), (Some("_kafka"), &Delete::Tombstone));
    let commit = Commit { interval: Duration::from_secs(10), max_rows: 1_000_000, max_bytes: 256_000_000 };
    assert_eq!((trades.commit, trades.on_bad_record), (commit, OnBadRecord::Stop));
    assert_eq!((trades.key.as_ref(), trades.record_key, trades.order_by.as_ref()), (None, None, None));
    let table = &trades.tables[0];
    assert_eq!(table.table_ref().to_string(), "lake.market.trades");
    assert_eq!((table.format_version, table.partition_by.len(), table.sort_by.len()), (2, 0, 0));
    assert!(settings.notes.is_empty(), "{:?}", settings.notes);
}

#[test]
fn every_built_key_of_the_design_sample_is_read() {
    let text = fs::read_to_string(golden().join("design.yaml")).unwrap();
    let settings = parse(&text).unwrap();
    assert_eq!(settings.schema_registry.username.as_deref(), Some("reader"));
    assert_eq!(settings.schema_registry.password.as_ref().unwrap().expose_secret(), CANARY);
    let trades = &settings.pipelines["trades"];
    assert_eq!(trades.key.as_deref(), Some(&["id".to_owned()][..]));
    assert_eq!((trades.record_key, trades.order_by.as_deref()), (Some(RecordKey::Avro), Some("ts")));
    let table = &trades.tables[0];
    let day = PartitionField { transform: Transform::Day, column: "ts".into() };
    let bucket = PartitionField { transform: Transform::Bucket(16), column: "id".into() };
    assert_eq!((table.format_version, &table.partition_by), (3, &vec![day, bucket]));
    assert_eq!(table.sort_by, [SortField { column: "symbol".into(), descending: false, nulls_first: true }]);
}

#[test]
fn no_way_to_print_settings_shows_a_secret() {
    let text = format!(
        "kafka: {{brokers: 'localhost:9092', properties: {{sasl.password: {CANARY}, my.own: {CANARY}}}}}\n\
         schema_registry: {{url: 'http://localhost:8081', username: me, password: '${{SR_PASSWORD}}'}}\n\
         catalogs:\n\
         \x20 pg: {{type: iceberg-sql, uri: 'postgres://me:{CANARY}@db/lake?password={CANARY}', warehouse: w}}\n\
         \x20 rest: {{type: iceberg-rest, uri: 'http://localhost:8181', properties: {{token: '${{TOKEN}}', credential: 'a:{CANARY}'}}}}\n"
    );
    let settings = parse(&text).unwrap();
    for printed in [format!("{settings:?}"), format!("{settings:#?}"), settings.redacted(), settings.to_string()] {
        assert!(!printed.contains(CANARY), "{printed}");
    }
    assert!(settings.redacted().contains("postgres://***@db/lake"), "{settings}");
}

#[test]
fn no_fault_shows_a_secret() {
    for secret in [
        format!("schema_registry: {{url: 'http://me:{CANARY}@host', password: [{CANARY}]}}"),
        format!("schema_registry: {{url: 'host:{CANARY}', password: {CANARY}}}\npipelines: {{}}"),
        format!("catalogs: {{c: {{type: iceberg-sql, uri: 'postgres//me:{CANARY}@db', warehouse: w}}}}"),
        format!("catalogs: {{c: {{type: iceberg-rest, uri: 'http://{CANARY}@db'}}}}"),
        format!("kafka: {{brokers: b, properties: {{group.id: {CANARY}, x: [{CANARY}]}}}}"),
        "memory: ${TOKEN}\nstate_dir: [x]\nroles: ${TOKEN}\nkafka: {brokers: '://${TOKEN}'}".to_owned(),
    ] {
        let error = parse(&secret).unwrap_err().to_string();
        assert!(!error.contains(CANARY), "{error}");
    }
}

#[test]
fn redacted_settings_read_back_as_themselves() {
    for file in ["design.yaml", "rest.yaml", "two-pipelines.yaml"] {
        let settings = parse(&fs::read_to_string(golden().join(file)).unwrap()).unwrap();
        let printed = settings.redacted();
        let again = parse(&printed).unwrap_or_else(|error| panic!("{file}: {error}\n{printed}"));
        assert_eq!(again.redacted(), printed, "{file}");
        assert_eq!(format!("{:?}", again.pipelines), format!("{:?}", settings.pipelines), "{file}");
    }
}

#[test]
fn a_variable_cannot_add_keys_to_the_file() {
    let error = parse(&format!("{MINIMAL}state_dir: ${{HOSTILE}}\n")).unwrap_err().to_string();
    assert_eq!(error, "firn.yaml:9: state_dir: '${HOSTILE}' contains a control character");
}

#[test]
fn variables_have_defaults_and_a_literal_spelling() {
    let rows = |text: &str| trades(&format!("commit: {{max_rows: '{text}'}}")).map(|p| p.commit.max_rows);
    assert_eq!(rows("${ROWS}").unwrap(), 5000);
    assert_eq!(rows("${NONE:-77}").unwrap(), 77);
    assert_eq!(rows("${EMPTY:-78}").unwrap(), 78);
    assert_eq!(rows("1${NONE:-0}${NONE:-0}").unwrap(), 100);
    let delete = |value: &str| trades(&format!("delete: {{field: op, values: ['{value}']}}")).map(|p| p.delete);
    let values = |text: &str| Delete::Field { field: "op".into(), values: vec![text.into()] };
    assert_eq!(delete("a$${ROWS}b").unwrap(), values("a${ROWS}b"));
    assert_eq!(delete("a$$b$c").unwrap(), values("a$$b$c"));
    for (wrong, reason) in [("${NONE}", "NONE is not set"), ("${ROWS", "without a '}'"), ("${}", "no variable name")] {
        let error = delete(wrong).unwrap_err().to_string();
        assert!(error.contains(reason) && error.contains("firn.yaml:9: pipelines.trades.delete.values[0]:"), "{error}");
    }
}

#[test]
fn empty_credentials_are_no_credentials() {
    let text = MINIMAL.replace("8081'}", "8081', username: '${NONE:-}', password: '${NONE:-}'}");
    let registry = parse(&text).unwrap().schema_registry;
    assert!(registry.username.is_none() && registry.password.is_none());
}

#[test]
fn a_secret_can_be_in_a_file() {
    let dir = tempfile::tempdir().unwrap();
    fs::write(dir.path().join("token"), format!("{CANARY}\n")).unwrap();
    let read = |file: &str| {
        let password = format!("8081', username: me, password: {{file: {file}}}}}");
        Settings::parse(&MINIMAL.replace("8081'}", &password), dir.path(), &env)
    };
    let password = read("token").unwrap().schema_registry.password.unwrap();
    assert_eq!(password.expose_secret(), CANARY);
    let error = read("tokn").unwrap_err().to_string();
    assert!(error.starts_with("firn.yaml:2: schema_registry.password.file: cannot read 'tokn': "), "{error}");
}

#[test]
fn hostile_table_names_are_refused() {
    for name in [
        "..",
        "a...b",
        "../a.b",
        "a/b.c",
        "a\\\\b.c",
        "a.b/../c",
        "a.%2e%2e",
        "a.b\\0",
        "a.b\\u202e",
        "a.．．",
        "a b.c",
        "a.b$files",
        "a.b?c",
        "a.",
        ".a",
        "a",
        "a.b\\n",
        "a.b*",
        "a.'b'",
        "a.;b",
        "a.∕b",
        "/a.b",
        "~.b",
        ".hidden.b",
        "a..b",
        "a.%2F",
        "a.%00",
        "a.b:c",
        "a.C:",
        "a.\\\"b",
        "a.`b`",
        "a.e\\u0301",
    ] {
        let text = MINIMAL.replace("name: market.trades", &format!("name: \"{name}\""));
        let error = parse(&text).expect_err(name).to_string();
        assert!(error.starts_with("firn.yaml:8: pipelines.trades.tables[0].name: "), "{name}: {error}");
        assert!(!error.contains(['\0', '\u{202e}']) && error.lines().count() == 1, "{name}: {error:?}");
    }
    let long = MINIMAL.replace("market.trades", &format!("market.{}", "x".repeat(4096)));
    assert!(parse(&long).is_err());
    for name in [
        "market.trades",
        "a.b.c_d-e",
        "märkte.börse",
        "市场.交易",
        "a.1",
        "select.from",
        "__proto__.constructor",
        "CON.nul",
    ] {
        assert!(parse(&MINIMAL.replace("market.trades", name)).is_ok(), "{name}");
    }
}

#[test]
fn hostile_topics_are_refused() {
    let long = "x".repeat(250);
    for name in ["..", ".", "../x", "a/b", "a\\\\b", "a b", "é", "%2e", "a\\0", "a\\n", "a:b", "a*", &long] {
        let error = parse(&MINIMAL.replace("topics: [trades]", &format!("topics: [\"{name}\"]"))).expect_err(name);
        let refused =
            ["is no topic name", "contains a control character"].iter().any(|why| error.to_string().contains(why));
        assert!(refused, "{name}: {error}");
    }
    for name in ["__proto__", ".hidden", "a..b", "select", "CON", &long[1..]] {
        assert!(parse(&MINIMAL.replace("topics: [trades]", &format!("topics: [\"{name}\"]"))).is_ok(), "{name}");
    }
}

#[test]
fn tables_whose_names_differ_only_in_case_are_refused() {
    let two = |other: &str| {
        MINIMAL.replace("name: market.trades", &format!("name: market.trades}}, {{catalog: lake, name: {other}"))
    };
    for clash in ["Market.trades", "market.TRADES"] {
        let error = parse(&two(clash)).expect_err(clash).to_string();
        assert!(error.contains("differs only in upper and lower case"), "{clash}: {error}");
    }
    assert!(parse(&two("market.trades2")).is_ok());
    assert!(parse(&two("market.trades")).unwrap_err().to_string().contains("already"));
}

#[test]
fn partition_fields_are_read() {
    let read = |text: &str| names::partition_field(text).map(|field| field.to_string());
    for (text, expected) in [
        ("venue", "venue"),
        ("identity(venue)", "venue"),
        ("day(ts)", "day(ts)"),
        ("Days( ts )", "day(ts)"),
        ("bucket(16, id)", "bucket(16, id)"),
        ("truncate(4,symbol)", "truncate(4, symbol)"),
        ("year(ts)", "year(ts)"),
        ("month(ts)", "month(ts)"),
        ("hour(ts)", "hour(ts)"),
    ] {
        assert_eq!(read(text).as_deref(), Ok(expected));
    }
    for wrong in [
        "bucket(id)",
        "bucket(id, 16)",
        "bucket(0, id)",
        "bucket(-1, id)",
        "day()",
        "day(a,b)",
        "dya(ts)",
        "day(ts",
        "",
        "a b",
    ] {
        assert!(read(wrong).is_err(), "{wrong}");
    }
    assert_eq!(read("dya(ts)").unwrap_err(), "is no known transform; did you mean 'day'?");
}

#[test]
fn sort_fields_put_nulls_where_iceberg_does() {
    let read = |text: &str| names::sort_field(text).map(|field| (field.descending, field.nulls_first));
    assert_eq!(read("a"), Ok((false, true)));
    assert_eq!(read("a desc"), Ok((true, false)));
    assert_eq!(read("a ASC NULLS LAST"), Ok((false, false)));
    assert_eq!(read("a desc nulls first"), Ok((true, true)));
    for wrong in ["", "a b", "a desc nulls", "a desc asc", "a nulls middle"] {
        assert!(read(wrong).is_err(), "{wrong}");
    }
}

#[test]
fn bounds_hold_at_both_ends() {
    for (good, bad) in [
        ("commit: {interval: 100ms}", "commit: {interval: 99ms}"),
        ("commit: {interval: 1h}", "commit: {interval: 3601s}"),
        ("commit: {max_rows: 1}", "commit: {max_rows: 0}"),
        ("commit: {max_rows: 50_000_000}", "commit: {max_rows: 50000001}"),
        ("commit: {max_bytes: 1MB}", "commit: {max_bytes: 999999}"),
        ("commit: {max_bytes: 2GB}", "commit: {max_bytes: 2000000001}"),
        ("start: 1970-01-01T00:00:00Z", "start: 1969-12-31T23:59:59Z"),
    ] {
        assert!(trades(good).is_ok(), "{good}");
        assert!(trades(bad).is_err(), "{bad}");
    }
    assert!(parse(&format!("{MINIMAL}memory: 64MB\n")).is_ok());
    assert!(parse(&format!("{MINIMAL}memory: 63MB\n")).is_err());
    let small = parse(&format!("{MINIMAL}memory: 64MB\n")).unwrap();
    assert_eq!(small.pipelines["trades"].commit.max_bytes, 16_000_000, "the default follows from the memory");
}

#[test]
fn times_and_sizes_are_read_as_people_write_them() {
    assert_eq!(trades("start: 2026-01-01T00:00:00Z").unwrap().start, Start::Time(1_767_225_600_000));
    assert_eq!(trades("start: 2026-01-01T01:00:00.5+01:00").unwrap().start, Start::Time(1_767_225_600_500));
    assert_eq!(trades("commit: {max_bytes: 256MB}").unwrap().commit.max_bytes, 256_000_000);
    assert_eq!(trades("commit: {max_bytes: 256MiB}").unwrap().commit.max_bytes, 256 << 20);
    assert_eq!(trades("commit: {interval: 1m 30s}").unwrap().commit.interval, Duration::from_secs(90));
    for bytes in [1, 999, 1000, 1024, 256_000_000, 256 << 20, 2_000_000_000, u64::MAX] {
        let shown = read::show_size(bytes);
        assert_eq!(shown.parse::<bytesize::ByteSize>().unwrap().as_u64(), bytes, "{shown}");
    }
}

#[test]
fn places_have_one_spelling() {
    let base = Path::new("/base/conf");
    let warehouse = |text: &str| names::warehouse(text, base);
    for text in ["../w", "/base/w/", "./../w/.", "file:///base/w", "file:/base/w", "file:///base/x/../w"] {
        assert_eq!(warehouse(text).as_deref(), Ok("file:///base/w"), "{text}");
    }
    assert_eq!(warehouse("my data").as_deref(), Ok("file:///base/conf/my data"));
    for text in
        ["s3://", "gs://../x", "abfss://c@a/w", "hdfs://n/w", "file://host/w", "/", "a%20b", "a?b", "a#b", "../.."]
    {
        assert!(warehouse(text).is_err(), "{text}");
    }
    for (text, spelled) in [
        ("s3://b/w/", "s3://b/w"),
        ("s3a://b", "s3://b"),
        ("gs://b/a b", "gs://b/a b"),
        ("abfss://c@a.dfs.core.windows.net/w", "abfss://c@a.dfs.core.windows.net/w"),
    ] {
        assert_eq!(warehouse(text).as_deref(), Ok(spelled), "{text}");
    }
    let sqlite = |text: &str| match names::sql_uri(text, base) {
        Ok(SqlUri::Sqlite(path)) => path.display().to_string(),
        other => format!("{other:?}"),
    };
    assert_eq!(sqlite("sqlite:data/c.db"), "/base/conf/data/c.db");
    assert_eq!(sqlite("sqlite:///data/c.db"), "/data/c.db");
    assert_eq!(sqlite("sqlite:/data/c.db"), "/data/c.db");
    for text in [
        "sqlite:",
        "sqlite::memory:",
        "sqlite://data/c.db",
        "sqlite:c.db?mode=rwc",
        "jdbc:sqlite:c.db",
        "postgres:///db",
        "mysql://h/d",
    ] {
        assert!(names::sql_uri(text, base).is_err(), "{text}");
    }
}

#[test]
fn bombs_and_abysses_end_in_a_fault() {
    let mut laughs = "a: &a [x, x, x, x, x, x, x, x, x, x]\n".to_owned();
    for (name, below) in ["b", "c", "d", "e", "f", "g", "h"].iter().zip(["a", "b", "c", "d", "e", "f", "g"]) {
        laughs.push_str(&format!("{name}: &{name} [{}]\n", vec![format!("*{below}"); 10].join(", ")));
    }
    let deep_flow = "[".repeat(100_000);
    let deep_block = format!("a:\n  {}x", "- ".repeat(200_000));
    let deep_lines: String = (0..200).map(|i| format!("{}a:\n", " ".repeat(i))).collect();
    let cycle = "a: &a [*a]\n".to_owned();
    let huge = format!("state_dir: {}\n", "x".repeat(1 << 20));
    for (text, reason) in [
        (laughs, "more than 100000 values"),
        (deep_flow, ""),
        (deep_block, "nested more than 32 levels deep"),
        (deep_lines, "nested more than 32 levels deep"),
        (cycle, "inside the value that it names"),
        (huge, "larger than 1 MiB"),
    ] {
        let error = parse(&text).unwrap_err().to_string();
        assert!(error.contains(reason) && error.len() < 2000, "{error}");
    }
}

#[test]
fn aliases_repeat_a_value() {
    let text = format!("{}\n", MINIMAL.trim_end())
        + "    commit: &often {interval: 1s}\n  quotes:\n    topics: [quotes]\n    commit: *often\n    tables: [{catalog: lake, name: market.quotes}]\n";
    assert_eq!(parse(&text).unwrap().pipelines["quotes"].commit.interval, Duration::from_secs(1));
}

#[test]
fn many_faults_are_counted_beyond_the_first() {
    let text: String = (0..80).map(|i| format!("zzz{i}: 1\n")).collect();
    let error = parse(&text).unwrap_err().to_string();
    assert_eq!(error.lines().count(), 51);
    assert!(error.ends_with("firn.yaml: and 31 more"), "{error}");
}

#[test]
fn a_file_is_loaded_with_its_own_folder_as_base() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("my.yaml");
    fs::write(&path, MINIMAL).unwrap();
    let settings = Settings::load(&path).unwrap();
    assert_eq!(settings.base_dir, dir.path());
    assert_eq!(settings.state_dir, dir.path().join("data/state"));
    fs::write(&path, "kafka: {}\nwarp: 9\n").unwrap();
    let error = Settings::load(&path).unwrap_err();
    assert!(error.to_string().contains(&format!("{}:2: unknown key 'warp'", path.display())), "{error}");
    assert_eq!(error.exit_code(), 2);
    fs::write(&path, b"a: b\nc: \xff\n").unwrap();
    assert!(Settings::load(&path).unwrap_err().to_string().contains("my.yaml:2: the file is not UTF-8"));
    for missing in [dir.path().join("none.yaml"), dir.path().to_owned()] {
        let error = Settings::load(&missing).unwrap_err();
        assert!(error.to_string().contains("cannot read the settings") && error.exit_code() == 2, "{error}");
    }
}

#[test]
fn tables_and_pipelines_are_found_by_name() {
    let settings = parse(MINIMAL).unwrap();
    assert_eq!(settings.table_ref("lake.market.trades").unwrap().namespace, ["market"]);
    assert_eq!(settings.table_ref("lake.a.b.c").unwrap().namespace, ["a", "b"]);
    let near = settings.table_ref("lak.market.trades").unwrap_err().to_string();
    assert!(near.contains("did you mean 'lake'?"), "{near}");
    for wrong in ["lake.trades", "lake", "", "lake..x", "lake.a.b/c"] {
        assert!(settings.table_ref(wrong).is_err(), "{wrong}");
    }
    assert!(settings.pipeline("trdes").unwrap_err().to_string().contains("did you mean 'trades'?"));
}

#[test]
fn a_file_for_queries_needs_only_catalogs() {
    let settings = parse("catalogs: {lake: {type: iceberg-rest, uri: 'https://h'}}").unwrap();
    assert!(settings.roles.is_empty() && settings.pipelines.is_empty());
    assert_eq!(settings.kafka.brokers, Brokers::Embedded);
}

#[test]
fn every_key_is_documented() {
    let docs = fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join("docs/configuration.md")).unwrap();
    for (section, keys) in keys::SECTIONS {
        for key in keys.accepted {
            let path = if section.is_empty() { (*key).to_owned() } else { format!("{section}.{key}") };
            assert!(docs.contains(&format!("`{path}`")), "docs/configuration.md lacks `{path}`");
        }
        for key in keys.not_built {
            assert!(docs.contains(&format!("`{key}`")), "docs/configuration.md lacks `{key}`");
        }
    }
    for property in crate::files::STORE_PROPERTIES {
        assert!(docs.contains(&format!("`{property}`")), "docs/configuration.md lacks `{property}`");
    }
    // The other way round: what the page calls a key exists.
    for line in docs.lines().filter_map(|line| line.strip_prefix("| `")) {
        let path = line.split('`').next().unwrap();
        if crate::files::is_store_property(path) {
            assert!(crate::files::STORE_PROPERTIES.contains(&path), "no property `{path}`");
            continue;
        }
        let (section, key) = path.rsplit_once('.').unwrap_or(("", path));
        let known = keys::SECTIONS.iter().any(|(name, keys)| *name == section && keys.accepted.contains(&key));
        assert!(known, "docs/configuration.md documents `{path}`, which is no key");
    }
}

#[test]
fn the_examples_of_the_documentation_are_valid() {
    let docs = fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join("docs/configuration.md")).unwrap();
    let examples: Vec<&str> = docs.split("```yaml\n").skip(1).filter_map(|rest| rest.split("```").next()).collect();
    assert!(!examples.is_empty());
    for example in examples {
        parse(example).unwrap_or_else(|error| panic!("{error}\n{example}"));
    }
}
