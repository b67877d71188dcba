//! Emulated credentials of a process, and the kernel's rules for changing them (linux/kernel/sys.c, security/commoncap.c).
//!
//! They belong to the thread group: glibc and musl change every thread anyway. A program that gives one thread an ID of its own by a raw
//! system call (NFS servers do) sees all its threads changed.

use nix::errno::Errno;

/// The four IDs of a kind.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Ids {
    /// Who started it.
    pub real: u32,
    /// As whom it acts.
    pub effective: u32,
    /// What it can go back to.
    pub saved: u32,
    /// Whose its new files are.
    pub filesystem: u32,
}

/// Capability sets, as bit masks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Capabilities {
    /// What may be made effective.
    pub permitted: u64,
    /// What is used in checks.
    pub effective: u64,
    /// Kept over exec together with the file's.
    pub inheritable: u64,
    /// Kept over exec by those who aren't root.
    pub ambient: u64,
    /// The most that exec gives.
    pub bounding: u64,
}

/// What a process believes to be.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Credentials {
    /// User IDs.
    pub uid: Ids,
    /// Group IDs.
    pub gid: Ids,
    /// Supplementary groups.
    pub groups: Vec<u32>,
    /// Capabilities.
    pub capabilities: Capabilities,
    /// PR_SET_KEEPCAPS: whether capabilities survive leaving user ID 0.
    pub keep_capabilities: bool,
}

/// Capability numbers (linux/capability.h).
#[allow(missing_docs)]
pub mod capability {
    pub const CHOWN: u32 = 0;
    pub const DAC_OVERRIDE: u32 = 1;
    pub const FOWNER: u32 = 3;
    pub const FSETID: u32 = 4;
    pub const SETGID: u32 = 6;
    pub const SETUID: u32 = 7;
    pub const SETPCAP: u32 = 8;
    pub const SYS_ADMIN: u32 = 21;
    pub const MKNOD: u32 = 27;
    pub const SETFCAP: u32 = 31;
    /// Those that follow the file system user ID: CHOWN, DAC_OVERRIDE, DAC_READ_SEARCH, FOWNER, FSETID, LINUX_IMMUTABLE, MKNOD, MAC_OVERRIDE.
    pub const FILE_SYSTEM: u64 = 0b1_1111 | 1 << 9 | 1 << 27 | 1 << 32;
}

/// In arguments: leave as it is.
pub const KEEP: u32 = u32::MAX;

impl Ids {
    /// All four the same.
    pub const fn all(id: u32) -> Self {
        Self { real: id, effective: id, saved: id, filesystem: id }
    }

    fn has(&self, id: u32) -> bool {
        [self.real, self.effective, self.saved].contains(&id)
    }

    /// setuid, setgid.
    fn set(&mut self, id: u32, privileged: bool) -> Result<(), Errno> {
        if id == KEEP {
            return Err(Errno::EINVAL);
        }
        if privileged {
            *self = Self::all(id);
        } else if id == self.real || id == self.saved {
            self.effective = id;
            self.filesystem = id;
        } else {
            return Err(Errno::EPERM);
        }
        Ok(())
    }

    /// setreuid, setregid.
    fn set_re(&mut self, real: u32, effective: u32, privileged: bool) -> Result<(), Errno> {
        let old = *self;
        if !privileged {
            let real_allowed = real == KEEP || real == old.real || real == old.effective;
            let effective_allowed = effective == KEEP || old.has(effective);
            if !real_allowed || !effective_allowed {
                return Err(Errno::EPERM);
            }
        }
        take(&mut self.real, real);
        take(&mut self.effective, effective);
        if real != KEEP || (effective != KEEP && effective != old.real) {
            self.saved = self.effective;
        }
        self.filesystem = self.effective;
        Ok(())
    }

