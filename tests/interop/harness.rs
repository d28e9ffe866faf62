//! The harness itself: what it writes is what it reads, through every engine. Tests of Firn build on this.

use std::path::Path;
use std::time::Duration;

use serde_json::json;

use crate::kafka::{Compression, Ending, Record};
use crate::process::{FirnProcess, firn};
use crate::registry::unframed;
use crate::rows::{NULL, assert_same_rows, difference, rows};
use crate::stack::{Catalog, Stack, unique};
use crate::wanted;

fn record(partition: i32, key: &str, value: Option<&str>) -> Record {
    Record {
        partition,
        key: Some(key.into()),
        value: value.map(Into::into),
        timestamp: Some(1_700_000_000_000),
        headers: vec![("trace".into(), Some(b"1".to_vec())), ("empty".into(), None)],
    }
}

#[test]
fn every_codec_comes_back_as_it_was_sent() {
    if !wanted() {
        return;
    }
    let kafka = &Stack::get().kafka;
    for codec in Compression::ALL {
        let topic = unique("codec");
        kafka.create_topic(&topic, 2, &[]);
        let sent: Vec<_> =
            (0..200).map(|i| record(i % 2, &format!("k{i}"), (i % 7 != 0).then_some("some text"))).collect();
        let offsets = kafka.produce(&topic, &sent, codec);
        assert_eq!(offsets[..4], [0, 0, 1, 1], "{codec:?}");
        let received = kafka.consume(&topic);
        let mut expected = sent;
        expected.sort_by_key(|r| r.partition);
        assert_eq!(received.into_iter().map(|r| r.record).collect::<Vec<_>>(), expected, "{codec:?}");
        kafka.delete_topic(&topic);
    }
}

#[test]
fn tls_and_every_sasl_mechanism_reach_the_broker_and_a_wrong_password_does_not() {
    if !wanted() {
        return;
    }
    let kafka = &Stack::get().kafka;
    let topic = unique("secure");
    kafka.create_topic(&topic, 1, &[]);
    let mechanisms = ["PLAIN", "SCRAM-SHA-256", "SCRAM-SHA-512"];
    let mut ways = vec![kafka.plain(), kafka.tls()];
    ways.extend(mechanisms.iter().flat_map(|mechanism| [kafka.sasl_tls(mechanism), kafka.sasl(mechanism)]));
    for (i, way) in ways.iter().enumerate() {
        kafka.produce_through(way, &topic, &[record(0, &i.to_string(), Some("x"))], Compression::Zstd);
        assert_eq!(kafka.consume_through(way, &topic).len(), i + 1, "{way:?}");
    }
    let mut wrong = kafka.sasl_tls("SCRAM-SHA-512");
    wrong.push(("sasl.password".into(), "wrong".into()));
    wrong.push(("message.timeout.ms".into(), "4000".into()));
    wrong.push(("delivery.timeout.ms".into(), "4000".into()));
    let refused =
        rdkafka::ClientConfig::from_iter(wrong).create::<rdkafka::consumer::BaseConsumer>().expect("a client");
    let answer = rdkafka::consumer::Consumer::fetch_metadata(&refused, Some(&topic), Duration::from_secs(4));
    assert!(answer.is_err(), "a wrong password was accepted");
}

#[test]
fn an_aborted_transaction_is_not_read_and_markers_take_offsets() {
    if !wanted() {
        return;
    }
    let kafka = &Stack::get().kafka;
    let topic = unique("transactions");
    kafka.create_topic(&topic, 1, &[]);
    kafka.transaction(&topic, &[record(0, "a", Some("1")), record(0, "b", Some("2"))], Ending::Commit);
    kafka.transaction(&topic, &[record(0, "c", Some("3"))], Ending::Abort);
    let open = kafka.open_transaction(&topic, &[record(0, "d", Some("4"))]);
    let keys = || kafka.consume(&topic).into_iter().map(|r| (r.offset, r.record.key)).collect::<Vec<_>>();
    assert_eq!(keys(), [(0, Some(b"a".to_vec())), (1, Some(b"b".to_vec()))]);
    open.end(Ending::Commit);
    assert_eq!(keys().last(), Some(&(5, Some(b"d".to_vec()))), "markers at 2 and 4, the aborted record at 3");
    assert_eq!(kafka.watermarks(&topic), [(0, 7)]);
}

#[test]
fn topics_grow_lose_their_beginning_and_start_anew() {
    if !wanted() {
        return;
    }
    let kafka = &Stack::get().kafka;
    let topic = unique("admin");
    kafka.create_topic(&topic, 1, &[("retention.ms", "-1")]);
    let ten: Vec<_> = (0..10).map(|i| record(0, &i.to_string(), Some("x"))).collect();
    kafka.produce(&topic, &ten, Compression::None);
    kafka.grow_topic(&topic, 3);
    kafka.delete_records(&topic, &[(0, 6)]);
    assert_eq!(kafka.watermarks(&topic), [(6, 10), (0, 0), (0, 0)]);
    kafka.delete_topic(&topic);
    kafka.create_topic(&topic, 1, &[]);
    assert_eq!(kafka.watermarks(&topic), [(0, 0)]);
}

