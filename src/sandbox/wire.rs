//! What crosses the process boundary: the request, the reports, and how bytes are written in JSON.
//!
//! A request is one JSON value in a memory file. The report is one JSON value on the control socket, before it closes; no report
//! means that the sandbox process itself became the command, or was killed.

use std::borrow::Cow;

use serde::{Deserialize, Deserializer, Serialize, Serializer};
use serde_json::Value;

use super::probe::Check;
use super::spec::Spec;
use crate::error::{Error, Kind};

/// The number under which the sandbox process inherits its request.
pub(super) const REQUEST_FD: i32 = 3;
/// The number under which it inherits its end of the control socket. The caller's end closing means: kill everything.
pub(super) const CONTROL_FD: i32 = 4;

/// The first of the numbers under which it inherits what it only holds, or uses for mounts.
pub(super) const HELD_FD: i32 = 5;

/// What the sandbox process is to do.
#[derive(Serialize, Deserialize)]
pub(super) enum Request<'a> {
    /// Run a command.
    Run(Box<Run<'a>>),
    /// Find out what works; the directory to try overlays in.
    Probe(#[serde(with = "bytes")] std::path::PathBuf),
}

/// A command, and what the caller found out about this machine.
#[derive(Clone, Serialize, Deserialize)]
pub(super) struct Run<'a> {
    pub spec: Cow<'a, Spec>,
    pub processes: Processes,
    pub hardening: Hardening,
    pub notices: Vec<String>,
    /// How many descriptors there are from [`HELD_FD`] on.
    pub held: usize,
}

/// How processes are kept together.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) enum Processes {
    /// In a PID namespace of which the sandbox process is PID 1.
    Namespace,
    /// In the caller's PID namespace; the sandbox process adopts orphans (a "subreaper").
    Adopted,
    /// Not at all.
    Loose,
}

/// Whether the caller's user is root of the machine, from whom `/proc/sys` must be protected.
#[derive(Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub(super) enum Hardening {
    Needed,
    Needless,
}

/// What the sandbox process has to say.
#[derive(Serialize, Deserialize)]
pub(super) enum Report {
    /// The command ended, or could not be executed.
    Ended { exit: Ended, notices: Vec<String>, emulation: Option<Value> },
    /// Set-up failed.
    Failed(Failure),
    /// The answers to a probe.
    Probed(Vec<Check>),
}

/// [`super::Exit`] on its way.
#[derive(Serialize, Deserialize)]
pub(super) enum Ended {
    Code(i32),
    Signal(i32),
    NotFound(Failure),
    NotExecutable(Failure),
}

/// An [`Error`] on its way. Places are not used inside: paths stand in the headline.
#[derive(Serialize, Deserialize)]
pub(super) struct Failure {
    kind: u8,
    what: String,
    causes: Vec<String>,
    hints: Vec<String>,
}

/// Kinds by their number on the wire; both ends are the same program.
const KINDS: [Kind; 9] = [
    Kind::Other,
    Kind::NotFound,
    Kind::Input,
    Kind::Unsupported,
    Kind::NoSpace,
    Kind::Corrupt,
    Kind::Network,
    Kind::Denied,
    Kind::Interrupted,
];

impl From<&Error> for Failure {
    fn from(error: &Error) -> Self {
        let kind = KINDS.iter().position(|kind| *kind == error.kind()).and_then(|at| u8::try_from(at).ok()).unwrap_or(0);
        Self { kind, what: error.what().into(), causes: error.causes().to_vec(), hints: error.hints().to_vec() }
    }
}

impl From<Failure> for Error {
    fn from(failure: Failure) -> Self {
        let kind = KINDS.get(usize::from(failure.kind)).copied().unwrap_or(Kind::Other);
        let error = failure.causes.into_iter().fold(Self::with_kind(kind, failure.what), Self::cause);
        failure.hints.into_iter().fold(error, Self::hint)
    }
}