    /// setresuid, setresgid.
    fn set_res(&mut self, ids: [u32; 3], privileged: bool) -> Result<(), Errno> {
        if !privileged && ids.iter().any(|&id| id != KEEP && !self.has(id)) {
            return Err(Errno::EPERM);
        }
        let [real, effective, saved] = ids;
        take(&mut self.real, real);
        take(&mut self.effective, effective);
        take(&mut self.saved, saved);
        self.filesystem = self.effective;
        Ok(())
    }

    /// setfsuid, setfsgid: no error, the old ID is returned in any case.
    fn set_fs(&mut self, id: u32, privileged: bool) -> u32 {
        let old = self.filesystem;
        if id != KEEP && (privileged || self.has(id) || id == old) {
            self.filesystem = id;
        }
        old
    }
}

fn take(field: &mut u32, id: u32) {
    if id != KEEP {
        *field = id;
    }
}

/// A change of IDs that a process asks for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[allow(missing_docs)]
pub enum Change {
    Uid(u32),
    Gid(u32),
    Reuid(u32, u32),
    Regid(u32, u32),
    Resuid([u32; 3]),
    Resgid([u32; 3]),
    Fsuid(u32),
    Fsgid(u32),
}

impl Credentials {
    /// Those of a process started as this user; root has all of `bounding`.
    pub fn new(uid: u32, gid: u32, groups: Vec<u32>, bounding: u64) -> Self {
        let own = if uid == 0 { bounding } else { 0 };
        Self {
            uid: Ids::all(uid),
            gid: Ids::all(gid),
            groups,
            capabilities: Capabilities { permitted: own, effective: own, inheritable: 0, ambient: 0, bounding },
            keep_capabilities: false,
        }
    }

    /// Whether a capability is effective.
    pub fn can(&self, capability: u32) -> bool {
        self.capabilities.effective >> capability & 1 != 0
    }

    /// Whether it is a member of a group, as file permissions see it.
    pub fn in_group(&self, gid: u32) -> bool {
        self.gid.filesystem == gid || self.groups.contains(&gid)
    }

    /// Makes a change or refuses it; what the call returns.
    pub fn change(&mut self, change: Change) -> Result<i64, Errno> {
        use capability::{SETGID, SETUID};
        let old = self.uid;
        let (setuid, setgid) = (self.can(SETUID), self.can(SETGID));
        let mut value = 0;
        match change {
            Change::Uid(id) => self.uid.set(id, setuid)?,
            Change::Reuid(real, effective) => self.uid.set_re(real, effective, setuid)?,
            Change::Resuid(ids) => self.uid.set_res(ids, setuid)?,
            Change::Gid(id) => self.gid.set(id, setgid)?,
            Change::Regid(real, effective) => self.gid.set_re(real, effective, setgid)?,
            Change::Resgid(ids) => self.gid.set_res(ids, setgid)?,
            Change::Fsgid(id) => value = self.gid.set_fs(id, setgid),
            Change::Fsuid(id) => {
                value = self.uid.set_fs(id, setuid);
                self.follow_filesystem_uid(old.filesystem);
                return Ok(value.into());
            }
        }
        self.follow_uid(old);
        Ok(value.into())
    }

    /// setgroups.
    pub fn set_groups(&mut self, mut groups: Vec<u32>) -> Result<(), Errno> {
        if !self.can(capability::SETGID) {
            return Err(Errno::EPERM);
        }
        groups.sort_unstable();
        self.groups = groups;
        Ok(())
    }

    /// Leaving user ID 0 takes the capabilities, coming back restores the effective ones.
    fn follow_uid(&mut self, old: Ids) {
        let was_root = old.has(0);
        let capabilities = &mut self.capabilities;
        if was_root && !self.uid.has(0) {
            if !self.keep_capabilities {
                capabilities.permitted = 0;
                capabilities.effective = 0;
            }
            capabilities.ambient = 0;
        }
        if old.effective == 0 && self.uid.effective != 0 {
            capabilities.effective = 0;
        }
        if old.effective != 0 && self.uid.effective == 0 {
            capabilities.effective = capabilities.permitted;
        }
    }

