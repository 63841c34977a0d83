//! Conversations as text, each run twice: against the session as a value, and over a real socket with TLS.
//!
//! A file holds one conversation, with client submission or, when it begins with `RELAY`, `HIGH-VOLUME-EMAIL` or
//! `COMMUNICATION-SERVICES`, with that face: `C:` the client's line (`\r`, `\n`, `\0`, `\xNN` and `\\` are escapes; consecutive
//! lines are sent at once), `C<` the same without line end, `S:` a line of the server (`*` stands for anything), `TLS` the
//! handshake, `TLS <name>` one in which the client presents a certificate of that name, `TLS-LEAF <name>` one in which it
//! does so without the chain, `SET <pointer> <json>` a change of the configuration, `FAULTS <json>`, `MESSAGES <n>`, `CLOSED`, and at the
//! end `BREACHES` with the kinds of breach that must have been noted, in order. `{ok}`, `{expired}`, `{foreign}` and
//! `{other-tenant}` become XOAUTH2 payloads for the sample mailbox, `{user NAME}` a good token for another mailbox;
//! `{bulk SECONDS}` and `{service SECONDS}` a token of so many seconds for the other two services, and `{bulk-user NAME}`,
//! `{service-user NAME}` a good one under another name.

use std::path::{Path, PathBuf};

use super::wire::{self, Presents, Wire};
use mailroute_m365::{Config, Face, Faults};

#[derive(Debug)]
enum Line {
    Client(String),
    Server(String),
    Face(Face),
    Tls(Option<Presents>),
    Set(String, serde_json::Value),
    Faults(Box<Faults>),
    Messages(usize),
    Closed,
    Breaches(Vec<String>),
}

fn files() -> Vec<PathBuf> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/dialogs");
    let mut files: Vec<PathBuf> =
        std::fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path()).collect();
    files.sort();
    assert!(files.len() > 20, "the dialogs were not found");
    files
}

fn parse(path: &Path) -> Vec<Line> {
    let text = std::fs::read_to_string(path).unwrap();
    let lines = text.lines().filter(|line| !line.trim().is_empty() && !line.starts_with('#'));
    lines
        .map(|line| parse_line(line).unwrap_or_else(|| panic!("{}: cannot read {line:?}", path.display())))
        .collect()
}

fn parse_line(line: &str) -> Option<Line> {
    let (word, rest) = line.split_once(' ').unwrap_or((line, ""));
    Some(match word {
        "C:" => Line::Client(format!("{rest}\\r\\n")),
        "C<" => Line::Client(rest.to_owned()),
        "S:" => Line::Server(rest.to_owned()),
        "RELAY" => Line::Face(Face::Relay),
        "HIGH-VOLUME-EMAIL" => Line::Face(Face::HighVolumeEmail),
        "COMMUNICATION-SERVICES" => Line::Face(Face::CommunicationServices),
        "TLS" if rest.is_empty() => Line::Tls(None),
        "TLS" => Line::Tls(Some(Presents { name: rest.to_owned(), chain: true })),
        "TLS-LEAF" => Line::Tls(Some(Presents { name: rest.to_owned(), chain: false })),
        "SET" => {
            let (pointer, value) = rest.split_once(' ')?;
            Line::Set(pointer.to_owned(), serde_json::from_str(value).ok()?)
        }
        "FAULTS" => Line::Faults(serde_json::from_str(rest).ok()?),
        "MESSAGES" => Line::Messages(rest.parse().ok()?),
        "CLOSED" => Line::Closed,
        "BREACHES" => Line::Breaches(rest.split_whitespace().map(str::to_owned).collect()),
        _ => return None,
    })
}

async fn run(path: &Path, mut wire: impl Wire) {
    let at = |line: &Line| format!("{} at {line:?}", path.file_name().unwrap().display());
    let (mut pending, mut breaches) = (Vec::new(), Vec::new());
    for line in &parse(path) {
        if !matches!(line, Line::Client(_)) && !pending.is_empty() {
            wire.send(&std::mem::take(&mut pending)).await;
        }
        match line {
            Line::Client(text) => pending.extend(unescape(&fill(&wire, text))),
            Line::Server(pattern) => {
                let said =
                    wire.line().await.unwrap_or_else(|| panic!("{}: the connection is over", at(line)));
                assert!(matches(pattern, &said), "{}: the server said {said:?}", at(line));
            }
            Line::Face(face) => wire.face(*face),
            Line::Tls(presents) => wire.tls(presents.as_ref()).await,
            Line::Set(pointer, value) => wire.config(|config| set(config, pointer, value)),
            Line::Faults(faults) => wire.faults(faults.as_ref().clone()),
            Line::Messages(count) => assert_eq!(wire.messages(), *count, "{}", at(line)),
            Line::Closed => assert_eq!(wire.line().await, None, "{}", at(line)),
            Line::Breaches(kinds) => breaches.clone_from(kinds),
        }
    }
    wire.send(&pending).await;
    assert_eq!(wire.finish().await, breaches, "breaches of {}", path.display());
}

fn fill(wire: &impl Wire, text: &str) -> String {
    let Some((before, rest)) = text.split_once('{') else { return text.to_owned() };
    let Some((name, after)) = rest.split_once('}') else { return text.to_owned() };
    format!("{before}{}{after}", wire.payload(name))
}

fn unescape(text: &str) -> Vec<u8> {
    let (mut bytes, mut rest) = (Vec::new(), text.as_bytes());
    while let Some((&first, after)) = rest.split_first() {
        rest = after;
        if first != b'\\' {
            bytes.push(first);
            continue;
        }
        let (&escape, after) = rest.split_first().expect("something follows a backslash");
        rest = after;
        bytes.push(match escape {
            b'r' => b'\r',
            b'n' => b'\n',
            b'0' => 0,
            b'\\' => b'\\',
            b'x' => {
                let digits = std::str::from_utf8(&rest[..2]).unwrap();
                rest = &rest[2..];
                u8::from_str_radix(digits, 16).unwrap()
            }
            other => panic!("unknown escape {:?}", char::from(other)),
        });
    }
    bytes
}

/// Whether `text` is `pattern`, in which `*` stands for anything.
fn matches(pattern: &str, text: &str) -> bool {
    match pattern.split_once('*') {
        None => pattern == text,
        Some((before, after)) => text.strip_prefix(before).is_some_and(|rest| {
            (0..=rest.len()).any(|at| rest.is_char_boundary(at) && matches(after, &rest[at..]))
        }),
    }
}

fn set(config: &mut Config, pointer: &str, value: &serde_json::Value) {
    let mut json = serde_json::to_value(&*config).unwrap();
    let (parent, key) = pointer.rsplit_once('/').unwrap();
    let parent = json.pointer_mut(parent).unwrap_or_else(|| panic!("no {pointer} in the configuration"));
    match parent {
        serde_json::Value::Object(fields) => drop(fields.insert(key.to_owned(), value.clone())),
        other => other[key.parse::<usize>().unwrap()] = value.clone(),
    }
    *config = serde_json::from_value(json).unwrap();
}

#[tokio::test]
async fn dialogs_hold_for_the_session_as_a_value() {
    for path in files() {
        run(&path, wire::Value::new()).await;
    }
}

#[tokio::test]
async fn dialogs_hold_over_a_socket_with_tls() {
    for path in files() {
        run(&path, wire::Socket::open().await).await;
    }
}
