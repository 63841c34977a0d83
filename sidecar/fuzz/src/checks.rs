//! What has to hold for any octets at all. The fuzz targets call these, and so do the property tests.
//!
//! `smtp-proto` serves as a second opinion where it is right. Where it is known to read otherwise, the input is left
//! out, and the reason stands beside it.

use std::borrow::Cow;
use std::net::{IpAddr, Ipv4Addr};
use std::sync::Arc;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use mailroute_route::RouteFile;
use mailroute_route::address::{MAX_ADDRESS_BYTES, is_address};
use mailroute_route::file::{BareLineEnds, OnViolation};
use mailroute_route::jwt::{Claims, is_jwt};
use mailroute_sidecar::config;
use mailroute_sidecar::delivery::graph::recipients::{comparable, for_graph};
use mailroute_sidecar::gateway::protocol::{self, Command as GatewayCommand};
use mailroute_sidecar::gateway::smtp::users::Users;
use mailroute_sidecar::listener::settings;
use mailroute_sidecar::message::envelope::{Address, BodyType, QueueId};
use mailroute_sidecar::smtp::auth::{Auth, Credentials, Gathering, Next, initial_response};
use mailroute_sidecar::smtp::command::{Command, Mail};
use mailroute_sidecar::smtp::data::{Decoder, Encoder};
use mailroute_sidecar::smtp::encoded_word;
use mailroute_sidecar::smtp::header::rules::{FieldRule, FieldRules};
use mailroute_sidecar::smtp::header::{From, Headers, Pass, Sender, signature};
use mailroute_sidecar::smtp::mailboxes::Paused;
use mailroute_sidecar::smtp::reply::{EnhancedCode, Reply};
use mailroute_sidecar::smtp::senders::{Judgement, Senders};
use mailroute_sidecar::smtp::trace::{Arrival, Protocol, Stamp, stamp};
use mailroute_sidecar::smtp::transaction::{Settings, StartTls};
use mailroute_sidecar::spool::{format, frame};
use smtp_proto::request::receiver::DataReceiver;
use smtp_proto::{MAIL_BODY_8BITMIME, MAIL_SMTPUTF8, Request};

use super::core::{self, Outcome};

/// A command is printed as it was read, and a second reader finds the same in it.
pub fn command(line: &[u8]) {
    let Ok(command) = Command::parse(line) else { return };
    let printed = command.to_string();
    assert_eq!(Command::parse(printed.as_bytes()).as_ref(), Ok(&command), "{printed:?}");
    if printed.chars().any(char::is_control) {
        // The session lets no such line through.
        return;
    }
    match &command {
        Command::Mail(mail) if mail.reverse_path.address().is_none_or(is_plain) && has_plain_size(mail) => {
            same_mail(mail, &printed);
        }
        Command::Rcpt(address) if is_plain(address) => same_recipient(address, &printed),
        _ => {}
    }
}

/// What the schema of a MailRoute takes for an address, the sidecar does; and of what the sidecar takes the schema takes all
/// local parts in ASCII without quotes.
pub fn address(input: &[u8]) {
    let Ok(text) = std::str::from_utf8(input) else { return };
    if is_address(text) {
        assert!(Address::parse(text).is_ok(), "{text:?}");
    }
    let within_contoso = format!("{text}@contoso.com");
    if within_contoso.len() <= MAX_ADDRESS_BYTES && text.is_ascii() && !text.starts_with('"') {
        let taken = Address::parse(&within_contoso).is_ok();
        assert_eq!(is_address(&within_contoso), taken, "{within_contoso:?}");
    }
}

