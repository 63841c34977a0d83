//! Header fields with raw UTF-8, written in ASCII by encoded words (RFC 2047).
//!
//! Owns in which fields encoded words may stand, and where: in the text of unstructured fields, in the display names and
//! comments of address fields. Addresses stay as they are, and so does every octet that is ASCII already, but for the quotes of
//! a display name that is encoded. Refuses to guess: a field that is no UTF-8, or has it where no encoded word may stand, is
//! left alone.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;

use super::authors;

/// Most octets of a line with an encoded word, without its CR LF (RFC 2047 §2). Words end one earlier, so that a comma or
/// parenthesis fits behind them; that also keeps encoded words within their own bound of 75.
const MAX_LINE: usize = 76;

/// Most octets of white space that stay in front of an encoded word.
const MAX_GAP: usize = 16;

/// Most octets of an address literal: those of a domain (RFC 5321 §4.5.3.1.2).
const MAX_LITERAL: usize = 255;

/// What stands around the base64 of an encoded word.
const HEAD: &str = "=?utf-8?B?";
const TAIL: &str = "?=";

/// Fields that name people. What is no address in them is text.
const ADDRESS_FIELDS: [&str; 15] = [
    "from",
    "sender",
    "reply-to",
    "to",
    "cc",
    "bcc",
    "resent-from",
    "resent-sender",
    "resent-reply-to",
    "resent-to",
    "resent-cc",
    "resent-bcc",
    "disposition-notification-to",
    "return-receipt-to",
    "errors-to",
];

/// Fields of another structure, which has no place for an encoded word or one that is not worth finding. By their beginning.
const STRUCTURED: [&str; 14] = [
    "received",
    "return-path",
    "date",
    "resent-date",
    "message-id",
    "resent-message-id",
    "in-reply-to",
    "references",
    "mime-version",
    "content-",
    "list-",
    "dkim-",
    "arc-",
    "authentication-results",
];

/// A complete field, folded and with its line end or without, in ASCII. `None`: it is ASCII already, or it has to stay as it
/// is.
pub fn field(field: &[u8]) -> Option<Vec<u8>> {
    let text = std::str::from_utf8(field).ok().filter(|text| !text.is_ascii())?;
    let (name, _) = text.split_once(':').filter(|(name, _)| name.is_ascii())?;
    let (head, rest) = text.split_at(name.len() + 1);
    let value = rest.trim_end_matches("\r\n");
    let mut out = Folded::default();
    out.plain(head);
    let name = name.trim_end().to_ascii_lowercase();
    match name.as_str() {
        name if ADDRESS_FIELDS.contains(&name) => addresses(value, &mut out)?,
        name if STRUCTURED.iter().any(|start| name.starts_with(start)) && name != "content-description" => {
            return None;
        }
        _ => text_words(&words(value), &mut out),
    }
    out.plain(&rest[value.len()..]);
    Some(out.text.into_bytes())
}

/// Text that is being written, and where its last line is.
#[derive(Default)]
struct Folded {
    text: String,
    column: usize,
    /// The last line has an encoded word.
    encoded: bool,
}

impl Folded {
    /// Text that stays as it is.
    fn plain(&mut self, text: &str) {
        self.text.push_str(text);
        match text.rfind('\n') {
            Some(at) => (self.column, self.encoded) = (text.len() - at - 1, false),
            None => self.column += text.len(),
        }
    }

    /// A word that stays as it is behind the white space `gap`, at which the line is folded if it has to be. It is also folded
    /// behind a comma, semicolon or colon of a list.
    fn word(&mut self, gap: &str, word: &str) {
        let is_full = self.encoded && self.column + gap.len() + word.len() >= MAX_LINE && !word.is_empty();
        let gap = if is_full && gap.is_empty() && self.text.ends_with([',', ';', ':']) { " " } else { gap };
        if is_full && !gap.is_empty() && !gap.contains('\n') {
            self.plain("\r\n");
        }
        self.plain(gap);
        self.plain(word);
    }

