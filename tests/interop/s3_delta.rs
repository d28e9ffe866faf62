//! Delta tables in an object store, shared with Trino and deltalake: each changes what the others wrote.

use serde_json::json;

use crate::process::{catch_up, until_caught_up};
use crate::rows::assert_same_rows;
use crate::s3::{DELTA, config, delta_is_right, delta_location, deltalake_rows, register, scenario, trino_delta_rows};
use crate::scenario::Scenario;
use crate::stack::Stack;
use crate::wanted;

const LIMIT: std::time::Duration = std::time::Duration::from_secs(120);

#[test]
fn trino_deletes_from_our_table_and_we_upsert_on_top() {
    if !wanted() {
        return;
    }
    let mut scenario = scenario("deleted", 2);
    let config = config(&scenario, &Stack::get().s3.url, &[DELTA]);
    scenario.produce(1_500, 400);
    catch_up(&config);
    let (in_trino, trino) = (register(&scenario), &Stack::get().trino_delta);
    for round in 0..2 {
        trino.query(&format!("DELETE FROM {in_trino} WHERE id % 5 = {round}"));
        scenario.change(|rows| rows.retain(|id, _| id % 5 != round));
        trino.query(&format!("UPDATE {in_trino} SET qty = qty + 1000 WHERE id % 7 = {round}"));
        scenario.change(|rows| {
            for (id, row) in rows.iter_mut().filter(|(id, _)| *id % 7 == round) {
                let _ = id;
                row[3] = (row[3].parse::<i64>().unwrap() + 1000).to_string();
            }
        });
        delta_is_right(&scenario, &config, &in_trino);
        scenario.produce(300, 400);
        catch_up(&config);
        delta_is_right(&scenario, &config, &in_trino);
    }
    // Trino 476 optimizes a table with deletion vectors by removing files without naming their vectors: by the protocol they
    // stay, and deltalake sees the old rows again. That is not guessed about.
    trino.query(&format!("ALTER TABLE {in_trino} EXECUTE optimize"));
    assert!(deltalake_rows(&scenario).len() > scenario.expected().len(), "it has been mended: follow it");
    scenario.produce(10, 400);
    let (code, stderr) = until_caught_up(&config, LIMIT);
    assert!(code == 4 && stderr.contains("without its deletion vector"), "{code}: {stderr}");
    // What it says to do.
    let version = scenario.stack.deltalake(&delta_location(&scenario), json!({"op": "version"}));
    let before = version.as_i64().unwrap() - 1;
    scenario.stack.deltalake(&delta_location(&scenario), json!({"op": "restore", "version": before}));
    catch_up(&config);
    assert_same_rows(&deltalake_rows(&scenario), &scenario.expected());
}

/// Rows that somebody else has in the table before Firn comes.
fn seed(scenario: &mut Scenario, rows: i64) -> Vec<(i64, String, f64, i64)> {
    let seeded: Vec<_> = (0..rows).map(|id| (id * 3, format!("T{}", id % 3), id as f64 / 4.0, id)).collect();
    scenario.change(|all| {
        for (id, symbol, price, qty) in &seeded {
            all.insert(*id, vec![id.to_string(), symbol.clone(), format!("{price:?}"), qty.to_string()]);
        }
    });
    seeded
}

