//! stat, lstat, fstat, fstatat, statx: the native answer with the override applied.
//!
//! A file without override costs one getxattr and is left to the kernel.

use nix::errno::Errno;
use rustix::fs::{AtFlags, CWD, Statx, StatxFlags};

use super::attributes::{IDENTITY, read_override};
use super::calls::Layout;
use super::graft;
use super::paths::{Located, locate};
use super::request::{DONE, Outcome, PASS, Request, Scratch};
use crate::rootfs::meta::{Kind, Override};

/// Answers a call that fills in a `struct stat`.
pub fn stat(request: &Request<'_>, scratch: &mut Scratch, layout: Layout) -> Outcome {
    let Some(native) = overridden(request, scratch, AtFlags::empty(), StatxFlags::empty()) else { return PASS };
    let bytes = layout.pack(&native)?;
    request.write(request.operand(0), bytes.as_bytes())?;
    DONE
}

/// Answers statx.
pub fn statx(request: &Request<'_>, scratch: &mut Scratch) -> Outcome {
    let (flags, mask) = (request.operand_int(0), request.operand_int(1));
    // How fresh the answer must be and whether to mount; the rest has been used to find the file.
    let kept = AtFlags::from_bits_retain(flags & !(libc::AT_SYMLINK_NOFOLLOW | libc::AT_EMPTY_PATH) as u32);
    let Some(native) = overridden(request, scratch, kept, StatxFlags::from_bits_retain(mask)) else { return PASS };
    request.write(request.operand(2), pack_statx(&native).as_bytes())?;
    DONE
}

/// The file's attributes with its override applied; `None` if there is none, or the kernel should find the error.
fn overridden(request: &Request<'_>, scratch: &mut Scratch, flags: AtFlags, mask: StatxFlags) -> Option<Statx> {
    let caller = request.caller().ok()?;
    graft::consider(request, caller.process);
    let file = locate(request, &caller, &mut scratch.path).ok()?;
    let recorded = read_override(file.path, file.follow);
    if recorded.is_none() && request.shared.inodes.is_empty() {
        return None;
    }
    let mut native = native(&file, flags, mask)?;
    let recorded = recorded.or_else(|| request.shared.inodes.owner(&native))?;
    apply(&mut native, &recorded);
    Some(native)
}

fn native(file: &Located<'_>, flags: AtFlags, mask: StatxFlags) -> Option<Statx> {
    rustix::fs::statx(CWD, file.path, flags | file.follow.flags(), mask | IDENTITY).ok()
}

fn apply(stat: &mut Statx, recorded: &Override) {
    stat.stx_uid = recorded.uid;
    stat.stx_gid = recorded.gid;
    let mut kind = u32::from(stat.stx_mode) & libc::S_IFMT;
    if kind == libc::S_IFREG
        && let Some((type_bits, major, minor)) = recorded.device.and_then(device_of)
    {
        kind = type_bits;
        (stat.stx_rdev_major, stat.stx_rdev_minor) = (major, minor);
    }
    stat.stx_mode = (kind | recorded.mode) as u16;
}

/// The type bits, major and minor number of a device.
fn device_of(kind: Kind) -> Option<(u32, u32, u32)> {
    match kind {
        Kind::CharDevice { major, minor } => Some((libc::S_IFCHR, major, minor)),
        Kind::BlockDevice { major, minor } => Some((libc::S_IFBLK, major, minor)),
        _ => None,
    }
}

/// A structure being filled in, in the byte order of every supported ABI.
struct Packed {
    bytes: [u8; 256],
    length: usize,
}

impl Packed {
    fn new() -> Self {
        Self { bytes: [0; 256], length: 0 }
    }

    fn put<const N: usize>(&mut self, field: [u8; N]) {
        self.bytes[self.length..self.length + N].copy_from_slice(&field);
        self.length += N;
    }

    fn u16(&mut self, value: u32) -> Result<(), Errno> {
        self.put(u16::try_from(value).map_err(|_| Errno::EOVERFLOW)?.to_le_bytes());
        Ok(())
    }

    /// A 32 bit field for a value that may be larger.
    fn narrow(&mut self, value: u64) -> Result<(), Errno> {
        self.u32(u32::try_from(value).map_err(|_| Errno::EOVERFLOW)?);
        Ok(())
    }

