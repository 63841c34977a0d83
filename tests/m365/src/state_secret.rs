//! The state directory's copy in a Secret, so that a new pod begins with the authority and the configuration of the one before.
//!
//! Files of the directory are keys of the Secret. It is read once, before the start, and written after each change.

use std::{fs, io, path::Path};

use base64::{Engine as _, engine::general_purpose::STANDARD};
use hyper::{Method, header};
use serde_json::{Map, Value, json};

use crate::{
    files::write_atomically,
    keys::Remote,
    token_endpoint::issuers::{FetchError, call},
};

/// What Kubernetes mounts into every pod: who the pod is, and how the API server proves who it is.
const MOUNTED: &str = "/var/run/secrets/kubernetes.io/serviceaccount";

/// The files that are copied.
const FILES: [&str; 3] = ["ca.pem", "ca.key", "config.json"];

/// A Secret of this pod's namespace.
#[derive(Clone, Debug)]
pub struct StateSecret(Remote);

impl StateSecret {
    /// The Secret of this name, which is there, in the namespace of this pod.
    ///
    /// # Errors
    /// This is no pod with a service account.
    pub fn of_this_pod(name: &str) -> io::Result<Self> {
        let mounted = Path::new(MOUNTED);
        let namespace = fs::read_to_string(mounted.join("namespace"))?;
        Ok(Self(Remote {
            url: format!("https://kubernetes.default.svc/api/v1/namespaces/{namespace}/secrets/{name}"),
            keys_url: None,
            ca_file: Some(mounted.join("ca.crt")),
            bearer_token_file: Some(mounted.join("token")),
        }))
    }

    /// Writes what the Secret holds to the state directory.
    ///
    /// # Errors
    /// The API server does not give it, or a file cannot be written.
    pub async fn read_into(&self, directory: &Path) -> Result<(), FetchError> {
        let secret: Value = call(&self.0, Method::GET, None).await?;
        restore(&secret, directory)
            .map_err(|source| FetchError::File { path: directory.display().to_string(), source })
    }

    /// Writes the state directory to the Secret.
    ///
    /// # Errors
    /// The API server does not take it.
    pub async fn write_from(&self, directory: &Path) -> Result<(), FetchError> {
        let patch = (header::HeaderValue::from_static("application/merge-patch+json"), patch(directory));
        call::<Value>(&self.0, Method::PATCH, Some(patch)).await.map(drop)
    }
}

/// The change that makes a Secret hold what the directory does.
fn patch(directory: &Path) -> Value {
    let content =
        |file: &str| fs::read(directory.join(file)).map_or(Value::Null, |it| STANDARD.encode(it).into());
    let data: Map<String, Value> = FILES.iter().map(|file| ((*file).to_owned(), content(file))).collect();
    json!({"data": data})
}

fn restore(secret: &Value, directory: &Path) -> io::Result<()> {
    fs::create_dir_all(directory)?;
    for file in FILES {
        let content = secret["data"][file].as_str().and_then(|text| STANDARD.decode(text).ok());
        if let Some(content) = content.and_then(|octets| String::from_utf8(octets).ok()) {
            write_atomically(&directory.join(file), &content)?;
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{authority::Authority, config::Config, state::Stored};

    #[test]
    fn a_directory_made_from_the_secret_has_the_same_authority_and_configuration() {
        let (old, new) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        let authority = Authority::new(Some(old.path())).unwrap();
        let stored = Stored::in_directory(Some(old.path()));
        stored.keep(&Config::contoso()).unwrap();
        restore(&patch(old.path()), new.path()).unwrap();
        assert_eq!(Authority::new(Some(new.path())).unwrap().pem, authority.pem);
        assert_eq!(Stored::in_directory(Some(new.path())).config(), Some(Config::contoso()));
        // A key without a value is removed by such a patch.
        stored.forget().unwrap();
        assert!(patch(old.path())["data"]["config.json"].is_null());
    }

    #[test]
    fn an_empty_secret_changes_nothing() {
        let directory = tempfile::tempdir().unwrap();
        restore(&json!({"metadata": {"name": "m365-state"}}), directory.path()).unwrap();
        assert_eq!(fs::read_dir(directory.path()).unwrap().count(), 0);
    }
}
