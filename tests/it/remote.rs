//! ADD of URLs and repositories, from real servers. Servers that misbehave are in `tests/download.rs`.

use std::fs;
use std::os::unix::process::CommandExt as _;

use crate::rig::Rig;
use crate::web::{PASSWORD, Web, holding, listing, sh};

/// A rig with a web server, or the end of the test after a skip.
macro_rules! served {
    ($rig:ident, $web:ident) => {
        let $rig = Rig::new();
        let Some($web) = Web::start(&$rig) else { return };
    };
}

#[test]
fn a_url_becomes_a_file_as_buildkit_makes_it() {
    served!(rig, web);
    web.file("dir/hello%20you.txt".replace("%20", " ").as_str(), "hello\n");
    let url = web.url("dir/hello%20you.txt?a=b");
    let sum = "sha256:5891b5b522d5df086d0ff0b110fbd9d21bb4fc7163af34d08286a2e846f6be03";
    rig.build(
        "x",
        &format!(
            "FROM scratch\nARG U={url}\nARG S={sum}\nADD $U /a/\nADD --chmod=u=rw,go=r --chown=7:8 --checksum=$S ${{U}} /b\nADD $U $U#again /c/\n"
        ),
    );
    let listed = listing(&rig, "x");
    for expected in [
        "-rw------- 0/0 6 2001-09-09 01:46:40 a/hello you.txt",
        "-rw-r--r-- 7/8 6 2001-09-09 01:46:40 b",
        "-rw------- 0/0 6 2001-09-09 01:46:40 c/hello you.txt",
    ] {
        assert!(listed.contains(expected), "{expected} is not in:\n{listed}");
    }
}

#[test]
fn what_did_not_change_is_neither_downloaded_nor_added_again() {
    for (name, tagged) in [("plain/f", false), ("tagged/f", true)] {
        served!(rig, web);
        web.file(name, "one");
        let dockerfile = format!("FROM scratch\nADD {} /f\n", web.url(name));
        rig.build("x", &dockerfile);
        assert_eq!(web.requests(), [format!("GET /{name} 200 -")]);
        assert!(rig.build("x", &dockerfile).contains("cached"));
        let again = web.requests();
        // A server that knows no tags answers by date; Python's knows no tags, so ours does not answer to them either.
        let status = if tagged { 200 } else { 304 };
        assert_eq!(again, [format!("GET /{name} {status} -")]);
        web.file_of(name, "two", 1_100_000_000);
        assert!(!rig.build("x", &dockerfile).contains("cached"));
        rig.ok(["export", "x", "-o", "x.tar"]);
        assert_eq!(sh(&rig.path(""), "tar xOf x.tar f"), "two");
    }
}

#[test]
fn a_wrong_checksum_stops() {
    served!(rig, web);
    web.file("f", "content");
    let wrong = format!("sha256:{}", "0".repeat(64));
    let ran = rig.try_build("x", &format!("FROM scratch\nADD --checksum={wrong} {} /f\n", web.url("f")));
    assert_eq!(ran.code, Some(1), "{ran}");
    for expected in
        ["does not have the checksum", &wrong, "ed7002b439e9ac845f22357d822bac1444730fbdb6016d3ec9432297b9ec9f73", "Dockerfile.x:2:1"]
    {
        assert!(ran.stderr.contains(expected), "{expected} is not in: {ran}");
    }
    for (line, expected) in [
        ("ADD --checksum=md5:1 http://127.0.0.1/f /f", "invalid `--checksum`"),
        ("ADD --checksum=sha256:0 f /f", "needs exactly one source"),
        ("COPY http://127.0.0.1/f /f", "COPY can't download"),
    ] {
        let ran = rig.try_build("x", &format!("FROM scratch\n{line}\n"));
        assert!(ran.code == Some(1) && ran.stderr.contains(expected), "{expected} is not in: {ran}");
    }
}

