//! What a fakeroot program pretended about owners, modes and devices, made to last: its save file to overrides, and back.
//!
//! A save file knows inodes by numbers that hold for one mount only, so both ways are gone inside, by PID 1: before the command starts,
//! overrides of the layers below become the file that the program loads; when it has ended, what it saved becomes overrides.
//!
//! The format (fakeroot's `faked.c`): a line `dev=2e,ino=77,mode=104755,uid=33,gid=33,nlink=1,rdev=0` for each inode, the first in hexadecimal, the
//! mode in octal with its type, the others decimal. Only what lies in the root's own mount is looked at.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::ffi::{CStr, CString};
use std::fmt::{self, Write as _};
use std::fs::OpenOptions;
use std::io::{self, ErrorKind, Write as _};
use std::os::fd::{AsFd, BorrowedFd};
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;
use std::str::FromStr;

use rustix::fs::{AtFlags, CWD, StatxFlags, XattrFlags};
use serde::{Deserialize, Serialize};

use crate::error::{Error, IoContext, Result, quote};
use crate::oci::ImagePath;
use crate::rootemu::attributes::read_override;
use crate::rootemu::paths::Follow;
use crate::rootemu::spec::{EmulationSpec, Report};
use crate::rootfs::meta::{Kind, OVERRIDE_XATTR, Override};
use crate::rootfs::record::{self, Record};
use crate::sys::fs::walk::{Step, Walk};
use crate::sys::fs::{self, FileStat};

/// Where a fakeroot program keeps what it pretends, and what becomes of that.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Pretence {
    /// The file, inside; it exists, and is no part of the layer.
    pub file: String,
    /// What becomes of what is in it when the command has ended.
    pub after: After,
}

/// What becomes of what was pretended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum After {
    /// It lasts.
    Kept,
    /// It is forgotten, as the tree is.
    Dropped,
}

/// What is pretended of an inode.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Line {
    inode: Inode,
    /// With the type.
    mode: u32,
    uid: u32,
    gid: u32,
    links: u64,
    device: u64,
}

/// Which inode, in the mount that both ways are gone in.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
struct Inode {
    device: u64,
    number: u64,
}

impl Inode {
    fn of(stat: &FileStat) -> Self {
        Self { device: stat.dev, number: stat.ino }
    }
}

impl fmt::Display for Line {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { inode: Inode { device, number }, mode, uid, gid, links, device: special } = self;
        write!(f, "dev={device:x},ino={number},mode={mode:o},uid={uid},gid={gid},nlink={links},rdev={special}")
    }
}

impl FromStr for Line {
    type Err = ();

    fn from_str(line: &str) -> Result<Self, ()> {
        let mut fields = line.trim_end().split(',');
        let mut field = |name: &str, radix| {
            let value = fields.next().and_then(|field| field.strip_prefix(name)?.strip_prefix('='));
            value.and_then(|digits| u64::from_str_radix(digits, radix).ok()).ok_or(())
        };
        let inode = Inode { device: field("dev", 16)?, number: field("ino", 10)? };
        let mut small = |name: &str, radix| u32::try_from(field(name, radix)?).map_err(drop);
        let (mode, uid, gid) = (small("mode", 8)?, small("uid", 10)?, small("gid", 10)?);
        Ok(Self { inode, mode, uid, gid, links: field("nlink", 10)?, device: field("rdev", 10)? })
    }
}

impl Line {
    /// What an override says of an inode.
    fn new(stat: &FileStat, over: &Override) -> Self {
        let (kind, device) = match over.device {
            Some(Kind::CharDevice { major, minor }) => (libc::S_IFCHR, rustix::fs::makedev(major, minor)),
            Some(Kind::BlockDevice { major, minor }) => (libc::S_IFBLK, rustix::fs::makedev(major, minor)),
            _ => (stat.mode & libc::S_IFMT, 0),
        };
        Self { inode: Inode::of(stat), mode: kind | (over.mode & 0o7777), uid: over.uid, gid: over.gid, links: stat.nlink, device }
    }

    /// Whether it says something new. Of root's files only those matter whose owner was another before, or whose mode can't be native.
    fn matters(&self, told: Option<&Self>) -> bool {
        let said = |line: &Self| (line.mode, line.uid, line.gid, line.device);
        match told {
            Some(told) => said(told) != said(self),
            None => (self.uid, self.gid) != (0, 0) || locks_out(self.mode) || self.device != 0,
        }
    }