/// A string of any bytes: text where it is UTF-8, else numbers.
#[derive(Serialize, Deserialize)]
#[serde(untagged)]
enum Text<S, B> {
    Str(S),
    Bytes(B),
}

impl<'a> Text<&'a str, &'a [u8]> {
    fn of(bytes: &'a [u8]) -> Self {
        std::str::from_utf8(bytes).map_or(Self::Bytes(bytes), Self::Str)
    }
}

impl Text<String, Vec<u8>> {
    fn into_bytes(self) -> Vec<u8> {
        match self {
            Self::Str(text) => text.into_bytes(),
            Self::Bytes(bytes) => bytes,
        }
    }
}

/// Types that are bytes underneath.
pub(super) trait Raw: Sized {
    fn raw(&self) -> &[u8];
    fn from_raw(bytes: Vec<u8>) -> Self;
}

impl Raw for std::ffi::OsString {
    fn raw(&self) -> &[u8] {
        std::os::unix::ffi::OsStrExt::as_bytes(self.as_os_str())
    }
    fn from_raw(bytes: Vec<u8>) -> Self {
        std::os::unix::ffi::OsStringExt::from_vec(bytes)
    }
}

impl Raw for std::path::PathBuf {
    fn raw(&self) -> &[u8] {
        std::os::unix::ffi::OsStrExt::as_bytes(self.as_os_str())
    }
    fn from_raw(bytes: Vec<u8>) -> Self {
        std::ffi::OsString::from_raw(bytes).into()
    }
}

impl Raw for crate::oci::ImagePath {
    fn raw(&self) -> &[u8] {
        self.as_bytes()
    }
    fn from_raw(bytes: Vec<u8>) -> Self {
        Self::clean(bytes)
    }
}

impl Raw for Vec<u8> {
    fn raw(&self) -> &[u8] {
        self
    }
    fn from_raw(bytes: Vec<u8>) -> Self {
        bytes
    }
}

/// `#[serde(with)]` for one value.
pub(super) mod bytes {
    use super::*;

    pub fn serialize<T: Raw, S: Serializer>(value: &T, to: S) -> Result<S::Ok, S::Error> {
        Text::of(value.raw()).serialize(to)
    }

    pub fn deserialize<'de, T: Raw, D: Deserializer<'de>>(from: D) -> Result<T, D::Error> {
        Ok(T::from_raw(Text::<String, Vec<u8>>::deserialize(from)?.into_bytes()))
    }
}

/// `#[serde(with)]` for a list.
pub(super) mod list {
    use super::*;

    pub fn serialize<T: Raw, S: Serializer>(values: &[T], to: S) -> Result<S::Ok, S::Error> {
        to.collect_seq(values.iter().map(|value| Text::of(value.raw())))
    }

    pub fn deserialize<'de, T: Raw, D: Deserializer<'de>>(from: D) -> Result<Vec<T>, D::Error> {
        let texts = Vec::<Text<String, Vec<u8>>>::deserialize(from)?;
        Ok(texts.into_iter().map(|text| T::from_raw(text.into_bytes())).collect())
    }
}

/// `#[serde(with)]` for an option.
pub(super) mod option {
    use super::*;

    pub fn serialize<T: Raw, S: Serializer>(value: &Option<T>, to: S) -> Result<S::Ok, S::Error> {
        value.as_ref().map(|value| Text::of(value.raw())).serialize(to)
    }

    pub fn deserialize<'de, T: Raw, D: Deserializer<'de>>(from: D) -> Result<Option<T>, D::Error> {
        Ok(Option::<Text<String, Vec<u8>>>::deserialize(from)?.map(|text| T::from_raw(text.into_bytes())))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn errors_survive_the_wire() {
        let error = Error::with_kind(Kind::Denied, "can't x").cause("c1").cause("c2").hint("h");
        let json = serde_json::to_string(&Failure::from(&error)).unwrap();
        let back = Error::from(serde_json::from_str::<Failure>(&json).unwrap());
        assert_eq!((back.to_string(), back.kind(), back.hints()), (error.to_string(), Kind::Denied, error.hints()));
    }
}
