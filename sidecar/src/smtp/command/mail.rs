//! The arguments of MAIL: the reverse path, and the parameters of RFC 1870 (SIZE), 6152 (BODY), 6531 (SMTPUTF8) and 4954
//! (AUTH=).

use std::fmt;

use super::{CommandError, path};
use crate::message::envelope::{AddressError, BodyType, ReversePath};

/// The arguments of MAIL.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Mail {
    /// Where failures are to be reported.
    pub reverse_path: ReversePath,
    /// Announced size in octets. Zero, by which RFC 1870 §5 means "unknown", counts as absent.
    pub size: Option<u64>,
    /// Declared content.
    pub body: BodyType,
    /// RFC 6531 is asked for.
    pub smtp_utf8: bool,
}

impl Mail {
    /// Parses what follows the verb.
    ///
    /// # Errors
    /// Says what is wrong with it.
    pub(super) fn parse(argument: &[u8]) -> Result<Self, CommandError> {
        let malformed = CommandError::Sender(AddressError::Syntax);
        let (path, behind) = path::split(argument, b"FROM:").ok_or(malformed)?;
        let mut mail = parameters(behind)?;
        mail.reverse_path = match path {
            b"" => ReversePath::Null,
            path => ReversePath::Address(path::address(path, CommandError::Sender)?),
        };
        if mail.reverse_path.address().is_some_and(|address| !address.is_ascii()) && !mail.smtp_utf8 {
            return Err(CommandError::NonAscii);
        }
        Ok(mail)
    }
}

fn parameters(text: &[u8]) -> Result<Mail, CommandError> {
    let (mut size, mut body, mut smtp_utf8, mut auth) = (None, None, None, None);
    for parameter in text.split(|&b| b == b' ').filter(|parameter| !parameter.is_empty()) {
        let at = parameter.iter().position(|&b| b == b'=');
        let (keyword, value) =
            at.map_or((parameter, None), |at| (&parameter[..at], Some(&parameter[at + 1..])));
        match (keyword.to_ascii_uppercase().as_slice(), value) {
            (b"SIZE", Some(value)) => once(&mut size, size_of(value)?)?,
            (b"BODY", Some(value)) => once(&mut body, body_of(value)?)?,
            (b"SMTPUTF8", None) => once(&mut smtp_utf8, true)?,
            // Names who the client says submitted the message (RFC 4954 §5). No client is trusted to know that, so it means
            // nothing, and is not passed on.
            (b"AUTH", Some(_)) => once(&mut auth, ())?,
            (b"SIZE" | b"BODY" | b"SMTPUTF8" | b"AUTH", _) => return Err(CommandError::Parameter),
            _ => return Err(CommandError::UnknownParameter),
        }
    }
    Ok(Mail {
        reverse_path: ReversePath::Null,
        size: size.filter(|&size| size > 0),
        body: body.unwrap_or_default(),
        smtp_utf8: smtp_utf8.unwrap_or_default(),
    })
}

fn once<T>(slot: &mut Option<T>, value: T) -> Result<(), CommandError> {
    if slot.replace(value).is_some() { Err(CommandError::Parameter) } else { Ok(()) }
}

/// One to twenty digits (RFC 1870 §4). A number that no `u64` holds is larger than any limit all the same.
fn size_of(value: &[u8]) -> Result<u64, CommandError> {
    if value.is_empty() || value.len() > 20 || !value.iter().all(u8::is_ascii_digit) {
        return Err(CommandError::Parameter);
    }
    Ok(value
        .iter()
        .fold(0_u64, |size, digit| size.saturating_mul(10).saturating_add(u64::from(digit - b'0'))))
}

fn body_of(value: &[u8]) -> Result<BodyType, CommandError> {
    match value.to_ascii_uppercase().as_slice() {
        b"7BIT" => Ok(BodyType::SevenBit),
        b"8BITMIME" => Ok(BodyType::EightBitMime),
        _ => Err(CommandError::Parameter),
    }
}

impl fmt::Display for Mail {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "MAIL FROM:{}", self.reverse_path)?;
        if let Some(size) = self.size {
            write!(f, " SIZE={size}")?;
        }
        if self.body == BodyType::EightBitMime {
            f.write_str(" BODY=8BITMIME")?;
        }
        if self.smtp_utf8 {
            f.write_str(" SMTPUTF8")?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::super::Command;
    use super::super::tests::mail;
    use super::*;

    #[test]
    fn parameters_are_read_in_any_order_and_case() {
        let mail = mail("MAIL FROM:<a@b> smtputf8  body=8bitmime AUTH=<> Size=1024").unwrap();
        assert_eq!((mail.size, mail.body, mail.smtp_utf8), (Some(1024), BodyType::EightBitMime, true));
    }

    #[test]
    fn a_size_beyond_all_numbers_is_still_large() {
        assert_eq!(mail("MAIL FROM:<> SIZE=99999999999999999999").unwrap().size, Some(u64::MAX));
        assert_eq!(mail("MAIL FROM:<> SIZE=0").unwrap().size, None);
    }

    #[test]
    fn wrong_parameters_are_told_apart_from_unknown_ones() {
        for parameters in
            ["SIZE=", "SIZE=-1", "SIZE=1x", "SIZE", "SIZE=1 SIZE=1", "BODY=BINARYMIME", "SMTPUTF8=1"]
        {
            assert_eq!(
                mail(&format!("MAIL FROM:<> {parameters}")),
                Err(CommandError::Parameter),
                "{parameters}"
            );
        }
        for parameters in ["RET=FULL", "=", "X", "SIZES=1"] {
            assert_eq!(
                mail(&format!("MAIL FROM:<> {parameters}")),
                Err(CommandError::UnknownParameter),
                "{parameters}"
            );
        }
        assert_eq!(Command::parse(b"RCPT TO:<a@b> NOTIFY=NEVER"), Err(CommandError::UnknownParameter));
    }

    #[test]
    fn addresses_beyond_ascii_need_smtputf8() {
        assert_eq!(mail("MAIL FROM:<ü@b>"), Err(CommandError::NonAscii));
        assert_eq!(mail("MAIL FROM:<ü@b> SMTPUTF8").unwrap().reverse_path.to_string(), "<ü@b>");
        assert_eq!(Command::parse(b"MAIL FROM:<\xfc@b> SMTPUTF8"), Err(CommandError::NonAscii));
    }
}
