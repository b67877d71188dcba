/* What a process sees of the calls that root emulation answers: each call with its result.
 *
 * `calls.expected` is what it printed on Debian 12, Linux 6.18, run in an empty directory by real root with Docker's capabilities and group 0:
 *     setpriv --bounding-set=-all,+chown,+dac_override,... --inh-caps=-all --groups=0 calls
 * Build: cc -O1 -static -pthread calls.c
 */
#define _GNU_SOURCE
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <errno.h>
#include <fcntl.h>
#include <unistd.h>
#include <grp.h>
#include <signal.h>
#include <pthread.h>
#include <sys/stat.h>
#include <sys/types.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <sys/xattr.h>
#include <sys/fsuid.h>
#include <sys/sysmacros.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <sys/prctl.h>

struct header { unsigned version; int pid; };
struct data { unsigned effective, permitted, inheritable; };

#define P(...) (printf(__VA_ARGS__), printf("\n"), fflush(stdout))
#define R(call) do { errno = 0; long result = (long)(call); P("%s = %ld %s", #call, result, result < 0 ? strerrorname_np(errno) : ""); } while (0)

/* lstat and statx of a file, and whether they agree. */
static void st(const char *path) {
    struct stat s;
    struct statx x;
    if (lstat(path, &s)) { P("lstat %s %s", path, strerrorname_np(errno)); return; }
    int result = statx(AT_FDCWD, path, AT_SYMLINK_NOFOLLOW, STATX_BASIC_STATS, &x);
    int same = s.st_ino == x.stx_ino && s.st_mtime == x.stx_mtime.tv_sec && s.st_dev == makedev(x.stx_dev_major, x.stx_dev_minor);
    P("%s %o %u:%u rdev %x size %ld statx %d %o %u:%u %x:%x same %d", path, s.st_mode, s.st_uid, s.st_gid, (unsigned)s.st_rdev,
      S_ISDIR(s.st_mode) ? 0 : (long)s.st_size, result, x.stx_mode, x.stx_uid, x.stx_gid, x.stx_rdev_major, x.stx_rdev_minor, same);
}

static void fst(int fd) {
    struct stat s;
    if (fstat(fd, &s)) { P("fstat %s", strerrorname_np(errno)); return; }
    P("fd %o %u:%u", s.st_mode, s.st_uid, s.st_gid);
}

static void ids(void) {
    uid_t a, b, c;
    gid_t d, e, f, groups[50];
    getresuid(&a, &b, &c);
    getresgid(&d, &e, &f);
    int count = getgroups(50, groups);
    printf("uid %u %u %u fs %d gid %u %u %u fs %d, euid %u egid %u uid %u gid %u groups", a, b, c, setfsuid(-1), d, e, f, setfsgid(-1),
           geteuid(), getegid(), getuid(), getgid());
    for (int i = 0; i < count; i++) printf(" %u", groups[i]);
    P("");
}

static void caps(void) {
    struct header header = {0x20080522, 0};
    struct data data[2] = {{0}};
    int result = syscall(SYS_capget, &header, data);
    P("caps %d e %x p %x i %x e2 %x", result, data[0].effective, data[0].permitted, data[0].inheritable, data[1].effective);
}

static void child(void (*run)(void)) {
    int status;
    fflush(stdout);
    pid_t pid = fork();
    if (!pid) { run(); _exit(0); }
    waitpid(pid, &status, 0);
    P("child %x", status);
}

static void touch(const char *path, int mode) {
    int fd = open(path, O_CREAT | O_RDWR | O_EXCL, mode);
    if (fd < 0) { P("touch %s %s", path, strerrorname_np(errno)); return; }
    fst(fd);
    close(fd);
}


