//! Machine code that answers a stat in the caller itself, where the answer needs no emulation. For x86-64.
//!
//! Each stub stands in for one `syscall` instruction of a program: it makes the call natively, marked with a key so that the filter lets it
//! through, and asks whether the file has the attribute that root emulation keeps overrides in. If there surely is none, the native answer
//! is the answer. In every other case it makes the call once more, without key, as the program would have.
//!
//! Stubs can be copied anywhere and switched off again, also while others execute them. As the instruction they stand in for, they change only `rax`, `rcx` and `r11`, no flags; they leave the red zone
//! below the stack pointer alone (System V ABI, AMD64 supplement, 3.2.2). They end with a jump whose target is to be filled in.

/// The upper half of the first argument of newfstatat, statx and getxattrat, a directory's descriptor, which marks a call as a stub's; the kernel
/// looks at the lower half only. Known to everyone: root emulation is no security boundary.
pub const KEY: u32 = 0x7007_1146;

/// getxattrat: the stubs need it. Since Linux 6.13.
pub const GETXATTRAT: u32 = 464;

/// Whether stubs work here.
pub fn is_possible() -> bool {
    // SAFETY: the kernel reads two strings, to which the pointers lead, and finds the last argument too small before it reads the one before.
    let result = unsafe { libc::syscall(i64::from(GETXATTRAT), libc::AT_FDCWD, c"/".as_ptr(), 0, c"user.".as_ptr(), 0, 0) };
    cfg!(all(target_arch = "x86_64", target_pointer_width = "64"))
        && (result >= 0 || nix::errno::Errno::last() != nix::errno::Errno::ENOSYS)
}

/// The instructions that a stub stands in for: `mov eax, number; syscall`, as every C library writes it.
pub const SITE: usize = 7;

/// The site of a call.
pub fn site(number: u32) -> [u8; SITE] {
    let [a, b, c, d] = number.to_le_bytes();
    [0xb8, a, b, c, d, 0x0f, 0x05]
}

/// What is put in the place of its first instruction at `at`: a jump to `stub`. `None` if it is too far. The second instruction stays: a
/// call that a signal has interrupted begins again there.
pub fn jump_to(at: u64, stub: u64) -> Option<[u8; 5]> {
    let [a, b, c, d] = distance(at + 5, stub)?;
    Some([0xe9, a, b, c, d])
}

/// What a stub begins with, aligned to [`ALIGNMENT`]; while these two bytes are [`OFF`], it only makes the plain call.
pub const ON: [u8; 2] = [0x66, 0x90];
/// See [`ON`]: a jump over the next jump.
pub const OFF: [u8; 2] = [0xeb, 0x02];
/// Of the address a stub is put at, in bytes.
pub const ALIGNMENT: u64 = 16;

/// The stub for a call, to be put at `at`; it goes on at `back`. `None` if there is none, or the way is too far.
pub fn stub(number: u32, at: u64, back: u64) -> Option<Vec<u8>> {
    let mut code = template(number)?.to_vec();
    let end = code.len();
    code[end - 4..].copy_from_slice(&distance(at + end as u64, back)?);
    Some(code)
}

/// Where in a piece of memory, which is aligned to [`ALIGNMENT`], stubs begin that are not switched off.
pub fn find(memory: &[u8]) -> impl Iterator<Item = usize> {
    let is_stub =
        |at: usize| NUMBERS.iter().filter_map(|&number| template(number)).any(|code| memory[at..].starts_with(&code[..code.len() - 4]));
    (0..memory.len()).step_by(ALIGNMENT as usize).filter(move |&at| is_stub(at))
}

/// The operand of a near jump.
fn distance(from: u64, to: u64) -> Option<[u8; 4]> {
    i32::try_from(to.wrapping_sub(from) as i64).ok().map(i32::to_le_bytes)
}

/// The calls there are stubs for.
#[cfg(target_arch = "x86_64")]
const NUMBERS: [u32; 5] =
    [libc::SYS_newfstatat as u32, libc::SYS_stat as u32, libc::SYS_lstat as u32, libc::SYS_fstat as u32, libc::SYS_statx as u32];