/// A header that goes to Graph names the envelope and nobody else, by our own reading and by `mail-parser`'s; nothing but `Bcc` is
/// changed, and a second time nothing at all.
pub fn graph_recipients(input: &[u8]) {
    // A message that is kept has no bare CR or LF.
    let header = &decoded(input)[..];
    let envelope: Vec<_> =
        ["a@b", "bob@fabrikam.com", "\"c d\"@e"].iter().filter_map(|to| Address::parse(to).ok()).collect();
    let Ok(sent) = for_graph(header, &envelope) else { return };
    assert_eq!(for_graph(&sent, &envelope).as_ref(), Ok(&sent), "{}", sent.escape_ascii());
    let is_bcc = |line: &[u8]| {
        let name = line.split(|&b| b == b':').next().unwrap_or_default();
        line.contains(&b':') && name.trim_ascii().eq_ignore_ascii_case(b"bcc")
    };
    let without_bcc = |header: &[u8]| {
        let (mut kept, mut in_bcc) = (Vec::new(), false);
        for line in header.split_inclusive(|&b| b == b'\n') {
            let is_folded = line.starts_with(b" ") || line.starts_with(b"\t");
            if !is_folded {
                in_bcc = is_bcc(line);
            }
            if !in_bcc {
                kept.extend_from_slice(line);
            }
        }
        kept
    };
    assert_eq!(without_bcc(&sent), without_bcc(header), "{}", sent.escape_ascii());
    let mut named = std::collections::HashSet::new();
    let whole = [&sent[..], b"\r\n\r\n"].concat();
    let Some(message) = mail_parser::MessageParser::default().parse(&whole) else { return };
    let fields = message
        .headers()
        .iter()
        .filter(|field| ["to", "cc", "bcc"].contains(&field.name().to_ascii_lowercase().as_str()));
    for list in fields.filter_map(|field| field.value().as_address()) {
        for address in list.iter().filter_map(|address| address.address()) {
            if Address::parse(address).is_ok() {
                named.insert(comparable(address));
            }
        }
    }
    let allowed: Vec<_> = envelope.iter().map(|to| comparable(to.as_str())).collect();
    assert!(named.iter().all(|address| allowed.contains(address)), "{named:?} in {}", sent.escape_ascii());
    // `mail-parser` takes the quotes off a local part.
    let unquoted = allowed.iter().filter(|address| !address.contains('"'));
    let left_out: Vec<_> = unquoted.filter(|address| !named.contains(*address)).collect();
    assert!(left_out.is_empty(), "{left_out:?} not in {}", sent.escape_ascii());
}

/// smtp-proto takes quotes off, refuses dots at odd places and most literals, reads `postmaster` as nothing, and ends
/// an address at 255 octets.
fn is_plain(address: &Address) -> bool {
    let text = address.as_str();
    let odd = ["\"", "..", ".@", "[", ":"].iter().any(|odd| text.contains(odd));
    !odd && !text.starts_with('.') && text.contains('@') && text.len() < 255
}

/// smtp-proto refuses sizes that come near the largest number it can hold.
fn has_plain_size(mail: &Mail) -> bool {
    mail.size.is_none_or(|size| size < u64::MAX / 16)
}

fn second_opinion(line: &str) -> Request<String> {
    let line = format!("{line}\r\n");
    let request = Request::<Cow<'_, str>>::parse(&mut line.as_bytes().iter());
    request.unwrap_or_else(|error| panic!("{line:?} is refused elsewhere: {error:?}")).into_owned()
}

fn same_mail(mail: &Mail, line: &str) {
    let Request::Mail { from } = second_opinion(line) else { panic!("{line:?} is not MAIL elsewhere") };
    assert_eq!(from.address, mail.reverse_path.address().map_or("", Address::as_str));
    assert_eq!(from.flags & MAIL_SMTPUTF8 != 0, mail.smtp_utf8);
    assert_eq!(from.flags & MAIL_BODY_8BITMIME != 0, mail.body == BodyType::EightBitMime);
    assert_eq!(from.size as u64, mail.size.unwrap_or(0));
}

fn same_recipient(address: &Address, line: &str) {
    let Request::Rcpt { to } = second_opinion(line) else { panic!("{line:?} is not RCPT elsewhere") };
    assert_eq!(to.address, address.as_str());
}

