//! This process becomes the command: what is set last, and why a program can't be executed.

use std::ffi::{CString, OsStr, OsString};
use std::fs::File;
use std::io::{Read, Write};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::path::{Path, PathBuf};

use rustix::fs::{Access as Permission, AtFlags};
use rustix::io::Errno;
use serde_json::Value;

use super::emulator::Emulator;
use super::enter::Inherited;
use super::socket::send_descriptor;
use super::spec::{Privileges, Spec};
use super::wire::{Ended, Failure, Report};
use crate::error::{Error, Kind, Result, quote, quote_path};
use crate::sys::{capability, process};

/// Where programs are looked for when the environment has no `PATH`: Docker's default.
const PATH: &[u8] = b"/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";

/// Why this process did not become the command.
pub(super) enum Refusal {
    Setup(Error),
    NotFound(Error),
    NotExecutable(Error),
}

impl Refusal {
    pub fn into_report(self, notices: Vec<String>) -> Report {
        let exit = match self {
            Self::Setup(error) => return Report::Failed(Failure::from(&error)),
            Self::NotFound(error) => Ended::NotFound(Failure::from(&error)),
            Self::NotExecutable(error) => Ended::NotExecutable(Failure::from(&error)),
        };
        Report::Ended { exit, notices, emulation: None }
    }
}

impl From<Error> for Refusal {
    fn from(error: Error) -> Self {
        Self::Setup(error)
    }
}

/// Root emulation to be installed in this process, and the socket to hand the listener over on.
pub(super) struct Install<'a> {
    pub emulator: &'a dyn Emulator,
    pub spec: &'a Value,
    pub channel: BorrowedFd<'a>,
}

/// Becomes the command; returns only if it can't.
pub(super) fn become_command(spec: &Spec, callers: &Inherited, install: Option<Install<'_>>) -> Refusal {
    match attempt(spec, callers, install) {
        Ok(never) => match never {},
        Err(refusal) => refusal,
    }
}

enum Never {}

fn attempt(spec: &Spec, callers: &Inherited, install: Option<Install<'_>>) -> Result<Never, Refusal> {
    let command = &spec.process;
    let strings = |list: &[OsString]| -> Result<Vec<CString>> {
        let convert = |s: &OsString| CString::new(s.as_bytes()).map_err(|_| Error::input(format!("{} holds a NUL", quote(s.as_bytes()))));
        list.iter().map(convert).collect()
    };
    let (argv, env) = (strings(&command.argv)?, strings(&command.env)?);
    let directory = Path::new("/").join(command.cwd.as_relative());
    rustix::process::chdir(&directory)
        .map_err(|errno| Error::os(format!("can't change to the working directory {}", quote_path(&directory)), errno))?;
    let program = find_program(&command.argv, &command.env)?;
    let path = CString::new(program.as_os_str().as_bytes()).map_err(|_| Error::input("the program's name holds a NUL"))?;
    callers.restore(command.umask);
    command.limits.iter().try_for_each(super::limits::Limit::set)?;
    process::restore_sigpipe();
    limit_capabilities(spec).map_err(|e| Error::os("can't limit capabilities", e))?;
    if let Some(install) = install {
        hand_over(&install)?;
    }
    // Last, so that nothing that was sent to us ends us before the command could be named.
    let _ = nix::sys::signal::SigSet::empty().thread_set_mask();
    match nix::unistd::execve(&path, &argv, &env) {
        Ok(never) => match never {},
        Err(errno) => Err(diagnose(&program, Errno::from_raw_os_error(errno as i32))),
    }
}

/// Takes away what the command must not have. What execve(2) computes from the bounding set is left to it: the filter that is
/// installed next still needs `CAP_SYS_ADMIN`.
fn limit_capabilities(spec: &Spec) -> std::io::Result<()> {
    capability::limit_bounding(spec.capabilities.mask())?;
    capability::clear_ambient();
    let mut sets = capability::Sets::read()?;
    sets.inheritable = 0;
    sets.write()?;
    if spec.privileges == Privileges::Fixed {
        rustix::thread::set_no_new_privs(true)?;
    }
    Ok(())
}

/// Installs root emulation and sends its listener to the supervisor.
fn hand_over(install: &Install<'_>) -> Result<()> {
    let listener: Option<OwnedFd> = install.emulator.install(install.spec)?;
    if let Some(listener) = &listener {
        send_descriptor(install.channel, listener.as_fd())
            .map_err(|errno| Error::os("can't hand the notification listener over", errno))?;
    }
    drop(listener);
    install.emulator.confirm(install.spec)
}

/// Sends why the command could not be executed, from its process to init.
pub(super) fn report_refusal(channel: OwnedFd, refusal: Refusal) {
    if let Ok(bytes) = serde_json::to_vec(&refusal.into_report(Vec::new())) {
        let _ = File::from(channel).write_all(&bytes);
    }
}

