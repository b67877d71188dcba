//! `--root-emulation=fakeroot`: configs are data, the image is prepared once and visibly, and owners outlive the step.

use std::fs;

use crate::build::listing;
use crate::rig::{Ran, Rig, fixture};

/// A distribution that nobody has heard of. What it calls fakeroot is `env`: it only says where the state is, and the commands of the tests
/// write what a fakeroot would.
const CONFIG: &str = r#"
about = "a distribution of the tests"

[[match]]
file = "/etc/os-release"
pattern = '^ID=unheard$'
why = "its name"

[[install]]
test = "test -e /usr/installed"
command = '''
echo installing
echo once >>/usr/installed
'''
why = "so that it is seen how often it ran"

[wrap]
with = ["env", "STATE={state}"]
why = "enough to see what is put before a command"

[[wrap.commands]]
names = ["give"]
why = "it gives files away"
"#;

/// `give OWNER:GROUP MODE FILE`, as a shell function: MODE in octal, with the type.
const GIVE: &str = r#"give() { stat -c "dev=%D,ino=%i,mode=$2,uid=${1%:*},gid=${1#*:},nlink=%h,rdev=${4:-0}" "$3" >>"$STATE"; }"#;

fn rig() -> Rig {
    let rig = Rig::with_base();
    add_distribution(&rig);
    rig
}

/// Gives the rig the distribution's config and an image of it, on the image `base`.
fn add_distribution(rig: &Rig) {
    rig.write("configs/unheard.toml", CONFIG);
    rig.write("configs/README", "not a config");
    rig.write("context/os-release", "NAME=Unheard\nID=unheard\n");
    rig.build(
        "unheard",
        "FROM base\nCOPY os-release /usr/lib/os-release\nRUN mkdir -p /etc && ln -s ../usr/lib/os-release /etc/os-release\n",
    );
}

fn build(rig: &Rig, name: &str, dockerfile: &str, more: &[&str]) -> Ran {
    let file = rig.write(&format!("Dockerfile.{name}"), dockerfile);
    let (configs, context) = (rig.path("configs").display().to_string(), rig.path("context").display().to_string());
    let mut words = vec!["build", "--progress=plain", "--root-emulation=fakeroot", "--fakeroot-configs", &configs, "-t", name];
    words.extend(["-f", file.to_str().unwrap(), &context]);
    words.extend(more);
    rig.run(words)
}

fn owners(rig: &Rig, image: &str) -> String {
    let tar = rig.path(format!("{image}.tar"));
    rig.ok(["export", image, "-o", tar.to_str().unwrap()]);
    listing(&tar)
}

#[track_caller]
fn assert_listed(list: &str, mode_and_owner: &str, path: &str) {
    let found: Vec<&str> = list.lines().filter(|line| line.ends_with(path)).collect();
    assert!(found.iter().any(|line| line.starts_with(mode_and_owner)), "{path} is {found:?}, not {mode_and_owner}");
}

#[test]
fn a_new_distribution_is_a_file() {
    let rig = rig();
    let dockerfile = format!(
        "FROM unheard\nRUN echo give\nRUN {GIVE}; :>/f; give 33:34 100640 /f\nRUN cat /usr/installed; {GIVE}; give 5:5 100600 /f\nUSER 12\nRUN echo \"give $STATE\"; give || true\n"
    );
    let ran = build(&rig, "given", &dockerfile, &[]);
    assert_eq!(ran.code, Some(0), "{ran}");
    assert!(ran.stderr.contains("fakeroot: unheard.toml (a distribution of the tests)"), "{ran}");
    assert_eq!(ran.stderr.matches("  installing\n").count(), 1, "{ran}");
    assert_eq!(ran.stderr.matches("RUN # as unheard.toml says, unless `test -e /usr/installed`:").count(), 1, "{ran}");
    assert_eq!(ran.stderr.matches("  + env STATE=/dev/fakeroot.state /bin/sh -c").count(), 2, "two are rewritten, visibly: {ran}");
    assert!(ran.stderr.contains("\n  give \n"), "only root's commands are: {ran}");
    assert!(rig.ok(["history", "given", "--no-trunc"]).contains("STATE=/dev/fakeroot.state"), "the history shows it too");
    assert_listed(&owners(&rig, "given"), "-rw------- 5/5 ", " f");

    let again = build(&rig, "again", &dockerfile, &[]);
    assert_eq!(again.code, Some(0), "{again}");
    assert!(!again.stderr.contains("installing") && again.stderr.contains("cached: RUN # as unheard.toml says"), "{again}");
    // A bad config matters to those who ask for one only.
    rig.write("configs/broken.toml", "about = 1\n");
    let broken = build(&rig, "broken", &dockerfile, &[]);
    assert!(broken.code == Some(1) && broken.stderr.contains("broken.toml:1:9"), "{broken}");
    let stray = rig.path("configs").display().to_string();
    let file = rig.write("Dockerfile.stray", "FROM unheard\n");
    let context = rig.path("context").display().to_string();
    let error = rig.fails(["build", "--fakeroot-configs", &stray, "-f", file.to_str().unwrap(), &context]);
    assert!(error.contains("`--fakeroot-configs` without `--root-emulation=fakeroot`"), "{error}");
    fs::remove_file(rig.path("configs/broken.toml")).unwrap();
    let dry = build(&rig, "dry", "FROM unheard\nRUN give\n", &["--dry-run", "--no-cache"]);
    assert!(dry.code == Some(0) && dry.stderr.contains("would be executed: RUN # as unheard.toml says"), "{dry}");
    // Another mode's results don't answer for it.
    let other = rig.try_build("other", "FROM unheard\nRUN echo give\n");
    assert!(!other.stderr.contains("cached: RUN"), "{other}");
}

