//! A client secret: whether it is one of those that are registered, and in time.
//!
//! Pure. Secrets are compared and forgotten. Source: AADSTS7000215 and 7000222 as they are seen.

use jiff::Timestamp;

use super::error::Refusal;
use crate::directory::Application;

/// Checks a secret. One that matches and is in time is enough; secrets may overlap while they are rotated.
///
/// # Errors
/// 7000222 for one whose time is over, 7000215 for any other.
pub fn check(app: &Application, given: &str, now: Timestamp) -> Result<(), Refusal> {
    let (expired, live): (Vec<_>, Vec<_>) =
        app.client_secrets.iter().partition(|secret| secret.is_expired(now));
    if live.iter().any(|secret| secret.value.is(given)) {
        return Ok(());
    }
    let over = expired.iter().any(|secret| secret.value.is(given));
    Err(Refusal::with(if over { 7_000_222 } else { 7_000_215 }, &[("client", &app.client_id)]))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::directory::{ClientSecret, Directory};

    /// The code for a secret when these are registered, by value and seconds from now until they end; 0 when it is right.
    fn code(given: &str, registered: &[(&str, i64)]) -> u32 {
        let now = Timestamp::from_second(1_790_000_000).unwrap();
        let mut app = Directory::contoso().tenants[0].applications[0].clone();
        let secret = |(value, left): &(&str, i64)| ClientSecret {
            name: String::new(),
            value: (*value).into(),
            expires: Timestamp::from_second(now.as_second() + left).ok(),
        };
        app.client_secrets = registered.iter().map(secret).collect();
        check(&app, given, now).map_or_else(|refusal| refusal.code, |()| 0)
    }

    #[test]
    fn a_secret_is_right_while_one_of_the_registered_ones_is_it_and_in_time() {
        assert_eq!(code("new", &[("old", -1), ("new", 60)]), 0);
        assert_eq!(code("old", &[("old", -1), ("old", 60)]), 0);
        assert_eq!(code("old", &[("old", -1), ("new", 60)]), 7_000_222);
        assert_eq!(code("other", &[("old", -1), ("new", 60)]), 7_000_215);
        assert_eq!(code("other", &[]), 7_000_215);
    }
}
