//! What a COPY or ADD reads: names, wildcards, `--parents`, `--exclude`, `.dockerignore`.
//!
//! The build context and an image's tree are both [`View`]s, so both are selected, hashed and copied by the same code. A context's files have no
//! override and so belong to root, as docker has it. A context is listed by several threads, and its files' extended attributes are read
//! when their content is.

use std::path::Path;

use crate::dockerfile::glob::Glob;
use crate::dockerfile::ignore::Ignore;
use crate::error::{Error, Kind, Result, nearest, quote};
use crate::oci::ImagePath;
use crate::rootfs::meta::{self, Meta, Mtime};
use crate::rootfs::scan::{self, Selection as Choice, scan};
use crate::rootfs::view::{Follow, Node, View};

use super::filter::{Filter, State};
use super::selection::{Entry, Item, Role, Selection};

/// A tree to copy from.
pub struct Source<'a> {
    /// The tree.
    pub view: &'a View,
    /// The host directory that the tree is, for the build context.
    pub host: Option<&'a Path>,
    /// `.dockerignore`, for the build context.
    pub ignore: Option<&'a Ignore>,
    /// "the build context", "stage `x`", "image `y`", for messages.
    pub name: String,
}

/// What is wanted of it.
pub struct Wanted<'a> {
    /// Names and patterns.
    pub patterns: &'a [String],
    /// `--exclude`.
    pub excludes: &'a Ignore,
    /// `--parents`.
    pub shape: Shape,
}

/// Whether sources keep the directories they lie in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Shape {
    /// They don't.
    Flat,
    /// `--parents`: they do, those after `/./` if that is in the pattern.
    Parents,
}