/// The decoder agrees with a slow one that reads like the definition, in any cut; what it lets through is safe to
/// pass on; and what is encoded is decoded again.
pub fn data(input: &[u8]) {
    let (message, taken) = decode(input, input.len().max(1));
    assert_eq!((message.as_slice(), taken), (reference(input).0.as_slice(), reference(input).1));
    for step in [1, 2, 3, 7] {
        assert!(decode(input, step) == (message.clone(), taken), "cut into pieces of {step}");
    }
    assert_lines_end_in_crlf(&message);
    let (again, end) = decode(&encode(&message), 5);
    let whole_lines = message.is_empty() || message.ends_with(b"\r\n");
    let expected = if whole_lines { message.clone() } else { [message.as_slice(), b"\r\n"].concat() };
    assert!(again == expected && end.is_some(), "{}", message.escape_ascii());
    same_data(input, &message, taken);
}

/// The message that is taken in for these octets; it always ends in a line end.
pub fn decoded(input: &[u8]) -> Vec<u8> {
    let mut message = decode(input, input.len().max(1)).0;
    if !message.is_empty() && !message.ends_with(b"\r\n") {
        message.extend_from_slice(b"\r\n");
    }
    message
}

/// The message, and the octets up to its end if it has one.
fn decode(input: &[u8], step: usize) -> (Vec<u8>, Option<usize>) {
    let (mut decoder, mut message, mut taken) = (Decoder::default(), Vec::new(), 0);
    for piece in input.chunks(step) {
        let decoded = decoder.decode(piece, &mut message);
        taken += decoded.taken;
        if decoded.ended {
            return (message, Some(taken));
        }
        assert_eq!(decoded.taken, piece.len());
    }
    (message, None)
}

fn encode(message: &[u8]) -> Vec<u8> {
    let (mut encoder, mut wire) = (Encoder::default(), Vec::new());
    for piece in message.chunks(3) {
        encoder.encode(piece, &mut wire);
    }
    encoder.finish(&mut wire);
    wire
}

/// As the definition says it, looking back and ahead at will.
fn reference(input: &[u8]) -> (Vec<u8>, Option<usize>) {
    let begins_line = |at: usize| at == 0 || input[..at].ends_with(b"\r\n");
    let begins_bare_line = |at: usize| input[..at].ends_with(b"\n") && !begins_line(at);
    let end = (0..input.len()).find(|&at| begins_line(at) && input[at..].starts_with(b".\r\n"));
    let (text, taken) = end.map_or((held_back(input), None), |end| (&input[..end], Some(end + 3)));
    let mut message = Vec::new();
    for (at, &octet) in text.iter().enumerate() {
        let next = input.get(at + 1);
        let behind_crs = input[at..].iter().find(|&&octet| octet != b'\r');
        match octet {
            // A dot before a line end alone stays. Before CR LF, it would have been the end.
            b'.' if begins_line(at) && !matches!(next, Some(b'\r' | b'\n')) => {}
            // The second of two behind a LF alone.
            b'.' if at > 0 && text[at - 1] == b'.' && begins_bare_line(at - 1) => {}
            b'\n' => message.extend_from_slice(b"\r\n"),
            // In front of a LF they are its line end; elsewhere all of them in a row are one space.
            b'\r' if behind_crs == Some(&b'\n') || text[..at].ends_with(b"\r") => {}
            b'\r' => message.push(b' '),
            _ => message.push(octet),
        }
    }
    (message, taken)
}

/// What cannot be judged without the next octet: CRs at the very end, and a dot that begins a line there with one CR
/// behind it or none.
fn held_back(input: &[u8]) -> &[u8] {
    let dots_line = |text: &[u8]| {
        text.strip_suffix(b".").is_some_and(|front| front.is_empty() || front.ends_with(b"\r\n"))
    };
    let crs = input.iter().rev().take_while(|&&octet| octet == b'\r').count();
    let front = &input[..input.len() - crs];
    if crs < 2 && dots_line(front) { &front[..front.len() - 1] } else { front }
}

fn assert_lines_end_in_crlf(message: &[u8]) {
    for (at, &octet) in message.iter().enumerate() {
        match octet {
            b'\r' => assert_eq!(message.get(at + 1), Some(&b'\n'), "CR alone at {at}"),
            b'\n' => assert!(at > 0 && message[at - 1] == b'\r', "LF alone at {at}"),
            _ => {}
        }
    }
}

