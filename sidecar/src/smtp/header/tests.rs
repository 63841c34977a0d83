//! What passes, what is taken out, what is refused; each in any cut.

use mailroute_route::file::OnViolation;

use super::rules::FieldRule;
use super::*;

/// What passed, and what was found; the same in any cut.
fn passed(message: &str, senders: &Senders) -> (String, Pass) {
    passed_by(&Pass::default(), message, senders)
}

fn passed_by(pass: &Pass, message: &str, senders: &Senders) -> (String, Pass) {
    let in_pieces_of = |step| {
        let (mut pass, mut out) = (pass.clone(), Vec::new());
        message.as_bytes().chunks(step).for_each(|piece| pass.pass(piece, &mut out, senders));
        pass.end(&mut out, senders);
        (String::from_utf8(out).unwrap(), pass)
    };
    let (out, whole) = in_pieces_of(message.len().max(1));
    for step in [1, 2, 7, 999, 1000] {
        let (same, pieces) = in_pieces_of(step);
        assert!(
            same == out && pieces.found == whole.found && pieces.refusal() == whole.refusal(),
            "{message:.80}"
        );
    }
    (out, whole)
}

fn headers(message: &str) -> Headers {
    passed(message, &Senders::default()).1.finish()
}

/// Only the mailbox may be named.
fn strict(on_violation: OnViolation) -> Senders {
    let mailbox = Some("noreply@contoso.com".into());
    Senders { mailbox, allow: Some(vec![]), domains: None, on_violation }
}

#[test]
fn fields_are_found_whatever_their_case() {
    let found = headers("dAtE: now\r\nMESSAGE-ID : <a@b> \r\n\r\n");
    assert_eq!((found.date, found.message_id.as_deref()), (true, Some("<a@b>")));
}

#[test]
fn a_folded_message_id_is_joined() {
    assert_eq!(
        headers("Message-ID:\r\n <long@example>\r\n\r\n").message_id.as_deref(),
        Some("<long@example>")
    );
}

#[test]
fn similar_names_are_other_fields() {
    let found = headers(
        "X-Date: x\r\nDates: x\r\nResent-Message-ID: <x>\r\nSubject: Date: x\r\n Date: folded\r\n\r\n",
    );
    assert_eq!(found, Headers::default());
}

#[test]
fn the_body_is_not_looked_at() {
    assert_eq!(headers("Subject: x\r\n\r\nDate: in the body\r\nReceived: x\r\n"), Headers::default());
}

#[test]
fn hops_are_counted() {
    assert_eq!(headers(&format!("{}\r\n", "Received: from x\r\n by y\r\n".repeat(31))).received, 31);
}

#[test]
fn text_without_header_is_seen() {
    for message in [
        "hello\r\n",
        "hello",
        " folded\r\n",
        "http //x: y\r\n",
        ": x\r\n",
        "hello\r\nthere\r\nNote: x\r\n",
        "hello\r\n\r\nFrom: x\r\n",
        "hello\r\nNote: x\r\n\r\nFrom: x\r\n",
    ] {
        let found = headers(message);
        assert!(found.missing && found.from == From::Absent, "{message:?}");
    }
    for message in ["", "\r\nhello\r\n", "A: b\r\nhello\r\n", "From a@b Mon Jan 1\r\nDate: x\r\n"] {
        assert!(!headers(message).missing, "{message:?}");
    }
    assert!(headers("From a@b Mon Jan 1\r\nDate: x\r\n").date);
}

#[test]
fn a_long_line_costs_bounded_memory() {
    for start in [&b"X: "[..], b"From: ", b"from\t: a@b,\r\n "] {
        let (mut pass, mut out) = (Pass::default(), Vec::new());
        for piece in std::iter::once(start).chain(std::iter::repeat_n(&[b'x'; 1000][..], 1000)) {
            out.clear();
            pass.pass(piece, &mut out, &Senders::default());
        }
        let held = pass.line.capacity() + pass.field.capacity();
        assert!(held <= 2 * MAX_FROM_BYTES + 2 * MAX_LOOKED_AT, "{held}");
        assert_eq!(pass.refusal(), Some(Answer::HeaderTooLarge));
    }
}

