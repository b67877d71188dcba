//! ADD of what is not in the build context: files by URL and commits of repositories.
//!
//! Both are asked for before the step's key is made, since what they are now is part of it; what has not changed is not fetched again.
//! Follows BuildKit: a file is called as its URL's path ends, has mode 0600 and the server's `Last-Modified` time, and is not unpacked unless
//! `--unpack` says so; a repository's files go where a directory's would.

use crate::error::{Error, Result, hide_credentials, quote};
use crate::oci::{DiffId, Digest, percent_decoded};
use crate::rootfs::meta::{Kind, Meta, Mtime};
use crate::rootfs::view::View;
use crate::rootfs::writer::{Content, LayerWriter};
use crate::transfer::git::{self, GitAddress, GitRequest, Metadata, Writer, check_commit};
use crate::transfer::{self, DownloadRequest};

use super::archive::{is_tar, unpack};
use super::copy::{Archives, Plan, Rules};
use super::credentials;
use super::engine::Engine;
use super::resolve::Copy;
use super::sources::{Shape, Source, Wanted};

/// Something to fetch.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Remote {
    /// A file.
    File {
        /// Its URL.
        url: String,
        /// What it must be.
        checksum: Option<Digest>,
        /// Whether it is unpacked.
        archives: Archives,
    },
    /// A repository.
    Repository {
        /// Which, and what of it.
        address: GitAddress,
        /// Whether `.git` stays.
        metadata: Metadata,
    },
}

/// The flags of ADD that say how.
#[derive(Clone, Copy, Debug)]
pub struct Flags<'a> {
    /// `--checksum`.
    pub checksum: Option<&'a str>,
    /// `--keep-git-dir`.
    pub metadata: Metadata,
    /// `--unpack`, for files.
    pub archives: Archives,
}

/// What was fetched.
pub enum Fetched {
    /// A blob.
    File { name: String, digest: Digest, modified: i64, archives: Archives },
    /// A layer.
    Tree { layer: DiffId, name: String },
}

/// Where and as whose the fetched is put.
pub struct Place<'a> {
    /// The instruction.
    pub copy: &'a Copy,
    /// `--chown`: without it members of archives keep their owners.
    pub chown: Option<(u32, u32)>,
    /// What is changed about the rest; without `--chown` it belongs to root.
    pub rules: &'a Rules,
}

impl Remote {
    /// A source of ADD; `None` for what is local.
    pub fn parse(source: &str, flags: &Flags<'_>) -> Result<Option<Self>> {
        if let Some(mut address) = GitAddress::parse(source, Writer::Dockerfile)? {
            if let Some(checksum) = flags.checksum {
                check_commit(checksum).map_err(|e| e.context("invalid `--checksum` of a repository"))?;
                address.checksum = Some(checksum.to_owned());
            }
            return Ok(Some(Self::Repository { address, metadata: flags.metadata }));
        }
        if !is_web(source) {
            return Ok(None);
        }
        let checksum = flags.checksum.map(|text| text.parse::<Digest>().map_err(|e| e.context("invalid `--checksum` of a file")));
        Ok(Some(Self::File { url: source.to_owned(), checksum: checksum.transpose()?, archives: flags.archives }))
    }
}

/// Whether a text is a URL that is downloaded.
pub fn is_web(text: &str) -> bool {
    let scheme = text.split_once("://").map(|(scheme, _)| scheme.to_ascii_lowercase());
    matches!(scheme.as_deref(), Some("http" | "https"))
}

/// Fetches everything, as far as it changed.
pub fn fetch(engine: &Engine<'_>, remotes: &[Remote]) -> Result<Vec<Fetched>> {
    remotes.iter().map(|remote| fetch_one(engine, remote)).collect()
}

fn fetch_one(engine: &Engine<'_>, remote: &Remote) -> Result<Fetched> {
    engine.stop.check()?;
    match remote {
        Remote::File { url, checksum, archives } => {
            let authorization = credentials::for_url(&engine.request.surroundings.secrets, url)?;
            let request = DownloadRequest { url, checksum: checksum.as_ref(), authorization: authorization.as_deref() };
            let found = transfer::download(engine.store, engine.client, &request, engine.sink)?;
            engine.materials.file(url, &found.digest);
            let modified = found.modified.unwrap_or_default();
            Ok(Fetched::File { name: file_name(url), digest: found.digest, modified, archives: *archives })
        }
        Remote::Repository { address, metadata } => {
            let authorization = credentials::for_repository(&engine.request.surroundings.secrets, address)?;
            let request = GitRequest { address, metadata: *metadata, authorization: authorization.as_deref() };
            let found = git::checkout(engine.store, engine.client, &request, engine.sink)?;
            engine.materials.commit(&address.remote, &found.commit);
            Ok(Fetched::Tree { layer: found.layer, name: hide_credentials(&address.remote) })
        }
    }
}

