//! What changed in a plain tree: the workspace where overlay mounts are refused.
//!
//! A snapshot remembers of every entry what the kernel changes with it: the inode and its ctime, which nobody can set back. Comparing
//! costs one `stat` an entry and reads no content. Like an overlay's upper directory, the difference holds a directory
//! when something in it changed, and a whole file when anything of it did.

use std::collections::{BTreeMap, HashMap};
use std::os::fd::AsFd;
use std::path::Path;
use std::sync::Arc;
use std::thread;
use std::time::Duration;

use rustix::time::{ClockId, clock_gettime};

use super::meta::{Kind, Meta};
use super::native::NativeTree;
use super::record::Record;
use super::view::{LayerDir, View};
use super::writer::copy_up;
use crate::error::{IoContext, Result};
use crate::oci::ImagePath;
use crate::sys::fs::walk::{Step, Walk};
use crate::sys::fs::{self, FileStat};

/// The state of a tree at one moment.
#[derive(Debug)]
pub struct Snapshot {
    entries: BTreeMap<ImagePath, Seen>,
    record: Arc<Record>,
    root: Meta,
}

/// What a difference holds.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Difference {
    /// Nothing changed.
    pub empty: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Seen {
    ino: u64,
    ctime: (i64, u32),
    mtime: (i64, u32),
    size: u64,
    mode: u32,
}

impl Snapshot {
    /// Remembers the tree in the layer directory `tree`. Waits, a few milliseconds at most, until the clock that files are stamped
    /// with has gone on, so that no later change can look like the present state.
    pub fn take(tree: &Path) -> Result<Self> {
        let mut entries = BTreeMap::new();
        let mut newest = (i64::MIN, 0);
        look(tree, &mut |path, stat| {
            newest = newest.max(stat.ctime);
            entries.insert(path, seen(stat));
        })?;
        while coarse_now() <= newest && newest.0 <= coarse_now().0 {
            thread::sleep(Duration::from_millis(1));
        }
        let view = View::new(vec![LayerDir::open(tree)?]);
        Ok(Self { entries, record: view.layers()[0].record.clone(), root: root_meta(&view)? })
    }

    /// What the tree's record said of entries that are still there, each the same inode under the same name: all that is known where nobody
    /// remembers what became of the others.
    pub fn still_recorded(&self, tree: &Path) -> Result<Record> {
        let path = tree.join("fs");
        let root = fs::open_root(&path).doing("open", &path)?;
        let mut still = Record::default();
        for entry in self.record.entries() {
            let now = match (entry.parent(), entry.name()) {
                (Some(parent), Some(name)) => match fs::open_dir_below(root.as_fd(), parent.as_bytes()) {
                    Ok(dir) => fs::stat_if_any(&dir, name).doing("read", &path)?,
                    Err(_) => None,
                },
                _ => Some(fs::stat_fd(root.as_fd()).doing("read", &path)?),
            };
            // A number may be used again at once; nobody writes to a symlink, so that a new one has another time.
            let same = |then: &Seen, now: &FileStat| {
                let kind = file_type(now.mode);
                then.ino == now.ino && file_type(then.mode) == kind && (kind != fs::FileType::Symlink || then.mtime == now.mtime)
            };
            if let (Some(then), Some(now)) = (self.entries.get(entry), now)
                && same(then, &now)
            {
                still.adopt(entry, &self.record, entry);
            }
        }
        Ok(still)
    }

    /// Writes what changed in `tree` (the same one, sealed) since the snapshot as the layer directory `into`. The tree stays as it is.
    pub fn diff(&self, tree: &Path, into: &Path) -> Result<Difference> {
        let mut now = BTreeMap::new();
        look(tree, &mut |path, stat| {
            now.insert(path, seen(stat));
        })?;
        let view = View::new(vec![LayerDir::open(tree)?]);
        let record = view.layers()[0].record.clone();
        let mut difference = Layer { view: &view, out: NativeTree::create(into)?, first_names: HashMap::new(), empty: true };
        let is_changed = |path: &ImagePath, seen: &Seen| {
            let same = self.entries.get(path) == Some(seen);
            !same || !self.record.agrees(&record, path)
        };
        let root = root_meta(&view)?;
        difference.out.put_dir(&ImagePath::root(), &root)?;
        if root.same_but_for_times(&self.root) {
            difference.out.record_mut().implicit.insert(ImagePath::root());
        } else {
            difference.empty = false;
        }
        for (path, _) in now.iter().filter(|(path, seen)| is_changed(path, seen)) {
            difference.put(path)?;
        }
        for path in self.entries.keys().filter(|path| !now.contains_key(path)) {
            difference.whiteout(path, &now)?;
        }
        let empty = difference.empty;
        difference.out.finish()?;
        Ok(Difference { empty })
    }
}