    /// Text as encoded words, behind the white space `gap`, or a space where there is none.
    fn encoded(&mut self, gap: &str, text: &str) {
        // Behind a longer one there could be no room left.
        self.plain(if (1..=MAX_GAP).contains(&gap.len()) { gap } else { " " });
        let mut rest = text;
        while !rest.is_empty() {
            // Whole characters, each of at most four octets: RFC 2047 §5.
            let room = (MAX_LINE - 1).saturating_sub(self.column + HEAD.len() + TAIL.len()) / 4 * 3;
            let (now, later) = rest.split_at(rest.floor_char_boundary(room));
            let goes_on = rest.len() < text.len() && self.encoded;
            if now.is_empty() || goes_on {
                self.fold();
                continue;
            }
            let word = format!("{HEAD}{}{TAIL}", STANDARD.encode(now));
            self.plain(&word);
            self.encoded = true;
            rest = later;
        }
    }

    /// A new line. The white space that it begins with is what ends the one before, if that has some.
    fn fold(&mut self) {
        let line = self.text.trim_end_matches([' ', '\t']).len();
        let gap = self.text.split_off(line);
        self.plain("\r\n");
        self.plain(if gap.is_empty() { " " } else { &gap });
    }
}

/// A word with the white space in front of it.
#[derive(Clone, Copy)]
struct Word<'t> {
    gap: &'t str,
    text: &'t str,
}

fn is_space(c: char) -> bool {
    matches!(c, ' ' | '\t' | '\r' | '\n')
}

/// The words of unstructured text. White space at its end belongs to a last, empty one.
fn words(text: &str) -> Vec<Word<'_>> {
    let (mut words, mut rest) = (Vec::new(), text);
    while !rest.is_empty() {
        let (gap, behind) = rest.split_at(rest.find(|c| !is_space(c)).unwrap_or(rest.len()));
        let (text, behind) = behind.split_at(behind.find(is_space).unwrap_or(behind.len()));
        words.push(Word { gap, text });
        rest = behind;
    }
    words
}

