//! Every Avro type in every format: what a boundary value becomes, one line of a golden file for each. `docs/types.md` is the
//! same table in words; `UPDATE_GOLDEN=1` writes the files anew.

use std::path::PathBuf;

use arrow::util::display::{ArrayFormatter, FormatOptions};
use firn::embedded::registry::Level;
use firn::service;
use firn::settings::Settings;
use futures::TryStreamExt;

use crate::evolve::{register, schema, world};
use crate::run::long;

fn bytes(value: &[u8]) -> Vec<u8> {
    [long(value.len() as i64), value.to_vec()].concat()
}

fn longs(values: &[i64]) -> Vec<Vec<u8>> {
    values.iter().map(|n| long(*n)).collect()
}

fn texts(values: &[&str]) -> Vec<Vec<u8>> {
    values.iter().map(|text| bytes(text.as_bytes())).collect()
}

fn decimals(values: &[i128]) -> Vec<Vec<u8>> {
    values.iter().map(|n| bytes(&n.to_be_bytes())).collect()
}

/// A column: its name, its Avro type, and boundary values as they are on the wire.
type Cell = (&'static str, &'static str, Vec<Vec<u8>>);

/// Milliseconds of the first instant of the years 1 and 10000.
const YEAR_1: i64 = -62_135_596_800_000;
const YEAR_10000: i64 = 253_402_300_800_000;