#[test]
fn everything_passes_as_it_is() {
    for message in [
        "",
        "\r\nFrom: x\r\n",
        "From: a@b\r\n",
        "frOM :\r\n Some\r\n\tOne <a@b>\r\nSubject: x\r\n y\r\n\r\nFrom: c@d\r\n",
        "A: b\r\nno field\r\nFrom: x\r\nFrom: y\r\n",
        "hello\r\nFrom: x\r\n",
        "Fromage: x\r\nfrom",
    ] {
        let (out, pass) = passed(message, &Senders::default());
        assert_eq!((out.as_str(), pass.refusal()), (message, None));
    }
    let long = format!("From: {} <a@b>\r\nSubject: {}\r\n\r\nx", "n ".repeat(5000), "s".repeat(5000));
    assert_eq!(passed(&long, &Senders::default()).0, long);
}

#[test]
fn the_line_of_a_mail_folder_and_an_empty_from_go() {
    let (out, pass) = passed(
        "From a@b Mon Jan 1\r\n>From c\r\nFrom: \r\n \r\nDate: x\r\n\r\nFrom b\r\n",
        &Senders::default(),
    );
    assert_eq!(out, "Date: x\r\n\r\nFrom b\r\n");
    assert_eq!((pass.headers().from.clone(), pass.headers().date), (From::Absent, true));
}

#[test]
fn a_line_of_spaces_does_not_end_the_header() {
    let (_, pass) = passed("Subject: x\r\n \r\nFrom: c@d\r\n\r\n", &strict(OnViolation::Reject));
    assert_eq!(pass.refusal(), Some(Answer::SenderNotAllowed));
}

#[test]
fn a_foreign_from_is_refused_or_taken_out() {
    let message = "Subject: x\r\nFrom: Shop\r\n <c@d>\r\nReply-To: e@f\r\n\r\nbody\r\n";
    let (out, pass) = passed(message, &strict(OnViolation::Reject));
    assert_eq!((out.as_str(), pass.refusal()), (message, Some(Answer::SenderNotAllowed)));
    assert_eq!(pass.foreign_sender(), Some("c@d; allowed: noreply@contoso.com"));
    let (out, pass) = passed(message, &strict(OnViolation::Rewrite));
    assert_eq!(out, "Subject: x\r\nReply-To: e@f\r\n\r\nbody\r\n");
    let found = pass.finish();
    assert_eq!(found.from, From::Removed { value: b" Shop\r\n <c@d>\r\n".to_vec() });
    assert!(found.reply_to);
}

#[test]
fn one_from_is_enough() {
    let several = "From: a@b\r\nSubject: x\r\nFROM: a@b\r\n\r\n";
    assert_eq!(passed(several, &Senders::default()).1.refusal(), Some(Answer::SeveralFrom));
    let split = "From: noreply@contoso.com\r\nno field\r\nFrom: c@d\r\n\r\n";
    for on_violation in [OnViolation::Reject, OnViolation::Rewrite] {
        assert_eq!(passed(split, &strict(on_violation)).1.refusal(), Some(Answer::SeveralFrom));
    }
    for hidden in ["\tFROM :", " x From:", "x: From: y", "F ro\tm:", "\u{a0}from:", " Sender:", "S ender:"] {
        let split = format!("Subject: x\r\nno field\r\n{hidden} c@d\r\n\r\n");
        assert_eq!(
            passed(&split, &strict(OnViolation::Rewrite)).1.refusal(),
            Some(Answer::NoFieldInHeader),
            "{hidden:?}"
        );
    }
    let nameless = "Subject: x\r\n:From: c@d\r\n\r\n";
    assert_eq!(passed(nameless, &strict(OnViolation::Rewrite)).1.refusal(), Some(Answer::NoFieldInHeader));
    let long = format!("Subject: x\r\nno field\r\n{}\r\n\r\n", "x".repeat(1000));
    assert_eq!(passed(&long, &strict(OnViolation::Rewrite)).1.refusal(), Some(Answer::NoFieldInHeader));
    let plain = "Subject: x\r\nno field\r\nfrom here on, Y: z\r\n\r\n";
    assert_eq!(passed(plain, &strict(OnViolation::Rewrite)).1.refusal(), None);
    let body = "From: noreply@contoso.com\r\nno field\r\n\r\nFrom: c@d\r\n";
    assert_eq!(passed(body, &strict(OnViolation::Reject)).1.refusal(), None);
}