#[test]
fn only_unpack_unpacks() {
    served!(rig, web);
    sh(&rig.path(""), "mkdir -p d/e && echo x >d/e/f && chmod 750 d/e && tar czf www/d.tgz --owner=5 --group=6 d && cp -r d context");
    let url = web.url("d.tgz");
    rig.write("context/l.tar", "");
    sh(&rig.path(""), "tar cf context/l.tar d");
    rig.build(
        "x",
        &format!(
            "FROM scratch\nADD {url} /a/\nADD --unpack {url} /b/\nADD --unpack=true --chown=9 {url} /c/\nADD --unpack=false l.tar /d/\nADD l.tar /e/\n"
        ),
    );
    let listed = listing(&rig, "x");
    for expected in ["a/d.tgz", "b/d/e/f", "drwxr-x--- 5/6 0", "c/d/e/f", "drwxr-x--- 9/9 0", "d/l.tar", "e/d/e/f"] {
        assert!(listed.contains(expected), "{expected} is not in:\n{listed}");
    }
    assert!(!listed.contains("a/d/"), "{listed}");
}

#[test]
fn https_needs_a_known_authority() {
    let rig = Rig::new();
    let Some(web) = Web::start_tls(&rig) else { return };
    web.file("f", "content");
    web.repository(&rig, "r", "echo x >file");
    let dockerfile = rig.write("Dockerfile", format!("FROM scratch\nADD {} /f\nADD {} /r\n", web.url("f"), web.url("git/r.git")));
    let build = |certificates: Option<&str>, more: &[&str]| {
        let mut command =
            rig.command(["build", "-t", "x", "-f"].iter().copied().chain([dockerfile.to_str().unwrap(), "."]).chain(more.iter().copied()));
        certificates.map(|file| command.env("SSL_CERT_FILE", rig.path(file)));
        let out = command.output().unwrap();
        (out.status.success(), String::from_utf8_lossy(&out.stderr).into_owned())
    };
    let (succeeded, stderr) = build(None, &[]);
    assert!(!succeeded && stderr.contains("certificate of an unknown authority"), "{stderr}");
    let (succeeded, stderr) = build(Some("ca.pem"), &[]);
    assert!(succeeded, "{stderr}");
    let (succeeded, stderr) = build(None, &["--tls-verify=false", "--no-cache"]);
    assert!(succeeded, "{stderr}");
}

#[test]
fn credentials_stay_out_of_everything_but_the_request() {
    served!(rig, web);
    web.file("private/f", "content");
    web.repository(&rig, "private/r", "echo x >file");
    let with_user = |path: &str| web.url(path).replace("http://", &format!("http://user:{PASSWORD}@"));
    let dockerfile = |file: &str, repository: &str| {
        format!("FROM scratch\nADD {} /f\nADD --keep-git-dir {} /r\n", with_user(file), with_user(repository))
    };
    let output = rig.build("x", &dockerfile("private/f", "git/private/r.git"));
    assert!(web.requests().iter().filter(|line| line.contains(" 200 Basic ")).count() >= 3);
    let ran = rig.try_build("y", &dockerfile("private/absent", "git/private/r.git"));
    assert!(ran.stderr.contains("xxxxx@127.0.0.1") && ran.stderr.contains("404"), "{ran}");
    let failed = rig.try_build("y", &dockerfile("private/f", "git/private/absent.git"));
    assert_eq!(failed.code, Some(1), "{failed}");
    for text in [output, ran.stderr, failed.stderr, rig.ok(["history", "--no-trunc", "x"]), rig.ok(["inspect", "x"])] {
        assert!(!text.contains(PASSWORD), "{text}");
    }
    let encoded = "dXNlcjpzM2NyM3QtdzByZA==";
    assert_eq!((holding(&rig, PASSWORD), holding(&rig, encoded)), (String::new(), String::new()));
    // Without them the door is shut.
    let ran = rig.try_build("y", &format!("FROM scratch\nADD {} /r\n", web.url("git/private/r.git")));
    assert!(ran.stderr.contains("GIT_AUTH_TOKEN"), "{ran}");
}

