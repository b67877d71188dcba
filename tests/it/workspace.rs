//! The two workspaces, overlay and copying, behind one interface: the same builds give the same images.
//!
//! Which one is used is probed and never configured, so the copying one is tested where overlay is truly refused: on a
//! FUSE file system (bindfs), which the kernel does not take as an upper directory.

use std::path::Path;
use std::process::{Command, Stdio};

use crate::rig::{Rig, assert_ordinary_user, needs};

/// A rig whose storage lies on a file system that refuses overlay mounts; the mount lives in a namespace per command.
fn copying() -> Option<Rig> {
    needs("bindfs")?;
    let plain = Rig::new();
    let (behind, storage) = (plain.path("behind"), plain.path("mount"));
    std::fs::create_dir_all(&behind).unwrap();
    std::fs::create_dir_all(&storage).unwrap();
    let enter = format!("bindfs --no-allow-other {} {} && exec \"$@\"", behind.display(), storage.display());
    let wrapper = ["unshare", "--user", "--map-root-user", "--mount", "sh", "-c", &enter, "sh"];
    let works = Command::new(wrapper[0]).args(&wrapper[1..]).arg("true").stderr(Stdio::null()).status().unwrap().success();
    if !works {
        return crate::rig::skip("FUSE can't be mounted here (is /dev/fuse accessible?)");
    }
    // `plain` is leaked on purpose: its scratch directory must outlive the rig that is returned.
    std::mem::forget(plain);
    Some(Rig::at(storage.join("storage"), &wrapper))
}

const DOCKERFILE: &str = "FROM base\n\
    RUN mkdir -p /d/e && echo 1 >/d/one && echo 2 >/d/e/two && ln /d/one /d/hard && ln -s one /d/soft && chown 33:44 /d/one && chmod 4750 /d/one\n\
    RUN rm /d/e/two && echo again >/d/new && chmod 0 /d/e && mkfifo /d/fifo\n\
    RUN rm -r /d/e && mkdir /d/e && echo new >/d/e/three && mv /d/soft /d/e/soft && chown -h 5:6 /d/e/soft\n\
    COPY f /d/f\n\
    RUN chown 7:8 /d/f && rm /bin/seq\n";

/// The facts of an exported image, by the listing that the corpus uses.
fn facts(rig: &Rig) -> String {
    rig.ok(["export", "both", "-o", "both.tar"]);
    let config = rig.write("config.json", rig.ok(["inspect", "both", "--format", "json"]));
    let compare = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/compare/compare");
    let out = Command::new("python3").args([Path::new(compare), Path::new("listing"), &rig.path("both.tar"), &config]).output().unwrap();
    assert!(out.status.success(), "{}", String::from_utf8_lossy(&out.stderr));
    String::from_utf8_lossy(&out.stdout).lines().filter(|l| !l.contains(" time=")).map(|l| format!("{l}\n")).collect()
}

#[test]
fn both_workspaces_build_the_same_image() {
    assert_ordinary_user();
    let (Some(()), Some(copying)) = (needs("python3"), copying()) else { return };
    let overlay = Rig::with_base();
    overlay.ok(["export", "base", "-o", "base.tar"]);
    let base = overlay.path("base.tar");
    copying.ok(["import", base.to_str().unwrap(), "base"]);
    for rig in [&overlay, &copying] {
        rig.write("context/f", "f\n");
        rig.build("both", DOCKERFILE);
    }
    let info = copying.ok(["info"]);
    assert!(info.to_lowercase().contains("cop"), "`info` does not say that the workspace is a copied tree:\n{info}");
    let (one, other) = (facts(&overlay), facts(&copying));
    assert_eq!(one, other);
    assert!(one.contains("\"d/one\" owner=33:44"), "{one}");
}

#[test]
fn the_copying_workspace_keeps_the_promises() {
    let Some(rig) = copying() else { return };
    let plain = Rig::with_base();
    plain.ok(["export", "base", "-o", "base.tar"]);
    rig.ok(["import", plain.path("base.tar").to_str().unwrap(), "base"]);
    rig.build("kept", "FROM base\nRUN touch /f && chown 33:44 /f && stat -c %u:%g /f >/seen\nRUN stat -c %u:%g /f >>/seen\n");
    assert_eq!(rig.sh("kept", "cat /seen"), "33:44\n33:44\n");
    assert_ne!(rig.try_build("bad", "FROM base\nRUN false\n").code, Some(0));
    rig.ok(["rm", "kept"]);
    rig.ok(["prune"]);
}
