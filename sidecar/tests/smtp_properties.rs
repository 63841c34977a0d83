//! The fuzz targets' checks on generated input: quick, repeatable, and part of every test run.

#![expect(clippy::panic, reason = "a test fails by panicking")]

#[path = "../fuzz/src/checks.rs"]
mod checks;
#[path = "dialogs/core.rs"]
mod core;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use proptest::prelude::*;

/// Octets that matter to line ends and dots, and some that do not.
fn text() -> impl Strategy<Value = Vec<u8>> {
    let octet = prop::sample::select(b"\r\n.\r\n.ab\0\x80 ".to_vec());
    let piece = prop_oneof![
        6 => prop::collection::vec(octet, 1..4),
        2 => Just(b"\r\n.\r\n".to_vec()),
        1 => prop::collection::vec(any::<u8>(), 0..20),
    ];
    prop::collection::vec(piece, 0..40).prop_map(|pieces| pieces.concat())
}

fn address() -> impl Strategy<Value = String> {
    prop_oneof![
        "[a-z.+_=-]{1,8}@[a-z0-9]{1,5}(\\.[a-z]{1,5}){0,2}",
        "\"([ -!#-\\[\\]-~]|\\\\[ -~]){0,8}\"@[a-z]{1,5}",
        "[a-zäж]{1,8}@[a-zж]{1,5}\\.x",
        "@[a-z]{1,3}(,@[a-z]{1,3}){0,2}:[a-z]{1,3}@[a-z]{1,3}",
        Just("postmaster".into()),
        Just(String::new()),
        "[ -~]{0,12}",
        "[a-z.'`/@-]{1,12}@[a-z0-9.-]{1,9}\\.[a-z0-9]{1,3}",
    ]
}

/// Address lists, good and bad, in the fields that name recipients.
fn recipients() -> impl Strategy<Value = String> {
    let piece = prop::sample::select(vec![
        "a@b",
        "A@B",
        "bob@fabrikam.com",
        "\"c d\"@e",
        "x@y",
        "<a@b>",
        "Bob <bob@fabrikam.com>",
        "(x@y)",
        "\"x@y\"",
        "Team:",
        ";",
        ",",
        ", ",
        "\r\n ",
        "\r\n\t",
        "=?utf-8?Q?x=40y?=",
        "=?utf-8?B?eEB5?=",
        "<",
        ">",
        "\"",
        "(",
        ")",
        "\\",
        "@",
        ":",
        " ",
        "\r\nTo: ",
        "\r\nCc:",
        "\r\nBcc: ",
        "\r\nSubject: x",
        "\r\nno field",
        "undisclosed-recipients:;",
        "ä",
        "\n",
    ]);
    prop::collection::vec(piece, 0..12).prop_map(|pieces| format!("To: {}\r\n", pieces.concat()))
}

fn line() -> impl Strategy<Value = String> {
    let parameter = prop::sample::select(vec![
        "SIZE=1",
        "SIZE=513",
        "BODY=8BITMIME",
        "BODY=7BIT",
        "SMTPUTF8",
        "AUTH=<>",
        "X=1",
    ]);
    let parameters = prop::collection::vec(parameter, 0..3).prop_map(|all| all.concat());
    let word = prop::sample::select(vec![
        "EHLO a",
        "HELO a",
        "DATA",
        "DATA",
        "RSET",
        "NOOP",
        "QUIT",
        "VRFY x",
        "HELP",
        "AUTH PLAIN",
        "AUTH LOGIN",
        "AUTH PLAIN AHVzZXIAcGFzcw==",
        "AHVzZXIAcGFzcw==",
        "*",
        "STARTTLS",
        "BDAT 3",
        "GET /",
        "",
    ]);
    prop_oneof![
        2 => (address(), parameters).prop_map(|(address, parameters)| format!("MAIL FROM:<{address}> {parameters}")),
        3 => address().prop_map(|address| format!("rcpt to: <{address}>")),
        1 => address().prop_map(|address| format!("MAIL FROM:{address} SIZE=1")),
        1 => address().prop_map(|address| format!("RCPT TO: {address}")),
        3 => word.prop_map(str::to_owned),
        1 => "[ -~]{0,30}",
    ]
}

/// Lines that make sense often enough to get anywhere, with ends that mostly are line ends.
fn conversation() -> impl Strategy<Value = Vec<u8>> {
    let end = prop_oneof![20 => Just("\r\n"), 1 => Just("\n"), 1 => Just("\r"), 1 => Just("")];
    let ended = (line(), end).prop_map(|(line, end)| [line.as_bytes(), end.as_bytes()].concat());
    let message = text().prop_map(|text| {
        [b"EHLO a\r\nMAIL FROM:<a@b>\r\nRCPT TO:<c@d>\r\nDATA\r\n".as_slice(), &text, b"\r\n.\r\n"].concat()
    });
    let secured = prop::sample::select(vec![
        b"EHLO a\r\nSTARTTLS\r\nEHLO a\r\n".to_vec(),
        b"EHLO a\r\nSTARTTLS\r\nEHLO a\r\nAUTH PLAIN AGFubgByaWdodA==\r\n".to_vec(),
        b"AUTH LOGIN YW5u\r\ncmlnaHQ=\r\n".to_vec(),
    ]);
    let piece = prop_oneof![4 => ended, 2 => message, 1 => secured, 1 => text()];
    prop::collection::vec(piece, 0..12).prop_map(|pieces| pieces.concat())
}

