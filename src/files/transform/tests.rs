use arrow::array::*;
use arrow::datatypes::DataType;

use super::*;

fn check(transform: Transform, column: impl Array + 'static, expected: &[Option<i32>]) {
    let found = apply(transform, &(Arc::new(column) as ArrayRef)).unwrap();
    let found = arrow::compute::cast(&found, &DataType::Int32).unwrap();
    assert_eq!(found.as_primitive::<Int32Type>().iter().collect::<Vec<_>>(), expected, "{transform}");
}

const SECOND: i64 = 1_000_000;
const DAY: i64 = 86_400 * SECOND;

#[test]
fn dates_fall_into_years_months_and_days() {
    // 1969-12-31, 1970-01-01, 2000-02-29, 1900-03-01, 0001-01-01, null, 2024-12-31.
    let dates =
        || Date32Array::from(vec![Some(-1), Some(0), Some(11_016), Some(-25_508), Some(-719_162), None, Some(20_088)]);
    let years = [Some(-1), Some(0), Some(30), Some(-70), Some(-1969), None, Some(54)];
    check(Transform::Year, dates(), &years);
    let months = [Some(-1), Some(0), Some(361), Some(-838), Some(-23_628), None, Some(659)];
    check(Transform::Month, dates(), &months);
    check(
        Transform::Day,
        dates(),
        &[Some(-1), Some(0), Some(11_016), Some(-25_508), Some(-719_162), None, Some(20_088)],
    );
}

#[test]
fn the_calendar_agrees_with_another_one_over_centuries() {
    use chrono::Datelike;
    for day in (-1_000_000..1_000_000).step_by(17) {
        let date = chrono::NaiveDate::from_num_days_from_ce_opt(day + 719_163).unwrap();
        assert_eq!(civil(i64::from(day)), (date.year(), date.month0() as i32, date.day() as i32));
    }
}

#[test]
fn instants_before_1970_fall_into_the_earlier_unit() {
    // One microsecond before the epoch, half a second before a day's start (the iceberg crate says -1), a day's start.
    let instants = vec![-1, -DAY - SECOND / 2, -DAY, 0, DAY - 1, 1_510_871_468_000_000, i64::MIN];
    let micros = || TimestampMicrosecondArray::from(instants.clone()).with_timezone("+00:00");
    let days = [-1, -2, -1, 0, 0, 17_486, -106_751_992];
    check(Transform::Day, micros(), &days.map(Some));
    check(
        Transform::Hour,
        micros(),
        &[-1, -25, -24, 0, 23, 419_686, 1_732_919_187].map(Some)[..6]
            .iter()
            .copied()
            .chain([Some(i64::MIN.div_euclid(3_600_000_000) as i32)])
            .collect::<Vec<_>>(),
    );
    check(
        Transform::Month,
        TimestampMicrosecondArray::from(instants[..6].to_vec()),
        &[-1, -1, -1, 0, 0, 574].map(Some),
    );
    check(Transform::Year, TimestampMicrosecondArray::from(instants[..6].to_vec()), &[-1, -1, -1, 0, 0, 47].map(Some));
    let nanos = TimestampNanosecondArray::from(vec![Some(-1), Some(-DAY * 1000 - 1), Some(-DAY * 1000), None]);
    check(Transform::Day, nanos.clone(), &[Some(-1), Some(-2), Some(-1), None]);
    check(Transform::Hour, nanos, &[Some(-1), Some(-25), Some(-24), None]);
}

