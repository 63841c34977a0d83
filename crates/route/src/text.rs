//! Texts for people: shortened, and of an error with its causes.

use std::borrow::Cow;
use std::error::Error;

/// What stands for the rest.
const ELLIPSIS: &str = " …";

/// A text of at most `bytes`. One that is longer ends with an ellipsis behind a whole word, where there is one in the last
/// third.
pub fn shortened(text: &str, bytes: usize) -> Cow<'_, str> {
    if text.len() <= bytes {
        return Cow::Borrowed(text);
    }
    let room = &text[..text.floor_char_boundary(bytes.saturating_sub(ELLIPSIS.len()))];
    let follows_word = text[room.len()..].starts_with(char::is_whitespace);
    let words = if follows_word { Some(room.len()) } else { room.rfind(char::is_whitespace) };
    let end = words.filter(|&end| end >= room.len() / 3 * 2).unwrap_or(room.len());
    Cow::Owned(format!("{}{ELLIPSIS}", room[..end].trim_end()))
}

/// An error and all its causes, in one line.
pub fn chain(error: &dyn Error) -> String {
    let causes = std::iter::successors(Some(error), |error| (*error).source());
    causes.map(ToString::to_string).collect::<Vec<_>>().join(": ")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_long_text_ends_behind_a_word_and_shows_that_something_is_missing() {
        let text = "there are no active credentials";
        assert_eq!(shortened(text, 31), text);
        assert_eq!(shortened(text, 21), "there are no …");
        assert_eq!(shortened("there are no active", 16), "there are no …");
    }

    #[test]
    fn a_text_without_spaces_is_cut_between_characters() {
        for bytes in 6..40 {
            let text = "ä".repeat(50);
            let short = shortened(&text, bytes);
            assert!(short.len() <= bytes && short.ends_with("ä …"), "{short}");
        }
    }
}