/// Header lines, most of them about people, in front of some text.
fn message() -> impl Strategy<Value = Vec<u8>> {
    let author = prop_oneof![
        4 => Just("a@b".to_owned()),
        2 => Just("<a@b>".to_owned()),
        2 => Just("e@v".to_owned()),
        1 => Just("E <e@v>".to_owned()),
        2 => "[ab@.<>\"\\\\(),;: ]{0,12}",
    ];
    let value =
        prop::collection::vec((author, prop::sample::select(vec![", ", "\r\n ", "; ", " ", ""])), 1..3)
            .prop_map(|all| all.into_iter().map(|(author, gap)| author + gap).collect::<String>());
    let name = prop::sample::select(vec![
        "From: ",
        "from :",
        "Reply-To: ",
        "Sender: ",
        "X: ",
        "Date: ",
        "",
        " ",
        ">From ",
        "\u{feff}",
        "DKIM-Signature: ",
        "Subject: é",
        "To: é ",
    ]);
    let end = prop_oneof![20 => Just("\r\n"), 1 => Just("\n"), 1 => Just("\r"), 1 => Just("\r\n \r\n")];
    let line = (name, value, end).prop_map(|(name, value, end)| format!("{name}{value}{end}"));
    (prop::collection::vec(line, 0..5), text())
        .prop_map(|(header, text)| [header.concat().as_bytes(), &text].concat())
}

/// Headers with fields that rules are about, and signatures.
fn ruled() -> impl Strategy<Value = Vec<u8>> {
    let name = prop::sample::select(vec![
        "X-A: ",
        "x-a :",
        "B:",
        "b : ",
        "X-AB: ",
        "To: ",
        " ",
        "\tX-A: ",
        "no field",
        "",
        "DKIM-Signature: ",
        "ARC-Message-Signature: v=1; h=",
    ]);
    let value =
        prop::sample::select(vec!["", "x", "x-a:b", "h=from:X-A; b=y", "h=b", "h=\r\n x-a :\r\n\tto"]);
    let long = prop_oneof![12 => Just(0_usize), 1 => 1..900_usize];
    let line =
        (name, value, long).prop_map(|(name, value, long)| format!("{name}{value}{}\r\n", "x".repeat(long)));
    prop::collection::vec(line, 0..10).prop_map(|lines| lines.concat().into_bytes())
}

/// One header field, often with text beyond ASCII.
fn field() -> impl Strategy<Value = Vec<u8>> {
    let name = prop::sample::select(vec!["Subject:", "From: ", "to :", "X: ", "Cc:\r\n ", "Content-Type: "]);
    let piece = prop_oneof![
        3 => "[a-zé€😀]{1,12}",
        1 => "[éü]{30,60}",
        2 => Just(" ".to_owned()),
        1 => "[ \"<>(),;:@\\\\=?]{1,3}",
        1 => Just(" <a@b>, ".to_owned()),
        1 => Just(" =?utf-8?B?w7w=?= ".to_owned()),
        1 => prop::sample::select(vec!["\r\n ".to_owned(), "\r\n\t\t".to_owned(), " ".repeat(40)]),
    ];
    (name, prop::collection::vec(piece, 0..12), prop::sample::select(vec!["\r\n", ""]))
        .prop_map(|(name, value, end)| [name, &value.concat(), end].concat().into_bytes())
}

/// Exchanges of AUTH, and lines of users.
fn logins() -> impl Strategy<Value = String> {
    let response = prop_oneof![
        2 => "\\PC{0,6}\0\\PC{0,6}\0\\PC{1,6}",
        1 => "\0[a-z]{1,4}\0[ -~]{1,9}",
        1 => "[a-z]{0,4}",
    ]
    .prop_map(|text| STANDARD.encode(text));
    let hash = prop::sample::select(vec![
        "$2y$04$abcdefghijklmnopqrstuu2r9OfJnfCsdneAXAGHnS4UpFFP8WIrW",
        "$argon2id$v=19$m=64,t=1,p=1$vIwxhyj1oFabQwg3Ve8rYw$GszFMOsMURFzAxBsL5oesFmvDszZcDIAFp2Ce9yfLm8",
        "$2y$99$",
        "x",
    ]);
    let line = prop_oneof![
        2 => response.clone().prop_map(|response| format!("AUTH PLAIN {response}")),
        1 => response.clone().prop_map(|response| format!("AUTH LOGIN {response}")),
        1 => Just("AUTH LOGIN".to_owned()),
        1 => Just("AUTH PLAIN".to_owned()),
        2 => response,
        2 => ("[a-c]{0,2}", hash).prop_map(|(name, hash)| format!("{name}:{hash}")),
        1 => "[ -~]{0,9}",
    ];
    prop::collection::vec(line, 0..5).prop_map(|lines| lines.join("\n"))
}

