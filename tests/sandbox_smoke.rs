//! Sandboxes end to end, on a root file system made of the machine's own static busybox.
//!
//! A program of its own, since a sandbox is the calling program started again. As root it runs everything a second time as an
//! ordinary user without subuid (`tester`), who is who it is all for.

use std::io::Read;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use rootling::oci::ImagePath;
use rootling::sandbox::*;

fn main() -> ExitCode {
    if let Some(code) = reenter(&()) {
        return ExitCode::from(u8::try_from(code).unwrap_or(1));
    }
    let args: Vec<String> = std::env::args().skip(1).collect();
    if let [mode, root, command @ ..] = &*args {
        if mode == "dir" || mode == "bench" {
            return manual(mode, root, command);
        }
    }
    ExitCode::SUCCESS
}

fn spec(root: Root, argv: &[String]) -> Spec {
    Spec {
        root,
        id_map: IdMap::ROOT,
        mounts: vec![],
        process: Process {
            argv: argv.iter().map(Into::into).collect(),
            env: vec!["PATH=/usr/bin:/bin".into()],
            cwd: ImagePath::root(),
            umask: Some(0o22),
        },
        hostname: Some("rootling".into()),
        network: Network::Host,
        pid: Namespace::Private,
        ipc: Namespace::Private,
        devices: Devices::Minimal,
        capabilities: Capabilities::docker(),
        privileges: Privileges::Raisable,
        emulation: None,
    }
}

fn manual(mode: &str, root: &str, command: &[String]) -> ExitCode {
    let spec = spec(Root::Directory { path: root.into(), access: Access::ReadOnly }, command);
    let io = || Stdio { stdin: Stream::Inherit, stdout: Stream::Inherit, stderr: Stream::Inherit };
    if mode == "bench" {
        let mut times: Vec<f64> = (0..200)
            .map(|_| {
                let start = std::time::Instant::now();
                spawn(&spec, io()).unwrap().wait().unwrap();
                start.elapsed().as_secs_f64() * 1e3
            })
            .collect();
        times.sort_by(f64::total_cmp);
        println!("min {:.2} median {:.2} p90 {:.2} ms", times[0], times[100], times[180]);
        return ExitCode::SUCCESS;
    }
    match spawn(&spec, io()).and_then(Running::wait_forwarding_signals) {
        Ok(status) => {
            eprintln!("{status:?}");
            ExitCode::from(u8::try_from(status.exit.shell_code()).unwrap_or(1))
        }
        Err(error) => {
            eprintln!("{error:?}");
            ExitCode::from(125)
        }
    }
}
