use super::*;

fn error(sql: &str) -> String {
    match parse(sql) {
        Err(Error::Config(text)) => text,
        other => panic!("{}: taken is {}", sql.chars().take(80).collect::<String>(), other.is_ok()),
    }
}

#[test]
fn statements_that_read_are_taken() {
    for sql in [
        "SELECT 1",
        "select 1;",
        "WITH a AS (SELECT 1 AS x) SELECT x FROM a UNION ALL SELECT 2",
        "VALUES (1), (2)",
        "EXPLAIN SELECT 1",
        "EXPLAIN ANALYZE SELECT 1",
        "SHOW TABLES",
        "SHOW COLUMNS FROM lake.market.trades",
        "DESCRIBE lake.market.trades",
        "SELECT * FROM lake.market.trades WHERE id IN (SELECT 1)",
        "SELECT 'DROP TABLE x; COPY' AS \"insert\"",
    ] {
        parse(sql).unwrap_or_else(|e| panic!("{sql}: {e}"));
    }
}

/// O3: nothing but reading, whatever it is wrapped in.
#[test]
fn statements_that_do_anything_else_are_refused() {
    let verbs = [
        "COPY (SELECT 1) TO '/tmp/canary.csv'",
        "COPY lake.market.trades TO '/tmp/canary.parquet' STORED AS PARQUET",
        "COPY t FROM '/etc/passwd'",
        "CREATE EXTERNAL TABLE t STORED AS CSV LOCATION '/etc/passwd'",
        "CREATE TABLE t (x INT)",
        "CREATE TABLE t AS SELECT 1",
        "CREATE OR REPLACE VIEW v AS SELECT 1",
        "CREATE SCHEMA s",
        "CREATE DATABASE d",
        "CREATE FUNCTION f() RETURNS INT RETURN 1",
        "DROP TABLE lake.market.trades",
        "DROP VIEW v",
        "DROP SCHEMA s",
        "INSERT INTO lake.market.trades VALUES (1)",
        "INSERT INTO lake.market.trades SELECT 1",
        "UPDATE lake.market.trades SET id = 1",
        "DELETE FROM lake.market.trades",
        "MERGE INTO a USING b ON a.x = b.x WHEN MATCHED THEN DELETE",
        "TRUNCATE TABLE lake.market.trades",
        "ALTER TABLE lake.market.trades ADD COLUMN x INT",
        "SET datafusion.execution.target_partitions = 100000",
        "SET TIME ZONE 'UTC'",
        "RESET datafusion.execution.target_partitions",
        "BEGIN",
        "COMMIT",
        "ROLLBACK",
        "PREPARE p AS SELECT 1",
        "EXECUTE p",
        "DEALLOCATE p",
        "CALL f()",
        "USE lake",
        "GRANT SELECT ON t TO u",
        "REVOKE SELECT ON t FROM u",
        "ANALYZE TABLE t",
        "VACUUM t",
        "LOAD DATA INPATH '/etc/passwd' INTO TABLE t",
        "ATTACH DATABASE '/etc/passwd' AS x",
        "INSTALL httpfs",
        "PRAGMA x",
        "KILL 1",
        "LISTEN x",
        "NOTIFY x",
        "COMMENT ON TABLE t IS 'x'",
        "LOCK TABLE t",
        "SHOW ALL",
        "SHOW datafusion.execution.target_partitions",
    ];
    let wrappers: [fn(&str) -> String; 8] = [
        |s| s.to_owned(),
        |s| format!("{s};"),
        |s| format!("/* SELECT */ {s}"),
        |s| format!("-- SELECT\n{s}"),
        |s| format!("EXPLAIN {s}"),
        |s| format!("EXPLAIN ANALYZE {s}"),
        |s| format!("SELECT 1; {s}"),
        |s| format!("WITH w AS ({s}) SELECT 1"),
    ];
    for verb in verbs {
        for wrap in wrappers {
            let sql = wrap(verb);
            error(&sql);
        }
    }
}

#[test]
fn writing_in_the_guise_of_a_query_is_refused() {
    for sql in [
        "SELECT 1 INTO t",
        "SELECT * INTO TEMP t FROM lake.market.trades",
        "SELECT * FROM lake.market.trades FOR UPDATE",
        "WITH a AS (INSERT INTO t VALUES (1) RETURNING *) SELECT 1",
        "WITH a AS (DELETE FROM t RETURNING *) SELECT * FROM a",
        "SELECT * FROM (SELECT 1 INTO t) x",
        "SELECT (SELECT 1 INTO t)",
        "SELECT 1 UNION ALL SELECT 1 INTO t",
        "WITH a AS (SELECT 1) INSERT INTO t SELECT * FROM a",
        "EXPLAIN EXPLAIN SELECT 1",
        "SELECT 1; SELECT 2",
        "",
        ";",
        "   ",
        "-- nothing",
        "SELECT",
        "SELECT 'unterminated",
        "\u{0}",
    ] {
        error(sql);
    }
}

