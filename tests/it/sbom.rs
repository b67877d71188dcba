//! What is in an image: databases as the real programs write them, compared with what those programs say.

use std::collections::BTreeSet;
use std::fs;
use std::process::Command;

use serde_json::Value;

use crate::rig::{Rig, assert_ordinary_user, fixture, needs};

fn sbom(rig: &Rig, image: &str) -> Value {
    serde_json::from_str(&rig.ok(["sbom", image])).unwrap()
}

/// Name and version of the packages whose URL begins so.
fn packages(document: &Value, kind: &str) -> BTreeSet<(String, String)> {
    let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
    let of_kind = |package: &&Value| text(&package["externalRefs"][0]["referenceLocator"]).starts_with(kind);
    let packages = document["packages"].as_array().unwrap().iter().filter(of_kind);
    packages.map(|package| (text(&package["name"]), text(&package["versionInfo"]))).collect()
}

fn package<'a>(document: &'a Value, name: &str) -> &'a Value {
    document["packages"].as_array().unwrap().iter().find(|package| package["name"] == name).unwrap_or_else(|| panic!("no {name}"))
}

fn pairs(text: &str) -> BTreeSet<(String, String)> {
    text.lines().filter_map(|line| line.split_once(' ')).map(|(name, version)| (name.to_owned(), version.to_owned())).collect()
}

#[test]
fn agrees_with_dpkg() {
    assert_ordinary_user();
    let Some(debian) = fixture("fixtures/debian.tar") else { return };
    let rig = Rig::new();
    rig.ok(["import".as_ref(), debian.as_os_str(), "debian".as_ref()]);
    let document = sbom(&rig, "debian");
    let theirs = rig.sh("debian", "dpkg-query -W -f '${Package} ${Version}\\n'");
    assert_eq!(packages(&document, "pkg:deb/debian/"), pairs(&theirs));
    assert_eq!(document["spdxVersion"], "SPDX-2.3");
    assert!(document["comment"].is_null(), "{}", document["comment"]);
    // Every package is in the image, every identifier there once.
    let ids: Vec<&str> = document["packages"].as_array().unwrap().iter().map(|package| package["SPDXID"].as_str().unwrap()).collect();
    assert_eq!(ids.iter().collect::<BTreeSet<_>>().len(), ids.len());
    let related = document["relationships"].as_array().unwrap().iter();
    let related: BTreeSet<&str> = related.map(|relationship| relationship["relatedSpdxElement"].as_str().unwrap()).collect();
    assert_eq!(related, ids.iter().copied().collect());
    // Removed and installed packages of a later layer count.
    rig.build("less", "FROM debian\nRUN dpkg --purge --force-all tzdata\n");
    let less = packages(&sbom(&rig, "less"), "pkg:deb/");
    assert!(!less.iter().any(|(name, _)| name == "tzdata") && less.len() + 1 == packages(&document, "pkg:deb/").len());
}

/// Python has an SQLite of its own, and writes headers here as rpm does.
const RPM: &str = r#"
import os, shutil, sqlite3, struct, sys
def header(name, version, extra):
    tags = [(1000, 6, name), (1001, 6, version), (1002, 6, "1.fx"), (1004, 9, extra), (1014, 6, "MIT"), (1022, 6, "x86_64")]
    index = store = b""
    for tag, kind, value in tags:
        index += struct.pack(">IIII", tag, kind, len(store), 1)
        store += value.encode() + b"\0"
    return struct.pack(">II", len(tags), len(store)) + index + store
os.makedirs("work"); os.makedirs("tree/var/lib/rpm")
db = sqlite3.connect("work/rpmdb.sqlite", isolation_level=None)
db.execute("PRAGMA page_size=4096")
db.execute("PRAGMA journal_mode=WAL")
db.execute("PRAGMA wal_autocheckpoint=0")
db.execute("CREATE TABLE Other (x)")
db.execute("CREATE TABLE Packages (hnum INTEGER PRIMARY KEY AUTOINCREMENT, blob BLOB NOT NULL)")
for i in range(600):
    db.execute("INSERT INTO Packages (blob) VALUES (?)", (header("fx-%d" % i, "1.%d" % i, "x" * (i * 37 % 20000)),))
    if i == 300: db.execute("PRAGMA wal_checkpoint(FULL)")
db.execute("INSERT INTO Packages (blob) VALUES (?)", (header("gpg-pubkey", "1", ""),))
db.execute("DELETE FROM Packages WHERE hnum = 5")
db.execute("BEGIN"); db.execute("INSERT INTO Packages (blob) VALUES (?)", (header("uncommitted", "1", "y" * 3000000),))
for f in os.listdir("work"): shutil.copy("work/" + f, "tree/var/lib/rpm/" + f)
"#;