#[test]
fn a_repository_becomes_a_directory() {
    served!(rig, web);
    let repository = web.repository(
        &rig,
        "r",
        "umask 077; mkdir -p sub/dir; echo 1 >f; echo s >sub/dir/s; ln -s f link; printf '#!/bin/sh\\n' >x; chmod +x x",
    );
    let first = repository.sh("git rev-parse HEAD").trim().to_owned();
    repository.sh("git tag -a v1 -m v1 && git branch old");
    repository.commit("echo 2 >f");
    let url = web.url("git/r.git");
    rig.build(
        "x",
        &format!(
            "FROM scratch\nADD {url} /head\nADD {url}#v1 /tag/\nADD {url}#{first} /commit\nADD {url}?branch=old /branch\nADD --chown=3:4 {url}#:sub/dir /sub\n\
             ADD --keep-git-dir {url}#v1 /kept\nADD {url}?keep-git-dir=true&subdir=/sub /kept-sub\n"
        ),
    );
    let listed = listing(&rig, "x");
    for expected in [
        "-rw-r--r-- 0/0 2 2001-09-09 01:46:40 head/f",
        "drwxr-xr-x 0/0 0 2001-09-09 01:46:40 head/sub/dir/",
        "lrwxrwxrwx 0/0 0 2001-09-09 01:46:40 head/link -> f",
        "-rwxr-xr-x 0/0 10 2001-09-09 01:46:40 head/x",
        "-rw-r--r-- 3/4 2 2001-09-09 01:46:40 sub/s",
        "kept/.git/HEAD",
        "kept-sub/dir/s",
    ] {
        assert!(listed.contains(expected), "{expected} is not in:\n{listed}");
    }
    assert!(!listed.contains("head/.git") && !listed.contains("kept-sub/.git"), "{listed}");
    rig.ok(["export", "x", "-o", "x.tar"]);
    let read = |file: &str| sh(&rig.path(""), &format!("tar xOf x.tar {file}"));
    assert_eq!(["head/f", "tag/f", "commit/f", "branch/f"].map(read), ["2\n", "1\n", "1\n", "1\n"]);
    let log = sh(
        &rig.path(""),
        "tar xf x.tar kept && git -C kept -c safe.directory='*' log --oneline && git -C kept -c safe.directory='*' status --short",
    );
    assert_eq!(log.lines().count(), 1, "one commit, nothing changed: {log}");
}

#[test]
fn an_unchanged_branch_costs_one_question_and_a_commit_none() {
    served!(rig, web);
    let repository = web.repository(&rig, "r", "echo 1 >f");
    let commit = repository.sh("git rev-parse HEAD").trim().to_owned();
    let url = web.url("git/r.git");
    let by_branch = format!("FROM scratch\nADD {url}#main /r\n");
    let by_commit = format!("FROM scratch\nADD {url}#{commit} /r\n");
    rig.build("x", &by_branch);
    web.requests();
    assert!(rig.build("x", &by_branch).contains("cached"));
    assert!(web.requests().iter().all(|line| line.contains("info/refs") || line.contains("POST")), "only `ls-remote`");
    assert!(rig.build("x", &by_commit).contains("cached"));
    assert_eq!(web.requests(), [] as [&str; 0]);
    repository.commit("echo 2 >f");
    assert!(!rig.build("x", &by_branch).contains("cached"));
    assert!(rig.build("x", &by_commit).contains("cached"));
}