#[test]
fn stages_and_arguments_share_one_installation() {
    let rig = rig();
    let dockerfile = format!(
        "FROM unheard AS one\nARG A=1\nRUN {GIVE}; give 1:1 40755 /usr\nFROM one AS two\nRUN {GIVE}; cat $STATE; give 2:2 40755 /usr\nFROM unheard\nRUN {GIVE}; give 1:1 40755 /usr; cat /usr/installed\nCOPY --from=two /usr/installed /\n"
    );
    let ran = build(&rig, "staged", &dockerfile, &["--jobs=1"]);
    assert_eq!(ran.code, Some(0), "{ran}");
    assert_eq!(ran.stderr.matches("  installing\n").count(), 1, "{ran}");
    assert!(ran.stderr.contains("mode=40755,uid=1,gid=1,"), "a later step is told what an earlier one left: {ran}");
    let ran = build(&rig, "argument", &dockerfile, &["--jobs=1", "--build-arg=A=2"]);
    assert!(ran.code == Some(0) && !ran.stderr.contains("  installing\n"), "{ran}");
}

#[test]
fn what_is_pretended_lasts() {
    lasts(&rig());
}

/// Where the file system holds no attributes, and overlays can't be mounted, the layer's record has it.
#[test]
fn what_is_pretended_lasts_without_attributes() {
    let Some(rig) = Rig::on_fuse("--xattr-none") else { return };
    let other = Rig::with_base();
    let tar = other.path("base.tar").display().to_string();
    other.ok(["export", "base", "-o", &tar]);
    rig.ok(["import", &tar, "base"]);
    add_distribution(&rig);
    lasts(&rig);
}

fn lasts(rig: &Rig) {
    let dockerfile = format!(
        "FROM unheard\n\
         RUN {GIVE}; :>/file; ln -s file /link; mkdir /locked /plain; :>/device; mkfifo /fifo; :>/hard; ln /hard /link2; \
             give 33:34 104755 /file; give 35:36 120777 /link; give 0:0 40000 /locked; give 0:6 20660 /device 259; give 37:0 10644 /fifo; \
             give 38:38 100644 /hard; give 0:0 40755 /plain; give 39:39 40755 /usr; give 40:40 100644 /no-such 2>/dev/null || :\n\
         RUN cat /dev/null; {GIVE}; sort $STATE; give 0:0 100755 /file\n\
         RUN <<SCRIPT\n#!/bin/sh\n{GIVE}\n:>/scripted\ngive 7:8 100644 /scripted\nSCRIPT\n"
    );
    let ran = build(rig, "kinds", &dockerfile, &[]);
    assert_eq!(ran.code, Some(0), "{ran}");
    for recalled in
        ["mode=104755,uid=33,gid=34", "mode=120777,uid=35,gid=36", "mode=40000,uid=0,gid=0", "mode=20660,uid=0,gid=6,nlink=1,rdev=259"]
    {
        assert!(ran.stderr.contains(recalled), "{recalled} is not recalled: {ran}");
    }
    let list = owners(rig, "kinds");
    for (what, path) in [
        ("-rwxr-xr-x 0/0 ", " file"),
        ("lrwxrwxrwx 35/36 ", " link"),
        ("d--------- 0/0 ", " locked/"),
        ("drwxr-xr-x 0/0 ", " plain/"),
        ("crw-rw---- 0/6 ", " device"),
        ("prw-r--r-- 37/0 ", " fifo"),
        ("-rw-r--r-- 38/38 ", " hard"),
        ("drwxr-xr-x 39/39 ", " usr/"),
        ("-rw-r--r-- 7/8 ", " scripted"),
    ] {
        assert_listed(&list, what, path);
    }
}