/// smtp-proto lets CR and LF alone pass, sees other ends among them, and takes the first line for the middle of one.
fn same_data(input: &[u8], message: &[u8], taken: Option<usize>) {
    let used = &input[..taken.unwrap_or(input.len())];
    let plain = !input.starts_with(b".")
        && used.iter().enumerate().all(|(at, octet)| match octet {
            b'\r' => used.get(at + 1) == Some(&b'\n'),
            b'\n' => at > 0 && used[at - 1] == b'\r',
            _ => true,
        });
    if plain && taken.is_some() {
        let (mut octets, mut theirs) = (input.iter(), Vec::new());
        assert!(DataReceiver::new().ingest(&mut octets, &mut theirs), "no end elsewhere");
        assert_eq!((theirs.as_slice(), input.len() - octets.len()), (message, used.len()));
    }
}

/// A conversation comes to the same however it is cut; every answer is a reply; every message is safe to pass on. With
/// no rules, with all of them, and on the network.
pub fn session(input: &[u8]) {
    for settings in [Settings::new("mail.example", 512, 3), strict(), network()] {
        let whole = converse(&settings, input, input.len().max(1));
        for step in [1, 3, 64] {
            assert!(converse(&settings, input, step) == whole, "cut into pieces of {step}");
        }
        let mut output = whole.output.as_slice();
        while !output.is_empty() {
            let (reply, taken) =
                Reply::parse(output).expect("an answer is a reply").expect("an answer is whole");
            assert!(!reply.lines.is_empty());
            output = &output[taken..];
        }
        for message in &whole.messages {
            assert_lines_end_in_crlf(&message.content);
            assert!(message.content.len() <= 512 && !message.content.contains(&0));
        }
    }
}

fn strict() -> Settings {
    Settings {
        max_recipients_of_one_domain: Some(2),
        recipient_domains: Some(vec!["d".into(), "d.example".into()]),
        senders: senders(OnViolation::Rewrite),
        auth: Auth::Ignored,
        bare_line_ends: BareLineEnds::Refuse,
        ..Settings::new("mail.example", 512, 3)
    }
}

fn network() -> Settings {
    Settings {
        auth: Auth::Verified { required: true },
        start_tls: StartTls::Offered,
        ..Settings::new("mail.example", 512, 3)
    }
}

/// What a client logs in with is read, or refused; what is read is written and read again. So is a file of users, and a token.
pub fn login(input: &[u8]) {
    let lines: Vec<_> = input.split(|&b| b == b'\n').collect();
    if let Some(credentials) = gathered(&lines) {
        let Credentials { user, password, .. } = &credentials;
        let response = |text: &str| STANDARD.encode(text);
        let login = [format!("AUTH LOGIN {}", response(user)), response(password.expose())];
        // An empty response is no initial response.
        if !user.is_empty() {
            let again = gathered(&[login[0].as_bytes(), login[1].as_bytes()]).expect("written well");
            assert_eq!((&again.user, &again.password), (user, password));
        }
        if !user.contains('\0') && !password.expose().contains('\0') {
            let plain = format!("AUTH PLAIN {}", response(&format!("\0{user}\0{}", password.expose())));
            let again = gathered(&[plain.as_bytes()]).expect("written well");
            assert_eq!((&again.user, &again.password), (user, password));
        }
    }
    let Ok(text) = std::str::from_utf8(input) else { return };
    let (users, errors) = Users::parse(text);
    assert!(users.len() + errors.len() <= text.lines().count());
    assert!(errors.is_sorted_by(|one, next| one.0 < next.0));
    let found = text.lines().filter_map(|line| users.get(line.trim().split_once(':')?.0));
    assert!(found.count() >= users.len());
    assert!(is_jwt(text) || Claims::of(text).is_none());
}

/// The credentials of an exchange, its first line with AUTH.
fn gathered(lines: &[&[u8]]) -> Option<Credentials> {
    let (first, rest) = lines.split_first()?;
    let Ok(Command::Auth(request)) = Command::parse(first) else { return None };
    let mut gathering = Gathering::default();
    let mut next = gathering.gather(request.begin(), initial_response(first));
    for line in rest {
        let Next::Ask(awaited) = next else { break };
        next = gathering.gather(awaited.take(line), line);
    }
    if let Next::Verify(credentials) = next { Some(credentials) } else { None }
}

