//! What a COPY or ADD reads: wildcards, `.dockerignore`, and the content digest that enters the cache key.
//!
//! The build context and an image's tree are both [`View`]s, so both are selected, hashed and copied by the same code. A context's files have no
//! override and so belong to root, as docker has it.

use crate::dockerfile::glob::Glob;
use crate::dockerfile::ignore::Ignore;
use crate::error::{Error, Kind, Result, nearest, quote};
use crate::oci::{Digest, ImagePath};
use crate::rootfs::meta;
use crate::rootfs::view::{Follow, Node, View};

use super::key::Key;

/// A tree to copy from.
pub struct Source<'a> {
    /// The tree.
    pub view: &'a View,
    /// `.dockerignore`, for the build context.
    pub ignore: Option<&'a Ignore>,
    /// "the build context", "stage `x`", "image `y`", for messages.
    pub name: String,
}

/// All that the patterns of one instruction selected, in a fixed order.
#[derive(Default)]
pub struct Selection {
    /// One a match.
    pub items: Vec<Item>,
}

/// One matched file or directory.
pub struct Item {
    /// The name it was matched by; what it is called in the destination directory.
    pub name: Vec<u8>,
    /// The file or directory itself, links followed.
    pub node: Node,
    /// For a directory: all below it, paths relative to it, parents first.
    pub entries: Vec<(ImagePath, Node)>,
}

