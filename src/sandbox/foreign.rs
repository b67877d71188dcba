//! Programs of other architectures: which need an interpreter here, and how `binfmt_misc` is told to use it.
//!
//! The interpreters are qemu's user mode emulators (`qemu-aarch64-static` and so on). Format of a registration: the kernel's
//! Documentation/admin-guide/binfmt-misc.rst. Magic numbers: the ELF header (elf(5)), with the machine's number from `elf.h`.

use std::path::{Path, PathBuf};

use crate::error::{Error, Kind, Result};
use crate::oci::Platform;

/// An architecture as the ELF header tells it.
struct Architecture {
    /// As images call it, with the variants it has all the same emulator for.
    name: &'static str,
    /// As qemu calls it.
    qemu: &'static str,
    bits: Bits,
    order: Order,
    /// `e_machine`.
    machine: u16,
}

/// `EI_CLASS`.
#[derive(Clone, Copy)]
enum Bits {
    B32 = 1,
    B64 = 2,
}

/// `EI_DATA`.
#[derive(Clone, Copy, PartialEq)]
enum Order {
    Little = 1,
    Big = 2,
}

const ARCHITECTURES: [Architecture; 10] = [
    Architecture { name: "amd64", qemu: "x86_64", bits: Bits::B64, order: Order::Little, machine: 62 },
    Architecture { name: "386", qemu: "i386", bits: Bits::B32, order: Order::Little, machine: 3 },
    Architecture { name: "arm64", qemu: "aarch64", bits: Bits::B64, order: Order::Little, machine: 183 },
    Architecture { name: "arm", qemu: "arm", bits: Bits::B32, order: Order::Little, machine: 40 },
    Architecture { name: "ppc64le", qemu: "ppc64le", bits: Bits::B64, order: Order::Little, machine: 21 },
    Architecture { name: "s390x", qemu: "s390x", bits: Bits::B64, order: Order::Big, machine: 22 },
    Architecture { name: "riscv64", qemu: "riscv64", bits: Bits::B64, order: Order::Little, machine: 243 },
    Architecture { name: "loong64", qemu: "loongarch64", bits: Bits::B64, order: Order::Little, machine: 258 },
    Architecture { name: "mips64le", qemu: "mips64el", bits: Bits::B64, order: Order::Little, machine: 8 },
    Architecture { name: "mipsle", qemu: "mipsel", bits: Bits::B32, order: Order::Little, machine: 8 },
];

/// Where emulators are besides `PATH`, which on some machines lacks it for ordinary users.
const USUAL: [&str; 2] = ["/usr/bin", "/usr/local/bin"];

/// The `binfmt_misc` lines without which programs of `platform` don't run on this machine; none where they run natively, or where the
/// machine has a registration of its own that reaches into containers.
///
/// `search`: directories of programs, as in `PATH`. Errors: no emulator is installed, or none exists.
pub fn interpreters(platform: &Platform, search: &[PathBuf]) -> Result<Vec<String>> {
    let host = Platform::host();
    if platform.os != "linux" && !platform.os.is_empty() {
        return Err(Error::with_kind(Kind::Unsupported, format!("can't run programs for {platform} here"))
            .cause("only Linux programs can be run")
            .hint("leave RUN out of stages for this platform"));
    }
    if is_native(&platform.architecture, &host.architecture) {
        return Ok(Vec::new());
    }
    let Some(found) = ARCHITECTURES.iter().find(|known| known.name == platform.architecture) else {
        return Err(cannot(platform).cause(format!("no emulator is known for {}", platform.architecture)));
    };
    match found.emulator(search) {
        Some(program) => Ok(vec![found.registration(&program)]),
        None if found.is_registered() => Ok(Vec::new()),
        // 32-bit programs may run on a 64-bit processor of their family; only trying tells.
        None if (host.architecture.as_str(), found.name) == ("arm64", "arm") => Ok(Vec::new()),
        None => Err(cannot(platform)
            .cause(format!("`qemu-{0}-static` is not installed, and this machine has no binfmt_misc registration for {0}", found.qemu))
            .hint("install Debian's qemu-user-static, or put that one program into a directory of your PATH")),
    }
}

fn cannot(platform: &Platform) -> Error {
    Error::with_kind(Kind::Unsupported, format!("can't run programs for {platform} on this machine"))
}

