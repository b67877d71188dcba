//! A listing of host files, such as a build context, made by several threads: one `stat` an entry, no content read.

use std::os::fd::{AsFd, OwnedFd};
use std::path::Path;
use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};
use std::thread;

use super::assemble::check_length;
use super::entry;
use super::meta::{Kind, Meta};
use super::record::Record;
use crate::error::{Error, IoContext, Result, quote_path};
use crate::oci::ImagePath;
use crate::sys::fs::xattr::{self, Target};
use crate::sys::fs::{self, FileStat};

/// More threads than this only wait for each other in the kernel.
const MAX_THREADS: usize = 8;

/// Whether an entry is taken.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Selection {
    /// It is.
    Take,
    /// It is if something below it is.
    IfNeeded,
    /// It is if something below it is, and then only as the way there: what it is itself counts little.
    Way,
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
    /// What a directory's extended attributes make of it, if it has any that count. Those of files are read with their content.
    pub special: Option<Box<Meta>>,
}

impl Source {
    /// What is at a path below a directory.
    pub fn of(root: &Path, path: &ImagePath) -> Result<Self> {
        let root_fd = fs::open_root(root).doing("open", root)?;
        let stat = fs::stat_at(&root_fd, path.as_relative()).map_err(|e| trouble(root, path, e))?;
        Ok(source(path.clone(), &stat))
    }
}

/// Decides about an entry, called from any thread. Gives back what is known of it for what lies in it, and gets that of the directory
/// it lies in.
pub type Select<'a, S> = &'a (dyn Fn(&ImagePath, Kind, &S) -> (Selection, S) + Sync);

/// Lists `from`, which is below `root`, and everything below it that is selected; parents first, sorted by name. Follows no symlink
/// in or below `from`; `from` itself is always taken, and `state` is what is known of it. Empty if it does not exist.
///
/// Directories that are taken only for what is below them are left out if nothing is.
pub fn scan<S: Clone + Send + Sync>(root: &Path, from: &ImagePath, state: S, select: Select<'_, S>) -> Result<Vec<(Source, Selection)>> {
    let root_fd = fs::open_root(root).doing("open", root)?;
    let Some(stat) = fs::stat_if_any(&root_fd, from.as_relative()).map_err(|e| trouble(root, from, e))? else { return Ok(Vec::new()) };
    let first = source(from.clone(), &stat);
    if first.kind != Kind::Directory {
        return Ok(vec![(first, Selection::Take)]);
    }
    let work = Work { root, root_fd, select, state: Mutex::new(State::new()), changed: Condvar::new() };
    work.lock().push_dir(from.clone(), state);
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
    Ok(state.collect(first))
}

struct Work<'a, S> {
    root: &'a Path,
    root_fd: OwnedFd,
    select: Select<'a, S>,
    state: Mutex<State<S>>,
    changed: Condvar,
}

/// An entry of a directory; `dir` is the number of a directory to look into.
struct Met {
    source: Source,
    selection: Selection,
    dir: Option<usize>,
}

/// An entry, what was decided about it, and what is known of it.
type Chosen<S> = (Source, Selection, S);

/// What a directory is, if that is special, and what it holds.
type Contents<S> = (Option<Box<Meta>>, Vec<Chosen<S>>);

/// What is kept of a directory.
#[derive(Default)]
struct Listed {
    /// Sorted by name.
    entries: Vec<Met>,
    special: Option<Box<Meta>>,
}

struct State<S> {
    todo: Vec<(usize, ImagePath, S)>,
    /// Directories being read; when there is none and nothing to do, all is done.
    busy: usize,
    listed: Vec<Listed>,
    entries: usize,
    error: Option<Error>,
}

impl<S> State<S> {
    fn new() -> Self {
        Self { todo: Vec::new(), busy: 0, listed: Vec::new(), entries: 0, error: None }
    }

    fn push_dir(&mut self, path: ImagePath, state: S) -> usize {
        let number = self.listed.len();
        self.listed.push(Listed::default());
        self.todo.push((number, path, state));
        number
    }

    fn add(&mut self, number: usize, (special, entries): Contents<S>) {
        self.entries += entries.len();
        let met = entries.into_iter().map(|(source, selection, state)| {
            let dir = (source.kind == Kind::Directory).then(|| self.push_dir(source.path.clone(), state));
            Met { source, selection, dir }
        });
        let entries = met.collect();
        self.listed[number] = Listed { entries, special };
    }