    fn u32(&mut self, value: u32) {
        self.put(value.to_le_bytes());
    }

    fn u64(&mut self, value: u64) {
        self.put(value.to_le_bytes());
    }

    fn skip(&mut self, length: usize) {
        self.length += length;
    }

    fn as_bytes(&self) -> &[u8] {
        &self.bytes[..self.length]
    }
}

/// `dev_t` as the kernel shows it in `st_dev` and `st_rdev`.
fn device(major: u32, minor: u32) -> u32 {
    minor & 0xff | major << 8 | (minor & !0xff) << 12
}

impl Layout {
    fn pack(self, s: &Statx) -> Result<Packed, Errno> {
        match self {
            Self::X86_64 => Ok(pack_x86_64(s)),
            Self::Generic => Ok(pack_generic(s)),
            Self::I386Large => Ok(pack_i386_large(s)),
            Self::I386 => pack_i386(s),
        }
    }
}

fn times(s: &Statx) -> [(i64, u32); 3] {
    [s.stx_atime, s.stx_mtime, s.stx_ctime].map(|t| (t.tv_sec, t.tv_nsec))
}

/// linux/arch/x86/include/uapi/asm/stat.h, `struct stat`, 64 bit.
fn pack_x86_64(s: &Statx) -> Packed {
    let mut p = Packed::new();
    p.u64(device(s.stx_dev_major, s.stx_dev_minor).into());
    p.u64(s.stx_ino);
    p.u64(s.stx_nlink.into());
    p.u32(s.stx_mode.into());
    p.u32(s.stx_uid);
    p.u32(s.stx_gid);
    p.skip(4);
    p.u64(device(s.stx_rdev_major, s.stx_rdev_minor).into());
    p.u64(s.stx_size);
    p.u64(s.stx_blksize.into());
    p.u64(s.stx_blocks);
    for (seconds, nanoseconds) in times(s) {
        p.u64(seconds as u64);
        p.u64(nanoseconds.into());
    }
    p.skip(24);
    p
}

/// linux/include/uapi/asm-generic/stat.h, `struct stat`, 64 bit.
fn pack_generic(s: &Statx) -> Packed {
    let mut p = Packed::new();
    p.u64(device(s.stx_dev_major, s.stx_dev_minor).into());
    p.u64(s.stx_ino);
    p.u32(s.stx_mode.into());
    p.u32(s.stx_nlink);
    p.u32(s.stx_uid);
    p.u32(s.stx_gid);
    p.u64(device(s.stx_rdev_major, s.stx_rdev_minor).into());
    p.skip(8);
    p.u64(s.stx_size);
    p.u32(s.stx_blksize);
    p.skip(4);
    p.u64(s.stx_blocks);
    for (seconds, nanoseconds) in times(s) {
        p.u64(seconds as u64);
        p.u64(nanoseconds.into());
    }
    p.skip(8);
    p
}

/// linux/arch/x86/include/uapi/asm/stat.h, `struct stat64`.
fn pack_i386_large(s: &Statx) -> Packed {
    let mut p = Packed::new();
    p.u64(device(s.stx_dev_major, s.stx_dev_minor).into());
    p.skip(4);
    p.u32(s.stx_ino as u32);
    p.u32(s.stx_mode.into());
    p.u32(s.stx_nlink);
    p.u32(s.stx_uid);
    p.u32(s.stx_gid);
    p.u64(device(s.stx_rdev_major, s.stx_rdev_minor).into());
    p.skip(4);
    p.u64(s.stx_size);
    p.u32(s.stx_blksize);
    p.u64(s.stx_blocks);
    for (seconds, nanoseconds) in times(s) {
        p.u32(seconds as u32);
        p.u32(nanoseconds);
    }
    p.u64(s.stx_ino);
    p
}

