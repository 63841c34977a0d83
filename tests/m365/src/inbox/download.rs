//! Files to download: attachments, and a message as it arrived. The browser never shows them.

use axum::{
    extract::{Path, State},
    http::header,
    response::{IntoResponse, Response},
};
use mail_parser::{MessageParser, MimeHeaders};

use super::{Inbox, NotFound};

/// Characters of a file's name.
const MAX_NAME: usize = 100;

/// A message, byte for byte.
pub(super) async fn whole(State(inbox): State<Inbox>, Path(id): Path<u64>) -> Result<Response, NotFound> {
    Ok(file(&format!("message-{id}.eml"), inbox.find(id)?.data))
}

/// An attachment, counted from 0.
pub(super) async fn attachment(
    State(inbox): State<Inbox>,
    Path((id, number)): Path<(u64, u32)>,
) -> Result<Response, NotFound> {
    let message = inbox.find(id)?;
    let parsed = MessageParser::default().parse(&message.data).ok_or(NotFound)?;
    let part = parsed.attachment(number).ok_or(NotFound)?;
    let name = part.attachment_name().map_or_else(|| format!("attachment-{number}"), str::to_owned);
    Ok(file(&name, part.contents().to_vec()))
}

fn file(name: &str, bytes: Vec<u8>) -> Response {
    let headers = [
        (header::CONTENT_TYPE, "application/octet-stream".to_owned()),
        (header::CONTENT_DISPOSITION, disposition(name)),
    ];
    (headers, bytes).into_response()
}

/// The name of a file, for old and new browsers (RFC 6266); without folders, control characters and bidirectional marks.
fn disposition(name: &str) -> String {
    let last = name.rsplit(['/', '\\']).next().unwrap_or_default();
    let harmless = |character: &char| {
        !character.is_control()
            && !matches!(character, '\u{200e}'..='\u{200f}' | '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}')
    };
    let kept: String = last.trim_start_matches('.').chars().filter(harmless).take(MAX_NAME).collect();
    let name = if kept.trim().is_empty() { "attachment" } else { kept.trim() };
    let plain = |character: char| character.is_ascii_alphanumeric() || ".-_ ".contains(character);
    let ascii: String = name.chars().map(|c| if plain(c) { c } else { '_' }).collect();
    let unreserved = |byte: u8| byte.is_ascii_alphanumeric() || b".-_".contains(&byte);
    let encoded: String = name
        .bytes()
        .map(|byte| if unreserved(byte) { char::from(byte).to_string() } else { format!("%{byte:02X}") })
        .collect();
    format!("attachment; filename=\"{ascii}\"; filename*=UTF-8''{encoded}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_is_given_in_ascii_and_in_utf_8() {
        assert_eq!(
            disposition("Rechnung Köln.pdf"),
            "attachment; filename=\"Rechnung K_ln.pdf\"; filename*=UTF-8''Rechnung%20K%C3%B6ln.pdf"
        );
    }

    #[test]
    fn a_hostile_name_neither_leaves_its_folder_nor_its_header() {
        for (name, shown) in [
            ("../../etc/passwd", "passwd"),
            ("C:\\Windows\\a.exe", "a.exe"),
            (".bashrc", "bashrc"),
            ("a\r\nSet-Cookie: b", "aSet-Cookie_ b"),
            ("a\"; filename=\"b", "a__ filename__b"),
            ("\u{202e}fdp.exe", "fdp.exe"),
            ("", "attachment"),
        ] {
            let header = disposition(name);
            assert!(header.starts_with(&format!("attachment; filename=\"{shown}\"; ")), "{header}");
            assert!(header.is_ascii() && !header.contains(['\r', '\n']), "{header}");
        }
    }
}