impl Source<'_> {
    /// Selects what `patterns` match (Go's `filepath.Match`). A plain name that does not exist is an error, a wildcard without match is not.
    pub fn select(&self, patterns: &[String]) -> Result<Selection> {
        let mut selection = Selection::default();
        for pattern in patterns {
            for (name, path) in self.matches(pattern)? {
                selection.items.push(self.gather(name, &path)?);
            }
        }
        Ok(selection)
    }

    /// Selects one file or directory by its plain name, as a mount does.
    pub fn select_one(&self, name: &str) -> Result<Item> {
        let (name, path) = self.named(name)?;
        self.gather(name, &path)
    }

    fn named(&self, name: &str) -> Result<(Vec<u8>, ImagePath)> {
        let clean = ImagePath::clean(name);
        let path = self.view.resolve(&clean, Follow::Last)?;
        if self.view.lookup(&path)?.is_none() {
            return Err(self.missing(name, &clean));
        }
        if self.ignored(&path)? {
            return Err(Error::with_kind(Kind::NotFound, format!("{} is excluded by .dockerignore", quote(name)))
                .hint("remove the pattern that excludes it, or add an exception (`!path`) after it"));
        }
        Ok((clean.name().unwrap_or_default().to_vec(), path))
    }

    fn matches(&self, pattern: &str) -> Result<Vec<(Vec<u8>, ImagePath)>> {
        if !Glob::is_pattern(pattern) {
            return Ok(vec![self.named(pattern)?]);
        }
        let clean = ImagePath::clean(pattern);
        let mut found = vec![ImagePath::root()];
        for component in clean.components() {
            let glob = Glob::new(&String::from_utf8_lossy(component))?;
            let mut next = Vec::new();
            for directory in found {
                let directory = self.view.resolve(&directory, Follow::Last)?;
                if self.view.lookup(&directory)?.is_none_or(|node| node.meta.kind != meta::Kind::Directory) {
                    continue;
                }
                let names = self.view.read_dir(&directory)?.into_iter().filter_map(|node| node.path.name().map(<[u8]>::to_vec));
                next.extend(names.filter(|name| glob.matches(name)).map(|name| directory.child(name)));
            }
            found = next;
        }
        let mut matches = Vec::new();
        for path in found {
            let name = path.name().unwrap_or_default().to_vec();
            let resolved = self.view.resolve(&path, Follow::Last)?;
            if self.view.lookup(&resolved)?.is_some() && !self.ignored(&path)? && !self.ignored(&resolved)? {
                matches.push((name, resolved));
            }
        }
        Ok(matches)
    }

    /// Whether a path is excluded and nothing below it could be an exception.
    fn ignored(&self, path: &ImagePath) -> Result<bool> {
        let Some(ignore) = self.ignore else { return Ok(false) };
        if path.is_root() || !ignore.matches(path.as_bytes()) {
            return Ok(false);
        }
        let directory = self.view.lookup(path)?.is_some_and(|node| node.meta.kind == meta::Kind::Directory);
        Ok(!directory || ignore.can_skip(path.as_bytes()))
    }

    fn missing(&self, pattern: &str, path: &ImagePath) -> Error {
        let error = Error::with_kind(Kind::NotFound, format!("{} is not in {}", quote(pattern), self.name));
        let siblings = path
            .parent()
            .and_then(|parent| self.view.resolve(&parent, Follow::Last).ok())
            .and_then(|parent| self.view.read_dir(&parent).ok());
        let names: Vec<String> = siblings
            .unwrap_or_default()
            .iter()
            .filter_map(|node| node.path.name())
            .map(|name| String::from_utf8_lossy(name).into_owned())
            .collect();
        let wanted = String::from_utf8_lossy(path.name().unwrap_or_default()).into_owned();
        match nearest(&wanted, names.iter().map(String::as_str)) {
            Some(near) if near != wanted => {
                let near = path.parent().unwrap_or_default().child(near);
                error.hint(format!("did you mean {}?", quote(near.as_bytes())))
            }
            Some(_) => error.hint("it is a symbolic link to something that is not there; links can't lead out"),
            None if pattern.split('/').any(|part| part == "..") => {
                error.hint("sources are relative to the root of the context and can't leave it")
            }
            None => error.hint("sources are relative to the root of the context, whatever WORKDIR says"),
        }
    }

    fn gather(&self, name: Vec<u8>, path: &ImagePath) -> Result<Item> {
        let node = self.view.lookup(path)?.ok_or_else(|| self.missing(&path.to_string(), path))?;
        let mut entries = Vec::new();
        if node.meta.kind == meta::Kind::Directory {
            let mut pending = Vec::new();
            self.gather_below(&node, path, &mut pending, &mut entries)?;
        }
        Ok(Item { name, node, entries })
    }

    /// Appends all below `directory`. `pending` holds excluded directories that exist only if an exception below them does.
    fn gather_below(
        &self,
        directory: &Node,
        top: &ImagePath,
        pending: &mut Vec<(ImagePath, Node)>,
        entries: &mut Vec<(ImagePath, Node)>,
    ) -> Result<()> {
        for node in self.view.read_dir(&directory.path)? {
            let relative = node.path.strip_prefix(top).unwrap_or_default();
            let is_directory = node.meta.kind == meta::Kind::Directory;
            let excluded = match self.ignore {
                Some(ignore) => ignore.matches(node.path.as_bytes()),
                None => false,
            };
            if excluded && (!is_directory || self.ignore.is_some_and(|ignore| ignore.can_skip(node.path.as_bytes()))) {
                continue;
            }
            if excluded {
                pending.push((relative.clone(), node.clone()));
                self.gather_below(&node, top, pending, entries)?;
                // Still there: nothing below was an exception.
                if pending.last().is_some_and(|(path, _)| *path == relative) {
                    pending.pop();
                }
                continue;
            }
            entries.append(pending);
            entries.push((relative, node.clone()));
            if is_directory {
                self.gather_below(&node, top, pending, entries)?;
            }
        }
        Ok(())
    }
}

impl Selection {
    /// Digests names, types, modes, owners, links, extended attributes and contents; not times.
    ///
    /// `content` gives a file's digest; it remembers what it has read.
    pub fn digest(&self, view: &View, content: &mut dyn FnMut(&Node) -> Result<Digest>) -> Result<Digest> {
        let mut key = Key::new(&Digest::of("selection"), "files");
        for item in &self.items {
            key.field(&item.name);
            add_node(&mut key, view, &item.node, content)?;
            for (path, node) in &item.entries {
                key.field(path.as_bytes());
                add_node(&mut key, view, node, content)?;
            }
            key.number(item.entries.len() as u64);
        }
        Ok(key.finish())
    }
}

fn add_node(key: &mut Key, view: &View, node: &Node, content: &mut dyn FnMut(&Node) -> Result<Digest>) -> Result<()> {
    let found = &node.meta;
    key.field(format!("{:?} {:o} {}:{}", found.kind, found.mode, found.uid, found.gid));
    for (name, value) in &found.xattrs {
        key.field(name).field(value);
    }
    match found.kind {
        meta::Kind::File => key.field(content(node)?.bytes()),
        meta::Kind::Symlink => key.field(view.read_link(node)?),
        _ => key,
    };
    Ok(())
}
