//! What crosses the process boundary: the request, the reports, and how bytes are written in JSON.
//!
//! A request is one JSON value in a memory file; each report is one JSON value in one datagram-like message of the control
//! socket.

use serde::{Deserialize, Deserializer, Serialize, Serializer};

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
