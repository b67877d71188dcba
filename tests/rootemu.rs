//! Root emulation in sandboxes, on a root file system made of the machine's static busybox.
//!
//! A program of its own, since a sandbox is the calling program started again. As root it runs everything as an ordinary user without subuid
//! (`tester`), for whom all of it is made. Arguments select checks by name.

use std::ffi::OsString;
use std::fs;
use std::io::Read;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::PathBuf;
use std::process::{Command, ExitCode};

use rootling::error::Result;
use rootling::oci::ImagePath;
use rootling::rootemu::{EmulationSpec, Mode, Override, Report, User};
use rootling::rootfs::record::Record;
use rootling::sandbox::{
    Access, Capabilities, Devices, Exit, IdMap, Namespace, Network, Privileges, Process, Root, Spec, Stdio, Stream, reenter, spawn,
};

#[path = "rootemu/faults.rs"]
mod faults;
#[path = "rootemu/memory.rs"]
mod memory;

type Check = fn(&Fixture);

const CHECKS: [(&str, Check); 18] = [
    ("scripts", scripts),
    ("calls", calls),
    ("asks", asks),
    ("lists", lists),
    ("next_step", next_step),
    ("links_from_layers", links_from_layers),
    ("user", user),
    ("refusals", refusals),
    ("many_processes", many_processes),
    ("callers", faults::callers),
    ("callers_of_many_threads", faults::callers_of_many_threads),
    ("few_descriptors", faults::few_descriptors),
    ("supervisors", faults::supervisors),
    ("calls_of_i386", faults::calls_of_i386),
    ("allocations", memory::allocations),
    ("success_only", success_only),
    ("none", none),
    ("without_attributes", without_attributes),
];

/// Those that run on file systems without user extended attributes, too.
const ANYWHERE: [&str; 5] = ["scripts", "lists", "plain_steps", "user", "many_processes"];

fn main() -> ExitCode {
    if let Some(code) = reenter(&faults::Fragile) {
        return ExitCode::from(u8::try_from(code).unwrap_or(1));
    }
    let arguments: Vec<OsString> = std::env::args_os().skip(1).filter(|argument| !argument.as_encoded_bytes().starts_with(b"-")).collect();
    // The test of itself within `without_attributes`: in a directory where such a file system is mounted.
    if let [place, checks @ ..] = arguments.as_slice()
        && let Some(place) = place.to_str().and_then(|place| place.strip_prefix("in:"))
    {
        let fixture = Fixture::at(tempfile::tempdir_in(place).unwrap(), Tree::Plain);
        for (name, check) in
            CHECKS.iter().chain(&[("plain_steps", plain_steps as Check)]).filter(|(name, _)| checks.iter().any(|c| c == name))
        {
            check(&fixture);
            println!("ok {name} without attributes");
        }
        return ExitCode::SUCCESS;
    }
    if nix::unistd::geteuid().is_root() {
        return as_tester(&arguments);
    }
    // On disk: overlays on tmpfs are a case of their own.
    let fixture = Fixture::at(tempfile::tempdir_in("/var/tmp").unwrap(), Tree::Overlay);
    if arguments == ["few_descriptors_now"] {
        faults::few_descriptors_now(&fixture);
        return ExitCode::SUCCESS;
    }
    for (name, check) in CHECKS {
        if arguments.is_empty() || arguments.iter().any(|wanted| wanted == name) {
            check(&fixture);
            println!("ok {name}");
        }
    }
    ExitCode::SUCCESS
}