/// What may be named in the checks: one mailbox, and all of one domain.
pub fn senders(on_violation: OnViolation) -> Senders {
    let (mailbox, allow) = (Some("m@x".into()), Some(vec!["*@b".into()]));
    Senders { mailbox, allow, domains: None, on_violation }
}

fn converse(settings: &Settings, input: &[u8], step: usize) -> Outcome {
    let ok = Reply::new(250, EnhancedCode::new(2, 0, 0), "OK");
    core::converse(settings.clone(), &ok, input.chunks(step))
}

/// A message that passes the rules, with what is put in front of it, passes them again: now nothing is missing, nothing
/// is to be changed, and nobody is named but who may be. Its body is what it was.
pub fn header(input: &[u8]) {
    for encode in [false, true] {
        let Some(whole) = repaired(&decoded(input), encode) else { continue };
        let (again, pass) = passed(&whole, &senders(OnViolation::Reject), encode, 7);
        assert!(again == whole, "{}", whole.escape_ascii());
        assert_eq!(pass.refusal(), None, "{}", whole.escape_ascii());
        let Headers { date, message_id, received, from, sender, missing, encoded, .. } = pass.finish();
        assert!(
            date && message_id.is_some()
                && received > 0
                && (from, sender != Sender::Removed, encoded) == (From::Kept, true, 0)
                && !missing,
            "{}",
            whole.escape_ascii()
        );
    }
}

/// Rules on fields by name take out those fields and nothing else, in any cut; where a signature covers one, it stays.
pub fn field_rules(input: &[u8]) {
    // The first line is a field, so that the header begins there for every reader.
    let message = [&b"Subject: x\r\n"[..], &decoded(input)].concat();
    let rule =
        |name: &str, value: Option<&str>| FieldRule { name: name.into(), value: value.map(Into::into) };
    let rules = Arc::new(FieldRules::new([rule("X-A", None), rule("B", Some("set"))]));
    let ruled = |step: usize| {
        let (mut pass, mut out) = (Pass::new(false).ruled(Arc::clone(&rules)), Vec::new());
        message.chunks(step).for_each(|piece| pass.pass(piece, &mut out, &Senders::default()));
        pass.end(&mut out, &Senders::default());
        (out, pass)
    };
    let (out, pass) = ruled(message.len());
    for step in [1, 3, 64] {
        let (same, cut) = ruled(step);
        assert!(same == out && cut.headers() == pass.headers(), "cut into {step}");
    }
    if pass.refusal().is_some() {
        return;
    }
    let fates = &pass.headers().fates;
    assert!(rules.applied(fates).set <= 1 && rules.added(fates).count() <= 1);
    if fates.iter().any(|fate| fate.covered) {
        assert!(message.len() >= out.len());
        return;
    }
    // An empty From goes in any case, and the name of a line is looked for in its front.
    let lines: Vec<_> = message.split_inclusive(|&b| b == b'\n').collect();
    if lines.iter().any(|line| line.len() > 900 || named(line, b"from")) {
        return;
    }
    let (mut expected, mut in_header, mut removed) = (Vec::new(), true, false);
    for line in lines {
        in_header &= line != b"\r\n";
        if !line.starts_with(b" ") && !line.starts_with(b"\t") {
            removed = named(line, b"x-a") || named(line, b"b");
        }
        if !(in_header && removed) {
            expected.extend_from_slice(line);
        }
    }
    assert!(out == expected, "{} in place of {}", out.escape_ascii(), expected.escape_ascii());
}

/// Whether a line begins with a field's name and a colon.
fn named(line: &[u8], name: &[u8]) -> bool {
    let front = line.split(|&b| b == b':').next().unwrap_or_default();
    line.contains(&b':') && front.trim_ascii_end().eq_ignore_ascii_case(name)
}

