//! Seccomp filters: assembling classic BPF for several architectures, and installing it.
//!
//! A program is a list of [`Section`]s, one per system call ABI; a caller of an ABI without a section, and of x32, gets ENOSYS. Tests look at
//! the low half of an argument, since flags and commands are `int` in every ABI, or at the high half, for what is no `int`. Which calls are answered how is `rootemu`'s business.

use std::io;
use std::os::fd::{FromRawFd, OwnedFd};

/// One system call ABI, by the name the audit subsystem gives it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Abi {
    /// x86-64, 64 bit entry.
    X86_64,
    /// The 32 bit entry of x86 and x86-64.
    I386,
    /// ARM, 64 bit.
    Aarch64,
}

impl Abi {
    /// What `seccomp_data.arch` holds for callers of this ABI (linux/audit.h).
    pub const fn audit(self) -> u32 {
        match self {
            Self::X86_64 => 0xc000_003e,
            Self::I386 => 0x4000_0003,
            Self::Aarch64 => 0xc000_00b7,
        }
    }

    /// The ABI that `seccomp_data.arch` names.
    pub const fn from_audit(number: u32) -> Option<Self> {
        match number {
            0xc000_003e => Some(Self::X86_64),
            0x4000_0003 => Some(Self::I386),
            0xc000_00b7 => Some(Self::Aarch64),
            _ => None,
        }
    }

    /// The ABI this program was compiled for; `None` for one without table.
    pub const fn native() -> Option<Self> {
        if cfg!(all(target_arch = "x86_64", target_pointer_width = "64")) {
            Some(Self::X86_64)
        } else if cfg!(target_arch = "x86") {
            Some(Self::I386)
        } else if cfg!(target_arch = "aarch64") {
            Some(Self::Aarch64)
        } else {
            None
        }
    }
}

/// What happens to a call.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Action {
    /// It fails with this errno; 0 is success without effect.
    Errno(u16),
    /// The listener is asked.
    Notify,
    /// The kernel does it.
    Allow,
}

/// Which calls of one number a rule is about.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Test {
    /// All.
    Always,
    /// Those with one of these bits in this argument.
    AnyBit(u8, u32),
    /// Those whose argument, masked, has this value.
    Masked(u8, u32, u32),
    /// Those whose argument has this value in its high half.
    High(u8, u32),
}

/// One rule; rules of the same number must follow each other and are tried in order, the call goes on if none holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Rule {
    /// The system call's number in the section's ABI.
    pub number: u32,
    /// When it holds.
    pub test: Test,
    /// What happens then.
    pub action: Action,
}

/// The rules of one ABI.
#[derive(Clone, Debug)]
pub struct Section {
    /// The ABI.
    pub abi: Abi,
    /// Its rules.
    pub rules: Vec<Rule>,
}

/// An assembled program.
pub struct Program(Vec<libc::sock_filter>);

/// The x32 ABI announces itself as x86-64 with this bit in the number.
const X32_BIT: u32 = 0x4000_0000;

const RETURN_ALLOW: libc::sock_filter = op(libc::BPF_RET | libc::BPF_K, libc::SECCOMP_RET_ALLOW);
const RETURN_ENOSYS: libc::sock_filter = op(libc::BPF_RET | libc::BPF_K, libc::SECCOMP_RET_ERRNO | libc::ENOSYS as u32);
/// Offsets in `struct seccomp_data`; every supported ABI is little-endian, so the low half of an argument comes first.
const NUMBER: u32 = 0;
const ARCH: u32 = 4;
const ARGUMENTS: u32 = 16;

impl Program {
    /// Assembles the sections.
    pub fn assemble(sections: &[Section]) -> Self {
        let mut code = vec![load(ARCH)];
        for section in sections {
            let body = assemble_section(section);
            code.push(jump(libc::BPF_JEQ, section.abi.audit(), 1, 0));
            // A section is longer than the 255 instructions a conditional jump can skip.
            code.push(op(libc::BPF_JMP | libc::BPF_JA, body.len() as u32));
            code.extend(body);
        }
        code.push(RETURN_ENOSYS);
        Self(code)
    }