#[cfg(not(target_arch = "x86_64"))]
const NUMBERS: [u32; 0] = [];

#[cfg(not(target_arch = "x86_64"))]
fn template(_: u32) -> Option<&'static [u8]> {
    None
}

#[cfg(target_arch = "x86_64")]
fn template(number: u32) -> Option<&'static [u8]> {
    let bounds = match i64::from(number) {
        libc::SYS_newfstatat => (&raw const rootling_graft_newfstatat, &raw const rootling_graft_newfstatat_end),
        libc::SYS_stat => (&raw const rootling_graft_stat, &raw const rootling_graft_stat_end),
        libc::SYS_lstat => (&raw const rootling_graft_lstat, &raw const rootling_graft_lstat_end),
        libc::SYS_fstat => (&raw const rootling_graft_fstat, &raw const rootling_graft_fstat_end),
        libc::SYS_statx => (&raw const rootling_graft_statx, &raw const rootling_graft_statx_end),
        _ => return None,
    };
    // SAFETY: both are labels of one piece of this program's code, the second behind the first, and nobody writes there.
    Some(unsafe { std::slice::from_raw_parts(bounds.0, bounds.1.offset_from_unsigned(bounds.0)) })
}

#[cfg(target_arch = "x86_64")]
macro_rules! stubs {
    ($($start:ident $end:ident;)*) => {
        // SAFETY: labels defined below; only their addresses are used.
        unsafe extern "C" { $(static $start: u8; static $end: u8;)* }
    };
}

#[cfg(target_arch = "x86_64")]
stubs! {
    rootling_graft_newfstatat rootling_graft_newfstatat_end;
    rootling_graft_stat rootling_graft_stat_end;
    rootling_graft_lstat rootling_graft_lstat_end;
    rootling_graft_fstat rootling_graft_fstat_end;
    rootling_graft_statx rootling_graft_statx_end;
}

