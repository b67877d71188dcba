//! `RUN --mount` and what else RUN sees: what is there, whose it is, what is left of it afterwards, and what enters the cache key.

use std::fs;

use crate::rig::{Ran, Rig, assert_ordinary_user};

/// Builds with options and, where it matters, in both kinds of workspace.
struct Build<'a> {
    rig: &'a Rig,
    workspace: &'a str,
}

const WORKSPACES: [&str; 2] = ["overlay", "copy"];

impl Build<'_> {
    fn run(&self, dockerfile: &str, options: &[&str]) -> Ran {
        fs::create_dir_all(self.rig.path("context")).unwrap();
        self.rig.write("Dockerfile", dockerfile);
        let mut command = self.rig.command(["build", "--progress", "plain", "-t", "made", "-f", "Dockerfile"]);
        command.args(options).arg("context").env("ROOTLING_WORKSPACE", self.workspace);
        let line = format!("{command:?}");
        Ran::of(command.output().unwrap(), line)
    }

    #[track_caller]
    fn ok(&self, dockerfile: &str, options: &[&str]) -> String {
        let ran = self.run(dockerfile, options);
        assert_eq!(ran.code, Some(0), "{ran}");
        ran.stderr
    }

    #[track_caller]
    fn fails(&self, dockerfile: &str, options: &[&str], wanted: &[&str]) {
        let ran = self.run(dockerfile, options);
        assert!(ran.code.is_some_and(|code| code != 0), "should fail: {ran}");
        for word in wanted {
            assert!(ran.stderr.contains(word), "no {word:?}: {ran}");
        }
    }
}

