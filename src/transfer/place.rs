//! Where images go and come from, as people write it.
//!
//! The spellings are skopeo's and isula-build's: `oci-archive:FILE[:REF]`, `oci:DIR[:REF]`, `docker-archive:FILE[:REF]`,
//! `docker-daemon:REF`, `isulad:REF`, `docker://REF`, `oci://REF` (the same registry, OCI documents); ours are `tar:FILE`, `local:DIR`,
//! `squashfs:FILE`, `podman:REF`, `host:PROGRAM,…` and `storage:REF`.

use std::fmt;
use std::path::{Path, PathBuf};
use std::str::FromStr;

use super::bundle::Documents;
use crate::error::{Error, Result, nearest, quote};
use crate::oci::Reference;

/// A place.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Place {
    /// A registry.
    Registry {
        /// Repository and tag.
        reference: Reference,
        /// Whose documents are sent.
        documents: Documents,
    },
    /// A tar of an OCI layout.
    OciArchive {
        /// The file, `-` for the standard stream.
        file: PathBuf,
        /// The name in it.
        name: Option<String>,
    },
    /// An OCI layout, which may hold other images.
    OciLayout {
        /// The directory.
        directory: PathBuf,
        /// The name in it.
        name: Option<String>,
    },
    /// What `docker save` writes.
    DockerArchive {
        /// The file, `-` for the standard stream.
        file: PathBuf,
        /// The name in it.
        name: Option<Reference>,
    },
    /// Docker's engine on this machine.
    DockerDaemon(Option<Reference>),
    /// iSulad on this machine.
    Isulad(Reference),
    /// The storage of podman on this machine.
    Podman(Reference),
    /// The storage directory: a name or an ID.
    Storage(String),
    /// Programs of this machine, and what they need to run.
    Host(String),
    /// A flattened root file system as a tarball, `-` for the standard stream.
    Tarball(PathBuf),
    /// A flattened root file system as files.
    Directory(PathBuf),
    /// A flattened root file system as a squashfs image.
    Squashfs(PathBuf),
}

/// The words before the colon.
const TRANSPORTS: [&str; 12] =
    ["oci-archive", "oci", "docker-archive", "docker-daemon", "isulad", "docker", "tar", "local", "squashfs", "podman", "storage", "host"];

impl Place {
    /// The name a place gives the image, which is also its name here (isula-build).
    pub fn reference(&self) -> Option<Reference> {
        match self {
            Self::Registry { reference, .. } | Self::Isulad(reference) | Self::Podman(reference) => Some(reference.clone()),
            Self::OciArchive { name: Some(name), .. } | Self::OciLayout { name: Some(name), .. } => name.parse().ok(),
            Self::DockerArchive { name, .. } | Self::DockerDaemon(name) => name.clone(),
            Self::Storage(name) => name.parse().ok(),
            _ => None,
        }
    }

    /// A place, where an image's name is the usual thing: what can be read as a name is one (`docker:dind`, `tar:1`), unless there is such a
    /// file or directory.
    pub fn of_source(text: &str) -> Result<Option<Self>> {
        let Some((transport, rest)) = text.split_once(':') else { return Ok(None) };
        let is_place = match transport {
            "docker" => rest.starts_with("//"),
            "tar" | "local" | "squashfs" => ["/", "./", "../"].iter().any(|start| rest.starts_with(start)) || Path::new(rest).exists(),
            transport => TRANSPORTS.contains(&transport),
        };
        if is_place { text.parse().map(Some) } else { Ok(None) }
    }

    /// What kind of place it is, as it is spelled.
    pub fn transport(&self) -> &'static str {
        match self {
            Self::Registry { .. } => "docker",
            Self::OciArchive { .. } => "oci-archive",
            Self::OciLayout { .. } => "oci",
            Self::DockerArchive { .. } => "docker-archive",
            Self::DockerDaemon(_) => "docker-daemon",
            Self::Isulad(_) => "isulad",
            Self::Podman(_) => "podman",
            Self::Storage(_) => "storage",
            Self::Host(_) => "host",
            Self::Tarball(_) => "tar",
            Self::Directory(_) => "local",
            Self::Squashfs(_) => "squashfs",
        }
    }

    /// Whether the text begins as a place does.
    pub fn is_spelled(text: &str) -> bool {
        text.split_once(':').is_some_and(|(transport, _)| TRANSPORTS.contains(&transport))
    }
}