    fn follow_filesystem_uid(&mut self, old: u32) {
        let capabilities = &mut self.capabilities;
        match (old, self.uid.filesystem) {
            (0, 0) => {}
            (0, _) => capabilities.effective &= !capability::FILE_SYSTEM,
            (_, 0) => capabilities.effective |= capabilities.permitted & capability::FILE_SYSTEM,
            _ => {}
        }
    }

    /// Those after exec of a file that makes it act as another user or group.
    #[must_use]
    pub fn after_exec(&self, setuid: Option<u32>, setgid: Option<u32>) -> Self {
        let mut new = self.clone();
        new.uid.effective = setuid.unwrap_or(self.uid.effective);
        new.gid.effective = setgid.unwrap_or(self.gid.effective);
        for ids in [&mut new.uid, &mut new.gid] {
            ids.saved = ids.effective;
            ids.filesystem = ids.effective;
        }
        let changed = new.uid.effective != self.uid.effective || new.gid.effective != self.gid.effective;
        let capabilities = &mut new.capabilities;
        if changed {
            capabilities.ambient = 0;
        }
        let root = new.uid.real == 0 || new.uid.effective == 0;
        capabilities.permitted = if root { capabilities.inheritable | capabilities.bounding } else { capabilities.ambient };
        capabilities.effective = if new.uid.effective == 0 { capabilities.permitted } else { capabilities.ambient };
        new.keep_capabilities = false;
        new
    }

    /// PR_CAPBSET_DROP: no exec gives this capability any more.
    pub fn drop_bounding(&mut self, number: u32) -> Result<(), Errno> {
        if !self.can(capability::SETPCAP) {
            return Err(Errno::EPERM);
        }
        self.capabilities.bounding &= !(1 << number);
        Ok(())
    }

