use std::os::unix::fs::PermissionsExt as _;

use super::*;

fn password(user: &str, password: &str) -> Login {
    Login::Password { user: user.into(), password: password.into() }
}

fn found(user: &str, word: &str) -> Found {
    Found::Login(password(user, word))
}

fn check(json: &str, registry: &str, repository: &str, expected: Found) {
    let found = AuthFile::parse(json).unwrap().find(registry, repository).unwrap();
    assert_eq!(found, expected, "{json} for {registry}/{repository}");
}

fn helper(name: &str, server: &str) -> Found {
    Found::Helper(Helper::named(name).unwrap(), server.into())
}

#[test]
fn finds_the_most_specific() {
    // dTpw = u:p, YTpi = a:b
    let json = r#"{"auths":{"h.example":{"auth":"dTpw"},"h.example/team":{"auth":"YTpi"},"https://index.docker.io/v1/":{"auth":"dTpw"}}}"#;
    check(json, "h.example", "x/y", found("u", "p"));
    check(json, "h.example", "team/y", found("a", "b"));
    check(json, "h.example", "teams/y", found("u", "p"));
    check(json, "h.example", "", found("u", "p"));
    check(json, "docker.io", "library/debian", found("u", "p"));
    check(json, "other.example", "x", Found::Nothing);
    check("", "h.example", "x", Found::Nothing);
    check(r#"{"auths":{"h.example":{}}}"#, "h.example", "x", Found::Nothing);
}

#[test]
fn knows_tokens_and_helpers() {
    let json = r#"{"auths":{"a.example":{"auth":"dTo=","identitytoken":"I"},"http://b.example/v2/":{"username":"u","password":"p"}},
        "credHelpers":{"c.example":"pass"},"credsStore":"secretservice"}"#;
    check(json, "a.example", "x", Found::Login(Login::IdentityToken { user: Some("u".into()), token: "I".into() }));
    check(json, "b.example", "x", found("u", "p"));
    check(json, "c.example", "x", helper("pass", "c.example"));
    check(json, "docker.io", "x", helper("secretservice", DOCKER_URL));
    check(json, "d.example", "x", helper("secretservice", "d.example"));
}

#[test]
fn refuses_what_it_can_not_read_without_showing_it() {
    assert!(AuthFile::parse("{").is_err());
    let shown = AuthFile::parse(r#"{"auths":{"h":"hush"}}"#).unwrap_err().to_string();
    assert!(!shown.contains("hush"), "{shown}");
    for json in [r#"{"auths":{"h":{"auth":"!!"}}}"#, r#"{"auths":{"h":{"auth":"dQ=="}}}"#, r#"{"credHelpers":{"h":"../evil"}}"#] {
        assert!(AuthFile::parse(json).unwrap().find("h", "x").is_err(), "{json}");
    }
}

#[test]
fn keeps_what_else_is_there() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("deep/er/config.json");
    let hub = Scope::docker_hub();
    let host: Scope = "h.example".parse().unwrap();
    put(&path, &hub, &password("u", "p")).unwrap();
    let text = std::fs::read_to_string(&path).unwrap();
    assert!(text.contains(DOCKER_URL), "docker must find it: {text}");
    std::fs::write(
        &path,
        r#"{"psFormat":"x","auths":{"index.docker.io":{"auth":"eDp5"},"h.example":{"auth":"dTpw"}},"HttpHeaders":{"a":1}}"#,
    )
    .unwrap();
    put(&path, &hub, &Login::IdentityToken { user: Some("u".into()), token: "I".into() }).unwrap();
    let document: Value = serde_json::from_str(&std::fs::read_to_string(&path).unwrap()).unwrap();
    let expected = serde_json::json!({"psFormat": "x", "HttpHeaders": {"a": 1},
        "auths": {"h.example": {"auth": "dTpw"}, DOCKER_URL: {"auth": "dTo=", "identitytoken": "I"}}});
    assert_eq!(document, expected);
    assert!(remove(&path, &host).unwrap() && !remove(&path, &host).unwrap());
    assert!(remove_all(&path).unwrap() && !remove_all(&path).unwrap());
    assert_eq!(std::fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
    assert_eq!(std::fs::metadata(path.parent().unwrap()).unwrap().permissions().mode() & 0o777, 0o700);
    assert_eq!(std::fs::read_dir(path.parent().unwrap()).unwrap().count(), 1, "nothing else is left there");
}

#[test]
fn leaves_broken_files_alone() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("auth.json");
    for text in ["{ broken", r#"{"auths": 3}"#] {
        std::fs::write(&path, text).unwrap();
        assert!(put(&path, &Scope::docker_hub(), &password("u", "p")).is_err());
        assert_eq!(std::fs::read_to_string(&path).unwrap(), text);
    }
    assert!(!remove(&dir.path().join("missing"), &Scope::docker_hub()).unwrap() && !dir.path().join("missing").exists());
}

#[test]
fn links_stay_links() {
    let dir = tempfile::tempdir().unwrap();
    let (link, real) = (dir.path().join("auth.json"), dir.path().join("real.json"));
    std::fs::write(&real, "{}").unwrap();
    std::os::unix::fs::symlink(&real, &link).unwrap();
    put(&link, &Scope::docker_hub(), &password("u", "p")).unwrap();
    assert!(link.is_symlink() && std::fs::read_to_string(&real).unwrap().contains("docker.io"));
}

#[test]
fn many_at_once_lose_nothing() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("new/auth.json");
    std::thread::scope(|scope| {
        for n in 0..8 {
            let path = &path;
            scope.spawn(move || {
                for m in 0..5 {
                    put(path, &format!("h{n}-{m}.example").parse().unwrap(), &password("u", "p")).unwrap();
                }
            });
        }
    });
    assert_eq!(AuthFile::read(&path).unwrap().auths.len(), 40);
}

#[test]
fn writes_through_links_that_lead_nowhere_yet() {
    let dir = tempfile::tempdir().unwrap();
    let at = |name: &str| dir.path().join(name);
    let host: Scope = "h.example".parse().unwrap();
    std::os::unix::fs::symlink("deep/target.json", at("link")).unwrap();
    std::os::unix::fs::symlink("link", at("twice")).unwrap();
    put(&at("twice"), &host, &password("u", "p")).unwrap();
    assert!(at("link").is_symlink() && at("twice").is_symlink());
    assert_eq!(AuthFile::read(&at("deep/target.json")).unwrap().find("h.example", "x").unwrap(), found("u", "p"));
    std::os::unix::fs::symlink("round", at("round")).unwrap();
    assert!(put(&at("round"), &host, &password("u", "p")).unwrap_err().to_string().contains("ELOOP"));
}

#[test]
fn takes_files_only() {
    let dir = tempfile::tempdir().unwrap();
    let host: Scope = "h.example".parse().unwrap();
    let fifo = dir.path().join("fifo");
    rustix::fs::mknodat(rustix::fs::CWD, &fifo, rustix::fs::FileType::Fifo, rustix::fs::Mode::RWXU, 0).unwrap();
    for path in [fifo.as_path(), dir.path(), Path::new("/dev/null")] {
        let error = put(path, &host, &password("u", "p")).unwrap_err();
        assert!(error.what().contains("is not a regular file"), "{error}");
    }
    assert!(AuthFile::read(&fifo).is_err());
    assert!(AuthFile::read(Path::new("/dev/null")).is_ok(), "a way to say that there are no credentials");
}
