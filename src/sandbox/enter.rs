//! The sandbox process: takes the request, carries it out, reports.

use std::fs::File;
use std::io::{Read, Write};
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::fs::FileExt;

use rustix::fs::Mode;
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

use super::emulator::Emulator;
use super::spec::{Namespace, Network, Spec};
use super::wire::{CONTROL_FD, Failure, HELD_FD, Processes, REQUEST_FD, Report, Request, Run};
use super::{command, init, mounts, probe};
use crate::error::{Error, IoContext, Result};
use crate::sys::{network, process};

/// Argument zero of a sandbox process.
pub(super) const NAME: &std::ffi::CStr = c"rootling-sandbox";

/// Does the sandbox's work if this process is one ([`super::spawn`] started it), and returns its exit code.
///
/// Must be the first thing in `main`: no thread may run and no descriptor be open that was not inherited.
pub fn reenter(emulator: &dyn Emulator) -> Option<i32> {
    if std::env::args_os().next()?.as_encoded_bytes() != NAME.to_bytes() {
        return None;
    }
    let (Some(request), Some(control)) = (process::inherited(REQUEST_FD), process::inherited(CONTROL_FD)) else {
        // Somebody called us by that name.
        return Some(125);
    };
    process::close_on_exec_from_3();
    let control = File::from(control);
    let report = match serve(File::from(request), &control, emulator) {
        Ok(Some(report)) => report,
        Ok(None) => return Some(0),
        Err(error) => Report::Failed(Failure::from(&error)),
    };
    Some(if send(&control, &report) { 0 } else { 125 })
}

/// Does the sandbox's work in a child that was forked and has entered its namespaces; returns its exit code.
pub(super) fn continue_in_child(run: Run<'_>, control: OwnedFd) -> i32 {
    process::close_on_exec_from_3();
    let control = File::from(control);
    let report = run_command(run, &control, &()).unwrap_or_else(|error| Report::Failed(Failure::from(&error)));
    if send(&control, &report) { 0 } else { 125 }
}

/// Says why the namespaces could not be entered; returns the exit code.
pub(super) fn refuse(error: &Error, control: OwnedFd) -> i32 {
    send(&File::from(control), &Report::Failed(Failure::from(error)));
    125
}

/// Sends the report; the caller may be gone.
fn send(mut control: &File, report: &Report) -> bool {
    serde_json::to_vec(report).is_ok_and(|bytes| control.write_all(&bytes).is_ok())
}

fn serve(mut request: File, control: &File, emulator: &dyn Emulator) -> Result<Option<Report>> {
    let mut text = Vec::new();
    // The offset is shared with the writer, who left it at the end.
    let length = request.metadata().map(|stat| stat.len()).unwrap_or(0);
    text.resize(usize::try_from(length).unwrap_or(0), 0);
    let read = request.read_exact_at(&mut text, 0).or_else(|_| request.read_to_end(&mut text).map(drop));
    read.map_err(|e| Error::os("can't read the sandbox's request", e))?;
    drop(request);
    match serde_json::from_slice(&text).map_err(|e| Error::new("can't understand the sandbox's request").cause(e))? {
        Request::Run(run) => run_command(*run, control, emulator).map(Some),
        Request::Probe(dir) => Ok(Some(Report::Probed(probe::inside(&dir)))),
    }
}

fn run_command(mut run: Run<'_>, control: &File, emulator: &dyn Emulator) -> Result<Report> {
    let mut notices = std::mem::take(&mut run.notices);
    let callers = Inherited::replace(&run.spec);
    if run.spec.network == Network::None {
        network::raise_loopback().map_err(|e| Error::os("can't start the loopback device", e))?;
    }
    if let Some(name) = &run.spec.hostname {
        rustix::system::sethostname(name.as_bytes()).map_err(|errno| Error::os("can't set the host name", errno))?;
    }
    // Until the end of this process, which is that of everything inside.
    let held: Vec<OwnedFd> = (HELD_FD..).take(run.held).filter_map(process::inherited).collect();
    let built = mounts::set_up(&run, &held, &mut notices)?;
    if run.processes == Processes::Loose && built.stubs.is_empty() {
        // Nothing is left to do for us afterwards, so we become the command; it ends with its caller nevertheless.
        let _ = rustix::process::set_parent_process_death_signal(Some(rustix::process::Signal::KILL));
        let failed = command::become_command(&run.spec, &callers, None);
        return Ok(failed.into_report(notices));
    }
    let control: OwnedFd = control.as_fd().try_clone_to_owned().map_err(|e| Error::os("can't copy a descriptor", e))?;
    init::Init::new(&run, built, callers, emulator, control).run(notices)
}

/// Properties of the caller's process that ours must not have, and that the command gets back.
pub(super) struct Inherited {
    descriptors: Rlimit,
    umask: Mode,
}

impl Inherited {
    /// Replaces them: modes are to come out as written, and hundreds of layers are hundreds of descriptors.
    fn replace(spec: &Spec) -> Self {
        let descriptors = getrlimit(Resource::Nofile);
        if spec.root.layers() > 200 {
            let _ = setrlimit(Resource::Nofile, Rlimit { current: descriptors.maximum, maximum: descriptors.maximum });
        }
        Self { descriptors, umask: rustix::process::umask(Mode::empty()) }
    }

    /// Puts them back, or what the command wants instead.
    pub fn restore(&self, umask: Option<u32>) {
        rustix::process::umask(umask.map_or(self.umask, |mask| Mode::from_raw_mode(mask & 0o777)));
        let _ = setrlimit(Resource::Nofile, self.descriptors);
    }
}

/// How a command's processes are to be kept together, going by what was asked for.
pub(super) fn processes(spec: &Spec) -> Processes {
    match (spec.pid, &spec.emulation) {
        (Namespace::Private, _) => Processes::Namespace,
        (Namespace::Host, Some(_)) => Processes::Adopted,
        (Namespace::Host, None) => Processes::Loose,
    }
}

/// Makes an empty memory file and writes the request to it.
pub(super) fn write_request(request: &Request<'_>) -> Result<OwnedFd> {
    let path = std::path::Path::new("memfd");
    let fd = rustix::fs::memfd_create("request", rustix::fs::MemfdFlags::CLOEXEC).doing("create", path)?;
    let bytes = serde_json::to_vec(request).map_err(|e| Error::new("can't describe the command").cause(e))?;
    let mut file = File::from(fd);
    file.write_all(&bytes).doing("write", path)?;
    Ok(file.into())
}
