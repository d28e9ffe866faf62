//! Writes Avro's primitives, for values that come in another encoding.

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
