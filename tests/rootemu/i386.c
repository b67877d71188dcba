/* What a 32-bit program sees, by the system calls of i386, old and new. Without a C library, so that any cc for x86-64 can compile it:
 * cc -m32 -nostdlib -static -ffreestanding -fno-pic -no-pie -fno-stack-protector i386.c
 */
typedef unsigned u;
typedef unsigned short u16;

enum { FORK = 2, WRITE = 4, OPEN = 5, WAITPID = 7, MKNOD = 14, CHMOD = 15, LCHOWN16 = 16, SETUID16 = 23, GETUID16 = 24, MKDIR = 39, GETEUID16 = 49,
    CHROOT = 61, SETREUID16 = 70, SETGROUPS16 = 81, FCHOWN16 = 95, STAT = 106, LSTAT = 107, FSTAT = 108, SETRESUID16 = 164, GETRESUID16 = 165,
    CHOWN16 = 182, STAT64 = 195, LSTAT64 = 196, FSTAT64 = 197, LCHOWN = 198, GETUID = 199, SETGROUPS = 206, GETGROUPS = 205, SETRESUID = 208, GETRESUID = 209,
    CHOWN = 212, SETXATTR = 226, GETXATTR = 229, EXIT_GROUP = 252, FSTATAT64 = 300, STATX = 383, IO_URING = 425 };

static int call(int number, u a, u b, u c, u d, u e) {
    int result;
    __asm__ volatile("int $0x80" : "=a"(result) : "0"(number), "b"(a), "c"(b), "d"(c), "S"(d), "D"(e) : "memory");
    return result;
}
#define C(number, a, b, c) call(number, (u)(a), (u)(b), (u)(c), 0, 0)

static int bad;

static void wrong(u line) {
    char text[] = "line 0000 is wrong\n";
    for (int i = 8; i > 4; i--, line /= 10) text[i] = '0' + line % 10;
    C(WRITE, 1, text, sizeof text - 1);
    bad = 1;
}
#define CHECK(condition) do { if (!(condition)) wrong(__LINE__); } while (0)

static u buffer[64];
#define SHORT(at) (*(u16 *)((char *)buffer + (at)))
#define LONG(at) (*(u *)((char *)buffer + (at)))

/* struct stat64: mode at 16, owner at 24 and 28. */
static int is(u uid, u gid, u mode) {
    return LONG(24) == uid && LONG(28) == gid && LONG(16) == mode;
}

/* struct stat: mode at 8, owner at 12 and 14, all of 16 bits. */
static int old_is(u uid, u gid, u mode) {
    return SHORT(12) == uid && SHORT(14) == gid && SHORT(8) == mode;
}

static void files(void) {
    int fd = C(OPEN, "f", 0102, 0644);
    CHECK(fd >= 0);
    CHECK(C(CHOWN, "f", 100033, 44) == 0);
    CHECK(C(STAT64, "f", buffer, 0) == 0 && is(100033, 44, 0100644));
    CHECK(C(LSTAT64, "f", buffer, 0) == 0 && is(100033, 44, 0100644));
    CHECK(C(FSTAT64, fd, buffer, 0) == 0 && is(100033, 44, 0100644));
    CHECK(call(FSTATAT64, -100, (u)"f", (u)buffer, 0, 0) == 0 && is(100033, 44, 0100644));
    /* What does not fit is shown as 65534. */
    CHECK(C(STAT, "f", buffer, 0) == 0 ? old_is(65534, 44, 0100644) : 1);
    CHECK(C(CHOWN16, "f", 33, 0xffff) == 0);
    CHECK(C(STAT64, "f", buffer, 0) == 0 && is(33, 44, 0100644));
    CHECK(C(FCHOWN16, fd, 0xffff, 55) == 0);
    CHECK(C(CHMOD, "f", 04755, 0) == 0);
    CHECK(C(FSTAT64, fd, buffer, 0) == 0 && is(33, 55, 0104755));
    CHECK(C(LCHOWN16, "f", 34, 56) == 0);
    CHECK(call(STATX, -100, (u)"f", 0, 0x7ff, (u)buffer) == 0 && LONG(20) == 34 && LONG(24) == 56);
    CHECK(C(MKNOD, "n", 020640, 0x103) == 0);
    CHECK(C(STAT64, "n", buffer, 0) == 0 && is(0, 0, 020640) && LONG(32) == 0x103);
    CHECK(call(SETXATTR, (u)"f", (u)"trusted.x", (u)"1", 1, 0) == 0);
    CHECK(call(GETXATTR, (u)"f", (u)"trusted.x", (u)buffer, 8, 0) == 1);
    CHECK(C(STAT64, "none", buffer, 0) == -2);
    CHECK(C(STAT64, 16, buffer, 0) == -14);
}

static void identity(void) {
    u ids[3];
    u16 old[3], group = 7;
    CHECK(C(GETUID, 0, 0, 0) == 0 && C(GETUID16, 0, 0, 0) == 0);
    CHECK(C(SETGROUPS16, 1, &group, 0) == 0);
    CHECK(C(GETGROUPS, 3, ids, 0) == 1 && ids[0] == 7);
    CHECK(C(SETRESUID, -1, 100033, -1) == 0);
    CHECK(C(GETEUID16, 0, 0, 0) == 65534);
    CHECK(C(GETRESUID, &ids[0], &ids[1], &ids[2]) == 0 && ids[0] == 0 && ids[1] == 100033 && ids[2] == 0);
    CHECK(C(SETRESUID16, 0xffff, 0, 0xffff) == 0);
    CHECK(C(SETREUID16, 33, 33, 0) == 0);
    CHECK(C(GETRESUID16, &old[0], &old[1], &old[2]) == 0 && old[0] == 33 && old[1] == 33 && old[2] == 33);
    CHECK(C(SETUID16, 0, 0, 0) == -1);
    CHECK(C(CHOWN, "f", 0, 0) == -1);
}

void _start(void) {
    files();
    CHECK(C(IO_URING, 8, buffer, 0) == -38);
    int pid = C(FORK, 0, 0, 0), status = 1;
    if (pid == 0) {
        identity();
        C(EXIT_GROUP, bad, 0, 0);
    }
    CHECK(C(WAITPID, pid, &status, 0) == pid && status == 0);
    if (!bad) C(WRITE, 1, "ok\n", 3);
    C(EXIT_GROUP, bad, 0, 0);
}