    /// What it says of a file that is natively `stat`; `None` if it speaks of another kind of file, whose number was used again.
    fn over(&self, stat: &FileStat) -> Option<Override> {
        let (major, minor) = (rustix::fs::major(self.device), rustix::fs::minor(self.device));
        let device = match self.mode & libc::S_IFMT {
            libc::S_IFCHR => Some(Kind::CharDevice { major, minor }),
            libc::S_IFBLK => Some(Kind::BlockDevice { major, minor }),
            _ => None,
        };
        let native = if device.is_some() { libc::S_IFREG } else { self.mode & libc::S_IFMT };
        (stat.mode & libc::S_IFMT == native).then_some(Override { uid: self.uid, gid: self.gid, mode: self.mode & 0o7777, device })
    }
}

/// The lines of a text; what is none, such as one that was being written when its writer died, is left out.
fn lines(text: &str) -> HashMap<Inode, Line> {
    text.lines().filter_map(|line| line.parse::<Line>().ok()).map(|line| (line.inode, line)).collect()
}

/// What was true before the command started.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Before {
    /// What the program was told.
    told: String,
    /// Device and number of what the layers' records speak of, by escaped path.
    recorded: BTreeMap<String, (u64, u64)>,
}

/// Writes the file that the program loads.
pub fn recall(spec: &EmulationSpec, pretence: &Pretence) -> Result<Before> {
    let layers = spec.layers();
    let mut before = Before::default();
    each(&mut |entry| {
        let mut over = if entry.holds_attributes() { read_override(&entry.path, Follow::No) } else { None };
        if !layers.is_empty() {
            let path = entry.image_path();
            over = over.or(layers.overrides.get(&path).copied());
            if layers.speaks_of(&path) {
                let Inode { device, number } = Inode::of(&entry.stat()?);
                before.recorded.insert(record::escape(&path), (device, number));
            }
        }
        if let Some(over) = over {
            let _ = writeln!(before.told, "{}", Line::new(&entry.stat()?, &over));
        }
        Ok(Going::On)
    })
    .map_err(|e| e.context("can't tell fakeroot who owns what"))?;
    let path = Path::new(&pretence.file);
    let file = OpenOptions::new().write(true).truncate(true).custom_flags(libc::O_NOFOLLOW).open(path);
    file.and_then(|mut file| file.write_all(before.told.as_bytes())).doing("write", path)?;
    Ok(before)
}

/// Makes what was saved last: overrides of files and directories, a report if it is of others. `before` is what [`recall`] gave.
pub fn keep(spec: &EmulationSpec, pretence: &Pretence, before: &Before) -> Result<Option<Report>> {
    let path = Path::new(&pretence.file);
    let saved = match std::fs::read_to_string(path) {
        // Somebody removed it, or wrote something else: nothing is known.
        Err(e) if matches!(e.kind(), ErrorKind::NotFound | ErrorKind::InvalidData) => return Ok(None),
        saved => saved.doing("read", path)?,
    };
    let (told, mut changed) = (lines(&before.told), lines(&saved));
    let mut left = Record::default();
    let mut moved = HashSet::new();
    for (path, (device, number)) in &before.recorded {
        let Some(path) = record::unescape(path) else { continue };
        let inode = Inode { device: *device, number: *number };
        match fs::stat_if_any(CWD, [b"/", path.as_bytes()].concat()) {
            Ok(Some(stat)) if Inode::of(&stat) == inode => left.adopt(&path, spec.layers(), &path),
            _ => drop(moved.insert(inode)),
        }
    }
    changed.retain(|inode, line| moved.contains(inode) || line.matters(told.get(inode)));
    let mut keeper = Keeper { left: changed.values().map(|line| line.links.max(1)).sum(), changed, report: BTreeMap::new() };
    if keeper.left > 0 {
        each(&mut |entry| keeper.entry(entry)).map_err(|e| e.context("can't keep the owners that fakeroot pretended"))?;
    }
    if keeper.report.is_empty() && moved.is_empty() {
        return Ok(None);
    }
    left.overrides.extend(keeper.report);
    Ok(Some(Report::new(left, [], BTreeMap::new())))
}

