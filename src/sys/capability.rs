//! Capabilities of the calling thread.

use std::io;

/// The three sets, one bit a capability.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Sets {
    /// What is in force.
    pub effective: u64,
    /// What may be brought in force.
    pub permitted: u64,
    /// What may be kept across execve(2).
    pub inheritable: u64,
}

/// `_LINUX_CAPABILITY_VERSION_3`, linux/capability.h.
const VERSION: u32 = 0x2008_0522;

#[repr(C)]
struct Header {
    version: u32,
    pid: i32,
}

#[repr(C)]
#[derive(Clone, Copy, Default)]
struct Data {
    effective: u32,
    permitted: u32,
    inheritable: u32,
}

impl Sets {
    /// This thread's sets. Allocates nothing.
    ///
    /// # Errors
    /// Those of capget(2).
    pub fn read() -> io::Result<Self> {
        let mut header = Header { version: VERSION, pid: 0 };
        let mut data = [Data::default(); 2];
        // SAFETY: version 3 writes two elements of `data`.
        if unsafe { libc::syscall(libc::SYS_capget, &raw mut header, data.as_mut_ptr()) } < 0 {
            return Err(io::Error::last_os_error());
        }
        let join = |part: fn(&Data) -> u32| u64::from(part(&data[0])) | u64::from(part(&data[1])) << 32;
        Ok(Self { effective: join(|d| d.effective), permitted: join(|d| d.permitted), inheritable: join(|d| d.inheritable) })
    }

    /// Makes them this thread's sets. Allocates nothing.
    ///
    /// # Errors
    /// Those of capset(2).
    pub fn write(self) -> io::Result<()> {
        let mut header = Header { version: VERSION, pid: 0 };
        let part = |shift: u32| Data {
            effective: (self.effective >> shift) as u32,
            permitted: (self.permitted >> shift) as u32,
            inheritable: (self.inheritable >> shift) as u32,
        };
        let data = [part(0), part(32)];
        // SAFETY: version 3 reads two elements of `data`.
        if unsafe { libc::syscall(libc::SYS_capset, &raw mut header, data.as_ptr()) } < 0 {
            return Err(io::Error::last_os_error());
        }
        Ok(())
    }
}

/// Takes every capability that is not in `keep` out of the bounding set, for good.
///
/// # Errors
/// If this thread lacks `CAP_SETPCAP`.
pub fn limit_bounding(keep: u64) -> io::Result<()> {
    for number in 0..64 {
        if keep >> number & 1 == 1 {
            continue;
        }
        // SAFETY: prctl with plain numbers.
        if unsafe { libc::prctl(libc::PR_CAPBSET_DROP, number as libc::c_ulong, 0, 0, 0) } < 0 {
            let error = io::Error::last_os_error();
            // The first number the kernel does not know.
            return if error.raw_os_error() == Some(libc::EINVAL) { Ok(()) } else { Err(error) };
        }
    }
    Ok(())
}

/// Empties the ambient set.
pub fn clear_ambient() {
    // SAFETY: prctl with plain numbers; kernels without ambient capabilities have none to clear.
    unsafe { libc::prctl(libc::PR_CAP_AMBIENT, libc::PR_CAP_AMBIENT_CLEAR_ALL, 0, 0, 0) };
}