// The nop keeps the plain call from looking like a site. The key stands where every caller puts an argument: were it in a register that no
// argument of stat uses, a signal's handler would find it there and make its own calls with it.
#[cfg(target_arch = "x86_64")]
core::arch::global_asm!(
    ".macro ROOTLING_ARGUMENTS", // as the caller gave them
    "mov rdi, [rsp + 8]",
    "mov rsi, [rsp + 16]",
    "mov rdx, [rsp + 24]",
    "mov r10, [rsp + 32]",
    "mov r8, [rsp + 40]",
    "mov r9, [rsp + 48]",
    ".endm",
    ".macro ROOTLING_GRAFT name, number, keyed",
    ".balign 16",
    "rootling_graft_\\name:",
    ".byte 0x66, 0x90", // ON
    ".byte 0xeb, 7f - 2f",
    "2:", // the plain call
    "mov eax, \\number",
    "nop",
    "syscall",
    "jmp 9f",
    "7:",
    "lea rsp, [rsp - 248]",
    "pushfq",
    "mov [rsp + 8], rdi",
    "mov [rsp + 16], rsi",
    "mov [rsp + 24], rdx",
    "mov [rsp + 32], r10",
    "mov [rsp + 40], r8",
    "mov [rsp + 48], r9",
    // Other calls as newfstatat: directory, path, buffer, flags.
    ".if \\number == {fstat}",
    "mov rdx, rsi",
    "lea rsi, [rip + 9f - 1]", // an empty string
    "mov r10d, 0x1000",        // AT_EMPTY_PATH
    ".elseif \\number == {stat}",
    "mov rdx, rsi",
    "mov rsi, rdi",
    "mov edi, -100", // AT_FDCWD
    "xor r10d, r10d",
    ".elseif \\number == {lstat}",
    "mov rdx, rsi",
    "mov rsi, rdi",
    "mov edi, -100",
    "mov r10d, 0x100", // AT_SYMLINK_NOFOLLOW
    ".endif",
    "mov edi, edi",
    "movabs rax, {key}",
    "or rdi, rax",
    "mov eax, \\keyed",
    "syscall",
    "test rax, rax",
    "jnz 5f", // the kernel's error is the caller's
    ".if \\keyed == {statx}",
    "movzx ecx, word ptr [r8 + 28]",
    ".else",
    "mov ecx, [rdx + 24]",
    "mov edx, r10d",
    ".endif",
    "and ecx, 0xf000",
    "cmp ecx, 0x8000", // a regular file
    "je 3f",
    "cmp ecx, 0x4000", // a directory
    "jne 4f",
    "3:",
    "and edx, 0x1100",
    "lea r10, [rip + 8f]",
    "lea r8, [rsp + 64]", // struct xattr_args, all zero: only whether there is one is asked
    "mov qword ptr [r8], 0",
    "mov qword ptr [r8 + 8], 0",
    "mov r9d, 16",
    "mov eax, {getxattrat}",
    "syscall",
    "mov rcx, rax",
    "xor eax, eax",
    "cmp rcx, -61", // ENODATA
    "je 5f",
    "4:", // the plain call, after all
    "ROOTLING_ARGUMENTS",
    "mov eax, \\number",
    "nop",
    "syscall",
    "5:",
    "ROOTLING_ARGUMENTS",
    "popfq",
    "lea rsp, [rsp + 248]",
    "jmp 9f",
    "8:",
    ".asciz \"user.containers.override_stat\"",
    "9:",
    ".byte 0xe9, 0, 0, 0, 0",
    "rootling_graft_\\name\\()_end:",
    ".endm",
    ".pushsection .rodata.rootling_graft, \"a\"",
    "ROOTLING_GRAFT newfstatat, {newfstatat}, {newfstatat}",
    "ROOTLING_GRAFT stat, {stat}, {newfstatat}",
    "ROOTLING_GRAFT lstat, {lstat}, {newfstatat}",
    "ROOTLING_GRAFT fstat, {fstat}, {newfstatat}",
    "ROOTLING_GRAFT statx, {statx}, {statx}",
    ".popsection",
    ".purgem ROOTLING_GRAFT",
    ".purgem ROOTLING_ARGUMENTS",
    key = const (KEY as u64) << 32,
    newfstatat = const libc::SYS_newfstatat,
    stat = const libc::SYS_stat,
    lstat = const libc::SYS_lstat,
    fstat = const libc::SYS_fstat,
    statx = const libc::SYS_statx,
    getxattrat = const GETXATTRAT,
);

#[cfg(all(test, target_arch = "x86_64"))]
mod tests {
    use super::*;

    #[test]
    fn stubs_end_with_their_jump() {
        for number in NUMBERS {
            let code = stub(number, 0x1000, 0x900).unwrap();
            let end = code.len();
            assert!((100..400).contains(&end), "{number}: {end}");
            let back = i32::from_le_bytes(code[end - 4..].try_into().unwrap());
            assert_eq!((code[end - 5], 0x1000 + end as i64 + i64::from(back)), (0xe9, 0x900), "{number}");
            assert_eq!((&code[..2], code[2]), (&ON[..], OFF[0]), "{number}");
            let mut memory = [vec![0; 32], code.clone(), vec![0; 40]].concat();
            assert_eq!(find(&memory).collect::<Vec<_>>(), [32], "{number}");
            memory[32..34].copy_from_slice(&OFF);
            assert_eq!(find(&memory).count(), 0, "{number}");
            // The one with a key is never asked about.
            let sites = code.windows(SITE).filter(|bytes| *bytes == site(number)).count();
            assert_eq!(sites, usize::from([libc::SYS_newfstatat, libc::SYS_statx].contains(&number.into())), "{number}");
        }
        assert_eq!(stub(libc::SYS_read as u32, 0, 0), None);
    }

    #[test]
    fn jumps_reach_two_gigabytes() {
        assert_eq!(jump_to(0x1000, 0x1005), Some([0xe9, 0, 0, 0, 0]));
        assert_eq!(jump_to(0x1000, 0x1000 - 251), Some([0xe9, 0, 0xff, 0xff, 0xff]));
        assert_eq!(jump_to(0, 1 << 33), None);
    }
}