/// Whether the user could not read and delete something of this mode in their storage, so that its native mode is another.
fn locks_out(mode: u32) -> bool {
    let needed = match mode & libc::S_IFMT {
        libc::S_IFDIR => 0o700,
        libc::S_IFLNK | libc::S_IFIFO => 0,
        _ => 0o600,
    };
    mode & needed != needed
}

struct Keeper {
    changed: HashMap<Inode, Line>,
    /// How many names are still to be met; directories and what lies in other mounts make it too large, which costs only time.
    left: u64,
    report: BTreeMap<ImagePath, Override>,
}

impl Keeper {
    fn entry(&mut self, entry: &Entry<'_>) -> Result<Going> {
        let stat = entry.stat()?;
        let Some(line) = self.changed.get(&Inode::of(&stat)) else { return Ok(Going::On) };
        let Some(over) = line.over(&stat) else { return Ok(Going::On) };
        let counted = if stat.is_dir() { line.links.max(1) } else { 1 };
        self.left = self.left.saturating_sub(counted);
        if entry.in_root_mount() {
            self.set(entry, &stat, over)?;
        }
        Ok(if self.left == 0 { Going::Enough } else { Going::On })
    }

    fn set(&mut self, entry: &Entry<'_>, stat: &FileStat, over: Override) -> Result<()> {
        if !entry.holds_attributes() {
            // Written again with the time it has, so that it is in the layer whose record names its owner.
            fs::set_mtime_at(entry.dir, entry.name, stat.mtime).map_err(failed("change", &entry.path))?;
            self.report.insert(entry.image_path(), over);
            return Ok(());
        }
        let plain = (over.uid, over.gid) == (0, 0) && over.device.is_none() && !locks_out(stat.mode & libc::S_IFMT | over.mode);
        let set = match plain {
            true => rustix::fs::lremovexattr(&entry.path, OVERRIDE_XATTR),
            false => rustix::fs::lsetxattr(&entry.path, OVERRIDE_XATTR, over.to_string().as_bytes(), XattrFlags::empty()),
        };
        match set {
            Ok(()) => {}
            Err(rustix::io::Errno::NODATA) if plain => {}
            // A file system without attributes: whoever makes the layer keeps it elsewhere.
            Err(rustix::io::Errno::NOTSUP) => drop(self.report.insert(entry.image_path(), over)),
            Err(error) => return Err(failed("set the owner of", &entry.path)(error)),
        }
        // What needs no override has its mode natively.
        if plain && stat.mode & 0o7777 != over.mode {
            let mode = rustix::fs::Mode::from_raw_mode(over.mode);
            rustix::fs::chmodat(CWD, &entry.path, mode, AtFlags::empty()).map_err(failed("change the mode of", &entry.path))?;
        }
        Ok(())
    }
}

/// Whether a walk goes on.
#[derive(PartialEq, Eq)]
enum Going {
    On,
    Enough,
}

/// A file, met in the root's mount or as a mount point in it.
struct Entry<'a> {
    dir: BorrowedFd<'a>,
    name: &'a [u8],
    path: CString,
    kind: fs::FileType,
    /// The root's mount.
    mount: Option<u64>,
}

impl Entry<'_> {
    fn stat(&self) -> Result<FileStat> {
        fs::stat_at(self.dir, self.name).map_err(failed("read", &self.path))
    }

    fn holds_attributes(&self) -> bool {
        matches!(self.kind, fs::FileType::RegularFile | fs::FileType::Directory)
    }

    fn image_path(&self) -> ImagePath {
        ImagePath::clean(self.path.as_bytes())
    }

    /// Whether it lies in the root's mount and not in one that covers it.
    fn in_root_mount(&self) -> bool {
        self.mount.is_none() || mount_of(&self.path) == self.mount
    }
}

/// An error on a file of the image.
fn failed<E: Into<io::Error>>(verb: &str, path: &CStr) -> impl FnOnce(E) -> Error {
    move |e| Error::os(format!("can't {verb} {}", quote(path.to_bytes())), e)
}

/// The mount that something lies in; `None` where the kernel does not tell (before 5.8).
fn mount_of(path: &CStr) -> Option<u64> {
    let stat = rustix::fs::statx(CWD, path, AtFlags::SYMLINK_NOFOLLOW, StatxFlags::MNT_ID).ok()?;
    (stat.stx_mask & StatxFlags::MNT_ID.bits() != 0).then_some(stat.stx_mnt_id)
}