/// Runs in both kinds of workspace, each with a storage of its own.
fn in_both(test: &dyn Fn(&Build<'_>)) {
    for workspace in WORKSPACES {
        let rig = Rig::with_base();
        test(&Build { rig: &rig, workspace });
    }
}

/// The lines a build's steps printed.
fn printed(output: &str) -> Vec<&str> {
    output.lines().filter_map(|line| line.strip_prefix("  ")).collect()
}

#[test]
fn a_bound_context_shows_what_the_ignore_file_leaves() {
    assert_ordinary_user();
    in_both(&|build| {
        let rig = build.rig;
        for (name, text) in [
            ("context/.dockerignore", "*.o\nsecret\ndeep/*\n!deep/kept\n"),
            ("context/src/a", "one"),
            ("context/src/b.o", "object"),
            ("context/top.o", "object"),
            ("context/secret/key", "hidden"),
            ("context/deep/kept", "kept"),
            ("context/deep/gone", "gone"),
        ] {
            rig.write(name, text);
        }
        let output = build.ok(
            "FROM base\nWORKDIR /work\nRUN --mount=type=bind,target=. find . | sort; cat src/a; stat -c '%u:%g %n' . src src/a; touch x || echo refused\n",
            &[],
        );
        let expected =
            [".", "./.dockerignore", "./deep", "./deep/kept", "./src", "./src/a", "./src/b.o", "one0:0 .", "0:0 src", "0:0 src/a"];
        assert_eq!(&printed(&output)[..expected.len()], expected, "{}: {output}", build.workspace);
        assert!(output.contains("refused") && !rig.path("context/x").exists(), "{output}");
        assert_eq!(rig.sh("made", "find /work"), "/work\n", "nothing of a mount may stay");
    });
}

#[test]
fn writes_to_a_bind_are_dropped() {
    in_both(&|build| {
        build.rig.write("context/f", "first");
        build.rig.write("context/d/g", "g");
        let output = build.ok(
            "FROM base AS other\nRUN mkdir /out && echo tool >/out/tool && chown 33:44 /out/tool && ln -s tool /out/link && chown -h 5:6 /out/link\n\
             FROM base\n\
             RUN --mount=target=/c,rw echo changed >/c/f && rm -r /c/d && echo new >/c/new && cat /c/f && ls /c\n\
             RUN --mount=target=/c cat /c/f /c/d/g && echo\n\
             RUN --mount=from=other,source=/out,target=/o,rw stat -c %u:%g /o/tool /o/link; echo more >>/o/tool; chown 1:2 /o/tool; stat -c %u:%g /o/tool\n\
             RUN --mount=from=other,source=/out,target=/o stat -c %u:%g /o/tool /o/link; cat /o/link\n\
             RUN --mount=from=other,source=out/link,target=/single cat /single; echo x 2>/dev/null >/single || echo refused\n",
            &[],
        );
        let wanted = ["changed", "f", "new", "firstg", "33:44", "5:6", "1:2", "33:44", "5:6", "tool", "tool"];
        assert_eq!(&printed(&output)[..wanted.len()], wanted, "{}: {output}", build.workspace);
        assert!(output.contains("refused"), "{output}");
        assert_eq!(fs::read_to_string(build.rig.path("context/f")).unwrap(), "first");
        assert!(build.rig.path("context/d/g").exists() && !build.rig.path("context/new").exists());
        assert_eq!(build.rig.sh("made", "ls -d /c /o /single 2>/dev/null; echo none"), "none\n");
    });
}

#[test]
fn mounts_go_into_read_only_binds() {
    in_both(&|build| {
        build.rig.write("context/src/f", "f");
        build.rig.write("context/.dockerignore", "node_modules\n");
        build.rig.write("context/node_modules/host", "not for the step");
        let output = build.ok(
            "FROM base AS other\nRUN mkdir /out && echo o >/out/o\nFROM base\nWORKDIR /w\n\
             RUN --mount=target=. --mount=type=cache,target=node_modules --mount=type=secret,id=s,target=deep/er/s \\\n\
               touch node_modules/made && ls node_modules && cat deep/er/s && ls src && touch x 2>/dev/null || echo refused\n\
             RUN --mount=from=other,source=/out,target=/o --mount=type=tmpfs,target=/o/t touch /o/t/x && ls /o\n\
             RUN --mount=target=. --mount=type=tmpfs,target=node_modules/.cache ls -A node_modules\n",
            &["--secret", "id=s,src=context/src/f"],
        );
        assert_eq!(&printed(&output)[..6], ["made", "ff", "refused", "o", "t", ".cache"], "{}: {output}", build.workspace);
        assert!(!build.rig.path("context/deep").exists() && !build.rig.path("context/node_modules/made").exists());
        assert_eq!(build.rig.sh("made", "find /w; ls -d /o 2>/dev/null; echo none"), "/w\nnone\n");
    });
}

#[test]
fn what_a_bind_reads_enters_the_key() {
    let rig = Rig::with_base();
    let build = Build { rig: &rig, workspace: "overlay" };
    rig.write("context/.dockerignore", "ignored\n");
    let dockerfile = "FROM base\nRUN --mount=source=d,target=/d cat /proc/sys/kernel/random/uuid >/mark\n";
    let mut marks = Vec::new();
    for (name, text, again) in [
        ("context/d/f", "one", false),
        ("context/d/f", "one", true),
        ("context/elsewhere", "x", true),
        ("context/d/ignored", "x", false),
        ("context/d/f", "two", false),
    ] {
        rig.write(name, text);
        build.ok(dockerfile, &[]);
        let mark = rig.sh("made", "cat /mark");
        if let Some(last) = marks.last() {
            // `ignored` without a slash is excluded at the top only.
            assert_eq!(*last == mark, again, "{name} {text}");
        }
        marks.push(mark);
    }
}

#[test]
fn caches_outlive_builds_and_keep_owners() {
    in_both(&|build| {
        let mount = "--mount=type=cache,target=/c,id=things,uid=7,gid=8,mode=0750";
        build.ok(
            &format!("FROM base\nRUN {mount} stat -c '%u:%g %a' /c; touch /c/f && chown 33:44 /c/f && chmod 4711 /c/f && mkdir /c/closed && chmod 0 /c/closed\n"),
            &[],
        );
        let output = build
            .ok(&format!("FROM base\nRUN {mount} stat -c '%u:%g %a' /c /c/f /c/closed; rm -r /c/closed\nRUN ls -d /c || echo none\n"), &[]);
        assert_eq!(&printed(&output)[..3], ["7:8 750", "33:44 4711", "0:0 0"], "{}: {output}", build.workspace);
        assert!(output.contains("none"), "{output}");
        // Another owner is another cache; so is another name, and another first content.
        let output = build.ok(
            "FROM base AS other\nRUN mkdir -p /out/sub && echo first >/out/sub/f && chown 9:9 /out/sub/f\nFROM base\n\
             RUN --mount=type=cache,target=/c,id=things find /c\n\
             RUN --mount=type=cache,target=/c,id=things,from=other,source=/out find /c | sort; cat /c/sub/f; stat -c %u /c/sub/f; echo second >/c/sub/f\n\
             RUN --mount=type=cache,target=/d,id=things,from=other,source=/out,ro cat /d/sub/f; touch /d/x 2>/dev/null || echo refused\n",
            &[],
        );
        assert_eq!(&printed(&output)[..7], ["/c", "/c", "/c/sub", "/c/sub/f", "first", "9", "second"], "{output}");
        assert!(output.contains("refused"), "{output}");
        let listed: serde_json::Value = serde_json::from_str(&build.rig.ok(["cache", "--format", "json"])).unwrap();
        let mounts = listed["mounts"].as_array().unwrap();
        assert_eq!(mounts.len(), 3, "{listed}");
        assert!(mounts.iter().all(|mount| mount["id"] == "things" && mount["bytes"].as_u64().unwrap() > 0), "{listed}");
        build.rig.ok(["prune"]);
        assert!(build.rig.ok(["cache"]).contains("things"));
        build.rig.ok(["prune", "--cache"]);
        assert!(!build.rig.ok(["cache"]).contains("things"));
    });
}

#[test]
fn memory_and_nothing_left() {
    in_both(&|build| {
        let output = build.ok(
            "FROM base\nRUN mkdir /before && touch -d @1000000000 /before /opt 2>/dev/null; touch -d @1000000000 /before\n\
             RUN --mount=type=tmpfs,target=/before/t,size=1m stat -c %a /before/t; dd if=/dev/zero of=/before/t/f bs=1024 count=2048 2>/dev/null || echo full\n\
             RUN stat -c %Y /before; find /before\n",
            &[],
        );
        assert_eq!(&printed(&output)[..4], ["1777", "full", "1000000000", "/before"], "{}: {output}", build.workspace);
    });
}

#[test]
fn what_else_run_sees() {
    let rig = Rig::with_base();
    let build = Build { rig: &rig, workspace: "overlay" };
    rig.write("tools/cc", "compiler");
    let tools = rig.path("tools");
    let bind = format!("{}:/opt/tools:ro", tools.display());
    let output = build.ok(
        "FROM base\n\
         RUN cat /etc/hosts /etc/resolv.conf\n\
         RUN ulimit -n; ulimit -Hn; ulimit -c\n\
         RUN cat /opt/tools/cc; echo; touch /opt/tools/x || echo refused\n\
         RUN echo \"$GIVEN $OVER\"\n\
         ENV OVER=dockerfile\n\
         RUN echo \"$GIVEN $OVER\"\n\
         RUN while read a b; do [ \"$a\" != CapBnd: ] || echo $b; done </proc/self/status\n\
         RUN cat /proc/net/dev\n",
        &[
            "--add-host",
            "db:10.9.8.7",
            "--add-host",
            "host.docker.internal:host-gateway",
            "--dns",
            "9.9.9.9",
            "--dns-search",
            "a.example",
            "--ulimit",
            "nofile=100:200",
            "--ulimit",
            "core=0",
            "--shm-size",
            "2m",
            "--bind",
            &bind,
            "--env",
            "GIVEN=given",
            "--env",
            "OVER=option",
            "--cap-drop",
            "ALL",
            "--cap-add",
            "CHOWN,SETUID",
            "--network",
            "none",
        ],
    );
    for wanted in [
        "10.9.8.7\tdb",
        "127.0.0.1\thost.docker.internal",
        "nameserver 9.9.9.9",
        "search a.example",
        "  100\n  200\n  0\n",
        "compiler",
        "refused",
        "given option",
        "given dockerfile",
        "0000000000000081",
    ] {
        assert!(output.contains(wanted), "no {wanted:?} in {output}");
    }
    assert!(!output.contains("eth"), "--network=none has a network: {output}");
    let config = rig.ok(["inspect", "made", "--format", "json"]);
    assert!(config.contains("GIVEN=given") && config.contains("OVER=dockerfile"), "as buildah's, --env is in the image: {config}");
    assert_eq!(rig.sh("made", "ls -d /opt/tools 2>/dev/null; echo none"), "none\n");
    let output = build.ok(
        "FROM base\nRUN while read a b c; do [ \"$b\" != /dev/shm ] || echo $c; done </proc/mounts\nRUN --network=none cat /proc/net/dev\n",
        &["--shm-size", "2m"],
    );
    assert!(output.contains("size=2048k") && !output.contains("eth"), "{output}");
}

#[test]
fn errors_say_what_would_be_right() {
    let rig = Rig::with_base();
    let build = Build { rig: &rig, workspace: "overlay" };
    rig.write("context/source/f", "x");
    rig.write("context/.dockerignore", "hidden\n");
    rig.write("context/hidden/f", "x");
    for (dockerfile, options, wanted) in [
        (
            "FROM base\nRUN --mount=source=sorce,target=/x true\n",
            &[][..],
            &["`sorce` is not in the build context", "did you mean `source`", "Dockerfile:2"][..],
        ),
        ("FROM base\nRUN --mount=source=hidden,target=/x true\n", &[], &["excluded by .dockerignore"]),
        ("FROM base\nRUN --mount=target=. true\n", &[], &["root directory", "WORKDIR"]),
        (
            "FROM base\nRUN --mount=type=secret,id=tokn,required true\n",
            &["--secret", "id=token,src=Dockerfile"],
            &["`tokn` is not given", "`token`"],
        ),
        ("FROM base\nRUN --mount=type=secret,id=tok,required true\n", &[], &["--secret id=tok,src=FILE"]),
        ("FROM base\nRUN --mount=type=ssh,required true\n", &[], &["the SSH agent `default` is not given", "--ssh default"]),
        ("FROM base\nRUN --security=insecure true\n", &[], &["--security=insecure", "--cap-add", "Dockerfile:2"]),
        ("FROM base\nRUN --device=vendor.com/gpu=all,required true\n", &[], &["vendor.com/gpu=all", "--device /dev/"]),
        ("FROM base\nRUN --mount=type=cache,target=/c,from=nowhere-at-all true\n", &[], &["nowhere-at-all"]),
        ("FROM base\n", &["--secret", "id=x,sourc=f"], &["unknown option `sourc`", "did you mean `source`"]),
        ("FROM base\n", &["--secret", "id=x,env=NOT_SET_AT_ALL"], &["NOT_SET_AT_ALL"]),
        ("FROM base\n", &["--secret", "id=x,src=no-such-file"], &["no-such-file"]),
        ("FROM base\n", &["--secret", "src=Dockerfile"], &["it has no id"]),
        ("FROM base\n", &["--ssh", "default=no-such-key"], &["no-such-key"]),
        ("FROM base\n", &["--ulimit", "nofil=3"], &["did you mean `nofile`"]),
        ("FROM base\n", &["--cap-add", "NET_ADMN"], &["did you mean `NET_ADMIN`"]),
        ("FROM base\n", &["--add-host", "db:10.0.0"], &["invalid host"]),
        ("FROM base\n", &["--network", "mynet"], &["mynet", "host"]),
        ("FROM base\n", &["--shm-size", "lots"], &["lots"]),
    ] {
        build.fails(dockerfile, options, wanted);
    }
    // A device that is not required may be missing.
    build.ok("FROM base\nRUN --device=vendor.com/gpu=all true\n", &[]);
}