static void plain_user(void) {
    ids();
    R(setresuid(33,33,33));
    ids();
    caps();
    R(setuid(0));
    R(setuid(34));
    R(seteuid(0));
    R(setreuid(-1,0));
    R(setresuid(-1,-1,0));
    R(setgid(5));
    R(setgroups(0,0));
    gid_t g=3;
    R(setgroups(1,&g));
    R(setfsuid(0));
    ids();
    touch("u_f",0666);
    st("u_f");
    R(chown("u_f",34,-1));
    R(chown("u_f",33,-1));
    R(chown("u_f",-1,-1));
    R(chown("u_f",-1,7));
    R(chmod("u_f",04755));
    st("u_f");
    R(chown("u_f",-1,-1));
    st("u_f");
    R(chown("rootf",33,33));
    R(chmod("rootf",0777));
    R(mkdir("u_d",0777));
    st("u_d");
    R(mkdir("u_d",0777));
    R(mknod("u_dev",S_IFCHR|0666,makedev(1,3)));
    R(mkfifo("u_p",0666));
    st("u_p");
    R(symlink("x","u_l"));
    st("u_l");
    R(lchown("u_l",33,33));
    R(lchown("u_l",0,0));
    R(setxattr("u_f","trusted.x","1",1,0));
    R(setxattr("u_f","security.capability","\1\0\0\2\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0",20,0));
    R(setxattr("u_f","user.x","1",1,0));
    int fd=open("u_d",O_TMPFILE|O_RDWR,0644);
    P("tmpfile %d",fd>=0);
    if(fd>=0){ fst(fd);
        char b[50];
        sprintf(b,"/proc/self/fd/%d",fd);
        R(linkat(AT_FDCWD,b,AT_FDCWD,"u_d/t",AT_SYMLINK_FOLLOW));
        st("u_d/t");
    }
    R(symlink("dangling_t","dang"));
    fd=open("dang",O_CREAT|O_RDWR,0644);
    st("dangling_t");
    R(open("dang",O_CREAT|O_EXCL,0644));
    R(open("u_f/x",O_CREAT|O_RDWR,0644));
    R(open("nodir/x",O_CREAT|O_RDWR,0644));
    R(open("u_d",O_CREAT|O_RDWR,0644));
    R(open("",O_CREAT|O_RDWR,0644));
    R(open((char*)8,O_CREAT|O_RDWR,0644));
    R(openat(77,"x",O_CREAT|O_RDWR,0644));
    umask(027);
    touch("u_um",0666);
    st("u_um");
    R(mkdir("u_umd",0777));
    st("u_umd");
    umask(022);
    touch("ro",0444);
    st("ro");
    touch("sg/f33",0644);
    st("sg/f33");
    R(mkdir("sg/d33",0755));
    st("sg/d33");
    int s=socket(AF_UNIX,SOCK_STREAM,0);
    struct sockaddr_un a={AF_UNIX,"u_sock"};
    R(bind(s,(void*)&a,sizeof a));
    st("u_sock");
    R(chmod("u_sock",0700));
    st("u_sock");
}

static void member_of_groups(void) {
    gid_t g[2]={33,7};
    R(setgroups(2,g));
    R(setresgid(33,33,33));
    R(setresuid(33,33,33));
    ids();
    touch("g_f",0644);
    R(chown("g_f",-1,7));
    st("g_f");
    R(chown("g_f",-1,8));
    R(chmod("g_f",02755));
    st("g_f");
    gid_t gg[1];
    R(getgroups(1,gg));
    R(getgroups(0,0));
    R(getgroups(-1,0));
}

static void saved_root(void) {
    R(setresuid(33,33,0));
    ids();
    caps();
    R(seteuid(0));
    ids();
    caps();
    R(setreuid(33,0));
    ids();
    R(setuid(44));
    ids();
}

static void keeps_capabilities(void) {
    R(prctl(PR_SET_KEEPCAPS,1));
    R(prctl(PR_GET_KEEPCAPS));
    R(setuid(33));
    caps();
    R(prctl(PR_CAP_AMBIENT,PR_CAP_AMBIENT_IS_SET,0,0,0));
}

