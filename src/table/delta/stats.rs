//! Statistics of a data file, as the log has them in JSON.

use std::fmt::Write as _;

use iceberg::spec::{Datum, PrimitiveLiteral};
use serde_json::Value;

use super::partition::{date, timestamp_millis};
use crate::core::schema::{Field, Type};
use crate::error::{Error, Result};
use crate::files::Metrics;

/// The statistics of a new file whose columns are `fields`, named as in the file; partition columns have none.
///
/// Bounds of strings may be cut (the upper one rounded up); those of times are in milliseconds, the lower rounded down
/// and the upper up. A float column with NaN has no bounds, since engines differ in where they sort it.
pub(super) fn render(metrics: &Metrics, records: u64, fields: &[Field]) -> String {
    let mut text = format!("{{\"numRecords\":{records}");
    let parts: [(&str, Figure<'_>); 3] = [
        ("minValues", &|f| bound(metrics, f, End::Lower)),
        ("maxValues", &|f| bound(metrics, f, End::Upper)),
        ("nullCount", &|f| metrics.null_value_counts.get(&f.id).map(u64::to_string)),
    ];
    for (name, figure) in parts {
        let group = group(fields, figure).unwrap_or_else(|| "{}".into());
        let _ = write!(text, ",\"{name}\":{group}");
    }
    text.push_str(",\"tightBounds\":true}");
    text
}

type Figure<'f> = &'f dyn Fn(&Field) -> Option<String>;

/// What `figure` says of the leaves of structs; what is inside lists and maps has no figures.
fn group(fields: &[Field], figure: Figure<'_>) -> Option<String> {
    let mut text = String::new();
    for field in fields {
        let value = match &field.kind {
            Type::Struct(inner) => group(inner, figure),
            Type::List(_) | Type::Map(..) => None,
            _ => figure(field),
        };
        if let Some(value) = value {
            let comma = if text.is_empty() { "" } else { "," };
            let _ = write!(text, "{comma}{}:{value}", quoted(&field.name));
        }
    }
    (!text.is_empty()).then(|| format!("{{{text}}}"))
}

fn quoted(text: &str) -> String {
    Value::from(text).to_string()
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum End {
    Lower,
    Upper,
}

fn bound(metrics: &Metrics, field: &Field, end: End) -> Option<String> {
    let bounds = if end == End::Lower { &metrics.lower_bounds } else { &metrics.upper_bounds };
    let literal = bounds.get(&field.id).map(Datum::literal)?;
    let whole = match literal {
        PrimitiveLiteral::Int(v) => Some(i64::from(*v)),
        PrimitiveLiteral::Long(v) => Some(*v),
        _ => None,
    };
    match (&field.kind, literal) {
        (Type::Int | Type::Long, _) => whole.map(|v| v.to_string()),
        (Type::Date, _) => date(whole?).map(|d| quoted(&d)),
        (Type::Timestamp { utc }, _) => {
            let micros = whole?;
            let millis = if end == End::Lower { micros.div_euclid(1000) } else { -(-micros).div_euclid(1000) };
            timestamp_millis(millis).map(|t| quoted(&format!("{t}{}", if *utc { "Z" } else { "" })))
        }
        (Type::Float | Type::Double, _) if metrics.nan_value_counts.get(&field.id) != Some(&0) => None,
        (Type::Float, PrimitiveLiteral::Float(v)) => finite(f64::from(v.0)),
        (Type::Double, PrimitiveLiteral::Double(v)) => finite(v.0),
        (Type::Decimal { scale, .. }, PrimitiveLiteral::Int128(v)) => Some(decimal(*v, *scale)),
        (Type::String, PrimitiveLiteral::String(v)) => Some(quoted(v)),
        _ => None,
    }
}

fn finite(value: f64) -> Option<String> {
    value.is_finite().then(|| format!("{value:?}"))
}

/// The digits of a decimal with its point.
pub(super) fn decimal(digits: i128, scale: u8) -> String {
    let (sign, all) = (if digits < 0 { "-" } else { "" }, digits.unsigned_abs().to_string());
    if scale == 0 {
        return format!("{sign}{all}");
    }
    let all = format!("{all:0>width$}", width = usize::from(scale) + 1);
    let (whole, fraction) = all.split_at(all.len() - usize::from(scale));
    format!("{sign}{whole}.{fraction}")
}

/// The statistics of a file some of whose rows are deleted: its bounds still hold, but are not tight.
///
/// # Errors
/// [`Error::Decision`] where the statistics are not what they should be.
pub(super) fn wide(stats: Option<&str>, records: u64) -> Result<String> {
    let mut parsed: Value = match stats {
        Some(stats) => serde_json::from_str(stats)
            .map_err(|e| Error::Decision(format!("the statistics of a file cannot be read: {e}")))?,
        None => Value::Object(serde_json::Map::new()),
    };
    // Decimals would lose digits on their way through a float, so the text is kept where only the mark changes.
    if let Some(text) = stats
        && parsed.get("numRecords").is_some()
    {
        return Ok(match parsed.get("tightBounds") {
            Some(Value::Bool(false)) => text.to_owned(),
            Some(Value::Bool(true)) if text.matches("\"tightBounds\":true").count() == 1 => {
                text.replace("\"tightBounds\":true", "\"tightBounds\":false")
            }
            Some(_) => {
                parsed["tightBounds"] = Value::Bool(false);
                parsed.to_string()
            }
            None => {
                let end = text.trim_end().trim_end_matches('}').len();
                let closing = text.trim_end().len() - end;
                format!("{},\"tightBounds\":false{}", &text[..end + closing - 1], "}")
            }
        });
    }
    parsed["numRecords"] = Value::from(records);
    parsed["tightBounds"] = Value::Bool(false);
    Ok(parsed.to_string())
}

/// How many physical rows the file has, where its statistics say so.
pub(super) fn records(stats: Option<&str>) -> Option<u64> {
    #[derive(serde::Deserialize)]
    #[serde(rename_all = "camelCase")]
    struct Records {
        num_records: Option<u64>,
    }
    serde_json::from_str::<Records>(stats?).ok()?.num_records
}

#[cfg(test)]
mod tests {
    use super::*;

    fn field(id: i32, name: &str, kind: Type) -> Field {
        Field { id, ..Field::new(name, kind, false) }
    }

    #[test]
    fn bounds_hold_for_every_type_even_where_they_are_rounded() {
        let fields = [
            field(1, "n", Type::Long),
            field(2, "s", Type::String),
            field(3, "t", Type::Timestamp { utc: true }),
            field(4, "d", Type::Decimal { precision: 38, scale: 2 }),
            field(5, "x", Type::Double),
            field(6, "day", Type::Date),
            field(7, "in", Type::Struct(vec![field(8, "deep", Type::Int)])),
            field(9, "nan", Type::Double),
        ];
        let mut metrics = Metrics::default();
        let digits = 12_345_678_901_234_567_890_123_456_789_i128;
        for (id, low, high) in [
            (1, Datum::long(-5), Datum::long(7)),
            (2, Datum::string("a\"b"), Datum::string("zz\u{1F600}")),
            (3, Datum::timestamptz_micros(-1), Datum::timestamptz_micros(1_700_000_000_000_001)),
            (5, Datum::double(-0.5), Datum::double(1e300)),
            (6, Datum::date(-1), Datum::date(19_000)),
            (8, Datum::int(1), Datum::int(2)),
            (9, Datum::double(1.0), Datum::double(2.0)),
        ] {
            metrics.lower_bounds.insert(id, low);
            metrics.upper_bounds.insert(id, high);
            metrics.null_value_counts.insert(id, id as u64);
        }
        metrics.nan_value_counts.insert(5, 0);
        metrics.nan_value_counts.insert(9, 1);
        let text = render(&metrics, 10, &fields);
        let stats: Value = serde_json::from_str(&text).unwrap();
        assert_eq!(stats["numRecords"], 10);
        assert_eq!(stats["tightBounds"], true);
        let (low, high) = (&stats["minValues"], &stats["maxValues"]);
        assert_eq!((&low["n"], &high["n"]), (&Value::from(-5), &Value::from(7)));
        assert_eq!((&low["s"], &high["s"]), (&Value::from("a\"b"), &Value::from("zz\u{1F600}")));
        assert_eq!(low["t"], "1969-12-31T23:59:59.999Z");
        assert_eq!(high["t"], "2023-11-14T22:13:20.001Z", "a microsecond above the millisecond rounds up");
        assert_eq!((&low["day"], &high["day"]), (&Value::from("1969-12-31"), &Value::from("2022-01-08")));
        assert_eq!(low["in"]["deep"], 1);
        assert_eq!(high["x"], 1e300);
        assert_eq!((&low["nan"], &stats["nullCount"]["in"]["deep"]), (&Value::Null, &Value::from(8)));
        assert_eq!(decimal(digits, 2), "123456789012345678901234567.89");
        assert_eq!((decimal(-5, 3), decimal(0, 2), decimal(7, 0)), ("-0.005".into(), "0.00".into(), "7".into()));
    }

    #[test]
    fn a_deletion_makes_bounds_wide_and_changes_no_digit() {
        let big = r#"{"numRecords":3,"minValues":{"d":12345678901234567890.5},"maxValues":{},"nullCount":{}"#;
        for (from, to) in [
            (format!("{big},\"tightBounds\":true}}"), format!("{big},\"tightBounds\":false}}")),
            (format!("{big}}}"), format!("{big},\"tightBounds\":false}}")),
            (format!("{big},\"tightBounds\":false}}"), format!("{big},\"tightBounds\":false}}")),
        ] {
            assert_eq!(wide(Some(&from), 3).unwrap(), to);
        }
        let none: Value = serde_json::from_str(&wide(None, 5).unwrap()).unwrap();
        assert_eq!((&none["numRecords"], &none["tightBounds"]), (&Value::from(5), &Value::from(false)));
        assert_eq!(records(Some(big.trim_end_matches('x'))), None, "text that is cut says nothing");
        assert_eq!(records(Some(r#"{"numRecords":3}"#)), Some(3));
    }
}