/// Runs all of it as an ordinary user.
fn as_tester(arguments: &[OsString]) -> ExitCode {
    if !fs::read_to_string("/etc/passwd").is_ok_and(|users| users.contains("\ntester:")) {
        println!("skipped: there is no user `tester`");
        return if std::env::var_os("CI").is_some() { ExitCode::FAILURE } else { ExitCode::SUCCESS };
    }
    // Where the user may execute it.
    let copy = std::env::temp_dir().join(format!("rootemu-test-{}", std::process::id()));
    fs::copy("/proc/self/exe", &copy).unwrap();
    fs::set_permissions(&copy, fs::Permissions::from_mode(0o755)).unwrap();
    let options = ["--reuid=tester", "--regid=tester", "--clear-groups"];
    let status = Command::new("setpriv").args(options).arg(&copy).args(arguments).status().unwrap();
    fs::remove_file(&copy).unwrap();
    if status.success() { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

struct Fixture {
    dir: tempfile::TempDir,
    tree: Tree,
}

/// What steps run in.
#[derive(PartialEq)]
enum Tree {
    /// An overlay on the image.
    Overlay,
    /// A copy of the image.
    Plain,
}

const APPLETS: &str = "sh true ls cat id sleep stat touch mkdir rm rmdir ln mv cp chown chgrp chmod mknod mkfifo su tar cpio find \
    chroot seq wc env sync echo test setsid usleep xargs";

impl Fixture {
    fn at(dir: tempfile::TempDir, tree: Tree) -> Self {
        let fixture = Self { dir, tree };
        let image = fixture.path("image");
        for name in ["bin", "etc", "tmp", "root", "proc", "dev", "sys", "jail/bin"] {
            fs::create_dir_all(image.join(name)).unwrap();
        }
        fs::set_permissions(fixture.path("image/tmp"), fs::Permissions::from_mode(0o1777)).unwrap();
        fs::copy("/bin/busybox", image.join("bin/busybox")).expect("Debian's package busybox-static is needed");
        for applet in APPLETS.split_whitespace() {
            symlink("busybox", image.join("bin").join(applet)).unwrap();
        }
        fs::write(image.join("etc/passwd"), "root:x:0:0::/root:/bin/sh\napp:x:33:44::/:/bin/sh\n").unwrap();
        fs::write(image.join("etc/group"), "root:x:0:\napps:x:44:\nmore:x:55:app\n").unwrap();
        fixture
    }

    fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    /// A fresh upper layer on the image.
    fn overlay(&self, upper: &str, below: &[&str]) -> Root {
        let fresh = |name: &str| {
            let path = self.path(name);
            let _ = Command::new("chmod").args(["-R", "u+rwx"]).arg(&path).stderr(std::process::Stdio::null()).status();
            let _ = fs::remove_dir_all(&path);
            fs::create_dir_all(&path).unwrap();
            path
        };
        if self.tree == Tree::Plain {
            let path = fresh(upper);
            let copied = Command::new("cp").arg("-a").arg(self.path("image/.")).arg(&path).status().unwrap();
            assert!(copied.success());
            return Root::Directory { path, access: Access::ReadWrite };
        }
        let lowers = below.iter().chain(&["image"]).map(|name| self.path(name)).collect();
        Root::Overlay { lowers, upper: fresh(upper), work: fresh("work") }
    }
}

/// What a step printed, how it ended and what the emulation reports.
struct Done {
    exit: Exit,
    out: String,
    report: Report,
}

fn step(root: Root, emulation: Option<EmulationSpec>, script: &str) -> Done {
    run(&spec(root, emulation, script)).unwrap_or_else(|error| panic!("{error:#?}"))
}

fn spec(root: Root, emulation: Option<EmulationSpec>, script: &str) -> Spec {
    Spec {
        root,
        id_map: IdMap::ROOT,
        mounts: vec![],
        process: Process {
            argv: vec!["sh".into(), "-c".into(), format!("exec 2>&1; {script}").into()],
            env: vec!["PATH=/bin".into()],
            cwd: ImagePath::clean("tmp"),
            umask: Some(0o22),
            limits: Vec::new(),
        },
        hostname: Some("rootling".into()),
        network: Network::Host,
        pid: Namespace::Private,
        ipc: Namespace::Private,
        devices: Devices::Minimal,
        capabilities: Capabilities::docker(),
        privileges: Privileges::Raisable,
        binfmt: Vec::new(),
        emulation: emulation.map(|spec| spec.to_value()),
    }
}

fn run(spec: &Spec) -> Result<Done> {
    let io = Stdio { stdin: Stream::Null, stdout: Stream::Pipe, stderr: Stream::Inherit };
    let mut running = spawn(spec, io)?;
    let mut out = String::new();
    running.stdout.take().unwrap().read_to_string(&mut out).unwrap();
    let status = running.wait()?;
    let report = status.emulation.map(|value| Report::from_value(&value).unwrap()).unwrap_or_default();
    Ok(Done { exit: status.exit, out, report })
}

/// Compiles a program into the image; `None` if this machine can't.
fn compile(fixture: &Fixture, name: &str, source: &str, options: &[&str]) -> Option<()> {
    let (file, program) = (fixture.path(&format!("{name}.c")), fixture.path("image/bin").join(name));
    fs::write(&file, source).unwrap();
    let compiled = Command::new("cc").args(["-w", "-O1", "-static"]).args(options).arg("-o").args([&program, &file]).status();
    if compiled.is_ok_and(|status| status.success()) {
        return Some(());
    }
    assert!(std::env::var_os("CI").is_none(), "cc can't compile a static program");
    println!("skipped {name}: cc can't compile a static program");
    None
}

fn consistent() -> Option<EmulationSpec> {
    Some(EmulationSpec::new(Mode::Consistent, User { uid: 0, gid: 0, groups: vec![0] }))
}

/// Scripts run by root, each in a layer of its own, and what they print.
const SCRIPTS: &[(&str, &str)] = &[
    ("touch f; chown 33:55 f; stat -c '%u:%g %a' f; chown 7 f; chgrp 8 f; stat -c '%u:%g' f", "33:55 644\n7:8\n"),
    ("touch f; chmod 4755 f; stat -c %a f; chown 33 f; stat -c %a f; chmod 4755 f; stat -c '%u %a' f", "4755\n755\n33 4755\n"),
    ("echo x > f; chmod 000 f; stat -c %a f; cat f; chown 33 f; stat -c %a f; cat f", "0\nx\n0\nx\n"),
    ("touch t; ln -s t l; chown -h 5:6 l; stat -c '%u:%g' l t; mv l m; ln m n; stat -c '%u:%g' m n", "5:6\n0:0\n5:6\n5:6\n"),
    ("mknod -m 660 d b 8 1; stat -c '%F %a %t:%T' d; test -b d && chown 0:6 d && stat -c %g d", "block special file 660 8:1\n6\n"),
    (
        "id; su app -c 'id; touch f; mkdir d; ln -s x l; mkfifo p'; stat -c '%n %U:%G' f d l p",
        "uid=0(root) gid=0(root) groups=0(root)\nuid=33(app) gid=44(apps) groups=44(apps),55(more)\n\
      f app:apps\nd app:apps\nl app:apps\np app:apps\n",
    ),
    (
        "touch f; chmod 777 .; su app -c 'chown 33 f; chmod 777 f'; stat -c '%u %a' f",
        "chown: f: Operation not permitted\nchmod: f: Operation not permitted\n0 644\n",
    ),
    ("mkdir d; chgrp 55 d; chmod 2775 d; touch d/f; mkdir d/s; stat -c '%u:%g %a' d/f d/s", "0:55 644\n0:55 2755\n"),
    (
        "cp /bin/busybox /bin/id2; chown 33:44 /bin/id2; chmod 6755 /bin/id2; cd /bin; ln -s id2 stat2; chmod 777 /tmp; \
      su app -c 'id -u'; stat -c '%U:%G %a' id2",
        "33\napp:apps 6755\n",
    ),
    (
        "su app -c '(usleep 300000; id -u > g) & (setsid sh -c \"usleep 300000; touch h\" &)'; usleep 700000; cat g; stat -c %u g h",
        "33\n33\n33\n",
    ),
    (
        "cp /bin/busybox /jail/bin; touch /jail/f; chown 3:4 /jail/f; chroot /jail /bin/busybox stat -c %u:%g /f; \
      chroot /jail /bin/busybox chown 5:6 /f; stat -c %u:%g /jail/f",
        "3:4\n5:6\n",
    ),
    (
        "mkdir s; touch s/a; ln -s a s/l; mknod s/n c 1 3; chown 33:44 s/a; chown -h 7:7 s/l; chmod 640 s/a; cp -a s c; \
      tar c s/a s/n | tar x -C /jail; cp -a s/l /jail/s; for d in c /jail/s; do stat -c '%u:%g %a %F' $d/a $d/l $d/n; done",
        "33:44 640 regular empty file\n7:7 777 symbolic link\n0:0 644 character special file\n\
      33:44 640 regular empty file\n7:7 777 symbolic link\n0:0 644 character special file\n",
    ),
    ("chown 33 /dev/stdout && echo ok; echo x > f; exec 3< f; rm f; chown 9:9 /proc/self/fd/3; stat -L -c %u /proc/$$/fd/3", "ok\n9\n"),
];

fn scripts(fixture: &Fixture) {
    for (script, expected) in SCRIPTS {
        let done = step(fixture.overlay("upper", &[]), consistent(), script);
        assert_eq!(done.out, *expected, "{script}: {:?}", done.exit);
    }
}

/// Some 340 calls, each with what the kernel answers to real root.
fn calls(fixture: &Fixture) {
    compare_calls(fixture, "calls", include_str!("rootemu/calls.c"), include_str!("rootemu/calls.expected"));
}

/// The same for access control lists.
fn lists(fixture: &Fixture) {
    compare_calls(fixture, "lists", include_str!("rootemu/lists.c"), include_str!("rootemu/lists.expected"));
}

fn compare_calls(fixture: &Fixture, name: &str, text: &str, expected: &str) {
    let Some(()) = compile(fixture, name, text, &["-pthread"]) else { return };
    let script = format!("chmod 711 /root; mkdir /root/t; cd /root/t; exec {name}");
    let done = step(fixture.overlay(&format!("upper-{name}"), &[]), consistent(), &script);
    for (number, (line, expected)) in done.out.lines().zip(expected.lines()).enumerate() {
        assert_eq!(line, expected, "line {}", number + 1);
    }
    assert_eq!(done.out.lines().count(), expected.lines().count());
}

/// Programs that ask about many files are changed to ask less, and see no difference.
fn asks(fixture: &Fixture) {
    let Some(()) = compile(fixture, "asks", include_str!("rootemu/asks.c"), &["-pthread"]) else { return };
    let done = step(fixture.overlay("upper", &[]), consistent(), "asks");
    assert_eq!(done.out, "ok\n");
    let done = step(fixture.overlay("upper", &[]), consistent(), "touch plain; asks plainly");
    let asked: u64 = done.report.notifications.iter().filter(|(call, _)| call.starts_with("Stat")).map(|(_, count)| count).sum();
    // Where the kernel or the processor is another, all are answered.
    let grafted = cfg!(target_arch = "x86_64") && rootling::sys::graft::is_possible();
    assert_eq!((32..200).contains(&asked), grafted, "asked {asked} times");
}

/// What a step did is seen by the next one and stands in the layer.
fn next_step(fixture: &Fixture) {
    let script = "mkdir d; touch d/f; chown 33:44 d d/f; chmod 400 d/f; ln -s f d/l; chown -h 5:6 d/l; mknod n c 1 3";
    let first = step(fixture.overlay("first", &[]), consistent(), script);
    let link = ImagePath::clean("/tmp/d/l");
    let owner = Override { uid: 5, gid: 6, mode: 0o777, device: None };
    let said = Record { overrides: [(link.clone(), owner)].into(), ..Record::default() };
    assert_eq!(first.report.left, said);
    let stored = |name: &str| {
        let value = xattr::get(fixture.path("first/tmp").join(name), "user.containers.override_stat").unwrap();
        value.map(|value| String::from_utf8(value).unwrap())
    };
    assert_eq!(["d", "d/f", "n"].map(|name| stored(name).unwrap()), ["33:44:0755", "33:44:0400", "0:0:0644:char-1-3"]);
    assert_eq!(fs::metadata(fixture.path("first/tmp/d/f")).unwrap().permissions().mode() & 0o7777, 0o600);

    let spec = consistent().unwrap().with_layers(said);
    let second =
        step(fixture.overlay("second", &["first"]), Some(spec), "stat -c '%u:%g %a' d d/f d/l; chown 0:0 d/f; stat -c '%u:%g %a' d/f");
    assert_eq!(second.out, "33:44 755\n33:44 400\n5:6 777\n0:0 400\n");
    assert!(second.report.left.is_empty(), "the link was not touched");
    // Root's now, but its mode would keep the user from it.
    let kept = xattr::get(fixture.path("second/tmp/d/f"), "user.containers.override_stat").unwrap();
    assert_eq!(kept.as_deref(), Some(&b"0:0:0400"[..]));
}

/// Symlinks and FIFOs of lower layers get other inode numbers when they are copied up.
fn links_from_layers(fixture: &Fixture) {
    let owner = |uid| Override { uid, gid: uid, mode: 0o777, device: None };
    let names: Vec<ImagePath> = ["a", "b", "c", "d", "p"].iter().map(|name| ImagePath::clean(format!("/tmp/{name}"))).collect();
    let below = step(fixture.overlay("below", &[]), consistent(), "for l in a b c d; do ln -s x $l; done; mkfifo p");
    assert!(below.exit.success());
    let overrides = names.iter().cloned().zip((1..).map(owner)).collect();
    let spec = consistent().unwrap().with_layers(Record { overrides, ..Record::default() });
    let script = "mv a moved; ln b hard; touch -h c; chown -h 9 d; mkdir n; mv p n; rm -f none; stat -c %u moved hard b c d n/p";
    let done = step(fixture.overlay("above", &["below"]), Some(spec), script);
    assert_eq!(done.out, "1\n2\n2\n3\n9\n5\n");
    let reported: Vec<String> = done.report.left.overrides.iter().map(|(path, owner)| format!("{path} {}", owner.uid)).collect();
    assert_eq!(reported, ["/tmp/b 2", "/tmp/c 3", "/tmp/d 9", "/tmp/hard 2", "/tmp/moved 1", "/tmp/n/p 5"]);
}

/// The instruction USER.
fn user(fixture: &Fixture) {
    let spec = EmulationSpec::new(Mode::Consistent, User { uid: 33, gid: 44, groups: vec![44, 55] });
    let done = step(fixture.overlay("upper", &[]), Some(spec), "id; touch f; stat -c '%U:%G' f; (id -u &); sleep 1");
    assert_eq!(done.out, "uid=33(app) gid=44(apps) groups=44(apps),55(more)\napp:apps\n33\n");
}

/// What a user asks and is refused is what it would be elsewhere.
fn refusals(fixture: &Fixture) {
    let prepared = step(
        fixture.overlay("guarded", &[]),
        consistent(),
        "mkdir closed shared; chmod 700 closed; touch closed/f; chown 0:55 shared; chmod 775 shared; echo x > theirs; chmod 1777 .; ln -s theirs link",
    );
    assert_eq!(prepared.out, "");
    let spec = EmulationSpec::new(Mode::Consistent, User { uid: 33, gid: 44, groups: vec![44, 55] }).with_layers(prepared.report.left);
    let script = "try() { \"$@\" 2>/dev/null && echo yes || echo no; }; \
        for f in theirs closed shared link /etc none; do test -r $f; echo $f $? $(test -w $f; echo $?) $(test -x $f; echo $?); done; \
        try sh -c 'echo y > theirs'; try sh -c 'echo y > link'; try sh -c 'echo y > closed/f'; try touch closed/g; try mkdir /etc/d; try mknod /p p; \
        try ln -s x /l; try touch shared/f; try mkdir mine; try sh -c 'echo y > own; chmod 400 own'; try sh -c 'echo z > own'; cat own; \
        try sh -c 'echo > /dev/null'; try sh -c 'echo 0 > /proc/self/oom_score_adj'";
    let done = step(fixture.overlay("guards", &["guarded"]), Some(spec), script);
    let expected = "theirs 0 1 1\nclosed 1 1 1\nshared 0 0 0\nlink 0 1 1\n/etc 0 1 0\nnone 1 1 1\n\
        no\nno\nno\nno\nno\nno\nno\nyes\nyes\nyes\nno\ny\nyes\nyes\n";
    assert_eq!(done.out, expected);
}

/// Thousands of short processes, many at once, each with its own user.
fn many_processes(fixture: &Fixture) {
    let script =
        "seq 1000 2999 | xargs -n 1 -P 64 sh -c 'touch f$0; chown $0:$0 f$0; test $(stat -c %u:%g f$0) = $0:$0 || echo bad $0'; ls | wc -l";
    let done = step(fixture.overlay("upper", &[]), consistent(), script);
    assert_eq!(done.out, "2000\n");
}

/// Steps in one tree, one after the other, where all depends on the record.
fn plain_steps(fixture: &Fixture) {
    let root = fixture.overlay("steps", &[]);
    let first = "mkdir d; touch d/f; chown 33:44 d d/f; chmod 400 d/f; ln -s f d/l; chown -h 5:6 d/l; mknod n c 1 3; ln d/f hard; mkfifo p; \
        chown 7 p; touch gone; chown 9 gone; chmod 4711 d/f; stat -c '%n %u:%g %a %F' d d/f d/l n hard p";
    let said = "d 33:44 755 directory\nd/f 33:44 4711 regular empty file\nd/l 5:6 777 symbolic link\n\
        n 0:0 644 character special file\nhard 33:44 4711 regular empty file\np 7:0 644 fifo\n";
    let done = step(root.clone(), consistent(), first);
    assert_eq!(done.out, said);
    let listed = |record: &Record| record.overrides.iter().map(|(path, over)| format!("{path} {over}")).collect::<Vec<_>>();
    let expected = [
        "/tmp/d 33:44:0755",
        "/tmp/d/f 33:44:04711",
        "/tmp/d/l 5:6:0777",
        "/tmp/gone 9:0:0644",
        "/tmp/hard 33:44:04711",
        "/tmp/n 0:0:0644:char-1-3",
        "/tmp/p 7:0:0644",
    ];
    assert_eq!(listed(&done.report.left), expected);
    // What is removed is forgotten, whoever gets its number; what is moved is found again, with all that is in it.
    let spec = consistent().unwrap().with_layers(done.report.left);
    let script = "stat -c '%n %u:%g %a %F' d d/f d/l n hard p >/dev/null; rm gone; for i in 1 2 3; do touch new$i; stat -c %u new$i; done; \
        rm d/l; ln -s x d/l2; stat -c %u d/l2; mkdir e; mv d e/moved; touch over; mv over p; stat -c %u p; mv n m; rm hard; chown 0:0 e/moved";
    let done = step(root.clone(), Some(spec), script);
    assert_eq!(done.out, "0\n0\n0\n0\n0\n");
    assert_eq!(listed(&done.report.left), ["/tmp/e/moved/f 33:44:04711", "/tmp/m 0:0:0644:char-1-3"]);
    // A thousand files follow their directory.
    let spec = consistent().unwrap().with_layers(done.report.left);
    let done = step(
        root,
        Some(spec),
        "mkdir many; for i in $(seq 1000); do echo >many/$i; done; chown -R 3:4 many; mv many more; stat -c %u more/77",
    );
    assert_eq!(done.out, "3\n");
    assert_eq!(listed(&done.report.left).iter().filter(|line| line.starts_with("/tmp/more/") && line.ends_with(" 3:4:0644")).count(), 1000);
}

/// All of it where the file system holds no user extended attributes, nor times of birth: in memory, and on FUSE, which uses numbers of inodes
/// again at once. There a removed file that is still open lives on under another name, so that single calls differ.
fn without_attributes(fixture: &Fixture) {
    let (place, behind) = (fixture.path("without"), fixture.path("behind"));
    fs::create_dir_all(&place).unwrap();
    fs::create_dir_all(&behind).unwrap();
    let (place, behind) = (place.display(), behind.display());
    let ramfs = (format!("mount -t ramfs ramfs {place}"), &["calls"][..]);
    let bindfs = (format!("bindfs --no-allow-other --xattr-none {behind} {place}"), &[][..]);
    for (mount, more) in [ramfs, bindfs] {
        let script = format!("{mount} && chmod 755 {place} && exec \"$@\"");
        let mut command = Command::new("unshare");
        command.args(["--user", "--map-root-user", "--mount", "sh", "-c", &script, "sh"]);
        if !command.arg("true").status().unwrap().success() {
            assert!(std::env::var_os("CI").is_none(), "{mount} does not work here");
            println!("skipped without_attributes: {mount} does not work here");
            continue;
        }
        let mut command = Command::new("unshare");
        command.args(["--user", "--map-root-user", "--mount", "sh", "-c", &script, "sh"]);
        command.arg(std::env::current_exe().unwrap()).arg(format!("in:{place}")).args(ANYWHERE).args(more);
        assert!(command.status().unwrap().success(), "{mount}");
    }
}

fn success_only(fixture: &Fixture) {
    let spec = EmulationSpec::new(Mode::SuccessOnly, User::default());
    let done = step(
        fixture.overlay("upper", &[]),
        Some(spec),
        "touch f; chown 33:44 f && stat -c %u:%g f; mknod n c 1 3 && ls n; mkfifo p && ls p",
    );
    assert_eq!(done.out, "0:0\nls: n: No such file or directory\np\n");
}

fn none(fixture: &Fixture) {
    let done = step(fixture.overlay("upper", &[]), None, "touch f; chown 33:44 f; stat -c %u:%g f");
    assert_eq!(done.out, "chown: f: Invalid argument\n0:0\n");
}