/// Writes unstructured text: words that are not ASCII encoded, with the space between two of them, the others as they are.
fn text_words(words: &[Word<'_>], out: &mut Folded) {
    encode(words, str::to_owned, out);
}

/// Writes words of which an encoded one says what `meaning` says of it.
fn encode(words: &[Word<'_>], meaning: fn(&str) -> String, out: &mut Folded) {
    let mut at = 0;
    while let Some(&Word { gap, text }) = words.get(at) {
        if text.is_ascii() {
            let touches = gap.is_empty() && at > 0 && !words[at - 1].text.is_ascii();
            out.word(if touches { " " } else { gap }, text);
            at += 1;
            continue;
        }
        let len = words[at..].iter().take_while(|word| !word.text.is_ascii()).count();
        let run = &words[at..at + len];
        // White space between two encoded words is not shown, so beside one that is there already it is encoded too.
        let mut joined = String::new();
        if at > 0 && is_encoded(words[at - 1].text) {
            joined.push_str(&unfolded(gap));
        }
        for (nth, word) in run.iter().enumerate() {
            if nth > 0 {
                joined.push_str(&unfolded(word.gap));
            }
            joined.push_str(&meaning(word.text));
        }
        if let Some(next) = words.get(at + len).filter(|next| is_encoded(next.text)) {
            joined.push_str(&unfolded(next.gap));
        }
        out.encoded(gap, &joined);
        at += len;
    }
}

fn is_encoded(word: &str) -> bool {
    word.starts_with("=?") && word.ends_with(TAIL)
}

fn unfolded(gap: &str) -> String {
    gap.replace("\r\n", "")
}

/// What a quoted string says; anything else says itself.
fn unquoted(word: &str) -> String {
    let Some(inner) = word.strip_prefix('"').and_then(|word| word.strip_suffix('"')) else {
        return word.into();
    };
    let (mut text, mut escaped) = (String::new(), false);
    for c in unfolded(inner).chars() {
        escaped = c == '\\' && !escaped;
        if !escaped {
            text.push(c);
        }
    }
    text
}

/// Writes a list of addresses (RFC 5322 §3.4). `None`: there is UTF-8 in an address, or where one could be.
fn addresses(value: &str, out: &mut Folded) -> Option<()> {
    let (mut pending, mut rest) = (Vec::new(), value);
    loop {
        let (gap, behind) = rest.split_at(rest.find(|c| !is_space(c)).unwrap_or(rest.len()));
        let first = behind.chars().next();
        let len = match first {
            None => 0,
            Some('"') => authors::closed(behind.as_bytes())?,
            Some('(') => authors::comment(behind.as_bytes())?,
            Some('<') => behind.find('>')? + 1,
            Some(',' | ';' | ':') => 1,
            Some(_) => atoms(behind),
        };
        let (text, behind) = behind.split_at(len);
        rest = behind;
        match first {
            Some('<' | ':') => {
                name(&pending, out)?;
                pending.clear();
                let gap = if out.encoded && gap.is_empty() { " " } else { gap };
                ascii(Word { gap, text }, out)?;
            }
            None | Some(',' | ';') => {
                pending.drain(..).try_for_each(|word| ascii(word, out))?;
                out.word(gap, text);
                if first.is_none() {
                    return Some(());
                }
            }
            Some('(') if !text.is_ascii() => {
                // What it is in is not known yet.
                pending.drain(..).try_for_each(|word| ascii(word, out))?;
                remark(gap, text, out)?;
            }
            Some(_) => pending.push(Word { gap, text }),
        }
    }
}

/// Length of what stands in front of the next white space or delimiter. A colon within an address literal
/// (RFC 5321 §4.1.3) is none.
fn atoms(text: &str) -> usize {
    let (mut open, mut colon) = (None, None);
    for (at, c) in text.char_indices() {
        match c {
            '[' if open.is_none() => open = Some(at),
            ']' => (open, colon) = (None, None),
            ':' if open.is_some_and(|open| at - open < MAX_LITERAL) => _ = colon.get_or_insert(at),
            _ if is_space(c) || "\"(<,;:".contains(c) => return colon.unwrap_or(at),
            _ => {}
        }
    }
    // The bracket was not closed.
    colon.unwrap_or(text.len())
}

/// Words that are no name: part of an address, or nothing that has a meaning.
fn ascii(Word { gap, text }: Word<'_>, out: &mut Folded) -> Option<()> {
    text.is_ascii().then(|| out.word(gap, text))
}

/// Words in front of an angle bracket or colon. One with an `@` is an address for some readers.
fn name(words: &[Word<'_>], out: &mut Folded) -> Option<()> {
    let is_name =
        |word: &Word<'_>| word.text.is_ascii() || word.text.starts_with('"') || !word.text.contains('@');
    words.iter().all(is_name).then(|| encode(words, unquoted, out))
}

/// A comment. Only a plain one.
fn remark(gap: &str, text: &str, out: &mut Folded) -> Option<()> {
    let inner =
        text.strip_prefix('(')?.strip_suffix(')').filter(|inner| !inner.contains(['(', ')', '\\']))?;
    out.word(gap, "(");
    text_words(&words(inner), out);
    out.plain(")");
    Some(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn encoded(text: &str) -> Option<String> {
        field(text.as_bytes()).map(|field| String::from_utf8(field).unwrap())
    }

    fn word(text: &str) -> String {
        format!("=?utf-8?B?{}?=", STANDARD.encode(text))
    }

    #[test]
    fn text_is_encoded_word_by_word() {
        let field = "Subject: Bestätigung für  Käufe und Tee\r\n";
        assert_eq!(encoded(field), Some(format!("Subject: {} und Tee\r\n", word("Bestätigung für  Käufe"))));
        assert_eq!(encoded("X-Note:é"), Some(format!("X-Note: {}", word("é"))));
        let quoted = "Content-Description: \"é\" (ü) \\ a\r\n";
        assert_eq!(encoded(quoted), Some(format!("Content-Description: {} \\ a\r\n", word("\"é\" (ü)"))));
    }

    #[test]
    fn space_beside_an_encoded_word_that_is_there_already_is_kept() {
        let field = "Subject: =?utf-8?Q?=C3=BC?= é =?utf-8?Q?=C3=BC?=";
        let expected = format!("Subject: =?utf-8?Q?=C3=BC?= {} =?utf-8?Q?=C3=BC?=", word(" é "));
        assert_eq!(encoded(field), Some(expected));
    }

    #[test]
    fn names_are_encoded_and_addresses_are_not() {
        for (value, expected) in [
            ("Jörg Straße <a@b>", format!("{} <a@b>", word("Jörg Straße"))),
            ("\"Straße, J. \\\"x\\\"\"<a@b>", format!("{} <a@b>", word("Straße, J. \"x\""))),
            ("Ada <a@b>, Zoë Böhm <c@d>", format!("Ada <a@b>, {} <c@d>", word("Zoë Böhm"))),
            ("J. \"Q\"Müller X <a@b>", format!("J. \"Q\" {} X <a@b>", word("Müller"))),
            ("Müller\"Q\" <a@b>", format!("{} \"Q\" <a@b>", word("Müller"))),
            ("Büro: a@b, \"ü\" <c@d>;", format!("{} : a@b, {} <c@d>;", word("Büro"), word("ü"))),
            ("Zoë <a@b>, jo@[IPv6:2001:db8::1]", format!("{} <a@b>, jo@[IPv6:2001:db8::1]", word("Zoë"))),
            (
                "é <jo@[IPv6:2001:db8::1]>, [x: <a@b>",
                format!("{} <jo@[IPv6:2001:db8::1]>, [x : <a@b>", word("é")),
            ),
            ("a@b (Größe x), c@d", format!("a@b ( {} x), c@d", word("Größe"))),
        ] {
            for name in ["From", "to ", "Resent-CC"] {
                let field = format!("{name}: {value}\r\n");
                assert_eq!(encoded(&field), Some(format!("{name}: {expected}\r\n")), "{value}");
            }
        }
    }

    #[test]
    fn what_has_no_place_for_an_encoded_word_stays() {
        for field in [
            "To: jörg@b.example",
            "To: <jörg@b.example>",
            "To: Ada <a@bücher.example>",
            "To: jörg@x <a@b>",
            "To: jörg(é)@b",
            "To: Ada <a@b> é, c@d",
            "To: a@b (é (ü))",
            "To: \"é <a@b>",
            "Content-Type: text/plain; name=\"é.txt\"",
            "Received: from é",
            "List-Id: Bücher <x.example>",
            "Schlüssel: x",
            "no field é",
            "Subject: plain",
        ] {
            assert_eq!(encoded(field), None, "{field}");
        }
        assert_eq!(field(b"Subject: \xff"), None);
    }

    #[test]
    fn long_text_is_folded_within_the_bounds() {
        let text = "äöü €😀 ".repeat(100);
        let field = format!("Subject: Re: {text}\r\n");
        let encoded = encoded(&field).unwrap();
        for line in encoded.trim_end().split("\r\n") {
            assert!(line.len() <= MAX_LINE && !line.trim().is_empty(), "{line}");
            assert!(line.split(' ').all(|word| word.len() <= 75), "{line}");
        }
        let decoded: Vec<u8> = encoded
            .split_whitespace()
            .filter_map(|word| word.strip_prefix(HEAD)?.strip_suffix(TAIL))
            .flat_map(|word| STANDARD.decode(word).unwrap())
            .collect();
        assert_eq!(String::from_utf8(decoded).unwrap(), text.trim_end());
    }

    #[test]
    fn a_list_without_white_space_is_folded_behind_its_commas() {
        let field = format!("To: Zoë <z@b.example>,{}\r\n", ["somebody@b.example"; 9].join(","));
        let encoded = encoded(&field).unwrap();
        let first = encoded.lines().next().unwrap();
        assert!(first.contains(HEAD) && first.ends_with(',') && first.len() <= MAX_LINE, "{encoded}");
        assert_eq!(encoded.matches("somebody@b.example").count(), 9);
    }

    #[test]
    fn white_space_makes_no_empty_line() {
        for gap in [" ", "\r\n ", "\r\n \r\n\t", &" ".repeat(200), &format!("\r\n{}", " ".repeat(200))] {
            for value in [
                format!("é{gap}x{gap}é{gap}ü"),
                format!("{gap}é <a@b>{gap}"),
                format!("{}{gap}é", "x".repeat(90)),
            ] {
                let value = value.replace("\r\n \r\n", "\r\n .\r\n");
                let encoded = encoded(&format!("Subject:{value}\r\n")).unwrap();
                let lines: Vec<_> = encoded.trim_end_matches("\r\n").split("\r\n").collect();
                assert!(lines.iter().skip(1).all(|line| line.starts_with([' ', '\t'])), "{encoded:?}");
                assert!(
                    lines.iter().all(|line| !line.contains(HEAD) || line.trim_end().len() <= MAX_LINE),
                    "{encoded:?}"
                );
            }
        }
    }
}
