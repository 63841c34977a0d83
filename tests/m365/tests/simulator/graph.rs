//! Graph over HTTPS: literal exchanges, what is delivered, limits and faults.

use std::time::Duration;

use base64::{Engine, engine::general_purpose::STANDARD};
use mailroute_m365::{
    Face, Faults, GraphAction, GraphAnswer, GraphFaults, Kind, Options, Resource, Rule, Simulator,
    config::{ConcurrencyPer, Oversize},
    directory::{SAMPLE_MAILBOX, SAMPLE_SUBJECT},
    faults::Request,
};
use serde_json::{Value, json};
use tokio::{
    io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader},
    net::TcpStream,
};
use tokio_rustls::client::TlsStream;

use super::client::{Form, control, tls, token};

const MIME: &str = "From: Shop <noreply@contoso.com>\r\nTo: Alice <alice@example.com>\r\nCc: bob@example.com\r\n\
                    Bcc: carol@example.com,\r\n alice@example.com\r\nDate: Sat, 21 Nov 2026 10:00:00 +0000\r\n\
                    Message-ID: <one@contoso.com>\r\nAuto-Submitted: auto-generated\r\nX-Shop: 1\r\nSubject: Hello\r\n\r\nHello\r\n";

type Stream = BufReader<TlsStream<TcpStream>>;

/// An answer as it was read.
#[derive(Debug)]
struct Answer {
    status: u16,
    head: String,
    body: String,
}

impl Answer {
    fn code(&self) -> String {
        let body: Value = serde_json::from_str(&self.body).unwrap_or_else(|_| panic!("{self:?}"));
        body["error"]["code"].as_str().unwrap().to_owned()
    }

    fn header(&self, name: &str) -> Option<&str> {
        self.head.lines().find_map(|line| line.strip_prefix(&format!("{name}: ")))
    }
}

async fn start(change: impl FnOnce(&mut Options)) -> Simulator {
    let mut options = Options::default();
    change(&mut options);
    Simulator::start(options).await.unwrap()
}

async fn connect(simulator: &Simulator) -> Stream {
    BufReader::new(tls(simulator, simulator.graph_address().port(), "localhost").await)
}

fn request(simulator: &Simulator, body: &str) -> String {
    let token = simulator.access_token_for(Resource::Graph, SAMPLE_SUBJECT, 600);
    format!(
        "POST /v1.0/users/noreply%40contoso.com/sendMail HTTP/1.1\r\nHost: graph.microsoft.com\r\n\
         Authorization: Bearer {token}\r\nContent-Type: text/plain\r\nclient-request-id: mine\r\n\
         Content-Length: {}\r\n\r\n{body}",
        body.len()
    )
}

async fn say(stream: &mut Stream, text: &str) -> Answer {
    stream.write_all(text.as_bytes()).await.unwrap();
    stream.flush().await.unwrap();
    let mut head = String::new();
    while !head.ends_with("\r\n\r\n") {
        assert!(stream.read_line(&mut head).await.unwrap() > 0, "cut after {head:?}");
    }
    let length = head.lines().find_map(|line| line.strip_prefix("content-length: "));
    let mut body = vec![0; length.map_or(0, |length| length.parse().unwrap())];
    stream.read_exact(&mut body).await.unwrap();
    let status = head.split(' ').nth(1).unwrap().parse().unwrap();
    Answer { status, head, body: String::from_utf8(body).unwrap() }
}

/// Sends a message over a connection of its own.
async fn send(simulator: &Simulator, mime: &str) -> Answer {
    say(&mut connect(simulator).await, &request(simulator, &STANDARD.encode(mime))).await
}

fn with(rules: Vec<Rule<Request, GraphAction>>) -> Faults {
    Faults { graph: GraphFaults { rules, ..GraphFaults::default() }, ..Faults::default() }
}

fn kinds(simulator: &Simulator) -> Vec<Kind> {
    simulator.violations().into_iter().map(|violation| violation.kind).collect()
}