#[test]
fn run_is_told_what_a_build_left() {
    let rig = rig();
    let ran = build(&rig, "left", &format!("FROM unheard\nRUN {GIVE}; :>/f; give 33:34 100640 /f\n"), &[]);
    assert_eq!(ran.code, Some(0), "{ran}");
    let configs = rig.path("configs").display().to_string();
    let run = |words: &[&str]| rig.run(["run", "--root-emulation=fakeroot", "--fakeroot-configs", &configs].iter().chain(words));
    let ran = run(&["left", "--", "sh", "-c", "cat $STATE; echo >>$STATE"]);
    assert!(ran.code == Some(0) && ran.stdout.contains("mode=100640,uid=33,gid=34,"), "{ran}");
    let ran = run(&["--user=12", "left", "--", "true"]);
    assert!(ran.code == Some(125) && ran.stderr.contains("error: under fakeroot the command is root"), "{ran}");
    let ran = run(&["base", "--", "true"]);
    assert!(ran.code == Some(125) && ran.stderr.contains("error: no fakeroot config is for `base`"), "{ran}");
}

#[test]
fn an_image_without_a_config_is_warned_of() {
    let rig = rig();
    let ran = build(&rig, "strange", "FROM base\nRUN chown 1:1 /usr\nRUN true\n", &[]);
    assert_eq!(ran.code, Some(0), "{ran}");
    assert_eq!(ran.stderr.matches("warning: no fakeroot config is for this image").count(), 1, "{ran}");
}

#[test]
fn info_tells_which_config_matches() {
    let rig = rig();
    let configs = rig.path("configs").display().to_string();
    let info = |words: &[&str]| rig.ok(["info", "--fakeroot-configs", &configs].iter().chain(words));
    let text = info(&["--fakeroot", "unheard"]);
    for part in [
        "config   unheard (a distribution of the tests)",
        "configs/unheard.toml",
        "unless `test -e /usr/installed`",
        "# it gives files away",
    ] {
        assert!(text.contains(part), "{part:?} is not in {text}");
    }
    assert!(info(&["--fakeroot", "base"]).starts_with("none is for `base`\n"));
    let list = info(&["--fakeroot"]);
    assert!(list.contains("unheard") && list.contains("debian") && list.contains("built in"), "{list}");
    let json: serde_json::Value = serde_json::from_str(&info(&["--format=json", "--fakeroot", "unheard"])).unwrap();
    assert_eq!(json["config"], "unheard");
    // A root file system that is no image.
    rig.write("tree/etc/os-release", "ID=debian\n");
    let tree = rig.path("tree").display().to_string();
    assert!(info(&["--fakeroot", &tree]).starts_with("config   debian "));
    // A file of the user's own hides a built-in one of its name.
    rig.write("configs/debian.toml", CONFIG.replace("unheard", "other"));
    assert!(info(&["--fakeroot", &tree]).starts_with("none is for "));
}

#[test]
fn configs_are_found_where_they_are_said_to_be() {
    let rig = rig();
    let found = |variable: &str, value: &str| {
        let mut command = rig.command(["info", "--fakeroot", "unheard"]);
        command.env_remove("XDG_CONFIG_HOME").env("HOME", rig.path("nowhere")).env(variable, value);
        String::from_utf8(command.output().unwrap().stdout).unwrap().starts_with("config   unheard")
    };
    fs::create_dir_all(rig.path("home/.config/rootling")).unwrap();
    fs::rename(rig.path("configs"), rig.path("home/.config/rootling/fakeroot-configs")).unwrap();
    let path = |name: &str| rig.path(name).display().to_string();
    assert!(!found("HOME", &path("nowhere")));
    assert!(found("HOME", &path("home")));
    assert!(found("XDG_CONFIG_HOME", &path("home/.config")));
    assert!(found("ROOTLING_FAKEROOT_CONFIGS", &format!("{}:{}", path("home"), path("home/.config/rootling/fakeroot-configs"))));
}

