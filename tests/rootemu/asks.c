/* Asks for the attributes of files so often that the supervisor changes this program, and says whether any answer ever differs from what it should be.
 *
 * Run in an empty directory as emulated root; prints `ok`, or what was wrong. Build: cc -O1 -static -pthread asks.c
 */
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <linux/filter.h>
#include <linux/seccomp.h>
#include <pthread.h>
#include <signal.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/sysmacros.h>
#include <sys/wait.h>
#include <unistd.h>

#define ROUNDS 300
#define CHECK(what) do { if (!(what)) { printf("round %d: %s: not %s (errno %d)\n", round, name, #what, errno); exit(1); } } while (0)

/* As C libraries before 2.33 made the calls. The registers are those the kernel leaves alone. */
static long raw(long number, long a, long b, long c, long d) {
    long result;
    register long r10 asm("r10") = d;
    register long r8 asm("r8") = 0x1111, r9 asm("r9") = 0x2222;
    long a2 = a, b2 = b, c2 = c;
    switch (number) {
#define CASE(n) case n: asm volatile("mov $" #n ", %%eax\n syscall" : "=&a"(result), "+D"(a2), "+S"(b2), "+d"(c2), "+r"(r10), "+r"(r8), "+r"(r9) : : "rcx", "r11", "memory"); break
    CASE(4);
    CASE(5);
    CASE(6);
    CASE(262);
    default: abort();
    }
    if (a2 != a || b2 != b || c2 != c || r10 != d || r8 != 0x1111 || r9 != 0x2222) {
        printf("call %ld changed a register\n", number);
        exit(1);
    }
    return result;
}

struct file { const char *name; unsigned mode, uid, gid, device; };

static struct file files[] = {
    {"plain", S_IFREG | 0644, 0, 0, 0},
    {"owned", S_IFREG | 04750, 33, 44, 0},
    {"directory", S_IFDIR | 0755, 0, 0, 0},
    {"owned-directory", S_IFDIR | 01770, 5, 6, 0},
    {"device", S_IFCHR | 0600, 0, 7, 0x103},
    {"fifo", S_IFIFO | 0644, 8, 9, 0},
    {"link", S_IFLNK | 0777, 10, 11, 0},
    {"plain-link", S_IFLNK | 0777, 0, 0, 0},
};
#define COUNT (sizeof files / sizeof *files)

static void make(void) {
    umask(0);
    close(open("plain", O_CREAT | O_WRONLY, 0644));
    close(open("owned", O_CREAT | O_WRONLY, 0644));
    chown("owned", 33, 44), chmod("owned", 04750);
    mkdir("directory", 0755);
    mkdir("owned-directory", 0755), chown("owned-directory", 5, 6), chmod("owned-directory", 01770);
    mknod("device", S_IFCHR | 0600, makedev(1, 3)), chown("device", 0, 7);
    mkfifo("fifo", 0644), chown("fifo", 8, 9);
    symlink("owned", "link"), lchown("link", 10, 11);
    symlink("plain", "plain-link");
}

static int same(const struct file *file, unsigned mode, unsigned uid, unsigned gid, unsigned device) {
    return file->mode == mode && file->uid == uid && file->gid == gid && file->device == device;
}
#define SAME(file, s) same(file, (s).st_mode, (s).st_uid, (s).st_gid, (s).st_rdev)

static void ask(int round, const struct file *file) {
    const char *name = file->name;
    const struct file *target = S_ISLNK(file->mode) ? &files[file->uid == 10 ? 1 : 0] : file;
    struct stat s;
    struct statx x;
    int fd = open(name, O_PATH | O_NOFOLLOW);
    CHECK(lstat(name, &s) == 0);
    CHECK(SAME(file, s));
    CHECK(stat(name, &s) == 0);
    CHECK(SAME(target, s));
    CHECK(fstatat(AT_FDCWD, name, &s, AT_SYMLINK_NOFOLLOW) == 0);
    CHECK(SAME(file, s));
    CHECK(fstat(fd, &s) == 0);
    CHECK(SAME(file, s));
    CHECK(statx(AT_FDCWD, name, AT_SYMLINK_NOFOLLOW, STATX_BASIC_STATS, &x) == 0);
    CHECK(same(file, x.stx_mode, x.stx_uid, x.stx_gid, makedev(x.stx_rdev_major, x.stx_rdev_minor)));
    CHECK(statx(fd, "", AT_EMPTY_PATH, STATX_BASIC_STATS, &x) == 0);
    CHECK(same(file, x.stx_mode, x.stx_uid, x.stx_gid, makedev(x.stx_rdev_major, x.stx_rdev_minor)));
    CHECK(raw(4, (long)name, (long)&s, 3, 4) == 0);
    CHECK(SAME(target, s));
    CHECK(raw(6, (long)name, (long)&s, 3, 4) == 0);
    CHECK(SAME(file, s));
    CHECK(raw(5, fd, (long)&s, 3, 4) == 0);
    CHECK(SAME(file, s));
    CHECK(raw(262, AT_FDCWD, (long)name, (long)&s, AT_SYMLINK_NOFOLLOW) == 0);
    CHECK(SAME(file, s));
    close(fd);
    if (file == &files[0]) {
        fd = open(name, O_RDONLY);
        CHECK(fstat(fd, &s) == 0);
        CHECK(SAME(file, s));
        close(fd);
        CHECK(fstat(999, &s) == -1 && errno == EBADF);
        CHECK(stat("nothing", &s) == -1 && errno == ENOENT);
        CHECK(stat("plain/x", &s) == -1 && errno == ENOTDIR);
        CHECK(stat("", &s) == -1 && errno == ENOENT);
        CHECK(stat((char *)8, &s) == -1 && errno == EFAULT);
        CHECK(raw(4, (long)name, 8, 0, 0) == -EFAULT);
        CHECK(fstatat(AT_FDCWD, name, &s, 0x80000000) == -1 && errno == EINVAL);
    }
}

