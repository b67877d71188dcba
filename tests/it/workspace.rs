//! The two workspaces, overlay and copying, behind one interface: the same builds give the same images.
//!
//! Which one is used is probed and never configured, so the copying one is tested where overlay is truly refused: on a
//! FUSE file system (bindfs), which the kernel does not take as an upper directory.

use crate::rig::{Rig, assert_ordinary_user, needs};

/// A rig whose storage lies on a file system that refuses overlay mounts.
fn copying() -> Option<Rig> {
    Rig::on_fuse("")
}

const DOCKERFILE: &str = "FROM base\n\
    RUN mkdir -p /d/e && echo 1 >/d/one && echo 2 >/d/e/two && ln /d/one /d/hard && ln -s one /d/soft && chown 33:44 /d/one && chmod 4750 /d/one\n\
    RUN rm /d/e/two && echo again >/d/new && chmod 0 /d/e && mkfifo /d/fifo\n\
    RUN rm -r /d/e && mkdir /d/e && echo new >/d/e/three && mv /d/soft /d/e/soft && chown -h 5:6 /d/e/soft\n\
    COPY f /d/f\n\
    RUN chown 7:8 /d/f && rm /bin/seq\n";

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
    let (one, other) = (overlay.facts("both"), copying.facts("both"));
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
