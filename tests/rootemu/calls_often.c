/* Makes one kind of call many times: calls_often KIND TIMES. */
#define _GNU_SOURCE
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>
#include <grp.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <sys/xattr.h>

int main(int argc, char **argv) {
    const char *kind = argv[1];
    int times = atoi(argv[2]), wrong = 0;
    struct stat s;
    struct statx x;
    char bytes[100];
    unsigned header[2] = {0x20080522}, data[6], a, b, c;
    gid_t groups[3] = {1, 2, 3};
    setgroups(3, groups);
    int fd = open("/tmp/f", O_CREAT | O_RDWR, 0644);
    fchown(fd, 33, 44);
    close(open("/tmp/plain", O_CREAT | O_RDWR, 0644));
    symlink("x", "/tmp/l");
    lchown("/tmp/l", 33, 44);
    mkdir("/tmp/d", 0777);
    chmod("/tmp/d", 0777);
    setresuid(33, 33, 0);
    for (int i = 0; i < times; i++) {
        if (!strcmp(kind, "stat")) wrong |= stat("/tmp/f", &s) || s.st_uid != 33;
        else if (!strcmp(kind, "stat_plain")) wrong |= stat("/tmp/plain", &s) || s.st_uid != 0;
        else if (!strcmp(kind, "lstat_link")) wrong |= lstat("/tmp/l", &s) || s.st_uid != 33;
        else if (!strcmp(kind, "fstat")) wrong |= fstat(fd, &s) || s.st_uid != 33;
        else if (!strcmp(kind, "statx")) wrong |= statx(AT_FDCWD, "/tmp/f", 0, STATX_BASIC_STATS, &x) || x.stx_uid != 33;
        else if (!strcmp(kind, "relative")) wrong |= stat("f", &s) || s.st_uid != 33;
        else if (!strcmp(kind, "chown")) wrong |= chown("/tmp/f", -1, 1 + i % 2) != 0;
        else if (!strcmp(kind, "fchown")) wrong |= fchown(fd, 33, -1) != 0;
        else if (!strcmp(kind, "chmod")) wrong |= chmod("/tmp/f", 0600 + i % 2) != 0;
        else if (!strcmp(kind, "open")) { int new = open("/tmp/d/n", O_CREAT | O_RDWR, 0600); wrong |= new < 0; close(new); unlink("/tmp/d/n"); }
        else if (!strcmp(kind, "mkdir")) { wrong |= mkdir("/tmp/d/m", 0700) != 0; rmdir("/tmp/d/m"); }
        else if (!strcmp(kind, "getuid")) wrong |= getuid() != 33;
        else if (!strcmp(kind, "getresuid")) wrong |= getresuid(&a, &b, &c) || a != 33;
        else if (!strcmp(kind, "getgroups")) wrong |= getgroups(3, groups) != 3;
        else if (!strcmp(kind, "getxattr")) wrong |= getxattr("/tmp/f", "security.selinux", bytes, sizeof bytes) >= 0;
        else if (!strcmp(kind, "capget")) wrong |= syscall(SYS_capget, header, data) != 0;
        else if (!strcmp(kind, "fork")) { if (!fork()) _exit(getuid() != 33); wait(NULL); }
        else return 2;
    }
    return wrong;
}