static void ask_all(int round) {
    for (size_t i = 0; i < COUNT; i++) ask(round, &files[i]);
}

/* Kills who makes a call that this program never made by itself. */
static void restrict_calls(int way) {
    struct sock_filter code[] = {
        BPF_STMT(BPF_LD | BPF_W | BPF_ABS, offsetof(struct seccomp_data, nr)),
        BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, 464, 0, 1),
        BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_KILL_PROCESS),
        BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ALLOW),
    };
    struct sock_fprog program = {sizeof code / sizeof *code, code};
    prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0);
    long result = way ? prctl(PR_SET_SECCOMP, SECCOMP_MODE_FILTER, &program) : syscall(SYS_seccomp, SECCOMP_SET_MODE_FILTER, 0, &program);
    if (result != 0) perror("seccomp"), exit(1);
}

static void in_child(const char *name, void (*what)(int)) {
    pid_t child = fork();
    int status, round = 0;
    if (child == 0) what(1000), exit(0);
    waitpid(child, &status, 0);
    CHECK(status == 0);
}

static void many(int round) {
    for (int i = 0; i < ROUNDS; i++) ask_all(round + i);
}
static void restricted(int round) {
    restrict_calls(0);
    many(round);
}
static void restricted_otherwise(int round) {
    many(round);
    restrict_calls(1);
    many(round);
    in_child("grandchild", many);
}
static void changed(int round) {
    in_child("before any change", ask_all);
    many(round);
}

/* Confined by a filter of its own, after who grafted its memory has gone without a word. */
static void orphaned(int round) {
    int pipes[2];
    pipe(pipes);
    pid_t parent = fork();
    if (parent == 0) {
        many(round);
        if (fork() == 0) {
            close(pipes[0]);
            while (getppid() != 1) usleep(1000);
            restrict_calls(0);
            many(round);
            write(pipes[1], "y", 1);
        } else if (round % 2) {
            raise(SIGKILL);
        }
        _exit(0);
    }
    close(pipes[1]);
    waitpid(parent, NULL, 0);
    char answer = 'n';
    const char *name = "orphan";
    read(pipes[0], &answer, 1);
    CHECK(answer == 'y');
}
static void orphaned_by_kill(int round) {
    orphaned(round + 1);
}

/* After vfork the child asks often in its parent's memory. */
static void borrowed(int round) {
    pid_t child = vfork();
    if (child == 0) {
        struct stat s;
        for (int i = 0; i < 100; i++) stat("plain", &s);
        _exit(0);
    }
    restrict_calls(0);
    many(round);
}

/* The kernel keeps the flags, and compilers may rely on it. */
static void flags(int round) {
    const char *name = "plain";
    struct stat s;
    for (int i = 0; i < 100; i++) {
        long before, after, result;
        register long r10 asm("r10") = 0;
        long want = i % 2 ? 0x8d5 : 0x202;
        asm volatile("push %4\n popfq\n pushfq\n pop %0\n mov $262, %%eax\n syscall\n pushfq\n pop %1\n"
                     : "=&r"(before), "=&r"(after), "=&a"(result) : "D"(AT_FDCWD), "r"(want), "S"(name), "d"(&s), "r"(r10) : "rcx", "r11", "memory", "cc");
        CHECK(result == 0);
        CHECK(before == after);
    }
}

static void *thread(void *unused) {
    (void)unused;
    many(2000);
    return NULL;
}
static void threaded(int round) {
    pthread_t threads[3];
    for (int i = 0; i < 3; i++) pthread_create(&threads[i], NULL, thread, NULL);
    for (int i = 0; i < 3; i++) pthread_join(threads[i], NULL);
    many(round);
}

int main(int argc, char **argv) {
    (void)argv;
    if (argc > 1) {
        for (int round = 0; round < 2000; round++) {
            struct stat s;
            const char *name = "plain";
            CHECK(stat(name, &s) == 0);
            CHECK(SAME(&files[0], s));
        }
        return 0;
    }
    make();
    in_child("threads first", threaded);
    in_child("restricted", restricted);
    in_child("orphaned", orphaned);
    in_child("orphaned by kill", orphaned_by_kill);
    in_child("borrowed", borrowed);
    in_child("flags", flags);
    in_child("changed", changed);
    for (int round = 0; round < ROUNDS; round++) {
        if (round == ROUNDS / 2) {
            /* What was nobody's else becomes so, and the other way round. */
            chown("plain", 77, 78), files[0].uid = 77, files[0].gid = 78;
            chown("owned", 0, 0), chmod("owned", 0600), files[1] = (struct file){"owned", S_IFREG | 0600, 0, 0, 0};
            chown("directory", 0, 79), files[2].gid = 79;
        }
        ask_all(round);
    }
    in_child("inherited", many);
    in_child("restricted after", restricted);
    in_child("restricted by prctl", restricted_otherwise);
    in_child("threads", threaded);
    many(3000);
    printf("ok\n");
    return 0;
}