    /// Puts the directories together. Sorting names within directories costs far less than sorting whole paths.
    fn collect(mut self, first: Source) -> Vec<(Source, Selection)> {
        let mut all = Vec::with_capacity(self.entries + 1);
        // Directories on the present path that wait for something to be taken below them, and how deep they lie.
        let mut waiting: Vec<(usize, (Source, Selection))> = Vec::new();
        let mut open = Vec::new();
        let mut enter = |all: &mut Vec<(Source, Selection)>, waiting: &mut Vec<_>, depth: usize, met: Met| {
            let mut source = met.source;
            let inside = met.dir.map(|dir| std::mem::take(&mut self.listed[dir]));
            let entries = inside.map(|inside| {
                source.special = inside.special;
                inside.entries.into_iter()
            });
            if met.selection == Selection::Take {
                all.extend(waiting.drain(..).map(|(_, entry)| entry));
                all.push((source, Selection::Take));
            } else {
                waiting.push((depth, (source, met.selection)));
            }
            entries
        };
        open.extend(enter(&mut all, &mut waiting, 0, Met { source: first, selection: Selection::Take, dir: Some(0) }));
        while let Some(entries) = open.last_mut() {
            let Some(met) = entries.next() else {
                open.pop();
                // Still there: nothing below it was taken.
                waiting.pop_if(|(depth, _)| *depth == open.len());
                continue;
            };
            let depth = open.len();
            open.extend(enter(&mut all, &mut waiting, depth, met));
        }
        all
    }
}

impl<S: Clone + Send + Sync> Work<'_, S> {
    fn lock(&self) -> MutexGuard<'_, State<S>> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn run(&self) {
        let mut state = self.lock();
        loop {
            if state.error.is_some() {
                return;
            }
            let Some((number, path, known)) = state.todo.pop() else {
                if state.busy == 0 {
                    return;
                }
                state = self.changed.wait(state).unwrap_or_else(PoisonError::into_inner);
                continue;
            };
            state.busy += 1;
            drop(state);
            let read = self.read_dir(&path, &known);
            state = self.lock();
            state.busy -= 1;
            match read {
                Ok(contents) => state.add(number, contents),
                Err(error) => drop(state.error.get_or_insert(error)),
            }
            self.changed.notify_all();
        }
    }

    fn read_dir(&self, path: &ImagePath, known: &S) -> Result<Contents<S>> {
        let failed = |e| trouble(self.root, path, e);
        let dir = fs::open_dir_below(&self.root_fd, path.as_bytes()).map_err(failed)?;
        let mut entries = Vec::new();
        for found in fs::list(dir.as_fd()).map_err(failed)? {
            let child = path.child(&found.name);
            // One that vanished since it was listed is not there.
            let Some(stat) = fs::stat_if_any(&dir, &*found.name).map_err(|e| trouble(self.root, &child, e))? else { continue };
            let source = source(child, &stat);
            let (selection, state) = (self.select)(&source.path, source.kind, known);
            let wanted = match selection {
                Selection::Take => true,
                Selection::IfNeeded | Selection::Way => source.kind == Kind::Directory,
                Selection::Skip => false,
            };
            if wanted {
                check_length(&source.path)?;
                entries.push((source, selection, state));
            }
        }
        Ok((
            special(&dir, path).map_err(|e| e.context(format!("can't read {}", quote_path(&self.root.join(path.as_relative())))))?,
            entries,
        ))
    }
}

/// What a directory is, if its extended attributes say anything about that.
fn special(dir: &OwnedFd, path: &ImagePath) -> Result<Option<Box<Meta>>> {
    let target = Target::Fd(dir.as_fd());
    let unread = |e| Error::os("can't read the extended attributes of a directory", e);
    if xattr::list(target).map_err(unread)?.is_empty() {
        return Ok(None);
    }
    let stat = fs::stat_fd(dir).map_err(unread)?;
    let meta = entry::read(target, &stat, &Record::default(), path)?.meta;
    Ok((!meta.xattrs.is_empty() || meta.needed_override().is_some()).then(|| Box::new(meta)))
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
        special: None,
    }
}

fn trouble(root: &Path, path: &ImagePath, cause: std::io::Error) -> Error {
    Error::os(format!("can't read {}", quote_path(&root.join(path.as_relative()))), cause)
}
