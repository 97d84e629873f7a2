//! Hexadecimal text, as documents, options and logs carry bytes.

/// Lower-case digits.
pub fn to_hex(bytes: &[u8]) -> String {
    use std::fmt::Write;
    bytes.iter().fold(String::new(), |mut text, byte| {
        let _ = write!(text, "{byte:02x}");
        text
    })
}

/// The bytes of hexadecimal text; blanks do not count, and a line's rest after `#` is a remark.
///
/// # Panics
/// For anything else.
pub fn from_hex(text: &str) -> Vec<u8> {
    let lines = text.lines().map(|line| line.split('#').next().unwrap_or(""));
    let digits: Vec<u8> = lines.flat_map(str::chars).filter(|c| !c.is_whitespace()).map(digit).collect();
    assert!(digits.len().is_multiple_of(2), "two digits are a byte");
    digits.chunks(2).map(|pair| pair[0] << 4 | pair[1]).collect()
}

fn digit(c: char) -> u8 {
    let value = c.to_digit(16).unwrap_or_else(|| panic!("{c:?} is no hexadecimal digit"));
    u8::try_from(value).expect("below 16")
}