impl FromStr for Place {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self> {
        let bad = |why: String| Error::input(format!("{} is no place for an image", quote(text))).cause(why);
        let (transport, rest) = text.split_once(':').unwrap_or((text, ""));
        if !TRANSPORTS.contains(&transport) {
            let error = bad(format!("there is no transport {}", quote(transport)));
            return Err(match nearest(transport, TRANSPORTS) {
                Some(near) => error.hint(format!("did you mean {}?", quote(near))),
                None => error.hint(format!("use one of {}", TRANSPORTS.join(", "))),
            });
        }
        if rest.trim().is_empty() {
            return Err(bad(format!("nothing follows {}", quote(format!("{transport}:")))));
        }
        let reference = |text: &str| text.parse::<Reference>().map_err(|e| bad(e.to_string()));
        let (path, name) = match rest.split_once(':') {
            Some((path, name)) => (PathBuf::from(path), Some(name).filter(|name| !name.is_empty())),
            None => (PathBuf::from(rest), None),
        };
        Ok(match (transport, rest.strip_prefix("//")) {
            ("docker", Some(rest)) => Self::Registry { reference: reference(rest)?, documents: Documents::Same },
            ("oci", Some(rest)) => Self::Registry { reference: reference(rest)?, documents: Documents::Oci },
            ("docker", None) => return Err(bad("a registry's image reads `docker://HOST/NAME:TAG`".into())),
            ("oci-archive", _) => Self::OciArchive { file: path, name: name.map(str::to_owned) },
            ("oci", None) => Self::OciLayout { directory: path, name: name.map(str::to_owned) },
            ("docker-archive", _) => Self::DockerArchive { file: path, name: name.map(reference).transpose()? },
            ("docker-daemon", _) => Self::DockerDaemon(Some(reference(rest)?)),
            ("isulad", _) => Self::Isulad(reference(rest)?),
            ("podman", _) => Self::Podman(reference(rest)?),
            ("storage", _) => Self::Storage(rest.to_owned()),
            ("host", _) => Self::Host(rest.to_owned()),
            ("tar", _) => Self::Tarball(rest.into()),
            ("squashfs", _) => Self::Squashfs(rest.into()),
            _ => Self::Directory(rest.into()),
        })
    }
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Registry { reference, .. } => write!(f, "{}", reference.familiar()),
            Self::OciArchive { file, .. } => write!(f, "oci-archive:{}", file.display()),
            Self::OciLayout { directory, .. } => write!(f, "oci:{}", directory.display()),
            Self::DockerArchive { file, .. } => write!(f, "docker-archive:{}", file.display()),
            Self::DockerDaemon(None) => write!(f, "docker-daemon"),
            Self::DockerDaemon(Some(reference)) => write!(f, "docker-daemon:{}", reference.familiar()),
            Self::Isulad(reference) => write!(f, "isulad:{}", reference.familiar()),
            Self::Podman(reference) => write!(f, "podman:{}", reference.familiar()),
            Self::Storage(name) => write!(f, "{name}"),
            Self::Host(programs) => write!(f, "host:{programs}"),
            Self::Tarball(file) => write!(f, "tar:{}", file.display()),
            Self::Directory(directory) => write!(f, "local:{}", directory.display()),
            Self::Squashfs(file) => write!(f, "squashfs:{}", file.display()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_places() {
        let reference = |text: &str| text.parse::<Reference>().unwrap();
        let registry = |text: &str, documents| Place::Registry { reference: reference(text), documents };
        for (text, expected) in [
            ("docker://h:5000/a/b:1", registry("h:5000/a/b:1", Documents::Same)),
            ("oci://h/a", registry("h/a", Documents::Oci)),
            ("oci:/d/x", Place::OciLayout { directory: "/d/x".into(), name: None }),
            ("oci:/d/x:a/b:1", Place::OciLayout { directory: "/d/x".into(), name: Some("a/b:1".into()) }),
            ("oci-archive:f.tar:latest", Place::OciArchive { file: "f.tar".into(), name: Some("latest".into()) }),
            ("docker-archive:f:i:2", Place::DockerArchive { file: "f".into(), name: Some(reference("i:2")) }),
            ("docker-daemon:i:2", Place::DockerDaemon(Some(reference("i:2")))),
            ("isulad:i:2", Place::Isulad(reference("i:2"))),
            ("podman:i:2", Place::Podman(reference("i:2"))),
            ("storage:0123", Place::Storage("0123".into())),
            ("host:sh,ls", Place::Host("sh,ls".into())),
            ("local:a:b", Place::Directory("a:b".into())),
            ("squashfs:f.sqfs", Place::Squashfs("f.sqfs".into())),
        ] {
            assert_eq!(text.parse::<Place>().unwrap(), expected, "{text}");
        }
    }

    #[test]
    fn names_are_no_places() {
        for (text, place) in [
            ("docker:dind", false),
            ("docker://h/a", true),
            ("oci:x", true),
            ("oci-archive:x.tar", true),
            ("tar:1", false),
            ("tar:./x.tar", true),
            ("local:5000/app", false),
            ("local:/srv/rootfs", true),
            ("squashfs:../x", true),
            ("host:sh", true),
            ("debian:12", false),
            ("debian", false),
        ] {
            assert_eq!(Place::of_source(text).unwrap().is_some(), place, "{text}");
        }
    }

    #[test]
    fn refuses_others() {
        for (text, expected) in [
            (":", "no transport"),
            ("docker-archive:", "nothing follows `docker-archive:`"),
            ("docker-archive:  ", "nothing follows"),
            ("oci-archiv:x", "no transport `oci-archiv`"),
            ("docker:x", "docker://HOST"),
            ("isulad:A", "lower-case"),
        ] {
            let error = text.parse::<Place>().unwrap_err().to_string();
            assert!(error.contains(expected), "{text}: {error}");
        }
    }
}
