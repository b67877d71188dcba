/* What a process sees of access control lists, each call with its result.
 *
 * `lists.expected` is what it printed on Debian 12, Linux 6.18, ext4, run in an empty directory by real root; see calls.c.
 */
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <sys/xattr.h>
#include <unistd.h>

#define P(...) (printf(__VA_ARGS__), printf("\n"), fflush(stdout))
#define R(call) do { errno = 0; long result = (long)(call); P("%s = %ld %s", #call, result, result < 0 ? strerrorname_np(errno) : ""); } while (0)
#define ACCESS "system.posix_acl_access"
#define DEFAULT "system.posix_acl_default"
#define NONE "\377\377\377\377"
#define VERSION "\2\0\0\0"

/* A string without its end, as pointer and length. */
#define VALUE(text) (text), sizeof(text) - 1

static const char named[] = VERSION "\1\0\7\0" NONE "\2\0\7\0" "\41\0\0\0" "\4\0\5\0" NONE "\10\0\5\0" "\4\0\0\0" "\20\0\5\0" NONE "\40\0\1\0" NONE;
static const char masked[] = VERSION "\1\0\6\0" NONE "\4\0\6\0" NONE "\20\0\4\0" NONE "\40\0\4\0" NONE;
static const char plain[] = VERSION "\1\0\6\0" NONE "\4\0\4\0" "\0\0\0\0" "\40\0\0\0" NONE;
static const char unmasked[] = VERSION "\1\0\7\0" NONE "\2\0\7\0" "\41\0\0\0" "\4\0\5\0" NONE "\40\0\1\0" NONE;

static void list(const char *path, const char *name) {
    unsigned char value[200];
    int length = getxattr(path, name, value, sizeof value);
    printf("%s %s", path, strrchr(name, '_') + 1);
    if (length < 0) printf(" %s", strerrorname_np(errno));
    for (int i = 4; i + 8 <= length; i += 8) printf(" %x:%d:%o", value[i], (int)(value[i + 4] | value[i + 5] << 8 | value[i + 6] << 16 | (unsigned)value[i + 7] << 24), value[i + 2]);
    P("");
}

static void show(const char *path) {
    struct stat s;
    char names[200];
    if (lstat(path, &s)) { P("lstat %s %s", path, strerrorname_np(errno)); return; }
    P("%s %o %u:%u, %ld bytes of names", path, s.st_mode, s.st_uid, s.st_gid, (long)listxattr(path, names, sizeof names));
    list(path, ACCESS);
    if (S_ISDIR(s.st_mode)) list(path, DEFAULT);
}

static void make(const char *path, int mode) {
    int fd = open(path, O_CREAT | O_RDWR | O_EXCL, mode);
    R(fd < 0 ? -1 : 0);
    close(fd);
    show(path);
}

static void as_user(void (*run)(void), int id) {
    fflush(stdout);
    if (!fork()) {
        setresgid(id, id, id);
        setresuid(id, id, id);
        run();
        _exit(0);
    }
    wait(NULL);
}

static void another(void) {
    R(setxattr("f", ACCESS, VALUE(named), 0));
    R(removexattr("f", ACCESS));
    list("f", ACCESS);
    R(mkdir("d/user", 0777));
    show("d/user");
    make("d/user/f", 0666);
}

static void owner(void) {
    R(setxattr("f", ACCESS, VALUE(named), 0));
    show("f");
}

int main(void) {
    umask(027);
    make("f", 0644);
    R(setxattr("f", ACCESS, VALUE(named), 0));
    show("f");
    R(getxattr("f", ACCESS, 0, 0));
    R(getxattr("f", ACCESS, (char[9]){0}, 9));
    R(chmod("f", 0640));
    show("f");
    R(chown("f", 77, 88));
    show("f");
    R(chmod("f", 06755));
    show("f");
    R(setxattr("f", ACCESS, VALUE(masked), XATTR_CREATE));
    show("f");
    R(link("f", "g"));
    R(rename("g", "h"));
    show("h");
    as_user(another, 33);
    as_user(owner, 77);
    R(setxattr("f", ACCESS, VALUE(plain), 0));
    show("f");
    R(setxattr("f", ACCESS, VALUE(named), XATTR_REPLACE));
    R(setxattr("f", ACCESS, "", 0, 0));
    show("f");
    R(removexattr("f", ACCESS));
    R(removexattr("f", DEFAULT));
    R(setxattr("f", ACCESS, VALUE(unmasked), 0));
    R(setxattr("f", ACCESS, "\1\0\0\0", 4, 0));
    R(setxattr("f", ACCESS, "\2\0", 2, 0));
    R(setxattr("f", DEFAULT, VALUE(named), 0));
    R(setxattr("nope", ACCESS, VALUE(named), 0));
    R(symlink("f", "l"));
    R(lsetxattr("l", ACCESS, VALUE(named), 0));
    R(lgetxattr("l", ACCESS, 0, 0));
    R(getxattr("f", DEFAULT, 0, 0));

    R(mkdir("d", 0777));
    R(setxattr("d", DEFAULT, VALUE(named), 0));
    show("d");
    make("d/f", 0666);
    make("d/x", 0777);
    make("d/none", 0);
    R(mkdir("d/d", 0777));
    show("d/d");
    R(mkdir("d/d/d", 0700));
    show("d/d/d");
    R(mkfifo("d/p", 0666));
    show("d/p");
    R(symlink("f", "d/l"));
    R(chmod("d", 0777));
    as_user(another, 33);
    R(setxattr("d", DEFAULT, VALUE(plain), 0));
    make("d/plain", 0666);
    R(removexattr("d", DEFAULT));
    show("d");
    make("d/after", 0666);
    return 0;
}
