//! Signatures and policies, with a real registry, beside openssl.

use std::fs;
use std::path::Path;
use std::process::Command;

use crate::registry::Registry;
use crate::rig::{Ran, Rig, assert_ordinary_user, needs};

/// A registry with `base` in it under a name, and a pair of keys, `me.key` and `me.pub`.
struct Stage {
    rig: Rig,
    registry: Registry,
}

impl Stage {
    fn new() -> Option<Stage> {
        assert_ordinary_user();
        needs("docker-registry").and(needs("openssl")).and(needs("skopeo")).and(needs("curl"))?;
        let stage = Stage { rig: Rig::with_base(), registry: Registry::start() };
        stage.ok(&["key", "generate", "me"]);
        stage.ok(&["key", "generate", "other"]);
        Some(stage)
    }

    fn name(&self, name: &str) -> String {
        format!("{}/{name}", self.registry.address)
    }

    /// The program with the keys' password.
    fn run(&self, arguments: &[&str]) -> Ran {
        let mut command = self.rig.command(arguments);
        command.env("COSIGN_PASSWORD", "secret").env("HOME", self.rig.path("home"));
        let line = format!("{command:?}");
        Ran::of(command.output().unwrap(), line)
    }

    #[track_caller]
    fn ok(&self, arguments: &[&str]) -> String {
        let ran = self.run(arguments);
        assert_eq!(ran.code, Some(0), "{ran}");
        ran.stdout
    }

    /// Runs the program, which must fail with these words.
    #[track_caller]
    fn fails(&self, arguments: &[&str], words: &[&str]) -> String {
        let ran = self.run(arguments);
        assert!(ran.code == Some(1) && words.iter().all(|word| ran.stderr.contains(word)), "{words:?}: {ran}");
        ran.stderr
    }