#[test]
fn a_bad_config_is_an_error_with_its_place() {
    let rig = rig();
    rig.write("bad/unheard.toml", CONFIG.replace("'^ID=unheard$'", "'^ID=(unheard$'"));
    let bad = rig.path("bad").display().to_string();
    let error = rig.fails(["info", "--fakeroot", "unheard", "--fakeroot-configs", &bad]);
    assert!(error.contains("error: invalid fakeroot config") && error.contains("unheard.toml:6:11"), "{error}");
    assert!(error.contains("cause: not a regular expression: unclosed group") && error.contains("hint: "), "{error}");
    let none = rig.path("none").display().to_string();
    assert!(rig.fails(["info", "--fakeroot", "--fakeroot-configs", &none]).contains("hint: `--fakeroot-configs`"));
}

#[test]
fn network_fakeroot_installs_packages_on_debian() {
    let Some(debian) = fixture("fixtures/debian.tar") else { return };
    let rig = Rig::new();
    rig.ok(["import", debian.to_str().unwrap(), "debian:12"]);
    let dockerfile = "FROM debian:12\n\
        RUN apt-get update && apt-get install -y --no-install-recommends openssh-client cron && rm -rf /var/lib/apt/lists/* /var/cache/apt/*.bin\n\
        RUN [\"chown\", \"-h\", \"33:33\", \"/etc/debian_version\", \"/etc/alternatives/awk\"]\n\
        RUN chown 33:33 /etc/cron.d && stat -c '%U %a' /usr/bin/ssh-agent /etc/debian_version /usr/bin/passwd | tee /seen\n\
        RUN true && mknod /null c 1 3\n";
    fs::create_dir(rig.path("context")).unwrap();
    let ran = build_debian(&rig, dockerfile);
    assert_eq!(ran.code, Some(0), "{ran}");
    assert_eq!(ran.stderr.matches("as debian.toml says, unless `command -v fakeroot`").count(), 1, "{ran}");
    assert_eq!(ran.stderr.matches("  + fakeroot -i ").count(), 4, "{ran}");
    let list = owners(&rig, "fakeroot");
    for (what, path) in [
        ("-rwxr-sr-x 0/10", " usr/bin/ssh-agent"),
        ("-rwxr-sr-x 0/10", " usr/bin/crontab"),
        ("drwx-wx--T 0/10", " var/spool/cron/crontabs/"),
        ("-rwsr-xr-x 0/0 ", " usr/bin/passwd"),
        ("-rw-r--r-- 33/33 ", " etc/debian_version"),
        ("lrwxrwxrwx 33/33 ", " etc/alternatives/awk"),
        ("drwxr-xr-x 33/33 ", " etc/cron.d/"),
        ("crw-r--r-- 0/0 ", " null"),
    ] {
        assert_listed(&list, what, path);
    }
    assert!(
        !list.contains(" var/lib/apt/lists/deb") && !list.contains(" var/cache/apt/archives/fakeroot"),
        "nothing is left of the installation"
    );
    let seen = rig.sh("fakeroot", "cat /seen");
    assert_eq!(seen, "root 2755\nwww-data 644\nroot 4755\n");
    let again = build_debian(&rig, dockerfile);
    assert!(again.code == Some(0) && !again.stderr.contains("  + fakeroot"), "{again}");
    let ran =
        rig.run(["run", "--root-emulation=fakeroot", "fakeroot", "--", "stat", "-c", "%U", "/etc/debian_version", "/etc/alternatives/awk"]);
    assert_eq!((ran.code, ran.stdout.as_str()), (Some(0), "www-data\nwww-data\n"), "{ran}");
    let ran = rig.run(["run", "--root-emulation=fakeroot", "debian:12", "--", "true"]);
    assert!(ran.code == Some(125) && ran.stderr.contains("`debian:12` has no `fakeroot`"), "{ran}");
}

fn build_debian(rig: &Rig, dockerfile: &str) -> Ran {
    let file = rig.write("Dockerfile.debian", dockerfile);
    let context = rig.path("context").display().to_string();
    rig.run(["build", "--progress=plain", "--root-emulation=fakeroot", "-t", "fakeroot", "-f", file.to_str().unwrap(), &context])
}