fn numbers() -> Vec<Cell> {
    let floats = [f32::NAN, -0.0, 0.0, f32::MIN, f32::MAX, f32::MIN_POSITIVE, f32::INFINITY, f32::NEG_INFINITY];
    let doubles = [f64::NAN, -0.0, 0.0, f64::MIN, f64::MAX, f64::MIN_POSITIVE, f64::INFINITY, f64::NEG_INFINITY];
    let most = 10i128.pow(38) - 1;
    let subnormal = |negative: bool| if negative { -f64::from_bits(1) } else { f64::from_bits(1) };
    let floats = [&floats[..], &[f32::from_bits(1), -f32::from_bits(1), f32::from_bits(0xffc0_0001)]].concat();
    let doubles = [&doubles[..], &[subnormal(false), subnormal(true), f64::from_bits(0xfff8_0000_0000_0001)]].concat();
    vec![
        ("boolean", r#""boolean""#, vec![vec![0], vec![1]]),
        ("int", r#""int""#, longs(&[0, -1, i32::MAX.into(), i32::MIN.into()])),
        ("long", r#""long""#, longs(&[0, -1, i64::MAX, i64::MIN])),
        ("float", r#""float""#, floats.iter().map(|f| f.to_le_bytes().to_vec()).collect()),
        ("double", r#""double""#, doubles.iter().map(|f| f.to_le_bytes().to_vec()).collect()),
        (
            "decimal_38_10",
            r#"{"type":"bytes","logicalType":"decimal","precision":38,"scale":10}"#,
            decimals(&[0, -1, 1, most, -most]),
        ),
        (
            "decimal_1",
            r#"{"type":"bytes","logicalType":"decimal","precision":1}"#,
            vec![bytes(&[0]), bytes(&[9]), bytes(&[0xf7])],
        ),
        (
            "decimal_38_38",
            r#"{"type":"fixed","name":"D16","size":16,"logicalType":"decimal","precision":38,"scale":38}"#,
            [0, -1, most, -most].iter().map(|n: &i128| n.to_be_bytes().to_vec()).collect(),
        ),
        (
            "decimal_padded",
            r#"{"type":"fixed","name":"D20","size":20,"logicalType":"decimal","precision":5,"scale":2}"#,
            vec![[vec![0; 17], vec![1, 0x86, 0x9f]].concat(), [vec![0xff; 17], vec![0xfe, 0x79, 0x61]].concat()],
        ),
        (
            "decimal_18",
            r#"{"type":"bytes","logicalType":"decimal","precision":18}"#,
            vec![bytes(&[0]), bytes(&[0xff]), bytes(&999_999_999_999_999_999i64.to_be_bytes())],
        ),
        (
            "decimal_fixed",
            r#"{"type":"fixed","name":"D4","size":4,"logicalType":"decimal","precision":9,"scale":2}"#,
            [0i32, -1, 999_999_999, -999_999_999].iter().map(|n| n.to_be_bytes().to_vec()).collect(),
        ),
    ]
}

fn texts_and_bytes() -> Vec<Cell> {
    let uuid = "00112233-4455-6677-8899-aabbccddeeff";
    let zero = "00000000-0000-0000-0000-000000000000";
    vec![
        ("bytes", r#""bytes""#, vec![bytes(b""), bytes(&[0, 0xff]), bytes(&[7; 20])]),
        (
            "string",
            r#""string""#,
            texts(&["", "plain", "\u{1F984} four bytes", "e\u{301}", "a,\"b\"\n|", "null", "\0", "\u{10FFFF}\u{FEFF}"]),
        ),
        ("fixed", r#"{"type":"fixed","name":"F4","size":4}"#, vec![vec![0; 4], vec![0xff; 4], b"abcd".to_vec()]),
        ("fixed_1", r#"{"type":"fixed","name":"F1","size":1}"#, vec![vec![0], vec![0xff]]),
        ("enum", r#"{"type":"enum","name":"E","symbols":["A","B_2","null"]}"#, longs(&[0, 1, 2])),
        ("uuid", r#"{"type":"string","logicalType":"uuid"}"#, texts(&[uuid, zero, &uuid.to_uppercase()])),
        (
            "uuid_fixed",
            r#"{"type":"fixed","name":"U","size":16,"logicalType":"uuid"}"#,
            vec![vec![0; 16], (0..16).map(|i| i * 17).collect(), vec![0xff; 16]],
        ),
    ]
}

fn times() -> Vec<Cell> {
    let day = 86_400_000;
    let millis = [0, -1, 1, YEAR_1, -1_000 * 365 * day, YEAR_10000 - 1, YEAR_10000];
    let micros = [0, -1, 1, YEAR_1 * 1000, -1_000_000 * 365 * day, YEAR_10000 * 1000 - 1, YEAR_10000 * 1000];
    vec![
        (
            "date",
            r#"{"type":"int","logicalType":"date"}"#,
            longs(&[0, -1, YEAR_1 / day, YEAR_10000 / day - 1, YEAR_10000 / day, -1_000 * 365]),
        ),
        ("time_millis", r#"{"type":"int","logicalType":"time-millis"}"#, longs(&[0, 1, day - 1])),
        ("time_micros", r#"{"type":"long","logicalType":"time-micros"}"#, longs(&[0, 1, day * 1000 - 1])),
        ("timestamp_millis", r#"{"type":"long","logicalType":"timestamp-millis"}"#, longs(&millis)),
        ("timestamp_micros", r#"{"type":"long","logicalType":"timestamp-micros"}"#, longs(&micros)),
        ("local_timestamp_millis", r#"{"type":"long","logicalType":"local-timestamp-millis"}"#, longs(&millis)),
        ("local_timestamp_micros", r#"{"type":"long","logicalType":"local-timestamp-micros"}"#, longs(&micros)),
    ]
}

fn nanos() -> Vec<Cell> {
    let values = [0, -1, 1, i64::MAX, i64::MIN + 1];
    vec![
        ("timestamp_nanos", r#"{"type":"long","logicalType":"timestamp-nanos"}"#, longs(&values)),
        ("local_timestamp_nanos", r#"{"type":"long","logicalType":"local-timestamp-nanos"}"#, longs(&values)),
    ]
}

fn nested() -> Vec<Cell> {
    let record =
        r#"{"type":"record","name":"N","fields":[{"name":"a","type":"int"},{"name":"b","type":["null","string"]}]}"#;
    let list = |items: &[Vec<u8>]| match items.len() {
        0 => long(0),
        n => [long(n as i64), items.concat(), long(0)].concat(),
    };
    let entry = |key: &str, value: Vec<u8>| [bytes(key.as_bytes()), value].concat();
    let some = |text: &str| [long(1), bytes(text.as_bytes())].concat();
    vec![
        ("optional", r#"["null","long"]"#, vec![long(0), [long(1), long(i64::MIN)].concat()]),
        ("optional_last", r#"["string","null"]"#, vec![long(1), [long(0), bytes(b"")].concat()]),
        ("record", record, vec![[long(1), long(0)].concat(), [long(-2), some("x")].concat()]),
        (
            "array",
            r#"{"type":"array","items":["null","int"]}"#,
            vec![list(&[]), list(&[long(0), [long(1), long(5)].concat()]), list(&[[long(1), long(-1)].concat()])],
        ),
        (
            "map",
            r#"{"type":"map","values":"long"}"#,
            vec![list(&[]), list(&[entry("", long(1)), entry("\u{1F984}", long(-1))])],
        ),
        (
            "array_of_records",
            r#"{"type":"array","items":["null","N"]}"#,
            vec![list(&[]), list(&[long(0), [long(1), long(7), some("\u{1F984}")].concat()])],
        ),
        (
            "map_of_maps",
            r#"{"type":"map","values":{"type":"map","values":["null","double"]}}"#,
            vec![list(&[]), list(&[entry("a", list(&[entry("b", long(0))])), entry("c", list(&[]))])],
        ),
        (
            "array_of_arrays",
            r#"{"type":"array","items":{"type":"array","items":"int"}}"#,
            vec![list(&[]), list(&[list(&[]), list(&[long(1), long(2)])])],
        ),
    ]
}

/// Each of these types once as an optional one, once as the items of an array, and once as the values of a map: null and the
/// first value, and all values at once.
fn inside(cells: &[Cell]) -> Vec<Cell> {
    let inside = |(name, kind, values): &Cell| {
        // A named type is defined once.
        let named = kind.split_once(r#""name":""#).and_then(|(_, rest)| rest.split_once('"'));
        let kind = named.map_or_else(|| (*kind).to_owned(), |(name, _)| format!(r#""{name}""#));
        let all = |before: &dyn Fn(usize) -> Vec<u8>| {
            let items = values.iter().enumerate().map(|(n, value)| [before(n), value.clone()].concat());
            [long(values.len() as i64), items.collect::<Vec<_>>().concat(), long(0)].concat()
        };
        let key = |n: usize| bytes(format!("k{n}").as_bytes());
        [
            (
                format!("optional_{name}"),
                format!(r#"["null",{kind}]"#),
                vec![long(0), [long(1), values[0].clone()].concat()],
            ),
            (
                format!("array_of_{name}"),
                format!(r#"{{"type":"array","items":{kind}}}"#),
                vec![long(0), all(&|_| vec![])],
            ),
            (format!("map_of_{name}"), format!(r#"{{"type":"map","values":{kind}}}"#), vec![long(0), all(&key)]),
        ]
        .map(|(name, kind, values)| (leaked(name), leaked(kind), values))
    };
    cells.iter().flat_map(inside).collect()
}

fn unions() -> Vec<Cell> {
    let string = |text: &str| bytes(text.as_bytes());
    let at = |branch: i64, value: Vec<u8>| [long(branch), value].concat();
    let parts = |values: [u32; 3]| values.iter().flat_map(|n| n.to_le_bytes()).collect::<Vec<u8>>();
    let double = |value: f64| value.to_le_bytes().to_vec();
    let record =
        r#"{"type":"record","name":"x.P","fields":[{"name":"a","type":"int"},{"name":"b","type":["null","string"]}]}"#;
    let all = format!(
        r#"["null","boolean","int","long","double","bytes","string",{{"type":"fixed","name":"F2","size":2}},
            {{"type":"enum","name":"Side","symbols":["BUY","SELL"]}},{record},{{"type":"record","name":"Gone","fields":[]}},
            {{"type":"array","items":["int","string"]}},{{"type":"map","values":"long"}}]"#
    );
    vec![
        (
            "union",
            leaked(all),
            vec![
                long(0),
                at(1, vec![1]),
                at(2, long(i32::MIN.into())),
                at(3, long(i64::MAX)),
                at(4, double(f64::NAN)),
                at(4, double(-0.0)),
                at(5, bytes(&[])),
                at(6, string("\u{1F984}")),
                at(6, string("")),
                at(7, vec![0, 0xff]),
                at(8, long(1)),
                at(9, [long(-1), long(0)].concat()),
                at(10, vec![]),
                at(11, long(0)),
                at(11, [long(2), at(0, long(7)), at(1, string("x")), long(0)].concat()),
                at(12, [long(1), string("k"), long(-1), long(0)].concat()),
            ],
        ),
        (
            "union_of_logical",
            r#"[{"type":"int","logicalType":"date"},{"type":"long","logicalType":"timestamp-micros"},{"type":"string","logicalType":"uuid"},
                {"type":"bytes","logicalType":"decimal","precision":38,"scale":2}]"#,
            vec![
                at(0, long(YEAR_1 / 86_400_000)),
                at(0, long(-1)),
                at(1, long(YEAR_10000 * 1000 - 1)),
                at(2, string("00112233-4455-6677-8899-aabbccddeeff")),
                at(3, bytes(&(10i128.pow(38) - 1).to_be_bytes())),
            ],
        ),
        (
            "duration",
            r#"{"type":"fixed","name":"D12","size":12,"logicalType":"duration"}"#,
            vec![parts([0; 3]), parts([u32::MAX; 3]), parts([1, 2, 3])],
        ),
        ("only_null", r#""null""#, vec![]),
    ]
}

/// A schema that is made once for the whole run.
fn leaked(text: String) -> &'static str {
    Box::leak(text.into_boxed_str())
}

/// What contains itself, under `recursive_types: json`.
fn recursive() -> Vec<Cell> {
    let node = |value: &str, inner: Vec<u8>| [bytes(value.as_bytes()), inner].concat();
    let nothing = || [long(0), long(0)].concat();
    let one = |child: Vec<u8>| [long(0), long(1), child, long(0)].concat();
    let next = |after: Vec<u8>| [long(1), after, long(0)].concat();
    vec![(
        "tree",
        r#"{"type":"record","name":"Tree","fields":[{"name":"text","type":"string"},{"name":"next","type":["null","Tree"]},
            {"name":"children","type":{"type":"array","items":"Tree"}}]}"#,
        vec![
            node("leaf", nothing()),
            node("", next(node("\u{1F984}\"", nothing()))),
            node("root", one(node("child", one(node("grandchild", nothing()))))),
        ],
    )]
}

fn golden(name: &str) -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("tests/golden/types").join(format!("{name}.expected"))
}

/// Writes every value of every column through a pipeline and reads it back; a line per column type and value.
async fn written(table: &str, name: &str, cells: &[Cell]) -> String {
    let world = world(&[table], "    recursive_types: json\n").await;
    world.registry.as_ref().unwrap().set_level(None, Level::None).unwrap();
    let fields: Vec<_> = cells.iter().map(|(name, kind, _)| format!(r#",{{"name":"{name}","type":{kind}}}"#)).collect();
    let id = register(&world, &schema(&fields.concat()));
    let rows = cells.iter().map(|(.., values)| values.len()).max().unwrap();
    let row = |n: usize| {
        let values = cells.iter().map(|(.., values)| values.get(n.min(values.len().max(1) - 1)).cloned());
        let values = values.map(Option::unwrap_or_default);
        let body: Vec<u8> = std::iter::once(long(n as i64)).chain(values).flatten().collect();
        [&[0][..], &id.to_be_bytes(), &body].concat()
    };
    world.send(0, &(0..rows).map(row).collect::<Vec<_>>());
    world.catch_up().await.unwrap();

    let settings = Settings::load(&world.config()).unwrap();
    let engine = service::open_engine(&settings).await.unwrap();
    let answer = engine.query(&format!("SELECT * FROM {name} ORDER BY id")).await.unwrap();
    let batches: Vec<_> = answer.stream.try_collect().await.unwrap();
    let batch = arrow::compute::concat_batches(&batches[0].schema(), &batches).unwrap();
    assert_eq!(batch.num_rows(), rows);
    let options = FormatOptions::default().with_null("NULL");
    let mut text = String::new();
    for (column, _, values) in cells {
        let Some(array) = batch.column_by_name(column) else {
            text.push_str(&format!("{column} has no column\n"));
            continue;
        };
        let formatter = ArrayFormatter::try_new(array, &options).unwrap();
        for (n, value) in values.iter().enumerate() {
            text.push_str(&format!("{column} {value:02x?} = {:?}\n", formatter.value(n).to_string()));
        }
    }
    text
}

async fn check(table: &str, name: &str, file: &str, cells: &[Cell]) {
    let found = written(table, name, cells).await;
    if std::env::var_os("UPDATE_GOLDEN").is_some() {
        std::fs::create_dir_all(golden(file).parent().unwrap()).unwrap();
        std::fs::write(golden(file), &found).unwrap();
    }
    let expected = std::fs::read_to_string(golden(file)).unwrap();
    for (found, expected) in found.lines().zip(expected.lines()) {
        assert_eq!(found, expected);
    }
    assert_eq!(found.lines().count(), expected.lines().count());
}

fn of_every_format() -> Vec<Cell> {
    let plain = [numbers(), texts_and_bytes(), times()].concat();
    [plain.clone(), inside(&plain), nested(), unions(), recursive()].concat()
}

/// FAILURES D7, D8: every logical type, at its bounds.
#[tokio::test(flavor = "multi_thread")]
async fn every_type_in_iceberg_v2() {
    let table = "{catalog: ice, name: n.t, format_version: 2}";
    check(table, "ice.n.t", "iceberg-v2", &of_every_format()).await;
}

/// D7, D8
#[tokio::test(flavor = "multi_thread")]
async fn every_type_in_iceberg_v3() {
    let table = "{catalog: ice, name: n.t, format_version: 3}";
    check(table, "ice.n.t", "iceberg-v3", &[of_every_format(), nanos(), inside(&nanos())].concat()).await;
}

/// D7, D8
#[tokio::test(flavor = "multi_thread")]
async fn every_type_in_delta() {
    check("{catalog: lake, name: n.t}", "lake.n.t", "delta", &of_every_format()).await;
}

/// This many records inside of each other, with a number in the innermost.
fn nested_deeply(records: usize) -> Vec<Cell> {
    let kind = (0..records).fold(r#""int""#.to_owned(), |kind, i| {
        format!(r#"{{"type":"record","name":"T{i}","fields":[{{"name":"p","type":{kind}}}]}}"#)
    });
    vec![("deep", Box::leak(kind.into_boxed_str()), longs(&[7]))]
}

/// D9
/// FAILURES D9
#[tokio::test(flavor = "multi_thread")]
async fn columns_as_deep_as_may_be_are_read_again_in_every_format() {
    for (table, name) in [
        ("{catalog: ice, name: n.t, format_version: 2}", "ice.n.t"),
        ("{catalog: ice, name: n.t, format_version: 3}", "ice.n.t"),
        ("{catalog: lake, name: n.t}", "lake.n.t"),
    ] {
        let text = written(table, name, &nested_deeply(31)).await;
        assert_eq!(text.matches("{p: ").count(), 31, "{text}");
    }
}
