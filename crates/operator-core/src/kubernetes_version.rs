//! Whether an API server knows native sidecars, by its version. Pure.
//!
//! An API server that does not know `restartPolicy` of an init container drops it, and the pod then waits for ever for the
//! sidecar to end. Kubelets need not be asked: one may be three minor versions older than its API server and no more
//! (Kubernetes, "Version Skew Policy"), and those of 1.30 know native sidecars.

use std::fmt;

use k8s_openapi::apimachinery::pkg::version::Info;

/// The oldest that is supported: native sidecars are stable in it. The chart says the same.
pub const OLDEST: Version = Version { major: 1, minor: 33 };

/// A version of Kubernetes, without its patch.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Version {
    /// 1, so far.
    pub major: u32,
    /// What counts.
    pub minor: u32,
}

impl fmt::Display for Version {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{}", self.major, self.minor)
    }
}

/// What is known of the API server.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum NativeSidecars {
    /// It has not answered yet.
    #[default]
    Unknown,
    /// It knows native sidecars, as far as can be told.
    Fit,
    /// It does not.
    TooOld(Version),
}

impl NativeSidecars {
    /// Judges by what an API server says of itself. One that emulates an older version behaves like that one. What
    /// cannot be read is no reason against it: the chart was installed, which needs [`OLDEST`], too.
    pub fn of(info: &Info) -> Self {
        let emulated = version(info.emulation_major.as_deref(), info.emulation_minor.as_deref());
        match emulated.or_else(|| version(Some(&info.major), Some(&info.minor))) {
            Some(version) if version < OLDEST => Self::TooOld(version),
            _ => Self::Fit,
        }
    }
}

/// Providers append something to the number: `33+`.
fn version(major: Option<&str>, minor: Option<&str>) -> Option<Version> {
    let number = |text: &str| {
        let end = text.find(|c: char| !c.is_ascii_digit()).unwrap_or(text.len());
        text[..end].parse().ok()
    };
    Some(Version { major: number(major?)?, minor: number(minor?)? })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn info(minor: &str) -> Info {
        Info { major: "1".into(), minor: minor.into(), ..Info::default() }
    }

    #[test]
    fn native_sidecars_are_for_versions_in_which_they_are_stable() {
        for (minor, fit) in [
            ("27", false),
            // Dropped without a word.
            ("28", false),
            // There, and switched on, but not stable.
            ("29", false),
            ("32", false),
            ("32+", false),
            ("33", true),
            ("33+", true),
            ("34-rc.1", true),
            ("40", true),
            // Not to be read, or of a fork: no reason against it.
            ("", true),
            ("x", true),
        ] {
            assert_eq!(NativeSidecars::of(&info(minor)) == NativeSidecars::Fit, fit, "{minor:?}");
        }
        let next = Info { major: "2".into(), ..info("0") };
        assert_eq!(NativeSidecars::of(&next), NativeSidecars::Fit);
    }

    #[test]
    fn an_api_server_is_what_it_emulates() {
        let emulating = |minor: &str| Info {
            emulation_major: Some("1".into()),
            emulation_minor: Some(minor.into()),
            ..info("34")
        };
        assert_eq!(NativeSidecars::of(&emulating("33")), NativeSidecars::Fit);
        assert_eq!(
            NativeSidecars::of(&emulating("32")),
            NativeSidecars::TooOld(Version { major: 1, minor: 32 })
        );
    }
}
