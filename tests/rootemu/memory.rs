//! The calls that a step makes all the time cost the supervisor no allocation.

use std::alloc::{GlobalAlloc, Layout, System};
use std::sync::atomic::{AtomicU64, Ordering};

use rootling::sandbox::{Stdio, Stream, spawn};

use super::{Fixture, compile, consistent, spec};

/// How often memory was asked for by this process: in a sandbox, by the supervisor and the little that runs beside it.
pub static ALLOCATIONS: AtomicU64 = AtomicU64::new(0);

#[global_allocator]
static COUNTING: Counting = Counting;

struct Counting;

// SAFETY: all is done by the system's allocator.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        ALLOCATIONS.fetch_add(1, Ordering::Relaxed);
        // SAFETY: the caller promises what the system's allocator wants.
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, memory: *mut u8, layout: Layout) {
        // SAFETY: it came from there.
        unsafe { System.dealloc(memory, layout) }
    }
}

/// Arguments of the program `calls_often`, and how many allocations each repetition may cost.
const CALLS: [(&str, u64); 17] = [
    ("stat", 0),
    ("stat_plain", 0),
    ("lstat_link", 0),
    ("fstat", 0),
    ("statx", 0),
    ("relative", 0),
    ("chown", 0),
    ("fchown", 0),
    ("chmod", 0),
    ("open", 0),
    ("mkdir", 0),
    ("getuid", 0),
    ("getresuid", 0),
    ("getgroups", 0),
    ("getxattr", 0),
    ("capget", 0),
    // A process has an entry of its own, other credentials another copy of them.
    ("fork", 8),
];

pub fn allocations(fixture: &Fixture) {
    let Some(()) = compile(fixture, "calls_often", include_str!("calls_often.c"), &[]) else { return };
    let mut wrong = Vec::new();
    for (name, allowed) in CALLS {
        const MORE: u64 = 500;
        let [few, many] = [100, 100 + MORE].map(|times| count(fixture, name, times));
        let each = many.saturating_sub(few) as f64 / MORE as f64;
        if each > allowed as f64 + 0.1 {
            wrong.push(format!("{name}: {each}"));
        }
    }
    assert!(wrong.is_empty(), "allocations a call: {wrong:#?}");
}

fn count(fixture: &Fixture, name: &str, times: u64) -> u64 {
    let spec = spec(fixture.overlay("upper", &[]), consistent(), &format!("exec calls_often {name} {times}"));
    let running = spawn(&spec, Stdio { stdin: Stream::Null, stdout: Stream::Inherit, stderr: Stream::Inherit }).unwrap();
    let status = running.wait().unwrap();
    assert!(status.exit.success(), "{name}: {:?}", status.exit);
    status.emulation.unwrap()["allocations"].as_u64().unwrap()
}