#[test]
fn reads_rpm_databases() {
    assert_ordinary_user();
    if needs("python3").is_none() {
        return;
    }
    let rig = Rig::new();
    let out = Command::new("python3").args(["-c", RPM]).current_dir(rig.path("")).output().unwrap();
    assert!(out.status.success(), "{}", String::from_utf8_lossy(&out.stderr));
    rig.write("tree/etc/os-release", "ID=fx\nVERSION_ID=9\n");
    assert!(rig.path("tree/var/lib/rpm/rpmdb.sqlite-wal").metadata().unwrap().len() > 1 << 20, "the log has pages");
    rig.ok(["import", "tree", "fx"]);
    let document = sbom(&rig, "fx");
    let expected: BTreeSet<_> = (0..600).filter(|i| *i != 4).map(|i| (format!("fx-{i}"), format!("1.{i}-1.fx"))).collect();
    assert_eq!(packages(&document, "pkg:rpm/fx/"), expected);
    assert_eq!(package(&document, "fx-1")["externalRefs"][0]["referenceLocator"], "pkg:rpm/fx/fx-1@1.1-1.fx?arch=x86_64&distro=fx-9");

    // Damaged anywhere it is still no more than a remark.
    let whole = fs::read(rig.path("tree/var/lib/rpm/rpmdb.sqlite")).unwrap();
    for (name, bytes) in [("cut", &whole[..whole.len() / 2]), ("none", b"not a database"), ("empty", b"")] {
        fs::write(rig.path("tree/var/lib/rpm/rpmdb.sqlite"), bytes).unwrap();
        fs::write(rig.path("tree/var/lib/rpm/rpmdb.sqlite-wal"), "").unwrap();
        rig.ok(["import", "tree", name]);
        let ran = rig.run(["sbom", name]);
        assert!(ran.code == Some(0) && ran.stderr.contains("/var/lib/rpm/rpmdb.sqlite could not be read"), "{ran}");
        let document: Value = serde_json::from_str(&ran.stdout).unwrap();
        assert!(document["comment"].as_str().unwrap().contains("could not be read"), "{name}");
    }
}

#[test]
fn reads_what_languages_install() {
    assert_ordinary_user();
    let rig = Rig::new();
    rig.write(
        "tree/usr/lib/python3/site-packages/My_Pkg-1.dist-info/METADATA",
        "Metadata-Version: 2.1\nName: My_Pkg\nVersion: 1.0\nLicense: MIT\n",
    );
    rig.write("tree/usr/lib/python3/dist-packages/old.egg-info/PKG-INFO", "Name: old\nVersion: 2.0\n");
    rig.write(
        "tree/app/node_modules/.package-lock.json",
        r#"{"packages":{"node_modules/@s/n":{"version":"3.0.0","integrity":"sha512-AQID"}}}"#,
    );
    rig.write("tree/app/node_modules/@s/n/package.json", r#"{"name":"@s/n","version":"3.0.0","license":"ISC"}"#);
    rig.write("tree/app/node_modules/@s/n/lib/package.json", r#"{"name":"inner","version":"9"}"#);
    rig.write("tree/app/Cargo.lock", "version = 3\n[[package]]\nname = \"locked\"\nversion = \"4.0.0\"\n");
    rig.write("tree/lib/apk/db/installed", "P:musl\nV:1.2-r0\nA:x86_64\nL:MIT\n\n");
    rig.write("tree/var/lib/dpkg/status.d/base", "Package: base-files\nVersion: 12\nArchitecture: amd64\n");
    // Links that lead out of the image, and to themselves.
    fs::create_dir_all(rig.path("tree/usr/lib/rpm-odd")).unwrap();
    fs::create_dir_all(rig.path("tree/var/lib/rpm")).unwrap();
    std::os::unix::fs::symlink("/../../../../etc/passwd", rig.path("tree/var/lib/rpm/Packages")).unwrap();
    std::os::unix::fs::symlink("loop", rig.path("tree/etc-os-release")).unwrap();
    if needs("objcopy").is_some() {
        rig.write("deps.json", r#"{"packages":[{"name":"audited","version":"5.0.0","source":"crates.io"}]}"#);
        let script = "python3 -c 'import zlib; open(\"deps\", \"wb\").write(zlib.compress(open(\"deps.json\", \"rb\").read()))' && \
                      mkdir -p tree/bin && objcopy --add-section .dep-v0=deps /bin/true tree/bin/program";
        let out = Command::new("sh").args(["-c", script]).current_dir(rig.path("")).output().unwrap();
        assert!(out.status.success(), "{out:?}");
    }
    rig.ok(["import", "tree", "app"]);
    let document = sbom(&rig, "app");
    for (kind, name, version) in [
        ("pkg:pypi/my-pkg@1.0", "my-pkg", "1.0"),
        ("pkg:pypi/old@2.0", "old", "2.0"),
        ("pkg:npm/%40s/n@3.0.0", "@s/n", "3.0.0"),
        ("pkg:cargo/locked@4.0.0", "locked", "4.0.0"),
        ("pkg:cargo/audited@5.0.0", "audited", "5.0.0"),
        ("pkg:apk/musl@1.2-r0", "musl", "1.2-r0"),
        ("pkg:deb/base-files@12", "base-files", "12"),
    ] {
        assert_eq!(packages(&document, kind), BTreeSet::from([(name.to_owned(), version.to_owned())]), "{kind}");
    }
    assert_eq!(packages(&document, "pkg:npm/").len(), 1);
    assert_eq!(package(&document, "@s/n")["checksums"][0]["checksumValue"], "010203");
    assert_eq!(package(&document, "musl")["licenseDeclared"], "MIT");
}

#[test]
fn is_the_same_for_the_same_image() {
    let rig = Rig::with_base();
    let first = rig.ok(["sbom", "base"]);
    assert_eq!(rig.ok(["sbom", "base"]), first);
    rig.ok(["sbom", "base", "-o", "base.spdx.json"]);
    assert_eq!(fs::read_to_string(rig.path("base.spdx.json")).unwrap(), first);
    let mut command = rig.command(["sbom", "base"]);
    let out = command.env("SOURCE_DATE_EPOCH", "86400").output().unwrap();
    let document: Value = serde_json::from_slice(&out.stdout).unwrap();
    assert_eq!(document["creationInfo"]["created"], "1970-01-02T00:00:00Z");
    assert!(rig.fails(["sbom", "--retry", "0", "127.0.0.1:1/nothing"]).contains("hint:"));
}