#[test]
fn we_upsert_into_tables_that_trino_made() {
    if !wanted() {
        return;
    }
    let trino = &Stack::get().trino_delta;
    for with in [
        "deletion_vectors_enabled = true",
        "partitioned_by = ARRAY['symbol']",
        "column_mapping_mode = 'name', deletion_vectors_enabled = true",
        // Without the vectors the table would be of an old protocol version, and Trino does not write what such a table
        // becomes when vectors are enabled on it.
        "column_mapping_mode = 'id', partitioned_by = ARRAY['symbol'], deletion_vectors_enabled = true",
    ] {
        let mut scenario = scenario("trinos", 2);
        let config = config(&scenario, &Stack::get().s3.url, &[DELTA]);
        let (bucket, location) = (&scenario.stack.s3.bucket, delta_location(&scenario));
        trino
            .query(&format!("CREATE SCHEMA IF NOT EXISTS delta.market WITH (location = 's3://{bucket}/delta/market')"));
        let name = format!("delta.{}", scenario.table());
        let columns = "id bigint, symbol varchar, price double, qty integer";
        trino.query(&format!("CREATE TABLE {name} ({columns}) WITH (location = '{location}', {with})"));
        let values: Vec<String> = seed(&mut scenario, 60)
            .iter()
            .map(|(id, symbol, price, qty)| format!("({id}, '{symbol}', DOUBLE '{price:?}', {qty})"))
            .collect();
        trino.query(&format!("INSERT INTO {name} VALUES {}", values.join(", ")));
        trino.query(&format!("DELETE FROM {name} WHERE id = 9"));
        scenario.change(|rows| drop(rows.remove(&9)));
        scenario.produce(400, 150);
        catch_up(&config);
        delta_is_right(&scenario, &config, &name);
        trino.query(&format!("DELETE FROM {name} WHERE id % 4 = 1"));
        scenario.change(|rows| rows.retain(|id, _| id % 4 != 1));
        scenario.produce(200, 150);
        catch_up(&config);
        delta_is_right(&scenario, &config, &name);
    }
}

#[test]
fn we_upsert_into_tables_that_deltalake_made() {
    if !wanted() {
        return;
    }
    let vectors = json!({"delta.enableDeletionVectors": "true"});
    for (by, configuration) in [(json!([]), json!({})), (json!(["symbol"]), json!({})), (json!(["symbol"]), vectors)] {
        let mut scenario = scenario("pythons", 2);
        let config = config(&scenario, &Stack::get().s3.url, &[DELTA]);
        let (stack, location) = (scenario.stack, delta_location(&scenario));
        let rows = seed(&mut scenario, 60);
        stack.deltalake(&location, json!({"op": "write", "rows": rows, "by": by, "configuration": configuration}));
        stack.deltalake(&location, json!({"op": "delete", "where": "id = 9"}));
        scenario.change(|rows| drop(rows.remove(&9)));
        for _ in 0..2 {
            scenario.produce(300, 150);
            catch_up(&config);
            assert_same_rows(&deltalake_rows(&scenario), &scenario.expected());
        }
        let in_trino = register(&scenario);
        delta_is_right(&scenario, &config, &in_trino);
    }
}

#[test]
fn what_is_not_supported_is_refused_by_name_before_anything_is_written() {
    if !wanted() {
        return;
    }
    let trino = &Stack::get().trino_delta;
    let retention = "delta.setTransactionRetentionDuration";
    for (with, property, named) in [
        ("change_data_feed_enabled = true", None, "delta.enableChangeDataFeed"),
        ("deletion_vectors_enabled = true", Some((retention, "interval 7 days")), retention),
    ] {
        let mut scenario = scenario("refused", 1);
        let config = config(&scenario, &Stack::get().s3.url, &[DELTA]);
        let (stack, location) = (scenario.stack, delta_location(&scenario));
        let bucket = &stack.s3.bucket;
        trino
            .query(&format!("CREATE SCHEMA IF NOT EXISTS delta.market WITH (location = 's3://{bucket}/delta/market')"));
        let name = format!("delta.{}", scenario.table());
        trino.query(&format!("CREATE TABLE {name} (id bigint, symbol varchar, price double, qty integer) WITH (location = '{location}', {with})"));
        if let Some((property, value)) = property {
            stack.deltalake(&location, json!({"op": "properties", "properties": {property: value}}));
        }
        let before = stack.deltalake(&location, json!({"op": "version"}));
        scenario.produce(50, 20);
        let (code, stderr) = until_caught_up(&config, LIMIT);
        assert_eq!(code, 4, "{stderr}");
        assert!(stderr.contains(named), "{stderr}");
        assert_eq!(stack.deltalake(&location, json!({"op": "version"})), before, "nothing was written");
        assert!(trino_delta_rows(&scenario, &name).is_empty());
        if property.is_some() {
            // The operator's word for it.
            let text = std::fs::read_to_string(&config).unwrap();
            let accepted =
                text.replace("/delta\", properties: {", "/delta\", properties: {accept-transaction-retention: true, ");
            assert_ne!(text, accepted);
            std::fs::write(&config, accepted).unwrap();
            catch_up(&config);
            delta_is_right(&scenario, &config, &name);
        }
    }
}
