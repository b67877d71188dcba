//! A listing of host files, such as a build context, made by several threads: one `stat` an entry, no content read.

use std::os::fd::{AsFd, OwnedFd};
use std::path::Path;
use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};
use std::thread;

use super::entry;
use super::meta::Kind;
use crate::error::{Error, IoContext, Result, quote_path};
use crate::oci::ImagePath;
use crate::sys::fs::{self, FileStat};

/// More threads than this only wait for each other in the kernel.
const MAX_THREADS: usize = 8;

/// Whether an entry is taken.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Selection {
    /// It is.
    Take,
    /// It is not, but something below it may be.
    Descend,
    /// Neither it is nor anything below it.
    Skip,
}

/// A host file, directory or other entry, as it was when it was listed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Source {
    /// Where, below the root that was listed; a host path here, not an image's.
    pub path: ImagePath,
    /// Type.
    pub kind: Kind,
    /// Permission bits, 0o7777 at most.
    pub mode: u32,
    /// Bytes of content or of a symlink's target.
    pub size: u64,
    /// Last change of content: seconds and nanoseconds.
    pub mtime: (i64, u32),
    /// Last change of anything: seconds and nanoseconds.
    pub ctime: (i64, u32),
    /// With `ino` the file's identity.
    pub dev: u64,
    /// See `dev`.
    pub ino: u64,
    /// How many names it has.
    pub nlink: u64,
}

/// Decides about an entry, called from any thread.
pub type Select<'a> = &'a (dyn Fn(&ImagePath, Kind) -> Selection + Sync);

/// Lists `from`, which is below `root`, and everything below it that is selected; parents first, sorted by name. Follows no symlink
/// in or below `from`; `from` itself is always taken. Empty if it does not exist.
pub fn scan(root: &Path, from: &ImagePath, select: Select<'_>) -> Result<Vec<Source>> {
    let root_fd = fs::open_root(root).doing("open", root)?;
    let Some(stat) = fs::stat_if_any(&root_fd, from.as_relative()).map_err(|e| trouble(root, from, e))? else { return Ok(Vec::new()) };
    let first = source(from.clone(), &stat);
    if first.kind != Kind::Directory {
        return Ok(vec![first]);
    }
    let work = Work { root, root_fd, select, state: Mutex::default(), changed: Condvar::new() };
    work.lock().push_dir(from.clone());
    let threads = thread::available_parallelism().map_or(1, std::num::NonZero::get).min(MAX_THREADS);
    thread::scope(|scope| {
        for _ in 1..threads {
            scope.spawn(|| work.run());
        }
        work.run();
    });
    let mut state = work.state.into_inner().unwrap_or_else(PoisonError::into_inner);
    if let Some(error) = state.error.take() {
        return Err(error);
    }
    let mut all = vec![first];
    state.collect(&mut all);
    Ok(all)
}

struct Work<'a> {
    root: &'a Path,
    root_fd: OwnedFd,
    select: Select<'a>,
    state: Mutex<State>,
    changed: Condvar,
}

/// An entry of a directory; `taken` entries are listed, `dir` is the number of a directory to look into.
struct Met {
    taken: Option<Source>,
    dir: Option<usize>,
}

#[derive(Default)]
struct State {
    todo: Vec<(usize, ImagePath)>,
    /// Directories being read; when there is none and nothing to do, all is done.
    busy: usize,
    /// Each directory's entries, sorted by name.
    listed: Vec<Vec<Met>>,
    error: Option<Error>,
}

impl State {
    fn push_dir(&mut self, path: ImagePath) -> usize {
        let number = self.listed.len();
        self.listed.push(Vec::new());
        self.todo.push((number, path));
        number
    }

    /// Puts the directories together. Sorting names within directories costs far less than sorting whole paths.
    fn collect(mut self, all: &mut Vec<Source>) {
        let mut open = vec![std::mem::take(&mut self.listed[0]).into_iter()];
        while let Some(entries) = open.last_mut() {
            let Some(met) = entries.next() else {
                open.pop();
                continue;
            };
            all.extend(met.taken);
            if let Some(dir) = met.dir {
                open.push(std::mem::take(&mut self.listed[dir]).into_iter());
            }
        }
    }
}

impl Work<'_> {
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn run(&self) {
        let mut state = self.lock();
        loop {
            if state.error.is_some() {
                return;
            }
            let Some((number, path)) = state.todo.pop() else {
                if state.busy == 0 {
                    return;
                }
                state = self.changed.wait(state).unwrap_or_else(PoisonError::into_inner);
                continue;
            };
            state.busy += 1;
            drop(state);
            let read = self.read_dir(&path);
            state = self.lock();
            state.busy -= 1;
            match read {
                Ok(entries) => state.add(number, entries),
                Err(error) => drop(state.error.get_or_insert(error)),
            }
            self.changed.notify_all();
        }
    }

    fn read_dir(&self, path: &ImagePath) -> Result<Vec<(Source, Selection)>> {
        let failed = |e| trouble(self.root, path, e);
        let dir = fs::open_dir(&self.root_fd, path.as_relative()).map_err(failed)?;
        let mut entries = Vec::new();
        for found in fs::list(dir.as_fd()).map_err(failed)? {
            let child = path.child(&found.name);
            // One that vanished since it was listed is not there.
            let Some(stat) = fs::stat_if_any(&dir, &*found.name).map_err(|e| trouble(self.root, &child, e))? else { continue };
            let source = source(child, &stat);
            match (self.select)(&source.path, source.kind) {
                Selection::Skip => {}
                Selection::Descend if source.kind != Kind::Directory => {}
                selection => entries.push((source, selection)),
            }
        }
        Ok(entries)
    }
}

impl State {
    fn add(&mut self, number: usize, entries: Vec<(Source, Selection)>) {
        let met = entries
            .into_iter()
            .map(|(source, selection)| {
                let dir = (source.kind == Kind::Directory).then(|| self.push_dir(source.path.clone()));
                Met { taken: (selection == Selection::Take).then_some(source), dir }
            })
            .collect();
        self.listed[number] = met;
    }
}

pub(super) fn source(path: ImagePath, stat: &FileStat) -> Source {
    Source {
        path,
        kind: entry::kind(stat),
        mode: stat.permissions(),
        size: stat.size,
        mtime: stat.mtime,
        ctime: stat.ctime,
        dev: stat.dev,
        ino: stat.ino,
        nlink: stat.nlink,
    }
}

pub(super) fn trouble(root: &Path, path: &ImagePath, cause: std::io::Error) -> Error {
    Error::os(format!("can't read {}", quote_path(&root.join(path.as_relative()))), cause)
}
