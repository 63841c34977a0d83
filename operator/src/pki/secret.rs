//! The Secret that holds the authorities: its content, and writing it without overwriting another writer.
//!
//! ```text
//! signing.crt  signing.key        the authority that signs
//! next.crt     next.key           the one to come, while there is one
//! next.published                  since when it is in the published bundle, RFC 3339
//! retired.crt                     those that no longer sign, PEM after PEM
//! ca.crt                          all of them, for people and tools; written, never read
//! ```
//! The chart may create the Secret empty, so that it goes with the release; else it is created here. Every write
//! carries the resourceVersion that was read: of two leaders in an unlucky moment, one loses and looks again.

use std::collections::BTreeMap;

use jiff::Timestamp;
use k8s_openapi::ByteString;
use k8s_openapi::api::core::v1::Secret;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use kube::Api;
use kube::api::PostParams;

use super::authority::{Authority, Error as AuthorityError};
use super::bundle::Bundle;
use super::keyring::{Keyring, Next};
use super::settings::FIELD_MANAGER;

const SIGNING: &str = "signing";
const NEXT: &str = "next";
const NEXT_PUBLISHED: &str = "next.published";
const RETIRED: &str = "retired.crt";
const BUNDLE: &str = "ca.crt";

/// Why the Secret's content is not a keyring.
#[derive(Debug, thiserror::Error)]
pub enum ContentError {
    /// A key is missing beside its partner.
    #[error("{0} is missing")]
    Missing(String),
    /// A value is not text.
    #[error("{0} is not text")]
    NotText(String),
    /// An authority cannot be read.
    #[error("{0}.crt and {0}.key cannot be used: {1}")]
    Authority(&'static str, #[source] AuthorityError),
    /// The retired certificates cannot be read.
    #[error("{RETIRED} cannot be read: {0}")]
    Retired(#[source] AuthorityError),
    /// The instant is not RFC 3339.
    #[error("{NEXT_PUBLISHED} is not a time in RFC 3339")]
    Instant,
}

/// Reads the keyring. `None` when the Secret holds none yet, that is, when it has no `signing.crt`.
///
/// # Errors
/// When something is there that cannot be used. Such a Secret is not overwritten: it may be a person's mistake that a
/// person can undo.
pub fn read(secret: &Secret) -> Result<Option<Keyring>, ContentError> {
    let data = secret.data.as_ref();
    let text = |key: &str| -> Result<Option<&str>, ContentError> {
        data.and_then(|data| data.get(key))
            .map(|value| std::str::from_utf8(&value.0).map_err(|_| ContentError::NotText(key.to_owned())))
            .transpose()
    };
    let authority = |name: &'static str| -> Result<Option<Authority>, ContentError> {
        let (crt, key) = (format!("{name}.crt"), format!("{name}.key"));
        let Some(certificate) = text(&crt)? else { return Ok(None) };
        let key = text(&key)?.ok_or(ContentError::Missing(key))?;
        Authority::from_pem(certificate, key).map(Some).map_err(|e| ContentError::Authority(name, e))
    };
    let Some(signing) = authority(SIGNING)? else { return Ok(None) };
    let published =
        text(NEXT_PUBLISHED)?.map(str::parse::<Timestamp>).transpose().map_err(|_| ContentError::Instant)?;
    let next = authority(NEXT)?.map(|authority| Next { authority, published });
    let retired = Bundle::from_pem(text(RETIRED)?.unwrap_or_default()).map_err(ContentError::Retired)?;
    Ok(Some(Keyring { signing, next, retired: retired.iter().cloned().collect() }))
}

/// The content of the Secret for a keyring.
pub fn content(keyring: &Keyring) -> BTreeMap<String, ByteString> {
    let mut data = BTreeMap::new();
    let mut put = |key: String, text: &str| data.insert(key, ByteString(text.as_bytes().to_vec()));
    let mut authorities = vec![(SIGNING, &keyring.signing)];
    if let Some(next) = &keyring.next {
        authorities.push((NEXT, &next.authority));
        if let Some(since) = next.published {
            put(NEXT_PUBLISHED.to_owned(), &since.to_string());
        }
    }
    for (name, authority) in authorities {
        let bundle = Bundle::from_iter([authority.certificate().clone()]);
        put(format!("{name}.crt"), &bundle.to_pem());
        put(format!("{name}.key"), authority.key_pem());
    }
    if !keyring.retired.is_empty() {
        put(RETIRED.to_owned(), &keyring.retired.iter().cloned().collect::<Bundle>().to_pem());
    }
    put(BUNDLE.to_owned(), &keyring.bundle().to_pem());
    data
}

/// Writes the keyring: creates the Secret when `read` is `None`, else replaces the very version that was read.
///
/// # Errors
/// As the API server answers: 409 means that another was faster.
pub async fn write(
    api: &Api<Secret>,
    name: &str,
    read: Option<&Secret>,
    keyring: &Keyring,
) -> Result<Secret, kube::Error> {
    let params = PostParams { field_manager: Some(FIELD_MANAGER.to_owned()), ..PostParams::default() };
    let data = Some(content(keyring));
    match read {
        Some(secret) => api.replace(name, &params, &Secret { data, ..secret.clone() }).await,
        None => {
            let metadata = ObjectMeta { name: Some(name.to_owned()), ..ObjectMeta::default() };
            api.create(&params, &Secret { metadata, data, ..Secret::default() }).await
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    const HOUR: Duration = Duration::from_secs(3600);

    fn authority() -> Authority {
        Authority::mint(Timestamp::UNIX_EPOCH, 100 * HOUR).unwrap()
    }

    fn secret(keyring: &Keyring) -> Secret {
        Secret { data: Some(content(keyring)), ..Secret::default() }
    }

    #[test]
    fn every_stage_of_a_rotation_is_read_back() {
        let at = Timestamp::from_second(1_700_000_000).unwrap();
        let first = Keyring::found(authority());
        let staged = first.clone().stage(authority());
        let noted = staged.clone().note_published(at);
        let promoted = noted.clone().promote();
        for keyring in [first, staged, noted, promoted] {
            let back = read(&secret(&keyring)).unwrap().unwrap();
            assert_eq!(back.bundle(), keyring.bundle());
            assert_eq!(back.signing.certificate(), keyring.signing.certificate());
            assert_eq!(back.next.map(|next| next.published), keyring.next.map(|next| next.published));
            assert_eq!(back.retired, keyring.retired);
        }
    }

    #[test]
    fn an_empty_secret_is_no_keyring_yet() {
        assert!(read(&Secret::default()).unwrap().is_none());
        assert!(read(&Secret { data: Some(BTreeMap::new()), ..Secret::default() }).unwrap().is_none());
    }

    #[test]
    fn a_damaged_secret_is_an_error_that_names_the_key() {
        let mut damaged = secret(&Keyring::found(authority()));
        let data = damaged.data.as_mut().unwrap();
        data.remove("signing.key");
        assert_eq!(read(&damaged).unwrap_err().to_string(), "signing.key is missing");
        damaged.data.as_mut().unwrap().insert("signing.key".into(), ByteString(b"hello".to_vec()));
        let shown = read(&damaged).unwrap_err().to_string();
        assert!(shown.starts_with("signing.crt and signing.key cannot be used"), "{shown}");
    }

    #[test]
    fn the_bundle_in_the_secret_holds_no_key() {
        let data = content(&Keyring::found(authority()).stage(authority()));
        let bundle = String::from_utf8(data["ca.crt"].0.clone()).unwrap();
        assert_eq!(bundle.matches("BEGIN CERTIFICATE").count(), 2);
        assert!(!bundle.contains("PRIVATE"));
    }
}