fn replies() -> impl Strategy<Value = Vec<u8>> {
    let line = "[2-5][0-9]{2}[ -](([245]\\.[0-9]{1,3}\\.[0-9]{1,3} )?[ -~é\r\u{1b}]{0,20})\r?\n";
    let long = "550 5\\.1\\.1 [a-zé]{400,600}\r\n";
    let same =
        ("250-[a-z ]{0,5}\r\n", "250 2\\.0\\.0 [a-z]{0,5}\r\n").prop_map(|(first, last)| first + &last);
    prop_oneof![prop::collection::vec(line, 0..3).prop_map(|lines| lines.concat()), long, same]
        .prop_map(String::into_bytes)
}

/// Commands to a gateway, good and bad.
fn gateway_commands() -> impl Strategy<Value = String> {
    let id = prop_oneof![3 => "[0-9a-hjkmnp-tv-z]{19}", 1 => "[ -~]{0,20}"];
    let number = prop_oneof!["[0-9]{1,4}", "[0-9]{8,22}", "[-+ a]?[0-9]{0,3}"];
    let shelf = prop::sample::select(vec!["Queue", "Dead", "queue", ""]);
    prop_oneof![
        (id, shelf, prop::collection::vec(number, 1..4), "(XSPOOL|XSTATE|xspool)").prop_map(
            |(id, shelf, numbers, verb)| match numbers.as_slice() {
                [one] => format!("{verb} {id} {one}"),
                more => format!("{verb} {id} {shelf} {}", more.join(" ")),
            }
        ),
        "(EHLO|NOOP|QUIT)( [ -~]{0,9})?",
    ]
}

/// The seeds of the fuzz target, with some octets changed.
fn kept() -> impl Strategy<Value = Vec<u8>> {
    let seed = prop::sample::select(vec![
        include_bytes!("../fuzz/seeds/spool_entry/message").to_vec(),
        include_bytes!("../fuzz/seeds/spool_entry/state").to_vec(),
    ]);
    let change =
        (any::<prop::sample::Index>(), prop::sample::select(b"\"\\,:{}[]0129.aZ- \0\n\xc3".to_vec()));
    (seed, prop::collection::vec(change, 0..3)).prop_map(|(mut octets, changes)| {
        for (at, octet) in changes {
            let at = at.index(octets.len());
            octets[at] = octet;
        }
        octets
    })
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(2000))]

    #[test]
    fn a_header_for_graph_names_the_envelope_and_nobody_else(header in recipients()) {
        checks::graph_recipients(header.as_bytes());
    }

    #[test]
    fn any_line_is_read_the_same_again(line in line()) {
        checks::command(line.as_bytes());
    }

    #[test]
    fn any_command_to_a_gateway_is_read_the_same_again(line in gateway_commands()) {
        checks::gateway_command(line.as_bytes());
    }

    #[test]
    fn any_address_is_read_alike_by_resource_and_sidecar(text in address()) {
        checks::address(text.as_bytes());
    }

    #[test]
    fn any_octets_are_a_command_or_not(octets in prop::collection::vec(any::<u8>(), 0..60)) {
        checks::command(&octets);
        checks::gateway_command(&octets);
        checks::reply(&octets);
    }

    #[test]
    fn any_data_is_decoded_like_the_definition(octets in text()) {
        checks::data(&octets);
    }

    #[test]
    fn any_conversation_is_the_same_in_any_cut(octets in conversation()) {
        checks::session(&octets);
    }

    #[test]
    fn any_login_is_read_the_same_again(text in logins()) {
        checks::login(text.as_bytes());
    }

    #[test]
    fn any_file_of_the_spool_is_read_the_same_again(octets in kept()) {
        checks::spool_entry(&octets);
    }

    #[test]
    fn any_message_that_is_passed_on_passes_again(octets in message()) {
        checks::header(&octets);
    }

    #[test]
    fn rules_on_fields_take_out_those_and_nothing_else(octets in ruled()) {
        checks::field_rules(&octets);
        checks::signature(&octets);
    }

    #[test]
    fn any_field_says_the_same_when_it_is_encoded(octets in field()) {
        checks::encoded_field(&octets);
    }

    #[test]
    fn any_reply_is_read_the_same_again(octets in replies()) {
        checks::reply(&octets);
    }
}

#[test]
fn the_route_files_to_begin_fuzzing_with_are_read() {
    let seeds = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("fuzz/seeds/route_file");
    for seed in std::fs::read_dir(seeds).unwrap() {
        let octets = std::fs::read(seed.unwrap().path()).unwrap();
        mailroute_route::RouteFile::parse(&octets).unwrap();
        checks::route_file(&octets);
    }
}

#[test]
fn a_long_conversation_costs_bounded_memory() {
    // `core::converse` asserts after every step that no more is held or said at once than a few kilobytes.
    let commands = "EHLO a\r\nMAIL FROM:<a@b>\r\nRSET\r\nNOOP\r\n".repeat(5000);
    checks::session(commands.as_bytes());
}