#[test]
fn what_is_too_long_is_refused() {
    let from = |len: usize| format!("From: {}\r\n\r\n", "x".repeat(len - "From: \r\n".len()));
    assert_eq!(passed(&from(MAX_FROM_BYTES), &Senders::default()).1.refusal(), None);
    assert_eq!(passed(&from(MAX_FROM_BYTES + 1), &Senders::default()).1.refusal(), Some(Answer::FromTooLong));
    let field = format!("X: {}\r\n", "y".repeat(1019));
    assert_eq!(passed(&format!("{}\r\n", field.repeat(255)), &Senders::default()).1.refusal(), None);
    let refusal = passed(&format!("{}\r\n", field.repeat(256)), &Senders::default()).1.refusal();
    assert_eq!(refusal, Some(Answer::HeaderTooLarge));
}

#[test]
fn an_endless_message_id_costs_bounded_memory() {
    let found = headers(&format!("Message-ID: <\r\n{}\r\n", " abcdefgh\r\n".repeat(10_000)));
    assert!(found.message_id.unwrap().len() <= 2 * MAX_LOOKED_AT);
}

#[test]
fn a_byte_order_mark_in_front_of_the_header_goes() {
    for message in ["From: a@b\r\nDate: x\r\n\r\n\u{feff}text\r\n", "From x\r\nFrom: a@b\r\nDate: x\r\n"] {
        let (out, pass) = passed(&format!("\u{feff}{message}"), &Senders::default());
        let (expected, without) = passed(message, &Senders::default());
        assert_eq!((out, &pass.found), (expected, &without.found));
    }
    assert_eq!(
        passed("From: x\r\n\u{feff}Date: x\r\n", &Senders::default()).0,
        "From: x\r\n\u{feff}Date: x\r\n"
    );
}

#[test]
fn a_line_that_is_no_field_does_not_end_the_header() {
    let fields = "From: a@b\r\nDate: x\r\nMessage-ID: <m>\r\nReply-To: c@d\r\n\r\ntext\r\n";
    for odd in ["MIME-Version 1.0\r\n", "\u{a0}\r\n", "#!/bin/sh\r\n", &format!("{}\r\n", "x".repeat(2000))] {
        for front in ["", "Subject: x\r\n", "From y\r\n", "\u{feff}"] {
            let (out, pass) = passed(&format!("{front}{odd}{fields}"), &Senders::default());
            assert!(out.ends_with(&format!("{odd}{fields}")), "{out:?}");
            let found = pass.finish();
            assert!(found.date && found.message_id.as_deref() == Some("<m>") && found.reply_to, "{odd:?}");
            assert!(found.from == From::Kept && !found.missing, "{odd:?} behind {front:?}");
        }
    }
}

#[test]
fn odd_lines_and_unusual_fields_in_front_of_the_known_ones_do_not_end_the_header() {
    let fields = "Date: x\r\nFrom: a@b\r\nMessage-ID: <m>\r\n\r\ntext\r\n";
    for front in [
        "X-Priority 1\r\nX-App: billing\r\n",
        "garbage line\r\nX-Mailer:\r\n",
        "garbage line\r\nList-Id: x\r\n folded\r\n",
        "one\r\ntwo\r\n",
        "one\r\n \r\ntwo\r\n",
    ] {
        let (out, pass) = passed(&format!("{front}{fields}"), &Senders::default());
        let found = pass.finish();
        assert_eq!(out, format!("{front}{fields}"));
        assert!(found.from == From::Kept && found.date && !found.missing, "{front:?}: {found:?}");
        assert_eq!(found.message_id.as_deref(), Some("<m>"), "{front:?}");
    }
    for marks in ["\u{feff}\u{feff}", "\u{feff}\r\n", "\u{feff} \u{feff}\r\n\u{feff}", "\u{feff} \u{feff}"] {
        let (out, pass) = passed(&format!("{marks}{fields}"), &Senders::default());
        assert_eq!(out, fields, "{marks:?}");
        assert!(pass.found.from == From::Kept && !pass.found.missing, "{marks:?}");
    }
}

#[test]
fn text_without_an_empty_line_is_no_header_however_long_it_is() {
    let text = "hello there\r\n".repeat(25_000);
    let (out, pass) = passed(&text, &Senders::default());
    assert!(out == text && pass.refusal().is_none() && pass.finish().missing);

    let (mut pass, senders) = (Pass::default(), strict(OnViolation::Reject));
    pass.pass(b"hello\r\nthis is from: bob\r\n", &mut Vec::new(), &senders);
    assert_eq!(pass.refusal(), None, "before it is known to be a header");
}