impl Fetched {
    /// What of it enters the step's key.
    pub fn key(&self) -> String {
        match self {
            Self::File { name, digest, modified, archives } => format!("file {digest} {modified} {archives:?} {name}"),
            Self::Tree { layer, .. } => format!("tree {layer}"),
        }
    }

    /// Puts it into a layer.
    pub fn write(&self, engine: &Engine<'_>, writer: &mut LayerWriter, place: &Place<'_>) -> Result<()> {
        let Place { copy, chown, rules } = place;
        let (below, nothing) = (writer.view().clone(), View::new(Vec::new()));
        match self {
            Self::File { name, digest, modified, archives } => {
                let mut plan = Plan::new(&below, &nothing, rules);
                if *archives == Archives::Unpack && is_tar(engine.store.blob_reader(digest)?)? {
                    let target = plan.directory(&copy.destination)?;
                    plan.write(writer)?;
                    return unpack(writer, &target, engine.store.blob_reader(digest)?, name, *chown);
                }
                let target = plan.file(name.as_bytes(), &copy.destination)?;
                plan.write(writer)?;
                let mut meta = Meta { mtime: Mtime::from_secs(*modified), ..Meta::new(Kind::File, FILE_MODE) };
                rules.apply(&mut meta);
                writer.put(&target, &meta, Content::Reader(&mut engine.store.blob_reader(digest)?))
            }
            Self::Tree { layer, name } => {
                let view = View::new(engine.store.stack(&[*layer])?);
                let wanted = Wanted { patterns: &["/".to_owned()], excludes: &copy.excludes, shape: Shape::Flat };
                let selection = Source { view: &view, host: None, ignore: None, name: quote(name) }.select(&wanted)?;
                let mut plan = Plan::new(&below, &view, rules);
                selection.items.iter().try_for_each(|item| plan.item(item, &copy.destination))?;
                plan.write(writer)
            }
        }
    }
}

/// The mode of a downloaded file (Dockerfile reference, ADD).
const FILE_MODE: u32 = 0o600;

/// What a file is called: the last component of its URL's path, as Go's `path.Base`, else BuildKit's own name.
fn file_name(url: &str) -> String {
    let path = url.split_once("://").map_or(url, |(_, rest)| rest).split(['?', '#']).next().unwrap_or_default();
    let path = percent_decoded(path.split_once('/').map_or("", |(_, path)| path));
    match path.trim_end_matches('/').rsplit('/').next() {
        None | Some("" | "." | "..") => "__unnamed__".into(),
        Some(name) => name.replace('\0', ""),
    }
}

/// Refuses what only ADD of a single remote source can have.
pub fn check_flags(remotes: usize, locals: usize, flags: &Flags<'_>) -> Result<()> {
    if flags.checksum.is_some() && (remotes != 1 || locals != 0) {
        let error = Error::input("`--checksum` needs exactly one source, a URL or a repository");
        return Err(error.hint("use an ADD of its own for each file"));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_files() {
        for (url, expected) in [
            ("https://h/a/b.tar.gz?x=/y#z", "b.tar.gz"),
            ("https://h/a/b/", "b"),
            ("https://h/", "__unnamed__"),
            ("https://h", "__unnamed__"),
            ("https://h/a/..", "__unnamed__"),
            ("https://h/a%20b", "a b"),
            ("https://h/a%2f..%2fpasswd", "passwd"),
        ] {
            assert_eq!(file_name(url), expected, "{url}");
        }
    }

    #[test]
    fn tells_remote_from_local() {
        let flags = Flags { checksum: None, metadata: Metadata::Drop, archives: Archives::Copy };
        let kind = |text: &str| match Remote::parse(text, &flags).unwrap() {
            None => "local",
            Some(Remote::File { .. }) => "file",
            Some(Remote::Repository { .. }) => "repository",
        };
        for (text, expected) in [
            ("https://h/a.tgz", "file"),
            ("HTTP://h/a", "file"),
            ("https://h/a.git", "repository"),
            ("git@h:a", "repository"),
            ("ssh://git@h/a", "repository"),
            ("file:///a", "local"),
            ("ftp://h/a", "local"),
            ("github.com/a/b", "local"),
            ("a/b", "local"),
        ] {
            assert_eq!(kind(text), expected, "{text}");
        }
        let wrong = |checksum| Remote::parse("https://h/a", &Flags { checksum: Some(checksum), ..flags }).unwrap_err().what().to_owned();
        assert_eq!(wrong("md5:00"), "invalid `--checksum` of a file");
    }
}
