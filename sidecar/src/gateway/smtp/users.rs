//! The users of a gateway: a file with `name:hash` lines as htpasswd writes them, hashes of bcrypt or Argon2.
//!
//! Owns what a line means, and whether a password is right. A line that cannot be used is named by its number, never quoted, and the
//! others count. Refuses to know who asks and how often.

use std::collections::HashMap;
use std::fmt;
use std::io;
use std::path::{Path, PathBuf};
use std::str::FromStr as _;
use std::sync::Arc;

use argon2::password_hash::phc::PasswordHash;
use argon2::{Algorithm, Argon2, Params, PasswordVerifier as _};
use bcrypt::HashParts;
use tokio::sync::watch;

use crate::secret::Secret;

/// Largest file, bytes: some hundreds of users.
const MAX_FILE_BYTES: u64 = 64 * 1024;

/// Longest user name, bytes.
const MAX_NAME_BYTES: usize = 255;

/// Highest cost of a bcrypt hash: a second of a processor.
const MAX_BCRYPT_COST: u32 = 14;

/// Most memory of an Argon2 hash, KiB: what OWASP's password storage cheat sheet asks for, m=19456. Only one is computed at a time.
const MAX_ARGON2_KIB: u32 = 19 * 1024;

/// Most passes of an Argon2 hash.
const MAX_ARGON2_PASSES: u32 = 10;

/// Most lanes of an Argon2 hash.
const MAX_ARGON2_LANES: u32 = 16;

/// Who may log in. `Debug` shows their number alone.
#[derive(Default)]
pub struct Users {
    hashes: HashMap<String, Hash>,
    /// The names, for what stands in for an unknown one.
    names: Vec<String>,
}

/// What a password is compared with.
#[derive(Clone)]
enum Hash {
    Bcrypt(Arc<str>),
    Argon2(Arc<str>),
}

/// What is wrong with a line.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum LineError {
    /// It is not `name:hash`.
    #[error("it is not of the form name:hash")]
    Form,
    /// The name was there before.
    #[error("its name is that of an earlier line")]
    Duplicate,
    /// The hash is of another kind, or broken.
    #[error(
        "its hash is neither bcrypt ($2a$, $2b$ or $2y$) nor Argon2 ($argon2id$, $argon2i$ or $argon2d$), or it is damaged"
    )]
    Hash,
    /// The hash costs too much.
    #[error(
        "its hash costs too much to verify: at most bcrypt cost {MAX_BCRYPT_COST}, or Argon2 with m={MAX_ARGON2_KIB}, \
         t={MAX_ARGON2_PASSES}, p={MAX_ARGON2_LANES}"
    )]
    Cost,
}

impl Users {
    /// Reads the file's content: the users, and the lines that are not used, by their number from 1 on. Empty lines, and those that
    /// begin with `#`, say nothing.
    pub fn parse(text: &str) -> (Self, Vec<(usize, LineError)>) {
        let (mut users, mut errors) = (Self::default(), Vec::new());
        for (number, line) in text.lines().enumerate() {
            let line = line.trim();
            if line.is_empty() || line.starts_with('#') {
                continue;
            }
            if let Err(error) = users.add(line) {
                errors.push((number + 1, error));
            }
        }
        (users, errors)
    }

    fn add(&mut self, line: &str) -> Result<(), LineError> {
        let (name, hash) = line.split_once(':').ok_or(LineError::Form)?;
        if name.is_empty() || name.len() > MAX_NAME_BYTES || name.chars().any(char::is_control) {
            return Err(LineError::Form);
        }
        if self.hashes.contains_key(name) {
            return Err(LineError::Duplicate);
        }
        self.hashes.insert(name.to_owned(), Hash::parse(hash)?);
        self.names.push(name.to_owned());
        Ok(())
    }

    /// How many there are.
    pub fn len(&self) -> usize {
        self.names.len()
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.names.is_empty()
    }

    /// The name of a user, as the file has it, and the hash of its password.
    pub fn get(&self, name: &str) -> Option<(&str, &str)> {
        self.hashes.get_key_value(name).map(|(name, hash)| (name.as_str(), hash.as_str()))
    }