/// Hashes of appendix B of the specification; a bucket is the hash without its sign modulo the count.
#[test]
fn buckets_are_those_of_the_specification() {
    let most = i32::MAX as u32;
    let bucket = |hash: i32| Some((hash & i32::MAX) % i32::MAX);
    check(Transform::Bucket(most), Int32Array::from(vec![34]), &[bucket(2_017_239_379)]);
    check(Transform::Bucket(most), Int64Array::from(vec![Some(34), None]), &[bucket(2_017_239_379), None]);
    let decimal = Decimal128Array::from(vec![1420]).with_precision_and_scale(9, 2).unwrap();
    check(Transform::Bucket(most), decimal, &[bucket(-500_754_589)]);
    check(Transform::Bucket(most), Date32Array::from(vec![17_486]), &[bucket(-653_330_422)]);
    check(Transform::Bucket(most), Time64MicrosecondArray::from(vec![81_068_000_000]), &[bucket(-662_762_989)]);
    let instant = TimestampMicrosecondArray::from(vec![1_510_871_468_000_000]);
    check(Transform::Bucket(most), instant, &[bucket(-2_047_944_441)]);
    let nanos = TimestampNanosecondArray::from(vec![1_510_871_468_000_001_001]);
    check(Transform::Bucket(most), nanos, &[bucket(-1_207_196_810)]);
    check(Transform::Bucket(most), StringArray::from(vec!["iceberg"]), &[bucket(1_210_000_089)]);
    let uuid =
        FixedSizeBinaryArray::try_from_iter([0xf79c_3e09_677c_4bbd_a479_3f34_9cb7_85e7_u128.to_be_bytes()].iter());
    check(Transform::Bucket(most), uuid.unwrap(), &[bucket(1_488_055_340)]);
    check(Transform::Bucket(most), BinaryArray::from_vec(vec![&[0, 1, 2, 3]]), &[bucket(-188_683_207)]);
    check(Transform::Bucket(16), Int64Array::from(vec![34]), &[Some(2_017_239_379 % 16)]);
}

#[test]
fn nanoseconds_before_1970_are_hashed_as_the_microsecond_they_fall_into() {
    let nanos: ArrayRef = Arc::new(TimestampNanosecondArray::from(vec![-1]));
    let micros: ArrayRef = Arc::new(TimestampMicrosecondArray::from(vec![-1]));
    let bucket = |column| apply(Transform::Bucket(1_000_003), column).unwrap();
    assert_eq!(&bucket(&nanos), &bucket(&micros));
}

#[test]
fn truncation_goes_down_and_counts_code_points() {
    check(
        Transform::Truncate(10),
        Int32Array::from(vec![Some(1), Some(-1), Some(-10), None]),
        &[Some(0), Some(-10), Some(-10), None],
    );
    check(Transform::Truncate(10), Int64Array::from(vec![9, -11]), &[Some(0), Some(-20)]);
    apply(Transform::Truncate(10), &(Arc::new(Int32Array::from(vec![i32::MIN])) as ArrayRef)).unwrap();
    let decimals: ArrayRef = Arc::new(Decimal128Array::from(vec![1065, -1065]).with_precision_and_scale(9, 2).unwrap());
    let cut = apply(Transform::Truncate(50), &decimals).unwrap();
    assert_eq!(cut.as_primitive::<arrow::datatypes::Decimal128Type>().values(), &[1050, -1100]);
    let strings: ArrayRef = Arc::new(StringArray::from(vec![Some("icéberg"), Some("😀😀😀😀"), Some("ic"), None]));
    let cut = apply(Transform::Truncate(3), &strings).unwrap();
    assert_eq!(cut.as_string::<i32>().iter().collect::<Vec<_>>(), [Some("icé"), Some("😀😀😀"), Some("ic"), None]);
    let bytes: ArrayRef = Arc::new(BinaryArray::from_vec(vec![&[1, 2, 3], &[1]]));
    let cut = apply(Transform::Truncate(2), &bytes).unwrap();
    assert_eq!(cut.as_binary::<i32>().iter().collect::<Vec<_>>(), [Some(&[1, 2][..]), Some(&[1])]);
}

#[test]
fn identity_keeps_and_void_drops_every_value() {
    check(Transform::Identity, Int32Array::from(vec![Some(-3), None]), &[Some(-3), None]);
    check(Transform::Void, Int32Array::from(vec![Some(-3), None]), &[None, None]);
}

#[test]
fn a_transform_that_does_not_fit_its_column_is_an_error() {
    let column: ArrayRef = Arc::new(StringArray::from(vec!["a"]));
    for transform in [Transform::Day, Transform::Hour, Transform::Year] {
        assert!(matches!(apply(transform, &column), Err(Error::Decision(_))));
    }
}