#[test]
fn a_checksum_pins_a_commit() {
    served!(rig, web);
    let repository = web.repository(&rig, "r", "echo 1 >f");
    repository.sh("git tag -a v1 -m v1");
    repository.publish();
    let commit = repository.sh("git rev-parse HEAD").trim().to_owned();
    let tag = repository.sh("git rev-parse v1").trim().to_owned();
    let url = web.url("git/r.git");
    for sum in [&commit, &commit[..7], &tag] {
        rig.build("x", &format!("FROM scratch\nADD --checksum={sum} {url}#v1 /r\n"));
    }
    let ran = rig.try_build("x", &format!("FROM scratch\nADD {url}?ref=main&checksum={} /r\n", "0".repeat(40)));
    assert!(ran.code == Some(1) && ran.stderr.contains("not the one that is asked for") && ran.stderr.contains(&commit), "{ran}");
}

#[test]
fn submodules_come_along() {
    served!(rig, web);
    web.repository(&rig, "inner", "echo inner >i");
    let outer = web.repository(&rig, "outer", "echo outer >o");
    outer.sh(&format!(
        "git submodule --quiet add {} mod && git submodule --quiet add ../inner.git relative 2>/dev/null || true",
        web.url("git/inner.git")
    ));
    outer.commit("true");
    let url = web.url("git/outer.git");
    rig.build("x", &format!("FROM scratch\nADD {url} /with\nADD {url}?submodules=false /without\n"));
    let listed = listing(&rig, "x");
    assert!(listed.contains("with/mod/i") && !listed.contains("without/mod/i"), "{listed}");
    assert!(!listed.contains("mod/.git"), "{listed}");
}

#[test]
fn other_transports() {
    served!(rig, web);
    web.repository(&rig, "r", "echo 1 >f");
    // Files alone, without any program of git's at the server.
    rig.build("dumb", &format!("FROM scratch\nADD {} /r\n", web.url("r.git")));
    assert!(listing(&rig, "dumb").contains("r/f"));

    let port = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
    let mut daemon = std::process::Command::new("git");
    daemon.args(["daemon", "--reuseaddr", "--export-all", "--listen=127.0.0.1", &format!("--port={port}"), "--log-destination=none"]);
    daemon.arg(format!("--base-path={}", rig.path("www").display())).process_group(0);
    let mut daemon = daemon.spawn().unwrap();
    while std::net::TcpStream::connect(("127.0.0.1", port)).is_err() {
        std::thread::sleep(std::time::Duration::from_millis(20));
    }
    let ran = rig.try_build("daemon", &format!("FROM scratch\nADD git://127.0.0.1:{port}/r.git /r\n"));
    sh(&rig.path(""), &format!("kill -- -{}", daemon.id()));
    daemon.wait().unwrap();
    assert_eq!(ran.code, Some(0), "{ran}");
    assert!(listing(&rig, "daemon").contains("r/f"));

    // ssh itself is not ours to test; that it is called, without a terminal and with the user's agent, is.
    let script =
        format!("#!/bin/sh\necho \"$SSH_AUTH_SOCK $*\" >>{}\nfor last; do :; done\nexec sh -c \"$last\"\n", rig.path("ssh.log").display());
    rig.write("bin/ssh", script);
    sh(&rig.path(""), "chmod +x bin/ssh");
    rig.write("Dockerfile", format!("FROM scratch\nADD git@localhost:{} /r\n", rig.path("www/r.git").display()));
    let mut command = rig.command(["build", "-t", "ssh", "-f", "Dockerfile", "."]);
    let path =
        std::env::join_paths([rig.path("bin")].into_iter().chain(std::env::split_paths(&std::env::var_os("PATH").unwrap()))).unwrap();
    let out = command.env("PATH", path).env("SSH_AUTH_SOCK", "/agent").output().unwrap();
    assert!(out.status.success(), "{}", String::from_utf8_lossy(&out.stderr));
    let log = fs::read_to_string(rig.path("ssh.log")).unwrap();
    assert!(log.lines().all(|line| line.starts_with("/agent -o BatchMode=yes")), "{log}");
}

