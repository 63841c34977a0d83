//! Graph's errors: the text of each code, and the body around it.
//!
//! Pure.

use jiff::Timestamp;
use serde_json::json;

use crate::faults::GraphAnswer;

/// What Graph says with an `error.code`, as far as it has been seen.
const TEXTS: [(&str, &str); 14] = [
    ("ApplicationThrottled", "Application is over its MailboxConcurrency limit."),
    ("ErrorAccessDenied", "Access is denied. Check credentials and try again."),
    ("ErrorExceededMessageLimit", "Cannot send mail. Daily Message/Recipient limit exceeded."),
    ("ErrorInternalServerError", "An internal server error occurred. The operation failed."),
    (
        "ErrorInvalidRecipients",
        "At least one recipient is not valid., A message can't be sent because it contains no recipients.",
    ),
    ("ErrorMessageSizeExceeded", "The message exceeds the maximum supported size."),
    ("ErrorMimeContentInvalidBase64String", "Invalid base64 string for MIME content."),
    (
        "ErrorSendAsDenied",
        "The user account which was used to submit this request does not have the right to send mail on behalf of the specified sending account., Cannot submit message.",
    ),
    ("ErrorServerBusy", "The server is busy. Please try again later."),
    ("MailboxNotEnabledForRESTAPI", "The mailbox is either inactive, soft-deleted, or is hosted on-premise."),
    ("RequestEntityTooLarge", "Request Entity Too Large"),
    ("ResourceNotFound", "Resource could not be discovered."),
    ("ServiceUnavailable", "The service is temporarily unavailable."),
    ("UnableToDeserializePostBody", "were unable to deserialize "),
];

/// What a proxy in front of Graph says in HTML.
const PAGE: &str = "<!DOCTYPE html><html><head><title>Error</title></head><body><h2>Our services aren't available right now</h2></body></html>";

/// The body of an answer, and its content type; empty without a code.
pub(super) fn body(answer: &GraphAnswer, request_id: &str, now: Timestamp) -> (Option<&'static str>, String) {
    if answer.html {
        return (Some("text/html"), PAGE.to_owned());
    }
    let Some(code) = &answer.code else { return (None, String::new()) };
    let known = TEXTS.iter().find(|(known, _)| known == code).map_or("", |(_, text)| text);
    let message = answer.message.as_deref().unwrap_or(known);
    let date = now.strftime("%Y-%m-%dT%H:%M:%S").to_string();
    let error = json!({
        "error": {
            "code": code,
            "message": message,
            "innerError": {"date": date, "request-id": request_id, "client-request-id": request_id},
        }
    });
    let kind = "application/json; odata.metadata=minimal; odata.streaming=true; IEEE754Compatible=false; charset=utf-8";
    (Some(kind), error.to_string())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_answer_has_a_text_html_or_nothing() {
        let now = Timestamp::from_second(1_790_000_000).unwrap();
        let text = |answer: GraphAnswer| body(&answer, "id", now).1;
        let denied: serde_json::Value =
            serde_json::from_str(&text(GraphAnswer::new(403).code("ErrorAccessDenied"))).unwrap();
        assert_eq!(denied["error"]["message"], "Access is denied. Check credentials and try again.");
        assert_eq!(denied["error"]["innerError"]["request-id"], "id");
        assert!(text(GraphAnswer::new(503).code("ErrorServerBusy").html()).starts_with("<!DOCTYPE html>"));
        assert_eq!(text(GraphAnswer::new(202)), "");
    }
}