/// Goes through everything in the root's mount, the root itself first.
fn each(visit: &mut dyn FnMut(&Entry<'_>) -> Result<Going>) -> Result<()> {
    let root = fs::open_root(Path::new("/")).map_err(failed("open", c"/"))?;
    let device = fs::stat_fd(&root).map_err(failed("read", c"/"))?.dev;
    let mount = mount_of(c"/");
    let top = Entry { dir: root.as_fd(), name: b".", path: c"/".to_owned(), kind: fs::FileType::Directory, mount };
    if visit(&top)? == Going::Enough {
        return Ok(());
    }
    let mut walk = Walk::new(root).map_err(failed("read", c"/"))?;
    while let Some(step) = walk.step().map_err(failed("read", c"/"))? {
        let met = match step {
            Step::Entry(met) => met,
            Step::Leave => {
                walk.ascend().map_err(failed("read", c"/"))?;
                continue;
            }
        };
        // The kernel gives no names with NUL.
        let Ok(path) = CString::new([b"/", walk.path()].concat()) else { continue };
        let mut entry = Entry { dir: walk.dir(), name: &met.name, path, kind: met.file_type(), mount };
        if entry.kind == fs::FileType::Unknown {
            entry.kind = entry.stat()?.file_type();
        }
        if visit(&entry)? == Going::Enough {
            return Ok(());
        }
        // What is too deep to be named by a path is not in any mount here.
        if entry.kind == fs::FileType::Directory && entry.in_root_mount() && (mount.is_some() || entry.stat()?.dev == device) {
            let path = entry.path;
            walk.descend(&met).map_err(failed("open", &path))?;
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn stat(mode: u32) -> FileStat {
        let mut stat = fs::stat_at(CWD, c"/").unwrap();
        (stat.dev, stat.ino, stat.nlink, stat.mode) = (0x2e, 77, 1, mode);
        stat
    }

    #[test]
    fn lines_are_fakeroots() {
        for text in [
            "dev=2e,ino=2629890,mode=104755,uid=33,gid=33,nlink=1,rdev=0",
            "dev=2d,ino=21,mode=40000,uid=0,gid=0,nlink=2,rdev=0",
            "dev=fd00000000001,ino=18446744073709551615,mode=20644,uid=4294967295,gid=0,nlink=1,rdev=259",
        ] {
            assert_eq!(text.parse::<Line>().unwrap().to_string(), text);
        }
        for text in
            ["", "dev=2e", "dev=2e,ino=1,mode=9,uid=0,gid=0,nlink=1,rdev=0", "dev=2e,ino=1,mode=100644,uid=4294967296,gid=0,nlink=1,rdev=0"]
        {
            assert!(text.parse::<Line>().is_err(), "{text}");
        }
        assert_eq!(lines("dev=1,ino=2,mode=100644,uid=1,gid=1,nlink=1,rdev=0\ndev=1,ino=3,mo").len(), 1);
    }

    #[test]
    fn overrides_and_lines_say_the_same() {
        let device = Kind::CharDevice { major: 1, minor: 3 };
        for (native, over, line) in [
            (
                0o100_600,
                Override { uid: 33, gid: 34, mode: 0o4755, device: None },
                "dev=2e,ino=77,mode=104755,uid=33,gid=34,nlink=1,rdev=0",
            ),
            (0o040_700, Override { uid: 0, gid: 0, mode: 0, device: None }, "dev=2e,ino=77,mode=40000,uid=0,gid=0,nlink=1,rdev=0"),
            (0o120_777, Override { uid: 5, gid: 0, mode: 0o777, device: None }, "dev=2e,ino=77,mode=120777,uid=5,gid=0,nlink=1,rdev=0"),
            (
                0o100_600,
                Override { uid: 0, gid: 6, mode: 0o660, device: Some(device) },
                "dev=2e,ino=77,mode=20660,uid=0,gid=6,nlink=1,rdev=259",
            ),
        ] {
            assert_eq!(Line::new(&stat(native), &over).to_string(), line);
            assert_eq!(line.parse::<Line>().unwrap().over(&stat(native)), Some(over));
        }
        let file: Line = "dev=2e,ino=77,mode=100644,uid=1,gid=1,nlink=1,rdev=0".parse().unwrap();
        assert_eq!(file.over(&stat(0o040_755)), None, "the number of a removed file, used again");
    }
}