#[test]
fn errors_show_what_git_says() {
    served!(rig, web);
    web.repository(&rig, "r", "mkdir -p sub; ln -s /etc out; echo 1 >f");
    let url = web.url("git/r.git");
    for (source, expected) in [
        (format!("{url}#nope"), "the repository has no branch or tag `nope`"),
        (format!("{url}#0123456789"), "all its 40 digits"),
        (format!("{url}#{}", "0".repeat(40)), "0000000000000000000000000000000000000000"),
        (web.url("git/absent.git"), "not found"),
        (format!("{url}#:absent"), "the repository has no directory `/absent`"),
        (format!("{url}#:out"), "the repository has no directory `/out`"),
        (format!("{url}#:../../../etc"), "the repository has no directory `/etc`"),
        (format!("{url}#:.git"), "the repository has no directory `/.git`"),
        (format!("{url}#--upload-pack=touch"), "can't be a branch, tag or commit"),
        ("http://127.0.0.1:1/r.git".to_owned(), "cause: fatal: unable to access"),
    ] {
        let ran = rig.try_build("x", &format!("FROM scratch\nADD {source} /r\n"));
        assert!(ran.code == Some(1) && ran.stderr.contains(expected), "{source}: {expected} is not in: {ran}");
    }
    let file = rig.write("Dockerfile", format!("FROM scratch\nADD {url} /r\n"));
    let out = rig.command(["build", "-f", file.to_str().unwrap(), "."]).env("PATH", "/nonexistent").output().unwrap();
    let stderr = String::from_utf8_lossy(&out.stderr);
    assert!(stderr.contains("git is not installed") && stderr.contains("hint: install the package `git`"), "{stderr}");
}

#[test]
fn a_hostile_repository_executes_nothing_and_reaches_nothing() {
    served!(rig, web);
    let marks = rig.path("marks");
    fs::create_dir(&marks).unwrap();
    let touch = |name: &str| format!("touch {}/{name}", marks.display());

    // The user's own configuration names a filter that the repository asks for.
    rig.write(
        "home/.gitconfig",
        format!(
            "[filter \"evil\"]\n\tsmudge = {}; cat\n\trequired = true\n[core]\n\thooksPath = {}\n",
            touch("filter"),
            rig.path("hooks").display()
        ),
    );
    rig.write("hooks/post-checkout", format!("#!/bin/sh\n{}\n", touch("hook")));
    sh(&rig.path(""), "chmod +x hooks/post-checkout");
    web.repository(&rig, "filter", "echo '* filter=evil' >.gitattributes; echo 1 >f");

    // Links where git keeps its own.
    let link = web.repository(&rig, "link", "echo 1 >f");
    let dot_git = "blob=$(printf /etc | git hash-object -w --stdin); tree=$(printf '120000 blob %s\\t%s\\n' $blob .git | git mktree); \
        commit=$(echo evil | git commit-tree $tree); git update-ref refs/heads/main $commit";
    link.sh(dot_git);
    link.publish();

    // Submodules that are this machine's own files, or programs.
    let secret = web.repository(&rig, "secret", "echo secret >s");
    for (name, url) in [
        ("module-file", format!("file://{}", secret.bare.display())),
        ("module-path", secret.bare.display().to_string()),
        ("module-ext", format!("ext::{}", touch("ext"))),
    ] {
        let outer = web.repository(&rig, name, "echo 1 >f");
        outer.sh(&format!(
            "git -c protocol.file.allow=always submodule --quiet add file://{} mod && git config -f .gitmodules submodule.mod.url '{url}'",
            secret.bare.display()
        ));
        outer.commit("true");
    }
    let build = |name: &str| {
        let file = rig.write("Dockerfile", format!("FROM scratch\nADD {} /r\n", web.url(&format!("git/{name}.git"))));
        let mut command = rig.command(["build", "-t", "x", "-f", file.to_str().unwrap(), "."]);
        let out = command.env("HOME", rig.path("home")).env("XDG_CONFIG_HOME", rig.path("home")).output().unwrap();
        (out.status.success(), String::from_utf8_lossy(&out.stderr).into_owned())
    };
    let (succeeded, stderr) = build("filter");
    assert!(succeeded, "{stderr}");
    for (name, expected) in
        [("link", ".git"), ("module-file", "not allowed"), ("module-path", "not allowed"), ("module-ext", "not allowed")]
    {
        let (succeeded, stderr) = build(name);
        assert!(!succeeded && stderr.contains(expected), "{name}: {stderr}");
        assert_eq!(stderr.lines().filter(|line| line.starts_with("error: ")).count(), 1, "{stderr}");
    }
    assert_eq!(fs::read_dir(&marks).unwrap().count(), 0, "something was executed");
    rig.assert_healthy();
}

