//! Writes Avro's primitives, for values that come in another encoding.

/// Nanoseconds of a second.
pub const NANOS: u32 = 1_000_000_000;

/// Appends a variable-length integer.
pub fn put_long(out: &mut Vec<u8>, value: i64) {
    let mut raw = ((value << 1) ^ (value >> 63)) as u64;
    while raw >= 0x80 {
        out.push(raw as u8 | 0x80);
        raw >>= 7;
    }
    out.push(raw as u8);
}

/// Appends the number of an enum symbol or a union branch.
pub fn put_index(out: &mut Vec<u8>, index: usize) {
    put_long(out, index as i64);
}

/// Appends bytes or text behind their length.
pub fn put_bytes(out: &mut Vec<u8>, bytes: &[u8]) {
    put_long(out, bytes.len() as i64);
    out.extend_from_slice(bytes);
}

/// Appends a point in time: seconds since 1970, nanoseconds, and whether there are digits behind these.
pub fn put_instant(out: &mut Vec<u8>, (seconds, nanos, finer): (i64, u32, bool)) {
    put_long(out, seconds);
    put_long(out, i64::from(nanos) << 1 | i64::from(finer));
}
