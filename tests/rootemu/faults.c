/* Callers that die, are stopped, traced, signalled, have threads, share memory, or hand over bad pointers: one check a subcommand.
 *
 * Each prints `ok`, or what went wrong. All run as emulated root in an empty directory, where `setup` has made files to look at.
 * Build: cc -O1 -static -pthread faults.c
 */
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <sched.h>
#include <signal.h>
#include <spawn.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>
#include <linux/fuse.h>
#include <linux/sched.h>
#include <sys/mman.h>
#include <sys/mount.h>
#include <sys/prctl.h>
#include <sys/ptrace.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/time.h>
#include <sys/wait.h>
#include <sys/xattr.h>

static int bad;

static void wrong(int line, const char *text, const char *format, ...) {
    char more[300];
    va_list list;
    va_start(list, format);
    vsnprintf(more, sizeof more, format, list);
    va_end(list);
    if (bad++ < 10) dprintf(1, "line %d: %s: %s\n", line, text, more);
}
#define CHECK(condition, ...) do { if (!(condition)) wrong(__LINE__, #condition, "" __VA_ARGS__); } while (0)
#define WELL(call) do { if ((call) < 0) wrong(__LINE__, #call, "%s", strerrorname_np(errno)); } while (0)
#define FAILS(call, number) do { errno = 0; long r = (long)(call); if (r >= 0 || errno != (number)) \
    wrong(__LINE__, #call, "%ld %s", r, errno ? strerrorname_np(errno) : ""); } while (0)

/* How often; the first argument, so that the same program serves tests and longer trials. */
static int times = 100;

static double now(void) {
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return t.tv_sec + t.tv_nsec / 1e9;
}

static long owner(const char *path) {
    struct stat s;
    return stat(path, &s) ? -errno : (long)s.st_uid;
}

static int status_of(pid_t pid) {
    int status = -1;
    while (waitpid(pid, &status, 0) < 0 && errno == EINTR) {}
    return status;
}

/* Forks; the child returns 0 from here. */
static pid_t child(void) {
    pid_t pid = fork();
    if (pid < 0) { perror("fork"); exit(1); }
    return pid;
}

static void setup(void) {
    int fd = open("f33", O_CREAT | O_RDWR, 0644);
    CHECK(fd >= 0);
    WELL(fchown(fd, 33, 44));
    WELL(fchmod(fd, 0640));
    close(fd);
    WELL(mkdir("open", 0777));
    WELL(chmod("open", 0777));
}

/* The supervisor is well, and takes us for whom we are. */
static void still_well(void) {
    CHECK(owner("f33") == 33, "%ld", owner("f33"));
    CHECK(getuid() == 0, "%d", getuid());
}

/* Calls of every kind, by one who is `uid` or root. */
static void many_calls(unsigned uid) {
    char name[50];
    sprintf(name, "open/%d-%ld", getpid(), syscall(SYS_gettid));
    int fd = open(name, O_CREAT | O_RDWR, 0600);
    struct stat s;
    WELL(fd);
    WELL(fstat(fd, &s));
    CHECK(s.st_uid == uid, "%u", s.st_uid);
    close(fd);
    CHECK(owner("f33") == 33, "%ld", owner("f33"));
    CHECK(geteuid() == uid, "%u %u", geteuid(), uid);
    WELL(chown(name, uid, -1));
    WELL(unlink(name));
}

static void become(unsigned uid) {
    WELL(setresgid(uid, uid, uid));
    WELL(setresuid(uid, uid, uid));
}

/* Short processes, each with an exec and a user of its own, 64 at once. */
static void short_processes(char *self) {
    int running = 0, status;
    for (int i = 0; i < times; i++) {
        if (running == 64) { CHECK(wait(&status) > 0 && status == 0, "%x", status); running--; }
        if (!child()) {
            char number[20];
            sprintf(number, "%d", 1000 + i);
            become(1000 + i);
            execl(self, self, "leaf", number, NULL);
            _exit(9);
        }
        running++;
    }
    while (wait(&status) > 0) CHECK(status == 0, "%x", status);
}

static void leaf(void) {
    many_calls(times);
}

/* Callers killed in the middle of a call, one by one and in groups. */
static void killed_callers(void) {
    srand(1);
    for (int i = 0; i < times; i++) {
        int group = i % 4 == 0, status;
        pid_t pid = child();
        if (!pid) {
            if (group) { setpgid(0, 0); for (int n = 0; n < 8; n++) if (!child()) break; }
            become(2000 + i);
            for (;;) many_calls(2000 + i);
        }
        if (group) setpgid(pid, pid);
        usleep(rand() % 3000);
        kill(group ? -pid : pid, SIGKILL);
        status = status_of(pid);
        CHECK(WIFSIGNALED(status), "%x", status);
    }
    still_well();
}

static pid_t fork_as(pid_t number) {
    struct clone_args args = {.exit_signal = SIGCHLD, .set_tid = (unsigned long)&number, .set_tid_size = 1};
    return syscall(SYS_clone3, &args, sizeof args);
}

/* A number is used again at once: the new process is not the old one. */
static void reused_numbers(void) {
    const pid_t number = 30000;
    for (int i = 0; i < times; i++) {
        pid_t pid = fork_as(number);
        if (pid < 0 && errno == EEXIST) { i--; continue; }
        if (!pid) {
            unsigned expected = 0;
            if (getuid() != expected || owner("f33") != 33) _exit(7);
            become(33);
            if (i % 3 == 0) for (;;) many_calls(33);
            if (i % 3 == 1) chroot("open");
            _exit(geteuid() == 33 ? 0 : 8);
        }
        if (pid < 0) { WELL(pid); return; }
        if (i % 3 == 0) { usleep(rand() % 1000); kill(pid, SIGKILL); }
        int status = status_of(pid);
        CHECK(status == 0 || (i % 3 == 0 && WIFSIGNALED(status)), "%x", status);
    }
    still_well();
}

static void stopped_callers(void) {
    int status;
    pid_t pid = child();
    if (!pid) {
        become(33);
        for (double end = now() + times / 1000.0; now() < end;) many_calls(33);
        _exit(bad != 0);
    }
    while (waitpid(pid, &status, WNOHANG) == 0) {
        kill(pid, SIGSTOP);
        usleep(rand() % 500);
        kill(pid, SIGCONT);
        usleep(rand() % 500);
    }
    CHECK(status == 0, "%x", status);
    still_well();
}

static volatile int signals;

static void handle(int number) {
    (void)number;
    int saved = errno;
    signals++;
    struct stat s;
    /* Handlers make calls, too. */
    if (signals % 16 == 0 && (stat("f33", &s) || s.st_uid != 33)) _exit(3);
    errno = saved;
}

static void every_100_us(int flags) {
    struct sigaction action = {.sa_handler = handle, .sa_flags = flags};
    sigaction(SIGALRM, &action, NULL);
    struct itimerval timer = {{0, 100}, {0, 100}};
    setitimer(ITIMER_REAL, &timer, NULL);
}

/* Handlers that have calls restarted: no call must fail, none be done twice. */
static void signalled_callers(void) {
    every_100_us(SA_RESTART);
    for (int i = 0; i < times; i++) {
        WELL(mkdir("once", 0700));
        WELL(chown("once", 7, 8));
        CHECK(owner("once") == 7, "%ld", owner("once"));
        WELL(rmdir("once"));
        WELL(seteuid(33));
        many_calls(33);
        WELL(seteuid(0));
    }
    CHECK(signals > 0);
}

static void *preempt(void *thread) {
    /* As Go's runtime does it. */
    for (;;) { syscall(SYS_tgkill, getpid(), (int)(long)thread, SIGURG); usleep(20); }
    return NULL;
}

static void preempted_callers(void) {
    struct sigaction action = {.sa_handler = handle, .sa_flags = SA_RESTART};
    sigaction(SIGURG, &action, NULL);
    pthread_t helper;
    pthread_create(&helper, NULL, preempt, (void *)syscall(SYS_gettid));
    for (int i = 0; i < times; i++) many_calls(0);
    CHECK(signals > 0);
}

/* Handlers without SA_RESTART: a call that the supervisor has not received yet fails with EINTR, and with nothing else. */
static void interrupted_callers(void) {
    struct stat s;
    every_100_us(0);
    for (int i = 0; i < times; i++) {
        int result = stat("f33", &s);
        CHECK(result == 0 ? s.st_uid == 33 : errno == EINTR, "%s", strerrorname_np(errno));
    }
    CHECK(signals > 0);
}

static void traced(int request) {
    int status;
    pid_t pid = child();
    if (!pid) {
        if (request == PTRACE_TRACEME) { ptrace(PTRACE_TRACEME, 0, 0, 0); raise(SIGSTOP); }
        become(33);
        if (request == PTRACE_TRACEME) for (int i = 0; i < 20; i++) many_calls(33);
        else for (double end = now() + times / 1000.0; now() < end;) many_calls(33);
        _exit(bad != 0);
    }
    if (request == PTRACE_TRACEME) {
        int stops = 0;
        while (waitpid(pid, &status, 0) == pid && WIFSTOPPED(status)) { ptrace(PTRACE_SYSCALL, pid, 0, 0); stops++; }
        CHECK(stops > 100, "%d", stops);
    } else {
        while (waitpid(pid, &status, WNOHANG) == 0) {
            if (ptrace(PTRACE_SEIZE, pid, 0, 0)) break;
            ptrace(PTRACE_INTERRUPT, pid, 0, 0);
            status_of(pid);
            ptrace(PTRACE_DETACH, pid, 0, 0);
            usleep(rand() % 500);
        }
        if (!WIFEXITED(status)) status = status_of(pid);
    }
    CHECK(status == 0, "%x", status);
}

static void traced_callers(void) {
    traced(PTRACE_TRACEME);
    traced(PTRACE_SEIZE);
    /* A tracer that dies takes its child along. */
    int status;
    pid_t tracer = child();
    if (!tracer) {
        pid_t pid = child();
        if (!pid) for (;;) many_calls(0);
        ptrace(PTRACE_SEIZE, pid, 0, PTRACE_O_EXITKILL);
        usleep(2000);
        _exit(0);
    }
    status = status_of(tracer);
    CHECK(status == 0, "%x", status);
    still_well();
}

static int in_shared_memory(void *self) {
    syscall(SYS_setresuid, 33, 33, 33);
    if (syscall(SYS_geteuid) != 33) _exit(4);
    execl(self, self, "leaf", "33", NULL);
    _exit(5);
}

/* Children that share the parent's memory until they exec: vfork, clone, clone3, posix_spawn. */
static void shared_memory(char *self) {
    static char stack[65536];
    int status;
    for (int i = 0; i < times; i++) {
        pid_t pid = vfork();
        if (!pid) in_shared_memory(self);
        status = status_of(pid);
        CHECK(status == 0, "vfork %x", status);
        pid = clone(in_shared_memory, stack + sizeof stack, CLONE_VM | CLONE_VFORK | SIGCHLD, self);
        status = status_of(pid);
        CHECK(status == 0, "clone %x", status);
        /* Without waiting: the parent's calls meet the child's. */
        pid = clone(in_shared_memory, stack + sizeof stack, CLONE_VM | SIGCHLD, self);
        still_well();
        status = status_of(pid);
        CHECK(status == 0, "clone %x", status);
        struct clone_args args = {.exit_signal = SIGCHLD, .flags = CLONE_VFORK};
        pid = syscall(SYS_clone3, &args, sizeof args);
        if (!pid) in_shared_memory(self);
        status = status_of(pid);
        CHECK(status == 0, "clone3 %x", status);
        char *argv[] = {self, "leaf", "0", NULL};
        CHECK(posix_spawn(&pid, self, NULL, NULL, argv, environ) == 0);
        status = status_of(pid);
        CHECK(status == 0, "spawn %x", status);
    }
    still_well();
}

static volatile int stop;

static void *look(void *unused) {
    struct stat s;
    while (!stop) {
        int result = stat("f33", &s);
        if (result || s.st_uid != 33) wrong(__LINE__, "stat", "%d", result);
        unsigned uid = geteuid();
        if (uid != 0 && uid != 33) wrong(__LINE__, "geteuid", "%u", uid);
    }
    return unused;
}

static void *after_leader(void *leader) {
    pthread_join((pthread_t)leader, NULL);
    become(33);
    for (int i = 0; i < 20; i++) many_calls(33);
    int fd = open("f33", O_RDONLY);
    char name[50];
    sprintf(name, "/proc/thread-self/fd/%d", fd);
    CHECK(owner(name) == 33, "%ld", owner(name));
    pid_t pid = child();
    if (!pid) { many_calls(33); _exit(bad != 0); }
    int status = status_of(pid);
    CHECK(status == 0, "%x", status);
    _exit(bad != 0);
}

static void threads(void) {
    pthread_t other[8];
    for (int i = 0; i < 8; i++) pthread_create(&other[i], NULL, look, NULL);
    for (int i = 0; i < times; i++) {
        WELL(seteuid(33));
        CHECK(geteuid() == 33);
        WELL(seteuid(0));
        CHECK(geteuid() == 0);
    }
    stop = 1;
    for (int i = 0; i < 8; i++) pthread_join(other[i], NULL);
    /* The first thread ends, the others go on. */
    for (int i = 0; i < 5; i++) {
        pid_t pid = child();
        if (!pid) {
            pthread_create(&other[0], NULL, after_leader, (void *)pthread_self());
            pthread_exit(NULL);
        }
        int status = status_of(pid);
        CHECK(status == 0, "%x", status);
    }
    still_well();
}

static int move_away(void *directory) {
    return chdir(directory);
}

static int move_root(void *directory) {
    return chroot(directory);
}

/* A process that shares its directories with another. */
static void shared_directories(void) {
    static char stack[65536];
    WELL(mkdir("d", 0755));
    int fd = open("d/inner", O_CREAT | O_RDWR, 0644);
    WELL(fchown(fd, 5, 6));
    int status = status_of(clone(move_away, stack + sizeof stack, CLONE_FS | SIGCHLD, "d"));
    CHECK(status == 0 && owner("inner") == 5, "%x %ld", status, owner("inner"));
    WELL(chdir(".."));
    pid_t pid = child();
    if (!pid) {
        status = status_of(clone(move_root, stack + sizeof stack, CLONE_FS | SIGCHLD, "d"));
        CHECK(status == 0 && owner("/inner") == 5, "%x %ld", status, owner("/inner"));
        _exit(bad != 0);
    }
    status = status_of(pid);
    CHECK(status == 0, "%x", status);
}

static void descriptors(void) {
    struct rlimit none = {8, 8}, plenty;
    pid_t pid = child();
    if (!pid) {
        close_range(0, ~0u, 0);
        if (owner("f33") != 33 || chown("f33", 33, 44) || getuid() || chdir("open")) _exit(1);
        become(33);
        if (open("first", O_CREAT | O_RDWR, 0600) != 0) _exit(2);
        if (owner("first") != 33) _exit(3);
        _exit(0);
    }
    int status = status_of(pid);
    CHECK(status == 0, "%x", status);
    pid = child();
    if (!pid) {
        setrlimit(RLIMIT_NOFILE, &none);
        become(33);
        while (dup(0) >= 0) {}
        CHECK(owner("f33") == 33);
        FAILS(open("open/none", O_CREAT | O_RDWR, 0600), EMFILE);
        FAILS(access("open/none", F_OK), ENOENT);
        FAILS(open("open", O_TMPFILE | O_RDWR, 0600), EMFILE);
        _exit(bad != 0);
    }
    status = status_of(pid);
    CHECK(status == 0, "%x", status);
    getrlimit(RLIMIT_NOFILE, &plenty);
    plenty.rlim_cur = plenty.rlim_max;
    setrlimit(RLIMIT_NOFILE, &plenty);
    int far = fcntl(open("f33", O_RDONLY), F_DUPFD, plenty.rlim_max > 500000 ? 500000 : plenty.rlim_max - 1);
    struct stat s;
    CHECK(fstat(far, &s) == 0 && s.st_uid == 33, "%d", far);
    FAILS(fstat(1 << 30, &s), EBADF);
    FAILS(fstat(-1, &s), EBADF);
    FAILS(fchown(-5, 1, 1), EBADF);
    FAILS(fchownat(77, "x", 1, 1, 0), EBADF);
}

/* The kernel's own answers to pointers that lead nowhere. */
static void pointers(void) {
    long page = sysconf(_SC_PAGESIZE);
    char *area = mmap(NULL, 4 * page, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    munmap(area + page, page);
    struct stat s;
    char *end = area + page;
    strcpy(end - 4, "f33");
    CHECK(owner(end - 4) == 33, "%ld", owner(end - 4));
    WELL(chown(end - 4, 33, 44));
    /* The name goes on where nothing is mapped. */
    memset(end - 10, 'x', 10);
    FAILS(stat(end - 10, &s), EFAULT);
    FAILS(chown(end - 10, 1, 1), EFAULT);
    FAILS(mkdir(end - 10, 0700), EFAULT);
    FAILS(syscall(SYS_lstat, NULL, &s), EFAULT);
    FAILS(chmod((char *)-4096, 0700), EFAULT);
    FAILS(chown((char *)0xffffffff80000000, 1, 1), EFAULT);
    FAILS(syscall(SYS_stat, "f33", NULL), EFAULT);
    FAILS(syscall(SYS_stat, "f33", end - 20), EFAULT);
    FAILS(syscall(SYS_getresuid, end - 2, &s, &s), EFAULT);
    FAILS(syscall(SYS_setgroups, 5, end - 4), EFAULT);
    memset(end - 10, 'x', 10);
    FAILS(getxattr(end - 10, "user.x", NULL, 0), EFAULT);
    /* Read-only, and without any access. */
    mprotect(area + 2 * page, page, PROT_READ);
    FAILS(syscall(SYS_stat, "f33", area + 2 * page), EFAULT);
    mprotect(area + 3 * page, page, PROT_NONE);
    FAILS(stat(area + 3 * page, &s), EFAULT);
    /* The longest name there is, and one byte more. */
    char *name = malloc(5000);
    memset(name, '/', 5000);
    strcpy(name + 4092, "tmp");
    WELL(lstat(name, &s));
    memset(name, '/', 5000);
    for (int i = 1; i < 4090; i += 2) name[i - 1] = '.';
    strcpy(name + 4092, "f33");
    CHECK(strlen(name) == 4095 && owner(name) == 33, "%ld", owner(name));
    WELL(chown(name, 34, 44));
    WELL(chown(name, 33, 44));
    memmove(name + 1, name, 4096);
    FAILS(stat(name, &s), ENAMETOOLONG);
    FAILS(chown(name, 1, 1), ENAMETOOLONG);
    memset(name, 'x', 256);
    name[256] = 0;
    FAILS(lchown(name, 1, 1), ENAMETOOLONG);
    FAILS(open(name, O_CREAT | O_RDWR, 0600), ENAMETOOLONG);
}

/* Names that lead through the caller's own /proc. */
static void magic_names(char *self) {
    char name[100], link[100];
    int fd = open("f33", O_RDONLY);
    WELL(chown(self, 71, 72));
    WELL(chmod(self, 04755));
    struct stat s;
    CHECK(stat("/proc/self/exe", &s) == 0 && s.st_uid == 71 && s.st_mode & S_ISUID, "%u %o", s.st_uid, s.st_mode);
    for (const char *const *form = (const char *const[]){"/proc/self/fd/%d", "/dev/fd/%d", "/proc/thread-self/fd/%d", "//proc/self/fd/%d",
             "/proc//self/./fd/%d", "/proc/self/../self/fd/%d", "/proc/self/task/../fd/%d", NULL}; *form; form++) {
        sprintf(name, *form, fd);
        CHECK(owner(name) == 33, "%s %ld", name, owner(name));
        WELL(chown(name, 34, -1));
        CHECK(owner("f33") == 34, "%s %ld", name, owner("f33"));
        WELL(chown("f33", 33, 44));
    }
    sprintf(name, "/proc/self/task/%ld/fd/%d", syscall(SYS_gettid), fd);
    CHECK(owner(name) == 33, "%s %ld", name, owner(name));
    CHECK(owner("/proc/self/cwd/f33") == 33);
    CHECK(owner("/proc/self/root/tmp/f33") == 33);
    chdir("/proc");
    sprintf(name, "self/fd/%d", fd);
    CHECK(owner(name) == 33, "%s %ld", name, owner(name));
    chdir("/proc/self");
    sprintf(name, "fd/%d", fd);
    CHECK(owner(name) == 33, "%s %ld", name, owner(name));
    int proc = open("/proc", O_PATH);
    sprintf(name, "self/fd/%d", fd);
    CHECK(fstatat(proc, name, &s, 0) == 0 && s.st_uid == 33, "%u", s.st_uid);
    chdir("/tmp");
    /* A log that leads to standard output, as in many images. */
    dup2(fd, 7);
    WELL(symlink("/dev/fd/7", "log"));
    WELL(symlink("log", "log2"));
    WELL(chown("log2", 35, -1));
    CHECK(owner("f33") == 35, "%ld", owner("f33"));
    WELL(chmod("log", 0604));
    CHECK(stat("f33", &s) == 0 && (s.st_mode & 0777) == 0604, "%o", s.st_mode);
    CHECK(stat(self, &s) == 0 && s.st_uid == 71);
    CHECK(stat("/dev/stdout", &s) == 0 && readlink("/proc/self/fd/1", link, sizeof link) > 0);
    WELL(chown(self, 0, 0));
}

static void *eat(void *unused) {
    /* Memory until there is no more, and processes until there are none. */
    while (mmap(NULL, 1 << 20, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0) != MAP_FAILED) {}
    return unused;
}

static void scarcity(void) {
    struct rlimit memory = {64 << 20, 64 << 20}, small = {4, 4};
    pid_t pid = child();
    if (!pid) {
        setrlimit(RLIMIT_AS, &memory);
        eat(NULL);
        if (owner("f33") != 33 || chown("f33", 33, 44)) _exit(1);
        syscall(SYS_setresuid, 33, 33, 33);
        int fd = open("open/scarce", O_CREAT | O_RDWR, 0600);
        _exit(fd < 0 || owner("open/scarce") != 33);
    }
    int status = status_of(pid);
    CHECK(status == 0, "%x", status);
    pid = child();
    if (!pid) {
        setrlimit(RLIMIT_NPROC, &small);
        become(33);
        for (int i = 0; i < 20; i++) if (fork() == 0) { many_calls(33); _exit(0); }
        while (wait(NULL) > 0) {}
        _exit(bad != 0);
    }
    status = status_of(pid);
    CHECK(status == 0, "%x", status);
}

/* What x32 and io_uring answer, and a call number that does not exist. */
static void closed_doors(void) {
    struct stat s;
    FAILS(syscall(0x40000000 | SYS_stat, "f33", &s), ENOSYS);
    FAILS(syscall(0x40000000 | SYS_getpid), ENOSYS);
    FAILS(syscall(425, 8, &s), ENOSYS);
    FAILS(syscall(100000), ENOSYS);
}

/* A FUSE file system whose server is one of us, and makes calls that must be answered before it can answer. */

struct request { unsigned length, opcode; unsigned long unique, node; unsigned uid, gid, pid, padding; char rest[70000]; };

static void serve_files(int fuse) {
    static struct request in;
    static char out[200];
    struct fuse_out_header *header = (void *)out;
    while (read(fuse, &in, sizeof in) > 0) {
        if (owner("/tmp/f33") != 33 || geteuid() != 0) _exit(1);
        memset(out, 0, sizeof out);
        *header = (struct fuse_out_header){sizeof *header, 0, in.unique};
        struct fuse_attr attr = {.ino = in.node, .mode = in.node == 1 ? S_IFDIR | 0755 : S_IFREG | 0644, .nlink = 1};
        if (in.opcode == FUSE_INIT) {
            struct fuse_init_out *init = (void *)(header + 1);
            *init = (struct fuse_init_out){.major = 7, .minor = 31, .max_write = 4096};
            header->len += sizeof *init;
        } else if (in.opcode == FUSE_LOOKUP && !strcmp(in.rest, "x")) {
            attr.ino = 2;
            attr.mode = S_IFREG | 0644;
            struct fuse_entry_out *entry = (void *)(header + 1);
            *entry = (struct fuse_entry_out){.nodeid = 2, .attr = attr};
            header->len += sizeof *entry;
        } else if (in.opcode == FUSE_GETATTR) {
            struct fuse_attr_out *answer = (void *)(header + 1);
            answer->attr = attr;
            header->len += sizeof *answer;
        } else if (in.opcode == FUSE_FORGET || in.opcode == FUSE_BATCH_FORGET) {
            continue;
        } else {
            header->error = in.opcode == FUSE_LOOKUP ? -ENOENT : in.opcode == FUSE_GETXATTR ? -ENODATA : -ENOSYS;
        }
        write(fuse, out, header->len);
    }
    _exit(0);
}

static void own_files(void) {
    int fuse = open("/dev/fuse", O_RDWR | O_CLOEXEC), status;
    char options[100];
    WELL(fuse);
    WELL(mkdir("served", 0755));
    sprintf(options, "fd=%d,rootmode=40000,user_id=0,group_id=0", fuse);
    WELL(mount("faults", "served", "fuse", 0, options));
    pid_t server = child();
    if (!server) serve_files(fuse);
    close(fuse);
    for (int i = 0; i < 4; i++) {
        if (child()) continue;
        for (int n = 0; n < times; n++) {
            CHECK(owner("served/x") == 0, "%ld", owner("served/x"));
            FAILS(chown("served/none", 1, 1), ENOENT);
            many_calls(0);
        }
        _exit(bad != 0);
    }
    for (int i = 0; i < 4; i++) CHECK(wait(&status) > 0 && status == 0, "%x", status);
    /* A server that does not answer holds up those who ask it, and nobody else. */
    kill(server, SIGSTOP);
    for (int i = 0; i < 4; i++) if (!child()) { FAILS(chown("served/x", 1, 1), ENOTCONN); _exit(bad != 0); }
    for (int n = 0; n < times; n++) many_calls(0);
    kill(server, SIGKILL);
    for (int i = 0; i < 5; i++) CHECK(wait(&status) > 0 && (status == 0 || status == SIGKILL), "%x", status);
    still_well();
}

/* A process that was not met before its parent is gone takes the parent's credentials. */
static void orphans(void) {
    for (int i = 0; i < times; i++) {
        int pipes[2];
        pipe(pipes);
        pid_t pid = child();
        if (!pid) {
            become(33);
            if (!child()) {
                if (!child()) { setsid(); usleep(2000); int uid = getuid(); write(pipes[1], &uid, sizeof uid); _exit(0); }
                /* Ends without exit_group. */
                syscall(SYS_exit, 0);
            }
            _exit(0);
        }
        status_of(pid);
        close(pipes[1]);
        int uid = -1;
        read(pipes[0], &uid, sizeof uid);
        close(pipes[0]);
        CHECK(uid == 33, "%d", uid);
    }
}

int main(int argc, char **argv) {
    const char *what = argc > 1 ? argv[1] : "";
    if (argc > 2) times = atoi(argv[2]);
    char self[200];
    self[readlink("/proc/self/exe", self, sizeof self - 1)] = 0;
    if (!strcmp(what, "leaf")) { leaf(); return bad != 0; }
    setup();
#define CASE(name, call) if (!strcmp(what, #name)) call; else
    CASE(short_processes, short_processes(self))
    CASE(killed_callers, killed_callers())
    CASE(reused_numbers, reused_numbers())
    CASE(stopped_callers, stopped_callers())
    CASE(signalled_callers, signalled_callers())
    CASE(preempted_callers, preempted_callers())
    CASE(interrupted_callers, interrupted_callers())
    CASE(traced_callers, traced_callers())
    CASE(shared_memory, shared_memory(self))
    CASE(threads, threads())
    CASE(shared_directories, shared_directories())
    CASE(descriptors, descriptors())
    CASE(pointers, pointers())
    CASE(magic_names, magic_names(self))
    CASE(scarcity, scarcity())
    CASE(closed_doors, closed_doors())
    CASE(orphans, orphans())
    CASE(own_files, own_files())
    { puts("no such check"); return 2; }
    if (!bad) puts("ok");
    return bad != 0;
}