    /// Whether it is the password of the user. Takes the time of the hash, also for a name that nobody has: then with the hash of one of
    /// the users, the same for each `seed`.
    pub fn verify(&self, name: &str, password: &str, seed: u64) -> bool {
        let known = self.hashes.get(name);
        let stand_in = || {
            let at = seed.checked_rem(self.names.len() as u64)?;
            self.names.get(usize::try_from(at).ok()?).and_then(|name| self.hashes.get(name))
        };
        let Some(hash) = known.or_else(stand_in) else { return false };
        hash.verify(password) && known.is_some()
    }
}

impl fmt::Debug for Users {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} users", self.len())
    }
}

impl Hash {
    fn parse(text: &str) -> Result<Self, LineError> {
        if text.starts_with("$2") {
            // $2x$ marks hashes of an implementation with a fault, which cannot be verified.
            let parts = HashParts::from_str(text).map_err(|_| LineError::Hash)?;
            return match (text.get(..4), parts.get_cost()) {
                (Some("$2a$" | "$2b$" | "$2y$"), 4..=MAX_BCRYPT_COST) => Ok(Self::Bcrypt(text.into())),
                (Some("$2a$" | "$2b$" | "$2y$"), cost) if cost > MAX_BCRYPT_COST => Err(LineError::Cost),
                _ => Err(LineError::Hash),
            };
        }
        let hash = PasswordHash::new(text).map_err(|_| LineError::Hash)?;
        let is_known = Algorithm::try_from(hash.algorithm.as_str()).is_ok();
        let params = Params::try_from(&hash).map_err(|_| LineError::Hash)?;
        if !is_known || hash.salt.is_none() || hash.hash.is_none() {
            return Err(LineError::Hash);
        }
        let is_cheap = params.m_cost() <= MAX_ARGON2_KIB
            && params.t_cost() <= MAX_ARGON2_PASSES
            && params.p_cost() <= MAX_ARGON2_LANES;
        if is_cheap { Ok(Self::Argon2(text.into())) } else { Err(LineError::Cost) }
    }

    fn as_str(&self) -> &str {
        match self {
            Self::Bcrypt(text) | Self::Argon2(text) => text,
        }
    }

    fn verify(&self, password: &str) -> bool {
        match self {
            Self::Bcrypt(hash) => bcrypt::verify(password, hash).unwrap_or(false),
            Self::Argon2(hash) => PasswordHash::new(hash)
                .is_ok_and(|hash| Argon2::default().verify_password(password.as_bytes(), &hash).is_ok()),
        }
    }
}

/// Reads the file.
pub(super) struct UsersLoader {
    path: PathBuf,
    publish: watch::Sender<Arc<Users>>,
}

impl UsersLoader {
    pub(super) fn new(path: PathBuf, publish: watch::Sender<Arc<Users>>) -> Self {
        Self { path, publish }
    }

    /// Reads it; who is in it may log in from now on, and nobody else. While it is there and cannot be read, those who were in it
    /// before.
    pub(super) async fn load(&self) {
        let path = self.path.display();
        let text = match read(&self.path).await {
            Ok(text) => text,
            Err(error) => {
                if error.kind() == io::ErrorKind::NotFound {
                    self.publish.send_replace(Arc::default());
                }
                tracing::error!(%path, %error, "the users who may log in cannot be read");
                return;
            }
        };
        let (users, errors) = Users::parse(text.expose());
        for (line, error) in errors.iter().take(10) {
            tracing::error!(%path, line, %error, "a line of the users is not used");
        }
        if errors.len() > 10 {
            tracing::error!(%path, lines = errors.len(), "more lines of the users are not used");
        }
        tracing::info!(%path, users = users.len(), "users who may log in");
        self.publish.send_replace(Arc::new(users));
    }
}

