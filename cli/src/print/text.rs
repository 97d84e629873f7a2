//! Bytes that came from others, made safe to print: a label must not be able to steer an operator's terminal.

use std::fmt::Write;

/// Text as it is; control characters, backslashes and bytes that are not UTF-8 escaped (`\x00`).
pub(crate) fn printable(bytes: &[u8]) -> String {
    let mut out = String::with_capacity(bytes.len());
    for piece in bytes.utf8_chunks() {
        for c in piece.valid().chars() {
            match c {
                '\\' => out.push_str("\\\\"),
                c if c.is_ascii_control() => escape(&mut out, c as u8),
                c if c.is_control() || is_steering(c) => out.extend(c.escape_unicode()),
                c => out.push(c),
            }
        }
        for byte in piece.invalid() {
            escape(&mut out, *byte);
        }
    }
    out
}

fn escape(out: &mut String, byte: u8) {
    // Writing to a String cannot fail.
    let _ = write!(out, "\\x{byte:02x}");
}

/// Characters that change the direction of the text around them.
fn is_steering(c: char) -> bool {
    matches!(c, '\u{200e}' | '\u{200f}' | '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}')
}

/// At most `width` characters, the end cut off.
pub(crate) fn shortened(text: &str, width: usize) -> String {
    if text.chars().count() <= width {
        return text.to_owned();
    }
    let mut short: String = text.chars().take(width.saturating_sub(1)).collect();
    short.push('…');
    short
}

/// `one thing`, `2 things`.
pub(crate) fn counted(count: u64, noun: &str) -> String {
    format!("{count} {noun}{}", if count == 1 { "" } else { "s" })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_label_cannot_steer_a_terminal() {
        assert_eq!(printable(b"a\x1b[31mred"), "a\\x1b[31mred");
        assert_eq!(printable(b"back\\slash \xff"), "back\\\\slash \\xff");
        assert_eq!(printable("über\u{202e}".as_bytes()), "über\\u{202e}");
    }

    #[test]
    fn long_text_is_cut_at_a_character() {
        assert_eq!(shortened("grün", 4), "grün");
        assert_eq!(shortened("grünes", 4), "grü…");
        assert_eq!(counted(1, "holder"), "1 holder");
        assert_eq!(counted(3, "holder"), "3 holders");
    }
}
