//! What scripts read: `--format json` is JSON on every listing, and names stay.

use std::fs;

use serde_json::Value;

use crate::rig::Rig;

#[test]
fn every_listing_speaks_json() {
    let rig = Rig::with_base();
    rig.build("listed", "FROM base\nLABEL a=b\nRUN echo x >/x\n");
    for line in ["images", "inspect listed", "history listed", "info", "version"] {
        let out = rig.ok(line.split(' ').chain(["--format", "json"]));
        let parsed: Result<Value, _> = serde_json::from_str(&out);
        assert!(parsed.is_ok(), "`{line}` is not JSON: {out}");
    }
}

#[test]
fn names_come_and_go() {
    let rig = Rig::with_base();
    rig.ok(["tag", "base", "example.org/other:1"]);
    assert!(rig.ok(["images"]).contains("example.org/other"));
    rig.ok(["rm", "base"]);
    assert_eq!(rig.sh("example.org/other:1", "echo works"), "works\n");
    rig.fails(["run", "base", "--", "true"]);
    assert!(rig.fails(["rm", "no-such-image"]).contains("no-such-image"));
}

#[test]
fn archives_are_known_by_content() {
    let rig = Rig::with_base();
    rig.ok(["export", "base", "-o", "plain.tar"]);
    let check = |option: &str, magic: &[u8]| {
        let file = format!("misnamed-{option}.bin");
        rig.ok(["export", "base", "-o", &file, "--compression", option]);
        assert!(fs::read(rig.path(&file)).unwrap().starts_with(magic), "{option}");
        let image = format!("back-{option}");
        rig.ok(["import", &file, &image]);
        rig.ok(["export", &image, "-o", "back.tar"]);
        assert!(
            fs::read(rig.path("plain.tar")).unwrap() == fs::read(rig.path("back.tar")).unwrap(),
            "{option}: a round trip changed something"
        );
    };
    check("gzip", b"\x1f\x8b");
    check("zstd", b"\x28\xb5\x2f\xfd");
    check("xz", b"\xfd7zXZ");
    check("none", b"");
}

#[test]
fn the_command_line_explains_itself() {
    let rig = Rig::new();
    assert!(rig.ok(["--help"]).contains("build"));
    assert!(rig.ok(["completion", "bash"]).contains("rootling"));
    assert_eq!(rig.ok(["storage-path"]).trim_end(), rig.storage().display().to_string());
    assert!(rig.ok(["info"]).contains("user namespace"));
    assert_eq!(rig.run(["biuld"]).code, Some(2));
}