#[test]
fn white_space_in_front_of_the_first_field_goes() {
    for front in ["  ", "\t", " \r\n", " \r\n\u{feff} "] {
        let (out, pass) = passed(&format!("{front}Date: x\r\n y\r\n\r\n"), &Senders::default());
        assert_eq!(
            (out.as_str(), pass.found.date, pass.found.missing),
            ("Date: x\r\n y\r\n\r\n", true, false)
        );
    }
    let (out, pass) = passed(" Note: x\r\nDate: x\r\n", &Senders::default());
    assert_eq!((out.as_str(), pass.found.date, pass.found.missing), (" Note: x\r\nDate: x\r\n", false, true));
    let (_, pass) = passed(" From: c@d\r\n\r\n", &strict(OnViolation::Reject));
    assert_eq!(pass.refusal(), Some(Answer::SenderNotAllowed));
}

#[test]
fn people_behind_a_line_that_is_no_field_are_judged_all_the_same() {
    for front in ["", "Subject: x\r\n"] {
        let of = |line: &str| format!("{front}no field\r\nTo: x@y\r\n{line}\r\n\r\n");
        for line in ["From: c@d", "Sender: c@d"] {
            let (_, pass) = passed(&of(line), &strict(OnViolation::Reject));
            assert_eq!(pass.refusal(), Some(Answer::SenderNotAllowed), "{line}");
            let (out, pass) = passed(&of(line), &strict(OnViolation::Rewrite));
            assert_eq!((out.contains(line), pass.refusal()), (false, None), "{line}");
        }
        let allowed = of("From: noreply@contoso.com");
        assert_eq!(passed(&allowed, &strict(OnViolation::Reject)).1.refusal(), None);
    }
    let hidden = "F rom: c@d\r\nTo: x@y\r\n\r\n";
    assert_eq!(passed(hidden, &strict(OnViolation::Reject)).1.refusal(), Some(Answer::NoFieldInHeader));
    let text = "F rom: c@d\r\nhello\r\n\r\n";
    assert_eq!(passed(text, &strict(OnViolation::Reject)).1.refusal(), None);
}

#[test]
fn a_foreign_sender_is_refused_or_taken_out() {
    let message = "From: noreply@contoso.com\r\nSENDER : Bob\r\n <c@d>\r\nResent-From: c@d\r\n\r\n";
    let (out, pass) = passed(message, &strict(OnViolation::Reject));
    assert_eq!((out.as_str(), pass.refusal()), (message, Some(Answer::SenderNotAllowed)));
    let (out, pass) = passed(message, &strict(OnViolation::Rewrite));
    assert_eq!(out, "From: noreply@contoso.com\r\nResent-From: c@d\r\n\r\n");
    assert_eq!((pass.found.from.clone(), pass.found.sender), (From::Kept, Sender::Removed));
    let (out, pass) = passed(message, &Senders::default());
    assert_eq!((out.as_str(), pass.found.sender), (message, Sender::Absent));
    let kept = "Sender: c@d\r\nSender: noreply@contoso.com\r\n\r\n";
    assert_eq!(passed(kept, &strict(OnViolation::Rewrite)).1.found.sender, Sender::Kept);
}

#[test]
fn raw_utf_8_is_encoded_where_no_signature_covers_it() {
    let encoding = Pass::new(true);
    let plain = "From: Jörg <noreply@contoso.com>\r\nMessage-ID: <m>\r\nSubject: Grüße\r\n an alle\r\nX: y\r\n\r\nGrüße\r\n";
    let (out, pass) = passed_by(&encoding, plain, &Senders::default());
    let expected = "From: =?utf-8?B?SsO2cmc=?= <noreply@contoso.com>\r\nMessage-ID: <m>\r\n\
                    Subject: =?utf-8?B?R3LDvMOfZQ==?=\r\n an alle\r\nX: y\r\n\r\nGrüße\r\n";
    assert_eq!((out.as_str(), pass.found.encoded), (expected, 2));
    assert_eq!(passed(plain, &Senders::default()).0, plain, "unless it is asked for");
    for signed in [
        plain.replace("Message-ID", "DKIM-Signature"),
        plain.replace("X:", "dkim-signature :"),
        format!("DKIM-Signature: x\r\n{plain}"),
        plain.replace("X: y", "no field\r\nDKIM-Signature: x"),
    ] {
        let (out, pass) = passed_by(&encoding, &signed, &Senders::default());
        assert_eq!((out, pass.found.encoded), (signed, 0));
    }
    let odd = passed_by(&encoding, &plain.replace("X: y", "no field"), &Senders::default());
    assert_eq!((odd.0, odd.1.found.encoded), (expected.replace("X: y", "no field"), 2));
    let (out, pass) =
        passed_by(&encoding, plain, &Senders { allow: Some(vec![]), ..strict(OnViolation::Rewrite) });
    assert!(out.starts_with("From: =?"), "{:?}", pass.found);
    let foreign = plain.replace("noreply@contoso.com", "c@d");
    let found = passed_by(&encoding, &foreign, &strict(OnViolation::Rewrite)).1.finish();
    assert_eq!(found.from, From::Removed { value: b" =?utf-8?B?SsO2cmc=?= <c@d>\r\n".to_vec() });
    assert_eq!(found.encoded, 2);
    let long = format!("Subject: {}\r\nX: ü\r\n", "ü".repeat(MAX_FROM_BYTES));
    assert_eq!(passed_by(&encoding, &long, &Senders::default()).1.found.encoded, 1);
}

