//! `run` as docker and ch-run users expect it: configuration honoured, status passed on, signals forwarded, nothing left.

use std::io::Read;
use std::os::unix::process::ExitStatusExt;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use crate::rig::{Ran, Rig, assert_ordinary_user, needs};

#[test]
fn configuration_is_honoured() {
    assert_ordinary_user();
    let rig = Rig::with_base();
    rig.build("configured", "FROM base\nENV COLOUR=blue\nWORKDIR /made\nENTRYPOINT [\"echo\", \"entry\"]\nCMD [\"command\"]\n");
    assert_eq!(rig.ok(["run", "configured"]), "entry command\n");
    assert_eq!(rig.ok(["run", "configured", "--", "given"]), "entry given\n");
    rig.build("plain", "FROM base\nENV COLOUR=blue\nWORKDIR /made\n");
    assert_eq!(rig.sh("plain", "echo $COLOUR; pwd"), "blue\n/made\n");
    assert_eq!(rig.ok(["run", "--env", "COLOUR=red", "--workdir", "/etc", "plain", "--", "sh", "-c", "echo $COLOUR; pwd"]), "red\n/etc\n");
}

#[test]
fn exit_codes_follow_the_table() {
    let rig = Rig::with_base();
    let check = |arguments: &[&str], code: i32| {
        let ran = rig.run([&["run"], arguments].concat());
        assert_eq!(ran.code, Some(code), "{ran}");
    };
    check(&["base", "--", "true"], 0);
    check(&["base", "--", "sh", "-c", "exit 7"], 7);
    check(&["base", "--", "no-such-program"], 127);
    check(&["base", "--", "/etc"], 126);
    check(&["no-such-image", "--", "true"], 125);
    check(&["base", "--", "sh", "-c", "kill -TERM $$"], 128 + 15);
}

#[test]
fn the_image_is_read_only_unless_asked() {
    let rig = Rig::with_base();
    assert_ne!(rig.run(["run", "base", "--", "touch", "/x"]).code, Some(0));
    assert_eq!(rig.ok(["run", "--write", "base", "--", "sh", "-c", "touch /x && ls /x"]), "/x\n");
    assert_ne!(rig.run(["run", "base", "--", "ls", "/x"]).code, Some(0), "what --write wrote must be gone");
}

#[test]
fn bind_mounts() {
    let rig = Rig::with_base();
    rig.write("shared/in", "content");
    let directory = rig.path("shared").display().to_string();
    assert_eq!(rig.ok(["run", "--bind", &format!("{directory}:/mnt"), "base", "--", "cat", "/mnt/in"]), "content");
    rig.ok(["run", "--bind", &format!("{directory}:/mnt"), "base", "--", "touch", "/mnt/out"]);
    assert!(rig.path("shared/out").exists());
    assert_ne!(rig.run(["run", "--bind", &format!("{directory}:/mnt:ro"), "base", "--", "touch", "/mnt/no"]).code, Some(0));
}

#[test]
fn who_one_is() {
    let rig = Rig::with_base();
    let me = Command::new("id").arg("-u").output().unwrap();
    assert_eq!(rig.ok(["run", "base", "--", "id", "-u"]), String::from_utf8_lossy(&me.stdout));
    assert_eq!(rig.ok(["run", "--user", "0", "base", "--", "id", "-u"]), "0\n");
}

#[test]
fn streams_stay_apart_and_stdin_arrives() {
    let rig = Rig::with_base();
    let ran = rig.run(["run", "base", "--", "sh", "-c", "echo out; echo err >&2"]);
    assert_eq!((ran.stdout.as_str(), ran.stderr.as_str()), ("out\n", "err\n"));
    let input = rig.write("input", "through stdin");
    let out = rig.command(["run", "base", "--", "cat"]).stdin(std::fs::File::open(input).unwrap()).output().unwrap();
    assert_eq!(String::from_utf8_lossy(&out.stdout), "through stdin");
}

#[test]
fn signals_are_forwarded_and_nothing_is_left_behind() {
    let rig = Rig::with_base();
    let marker = format!("987{}", std::process::id());
    let mut child = rig.start([
        "run",
        "--pid",
        "private",
        "base",
        "--",
        "sh",
        "-c",
        &format!("trap 'exit 33' TERM; sleep {marker} & echo ready; wait"),
    ]);
    let mut ready = [0; 6];
    child.stdout.as_mut().unwrap().read_exact(&mut ready).unwrap();
    Command::new("kill").args(["-TERM", &child.id().to_string()]).status().unwrap();
    let status = child.wait().unwrap();
    assert_eq!(status.code(), Some(33), "signal {:?}", status.signal());
    assert_gone(&marker);
}

