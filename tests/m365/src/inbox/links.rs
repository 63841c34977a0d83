//! Web addresses in a message, for the list below it: the frame with its HTML follows no link.
//!
//! Pure. Only `http` and `https`; the page shows each as text. The work is bounded by the length of what is read, of which
//! no more than [`MAX_READ`] is, and of one address.

use super::cut;

/// Bytes that are read.
const MAX_READ: usize = 256 * 1024;

/// Addresses that are listed.
const MAX_LINKS: usize = 50;

/// Characters of one.
const MAX_LENGTH: usize = 2000;

/// What ends an address in text.
const ENDS: [char; 7] = ['"', '\'', '<', '>', '`', '\\', '|'];

/// What a sentence may have behind an address.
const PUNCTUATION: [char; 8] = ['.', ',', ';', ':', '!', '?', ')', ']'];

/// The addresses in plain text, each once.
pub(super) fn in_text(text: &str) -> Vec<String> {
    let text = cut(text, MAX_READ).0;
    // Of the same length in bytes, so that places in it are places in the text.
    let lower = text.to_ascii_lowercase();
    let places = lower.match_indices("http").map(|(at, _)| at);
    let links = places.map(|at| until_end(&text[at..]).trim_end_matches(PUNCTUATION).to_owned());
    first_ones(links.filter(|link| has_scheme(&link.to_ascii_lowercase())))
}

/// The addresses of the `href` attributes in HTML, each once.
pub(super) fn in_html(html: &str) -> Vec<String> {
    let html = cut(html, MAX_READ).0;
    let lower = html.to_ascii_lowercase();
    let values = lower.match_indices("href").filter_map(|(at, name)| {
        let rest = html[at + name.len()..].trim_start().strip_prefix('=')?;
        let rest = rest.trim_start().trim_start_matches(['"', '\'']).trim_start();
        let value = until_end(rest).replace("&amp;", "&");
        has_scheme(&value.to_ascii_lowercase()).then_some(value)
    });
    first_ones(values)
}

fn has_scheme(lower: &str) -> bool {
    ["http://", "https://"]
        .iter()
        .any(|scheme| lower.strip_prefix(scheme).is_some_and(|rest| !rest.is_empty()))
}

fn until_end(text: &str) -> &str {
    let ends =
        |character: char| character.is_whitespace() || character.is_control() || ENDS.contains(&character);
    cut(text, MAX_LENGTH + 1).0.split(ends).next().unwrap_or_default()
}

fn first_ones(links: impl Iterator<Item = String>) -> Vec<String> {
    let mut found: Vec<String> = Vec::new();
    for link in links.filter(|link| link.len() <= MAX_LENGTH) {
        if !found.contains(&link) {
            found.push(link);
        }
        if found.len() == MAX_LINKS {
            break;
        }
    }
    found
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_in_text_end_before_the_punctuation_of_the_sentence() {
        let text = "See https://shop.example/orders/1?a=b (or HTTP://shop.example/). Not ftp://x, http:// or javascript:x. \
                    Again https://shop.example/orders/1?a=b";
        assert_eq!(in_text(text), ["https://shop.example/orders/1?a=b", "HTTP://shop.example/"]);
    }

    #[test]
    fn of_html_only_links_count() {
        let html = r#"<a href="https://a.example/?x=1&amp;y=2">a</a> <A HREF = 'http://b.example/'>b</A> <a href=https://c.example>c</a>
            <a href="javascript:alert('http://d.example')">d</a> <img src="https://e.example/pixel.png">"#;
        assert_eq!(in_html(html), ["https://a.example/?x=1&y=2", "http://b.example/", "https://c.example"]);
    }

    #[test]
    fn their_number_and_length_are_bounded() {
        let many: String = (0..500).map(|number| format!("http://{number}.example ")).collect();
        assert_eq!(in_text(&many).len(), MAX_LINKS);
        assert!(in_text(&format!("http://{}", "x".repeat(MAX_LENGTH))).is_empty());
    }

    #[test]
    fn a_text_without_an_end_takes_no_longer_than_another() {
        assert!(in_text(&"http://".repeat(1_000_000)).len() <= MAX_LINKS);
        assert!(in_html(&"href=http://".repeat(1_000_000)).len() <= MAX_LINKS);
    }

    #[test]
    fn text_of_any_kind_is_taken_apart() {
        for text in ["href", "href=", "href=\"", "é http", "İhttps://a.example", "\u{0}http://\u{0}"] {
            in_text(text);
            in_html(text);
        }
    }
}
