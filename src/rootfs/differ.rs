//! How two layer directories differ: for people, after their tars had different digests.

use std::collections::BTreeMap;
use std::io::{self, BufReader};

use super::archive::{Archive, Body};
use super::meta::{Kind, Meta};
use super::pack::pack_layer;
use super::view::LayerDir;
use crate::error::{Error, Result};
use crate::oci::{Digest, Hasher, ImagePath};

/// An entry as its tar has it.
struct Fact {
    meta: Meta,
    link: Option<Vec<u8>>,
    content: Digest,
}

/// Whether times count.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Clock {
    /// They do.
    Kept,
    /// They don't: the file system does not keep what it is told.
    Lost,
}

/// What is different in `is` from what it `should` be, a line each, sorted by path: `/etc/passwd: its content`. Both are packed for it.
pub fn differences(is: &LayerDir, should: &LayerDir, clock: Clock) -> Result<Vec<String>> {
    let (is, should) = (facts(is)?, facts(should)?);
    let mut lines = Vec::new();
    for (path, wanted) in &should {
        match is.get(path) {
            None => lines.push(format!("{path}: it is missing")),
            Some(fact) => {
                let what = compare(fact, wanted, clock);
                if !what.is_empty() {
                    lines.push(format!("{path}: {}", what.join(", ")));
                }
            }
        }
    }
    lines.extend(is.keys().filter(|path| !should.contains_key(path)).map(|path| format!("{path}: nothing should be there")));
    Ok(lines)
}

fn compare(is: &Fact, should: &Fact, clock: Clock) -> Vec<String> {
    let (a, b) = (&is.meta, &should.meta);
    if (a.kind, is.link.is_some()) != (b.kind, should.link.is_some()) {
        return vec!["it is another kind of file".into()];
    }
    let mut what = Vec::new();
    if is.content != should.content {
        what.push("its content".into());
    }
    if is.link != should.link {
        what.push("its target".into());
    }
    if a.kind != Kind::Symlink && a.mode != b.mode {
        what.push(format!("its mode is {:04o} instead of {:04o}", a.mode, b.mode));
    }
    if (a.uid, a.gid) != (b.uid, b.gid) {
        what.push(format!("its owner is {}:{} instead of {}:{}", a.uid, a.gid, b.uid, b.gid));
    }
    if clock == Clock::Kept && a.mtime != b.mtime {
        what.push("its time".into());
    }
    if a.xattrs != b.xattrs {
        let differs = |name: &&Vec<u8>| a.xattrs.get(*name) != b.xattrs.get(*name);
        let names: std::collections::BTreeSet<_> = a.xattrs.keys().chain(b.xattrs.keys()).filter(differs).collect();
        what.extend(names.iter().map(|name| format!("its attribute {}", crate::error::quote(name))));
    }
    what
}

fn facts(layer: &LayerDir) -> Result<BTreeMap<ImagePath, Fact>> {
    let (reader, writer) = io::pipe().map_err(|e| Error::os("can't make a pipe", e))?;
    std::thread::scope(|scope| {
        // Its end of the pipe closes with the packer, so that the reader ends whatever happens.
        let packing = scope.spawn(move || pack_layer(layer, writer));
        let facts = read(BufReader::with_capacity(1 << 20, reader));
        packing.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic))?;
        facts
    })
}

fn read(tar: impl io::BufRead) -> Result<BTreeMap<ImagePath, Fact>> {
    let mut archive = Archive::new(tar);
    let mut facts = BTreeMap::new();
    while let Some(header) = archive.next_entry()? {
        let mut content = Hasher::new();
        loop {
            let piece = archive.fill()?;
            let count = piece.len();
            if count == 0 {
                break;
            }
            content.update(piece);
            archive.consume(count);
        }
        let link = match header.body {
            Body::Symlink(target) | Body::HardLink(target) => Some(target),
            Body::Plain | Body::Sparse(_) => None,
        };
        facts.insert(ImagePath::clean(&header.name), Fact { meta: header.meta, link, content: content.finish() });
    }
    Ok(facts)
}
