//! Places that a program of this machine keeps: Docker's engine, iSulad, and podman.

use std::io::{BufWriter, Write};
use std::path::Path;
use std::process::{Command, Stdio};

use super::{Named, docker_archive, no_program};
use crate::error::{Error, Result, from_io, quote};
use crate::oci::Reference;
use crate::registry::Engine;
use crate::transfer::bundle::Bundle;
use crate::transfer::pipe::pipe;

/// Hands an image to Docker's engine, packing while it is being sent.
pub(super) fn docker(images: &[Named<'_, '_>], socket: &Path, seen: &(dyn Fn(u64) + Sync)) -> Result<()> {
    if images.iter().any(|image| image.names.is_empty()) {
        return Err(Error::input("the image has no name for Docker's engine").hint("name it: `--tag NAME`"));
    }
    let (mut writer, reader) = pipe();
    std::thread::scope(|scope| {
        let packing = scope.spawn(move || {
            docker_archive::write(images, &mut writer)?;
            writer.finish().map_err(|e| from_io(|| "can't write the archive".into(), e))
        });
        let loaded = Engine::at(socket).load(Box::new(reader), &|done| {
            seen(done);
            Ok(())
        });
        let packed = packing.join().unwrap_or_else(|_| Err(Error::new("packing panicked")));
        // Who stops reading breaks the pipe, and who stops writing gives the other an end too early: the cause is not the broken pipe.
        match (loaded, packed) {
            (Err(error), Err(own)) => Err(if own.kind() == crate::error::Kind::Interrupted { error } else { own }),
            (Err(error), Ok(())) | (Ok(()), Err(error)) => Err(error),
            (Ok(()), Ok(())) => Ok(()),
        }
    })
}

/// Hands an image to iSulad, whose `load` reads a file.
pub(super) fn isula(bundle: &Bundle<'_>, name: &Reference) -> Result<()> {
    let what = || format!("can't load {} into iSulad", quote(name.familiar()));
    let mut blob = bundle.store().blob_writer()?;
    docker_archive::write(&[Named { bundle, names: std::slice::from_ref(name) }], &mut blob)?;
    let (digest, _) = blob.finish()?;
    let path = bundle.store().blob_path(&digest);
    let ran = Command::new("isula").arg("load").arg("-i").arg(&path).stdin(Stdio::null()).output();
    let removed = bundle.store().discard_blob(&digest);
    let output = match ran {
        Err(e) if e.kind() == std::io::ErrorKind::NotFound => {
            return Err(no_program(&what(), "isula", "install iSulad, or write an archive: `docker-archive:FILE`"));
        }
        ran => ran.map_err(|e| Error::os(what(), e))?,
    };
    match output.status.success() {
        true => removed,
        false => Err(Error::new(what()).cause(said(&output.stderr))),
    }
}

/// Hands an image to podman, packing while it reads.
pub(super) fn podman(bundle: &Bundle<'_>, name: &Reference) -> Result<()> {
    let what = || format!("can't load {} into podman's storage", quote(name.familiar()));
    let child = Command::new("podman").args(["load", "--quiet"]).stdin(Stdio::piped()).stdout(Stdio::null()).stderr(Stdio::piped()).spawn();
    let mut child = match child {
        Err(e) if e.kind() == std::io::ErrorKind::NotFound => {
            return Err(no_program(&what(), "podman", "install podman, or write an archive: `docker-archive:FILE`"));
        }
        child => child.map_err(|e| Error::os(what(), e))?,
    };
    let packed = child.stdin.take().map_or(Ok(()), |stdin| {
        let mut out = BufWriter::with_capacity(256 << 10, stdin);
        docker_archive::write(&[Named { bundle, names: std::slice::from_ref(name) }], &mut out)?;
        out.flush().map_err(|e| from_io(what, e))
    });
    let output = child.wait_with_output().map_err(|e| Error::os(what(), e))?;
    // Who stops reading has a reason, which is better than the broken pipe.
    if output.status.success() { packed } else { Err(Error::new(what()).cause(said(&output.stderr))) }
}

/// The last line a program printed, as the likeliest cause.
pub(in crate::transfer) fn said(stderr: &[u8]) -> String {
    let text = String::from_utf8_lossy(stderr);
    text.lines().rev().find(|line| !line.trim().is_empty()).unwrap_or("it gave no reason").trim().to_owned()
}
