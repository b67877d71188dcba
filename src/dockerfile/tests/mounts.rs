//! What `--mount` refuses, and variables in it.

use super::super::ast::{Kind, Mount, MountKind};
use super::{parsed, report};
use crate::error::Error;

#[test]
fn refused() {
    for (mount, expected) in [
        ("", "unknown mount option ``"),
        ("type", "mount option `type` needs a value"),
        ("type=cache,target=/x,size=1m", "mount option `size` does not go with `type=cache`"),
        ("type=bind,target=/x,mode=0755", "mount option `mode` does not go with `type=bind`"),
        ("type=tmpfs,target=/x,required", "mount option `required` does not go with `type=tmpfs`"),
        ("type=secret", "a secret mount needs `id`, `target` or `env`"),
        ("type=secret,id=a,source=b", "a secret mount can't have both `source` and `id`"),
        ("type=secret,id=a,from=b", "mount option `from` does not go with `type=secret`"),
        ("type=bind,target=/x,sharing=shared", "mount option `sharing` does not go with `type=bind`"),
        ("type=cache,target=/x,sharing=lokced", "mount option `sharing` can't be `lokced`"),
        ("type=cache,target=/x,mode=99", "mount option `mode` takes an octal number, not `99`"),
        ("type=cache,target=/x,uid=-1", "mount option `uid` takes a number, not `-1`"),
        ("type=cache,target=/x,gid=4294967296", "mount option `gid` takes a number, not `4294967296`"),
        ("type=cache,target=/x,ro=yes", "mount option `ro` takes `true` or `false`, not `yes`"),
        ("type=tmpfs,target=/x,size=1q", "mount option `size` takes a size such as `64m`, not `1q`"),
        ("type=tmpfs,target=/x,size=", "mount option `size` takes a size such as `64m`, not ``"),
        ("target=/x\\\"y", "a quote in `--mount` must be around a whole option"),
        ("\\\"target=/x", "a quote in `--mount` is not closed or not at an option's end"),
    ] {
        let error = super::super::parse("Dockerfile", format!("FROM a\nRUN --mount={mount} b\n").as_bytes()).expect_err(mount);
        assert_eq!(error.what(), expected, "{mount}: {}", report(&error));
    }
}

#[test]
fn variables_are_put_in() {
    let file = parsed("FROM a\nRUN --mount=type=$T,target=/c/$X,uid=$U b\n");
    let Kind::Run(run) = &file.instructions[1].kind else { panic!("no RUN") };
    let mount = run.mounts[0].resolve(&mut |value| Ok(value.replace("$T", "cache").replace("$X", "y").replace("$U", "7")));
    let expected = Mount { kind: MountKind::Cache, target: Some("/c/y".into()), uid: Some(7), ..Mount::default() };
    assert_eq!(mount.expect("a mount"), expected);
    assert!(run.mounts[0].resolve(&mut |_| Err(Error::input("no"))).is_err());
    assert!(run.mounts[0].resolve(&mut |value| Ok(value.to_string())).is_err());
}