/// The names that a signature covers are written and read the same; and whatever it says is read in bounded time.
pub fn signature(input: &[u8]) {
    let Some(names) = signature::covered(input) else { return };
    assert!(!names.is_empty() && names.iter().all(|name| !name.is_empty()));
    let written = [&b" v=1; h="[..], &names.join(&b"\r\n\t:"[..]), b"; b=x"].concat();
    assert_eq!(signature::covered(&written), Some(names));
}

/// A field that is encoded is ASCII in lines of the length that RFC 2047 allows, is not encoded again, names the same people
/// and says the same.
pub fn encoded_field(input: &[u8]) {
    let mut field = decoded(input);
    // What a header's lines are: none is empty, all but the first begin with white space.
    if let Some(end) = field.windows(3).position(|octets| octets[1] == b'\n' && !b" \t".contains(&octets[2]))
    {
        field.truncate(end + 2);
    }
    // Words that look like ours would be taken for them below.
    if field.starts_with(b"\r\n")
        || field.windows(ENCODED_WORD.len()).any(|part| part == ENCODED_WORD.as_bytes())
    {
        return;
    }
    let Some(encoded) = encoded_word::field(&field) else { return };
    assert!(encoded.is_ascii() && encoded_word::field(&encoded).is_none(), "{}", encoded.escape_ascii());
    let text = String::from_utf8(encoded).expect("ASCII");
    for line in text.strip_suffix("\r\n").unwrap_or(&text).split("\r\n") {
        assert!(!line.is_empty() && !line.contains(['\r', '\n']), "{text:?}");
        // What is not ours may have no place for a fold.
        for (at, _) in line.match_indices(ENCODED_WORD) {
            let text = line[at + ENCODED_WORD.len()..].split("?=").next().unwrap_or_default();
            assert!(at + ENCODED_WORD.len() + text.len() + "?=".len() <= 76, "{line:?}");
        }
    }
    let before = String::from_utf8(field).expect("it was encoded");
    assert_eq!(plain(&text), plain(&before), "{text:?}");
}

const ENCODED_WORD: &str = "=?utf-8?B?";

/// What a field says, without white space, quotes and backslashes, encoded words decoded.
fn plain(field: &str) -> String {
    let decoded = |word: &str| {
        let octets = word.strip_prefix(ENCODED_WORD)?.strip_suffix("?=")?;
        String::from_utf8(STANDARD.decode(octets).ok()?).ok()
    };
    let words = field.split(|c| " \t\r\n(),;:<".contains(c));
    words
        .map(|word| decoded(word).unwrap_or_else(|| word.to_owned()))
        .flat_map(|word| word.chars().collect::<Vec<_>>())
        .filter(|c| !" \t\r\n(),;:<\"\\".contains(*c))
        .collect()
}

/// The message as it would be passed on, where the mailbox stands in for other senders. `None`: it is refused.
pub fn repaired(message: &[u8], encode: bool) -> Option<Vec<u8>> {
    let (passing, pass) = passed(message, &senders(OnViolation::Rewrite), encode, message.len().max(1));
    for step in [1, 3] {
        let (same, cut) = passed(message, &senders(OnViolation::Rewrite), encode, step);
        assert!(
            same == passing && cut.headers() == pass.headers() && cut.refusal() == pass.refusal(),
            "cut into {step}"
        );
    }
    let body = message.windows(4).position(|octets| octets == b"\r\n\r\n").map_or(message.len(), |at| at + 2);
    let refused = pass.refusal().is_some();
    assert!(refused || passing.ends_with(&message[body..]), "the body is left alone");
    let headers = pass.finish();
    if refused || headers.received >= 30 {
        return None;
    }
    // An encoded name no longer makes it hard to read who is named.
    if let From::Removed { value } = &headers.from
        && headers.encoded == 0
    {
        assert_eq!(senders(OnViolation::Rewrite).judge_authors("From", value), Judgement::Rewrite);
    }
    let at = "2026-11-22T03:02:28Z".parse().expect("a time");
    let arrival = Arrival {
        client_name: "app",
        client: IpAddr::V4(Ipv4Addr::LOCALHOST),
        protocol: Protocol::Esmtp,
        host_name: "mail.example",
        id: &QueueId::new(at, 7),
        at,
        author: Some("m@x"),
        mailbox: Some("m@x"),
        original_to: None,
        fields: &FieldRules::default(),
    };
    let Stamp { lines, .. } = stamp(&arrival, &headers);
    Some([lines, passing].concat())
}