fn is_native(wanted: &str, host: &str) -> bool {
    // An image that does not say what it is for is taken at its word.
    wanted.is_empty() || wanted == host || (host, wanted) == ("amd64", "386")
}

impl Architecture {
    /// The emulator's program. It must be static: inside the image it finds no libraries of this machine's.
    fn emulator(&self, search: &[PathBuf]) -> Option<PathBuf> {
        let name = format!("qemu-{}-static", self.qemu);
        let places = search.iter().map(PathBuf::as_path).chain(USUAL.iter().map(Path::new));
        // A colon or a line end would end the field of the registration.
        places.map(|directory| directory.join(&name)).find(|path| path.is_file() && !path.to_string_lossy().contains([':', '\n']))
    }

    /// Whether the machine has a registration that keeps its interpreter open (`F`), so that it works in any root.
    fn is_registered(&self) -> bool {
        let text = std::fs::read_to_string(format!("/proc/sys/fs/binfmt_misc/qemu-{}", self.qemu)).unwrap_or_default();
        text.starts_with("enabled") && text.lines().any(|line| line.strip_prefix("flags: ").is_some_and(|flags| flags.contains('F')))
    }

    /// The line to write into `register`: the interpreter is kept open (F), gets the program opened (O), and its name as called (P).
    fn registration(&self, program: &Path) -> String {
        let (magic, mask) = self.magic();
        let escaped = |bytes: &[u8]| bytes.iter().map(|byte| format!("\\x{byte:02x}")).collect::<String>();
        format!(":qemu-{}:M::{}:{}:{}:POF", self.qemu, escaped(&magic), escaped(&mask), program.display())
    }

    /// The first bytes of a program, and which bits of them count: not the ABI's name, and both kinds of executable (fixed and
    /// position-independent) are taken.
    fn magic(&self) -> ([u8; 20], [u8; 20]) {
        let mut magic = [0; 20];
        magic[..7].copy_from_slice(&[0x7f, b'E', b'L', b'F', self.bits as u8, self.order as u8, 1]);
        let mut mask = [0xff; 20];
        mask[7] = 0;
        let (kind, machine) = match self.order {
            Order::Little => (2u16.to_le_bytes(), self.machine.to_le_bytes()),
            Order::Big => (2u16.to_be_bytes(), self.machine.to_be_bytes()),
        };
        magic[16..18].copy_from_slice(&kind);
        magic[18..20].copy_from_slice(&machine);
        mask[if self.order == Order::Little { 16 } else { 17 }] = 0xfe;
        (magic, mask)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn registrations() {
        let arm64 = ARCHITECTURES.iter().find(|a| a.name == "arm64").unwrap();
        assert_eq!(
            arm64.registration(Path::new("/usr/bin/qemu-aarch64-static")),
            ":qemu-aarch64:M::\\x7f\\x45\\x4c\\x46\\x02\\x01\\x01\\x00\\x00\\x00\\x00\\x00\\x00\\x00\\x00\\x00\\x02\\x00\\xb7\\x00:\
             \\xff\\xff\\xff\\xff\\xff\\xff\\xff\\x00\\xff\\xff\\xff\\xff\\xff\\xff\\xff\\xff\\xfe\\xff\\xff\\xff:/usr/bin/qemu-aarch64-static:POF"
        );
        let s390x = ARCHITECTURES.iter().find(|a| a.name == "s390x").unwrap();
        assert_eq!((&s390x.magic().0[16..], &s390x.magic().1[16..]), (&[0, 2, 0, 22][..], &[0xff, 0xfe, 0xff, 0xff][..]));
    }

    #[test]
    fn emulators_are_found_or_asked_for() {
        let dir = tempfile::tempdir().unwrap();
        let platform = |text: &str| text.parse::<Platform>().unwrap();
        assert!(interpreters(&Platform::host(), &[]).unwrap().is_empty());
        std::fs::write(dir.path().join("qemu-mips64el-static"), "").unwrap();
        let lines = interpreters(&platform("linux/mips64le"), &[dir.path().to_owned()]).unwrap();
        assert!(lines[0].starts_with(":qemu-mips64el:M::") && lines[0].contains(dir.path().to_str().unwrap()), "{lines:?}");
        for unknown in ["linux/vax", "windows/amd64"] {
            let error = interpreters(&platform(unknown), &[]).unwrap_err();
            assert!(error.kind() == Kind::Unsupported && !error.causes().is_empty(), "{error}");
        }
    }
}