/// The program's path, found as execvp(3) does.
fn find_program(argv: &[OsString], env: &[OsString]) -> Result<PathBuf, Refusal> {
    let name = argv.first().filter(|name| !name.is_empty()).ok_or_else(|| Error::input("there is no command to run"))?;
    let usable = |path: &Path| -> Result<(), Errno> {
        rustix::fs::accessat(rustix::fs::CWD, path, Permission::EXEC_OK, AtFlags::EACCESS)?;
        if rustix::fs::stat(path).is_ok_and(|stat| stat.st_mode & libc::S_IFMT == libc::S_IFDIR) { Err(Errno::ACCESS) } else { Ok(()) }
    };
    if name.as_bytes().contains(&b'/') {
        // The kernel's own answer is as good as ours.
        return Ok(PathBuf::from(name));
    }
    let path = env.iter().find_map(|variable| variable.as_bytes().strip_prefix(b"PATH=")).unwrap_or(PATH);
    let mut denied = None;
    for directory in path.split(|&b| b == b':') {
        let directory = if directory.is_empty() { b".".as_slice() } else { directory };
        let candidate = Path::new(OsStr::from_bytes(directory)).join(name);
        match usable(&candidate) {
            Ok(()) => return Ok(candidate),
            Err(Errno::ACCESS) => denied = denied.or(Some(candidate)),
            Err(_) => {}
        }
    }
    match denied {
        Some(candidate) => Err(diagnose(&candidate, Errno::ACCESS)),
        None => Err(Refusal::NotFound(
            Error::with_kind(Kind::NotFound, format!("can't find the program {}", quote(name.as_bytes())))
                .cause(format!("it is in no directory of PATH ({})", quote(path))),
        )),
    }
}

/// Why the kernel did not execute a program that seemed to be there.
fn diagnose(program: &Path, errno: Errno) -> Refusal {
    let error = Error::os(format!("can't execute {}", quote_path(program)), errno);
    match errno {
        Errno::NOENT | Errno::NOTDIR if !program.exists() => Refusal::NotFound(error),
        Errno::NOENT => match interpreter(program) {
            Some(interpreter) => {
                let missing = format!("its interpreter {} does not exist", quote_path(&interpreter));
                Refusal::NotExecutable(error.cause(missing).hint("install it in the image, or use a statically linked program"))
            }
            None => Refusal::NotExecutable(error),
        },
        Errno::NOEXEC => {
            let error = match machine(program) {
                Some(machine) => error
                    .cause(format!("it is a program for {machine}"))
                    .hint("use an image for this machine's platform, or install qemu-user-static"),
                None => error.cause("it is neither a program nor a script with a `#!` line"),
            };
            Refusal::NotExecutable(error)
        }
        Errno::ACCESS if program.is_dir() => Refusal::NotExecutable(error.cause("it is a directory")),
        Errno::ACCESS => Refusal::NotExecutable(error.hint("its mode lacks the execute permission (`chmod +x`), or the mount is `noexec`")),
        _ => Refusal::NotExecutable(error),
    }
}

/// The program's first bytes; enough for a `#!` line or an ELF header with its program headers.
fn head(program: &Path) -> Option<Vec<u8>> {
    let mut head = Vec::new();
    File::open(program).ok()?.take(64 * 1024).read_to_end(&mut head).ok()?;
    Some(head)
}

/// What would have interpreted the program: from the `#!` line or the ELF program headers.
fn interpreter(program: &Path) -> Option<PathBuf> {
    let head = head(program)?;
    if let Some(line) = head.strip_prefix(b"#!") {
        let line = line.split(|&b| b == b'\n').next()?.trim_ascii();
        let name = line.split(|b| b.is_ascii_whitespace()).next()?;
        return Some(OsString::from_vec(name.to_vec()).into());
    }
    elf_interpreter::<object::elf::FileHeader64<object::Endianness>>(&head)
        .or_else(|| elf_interpreter::<object::elf::FileHeader32<object::Endianness>>(&head))
}

fn elf_interpreter<Elf: object::read::elf::FileHeader>(head: &[u8]) -> Option<PathBuf> {
    use object::read::elf::ProgramHeader;
    let header = Elf::parse(head).ok()?;
    let endian = header.endian().ok()?;
    let path = header.program_headers(endian, head).ok()?.iter().find_map(|part| part.interpreter(endian, head).ok().flatten())?;
    Some(OsString::from_vec(path.to_vec()).into())
}

/// The machine an ELF file is for, in the words of OCI platforms where there is one.
fn machine(program: &Path) -> Option<String> {
    let head = head(program)?;
    if !head.starts_with(b"\x7fELF") || head.len() < 20 {
        return None;
    }
    let number = if head[5] == 2 { u16::from_be_bytes([head[18], head[19]]) } else { u16::from_le_bytes([head[18], head[19]]) };
    let name = match object::elf::Machine(number) {
        object::elf::EM_386 => "386",
        object::elf::EM_ARM => "arm",
        object::elf::EM_AARCH64 => "arm64",
        object::elf::EM_X86_64 => "amd64",
        object::elf::EM_PPC64 => "ppc64le",
        object::elf::EM_S390 => "s390x",
        object::elf::EM_RISCV => "riscv64",
        _ => return Some(format!("another machine (ELF machine {number})")),
    };
    Some(name.into())
}
