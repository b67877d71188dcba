//! Sandboxes end to end, on root file systems made of the machine's static busybox.
//!
//! A program of its own, since a sandbox is the calling program started again. As root it runs everything a second time as an
//! ordinary user without subuid (`tester`), for whom all of it is made. Arguments select checks by name; `bench` measures.

use std::fs;
use std::io::{Read, Write};
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd};
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode};
use std::time::Instant;

use rootling::error::{Error, Result};
use rootling::oci::ImagePath;
use rootling::sandbox::{
    Access, Capabilities, Devices, Emulator, Exit, Feature, IdMap, Missing, Mount, MountKind, Namespace, Network, Privileges, Process,
    Root, Spec, Stdio, Stream, Supervision, probe, reenter, spawn,
};
use serde_json::{Value, json};

type Check = fn(&Fixture);

const CHECKS: [(&str, Check); 22] = [
    ("exits", exits),
    ("refusals", refusals),
    ("read_only_directory", read_only_directory),
    ("writable_directory_keeps_no_stubs", writable_directory_keeps_no_stubs),
    ("overlay_keeps_changes_only", overlay_keeps_changes_only),
    ("skeleton_looks_like_the_image", skeleton_looks_like_the_image),
    ("hundreds_of_layers", hundreds_of_layers),
    ("scratch_forgets", scratch_forgets),
    ("mounts", mounts),
    ("hostile_links_stay_inside", hostile_links_stay_inside),
    ("devices", devices),
    ("identity_and_capabilities", identity_and_capabilities),
    ("leftovers_die", leftovers_die),
    ("dropped_means_killed", dropped_means_killed),
    ("streams_and_signals", streams_and_signals),
    ("loose", loose),
    ("emulation", emulation),
    ("no_network", no_network),
    ("nested", nested),
    ("refusing_machines", refusing_machines),
    ("foreign_programs", foreign_programs),
    ("probes", probes),
];

fn main() -> ExitCode {
    if let Some(code) = reenter(&Refuse) {
        return ExitCode::from(u8::try_from(code).unwrap_or(1));
    }
    let arguments: Vec<String> = std::env::args().skip(1).filter(|argument| !argument.starts_with('-')).collect();
    let fixture = Fixture::new();
    if arguments == ["bench"] {
        bench(&fixture);
        return ExitCode::SUCCESS;
    }
    if let [mode @ ("inner" | "refused")] = &*arguments.iter().map(String::as_str).collect::<Vec<_>>() {
        if *mode == "inner" {
            inner(&fixture)
        } else {
            refused(&fixture)
        }
        return ExitCode::SUCCESS;
    }
    for (name, check) in CHECKS {
        if arguments.is_empty() || arguments.iter().any(|wanted| name.contains(wanted.as_str())) {
            check(&fixture);
            println!("ok {name}");
        }
    }
    if nix::unistd::geteuid().is_root() && !as_tester(&arguments) {
        return ExitCode::FAILURE;
    }
    ExitCode::SUCCESS
}

/// Runs all of it again as an ordinary user.
fn as_tester(arguments: &[String]) -> bool {
    if !fs::read_to_string("/etc/passwd").is_ok_and(|users| users.contains("\ntester:")) {
        println!("skipped as an ordinary user: there is no user `tester`");
        return std::env::var_os("CI").is_none();
    }
    println!("as tester:");
    let copy = std::env::temp_dir().join(format!("sandbox-smoke-{}", std::process::id()));
    fs::copy("/proc/self/exe", &copy).unwrap();
    fs::set_permissions(&copy, fs::Permissions::from_mode(0o755)).unwrap();
    let options = ["--reuid=tester", "--regid=tester", "--clear-groups"];
    let status = Command::new("setpriv").args(options).arg(&copy).args(arguments).status().unwrap();
    fs::remove_file(&copy).unwrap();
    status.success()
}

/// Two layers: programs below, directories on top.
struct Fixture {
    dir: tempfile::TempDir,
}

const APPLETS: &str = "sh tty true false ls cat id sleep ps kill stat touch mkdir rm rmdir grep hostname readlink wc ip mv ln env pwd";

impl Fixture {
    fn new() -> Self {
        // On disk by default: overlays on tmpfs are a case of their own.
        let place = std::env::var_os("SANDBOX_TEST_DIR").unwrap_or_else(|| "/var/tmp".into());
        let dir = tempfile::tempdir_in(place).unwrap();
        let fixture = Self { dir };
        let bin = fixture.path("image/bin");
        fs::create_dir_all(&bin).unwrap();
        fs::copy("/bin/busybox", bin.join("busybox")).expect("Debian's package busybox-static is needed");
        for applet in APPLETS.split(' ') {
            symlink("busybox", bin.join(applet)).unwrap();
        }
        fs::create_dir_all(fixture.path("image/etc")).unwrap();
        for name in ["proc", "sys", "dev", "tmp", "etc"] {
            fs::create_dir_all(fixture.path("points").join(name)).unwrap();
        }
        fixture
    }

    fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    fn fresh(&self, name: &str) -> PathBuf {
        let path = self.path(name);
        let _ = Command::new("chmod").args(["-R", "u+rwx"]).arg(&path).stderr(std::process::Stdio::null()).status();
        let _ = fs::remove_dir_all(&path);
        fs::create_dir_all(&path).unwrap();
        path
    }

    fn layers(&self) -> Vec<PathBuf> {
        vec![self.path("points"), self.path("image")]
    }

    fn read_only(&self) -> Root {
        Root::ReadOnly { lowers: self.layers() }
    }

    /// A plain directory with everything in it.
    fn directory(&self, access: Access) -> Root {
        let path = self.fresh("directory");
        for name in ["image", "points"] {
            assert!(Command::new("cp").arg("-a").arg(self.path(name).join(".")).arg(&path).status().unwrap().success());
        }
        Root::Directory { path, access }
    }

    fn overlay(&self, lowers: Vec<PathBuf>) -> Root {
        Root::Overlay { lowers, upper: self.fresh("upper"), work: self.fresh("work") }
    }
}

fn spec(root: Root, script: &str) -> Spec {
    Spec {
        root,
        id_map: IdMap::ROOT,
        mounts: vec![],
        process: Process {
            argv: vec!["sh".into(), "-c".into(), script.into()],
            env: vec!["PATH=/usr/bin:/bin".into()],
            cwd: ImagePath::root(),
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
        binfmt: vec![],
        emulation: None,
    }
}

/// What a command did.
struct Done {
    exit: Exit,
    out: String,
    notices: Vec<String>,
    emulation: Option<Value>,
}

fn try_run(spec: &Spec) -> Result<Done> {
    let mut running = spawn(spec, Stdio { stdin: Stream::Null, stdout: Stream::Pipe, stderr: Stream::Inherit })?;
    let mut out = String::new();
    running.stdout.take().unwrap().read_to_string(&mut out).unwrap();
    let status = running.wait()?;
    Ok(Done { exit: status.exit, out, notices: status.notices, emulation: status.emulation })
}

fn run(spec: &Spec) -> Done {
    try_run(spec).unwrap_or_else(|error| panic!("{error:#?}"))
}

/// The output of a script that must succeed.
fn output(spec: &Spec) -> String {
    let done = run(spec);
    assert!(done.exit.success(), "{:?}: {}", done.exit, done.out);
    done.out
}

fn mount(target: &str, kind: MountKind, access: Access) -> Mount {
    Mount { target: ImagePath::clean(target), kind, access, missing: Missing::Create }
}

fn file(target: &str, content: &str) -> Mount {
    mount(target, MountKind::File { content: content.into(), mode: 0o644 }, Access::ReadOnly)
}

fn exits(fixture: &Fixture) {
    for (script, expected) in [("exit 0", 0), ("exit 7", 7), ("kill -TERM $$", 128 + 15), ("kill -KILL $$", 128 + 9)] {
        assert_eq!(run(&spec(fixture.read_only(), script)).exit.shell_code(), expected, "{script}");
    }
}

fn refusals(fixture: &Fixture) {
    let layer = fixture.fresh("refusals");
    for (name, content, mode) in [
        ("plain", "no program", 0o755),
        ("script", "#!/bin/nosuch -x\n", 0o755),
        ("private", "#!/bin/sh\n", 0o644),
        ("arm", "\x7fELF\x02\x01\x01\0\0\0\0\0\0\0\0\0\x02\0\u{b7}\0", 0o755),
    ] {
        let content: Vec<u8> = content.chars().map(|c| u8::try_from(u32::from(c)).unwrap()).collect();
        fs::write(layer.join(name), content).unwrap();
        fs::set_permissions(layer.join(name), fs::Permissions::from_mode(mode)).unwrap();
    }
    let mut lowers = fixture.layers();
    lowers.insert(0, layer);
    for (program, code, says) in [
        ("nosuch", 127, "no directory of PATH"),
        ("/bin/nosuch", 127, "ENOENT"),
        ("/plain", 126, "neither a program nor a script"),
        ("/script", 126, "interpreter `/bin/nosuch` does not exist"),
        ("/private", 126, "EACCES"),
        ("/arm", 126, "arm64"),
        ("/bin", 126, "is a directory"),
    ] {
        let mut spec = spec(Root::ReadOnly { lowers: lowers.clone() }, "");
        spec.process.argv = vec![program.into()];
        let exit = run(&spec).exit;
        assert_eq!(exit.shell_code(), code, "{program}: {exit:?}");
        let (Exit::NotFound(error) | Exit::NotExecutable(error)) = exit else { panic!("{program}: {exit:?}") };
        assert!(error.to_string().contains(says), "{program}: {error}");
    }
    let mut spec = spec(fixture.read_only(), "true");
    spec.process.cwd = ImagePath::clean("/nosuch");
    assert!(try_run(&spec).is_err_and(|e| e.to_string().contains("working directory `/nosuch`")));
}

fn read_only_directory(fixture: &Fixture) {
    let mut spec = spec(fixture.directory(Access::ReadOnly), "touch /x /etc/x 2>/dev/null && exit 1; touch /data/x && cat /etc/hosts");
    // Neither exists in the directory, which must stay as it is.
    spec.mounts = vec![
        file("etc/hosts", "127.0.0.1 here\n"),
        mount("data", MountKind::Tmpfs { size: Some(1 << 20), mode: 0o755 }, Access::ReadWrite),
    ];
    assert_eq!(output(&spec), "127.0.0.1 here\n");
    assert!(!fixture.path("directory/etc/hosts").exists() && !fixture.path("directory/data").exists());
}

fn writable_directory_keeps_no_stubs(fixture: &Fixture) {
    let mut spec = spec(fixture.directory(Access::ReadWrite), "echo a >/kept; cat /a/b/file; echo >/c/left");
    spec.mounts = vec![file("a/b/file", "content"), mount("c/d", MountKind::Tmpfs { size: None, mode: 0o755 }, Access::ReadWrite)];
    fs::remove_dir(fixture.path("directory/sys")).unwrap();
    assert_eq!(output(&spec), "content");
    let exists = |name: &str| fixture.path("directory").join(name).exists();
    assert_eq!([exists("kept"), exists("a"), exists("sys"), exists("c/d"), exists("c/left")], [true, false, false, false, true]);
}

/// What is in a directory, sorted, without its types.
fn names(path: &Path) -> Vec<String> {
    let mut names: Vec<String> = fs::read_dir(path).unwrap().map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
    names.sort();
    names
}

fn overlay_keeps_changes_only(fixture: &Fixture) {
    // No mount point exists in this image.
    let script = "echo x >/new && rm /bin/false && mkdir /etc/d && cat /etc/resolv.conf /proc/self/comm && ls /sys/class >/dev/null";
    let mut spec = spec(fixture.overlay(vec![fixture.path("image")]), script);
    spec.mounts = vec![file("etc/resolv.conf", "nameserver\n"), file("etc/hosts", "")];
    assert_eq!(output(&spec), "nameserver\ncat\n");
    let upper = fixture.path("upper");
    assert_eq!(names(&upper), ["bin", "etc", "new"]);
    assert_eq!(names(&upper.join("etc")), ["d"]);
    assert_eq!(names(&upper.join("bin")), ["false"], "a whiteout");
    assert!(!fixture.path("image/proc").exists());
}

fn skeleton_looks_like_the_image(fixture: &Fixture) {
    let layer = fixture.fresh("marked");
    fs::create_dir(layer.join("etc")).unwrap();
    fs::set_permissions(layer.join("etc"), fs::Permissions::from_mode(0o1750)).unwrap();
    assert!(Command::new("touch").args(["-d", "2001-02-03 04:05:06 UTC"]).arg(layer.join("etc")).status().unwrap().success());
    // resolv.conf was deleted by a layer, and hosts is a link to where nothing is.
    let deleted = nix::sys::stat::mknod(&layer.join("etc/resolv.conf"), nix::sys::stat::SFlag::S_IFCHR, nix::sys::stat::Mode::empty(), 0);
    deleted.unwrap();
    symlink("../run/hosts", layer.join("etc/hosts")).unwrap();
    assert!(Command::new("touch").args(["-d", "2001-02-03 04:05:06 UTC"]).arg(layer.join("etc")).status().unwrap().success());
    let base = fixture.fresh("base");
    fs::create_dir(base.join("etc")).unwrap();
    fs::write(base.join("etc/resolv.conf"), "old").unwrap();
    let lowers = vec![layer, base, fixture.path("image")];
    let mut spec = spec(fixture.overlay(lowers), "stat -c '%a %Y' /etc; cat /etc/resolv.conf /etc/hosts; echo x >/etc/new");
    spec.mounts = vec![file("etc/resolv.conf", "n\n"), file("etc/hosts", "h\n")];
    assert_eq!(output(&spec), "1750 981173106\nn\nh\n");
    let upper = fixture.path("upper");
    assert_eq!((names(&upper), names(&upper.join("etc"))), (vec!["etc".to_string()], vec!["new".to_string()]));
    assert_eq!(fs::metadata(upper.join("etc")).unwrap().permissions().mode() & 0o7777, 0o1750);
}

fn hundreds_of_layers(fixture: &Fixture) {
    let stack = fixture.fresh("stack");
    let mut lowers: Vec<PathBuf> = (0..480).map(|n| stack.join(format!("a rather long name: of, a layer {n}"))).collect();
    for (n, lower) in lowers.iter().enumerate() {
        fs::create_dir_all(lower.join("many")).unwrap();
        fs::write(lower.join(format!("many/{n}")), "").unwrap();
    }
    lowers.extend(fixture.layers());
    let old = nix::sys::resource::getrlimit(nix::sys::resource::Resource::RLIMIT_NOFILE).unwrap().0;
    assert_eq!(output(&spec(fixture.overlay(lowers), "ls /many | wc -l; ulimit -n")), format!("480\n{old}\n"));
}

fn scratch_forgets(fixture: &Fixture) {
    let script = "echo x >/new && rm -r /etc && mkdir /etc && touch /etc/only && ls /etc && rm /bin/false && ! ls /bin/false 2>/dev/null";
    let root = Root::Scratch { lowers: fixture.layers(), disk: Some(fixture.fresh("disk")) };
    assert_eq!(output(&spec(root, script)), "only\n");
    assert!(fixture.path("image/bin/false").is_symlink() && !fixture.path("image/new").exists());
}

fn mounts(fixture: &Fixture) {
    let data = fixture.fresh("data");
    fs::write(data.join("f"), "data\n").unwrap();
    let bind = |source: &Path| MountKind::Bind { source: source.to_path_buf() };
    let stack =
        |path: &str| MountKind::Stack { lowers: vec![data.clone(), fixture.path("points")], path: ImagePath::clean(path), changes: None };
    let script = "cat /rw/f /ro/f /one /stack/f /t/deep/f; touch /rw/new /drop/new; touch /ro/no 2>/dev/null || echo ro; [ -e /skipped ] || echo skipped; ls -d /drop/proc";
    let mut spec = spec(fixture.overlay(fixture.layers()), script);
    spec.mounts = vec![
        mount("rw", bind(&data), Access::ReadWrite),
        mount("ro", bind(&data), Access::ReadOnly),
        mount("one", bind(&data.join("f")), Access::ReadOnly),
        mount("stack", stack("/"), Access::ReadOnly),
        mount("drop", stack("/"), Access::ReadWrite),
        mount("t", MountKind::Tmpfs { size: None, mode: 0o755 }, Access::ReadWrite),
        mount("t/deep", bind(&data), Access::ReadOnly),
        Mount { missing: Missing::Skip, ..mount("skipped", bind(&data), Access::ReadOnly) },
    ];
    assert_eq!(output(&spec), "data\ndata\ndata\ndata\ndata\nro\nskipped\n/drop/proc\n");
    assert_eq!(names(&data), ["f", "new"]);
    assert!(names(&fixture.path("upper")).is_empty());
    spec.root = fixture.read_only();
    spec.mounts = vec![Mount { missing: Missing::Fail, ..mount("nowhere", bind(&data), Access::ReadOnly) }];
    assert!(try_run(&spec).is_err_and(|e| e.to_string().contains("`/nowhere`")));
    spec.mounts = vec![mount("etc", bind(&data.join("f")), Access::ReadOnly)];
    assert!(try_run(&spec).is_err_and(|e| e.to_string().contains("it is a directory")));
    spec.mounts = vec![mount("x", bind(Path::new("/nosuch/source")), Access::ReadOnly)];
    assert!(try_run(&spec).is_err_and(|e| e.to_string().contains("`/nosuch/source`")));
}

fn hostile_links_stay_inside(fixture: &Fixture) {
    let outside = fixture.fresh("outside");
    let layer = fixture.fresh("hostile");
    let up = format!("/../../../../../../..{}", outside.display());
    symlink(&up, layer.join("etc")).unwrap();
    symlink("/proc/self/root", layer.join("out")).unwrap();
    let lowers = vec![layer, fixture.path("points")];
    let mut with_image = lowers.clone();
    with_image.push(fixture.path("image"));
    let mut spec = spec(fixture.overlay(with_image), "cat /etc/passwd");
    spec.mounts = vec![file("etc/passwd", "mine")];
    assert_eq!(output(&spec), "mine");
    assert!(names(&outside).is_empty(), "{:?}", names(&outside));
}

fn devices(fixture: &Fixture) {
    let script = "echo x >/dev/null && ls /dev/fd/0 /dev/pts/ptmx && cat /dev/zero | { read -n 1 x; true; } && echo y >/dev/shm/x && stat -c %a /dev/shm /dev/ptmx";
    assert_eq!(output(&spec(fixture.read_only(), script)), "/dev/fd/0\n/dev/pts/ptmx\n1777\n777\n");
    // A terminal of the host's devpts has a name inside, and a strict umask of the caller does not show.
    let terminal = nix::pty::openpty(None, None).unwrap();
    let old = nix::sys::stat::umask(nix::sys::stat::Mode::from_bits_truncate(0o077));
    let spec_with_terminal =
        Spec { mounts: vec![file("etc/f", "")], ..spec(fixture.read_only(), "tty; stat -c %a /dev /dev/shm /etc/f; umask") };
    let spec_with_terminal = Spec { process: Process { umask: None, ..spec_with_terminal.process }, ..spec_with_terminal };
    let io = Stdio { stdin: Stream::File(terminal.slave), stdout: Stream::Pipe, stderr: Stream::Inherit };
    let mut running = spawn(&spec_with_terminal, io).unwrap();
    let mut out = String::new();
    running.stdout.take().unwrap().read_to_string(&mut out).unwrap();
    assert!(running.wait().unwrap().exit.success());
    nix::sys::stat::umask(old);
    assert_eq!(out, "/dev/console\n755\n1777\n644\n0077\n");
    let mut host = spec(fixture.read_only(), "ls /dev | wc -l");
    host.devices = Devices::Host;
    let count = fs::read_dir("/dev").unwrap().count();
    assert_eq!(output(&host), format!("{count}\n"));
}

fn identity_and_capabilities(fixture: &Fixture) {
    let script = "id -u; id -g; hostname; grep -E '^(Cap|NoNewPrivs|SigBlk)' /proc/self/status; ls /proc/self/fd; umask";
    let parse = |text: &str| text.split_whitespace().map(String::from).collect::<Vec<_>>().join(" ");
    let caps = |inh: &str, prm: &str, bnd: &str| format!("CapInh: {inh} CapPrm: {prm} CapEff: {prm} CapBnd: {bnd} CapAmb: {inh}");
    let (none, docker) = ("0000000000000000", "00000000a80425fb");
    let root = parse(&output(&spec(fixture.read_only(), script)));
    let rest = "0 1 2 3 0022";
    let masks = format!("SigBlk: {none}");
    // Rust ignores SIGPIPE; the command must not.
    let ignored = output(&spec(fixture.read_only(), "grep SigIgn /proc/self/status"));
    let ignored = u64::from_str_radix(ignored.split_whitespace().nth(1).unwrap(), 16).unwrap();
    assert_eq!(ignored >> (nix::libc::SIGPIPE - 1) & 1, 0);
    assert_eq!(root, format!("0 0 rootling {masks} {} NoNewPrivs: 0 {rest}", caps(none, docker, docker)));
    let mut user = spec(fixture.read_only(), script);
    user.id_map = IdMap { inside_uid: 4_000_000, inside_gid: 50 };
    user.privileges = Privileges::Fixed;
    let text = parse(&output(&user));
    assert_eq!(text, format!("4000000 50 rootling {masks} {} NoNewPrivs: 1 {rest}", caps(none, none, docker)));
}

fn leftovers_die(fixture: &Fixture) {
    let start = Instant::now();
    let out = output(&spec(fixture.read_only(), "sleep 1001 >/dev/null & (sleep 1002 >/dev/null &) ; echo done"));
    assert_eq!(out, "done\n");
    assert!(start.elapsed().as_secs() < 100);
    assert!(!running("1001") && !running("1002"));
}

/// Whether a `sleep` with this argument exists on the machine.
fn running(argument: &str) -> bool {
    let wanted = format!("sleep\0{argument}\0");
    fs::read_dir("/proc").unwrap().flatten().any(|entry| fs::read(entry.path().join("cmdline")).is_ok_and(|line| line == wanted.as_bytes()))
}

fn dropped_means_killed(fixture: &Fixture) {
    for (pid, seconds) in [(Namespace::Private, "1003"), (Namespace::Host, "1004")] {
        let mut spec = spec(fixture.read_only(), &format!("echo up; exec sleep {seconds}"));
        spec.pid = pid;
        let mut running_command = spawn(&spec, Stdio { stdin: Stream::Null, stdout: Stream::Pipe, stderr: Stream::Inherit }).unwrap();
        let mut line = [0; 3];
        running_command.stdout.as_mut().unwrap().read_exact(&mut line).unwrap();
        drop(running_command);
        assert!(!running(seconds), "{pid:?}");
    }
}

fn streams_and_signals(fixture: &Fixture) {
    let script = "trap 'echo got; exit 5' USR1; echo ready; while read x; do echo $x; done; while :; do sleep 0.01; done";
    let mut command =
        spawn(&spec(fixture.read_only(), script), Stdio { stdin: Stream::Pipe, stdout: Stream::Pipe, stderr: Stream::Null }).unwrap();
    let mut out = command.stdout.take().unwrap();
    let mut line = [0; 6];
    out.read_exact(&mut line).unwrap();
    let mut stdin = command.stdin.take().unwrap();
    stdin.write_all(b"line\n").unwrap();
    drop(stdin);
    let mut line = [0; 5];
    out.read_exact(&mut line).unwrap();
    assert_eq!(&line, b"line\n");
    command.signal(nix::libc::SIGUSR1).unwrap();
    let mut rest = String::new();
    out.read_to_string(&mut rest).unwrap();
    assert_eq!((rest.as_str(), command.wait().unwrap().exit.shell_code()), ("got\n", 5));

    // The same by way of this process.
    let mut command = spawn(
        &spec(fixture.read_only(), "trap 'exit 6' TERM; echo ready; while :; do sleep 0.01; done"),
        Stdio { stdin: Stream::Null, stdout: Stream::Pipe, stderr: Stream::Null },
    )
    .unwrap();
    let mut out = command.stdout.take().unwrap();
    let me = nix::unistd::getpid();
    let sender = std::thread::spawn(move || {
        let mut line = [0; 6];
        out.read_exact(&mut line).unwrap();
        // The caller may not have come to wait for it yet, then the signal would be ours.
        std::thread::sleep(std::time::Duration::from_millis(200));
        nix::sys::signal::kill(me, nix::sys::signal::Signal::SIGTERM).unwrap();
    });
    assert_eq!(command.wait_forwarding_signals().unwrap().exit.shell_code(), 6);
    sender.join().unwrap();
}

fn loose(fixture: &Fixture) {
    let mut spec = spec(fixture.read_only(), "ls -d /proc/$PPID >/dev/null && readlink /proc/$$/exe && exit 9");
    (spec.pid, spec.ipc, spec.hostname) = (Namespace::Host, Namespace::Host, None);
    let done = run(&spec);
    assert_eq!((done.exit.shell_code(), done.out.trim()), (9, "/bin/busybox"));
    spec.process.argv = vec!["nosuch".into()];
    assert_eq!(run(&spec).exit.shell_code(), 127);
    spec.process.argv = vec!["sh".into(), "-c".into(), "kill -TERM $$".into()];
    assert_eq!(run(&spec).exit.shell_code(), 128 + 15);
}

fn emulation(fixture: &Fixture) {
    for pid in [Namespace::Private, Namespace::Host] {
        let mut spec = spec(fixture.overlay(fixture.layers()), "rmdir /tmp 2>/dev/null; rmdir /etc 2>/dev/null; id -u");
        (spec.pid, spec.emulation) = (pid, Some(json!("refuse")));
        let done = run(&spec);
        assert_eq!(done.out, "0\n");
        // One from `confirm`, two from the script.
        assert_eq!(done.emulation, Some(json!({ "refused": 3, "upper": true, "proc": true })), "{pid:?}");
    }
    for (mode, says) in [("no install", "no filter today"), ("no supervisor", "no supervisor today")] {
        let mut spec = spec(fixture.read_only(), "rmdir /tmp; sleep 1005");
        spec.emulation = Some(json!(mode));
        assert!(try_run(&spec).is_err_and(|e| e.to_string().contains(says)), "{mode}");
        assert!(!running("1005"));
    }
}

fn no_network(fixture: &Fixture) {
    let mut spec = spec(fixture.read_only(), "grep -c : /proc/net/dev; ip link show lo | grep -o 'LOOPBACK,UP'");
    spec.network = Network::None;
    assert_eq!(output(&spec), "1\nLOOPBACK,UP\n");
}

/// In a container that hides parts of `/proc`, and in our own sandbox.
fn nested(fixture: &Fixture) {
    let me = fs::read_link("/proc/self/exe").unwrap();
    let mask = r#"mount --bind /dev/null /proc/timer_list; mount -o bind,ro /proc/sys /proc/sys && exec "$0" inner"#;
    let out = Command::new("unshare").args(["-Urm", "sh", "-c", mask]).arg(&me).output().unwrap();
    let text = String::from_utf8_lossy(&out.stdout).into_owned() + &String::from_utf8_lossy(&out.stderr);
    assert!(out.status.success() && text.contains("without a PID namespace") && text.contains("inner ok"), "{text}");

    // The test program needs the machine's libraries; its scratch space is a tmpfs.
    let root = fixture.fresh("nest");
    for name in ["bin", "lib", "lib64"] {
        if let Ok(target) = fs::read_link(Path::new("/").join(name)) {
            symlink(target, root.join(name)).unwrap();
        }
    }
    let mut spec = spec(Root::Directory { path: root, access: Access::ReadOnly }, "exec /smoke inner");
    let bind = |source: &Path| MountKind::Bind { source: source.to_path_buf() };
    spec.mounts = vec![
        mount("usr", bind(Path::new("/usr")), Access::ReadOnly),
        mount("smoke", bind(&me), Access::ReadOnly),
        mount("var/tmp", MountKind::Tmpfs { size: None, mode: 0o1777 }, Access::ReadWrite),
        mount("tmp", MountKind::Tmpfs { size: None, mode: 0o1777 }, Access::ReadWrite),
    ];
    // Our own sandbox hides nothing, unless the machine's root must be kept from its /proc/sys.
    let text = output(&spec);
    let hidden = nix::unistd::geteuid().is_root();
    assert!(text.contains("inner ok") && text.contains("without a PID namespace") == hidden, "{text}");
}

/// What [`nested`] does inside.
fn inner(fixture: &Fixture) {
    let mut spec = spec(
        fixture.overlay(fixture.layers()),
        "sleep 1006 >/dev/null & ls -d /proc/$$ && touch /kept 2>/dev/null && readlink /proc/self/exe",
    );
    let done = run(&spec);
    println!("{}", done.notices.join("\n"));
    assert!(done.exit.success() && done.out.ends_with("/bin/busybox\n"), "{:?} {}", done.exit, done.out);
    assert!(!running("1006"), "leftovers");
    assert_eq!(names(&fixture.path("upper")), ["kept"]);
    (spec.root, spec.emulation) = (fixture.read_only(), Some(json!("refuse")));
    assert_eq!(run(&spec).emulation.unwrap()["proc"], json!(true));
    println!("inner ok");
}

/// Machines as administrators set them up, imitated in a user namespace that has limits of its own.
fn refusing_machines(_: &Fixture) {
    let me = fs::read_link("/proc/self/exe").unwrap();
    for (setting, says) in [
        ("echo 0 >/proc/sys/user/max_user_namespaces", &["can't create a user namespace", "ENOSPC", "max_user_namespaces is 0"][..]),
        ("echo 1 >/proc/sys/user/max_user_namespaces", &["ran 0", "ran 0"]),
        ("echo 0 >/proc/sys/user/max_mnt_namespaces", &["can't create a mount namespace", "max_mnt_namespaces is 0"]),
        ("echo 0 >/proc/sys/user/max_pid_namespaces", &["ran 0", "refuses PID namespaces"]),
        ("echo 0 >/proc/sys/user/max_uts_namespaces", &["ran 0", "refuses a UTS namespace"]),
        ("echo 0 >/proc/sys/user/max_net_namespaces", &["ran 0", "can't create a network namespace", "max_net_namespaces is 0"]),
        ("mount --rbind / /mnt; exec chroot /mnt \"$0\" refused", &["can't create a user namespace", "in a chroot"]),
    ] {
        // Limits of a namespace count for those made in it.
        let script = format!("{setting}; exec \"$0\" refused");
        let out = Command::new("unshare").args(["-Urm", "sh", "-c", &script]).arg(&me).output().unwrap();
        let text = String::from_utf8_lossy(&out.stdout).into_owned() + &String::from_utf8_lossy(&out.stderr);
        assert!(out.status.success() && says.iter().all(|part| text.contains(part)), "{setting}: {text}");
    }
}

/// What [`refusing_machines`] does inside: with the host's network and without any.
fn refused(fixture: &Fixture) {
    for network in [Network::Host, Network::None] {
        let spec = Spec { network, ..spec(fixture.read_only(), "true") };
        match try_run(&spec) {
            Ok(done) => println!("ran {} {:?}", done.exit.shell_code(), done.notices),
            Err(error) => println!("{error} {:?}", error.hints()),
        }
    }
}

/// A format of our own, interpreted by the host's `cat`: the interpreter need not be in the image.
fn foreign_programs(fixture: &Fixture) {
    if !Path::new("/proc/sys/fs/binfmt_misc").exists() {
        println!("skipped foreign_programs: no binfmt_misc");
        return;
    }
    let layer = fixture.fresh("foreign");
    fs::write(layer.join("program"), "FOREIGN says hello\n").unwrap();
    fs::set_permissions(layer.join("program"), fs::Permissions::from_mode(0o755)).unwrap();
    let mut lowers = fixture.layers();
    lowers.insert(0, layer);
    let mut spec = spec(Root::ReadOnly { lowers }, "/program /program");
    // Static, since its libraries are not in the image.
    fs::copy("/bin/busybox", fixture.path("cat")).unwrap();
    spec.binfmt = vec![format!(":ours:M::FOREIGN::{}:F", fixture.path("cat").display())];
    assert_eq!(output(&spec), "FOREIGN says hello\n".repeat(2));
}

fn probes(fixture: &Fixture) {
    let dir = fixture.fresh("probe");
    let probe = probe(&dir);
    for check in &probe.checks {
        println!("   {}: {:?} {:?}", check.feature.name(), check.works, check.remedy);
        assert_eq!(check.works.is_err(), check.remedy.is_some());
    }
    // Without these no other check would have come this far.
    for feature in [Feature::UserNamespace, Feature::PidNamespace, Feature::Proc, Feature::Overlay, Feature::UserXattrs] {
        assert!(probe.works(feature), "{feature:?}");
    }
    assert!(names(&dir).is_empty());
}

fn bench(fixture: &Fixture) {
    let host = |mut spec: Spec| {
        (spec.pid, spec.ipc, spec.hostname, spec.devices) = (Namespace::Host, Namespace::Host, None, Devices::Host);
        spec
    };
    let directory = fixture.directory(Access::ReadOnly);
    let build = || {
        let mut spec = spec(fixture.overlay(vec![fixture.path("image")]), "");
        spec.mounts = vec![file("etc/resolv.conf", "x"), file("etc/hosts", "x")];
        spec
    };
    let ipc = |mut spec: Spec, ipc| {
        spec.ipc = ipc;
        spec
    };
    let variants: [(&str, &dyn Fn() -> Spec); 5] = [
        ("directory, own namespaces", &|| spec(directory.clone(), "")),
        ("directory, own namespaces but IPC", &|| ipc(spec(directory.clone(), ""), Namespace::Host)),
        ("directory, host's namespaces and devices", &|| host(spec(directory.clone(), ""))),
        ("read-only stack of two", &|| spec(fixture.read_only(), "")),
        ("build: overlay, skeleton, resolv.conf, hosts", &build),
    ];
    for (name, make) in variants {
        let mut times: Vec<f64> = (0..100)
            .map(|_| {
                let mut spec = make();
                spec.process.argv = vec!["/bin/true".into()];
                let start = Instant::now();
                let io = Stdio { stdin: Stream::Null, stdout: Stream::Inherit, stderr: Stream::Inherit };
                assert!(spawn(&spec, io).unwrap().wait().unwrap().exit.success());
                start.elapsed().as_secs_f64() * 1e3
            })
            .collect();
        times.sort_by(f64::total_cmp);
        println!("{name}: min {:.2} median {:.2} p90 {:.2} ms", times[0], times[50], times[90]);
    }
}

/// Refuses `rmdir` with `ENOTTY`, by notification, and counts.
struct Refuse;

const REFUSED: i32 = nix::libc::ENOTTY;

impl Emulator for Refuse {
    fn install(&self, spec: &Value) -> Result<Option<OwnedFd>> {
        if spec == "no install" {
            return Err(Error::new("no filter today"));
        }
        let step = |code, k, jt, jf| nix::libc::sock_filter { code, k, jt, jf };
        let rmdirs = [nix::libc::SYS_rmdir, nix::libc::SYS_unlinkat].map(|number| u32::try_from(number).unwrap());
        let mut program = [
            step(0x20, 0, 0, 0),
            step(0x15, rmdirs[0], 2, 0),
            step(0x15, rmdirs[1], 1, 0),
            step(0x06, nix::libc::SECCOMP_RET_ALLOW, 0, 0),
            step(0x06, nix::libc::SECCOMP_RET_USER_NOTIF, 0, 0),
        ];
        let filter = nix::libc::sock_fprog { len: 5, filter: program.as_mut_ptr() };
        // SAFETY: a valid filter program.
        let fd = unsafe {
            nix::libc::syscall(
                nix::libc::SYS_seccomp,
                nix::libc::SECCOMP_SET_MODE_FILTER,
                nix::libc::SECCOMP_FILTER_FLAG_NEW_LISTENER,
                &filter,
            )
        };
        if fd < 0 {
            return Err(Error::os("can't install a filter", std::io::Error::last_os_error()));
        }
        // SAFETY: the kernel made it for us.
        Ok(Some(unsafe { OwnedFd::from_raw_fd(i32::try_from(fd).unwrap()) }))
    }

    fn confirm(&self, spec: &Value) -> Result<()> {
        let result = fs::remove_dir("/").map_err(|e| e.raw_os_error());
        if spec == "no supervisor" || result == Err(Some(REFUSED)) { Ok(()) } else { Err(Error::new(format!("not refused: {result:?}"))) }
    }

    fn supervise(&self, spec: &Value, listener: OwnedFd, context: Supervision) -> Result<Value> {
        if spec == "no supervisor" {
            return Err(Error::new("no supervisor today"));
        }
        let shown = context.proc.is_some() && Path::new(&format!("/proc/{}", context.command)).exists();
        let mut refused = 0;
        loop {
            let mut fds = [nix::poll::PollFd::new(std::os::fd::AsFd::as_fd(&listener), nix::poll::PollFlags::POLLIN)];
            nix::poll::poll(&mut fds, nix::poll::PollTimeout::NONE).unwrap();
            if fds[0].revents().is_some_and(|events| events.contains(nix::poll::PollFlags::POLLHUP)) {
                return Ok(json!({ "refused": refused, "upper": context.upper.is_some(), "proc": shown }));
            }
            // SAFETY: plain data that may be all zeroes, as the call wants it.
            let mut call: nix::libc::seccomp_notif = unsafe { std::mem::zeroed() };
            // SAFETY: SECCOMP_IOCTL_NOTIF_RECV writes one seccomp_notif.
            if unsafe { nix::libc::ioctl(listener.as_raw_fd(), 0xc050_2100, &raw mut call) } < 0 {
                continue;
            }
            let answer = nix::libc::seccomp_notif_resp { id: call.id, val: 0, error: -REFUSED, flags: 0 };
            // SAFETY: SECCOMP_IOCTL_NOTIF_SEND reads one seccomp_notif_resp.
            unsafe { nix::libc::ioctl(listener.as_raw_fd(), 0xc018_2101, &raw const answer) };
            refused += 1;
        }
    }
}