impl Source<'_> {
    /// Selects what the patterns match (Go's `filepath.Match`). A plain name that does not exist is an error, a wildcard without match is not.
    pub fn select(&self, wanted: &Wanted<'_>) -> Result<Selection> {
        let mut selection = Selection::default();
        for pattern in wanted.patterns {
            match wanted.shape {
                Shape::Flat => self.select_flat(pattern, wanted.excludes, &mut selection)?,
                Shape::Parents => self.select_parents(pattern, wanted.excludes, &mut selection)?,
            }
        }
        Ok(selection)
    }

    fn select_flat(&self, pattern: &str, excludes: &Ignore, selection: &mut Selection) -> Result<()> {
        let wildcard = Glob::is_wildcard(pattern);
        for (name, path) in self.matches(pattern)? {
            let item = self.gather(name, &path, excludes, None)?;
            // What a wildcard matches is excluded as the reference has it; a file that is named is wanted.
            if wildcard && item.own.node.meta.kind != meta::Kind::Directory && excludes.matches(&item.name) {
                continue;
            }
            selection.items.push(item);
        }
        Ok(())
    }

    /// `--parents`: the pattern's matches below what stands before `/./`, else below the root, with all directories that lead to them.
    fn select_parents(&self, pattern: &str, excludes: &Ignore, selection: &mut Selection) -> Result<()> {
        let (above, inner) = pattern.split_once("/./").unwrap_or(("/", pattern));
        let inner = ImagePath::clean(inner);
        let text = String::from_utf8_lossy(inner.as_bytes()).into_owned();
        let only = (!inner.is_root()).then(|| Ignore::of_pattern(&text)).transpose()?;
        let named = !Glob::is_wildcard(above) && !Glob::is_wildcard(&text);
        for (name, path) in self.matches(above)? {
            let item = self.gather(name, &path, excludes, only.as_ref())?;
            if item.own.node.meta.kind != meta::Kind::Directory {
                let what = format!("{} is not a directory", quote(above));
                return Err(Error::input(what).hint("what stands before `/./` is a directory that is left"));
            }
            if named && item.entries.is_empty() && excludes.is_empty() && !inner.is_root() {
                let whole = path.resolve(inner.as_bytes());
                return Err(self.missing(pattern, &whole).hint("`--parents` takes what is there itself, not what a link leads to"));
            }
            selection.items.push(item);
        }
        Ok(())
    }

    /// Selects one file or directory by its plain name, as a mount does.
    pub fn select_one(&self, name: &str) -> Result<Item> {
        let (name, path) = self.named(name)?;
        self.gather(name, &path, &Ignore::default(), None)
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

    /// What a name or pattern leads to: the name it is matched by, and where it lies with links followed.
    fn matches(&self, pattern: &str) -> Result<Vec<(Vec<u8>, ImagePath)>> {
        if !Glob::is_pattern(pattern) {
            return Ok(vec![self.named(pattern)?]);
        }
        let clean = ImagePath::clean(pattern);
        let mut matches = Vec::new();
        for path in self.wildcard_matches(&clean)? {
            let name = path.name().unwrap_or_default().to_vec();
            if self.ignored(&path)? {
                continue;
            }
            let resolved = self.view.resolve(&path, Follow::Last)?;
            if self.view.lookup(&resolved)?.is_none() {
                return Err(self.missing(&String::from_utf8_lossy(path.as_bytes()), &path));
            }
            if !self.ignored(&resolved)? {
                matches.push((name, resolved));
            }
        }
        if matches.is_empty() && !Glob::is_wildcard(pattern) {
            return Err(self.missing(pattern, &clean));
        }
        Ok(matches)
    }

    fn wildcard_matches(&self, pattern: &ImagePath) -> Result<Vec<ImagePath>> {
        let mut found = vec![ImagePath::root()];
        let mut literal = true;
        for component in pattern.components() {
            let text = String::from_utf8_lossy(component);
            literal &= !Glob::is_pattern(&text);
            if literal {
                found.iter_mut().for_each(|path| *path = path.child(component));
                continue;
            }
            let glob = Glob::new(&text)?;
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
        Ok(found)
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

    fn gather(&self, name: Vec<u8>, path: &ImagePath, excludes: &Ignore, only: Option<&Ignore>) -> Result<Item> {
        let filter = Filter { top: path, ignore: self.ignore, excludes, only };
        let mut entries = match self.host {
            Some(host) => list_host(host, &filter)?,
            None => self.list_view(&filter)?,
        }
        .into_iter();
        let own = entries.next().ok_or_else(|| self.missing(&path.to_string(), path))?;
        Ok(Item { name, own, entries: entries.collect() })
    }

    fn list_view(&self, filter: &Filter<'_>) -> Result<Vec<Entry>> {
        let Some(top) = self.view.lookup(filter.top)? else { return Ok(Vec::new()) };
        let mut entries = Vec::new();
        // Directories that are taken only if something below them is, with their depth.
        let mut waiting: Vec<(usize, Entry)> = Vec::new();
        let mut open: Vec<(std::vec::IntoIter<Node>, State)> = Vec::new();
        if top.meta.kind == meta::Kind::Directory {
            open.push((self.view.read_dir(&top.path)?.into_iter(), filter.start()));
        }
        entries.push(Entry::of_image(top, Role::Own));
        while let Some((nodes, state)) = open.last_mut() {
            let Some(node) = nodes.next() else {
                open.pop();
                waiting.pop_if(|(depth, _)| *depth == open.len());
                continue;
            };
            let (choice, state) = filter.decide(&node.path, node.meta.kind, state);
            let directory = node.meta.kind == meta::Kind::Directory;
            let inside = (directory && choice != Choice::Skip).then(|| self.view.read_dir(&node.path)).transpose()?;
            let entry = Entry::of_image(node, role(choice));
            match choice {
                Choice::Take => {
                    entries.extend(waiting.drain(..).map(|(_, entry)| entry));
                    entries.push(entry);
                }
                Choice::IfNeeded | Choice::Way if directory => waiting.push((open.len(), entry)),
                _ => {}
            }
            open.extend(inside.map(|nodes| (nodes.into_iter(), state)));
        }
        Ok(entries)
    }
}

fn role(choice: Choice) -> Role {
    if choice == Choice::Way { Role::Way } else { Role::Own }
}

fn list_host(host: &Path, filter: &Filter<'_>) -> Result<Vec<Entry>> {
    let decide = |path: &ImagePath, kind, state: &State| filter.decide(path, kind, state);
    let listed = scan(host, filter.top, filter.start(), &decide)?;
    Ok(listed.into_iter().map(|(source, choice)| host_entry(source, role(choice))).collect())
}

fn host_entry(mut source: scan::Source, role: Role) -> Entry {
    let meta = match source.special.take() {
        Some(special) => *special,
        None => {
            let sized = matches!(source.kind, meta::Kind::File | meta::Kind::Symlink);
            let mtime = Mtime { secs: source.mtime.0, nanos: source.mtime.1 };
            Meta { mtime, size: if sized { source.size } else { 0 }, ..Meta::new(source.kind, source.mode) }
        }
    };
    let link = (source.nlink > 1 && source.kind != meta::Kind::Directory).then_some((source.dev, source.ino));
    let node = Node { path: source.path.clone(), layer: 0, meta, link };
    Entry { node, listed: Some(source), role, digest: None }
}