static void filesystem_ids(void) {
    R(setfsuid(33));
    R(setfsgid(34));
    ids();
    caps();
    touch("fs_f",0644);
    st("fs_f");
    R(setfsuid(0));
    caps();
    R(setfsgid(0));
}

static void swaps_ids(void) {
    R(setregid(5,6));
    ids();
    R(setreuid(5,6));
    ids();
    R(setreuid(6,5));
    ids();
    R(setreuid(7,-1));
    R(setresuid(5,6,5));
    ids();
    R(setregid(6,-1));
    R(setregid(-1,5));
    ids();
}

static void*thr(void*x){
    P("thread uid %d",(int)syscall(SYS_getuid));return 0;
}

static void threads_and_orphans(void) {
    pthread_t t;
    R(setuid(33));
    pthread_create(&t,0,thr,0);
    pthread_join(t,0);
    pid_t p=fork();
    if(!p){
        pid_t q=fork();
        if(!q){
            usleep(200000);
            P("orphan uid %d ppid1 %d",getuid(),getppid()==1||1);
            fflush(stdout);_exit(0);
        }_exit(0);
    }int w;
    waitpid(p,&w,0);
    usleep(400000);
}

static void drops_after_fork(void) {
    pid_t p=fork();
    if(!p){
        usleep(200000);
        P("child of dropper uid %d",getuid());
        fflush(stdout);_exit(0);
    }R(setuid(33));
    int w;
    waitpid(p,&w,0);
    P("me %d",getuid());
}

static void daemon_without_calls(void) { // setsid daemon: no emulated call before parent exits
    R(setuid(33));
    pid_t p=fork();
    if(!p){
        syscall(SYS_setsid);
        pid_t q=fork();
        if(!q){
            usleep(150000);
            P("daemon uid %d",getuid());
            fflush(stdout);
            syscall(SYS_exit,0);
        }syscall(SYS_exit_group,0);
    }int w;
    waitpid(p,&w,0);
    usleep(400000);
}

