//! What must never be seen in any output: tokens, keys, passwords.
//!
//! Pure: text in, findings out. Looks for the shapes that secrets have, so that a new leak is found without being listed,
//! and for the marks that tests put into passwords and secrets of their own.

use mailroute_m365::directory::{SAMPLE_PASSWORD, SAMPLE_SECRET};

/// Secrets of tests carry this in front, beside the simulator's own; nothing else does.
pub const CANARY: &str = "canary-";

/// What begins like this and goes on for so many characters of base64 is a secret.
const ENCODED: [(&str, usize, &str); 2] = [
    // {"alg… and {"typ… of a JSON Web Token; two parts of it, since the header alone is no secret.
    ("eyJ", 40, "a JSON Web Token"),
    // user=… of XOAUTH2.
    ("dXNlcj", 40, "an answer to AUTH XOAUTH2"),
];

/// A private key in PEM; the words between vary.
const PRIVATE_KEY: &str = "PRIVATE KEY-----";

/// The kinds of secrets in a text, each with the place where it begins; never the secret.
pub fn find(text: &str) -> Vec<String> {
    let line = |at: usize| text[..at].matches('\n').count() + 1;
    let mut found = Vec::new();
    for (start, least, kind) in ENCODED {
        let long = |at: &usize| encoded_len(&text[*at..]) >= least;
        let places = text.match_indices(start).map(|(at, _)| at).filter(long);
        found.extend(places.map(|at| format!("{kind} in line {}", line(at))));
    }
    let of_tests = [SAMPLE_SECRET, SAMPLE_PASSWORD, CANARY].map(|mark| (mark, "a secret of a test"));
    for (mark, kind) in [(PRIVATE_KEY, "a private key")].into_iter().chain(of_tests) {
        found.extend(text.match_indices(mark).map(|(at, _)| format!("{kind} in line {}", line(at))));
    }
    found
}

/// How far characters of base64, of either alphabet, and the dots of a token go.
fn encoded_len(text: &str) -> usize {
    text.bytes().take_while(|byte| byte.is_ascii_alphanumeric() || b"+/-_.".contains(byte)).count()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_token_a_key_and_a_canary_are_found_and_not_repeated() {
        let token = format!("eyJhbGciOiJSUzI1NiJ9.{}.c2ln", "QUJD".repeat(20));
        let text =
            format!("fine\nAuthorization: Bearer {token}\n-----BEGIN PRIVATE KEY-----\npassword {CANARY}1\n");
        let found = find(&text);
        assert_eq!(
            found,
            ["a JSON Web Token in line 2", "a private key in line 3", "a secret of a test in line 4"]
        );
        assert!(!found.concat().contains(&token));
    }

    #[test]
    fn an_answer_to_auth_is_found() {
        let answer = format!("AUTH XOAUTH2 dXNlcj1u{}", "b3JlcGx5".repeat(10));
        assert_eq!(find(&answer), ["an answer to AUTH XOAUTH2 in line 1"]);
    }

    #[test]
    fn ordinary_output_is_not_mistaken() {
        assert!(find("eyJust a word\nuser= dXNlcj\nPUBLIC KEY-----\n4711.shop@contoso.com").is_empty());
    }
}
