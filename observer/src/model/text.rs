//! Names from the system are hostile: one way to write them down, the same in every output.

use std::borrow::Cow;

/// Text for people, scripts and terminals from bytes that anybody may have chosen (command names, cgroup paths).
///
/// UTF-8 stays; a backslash is doubled; every byte that is not UTF-8, every control character (C0, DEL, C1) and every character that
/// changes the direction or visibility of its neighbours becomes `\xNN`, byte by byte. So nothing moves a cursor, and two different
/// names never look the same in the output's bytes.
pub fn escape(bytes: &[u8]) -> Cow<'_, str> {
    if let Ok(text) = std::str::from_utf8(bytes)
        && !text.chars().any(needs_escape)
    {
        return Cow::Borrowed(text);
    }
    let mut escaped = String::with_capacity(bytes.len() + 16);
    for chunk in bytes.utf8_chunks() {
        for c in chunk.valid().chars() {
            if c == '\\' {
                escaped.push_str(r"\\");
            } else if needs_escape(c) {
                push_hex(&mut escaped, c.encode_utf8(&mut [0; 4]).as_bytes());
            } else {
                escaped.push(c);
            }
        }
        push_hex(&mut escaped, chunk.invalid());
    }
    Cow::Owned(escaped)
}

/// As [`escape`], of a name of fixed length that the kernel pads with zeros: a task's `comm`.
pub fn escape_padded(bytes: &[u8]) -> Cow<'_, str> {
    escape(bytes.split(|byte| *byte == 0).next().unwrap_or_default())
}

fn needs_escape(c: char) -> bool {
    c == '\\'
        || c.is_control()
        || matches!(c, '\u{200b}'..='\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2060}'..='\u{206f}' | '\u{feff}' | '\u{fff9}'..='\u{fffb}' | '\u{61c}' | '\u{ad}')
}

fn push_hex(text: &mut String, bytes: &[u8]) {
    for byte in bytes {
        text.push_str(&format!("\\x{byte:02x}"));
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn escapes() {
        let check = |from: &[u8], to: &str| assert_eq!(escape(from), to);
        check(b"nginx.service", "nginx.service");
        check("größe".as_bytes(), "größe");
        check(br"dev-disk\x2d1", r"dev-disk\\x2d1");
        check(b"\x1b[2Jboo\n", r"\x1b[2Jboo\x0a");
        check(b"a\xff\xfeb", r"a\xff\xfeb");
        check("\u{202e}evil".as_bytes(), r"\xe2\x80\xaeevil");
        check("\u{9b}31m".as_bytes(), r"\xc2\x9b31m");
        check(b"", "");
    }

    /// Turns `\xNN` and `\\` back into bytes.
    fn unescape(text: &str) -> Vec<u8> {
        let (bytes, mut out, mut i) = (text.as_bytes(), Vec::new(), 0);
        while i < bytes.len() {
            if bytes[i] != b'\\' {
                out.push(bytes[i]);
                i += 1;
            } else if bytes[i + 1] == b'\\' {
                out.push(b'\\');
                i += 2;
            } else {
                out.push(u8::from_str_radix(&text[i + 2..i + 4], 16).unwrap());
                i += 4;
            }
        }
        out
    }

    proptest! {
        #[test]
        fn nothing_is_lost_and_nothing_moves_the_cursor(bytes: Vec<u8>) {
            let escaped = escape(&bytes);
            prop_assert!(!escaped.chars().any(char::is_control));
            prop_assert_eq!(unescape(&escaped), bytes);
        }
    }
}
