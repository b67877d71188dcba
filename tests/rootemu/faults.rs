//! Callers and supervisors that fail in every way there is. None may hang or end a step, and none may be taken for another.

use rootling::sandbox::Capabilities;

use super::{Fixture, compile, consistent, run, spec};

/// Checks of `faults.c`, each in a step of its own, and how often each repeats what it does.
const CALLERS: &[(&str, u32)] = &[
    ("short_processes", 10_000),
    ("killed_callers", 300),
    ("reused_numbers", 300),
    ("stopped_callers", 500),
    ("signalled_callers", 3000),
    ("preempted_callers", 3000),
    ("interrupted_callers", 100_000),
    ("traced_callers", 300),
    ("shared_memory", 50),
    ("threads", 500),
    ("shared_directories", 1),
    ("descriptors", 1),
    ("pointers", 1),
    ("magic_names", 1),
    ("scarcity", 1),
    ("closed_doors", 1),
    ("orphans", 50),
    ("own_files", 20),
];

pub fn callers(fixture: &Fixture) {
    let Some(()) = compile(fixture, "faults", include_str!("faults.c"), &["-pthread"]) else { return };
    for (name, times) in CALLERS {
        if std::env::var_os("ONLY").is_some_and(|only| only != *name) { continue; }
        let began = std::time::Instant::now();
        let mut spec = spec(fixture.overlay("upper", &[]), consistent(), &format!("exec faults {name} {times}"));
        // For a process number of one's own choice.
        spec.capabilities = Capabilities::ALL;
        spec.mounts.push(fuse());
        let done = run(&spec).unwrap();
        println!("{name} {:?} {:?} {}", began.elapsed(), done.exit, done.out);
    }
}

/// The device for file systems of the step's own.
fn fuse() -> Mount {
    Mount {
        target: ImagePath::clean("dev/fuse"),
        kind: MountKind::Bind { source: "/dev/fuse".into(), access: Access::Writable },
    }
}