/// linux/arch/x86/include/uapi/asm/stat.h, `struct stat`, 32 bit.
fn pack_i386(s: &Statx) -> Result<Packed, Errno> {
    /// What 16 bit callers see for an ID they can't hold (linux/highuid.h).
    const OVERFLOW_ID: u32 = 65534;
    let narrow = |id: u32| if id > 0xffff { OVERFLOW_ID } else { id };
    let mut p = Packed::new();
    p.u32(device(s.stx_dev_major, s.stx_dev_minor));
    p.narrow(s.stx_ino)?;
    p.u16(s.stx_mode.into())?;
    p.u16(s.stx_nlink)?;
    p.u16(narrow(s.stx_uid))?;
    p.u16(narrow(s.stx_gid))?;
    p.u32(device(s.stx_rdev_major, s.stx_rdev_minor));
    p.narrow(s.stx_size)?;
    p.u32(s.stx_blksize);
    p.narrow(s.stx_blocks)?;
    for (seconds, nanoseconds) in times(s) {
        p.u32(seconds as u32);
        p.u32(nanoseconds);
    }
    p.skip(8);
    Ok(p)
}

/// linux/include/uapi/linux/stat.h, `struct statx`.
fn pack_statx(s: &Statx) -> Packed {
    let mut p = Packed::new();
    p.u32(s.stx_mask);
    p.u32(s.stx_blksize);
    p.u64(s.stx_attributes.bits());
    p.u32(s.stx_nlink);
    p.u32(s.stx_uid);
    p.u32(s.stx_gid);
    p.put(s.stx_mode.to_le_bytes());
    p.skip(2);
    p.u64(s.stx_ino);
    p.u64(s.stx_size);
    p.u64(s.stx_blocks);
    p.u64(s.stx_attributes_mask.bits());
    for time in [s.stx_atime, s.stx_btime, s.stx_ctime, s.stx_mtime] {
        p.u64(time.tv_sec as u64);
        p.u32(time.tv_nsec);
        p.skip(4);
    }
    for number in [s.stx_rdev_major, s.stx_rdev_minor, s.stx_dev_major, s.stx_dev_minor] {
        p.u32(number);
    }
    p.u64(s.stx_mnt_id);
    p.u32(s.stx_dio_mem_align);
    p.u32(s.stx_dio_offset_align);
    p.u64(s.stx_subvol);
    for number in [
        s.stx_atomic_write_unit_min,
        s.stx_atomic_write_unit_max,
        s.stx_atomic_write_segments_max,
        s.stx_dio_read_offset_align,
        s.stx_atomic_write_unit_max_opt,
    ] {
        p.u32(number);
    }
    p.length = p.bytes.len();
    p
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn layouts_have_the_kernels_sizes() {
        let stat = rustix::fs::statx(CWD, c"/", AtFlags::empty(), IDENTITY).unwrap();
        for (layout, size) in [(Layout::X86_64, 144), (Layout::Generic, 128), (Layout::I386Large, 96)] {
            assert_eq!(layout.pack(&stat).unwrap().as_bytes().len(), size, "{layout:?}");
        }
        let mut small = stat;
        small.stx_ino = 1;
        assert_eq!(Layout::I386.pack(&small).unwrap().as_bytes().len(), 64);
        let mut large = small;
        large.stx_size = 1 << 33;
        assert_eq!(Layout::I386.pack(&large).err(), Some(Errno::EOVERFLOW));
        assert_eq!(pack_statx(&stat).as_bytes().len(), 256);
    }

    /// Our packing of a native answer is what the kernel itself writes.
    #[test]
    #[cfg(target_arch = "x86_64")]
    fn packs_as_the_kernel() {
        let stat = rustix::fs::statx(CWD, c"/dev/null", AtFlags::empty(), IDENTITY).unwrap();
        let native = rustix::fs::stat(c"/dev/null").unwrap();
        let packed = pack_x86_64(&stat);
        let field = |at: usize| u64::from_le_bytes(packed.as_bytes()[at..at + 8].try_into().unwrap());
        let half = |at: usize| u32::from_le_bytes(packed.as_bytes()[at..at + 4].try_into().unwrap());
        assert_eq!((field(0), field(8), field(16)), (native.st_dev, native.st_ino, native.st_nlink));
        assert_eq!((half(24), half(28), half(32)), (native.st_mode, native.st_uid, native.st_gid));
        assert_eq!((field(40), field(56), field(88)), (native.st_rdev, native.st_blksize as u64, native.st_mtime as u64));
    }
}
