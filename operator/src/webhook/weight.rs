//! How much memory a JSON text takes once it is read, from its punctuation alone: `[{},{},…]` of 4 MiB would take hundreds.

/// An object takes a node of a tree, which has room for eleven entries: 11 × (24 + 32) bytes and its own fields.
const OBJECT: usize = 700;
/// An element of a list or an entry of an object, with a short name.
const ELEMENT: usize = 64;

/// Bytes of memory that the values of a JSON text take at most, apart from the letters of its strings.
pub fn weight(json: &[u8]) -> usize {
    let (mut objects, mut elements, mut in_string, mut escaped) = (0, 0, false, false);
    for octet in json {
        match octet {
            _ if escaped => escaped = false,
            b'\\' => escaped = in_string,
            b'"' => in_string = !in_string,
            b'{' if !in_string => objects += 1,
            b'[' | b',' | b':' if !in_string => elements += 1,
            _ => {}
        }
    }
    objects * OBJECT + elements * ELEMENT
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn punctuation_counts_outside_strings_only() {
        assert_eq!(weight(br#"{"a":[1,2],"b":{}}"#), 2 * OBJECT + 5 * ELEMENT);
        assert_eq!(weight(br#""{,[\"{,[""#), 0);
        assert_eq!(weight(br#"["\\",{}]"#), OBJECT + 2 * ELEMENT);
    }
}
