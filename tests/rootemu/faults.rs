//! Callers and supervisors that fail in every way there is. None may hang or end a step, and none may be taken for another.

use std::os::fd::OwnedFd;
use std::path::Path;
use std::process::Command;
use std::sync::atomic::Ordering;
use std::thread;
use std::time::Duration;

use rootling::error::{Error, Result};
use rootling::oci::ImagePath;
use rootling::rootemu::Emulation;
use rootling::sandbox::{Access, Capabilities, Emulator, Missing, Mount, MountKind, Stdio, Stream, Supervision, spawn};
use serde_json::Value;

use super::memory::ALLOCATIONS;
use super::{Fixture, compile, consistent, run, spec};

/// Checks of `faults.c`, each in a step of its own, and how often each repeats what it does.
const CALLERS: [(&str, u32); 18] = [
    ("short_processes", 10_000),
    ("killed_callers", 200),
    ("reused_numbers", 200),
    ("stopped_callers", 300),
    ("signalled_callers", 1000),
    ("preempted_callers", 3000),
    ("interrupted_callers", 10_000),
    ("traced_callers", 200),
    ("shared_memory", 30),
    ("threads", 300),
    ("shared_directories", 1),
    ("descriptors", 1),
    ("pointers", 1),
    ("magic_names", 1),
    ("scarcity", 1),
    ("closed_doors", 1),
    ("orphans", 30),
    ("own_files", 20),
];

pub fn callers(fixture: &Fixture) {
    let Some(()) = compile(fixture, "faults", include_str!("faults.c"), &["-pthread"]) else { return };
    CALLERS.iter().for_each(|&(name, times)| caller(fixture, name, times, None));
}

/// The same with several threads that answer at once, as on larger machines.
pub fn callers_of_many_threads(fixture: &Fixture) {
    let Some(()) = compile(fixture, "faults", include_str!("faults.c"), &["-pthread"]) else { return };
    for (name, times) in CALLERS {
        caller(fixture, name, times.min(1000), Some(4));
    }
}

fn caller(fixture: &Fixture, name: &str, times: u32, at_once: Option<usize>) {
    let mut emulation = consistent().unwrap();
    emulation.at_once = at_once;
    let mut spec = spec(fixture.overlay("upper", &[]), Some(emulation), &format!("exec faults {name} {times}"));
    // For a process number of one's own choice, and mounts.
    spec.capabilities = Capabilities::ALL;
    if name == "own_files" {
        if !Path::new("/dev/fuse").exists() {
            println!("skipped own_files: there is no /dev/fuse");
            return;
        }
        spec.mounts.push(fuse());
    }
    let done = run(&spec).unwrap();
    assert_eq!(done.out, "ok\n", "{name}: {:?}", done.exit);
}

/// The device for file systems of the step's own.
fn fuse() -> Mount {
    Mount {
        target: ImagePath::clean("dev/fuse"),
        kind: MountKind::Bind { source: "/dev/fuse".into() },
        access: Access::ReadWrite,
        missing: Missing::Create,
    }
}

/// More processes than the supervisor may have descriptors.
pub fn few_descriptors(_: &Fixture) {
    let own = std::env::current_exe().unwrap();
    let status = Command::new("prlimit").arg("--nofile=100:100").arg(own).arg("few_descriptors_now").status();
    assert!(status.unwrap().success());
}

/// What it does with the limit in force.
pub fn few_descriptors_now(fixture: &Fixture) {
    let Some(()) = compile(fixture, "faults", include_str!("faults.c"), &["-pthread"]) else { return };
    for (name, times) in [("short_processes", 500), ("killed_callers", 50), ("reused_numbers", 50), ("threads", 20), ("orphans", 5)] {
        caller(fixture, name, times, None);
    }
}

/// Root emulation whose supervisor ends in the way the specification's member `breaks` says.
pub struct Fragile;

impl Emulator for Fragile {
    fn install(&self, spec: &Value) -> Result<Option<OwnedFd>> {
        Emulation.install(spec)
    }

    fn confirm(&self, spec: &Value) -> Result<()> {
        Emulation.confirm(spec)
    }

    fn supervise(&self, spec: &Value, listener: OwnedFd, context: Supervision) -> Result<Value> {
        const LATER: Duration = Duration::from_millis(200);
        match spec["breaks"].as_str() {
            None => {
                let before = ALLOCATIONS.load(Ordering::Relaxed);
                let mut report = Emulation.supervise(spec, listener, context)?;
                report["allocations"] = (ALLOCATIONS.load(Ordering::Relaxed) - before).into();
                Ok(report)
            }
            Some("at once") => Err(Error::new("broken")),
            Some("crash") => {
                thread::spawn(|| {
                    thread::sleep(LATER);
                    std::process::abort()
                });
                Emulation.supervise(spec, listener, context)
            }
            // Not a word, and calls stay without answer.
            Some("panic") => {
                thread::sleep(LATER);
                panic!("a defect, made for a test")
            }
            Some(other) => Err(Error::new(format!("no such defect: {other}"))),
        }
    }
}

/// Whatever happens to the supervisor, the step ends soon, and with an error that does not blame the command.
pub fn supervisors(fixture: &Fixture) {
    for (defect, expected) in [
        ("at once", "broken"),
        ("panic", "root emulation ended unexpectedly"),
        ("crash", "the sandbox process ended before the command"),
        ("killed", "the sandbox process ended before the command"),
    ] {
        let mut emulation = consistent().unwrap().to_value();
        if defect != "killed" {
            emulation["breaks"] = defect.into();
        }
        let mut spec = spec(fixture.overlay("upper", &[]), None, "while stat /tmp; do usleep 1000; done >/dev/null; sleep 1000");
        spec.emulation = Some(emulation);
        let io = Stdio { stdin: Stream::Null, stdout: Stream::Null, stderr: Stream::Null };
        let running = spawn(&spec, io).unwrap();
        if defect == "killed" {
            thread::sleep(Duration::from_millis(200));
            running.signal(9).unwrap();
        }
        let error = running.wait().map(|status| status.exit).expect_err(defect);
        assert_eq!(error.what(), expected, "{error:#?}");
    }
}

/// 32-bit programs, whose calls have numbers and structures of their own.
pub fn calls_of_i386(fixture: &Fixture) {
    if !cfg!(target_arch = "x86_64") {
        return;
    }
    let options = ["-m32", "-nostdlib", "-ffreestanding", "-fno-pic", "-no-pie", "-fno-stack-protector"];
    let Some(()) = compile(fixture, "i386", include_str!("i386.c"), &options) else { return };
    let done = run(&spec(fixture.overlay("upper", &[]), consistent(), "exec i386")).unwrap();
    if done.out.contains("Exec format error") {
        println!("skipped calls_of_i386: this kernel runs no 32-bit programs");
        return;
    }
    assert_eq!(done.out, "ok\n", "{:?}", done.exit);
}
