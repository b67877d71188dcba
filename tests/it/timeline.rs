//! `--timeline`: a picture of every build, also of one that failed, that any reader of XML accepts.

use std::process::Command;

use crate::rig::{Rig, needs};

const DOCKERFILE: &str = "FROM base AS one\nRUN echo '<&\"' >/one\nFROM base AS two\nRUN echo 2 >/two\nCOPY --from=one /one /\n";

#[test]
fn a_build_is_drawn_as_a_page_and_as_a_picture() {
    let rig = Rig::with_base();
    rig.write("context/Dockerfile", DOCKERFILE);
    for name in ["first.html", "again.svg"] {
        let file = rig.path(name);
        rig.ok(["build", "-t", "drawn", "--timeline", file.to_str().unwrap(), rig.path("context").to_str().unwrap()]);
    }
    let page = std::fs::read_to_string(rig.path("first.html")).unwrap();
    assert!(page.contains("Build of drawn:latest") && page.contains("5 steps, 0 from the cache"), "{page}");
    let picture = std::fs::read_to_string(rig.path("again.svg")).unwrap();
    assert!(picture.contains("3 from the cache") && picture.contains("RUN echo &#39;&lt;&amp;&quot;&#39; &gt;/one"), "{picture}");
    if needs("python3").is_some() {
        let parse = "import sys, xml.dom.minidom; xml.dom.minidom.parse(sys.argv[1])";
        assert!(Command::new("python3").args(["-c", parse]).arg(rig.path("again.svg")).status().unwrap().success());
    }
}

#[test]
fn a_failed_build_is_drawn_too_and_keeps_its_exit_code() {
    let rig = Rig::with_base();
    rig.write("context/Dockerfile", "FROM base\nRUN exit 7\n");
    let file = rig.path("failed.svg");
    let ran = rig.run(["build", "--timeline", file.to_str().unwrap(), rig.path("context").to_str().unwrap()]);
    assert_eq!(ran.code, Some(7), "{ran}");
    assert!(std::fs::read_to_string(file).unwrap().contains("0 from the cache, failed"));
}

#[test]
fn a_file_that_can_not_be_is_refused_before_the_build() {
    let rig = Rig::with_base();
    rig.write("context/Dockerfile", "FROM base\nRUN exit 7\n");
    let context = rig.path("context");
    let error = rig.fails(["build", "--timeline", "x.png", context.to_str().unwrap()]);
    assert!(error.contains("hint: end the name in .html or .svg"), "{error}");
    let error = rig.fails(["build", "--timeline", "/no/such/x.svg", context.to_str().unwrap()]);
    assert!(error.contains("`/no/such` is not a directory"), "{error}");
}
