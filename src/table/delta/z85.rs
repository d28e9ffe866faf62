//! ZeroMQ's base 85, in which the log spells uuids and inline deletion vectors.

const DIGITS: &[u8; 85] = b"0123456789abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ.-:+=^!/*?&<>()[]{}@%$#";

/// Five digits for every four bytes; bytes beyond a multiple of four are left out.
pub(super) fn encode(bytes: &[u8]) -> String {
    let mut text = String::with_capacity(bytes.len() / 4 * 5);
    for four in bytes.as_chunks::<4>().0 {
        let mut number = u32::from_be_bytes(*four);
        let mut five = ['0'; 5];
        for digit in five.iter_mut().rev() {
            *digit = char::from(DIGITS[(number % 85) as usize]);
            number /= 85;
        }
        text.extend(five);
    }
    text
}

/// The bytes of what [`encode`] wrote; none for text that it cannot have written.
pub(super) fn decode(text: &str) -> Option<Vec<u8>> {
    let (fives, rest) = text.as_bytes().as_chunks::<5>();
    let mut bytes = Vec::with_capacity(fives.len() * 4);
    for five in fives {
        let mut number = 0u32;
        for digit in five {
            let value = DIGITS.iter().position(|d| d == digit)?;
            number = number.checked_mul(85)?.checked_add(value as u32)?;
        }
        bytes.extend(number.to_be_bytes());
    }
    rest.is_empty().then_some(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_example_of_the_specification_comes_out() {
        let bytes = [0x86, 0x4F, 0xD2, 0x6F, 0xB5, 0x59, 0xF7, 0x5B];
        assert_eq!(encode(&bytes), "HelloWorld");
        assert_eq!(decode("HelloWorld").unwrap(), bytes);
        // From the Delta protocol's own example of a descriptor.
        let uuid = uuid::Uuid::parse_str("d2c639aa-8816-431a-aaf6-d3fe2512ff61").unwrap();
        assert_eq!(encode(uuid.as_bytes()), "^-aqEH.-t@S}K{vb[*k^");
        for wrong in ["Hello1", "#####", "Hell\u{e9}", "~~~~~"] {
            assert_eq!(decode(wrong), None, "{wrong}");
        }
    }
}
