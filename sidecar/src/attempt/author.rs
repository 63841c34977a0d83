//! Who a message says it is from: read from its header when it matters, which is after a first refusal.

use crate::message::body::Body;
use crate::smtp::authors;
use crate::smtp::header::MAX_HEADER_BYTES;

/// The one address in `From`; nothing when there are several, or the header cannot be read.
pub async fn of(body: &Body) -> Option<String> {
    let (mut reader, mut header) = (body.reader(), Vec::new());
    while (header.len() as u64) < MAX_HEADER_BYTES && end(&header).is_none() {
        let Ok(Some(piece)) = reader.next().await else { break };
        header.extend_from_slice(&piece);
    }
    in_header(&header[..end(&header).unwrap_or(header.len())])
}

/// Where the header ends.
fn end(message: &[u8]) -> Option<usize> {
    message.windows(4).position(|octets| octets == b"\r\n\r\n").map(|at| at + 2)
}

fn in_header(header: &[u8]) -> Option<String> {
    let mut lines = header.split_inclusive(|octet| *octet == b'\n');
    let is_from = |line: &&[u8]| line.get(..5).is_some_and(|name| name.eq_ignore_ascii_case(b"from:"));
    let mut value = lines.find(is_from)?[5..].to_vec();
    for line in lines.take_while(|line| line.starts_with(b" ") || line.starts_with(b"\t")) {
        value.extend_from_slice(line);
    }
    match &authors::parse(&value)?.addresses[..] {
        [one] => Some(one.as_str().to_ascii_lowercase()),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn author(message: &'static str) -> Option<String> {
        futures::executor::block_on(of(&Body::new("Received: x\r\n", message)))
    }

    #[test]
    fn the_address_is_found_whatever_stands_around_it() {
        let boss = Some("boss@contoso.com".to_owned());
        assert_eq!(author("To: a@b\r\nFrom: Boss <Boss@Contoso.com>\r\n\r\nFrom: x@y\r\n"), boss);
        assert_eq!(author("fRoM:\r\n \"a@b\"\r\n\t<boss@contoso.com>\r\nTo: c@d\r\n\r\n"), boss);
    }

    #[test]
    fn without_a_header_several_authors_or_none_there_is_no_address() {
        for message in ["From: a@b, c@d\r\n\r\n", "To: a@b\r\n\r\nFrom: c@d\r\n", "", "From: \r\n\r\n"] {
            assert_eq!(author(message), None, "{message:?}");
        }
    }
}