#[tokio::test]
async fn a_message_is_accepted_and_delivered_to_the_recipients_of_its_header() {
    let simulator = start(|_| {}).await;
    let answer = send(&simulator, MIME).await;
    assert_eq!((answer.status, answer.body.as_str()), (202, ""));
    assert_eq!(answer.header("client-request-id"), Some("mine"));
    assert!(answer.header("request-id").is_some() && answer.header("x-ms-ags-diagnostic").is_some());
    let messages = simulator.messages();
    let [message] = &messages[..] else { panic!("{messages:?}") };
    assert_eq!(
        (message.mailbox.as_str(), message.mail_from.as_str(), message.message_id.as_str()),
        (SAMPLE_MAILBOX, SAMPLE_MAILBOX, "<one@contoso.com>")
    );
    let to = ["alice@example.com", "bob@example.com", "carol@example.com"];
    assert_eq!(message.recipient_addresses(), to);
    assert_eq!((message.connection.face, message.sent_items), (Face::Graph, true));
    let delivered = "From: Shop <noreply@contoso.com>\r\nTo: Alice <alice@example.com>\r\nCc: bob@example.com\r\n\
                     Date: Sat, 21 Nov 2026 10:00:00 +0000\r\nMessage-ID: <one@contoso.com>\r\nSubject: Hello\r\n\r\nHello\r\n";
    assert_eq!(String::from_utf8_lossy(&message.data), delivered);
    assert_eq!(message.token.assertion_subject, SAMPLE_SUBJECT);
    assert_eq!(kinds(&simulator), []);
    let requests = simulator.requests();
    assert_eq!((requests[0].status, requests[0].client_request_id.as_deref()), (202, Some("mine")));
}

#[tokio::test]
async fn one_connection_carries_several_messages_wrapped_or_in_chunks() {
    let simulator = start(|options| options.config.graph.removes_unseen_headers = false).await;
    let mut stream = connect(&simulator).await;
    let encoded = STANDARD.encode(MIME);
    let lines: Vec<&str> =
        encoded.as_bytes().chunks(76).map(|line| std::str::from_utf8(line).unwrap()).collect();
    let wrapped = lines.join("\r\n");
    assert_eq!(say(&mut stream, &request(&simulator, &wrapped)).await.status, 202);
    let whole = request(&simulator, "");
    let head = whole.replace("Content-Length: 0", "Transfer-Encoding: chunked");
    let chunks: String = lines.iter().map(|line| format!("{:x}\r\n{line}\r\n", line.len())).collect();
    assert_eq!(say(&mut stream, &format!("{head}{chunks}0\r\n\r\n")).await.status, 202);
    assert!(simulator.messages()[1].header("X-Shop").is_some());
    let requests = simulator.requests();
    assert_eq!(requests[0].connection, requests[1].connection);
    assert_eq!((requests[0].chunked, requests[1].chunked), (false, true));
}

#[tokio::test]
async fn a_token_of_the_token_endpoint_opens_graph() {
    let simulator = start(|_| {}).await;
    let form = Form {
        scope: "https%3A%2F%2Fgraph.microsoft.com%2F.default".into(),
        ..Form::assertion(simulator.assertion(SAMPLE_SUBJECT))
    };
    let issued = token(&simulator, &form).await.unwrap().json();
    let ours = simulator.access_token_for(Resource::Graph, SAMPLE_SUBJECT, 600);
    let request = request(&simulator, &STANDARD.encode(MIME));
    let swap = |request: &str, with: &str| {
        let start = request.find("Bearer ").unwrap() + 7;
        let end = start + request[start..].find('\r').unwrap();
        format!("{}{with}{}", &request[..start], &request[end..])
    };
    assert!(!ours.is_empty());
    let mut stream = connect(&simulator).await;
    let answer = say(&mut stream, &swap(&request, issued["access_token"].as_str().unwrap())).await;
    assert_eq!(answer.status, 202, "{answer:?}");
    let answer = say(&mut stream, &swap(&request, "")).await;
    assert_eq!((answer.status, answer.code().as_str()), (401, "InvalidAuthenticationToken"));
    assert!(answer.header("www-authenticate").unwrap().starts_with("Bearer "));
}