    fn policy(&self, docker: &str) -> String {
        let accept = r#"[{"type": "insecureAcceptAnything"}]"#;
        let text = format!(r#"{{"default": {accept}, "transports": {{"docker": {{{docker}}}}}}}"#);
        self.rig.write("policy.json", text).display().to_string()
    }
}

fn json(text: &[u8]) -> serde_json::Value {
    serde_json::from_slice(text).unwrap()
}

fn raw(reference: &str) -> Vec<u8> {
    let out = Command::new("skopeo").args(["inspect", "--raw", "--tls-verify=false", &format!("docker://{reference}")]).output().unwrap();
    assert!(out.status.success(), "{reference}: {}", String::from_utf8_lossy(&out.stderr));
    out.stdout
}

#[test]
fn what_is_signed_is_verified() {
    let Some(stage) = Stage::new() else { return };
    let name = stage.name("team/app:1");
    let digest = stage.ok(&["push", "--quiet", "--sign", "me.key", "base", &name]).trim().to_owned();
    stage.ok(&["pull", "--verify", "me.pub", &name]);
    stage.ok(&["pull", "--verify", "me.pub", &format!("{}@{digest}", stage.name("team/app"))]);

    // openssl agrees, on bytes that curl fetched.
    let signatures = json(&raw(&stage.name(&format!("team/app:{}.sig", digest.replace(':', "-")))));
    let layer = &signatures["layers"][0];
    let blob = format!("http://{}/v2/team/app/blobs/{}", stage.registry.address, layer["digest"].as_str().unwrap());
    let payload = Command::new("curl").args(["-s", &blob]).output().unwrap().stdout;
    let parsed = json(&payload);
    assert_eq!(parsed["critical"]["image"]["docker-manifest-digest"], digest);
    assert_eq!(parsed["critical"]["identity"]["docker-reference"], name);
    assert_eq!(parsed["critical"]["type"], "cosign container image signature");
    stage.rig.write("payload", &payload);
    stage.rig.write("signature.b64", layer["annotations"]["dev.cosignproject.cosign/signature"].as_str().unwrap());
    let script = "base64 -d signature.b64 >signature && openssl dgst -sha256 -verify me.pub -signature signature payload";
    let checked = Command::new("sh").args(["-c", script]).current_dir(stage.rig.path("")).output().unwrap();
    assert!(checked.status.success(), "{checked:?}");

    // Twice by the same key is once; another key's is added.
    stage.ok(&["push", "--sign", "me.key", "base", &name]);
    stage.ok(&["push", "--sign", "other.key", "base", &name]);
    let signatures = json(&raw(&stage.name(&format!("team/app:{}.sig", digest.replace(':', "-")))));
    assert_eq!(signatures["layers"].as_array().unwrap().len(), 2);
    stage.ok(&["pull", "--verify", "me.pub", &name]);
    stage.ok(&["pull", "--verify", "other.pub", &name]);
}

#[test]
fn what_is_not_signed_gets_no_name() {
    let Some(stage) = Stage::new() else { return };
    let (plain, signed, moved) = (stage.name("app:plain"), stage.name("app:signed"), stage.name("app:moved"));
    let elsewhere = stage.name("elsewhere:signed");
    stage.ok(&["push", "base", &plain]);
    stage.fails(&["pull", "--verify", "me.pub", &plain], &["no signature of sha256:", "--> me.pub", "hint:"]);
    stage.rig.build("app", "FROM base\nENV A=b\n");
    stage.ok(&["push", "--sign", "me.key", "app", &signed]);
    stage.fails(&["pull", "--verify", "other.pub", &signed], &["by another key"]);
    // The same image under a tag that was not signed, and with its signatures in another repository.
    stage.ok(&["push", "app", &moved]);
    stage.fails(&["pull", "--verify", "me.pub", &moved], &["has signed it as", ":signed`"]);
    let digest = stage.ok(&["push", "--quiet", "app", &moved]).trim().to_owned();
    stage.fails(&["pull", "--verify", "me.pub", &format!("{moved}@{digest}")], &["has signed it as", ":signed`"]);
    stage.ok(&["pull", "--verify", "me.pub", &format!("{signed}@{digest}")]);
    let copied = Command::new("sh")
        .args(["-c", "for tag in $(skopeo list-tags --tls-verify=false docker://$0 | grep -o '\"sha256-[^\"]*\\|\"signed' | tr -d '\"'); do skopeo copy --src-tls-verify=false --dest-tls-verify=false docker://$0:$tag docker://$1:$tag; done"])
        .args([stage.name("app"), stage.name("elsewhere")])
        .output()
        .unwrap();
    assert!(copied.status.success(), "{copied:?}");
    stage.fails(&["pull", "--verify", "me.pub", &elsewhere], &["has signed it as"]);
    // A signature that was tampered with is none; what is not there can't be signed; and nothing got a name.
    for name in [&plain, &moved, &elsewhere] {
        assert!(!stage.ok(&["images", "--format", "json"]).contains(name.as_str()), "{name}");
    }
    stage.fails(&["push", "--sign", "me.pub", "app", &moved], &["public key"]);
    stage.fails(&["push", "--sign", "me.key", "app", "oci:layout"], &["can't sign what goes to"]);
    let mut wrong = stage.rig.command(["push", "--sign", "me.key", "app", &moved]);
    let wrong = wrong.env("COSIGN_PASSWORD", "wrong").output().unwrap();
    assert!(String::from_utf8_lossy(&wrong.stderr).contains("password is wrong"), "{wrong:?}");
    let asked = stage.rig.command(["push", "--sign", "me.key", "app", &moved]).output().unwrap();
    assert!(String::from_utf8_lossy(&asked.stderr).contains("$COSIGN_PASSWORD"), "{asked:?}");
}

#[test]
fn indexes_are_signed_whole() {
    let Some(stage) = Stage::new() else { return };
    let name = stage.name("many:1");
    stage.rig.write("context/Dockerfile", "FROM scratch\nCOPY Dockerfile /\n");
    stage.ok(&["build", "--platform", "linux/amd64,linux/arm64", "-t", "many", "context"]);
    stage.ok(&["push", "--sign", "me.key", "many", &name]);
    stage.ok(&["pull", "--verify", "me.pub", &name]);
    stage.ok(&["pull", "--verify", "me.pub", "--platform", "linux/arm64", &name]);
    let index = json(&raw(&name));
    let member = index["manifests"][1]["digest"].as_str().unwrap();
    stage.ok(&["pull", "--verify", "me.pub", "--platform", "linux/arm64", &format!("{}@{member}", stage.name("many"))]);
}

#[test]
fn policies_hold_for_pull_and_from() {
    let Some(stage) = Stage::new() else { return };
    let (good, plain) = (stage.name("team/good:1"), stage.name("team/plain:1"));
    stage.ok(&["push", "--sign", "me.key", "base", &good]);
    stage.rig.build("app", "FROM base\nENV A=b\n");
    stage.ok(&["push", "app", &plain]);
    let key = stage.rig.path("me.pub").display().to_string();
    let address = &stage.registry.address;
    let policy = stage.policy(&format!(r#""{address}/team": [{{"type": "sigstoreSigned", "keyPath": "{key}"}}]"#));
    stage.ok(&["pull", "--signature-policy", &policy, &good]);
    let words = [policy.as_str(), &format!("scope `{address}/team`"), "me.pub", "no signature of"];
    stage.fails(&["pull", "--signature-policy", &policy, &plain], &words);
    for (name, works) in [(&good, true), (&plain, false)] {
        stage.ok(&["rm", "--force", name]);
        stage.rig.write("context/Dockerfile", format!("FROM {name}\nENV C=d\n"));
        let ran = stage.run(&["build", "--pull", "--signature-policy", &policy, "context"]);
        assert_eq!(ran.code == Some(0), works, "{ran}");
        assert_eq!(ran.stderr.contains("not signed as it must be"), !works, "{ran}");
    }
    // The user's own policy counts without an option.
    fs::create_dir_all(stage.rig.path("home/.config/containers")).unwrap();
    let user = stage.rig.path("home/.config/containers/policy.json");
    for (rule, words) in [
        (r#"{"type": "reject"}"#, &["the policy refuses", "`reject`", "--signature-policy"][..]),
        (r#"{"type": "signedBy", "keyType": "GPGKeys", "keyPath": "/k"}"#, &["`signedBy`", "GPG", "can't be checked"]),
        (r#"{"type": "sigstoreSigned", "keyPath": "/nowhere.pub"}"#, &["/nowhere.pub", "ENOENT"]),
        (r#"{"type": "sigstoreSigned"}"#, &["the policy is invalid", "exactly one"]),
        (r#"{"type": "insecureAcceptEverything"}"#, &["the policy is invalid", "insecureAcceptEverything"]),
    ] {
        fs::copy(stage.policy(&format!(r#""{address}": [{rule}]"#)), &user).unwrap();
        stage.fails(&["pull", &good], words);
    }
    fs::copy(stage.policy(&format!(r#""{address}": [{{"type": "insecureAcceptAnything"}}]"#)), &user).unwrap();
    stage.ok(&["pull", &good]);
}

/// Debian's skopeo and podman have this switched off, and cosign is not packaged: its bytes are made here by openssl and sent by curl.
#[test]
fn what_cosign_signs_is_verified() {
    let Some(stage) = Stage::new() else { return };
    let (name, repository) = (stage.name("team/app:1"), stage.name("team/app"));
    let digest = stage.ok(&["push", "--quiet", "base", &name]).trim().to_owned();
    // cosign names the repository alone.
    stage.rig.write(
        "payload",
        format!(
            r#"{{"critical":{{"identity":{{"docker-reference":"{repository}"}},"image":{{"docker-manifest-digest":"{digest}"}},"type":"cosign container image signature"}},"optional":null}}"#
        ),
    );
    let script = r#"set -e
        openssl genpkey -algorithm EC -pkeyopt ec_paramgen_curve:P-256 -out its.key
        openssl pkey -in its.key -pubout -out its.pub
        put() {
            at=$(curl -sS -f -i -X POST "$base/blobs/uploads/" | tr -d '\r' | sed -n 's/^Location: //Ip')
            curl -sS -f -X PUT --data-binary "@$1" -H 'Content-Type: application/octet-stream' "$at&digest=sha256:$(sha256sum <"$1" | cut -d' ' -f1)"
        }
        of() { printf '"digest":"sha256:%s","size":%s' "$(sha256sum <"$1" | cut -d' ' -f1)" "$(wc -c <"$1")"; }
        printf '{}' >config; put config; put payload
        signature=$(openssl dgst -sha256 -sign its.key payload | base64 -w0)
        oci=application/vnd.oci.image
        printf '{"schemaVersion":2,"mediaType":"%s.manifest.v1+json","config":{"mediaType":"%s.config.v1+json",%s},"layers":[{"mediaType":"application/vnd.dev.cosign.simplesigning.v1+json",%s,"annotations":{"dev.cosignproject.cosign/signature":"%s"}}]}' \
            $oci $oci "$(of config)" "$(of payload)" "$signature" >manifest
        curl -sS -f -X PUT --data-binary @manifest -H "Content-Type: $oci.manifest.v1+json" "$base/manifests/$(echo "$digest" | tr : -).sig"
    "#;
    let mut command = Command::new("bash");
    command.args(["-c", script]).current_dir(stage.rig.path("")).env("digest", &digest);
    let out = command.env("base", format!("http://{}/v2/team/app", stage.registry.address)).output().unwrap();
    assert!(out.status.success(), "{out:?}");
    stage.ok(&["pull", "--verify", "its.pub", &name]);
    stage.fails(&["pull", "--verify", "me.pub", &name], &["by another key"]);
    // A policy wants the whole name unless it says otherwise, as podman's.
    let key = stage.rig.path("its.pub").display().to_string();
    let rule = |more: &str| format!(r#""{repository}": [{{"type": "sigstoreSigned", "keyPath": "{key}"{more}}}]"#);
    let policy = stage.policy(&rule(""));
    stage.fails(&["pull", "--signature-policy", &policy, &name], &["has signed it as", &format!("`{repository}`")]);
    let policy = stage.policy(&rule(r#", "signedIdentity": {"type": "matchRepository"}"#));
    stage.ok(&["pull", "--signature-policy", &policy, &name]);
    // Ours is added to it, and signing with such a key works too.
    stage.ok(&["push", "--sign", "its.key", "base", &name]);
    stage.ok(&["pull", "--signature-policy", &stage.policy(&rule("")), &name]);
    stage.ok(&["push", "--sign", "me.key", "base", &name]);
    let signatures = json(&raw(&stage.name(&format!("team/app:{}.sig", digest.replace(':', "-")))));
    assert_eq!(signatures["layers"].as_array().unwrap().len(), 3);
}

#[test]
fn keys_are_made_once() {
    let rig = Rig::new();
    let run = |arguments: &[&str], password: &str| {
        let mut command = rig.command(arguments);
        command.env("COSIGN_PASSWORD", password);
        Ran::of(command.output().unwrap(), format!("{command:?}"))
    };
    assert_eq!(run(&["key", "generate", "k"], "").code, Some(0));
    let mode = std::os::unix::fs::PermissionsExt::mode(&rig.path("k.key").metadata().unwrap().permissions());
    assert_eq!(mode & 0o777, 0o600);
    assert_eq!(run(&["key", "public", "k.key"], "").stdout, fs::read_to_string(rig.path("k.pub")).unwrap());
    let again = run(&["key", "generate", "k"], "");
    assert!(again.code == Some(1) && again.stderr.contains("exists already"), "{again}");
    let wrong = run(&["key", "public", "k.key"], "x");
    assert!(wrong.code == Some(1) && wrong.stderr.contains("password is wrong"), "{wrong}");
    assert!(rig.fails(["key", "generate", "new"]).contains("$COSIGN_PASSWORD"));
    assert!(!Path::new(&rig.path("new.key")).exists());
}

/// cosign 3 attaches a bundle as a referrer; made here by openssl, sent by curl, listed under the tag that old registries need.
#[test]
fn bundles_are_verified() {
    let Some(stage) = Stage::new() else { return };
    let name = stage.name("team/app:1");
    let digest = stage.ok(&["push", "--quiet", "base", &name]).trim().to_owned();
    let script = r#"set -e
        openssl genpkey -algorithm EC -pkeyopt ec_paramgen_curve:P-256 -out its.key
        openssl pkey -in its.key -pubout -out its.pub
        type=application/vnd.in-toto+json bundle=application/vnd.dev.sigstore.bundle.v0.3+json oci=application/vnd.oci
        printf '{"_type":"https://in-toto.io/Statement/v1","subject":[{"name":"","digest":{"sha256":"%s"}}],"predicateType":"%s"}' \
            "${digest#sha256:}" "$predicate" >statement
        { printf 'DSSEv1 %s %s %s ' ${#type} $type "$(wc -c <statement)"; cat statement; } | openssl dgst -sha256 -sign its.key >sig
        printf '{"mediaType":"%s","verificationMaterial":{"publicKey":{"hint":"x"}},"dsseEnvelope":{"payload":"%s","payloadType":"%s","signatures":[{"sig":"%s"}]}}' \
            $bundle "$(base64 -w0 statement)" $type "$(base64 -w0 sig)" >blob
        put() {
            at=$(curl -sS -f -i -X POST "$base/blobs/uploads/" | tr -d '\r' | sed -n 's/^Location: //Ip')
            curl -sS -f -X PUT --data-binary "@$1" -H 'Content-Type: application/octet-stream' "$at&digest=sha256:$(sha256sum <"$1" | cut -d' ' -f1)"
        }
        of() { printf '"digest":"sha256:%s","size":%s' "$(sha256sum <"$1" | cut -d' ' -f1)" "$(wc -c <"$1")"; }
        printf '{}' >config; put config; put blob
        printf '{"schemaVersion":2,"mediaType":"%s.image.manifest.v1+json","artifactType":"%s","config":{"mediaType":"%s.empty.v1+json",%s},"layers":[{"mediaType":"%s",%s}],"subject":{"mediaType":"%s.image.manifest.v1+json","digest":"%s","size":1}}' \
            $oci $bundle $oci "$(of config)" $bundle "$(of blob)" $oci "$digest" >manifest
        curl -sS -f -X PUT --data-binary @manifest -H "Content-Type: $oci.image.manifest.v1+json" "$base/manifests/sha256:$(sha256sum <manifest | cut -d' ' -f1)"
        printf '{"schemaVersion":2,"mediaType":"%s.image.index.v1+json","manifests":[{"mediaType":"%s.image.manifest.v1+json","artifactType":"%s",%s}]}' \
            $oci $oci $bundle "$(of manifest)" >list
        curl -sS -f -X PUT --data-binary @list -H "Content-Type: $oci.image.index.v1+json" "$base/manifests/$(echo "$digest" | tr : -)"
    "#;
    let attach = |predicate: &str| {
        let mut command = Command::new("bash");
        command.args(["-c", script]).current_dir(stage.rig.path("")).env("digest", &digest).env("predicate", predicate);
        let out = command.env("base", format!("http://{}/v2/team/app", stage.registry.address)).output().unwrap();
        assert!(out.status.success(), "{out:?}");
    };
    attach("https://sigstore.dev/cosign/sign/v1");
    stage.ok(&["pull", "--verify", "its.pub", &name]);
    stage.fails(&["pull", "--verify", "me.pub", &name], &["by another key"]);
    // A policy asks for a name, which bundles don't have.
    let key = stage.rig.path("its.pub").display().to_string();
    let policy = stage.policy(&format!(r#""{}": [{{"type": "sigstoreSigned", "keyPath": "{key}"}}]"#, stage.name("team/app")));
    stage.fails(&["pull", "--signature-policy", &policy, &name], &["without a name"]);
    // Something else that the key says of the image is no signature of it.
    attach("https://slsa.dev/provenance/v1");
    stage.fails(&["pull", "--verify", "its.pub", &name], &["statement of type `https://slsa.dev/provenance/v1`"]);
}

#[test]
fn policies_hold_for_files() {
    assert_ordinary_user();
    let rig = Rig::with_base();
    let directory = rig.path("layout").display().to_string();
    rig.ok(["push", "base", &format!("oci:{directory}")]);
    rig.ok(["push", "base", "docker-archive:saved.tar"]);
    let policy = rig.path("policy.json").display().to_string();
    let build = |from: &str| {
        rig.write("context/Dockerfile", format!("FROM {from}\nENV A=b\n"));
        rig.run(["build", "--signature-policy", &policy, "context"])
    };
    let accept = r#"{"type": "insecureAcceptAnything"}"#;
    for (rules, layout, archive) in [
        (r#""oci": {"": [{"type": "reject"}]}"#.to_owned(), false, true),
        (format!(r#""oci": {{"": [{{"type": "reject"}}], "{directory}": [{accept}]}}"#), true, true),
        (r#""docker-archive": {"": [{"type": "sigstoreSigned", "keyPath": "/k"}]}"#.to_owned(), true, false),
    ] {
        rig.write("policy.json", format!(r#"{{"default": [{accept}], "transports": {{{rules}}}}}"#));
        for (from, works) in [(format!("oci:{directory}"), layout), ("docker-archive:saved.tar".to_owned(), archive)] {
            let ran = build(&from);
            assert_eq!(ran.code == Some(0), works, "{rules}: {ran}");
            assert_eq!(ran.stderr.contains("the policy refuses"), !works, "{ran}");
        }
    }
    // `load` has no option for it, but a user has a file.
    let home = rig.path("home/.config/containers");
    fs::create_dir_all(&home).unwrap();
    fs::copy(&policy, home.join("policy.json")).unwrap();
    let loaded = rig.command(["load", "-i", "saved.tar"]).env("HOME", rig.path("home")).output().unwrap();
    assert!(String::from_utf8_lossy(&loaded.stderr).contains("the policy refuses"), "{loaded:?}");
}