    /// capset: effective, permitted, inheritable.
    pub fn set_capabilities(&mut self, effective: u64, permitted: u64, inheritable: u64) -> Result<(), Errno> {
        let old = self.capabilities;
        let new_inheritable = inheritable & !old.inheritable;
        let may_inherit = if self.can(capability::SETPCAP) { old.bounding } else { old.permitted };
        if new_inheritable & !may_inherit & !old.permitted != 0
            || inheritable & !(old.inheritable | old.bounding) != 0
            || permitted & !old.permitted != 0
            || effective & !permitted != 0
        {
            return Err(Errno::EPERM);
        }
        self.capabilities = Capabilities { effective, permitted, inheritable, ambient: old.ambient & permitted & inheritable, ..old };
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const DOCKER: u64 = 0xa804_25fb;

    fn root() -> Credentials {
        Credentials::new(0, 0, vec![0], DOCKER)
    }

    /// Applies changes one after the other; the result of the last and the user IDs (real, effective, saved, file system).
    fn check(start: Credentials, changes: &[Change], result: Result<i64, Errno>, uid: [u32; 4]) {
        let mut credentials = start;
        let last = changes.iter().map(|&change| credentials.change(change)).last().unwrap();
        let Ids { real, effective, saved, filesystem } = credentials.uid;
        assert_eq!((last, [real, effective, saved, filesystem]), (result, uid), "{changes:?}");
    }

    #[test]
    fn changes_follow_the_kernel() {
        use Change::*;
        check(root(), &[Uid(33)], Ok(0), [33, 33, 33, 33]);
        check(root(), &[Uid(33), Uid(0)], Err(Errno::EPERM), [33, 33, 33, 33]);
        check(root(), &[Uid(KEEP)], Err(Errno::EINVAL), [0, 0, 0, 0]);
        check(root(), &[Resuid([KEEP, 33, KEEP])], Ok(0), [0, 33, 0, 33]);
        check(root(), &[Resuid([KEEP, 33, KEEP]), Resuid([KEEP, 0, KEEP])], Ok(0), [0, 0, 0, 0]);
        check(root(), &[Resuid([KEEP, 33, KEEP]), Uid(44)], Err(Errno::EPERM), [0, 33, 0, 33]);
        check(root(), &[Resuid([33, 33, 33]), Resuid([KEEP, 34, KEEP])], Err(Errno::EPERM), [33, 33, 33, 33]);
        check(root(), &[Reuid(33, 33)], Ok(0), [33, 33, 33, 33]);
        check(root(), &[Reuid(KEEP, 33)], Ok(0), [0, 33, 33, 33]);
        check(root(), &[Reuid(33, KEEP)], Ok(0), [33, 0, 0, 0]);
        check(root(), &[Reuid(33, KEEP), Reuid(0, 33)], Ok(0), [0, 33, 33, 33]);
        check(root(), &[Uid(33), Reuid(34, KEEP)], Err(Errno::EPERM), [33, 33, 33, 33]);
        check(root(), &[Fsuid(33)], Ok(0), [0, 0, 0, 33]);
        check(root(), &[Fsuid(33), Fsuid(KEEP)], Ok(33), [0, 0, 0, 33]);
        check(root(), &[Uid(33), Fsuid(34)], Ok(33), [33, 33, 33, 33]);
    }

    #[test]
    fn capabilities_follow_the_user() {
        let sets = |c: &Credentials| (c.capabilities.permitted, c.capabilities.effective);
        let mut c = root();
        c.change(Change::Resuid([KEEP, 33, KEEP])).unwrap();
        assert_eq!(sets(&c), (DOCKER, 0));
        c.change(Change::Resuid([KEEP, 0, KEEP])).unwrap();
        assert_eq!(sets(&c), (DOCKER, DOCKER));
        c.change(Change::Uid(33)).unwrap();
        assert_eq!(sets(&c), (0, 0));
        assert_eq!(c.set_groups(vec![1]), Err(Errno::EPERM));

        let mut kept = Credentials { keep_capabilities: true, ..root() };
        kept.change(Change::Uid(33)).unwrap();
        assert_eq!(sets(&kept), (DOCKER, 0));
        assert_eq!(sets(&kept.after_exec(None, None)), (0, 0));
    }

    #[test]
    fn exec_of_a_setuid_file() {
        let user = Credentials::new(33, 33, vec![33], DOCKER);
        let new = user.after_exec(Some(0), None);
        assert_eq!(new.uid, Ids { real: 33, effective: 0, saved: 0, filesystem: 0 });
        assert!(new.can(capability::SETUID));
        assert_eq!(user.after_exec(None, None), user);
        assert_eq!(root().after_exec(None, None), root());
        assert_eq!(user.after_exec(None, Some(42)).gid, Ids { real: 33, effective: 42, saved: 42, filesystem: 42 });
    }

    #[test]
    fn what_is_dropped_no_exec_gives_back() {
        let mut c = root();
        assert_eq!(c.drop_bounding(capability::CHOWN), Ok(()));
        assert!(c.can(capability::CHOWN));
        assert!(!c.after_exec(None, None).can(capability::CHOWN));
        assert!(c.after_exec(None, None).can(capability::SETUID));
        assert_eq!(Credentials::new(33, 33, vec![33], DOCKER).drop_bounding(0), Err(Errno::EPERM));
    }

    #[test]
    fn capset_takes_away_only() {
        let mut c = root();
        assert_eq!(c.set_capabilities(1, 1, 0), Ok(()));
        assert_eq!(c.set_capabilities(DOCKER, DOCKER, 0), Err(Errno::EPERM));
        assert_eq!(root().set_capabilities(DOCKER, DOCKER, DOCKER), Ok(()));
        assert_eq!(root().set_capabilities(DOCKER, DOCKER, 1 << 21), Err(Errno::EPERM));
    }
}