#[tokio::test]
async fn what_is_wrong_with_a_body_is_told_in_order() {
    let simulator = start(|options| options.config.graph.mime_bytes = 1000).await;
    let mut stream = connect(&simulator).await;
    let long = format!("{MIME}{}", "x".repeat(1000));
    let cases = [
        ("not base64!".to_owned(), 400, "ErrorMimeContentInvalidBase64String"),
        (STANDARD.encode(MIME.replace("Shop <noreply@", "<ceo@")), 403, "ErrorSendAsDenied"),
        (STANDARD.encode(MIME.replace("Shop <", "x@y <")), 403, "ErrorSendAsDenied"),
        (STANDARD.encode("From: noreply@contoso.com\r\nTo: nobody\r\n\r\n"), 400, "ErrorInvalidRecipients"),
        (STANDARD.encode("From: noreply@contoso.com\r\n\r\n"), 400, "ErrorInvalidRecipients"),
    ];
    for (body, status, code) in cases {
        let answer = say(&mut stream, &request(&simulator, &body)).await;
        assert_eq!((answer.status, answer.code().as_str()), (status, code));
    }
    let json = request(&simulator, "{}").replace("text/plain", "application/json");
    assert_eq!(say(&mut stream, &json).await.code(), "UnableToDeserializePostBody");
    for (oversize, status) in [
        (Oversize::EntityTooLarge, 413),
        (Oversize::MessageSizeExceeded, 400),
        (Oversize::SilentlyDropped, 200),
    ] {
        simulator.config(|config| config.graph.oversize = oversize);
        assert_eq!(say(&mut stream, &request(&simulator, &STANDARD.encode(&long))).await.status, status);
    }
    assert_eq!(simulator.messages().len(), 0);
    assert_eq!(simulator.statistics().tally.refusals("403 ErrorSendAsDenied"), 2);
    assert_eq!(kinds(&simulator), [Kind::Protocol, Kind::MessageSize, Kind::MessageSize, Kind::MessageSize]);
}

#[tokio::test]
async fn more_than_four_at_once_are_throttled_for_the_application_or_each_mailbox() {
    let simulator = start(|options| options.config.graph.concurrency = 1).await;
    simulator.set_faults(with(vec![Rule::times(Request::SendMail, GraphAction::Delay(600_000), 1)]));
    let mut slow = connect(&simulator).await;
    slow.write_all(request(&simulator, &STANDARD.encode(MIME)).as_bytes()).await.unwrap();
    slow.flush().await.unwrap();
    let under_way = |office: &mailroute_m365::office::Office| {
        (office.statistics().requests_at_once.values().sum::<usize>() == 1).then_some(())
    };
    simulator.wait_for(Duration::from_secs(20), under_way).await.unwrap();
    let answer = send(&simulator, MIME).await;
    assert_eq!((answer.status, answer.code().as_str()), (429, "ApplicationThrottled"));
    assert_eq!(answer.header("retry-after"), Some("10"));
    assert_eq!(kinds(&simulator), [Kind::ConcurrentRequests]);
    simulator.config(|config| config.graph.concurrency_per = ConcurrencyPer::ApplicationAndMailbox);
    assert_eq!(send(&simulator, MIME).await.status, 202);
    drop(slow);
}

#[tokio::test]
async fn uploads_are_limited() {
    let simulator = start(|options| options.config.graph.upload_bytes = 600).await;
    assert_eq!(send(&simulator, MIME).await.status, 202);
    assert_eq!(send(&simulator, MIME).await.code(), "ApplicationThrottled");
    assert_eq!(kinds(&simulator), [Kind::UploadRate]);
}

#[tokio::test]
async fn exchange_reports_what_is_over_its_own_limits_after_the_202() {
    let simulator = start(|options| {
        options.config.limits.messages_per_minute = 3;
        options.config.limits.recipients_per_day = 4;
        options.config.directory.tenants[0].external_recipients_per_day = Some(7);
    })
    .await;
    for _ in 0..4 {
        assert_eq!(send(&simulator, MIME).await.status, 202);
    }
    assert_eq!(simulator.messages().len(), 1);
    let reports = simulator.non_delivery_reports();
    let codes: Vec<&str> = reports.iter().map(|report| report.reason.split(' ').nth(1).unwrap()).collect();
    assert_eq!(codes, ["5.1.90", "5.7.233", "4.4.2"]);
    assert_eq!((reports[0].mailbox.as_str(), reports[0].recipients.len()), (SAMPLE_MAILBOX, 3));
    assert_eq!(kinds(&simulator), [Kind::RecipientsPerDay, Kind::TenantRecipients, Kind::MessageRate]);
    let listed = control(&simulator, hyper::Method::GET, "/non-delivery-reports?wait=3", "").await.json();
    assert_eq!(listed[0]["messageId"], "<one@contoso.com>");
    let requests = control(&simulator, hyper::Method::GET, "/requests", "").await.json();
    assert_eq!(requests.as_array().unwrap().len(), 4);
    assert_eq!(control(&simulator, hyper::Method::DELETE, "/requests", "").await.status, 204);
    assert_eq!(control(&simulator, hyper::Method::DELETE, "/non-delivery-reports", "").await.status, 204);
    assert!(simulator.requests().is_empty() && simulator.non_delivery_reports().is_empty());
}