/// The file's content, also when that is nothing.
async fn read(path: &Path) -> io::Result<Secret> {
    if tokio::fs::metadata(path).await?.len() > MAX_FILE_BYTES {
        return Err(io::Error::other(format!("it is larger than {MAX_FILE_BYTES} bytes")));
    }
    Ok(Secret::new(tokio::fs::read_to_string(path).await?))
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;

    /// `secret`, hashed by libxcrypt.
    pub(crate) const BCRYPT: &str = "$2y$04$abcdefghijklmnopqrstuu2r9OfJnfCsdneAXAGHnS4UpFFP8WIrW";
    /// `geheim`, hashed by the reference implementation.
    const ARGON2: &str =
        "$argon2id$v=19$m=64,t=1,p=1$vIwxhyj1oFabQwg3Ve8rYw$GszFMOsMURFzAxBsL5oesFmvDszZcDIAFp2Ce9yfLm8";

    fn errors(text: &str) -> Vec<(usize, LineError)> {
        Users::parse(text).1
    }

    #[test]
    fn passwords_are_verified_by_either_kind_of_hash() {
        let (users, errors) = Users::parse(&format!("# people\n\nann:{BCRYPT}\r\nbob:{ARGON2}\n"));
        assert!(errors.is_empty(), "{errors:?}");
        for (name, password, right) in [
            ("ann", "secret", true),
            ("ann", "geheim", false),
            ("ann", "", false),
            ("bob", "geheim", true),
            ("bob", "secret", false),
            ("Ann", "secret", false),
            ("eve", "secret", false),
            ("eve", "geheim", false),
        ] {
            for seed in 0..2 {
                assert_eq!(users.verify(name, password, seed), right, "{name} {password}");
            }
        }
        assert!(!Users::default().verify("ann", "secret", 0));
    }

    #[tokio::test]
    async fn a_file_that_is_emptied_or_removed_lets_nobody_in_and_one_that_cannot_be_read_changes_nothing() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("users");
        let (publish, users) = watch::channel(Arc::<Users>::default());
        let loader = UsersLoader::new(path.clone(), publish);
        let ann = format!("ann:{BCRYPT}\n");
        for (content, expected) in [
            (Some(ann.clone()), 1),
            (Some(String::new()), 0),
            (Some(ann.clone()), 1),
            (Some(ann.clone() + &"#".repeat(64 * 1024)), 1),
            (None, 0),
        ] {
            match content {
                Some(content) => std::fs::write(&path, content).unwrap(),
                None => std::fs::remove_file(&path).unwrap(),
            }
            loader.load().await;
            assert_eq!(users.borrow().len(), expected);
        }
    }

    #[test]
    fn the_versions_of_bcrypt_are_one() {
        for version in ["$2a$", "$2b$", "$2y$"] {
            let line = format!("ann:{}", BCRYPT.replace("$2y$", version));
            assert!(Users::parse(&line).0.verify("ann", "secret", 0), "{version}");
        }
        assert_eq!(errors(&format!("ann:{}", BCRYPT.replace("$2y$", "$2x$"))), [(1, LineError::Hash)]);
    }

    #[test]
    fn a_line_that_cannot_be_used_is_named_by_its_number_and_the_others_count() {
        let text = format!(
            "ann:{BCRYPT}\nnobody\n:{BCRYPT}\nann:{ARGON2}\nbob:secret\neve:{{SHA}}x\ndan:$1$x$y\nbob:{}\nbob:{ARGON2}\n",
            &BCRYPT[..59],
        );
        let (users, errors) = Users::parse(&text);
        use LineError::{Duplicate, Form, Hash};
        let expected = [(2, Form), (3, Form), (4, Duplicate), (5, Hash), (6, Hash), (7, Hash), (8, Hash)];
        assert_eq!(errors, expected);
        assert_eq!(users.len(), 2);
        assert!(users.verify("ann", "secret", 0) && users.verify("bob", "geheim", 0));
        assert_eq!(format!("{users:?}"), "2 users");
    }

    #[test]
    fn hashes_that_cost_too_much_are_refused_before_anybody_pays() {
        let dear = |from: &str, to: &str| format!("a:{}", ARGON2.replace(from, to));
        for line in [
            format!("a:{}", BCRYPT.replace("$04$", "$15$")),
            format!("a:{}", BCRYPT.replace("$04$", "$31$")),
            dear("m=64", "m=19457"),
            dear("t=1", "t=11"),
            dear("p=1", "p=17").replace("m=64", "m=1024"),
        ] {
            assert_eq!(errors(&line), [(1, LineError::Cost)], "{line}");
        }
        assert_eq!(errors(&format!("a:{}", BCRYPT.replace("$04$", "$14$"))), []);
        assert_eq!(errors(&dear("m=64", "m=19456")), []);
        for damaged in [dear("argon2id", "scrypt"), dear("m=64", "m=x"), "a:$argon2id$".into()] {
            assert_eq!(errors(&damaged), [(1, LineError::Hash)], "{damaged}");
        }
    }
}
