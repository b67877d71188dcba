//! Where the dynamic loader looks: ld.so(8), ld.so.conf, and musl's path file.
//!
//! The loader's cache is not read: it only repeats what the directories hold. `glibc-hwcaps` variants are left out: every one
//! has a plain twin, and an image should run on other machines too.

use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt as _;
use std::path::{Path, PathBuf};

use super::elf::{self, Needs};
use crate::error::Result;

/// Directories the loaders of all distributions know by themselves, `/lib` and `/usr/lib` besides.
const DEFAULT_64: [&str; 2] = ["/lib64", "/usr/lib64"];

/// Where a library was found.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Found {
    pub(super) path: PathBuf,
    /// Only ld.so.conf names its directory: a loader without cache will not find it there.
    pub(super) configured_only: bool,
}

/// The search directories of this machine.
pub(super) struct Search {
    configured: Vec<PathBuf>,
}

impl Search {
    /// Reads the loader's configuration.
    pub(super) fn of_this_machine() -> Self {
        let mut configured = Vec::new();
        configuration(Path::new("/etc/ld.so.conf"), &mut configured, 0);
        Self { configured }
    }

    /// Finds a library for the file `needs` describes; `origin` is that file's directory, `inherited` the `DT_RPATH` of those that
    /// need it in turn.
    pub(super) fn library(&self, name: &[u8], needs: &Needs, origin: &Path, inherited: &[PathBuf], loader: &Path) -> Result<Option<Found>> {
        let found = |path: PathBuf, configured_only| Some(Found { path, configured_only });
        if name.contains(&b'/') {
            let path = expand(name, origin).into_iter().find(|path| path.is_file());
            return Ok(path.and_then(|path| found(path, false)));
        }
        let file = Path::new(OsStr::from_bytes(name));
        let own = if needs.runpath.is_empty() { &needs.rpath } else { &needs.runpath };
        let mut named: Vec<PathBuf> = own.iter().flat_map(|dir| expand(dir, origin)).collect();
        if needs.runpath.is_empty() {
            named.extend_from_slice(inherited);
        }
        let built_in = built_in(loader);
        let places = named.iter().chain(&built_in).map(|dir| (dir, false)).chain(self.configured.iter().map(|dir| (dir, true)));
        for (dir, configured_only) in places {
            let path = dir.join(file);
            if path.is_file() && elf::read(&path)?.is_some_and(|library| library.kind == needs.kind) {
                return Ok(found(path, configured_only));
            }
        }
        Ok(None)
    }
}

/// `$ORIGIN`, `$LIB` and `$PLATFORM` replaced; `$LIB` differs between distributions, so there may be several candidates.
pub(super) fn expand(text: &[u8], origin: &Path) -> Vec<PathBuf> {
    let text = String::from_utf8_lossy(text).into_owned();
    let replace = |text: &str, name: &str, value: &str| text.replace(&format!("${{{name}}}"), value).replace(&format!("${name}"), value);
    let text = replace(&text, "ORIGIN", &origin.to_string_lossy());
    let text = replace(&text, "PLATFORM", std::env::consts::ARCH);
    let multiarch = format!("lib/{}-linux-gnu", std::env::consts::ARCH);
    let mut out: Vec<PathBuf> = ["lib64", &multiarch, "lib"].iter().map(|lib| PathBuf::from(replace(&text, "LIB", lib))).collect();
    out.dedup();
    out
}

/// The directories the loader knows by itself: those next to it come first.
fn built_in(loader: &Path) -> Vec<PathBuf> {
    let name = loader.file_name().unwrap_or_default().to_string_lossy();
    if let Some(rest) = name.strip_prefix("ld-musl-") {
        let file = format!("/etc/ld-musl-{}.path", rest.trim_end_matches(".so.1"));
        let text = std::fs::read_to_string(file).unwrap_or_else(|_| "/lib:/usr/local/lib:/usr/lib".into());
        return text.split([':', '\n']).filter(|dir| !dir.is_empty()).map(PathBuf::from).collect();
    }
    let mut dirs = Vec::new();
    // Debian's loader is a link from /lib64 into the multiarch directory, whose name is built into it.
    if let Some(dir) = std::fs::canonicalize(loader).ok().as_deref().and_then(Path::parent) {
        dirs.push(dir.to_owned());
        dirs.extend(dir.strip_prefix("/usr").ok().map(|dir| Path::new("/").join(dir)));
        dirs.extend(dir.strip_prefix("/lib").ok().map(|dir| Path::new("/usr/lib").join(dir)));
    }
    dirs.extend(DEFAULT_64.iter().chain(&["/lib", "/usr/lib"]).map(PathBuf::from));
    dirs
}

/// ld.so.conf: a directory a line, comments, `include GLOB` with a glob in the last component only.
fn configuration(file: &Path, out: &mut Vec<PathBuf>, depth: usize) {
    let Ok(text) = std::fs::read_to_string(file) else { return };
    for line in text.lines().map(|line| line.split('#').next().unwrap_or_default().trim()) {
        let include = line.strip_prefix("include").filter(|rest| rest.starts_with([' ', '\t']));
        match include {
            Some(pattern) if depth < 8 => {
                let pattern = file.parent().unwrap_or(Path::new("/")).join(pattern.trim());
                included(&pattern).iter().for_each(|file| configuration(file, out, depth + 1));
            }
            _ => {
                let dir = PathBuf::from(line.trim_end_matches('/'));
                if line.starts_with('/') && !out.contains(&dir) {
                    out.push(dir);
                }
            }
        }
    }
}

fn included(pattern: &Path) -> Vec<PathBuf> {
    let (Some(dir), Some(name)) = (pattern.parent(), pattern.file_name().and_then(OsStr::to_str)) else { return Vec::new() };
    let Some((before, after)) = name.split_once('*') else { return vec![pattern.to_owned()] };
    let entries = std::fs::read_dir(dir).into_iter().flatten().flatten();
    let mut files: Vec<PathBuf> = entries
        .filter(|e| {
            e.file_name().to_str().is_some_and(|n| n.len() >= before.len() + after.len() && n.starts_with(before) && n.ends_with(after))
        })
        .map(|e| e.path())
        .collect();
    files.sort();
    files
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn expands() {
        let origin = Path::new("/opt/x/bin");
        assert_eq!(expand(b"$ORIGIN/../lib", origin), [Path::new("/opt/x/bin/../lib")]);
        assert_eq!(expand(b"${ORIGIN}", origin), [origin]);
        assert_eq!(expand(b"/opt/$LIB", origin)[0], Path::new("/opt/lib64"));
    }

    #[test]
    fn reads_the_loaders_configuration() {
        let dir = tempfile::tempdir().unwrap();
        let path = |name: &str| dir.path().join(name);
        std::fs::create_dir(path("d")).unwrap();
        std::fs::write(path("ld.so.conf"), "# x\n/a/ # y\ninclude d/*.conf\n  /b\nrelative\ninclude ld.so.conf\n").unwrap();
        std::fs::write(path("d/2.conf"), "/two").unwrap();
        std::fs::write(path("d/1.conf"), "/one").unwrap();
        std::fs::write(path("d/readme"), "/no").unwrap();
        let mut found = Vec::new();
        configuration(&path("ld.so.conf"), &mut found, 7);
        assert_eq!(found, ["/a", "/one", "/two", "/b"].map(PathBuf::from));
    }
}