struct Layer<'a> {
    view: &'a View,
    out: NativeTree,
    first_names: HashMap<(u64, u64), ImagePath>,
    empty: bool,
}

impl Layer<'_> {
    fn put(&mut self, path: &ImagePath) -> Result<()> {
        let Some(node) = self.view.lookup(path)? else { return Ok(()) };
        if path.is_root() {
            // Its ctime changes with every entry in it; `diff` has compared what it says.
            return Ok(());
        }
        self.parents(path)?;
        self.empty = false;
        if node.meta.kind == Kind::Directory {
            return self.out.put_dir(path, &node.meta);
        }
        if let Some(link) = node.link {
            if let Some(first) = self.first_names.get(&link) {
                return self.out.link(first, path).map(drop);
            }
            self.first_names.insert(link, path.clone());
        }
        copy_up(&mut self.out, self.view, &node)
    }

    fn whiteout(&mut self, path: &ImagePath, now: &BTreeMap<ImagePath, Seen>) -> Result<()> {
        // What went with its directory needs no mark of its own.
        let parent = path.parent().unwrap_or_default();
        if !now.get(&parent).is_some_and(is_dir) {
            return Ok(());
        }
        self.empty = false;
        self.parents(path)?;
        self.out.whiteout(path)
    }

    /// Copies up the directories above.
    fn parents(&mut self, path: &ImagePath) -> Result<()> {
        for dir in path.ancestors() {
            if self.out.dir(&dir)?.is_none()
                && let Some(node) = self.view.lookup(&dir)?
            {
                self.out.put_dir(&dir, &node.meta)?;
            }
        }
        Ok(())
    }
}

fn look(tree: &Path, visit: &mut dyn FnMut(ImagePath, &FileStat)) -> Result<()> {
    let path = tree.join("fs");
    let root = fs::open_root(&path).doing("open", &path)?;
    visit(ImagePath::root(), &fs::stat_fd(root.as_fd()).doing("read", &path)?);
    let is_fuse = fs::is_fuse(&root);
    let mut walk = Walk::new(root).doing("read", &path)?;
    while let Some(step) = walk.step().doing("read", &path)? {
        match step {
            Step::Leave => walk.ascend().doing("read", &path)?,
            Step::Entry(entry) => {
                if is_fuse {
                    fs::refresh(walk.dir(), &*entry.name);
                }
                let stat = fs::stat_at(walk.dir(), &*entry.name).doing("read", &path)?;
                visit(ImagePath::clean(walk.path()), &stat);
                if stat.is_dir() {
                    walk.descend(&entry).doing("read", &path)?;
                }
            }
        }
    }
    Ok(())
}

fn seen(stat: &FileStat) -> Seen {
    Seen { ino: stat.ino, ctime: stat.ctime, mtime: stat.mtime, size: stat.size, mode: stat.mode }
}

fn is_dir(seen: &Seen) -> bool {
    file_type(seen.mode) == fs::FileType::Directory
}

fn file_type(mode: u32) -> fs::FileType {
    fs::FileType::from_raw_mode(mode)
}

fn root_meta(view: &View) -> Result<Meta> {
    Ok(view.lookup(&ImagePath::root())?.map_or_else(|| Meta::new(Kind::Directory, 0o755), |node| node.meta))
}

/// The clock that files are stamped with.
fn coarse_now() -> (i64, u32) {
    let now = clock_gettime(ClockId::RealtimeCoarse);
    (now.tv_sec, u32::try_from(now.tv_nsec).unwrap_or_default())
}
