//! A path inside an image.

use std::ffi::OsStr;
use std::fmt;
use std::os::unix::ffi::OsStrExt;
use std::path::Path;

/// A normalised absolute path inside an image: bytes, no leading slash, no empty, `.` or `..` component, no NUL.
///
/// The root is the empty path. It is not a [`Path`] since joining one with a host directory must be a visible act
/// ([`ImagePath::as_relative`]). Order is by component, so a directory is followed by all that is in it.
#[derive(Clone, PartialEq, Eq, Hash, Default)]
pub struct ImagePath(Box<[u8]>);

impl ImagePath {
    /// The image's root directory.
    pub fn root() -> Self {
        Self::default()
    }

    /// Normalises as the kernel would in a root without symlinks: `..` at the root stays there.
    pub fn clean(path: impl AsRef<[u8]>) -> Self {
        Self::root().resolve(path)
    }

    /// Joins and normalises: an absolute `path` replaces `self`, a relative one is below it, `..` never leaves the root.
    pub fn resolve(&self, path: impl AsRef<[u8]>) -> Self {
        let path = path.as_ref();
        let mut parts: Vec<&[u8]> = if path.first() == Some(&b'/') { Vec::new() } else { self.components().collect() };
        for part in path.split(|&b| b == b'/') {
            match part {
                b"" | b"." => {}
                b".." => drop(parts.pop()),
                // A NUL ends a path for the kernel; here it can only come from hostile input and ends the component.
                part => parts.push(part.split(|&b| b == 0).next().unwrap_or_default()),
            }
        }
        Self(parts.join(&b'/').into())
    }

    /// Takes a path that must already be inside: refuses `..` components and NUL, drops `.` and slashes.
    ///
    /// `None` for a path that would leave or can't exist.
    pub fn strict(path: impl AsRef<[u8]>) -> Option<Self> {
        let path = path.as_ref();
        if path.contains(&0) || path.split(|&b| b == b'/').any(|part| part == b"..") {
            return None;
        }
        Some(Self::clean(path))
    }

    /// Appends one component.
    pub fn child(&self, name: impl AsRef<[u8]>) -> Self {
        let name = name.as_ref();
        debug_assert!(!name.is_empty() && !name.contains(&b'/') && name != b"." && name != b"..", "{:?}", OsStr::from_bytes(name));
        if self.is_root() {
            return Self(name.into());
        }
        Self([&self.0, &b"/"[..], name].concat().into())
    }

    /// The directory that holds it; `None` for the root.
    pub fn parent(&self) -> Option<Self> {
        if self.is_root() {
            return None;
        }
        let end = self.0.iter().rposition(|&b| b == b'/').unwrap_or(0);
        Some(Self(self.0[..end].into()))
    }

    /// The last component; `None` for the root.
    pub fn name(&self) -> Option<&[u8]> {
        self.components().next_back()
    }

    /// Whether it is the image's root directory.
    pub fn is_root(&self) -> bool {
        self.0.is_empty()
    }

    /// The components, first to last.
    pub fn components(&self) -> impl DoubleEndedIterator<Item = &[u8]> {
        self.0.split(|&b| b == b'/').filter(|part| !part.is_empty())
    }

    /// Whether `self` is `other` or below it.
    pub fn starts_with(&self, other: &Self) -> bool {
        self.strip_prefix(other).is_some()
    }

    /// What is left of `self` below `other`; the root if they are equal, `None` if it is not below.
    pub fn strip_prefix(&self, other: &Self) -> Option<Self> {
        if other.is_root() {
            return Some(self.clone());
        }
        match self.0.strip_prefix(&*other.0)? {
            b"" => Some(Self::root()),
            [b'/', rest @ ..] => Some(Self(rest.into())),
            _ => None,
        }
    }

    /// All directories above, nearest to the root first, without the root and without itself.
    pub fn ancestors(&self) -> impl Iterator<Item = ImagePath> {
        self.0.iter().enumerate().filter(|(_, b)| **b == b'/').map(|(at, _)| Self(self.0[..at].into()))
    }

    /// The bytes, without leading slash.
    pub fn as_bytes(&self) -> &[u8] {
        &self.0
    }

    /// As a relative host path, to be opened below a directory descriptor; `.` for the root.
    pub fn as_relative(&self) -> &Path {
        if self.is_root() { Path::new(".") } else { Path::new(OsStr::from_bytes(&self.0)) }
    }
}

impl PartialOrd for ImagePath {
    fn partial_cmp(&self, other: &Self) -> Option<std::cmp::Ordering> {
        Some(self.cmp(other))
    }
}

impl Ord for ImagePath {
    fn cmp(&self, other: &Self) -> std::cmp::Ordering {
        self.components().cmp(other.components())
    }
}

impl fmt::Display for ImagePath {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "/{}", String::from_utf8_lossy(&self.0))
    }
}

impl fmt::Debug for ImagePath {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "\"/{}\"", self.0.escape_ascii())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn cleans() {
        for (path, expected) in [("/", "/"), ("", "/"), ("a//b/./c/", "/a/b/c"), ("../../etc", "/etc"), ("/a/../../b", "/b")] {
            assert_eq!(ImagePath::clean(path).to_string(), expected);
        }
        assert_eq!(ImagePath::clean("/a").resolve("../b").to_string(), "/b");
        assert_eq!(ImagePath::clean("/a").resolve("/c").to_string(), "/c");
    }

    #[test]
    fn strict_refuses_what_leaves() {
        assert!(ImagePath::strict("a/../b").is_none());
        assert!(ImagePath::strict(b"a\0b").is_none());
        assert_eq!(ImagePath::strict("./a//b").unwrap(), ImagePath::clean("a/b"));
    }

    #[test]
    fn relations() {
        let path = ImagePath::clean("/a/b/c");
        assert_eq!(path.parent().unwrap(), ImagePath::clean("a/b"));
        assert_eq!(path.ancestors().collect::<Vec<_>>(), [ImagePath::clean("a"), ImagePath::clean("a/b")]);
        assert_eq!(path.strip_prefix(&ImagePath::clean("a/b")).unwrap(), ImagePath::clean("c"));
        assert!(path.strip_prefix(&ImagePath::clean("a/bb")).is_none());
        assert!(ImagePath::clean("a/b") < ImagePath::clean("a!"), "order is by component");
    }
}