fn on_a_big_stack(work: impl FnOnce() + Send + 'static) {
    // As the engine does it.
    std::thread::Builder::new().stack_size(64 << 20).spawn(work).unwrap().join().unwrap();
}

/// O4: size and depth are errors, not aborts.
#[test]
fn statements_too_long_or_too_deep_are_refused() {
    on_a_big_stack(|| {
        let deep = |n: usize, link: &str| format!("SELECT {}", vec!["1"; n].join(link));
        for sql in [
            deep(2000, "+"),
            deep(3900, " AND "),
            deep(20_000, " OR "),
            deep(200_000, "+"),
            format!("SELECT {}1", "-".repeat(100_000)),
            format!("SELECT {}1", "- ".repeat(3_000)),
            format!("SELECT {}1", "NOT ".repeat(3_000)),
            format!("SELECT {}1{}", "(".repeat(3_000), ")".repeat(3_000)),
            format!("SELECT {}1{}", "f(".repeat(3_000), ")".repeat(3_000)),
            format!("SELECT {}1{}", "CASE WHEN true THEN ".repeat(3_000), " END".repeat(3_000)),
            format!("SELECT {}", vec!["SELECT 1"; 3_000].join(" UNION ALL ")),
            format!("SELECT * FROM {}", vec!["t"; 3_000].join(", ")),
            format!("SELECT * FROM {}", vec!["t"; 3_000].join(" JOIN ")),
            format!("SELECT {}1{}", "(SELECT ".repeat(3_000), ")".repeat(3_000)),
            format!("SELECT a{}", "[1]".repeat(3_000)),
            format!("SELECT a{}", ".b".repeat(3_000)),
            format!("SELECT 1{}", "::int".repeat(3_000)),
            format!("SELECT '{}'", "x".repeat(STATEMENT_BYTES_MAX)),
        ] {
            error(&sql);
        }
        parse(&deep(200, "+")).unwrap();
        parse(&format!("SELECT 1 WHERE 1 IN ({})", vec!["1"; 20_000].join(","))).unwrap();
    });
}

fn rewritten(sql: &str) -> String {
    parse(sql).unwrap().to_string().replace(VERSION_MARK, "@")
}

#[test]
fn a_version_goes_with_the_name_of_its_table() {
    for (sql, wanted) in [
        ("SELECT * FROM a.b.t FOR VERSION AS OF 12", "SELECT * FROM a.b.\"t@12\" AS \"t\""),
        (
            "SELECT t.x FROM a.b.T for version as of 12 WHERE t.x > 1",
            "SELECT t.x FROM a.b.\"t@12\" AS \"t\" WHERE t.x > 1",
        ),
        ("SELECT * FROM a.b.\"T\" FOR VERSION AS OF 3 AS q", "SELECT * FROM a.b.\"T@3\" AS q"),
        (
            "SELECT * FROM t FOR VERSION AS OF 1 x JOIN t FOR VERSION AS OF 2 y ON x.a = y.a",
            "SELECT * FROM \"t@1\" x JOIN \"t@2\" y ON x.a = y.a",
        ),
        ("SELECT * FROM lake.a.B.t", "SELECT * FROM lake.\"a.b\".t"),
        ("SELECT 'FOR VERSION AS OF x'", "SELECT 'FOR VERSION AS OF x'"),
    ] {
        assert_eq!(rewritten(sql), wanted);
    }
    for sql in [
        "SELECT * FROM t FOR VERSION AS OF",
        "SELECT * FROM t FOR VERSION AS OF 'main'",
        "SELECT * FROM t FOR VERSION AS OF 1.5",
        "SELECT * FROM t FOR VERSION AS OF 99999999999999999999",
        "SELECT * FROM (SELECT 1) FOR VERSION AS OF 1",
        "FOR VERSION AS OF 1",
    ] {
        error(sql);
    }
    assert_eq!(split_version("t\u{1}v12"), ("t", Some(12)));
    assert_eq!(split_version("t"), ("t", None));
}
