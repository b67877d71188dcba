//! Several platforms: programs of another architecture run in a step, one build gives an index, names know their images.

use std::fs;

use serde_json::Value;

use crate::rig::{Rig, assert_ordinary_user, fixture};

/// A rig with `base-<this architecture>` and `base-<the other>`; what the other is called, and what its `uname -m` says.
fn rig() -> Option<(Rig, &'static str, &'static str)> {
    assert_ordinary_user();
    let foreign = fixture("fixtures/foreign.tar")?;
    let (native, other, machine) = match std::env::consts::ARCH {
        "aarch64" => ("arm64", "amd64", "x86_64"),
        _ => ("amd64", "arm64", "aarch64"),
    };
    let rig = Rig::with_base();
    rig.ok(["tag", "base", &format!("base-{native}")]);
    fs::create_dir_all(rig.path("context")).unwrap();
    fs::copy(foreign, rig.path("context/foreign.tar")).unwrap();
    let platform = format!("linux/{other}");
    let file = rig.write("Dockerfile.base", "FROM scratch\nADD foreign.tar /\nCMD [\"sh\"]\n");
    let context = rig.path("context").display().to_string();
    rig.ok(["build", "--platform", &platform, "-t", &format!("base-{other}"), "-f", file.to_str().unwrap(), &context]);
    Some((rig, other, machine))
}

/// Builds for both platforms.
fn build(rig: &Rig, name: &str, dockerfile: &str) -> crate::rig::Ran {
    let file = rig.write(&format!("Dockerfile.{name}"), dockerfile);
    let context = rig.path("context").display().to_string();
    rig.run(["build", "--progress", "plain", "--platform", "linux/amd64,linux/arm64", "-t", name, "-f", file.to_str().unwrap(), &context])
}

#[test]
fn one_build_gives_an_index() {
    let Some((rig, other, machine)) = rig() else { return };
    let dockerfile = "ARG TARGETARCH\n\
        FROM --platform=$BUILDPLATFORM base-${BUILDARCH} AS tool\n\
        ARG TARGETPLATFORM\n\
        RUN touch /built-here && echo $TARGETPLATFORM >/target\n\
        FROM base-${TARGETARCH}\n\
        COPY --from=tool /target /built-here /\n\
        RUN echo is-$(cat /target) >/seen && touch /f && chown 33:44 /f && stat -c %u:%g /f >/owner\n";
    let ran = build(&rig, "both", dockerfile);
    assert_eq!(ran.code, Some(0), "{ran}");
    let platform = format!("linux/{other}");
    assert_eq!(rig.ok(["run", "--platform", &platform, "both", "--", "cat", "/seen", "/owner"]), format!("is-{platform}\n33:44\n"));
    assert_eq!(rig.ok(["run", "--platform", &platform, "both", "--", "uname", "-m"]), format!("{machine}\n"));
    assert!(rig.ok(["run", "both", "--", "cat", "/seen"]).starts_with("is-linux/"), "a name alone runs here");
    let inspected = |platform: &str| -> Value { serde_json::from_str(&rig.ok(["inspect", "--platform", platform, "both"])).unwrap() };
    let (one, two) = (inspected("linux/amd64"), inspected("linux/arm64"));
    assert_eq!((&one[0]["architecture"], &two[0]["architecture"]), (&"amd64".into(), &"arm64".into()));
    assert_ne!(one[0]["digest"], two[0]["digest"]);
    // Collection keeps the images of both.
    rig.ok(["prune", "--all"]);
    assert_eq!(rig.ok(["run", "--platform", &platform, "both", "--", "cat", "/owner"]), "33:44\n");
    let error = rig.fails(["run", "--platform", "linux/s390x", "both", "--", "true"]);
    assert!(error.contains("has no image for platform `linux/s390x`") && error.contains("linux/arm64"), "{error}");
    let again = build(&rig, "both", dockerfile);
    assert_eq!(again.code, Some(0), "{again}");
    // What a build for several platforms prints names the whole.
    let file = rig.path("Dockerfile.both");
    let context = rig.path("context").display().to_string();
    let id = rig.ok(["build", "-q", "--platform", "linux/amd64,linux/arm64", "-f", file.to_str().unwrap(), &context]);
    assert_eq!(rig.ok(["run", "--platform", &platform, id.trim(), "--", "cat", "/owner"]), "33:44\n");
    let error = rig.fails(["build", "--platform", "linux/amd46", "-f", file.to_str().unwrap(), &context]);
    assert!(error.contains("unknown architecture `amd46`") && error.contains("did you mean `amd64`?"), "{error}");
}

#[test]
fn a_foreign_step_is_root_like_any_other() {
    let Some((rig, other, machine)) = rig() else { return };
    let platform = format!("linux/{other}");
    let dockerfile = format!(
        "FROM base-{other}\n\
         RUN mkdir /d && chmod 2750 /d && chown 7:8 /d && uname -m >/machine\n\
         USER 33\n\
         RUN id -u >/tmp/user; stat -c '%u:%g %a' /d >/tmp/seen\n"
    );
    let file = rig.write("Dockerfile.root", dockerfile);
    let context = rig.path("context").display().to_string();
    rig.ok(["build", "--platform", &platform, "-t", "root", "-f", file.to_str().unwrap(), &context]);
    let text = rig.ok(["run", "root", "--", "cat", "/machine", "/tmp/user", "/tmp/seen"]);
    assert_eq!(text, format!("{machine}\n33\n7:8 2750\n"));
}

#[test]
fn what_can_not_run_is_explained() {
    assert_ordinary_user();
    let rig = Rig::with_base();
    let error = rig.fails(["build", "--platform", "linux/vax", "-f", "-"]);
    assert!(error.contains("error:"), "{error}");
    let file = rig.write("Dockerfile", "FROM scratch\nCOPY Dockerfile /\nRUN [\"/x\"]\n");
    let directory = file.parent().unwrap().display().to_string();
    let error = rig.fails(["build", "--platform", "linux/vax", &directory]);
    assert!(error.contains("can't run programs for linux/vax on this machine") && error.contains("Dockerfile:3:1"), "{error}");
    assert!(error.contains("no emulator is known for vax"), "{error}");
    // Without a RUN there is nothing to emulate.
    rig.write("Dockerfile", "FROM scratch\nCOPY Dockerfile /\n");
    rig.ok(["build", "--platform", "linux/vax", "-t", "vax", &directory]);
}
