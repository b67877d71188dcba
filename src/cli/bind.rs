//! `--bind`: files and directories of this machine in a container.

use std::path::PathBuf;

use crate::error::{Error, Result, quote, quote_path};
use crate::oci::ImagePath;
use crate::sandbox::{Access, Missing, Mount, MountKind};

/// `SRC[:DST[:ro|rw]]`; DST is SRC if not given.
pub fn parse(text: &str) -> Result<Mount> {
    let bad = |why: &str| Error::input(format!("invalid bind {}", quote(text))).cause(why).hint("write `SRC`, `SRC:DST` or `SRC:DST:ro`");
    let mut parts = text.split(':');
    let source = parts.next().filter(|source| !source.is_empty()).ok_or_else(|| bad("it has no source"))?;
    let source = PathBuf::from(source);
    let source = std::fs::canonicalize(&source).map_err(|e| Error::os(format!("can't bind {}", quote_path(&source)), e))?;
    let target = match parts.next().filter(|target| !target.is_empty()) {
        Some(target) if !target.starts_with('/') => return Err(bad("the destination is not absolute")),
        Some(target) => ImagePath::clean(target),
        None => ImagePath::clean(source.as_os_str().as_encoded_bytes()),
    };
    if target.is_root() {
        return Err(bad("the destination is the image's root"));
    }
    let mut access = Access::ReadWrite;
    for option in parts.next().into_iter().flat_map(|options| options.split(',')) {
        match option {
            "rw" => access = Access::ReadWrite,
            "ro" => access = Access::ReadOnly,
            // Labels of SELinux, which mean nothing without privileges; how mounts pass on, which they can't.
            "z" | "Z" | "private" | "rprivate" => {}
            other => return Err(bad(&format!("{} is neither ro nor rw", quote(other)))),
        }
    }
    if parts.next().is_some() {
        return Err(bad("it has more than three parts"));
    }
    Ok(Mount { target, kind: MountKind::Bind { source }, access, missing: Missing::Create })
}
