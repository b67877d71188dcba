//! What only root can do to files, done in one RUN and looked for in every place an image goes to.
//!
//! `tests/round-trip` holds what is done, how it is listed, and what real root's listing is. `tests/long/round-trip` does the same where only
//! root can start it: real root itself, and podman as a user with subuids.

use std::fs;
use std::path::PathBuf;
use std::process::Command;

use crate::registry::Registry;
use crate::rig::{Rig, assert_ordinary_user, needs};

/// Programs of this machine that the deeds and the listing are made of.
const BASE: &str =
    "host:sh,cat,chmod,chown,cp,echo,find,getfacl,getfattr,grep,ln,mkdir,mkfifo,mknod,readlink,sed,setcap,setfacl,setfattr,sort,stat";

fn file(name: &str) -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("tests/round-trip").join(name)
}

/// A rig with an image `made` in which the deeds were done, or `None` after a skip.
fn rig_with(deeds: &str, dockerfile: &str) -> Option<(Rig, String)> {
    assert_ordinary_user();
    for program in ["setcap", "setfattr", "setfacl"] {
        needs(program)?;
    }
    let rig = Rig::new();
    rig.ok(["import", BASE, "base"]);
    for name in [deeds, "list"] {
        rig.write(&format!("context/{name}"), fs::read(file(name)).unwrap());
    }
    rig.build("made", dockerfile);
    Some((rig, fs::read_to_string(file(&format!("{deeds}.expected"))).unwrap()))
}

/// Lists in a container; the first differences, if there are any.
#[track_caller]
fn same(place: &str, listed: &str, expected: &str) {
    let lines = |text: &str, other: &str, sign: &str| {
        let missing = text.lines().filter(|line| !other.lines().any(|l| l == *line));
        missing.take(20).map(|line| format!("{sign} {line}\n")).collect::<String>()
    };
    assert!(
        listed == expected,
        "{place} shows other files (- expected, + seen):\n{}{}",
        lines(expected, listed, "-"),
        lines(listed, expected, "+")
    );
}

const LIST: [&str; 4] = ["--", "sh", "/list", "/data"];

fn listed(rig: &Rig, image: &str) -> String {
    rig.ok([&["run", "--root-emulation", image][..], &LIST].concat())
}

#[test]
fn deeds_of_root_are_seen_by_every_step_and_in_every_place() {
    let dockerfile = "FROM base AS done\n\
        COPY deeds list /\n\
        RUN sh /deeds /data && sh /list /data >/same-step\n\
        RUN sh /list /data >/next-step\n\
        FROM base AS copied\n\
        COPY --from=done /list /\n\
        COPY --from=done /data /data\n\
        RUN sh /list /data >/copied\n\
        FROM done\n\
        COPY --from=copied /copied /\n";
    let Some((rig, expected)) = rig_with("deeds", dockerfile) else { return };
    for step in ["same-step", "next-step"] {
        same(step, &rig.sh("made", &format!("cat /{step}")), &expected);
    }
    // COPY keeps hard links of files, as BuildKit does, and not those of anything else.
    let apart = expected.lines().map(|line| {
        let links = if line.starts_with("fifo") || line.starts_with("soft") { "links=1" } else { "links=2" };
        line.replace("links=2", links) + "\n"
    });
    same("COPY --from", &rig.sh("made", "cat /copied"), &apart.collect::<String>());
    same("run", &listed(&rig, "made"), &expected);

    rig.ok(["export", "made", "-o", "made.tar"]);
    tar_holds(&rig);
    rig.ok(["import", "made.tar", "imported"]);
    same("an imported archive", &listed(&rig, "imported"), &expected);

    for place in ["oci-archive:made.oci", "docker-archive:made.docker", "oci:made.layout"] {
        rig.ok(["push", "made", place]);
        let other = Rig::with_base();
        let (kind, name) = place.split_once(':').unwrap();
        other.build("again", &format!("FROM {kind}:{}\n", rig.path(name).display()));
        same(place, &listed(&other, "again"), &expected);
    }

    let (Some(()), Some(())) = (needs("docker-registry"), needs("skopeo")) else { return };
    let registry = Registry::start();
    let target = format!("{}/made:1", registry.address);
    rig.ok(["push", "made", &target]);
    let other = Rig::new();
    other.ok(["pull", &target]);
    same("a registry", &listed(&other, &target), &expected);
    // Layers come back as they left: the configuration names them by what they are uncompressed.
    let inspect = |rig: &Rig, image: &str| rig.ok(["inspect", image, "--format", "config"]);
    assert_eq!(inspect(&other, &target), inspect(&rig, "made"));
}

/// The exported archive, read by GNU tar and by its bytes.
fn tar_holds(rig: &Rig) {
    let out = Command::new("tar").args(["--numeric-owner", "-tvf"]).arg(rig.path("made.tar")).output().unwrap();
    let listing = String::from_utf8(out.stdout).unwrap();
    for (start, owner, end) in [
        ("-rw-r-----", "33/44", "data/file"),
        ("drwxrwsr-x", "1000/2000", "data/dir/"),
        ("d---------", "5/6", "data/closed/"),
        ("lrwxrwxrwx", "7/8", "data/soft -> file"),
        ("prw--w----", "9/10", "data/fifo"),
        ("-rwsr-xr-x", "11/12", "data/setuid"),
        ("-rws--s--x", "11/0", "data/both"),
        ("----------", "11/12", "data/none"),
        ("crw-rw-rw-", "15/16", "data/char"),
        ("brw-rw----", "0/6", "data/block"),
    ] {
        let found = |line: &&str| line.starts_with(start) && line.split_whitespace().nth(1) == Some(owner) && line.ends_with(end);
        assert!(listing.lines().any(|line| found(&line)), "no {start} {owner} {end} in\n{listing}");
    }
    assert!(listing.lines().any(|line| line.contains("8,17") && line.contains("data/block")), "{listing}");
    assert!(listing.contains("data/hard link to") && listing.contains("data/fifo-hard link to"), "{listing}");
    let bytes = fs::read(rig.path("made.tar")).unwrap();
    for record in [
        "SCHILY.xattr.user.note=kept",
        "SCHILY.xattr.trusted.note=kept",
        "SCHILY.xattr.security.note=kept",
        "SCHILY.xattr.security.capability=",
    ] {
        assert!(bytes.windows(record.len()).any(|window| window == record.as_bytes()), "no {record}");
    }
}

#[test]
fn lists_that_name_users_are_seen_by_every_step_and_in_every_place() {
    let dockerfile = "FROM base\n\
        COPY lists list /\n\
        RUN mkdir /data && sh /lists /data && sh /list /data >/same-step\n\
        RUN sh /list /data >/next-step\n";
    let Some((rig, expected)) = rig_with("lists", dockerfile) else { return };
    for step in ["same-step", "next-step"] {
        same(step, &rig.sh("made", &format!("cat /{step}")), &expected);
    }
    rig.build("copied", "FROM base\nCOPY --from=made /list /\nCOPY --from=made /data /data\n");
    same("COPY --from", &listed(&rig, "copied"), &expected);
    rig.ok(["export", "made", "-o", "made.tar"]);
    rig.ok(["import", "made.tar", "imported"]);
    same("an imported archive", &listed(&rig, "imported"), &expected);
}