#[test]
fn a_killed_parent_takes_all_with_it() {
    let rig = Rig::with_base();
    let marker = format!("986{}", std::process::id());
    let mut child =
        rig.start(["run", "--pid", "private", "base", "--", "sh", "-c", &format!("echo ready; sleep {marker} & sleep {marker}")]);
    let mut ready = [0; 6];
    child.stdout.as_mut().unwrap().read_exact(&mut ready).unwrap();
    child.kill().unwrap();
    child.wait().unwrap();
    assert_gone(&marker);
}

/// Without a namespace of processes the command itself still ends with the program that started it.
#[test]
fn a_killed_parent_takes_the_command_with_it() {
    let rig = Rig::with_base();
    let marker = format!("985{}", std::process::id());
    let mut child = rig.start(["run", "base", "--", "sleep", &marker]);
    let started = Instant::now();
    let running =
        || !Command::new("pgrep").args(["-f", &format!("^sleep {marker}")]).stdout(Stdio::piped()).output().unwrap().stdout.is_empty();
    while !running() {
        assert!(started.elapsed() < Duration::from_secs(10), "it never started");
        std::thread::sleep(Duration::from_millis(20));
    }
    child.kill().unwrap();
    child.wait().unwrap();
    assert_gone(&marker);
}

/// Waits until no process has the marker on its command line.
fn assert_gone(marker: &str) {
    let started = Instant::now();
    while started.elapsed() < Duration::from_secs(10) {
        let found = Command::new("pgrep").args(["-f", &format!("^sleep {marker}")]).stdout(Stdio::piped()).output().unwrap();
        if found.stdout.is_empty() {
            return;
        }
        std::thread::sleep(Duration::from_millis(50));
    }
    panic!("`sleep {marker}` is still running");
}

#[test]
fn a_plain_directory_and_other_programs_run_what_we_built() {
    let rig = Rig::with_base();
    rig.build("shared", "FROM base\nRUN echo built >/state\n");
    let path = rig.ok(["path", "shared"]);
    let path = path.trim_end();
    assert_eq!(rig.ok(["run", path, "--", "cat", "/state"]), "built\n");
    if needs("ch-run").is_some() {
        let out = Command::new("ch-run").args([path, "--", "cat", "/state"]).output().unwrap();
        assert_eq!(out.stdout, b"built\n", "{}", Ran::of(out.clone(), "ch-run".into()));
    }
    if needs("bwrap").is_some() {
        let out =
            Command::new("bwrap").args(["--ro-bind", path, "/", "--dev", "/dev", "--proc", "/proc", "cat", "/state"]).output().unwrap();
        assert_eq!(out.stdout, b"built\n", "{}", Ran::of(out.clone(), "bwrap".into()));
    }
}

/// A shell at a terminal: Ctrl-C and Ctrl-Z reach its jobs, and it is root as in RUN.
#[test]
fn interactive_shells_with_root_emulation() {
    use std::io::Write;
    if needs("script").is_none() || needs("bash").is_none() {
        return;
    }
    let rig = Rig::new();
    rig.ok(["import", "host:bash,touch,chown,stat,sleep,id", "shell"]);
    let inside = rig.command(["run", "--write", "--root-emulation", "shell", "--", "bash", "--norc", "-i"]);
    let line = std::iter::once(inside.get_program()).chain(inside.get_args()).map(|word| word.to_str().unwrap()).collect::<Vec<_>>();
    let mut script = Command::new("script");
    script.args(["--quiet", "--return", "--command", &line.join(" "), "/dev/null"]);
    let mut child = script.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
    let mut keys = child.stdin.take().unwrap();
    for typed in [
        &b"touch f; chown 33:44 f; stat -c owner=%u:%g f\n"[..],
        b"sleep 1000\n",
        b"\x03",
        b"echo interrupted=$?\n",
        b"sleep 1000\n",
        b"\x1a",
        b"echo stopped=$?; kill %1; wait; echo me=$(id -u)\n",
        b"exit 3\n",
    ] {
        // What is typed before the shell reads is typed to the command before.
        std::thread::sleep(Duration::from_millis(400));
        keys.write_all(typed).unwrap();
    }
    let ran = Ran::of(child.wait_with_output().unwrap(), "script".into());
    for expected in ["owner=33:44", "interrupted=130", "stopped=148", "me=0"] {
        assert!(ran.stdout.contains(expected), "{expected}: {ran}");
    }
    assert_eq!(ran.code, Some(3), "{ran}");
}