#[test]
fn secrets_are_credentials_of_their_host() {
    served!(rig, web);
    web.file("private/f", "content");
    web.repository(&rig, "private/r", "echo x >file; printf 'FROM scratch\nCOPY file /\n' >Dockerfile");
    rig.write("token", format!("{PASSWORD}\n"));
    let (file, repository) = (web.url("private/f"), web.url("git/private/r.git"));
    let host = format!("127.0.0.1:{}", web.port);
    let build = |secrets: &[String], lines: &str, context: &str| {
        rig.write("Dockerfile", format!("FROM scratch\n{lines}\n"));
        let mut words: Vec<String> = ["build", "--progress", "plain", "-t", "x"].map(str::to_owned).to_vec();
        words.extend(secrets.iter().flat_map(|secret| ["--secret".to_owned(), format!("{secret},src=token")]));
        if context == "." {
            words.extend(["-f".to_owned(), "Dockerfile".to_owned()]);
        }
        words.push(context.to_owned());
        rig.run(words)
    };
    let (add_file, add_repository) = (format!("ADD {file} /f"), format!("ADD {repository} /r"));
    for (secret, line, context, succeeds) in [
        (format!("id=HTTP_AUTH_TOKEN_{host}"), add_file.as_str(), ".", true),
        ("id=HTTP_AUTH_TOKEN_127.0.0.1".into(), add_file.as_str(), ".", true),
        ("id=HTTP_AUTH_TOKEN_other.example".into(), add_file.as_str(), ".", false),
        ("id=GIT_AUTH_TOKEN".into(), add_file.as_str(), ".", false),
        (format!("id=GIT_AUTH_TOKEN.{host}"), add_repository.as_str(), ".", true),
        ("id=GIT_AUTH_TOKEN".into(), add_repository.as_str(), ".", true),
        ("id=GIT_AUTH_TOKEN".into(), "", repository.as_str(), true),
        ("id=GIT_AUTH_TOKEN.other.example".into(), add_repository.as_str(), ".", false),
    ] {
        // Nothing remembered may answer for them.
        rig.ok(["prune", "--all"]);
        web.requests();
        let ran = build(std::slice::from_ref(&secret), line, context);
        assert_eq!(ran.code == Some(0), succeeds, "{secret} {line} {context}: {ran}");
        let sent = web.requests().iter().any(|line| !line.ends_with(" -"));
        assert_eq!(sent, succeeds, "{secret}");
        assert!(!ran.stderr.contains(PASSWORD), "{ran}");
    }
    // A redirect to another host takes the file, not the credentials.
    let elsewhere = Rig::new();
    let Some(other) = Web::start(&elsewhere) else { return };
    other.file("f", "content");
    let redirect = web.url(&format!("redirect/{}", other.url("f")));
    let ran = build(&[format!("id=HTTP_AUTH_TOKEN_{host}")], &format!("ADD {redirect} /f"), ".");
    assert_eq!(ran.code, Some(0), "{ran}");
    assert_eq!(other.requests(), ["GET /f 200 -"]);
    let encoded = "eC1hY2Nlc3MtdG9rZW46czNjcjN0LXcwcmQ=";
    assert_eq!((holding(&rig, PASSWORD), holding(&rig, encoded)), (String::new(), String::new()));
}