#[tokio::test]
async fn faults_answer_before_or_after_the_message_is_accepted() {
    let simulator = start(|_| {}).await;
    let answer = |answer: GraphAnswer| Rule::times(Request::SendMail, GraphAction::Answer(answer), 1);
    simulator.set_faults(with(vec![
        answer(GraphAnswer::new(202).accepted().retry_after(30)),
        answer(GraphAnswer::new(504).code("UnknownError").message("").accepted()),
        answer(GraphAnswer::new(500).code("ErrorInternalServerError").html()),
        answer(GraphAnswer::new(200)),
        answer(GraphAnswer::new(403).code("ErrorAccessDenied")),
        Rule::times(Request::SendMail, GraphAction::Duplicate, 1),
    ]));
    let mut seen = Vec::new();
    for _ in 0..6 {
        let answer = send(&simulator, MIME).await;
        seen.push((answer.status, simulator.messages().len()));
        match seen.len() {
            1 => assert_eq!(answer.header("retry-after"), Some("30")),
            3 => assert!(answer.body.starts_with("<!DOCTYPE html>")),
            5 => assert_eq!(answer.code(), "ErrorAccessDenied"),
            _ => {}
        }
    }
    assert_eq!(seen, [(202, 1), (504, 2), (500, 2), (200, 2), (403, 2), (202, 4)]);
}

#[tokio::test]
async fn a_cut_gives_no_answer_and_a_refused_message_is_not_accepted_by_a_fault() {
    let simulator = start(|_| {}).await;
    for (accepted, messages) in [(false, 0), (true, 1)] {
        let cut = GraphAction::Cut { accepted };
        simulator.set_faults(with(vec![Rule::times(Request::SendMail, cut, 1)]));
        let mut stream = connect(&simulator).await;
        let request = request(&simulator, &STANDARD.encode(MIME));
        stream.write_all(request.as_bytes()).await.unwrap();
        stream.flush().await.unwrap();
        let mut read = Vec::new();
        drop(stream.read_to_end(&mut read).await);
        assert_eq!((read.len(), simulator.messages().len()), (0, messages));
    }
    let accepted = GraphAction::Answer(GraphAnswer::new(504).accepted());
    simulator.set_faults(with(vec![Rule::times(Request::SendMail, accepted, 1)]));
    assert_eq!(send(&simulator, &MIME.replace("noreply@", "ceo@")).await.code(), "ErrorSendAsDenied");
    let statuses: Vec<u16> = simulator.requests().iter().map(|request| request.status).collect();
    assert_eq!(statuses, [0, 0, 403]);
}

#[tokio::test]
async fn faults_are_read_from_json_and_the_port_can_be_closed() {
    let simulator = start(|_| {}).await;
    let faults = json!({"graph": {"rules": [
        {"action": {"answer": {"status": 503, "code": "ErrorServerBusy", "html": true, "retryAfter": 5}}, "times": 1},
        {"action": {"cut": {"accepted": true}}}, {"action": "duplicate"}, {"action": {"delay": 5}},
    ]}});
    let put = control(&simulator, hyper::Method::PUT, "/faults", &faults.to_string()).await;
    assert_eq!(put.status, 204, "{}", put.text());
    assert_eq!(send(&simulator, MIME).await.header("retry-after"), Some("5"));
    let down = Faults { graph: GraphFaults { down: true, ..GraphFaults::default() }, ..Faults::default() };
    simulator.set_faults(down);
    simulator.wait_until_settled().await;
    assert!(TcpStream::connect(simulator.graph_address()).await.is_err());
}