int main(int c,char**v){
    if(c>1){
        if(!strcmp(v[1],"ids")){
            ids();
            caps();return 0;
        }}
    struct stat s;
    umask(022);
    ids();
    caps();
    touch("rootf",0644);
    st("rootf");
    R(chown("rootf",33,44));
    st("rootf");
    R(chown("rootf",-1,0));
    st("rootf");
    R(chown("rootf",-1,-1));
    st("rootf");
    R(chmod("rootf",06755));
    st("rootf");
    R(chown("rootf",34,-1));
    st("rootf");
    R(chmod("rootf",02644));
    R(chown("rootf",35,5));
    st("rootf");
    R(chmod("rootf",0));
    st("rootf");
    R(open("rootf",O_RDWR));
    R(chown("rootf",0,0));
    st("rootf");
    R(chmod("rootf",0644));
    R(chown("nope",1,1));
    R(chown("rootf/x",1,1));
    R(chown("",1,1));
    R(chown((char*)8,1,1));
    R(fchown(99,1,1));
    R(fchownat(AT_FDCWD,"",1,1,AT_EMPTY_PATH));
    st(".");
    R(fchownat(AT_FDCWD,"rootf",1,1,0x4000));
    R(chown(".",0,0));
    char big[5000];
    memset(big,'a',4999);
    big[4999]=0;
    R(chown(big,1,1));
    R(stat(big,&s));
    big[300]=0;
    R(chown(big,1,1));
    R(symlink("loop","loop"));
    R(chown("loop",1,1));
    R(lchown("loop",3,4));
    st("loop");
    R(fstatat(99,"x",&s,0));
    R(fstatat(99,"",&s,AT_EMPTY_PATH));
    R(stat("rootf",(void*)8));
    R(fchownat(AT_FDCWD,"rootf",9,9,0));
    R(stat("rootf",(void*)8));
    R(syscall(SYS_newfstatat,AT_FDCWD,0,&s,AT_EMPTY_PATH));
    int fd=open("rootf",O_RDONLY);
    fst(fd);
    R(fchown(fd,5,6));
    fst(fd);
    R(unlink("rootf"));
    fst(fd);
    R(fchown(fd,7,8));
    fst(fd);
    R(fchmod(fd,0600));
    fst(fd);
    R(fchownat(fd,"",1,2,AT_EMPTY_PATH));
    fst(fd);
    char b[60];
    sprintf(b,"/proc/self/fd/%d",fd);
    R(stat(b,&s));
    P("%u:%u",s.st_uid,s.st_gid);
    R(chown(b,11,12));
    fst(fd);
    sprintf(b,"/dev/fd/%d",fd);
    R(chown(b,13,14));
    fst(fd);
    close(fd);
    touch("rootf",0644);
    R(mkdir("d",0755));
    R(chown("d",33,33));
    st("d");
    R(chmod("d",02775));
    R(chown("d",34,34));
    st("d");
    int dd=open("d",O_RDONLY|O_DIRECTORY);
    int pf;
    touch("d/x",0644);
    R(fchownat(dd,"x",3,3,0));
    st("d/x");
    R(mkdirat(dd,"sub",0755));
    st("d/sub");
    R(mknodat(dd,"p",S_IFIFO|0666,0));
    st("d/p");
    R(symlinkat("y",dd,"l"));
    st("d/l");
    R(fstatat(dd,"x",&s,0));
    P("%u",s.st_uid);
    R(fstatat(dd,"../d/x",&s,0));
    P("%u",s.st_uid);
    pf=open("d/x",O_PATH);
    fst(pf);
    R(fstatat(pf,"",&s,AT_EMPTY_PATH));
    R(fchownat(pf,"",5,5,AT_EMPTY_PATH));
    fst(pf);
    pf=open("d/l",O_PATH|O_NOFOLLOW);
    fst(pf);
    R(fchownat(pf,"",6,6,AT_EMPTY_PATH));
    fst(pf);
    st("d/l");
    R(mknod("cdev",S_IFCHR|0620,makedev(4,300)));
    st("cdev");
    R(mknod("bdev",S_IFBLK|0660,makedev(259,1000000)));
    st("bdev");
    R(mknod("cdev",S_IFCHR|0620,1));
    R(chown("cdev",0,5));
    st("cdev");
    R(chmod("cdev",0600));
    st("cdev");
    R(chmod("cdev",0));
    st("cdev");
    R(link("cdev","cdev2"));
    st("cdev2");
    R(rename("cdev","cdev3"));
    st("cdev3");
    R(mknod("reg",S_IFREG|0640,0));
    st("reg");
    R(mknod("zero",0644,0));
    st("zero");
    R(mknod("bad",S_IFDIR|0644,0));
    R(mknod("nodir/x",S_IFCHR|0620,1));
    R(mkfifo("fifo",0600));
    st("fifo");
    R(chown("fifo",3,3));
    st("fifo");
    R(chmod("fifo",0640));
    st("fifo");
    R(symlink("t","l1"));
    R(lchown("l1",5,6));
    st("l1");
    R(rename("l1","l2"));
    st("l2");
    R(link("l2","l3"));
    st("l3");
    R(unlink("l2"));
    R(symlink("t","l2"));
    st("l2");
    R(lchown("l3",-1,9));
    st("l3");
    R(lchown("l3",0,0));
    st("l3");
    char cap[24]={1,0,0,2,0,4};
    char out[100];
    touch("capf",0755);
    R(setxattr("capf","security.capability",cap,20,0));
    R(getxattr("capf","security.capability",out,100));
    R(getxattr("capf","security.capability",out,5));
    R(getxattr("capf","security.capability",0,0));
    R(listxattr("capf",out,100));
    P("%s",out);
    R(listxattr("capf",out,3));
    R(listxattr("capf",0,0));
    R(removexattr("capf","security.capability"));
    R(removexattr("capf","security.capability"));
    R(getxattr("capf","security.capability",out,100));
    R(setxattr("capf","security.capability",cap,20,XATTR_REPLACE));
    R(setxattr("capf","security.capability",cap,20,XATTR_CREATE));
    R(setxattr("capf","security.capability",cap,20,XATTR_CREATE));
    R(chown("capf",3,3));
    R(getxattr("capf","security.capability",out,100));
    R(setxattr("capf","user.foo","bar",3,0));
    R(listxattr("capf",out,100));
    P("%s",out);
    R(getxattr("capf","user.containers.override_stat",out,100));
    R(getxattr("nope","security.capability",out,100));
    R(fgetxattr(99,"security.capability",out,100));
    R(lgetxattr("l3","security.capability",out,100));
    R(getxattr("capf",(char*)8,out,100));
    R(setxattr("capf","security.capability",(char*)8,20,0));
    R(mkdir("sg",0777));
    R(chown("sg",0,42));
    R(chmod("sg",02777));
    st("sg");
    touch("sg/rf",0644);
    st("sg/rf");
    R(mkdir("sg/rd",0755));
    st("sg/rd");
    R(mkdir("sg/rd/rd",0755));
    st("sg/rd/rd");
    R(chmod(".",0777));
    R(mkdir("sg0",0777));
    R(chmod("sg0",02777));
    child(plain_user);
    child(member_of_groups);
    child(saved_root);
    child(keeps_capabilities);
    child(filesystem_ids);
    child(swaps_ids);
    child(threads_and_orphans);
    child(drops_after_fork);
    child(daemon_without_calls);
    {
        fflush(stdout);
        pid_t p=fork();
        if(!p){
            R(setgid(33));
            R(setuid(33));
            touch("sg0/x",0644);
            st("sg0/x");
            execl("/proc/self/exe","conf","ids",NULL);_exit(1);
        }int w;
        waitpid(p,&w,0);
    }
    {
        system("cp /bin/calls ./suid");
        R(chown("suid",55,66));
        R(chmod("suid",06755));
        fflush(stdout);
        pid_t p=fork();
        if(!p){ setgid(33);
            setuid(33);
            execl("./nope","x",NULL);
            ids();
            execl("./suid","suid","ids",NULL);_exit(1);
        }int w;
        waitpid(p,&w,0);
        R(chown("suid",0,0));
        R(chmod("suid",04755));
        fflush(stdout);
        p=fork();
        if(!p){ setgid(33);
            setuid(33);
            execl("./suid","suid","ids",NULL);_exit(1);
        }waitpid(p,&w,0);
    }
    {
        int sp[2];
        socketpair(AF_UNIX,SOCK_STREAM,0,sp);
        struct ucred u;
        socklen_t l=sizeof u;
        R(getsockopt(sp[0],SOL_SOCKET,SO_PEERCRED,&u,&l));
        P("%d:%d %d self %d",u.uid,u.gid,l,u.pid==getpid());
    }
    {
        int p[2];
        pipe(p);
        fst(p[0]);
        R(fchown(p[0],3,4));
        fst(p[0]);
        fst(p[1]);
    }
    R(chroot("d"));
    R(stat("/x",&s));
    P("%u:%u",s.st_uid,s.st_gid);
    R(chown("/x",77,77));
    R(stat("x",&s));
    R(stat("d/x",&s));
    P("%u",s.st_uid);
    R(chdir("/"));
    R(stat("x",&s));
    P("%u",s.st_uid);
    R(chown("sub/../x",78,78));
    R(stat("../../../x",&s));
    P("%u",s.st_uid);
    R(symlink("/x","abs"));
    R(stat("abs",&s));
    P("%u",s.st_uid);
    R(mkdir("/newd",0755));
    R(chown("/newd",5,5));
    st("/newd");
}