    /// How many instructions; the kernel takes 4096.
    pub fn len(&self) -> usize {
        self.0.len()
    }

    /// Whether there is no instruction; never so for an assembled program.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}

fn assemble_section(section: &Section) -> Vec<libc::sock_filter> {
    let mut code = vec![load(NUMBER)];
    if section.abi == Abi::X86_64 {
        code.extend([jump(libc::BPF_JSET, X32_BIT, 0, 1), RETURN_ENOSYS]);
    }
    for rules in section.rules.chunk_by(|a, b| a.number == b.number) {
        let body: Vec<_> = rules.iter().flat_map(assemble_rule).chain([RETURN_ALLOW]).collect();
        code.push(jump(libc::BPF_JEQ, rules[0].number, 0, body.len() as u8));
        code.extend(body);
    }
    code.push(RETURN_ALLOW);
    code
}

fn assemble_rule(rule: &Rule) -> Vec<libc::sock_filter> {
    let argument = |index: u8| load(ARGUMENTS + 8 * u32::from(index));
    let mut code = match rule.test {
        Test::Always => vec![],
        Test::AnyBit(index, mask) => vec![argument(index), jump(libc::BPF_JSET, mask, 0, 1)],
        Test::Masked(index, mask, value) => {
            vec![argument(index), op(libc::BPF_ALU | libc::BPF_AND | libc::BPF_K, mask), jump(libc::BPF_JEQ, value, 0, 1)]
        }
        Test::High(index, value) => vec![load(ARGUMENTS + 8 * u32::from(index) + 4), jump(libc::BPF_JEQ, value, 0, 1)],
    };
    code.push(op(
        libc::BPF_RET | libc::BPF_K,
        match rule.action {
            Action::Errno(number) => libc::SECCOMP_RET_ERRNO | u32::from(number),
            Action::Notify => libc::SECCOMP_RET_USER_NOTIF,
            Action::Allow => libc::SECCOMP_RET_ALLOW,
        },
    ));
    code
}

const fn op(code: u32, k: u32) -> libc::sock_filter {
    libc::sock_filter { code: code as u16, jt: 0, jf: 0, k }
}

const fn load(offset: u32) -> libc::sock_filter {
    op(libc::BPF_LD | libc::BPF_W | libc::BPF_ABS, offset)
}

const fn jump(kind: u32, k: u32, jt: u8, jf: u8) -> libc::sock_filter {
    libc::sock_filter { code: (libc::BPF_JMP | kind | libc::BPF_K) as u16, jt, jf, k }
}

/// Installs the program for the calling thread and what it will fork. Needs CAP_SYS_ADMIN in the user namespace, or no_new_privs.
pub fn install(program: &Program) -> io::Result<()> {
    load_filter(program, 0).map(drop)
}

/// Like [`install`]; returns the descriptor on which [`Action::Notify`] calls arrive.
pub fn install_with_listener(program: &Program) -> io::Result<OwnedFd> {
    let flags = libc::SECCOMP_FILTER_FLAG_NEW_LISTENER;
    // A signal must not restart a call that the supervisor has begun to answer: Go's preemption signals make it start over without end.
    // The flag is of Linux 5.19.
    let number = match load_filter(program, flags | libc::SECCOMP_FILTER_FLAG_WAIT_KILLABLE_RECV) {
        Err(error) if error.raw_os_error() == Some(libc::EINVAL) => load_filter(program, flags)?,
        result => result?,
    };
    // SAFETY: with NEW_LISTENER the kernel returns a new descriptor that nobody else knows.
    Ok(unsafe { OwnedFd::from_raw_fd(number) })
}

fn load_filter(program: &Program, flags: libc::c_ulong) -> io::Result<i32> {
    let filter = libc::sock_fprog { len: program.0.len() as u16, filter: program.0.as_ptr().cast_mut() };
    // SAFETY: `filter` points to `len` instructions that live through the call; the kernel copies them and does not write.
    let result = unsafe { libc::syscall(libc::SYS_seccomp, libc::SECCOMP_SET_MODE_FILTER, flags, &raw const filter) };
    if result < 0 { Err(io::Error::last_os_error()) } else { Ok(result as i32) }
}

/// Promises the kernel that the calling thread gains no privilege by exec: what lets an unprivileged thread install a filter.
pub fn set_no_new_privs() -> io::Result<()> {
    // SAFETY: takes integers only.
    match unsafe { libc::prctl(libc::PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) } {
        0 => Ok(()),
        _ => Err(io::Error::last_os_error()),
    }
}

/// Makes the self-test's call with a number in the first argument: `kexec_load`, which nobody may use inside a user namespace and which does
/// nothing with these arguments.
pub fn call_self_test(number: u64) -> Result<i64, i32> {
    // SAFETY: with no segments the kernel reads no memory; the call fails with EPERM when the filter is not there.
    let result = unsafe { libc::syscall(libc::SYS_kexec_load, number, 0, 0, 0) };
    if result < 0 { Err(io::Error::last_os_error().raw_os_error().unwrap_or(libc::EIO)) } else { Ok(result) }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What the kernel would do, for a caller of `arch`.
    fn run(program: &Program, arch: u32, number: u32, arguments: [u64; 6]) -> u32 {
        let (mut at, mut accumulator) = (0, 0);
        loop {
            let i = &program.0[at];
            let k = i.k;
            at += 1;
            match u32::from(i.code) {
                c if c == libc::BPF_LD | libc::BPF_W | libc::BPF_ABS => {
                    accumulator = match k {
                        NUMBER => number,
                        ARCH => arch,
                        k => arguments[(k - ARGUMENTS) as usize / 8] as u32,
                    };
                }
                c if c == libc::BPF_ALU | libc::BPF_AND | libc::BPF_K => accumulator &= k,
                c if c == libc::BPF_JMP | libc::BPF_JA => at += k as usize,
                c if c == libc::BPF_JMP | libc::BPF_JEQ | libc::BPF_K => at += usize::from(if accumulator == k { i.jt } else { i.jf }),
                c if c == libc::BPF_JMP | libc::BPF_JSET | libc::BPF_K => at += usize::from(if accumulator & k != 0 { i.jt } else { i.jf }),
                c if c == libc::BPF_RET | libc::BPF_K => return k,
                c => panic!("unknown instruction {c}"),
            }
        }
    }

    #[test]
    fn decides() {
        let rules = vec![
            Rule { number: 1, test: Test::Always, action: Action::Notify },
            Rule { number: 2, test: Test::AnyBit(1, 0x40), action: Action::Notify },
            Rule { number: 2, test: Test::Masked(0, 0xf0, 0x10), action: Action::Errno(0) },
            Rule { number: 3, test: Test::Always, action: Action::Errno(38) },
        ];
        let many = (10..400).map(|number| Rule { number, test: Test::Always, action: Action::Errno(1) });
        let program = Program::assemble(&[
            Section { abi: Abi::X86_64, rules: rules.into_iter().chain(many).collect() },
            Section { abi: Abi::I386, rules: vec![Rule { number: 7, test: Test::Always, action: Action::Notify }] },
        ]);
        let (x86, i386) = (Abi::X86_64.audit(), Abi::I386.audit());
        let (notify, allow, errno) = (libc::SECCOMP_RET_USER_NOTIF, libc::SECCOMP_RET_ALLOW, libc::SECCOMP_RET_ERRNO);
        for (arch, number, arguments, expected) in [
            (x86, 1, [0, 0], notify),
            (x86, 2, [0, 0x41], notify),
            (x86, 2, [0x1f, 0x3f], errno),
            (x86, 2, [0x2f, 0x3f], allow),
            (x86, 3, [0, 0], errno | 38),
            (x86, 399, [0, 0], errno | 1),
            (x86, 400, [0, 0], allow),
            (x86, 1 | X32_BIT, [0, 0], errno | 38),
            (i386, 7, [0, 0], notify),
            (i386, 1, [0, 0], allow),
            (Abi::Aarch64.audit(), 1, [0, 0], errno | 38),
        ] {
            let [a, b] = arguments;
            assert_eq!(run(&program, arch, number, [a, b, 0, 0, 0, 0]), expected, "{arch:x} {number} {arguments:?}");
        }
    }
}