#[test]
fn the_registry_keeps_schemas_and_refuses_incompatible_ones() {
    if !wanted() {
        return;
    }
    let registry = &Stack::get().registry;
    let subject = unique("subject");
    let schema =
        |fields: &str| format!(r#"{{"type":"record","name":"Trade","namespace":"market","fields":[{fields}]}}"#);
    let first = schema(r#"{"name":"id","type":"long"},{"name":"venue","type":["null","string"],"default":null}"#);
    let encoder = registry.encoder(&subject, &first);
    assert_eq!(apache_avro::Schema::parse_str(&registry.schema(encoder.id)).expect("Avro"), encoder.schema);
    assert_eq!(registry.register(&subject, &first), encoder.id, "the same schema keeps its id");

    let message = encoder.encode_json(json!({"id": -2, "venue": "XETR"}));
    let (id, mut body) = unframed(&message);
    assert_eq!((id, body), (encoder.id, &b"\x03\x02\x08XETR"[..]));
    let value = apache_avro::from_avro_datum(&encoder.schema, &mut body, None).expect("Avro");
    assert_eq!(encoder.encode(value), message);

    let refused = registry.try_register(&subject, &schema(r#"{"name":"id","type":"string"}"#));
    assert_eq!(refused.expect_err("an incompatible schema").0, 409);
    registry.set_compatibility(&subject, "NONE");
    assert_ne!(registry.register(&subject, &schema(r#"{"name":"id","type":"string"}"#)), encoder.id);
    registry.delete_subject(&subject);
}

#[test]
fn a_table_of_pyiceberg_reads_the_same_in_trino_in_each_catalog() {
    if !wanted() {
        return;
    }
    let stack = Stack::get();
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/interop/make_table.py");
    for catalog in Catalog::ALL {
        let namespace = unique("types");
        let properties = stack.pyiceberg_catalog(catalog);
        let (table, in_trino) = (format!("{namespace}.t"), format!("{}.{namespace}.t", catalog.name()));
        let map: std::collections::BTreeMap<_, _> = properties.iter().cloned().collect();
        let request = json!({"catalog": map, "table": table}).to_string();
        let first: i64 = stack.python_lines(&script, &request).trim().parse().expect("a snapshot id");

        let ours = stack.pyiceberg_rows(&properties, &table, None);
        let theirs = stack.trino.query(&format!("SELECT * FROM {in_trino}"));
        assert_same_rows(&ours, &theirs);
        assert_eq!(ours.len(), 5);
        assert_same_rows(
            &stack.pyiceberg_rows(&properties, &table, Some(first)),
            &stack.trino.query(&format!("SELECT * FROM {in_trino} FOR VERSION AS OF {first}")),
        );
        let full = ours.iter().find(|row| row[0] == "1").expect("the full row");
        assert_eq!(
            full[3..9],
            [
                "1.1",
                "1e16",
                "-12.500",
                "zwölf \"quoted\", with comma",
                "0x00ff",
                "00000000-0000-0000-0000-000000000007"
            ]
        );
        assert_eq!(full[13..], [r#"["a", ∅, "b,c"]"#, r#"{"a"=∅, "k"=0.1}"#, "(1, ∅)"]);
        assert!(ours.iter().any(|row| row[0] == "3" && row[1..].iter().all(|cell| cell == NULL)));
    }
}

#[test]
fn a_version_3_table_with_a_deletion_vector_works_in_each_catalog() {
    if !wanted() {
        return;
    }
    let stack = Stack::get();
    for catalog in Catalog::ALL {
        let (trino, namespace) = (&stack.trino, unique("v3"));
        let table = format!("{}.{namespace}.t", catalog.name());
        trino.query(&format!("CREATE SCHEMA {}.{namespace}", catalog.name()));
        trino.query(&format!("CREATE TABLE {table} (id bigint, v varchar) WITH (format_version = 3)"));
        trino.query(&format!("INSERT INTO {table} VALUES (1, 'a'), (2, 'b'), (3, NULL)"));
        trino.query(&format!("DELETE FROM {table} WHERE id = 2"));
        let expected = rows(&[&["1", "a"], &["3", NULL]]);
        assert_same_rows(&trino.query(&format!("SELECT * FROM {table}")), &expected);
        let properties = stack.pyiceberg_catalog(catalog);
        assert_same_rows(&stack.pyiceberg_rows(&properties, &format!("{namespace}.t"), None), &expected);
        let files =
            trino.query(&format!("SELECT file_format FROM {}.{namespace}.\"t$files\" ORDER BY 1", catalog.name()));
        assert_eq!(files, rows(&[&["PARQUET"], &["PUFFIN"]]));
    }
}

#[test]
fn a_failing_statement_says_why() {
    if !wanted() {
        return;
    }
    let trino = &Stack::get().trino;
    let error = trino.try_answer("SELECT nonsense").expect_err("there is no such column");
    assert!(error.contains("nonsense"), "{error}");
    let answer = trino.answer("SELECT 1 AS one, CAST(NULL AS real) AS nothing");
    assert_eq!(
        (answer.columns, answer.types),
        (vec!["one".into(), "nothing".into()], vec!["integer".into(), "real".into()])
    );
    assert_eq!(answer.rows, rows(&[&["1", NULL]]));
}

#[test]
fn a_difference_names_the_rows_and_how_often() {
    let (a, b) = (rows(&[&["1", "x"], &["2", "y"], &["2", "y"]]), rows(&[&["2", "y"], &["3", "z"], &["1", "x"]]));
    assert_eq!(difference(&a, &b).as_deref(), Some("  only left  x1: 2 | y\n  only right x1: 3 | z\n"));
    assert_eq!(difference(&a, &[a[2].clone(), a[0].clone(), a[1].clone()]), None);
}

#[test]
fn the_program_runs_and_ends() {
    if !wanted() {
        return;
    }
    let output = firn(["--no-such-flag"]);
    let mut process = FirnProcess::spawn(["--no-such-flag"]);
    let status = process.wait(Duration::from_secs(30));
    assert_eq!(output.status.code(), status.code());
    assert!(!process.kill_9(), "it had ended already");
}
