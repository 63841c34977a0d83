//! The HTML of a message, for a frame that runs nothing and loads nothing.

use axum::{
    extract::{Path, State},
    http::header,
    response::{IntoResponse, Response},
};
use base64::{Engine, engine::general_purpose::STANDARD};
use mail_parser::{MessageParser, MimeHeaders, PartType};

use super::{Inbox, NotFound, cut};

/// Bytes of HTML that are shown.
const MAX_HTML: usize = 2 * 1024 * 1024;

/// Bytes that the pictures of a message may add, encoded, as often as they are shown.
const MAX_PICTURES: usize = 8 * 1024 * 1024;

/// Pictures that are looked for in the HTML.
const MAX_PARTS: usize = 50;

/// Bytes in front of an encoded picture, at most.
const PREFIX: usize = "data:image/jpeg;base64,".len();

/// Kinds of picture that are shown; an SVG is a document.
const PICTURES: [&str; 4] = ["png", "jpeg", "gif", "webp"];

/// The policy of the frame: styles in the HTML itself and pictures of the message, nothing else, whatever page has the frame.
const POLICY: &str = "default-src 'none'; style-src 'unsafe-inline'; img-src data:; base-uri 'none'; \
                      form-action 'none'; frame-ancestors 'self'; sandbox";

/// The HTML of a message as a page of its own.
pub(super) async fn frame(State(inbox): State<Inbox>, Path(id): Path<u64>) -> Result<Response, NotFound> {
    let message = inbox.find(id)?;
    let html = document(&message.data).ok_or(NotFound)?;
    let headers =
        [(header::CONTENT_TYPE, "text/html; charset=utf-8"), (header::CONTENT_SECURITY_POLICY, POLICY)];
    Ok((headers, html).into_response())
}

/// The HTML parts of a message, with the pictures that they refer to.
fn document(data: &[u8]) -> Option<String> {
    let parsed = MessageParser::default().parse(data)?;
    let html = parts(&parsed)?;
    Some(with_pictures(cut(&html, MAX_HTML).0.to_owned(), &parsed))
}

/// The HTML parts of a message, one after the other; none when there is only text.
pub(super) fn parts(parsed: &mail_parser::Message<'_>) -> Option<String> {
    let html = parsed.html_bodies().filter_map(|part| match &part.body {
        PartType::Html(html) => Some(html.as_ref()),
        _ => None,
    });
    Some(html.collect::<Vec<_>>().join("\n<hr>\n")).filter(|html| !html.is_empty())
}

/// The same HTML with each `cid:` address of a picture replaced by the picture (RFC 2392).
fn with_pictures(mut html: String, parsed: &mail_parser::Message<'_>) -> String {
    let mut room = MAX_PICTURES;
    let pictures = parsed.parts.iter().filter_map(|part| {
        let kind = PICTURES.into_iter().find(|kind| part.is_content_type("image", kind))?;
        Some((part, kind, part.content_id()?))
    });
    for (part, kind, id) in pictures.take(MAX_PARTS) {
        let reference = format!("cid:{}", id.trim_start_matches('<').trim_end_matches('>'));
        let times = html.matches(&reference).count();
        let size = PREFIX + part.contents().len().div_ceil(3) * 4;
        if times > 0 && size.saturating_mul(times) <= room && reference.len() > 4 {
            room -= size * times;
            let picture = format!("data:image/{kind};base64,{}", STANDARD.encode(part.contents()));
            html = html.replace(&reference, &picture);
        }
    }
    html
}

#[cfg(test)]
mod tests {
    use super::*;

    fn related(html: &str) -> String {
        format!(
            "MIME-Version: 1.0\r\nContent-Type: multipart/related; boundary=b\r\n\r\n--b\r\n\
             Content-Type: text/html; charset=utf-8\r\n\r\n{html}\r\n--b\r\nContent-Type: image/png\r\n\
             Content-ID: <logo@shop>\r\nContent-Transfer-Encoding: base64\r\n\r\niVBORw==\r\n--b\r\n\
             Content-Type: image/svg+xml\r\nContent-ID: <drawing@shop>\r\n\r\n<svg/>\r\n--b--\r\n"
        )
    }

    #[test]
    fn pictures_of_the_message_are_shown_but_no_documents() {
        let html =
            document(related(r#"<img src="cid:logo@shop"><img src="cid:drawing@shop">"#).as_bytes()).unwrap();
        assert!(html.contains(r#"<img src="data:image/png;base64,iVBORw==">"#), "{html}");
        assert!(html.contains("cid:drawing@shop"), "{html}");
    }

    #[test]
    fn a_picture_that_is_shown_too_often_is_not_shown() {
        let html = "cid:logo@shop ".repeat(100_000);
        let parsed = related("x");
        let parsed = MessageParser::default().parse(parsed.as_bytes()).unwrap();
        assert!(with_pictures(html.clone(), &parsed).len() <= html.len() + MAX_PICTURES);
        let oftener = "cid:logo@shop ".repeat(2_000_000);
        assert_eq!(with_pictures(oftener.clone(), &parsed), oftener);
    }

    #[test]
    fn text_alone_has_no_html() {
        assert_eq!(document(b"Subject: a\r\n\r\n<b>text</b>\r\n"), None);
    }
}