fn passed(message: &[u8], senders: &Senders, encode: bool, step: usize) -> (Vec<u8>, Pass) {
    let (mut pass, mut out) = (Pass::new(encode), Vec::new());
    message.chunks(step).for_each(|piece| pass.pass(piece, &mut out, senders));
    pass.end(&mut out, senders);
    (out, pass)
}

/// A route file is refused, or printed such that it is read the same; and whatever it says can be settings.
pub fn route_file(input: &[u8]) {
    let Ok(route) = RouteFile::parse(input) else {
        assert!(config::parse(input).is_err());
        return;
    };
    assert_eq!(RouteFile::parse(route.to_json().as_bytes()).expect("what was printed is read"), route);
    if let Ok(usable) = config::parse(input) {
        assert_eq!(usable, route);
    }
    let _ = settings::of_route(&route, Paused::default());
}

/// A reply is printed as it was read, and never takes more than there is.
pub fn reply(input: &[u8]) {
    let Ok(Some((reply, taken))) = Reply::parse(input) else { return };
    assert!(taken <= input.len() && (200..600).contains(&reply.code));
    let printed = reply.to_string();
    let (again, all) = Reply::parse(printed.as_bytes()).expect("printed well").expect("printed whole");
    assert_eq!(all, printed.len());
    assert_eq!(again.to_string(), printed);
    assert_eq!(
        (again.code, again.enhanced, again.lines.len()),
        (reply.code, reply.enhanced, reply.lines.len())
    );
    if printed.split_inclusive("\r\n").all(|line| line.len() < 500) {
        assert_eq!(again, reply, "nothing was cut");
    }
}

/// What the spool finds on the disk: a kept message or its progress, or neither. As they are, and as they would be with
/// a length and a CRC-32 that fit, which chance would never find.
pub fn spool_entry(input: &[u8]) {
    kept(input);
    for what in ["mailroute-message", "mailroute-state"] {
        let mut framed = Vec::new();
        frame::push(&mut framed, what, input).expect("the input is not too long");
        if what == "mailroute-message" {
            framed.push(b'\n');
        }
        kept(&framed);
    }
}

/// A command to a gateway is printed as it was read, and announces no more than is taken.
pub fn gateway_command(line: &[u8]) {
    let Ok(command) = GatewayCommand::parse(line) else { return };
    let printed = command.to_string();
    assert!(printed.len() + 2 <= protocol::MAX_LINE_BYTES, "{printed:?}");
    assert_eq!(GatewayCommand::parse(printed.as_bytes()).as_ref(), Ok(&command), "{printed:?}");
    if let GatewayCommand::Spool(transfer) = command {
        assert!(transfer.head <= protocol::MAX_PART_BYTES && transfer.state <= protocol::MAX_PART_BYTES);
        assert!(transfer.message <= protocol::MAX_MESSAGE_BYTES);
    }
}

/// What is read is written and read the same again.
fn kept(octets: &[u8]) {
    if let Ok(format::Head { entry, bytes, crc32, len }) = format::parse_entry(octets) {
        assert!(len <= octets.len() && !entry.envelope.recipients.is_empty());
        let head = format::encode_entry(&entry, bytes, crc32).expect("not larger than what was read");
        assert_eq!(format::parse_entry(&head), Ok(format::Head { entry, bytes, crc32, len: head.len() }));
    }
    for recipients in 0..4 {
        if let Ok(progress) = format::parse_progress(octets, recipients) {
            let state = format::encode_progress(&progress).expect("not larger than what was read");
            let again = format::parse_progress(&state, recipients).expect("written well");
            assert_eq!((again.waiting(), again.next), (progress.waiting(), progress.next));
            assert_eq!(format::encode_progress(&again).as_ref(), Ok(&state), "written the same again");
        }
    }
}