#[test]
fn what_waits_for_a_signature_is_bounded() {
    let (mut pass, mut out) = (Pass::new(true), Vec::new());
    pass.pass("Subject: ü\r\n".as_bytes(), &mut out, &Senders::default());
    for _ in 0..300 {
        pass.pass(&[b"X: ", [b'x'; 500].as_slice(), b"\r\n"].concat(), &mut out, &Senders::default());
        let held = pass.held.as_ref().map_or(0, |held| held.octets());
        assert!(held <= 3 * MAX_HELD_BYTES, "{held}");
    }
    pass.pass(b"DKIM-Signature: x\r\n\r\n", &mut out, &Senders::default());
    assert_eq!(pass.found.encoded, 1);
}

/// What passes of a header, and what became of the fields of X-A (removed) and B (set).
fn ruled(header: &str) -> (String, Vec<FieldFate>) {
    let rule =
        |name: &str, value: Option<&str>| FieldRule { name: name.into(), value: value.map(Into::into) };
    let rules = FieldRules::new([rule("X-A", None), rule("B", Some("set"))]);
    let (mut pass, mut out) = (Pass::new(true).ruled(Arc::new(rules)), Vec::new());
    pass.pass(header.as_bytes(), &mut out, &Senders::default());
    pass.end(&mut out, &Senders::default());
    (String::from_utf8(out).unwrap(), pass.finish().fates)
}

#[test]
fn fields_with_a_rule_go_and_are_counted() {
    let (passed, fates) = ruled("To: a@b\r\nX-A: 1\r\n\tfolded\r\nb: 2\r\nx-a:3\r\n\r\nX-A: text\r\n");
    assert_eq!(passed, "To: a@b\r\n\r\nX-A: text\r\n");
    let removed = |removed| FieldFate { removed, ..FieldFate::default() };
    assert_eq!(fates, [removed(2), removed(1)]);
}

#[test]
fn a_field_that_is_too_long_to_wait_goes_unless_a_signature_stands_before_it() {
    let long = format!("X-A: {}\r\n {}\r\n", "x".repeat(MAX_FROM_BYTES), "y".repeat(MAX_FROM_BYTES));
    let (passed, fates) = ruled(&format!("To: a@b\r\n{long}Subject: x\r\n\r\n"));
    assert_eq!((passed.as_str(), fates[0].removed), ("To: a@b\r\nSubject: x\r\n\r\n", 1));
    let signed = format!("DKIM-Signature: h=x-a\r\n{long}\r\n");
    let (passed, fates) = ruled(&signed);
    assert!(passed == signed && fates[0] == FieldFate { removed: 0, kept: true, covered: true });
    let (passed, fates) = ruled(&format!("{long}{signed}"));
    assert!(passed == signed.replace(&long, "") && fates[0].removed == 2 && fates[0].covered);
}

#[test]
fn a_signature_that_is_too_long_to_be_read_covers_everything() {
    let signed = format!("X-A: 1\r\nDKIM-Signature: h=to; x={}\r\n\r\n", "x".repeat(MAX_FROM_BYTES));
    let (passed, fates) = ruled(&signed);
    assert!(passed == signed && fates.iter().all(|fate| fate.covered));
}

#[test]
fn nothing_is_encoded_beside_a_signature_whatever_rules_there_are() {
    let signed = "Subject: ü\r\nX-A: 1\r\nDKIM-Signature: h=subject\r\n\r\n";
    assert_eq!(ruled(signed).0, signed.replace("X-A: 1\r\n", ""));
}
