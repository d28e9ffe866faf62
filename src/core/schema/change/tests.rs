use super::*;
use crate::core::schema::{Field, Type};

fn table(fields: &[(&str, Type, &[&str])]) -> Arc<TableSchema> {
    let field = |(name, kind, aliases): &(&str, Type, &[&str])| Field {
        aliases: aliases.iter().map(|alias| (*alias).to_owned()).collect(),
        ..Field::new(*name, kind.clone(), false)
    };
    let mut schema = TableSchema { fields: fields.iter().map(field).collect(), key: Vec::new() };
    schema.number();
    Arc::new(schema)
}

fn planned(
    table: &Arc<TableSchema>,
    names: &TableSchema,
    wanted: &[Arc<TableSchema>],
) -> Result<Option<SchemaChange>, Difference> {
    let asked = Asked { table, last_field_id: 9, names, wanted, formats: &[TableFormat::IcebergV2] };
    plan_change(asked, "w-1".into())
}

#[test]
fn what_several_schemas_ask_is_one_change_with_new_numbers() {
    let has = table(&[("a", Type::Int, &[])]);
    let b = table(&[("a", Type::Int, &[]), ("b", Type::String, &[])]);
    let wide = table(&[("a", Type::Long, &[]), ("c", Type::Date, &[])]);
    let change = planned(&has, &has, &[b, wide]).unwrap().unwrap();
    assert_eq!((&change.from, change.id.as_str()), (&has, "w-1"));
    let columns: Vec<_> = change.to.fields.iter().map(|f| (f.name.as_str(), f.id, f.kind.clone())).collect();
    assert_eq!(columns, [("a", 1, Type::Long), ("b", 10, Type::String), ("c", 11, Type::Date)]);
    let texts: Vec<String> = change.changes.iter().map(ToString::to_string).collect();
    assert_eq!(texts, ["adds column b (string)", "widens column a from int to long", "adds column c (date)"]);
}

#[test]
fn a_table_that_holds_all_rows_does_not_change() {
    let has = table(&[("a", Type::Long, &[]), ("b", Type::String, &[])]);
    let narrow = table(&[("a", Type::Int, &[])]);
    assert_eq!(planned(&has, &has, &[narrow]), Ok(None));
    assert_eq!(planned(&has, &has, &[]), Ok(None));
}

#[test]
fn what_the_table_cannot_follow_is_said() {
    let has = table(&[("a", Type::Long, &[])]);
    let text = table(&[("a", Type::String, &[])]);
    let obstacle = planned(&has, &has, &[text]).unwrap_err().to_string();
    assert!(obstacle.contains("column a is long in the table and cannot become string"), "{obstacle}");
}

#[test]
fn events_of_older_schemas_find_a_column_under_its_former_names() {
    let older = table(&[("old", Type::Int, &[])]);
    let newer = table(&[("new", Type::Int, &["old"])]);
    // The table was created for the newer schema, and has no history that would know the older name.
    let created = table(&[("new", Type::Int, &[])]);
    assert_eq!(planned(&created, &newer, std::slice::from_ref(&older)), Ok(None));
    // Rows of both schemas may bring the column, whichever comes first.
    let empty = table(&[("id", Type::Int, &[])]);
    let added = planned(&empty, &newer, &[newer.clone(), older.clone()]).unwrap().unwrap();
    assert_eq!(added.changes, [Difference::Add { path: "new".into(), kind: Type::Int, default: None }]);
    // The rename is still to come: with rows of the newer schema, not before.
    assert_eq!(planned(&older, &newer, std::slice::from_ref(&older)), Ok(None));
    let change = planned(&older, &newer, std::slice::from_ref(&newer)).unwrap().unwrap();
    assert_eq!(change.changes, [Difference::Rename { path: "old".into(), to: "new".into() }]);
    assert_eq!((change.to.fields[0].id, &change.to.fields[0].aliases[..]), (1, &["old".to_owned()][..]));
}
